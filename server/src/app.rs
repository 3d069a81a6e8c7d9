//! The life of the server: take the addresses, open the parts, fill the sample, serve, drain. The only place that makes
//! long-lived things.
//!
//! Both listeners answer from the first moment: probes and health say what the server waits for, and turn when a search of
//! its own was answered. `open` makes the parts, `ask` is that search, `stage` what probes are told, `health` keeps it true, and
//! `drain` is the end.

mod ask;
mod drain;
mod health;
mod open;
mod stage;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::open::Parts;
use self::stage::{Stage, Watched};
use crate::config::{Config, LogFormat};
use crate::grpc::{self, Door, HealthReporter};
use crate::listen::{Counters, Ends};
use crate::observe::scrape::Scrape;
use crate::ops::Heartbeat;
use crate::{ops, sample};

/// How often the log tells how far the sample is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

/// What runs from the first moment to the last.
struct Serving {
    stage: Arc<Stage>,
    health: HealthReporter,
    ends: Ends,
    grpc: JoinHandle<()>,
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::new()?;
    let listener = bind("listen", config.listen).await?;
    let ops_listener = bind("ops_listen", config.ops_listen).await?.into_std()?;
    let address = listener.local_addr()?;
    let stage = Stage::starting();
    let heartbeat = Arc::new(Heartbeat::default());
    let beating = Arc::clone(&heartbeat);
    tokio::spawn(async move { beating.run().await });
    let asked = Arc::clone(&stage);
    let readiness: ops::Readiness = Arc::new(move || asked.readiness());
    let counters = Arc::new(Counters::default());
    let scrape = Scrape::new(Arc::clone(&counters), Arc::clone(&readiness));
    let router = ops::router(readiness, heartbeat).merge(Arc::clone(&scrape).routes());
    ops::start(ops_listener, router, config.connections)?;
    let (health, health_service) = grpc::health().await;
    let door = Door::default();
    let (ends, stack) = (Ends::default(), door.stack(health_service.clone(), &config));
    let mut serving = Serving {
        grpc: tokio::spawn(grpc::serve(stack, listener, (ends.clone(), counters))),
        stage,
        health,
        ends,
    };
    let parts = tokio::select! {
        parts = open::parts(&config) => parts?,
        () = signals.next() => return Ok(()),
    };
    door.open(grpc::routes(&parts.service, health_service, &config)?);
    serving
        .stage
        .watch(Watched { engine: Arc::clone(&parts.engine), models: Arc::clone(&parts.models) });
    scrape.watch(Arc::clone(&parts.service));
    let lived = live(&config, &parts, &mut serving, (&mut signals, address)).await;
    drain::drain(config.drain, &parts, serving, &mut signals).await;
    lived
}

/// From opened parts to the signal that ends the server.
async fn live(
    config: &Config,
    parts: &Parts,
    serving: &mut Serving,
    (signals, address): (&mut Signals, SocketAddr),
) -> Result<()> {
    let sample = tokio::select! {
        prepared = prepare(config, parts, &serving.stage) => prepared?,
        () = signals.next() => return Ok(()),
    };
    let told = serving.stage.conditions();
    grpc::set_health_of(&serving.health, told).await;
    announce(config.log_format, address, sample);
    tokio::select! {
        () = signals.next() => Ok(()),
        () = health::follow(&serving.stage, &serving.health, told) => Ok(()),
        () = health::test(&serving.stage, &parts.models, config.self_test) => Ok(()),
        ended = &mut serving.grpc => ended.context("the main listener failed"),
    }
}

/// Takes an address, so that one in use is told before anything is opened.
async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        let flag = key.replace('_', "-");
        format!(
            "cannot listen on {address}; stop what uses it, or give another address with --{flag}"
        )
    })
}

/// Fills the sample, asks one question each way, then lets callers in. Says whether the sample is there.
async fn prepare(config: &Config, parts: &Parts, stage: &Arc<Stage>) -> Result<bool> {
    let mut filled = false;
    if config.sample {
        let sample = sample::Sample {
            engine: Arc::clone(&parts.engine) as _,
            models: Arc::clone(&parts.models),
            store: config.store_dir(),
        };
        let progress = tell_progress(Arc::clone(stage));
        filled = sample.fill(&progress).await.context("the sample collection cannot be filled")?;
    }
    stage.set("trying a search");
    // Before the door opens: callers who wait for it must neither take its places nor change what it asks.
    ask::every_collection(parts).await?;
    parts.service.set_ready(true);
    parts.service.resume().await.context("changes of bundle cannot go on")?;
    stage.serve();
    Ok(filled)
}

/// Tells probes each step of the sample, and the log one now and then.
fn tell_progress(stage: Arc<Stage>) -> impl Fn(usize, usize) + Send + Sync {
    let logged = Mutex::new(None::<Instant>);
    move |done, total| {
        stage.set(format!("filling the sample collection: {done} of {total} items"));
        let mut logged = logged.lock();
        if done < total && logged.is_none_or(|last| last.elapsed() >= PROGRESS_PERIOD) {
            tracing::info!(done, total, "filling the sample collection, on first start only");
            *logged = Some(Instant::now());
        }
    }
}

/// Lines that one can paste to try the server; for a program that reads the log, a line of the log alone.
#[expect(clippy::print_stdout, reason = "what a newcomer looks for")]
fn announce(format: LogFormat, address: SocketAddr, sample: bool) {
    let address = reachable(address);
    tracing::info!(%address, "serving");
    if format == LogFormat::Json {
        return;
    }
    println!("Diptych serves on {address}.");
    if sample {
        let built_in = address.to_string() == crate::config::defaults::LISTEN;
        let server = if built_in { String::new() } else { format!("--server http://{address} ") };
        println!(
            "Try:\n  cargo run --release -p diptych -- {server}search \"a red heart\"\n  grpcurl -plaintext -d \
             '{{\"collection\":\"emoji\",\"text\":\"a red heart\",\"one_per_group\":true}}' {address} \
             diptych.v1.SearchService/SearchTextToImage"
        );
    }
}

/// The address as a caller on this machine writes it.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// SIGTERM and SIGINT, from the first moment on.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
