//! The log of changes, aliases, notes and marks.
//!
//! The log has one entry for each item that is there, under the number of its last put, and one for
//! each of the latest deletes. So a follower that read up to a number learns what to copy and what
//! to remove, and the log never outgrows what is stored by more than [`DELETES_MAX`].

use std::{collections::BTreeMap, ops::Bound};

use heed::{AnyTls, RoTxn};

use super::{
    Store,
    env::fault,
    key::{self, CollectionId},
    record::{self, AliasRecord, CollectionRecord, LogRecord},
    write::WriteTxn,
};
use crate::{
    engine::{ChangeKind, ItemChange, StoredMark},
    error::Result,
    types::ItemId,
};

/// Deletes that are kept in the log of one collection.
pub(crate) const DELETES_MAX: u64 = 100_000;

/// Before the keys of marks, among those of notes.
const MARK: &str = "mark/";

type Txn<'a> = RoTxn<'a, AnyTls>;

impl Store {
    /// At most `limit` changes with a number above `after`, in the order of their numbers.
    pub(crate) fn changes(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        (after, limit): (u64, usize),
    ) -> Result<Vec<ItemChange>> {
        let mut found = Vec::new();
        for kind in [ChangeKind::Put, ChangeKind::Deleted] {
            let deleted = kind == ChangeKind::Deleted;
            let start = key::change(collection, deleted, after);
            let end = key::change(collection, deleted, u64::MAX);
            let range = (Bound::Excluded(start.as_slice()), Bound::Included(end.as_slice()));
            for row in self.tables.changes.range(txn, &range).map_err(fault)?.take(limit) {
                let (key, value) = row.map_err(fault)?;
                let id = record::unframe(key, value)
                    .ok()
                    .and_then(|body| std::str::from_utf8(body).ok())
                    .map(ItemId::trusted)
                    .ok_or_else(|| {
                        self.damaged("an entry of the log of changes is not readable")
                    })?;
                found.push(ItemChange { sequence: key::trailing_u64(key)?, id, kind });
            }
        }
        found.sort_unstable_by_key(|change| change.sequence);
        found.truncate(limit);
        Ok(found)
    }

    /// What a collection's log does not hold any more.
    pub(crate) fn log(&self, txn: &Txn<'_>, collection: CollectionId) -> Result<LogRecord> {
        let key = key::collection(collection);
        match self.tables.logs.get(txn, &key).map_err(fault)? {
            None => Ok(LogRecord::default()),
            Some(value) => record::decode(&key, value)
                .map_err(|_| self.damaged("the record of a log of changes is not readable")),
        }
    }

    /// All aliases, by name.
    pub(crate) fn aliases(&self, txn: &Txn<'_>) -> Result<Vec<(String, AliasRecord)>> {
        let mut found = Vec::new();
        for row in self.tables.aliases.iter(txn).map_err(fault)? {
            let (name, value) = row.map_err(fault)?;
            let record = record::decode(name, value)
                .map_err(|_| self.damaged("the record of an alias is not readable"))?;
            found.push((String::from_utf8_lossy(name).into_owned(), record));
        }
        Ok(found)
    }

    /// All notes that are no marks, by key.
    pub(crate) fn notes(&self, txn: &Txn<'_>) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for row in self.tables.notes.iter(txn).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            if key.starts_with(MARK.as_bytes()) {
                continue;
            }
            let body = record::unframe(key, value)
                .map_err(|_| self.damaged("a note of the program is not readable"))?;
            found.push((String::from_utf8_lossy(key).into_owned(), body.to_vec()));
        }
        Ok(found)
    }

    /// A mark by its key.
    pub(crate) fn mark(&self, txn: &Txn<'_>, key: &str) -> Result<Option<StoredMark>> {
        let key = mark_key(key);
        let found = self.tables.notes.get(txn, key.as_bytes()).map_err(fault)?;
        found.map(|value| self.decode_mark(key.as_bytes(), value)).transpose()
    }

    /// All marks, by key.
    pub(crate) fn marks(&self, txn: &Txn<'_>) -> Result<Vec<(String, StoredMark)>> {
        let mut found = Vec::new();
        for row in self.tables.notes.prefix_iter(txn, MARK.as_bytes()).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let name = String::from_utf8_lossy(&key[MARK.len()..]).into_owned();
            found.push((name, self.decode_mark(key, value)?));
        }
        Ok(found)
    }

    fn decode_mark(&self, key: &[u8], value: &[u8]) -> Result<StoredMark> {
        record::decode(key, value).map_err(|_| self.damaged("a mark is not readable"))
    }
}

/// A mark's key among those of notes.
pub(crate) fn mark_key(key: &str) -> String {
    format!("{MARK}{key}")
}

impl WriteTxn<'_> {
    /// Puts a delete in the place of the item's put.
    pub(super) fn log_delete(
        &mut self,
        collection: CollectionId,
        (id, version): (&ItemId, u64),
        sequence: u64,
    ) -> Result<()> {
        let changes = self.store.tables.changes;
        self.delete(changes, &key::change(collection, false, version))?;
        let key = key::change(collection, true, sequence);
        self.put_raw(changes, &key, id.as_str().as_bytes())?;
        *self.deletes.entry(collection).or_default() += 1;
        Ok(())
    }

    /// Forgets the oldest of too many deletes, and notes how far they reached.
    pub(super) fn trim_logs(&mut self) -> Result<()> {
        let tables = self.store.tables;
        for (collection, added) in std::mem::take(&mut self.deletes) {
            let mut log = self.store.log(&self.txn, collection)?;
            log.deletes += added;
            let surplus = log.deletes.saturating_sub(DELETES_MAX);
            let mut oldest = Vec::new();
            let prefix = key::changes(collection, true);
            let rows = tables.changes.prefix_iter(&self.txn, &prefix).map_err(fault)?;
            for row in rows.take(usize::try_from(surplus).unwrap_or(usize::MAX)) {
                oldest.push(row.map_err(fault)?.0.to_vec());
            }
            for key in oldest {
                log.floor = log.floor.max(key::trailing_u64(&key)?);
                log.deletes -= 1;
                self.delete(tables.changes, &key)?;
            }
            self.put_record(tables.logs, &key::collection(collection), &log)?;
        }
        Ok(())
    }

    /// Says that deletes up to `floor` are not in the log.
    pub(crate) fn put_log_floor(&mut self, collection: CollectionId, floor: u64) -> Result<()> {
        let log = LogRecord { floor, ..self.store.log(&self.txn, collection)? };
        self.put_record(self.store.tables.logs, &key::collection(collection), &log)
    }

    /// Writes the entry of a put that is there already.
    pub(super) fn log_put(
        &mut self,
        collection: CollectionId,
        (id, version): (&ItemId, u64),
    ) -> Result<()> {
        let key = key::change(collection, false, version);
        self.put_raw(self.store.tables.changes, &key, id.as_str().as_bytes())
    }

    /// Removes the log of a collection.
    pub(super) fn drop_log(&mut self, collection: CollectionId) -> Result<()> {
        let tables = self.store.tables;
        self.deletes.remove(&collection);
        self.delete(tables.logs, &key::collection(collection))?;
        let (from, to) =
            (key::collection(collection), key::collection(collection.saturating_add(1)));
        let range = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
        tables.changes.delete_range(&mut self.txn, &range).map_err(fault)?;
        Ok(())
    }

    /// What an alias stands for.
    pub(crate) fn alias(&self, name: &str) -> Result<Option<AliasRecord>> {
        let found = self.store.tables.aliases.get(&self.txn, name.as_bytes()).map_err(fault)?;
        found
            .map(|value| record::decode(name.as_bytes(), value))
            .transpose()
            .map_err(|_| self.store.damaged("the record of an alias is not readable"))
    }

    /// All aliases, as this transaction leaves them.
    pub(crate) fn aliases(&self) -> Result<BTreeMap<String, AliasRecord>> {
        Ok(self.store.aliases(&self.txn)?.into_iter().collect())
    }

    /// One of the aliases that stand for a collection.
    pub(crate) fn alias_of(&self, collection: CollectionId) -> Result<Option<String>> {
        let all = self.store.aliases(&self.txn)?;
        let found = all.into_iter().find(|(_, record)| record.collection == collection);
        Ok(found.map(|(name, _)| name))
    }

    /// Sets an alias, or removes it.
    pub(crate) fn put_alias(&mut self, name: &str, record: Option<&AliasRecord>) -> Result<()> {
        let table = self.store.tables.aliases;
        match record {
            Some(record) => self.put_record(table, name.as_bytes(), record),
            None => self.delete(table, name.as_bytes()),
        }
    }

    /// Writes a note, or removes it.
    pub(crate) fn put_note(&mut self, key: &str, value: Option<&[u8]>) -> Result<()> {
        let table = self.store.tables.notes;
        match value {
            Some(value) => self.put_raw(table, key.as_bytes(), value),
            None => self.delete(table, key.as_bytes()),
        }
    }

    /// Writes a mark.
    pub(crate) fn put_mark(&mut self, key: &str, mark: &StoredMark) -> Result<()> {
        self.put_record(self.store.tables.notes, mark_key(key).as_bytes(), mark)
    }

    /// Gives a collection another record, and with it perhaps another name.
    pub(crate) fn rename_collection(&mut self, old: &str, record: &CollectionRecord) -> Result<()> {
        self.delete(self.store.tables.collections, old.as_bytes())?;
        self.put_collection(record)
    }
}
