//! A running recall of each collection: for a share of its searches the exact answer is computed too, in the background.
//!
//! It never stands in a search's way: exact answers are computed one at a time in the bulk lane, few wait, and what comes while
//! those places are taken is not counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use diptych_index::{CollectionInfo, Engine, Hit, ItemId, SearchQuery, SearchReply};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::service::Service;

/// Searches whose exact answer waits or is computed.
const WAITING: usize = 16;
/// From so many searches on, each new one weighs one in so many.
const MEMORY: u64 = 100;
/// Most collections remembered; beyond it the oldest are forgotten.
const COLLECTIONS: usize = 1000;

/// What is known of all collections.
#[derive(Debug)]
pub(crate) struct Gauge {
    share: f64,
    places: Arc<Semaphore>,
    by_collection: Mutex<BTreeMap<u32, Running>>,
}

/// What is known of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Running {
    /// Mean share of the right hits that were found: of all searches at first, of the newest hundred or so later on.
    pub recall: f64,
    /// Searches compared.
    pub searches: u64,
}

impl Running {
    fn add(&mut self, recall: f64) {
        self.searches += 1;
        self.recall += (recall - self.recall) / self.searches.min(MEMORY) as f64;
    }
}

impl Gauge {
    /// A gauge that looks at this share of the searches, 0 to 1.
    pub(crate) fn new(share: f64) -> Self {
        Self { share, places: Arc::new(Semaphore::new(WAITING)), by_collection: Mutex::default() }
    }

    /// What is known of a collection, by its number; `None` before the first search that was looked at.
    pub(crate) fn of(&self, collection: u32) -> Option<Running> {
        self.by_collection.lock().get(&collection).copied()
    }

    fn add(&self, collection: u32, recall: f64) {
        let mut known = self.by_collection.lock();
        known.entry(collection).or_default().add(recall);
        if known.len() > COLLECTIONS {
            known.pop_first();
        }
    }

    /// A place, when this search is to be looked at and there is one.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        if self.share <= 0.0 || rand::random::<f64>() >= self.share {
            return None;
        }
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

impl Service {
    /// Looks at a search that was answered, if its turn has come.
    pub(crate) fn gauge(
        &self,
        collection: &CollectionInfo,
        query: &SearchQuery,
        reply: &SearchReply,
    ) {
        // Later pages and exact searches say nothing of what the usual way finds.
        if query.exact || query.resume.is_some() {
            return;
        }
        let Some(place) = self.gauge.place() else { return };
        let (number, name) = (collection.number, collection.spec.name.clone());
        if !reply.cut {
            // It is proved that the answer is the right one.
            return self.gauge.add(number, 1.0);
        }
        let found = scores(&reply.hits);
        let exact = SearchQuery {
            exact: true,
            bulk: true,
            prefix_dims: 0,
            term_scores: false,
            ..query.clone()
        };
        let (engine, gauge) = (Arc::clone(&self.engine), Arc::clone(&self.gauge));
        let lane = Arc::clone(&self.bulk);
        tokio::spawn(async move {
            let Ok(_turn) = lane.acquire_owned().await else { return };
            match exact_hits(&*engine, &name, &exact).await {
                Ok(right) => {
                    let recall = diptych_index::recall::share(&right, &found, exact.k);
                    gauge.add(number, recall);
                }
                // The collection may be gone by now.
                Err(error) => tracing::debug!(%error, "a search was not compared"),
            }
            drop(place);
        });
    }
}

async fn exact_hits(
    engine: &dyn Engine,
    collection: &str,
    query: &SearchQuery,
) -> diptych_index::Result<Vec<(ItemId, f32)>> {
    Ok(scores(&diptych_index::search(engine, collection, query).await?.hits))
}

fn scores(hits: &[Hit]) -> Vec<(ItemId, f32)> {
    hits.iter().map(|hit| (hit.id.clone(), hit.score)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_all_at_first_and_of_the_newest_later_on() {
        let mut running = Running::default();
        for recall in [1.0, 0.5, 0.0] {
            running.add(recall);
        }
        assert!((running.recall - 0.5).abs() < 1e-12);
        assert_eq!(running.searches, 3);
        for _ in 0..1000 {
            running.add(1.0);
        }
        assert!(running.recall > 0.999 && running.recall <= 1.0);
    }

    #[test]
    fn a_gauge_that_is_off_takes_nothing_and_one_without_places_takes_no_more() {
        assert!(Gauge::new(0.0).place().is_none());
        let gauge = Gauge::new(1.0);
        let places: Vec<_> = (0..WAITING).map(|_| gauge.place().unwrap()).collect();
        assert!(gauge.place().is_none());
        drop(places);
        assert!(gauge.place().is_some());
    }

    #[test]
    fn the_oldest_collections_are_forgotten() {
        let gauge = Gauge::new(1.0);
        for number in 0..=u32::try_from(COLLECTIONS).unwrap() {
            gauge.add(number, 1.0);
        }
        assert_eq!(gauge.of(0), None);
        assert!(gauge.of(1).is_some());
    }
}
