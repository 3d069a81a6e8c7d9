//! Writing: everything between the start of a transaction and its commit.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Bound,
};

use heed::RwTxn;
use serde::Serialize;

use super::{
    Store, Table,
    env::fault,
    key::{self, CollectionId, Slot},
    record::{self, CollectionRecord, ItemRecord, RequestRecord, SourceRef},
    sources::NewFile,
};
use crate::{
    error::{Error, Result},
    types::{ItemId, VectorStorage},
};

/// Requests are remembered for this long.
pub(crate) const REQUEST_RETENTION_MS: u64 = 3_600_000;
/// Most requests remembered.
pub(crate) const REQUESTS_MAX: u64 = 100_000;

/// A source on its way into the store.
#[derive(Debug)]
pub(crate) enum NewSource {
    None,
    Inline(Vec<u8>),
    File(NewFile),
}

impl NewSource {
    pub(crate) fn reference(&self) -> SourceRef {
        match self {
            Self::None => SourceRef::None,
            Self::Inline(bytes) => SourceRef::Inline { bytes: bytes.len() as u64 },
            Self::File(file) => SourceRef::File { digest: file.digest, bytes: file.bytes },
        }
    }
}

/// What becomes of files that no item names after a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// They are removed.
    Remove,
    /// They stay until the next start: writes that wait may have placed them already.
    Keep,
}

/// One item with everything that belongs to it.
#[derive(Debug)]
pub(crate) struct ItemWrite<'a> {
    pub(crate) id: &'a ItemId,
    pub(crate) record: ItemRecord,
    pub(crate) source: &'a NewSource,
    /// Unit vectors, rounded as they are stored.
    pub(crate) vectors: &'a [(Slot, Vec<f32>)],
    pub(crate) storage: VectorStorage,
}

/// A write transaction; dropping it undoes everything but files, which the next start sweeps.
pub(crate) struct WriteTxn<'a> {
    pub(super) store: &'a Store,
    pub(super) txn: RwTxn<'a>,
    /// Files that no item names any more.
    unused: HashSet<[u8; 32]>,
    /// Deletes that were added to the logs of changes.
    pub(super) deletes: BTreeMap<CollectionId, u64>,
}

impl Store {
    /// Starts a write. There is one at a time.
    pub(crate) fn write(&self) -> Result<WriteTxn<'_>> {
        let txn = self.env.write()?;
        Ok(WriteTxn { store: self, txn, unused: HashSet::new(), deletes: BTreeMap::new() })
    }

    /// Makes room after a write failed with a full map; no transaction may be open on this thread.
    pub(crate) fn grow(&self) -> Result<()> {
        self.env.grow()
    }
}

impl WriteTxn<'_> {
    /// Makes everything durable; only then may files go that are no longer named.
    pub(crate) fn commit(mut self, unused: Unused) -> Result<()> {
        self.trim_logs()?;
        self.store.fault.check()?;
        self.txn.commit().map_err(fault)?;
        if unused == Unused::Remove {
            self.store.remove_unused(self.unused)?;
        }
        Ok(())
    }

    pub(crate) fn put_collection(&mut self, record: &CollectionRecord) -> Result<()> {
        let table = self.store.tables.collections;
        self.put_record(table, record.spec.name.as_bytes(), record)
    }

    pub(crate) fn has_collection(&self, name: &str) -> Result<bool> {
        let found = self.store.tables.collections.get(&self.txn, name.as_bytes()).map_err(fault)?;
        Ok(found.is_some())
    }

    /// A number that no collection had before. Sequences outlive their collection for this.
    pub(crate) fn fresh_collection_id(&mut self) -> Result<CollectionId> {
        let last = self.store.tables.sequences.last(&self.txn).map_err(fault)?;
        let id = match last {
            None => 1,
            Some((key, _)) => {
                let key = key.first_chunk::<4>().ok_or_else(|| Error::internal("short key"))?;
                u32::from_be_bytes(*key)
                    .checked_add(1)
                    .ok_or_else(|| Error::internal("all numbers of collections are used"))?
            }
        };
        self.put_sequence(id, 0)?;
        Ok(id)
    }

    pub(crate) fn put_sequence(&mut self, id: CollectionId, sequence: u64) -> Result<()> {
        let table = self.store.tables.sequences;
        self.put_raw(table, &key::collection(id), &sequence.to_le_bytes())
    }

    /// A change that means nothing, so that the commit has something to write. No collection has
    /// the number 0.
    pub(crate) fn put_probe(&mut self) -> Result<()> {
        self.put_sequence(0, 0)
    }

    pub(crate) fn item(&self, id: CollectionId, item: &ItemId) -> Result<Option<ItemRecord>> {
        self.store.item_record(&self.txn, id, item)
    }

    /// Writes an item in place of `old`.
    pub(crate) fn put_item(
        &mut self,
        collection: CollectionId,
        item: &ItemWrite<'_>,
        old: Option<&ItemRecord>,
    ) -> Result<()> {
        let tables = self.store.tables;
        let version = item.record.version;
        // The file first: its count must not fall to nothing when old and new name the same one.
        match item.source {
            NewSource::None => {}
            NewSource::Inline(bytes) => {
                self.put_raw(tables.sources, &key::source(collection, version), bytes)?;
            }
            NewSource::File(file) => {
                self.store.sources.place(file)?;
                self.count_file(&file.digest, 1)?;
            }
        }
        if let Some(old) = old {
            self.remove_parts(collection, old)?;
            self.delete(tables.changes, &key::change(collection, false, old.version))?;
        }
        let change = key::change(collection, false, version);
        self.put_raw(tables.changes, &change, item.id.as_str().as_bytes())?;
        for (slot, vector) in item.vectors {
            let key = key::vector(collection, *slot, version);
            let value = record::encode_vector(&key, vector, item.storage);
            tables.vectors.put(&mut self.txn, &key, &value).map_err(fault)?;
        }
        if let Some(group) = &item.record.group {
            let key = key::group_member(collection, group, version);
            self.put_raw(tables.groups, &key, item.id.as_str().as_bytes())?;
        }
        self.put_record(tables.items, &key::named(collection, item.id.as_str()), &item.record)
    }

    /// Removes an item and everything that belongs to it; `sequence` is the number of the change.
    pub(crate) fn delete_item(
        &mut self,
        collection: CollectionId,
        (id, old): (&ItemId, &ItemRecord),
        sequence: u64,
    ) -> Result<()> {
        self.remove_parts(collection, old)?;
        self.log_delete(collection, (id, old.version), sequence)?;
        let key = key::named(collection, id.as_str());
        self.delete(self.store.tables.items, &key)
    }

    /// Ids of a group's items.
    pub(crate) fn group(&self, collection: CollectionId, group: &str) -> Result<Vec<ItemId>> {
        self.store.group_ids(&self.txn, collection, group)
    }

    /// Removes a collection and all it holds; its number is not used again.
    pub(crate) fn drop_collection(&mut self, name: &str, id: CollectionId) -> Result<()> {
        let tables = self.store.tables;
        for digest in self.store.file_digests(&self.txn, id)? {
            self.count_file(&digest, -1)?;
        }
        let requests = self.store.request_times(&self.txn, id)?;
        for time in requests {
            self.delete(tables.request_times, &time)?;
        }
        self.delete(tables.collections, name.as_bytes())?;
        let from = key::collection(id);
        let to = key::collection(id.saturating_add(1));
        let range = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
        self.drop_log(id)?;
        let tables = [
            tables.items,
            tables.vectors,
            tables.sources,
            tables.groups,
            tables.requests,
            tables.segments,
        ];
        for table in tables {
            table.delete_range(&mut self.txn, &range).map_err(fault)?;
        }
        Ok(())
    }

    pub(crate) fn request(
        &self,
        collection: CollectionId,
        request: &str,
    ) -> Result<Option<RequestRecord>> {
        self.store.request_record(&self.txn, collection, request)
    }

    /// Remembers a request and forgets old ones: those past the retention, and beyond the most
    /// that are kept. Each call forgets more than it adds, so the ledger shrinks to its bound.
    pub(crate) fn put_request(
        &mut self,
        collection: CollectionId,
        request: &str,
        record: &RequestRecord,
    ) -> Result<()> {
        let tables = self.store.tables;
        let key = key::named(collection, request);
        self.put_record(tables.requests, &key, record)?;
        let time = key::request_time(record.at_ms, &key);
        self.put_raw(tables.request_times, &time, &key)?;
        for _ in 0..4 {
            if !self.forget_oldest_request(record.at_ms)? {
                break;
            }
        }
        Ok(())
    }

    fn forget_oldest_request(&mut self, now_ms: u64) -> Result<bool> {
        let tables = self.store.tables;
        let kept = tables.request_times.len(&self.txn).map_err(fault)?;
        let first = tables.request_times.first(&self.txn).map_err(fault)?;
        let Some((time, value)) = first else { return Ok(false) };
        let at_ms = time.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        if kept <= REQUESTS_MAX && at_ms.saturating_add(REQUEST_RETENTION_MS) > now_ms {
            return Ok(false);
        }
        let request = record::unframe(time, value).map(<[u8]>::to_vec);
        let time = time.to_vec();
        self.delete(tables.request_times, &time)?;
        if let Ok(request) = request {
            self.delete(tables.requests, &request)?;
        }
        Ok(true)
    }

    /// Removes what belongs to one version of an item: vectors, source, place in its group.
    fn remove_parts(&mut self, collection: CollectionId, old: &ItemRecord) -> Result<()> {
        let tables = self.store.tables;
        for slot in Slot::ALL {
            self.delete(tables.vectors, &key::vector(collection, slot, old.version))?;
        }
        if let Some(group) = &old.group {
            self.delete(tables.groups, &key::group_member(collection, group, old.version))?;
        }
        match &old.source {
            SourceRef::None => Ok(()),
            SourceRef::Inline { .. } => {
                self.delete(tables.sources, &key::source(collection, old.version))
            }
            SourceRef::File { digest, .. } => self.count_file(digest, -1),
        }
    }

    fn count_file(&mut self, digest: &[u8; 32], by: i64) -> Result<()> {
        let files = self.store.tables.files;
        let found = files.get(&self.txn, digest).map_err(fault)?;
        let count = match found.map(|value| record::decode::<u64>(digest, value)) {
            None => 0,
            Some(Ok(count)) => count,
            Some(Err(_)) => {
                return Err(self.store.damaged("the count of a source is not readable"));
            }
        };
        let count = count.saturating_add_signed(by);
        if count == 0 {
            self.unused.insert(*digest);
            return self.delete(files, digest);
        }
        self.unused.remove(digest);
        self.put_record(files, digest, &count)
    }

    pub(super) fn put_raw(&mut self, table: Table, key: &[u8], body: &[u8]) -> Result<()> {
        table.put(&mut self.txn, key, &record::frame(key, body)).map_err(fault)
    }

    pub(super) fn put_record<T: Serialize>(
        &mut self,
        table: Table,
        key: &[u8],
        record: &T,
    ) -> Result<()> {
        let value = record::encode(key, record)?;
        table.put(&mut self.txn, key, &value).map_err(fault)
    }

    pub(super) fn delete(&mut self, table: Table, key: &[u8]) -> Result<()> {
        table.delete(&mut self.txn, key).map_err(fault)?;
        Ok(())
    }
}
