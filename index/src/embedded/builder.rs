//! The thread that makes segments: merges rows, builds graphs and sets, writes files. Searches and
//! writes never wait for it; what it makes is put in place by the writing thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Instant,
};

use rayon::ThreadPool;

use super::{
    delta::Delta,
    merge,
    rows::{Matrix, Wide},
    segment::{
        Body, Segment, Walk,
        file::{Files, Place},
    },
    view::Entry,
};
use crate::{
    graph::{self, BuildError, BuilderKind, Params},
    store::{
        key::{CollectionId, Slot},
        manifest::SegmentRecord,
    },
    types::VectorStorage,
};

/// Work for the building thread.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) collection: CollectionId,
    pub(crate) slot: Slot,
    /// Who builds graphs.
    pub(crate) graph: BuilderKind,
    pub(crate) work: Work,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Work {
    /// One segment of the rows that live.
    Merge(Parts),
    /// The sets of a segment that was read from disk.
    Sets(Arc<Segment>),
    /// The graph of a segment that was read from disk without one.
    Walk(Arc<Segment>),
    /// The file of a segment that the disk refused.
    Save(Arc<Segment>),
}

/// Rows to be merged.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) dims: usize,
    pub(crate) storage: VectorStorage,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) delta: Option<Delta>,
}

/// Work that came back.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) collection: CollectionId,
    pub(crate) slot: Slot,
    pub(crate) outcome: Outcome,
}

/// What came of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The segment in place of the parts, none when no row lives, and its file, none when the disk
    /// refused.
    Merged { parts: Parts, segment: Option<Arc<Segment>>, record: Option<SegmentRecord> },
    /// A file, or none when the disk refused.
    Saved { number: u64, record: Option<SegmentRecord> },
    /// Sets or graph are in the segment now.
    Ready,
    /// The engine is closing.
    Cancelled,
}

/// What the building thread works with.
pub(crate) struct Builder {
    pub(crate) pool: ThreadPool,
    pub(crate) files: Arc<Files>,
    pub(crate) cancel: Arc<AtomicBool>,
    /// See [`super::EmbeddedConfig::exact_below`].
    pub(crate) exact_below: usize,
}

impl Builder {
    /// Does what is ordered until the orders end or it is cancelled.
    pub(crate) fn run(&self, orders: &mpsc::Receiver<Order>, done: impl Fn(Done)) {
        while let Ok(order) = orders.recv() {
            if self.is_cancelled() {
                return;
            }
            let (collection, slot) = (order.collection, order.slot);
            let outcome = self.pool.install(|| self.work(order));
            done(Done { collection, slot, outcome });
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn work(&self, order: Order) -> Outcome {
        let Order { collection, slot, graph, work } = order;
        let place = |number| Place { collection, slot, number };
        match work {
            Work::Sets(segment) => {
                segment.make_sets();
                Outcome::Ready
            }
            Work::Walk(segment) => {
                let walk = match segment.body() {
                    Body::Rows(rows) => self.walk(slot, graph, rows),
                    Body::Graph(_) => Ok(None),
                };
                let Ok(walk) = walk else { return Outcome::Cancelled };
                segment.set_beside(walk);
                Outcome::Ready
            }
            Work::Save(segment) => {
                let number = segment.number;
                Outcome::Saved { number, record: self.save(&place(number), &segment) }
            }
            Work::Merge(parts) => self.merge(parts, graph, place),
        }
    }

    fn merge(&self, parts: Parts, graph: BuilderKind, place: impl Fn(u64) -> Place) -> Outcome {
        let (versions, entries, rows) = living(&parts);
        if versions.is_empty() {
            return Outcome::Merged { parts, segment: None, record: None };
        }
        let place = place(self.files.fresh_number());
        let Ok(walk) = self.walk(place.slot, graph, &rows) else { return Outcome::Cancelled };
        // No second copy beside a graph that holds its rows.
        let (body, beside) = match walk {
            Some(walk) if walk.graph.row(0).is_some() => (Body::Graph(walk), None),
            walk => (Body::Rows(rows), walk),
        };
        let segment = Segment::new(place.number, versions, entries, body);
        segment.set_beside(beside);
        segment.make_sets();
        let record = self.save(&place, &segment);
        Outcome::Merged { parts, segment: Some(Arc::new(segment)), record }
    }

    /// A graph; none when there are few rows, or when it was not good enough.
    fn walk(
        &self,
        slot: Slot,
        kind: BuilderKind,
        rows: &Matrix,
    ) -> Result<Option<Walk>, Cancelled> {
        let count = rows.len();
        if count == 0 || count < merge::beside_others(self.exact_below) {
            return Ok(None);
        }
        let (modality, space) = (slot.modality(), slot.space());
        let started = Instant::now();
        let params = Params { storage: rows.storage().into(), ..Params::default() };
        let wide = Wide::new(rows);
        let graph = match graph::builder(kind).build(&wide, &params, &self.cancel) {
            Ok(graph) => graph,
            Err(BuildError::Cancelled) => return Err(Cancelled),
            Err(error) => {
                tracing::warn!(%modality, %space, rows = count, %error, "no graph; rows are scanned");
                return Ok(None);
            }
        };
        let ef_search = graph::reaches_recall(graph.as_ref(), &wide);
        let seconds = started.elapsed().as_secs_f64();
        match ef_search {
            Some(ef_search) => {
                tracing::info!(%modality, %space, rows = count, ef_search, seconds, "built a graph");
                Ok(Some(Walk { graph, ef_search }))
            }
            None => {
                tracing::warn!(
                    %modality, %space, rows = count, seconds,
                    "a graph was not good enough; its rows are scanned"
                );
                Ok(None)
            }
        }
    }

    fn save(&self, place: &Place, segment: &Segment) -> Option<SegmentRecord> {
        match self.files.write(place, segment) {
            Ok(record) => Some(record),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(
                    %error, cause, ?place,
                    "a segment could not be written; it is tried again, and its rows are in the store"
                );
                None
            }
        }
    }
}

struct Cancelled;

type Living = (Vec<u64>, Vec<Option<Arc<Entry>>>, Matrix);

/// The rows that live, by version. A row that ends meanwhile is told to the segment when it is put
/// in place.
fn living(parts: &Parts) -> Living {
    /// Where a row is: in a segment, or in the delta (the last one).
    type Source = (u64, u32, u32);
    const NOW: u64 = u64::MAX - 1;
    let mut sources: Vec<Source> = Vec::new();
    for (part, segment) in parts.segments.iter().enumerate() {
        let entries = segment.entries().iter().enumerate();
        let living = entries.filter(|(_, entry)| entry.visible(NOW));
        sources.extend(living.map(|(row, entry)| (entry.version, part as u32, row as u32)));
    }
    if let Some(delta) = &parts.delta {
        let entries = delta.chunks.iter().flat_map(|chunk| &chunk.entries).enumerate();
        let living = entries.filter(|(_, entry)| entry.visible(NOW));
        let part = parts.segments.len() as u32;
        sources.extend(living.map(|(row, entry)| (entry.version, part, row as u32)));
    }
    sources.sort_unstable();
    let mut rows = Matrix::with_capacity(parts.dims, parts.storage, sources.len());
    let mut vector = Vec::with_capacity(parts.dims);
    let mut entries = Vec::with_capacity(sources.len());
    for &(_, part, row) in &sources {
        let row = row as usize;
        match (parts.segments.get(part as usize), &parts.delta) {
            (Some(segment), _) => {
                vector.clear();
                segment.read(row..row + 1, &mut vector);
                rows.push(&vector);
                entries.push(Some(Arc::clone(segment.entry(row))));
            }
            (None, Some(delta)) => {
                entries.push(Some(Arc::clone(delta.row(row, &mut vector))));
                rows.push(&vector);
            }
            (None, None) => {}
        }
    }
    (sources.into_iter().map(|(version, ..)| version).collect(), entries, rows)
}
