//! Reading. Every function takes the transaction it reads in.

use std::ops::Bound;

use heed::{AnyTls, RoTxn};
use serde::de::DeserializeOwned;

use super::{
    Store, Table,
    env::fault,
    key::{self, CollectionId, Slot},
    record::{self, CollectionRecord, ItemRecord, RequestRecord, SourceRef},
};
use crate::{
    error::{Error, Result},
    types::ItemId,
};

type Txn<'a> = RoTxn<'a, AnyTls>;

impl Store {
    /// All collections with their last sequence number.
    pub(crate) fn collections(&self, txn: &Txn<'_>) -> Result<Vec<(CollectionRecord, u64)>> {
        let mut found = Vec::new();
        for row in self.tables.collections.iter(txn).map_err(fault)? {
            let (name, value) = row.map_err(fault)?;
            let record = record::decode_collection(name, value).map_err(|_| {
                let name = String::from_utf8_lossy(name);
                self.damaged(format!("the record of collection {name:?} is not readable"))
            })?;
            let sequence = self.sequence(txn, record.id)?;
            found.push((record, sequence));
        }
        Ok(found)
    }

    /// Last sequence number of a collection.
    pub(crate) fn sequence(&self, txn: &Txn<'_>, id: CollectionId) -> Result<u64> {
        let key = key::collection(id);
        let value = self.tables.sequences.get(txn, &key).map_err(fault)?;
        value
            .and_then(|value| record::unframe(&key, value).ok())
            .and_then(|body| body.first_chunk::<8>())
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or_else(|| self.damaged("the sequence number of a collection is not readable"))
    }

    /// One item's record.
    pub(crate) fn item_record(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        id: &ItemId,
    ) -> Result<Option<ItemRecord>> {
        let key = key::named(collection, id.as_str());
        self.record(txn, self.tables.items, &key, || format!("item {id:?}"))
    }

    /// Items in the order of ids, from after `after` on.
    pub(crate) fn items_after<'t>(
        &'t self,
        txn: &'t Txn<'t>,
        collection: CollectionId,
        after: Option<&ItemId>,
    ) -> Result<impl Iterator<Item = Result<(ItemId, ItemRecord)>> + 't> {
        let start = key::named(collection, after.map_or("", ItemId::as_str));
        let end = key::collection(collection.saturating_add(1));
        let range = (Bound::Excluded(start.as_slice()), Bound::Excluded(end.as_slice()));
        let rows = self.tables.items.range(txn, &range).map_err(fault)?;
        Ok(rows.map(move |row| {
            let (key, value) = row.map_err(fault)?;
            let id = key::item_id(key)?;
            let record = record::decode(key, value)
                .map_err(|_| self.damaged(format!("the record of item {id:?} is not readable")))?;
            Ok((id, record))
        }))
    }

    /// How many items a collection has. Their records are not decoded.
    pub(crate) fn item_count(&self, txn: &Txn<'_>, collection: CollectionId) -> Result<u64> {
        let (start, end) =
            (key::collection(collection), key::collection(collection.saturating_add(1)));
        let range = (Bound::Included(start.as_slice()), Bound::Excluded(end.as_slice()));
        let mut count = 0;
        for row in self.tables.items.range(txn, &range).map_err(fault)? {
            row.map_err(fault)?;
            count += 1;
        }
        Ok(count)
    }

    /// Ids of a group's items, in the order of their versions.
    pub(crate) fn group_ids(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        group: &str,
    ) -> Result<Vec<ItemId>> {
        let mut ids = Vec::new();
        for id in self.group_candidates(txn, collection, group)? {
            let record = self.item_record(txn, collection, &id)?;
            if record.is_some_and(|record| record.group.as_deref() == Some(group)) {
                ids.push(id);
            }
        }
        Ok(ids)
    }

    /// Ids among which are a group's items: another group may have the same hash.
    pub(crate) fn group_candidates(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        group: &str,
    ) -> Result<Vec<ItemId>> {
        let prefix = key::group(collection, group);
        let mut found = Vec::new();
        for row in self.tables.groups.prefix_iter(txn, &prefix).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let id = record::unframe(key, value)
                .ok()
                .and_then(|body| std::str::from_utf8(body).ok())
                .map(ItemId::trusted)
                .ok_or_else(|| self.damaged("the member of a group is not readable"))?;
            found.push(id);
        }
        Ok(found)
    }

    /// Hands out the vector of one version of an item, as stored (key and value).
    pub(crate) fn vector_into<T>(
        &self,
        txn: &Txn<'_>,
        place: (CollectionId, Slot, u64),
        visit: impl FnOnce((&[u8], &[u8])) -> T,
    ) -> Result<Option<T>> {
        let key = key::vector(place.0, place.1, place.2);
        let value = self.tables.vectors.get(txn, &key).map_err(fault)?;
        Ok(value.map(|value| visit((&key, value))))
    }

    /// The vector of one version of an item.
    pub(crate) fn vector(
        &self,
        txn: &Txn<'_>,
        place: (CollectionId, Slot, u64),
        dims: usize,
    ) -> Result<Option<Vec<f32>>> {
        let key = key::vector(place.0, place.1, place.2);
        let Some(value) = self.tables.vectors.get(txn, &key).map_err(fault)? else {
            return Ok(None);
        };
        let mut vector = Vec::with_capacity(dims);
        record::decode_vector((&key, value), dims, &mut vector)
            .map_err(|_| self.damaged("a vector is not readable"))?;
        Ok(Some(vector))
    }

    /// The source of one version of an item; `None` when it has none, or when its file went away
    /// because the item was written or deleted after `txn` began.
    pub(crate) fn source(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        item: &ItemRecord,
    ) -> Result<Option<Vec<u8>>> {
        match &item.source {
            SourceRef::None => Ok(None),
            SourceRef::File { digest, .. } => self.sources.read(digest),
            SourceRef::Inline { .. } => {
                let key = key::source(collection, item.version);
                let value = self.tables.sources.get(txn, &key).map_err(fault)?;
                let body = value.and_then(|value| record::unframe(&key, value).ok());
                let body =
                    body.ok_or_else(|| self.damaged("the source of an item is not readable"))?;
                Ok(Some(body.to_vec()))
            }
        }
    }

    /// A request that was answered.
    pub(crate) fn request_record(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
        request: &str,
    ) -> Result<Option<RequestRecord>> {
        let key = key::named(collection, request);
        self.record(txn, self.tables.requests, &key, || "a request".to_owned())
    }

    /// Digests of the source files of a collection, one per item that names one.
    pub(super) fn file_digests(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
    ) -> Result<Vec<[u8; 32]>> {
        let mut found = Vec::new();
        for row in self.items_after(txn, collection, None)? {
            if let SourceRef::File { digest, .. } = row?.1.source {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// Keys in `request_times` of a collection's requests.
    pub(super) fn request_times(
        &self,
        txn: &Txn<'_>,
        collection: CollectionId,
    ) -> Result<Vec<[u8; 24]>> {
        let prefix = key::collection(collection);
        let mut found = Vec::new();
        for row in self.tables.requests.prefix_iter(txn, &prefix).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            let record: RequestRecord = record::decode(key, value)
                .map_err(|_| self.damaged("a request is not readable"))?;
            found.push(key::request_time(record.at_ms, key));
        }
        Ok(found)
    }

    fn record<T: DeserializeOwned>(
        &self,
        txn: &Txn<'_>,
        table: Table,
        key: &[u8],
        what: impl Fn() -> String,
    ) -> Result<Option<T>> {
        let Some(value) = table.get(txn, key).map_err(fault)? else { return Ok(None) };
        match record::decode(key, value) {
            Ok(record) => Ok(Some(record)),
            Err(_) => Err(Error::Damaged {
                path: self.folder.path().to_path_buf(),
                problem: format!("the record of {} is not readable", what()),
                remedy: "restore the folder from a backup, or put the item again".to_owned(),
            }),
        }
    }
}
