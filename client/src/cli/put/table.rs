//! Tables of any format as rows with their places.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::row::Cells;
use super::{csv, jsonl, parquet};

/// Where something was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    file: Arc<Path>,
    at: Option<(&'static str, u64)>,
}

impl Place {
    /// A file as a whole.
    pub(crate) fn file(path: &Path) -> Self {
        Self { file: path.into(), at: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(("line", line)) => write!(out, "{}:{line}", self.file.display()),
            Some((unit, number)) => write!(out, "{} {unit} {number}", self.file.display()),
            None => write!(out, "{}", self.file.display()),
        }
    }
}

/// A row as a format gives it: its number and its cells, or what is wrong with it.
pub(crate) type Numbered = (u64, Result<Cells, String>);
/// Rows one by one.
pub(crate) type Rows = Box<dyn Iterator<Item = Numbered>>;

/// The kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Comma-separated values, or such with another separator.
    Csv,
    /// One JSON object a line.
    JsonLines,
    /// Apache Parquet.
    Parquet,
}

impl Format {
    /// The format of a file by its name.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        match extension(path).as_str() {
            "csv" | "tsv" => Some(Self::Csv),
            "jsonl" | "ndjson" | "json" => Some(Self::JsonLines),
            "parquet" => Some(Self::Parquet),
            // Flickr's data sets name their table so.
            "txt" if path.file_stem().is_some_and(|stem| stem == "captions") => Some(Self::Csv),
            _ => None,
        }
    }

    /// What numbers count in it.
    fn unit(self) -> &'static str {
        match self {
            Self::Csv | Self::JsonLines => "line",
            Self::Parquet => "row",
        }
    }

    /// About how many rows a file has.
    pub(crate) fn count(self, path: &Path) -> Result<u64> {
        match self {
            Self::Csv => Ok(jsonl::lines(path)?.saturating_sub(1)),
            Self::JsonLines => jsonl::lines(path),
            Self::Parquet => parquet::count(path),
        }
    }

    /// Whether a file has columns about pictures or texts, as far as can be told without reading rows.
    pub(crate) fn speaks(self, path: &Path) -> Result<bool> {
        match self {
            Self::Csv => csv::speaks(path),
            Self::JsonLines => jsonl::speaks(path),
            Self::Parquet => parquet::speaks(path),
        }
    }

    /// The rows of a file.
    pub(crate) fn rows(self, path: &Path) -> Result<Rows> {
        match self {
            Self::Csv => csv::rows(path),
            Self::JsonLines => jsonl::rows(path),
            Self::Parquet => parquet::rows(path),
        }
    }

    /// The place of a row of a file.
    pub(crate) fn place(self, path: &Path, number: u64) -> Place {
        Place { file: path.into(), at: Some((self.unit(), number)) }
    }
}

/// The end of a file's name in lower case, without the dot.
pub(crate) fn extension(path: &Path) -> String {
    path.extension().map(|end| end.to_string_lossy().to_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_name() {
        let of = |name: &str| Format::of(Path::new(name));
        assert_eq!(of("a/Captions.CSV"), Some(Format::Csv));
        assert_eq!(of("captions.txt"), Some(Format::Csv));
        assert_eq!(of("metadata.jsonl"), Some(Format::JsonLines));
        assert_eq!(of("train-0.parquet"), Some(Format::Parquet));
        assert_eq!((of("a.txt"), of("a.jpg"), of("csv")), (None, None, None));
    }

    #[test]
    fn places_name_file_and_line() {
        let place = Format::Csv.place(Path::new("a.csv"), 12);
        assert_eq!(place.to_string(), "a.csv:12");
        assert_eq!(Format::Parquet.place(Path::new("a"), 3).to_string(), "a row 3");
        assert_eq!(Place::file(Path::new("b.jpg")).to_string(), "b.jpg");
    }
}
