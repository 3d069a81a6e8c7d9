//! How long a search by a photograph takes, where the time goes, and what memory the server needs at full load.
//!
//!     cargo run --release -p diptych-tests --example pictures -- --start [--bundle DIR]
//!     cargo run --release -p diptych-tests --example pictures -- ADDRESS [ADDRESS ...]
//!     cargo run --release -p diptych-tests --example pictures -- --load ADDRESS PROCESS PIXELS CALLERS CALLS
//!
//! `--start` makes a server of its own; several addresses are measured in turns, in one run; `--load` sends many pictures at
//! once and tells the peak of the server's memory. Prints Markdown tables.

#![expect(clippy::print_stdout, reason = "figures are what it is for")]

#[path = "pictures/photograph.rs"]
mod photograph;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use diptych_proto::v1;
use diptych_tests::api::{create, upserts, vector_item};
use diptych_tests::{Api, Server};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Endpoint;

use self::photograph::{peak_mib, photograph};

const COLLECTION: &str = "photographs";
/// Texts to search among, put as vectors: the towers need not be trained, nor have a text side.
const TEXTS: usize = 5000;
/// One megapixel.
const SIZE: (u32, u32) = (1152, 868);
const WARM_UP: usize = 20;
/// Calls of one round, and rounds of one row.
const CALLS: usize = 100;
const ROUNDS: usize = 5;
const AT_ONCE: [usize; 3] = [1, 4, 16];

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--start", ref bundle @ ..] => {
            let data = TempDir::new()?;
            let server =
                Server::start(data.path(), &[&["--sample", "false"], bundle].concat()).await?;
            println!("peak memory before the first call: {:.0} MiB\n", peak_mib(server.id())?);
            measure(&[server.listen()]).await?;
            println!("\npeak memory after these: {:.0} MiB", peak_mib(server.id())?);
            Ok(())
        }
        ["--load", address, process, pixels, callers, calls] => {
            let (callers, calls) = (callers.parse()?, calls.parse()?);
            load(address, process.parse()?, pixels.parse()?, (callers, calls)).await
        }
        ref addresses if !addresses.is_empty() && !addresses[0].starts_with('-') => {
            measure(addresses).await
        }
        _ => bail!("give --start, --load or the addresses of servers, HOST:PORT"),
    }
}

async fn connect(address: &str) -> Result<Api> {
    Ok(Api::new(Endpoint::from_shared(format!("http://{address}"))?.connect().await?))
}

/// Fills a collection with texts, unless it is there.
async fn fill(api: &Api) -> Result<()> {
    if api.collection(COLLECTION).await.is_ok() {
        return Ok(());
    }
    let models = api.info().list_models(v1::ListModelsRequest::default()).await?.into_inner();
    let model = models.models.first().context("no bundle")?;
    let dims = |space: v1::Space| {
        let of = |info: &&v1::SpaceInfo| {
            info.space() == space
                && (space == v1::Space::Shared || info.modality() == v1::Modality::Text)
        };
        model.spaces.iter().find(of).map(|info| info.dimension)
    };
    let shared = dims(v1::Space::Shared).context("no shared space")?;
    let exclusive = dims(v1::Space::Exclusive);
    api.create(create(COLLECTION)).await?;
    let mut draw = ChaCha8Rng::seed_from_u64(1);
    let items: Vec<v1::ItemInput> = (0..TEXTS)
        .map(|place| {
            let mut vector =
                |dims| -> Vec<f32> { (0..dims).map(|_| draw.random_range(-1.0..1.0)).collect() };
            let (shared, exclusive) = (vector(shared), exclusive.map(&mut vector));
            let id = format!("text-{place}");
            vector_item(&id, v1::Modality::Text, &shared, exclusive.as_deref())
        })
        .collect();
    for batch in items.chunks(50) {
        let reply = api.items().batch_upsert_items(upserts(COLLECTION, batch.to_vec())).await?;
        for result in reply.into_inner().results {
            if let Some(v1::batch_upsert_items_response::result::Outcome::Status(status)) =
                result.outcome
            {
                bail!("a text was refused: {}", status.message);
            }
        }
    }
    Ok(())
}

async fn measure(addresses: &[&str]) -> Result<()> {
    let mut servers = Vec::new();
    for address in addresses {
        let api = connect(address).await?;
        fill(&api).await?;
        servers.push(api);
    }
    println!("load average before: {}", machine_load());
    for progressive in [false, true] {
        let pictures = (0..8).map(|seed| photograph(SIZE, seed, progressive).map(Bytes::from));
        let pictures: Vec<Bytes> = pictures.collect::<Result<_>>()?;
        let kib = pictures.iter().map(Bytes::len).sum::<usize>() / pictures.len() / 1024;
        let kind = if progressive { "progressive" } else { "baseline" };
        println!(
            "\n| SearchImageToText, {kind} JPEG of {} x {}, {kib} KiB; at a time | server | p50 ms | p99 ms | calls/s |",
            SIZE.0, SIZE.1
        );
        println!("|---|---|---|---|---|");
        let mut shares = vec![Vec::new(); servers.len()];
        for at_once in AT_ONCE {
            let mut times = vec![Vec::new(); servers.len()];
            let mut whole = vec![Duration::ZERO; servers.len()];
            // In turns, so that a busy moment of the machine is everybody's.
            for _ in 0..ROUNDS {
                for (place, api) in servers.iter().enumerate() {
                    let began = Instant::now();
                    let answered = calls(api, &pictures, at_once).await?;
                    whole[place] += began.elapsed();
                    if at_once == 1 {
                        shares[place].extend(answered.iter().map(|(_, timings)| timings.clone()));
                    }
                    times[place].extend(answered.iter().map(|(time, _)| *time));
                }
            }
            for (place, times) in times.iter_mut().enumerate() {
                times.sort_unstable();
                let [p50, p99] = [50, 99].map(|share| milliseconds(percentile(times, share)));
                let rate = times.len() as f64 / whole[place].as_secs_f64();
                println!("| {at_once} | {} | {p50:.2} | {p99:.2} | {rate:.0} |", addresses[place]);
            }
        }
        for (place, shares) in shares.iter().enumerate() {
            println!(
                "\n| step, one call at a time, {} | p50 ms | share |\n|---|---|---|",
                addresses[place]
            );
            steps(shares)?;
        }
    }
    println!("\nload average after: {}", machine_load());
    Ok(())
}

type Answered = (Duration, BTreeMap<&'static str, Duration>);

/// One round of searches, `at_once` of them at any time: what each took, and its steps.
async fn calls(api: &Api, pictures: &[Bytes], at_once: usize) -> Result<Vec<Answered>> {
    let mut running = tokio::task::JoinSet::new();
    let mut answered = Vec::with_capacity(CALLS);
    for place in 0..WARM_UP + CALLS {
        if running.len() == at_once {
            answered.push(running.join_next().await.context("no call runs")???);
        }
        let (api, image) = (api.clone(), pictures[place % pictures.len()].clone());
        running.spawn(async move { search(&api, image).await });
    }
    while let Some(ended) = running.join_next().await {
        answered.push(ended??);
    }
    Ok(answered.split_off(WARM_UP))
}

async fn search(api: &Api, image: Bytes) -> Result<Answered> {
    let request = v1::SearchImageToTextRequest {
        collection: COLLECTION.to_owned(),
        image,
        with_timings: true,
        ..Default::default()
    };
    let sent = Instant::now();
    let reply = api.search().search_image_to_text(request).await?.into_inner();
    let whole = sent.elapsed();
    anyhow::ensure!(reply.hits.len() == 10, "{} hits", reply.hits.len());
    let timings = reply.info.and_then(|info| info.timings).context("no timings")?;
    let read = |part: Option<prost_types::Duration>| {
        part.and_then(|part| Duration::try_from(part).ok()).unwrap_or_default()
    };
    let total = read(timings.total);
    let mut steps = BTreeMap::from([
        ("2 check the request", read(timings.check)),
        ("3 wait for threads and queue", read(timings.wait)),
        ("4 decode", read(timings.decode)),
        ("5 resize", read(timings.resize)),
        ("6 encode", read(timings.encode)),
        ("7 search", read(timings.search)),
        ("8 fill the hits", read(timings.fill)),
    ]);
    let rest = total.saturating_sub(steps.values().sum());
    steps.insert("9 between these, and the reply", rest);
    steps.insert("1 wire: to the handler, and back from it", whole.saturating_sub(total));
    Ok((whole, steps))
}

/// Medians of each step and their shares of the median of the whole.
fn steps(answered: &[BTreeMap<&'static str, Duration>]) -> Result<()> {
    let median = |of: &dyn Fn(&BTreeMap<&'static str, Duration>) -> Duration| {
        let mut times: Vec<Duration> = answered.iter().map(of).collect();
        times.sort_unstable();
        percentile(&times, 50)
    };
    let whole = median(&|steps| steps.values().sum());
    for name in answered.first().context("no calls")?.keys() {
        let time = median(&|steps| steps.get(name).copied().unwrap_or_default());
        let share = 100.0 * time.as_secs_f64() / whole.as_secs_f64();
        println!("| {} | {:.3} | {share:.0} % |", &name[2..], milliseconds(time));
    }
    println!("| all | {:.3} | 100 % |", milliseconds(whole));
    Ok(())
}

/// `calls` pictures of about `pixels` pixels over `callers` connections, as fast as they are answered.
async fn load(
    address: &str,
    process: u32,
    pixels: u32,
    (callers, calls): (usize, usize),
) -> Result<()> {
    let width = (f64::from(pixels) * 4.0 / 3.0).sqrt() as u32 / 16 * 16;
    let size = (width, pixels / width);
    let pictures = [photograph(size, 1, false)?, photograph(size, 2, true)?].map(Bytes::from);
    fill(&connect(address).await?).await?;
    let before = peak_mib(process)?;
    let (mut running, began) = (tokio::task::JoinSet::new(), Instant::now());
    for caller in 0..callers {
        let (api, pictures) = (connect(address).await?, pictures.clone());
        running.spawn(async move {
            let (mut answered, mut refused) = (0, 0);
            for call in 0..calls.div_ceil(callers) {
                let image = pictures[(caller + call) % pictures.len()].clone();
                match search(&api, image).await {
                    Ok(_) => answered += 1,
                    Err(error) => {
                        match error.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
                            Some(Code::ResourceExhausted | Code::DeadlineExceeded) => refused += 1,
                            _ => return Err(error),
                        }
                    }
                }
            }
            Ok((answered, refused))
        });
    }
    let (mut answered, mut refused) = (0, 0);
    while let Some(ended) = running.join_next().await {
        let (more, less) = ended??;
        (answered, refused) = (answered + more, refused + less);
    }
    println!(
        "{callers} callers, pictures of {} x {} ({} and {} KiB): {answered} answered, {refused} refused, {:.1}/s; peak memory {before:.0} MiB before, {:.0} MiB after",
        size.0,
        size.1,
        pictures[0].len() / 1024,
        pictures[1].len() / 1024,
        f64::from(answered) / began.elapsed().as_secs_f64(),
        peak_mib(process)?
    );
    Ok(())
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
fn machine_load() -> String {
    let told = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    told.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
