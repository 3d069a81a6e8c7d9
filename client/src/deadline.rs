//! How long calls may take.

use std::time::Duration;

/// What a call is for, which says how long it may take and whether it may be hedged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Searches and explanations of them.
    Search,
    /// Inputs to vectors.
    Embed,
    /// Items, collections, operations and the server itself, looked at.
    Read,
    /// Items put or deleted.
    Write,
    /// Collections, aliases, snapshots and operations, changed or measured.
    Admin,
}

impl Class {
    pub(crate) const COUNT: usize = 5;

    /// Whether a second call beside the first harms nobody: it changes nothing.
    pub(crate) fn is_read(self) -> bool {
        matches!(self, Self::Search | Self::Embed | Self::Read)
    }
}

/// Longest calls, retries and the waits between them included. gRPC has no deadline unless one is set; a call of this client
/// always has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deadlines {
    /// `Search…`, `BatchSearch` (to its first answer), `ExplainMatch`. Default 5 s.
    pub search: Duration,
    /// `EmbedText`, `EmbedImage`, `BatchEmbed`. Default 10 s.
    pub embed: Duration,
    /// `Get…`, `List…`, `GetServerInfo`, `WaitOperation`. Default 10 s.
    pub read: Duration,
    /// `UpsertItem`, `BatchUpsertItems`, `DeleteItems`. Default 30 s.
    pub write: Duration,
    /// All else: collections, aliases, snapshots, re-embedding, `MeasureRecall`, `Compact`. Default 30 s.
    pub admin: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            search: Duration::from_secs(5),
            embed: Duration::from_secs(10),
            read: Duration::from_secs(10),
            write: Duration::from_secs(30),
            admin: Duration::from_secs(30),
        }
    }
}

impl Deadlines {
    /// One deadline for every call.
    pub fn all(deadline: Duration) -> Self {
        Self { search: deadline, embed: deadline, read: deadline, write: deadline, admin: deadline }
    }

    pub(crate) fn of(&self, class: Class) -> Duration {
        match class {
            Class::Search => self.search,
            Class::Embed => self.embed,
            Class::Read => self.read,
            Class::Write => self.write,
            Class::Admin => self.admin,
        }
    }
}
