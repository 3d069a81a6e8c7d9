//! A prepared dataset: Parquet shards of pictures and of texts, and `dataset.json` beside them.
//!
//! `prepare` writes this layout once, and `fit`, `eval` and `sample` read it:
//!
//! ```text
//! dataset.json           name, counts, sources with licences, label columns, files with digests
//! images-00000.parquet   image {bytes, path}, group, and one string column for each label
//! texts-00000.parquet    text, lang, kind, group
//! ```
//!
//! Pictures lie in the Hugging Face image layout, so `datasets.load_dataset("parquet", ...)` opens
//! them as pictures. A picture and a text of one `group` belong together.

mod manifest;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use manifest::{Counts, Manifest, ShardFile, Skipped, Source};
pub use read::{Dataset, Rows};
pub use write::DatasetWriter;

/// The name of the manifest in a dataset's folder.
pub const MANIFEST_FILE: &str = "dataset.json";

/// The version of the layout that this code writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// One picture of a prepared dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The picture as an encoded file (PNG, JPEG, WebP or GIF), not decoded and not empty.
    pub bytes: Vec<u8>,
    /// A name for the picture, unique within the dataset, as in `noto/2764.png`.
    pub path: String,
    /// What the picture belongs to: pictures and texts of one group are each other's matches.
    pub group: String,
    /// Values in the order of [`Manifest::labels`]; `None` where the source does not say.
    pub labels: Vec<Option<String>>,
}

/// One text of a prepared dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRow {
    /// The text, not empty.
    pub text: String,
    /// Its language as a BCP 47 tag, as in `en`; empty where it is not known.
    pub lang: String,
    /// What sort of text it is.
    pub kind: TextKind,
    /// What the text belongs to.
    pub group: String,
}

/// What sort of text a row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextKind {
    /// A name or caption that says the whole of its group.
    Name,
    /// A word that goes with the group; several make a query.
    Keyword,
}

impl TextKind {
    /// The value in the `kind` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Keyword => "keyword",
        }
    }

    /// The kind that a `kind` column's value stands for.
    pub fn parse(value: &str) -> Option<Self> {
        match value {
            "name" => Some(Self::Name),
            "keyword" => Some(Self::Keyword),
            _ => None,
        }
    }
}
