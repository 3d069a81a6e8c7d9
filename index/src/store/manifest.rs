//! Which files hold a slot's segments. The record is the commit point: a file that it does not name
//! is none. Files are derived from the vectors of the store, so whatever is wrong with them or with
//! the record costs time, not rows.

use serde::{Deserialize, Serialize};

use super::{
    Store,
    env::{ReadTxn, fault},
    key::{self, CollectionId, Slot},
    record,
    write::WriteTxn,
};
use crate::error::Result;

/// One segment on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    /// Names its files; unique in the slot.
    pub(crate) number: u64,
    /// Its rows; at least one.
    pub(crate) rows: u64,
    /// Last version among its rows: it holds nothing that was written later.
    pub(crate) through: u64,
    /// The file of versions and, where the graph does not hold them, vectors.
    pub(crate) file: FileRecord,
    /// The file of the graph, where it has one.
    pub(crate) graph: Option<FileRecord>,
}

/// One file of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    /// Its length.
    pub(crate) bytes: u64,
    /// CRC-32 of all of them.
    pub(crate) crc: u32,
}

/// The segments of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) segments: Vec<SegmentRecord>,
}

impl Store {
    /// What the last commit named; nothing where the record is missing or not readable.
    pub(crate) fn manifest(
        &self,
        txn: &ReadTxn<'_>,
        collection: CollectionId,
        slot: Slot,
    ) -> Result<Manifest> {
        let key = key::slot(collection, slot);
        let Some(value) = self.tables.segments.get(txn, &key).map_err(fault)? else {
            return Ok(Manifest::default());
        };
        Ok(record::decode(&key, value).unwrap_or_else(|_| {
            tracing::warn!(
                collection,
                ?slot,
                "the list of segments is not readable; rows are read"
            );
            Manifest::default()
        }))
    }
}

impl WriteTxn<'_> {
    /// Names the segments of a slot, in place of those before.
    pub(crate) fn put_manifest(
        &mut self,
        collection: CollectionId,
        slot: Slot,
        manifest: &Manifest,
    ) -> Result<()> {
        let table = self.store.tables.segments;
        self.put_record(table, &key::slot(collection, slot), manifest)
    }
}
