//! What can go wrong between a name and a checkpoint on disk, by cause; each says what to do.

use std::path::{Path, PathBuf};

/// A result with this module's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was written is no name of a checkpoint.
    #[error("{text:?} names no checkpoint of a hub: {problem}; write hf:ORG/NAME@REVISION")]
    Spec {
        /// What was written.
        text: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A setting, ours or one of the hub's variables, cannot be used.
    #[error("{name} is {value}: {problem}")]
    Setting {
        /// Our key, or the variable.
        name: &'static str,
        /// Its value; never a secret.
        value: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The hub does not know the repository, or does not say so to everyone.
    #[error(
        "the hub at {endpoint} has no repository {repository}, or hides it; check its spelling, and for a private one give a \
         token by hf_token_file"
    )]
    NoRepository {
        /// The hub.
        endpoint: String,
        /// `ORG/NAME`.
        repository: String,
    },
    /// The repository is there, the revision is not.
    #[error(
        "{repository} has no revision {revision}; name a branch, a tag or a whole commit hash (40 hex digits)"
    )]
    NoRevision {
        /// `ORG/NAME`.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// A file that is needed is not in the repository.
    #[error("{repository} at {commit} lacks {file}, which {because}; it cannot be served")]
    NoFile {
        /// `ORG/NAME`.
        repository: String,
        /// The commit.
        commit: String,
        /// The file's path in the repository.
        file: String,
        /// Who needs it.
        because: &'static str,
    },
    /// The hub knows the caller's rights, and they do not suffice.
    #[error("the hub refuses {repository} (status {status}); {remedy}")]
    Denied {
        /// `ORG/NAME`.
        repository: String,
        /// 401 or 403.
        status: u16,
        /// What to do.
        remedy: &'static str,
    },
    /// No answer, or none that helps, after several tries.
    #[error(
        "{url} gives no answer after {tries} tries: {reason}; try again later, or set HF_HUB_OFFLINE=1 to serve what the cache has"
    )]
    Unreachable {
        /// What was asked.
        url: String,
        /// How often.
        tries: u32,
        /// The last reason.
        reason: String,
    },
    /// A transfer that broke again and again.
    #[error(
        "{file} broke off {tries} times in a row without a byte more ({reason}); {have} of {length} bytes are kept, and the \
         next try goes on from there"
    )]
    Cut {
        /// The file's path in the repository.
        file: String,
        /// How often.
        tries: u32,
        /// Bytes on disk.
        have: u64,
        /// Bytes of the whole.
        length: u64,
        /// The last reason.
        reason: String,
    },
    /// What came is not what the hub promised.
    #[error(
        "{file} of {repository} came with SHA-256 {found}, the hub says {expected}; it was not kept; try again, and if it stays \
         so, do not trust {endpoint}"
    )]
    Digest {
        /// The file's path in the repository.
        file: String,
        /// `ORG/NAME`.
        repository: String,
        /// The hub.
        endpoint: String,
        /// What came.
        found: String,
        /// What was promised.
        expected: String,
    },
    /// Offline, and not in the cache.
    #[error(
        "HF_HUB_OFFLINE is set, and the cache {cache} lacks {what}; fetch it once with `diptych-server pull {spec}` without that \
         variable"
    )]
    Offline {
        /// The cache's folder.
        cache: PathBuf,
        /// What it lacks.
        what: String,
        /// The checkpoint.
        spec: String,
    },
    /// Offline, and the cache is not what was fetched.
    #[error(
        "{file} in the cache is not what was fetched; it was changed or damaged, and HF_HUB_OFFLINE forbids fetching it anew; \
         run `diptych-server pull {spec}` without that variable"
    )]
    Changed {
        /// The file on disk.
        file: PathBuf,
        /// The checkpoint.
        spec: String,
    },
    /// Weights in a format that may run code.
    #[error(
        "{repository} has its weights only as pickle ({file}), which can run code when it is read; fetch that file yourself and \
         convert it once: `diptych-train import {file} --to FOLDER`, then serve --bundle FOLDER"
    )]
    Pickle {
        /// `ORG/NAME`.
        repository: String,
        /// One of the pickle files.
        file: String,
    },
    /// No weights that could be served.
    #[error(
        "{repository} at {commit} has neither bundle.json nor model.safetensors nor model.safetensors.index.json; name another \
         repository or revision"
    )]
    NoWeights {
        /// `ORG/NAME`.
        repository: String,
        /// The commit.
        commit: String,
    },
    /// An answer that is not as the hub's protocol has it.
    #[error("{url} is no hub, or a broken one: {problem}; check HF_ENDPOINT")]
    Reply {
        /// What was asked.
        url: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// A file that lists others, and is not what it should be.
    #[error("{file} of {repository} cannot be used: {problem}")]
    Listing {
        /// The file's path in the repository.
        file: String,
        /// `ORG/NAME`.
        repository: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk refuses.
    #[error(
        "{path}: {source}; check the folder's rights and room, or give another cache by HF_HOME"
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// A refusal by the system at `path`, for `map_err`.
    pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// An answer that cannot be used.
    pub(super) fn reply(url: &str, problem: impl Into<String>) -> Self {
        Self::Reply { url: url.to_owned(), problem: problem.into() }
    }
}
