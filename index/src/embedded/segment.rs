//! Rows that do not change any more, and what finds neighbours among them.
//!
//! - `bits`: which rows ended
//! - `file`: a segment on disk
//!
//! Rows lie in the order of their versions, so a row is found by its version. What may come later
//! than the rows, because it can be made again from them, is set once: the graph and the sets.

pub(crate) mod bits;
pub(crate) mod file;

use std::{
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use self::bits::Bits;
use super::{
    rows::{Matrix, Scores},
    view::Entry,
};
use crate::{
    filter::sets::Sets,
    graph::{Graph, RowSet},
    kernel,
};

/// A graph that was found good enough.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) graph: Box<dyn Graph>,
    /// Least width of a search that reached the recall asked for.
    pub(crate) ef_search: usize,
}

/// Where the vectors of a segment are.
#[derive(Debug)]
pub(crate) enum Body {
    /// In a matrix; a graph that holds none may come beside it.
    Rows(Matrix),
    /// In the graph.
    Graph(Walk),
}

/// Immutable rows of one (modality, space).
#[derive(Debug)]
pub(crate) struct Segment {
    /// Names its files; unique in the slot for as long as they are there.
    pub(crate) number: u64,
    /// Ascending.
    versions: Box<[u64]>,
    entries: Box<[Arc<Entry>]>,
    body: Body,
    /// The graph beside a matrix. `None` inside: there is none, and none is to be tried.
    beside: OnceLock<Option<Walk>>,
    dead: Bits,
    /// Latest generation that ended one of the rows.
    last_end: AtomicU64,
    sets: OnceLock<Sets>,
    was_read: bool,
}

impl Segment {
    /// Rows by ascending version, their entries aligned. A row without an entry ended before.
    pub(crate) fn new(
        number: u64,
        versions: Vec<u64>,
        entries: Vec<Option<Arc<Entry>>>,
        body: Body,
    ) -> Self {
        debug_assert!(versions.is_sorted());
        let dead = Bits::new(versions.len());
        let mut tombstone = None;
        let entries = entries.into_iter().enumerate().map(|(row, entry)| {
            entry.unwrap_or_else(|| {
                dead.set(row);
                Arc::clone(tombstone.get_or_insert_with(|| Arc::new(Entry::tombstone())))
            })
        });
        let entries = entries.collect();
        Self {
            number,
            versions: versions.into(),
            entries,
            body,
            beside: OnceLock::new(),
            dead,
            last_end: AtomicU64::new(0),
            sets: OnceLock::new(),
            was_read: false,
        }
    }

    /// Marks it as read from disk.
    pub(crate) fn read_from_disk(self) -> Self {
        Self { was_read: true, ..self }
    }

    /// Whether it was read from disk when the engine was opened.
    pub(crate) fn was_read(&self) -> bool {
        self.was_read
    }

    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Rows that ended, at any generation.
    pub(crate) fn ended(&self) -> usize {
        self.dead.count()
    }

    pub(crate) fn living(&self) -> usize {
        self.len() - self.ended()
    }

    pub(crate) fn versions(&self) -> &[u64] {
        &self.versions
    }

    pub(crate) fn entry(&self, row: usize) -> &Arc<Entry> {
        &self.entries[row]
    }

    pub(crate) fn entries(&self) -> &[Arc<Entry>] {
        &self.entries
    }

    pub(crate) fn body(&self) -> &Body {
        &self.body
    }

    pub(crate) fn dims(&self) -> usize {
        match &self.body {
            Body::Rows(rows) => rows.dims(),
            Body::Graph(walk) => walk.graph.dims(),
        }
    }

    /// Appends the components of some rows.
    pub(crate) fn read(&self, rows: Range<usize>, out: &mut Vec<f32>) {
        match &self.body {
            Body::Rows(matrix) => matrix.read(rows, out),
            Body::Graph(walk) => walk.graph.read(rows, out),
        }
    }

    /// Notes that a row ended, if it is here. The entry has noted it before.
    pub(crate) fn end(&self, version: u64, generation: u64) -> bool {
        let Ok(row) = self.versions.binary_search(&version) else { return false };
        self.last_end.fetch_max(generation, Ordering::Relaxed);
        self.dead.set(row);
        true
    }

    /// Rows not to be found at a generation; `None` when there are none.
    pub(crate) fn hidden(&self, generation: u64) -> Option<Hidden<'_>> {
        // A row that ends from now on is visible to this search: its view is older.
        if self.dead.count() == 0 {
            return None;
        }
        Some(Hidden { segment: self, generation })
    }

    /// Dot products of the query with some rows, into `room.out`, which is made as long.
    pub(crate) fn scores(&self, query: &[f32], rows: Range<usize>, room: &mut Scores) {
        if let Body::Rows(matrix) = &self.body {
            return matrix.scores(query, rows, room);
        }
        room.out.resize(rows.len(), 0.0);
        room.rows.clear();
        self.read(rows, &mut room.rows);
        kernel::dot_rows(query, &room.rows, &mut room.out);
    }

    /// Whether [`Self::bounds`] has any.
    pub(crate) fn has_bounds(&self) -> bool {
        matches!(self.body, Body::Graph(_))
    }

    /// As [`Graph::bounds`].
    pub(crate) fn bounds(&self, query: &[f32], rows: &[u32], out: &mut Vec<f32>) -> bool {
        match &self.body {
            Body::Rows(_) => false,
            Body::Graph(walk) => walk.graph.bounds(query, rows, out),
        }
    }

    /// As [`Matrix::prefix_scores`].
    pub(crate) fn prefix_scores(&self, query: &[f32], rows: Range<usize>, room: &mut Scores) {
        if let Body::Rows(matrix) = &self.body {
            return matrix.prefix_scores(query, rows, room);
        }
        room.out.resize(rows.len(), 0.0);
        room.rows.clear();
        self.read(rows, &mut room.rows);
        kernel::cosine_prefix_rows(query, &room.rows, self.dims(), &mut room.out);
    }

    /// Bytes of memory without the entries, about.
    pub(crate) fn bytes(&self) -> usize {
        let rows = match &self.body {
            Body::Rows(matrix) => matrix.bytes(),
            Body::Graph(_) => 0,
        };
        rows + self.walk().map_or(0, |walk| walk.graph.memory_bytes())
    }

    /// Dot product of the query with one row.
    pub(crate) fn score(&self, query: &[f32], row: usize, room: &mut Scores) -> f32 {
        self.scores(query, row..row + 1, room);
        room.out.first().copied().unwrap_or(f32::NEG_INFINITY)
    }

    pub(crate) fn walk(&self) -> Option<&Walk> {
        match &self.body {
            Body::Graph(walk) => Some(walk),
            Body::Rows(_) => self.beside.get().and_then(Option::as_ref),
        }
    }

    /// Whether a graph may still come.
    pub(crate) fn wants_walk(&self) -> bool {
        matches!(self.body, Body::Rows(_)) && self.beside.get().is_none()
    }

    /// Sets the graph beside the rows, or that there is to be none. A second call does nothing.
    pub(crate) fn set_beside(&self, walk: Option<Walk>) {
        drop(self.beside.set(walk));
    }

    pub(crate) fn sets(&self) -> Option<&Sets> {
        self.sets.get()
    }

    /// Makes the sets, unless they are there.
    pub(crate) fn make_sets(&self) {
        self.sets.get_or_init(|| Sets::new(&self.entries));
    }
}

/// Rows that a search does not see.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hidden<'a> {
    segment: &'a Segment,
    generation: u64,
}

impl Hidden<'_> {
    pub(crate) fn contains(&self, row: usize) -> bool {
        if !self.segment.dead.get(row) {
            return false;
        }
        self.is_newest() || !self.segment.entries[row].visible(self.generation)
    }

    /// Takes the hidden rows out of a set.
    pub(crate) fn remove_from(&self, rows: &mut RowSet) {
        for (at, mut hidden) in self.segment.dead.words().enumerate().filter(|(_, w)| *w != 0) {
            if !self.is_newest() {
                let entries = self.segment.entries.iter().skip(64 * at).take(64).enumerate();
                let visible = entries.filter(|(_, entry)| entry.visible(self.generation));
                visible.for_each(|(bit, _)| hidden &= !(1 << bit));
            }
            rows.remove(at, hidden);
        }
    }

    /// Whether everything that ended did so up to the generation, so that bits alone tell. Asked after
    /// them, each time: a row that ends while a search runs is visible to it.
    fn is_newest(&self) -> bool {
        self.segment.last_end.load(Ordering::Relaxed) <= self.generation
    }
}
