//! Times of the embedded engine: load at open, exact scan, search, put; and with a graph.
//!
//! `cargo run --release -p diptych-index --example bench_scan -- [ROWS] [DIMS] [graph]`
//! (default 24000 rows of 128 dimensions, and 32 exclusive ones; `graph` also builds graphs, and
//! times searches while they are built and after).

mod made {
    pub(crate) mod noise;
}

use std::time::{Duration, Instant};

use anyhow::Context;
use diptych_index::{
    CollectionSpec, Comparison, Dims, EmbeddedConfig, EmbeddedEngine, Engine, Filter, ItemId,
    Metadata, Modality, Nearest, NewItem, PutBatch, SearchQuery, Space, Term, TermSource, Value,
    Vectors, search,
};

use self::made::noise::noise;

const NAME: &str = "bench";
const BATCH: usize = 1000;
const QUERIES: usize = 200;

fn item(n: u64, dims: &Dims) -> anyhow::Result<NewItem> {
    Ok(NewItem {
        id: ItemId::try_new(format!("item-{n}"))?,
        modality: Modality::Text,
        group: Some(format!("group-{}", n / 10)),
        metadata: Metadata::from([("style".to_owned(), Value::Int((n % 100) as i64))]),
        source: Some(format!("text {n}").into_bytes()),
        vectors: Vectors {
            shared: dims.shared.map(|dims| noise(n << 16, dims)),
            exclusive: dims.exclusive_text.map(|dims| noise(n << 16 | 1 << 15, dims)),
        },
        expected_version: None,
    })
}

/// Median and 99th percentile.
fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    print(&format!("{what:<44} p50 {:>10.1?}   p99 {:>10.1?}", at(50), at(99)));
}

#[expect(clippy::print_stdout, reason = "the output of this program")]
fn print(line: &str) {
    println!("{line}");
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(24_000), |text| text.parse())?;
    let shared: usize = arguments.next().map_or(Ok(128), |text| text.parse())?;
    let dims = Dims { shared: Some(shared), exclusive_image: None, exclusive_text: Some(32) };
    let graph = arguments.next().as_deref() == Some("graph");
    let folder = tempfile::tempdir()?;
    // Scans only: what a graph gives is measured against them elsewhere.
    let config = EmbeddedConfig { exact_below: usize::MAX, ..EmbeddedConfig::new(folder.path()) };

    let engine = EmbeddedEngine::open(&config)?;
    fill(&engine, rows, &dims).await?;
    engine.close().await?;
    let started = Instant::now();
    let engine = EmbeddedEngine::open(&config)?;
    print(&format!("{:<44} {:>14.1?}", format!("open with {rows} rows"), started.elapsed()));

    nearest(&engine, &dims, true).await?;
    composed(&engine, &dims).await?;
    single_puts(&engine, &dims).await?;
    engine.close().await?;
    if graph {
        // Graphs are used also where a scan is cheaper, so that both can be compared.
        let config = EmbeddedConfig { exact_below: 0, walk_cost_rows: 1, ..config };
        graphs(&config, &dims).await?;
    }
    Ok(())
}

async fn fill(engine: &EmbeddedEngine, rows: usize, dims: &Dims) -> anyhow::Result<()> {
    engine.create_collection(CollectionSpec::new(NAME, *dims)).await?;
    let started = Instant::now();
    for start in (0..rows).step_by(BATCH) {
        let end = rows.min(start + BATCH);
        let items = (start..end).map(|n| item(n as u64, dims)).collect::<anyhow::Result<_>>()?;
        engine.put(NAME, PutBatch { items, ..PutBatch::default() }).await?;
    }
    let rate = rows as f64 / started.elapsed().as_secs_f64();
    print(&format!("{:<44} {rate:>10.0} items/s", format!("put in batches of {BATCH}")));
    Ok(())
}

/// The same questions while graphs are built, and when they are there.
async fn graphs(config: &EmbeddedConfig, dims: &Dims) -> anyhow::Result<()> {
    let started = Instant::now();
    let engine = EmbeddedEngine::open(config)?;
    print("while graphs are built:");
    nearest(&engine, dims, false).await?;
    engine.settle().await?;
    print(&format!("{:<44} {:>14.1?}", "graphs of both spaces", started.elapsed()));
    for slot in engine.index_status(NAME)? {
        let (modality, space) = (slot.modality, slot.space);
        print(&format!("{modality} {space}: {} rows, {} by graph", slot.rows, slot.graph_rows));
    }
    nearest(&engine, dims, false).await?;
    engine.close().await?;
    Ok(())
}

async fn nearest(engine: &EmbeddedEngine, dims: &Dims, exact: bool) -> anyhow::Result<()> {
    let shared = dims.shared.context("a shared space")?;
    let style = |op, value| Filter::Compare { field: "style".to_owned(), op, value };
    let half = style(Comparison::Lt, Value::Int(50));
    let hundredth = style(Comparison::Eq, Value::Int(7));
    for (what, k, filter, prefix_dims) in [
        ("nearest 10", 10, None, 0),
        ("nearest 200", 200, None, 0),
        ("nearest 200, by a quarter of the dimensions", 200, None, shared / 4),
        ("nearest 10, half pass a filter", 10, Some(half), 0),
        ("nearest 10, 1 % pass a filter", 10, Some(hundredth), 0),
    ] {
        let filter = filter.map(std::sync::Arc::new);
        let mut times = Vec::with_capacity(QUERIES);
        for n in 0..QUERIES {
            let vector = noise(u64::MAX - n as u64, shared);
            let query = Nearest {
                filter: filter.clone(),
                exact,
                prefix_dims,
                ..Nearest::new(Modality::Text, Space::Shared, vector, k)
            };
            let started = Instant::now();
            engine.nearest(NAME, query).await?;
            times.push(started.elapsed());
        }
        report(what, times);
    }
    Ok(())
}

async fn composed(engine: &EmbeddedEngine, dims: &Dims) -> anyhow::Result<()> {
    let shared = dims.shared.context("a shared space")?;
    for (what, both) in [("search, one term, one per group", false), ("search, two spaces", true)] {
        let mut times = Vec::with_capacity(QUERIES);
        let (mut found, mut right) = (0, 0);
        for n in 0..QUERIES {
            let source = TermSource::Vector {
                vector: noise(u64::MAX - n as u64, shared),
                modality: Some(Modality::Image),
            };
            let mut terms = vec![Term { source, weight: 1.0, space: Space::Shared }];
            if both {
                let source = TermSource::Item(ItemId::try_new(format!("item-{n}"))?);
                terms.push(Term { source, weight: -0.5, space: Space::Exclusive });
            }
            let query =
                SearchQuery { one_per_group: true, ..SearchQuery::new(Modality::Text, terms, 10) };
            let started = Instant::now();
            let hits = search(engine, NAME, &query).await?.hits;
            times.push(started.elapsed());
            let exact = SearchQuery { exact: true, ..query };
            let exact = search(engine, NAME, &exact).await?.hits;
            found += hits.iter().filter(|hit| exact.iter().any(|right| right.id == hit.id)).count();
            right += exact.len();
        }
        report(what, times);
        print(&format!("{what}: found {found} of {right} exact hits"));
    }
    Ok(())
}

async fn single_puts(engine: &EmbeddedEngine, dims: &Dims) -> anyhow::Result<()> {
    let mut times = Vec::with_capacity(QUERIES);
    for n in 0..QUERIES {
        let batch =
            PutBatch { items: vec![item(1_000_000 + n as u64, dims)?], ..PutBatch::default() };
        let started = Instant::now();
        engine.put(NAME, batch).await?;
        times.push(started.elapsed());
    }
    report("put one item, durable and visible", times);
    Ok(())
}
