//! Filtered search: recall and time by selectivity, and what the planner chose.
//!
//! `cargo run --release -p diptych-index --example bench_filter -- [ROWS] [DIMS] [hnsw_rs]`
//! (default 100000 rows of 256 dimensions). Rows lie in clusters; a filter lets through a share of
//! them that is drawn independently of the clusters, or whole clusters. Recall is the share of the
//! ten right hits found; `exact` takes the same filter without graphs. The last table is of a
//! collection of which half was deleted at random and as many rows were inserted again.

use std::{
    collections::HashSet,
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use diptych_index::{
    BuilderKind, CollectionSpec, DeleteBatch, Dims, EmbeddedConfig, EmbeddedEngine, Engine,
    EngineAdmin as _, Filter, ItemId, Metadata, Modality, Nearest, NewItem, PutBatch, Selection,
    Space, Value, Vectors,
};

const NAME: &str = "bench";
const BATCH: usize = 1000;
const CLUSTERS: u64 = 1000;
const QUERIES: u64 = 200;
const K: usize = 10;

/// splitmix64 of a seed.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xa076_1d64_78bd_642f);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn noise(seed: u64, dims: usize) -> Vec<f32> {
    let number = |i| (mix(mix(seed) ^ i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    (0..dims).map(number).collect()
}

/// A point of a wide cluster.
fn vector(n: u64, dims: usize) -> Vec<f32> {
    let centre = noise(mix(n) % CLUSTERS, dims);
    centre.iter().zip(noise((1 << 40) + n, dims)).map(|(c, x)| c + 0.6 * x).collect()
}

/// `free` is drawn for each item, `cluster` for each cluster; both in thousandths.
fn item(n: u64, dims: usize) -> anyhow::Result<NewItem> {
    let cluster = mix(n) % CLUSTERS;
    Ok(NewItem {
        id: ItemId::try_new(format!("item-{n}"))?,
        modality: Modality::Image,
        group: None,
        metadata: Metadata::from([
            ("free".to_owned(), Value::Int((mix(n ^ 0x5555) % 1000) as i64)),
            ("cluster".to_owned(), Value::Int((mix(cluster ^ 0x7777) % 1000) as i64)),
        ]),
        source: None,
        vectors: Vectors { shared: Some(vector(n, dims)), exclusive: None },
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
    let graph = match arguments.next().as_deref() {
        Some("hnsw_rs") => BuilderKind::HnswRs,
        _ => BuilderKind::Native,
    };
    let folder = tempfile::tempdir()?;
    let config = EmbeddedConfig::new(folder.path());
    let engine = EmbeddedEngine::open(&config)?;
    let dims_of = Dims { shared: Some(dims), exclusive_image: None, exclusive_text: None };
    let spec = CollectionSpec { keep_source: false, graph, ..CollectionSpec::new(NAME, dims_of) };
    engine.create_collection(spec).await?;
    put(&engine, 0..rows, dims).await?;
    let started = Instant::now();
    engine.compact(NAME, Arc::default()).await?;
    print(&format!("one segment of {rows} rows in {:.0?}", started.elapsed()));
    table(&engine, dims, "fresh").await?;

    let gone = (0..rows).filter(|n| mix(n ^ 0x9999).is_multiple_of(2));
    let gone = gone.map(|n| ItemId::try_new(format!("item-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let count = gone.len() as u64;
    let batch =
        DeleteBatch { selection: Selection::Ids(gone), request: None, expected_count: None };
    engine.delete(NAME, batch).await?;
    put(&engine, rows..rows + count, dims).await?;
    table(&engine, dims, "half replaced, before merging").await?;
    engine.settle().await?;
    table(&engine, dims, "half replaced, after merging").await?;
    engine.compact(NAME, Arc::default()).await?;
    table(&engine, dims, "half replaced, one segment").await?;
    engine.close().await?;
    Ok(())
}

async fn put(
    engine: &EmbeddedEngine,
    rows: std::ops::Range<u64>,
    dims: usize,
) -> anyhow::Result<()> {
    for start in rows.clone().step_by(BATCH) {
        let end = rows.end.min(start + BATCH as u64);
        let items = (start..end).map(|n| item(n, dims)).collect::<anyhow::Result<_>>()?;
        engine.put(NAME, PutBatch { items, ..PutBatch::default() }).await?;
    }
    Ok(())
}

async fn table(engine: &EmbeddedEngine, dims: usize, what: &str) -> anyhow::Result<()> {
    let status = engine.index_status(NAME)?;
    let segments: usize = status.iter().map(|slot| slot.segments).sum();
    print(&format!("\n{what}: {segments} segments"));
    print("| filter | passes | recall@10 | p50 | of unfiltered | visited | route |");
    print("|---|---|---|---|---|---|---|");
    let all = measure(engine, dims, None).await?;
    let line = |filter: &str, share: &str, row: &Row| {
        let ratio = row.p50.as_secs_f64() / all.p50.as_secs_f64();
        let (recall, p50, visited) = (row.recall, row.p50, row.visited);
        print(&format!(
            "| {filter} | {share} | {recall:.4} | {p50:.0?} | {ratio:.2} | {visited} | {} |",
            row.route
        ));
    };
    line("none", "100 %", &all);
    for field in ["free", "cluster"] {
        for below in [500, 100, 10, 1] {
            let share = format!("{} %", f64::from(below) / 10.0);
            line(field, &share, &measure(engine, dims, Some((field, below))).await?);
        }
    }
    Ok(())
}

struct Row {
    recall: f64,
    p50: Duration,
    visited: u64,
    route: &'static str,
}

async fn measure(
    engine: &EmbeddedEngine,
    dims: usize,
    filter: Option<(&str, i32)>,
) -> anyhow::Result<Row> {
    let filter = filter.map(|(field, below)| {
        Arc::new(Filter::Range {
            field: field.to_owned(),
            min: Bound::Unbounded,
            max: Bound::Excluded(Value::Int(below.into())),
        })
    });
    let mut row = Row { recall: 0.0, p50: Duration::ZERO, visited: 0, route: "" };
    let (mut times, mut right, mut wanted) = (Vec::new(), 0, 0);
    for n in 0..QUERIES {
        let asked = vector((1 << 30) + n, dims);
        let query = Nearest {
            filter: filter.clone(),
            ..Nearest::new(Modality::Image, Space::Shared, asked, K)
        };
        let exact = engine.nearest(NAME, Nearest { exact: true, ..query.clone() }).await?;
        let exact: HashSet<ItemId> = exact.neighbours.into_iter().map(|near| near.id).collect();
        let started = Instant::now();
        let found = engine.nearest(NAME, query).await?;
        times.push(started.elapsed());
        right += found.neighbours.iter().filter(|near| exact.contains(&near.id)).count();
        wanted += exact.len();
        row.visited += found.visited / QUERIES;
        row.route = found.route.name();
    }
    times.sort_unstable();
    row.p50 = times.get(times.len() / 2).copied().unwrap_or_default();
    row.recall = right as f64 / wanted.max(1) as f64;
    Ok(row)
}
