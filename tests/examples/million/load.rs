//! Clustered vectors, and the way into a collection.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use diptych_proto::v1;
use diptych_proto::v1::batch_upsert_items_response::result::Outcome;
use diptych_tests::Api;
use diptych_tests::api::{upserts, vector_item};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;

/// The collection.
pub(crate) const COLLECTION: &str = "million";
/// Numbers of a vector.
pub(crate) const DIMS: u32 = 128;
/// Rows of a cluster on average.
const CLUSTER: u64 = 100;
/// Length of what is added to a centre of length one.
const SPREAD: f32 = 0.6;
/// Rows of a call, and calls under way.
const BATCH: u64 = 256;
const CALLS: usize = 8;

/// Seeded clusters: a row follows from its number.
#[derive(Debug)]
pub(crate) struct Cloud {
    centres: Vec<Vec<f32>>,
}

impl Cloud {
    pub(crate) fn new(size: u64) -> Self {
        let count = (size / CLUSTER).max(10);
        Self { centres: (0..count).map(|number| unit(1, number)).collect() }
    }

    /// A row.
    pub(crate) fn row(&self, number: u64) -> Vec<f32> {
        self.near(2, number)
    }

    /// A query: distributed as the rows are, and none of them.
    pub(crate) fn query(&self, number: usize) -> Vec<f32> {
        self.near(3, number as u64)
    }

    fn near(&self, salt: u64, number: u64) -> Vec<f32> {
        let mut rng = rng(salt + 10, number);
        let centre = &self.centres[rng.random_range(0..self.centres.len())];
        centre
            .iter()
            .zip(unit(salt, number))
            .map(|(centre, noise)| centre + SPREAD * noise)
            .collect()
    }
}

fn rng(salt: u64, number: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(salt << 48 | number)
}

/// A vector of length one in a random direction: sums of uniform numbers are near enough to normal ones.
fn unit(salt: u64, number: u64) -> Vec<f32> {
    let mut rng = rng(salt, number);
    let vector: Vec<f32> =
        (0..DIMS).map(|_| (0..4).map(|_| rng.random_range(-1.0..1.0_f32)).sum()).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    vector.into_iter().map(|x| x / length).collect()
}

/// Puts rows in one call.
pub(crate) async fn put(api: &Api, cloud: &Cloud, rows: Range<u64>) -> Result<()> {
    let items = rows.map(|number| {
        vector_item(&format!("r{number:08}"), v1::Modality::Image, &cloud.row(number), None)
    });
    let request = upserts(COLLECTION, items.collect());
    let reply = api.items().batch_upsert_items(request).await?.into_inner();
    for result in reply.results {
        let outcome = result.outcome.context("no outcome")?;
        ensure!(matches!(outcome, Outcome::Written(_)), "{outcome:?}");
    }
    Ok(())
}

/// Puts all rows, several calls at a time.
pub(crate) async fn fill(api: &Api, cloud: &Arc<Cloud>, size: u64) -> Result<()> {
    let mut running = JoinSet::new();
    let mut first = 0;
    while first < size {
        if running.len() == CALLS {
            running.join_next().await.context("no call runs")???;
        }
        let rows = first..(first + BATCH).min(size);
        first = rows.end;
        let (api, cloud) = (api.clone(), Arc::clone(cloud));
        running.spawn(async move { put(&api, &cloud, rows).await });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}
