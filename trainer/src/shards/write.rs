//! Writing a prepared dataset.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::TypePtr;

use super::manifest::{Counts, file_sha256};
use super::schema;
use super::{
    FORMAT_VERSION, ImageRow, Manifest, PairedPictures, ShardFile, Skipped, Source, TextKind,
    TextRow,
};
use crate::error::{Error, Result};

/// A row group is closed at this many rows: what a reader holds in memory at a time.
const ROW_GROUP_ROWS: usize = 1_000;
/// Or at this many bytes of pictures.
const ROW_GROUP_BYTES: usize = 32 << 20;
/// A shard is closed at this many bytes of rows.
const SHARD_BYTES: usize = 256 << 20;

/// Writes a prepared dataset: rows in, then [`DatasetWriter::finish`]. Until then the folder has
/// no manifest, so that a reader never takes half a dataset for a whole one.
///
/// The same rows in the same order give the same bytes.
pub struct DatasetWriter {
    folder: PathBuf,
    manifest: Manifest,
    groups: BTreeSet<String>,
    images: ShardSet<ImageRow>,
    texts: ShardSet<TextRow>,
}

impl DatasetWriter {
    /// Starts a dataset in `folder`, which is made where it is missing. Shards and a manifest that
    /// an earlier run left there are removed; other files stay.
    ///
    /// # Errors
    /// When the folder cannot be made or written, or a label has the name of another column.
    pub fn create(folder: &Path, name: &str, labels: &[&str]) -> Result<Self> {
        let labels: Vec<String> = labels.iter().map(|&l| l.to_owned()).collect();
        let distinct: BTreeSet<&String> = labels.iter().collect();
        let taken = labels.iter().find(|l| schema::IMAGE_COLUMNS.contains(&l.as_str()));
        if taken.is_some() || distinct.len() != labels.len() {
            return Err(Error::data(folder, format!("label columns {labels:?} clash")));
        }
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        remove_earlier(folder)?;
        let fault = |e: ParquetError| Error::data(folder, e.to_string());
        let images = ShardSet::new(
            folder,
            "images",
            schema::images(&labels).map_err(fault)?,
            schema::properties(Some(&labels)),
        );
        let texts = ShardSet::new(
            folder,
            "texts",
            schema::texts().map_err(fault)?,
            schema::properties(None),
        );
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            name: name.to_owned(),
            labels,
            paired: None,
            numeric: BTreeMap::new(),
            counts: Counts::default(),
            sources: Vec::new(),
            notes: Vec::new(),
            skipped: Vec::new(),
            files: Vec::new(),
        };
        Ok(Self { folder: folder.to_path_buf(), manifest, groups: BTreeSet::new(), images, texts })
    }

    /// Says which pictures stand where texts do. Before the first row.
    pub fn pair(&mut self, paired: PairedPictures) {
        self.manifest.paired = Some(paired);
    }

    /// Says that a factor is a number, with the label columns of its coordinates. Before the first row.
    pub fn numeric(&mut self, factor: &str, columns: &[&str]) {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        self.manifest.numeric.insert(factor.to_owned(), columns);
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// When the row has another number of labels than the dataset, or the disk refuses it.
    pub fn push_image(&mut self, row: ImageRow) -> Result<()> {
        if row.labels.len() != self.manifest.labels.len() {
            let message = format!(
                "picture `{}` has {} labels for the columns {:?}",
                row.path,
                row.labels.len(),
                self.manifest.labels
            );
            return Err(Error::data(&self.folder, message));
        }
        self.manifest.counts.images += 1;
        *self.manifest.counts.images_by_split.entry(row.split).or_default() += 1;
        for (column, value) in self.manifest.labels.iter().zip(&row.labels) {
            if self.manifest.is_numeric(column) {
                continue;
            }
            let values = self.manifest.counts.images_by_label.entry(column.clone()).or_default();
            if let Some(value) = value {
                *values.entry(value.clone()).or_default() += 1;
            }
        }
        if !self.groups.contains(&row.group) {
            self.groups.insert(row.group.clone());
        }
        self.images.push(row)
    }

    /// Adds a text.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn push_text(&mut self, row: TextRow) -> Result<()> {
        let counts = &mut self.manifest.counts;
        counts.texts += 1;
        counts.names += u64::from(row.kind == TextKind::Name);
        *counts.texts_by_split.entry(row.split).or_default() += 1;
        *counts.texts_by_lang.entry(row.lang.clone()).or_default() += 1;
        if !self.groups.contains(&row.group) {
            self.groups.insert(row.group.clone());
        }
        self.texts.push(row)
    }

    /// Notes where rows come from.
    pub fn add_source(&mut self, source: Source) {
        self.manifest.sources.push(source);
    }

    /// Notes what else is worth knowing, in words.
    pub fn note(&mut self, what: impl Into<String>) {
        self.manifest.notes.push(what.into());
    }

    /// Notes what was left out; it is counted and named in the manifest.
    pub fn skip(&mut self, what: impl Into<String>, reason: impl Into<String>) {
        self.manifest.skipped.push(Skipped { what: what.into(), reason: reason.into() });
    }

    /// Closes the shards and writes the manifest, which it returns.
    ///
    /// # Errors
    /// When the disk refuses it.
    pub fn finish(self) -> Result<Manifest> {
        let mut manifest = self.manifest;
        manifest.counts.groups = self.groups.len() as u64;
        manifest.counts.skipped = manifest.skipped.len() as u64;
        manifest.files = self.images.finish()?;
        manifest.files.extend(self.texts.finish()?);
        manifest.write(&self.folder)?;
        Ok(manifest)
    }
}

impl std::fmt::Debug for DatasetWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatasetWriter").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Removes the manifest first, then the shards, of an earlier run.
fn remove_earlier(folder: &Path) -> Result<()> {
    let mut earlier = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_shard = (name.starts_with("images-") || name.starts_with("texts-"))
            && name.ends_with(".parquet");
        if is_shard {
            earlier.push(entry.path());
        }
    }
    let manifest = folder.join(super::MANIFEST_FILE);
    if manifest.exists() {
        earlier.insert(0, manifest);
    }
    earlier.iter().try_for_each(|path| std::fs::remove_file(path).map_err(|e| Error::io(path, e)))
}

/// A row that knows its columns.
trait Columns {
    /// About how many bytes the row holds.
    fn bytes(&self) -> usize;
    /// The row's values in the order of the schema's leaves; `None` is null.
    fn values(&self) -> Vec<Option<&[u8]>>;
}

impl Columns for ImageRow {
    fn bytes(&self) -> usize {
        self.bytes.len() + self.path.len() + self.group.len()
    }

    fn values(&self) -> Vec<Option<&[u8]>> {
        let columns = [&self.path, &self.group, self.split.as_str()];
        let mut values = vec![Some(&self.bytes[..])];
        values.extend(columns.into_iter().map(|text| Some(text.as_bytes())));
        values.extend(self.labels.iter().map(|label| label.as_deref().map(str::as_bytes)));
        values
    }
}

impl Columns for TextRow {
    fn bytes(&self) -> usize {
        self.text.len() + self.lang.len() + self.group.len()
    }

    fn values(&self) -> Vec<Option<&[u8]>> {
        let columns =
            [&self.text, &self.lang, self.kind.as_str(), &self.group, self.split.as_str()];
        columns.into_iter().map(|text| Some(text.as_bytes())).collect()
    }
}

/// The shards of one kind, written one after another.
struct ShardSet<R> {
    folder: PathBuf,
    prefix: &'static str,
    schema: TypePtr,
    properties: Arc<WriterProperties>,
    pending: Vec<R>,
    pending_bytes: usize,
    open: Option<OpenShard>,
    files: Vec<ShardFile>,
}

/// The shard being written.
struct OpenShard {
    name: String,
    path: PathBuf,
    writer: SerializedFileWriter<File>,
    rows: u64,
    bytes: usize,
}

impl<R: Columns> ShardSet<R> {
    fn new(
        folder: &Path,
        prefix: &'static str,
        schema: TypePtr,
        properties: WriterProperties,
    ) -> Self {
        Self {
            folder: folder.to_path_buf(),
            prefix,
            schema,
            properties: Arc::new(properties),
            pending: Vec::new(),
            pending_bytes: 0,
            open: None,
            files: Vec::new(),
        }
    }

    fn push(&mut self, row: R) -> Result<()> {
        self.pending_bytes += row.bytes();
        self.pending.push(row);
        if self.pending.len() >= ROW_GROUP_ROWS || self.pending_bytes >= ROW_GROUP_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the pending rows as one row group.
    fn flush(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut shard = match self.open.take() {
            Some(shard) => shard,
            None => self.open_shard()?,
        };
        write_row_group(&mut shard.writer, &self.pending)
            .map_err(|e| Error::data(&shard.path, e.to_string()))?;
        shard.rows += self.pending.len() as u64;
        shard.bytes += self.pending_bytes;
        self.pending.clear();
        self.pending_bytes = 0;
        if shard.bytes >= SHARD_BYTES {
            self.files.push(close(shard)?);
        } else {
            self.open = Some(shard);
        }
        Ok(())
    }

    fn open_shard(&self) -> Result<OpenShard> {
        let name = format!("{}-{:05}.parquet", self.prefix, self.files.len());
        let path = self.folder.join(&name);
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let writer =
            SerializedFileWriter::new(file, Arc::clone(&self.schema), Arc::clone(&self.properties))
                .map_err(|e| Error::data(&path, e.to_string()))?;
        Ok(OpenShard { name, path, writer, rows: 0, bytes: 0 })
    }

    fn finish(mut self) -> Result<Vec<ShardFile>> {
        self.flush()?;
        if let Some(shard) = self.open.take() {
            self.files.push(close(shard)?);
        }
        Ok(self.files)
    }
}

/// Ends a shard's file and takes its digest.
fn close(shard: OpenShard) -> Result<ShardFile> {
    let OpenShard { name, path, writer, rows, .. } = shard;
    let file = writer.into_inner().map_err(|e| Error::data(&path, e.to_string()))?;
    file.sync_all().map_err(|e| Error::io(&path, e))?;
    let sha256 = file_sha256(&path)?;
    Ok(ShardFile { path: name, rows, sha256 })
}

fn write_row_group<R: Columns>(
    writer: &mut SerializedFileWriter<File>,
    rows: &[R],
) -> parquet::errors::Result<()> {
    let columns: Vec<Vec<Option<&[u8]>>> = rows.iter().map(Columns::values).collect();
    let mut group: SerializedRowGroupWriter<'_, File> = writer.next_row_group()?;
    let mut at = 0;
    while let Some(mut column) = group.next_column()? {
        let present: Vec<ByteArray> = columns
            .iter()
            .filter_map(|row| row[at].map(|bytes| ByteArray::from(bytes.to_vec())))
            .collect();
        let levels: Vec<i16> = columns.iter().map(|row| i16::from(row[at].is_some())).collect();
        // Definition levels exist only for a column that may be null; a required one ignores them.
        column.typed::<ByteArrayType>().write_batch(&present, Some(&levels), None)?;
        column.close()?;
        at += 1;
    }
    group.close()?;
    Ok(())
}
