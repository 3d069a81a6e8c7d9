//! A prepared dataset: Parquet shards of pictures and of texts, and `dataset.json` beside them.
//!
//! `prepare` writes this layout once, and `fit`, `eval` and `sample` read it:
//!
//! ```text
//! dataset.json           name, counts, sources with licences, label columns, files with digests
//! images-00000.parquet   image {bytes, path}, group, split, one string column for each label
//! texts-00000.parquet    text, lang, kind, group, split
//! ```
//!
//! Pictures lie in the Hugging Face image layout, so `datasets.load_dataset("parquet", ...)` opens
//! them as pictures. A picture and a text of one `group` belong together; in a dataset of paired
//! pictures, which has no texts, so do two pictures of one group and of different kinds.

mod manifest;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

pub use manifest::{Counts, Manifest, PairedPictures, ShardFile, Skipped, Source};
pub use read::{Dataset, ImageBytes, Rows};
pub use schema::IMAGE_COLUMNS;
pub use write::DatasetWriter;

use serde::{Deserialize, Serialize};

/// The name of the manifest in a dataset's folder.
pub const MANIFEST_FILE: &str = "dataset.json";

/// The version of the layout that this code writes and reads.
pub const FORMAT_VERSION: u32 = 2;

/// One picture of a prepared dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// The picture as an encoded file (PNG, JPEG, WebP or GIF), not decoded and not empty.
    pub bytes: Vec<u8>,
    /// A name for the picture, unique within the dataset, as in `noto/2764.png`.
    pub path: String,
    /// What the picture belongs to: pictures and texts of one group are each other's matches.
    pub group: String,
    /// What the row is for. All rows of a group have the same.
    pub split: Split,
    /// Values in the order of [`Manifest::labels`]; `None` where the source does not say.
    pub labels: Vec<Option<String>>,
}

/// One picture of a prepared dataset without its bytes, and where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageHead {
    /// As [`ImageRow::path`].
    pub path: String,
    /// As [`ImageRow::group`].
    pub group: String,
    /// As [`ImageRow::split`].
    pub split: Split,
    /// As [`ImageRow::labels`].
    pub labels: Vec<Option<String>>,
    /// Where the whole row lies.
    pub at: RowAt,
}

/// A row's place: row groups are read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowAt {
    /// The number of the shard among those of its kind.
    pub shard: u32,
    /// The number of the row group within the shard.
    pub row_group: u32,
    /// The number of the row within the row group.
    pub row: u32,
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
    /// What the row is for, as for the pictures of its group.
    pub split: Split,
}

/// What a row is for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// To learn from.
    #[default]
    Train,
    /// To choose settings by, and to stop by.
    Dev,
    /// To report on.
    Test,
}

impl Split {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Train, Self::Dev, Self::Test];

    /// The value in the `split` column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Dev => "dev",
            Self::Test => "test",
        }
    }

    /// The split that a `split` column's value stands for.
    pub fn parse(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.as_str() == value)
    }
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
