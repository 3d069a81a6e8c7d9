//! The life of the server: take the addresses, open the parts, fill the sample, serve, drain. The only place that makes
//! long-lived things.
//!
//! Both listeners answer from the first moment: probes and health say what the server waits for, and turn when a search of
//! its own was answered. `open` makes the parts, `ask` is that search, `stage` what probes are told.

mod ask;
mod open;
mod stage;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::open::Parts;
use self::stage::{Stage, Watched};
use crate::config::Config;
use crate::grpc::{self, Conditions, Door, HealthReporter};
use crate::{ops, sample};

/// How often health is compared with what the parts say.
const HEALTH_PERIOD: Duration = Duration::from_millis(500);
/// How often the log tells how far the sample is.
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);
/// Least time for the store to end its last commit, beyond the drain time.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// What runs from the first moment to the last.
struct Serving {
    stage: Arc<Stage>,
    health: HealthReporter,
    stop: CancellationToken,
    grpc: JoinHandle<Result<()>>,
    ops: JoinHandle<std::io::Result<()>>,
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// A sentence that says what is wrong and what to do.
pub async fn run(config: Config) -> Result<()> {
    let mut signals = Signals::new()?;
    let listener = bind("listen", config.listen).await?;
    let ops_listener = bind("ops_listen", config.ops_listen).await?;
    let address = listener.local_addr()?;
    let stage = Stage::starting();
    let (health, health_service) = grpc::health().await;
    let door = Door::default();
    let stop = CancellationToken::new();
    let stack = door.stack(health_service.clone(), &config);
    let mut serving = Serving {
        grpc: tokio::spawn(grpc::serve(stack, listener, stop.clone())),
        ops: tokio::spawn(serve_ops(ops_listener, Arc::clone(&stage))),
        stage,
        health,
        stop,
    };
    let parts = tokio::select! {
        parts = open::parts(&config) => parts?,
        () = signals.next() => return Ok(()),
    };
    door.open(grpc::routes(&parts.service, health_service, &config)?);
    serving
        .stage
        .watch(Watched { engine: Arc::clone(&parts.engine), models: Arc::clone(&parts.models) });
    let lived = live(&config, &parts, &mut serving, (&mut signals, address)).await;
    tokio::select! {
        () = drain(&config, &parts, serving) => {}
        () = signals.next() => tracing::warn!("told to stop again: not waiting any longer"),
    }
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
    announce(address, sample);
    tokio::select! {
        () = signals.next() => Ok(()),
        () = watch_health(&serving.stage, &serving.health, told) => Ok(()),
        ended = &mut serving.grpc => ended?.context("the main listener failed"),
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

async fn serve_ops(listener: TcpListener, stage: Arc<Stage>) -> std::io::Result<()> {
    axum::serve(listener, ops::router(Arc::new(move || stage.readiness()))).await
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

/// Keeps health true for as long as it is polled. Tells only changes, since every telling wakes those who watch.
async fn watch_health(stage: &Stage, health: &HealthReporter, mut told: Conditions) {
    let mut period = tokio::time::interval(HEALTH_PERIOD);
    loop {
        period.tick().await;
        let now = stage.conditions();
        if now != told {
            tracing::warn!(serving = now.serving, writing = now.writing, "health changed");
            grpc::set_health_of(health, now).await;
            told = now;
        }
    }
}

/// Lines that one can paste to try the server.
#[expect(clippy::print_stdout, reason = "what a newcomer looks for")]
fn announce(address: SocketAddr, sample: bool) {
    let address = reachable(address);
    tracing::info!(%address, "serving");
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

/// Says NOT_SERVING, lets running calls finish, closes the store. Nothing of it waits without bound: a connection that hangs
/// must not keep the process, and what was acknowledged is durable without a close.
async fn drain(config: &Config, parts: &Parts, serving: Serving) {
    tracing::info!(longest = ?config.drain, "draining");
    let Serving { stage, health, stop, grpc, ops } = serving;
    let end = Instant::now() + config.drain;
    stage.set("going down");
    parts.service.set_ready(false);
    grpc::set_health_of(&health, Conditions { serving: false, writing: false }).await;
    stop.cancel();
    if !grpc.is_finished() {
        match timeout_at(end, grpc).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::error!(error = format!("{error:#}"), "serving ended badly");
            }
            Ok(Err(error)) => tracing::error!(%error, "serving ended badly"),
            Err(_) => tracing::warn!("calls were still running after the drain time; dropped"),
        }
    }
    let end = end.max(Instant::now() + CLOSE_TIME);
    match timeout_at(end, diptych_index::Engine::close(&*parts.engine)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the store was not closed well"),
        Err(_) => tracing::warn!("the store was not closed in time"),
    }
    ops.abort();
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
