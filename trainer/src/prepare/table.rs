//! Tables of captions as others write them: rows with their numbers, cells with their types.
//!
//! One file for each format. A table says which columns it has; its rows then hold the cells of the
//! columns that were asked for, in that order. A row that cannot be read is a [`Fault`] with the
//! row's number, and the rows after it follow.

mod csv;
mod jsonl;
pub(super) mod parquet;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use ::parquet::data_type::ByteArray;

use super::pairs::Fault;
use crate::error::{Error, Result};

/// A value of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    /// None.
    Nothing,
    /// A text.
    Text(String),
    /// A whole number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// Several values.
    List(Vec<Cell>),
    /// A text or a picture's file; the use of the column tells which.
    Bytes(ByteArray),
    /// A picture's file, or where it lies, as Hugging Face's datasets have it.
    Picture {
        /// The file.
        bytes: Option<ByteArray>,
        /// Its name.
        path: Option<String>,
    },
    /// Bytes that should be a text and are not.
    NotUtf8,
    /// A value that no column here takes, in words.
    Other(&'static str),
}

impl Cell {
    /// What the cell holds, as in "holds a number".
    pub(super) fn says(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Text(_) => "a text",
            Self::Int(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Bytes(_) => "bytes",
            Self::Picture { .. } => "a picture",
            Self::NotUtf8 => "bytes that are no text",
            Self::Other(what) => what,
        }
    }

    /// A picture's file.
    pub(super) fn into_bytes(self) -> Option<ByteArray> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Picture { bytes, .. } => bytes,
            _ => None,
        }
    }

    /// A text, or nothing where it is empty.
    pub(super) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Nothing } else { Self::Text(text) }
    }
}

/// A row, or several that are lost together.
#[derive(Debug)]
pub(super) struct Numbered {
    /// The first of them: lines and Parquet rows are counted from 1.
    pub(super) from: u64,
    /// The last of them.
    pub(super) to: u64,
    /// The cells asked for, or why there are none.
    pub(super) cells: std::result::Result<Vec<Cell>, Fault>,
}

/// Rows one by one; an error ends them.
pub(super) type Rows = Box<dyn Iterator<Item = Result<Numbered>>>;

/// The formats of captions files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Comma-separated values, or such with another separator.
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

/// A captions file.
#[derive(Debug)]
pub(super) struct Table {
    path: PathBuf,
    format: Format,
    /// The names of its columns, as it has them.
    pub(super) columns: Vec<String>,
}

impl Table {
    /// Opens a captions file; its name's end says the format.
    ///
    /// # Errors
    /// Names the file when it has another end, cannot be read, or has no columns.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let end = path.extension().map(|end| end.to_string_lossy().to_lowercase());
        let format = match end.as_deref() {
            Some("csv" | "tsv") => Format::Csv,
            Some("jsonl" | "ndjson" | "json") => Format::JsonLines,
            Some("parquet") => Format::Parquet,
            // Flickr's data sets name their table so.
            Some("txt") if path.file_stem().is_some_and(|stem| stem == "captions") => Format::Csv,
            _ => {
                let message = "captions are read from .jsonl, .csv, .tsv and .parquet files";
                return Err(Error::data(path, message));
            }
        };
        let columns = match format {
            Format::Csv => csv::columns(path)?,
            Format::JsonLines => jsonl::columns(path)?,
            Format::Parquet => parquet::ParquetFile::open(path)?.columns(),
        };
        Ok(Self { path: path.to_path_buf(), format, columns })
    }

    /// The rows, with the cells of `wanted` columns in that order.
    ///
    /// # Errors
    /// Names the file when it cannot be read, or the column whose type no row could have.
    pub(super) fn rows(&self, wanted: &[String]) -> Result<Rows> {
        match self.format {
            Format::Csv => csv::rows(&self.path, wanted),
            Format::JsonLines => jsonl::rows(&self.path, wanted),
            Format::Parquet => {
                let file = parquet::ParquetFile::open(&self.path)?;
                Ok(Box::new(file.rows(wanted)?))
            }
        }
    }
}

/// What stands in place of a name that is too long or cannot be printed in a report.
const QUOTED_CHARS: usize = 80;

/// A value from outside, short and on one line.
pub(super) fn quoted(value: &str) -> String {
    let mut short: String = value.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if value.chars().nth(QUOTED_CHARS).is_some() {
        short.push_str("...");
    }
    short
}
