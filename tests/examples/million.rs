//! What a collection of a million vectors costs: to fill through gRPC, to start from disk, to hold, and to ask while writes go on.
//!
//!     cargo run --release -p diptych-tests --example million -- [ROWS ...] [--out FOLDER] [--writes ROWS_PER_SECOND]
//!
//! Without numbers it takes 10,000, 100,000 and 1,000,000 clustered vectors of 128, and replaces 1,000 rows per second beside the
//! timed searches; `--writes 0` sends the next call as soon as the one before is answered. Prints a Markdown table, and leaves it as JSON
//! with a plot of the cost per query in FOLDER (target/bench-million). Right answers are the server's own exact ones.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

mod million {
    pub(crate) mod load;
    pub(crate) mod plot;
}

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use diptych_proto::v1;
use diptych_proto::v1::term::Source;
use diptych_tests::api::{ask, create_bare, packed};
use diptych_tests::{Api, Server, checkout};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use self::million::load::{COLLECTION, Cloud, DIMS, fill, put};
use self::million::plot;

const QUERIES: usize = 200;
/// Timed searches, and how many are under way at a time.
const SEARCHES: usize = 4000;
const AT_ONCE: usize = 2;
const TOP: u32 = 10;
const RECALL: f64 = 0.98;
/// Widths that are tried until one reaches the recall.
const WIDTHS: [u32; 9] = [10, 16, 24, 40, 64, 100, 160, 250, 400];
/// Rows replaced in a call beside the timed searches, and per second.
const REPLACED: u64 = 16;
const WRITES: u64 = 1000;
/// Rows from which on there are graphs.
const GRAPH_FROM: u64 = 20_000;
/// How long a graph may take until it is used, for a million rows.
const BUILD: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<()> {
    let (sizes, writes, out) = arguments()?;
    std::fs::create_dir_all(&out)?;
    println!("load average before: {}\n", load());
    println!(
        "| rows | ingest rows/s | s to graphs | s to SERVING | s to graphs after it | RSS bytes a row | width | recall@10 | p50 ms | p99 \
         ms | searches/s | writes/s beside |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut rows = Vec::new();
    for size in sizes {
        let row = measure(size, writes).await.with_context(|| format!("{size} rows"))?;
        println!("{}", plot::line(&row));
        rows.push(row);
        let told = json!({ "dims": DIMS, "at_once": AT_ONCE, "load_after": load(), "rows": rows });
        std::fs::write(out.join("result.json"), serde_json::to_vec_pretty(&told)?)?;
        std::fs::write(out.join("cost.svg"), plot::svg(&rows))?;
    }
    println!("\nload average after: {}; JSON and plot in {}", load(), out.display());
    Ok(())
}

/// Numbers of rows, replaced rows per second, where the figures go.
fn arguments() -> Result<(Vec<u64>, u64, PathBuf)> {
    let mut out = checkout().join("target/bench-million");
    let (mut sizes, mut writes) = (Vec::new(), WRITES);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--out" {
            out = arguments.next().context("--out needs a folder")?.into();
        } else if argument == "--writes" {
            writes = arguments.next().context("--writes needs a number")?.parse()?;
        } else if let Ok(size) = argument.replace('_', "").parse::<u64>() {
            sizes.push(size);
        } else {
            bail!("{argument} is no number of rows");
        }
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    Ok((sizes, writes, out))
}

async fn measure(size: u64, writes: u64) -> Result<Value> {
    // Beside the programs, not in /tmp: that may be memory.
    let data = TempDir::new_in(checkout().join("target"))?;
    let arguments = ["--sample", "false", "--batch-items", "512", "--queue-items", "4096"];
    let mut server = Server::start(data.path(), &arguments).await?;
    let api = server.api().await?;
    api.create(create_bare(COLLECTION, (DIMS, 0, 0))).await?;
    let cloud = Arc::new(Cloud::new(size));
    let began = Instant::now();
    fill(&api, &cloud, size).await?;
    let ingest = size as f64 / began.elapsed().as_secs_f64();
    let built = until_graph(&api, size).await?;
    server.terminate()?;
    server.ended().await?;
    let began = Instant::now();
    server.restart().await?;
    let start = began.elapsed();
    let api = server.api().await?;
    let again = until_graph(&api, size).await?;
    let (width, recall) = width(&api, &cloud).await?;
    let memory = resident(server.id())?;
    let (mut times, whole, writes) = searches(&api, &cloud, (size, width), writes).await?;
    times.sort_unstable();
    let percentile = |share: usize| {
        let place = (times.len() * share).div_ceil(100).saturating_sub(1);
        times.get(place).copied().unwrap_or_default().as_secs_f64() * 1000.0
    };
    Ok(json!({
        "rows": size,
        "ingest_rows_per_s": ingest,
        "graph_s": built.map(|time| time.as_secs_f64()),
        "start_s": start.as_secs_f64(),
        "graph_after_start_s": again.map(|time| time.as_secs_f64()),
        "rss_bytes_per_row": memory as f64 / size as f64,
        "ef_search": width,
        "recall_at_10": recall,
        "p50_ms": percentile(50),
        "p99_ms": percentile(99),
        "searches_per_s": SEARCHES as f64 / whole.as_secs_f64(),
        "writes_per_s": writes,
    }))
}

fn query(vector: &[f32], (width, exact): (u32, bool)) -> v1::SearchRequest {
    let source = Source::Vector(packed(vector));
    let request = ask(COLLECTION, v1::Modality::Image, source);
    v1::SearchRequest { limit: TOP, ef_search: width, exact, ..request }
}

/// Time until graphs cover all rows but those of a small rest; `None` where a scan is the cheaper way and stays.
async fn until_graph(api: &Api, size: u64) -> Result<Option<Duration>> {
    if size < GRAPH_FROM {
        return Ok(None);
    }
    let began = Instant::now();
    while began.elapsed() < BUILD {
        let index = api.collection(COLLECTION).await?.index;
        let [part, ..] = index.as_slice() else { bail!("{} parts in place of one", index.len()) };
        if part.rows - part.graph_rows < GRAPH_FROM / 4 {
            return Ok(Some(began.elapsed()));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bail!("no graphs in {BUILD:?}")
}

/// The least width that reaches the recall, with that recall.
async fn width(api: &Api, cloud: &Cloud) -> Result<(u32, f64)> {
    let mut right = Vec::new();
    for number in 0..QUERIES {
        right.push(api.hits(query(&cloud.query(number), (0, true))).await?);
    }
    let mut reached = (0, 0.0);
    for width in WIDTHS {
        let mut found = 0;
        for (number, right) in right.iter().enumerate() {
            let hits = api.hits(query(&cloud.query(number), (width, false))).await?;
            found += hits.iter().filter(|hit| right.iter().any(|right| right.id == hit.id)).count();
        }
        reached = (width, found as f64 / (QUERIES * TOP as usize) as f64);
        if reached.1 >= RECALL {
            break;
        }
    }
    Ok(reached)
}

/// Times of searches, their time together, and the rows that were written per second beside them.
async fn searches(
    api: &Api,
    cloud: &Arc<Cloud>,
    (size, width): (u64, u32),
    writes: u64,
) -> Result<(Vec<Duration>, Duration, f64)> {
    let ended = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writing = {
        let (api, cloud) = (api.clone(), Arc::clone(cloud));
        let (ended, written) = (Arc::clone(&ended), Arc::clone(&written));
        tokio::spawn(async move {
            let mut pace = (writes > 0).then(|| {
                tokio::time::interval(Duration::from_secs_f64(REPLACED as f64 / writes as f64))
            });
            let calls = (0..size.saturating_sub(REPLACED)).step_by(REPLACED as usize);
            for first in calls.cycle() {
                if let Some(pace) = &mut pace {
                    pace.tick().await;
                }
                if ended.load(Ordering::Relaxed) {
                    break;
                }
                put(&api, &cloud, first..first + REPLACED).await?;
                written.fetch_add(REPLACED, Ordering::Relaxed);
            }
            anyhow::Ok(())
        })
    };
    let began = Instant::now();
    let mut running = JoinSet::new();
    let mut times = Vec::with_capacity(SEARCHES);
    for number in 0..SEARCHES {
        if running.len() == AT_ONCE {
            times.push(running.join_next().await.context("no call runs")???);
        }
        let (api, request) = (api.clone(), query(&cloud.query(number), (width, false)));
        running.spawn(async move {
            let sent = Instant::now();
            api.hits(request).await.map(|_| sent.elapsed())
        });
    }
    while let Some(time) = running.join_next().await {
        times.push(time??);
    }
    let whole = began.elapsed();
    ended.store(true, Ordering::Relaxed);
    writing.await??;
    Ok((times, whole, written.load(Ordering::Relaxed) as f64 / whole.as_secs_f64()))
}

/// Resident memory of a process in bytes.
fn resident(process: u32) -> Result<u64> {
    let told = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = told.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kibibytes * 1024)
}

/// Runnable processes of the last 1, 5 and 15 minutes.
fn load() -> String {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
