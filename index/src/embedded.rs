//! The engine in this process: LMDB as the store of record, rows in memory, graphs above a size.
//!
//! - `store`: what is on disk
//! - `view`: what a search reads, per (modality, space): `segment`s, which do not change any more,
//!   and a `delta` of newer rows, both of `rows`; `load`: from files and store at start
//! - `prepare` -> `writer` -> `job` -> `state`: the way of a write
//! - `plan`, `scan`: the way of a search, on the threads of `scans`; `prefix`: by the first components only; `sum`: in several spaces; `read`: get, list
//!   and vectors; `draw`: rows at random
//! - `held`, `pins`: generations held for later pages
//! - `slots` says by `merge` which segments are due; `builder` makes them in the background
//! - `snapshot`: a collection to a file and back; `admin`: aliases, changes, settings

mod admin;
mod builder;
mod config;
mod delta;
mod draw;
mod held;
mod job;
mod load;
mod merge;
mod open;
mod pins;
mod plan;
mod prefix;
mod prepare;
mod read;
mod rows;
mod scan;
mod scans;
mod segment;
mod slots;
mod snapshot;
mod state;
mod sum;
mod view;
mod writer;

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use parking_lot::Mutex;
use rayon::ThreadPool;
use tokio::sync::{Semaphore, oneshot};

pub use self::config::EmbeddedConfig;
pub(crate) use self::view::Entry;
use self::{
    pins::Pins,
    scan::{Asker, Question},
    scans::{Extent, Scans},
    segment::Segment,
    view::View,
    writer::{Message, Reply, Write},
};
use crate::{
    engine::{
        Capabilities, DeleteBatch, DeleteOutcome, Draw, Drawn, Engine, Fields, Nearest, Neighbours,
        Pages, Pin, PinId, PutBatch, PutOutcome, RequestKey, Scan, ScanPage, Selection,
        StoredOutcome, StoredVector, Sum,
    },
    error::{Error, Kind, Rejection, Result},
    store::{
        HIDDEN, Store,
        key::{CollectionId, Slot},
        record::{AliasRecord, CollectionRecord},
    },
    types::{CollectionInfo, CollectionSpec, IndexStatus, Item, ItemId, Space},
};

/// Collections by name.
type Collections = ArcSwap<BTreeMap<String, Arc<Collection>>>;
/// What aliases stand for, by name.
type Aliases = ArcSwap<BTreeMap<String, AliasRecord>>;

/// The collections that callers see.
fn by_name<'a>(
    states: impl Iterator<Item = &'a state::State>,
) -> BTreeMap<String, Arc<Collection>> {
    let shown = states.filter(|state| !state.shared.spec.name.starts_with(HIDDEN));
    shown.map(|state| (state.shared.spec.name.clone(), Arc::clone(&state.shared))).collect()
}

/// Items that are read on the thread that asks, where there is one: a page of hits of the default size and more.
const FEW_ITEMS: usize = 32;

/// A collection as searches see it.
#[derive(Debug)]
struct Collection {
    id: CollectionId,
    spec: CollectionSpec,
    created_at_ms: u64,
    view: ArcSwap<View>,
}

impl Collection {
    fn new(record: &CollectionRecord, view: View) -> Self {
        Self {
            id: record.id,
            spec: record.spec.clone(),
            created_at_ms: record.created_at_ms,
            view: ArcSwap::from_pointee(view),
        }
    }

    /// The same rows under other settings.
    fn with_spec(&self, spec: CollectionSpec) -> Self {
        Self { spec, view: ArcSwap::new(self.view.load_full()), ..*self }
    }

    fn info(&self) -> CollectionInfo {
        let view = self.view.load();
        CollectionInfo {
            number: self.id,
            spec: self.spec.clone(),
            created_at_ms: self.created_at_ms,
            generation: view.generation,
            counts: view.counts,
            index: index_status(&view),
        }
    }
}

fn index_status(view: &View) -> Vec<IndexStatus> {
    let status = Slot::ALL.into_iter().filter_map(|slot| {
        view.slot(slot).map(|rows| IndexStatus {
            modality: slot.modality(),
            space: slot.space(),
            rows: rows.rows(),
            graph_rows: sum(&rows.segments, |s| if s.walk().is_some() { s.len() } else { 0 }),
            segments: rows.segments.len(),
            ended: sum(&rows.segments, Segment::ended),
            rows_from_files: sum(&rows.segments, |s| if s.was_read() { s.len() } else { 0 }),
        })
    });
    status.collect()
}

/// The engine in this process. Its calls need a tokio runtime around them.
pub struct EmbeddedEngine {
    store: ArcSwapOption<Store>,
    collections: Arc<Collections>,
    aliases: Arc<Aliases>,
    snapshots: PathBuf,
    now_ms: fn() -> u64,
    messages: mpsc::Sender<Message>,
    /// Places in the queue of the writing thread.
    queue: Arc<Semaphore>,
    scans: Scans,
    /// One thread for scans that nobody waits for.
    bulk: ThreadPool,
    pins: Arc<Pins>,
    walk_cost_rows: usize,
    cancel: Arc<AtomicBool>,
    /// The disk refused the last write.
    refused: Arc<AtomicBool>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for EmbeddedEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.collections.load();
        f.debug_struct("EmbeddedEngine").field("collections", &names.keys()).finish_non_exhaustive()
    }
}

impl EmbeddedEngine {
    /// Size and graphs of a collection's rows.
    ///
    /// # Errors
    /// [`Error::CollectionMissing`], [`Error::Closed`].
    pub fn index_status(&self, collection: &str) -> Result<Vec<IndexStatus>> {
        let collection = self.open_collection(collection)?;
        Ok(index_status(&collection.view.load()))
    }

    /// Whether the threads that write and build are alive: false once the engine was closed, or
    /// when one of them panicked (searches and reads go on then).
    pub fn is_alive(&self) -> bool {
        let threads = self.threads.lock();
        !threads.is_empty() && !threads.iter().any(JoinHandle::is_finished)
    }

    /// Whether writes can be expected to succeed: the threads are alive, and the disk did not refuse
    /// the last write. A disk that did is tried again by itself.
    pub fn takes_writes(&self) -> bool {
        self.is_alive() && !self.refused.load(Ordering::Relaxed)
    }

    /// Waits until nothing is due or under way in the index: segments, graphs, files. What the disk
    /// refused is tried once more.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn settle(&self) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Settle(sender))?;
        receiver.await.map_err(|_| self.ended())
    }

    fn store(&self) -> Result<Arc<Store>> {
        self.store.load_full().ok_or(Error::Closed)
    }

    fn open_collection(&self, name: &str) -> Result<Arc<Collection>> {
        self.store()?;
        let collections = self.collections.load();
        let found = collections.get(name).map(Arc::clone);
        found.ok_or_else(|| Error::CollectionMissing { name: name.to_owned() })
    }

    fn send(&self, message: Message) -> Result<()> {
        self.messages.send(message).map_err(|_| self.ended())
    }

    /// Why the writing thread does not answer: it was told to end, or it panicked.
    fn ended(&self) -> Error {
        if self.queue.is_closed() {
            Error::Closed
        } else {
            Error::internal("the writing thread has ended; restart the program")
        }
    }

    /// Hands a write to the writing thread and waits for its answer.
    async fn write<T>(&self, write: impl FnOnce(Reply<T>) -> Write) -> Result<T> {
        let permit = Arc::clone(&self.queue).acquire_owned().await.map_err(|_| Error::Closed)?;
        let (sender, receiver) = oneshot::channel();
        self.send(Message::Write(Box::new(write(Reply { sender, permit }))))?;
        receiver.await.map_err(|_| self.ended())?
    }

    /// Runs something that reads the store on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        collection: &str,
        read: impl FnOnce(&Store, &Collection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let collection = self.open_collection(collection)?;
        let store = self.store()?;
        blocking(move || read(&store, &collection)).await
    }

    /// Runs a search where searches run, one that nobody waits for apart from the others.
    fn run(&self, bulk: bool, extent: Extent, search: impl FnOnce() + Send + 'static) {
        if bulk {
            self.bulk.spawn(search);
        } else {
            self.scans.run(extent, search);
        }
    }

    /// Asks every thread to end: the writing one after its commit, the building one soon.
    fn ask_to_end(&self) -> Vec<JoinHandle<()>> {
        self.queue.close();
        self.cancel.store(true, Ordering::Relaxed);
        // It fails only when the thread has ended already.
        drop(self.messages.send(Message::Close));
        std::mem::take(&mut *self.threads.lock())
    }
}

impl Drop for EmbeddedEngine {
    fn drop(&mut self) {
        join(self.ask_to_end());
    }
}

fn sum(segments: &[Arc<Segment>], count: impl Fn(&Segment) -> usize) -> usize {
    segments.iter().map(|segment| count(segment)).sum()
}

/// Waits for threads to end; false when one had panicked.
fn join(threads: Vec<JoinHandle<()>>) -> bool {
    let mut sound = true;
    for thread in threads {
        sound &= thread.join().is_ok();
    }
    if !sound {
        tracing::error!("a thread of the engine had panicked");
    }
    sound
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("a read ended early: {e}")))?
}

#[async_trait]
impl Engine for EmbeddedEngine {
    fn capabilities(&self) -> Capabilities {
        let pages = if self.pins.keeps() { Pages::Pinned } else { Pages::BestEffort };
        Capabilities { name: "embedded", pages, exact: true, exact_scores: true }
    }

    async fn create_collection(&self, spec: CollectionSpec) -> Result<CollectionInfo> {
        self.store()?;
        spec.check()?;
        self.write(|reply| Write::Create { spec, reply }).await
    }

    async fn collection(&self, name: &str) -> Result<CollectionInfo> {
        Ok(self.open_named(name)?.info())
    }

    async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        self.store()?;
        Ok(self.collections.load().values().map(|collection| collection.info()).collect())
    }

    async fn drop_collection(&self, name: &str) -> Result<()> {
        let collection = self.open_collection(name)?;
        self.write(|reply| Write::Drop { collection, reply }).await
    }

    async fn put(&self, collection: &str, batch: PutBatch) -> Result<PutOutcome> {
        let store = self.store()?;
        let collection = self.open_collection(collection)?;
        if batch.collection.is_some_and(|number| number != collection.id) {
            return Err(Error::CollectionMissing { name: collection.spec.name.clone() });
        }
        let target = Arc::clone(&collection);
        let prepared = blocking(move || prepare::prepare(&store, &target, batch)).await;
        let batch = prepared.map_err(|error| match error.kind() {
            Kind::Unavailable | Kind::Full => error.not_committed(),
            _ => error,
        })?;
        self.write(|reply| Write::Put { collection, batch, reply }).await
    }

    async fn delete(&self, collection: &str, batch: DeleteBatch) -> Result<DeleteOutcome> {
        if let Some(request) = &batch.request {
            prepare::check_request(request)?;
        }
        if let Selection::Filter(filter) = &batch.selection {
            filter.check()?;
        }
        let collection = self.open_collection(collection)?;
        self.write(|reply| Write::Delete { collection, batch, reply }).await
    }

    async fn outcome(
        &self,
        collection: &str,
        request: &RequestKey,
    ) -> Result<Option<StoredOutcome>> {
        prepare::check_request(request)?;
        let request = request.clone();
        self.read(collection, move |store, collection| {
            read::outcome(store, collection.id, &request)
        })
        .await
    }

    async fn get(
        &self,
        collection: &str,
        ids: &[ItemId],
        fields: Fields,
    ) -> Result<Vec<Option<Item>>> {
        if self.scans.here() && ids.len() <= FEW_ITEMS && !fields.source {
            return read::items(&*self.store()?, &*self.open_collection(collection)?, ids, fields);
        }
        let ids = ids.to_vec();
        self.read(collection, move |store, collection| read::items(store, collection, &ids, fields))
            .await
    }

    async fn scan(&self, collection: &str, scan: Scan) -> Result<ScanPage> {
        if scan.limit == 0 {
            return Err(Rejection::invalid("limit", "is 0").into());
        }
        if let Some(filter) = &scan.filter {
            filter.check()?;
        }
        self.read(collection, move |store, collection| read::scan(store, collection, &scan)).await
    }

    async fn nearest(&self, collection: &str, query: Nearest) -> Result<Neighbours> {
        let collection = self.open_collection(collection)?;
        let place = (query.modality, query.space);
        let vector = prepare::unit_vector(&collection, "vector", place, &query.vector)?;
        if let Some(filter) = &query.filter {
            filter.check()?;
        }
        prefix::check(query.prefix_dims, vector.len())?;
        let view = match &query.pin {
            Some(pin) => held::held(&self.pins, &collection, pin)?,
            None => collection.view.load_full(),
        };
        let (sender, receiver) = oneshot::channel();
        let walk_cost_rows = self.walk_cost_rows;
        let (bulk, exact) = (query.bulk, query.exact);
        let slot = view.slot(Slot::new(query.modality, query.space));
        let extent = slot.map_or(Extent::Small, |slot| plan::extent(slot, exact));
        let scan = move || {
            if sender.left() {
                // While it waited for its turn.
                return;
            }
            let question = Question {
                vector: &vector,
                filter: query.filter.as_deref(),
                k: query.k,
                ef_search: query.ef_search,
                exact: query.exact,
                generation: view.generation,
                walk_cost_rows,
                asker: &sender,
            };
            let slot = view.slot(Slot::new(query.modality, query.space));
            let found = slot.map(|slot| match query.prefix_dims {
                0 => plan::nearest(slot, &question),
                dims => prefix::nearest(slot, &question, dims),
            });
            // A caller that left does not need its answer.
            drop(sender.send((found, view.generation)));
        };
        self.run(bulk, extent, scan);
        let (found, generation) =
            receiver.await.map_err(|_| Error::internal("a scan ended early"))?;
        let (neighbours, route, visited) =
            found.ok_or_else(|| Error::internal("a space without rows was searched"))?;
        Ok(Neighbours { neighbours, route, visited, generation })
    }

    async fn nearest_sum(&self, collection: &str, sum: Sum) -> Result<Option<Neighbours>> {
        self.best_sum(collection, sum).await
    }

    async fn vectors(
        &self,
        collection: &str,
        ids: &[ItemId],
        space: Space,
    ) -> Result<Vec<Option<StoredVector>>> {
        let ids = ids.to_vec();
        self.read(collection, move |store, collection| {
            read::vectors(store, collection, &ids, space)
        })
        .await
    }

    async fn pin(&self, collection: &str) -> Result<Option<Pin>> {
        self.pin_now(collection).map(Some)
    }

    async fn keep(&self, collection: &str, pin: &Pin) -> Result<bool> {
        self.keep_pin(collection, pin)
    }

    async fn pinned(&self, collection: &str, id: PinId) -> Result<Option<Pin>> {
        self.find_pin(collection, id)
    }

    async fn pinned_vectors(
        &self,
        collection: &str,
        pin: &Pin,
        ids: &[ItemId],
        space: Space,
    ) -> Result<Vec<Option<StoredVector>>> {
        self.vectors_of_pin(collection, pin, (ids, space)).await
    }

    async fn draw(&self, collection: &str, draw: Draw) -> Result<Drawn> {
        let collection = self.open_collection(collection)?;
        let view = collection.view.load_full();
        blocking(move || Ok(draw::draw(&view, draw))).await
    }

    async fn close(&self) -> Result<()> {
        self.pins.clear();
        let threads = self.ask_to_end();
        let ended = blocking(move || Ok(join(threads))).await?;
        self.store.store(None);
        if ended { Ok(()) } else { Err(Error::internal("a thread of the engine had panicked")) }
    }
}
