//! The rows of a collection in memory: what a search reads while writes go on.
//!
//! A [`View`] never changes. The writing thread copies the little that a commit touches and swaps a
//! pointer. An entry that was replaced or deleted notes
//! the generation that ended it, so a search on an older view still sees it and one on a newer view
//! does not, without either waiting.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{delta::Delta, segment::Segment};
use crate::{
    filter::FieldSource,
    store::key::Slot,
    types::{CollectionSpec, Counts, ItemId, Modality, Value, VectorStorage},
};

/// What an entry takes with its id and some metadata, about.
const ENTRY_BYTES: usize = 256;

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

    /// Stands for a row whose item ended before the start.
    pub(crate) fn tombstone() -> Self {
        Self {
            id: ItemId::trusted(""),
            group: None,
            modality: Modality::Image,
            version: 0,
            fields: Box::default(),
            ended: AtomicU64::new(0),
        }
    }

    /// Whether a search at this generation sees it. Relaxed is enough: `end` happens before the
    /// view of its generation is published, and older views compare as before. A view can be asked
    /// for an older generation than its own, so newer entries are told too.
    pub(crate) fn visible(&self, generation: u64) -> bool {
        self.version <= generation && self.ended.load(Ordering::Relaxed) > generation
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

/// The rows of one (modality, space): segments, then what is newer.
#[derive(Debug, Clone)]
pub(crate) struct SlotView {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) delta: Delta,
}

impl SlotView {
    pub(crate) fn new(dims: usize, storage: VectorStorage) -> Self {
        Self { segments: Vec::new(), delta: Delta::new(dims, storage) }
    }

    /// Rows in memory, with those that ended.
    pub(crate) fn rows(&self) -> usize {
        self.delta.rows + self.segments.iter().map(|segment| segment.len()).sum::<usize>()
    }

    /// A row's entry; its vector goes into `out`.
    pub(crate) fn row(&self, mut row: usize, out: &mut Vec<f32>) -> &Arc<Entry> {
        for segment in &self.segments {
            if row < segment.len() {
                out.clear();
                segment.read(row..row + 1, out);
                return segment.entry(row);
            }
            row -= segment.len();
        }
        self.delta.row(row, out)
    }

    /// Whether all rows of an older one are here in their places, and newer ones in the delta alone.
    fn covers(&self, older: &Self) -> bool {
        self.segments.len() == older.segments.len()
            && self.segments.iter().zip(&older.segments).all(|(a, b)| Arc::ptr_eq(a, b))
            && self.delta.covers(&older.delta)
    }

    /// What it holds in memory: address and bytes, about.
    fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        let segments = self.segments.iter().map(|segment| {
            let entries = segment.len() * ENTRY_BYTES;
            (Arc::as_ptr(segment).addr(), segment.bytes() + entries)
        });
        let chunks = self.delta.chunks.iter().map(|chunk| {
            let entries = chunk.entries.len() * ENTRY_BYTES;
            (Arc::as_ptr(chunk).addr(), chunk.vectors.bytes() + entries)
        });
        segments.chain(chunks)
    }

    /// The rows that a search sees, by number.
    pub(crate) fn visible(&self, generation: u64) -> impl Iterator<Item = (usize, &Arc<Entry>)> {
        let segments = self.segments.iter().flat_map(|segment| segment.entries());
        let delta = self.delta.chunks.iter().flat_map(|chunk| &chunk.entries);
        let rows = segments.chain(delta).enumerate();
        rows.filter(move |(_, entry)| entry.visible(generation))
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
    pub(crate) fn new(spec: &CollectionSpec, generation: u64) -> Self {
        let slots = Slot::ALL.map(|slot| {
            let dims = spec.dims.get(slot.modality(), slot.space())?;
            Some(Arc::new(SlotView::new(dims, spec.storage)))
        });
        Self { generation, counts: Counts::default(), slots }
    }

    pub(crate) fn slot(&self, slot: Slot) -> Option<&Arc<SlotView>> {
        self.slots[slot.index()].as_ref()
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> Option<&mut SlotView> {
        self.slots[slot.index()].as_mut().map(Arc::make_mut)
    }

    /// Whether an older view can be read from this one, by its generation.
    pub(crate) fn covers(&self, older: &Self) -> bool {
        let slots = self.slots.iter().zip(&older.slots);
        self.generation >= older.generation
            && slots.into_iter().all(|slots| match slots {
                (Some(slot), Some(older)) => slot.covers(older),
                (None, None) => true,
                _ => false,
            })
    }

    /// The view of an older generation that this one covers. Its counts are not those of then.
    pub(crate) fn at(&self, generation: u64) -> Self {
        Self { generation, ..self.clone() }
    }

    /// What it holds in memory: address and bytes, about.
    pub(crate) fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        self.slots.iter().flatten().flat_map(|slot| slot.parts())
    }
}
