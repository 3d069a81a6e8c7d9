//! A large collection from disk: time to open, memory per item, and what the first searches take.
//!
//! `cargo run --release -p diptych-index --example bench_open -- [ROWS] [DIMS] [f32|i16|i8] [FOLDER]`
//! (default 100000 rows of 128 dimensions, f32). With a folder that exists it is opened and not
//! filled, so a large one is built once.

mod made {
    pub(crate) mod noise;
}

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use diptych_index::{
    CollectionSpec, Dims, EmbeddedConfig, EmbeddedEngine, Engine, ItemId, Metadata, Modality,
    Nearest, NewItem, PutBatch, Space, Value, VectorStorage, Vectors,
};

const NAME: &str = "bench";
const BATCH: usize = 2000;
const CLUSTERS: u64 = 1000;

/// Seeds that lie together, apart.
fn noise(seed: u64, dims: usize) -> Vec<f32> {
    made::noise::noise(seed.wrapping_mul(0xa076_1d64_78bd_642f), dims)
}

/// A point of a wide cluster.
fn vector(n: u64, dims: usize) -> Vec<f32> {
    let centre = noise(n % CLUSTERS, dims);
    centre.iter().zip(noise((1 << 40) + n, dims)).map(|(c, x)| c + 0.6 * x).collect()
}

fn item(n: u64, dims: usize) -> anyhow::Result<NewItem> {
    Ok(NewItem {
        id: ItemId::try_new(format!("item-{n}"))?,
        modality: Modality::Image,
        group: None,
        metadata: Metadata::from([("style".to_owned(), Value::Int((n % 100) as i64))]),
        source: None,
        vectors: Vectors { shared: Some(vector(n, dims)), exclusive: None },
        expected_version: None,
    })
}

#[expect(clippy::print_stdout, reason = "the output of this program")]
fn print(what: &str, value: &str) {
    println!("{what:<44} {value:>16}");
}

/// Resident memory of this process in bytes; 0 where the system does not tell.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kilobytes.unwrap_or(0_u64) * 1024
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rows: usize = arguments.next().map_or(Ok(100_000), |text| text.parse())?;
    let dims: usize = arguments.next().map_or(Ok(128), |text| text.parse())?;
    let storage = match arguments.next().as_deref() {
        None | Some("f32") => VectorStorage::F32,
        Some("i16") => VectorStorage::I16,
        Some("i8") => VectorStorage::I8,
        Some(other) => anyhow::bail!("unknown storage {other:?}"),
    };
    let temporary = tempfile::tempdir()?;
    let folder = arguments.next().map_or(temporary.path().join("data"), PathBuf::from);
    if !folder.exists() {
        fill(&folder, rows, (dims, storage)).await?;
    }
    let before = resident();
    let started = Instant::now();
    let engine = EmbeddedEngine::open(&EmbeddedConfig::new(&folder))?;
    print("open", &format!("{:.2?}", started.elapsed()));
    let count = engine.collection(NAME).await?.counts.total();
    let status = engine.index_status(NAME)?;
    let from_files: usize = status.iter().map(|slot| slot.rows_from_files).sum();
    print("items", &count.to_string());
    print("rows read from segments", &from_files.to_string());
    print("resident bytes per item", &format!("{}", (resident() - before) / count.max(1)));
    engine.settle().await?;
    print(
        "with sets, resident bytes per item",
        &format!("{}", (resident() - before) / count.max(1)),
    );
    searches(&engine, dims).await
}

async fn fill(folder: &Path, rows: usize, form: (usize, VectorStorage)) -> anyhow::Result<()> {
    let (dims, storage) = form;
    // One graph at the end: what many writes make on the way is another figure.
    let config = EmbeddedConfig { exact_below: usize::MAX, ..EmbeddedConfig::new(folder) };
    let engine = EmbeddedEngine::open(&config)?;
    let dims_of = Dims { shared: Some(dims), exclusive_image: None, exclusive_text: None };
    let spec = CollectionSpec { keep_source: false, storage, ..CollectionSpec::new(NAME, dims_of) };
    engine.create_collection(spec).await?;
    let started = Instant::now();
    for start in (0..rows).step_by(BATCH) {
        let items = (start..rows.min(start + BATCH)).map(|n| item(n as u64, dims));
        let items = items.collect::<anyhow::Result<_>>()?;
        engine.put(NAME, PutBatch { items, ..PutBatch::default() }).await?;
    }
    print("put", &format!("{:.0} items/s", rows as f64 / started.elapsed().as_secs_f64()));
    engine.close().await?;
    let engine = EmbeddedEngine::open(&EmbeddedConfig::new(folder))?;
    let started = Instant::now();
    engine.settle().await?;
    print("one segment of all", &format!("{:.1?}", started.elapsed()));
    engine.close().await?;
    Ok(())
}

async fn searches(engine: &EmbeddedEngine, dims: usize) -> anyhow::Result<()> {
    const QUERIES: u64 = 200;
    for exact in [false, true] {
        let mut times = Vec::new();
        let mut route = None;
        for n in 0..QUERIES {
            let asked = vector((1 << 30) + n, dims);
            let query =
                Nearest { exact, ..Nearest::new(Modality::Image, Space::Shared, asked, 10) };
            let started = Instant::now();
            route = Some(engine.nearest(NAME, query).await?.route);
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let route = route.context("no query")?.name();
        print(&format!("search, p50 ({route})"), &format!("{:.1?}", times[times.len() / 2]));
    }
    Ok(())
}
