//! What can go wrong, by cause.
//!
//! [`Rejection`] is the caller's fault and names the field; [`Error`] adds what is missing, what
//! clashes and what broke. Others may branch on [`Kind`] only.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{Modality, Space};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is wrong: a field is missing, malformed or of another space.
    Invalid,
    /// The request is over a named limit.
    Limit,
    /// The collection or item does not exist.
    NotFound,
    /// The collection exists already.
    Exists,
    /// An expected version, or the digest of a repeated request, does not fit.
    Conflict,
    /// The engine has no such operation.
    Unsupported,
    /// The data folder is damaged, of another format, or held by another process.
    Corrupt,
    /// The state of what is named does not allow it: an alias stands for it, a count is another.
    Precondition,
    /// The disk is full; deletes may still work, and later tries of all else.
    Full,
    /// The disk refused (read-only, gone) or the engine is closed; a later try may work.
    Unavailable,
    /// It was asked to end early.
    Cancelled,
    /// A fault of this program.
    Internal,
}

/// Why one item, term or field was refused. Stored in the ledger of requests, so a repeated
/// request gets the same answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    /// A value that can never be right.
    #[error("{field}: {reason}")]
    Invalid {
        /// Path of the field as the caller wrote it, for example `id` or `terms[2].vector`.
        field: String,
        /// A sentence without a full stop.
        reason: String,
    },
    /// A value over (or under) a limit.
    #[error("{field}: {actual} {unit}, the limit is {limit}")]
    Limit {
        /// Path of the field.
        field: String,
        /// What is counted: `bytes`, `items`, `nodes`.
        unit: String,
        /// The largest value accepted.
        limit: u64,
        /// The value received.
        actual: u64,
    },
    /// A vector of the wrong length.
    #[error(
        "{field}: a vector of {actual} dimensions, the collection has {expected} for {modality} {space}"
    )]
    Dimension {
        /// Path of the field.
        field: String,
        /// Modality the vector was given for.
        modality: Modality,
        /// Space the vector was given for.
        space: Space,
        /// Dimensions of the collection.
        expected: u64,
        /// Dimensions received.
        actual: u64,
    },
    /// A space the collection does not have for this modality.
    #[error("{field}: the collection has no {space} vectors for {modality}")]
    NoSpace {
        /// Path of the field.
        field: String,
        /// Modality asked for.
        modality: Modality,
        /// Space asked for.
        space: Space,
    },
    /// An exclusive term from the other modality than the target.
    #[error("{field}: an exclusive term must come from {target}, this one comes from {found}")]
    ExclusiveMismatch {
        /// Path of the field.
        field: String,
        /// Modality searched.
        target: Modality,
        /// Modality of the term.
        found: Modality,
    },
    /// `expected_version` does not fit.
    #[error("expected_version: {expected}, the item is at {}", actual.unwrap_or(0))]
    VersionConflict {
        /// Version the caller expected; 0 for "must not exist".
        expected: u64,
        /// Version stored; `None` when there is no such item.
        actual: Option<u64>,
    },
}

impl Rejection {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. }
            | Self::Dimension { .. }
            | Self::NoSpace { .. }
            | Self::ExclusiveMismatch { .. } => Kind::Invalid,
            Self::Limit { .. } => Kind::Limit,
            Self::VersionConflict { .. } => Kind::Conflict,
        }
    }

    /// Path of the field at fault.
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid { field, .. }
            | Self::Dimension { field, .. }
            | Self::NoSpace { field, .. }
            | Self::ExclusiveMismatch { field, .. }
            | Self::Limit { field, .. } => field,
            Self::VersionConflict { .. } => "expected_version",
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), reason: reason.into() }
    }

    pub(crate) fn limit(field: impl Into<String>, unit: &str, limit: usize, actual: usize) -> Self {
        Self::Limit {
            field: field.into(),
            unit: unit.to_owned(),
            limit: limit as u64,
            actual: actual as u64,
        }
    }
}

/// What an engine or a search answers when it can't do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No collection of this name.
    #[error("collection {name:?} does not exist")]
    CollectionMissing {
        /// Name asked for.
        name: String,
    },
    /// A collection of this name exists.
    #[error("collection {name:?} exists already")]
    CollectionExists {
        /// Name asked for.
        name: String,
    },
    /// An alias stands for the collection.
    #[error("the alias {alias:?} stands for collection {name:?}; move or delete the alias first")]
    CollectionHasAlias {
        /// The collection.
        name: String,
        /// One of its aliases.
        alias: String,
    },
    /// No alias of this name.
    #[error("alias {name:?} does not exist")]
    AliasMissing {
        /// Name asked for.
        name: String,
    },
    /// The alias does not stand for what was expected.
    #[error("alias {name:?} stands for {actual:?}, expected was {expected:?}")]
    AliasMismatch {
        /// The alias.
        name: String,
        /// What was expected; `None`: no such alias.
        expected: Option<String>,
        /// What it stands for.
        actual: Option<String>,
    },
    /// Something was written to a collection since it was read.
    #[error("collection {name:?} is at generation {actual}, expected was {expected}")]
    GenerationMoved {
        /// The collection.
        name: String,
        /// Generation that was read.
        expected: u64,
        /// Generation now.
        actual: u64,
    },
    /// The number of items that match is another one than the caller knows of.
    #[error("{actual} items match, expected were {expected}")]
    CountMismatch {
        /// What the caller expected.
        expected: u64,
        /// How many match.
        actual: u64,
    },
    /// No snapshot of this name.
    #[error("snapshot {name:?} does not exist")]
    SnapshotMissing {
        /// Name asked for.
        name: String,
    },
    /// A snapshot that cannot be restored.
    #[error("snapshot {name:?} cannot be restored: {problem}")]
    SnapshotRefused {
        /// Name of the snapshot.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The work was asked to end early, and took back what it had done.
    #[error("the work was cancelled")]
    Cancelled,
    /// No item of this id, where one is needed (a term of a search).
    #[error("{field}: item {id:?} does not exist")]
    ItemMissing {
        /// Path of the field.
        field: String,
        /// Id asked for.
        id: String,
    },
    /// A request id came again with another content.
    #[error("request_id {request_id:?} was used before for another request")]
    RequestConflict {
        /// The id.
        request_id: String,
    },
    /// The engine has no such operation.
    #[error("the engine does not support {operation}")]
    Unsupported {
        /// What was asked for.
        operation: &'static str,
    },
    /// The data folder can't be used as it is.
    #[error("{}: {problem}; {remedy}", path.display())]
    Damaged {
        /// File or folder at fault.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What the operator can do.
        remedy: String,
    },
    /// Another process (or another engine of this process) holds the data folder.
    #[error(
        "{}: the data folder is in use by another process; stop it, or give this one another folder",
        path.display()
    )]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// A verb: `write`, `sync`.
        action: &'static str,
        /// File or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The store refused.
    #[error("the store failed to {action}")]
    Store {
        /// A verb with its object: `commit`, `read an item`.
        action: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A write that failed, and left nothing behind.
    #[error("the write was not committed: {cause}")]
    NotCommitted {
        /// The cause in words.
        cause: String,
        /// Who has to act.
        kind: Kind,
    },
    /// The engine was closed.
    #[error("the engine is closed")]
    Closed,
    /// A fault of this program.
    #[error("internal fault: {what}")]
    Internal {
        /// What was found.
        what: String,
    },
}

impl Error {
    /// Who has to act.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::CollectionMissing { .. }
            | Self::AliasMissing { .. }
            | Self::SnapshotMissing { .. }
            | Self::ItemMissing { .. } => Kind::NotFound,
            Self::CollectionExists { .. } => Kind::Exists,
            Self::RequestConflict { .. }
            | Self::AliasMismatch { .. }
            | Self::GenerationMoved { .. } => Kind::Conflict,
            Self::CollectionHasAlias { .. }
            | Self::CountMismatch { .. }
            | Self::SnapshotRefused { .. } => Kind::Precondition,
            Self::Cancelled => Kind::Cancelled,
            Self::Io { source, .. } if is_full(source) => Kind::Full,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Damaged { .. } | Self::Locked { .. } => Kind::Corrupt,
            Self::Io { .. } | Self::Store { .. } | Self::Closed => Kind::Unavailable,
            Self::NotCommitted { kind, .. } => *kind,
            Self::Internal { .. } => Kind::Internal,
        }
    }

    /// Path of the field at fault, where there is one.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Rejected(rejection) => Some(rejection.field()),
            Self::ItemMissing { field, .. } => Some(field),
            Self::RequestConflict { .. } => Some("request_id"),
            Self::CollectionMissing { .. } | Self::CollectionExists { .. } => Some("collection"),
            Self::CountMismatch { .. } => Some("expected_count"),
            Self::CollectionHasAlias { .. }
            | Self::AliasMissing { .. }
            | Self::AliasMismatch { .. }
            | Self::GenerationMoved { .. }
            | Self::SnapshotMissing { .. }
            | Self::SnapshotRefused { .. }
            | Self::Cancelled
            | Self::Unsupported { .. }
            | Self::Damaged { .. }
            | Self::Locked { .. }
            | Self::Io { .. }
            | Self::Store { .. }
            | Self::NotCommitted { .. }
            | Self::Closed
            | Self::Internal { .. } => None,
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
        source: std::io::Error,
    ) -> Self {
        Self::Io { action, path: path.into(), source }
    }

    /// The error with its causes, in one line.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// What the caller of a write is told that failed for this reason.
    pub(crate) fn not_committed(&self) -> Self {
        Self::NotCommitted { cause: self.chain(), kind: self.kind() }
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }
}

/// Whether a disk refused because it, or the owner's share of it, is full.
fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}
