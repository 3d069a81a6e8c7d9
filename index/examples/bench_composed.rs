//! Composed queries: recall against the right answer, and time, by what is composed.
//!
//! `cargo run --release -p diptych-index --example bench_composed -- [ROWS] [DIMS]`
//! (default 100000 rows of 256 dimensions, and 32 exclusive ones). Shared vectors lie in clusters,
//! exclusive ones in others that are independent of them. Recall is the share of the ten hits of
//! the same query with `exact`.

mod made {
    pub(crate) mod noise;
}

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use diptych_index::{
    CollectionSpec, Dims, EmbeddedConfig, EmbeddedEngine, Engine, EngineAdmin as _, ItemId,
    Metadata, Modality, NewItem, PutBatch, SearchQuery, Space, Term, TermSource, Vectors, search,
};

use self::made::noise::noise;

const NAME: &str = "bench";
const BATCH: u64 = 1000;
const CONTENTS: u64 = 1000;
const STYLES: u64 = 50;
const EXCLUSIVE: usize = 32;
const QUERIES: u64 = 100;
const K: usize = 10;

/// A point near one of several centres, far from the seeds of others.
fn near(centre: u64, salt: u64, n: u64, dims: usize) -> Vec<f32> {
    let centre = noise(salt << 40 | centre, dims);
    let beside = noise((salt + 1) << 40 | n, dims);
    centre.iter().zip(beside).map(|(c, x)| c + 0.6 * x).collect()
}

fn content(n: u64, dims: usize) -> Vec<f32> {
    near((n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % CONTENTS, 1, n, dims)
}

fn style(n: u64) -> Vec<f32> {
    near((n.wrapping_mul(0xa076_1d64_78bd_642f) >> 24) % STYLES, 3, n, EXCLUSIVE)
}

fn item(n: u64, dims: usize) -> anyhow::Result<NewItem> {
    Ok(NewItem {
        id: ItemId::try_new(format!("item-{n}"))?,
        modality: Modality::Image,
        group: None,
        metadata: Metadata::default(),
        source: None,
        vectors: Vectors { shared: Some(content(n, dims)), exclusive: Some(style(n)) },
        expected_version: None,
    })
}

#[expect(clippy::print_stdout, reason = "the output of this program")]
fn print(line: &str) {
    println!("{line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dims: usize = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let engine = EmbeddedEngine::open(&EmbeddedConfig::new(folder.path()))?;
    let dims_of =
        Dims { shared: Some(dims), exclusive_image: Some(EXCLUSIVE), exclusive_text: None };
    let spec = CollectionSpec { keep_source: false, ..CollectionSpec::new(NAME, dims_of) };
    engine.create_collection(spec).await?;
    for start in (0..rows).step_by(BATCH as usize) {
        let numbers = start..rows.min(start + BATCH);
        let items = numbers.map(|n| item(n, dims)).collect::<anyhow::Result<_>>()?;
        engine.put(NAME, PutBatch { items, ..PutBatch::default() }).await?;
    }
    engine.compact(NAME, Arc::default()).await?;
    print("| shared | exclusive | recall@10 | p50 | rows compared | exact p50 |");
    print("|---|---|---|---|---|---|");
    for (shared, exclusive) in [(1.0, 0.0), (1.0, -0.3), (1.0, -1.0), (1.0, 0.3), (1.0, 1.0)] {
        print(&row(&engine, dims, (shared, exclusive)).await?);
    }
    engine.close().await?;
    Ok(())
}

async fn row(
    engine: &EmbeddedEngine,
    dims: usize,
    (shared, exclusive): (f32, f32),
) -> anyhow::Result<String> {
    let (mut times, mut exact_times) = (Vec::new(), Vec::new());
    let (mut right, mut wanted, mut visited) = (0, 0, 0);
    for n in 0..QUERIES {
        let mut terms = vec![term(content((1 << 30) + n, dims), shared, Space::Shared)];
        if exclusive != 0.0 {
            terms.push(term(style((1 << 31) + n), exclusive, Space::Exclusive));
        }
        let query = SearchQuery::new(Modality::Image, terms, K);
        let started = Instant::now();
        let exact = search(engine, NAME, &SearchQuery { exact: true, ..query.clone() }).await?;
        exact_times.push(started.elapsed());
        let exact: HashSet<ItemId> = exact.hits.into_iter().map(|hit| hit.id).collect();
        let started = Instant::now();
        let found = search(engine, NAME, &query).await?;
        times.push(started.elapsed());
        right += found.hits.iter().filter(|hit| exact.contains(&hit.id)).count();
        wanted += exact.len();
        visited += found.visited;
    }
    let recall = right as f64 / wanted.max(1) as f64;
    let (p50, exact) = (median(times), median(exact_times));
    let visited = visited / QUERIES;
    Ok(format!("| {shared} | {exclusive} | {recall:.4} | {p50:.0?} | {visited} | {exact:.0?} |"))
}

fn term(vector: Vec<f32>, weight: f32, space: Space) -> Term {
    let source = TermSource::Vector { vector, modality: Some(Modality::Image) };
    Term { source, weight, space }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
