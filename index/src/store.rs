//! The store of record: items, metadata, vectors, sources, groups and the ledger of requests, in
//! one LMDB environment. The only place that names `heed`.
//!
//! A data folder holds
//!
//! | path | what |
//! |---|---|
//! | `diptych-store.json` | says that this is a store, and its format version |
//! | `lock` | held locked while the folder is in use |
//! | `db/data.mdb`, `db/lock.mdb` | LMDB |
//! | `sources/ab/abcd...` | sources over 64 KiB, named by their SHA-256 |
//! | `sources/new/` | sources on their way; emptied at start |
//! | `index/C/...` | segments of collection C, derived from its vectors: `embedded/segment/file.rs` |
//!
//! Keys are big-endian, so that they sort as numbers do; `c` is the collection's number:
//!
//! | database | key | value |
//! |---|---|---|
//! | `collections` | name | [`record::CollectionRecord`] |
//! | `sequences` | c | last sequence number (u64) |
//! | `items` | c, id | [`record::ItemRecord`] |
//! | `vectors` | c, slot (u8), version (u64) | f32, little-endian |
//! | `sources` | c, version | the bytes |
//! | `groups` | c, 16 bytes of SHA-256 of the group, version | id |
//! | `files` | SHA-256 | number of items that name the file (u64) |
//! | `requests` | c, request id | [`record::RequestRecord`] |
//! | `segments` | c, slot | [`manifest::Manifest`] |
//! | `request_times` | time in ms (u64), 16 bytes of SHA-256 of the request's key | that key |
//! | `changes` | c, 0 for a put or 1 for a delete, sequence number | id |
//! | `logs` | c | [`record::LogRecord`] |
//! | `aliases` | name | [`record::AliasRecord`] |
//! | `notes` | a key of the program | its bytes |
//!
//! Every value starts with a CRC-32 of its key and the rest. An item's version is the sequence number of the
//! write that made it, so a version names one immutable state of one item.

pub(crate) mod changes;
pub(crate) mod env;
pub(crate) mod folder;
mod inspect;
pub(crate) mod key;
pub(crate) mod manifest;
pub(crate) mod pins;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod sources;
mod upgrade;
pub(crate) mod write;

use std::path::{Path, PathBuf};

use heed::{Database, types::Bytes};
use parking_lot::Mutex;

use self::{
    env::{Env, ReadTxn},
    folder::Folder,
    pins::Pins,
    sources::Sources,
};
use crate::error::{Error, Result};

/// Version of the layout above; raised when an older program could not read the folder.
pub(crate) const FORMAT_VERSION: u32 = 2;
/// What the name of a collection begins with that is not whole yet: no name of a caller does.
/// Such collections are not listed, and the next start removes them.
pub(crate) const HIDDEN: char = '~';

type Table = Database<Bytes, Bytes>;

/// The named databases.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tables {
    collections: Table,
    sequences: Table,
    items: Table,
    vectors: Table,
    sources: Table,
    groups: Table,
    files: Table,
    requests: Table,
    request_times: Table,
    segments: Table,
    changes: Table,
    logs: Table,
    aliases: Table,
    notes: Table,
}

/// An open data folder.
#[derive(Debug)]
pub(crate) struct Store {
    env: Env,
    tables: Tables,
    sources: Sources,
    folder: Folder,
    pins: Mutex<Pins>,
    pub(crate) fault: pins::Fault,
}

impl Store {
    /// Opens a data folder, or makes an empty one.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Damaged`] with what to do, [`Error::Io`].
    pub(crate) fn open(path: &Path, map_size: usize) -> Result<Self> {
        let folder = Folder::open(path)?;
        let env = Env::open(&folder.database_path(), map_size)?;
        let tables = env.create_tables()?;
        let sources = Sources::open(folder.path())?;
        let (pins, fault) = (Mutex::default(), pins::Fault::default());
        let store = Self { env, tables, sources, folder, pins, fault };
        if store.folder.found_version() == Some(1) {
            upgrade::write_log(&store)?;
        }
        store.folder.mark()?;
        upgrade::remove_hidden(&store)?;
        store.sweep_sources()?;
        Ok(store)
    }

    /// Whether a writer waits for reads to end, to make room: a long one had better begin anew.
    pub(crate) fn wants_room(&self) -> bool {
        self.env.wants_room()
    }

    /// A consistent view of everything committed.
    pub(crate) fn read(&self) -> Result<ReadTxn<'_>> {
        self.env.read()
    }

    /// Source files.
    pub(crate) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Removes files that no item names: left by a process that died before its commit.
    fn sweep_sources(&self) -> Result<()> {
        let txn = self.read()?;
        self.sources.sweep(|digest| {
            self.tables.files.get(&txn, digest).map(|found| found.is_some()).map_err(env::fault)
        })
    }

    /// Where the files of segments lie; may not be there.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.folder.path().join("index")
    }

    fn damaged(&self, problem: impl Into<String>) -> Error {
        damaged(self.folder.path().to_path_buf(), problem)
    }
}

fn damaged(path: PathBuf, problem: impl Into<String>) -> Error {
    Error::Damaged {
        path,
        problem: problem.into(),
        remedy: "restore the folder from a backup, or move it away to start with an empty one"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests;
