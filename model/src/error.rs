//! What can go wrong between bytes and vectors, by cause.

use std::path::PathBuf;

/// The class of an [`Error`]: the only thing callers branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An input or a setting that can never work.
    Invalid,
    /// Something that this bundle does not have.
    Absent,
    /// An input beyond a named limit.
    Limit,
    /// An artefact on disk that is damaged or does not fit what was asked of it.
    Corrupt,
    /// The operating system refused a read or a write.
    Io,
    /// A fault of this program.
    Internal,
}

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value is not acceptable, whatever the limits are.
    #[error("{field}: {message}")]
    Invalid {
        /// The input or configuration key, as the caller knows it (`image`, `heads.shared`).
        field: String,
        /// What is wrong with it, and where it helps what would be right.
        message: String,
    },
    /// An input with nothing in it: no bytes, or a text without a letter, digit or symbol.
    #[error("{field}: is empty")]
    Empty {
        /// The input (`image`, `text`).
        field: &'static str,
    },
    /// Bytes that do not begin as a picture format that is read here.
    #[error("image: is not a JPEG, PNG, WebP or GIF file")]
    UnsupportedImage,
    /// A picture file that is cut off or broken.
    #[error("image: cannot be decoded: {reason}")]
    DamagedImage {
        /// Why, without anything of the file's content.
        reason: &'static str,
    },
    /// A bundle of one modality was asked for the other, or one without exclusive vectors for these.
    #[error("the bundle has no {part}")]
    Absent {
        /// What it lacks (`image tower`, `text tower`, `exclusive vectors`).
        part: &'static str,
    },
    /// A value is larger (or smaller) than a limit allows.
    #[error("{field}: {actual} is beyond the limit of {limit}")]
    Limit {
        /// The quantity with its unit (`image bytes`, `image pixels`, `text bytes`).
        field: String,
        /// The limit.
        limit: u64,
        /// What came in.
        actual: u64,
    },
    /// A bundle or another artefact is damaged, or does not match the code that reads it.
    #[error("{what}: {message}")]
    Corrupt {
        /// The file, tensor or entry.
        what: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The reason the system gives.
        source: std::io::Error,
    },
    /// A tensor operation failed: shapes that do not fit, or a device error.
    #[error("tensor: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Something that no input should bring about.
    #[error("{message}")]
    Internal {
        /// What happened.
        message: String,
    },
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An [`Error::Invalid`] for `field`.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), message: message.into() }
    }

    /// An [`Error::Limit`] for `field`.
    pub fn limit(field: impl Into<String>, limit: u64, actual: u64) -> Self {
        Self::Limit { field: field.into(), limit, actual }
    }

    /// An [`Error::Corrupt`] for `what`.
    pub fn corrupt(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into(), message: message.into() }
    }

    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    /// The class of this error.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. }
            | Self::Empty { .. }
            | Self::UnsupportedImage
            | Self::DamagedImage { .. } => Kind::Invalid,
            Self::Absent { .. } => Kind::Absent,
            Self::Limit { .. } => Kind::Limit,
            Self::Corrupt { .. } => Kind::Corrupt,
            Self::Io { .. } => Kind::Io,
            Self::Tensor(_) | Self::Internal { .. } => Kind::Internal,
        }
    }
}
