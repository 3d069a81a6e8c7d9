//! Use case: make, list, restore and delete snapshots.

use std::sync::Arc;

use diptych_index::{CollectionInfo, Progress, RequestKey, SnapshotInfo};

use crate::collections::check_name_at;
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::operations::{OperationView, Outcome};
use crate::page::Mark;
use crate::requests::Answer;
use crate::service::{DEFAULT_PAGE_SIZE, Service, named_at};

/// Longest name of a snapshot in bytes.
const SNAPSHOT_NAME_BYTES: usize = 128;

impl Service {
    /// Begins to write a snapshot of a collection.
    ///
    /// # Errors
    /// NOT_FOUND for the collection.
    pub async fn create_snapshot(
        &self,
        collection: &str,
        request: Option<RequestKey>,
    ) -> Result<OperationView> {
        self.admit()?;
        let work = async {
            let name = self.collection(collection).await?.spec.name;
            let engine = Arc::clone(&self.engine);
            let begun = self.operations.begin("CreateSnapshot", |handle| async move {
                Ok(Outcome::Snapshot(engine.create_snapshot(&name, handle.progress).await?))
            });
            Ok(Answer::Operation(Box::new(begun)))
        };
        self.requests.once(request, work).await?.operation()
    }

    /// A page of snapshots, newest first, and the token of the next.
    ///
    /// # Errors
    /// A bad size or token.
    pub async fn list_snapshots(
        &self,
        (collection, digest): (&str, [u8; 32]),
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<SnapshotInfo>, String)> {
        self.admit()?;
        let sizes = (DEFAULT_PAGE_SIZE, self.limits.page_size);
        let size = Self::bounded("page_size", page_size, sizes)?;
        let mark = self.pages.read(&digest, page_token)?;
        let mut rest = self.engine.snapshots().await?;
        rest.retain(|found| collection.is_empty() || found.collection == collection);
        if let Some(mark) = mark {
            // Newest first, then by name: what comes behind the last one of the page before.
            let behind = |found: &SnapshotInfo| {
                found.created_at_ms < mark.generation
                    || found.created_at_ms == mark.generation && found.name > mark.id
            };
            rest.retain(behind);
        }
        let more = rest.len() > size;
        rest.truncate(size);
        let last = rest.last().filter(|_| more);
        let mark = last.map(|last| Mark::listed(last.created_at_ms, last.name.clone()));
        let token = mark.map(|mark| self.pages.issue(&digest, &mark));
        Ok((rest, token.unwrap_or_default()))
    }

    /// Begins to make a collection of a snapshot, under another name unless that is empty.
    ///
    /// # Errors
    /// NOT_FOUND for the snapshot, a bad name, one that is taken.
    pub async fn restore_snapshot(
        self: &Arc<Self>,
        name: &str,
        collection: &str,
        request: Option<RequestKey>,
    ) -> Result<OperationView> {
        self.admit()?;
        check_snapshot_name(name)?;
        let work = async {
            let known = self.engine.snapshots().await?;
            let found = known.into_iter().find(|found| found.name == name);
            let missing = || diptych_index::Error::SnapshotMissing { name: name.to_owned() };
            let found = found.ok_or_else(|| Error::from(missing()).at("name"))?;
            let into = if collection.is_empty() { &found.collection } else { collection };
            check_name_at("collection", into)?;
            if self.engine.collection(into).await.is_ok() {
                let name = into.to_owned();
                let taken = diptych_index::Error::CollectionExists { name };
                return Err(named_at("collection", taken));
            }
            self.memory.admit()?;
            let (service, name, into) = (Arc::clone(self), name.to_owned(), into.to_owned());
            let begun = self.operations.begin("RestoreSnapshot", |handle| async move {
                let progress = Arc::clone(&handle.progress);
                let restored = service.engine.restore_snapshot(&name, Some(&into), progress);
                let info = with_room(&service.memory, &handle.progress, restored).await?;
                if let Some(digest) = info.spec.embedding_digest.clone() {
                    service.models.load_kept_beside(digest).await;
                }
                Ok(Outcome::Collection(Box::new(service.seen(info).await?)))
            });
            Ok(Answer::Operation(Box::new(begun)))
        };
        self.requests.once(request, work).await?.operation()
    }

    /// Deletes a snapshot.
    ///
    /// # Errors
    /// NOT_FOUND `SNAPSHOT_NOT_FOUND`.
    pub async fn delete_snapshot(&self, name: &str, request: Option<RequestKey>) -> Result<()> {
        self.admit()?;
        check_snapshot_name(name)?;
        let work = async {
            let gone = self.engine.delete_snapshot(name).await;
            gone.map(|()| Answer::Done).map_err(|error| Error::from(error).at("name"))
        };
        self.requests.once(request, work).await.map(|_| ())
    }
}

/// The collection that `restored` makes; what there is no memory for is cancelled, and taken back by the engine.
async fn with_room(
    memory: &Memory,
    progress: &Progress,
    restored: impl Future<Output = diptych_index::Result<CollectionInfo>>,
) -> Result<CollectionInfo> {
    let mut restored = std::pin::pin!(restored);
    let (outcome, full) = tokio::select! {
        outcome = &mut restored => (outcome, None),
        full = memory.full() => {
            progress.cancel();
            (restored.await, Some(full))
        }
    };
    outcome.map_err(|error| full.unwrap_or_else(|| named_at("collection", error)))
}

fn check_snapshot_name(name: &str) -> Result<()> {
    match name.len() {
        0 => Err(Error::field("name", "is required")),
        1..=SNAPSHOT_NAME_BYTES => Ok(()),
        length => {
            let sizes = ("bytes", SNAPSHOT_NAME_BYTES as u64, length as u64);
            let reason = diptych_proto::v1::ErrorReason::FieldInvalid;
            Err(Error::limit(reason, "name", sizes))
        }
    }
}
