//! What is written down of a re-embedding, in the store, and what ends it.

use std::sync::Arc;

use diptych_index::CollectionInfo;
use serde::{Deserialize, Serialize};

use super::Reembed;
use crate::error::{Error, Result};
use crate::service::Service;

/// Before the alias, in the key of a job's note.
pub(super) const NOTE: &str = "reembed/";

/// One of the two collections. Its number tells it from a later one of its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Side {
    pub(super) name: String,
    pub(super) number: u32,
}

impl Side {
    pub(super) fn of(info: &CollectionInfo) -> Self {
        Self { name: info.spec.name.clone(), number: info.number }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    /// The new collection is being filled.
    Filling,
    /// It is verified and follows the old one.
    Ready,
    /// The alias points at it.
    Finished,
}

/// A re-embedding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) alias: String,
    /// Name of the operation that fills it.
    pub(super) operation: String,
    pub(super) old: Side,
    pub(super) new: Side,
    pub(super) phase: Phase,
    /// Number of the last change that was taken over: of the old collection, and once finished of the new one, whose changes a
    /// rollback takes back.
    pub(super) cursor: u64,
}

impl Job {
    /// From where changes are taken over, and to where.
    pub(super) fn way(&self) -> (&Side, &Side) {
        match self.phase {
            Phase::Filling | Phase::Ready => (&self.old, &self.new),
            Phase::Finished => (&self.new, &self.old),
        }
    }

    /// The job after the alias moved, when the collection that it moved to has this generation.
    pub(super) fn turned(&self, generation: u64) -> Self {
        let phase = match self.phase {
            Phase::Filling | Phase::Ready => Phase::Finished,
            Phase::Finished => Phase::Ready,
        };
        Self { phase, cursor: generation, ..self.clone() }
    }

    pub(super) fn key(&self) -> String {
        format!("{NOTE}{}", self.alias)
    }

    pub(super) fn note(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|_| Error::internal("a job cannot be written down"))
    }
}

impl Service {
    /// Writes a job down. Doing again what came after is harmless, so it need not go with the writes in one commit.
    pub(super) async fn save(&self, job: &Job) -> Result<()> {
        Ok(self.engine.put_note(&job.key(), Some(job.note()?)).await?)
    }

    /// Ends a job as if it had never begun.
    pub(super) async fn take_back(&self, reembed: &Arc<Reembed>) {
        let job = reembed.job.lock().await;
        self.drop_side(&job.new).await;
        self.forget(&job, reembed).await;
    }

    /// Deletes a collection, unless another one has its name by now.
    pub(super) async fn drop_side(&self, side: &Side) {
        let found = self.engine.collection(&side.name).await;
        if !found.is_ok_and(|found| found.number == side.number) {
            return;
        }
        if let Err(error) = self.engine.drop_collection(&side.name).await {
            tracing::warn!(collection = side.name, %error, "a collection cannot be taken back");
        }
    }

    /// Forgets a job; both collections stay as they are.
    pub(super) async fn forget(&self, job: &Job, reembed: &Arc<Reembed>) {
        if let Err(error) = self.engine.put_note(&job.key(), None).await {
            tracing::warn!(%error, "a change of bundle that ended is still in the store");
        }
        let mut all = self.reembeds.by_alias.lock();
        if all.get(&job.alias).is_some_and(|known| Arc::ptr_eq(known, reembed)) {
            all.remove(&job.alias);
        }
    }

    /// The collection of a side, if it is still the same one.
    pub(super) async fn side(&self, side: &Side) -> Result<CollectionInfo> {
        let missing = || diptych_index::Error::CollectionMissing { name: side.name.clone() };
        let info = self.engine.collection(&side.name).await?;
        if info.number == side.number { Ok(info) } else { Err(missing().into()) }
    }
}
