//! Whether the new collection is as it should be, before anyone may move an alias to it.

use diptych_index::{ItemId, Modality, Nearest, Scan, Space};
use diptych_proto::v1::ErrorReason;

use super::job::Job;
use crate::error::{Error, Result};
use crate::service::Service;

/// Stored vectors of each kind that are asked as queries.
const QUERIES: usize = 32;
/// Ids among which they are chosen, evenly.
const AMONG: usize = 1000;
/// Hits compared.
const HITS: usize = 10;
/// Least mean share of the exact hits that the index must find.
const RECALL: f64 = 0.95;

impl Service {
    /// Golden inputs of the bundle as it is kept, and recall of the index against exact search. Counts are compared when the
    /// alias moves, at a moment without writes.
    ///
    /// # Errors
    /// FAILED_PRECONDITION `VERIFICATION_FAILED`.
    pub(super) async fn verify_reembed(&self, job: &Job) -> Result<()> {
        let info = self.side(&job.new).await?;
        if let Some(digest) = &info.spec.embedding_digest {
            self.models.verify_golden(digest).await?;
        }
        for modality in Modality::ALL {
            let scan = Scan { limit: AMONG, modality: Some(modality), ..Scan::default() };
            let page = self.engine.scan(&job.new.name, scan).await?;
            let every = page.items.len().div_ceil(QUERIES).max(1);
            let ids: Vec<ItemId> =
                page.items.into_iter().step_by(every).map(|item| item.id).collect();
            for space in Space::ALL {
                if info.spec.dims.get(modality, space).is_some() && !ids.is_empty() {
                    self.verify_recall(&job.new.name, (modality, space), &ids).await?;
                }
            }
        }
        Ok(())
    }

    async fn verify_recall(
        &self,
        collection: &str,
        (modality, space): (Modality, Space),
        ids: &[ItemId],
    ) -> Result<()> {
        let (mut found, mut expected) = (0, 0);
        let stored = self.engine.vectors(collection, ids, space).await?;
        for vector in stored.into_iter().filter_map(|stored| stored?.vector) {
            let ask = |exact| {
                let vector = vector.clone();
                let query = Nearest::new(modality, space, vector, HITS);
                let query = Nearest { exact, bulk: true, ..query };
                self.engine.nearest(collection, query)
            };
            let (exact, index) = (ask(true).await?, ask(false).await?);
            // A hit as good as the last exact one is right, whichever of the equals it is.
            let least = exact.neighbours.last().map_or(0.0, |last| last.score - 1e-6);
            expected += exact.neighbours.len();
            found += index.neighbours.iter().filter(|near| near.score >= least).count();
        }
        let recall = if expected == 0 { 1.0 } else { found as f64 / expected as f64 };
        if recall >= RECALL {
            return Ok(());
        }
        let message = format!(
            "the index of {modality} {space} vectors finds {recall:.3} of the exact hits, must find {RECALL}"
        );
        Err(Error::precondition(ErrorReason::VerificationFailed, message))
    }
}
