//! Aliases, settings, the log of changes, notes and compacting, as callers ask for them.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use super::{
    Collection, EmbeddedEngine, blocking,
    job::{AdminAnswer, AdminWrite},
    prepare::check_mark,
    read, snapshot,
    writer::{Message, Write},
};
use crate::{
    engine::{
        Alias, AliasChange, ChangePage, CollectionUpdate, DeleteOutcome, EngineAdmin, Progress,
        Selection, SnapshotInfo, StoredMark,
    },
    error::{Error, Rejection, Result},
    store::{Store, changes::mark_key},
    types::{CollectionInfo, check_collection_name},
};

/// Longest key of a note in bytes: what a key of the store holds.
const NOTE_KEY_MAX_BYTES: usize = 256;

/// A part of a collection's log of changes.
pub(super) fn changes(
    store: &Store,
    collection: &Collection,
    after: u64,
    limit: usize,
) -> Result<ChangePage> {
    let txn = store.read()?;
    let generation = store.sequence(&txn, collection.id)?;
    // A follower that begins has copied nothing, so no delete concerns it.
    let complete = after == 0 || after >= store.log(&txn, collection.id)?.floor;
    // One more than asked for tells whether there is more.
    let mut changes = store.changes(&txn, collection.id, (after, limit.saturating_add(1)))?;
    let more = changes.len() > limit;
    changes.truncate(limit);
    Ok(ChangePage { changes, more, generation, complete })
}

impl EmbeddedEngine {
    /// A collection by its name or by an alias.
    pub(super) fn open_named(&self, name: &str) -> Result<Arc<Collection>> {
        let found = self.open_collection(name);
        let Err(Error::CollectionMissing { .. }) = &found else { return found };
        match self.aliases.load().get(name) {
            Some(alias) => self.open_collection(&alias.name),
            None => found,
        }
    }

    pub(super) fn list_aliases(&self) -> Result<Vec<Alias>> {
        self.store()?;
        let aliases = self.aliases.load();
        let alias = |(name, record): (&String, &crate::store::record::AliasRecord)| Alias {
            name: name.clone(),
            collection: record.name.clone(),
        };
        Ok(aliases.iter().map(alias).collect())
    }

    pub(super) async fn move_alias(&self, change: AliasChange) -> Result<Option<String>> {
        self.store()?;
        check_collection_name("alias.name", &change.name)?;
        match self.admin(AdminWrite::Alias(change)).await? {
            AdminAnswer::Alias(previous) => Ok(previous),
            _ => Err(Error::internal("an answer of another write")),
        }
    }

    pub(super) async fn change_settings(
        &self,
        collection: &str,
        update: CollectionUpdate,
    ) -> Result<CollectionInfo> {
        let collection = self.open_collection(collection)?;
        self.info_of(AdminWrite::Update { collection, update }).await
    }

    pub(super) async fn write_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<()> {
        self.store()?;
        if key.is_empty() || key.len() > NOTE_KEY_MAX_BYTES {
            return Err(Error::internal("the key of a note has 1 to 256 bytes"));
        }
        self.admin(AdminWrite::Note { key: key.to_owned(), value }).await.map(|_| ())
    }

    /// Rewrites the index without rows that ended, and waits for it.
    pub(super) async fn compact_rows(&self, collection: &str, progress: &Progress) -> Result<()> {
        let collection = self.open_collection(collection)?;
        progress.expect(1);
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Compact(collection, sender))?;
        receiver.await.map_err(|_| self.ended())??;
        progress.step();
        Ok(())
    }

    pub(super) async fn admin(&self, write: AdminWrite) -> Result<AdminAnswer> {
        self.write(|reply| Write::Admin { write, reply }).await
    }

    pub(super) async fn info_of(&self, write: AdminWrite) -> Result<CollectionInfo> {
        match self.admin(write).await? {
            AdminAnswer::Info(info) => Ok(info),
            _ => Err(Error::internal("an answer of another write")),
        }
    }
}

#[async_trait]
impl EngineAdmin for EmbeddedEngine {
    async fn matching(&self, collection: &str, selection: &Selection) -> Result<DeleteOutcome> {
        if let Selection::Filter(filter) = selection {
            filter.check()?;
        }
        let selection = selection.clone();
        self.read(collection, move |store, collection| {
            read::matching(store, collection, &selection)
        })
        .await
    }

    async fn update_collection(
        &self,
        collection: &str,
        update: CollectionUpdate,
    ) -> Result<CollectionInfo> {
        self.change_settings(collection, update).await
    }

    async fn changes(&self, collection: &str, after: u64, limit: usize) -> Result<ChangePage> {
        if limit == 0 {
            return Err(Rejection::invalid("limit", "is 0").into());
        }
        self.read(collection, move |store, collection| changes(store, collection, after, limit))
            .await
    }

    async fn aliases(&self) -> Result<Vec<Alias>> {
        self.list_aliases()
    }

    async fn change_alias(&self, change: AliasChange) -> Result<Option<String>> {
        self.move_alias(change).await
    }

    async fn put_note(&self, key: &str, value: Option<Vec<u8>>) -> Result<()> {
        self.write_note(key, value).await
    }

    async fn notes(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let store = self.store()?;
        blocking(move || store.notes(&*store.read()?)).await
    }

    async fn mark(&self, key: &str) -> Result<Option<StoredMark>> {
        check_mark(key)?;
        let (store, key) = (self.store()?, key.to_owned());
        blocking(move || store.mark(&*store.read()?, &key)).await
    }

    async fn marks(&self) -> Result<Vec<(String, StoredMark)>> {
        let store = self.store()?;
        blocking(move || store.marks(&*store.read()?)).await
    }

    async fn forget_mark(&self, key: &str) -> Result<()> {
        check_mark(key)?;
        self.write_note(&mark_key(key), None).await
    }

    fn has_snapshots(&self) -> bool {
        true
    }

    async fn create_snapshot(
        &self,
        collection: &str,
        progress: Arc<Progress>,
    ) -> Result<SnapshotInfo> {
        let (folder, now_ms) = (self.snapshots.clone(), (self.now_ms)());
        self.read(collection, move |store, collection| {
            snapshot::create(store, collection, (&folder, now_ms), &progress)
        })
        .await
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        self.store()?;
        let folder = self.snapshots.clone();
        blocking(move || snapshot::list(&folder)).await
    }

    async fn restore_snapshot(
        &self,
        snapshot: &str,
        collection: Option<&str>,
        progress: Arc<Progress>,
    ) -> Result<CollectionInfo> {
        self.restore(snapshot, collection, progress).await
    }

    async fn delete_snapshot(&self, snapshot: &str) -> Result<()> {
        self.store()?;
        let (folder, name) = (self.snapshots.clone(), snapshot.to_owned());
        blocking(move || snapshot::delete(&folder, &name)).await
    }

    async fn compact(&self, collection: &str, progress: Arc<Progress>) -> Result<()> {
        self.compact_rows(collection, &progress).await
    }
}
