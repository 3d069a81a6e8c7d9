//! What is asked of an engine beside items and searches: settings, aliases, the log of changes,
//! snapshots, and notes that the program wants to find again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::{DeleteOutcome, Selection, StoredMark};
use crate::{
    error::{Error, Result},
    types::{CollectionInfo, ItemId},
};

/// New settings of a collection; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CollectionUpdate {
    /// Whether items put from now on keep their sources. Sources that are stored stay until their
    /// item is put again or deleted.
    pub keep_source: Option<bool>,
}

/// A second name of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alias {
    /// Formed as a collection's name, and never the name of one.
    pub name: String,
    /// Name of the collection that it stands for.
    pub collection: String,
}

/// A change of an alias, done whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AliasChange {
    /// The alias.
    pub name: String,
    /// Name of the collection that it is to stand for; `None` deletes it.
    pub collection: Option<String>,
    /// What it must stand for now: `Some(None)`: there must be no such alias; `None`: whatever.
    pub expected: Option<Option<String>>,
    /// A collection and the generation that it must have at this moment: nothing was written to it
    /// since its changes were read.
    pub at_generation: Option<(String, u64)>,
    /// A note that is written together with the change.
    pub note: Option<(String, Vec<u8>)>,
}

/// What happened to an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was put; it has this version still.
    Put,
    /// It was deleted.
    Deleted,
}

/// One entry of the log of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemChange {
    /// Number of the change, rising. Of a put it is the item's version.
    pub sequence: u64,
    /// The item.
    pub id: ItemId,
    /// What happened.
    pub kind: ChangeKind,
}

/// A part of the log of changes. It has one entry for each item that is there, its last put, and
/// one for each of the latest deletes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangePage {
    /// In the order of their numbers.
    pub changes: Vec<ItemChange>,
    /// Whether there is more after these.
    pub more: bool,
    /// Generation of the collection that was read.
    pub generation: u64,
    /// False when deletes after the number asked for are not in the log any more: compare the ids
    /// of all items instead.
    pub complete: bool,
}

/// A copy of a collection in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its name, given by the engine.
    pub name: String,
    /// The collection it was made of.
    pub collection: String,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex.
    pub sha256: String,
    /// When it was made, milliseconds since 1970-01-01 UTC.
    pub created_at_ms: u64,
    /// Generation of the collection that it holds.
    pub generation: u64,
}

/// How far long work is, and whether it shall end early. Shared between who works and who asks.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Says how much there is to do in all.
    pub fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// Says how much is done.
    pub fn reach(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// Says that one more is done.
    pub fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Share done, 0 to 1; 0 while nobody knows the whole.
    pub fn share(&self) -> f64 {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) }
    }

    /// Asks the work to end early.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Ends the work when it was asked to.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// What an engine does beside items and searches. One that lacks something answers
/// [`Error::Unsupported`].
///
/// Methods that take a collection answer [`Error::CollectionMissing`] for one that does not exist.
#[async_trait]
pub trait EngineAdmin: Send + Sync {
    /// What a delete of this selection would delete now, and how many ids are not there.
    ///
    /// # Errors
    /// [`crate::Rejection`] for a bad filter.
    async fn matching(&self, _collection: &str, _selection: &Selection) -> Result<DeleteOutcome> {
        Err(Error::Unsupported { operation: "counting what a delete would delete" })
    }

    /// Changes settings of a collection.
    ///
    /// # Errors
    /// A store that refused.
    async fn update_collection(
        &self,
        _collection: &str,
        _update: CollectionUpdate,
    ) -> Result<CollectionInfo> {
        Err(Error::Unsupported { operation: "changing a collection" })
    }

    /// At most `limit` entries of the log of changes with a number above `after`.
    ///
    /// # Errors
    /// [`crate::Rejection`] for a limit of 0.
    async fn changes(&self, _collection: &str, _after: u64, _limit: usize) -> Result<ChangePage> {
        Err(Error::Unsupported { operation: "reading changes" })
    }

    /// All aliases, by name.
    async fn aliases(&self) -> Result<Vec<Alias>> {
        Ok(Vec::new())
    }

    /// Changes an alias; what it stood for before is given back.
    ///
    /// # Errors
    /// [`Error::AliasMismatch`], [`Error::AliasMissing`] for a delete, [`Error::CollectionExists`]
    /// when a collection has the name, [`Error::GenerationMoved`].
    async fn change_alias(&self, _change: AliasChange) -> Result<Option<String>> {
        Err(Error::Unsupported { operation: "aliases" })
    }

    /// Writes down something small that the program wants to find again; `None` removes it.
    async fn put_note(&self, _key: &str, _value: Option<Vec<u8>>) -> Result<()> {
        Err(Error::Unsupported { operation: "notes" })
    }

    /// All notes, by key.
    async fn notes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        Ok(Vec::new())
    }

    /// The mark of a key, as it was last written with a batch ([`super::PutBatch::mark`]).
    ///
    /// # Errors
    /// [`Error::Unsupported`] by an engine that does not write marks.
    async fn mark(&self, _key: &str) -> Result<Option<StoredMark>> {
        Err(Error::Unsupported { operation: "marks" })
    }

    /// All marks, by key.
    async fn marks(&self) -> Result<Vec<(String, StoredMark)>> {
        Ok(Vec::new())
    }

    /// Removes a mark; one that is not there is no error.
    async fn forget_mark(&self, _key: &str) -> Result<()> {
        Err(Error::Unsupported { operation: "marks" })
    }

    /// Whether it makes and restores snapshots.
    fn has_snapshots(&self) -> bool {
        false
    }

    /// Writes a collection, as it is at one moment, to a file of its own.
    ///
    /// # Errors
    /// A disk that refuses, [`Error::Cancelled`]; then nothing is left behind.
    async fn create_snapshot(
        &self,
        _collection: &str,
        _progress: Arc<Progress>,
    ) -> Result<SnapshotInfo> {
        Err(Error::Unsupported { operation: "snapshots" })
    }

    /// All snapshots, newest first.
    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        Err(Error::Unsupported { operation: "snapshots" })
    }

    /// Makes a collection of a snapshot, under `collection` or the name that it was made of. The
    /// collection is there once it is whole.
    ///
    /// # Errors
    /// [`Error::SnapshotMissing`], [`Error::SnapshotRefused`] before anything is written,
    /// [`Error::CollectionExists`], [`Error::Cancelled`].
    async fn restore_snapshot(
        &self,
        _snapshot: &str,
        _collection: Option<&str>,
        _progress: Arc<Progress>,
    ) -> Result<CollectionInfo> {
        Err(Error::Unsupported { operation: "snapshots" })
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// [`Error::SnapshotMissing`].
    async fn delete_snapshot(&self, _snapshot: &str) -> Result<()> {
        Err(Error::Unsupported { operation: "snapshots" })
    }

    /// Rewrites what is derived from a collection's items without what was deleted or replaced.
    async fn compact(&self, _collection: &str, _progress: Arc<Progress>) -> Result<()> {
        Err(Error::Unsupported { operation: "compacting" })
    }
}
