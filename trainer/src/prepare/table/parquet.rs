//! Parquet files, Hugging Face's datasets among them.
//!
//! Columns are read by their leaves rather than by the library's assembled records: there, one text
//! that is not UTF-8 leaves the columns of all rows after it out of step with each other.

mod leaf;

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::basic::Type as Physical;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::schema::types::SchemaDescriptor;

use self::leaf::{Leaf, Value};
use super::super::pairs::Fault;
use super::{Cell, Numbered};
use crate::error::{Error, Result};

/// Rows read at a time: each may hold a picture.
const ROWS: usize = 32;

/// A Parquet file.
pub(in crate::prepare) struct ParquetFile {
    path: PathBuf,
    reader: SerializedFileReader<File>,
}

impl ParquetFile {
    /// Opens a file.
    ///
    /// # Errors
    /// Names the file when it is absent or not Parquet.
    pub(in crate::prepare) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let reader = guarded(|| SerializedFileReader::new(file))
            .map_err(|e| Error::data(path, format!("not a Parquet file: {e}")))?;
        Ok(Self { path: path.to_path_buf(), reader })
    }

    /// The names of its columns.
    pub(in crate::prepare) fn columns(&self) -> Vec<String> {
        let schema = self.reader.metadata().file_metadata().schema();
        schema.get_fields().iter().map(|field| field.name().to_owned()).collect()
    }

    /// The names behind the numbers of the columns that Hugging Face `datasets` calls `ClassLabel`.
    pub(in crate::prepare) fn class_names(&self) -> BTreeMap<String, Vec<String>> {
        let metadata = self.reader.metadata().file_metadata().key_value_metadata();
        let entry = metadata.into_iter().flatten().find(|entry| entry.key == "huggingface");
        let features: Option<serde_json::Value> =
            entry.and_then(|e| serde_json::from_str(e.value.as_deref()?).ok());
        let features =
            features.as_ref().and_then(|value| value.pointer("/info/features")?.as_object());
        let names = |feature: &serde_json::Value| -> Option<Vec<String>> {
            let names = feature.get("names")?.as_array()?;
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
        };
        let named = features.into_iter().flatten();
        named.filter_map(|(column, feature)| Some((column.clone(), names(feature)?))).collect()
    }

    /// The rows, with the cells of `wanted` columns in that order.
    ///
    /// # Errors
    /// Names the column that is absent or has a type that is not read here.
    pub(in crate::prepare) fn rows(self, wanted: &[String]) -> Result<ParquetRows> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let shapes = wanted.iter().map(|column| Shape::of(schema, column));
        let shapes = shapes
            .collect::<std::result::Result<Vec<Shape>, String>>()
            .map_err(|message| Error::data(&self.path, message))?;
        let row_groups = self.reader.metadata().row_groups();
        let sizes =
            row_groups.iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).collect();
        Ok(ParquetRows {
            file: self,
            shapes,
            sizes,
            next_group: 0,
            leaves: Vec::new(),
            read: 0,
            end: 0,
            batch: Vec::new().into_iter(),
            number: 0,
        })
    }
}

impl std::fmt::Debug for ParquetFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Runs the library on bytes that are not ours: should it panic, that is one bad file.
fn guarded<T>(
    read: impl FnOnce() -> ::parquet::errors::Result<T>,
) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(super::quoted(&error.to_string())),
        Err(_) => Err("the Parquet reader gave up on it".to_owned()),
    }
}

/// Which leaves make a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// One value, or a list of such, in this leaf.
    Values(usize),
    /// A struct of a picture's file and its name.
    Picture { bytes: Option<usize>, path: Option<usize> },
}

impl Shape {
    fn of(schema: &SchemaDescriptor, column: &str) -> std::result::Result<Self, String> {
        let of_column = |leaf: &usize| schema.column(*leaf).path().parts()[0] == column;
        let leaves: Vec<usize> = (0..schema.num_columns()).filter(of_column).collect();
        let part = |name: &str| {
            leaves.iter().copied().find(|leaf| {
                let leaf = schema.column(*leaf);
                leaf.max_rep_level() == 0
                    && leaf.physical_type() == Physical::BYTE_ARRAY
                    && leaf.path().parts().len() == 2
                    && leaf.path().parts()[1] == name
            })
        };
        match leaves[..] {
            [] => Err(format!("there is no column `{column}`")),
            [leaf] if is_plain_or_list(schema, leaf) => {
                let descriptor = schema.column(leaf);
                match descriptor.physical_type() {
                    Physical::BYTE_ARRAY
                    | Physical::INT32
                    | Physical::INT64
                    | Physical::BOOLEAN => Ok(Self::Values(leaf)),
                    other => Err(format!("column `{column}` is {other}, which is not read here")),
                }
            }
            _ => match (part("bytes"), part("path")) {
                (None, None) => Err(format!(
                    "column `{column}` is a struct of {} columns; texts, whole numbers, lists of \
                     such and pictures {{bytes, path}} are read",
                    leaves.len()
                )),
                (bytes, path) => Ok(Self::Picture { bytes, path }),
            },
        }
    }

    fn leaves(self) -> Vec<usize> {
        match self {
            Self::Values(leaf) => vec![leaf],
            Self::Picture { bytes, path } => bytes.into_iter().chain(path).collect(),
        }
    }
}

/// A column of its own, or the element of a list that is one.
fn is_plain_or_list(schema: &SchemaDescriptor, leaf: usize) -> bool {
    let descriptor = schema.column(leaf);
    match descriptor.max_rep_level() {
        0 => descriptor.path().parts().len() == 1,
        levels => levels == 1,
    }
}

/// The rows of a file.
pub(in crate::prepare) struct ParquetRows {
    file: ParquetFile,
    shapes: Vec<Shape>,
    /// The number of rows of each row group.
    sizes: Vec<u64>,
    next_group: usize,
    /// The leaves of each shape in the row group being read.
    leaves: Vec<Vec<Leaf>>,
    /// Rows of the file that were read, and where their row group ends.
    read: u64,
    end: u64,
    batch: std::vec::IntoIter<Vec<Cell>>,
    /// The number of the row that was given last.
    number: u64,
}

impl Iterator for ParquetRows {
    type Item = Result<Numbered>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(cells) = self.batch.next() {
                self.number += 1;
                let at = self.number;
                return Some(Ok(Numbered { from: at, to: at, cells: Ok(cells) }));
            }
            if self.read < self.end {
                if let Err(message) = self.read_batch() {
                    return Some(Ok(self.give_up_group(&message)));
                }
                continue;
            }
            let size = *self.sizes.get(self.next_group)?;
            let opened = self.open_group(self.next_group);
            self.next_group += 1;
            self.end = self.read + size;
            match opened {
                Ok(leaves) => self.leaves = leaves,
                Err(message) if size > 0 => return Some(Ok(self.give_up_group(&message))),
                Err(_) => {}
            }
        }
    }
}

impl std::fmt::Debug for ParquetRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetRows").field("file", &self.file).finish_non_exhaustive()
    }
}

impl ParquetRows {
    /// Passes over what is left of a row group that cannot be read further.
    fn give_up_group(&mut self, message: &str) -> Numbered {
        let (from, to) = (self.read + 1, self.end);
        (self.read, self.number) = (to, to);
        let fault = Fault::NotARow(format!("rows {from} to {to} cannot be read: {message}"));
        Numbered { from, to, cells: Err(fault) }
    }

    fn open_group(&self, group: usize) -> std::result::Result<Vec<Vec<Leaf>>, String> {
        guarded(|| {
            let group = self.file.reader.get_row_group(group)?;
            let open = |leaf: usize| {
                let descriptor = group.metadata().column(leaf).column_descr();
                Ok(Leaf::new(group.get_column_reader(leaf)?, descriptor))
            };
            let shape = |shape: &Shape| shape.leaves().into_iter().map(open).collect();
            self.shapes.iter().map(shape).collect()
        })
    }

    fn read_batch(&mut self) -> std::result::Result<(), String> {
        let rows = usize::try_from(self.end - self.read).unwrap_or(ROWS).min(ROWS);
        let mut columns = Vec::with_capacity(self.shapes.len());
        for (shape, leaves) in self.shapes.iter().zip(&mut self.leaves) {
            let values = leaves.iter_mut().map(|leaf| guarded(|| leaf.read(rows)));
            let values = values.collect::<std::result::Result<Vec<_>, String>>()?;
            columns.push(assemble(*shape, values, rows));
        }
        let row = |_| columns.iter_mut().map(|c| c.next().unwrap_or(Cell::Nothing)).collect();
        self.batch = (0..rows).map(row).collect::<Vec<Vec<Cell>>>().into_iter();
        self.read += rows as u64;
        Ok(())
    }
}

/// Cells from the values of a column's leaves.
fn assemble(shape: Shape, leaves: Vec<Vec<Value>>, rows: usize) -> std::vec::IntoIter<Cell> {
    let mut leaves = leaves.into_iter();
    let mut next = || leaves.next().unwrap_or_default().into_iter();
    match shape {
        Shape::Values(_) => next().map(Value::cell).collect::<Vec<_>>().into_iter(),
        Shape::Picture { bytes, path } => {
            let mut bytes = bytes.map(|_| next());
            let mut path = path.map(|_| next());
            let mut cell = || {
                let bytes = match bytes.as_mut().and_then(Iterator::next) {
                    Some(Value::Bytes(bytes)) => Some(bytes),
                    _ => None,
                };
                let path = match path.as_mut().and_then(Iterator::next) {
                    Some(Value::Bytes(path)) if !path.is_empty() => {
                        Some(String::from_utf8_lossy(path.data()).into_owned())
                    }
                    _ => None,
                };
                if bytes.is_none() && path.is_none() {
                    return Cell::Nothing;
                }
                Cell::Picture { bytes, path }
            };
            (0..rows).map(|_| cell()).collect::<Vec<_>>().into_iter()
        }
    }
}
