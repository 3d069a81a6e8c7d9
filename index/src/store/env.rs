//! Opening the LMDB environment, growing its map, and its transactions.
//!
//! The map is address space, not memory: it starts at what the configuration says and doubles when
//! a write finds it full. LMDB allows that only while no transaction is open, so every reader holds
//! `gate` shared and the growing writer takes it alone. That is the one moment when readers wait.

use std::{
    fs,
    ops::Deref,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use heed::{EnvOpenOptions, MdbError, RoTxn, RwTxn, WithoutTls, types::Bytes};
use parking_lot::{RwLock, RwLockReadGuard};

use super::{
    Table, Tables, damaged,
    inspect::{Fault, inspect},
};
use crate::error::{Error, Result};

/// Readers at one time; beyond it a read answers an error. Far over the threads that read.
const MAX_READERS: u32 = 2048;
const TABLES: u32 = 32;
/// Bytes of LMDB's lock file: its head, and 64 for each reader.
const LOCK_BYTES: usize = 8192 + 64 * (MAX_READERS as usize + 2);

/// The environment.
#[derive(Debug)]
pub(crate) struct Env {
    inner: heed::Env<WithoutTls>,
    gate: RwLock<()>,
    /// A writer waits for reads to end.
    wants_room: AtomicBool,
}

/// A read transaction, usable as heed's.
pub(crate) struct ReadTxn<'a> {
    // Declared before the guard, so that it ends first.
    txn: RoTxn<'a, WithoutTls>,
    _open: RwLockReadGuard<'a, ()>,
}

impl<'a> Deref for ReadTxn<'a> {
    type Target = RoTxn<'a, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        &self.txn
    }
}

impl std::fmt::Debug for ReadTxn<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReadTxn")
    }
}

impl Env {
    pub(super) fn open(path: &Path, map_size: usize) -> Result<Self> {
        let data = path.join("data.mdb");
        let bytes = fs::metadata(&data).map(|m| m.len()).unwrap_or(0);
        if bytes != 0 {
            inspect(&data).map_err(|fault| match fault {
                Fault::Damage(problem) => damaged(data.clone(), problem),
                Fault::Io(source) => Error::io("read", data.clone(), source),
            })?;
        }
        fill_lock_file(path);
        let map_size = map_size.max(usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(round_up(map_size)).max_readers(MAX_READERS).max_dbs(TABLES);
        #[expect(
            unsafe_code,
            reason = "LMDB maps a file; the lock of the folder keeps others away"
        )]
        // SAFETY: the folder's lock is held, so no other process or engine of this program has the
        // file open, and nothing in this program writes to it but LMDB.
        let inner = unsafe { options.open(path) }.map_err(|e| open_fault(path, e))?;
        let env = Self { inner, gate: RwLock::new(()), wants_room: AtomicBool::new(false) };
        env.inner.clear_stale_readers().map_err(fault)?;
        Ok(env)
    }

    pub(super) fn create_tables(&self) -> Result<Tables> {
        let mut txn = self.inner.write_txn().map_err(fault)?;
        let mut table = |name: &str| -> Result<Table> {
            self.inner.create_database::<Bytes, Bytes>(&mut txn, Some(name)).map_err(fault)
        };
        let tables = Tables {
            collections: table("collections")?,
            sequences: table("sequences")?,
            items: table("items")?,
            vectors: table("vectors")?,
            sources: table("sources")?,
            groups: table("groups")?,
            files: table("files")?,
            requests: table("requests")?,
            request_times: table("request_times")?,
            segments: table("segments")?,
            changes: table("changes")?,
            logs: table("logs")?,
            aliases: table("aliases")?,
            notes: table("notes")?,
        };
        txn.commit().map_err(fault)?;
        Ok(tables)
    }

    pub(super) fn wants_room(&self) -> bool {
        self.wants_room.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self) -> Result<ReadTxn<'_>> {
        let open = self.gate.read();
        let txn = self.inner.read_txn().map_err(fault)?;
        Ok(ReadTxn { txn, _open: open })
    }

    pub(super) fn write(&self) -> Result<RwTxn<'_>> {
        self.inner.write_txn().map_err(fault)
    }

    /// Doubles the map. Waits for open reads to end; the caller has no transaction open.
    pub(super) fn grow(&self) -> Result<()> {
        self.wants_room.store(true, Ordering::Relaxed);
        let _alone = self.gate.write();
        self.wants_room.store(false, Ordering::Relaxed);
        let size = round_up(self.inner.info().map_size.saturating_mul(2));
        tracing::info!(map_bytes = size, "growing the map of the store");
        #[expect(unsafe_code, reason = "LMDB can't check that no transaction is open")]
        // SAFETY: every read holds the gate shared and it is held alone here; the only writing
        // thread is the one that calls this, after its transaction ended.
        unsafe { self.inner.resize(size) }.map_err(fault)
    }
}

/// Gives the lock file its blocks on the disk before LMDB maps it. A hole in it would be filled when
/// a reader first comes there, and on a full disk that ends the process by a signal. LMDB writes
/// over it: the lock of the folder keeps others away.
fn fill_lock_file(path: &Path) {
    if let Err(error) = fs::write(path.join("lock.mdb"), vec![0; LOCK_BYTES]) {
        tracing::warn!(%error, "the lock file of the store could not be filled");
    }
}

/// A multiple of any page size in use.
fn round_up(size: usize) -> usize {
    const STEP: usize = 1 << 16;
    size.clamp(STEP, 1 << 46).next_multiple_of(STEP)
}

/// Whether a write failed because the map is full.
pub(crate) fn is_map_full(error: &Error) -> bool {
    let Error::Store { source, .. } = error else { return false };
    matches!(source.downcast_ref(), Some(heed::Error::Mdb(MdbError::MapFull)))
}

/// An error of LMDB while a transaction runs.
pub(crate) fn fault(error: heed::Error) -> Error {
    match error {
        heed::Error::Mdb(MdbError::PageNotFound | MdbError::Corrupted) => {
            damaged("db/data.mdb".into(), "the database is damaged")
        }
        heed::Error::Mdb(MdbError::ReadersFull) => {
            Error::Store { action: "read: too many reads at once", source: Box::new(error) }
        }
        heed::Error::Io(source) => Error::io("read or write", "db/data.mdb", source),
        other => Error::Store { action: "read or write", source: Box::new(other) },
    }
}

fn open_fault(path: &Path, error: heed::Error) -> Error {
    match error {
        heed::Error::Mdb(MdbError::Invalid) => {
            damaged(path.join("data.mdb"), "the file is not a database (its head is damaged)")
        }
        heed::Error::Mdb(MdbError::VersionMismatch) => {
            damaged(path.join("data.mdb"), "the database was written by another version of LMDB")
        }
        heed::Error::Mdb(MdbError::PageNotFound | MdbError::Corrupted) => {
            damaged(path.join("data.mdb"), "the database is damaged")
        }
        heed::Error::EnvAlreadyOpened => Error::Locked { path: path.to_path_buf() },
        heed::Error::Io(source) => Error::io("open", path, source),
        other => Error::Store { action: "open", source: Box::new(other) },
    }
}
