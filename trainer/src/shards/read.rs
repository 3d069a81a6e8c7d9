//! Reading a prepared dataset.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};

use super::manifest::{ShardFile, file_sha256};
use super::{ImageHead, ImageRow, Manifest, RowAt, Split, TextKind, TextRow, schema};
use crate::error::{Error, Result};

/// The file of a picture; clones share it.
pub type ImageBytes = ByteArray;

/// Where `image.bytes` stands among the leaves of a picture shard's schema.
const IMAGE_BYTES_LEAF: usize = 0;

/// A prepared dataset on disk. Opening reads the manifest only; rows are read as they are asked
/// for, one row group at a time.
#[derive(Debug, Clone)]
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
}

impl Dataset {
    /// Opens the dataset in `folder`.
    ///
    /// # Errors
    /// Names the manifest or the shard that is absent or not what it should be.
    pub fn open(folder: &Path) -> Result<Self> {
        let manifest = Manifest::read(folder)?;
        if let Some(file) = manifest.files.iter().find(|f| !folder.join(&f.path).is_file()) {
            return Err(Error::data(folder.join(&file.path), "missing, but dataset.json lists it"));
        }
        Ok(Self { folder: folder.to_path_buf(), manifest })
    }

    /// The folder that the dataset lies in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the dataset holds.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where label column `name` stands in [`ImageRow::labels`].
    pub fn label(&self, name: &str) -> Option<usize> {
        self.manifest.labels.iter().position(|label| label == name)
    }

    /// The pictures without their bytes, in the order they were written, with errors as in
    /// [`Dataset::images`].
    pub fn image_heads(&self) -> Rows<ImageHead> {
        let labels = Arc::new(self.manifest.labels.clone());
        let convert = move |row, at| image_head(row, at, &labels);
        let mut rows = self.rows("images-", Box::new(convert));
        rows.skips_bytes = true;
        rows
    }

    /// The bytes of all pictures of one row group, in order.
    ///
    /// # Errors
    /// Names the shard when it cannot be read.
    pub fn image_bytes(&self, shard: u32, row_group: u32) -> Result<Vec<ImageBytes>> {
        let mut shards = self.manifest.files.iter().filter(|f| f.path.starts_with("images-"));
        let file = shards.nth(shard as usize);
        let file = file.ok_or_else(|| Error::data(&self.folder, "has fewer picture shards"))?;
        let path = self.folder.join(&file.path);
        let fault = |e: ParquetError| Error::data(&path, format!("row group {row_group}: {e}"));
        let opened = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let reader = SerializedFileReader::new(opened).map_err(fault)?;
        let group = reader.get_row_group(row_group as usize).map_err(fault)?;
        let column = group.get_column_reader(IMAGE_BYTES_LEAF).map_err(fault)?;
        let mut column = get_typed_column_reader::<ByteArrayType>(column);
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut bytes = Vec::with_capacity(rows);
        while bytes.len() < rows {
            let (read, _, _) =
                column.read_records(rows - bytes.len(), None, None, &mut bytes).map_err(fault)?;
            if read == 0 {
                return Err(Error::data(&path, format!("row group {row_group} ends early")));
            }
        }
        Ok(bytes)
    }

    /// The pictures, in the order they were written. A row that cannot be used is an error that
    /// names its file and row (counted from 0 within the file); the rows after it still follow.
    pub fn images(&self) -> Rows<ImageRow> {
        let labels = Arc::new(self.manifest.labels.clone());
        self.rows("images-", Box::new(move |row, _| image_row(row, &labels)))
    }

    /// The texts, in the order they were written, with errors as in [`Dataset::images`].
    pub fn texts(&self) -> Rows<TextRow> {
        self.rows("texts-", Box::new(|row, _| text_row(row)))
    }

    fn rows<R>(&self, prefix: &str, convert: Convert<R>) -> Rows<R> {
        let mut files: Vec<ShardFile> =
            self.manifest.files.iter().filter(|f| f.path.starts_with(prefix)).cloned().collect();
        files.reverse();
        Rows {
            folder: self.folder.clone(),
            files,
            opened: 0,
            skips_bytes: false,
            shard: None,
            buffer: Vec::new().into_iter(),
            convert,
        }
    }
}

/// Turns a Parquet row into ours, or says in words why not.
type Convert<R> = Box<dyn FnMut(Row, RowAt) -> std::result::Result<R, String> + Send>;

/// An iterator over the rows of several shards.
pub struct Rows<R> {
    folder: PathBuf,
    /// Shards not yet opened, the next one last.
    files: Vec<ShardFile>,
    /// How many shards have been opened.
    opened: u32,
    /// Whether the bytes of pictures are left unread.
    skips_bytes: bool,
    shard: Option<Shard>,
    /// What is left of the current row group.
    buffer: std::vec::IntoIter<parquet::errors::Result<Row>>,
    convert: Convert<R>,
}

/// The shard being read.
struct Shard {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    next_row_group: usize,
    /// The number within its row group of the row that the buffer gives next.
    in_group: u32,
    /// The number of the row that the buffer gives next.
    row: u64,
}

impl Shard {
    /// Opens a shard whose bytes are those that were written: a damaged one is refused here, where
    /// it can be named, and never reaches the Parquet reader.
    fn open(folder: &Path, shard: &ShardFile) -> Result<Self> {
        let path = folder.join(&shard.path);
        if file_sha256(&path)? != shard.sha256 {
            let message =
                "damaged: its SHA-256 is not the one in dataset.json; prepare the data again";
            return Err(Error::data(&path, message));
        }
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let reader = SerializedFileReader::new(file)
            .map_err(|e| Error::data(&path, format!("not a Parquet file: {e}")))?;
        Ok(Self { path, reader, next_row_group: 0, in_group: 0, row: 0 })
    }

    /// Reads the next row group whole; `None` after the last one.
    fn next_rows(
        &mut self,
        skips_bytes: bool,
    ) -> Option<Result<Vec<parquet::errors::Result<Row>>>> {
        if self.next_row_group >= self.reader.num_row_groups() {
            return None;
        }
        let group = self.next_row_group;
        self.next_row_group += 1;
        self.in_group = 0;
        let read = || {
            let group = self.reader.get_row_group(group)?;
            let all = self.reader.metadata().file_metadata().schema();
            let projection = skips_bytes.then(|| schema::without_bytes(all)).transpose()?;
            Ok(RowIter::from_row_group(projection, group.as_ref())?.collect())
        };
        Some(read().map_err(|e: ParquetError| {
            Error::data(&self.path, format!("row group {group}, from row {}: {e}", self.row))
        }))
    }
}

impl<R> Iterator for Rows<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let (Some(shard), Some(row)) = (&mut self.shard, self.buffer.next()) {
                let number = shard.row;
                let at = RowAt {
                    shard: self.opened - 1,
                    row_group: shard.next_row_group as u32 - 1,
                    row: shard.in_group,
                };
                shard.row += 1;
                shard.in_group += 1;
                let row = row.map_err(|e| e.to_string());
                let converted = row.and_then(|row| (self.convert)(row, at));
                return Some(converted.map_err(|message| {
                    Error::data(&shard.path, format!("row {number}: {message}"))
                }));
            }
            match self.shard.as_mut().map(|shard| shard.next_rows(self.skips_bytes)) {
                Some(Some(Ok(rows))) => self.buffer = rows.into_iter(),
                Some(Some(Err(error))) => {
                    self.shard = None;
                    return Some(Err(error));
                }
                None | Some(None) => {
                    let file = self.files.pop()?;
                    self.opened += 1;
                    match Shard::open(&self.folder, &file) {
                        Ok(shard) => self.shard = Some(shard),
                        Err(error) => return Some(Err(error)),
                    }
                }
            }
        }
    }
}

impl<R> std::fmt::Debug for Rows<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("files_left", &self.files).finish_non_exhaustive()
    }
}

fn image_row(row: Row, labels: &[String]) -> std::result::Result<ImageRow, String> {
    let mut columns = row.into_columns();
    let image = match take(&mut columns, "image")? {
        Field::Group(image) => image,
        other => return Err(format!("column `image` is not a {{bytes, path}} struct but {other}")),
    };
    let mut parts = image.into_columns();
    let bytes = match take(&mut parts, "bytes")? {
        Field::Bytes(bytes) => bytes.data().to_vec(),
        _ => return Err("`image.bytes` is null or not bytes".to_owned()),
    };
    if bytes.is_empty() {
        return Err("`image.bytes` is empty".to_owned());
    }
    let path = text(&mut parts, "path")?;
    let group = text(&mut columns, "group")?;
    let split = split(&mut columns)?;
    let labels = labels
        .iter()
        .map(|label| optional_text(&mut columns, label))
        .collect::<std::result::Result<_, _>>()?;
    Ok(ImageRow { bytes, path, group, split, labels })
}

fn image_head(row: Row, at: RowAt, labels: &[String]) -> std::result::Result<ImageHead, String> {
    let mut columns = row.into_columns();
    let Field::Group(image) = take(&mut columns, "image")? else {
        return Err("column `image` is not a {bytes, path} struct".to_owned());
    };
    Ok(ImageHead {
        path: text(&mut image.into_columns(), "path")?,
        group: text(&mut columns, "group")?,
        split: split(&mut columns)?,
        labels: labels
            .iter()
            .map(|label| optional_text(&mut columns, label))
            .collect::<std::result::Result<_, _>>()?,
        at,
    })
}

fn text_row(row: Row) -> std::result::Result<TextRow, String> {
    let mut columns = row.into_columns();
    let kind = text(&mut columns, "kind")?;
    let row = TextRow {
        text: text(&mut columns, "text")?,
        lang: text(&mut columns, "lang")?,
        kind: TextKind::parse(&kind)
            .ok_or_else(|| format!("column `kind` is `{kind}`, not `name` or `keyword`"))?,
        group: text(&mut columns, "group")?,
        split: split(&mut columns)?,
    };
    if row.text.trim().is_empty() {
        return Err("column `text` is empty".to_owned());
    }
    Ok(row)
}

fn split(columns: &mut [(String, Field)]) -> std::result::Result<Split, String> {
    let value = text(columns, "split")?;
    Split::parse(&value)
        .ok_or_else(|| format!("column `split` is `{value}`, not `train`, `dev` or `test`"))
}

/// Takes the value of column `name` out of a row.
fn take(columns: &mut [(String, Field)], name: &str) -> std::result::Result<Field, String> {
    columns
        .iter_mut()
        .find(|(column, _)| column == name)
        .map(|(_, field)| std::mem::replace(field, Field::Null))
        .ok_or_else(|| format!("there is no column `{name}`"))
}

fn optional_text(
    columns: &mut [(String, Field)],
    name: &str,
) -> std::result::Result<Option<String>, String> {
    match take(columns, name)? {
        Field::Str(text) => Ok(Some(text)),
        Field::Null => Ok(None),
        _ => Err(format!("column `{name}` is not text")),
    }
}

fn text(columns: &mut [(String, Field)], name: &str) -> std::result::Result<String, String> {
    optional_text(columns, name)?.ok_or_else(|| format!("column `{name}` is null"))
}
