//! Use case: measure how much of the right answer is found. `gauge` does so for a share of the searches as they come.

mod gauge;

use diptych_index::{Measure, Measured, measure_recall};
use diptych_proto::v1::ErrorReason;

pub(crate) use self::gauge::Gauge;
pub use self::gauge::Running;
use crate::error::{Error, Result};
use crate::retrieval::MAX_EF_SEARCH;
use crate::service::{DEFAULT_SEARCH_LIMIT, Service, named_at};

/// Vectors asked as queries when none are named, for each index.
pub const DEFAULT_QUERIES: usize = 100;

/// A measurement to make.
#[derive(Debug, Clone)]
pub struct Measurement {
    /// Name of the collection.
    pub collection: String,
    /// Vectors asked as queries; 0 for the default.
    pub queries: u32,
    /// Hits compared; 0 for the default.
    pub limit: u32,
    /// Width of the graph search; 0 for the default.
    pub ef_search: u32,
    /// Chooses the vectors.
    pub seed: u64,
}

impl Service {
    /// Compares every index of a collection with the exact answer. One such call runs at a time, in the bulk lane.
    ///
    /// # Errors
    /// A number beyond its limit, a missing collection.
    pub async fn measure_recall(&self, asked: Measurement) -> Result<Vec<Measured>> {
        self.admit()?;
        let queries = (DEFAULT_QUERIES, diptych_index::recall::MAX_QUERIES);
        let limit = (DEFAULT_SEARCH_LIMIT, diptych_index::recall::MAX_K);
        if asked.ef_search as usize > MAX_EF_SEARCH {
            let sizes = ("at most", MAX_EF_SEARCH as u64, asked.ef_search.into());
            return Err(Error::limit(ErrorReason::FieldInvalid, "ef_search", sizes));
        }
        let measure = Measure {
            queries: Self::bounded("queries", asked.queries, queries)?,
            k: Self::bounded("limit", asked.limit, limit)?,
            ef_search: usize::try_from(asked.ef_search).unwrap_or(usize::MAX),
            seed: asked.seed,
        };
        let collection = self.collection(&asked.collection).await?;
        let _turn = self.bulk.acquire().await.map_err(|_| Error::internal("no bulk lane"))?;
        let measured = measure_recall(&*self.engine, &collection.spec.name, measure).await;
        let measured = measured.map_err(|error| named_at("collection", error))?;
        self.same(&collection).await?;
        Ok(measured)
    }
}
