//! A file to a collection: read once to see that it is whole, once more to be written.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{find, told};
use crate::{
    archive::{ArchiveReader, ArchivedItem, Head},
    embedded::{
        Collection, EmbeddedEngine, blocking,
        job::{AdminAnswer, AdminWrite, Restored},
        prepare,
        writer::Write,
    },
    engine::Progress,
    error::{Error, Result},
    store::{Store, key::Slot, record::ItemRecord},
    types::{CollectionInfo, ItemId, Space, check_collection_name},
};

/// Most items, and most bytes of sources and vectors, about, in one commit.
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: usize = 4 << 20;

impl EmbeddedEngine {
    pub(in crate::embedded) async fn restore(
        &self,
        snapshot: &str,
        name: Option<&str>,
        progress: Arc<Progress>,
    ) -> Result<CollectionInfo> {
        let store = self.store()?;
        let (folder, snapshot) = (self.snapshots.clone(), snapshot.to_owned());
        let checking = Arc::clone(&progress);
        let (path, head) = blocking(move || verify(&folder, &snapshot, &checking)).await?;
        let name = name.unwrap_or(&head.collection).to_owned();
        check_collection_name("collection", &name)?;
        let taken =
            self.collections.load().contains_key(&name) || self.aliases.load().contains_key(&name);
        if taken {
            return Err(Error::CollectionExists { name });
        }
        let hide = AdminWrite::Hide { spec: head.spec(&name) };
        let AdminAnswer::Hidden(hidden) = self.admin(hide).await? else {
            return Err(Error::internal("an answer of another write"));
        };
        let filled = self.fill(&store, (path, &hidden), &progress).await;
        let revealed = match filled {
            Err(error) => Err(error),
            Ok(()) => {
                let collection = Arc::clone(&hidden);
                let created_at_ms = head.collection_created_at_ms;
                let sequence = head.sequence;
                self.info_of(AdminWrite::Reveal { collection, name, sequence, created_at_ms }).await
            }
        };
        if revealed.is_err() {
            // What was written goes again; if even that fails, the next start does it.
            let dropped = self.write(|reply| Write::Drop { collection: hidden, reply }).await;
            if let Err(error) = dropped {
                tracing::warn!(%error, "a collection that was not restored is still in the store");
            }
        }
        revealed
    }

    /// Hands the items to the writing thread in batches, while the next ones are read.
    async fn fill(
        &self,
        store: &Arc<Store>,
        (path, hidden): (PathBuf, &Arc<Collection>),
        progress: &Arc<Progress>,
    ) -> Result<()> {
        let (sender, mut batches) = mpsc::channel(2);
        let (store, reading) = (Arc::clone(store), Arc::clone(progress));
        let name = hidden.spec.name.clone();
        let reader =
            tokio::task::spawn_blocking(move || read(&store, (&name, &path), &reading, &sender));
        let mut written = Ok(());
        while let Some(items) = batches.recv().await {
            let collection = Arc::clone(hidden);
            written = self.admin(AdminWrite::Restore { collection, items }).await.map(|_| ());
            if written.is_err() {
                break;
            }
        }
        drop(batches);
        let read =
            reader.await.map_err(|e| Error::internal(format!("a restore ended early: {e}")))?;
        written.and(read)
    }
}

/// Reads the whole file, so that a bad one is refused before anything is written.
fn verify(folder: &Path, name: &str, progress: &Progress) -> Result<(PathBuf, Head)> {
    let (path, sha256) = find(folder, name)?;
    let fail = |fault| told(name, &path, fault);
    let open = || File::open(&path).map_err(|e| Error::io("open", path.clone(), e));
    let mut archive = ArchiveReader::open(BufReader::new(open()?)).map_err(fail)?;
    let head = archive.head().clone();
    // Reading and writing are half of the work each.
    progress.expect(2 * head.items);
    while archive.next().map_err(fail)?.is_some() {
        progress.check()?;
        progress.step();
    }
    let mut hasher = Sha256::new();
    let (mut file, mut block) = (open()?, vec![0; 1 << 20]);
    loop {
        progress.check()?;
        match file.read(&mut block).map_err(|e| Error::io("read", path.clone(), e))? {
            0 => break,
            bytes => hasher.update(&block[..bytes]),
        }
    }
    if hex::encode(hasher.finalize()) != sha256 {
        let problem = "its bytes do not have the SHA-256 of its name".to_owned();
        return Err(Error::SnapshotRefused { name: name.to_owned(), problem });
    }
    Ok((path, head))
}

/// Reads items in batches; ends early when nobody takes them any more.
fn read(
    store: &Store,
    (name, path): (&str, &Path),
    progress: &Progress,
    sender: &mpsc::Sender<Vec<Restored>>,
) -> Result<()> {
    let fail = |fault| told(name, path, fault);
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut archive = ArchiveReader::open(BufReader::new(file)).map_err(fail)?;
    let (mut batch, mut bytes) = (Vec::new(), 0);
    while let Some((item, source)) = archive.next().map_err(fail)? {
        progress.check()?;
        bytes += source.as_ref().map_or(0, Vec::len) + 4 * floats(&item);
        batch.push(restored(store, item, source)?);
        progress.step();
        if batch.len() == BATCH_ITEMS || bytes >= BATCH_BYTES {
            bytes = 0;
            if sender.blocking_send(std::mem::take(&mut batch)).is_err() {
                return Ok(());
            }
        }
    }
    if !batch.is_empty() {
        // The one who writes says itself why it left.
        drop(sender.blocking_send(batch));
    }
    Ok(())
}

fn floats(item: &ArchivedItem) -> usize {
    let length = |vector: &Option<Vec<f32>>| vector.as_ref().map_or(0, Vec::len);
    length(&item.shared) + length(&item.exclusive)
}

fn restored(store: &Store, item: ArchivedItem, source: Option<Vec<u8>>) -> Result<Restored> {
    let source = prepare::source(store, source)?;
    let spaces = [(Space::Shared, item.shared), (Space::Exclusive, item.exclusive)];
    let vectors = spaces
        .into_iter()
        .filter_map(|(space, vector)| Some((Slot::new(item.modality, space), vector?)))
        .collect();
    Ok(Restored {
        id: ItemId::try_new(item.id)?,
        record: ItemRecord {
            version: item.version,
            modality: item.modality,
            group: item.group,
            metadata: item.metadata,
            source: source.reference(),
            created_at_ms: item.created_at_ms,
            updated_at_ms: item.updated_at_ms,
        },
        source,
        vectors,
    })
}
