//! What can go wrong with a graph.

use std::{io, path::PathBuf};

/// Why there is no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BuildError {
    /// The caller said so.
    #[error("the build was cancelled")]
    Cancelled,
    /// A row of another length than the others.
    #[error("row {row} has {actual} components, the graph has {expected}")]
    Dimension { row: usize, expected: usize, actual: usize },
    /// A row with a component that is no finite number.
    #[error("row {row} is not finite")]
    NotFinite { row: usize },
    /// More rows than there are numbers for.
    #[error("{rows} rows, a graph has at most {limit}")]
    TooMany { rows: usize, limit: usize },
    /// A parameter out of its range.
    #[error("{name} is {actual}, it may be {least} to {most}")]
    Parameter { name: &'static str, actual: usize, least: usize, most: usize },
    /// The builder broke.
    #[error("the build panicked")]
    Panicked,
}

/// Why a search has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SearchError {
    /// A query of another length than the rows.
    #[error("the query has {actual} components, the graph has {expected}")]
    Dimension { expected: usize, actual: usize },
    /// A query with a component that is no finite number.
    #[error("the query is not finite")]
    NotFinite,
    /// The graph broke.
    #[error("the search panicked")]
    Panicked,
}

/// Why a graph was not saved or loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// Another kind of file, or of a version that is not known here.
    #[error("{}: is no graph of version {version}", path.display())]
    Foreign { path: PathBuf, version: u32 },
    /// Cut short, grown, or changed since it was written.
    #[error("{}: is damaged: {what}", path.display())]
    Damaged { path: PathBuf, what: &'static str },
    /// The builder has no files.
    #[error("this builder saves no graphs")]
    Unsupported,
}
