//! Opening: the store, the rows in memory, the threads.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::Semaphore;

use super::{
    EmbeddedConfig, EmbeddedEngine,
    builder::Builder,
    by_name, load,
    pins::{Limits, Pins},
    scans::Scans,
    segment::file::Files,
    snapshot,
    state::State,
    writer::{Message, Reserve, Writer},
};
use crate::{
    background,
    error::{Error, Result},
    store::{Store, key::CollectionId},
};

/// Writes that wait at one time; more callers wait for a place.
const QUEUE: usize = 512;

impl EmbeddedEngine {
    /// Opens a data folder, or makes an empty one, and reads its vectors into memory. Blocks for
    /// as long as that takes: call it before serving.
    ///
    /// # Errors
    /// [`Error::Locked`] when another engine has it open, [`Error::Damaged`] with what is wrong
    /// and what to do, [`Error::Io`].
    pub fn open(config: &EmbeddedConfig) -> Result<Self> {
        let store = Arc::new(Store::open(&config.path, config.map_bytes)?);
        let files = Arc::new(load::open_files(&store)?);
        let states = load::load(&store, &files, &config.path)?;
        let collections = Arc::new(ArcSwap::from_pointee(by_name(states.values())));
        let aliases = {
            let txn = store.read()?;
            store.aliases(&txn)?.into_iter().collect()
        };
        let aliases = Arc::new(ArcSwap::from_pointee(aliases));
        snapshot::sweep(&config.snapshots);
        let cores = threads(config.scan_threads, 1);
        let divided = (cores > 1).then(|| pool("diptych-scan", cores)).transpose()?;
        let scans = Scans::start("diptych-search", cores, divided)?;
        let bulk = background_pool("diptych-bulk", 1)?;
        let builds = background_pool("diptych-build", threads(config.build_threads, 2))?;
        let pins = Limits { time: config.pin_time, bytes: config.pin_bytes };
        let (messages, received) = mpsc::channel();
        let engine = Self {
            store: ArcSwapOption::from(Some(store)),
            collections,
            aliases,
            snapshots: config.snapshots.clone(),
            now_ms: config.now_ms,
            messages,
            queue: Arc::new(Semaphore::new(QUEUE)),
            scans,
            bulk,
            pins: Arc::new(Pins::new(pins)),
            walk_cost_rows: config.walk_cost_rows,
            cancel: Arc::new(AtomicBool::new(false)),
            refused: Arc::new(AtomicBool::new(false)),
            threads: Mutex::new(Vec::new()),
        };
        engine.start(config, Loaded { states, files, builds }, received)?;
        Ok(engine)
    }

    fn start(
        &self,
        config: &EmbeddedConfig,
        loaded: Loaded,
        received: mpsc::Receiver<Message>,
    ) -> Result<()> {
        let Loaded { states, files, builds } = loaded;
        let (orders, ordered) = mpsc::channel();
        let writer = Writer {
            store: self.store()?,
            collections: Arc::clone(&self.collections),
            aliases: Arc::clone(&self.aliases),
            states,
            orders,
            files: Arc::clone(&files),
            exact_below: config.exact_below,
            idle_after: config.idle_after,
            last_write: Instant::now(),
            now_ms: config.now_ms,
            settling: Vec::new(),
            compacting: Vec::new(),
            reserve: Reserve::open(&config.path, config.reserve_bytes),
            refused: Arc::clone(&self.refused),
            probed: Instant::now(),
        };
        // A disk without room at the start is asked again like one that refused a write.
        self.refused.store(writer.reserve.is_spent(), Ordering::Relaxed);
        let builder = Builder {
            pool: builds,
            files,
            cancel: Arc::clone(&self.cancel),
            exact_below: config.exact_below,
        };
        let messages = self.messages.clone();
        let mut threads = self.threads.lock();
        threads.push(spawn("diptych-write", move || writer.run(&received))?);
        threads.push(spawn("diptych-graphs", move || {
            builder.run(&ordered, |done| {
                // It fails only when the engine is closing.
                drop(messages.send(Message::Done(done)));
            });
        })?);
        Ok(())
    }
}

/// What was read, on its way to the threads.
struct Loaded {
    states: HashMap<CollectionId, State>,
    files: Arc<Files>,
    builds: ThreadPool,
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| Error::internal(format!("thread {name} did not start: {e}")))
}

/// A pool for work that nobody waits for.
fn background_pool(name: &'static str, threads: usize) -> Result<ThreadPool> {
    finish(name, builder(name, threads).start_handler(|_| background::lower()))
}

fn pool(name: &'static str, threads: usize) -> Result<ThreadPool> {
    finish(name, builder(name, threads))
}

/// `asked`, or the cores divided by `share` when 0.
fn threads(asked: usize, share: usize) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if asked == 0 { (cores / share).max(1) } else { asked }
}

fn builder(name: &'static str, threads: usize) -> ThreadPoolBuilder {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(move |i| format!("{name}-{i}"))
        // A panic reaches the caller as an answer that never comes, not as the end of the process.
        .panic_handler(|_| tracing::error!("a scan panicked"))
}

fn finish(name: &'static str, builder: ThreadPoolBuilder) -> Result<ThreadPool> {
    builder.build().map_err(|e| Error::internal(format!("the pool {name} did not start: {e}")))
}
