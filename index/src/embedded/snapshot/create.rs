//! A collection to a file, in one read transaction.

use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Write as _},
    path::{Path, PathBuf},
};

use super::{ENDING, UNFINISHED, list, told};
use crate::{
    archive::{ArchiveWriter, ArchivedItem, ArchivedSource, CHUNK_BYTES, Fault, Head},
    embedded::Collection,
    engine::{Progress, SnapshotInfo},
    error::{Error, Result},
    store::{
        Store,
        env::ReadTxn,
        folder::sync_folder,
        key::Slot,
        record::{ItemRecord, SourceRef},
        sources::INLINE_MAX_BYTES,
    },
    types::{ItemId, Space},
};

/// Times that a snapshot begins anew because a writer needed room in the map.
const ATTEMPTS: usize = 10;
/// Entries of the log of changes that are read at a time.
const STEP: usize = 1000;

/// Removes the file unless it was kept.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(%error, "an unfinished snapshot could not be removed");
        }
    }
}

/// Writes the snapshot. Blocks.
pub(crate) fn create(
    store: &Store,
    collection: &Collection,
    (folder, now_ms): (&Path, u64),
    progress: &Progress,
) -> Result<SnapshotInfo> {
    fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
    let (name, unfinished) = reserve(folder, &collection.spec.name, now_ms)?;
    for _ in 0..ATTEMPTS {
        let work = Work { store, collection, progress, now_ms };
        let written = work.write(&unfinished.0)?;
        let Some((bytes, sha256, generation)) = written else { continue };
        let sha256 = hex::encode(sha256);
        let place = folder.join(format!("{name}.{sha256}{ENDING}"));
        let rename = || -> std::io::Result<()> {
            fs::rename(&unfinished.0, &place)?;
            sync_folder(folder)
        };
        rename().map_err(|e| Error::io("place", place.clone(), e))?;
        let collection = collection.spec.name.clone();
        return Ok(SnapshotInfo {
            name,
            collection,
            bytes,
            sha256,
            created_at_ms: now_ms,
            generation,
        });
    }
    Err(Error::internal("writers needed room as often as a snapshot was begun; try again"))
}

/// The collection's name and the time, moved on by a millisecond while another has it, and the file
/// to write to: whoever makes it has the name, also of two that ask in the same millisecond.
fn reserve(folder: &Path, collection: &str, now_ms: u64) -> Result<(String, Unfinished)> {
    for at in now_ms.. {
        let name = format!("{collection}-{at}");
        let path = folder.join(format!("{UNFINISHED}{name}"));
        let unfinished = match File::options().write(true).create_new(true).open(&path) {
            Ok(_) => Unfinished(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(Error::io("create", path, error)),
        };
        if list(folder)?.iter().all(|known| known.name != name) {
            return Ok((name, unfinished));
        }
    }
    Err(Error::internal("no name for a snapshot is free"))
}

struct Work<'a> {
    store: &'a Store,
    collection: &'a Collection,
    progress: &'a Progress,
    now_ms: u64,
}

impl Work<'_> {
    /// The whole file, synced: its length, SHA-256 and generation; `None` when it must begin anew.
    fn write(&self, path: &Path) -> Result<Option<(u64, [u8; 32], u64)>> {
        let name = &self.collection.spec.name;
        let fail = |fault| told(name, path, fault);
        // Files first: what the transaction sees is there for as long as it is read.
        let _pinned = self.store.pin_sources();
        let txn = self.store.read()?;
        let head = self.head(&txn)?;
        self.progress.expect(head.items);
        self.progress.reach(0);
        let file = File::create(path).map_err(|e| Error::io("create", path, e))?;
        let mut archive = ArchiveWriter::begin(BufWriter::new(file), &head).map_err(fail)?;
        let mut after = 0;
        loop {
            // In the order of versions, which is that of rows in memory after a start.
            let step = self.store.changes(&txn, self.collection.id, (after, STEP))?;
            let Some(last) = step.last() else { break };
            after = last.sequence;
            for change in step {
                self.progress.check()?;
                if self.store.wants_room() {
                    return Ok(None);
                }
                let record = self.store.item_record(&txn, self.collection.id, &change.id)?;
                let Some(record) = record.filter(|record| record.version == change.sequence) else {
                    continue;
                };
                self.item(&txn, &mut archive, (&change.id, record))?.map_err(fail)?;
                self.progress.step();
            }
        }
        let sequence = head.sequence;
        let (out, bytes, sha256) = archive.end().map_err(fail)?;
        let sync = || -> std::io::Result<()> {
            let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            file.flush()?;
            file.sync_all()
        };
        sync().map_err(|e| Error::io("sync", path, e))?;
        Ok(Some((bytes, sha256, sequence)))
    }

    fn head(&self, txn: &ReadTxn<'_>) -> Result<Head> {
        // The spec as it is in the transaction: settings may have changed since the caller asked.
        let all = self.store.collections(txn)?;
        let found = all.into_iter().find(|(record, _)| record.id == self.collection.id);
        let missing = || Error::CollectionMissing { name: self.collection.spec.name.clone() };
        let (record, sequence) = found.ok_or_else(missing)?;
        let items = self.store.item_count(txn, record.id)?;
        let spec = record.spec;
        Ok(Head {
            collection: spec.name,
            embedding_digest: spec.embedding_digest,
            dims: spec.dims,
            keep_source: spec.keep_source,
            description: spec.description,
            storage: spec.storage,
            graph: spec.graph,
            collection_created_at_ms: record.created_at_ms,
            sequence,
            items,
            created_at_ms: self.now_ms,
        })
    }

    fn item<W: std::io::Write>(
        &self,
        txn: &ReadTxn<'_>,
        archive: &mut ArchiveWriter<W>,
        (id, record): (&ItemId, ItemRecord),
    ) -> Result<Result<(), Fault>> {
        let source = self.store.source(txn, self.collection.id, &record)?;
        if source.is_none() && record.source != SourceRef::None {
            return Err(Error::internal("a source went away while it was held"));
        }
        let source = match source {
            None => ArchivedSource::None,
            Some(bytes) if bytes.len() <= INLINE_MAX_BYTES => ArchivedSource::Here(bytes),
            Some(bytes) => {
                for chunk in bytes.chunks(CHUNK_BYTES) {
                    if let Err(fault) = archive.chunk(chunk) {
                        return Ok(Err(fault));
                    }
                }
                ArchivedSource::Before(bytes.len() as u64)
            }
        };
        let vector = |space| -> Result<Option<Vec<f32>>> {
            let dims = self.collection.spec.dims.get(record.modality, space);
            let Some(dims) = dims else { return Ok(None) };
            let slot = Slot::new(record.modality, space);
            self.store.vector(txn, (self.collection.id, slot, record.version), dims)
        };
        Ok(archive.item(&ArchivedItem {
            id: id.as_str().to_owned(),
            version: record.version,
            modality: record.modality,
            shared: vector(Space::Shared)?,
            exclusive: vector(Space::Exclusive)?,
            group: record.group,
            metadata: record.metadata,
            created_at_ms: record.created_at_ms,
            updated_at_ms: record.updated_at_ms,
            source,
        }))
    }
}
