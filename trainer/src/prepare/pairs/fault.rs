//! What can be wrong with a row, and where the row stands.

use std::fmt;
use std::sync::Arc;

use crate::shards::Split;

/// Where a row stands: a file and a number, from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::prepare) struct Place {
    /// The file's name, without the folders that say nothing to a reader.
    pub(in crate::prepare) file: Arc<str>,
    /// The row.
    pub(in crate::prepare) row: u64,
    /// The last row where several are meant, else the same.
    pub(in crate::prepare) last: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.file, self.row)?;
        if self.last == self.row { Ok(()) } else { write!(out, "-{}", self.last) }
    }
}

/// What is wrong with a row. What stands before the first colon is the sort of fault that reports
/// count by.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::prepare) enum Fault {
    /// The format's reader makes no row of it.
    #[error("not a row: {0}")]
    NotARow(String),
    /// Bytes that should be text.
    #[error("not UTF-8: {0}")]
    NotUtf8(String),
    /// A value of another type than the column's use.
    #[error("wrong type: column `{column}` holds {found}, not {wanted}")]
    WrongType {
        /// The column.
        column: String,
        /// What stands there.
        found: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// A value outside of those that mean something.
    #[error("wrong value: column `{column}` is `{value}`, not {wanted}")]
    WrongValue {
        /// The column.
        column: String,
        /// The value, short.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
    /// No picture is named.
    #[error("no picture: column `{0}` is empty")]
    NoPicture(String),
    /// A picture's bytes are to be found elsewhere, and only its name is there.
    #[error("no picture: its bytes are null, and `{0}` is not followed from a Parquet file")]
    NameOnly(String),
    /// A path that leads out of the folder of pictures.
    #[error("path refused: `{path}` {why}")]
    Path {
        /// The path, short.
        path: String,
        /// Why.
        why: &'static str,
    },
    /// No such file.
    #[error("picture missing: `{0}`")]
    Missing(String),
    /// The system refuses to read it.
    #[error("picture unreadable: `{path}`: {why}")]
    Unreadable {
        /// The path, short.
        path: String,
        /// The system's words.
        why: String,
    },
    /// The picture does not decode.
    #[error("picture unusable: `{path}`: {why}")]
    Unusable {
        /// The path, short.
        path: String,
        /// The decoder's words.
        why: String,
    },
    /// Nothing is said of the picture.
    #[error("no text: column `{0}` is empty")]
    NoText(String),
    /// A text over the limit.
    #[error("text too long: {bytes} bytes, at most {limit} (--max-text-bytes)")]
    TextTooLong {
        /// The text's length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Another row has the same id.
    #[error("id repeated: `{id}` is that of {first}")]
    IdRepeated {
        /// The id, short.
        id: String,
        /// The other row.
        first: Place,
    },
    /// The picture belongs to another group already.
    #[error("group differs: picture `{picture}` is of group `{group}` since {first}")]
    GroupDiffers {
        /// The picture, short.
        picture: String,
        /// Its group, short.
        group: String,
        /// The row that said so.
        first: Place,
    },
    /// The picture has another label already.
    #[error("label differs: `{label}` of picture `{picture}` is `{value}` since {first}")]
    LabelDiffers {
        /// The label column.
        label: String,
        /// The picture, short.
        picture: String,
        /// Its value, short.
        value: String,
        /// The row that named the picture first.
        first: Place,
    },
    /// The group is in another split already.
    #[error("split differs: group `{group}` is {} since {first}", split.as_str())]
    SplitDiffers {
        /// The group, short.
        group: String,
        /// Its split.
        split: Split,
        /// The row that said so.
        first: Place,
    },
}
