//! How long an answer takes, and a start, as a client sees it.
//!
//!     cargo run --release -p diptych-tests --example latency -- --start
//!     cargo run --release -p diptych-tests --example latency -- 127.0.0.1:50051
//!
//! `--start` makes a server of its own on an empty data folder and times its starts too. Prints Markdown tables and the load of
//! the machine: figures of a busy one say nothing.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use diptych_proto::v1;
use diptych_tests::api::{ask, components, packed};
use diptych_tests::{Api, Server, emoji};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tonic::transport::Endpoint;

/// Calls before the first that counts.
const WARM_UP: usize = 100;
/// Calls of one row.
const CALLS: usize = 2000;
const AT_ONCE: [usize; 5] = [1, 2, 4, 8, 16];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--start"] => {
            let data = TempDir::new()?;
            let server = starts(&data).await?;
            measure(&server.api().await?).await
        }
        [address] if !address.starts_with('-') => {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            measure(&Api::new(channel)).await
        }
        _ => bail!("give the address of a server, HOST:PORT, or --start"),
    }
}

/// Times a first start, one after an orderly end, and one after `kill -9`.
async fn starts(data: &TempDir) -> Result<Server> {
    println!("load average before: {}\n\n| start | s to SERVING |\n|---|---|", load());
    let began = Instant::now();
    let mut server = Server::start(data.path(), &[]).await?;
    println!("| first, the sample is embedded and stored | {:.2} |", began.elapsed().as_secs_f64());
    server.terminate()?;
    server.ended().await?;
    for what in ["later", "later, after `kill -9`"] {
        let began = Instant::now();
        // Kills what runs: nothing the first time, the server the second time.
        server.restart().await?;
        println!("| {what} | {:.2} |", began.elapsed().as_secs_f64());
    }
    println!();
    Ok(server)
}

async fn measure(api: &Api) -> Result<()> {
    let mut names = Vec::new();
    for language in emoji::SCORED {
        names.extend(emoji::names(api, language).await?.into_iter().map(|(_, name)| name));
    }
    names.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    names.truncate(CALLS + WARM_UP);
    let names: &'static [String] = names.leak();
    let search = |place: usize| {
        let api = api.clone();
        async move { text_to_image(&api, &names[place % names.len()]).await }
    };
    println!("| SearchTextToImage, calls at a time | p50 ms | p95 ms | p99 ms | calls/s |");
    println!("|---|---|---|---|---|");
    for at_once in AT_ONCE {
        let (times, whole) = calls(at_once, search).await?;
        let each = [50, 95, 99].map(|share| milliseconds(percentile(&times, share)));
        let rate = CALLS as f64 / whole.as_secs_f64();
        println!("| {at_once} | {:.2} | {:.2} | {:.2} | {rate:.0} |", each[0], each[1], each[2]);
    }
    steps(api, names).await?;
    println!("\nload average after: {}", load());
    Ok(())
}

async fn text_to_image(api: &Api, text: &str) -> Result<()> {
    let found = emoji::pictures_of(api, text, 10).await?;
    anyhow::ensure!(found.len() == 10, "{} hits for {text}", found.len());
    Ok(())
}

/// What the parts of a search take, one call at a time: the server tells no times, so each is asked for alone and the wire's
/// share, that of a call that does nothing, is taken off.
async fn steps(api: &Api, names: &'static [String]) -> Result<()> {
    let mut vectors = Vec::new();
    for name in names.iter().take(200) {
        vectors.push(embed(api, name).await?);
    }
    let vectors: &'static [Vec<f32>] = vectors.leak();
    let pictures = emoji::items(api, v1::Modality::Image).await?;
    let ids: Vec<String> = pictures.into_iter().map(|item| item.id).collect();
    let ids: &'static [String] = ids.leak();
    let wire = one_by_one(api, |api, _| async move {
        api.info().get_server_info(v1::GetServerInfoRequest {}).await?;
        Ok(())
    });
    let wire = wire.await?;
    let encode = one_by_one(api, |api, place| async move {
        embed(&api, &names[place % names.len()]).await.map(drop)
    });
    let encode = encode.await?;
    let nearest = |limit| {
        one_by_one(api, move |api, place| async move {
            let query = v1::term::Source::Vector(packed(&vectors[place % vectors.len()]));
            let request = ask(emoji::COLLECTION, v1::Modality::Image, query);
            let hits =
                api.hits(v1::SearchRequest { limit, one_per_group: true, ..request }).await?;
            anyhow::ensure!(!hits.is_empty(), "no hits");
            Ok(())
        })
    };
    let (one, ten) = (nearest(1).await?, nearest(10).await?);
    let get = one_by_one(api, |api, place| async move {
        api.get(emoji::COLLECTION, &ids[place % ids.len()]).await?;
        Ok(())
    });
    let get = get.await?;
    let whole = one_by_one(api, |api, place| async move {
        text_to_image(&api, &names[place % names.len()]).await
    });
    let whole = whole.await?;
    let share = |time: Duration| 100.0 * time.as_secs_f64() / whole.as_secs_f64();
    println!("\n| step of SearchTextToImage, one call at a time | p50 ms | share |\n|---|---|---|");
    let rows = [
        ("wire: GetServerInfo", wire),
        ("encode: EmbedText less wire", encode.saturating_sub(wire)),
        ("scan: Search by vector, limit 1, less wire", one.saturating_sub(wire)),
        ("groups and records of nine more hits", ten.saturating_sub(one)),
        ("all: SearchTextToImage", whole),
        ("beside these: GetItem with its picture", get),
    ];
    for (what, time) in rows {
        println!("| {what} | {:.3} | {:.0} % |", milliseconds(time), share(time));
    }
    Ok(())
}

async fn embed(api: &Api, text: &str) -> Result<Vec<f32>> {
    let request = v1::EmbedTextRequest { text: text.to_owned(), ..Default::default() };
    let reply = api.embedding().embed_text(request).await?.into_inner();
    let shared = reply.embedding.and_then(|embedding| embedding.shared);
    Ok(components(&shared.context("no shared vector")?))
}

/// The median of calls that follow each other.
async fn one_by_one<F>(api: &Api, call: impl Fn(Api, usize) -> F + Copy + Send) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let (times, _) = calls(1, |place| call(api.clone(), place)).await?;
    Ok(percentile(&times, 50))
}

/// Makes [`CALLS`] calls, `at_once` of them at any time, and gives their times in order, and that of all together.
async fn calls<F>(at_once: usize, call: impl Fn(usize) -> F) -> Result<(Vec<Duration>, Duration)>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    for place in 0..WARM_UP {
        call(CALLS + place).await?;
    }
    let mut running = tokio::task::JoinSet::new();
    let mut times = Vec::with_capacity(CALLS);
    let began = Instant::now();
    for place in 0..CALLS {
        if running.len() == at_once {
            times.push(running.join_next().await.context("no call runs")???);
        }
        let call = call(place);
        running.spawn(async move {
            let sent = Instant::now();
            call.await.map(|()| sent.elapsed())
        });
    }
    while let Some(ended) = running.join_next().await {
        times.push(ended??);
    }
    let whole = began.elapsed();
    times.sort_unstable();
    Ok((times, whole))
}

/// The smallest time that `share` percent of all do not exceed.
fn percentile(sorted: &[Duration], share: usize) -> Duration {
    let place = (sorted.len() * share).div_ceil(100).saturating_sub(1);
    sorted.get(place).copied().unwrap_or_default()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runnable processes of the last 1, 5 and 15 minutes.
fn load() -> String {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
