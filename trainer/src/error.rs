//! What can go wrong in training, by cause.

use std::path::{Path, PathBuf};

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong in training, by cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting of the run file, or of the command line, has a value that cannot be used.
    #[error("setting `{field}`: {message}")]
    Setting {
        /// The path of the setting, as in `stages[0].steps`.
        field: String,
        /// What is wrong with it, and what would be right.
        message: String,
    },
    /// A run file is not TOML of the expected shape.
    #[error("run file {path}: {message}")]
    RunFile {
        /// The file.
        path: PathBuf,
        /// The parser's words, with line and column.
        message: String,
    },
    /// A dataset cannot be used as it is.
    #[error("data {path}: {message}")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A checkpoint is damaged or belongs to another run.
    #[error("checkpoint {path}: {message}")]
    Checkpoint {
        /// The checkpoint's folder or file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A variable that a player trains gets no usable gradient.
    #[error("gradient of `{variable}` (player `{player}`): {message}")]
    Gradient {
        /// The variable's name.
        variable: String,
        /// The player whose loss was differentiated.
        player: String,
        /// Missing, zero or not finite.
        message: String,
    },
    /// A loss is not a finite number. The weights are those from before the step.
    #[error("loss `{term}` is {value} at step {step} of stage `{stage}`; batch: {batch}")]
    NonFiniteLoss {
        /// The loss term.
        term: String,
        /// Its value.
        value: f64,
        /// The stage.
        stage: String,
        /// The optimizer step within the stage, from 0.
        step: u64,
        /// The groups in the batch.
        batch: String,
    },
    /// Vectors give away more than the run file allows.
    #[error("{0}; --allow-leaks exports all the same")]
    Leaks(String),
    /// A helper thread of the loader stopped without an error of its own.
    #[error("the loader's thread stopped early")]
    LoaderStopped,
    /// A file could not be read or written.
    #[error("{path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The model refused an input, or an operation in it failed.
    #[error(transparent)]
    Model(#[from] diptych_model::Error),
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// A setting with a value that cannot be used.
    pub fn setting(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Setting { field: field.into(), message: message.into() }
    }

    /// An I/O failure at `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// A dataset, or a part of it, that cannot be used.
    pub fn data(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Data { path: path.as_ref().to_path_buf(), message: message.into() }
    }

    /// A checkpoint that is damaged or belongs to another run.
    pub fn checkpoint(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Self::Checkpoint { path: path.as_ref().to_path_buf(), message: message.into() }
    }
}
