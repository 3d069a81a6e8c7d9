//! What can be said of aliases, snapshots, changes of bundle and operations.

use clap::{Args, Subcommand};

/// Whether to wait for work that outlives a call.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Waiting {
    /// Print the operation at once instead of waiting for its end; `diptych operation wait` waits later.
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// What to do with aliases.
#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// Point an alias at a collection, new or moved from another one.
    Set {
        /// The alias.
        alias: String,
        /// The collection.
        #[arg(value_name = "COLLECTION")]
        target: String,
        /// Only if it points at this collection now; an empty name: only if it is new.
        #[arg(long, value_name = "COLLECTION")]
        expect: Option<String>,
    },
    /// List all.
    List,
    /// Delete one; its collection stays.
    Delete {
        /// The alias.
        alias: String,
    },
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotCommand {
    /// Write one of a collection.
    Create {
        /// The collection, or an alias.
        #[arg(value_name = "COLLECTION")]
        of: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// List all, newest first.
    List {
        /// Only of this collection.
        #[arg(value_name = "COLLECTION")]
        of: Option<String>,
    },
    /// Make a collection of one.
    Restore {
        /// Its name.
        name: String,
        /// Name of the collection [default: the one it was made of, which must be gone].
        #[arg(long, value_name = "COLLECTION")]
        into: Option<String>,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Delete one.
    Delete {
        /// Its name.
        name: String,
    },
}

/// What to do about a change of bundle.
#[derive(Debug, Subcommand)]
pub(crate) enum ReembedCommand {
    /// Embed the collection behind an alias by another bundle, into a new collection beside it.
    Start {
        /// The alias.
        alias: String,
        /// Digest of the other bundle, as `diptych info` shows it.
        #[arg(long, value_name = "DIGEST")]
        bundle: String,
        /// Name of the new collection.
        #[arg(long, value_name = "COLLECTION")]
        into: String,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Move the alias to the new collection.
    Finish {
        /// The alias.
        alias: String,
    },
    /// Move the alias back to the old collection, with what was written since.
    Rollback {
        /// The alias.
        alias: String,
    },
}

/// What to do with operations.
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List all that are not forgotten, newest first.
    List,
    /// Wait until one has ended; with --deadline no longer than that.
    Wait {
        /// Its name.
        name: String,
    },
    /// Ask one to stop; what it did is taken back.
    Cancel {
        /// Its name.
        name: String,
    },
}
