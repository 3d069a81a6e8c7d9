//! Whether the new collection is as it should be, before anyone may move an alias to it.

use diptych_index::{Measure, Measured, measure_recall};
use diptych_proto::v1::ErrorReason;

use super::job::Job;
use crate::error::{Error, Result};
use crate::service::Service;

/// Stored vectors of each kind that are asked as queries.
const QUERIES: usize = 32;
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
        let measure = Measure { queries: QUERIES, k: HITS, ef_search: 0, seed: 0 };
        let _turn = self.bulk.acquire().await.map_err(|_| Error::internal("no bulk lane"))?;
        for Measured { modality, space, recall, .. } in
            measure_recall(&*self.engine, &job.new.name, measure).await?
        {
            if recall < RECALL {
                let message = format!(
                    "the index of {modality} {space} vectors finds {recall:.3} of the exact hits, must find {RECALL}"
                );
                return Err(Error::precondition(ErrorReason::VerificationFailed, message));
            }
        }
        Ok(())
    }
}
