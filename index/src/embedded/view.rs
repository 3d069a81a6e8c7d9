//! The rows of a collection in memory: what a search reads while writes go on.
//!
//! A [`View`] never changes. The writing thread copies the little that a commit touches (the lists
//! of chunks and the last chunk), and swaps a pointer. An entry that was replaced or deleted notes
//! the generation that ended it, so a search on an older view still sees it and one on a newer view
//! does not, without either waiting.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    filter::FieldSource,
    graph::Graph,
    store::key::Slot,
    types::{Counts, Dims, ItemId, Modality, Value},
};

/// Floats per chunk, about: small enough to be copied at each commit, long enough to be scanned.
const CHUNK_FLOATS: usize = 1 << 16;

/// One version of an item, without its vectors.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) id: ItemId,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) modality: Modality,
    pub(crate) version: u64,
    /// Metadata, sorted by name.
    pub(crate) fields: Box<[(Arc<str>, Value)]>,
    /// Generation that replaced or deleted it; `u64::MAX` while it lives.
    ended: AtomicU64,
}

impl Entry {
    pub(crate) fn new(
        id: ItemId,
        group: Option<Arc<str>>,
        modality: Modality,
        version: u64,
        fields: Box<[(Arc<str>, Value)]>,
    ) -> Self {
        Self { id, group, modality, version, fields, ended: AtomicU64::new(u64::MAX) }
    }

    /// Whether a search at this generation sees it. Relaxed is enough: `end` happens before the
    /// view of its generation is published, and older views compare as before.
    pub(crate) fn visible(&self, generation: u64) -> bool {
        self.ended.load(Ordering::Relaxed) > generation
    }

    pub(crate) fn end(&self, generation: u64) {
        self.ended.store(generation, Ordering::Relaxed);
    }
}

impl FieldSource for Entry {
    fn field(&self, name: &str) -> Option<&Value> {
        let found = self.fields.binary_search_by(|(field, _)| field.as_ref().cmp(name)).ok()?;
        self.fields.get(found).map(|(_, value)| value)
    }
}

/// Some rows, their vectors one after the other.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) vectors: Vec<f32>,
}

/// The rows of one (modality, space).
#[derive(Debug, Clone)]
pub(crate) struct SlotView {
    pub(crate) dims: usize,
    pub(crate) chunk_rows: usize,
    /// All full but the last.
    pub(crate) chunks: Vec<Arc<Chunk>>,
    pub(crate) rows: usize,
    pub(crate) base: Option<Arc<Base>>,
}

/// A graph over the first rows.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) rows: usize,
    pub(crate) graph: Box<dyn Graph>,
    /// Least width of a search that reached the recall asked for.
    pub(crate) ef_search: usize,
}

impl SlotView {
    pub(crate) fn new(dims: usize) -> Self {
        let chunk_rows = (CHUNK_FLOATS / dims).clamp(16, 4096);
        Self { dims, chunk_rows, chunks: Vec::new(), rows: 0, base: None }
    }

    /// Appends a row. Copies the last chunk if a published view shares it.
    pub(crate) fn push(&mut self, entry: Arc<Entry>, vector: &[f32]) {
        debug_assert_eq!(vector.len(), self.dims);
        let last = match self.chunks.pop() {
            Some(chunk) if chunk.entries.len() < self.chunk_rows => chunk,
            full => {
                self.chunks.extend(full);
                Arc::new(self.empty_chunk())
            }
        };
        let mut last = Arc::try_unwrap(last).unwrap_or_else(|shared| {
            let mut copy = self.empty_chunk();
            copy.entries.extend_from_slice(&shared.entries);
            copy.vectors.extend_from_slice(&shared.vectors);
            copy
        });
        last.entries.push(entry);
        last.vectors.extend_from_slice(vector);
        self.chunks.push(Arc::new(last));
        self.rows += 1;
    }

    fn empty_chunk(&self) -> Chunk {
        Chunk {
            entries: Vec::with_capacity(self.chunk_rows),
            vectors: Vec::with_capacity(self.chunk_rows * self.dims),
        }
    }

    pub(crate) fn row(&self, row: usize) -> (&Arc<Entry>, &[f32]) {
        let chunk = &self.chunks[row / self.chunk_rows];
        let at = row % self.chunk_rows;
        (&chunk.entries[at], &chunk.vectors[at * self.dims..(at + 1) * self.dims])
    }

    /// Appends the rows of another one that are visible.
    pub(crate) fn extend_visible(&mut self, from: &Self, rows: Range<usize>, generation: u64) {
        for row in rows {
            let (entry, vector) = from.row(row);
            if entry.visible(generation) {
                self.push(Arc::clone(entry), vector);
            }
        }
    }

    /// The visible rows alone, without a graph. Shares all chunks when every row is visible.
    pub(crate) fn compacted(&self, generation: u64) -> Self {
        if self.ended(generation) == 0 {
            return Self { base: None, ..self.clone() };
        }
        let mut compact = Self::new(self.dims);
        compact.extend_visible(self, 0..self.rows, generation);
        compact
    }

    /// Rows that are not visible any more.
    pub(crate) fn ended(&self, generation: u64) -> usize {
        let entries = self.chunks.iter().flat_map(|chunk| &chunk.entries);
        entries.filter(|entry| !entry.visible(generation)).count()
    }
}

/// A collection's rows at one generation.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) generation: u64,
    pub(crate) counts: Counts,
    pub(crate) slots: [Option<Arc<SlotView>>; 4],
}

impl View {
    pub(crate) fn new(dims: &Dims, generation: u64) -> Self {
        let slots = Slot::ALL.map(|slot| {
            dims.get(slot.modality(), slot.space()).map(|dims| Arc::new(SlotView::new(dims)))
        });
        Self { generation, counts: Counts::default(), slots }
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&Arc<SlotView>> {
        self.slots[slot.index()].as_ref()
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> Option<&mut SlotView> {
        self.slots[slot.index()].as_mut().map(Arc::make_mut)
    }
}
