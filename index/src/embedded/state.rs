//! What the writing thread knows of each collection, and how a commit reaches the searches.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Collection,
    view::{Base, Entry, SlotView, View},
};
use crate::{
    store::key::{CollectionId, Slot},
    types::{Counts, ItemId, Metadata, Modality, Value},
};

/// Rows that ended are left in place until there are this many more than a quarter of all.
const COMPACT_LEAST: usize = 1024;
/// Fewer names than this are not worth a pruning.
const PRUNE_LEAST: usize = 1024;
/// Least new rows before a graph is built again.
const REBUILD_LEAST: usize = 64;

/// A change of one commit, in order.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    Put { entry: Arc<Entry>, vectors: &'a [(Slot, Vec<f32>)] },
    Delete { id: ItemId, generation: u64 },
}

/// One collection, as the writing thread sees it.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) shared: Arc<Collection>,
    by_id: HashMap<ItemId, Arc<Entry>>,
    names: Names,
    graphs: [GraphState; 4],
}

/// Names of metadata fields, each held once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    held: HashSet<Arc<str>>,
    /// How many were left by the last pruning.
    pruned: usize,
}

/// What is known of a slot's graph.
#[derive(Debug, Default, Clone, Copy)]
struct GraphState {
    building: bool,
    /// Rows that ended since the last compaction.
    ended: usize,
    /// After a graph that was not good enough: no new try below this many rows.
    hold_until_rows: usize,
}

/// A graph to be built.
#[derive(Debug)]
pub(crate) struct BuildOrder {
    pub(crate) collection: CollectionId,
    pub(crate) slot: Slot,
    pub(crate) rows: Arc<SlotView>,
    pub(crate) generation: u64,
}

/// A graph that was built, or not.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) collection: CollectionId,
    pub(crate) slot: Slot,
    /// Rows of the slot that were looked at.
    pub(crate) rows: usize,
    /// The rows that the graph stands on, and the graph; `None` when it was not good enough.
    pub(crate) result: Option<(SlotView, Arc<Base>)>,
}

impl Names {
    /// Metadata as an entry holds it.
    pub(crate) fn fields(&mut self, metadata: &Metadata) -> Box<[(Arc<str>, Value)]> {
        metadata.iter().map(|(name, value)| (self.name(name), value.clone())).collect()
    }

    fn name(&mut self, name: &str) -> Arc<str> {
        match self.held.get(name) {
            Some(name) => Arc::clone(name),
            None => {
                let name: Arc<str> = name.into();
                self.held.insert(Arc::clone(&name));
                name
            }
        }
    }

    /// Lets go of names that no entry has any more, once there are twice as many as after the last
    /// time: what names cost follows what is stored, not what ever was.
    fn prune(&mut self) {
        if self.held.len() > PRUNE_LEAST.max(2 * self.pruned) {
            self.held.retain(|name| Arc::strong_count(name) > 1);
            self.pruned = self.held.len();
        }
    }
}

impl State {
    pub(crate) fn new(
        shared: Arc<Collection>,
        by_id: HashMap<ItemId, Arc<Entry>>,
        names: Names,
    ) -> Self {
        Self { shared, by_id, names, graphs: [GraphState::default(); 4] }
    }

    pub(crate) fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Shows a commit to the searches.
    pub(crate) fn apply(&mut self, changes: Vec<Change<'_>>, generation: u64) {
        let mut view = View::clone(&self.shared.view.load());
        for change in changes {
            match change {
                Change::Put { entry, vectors } => {
                    count(&mut view.counts, entry.modality, 1);
                    let old = self.by_id.insert(entry.id.clone(), Arc::clone(&entry));
                    if let Some(old) = old {
                        self.end(&mut view, &old, entry.version);
                    }
                    for (slot, vector) in vectors {
                        if let Some(rows) = view.slot_mut(*slot) {
                            rows.push(Arc::clone(&entry), vector);
                        }
                    }
                }
                Change::Delete { id, generation } => {
                    if let Some(old) = self.by_id.remove(&id) {
                        self.end(&mut view, &old, generation);
                    }
                }
            }
        }
        view.generation = generation;
        self.shared.view.store(Arc::new(view));
    }

    fn end(&mut self, view: &mut View, entry: &Entry, generation: u64) {
        entry.end(generation);
        count(&mut view.counts, entry.modality, -1);
        for slot in Slot::ALL {
            if slot.modality() == entry.modality {
                self.graphs[slot.index()].ended += 1;
            }
        }
    }

    /// Compacts what need not wait for a graph, and says which graphs are due.
    pub(crate) fn tidy(&mut self, collection: CollectionId, exact_below: usize) -> Vec<BuildOrder> {
        self.names.prune();
        let view = self.shared.view.load_full();
        let mut fresh: Option<View> = None;
        let mut orders = Vec::new();
        for slot in Slot::ALL {
            let Some(rows) = view.slot(slot) else { continue };
            let graph = &mut self.graphs[slot.index()];
            if graph.building {
                continue;
            }
            if graph.is_due(rows, exact_below) {
                graph.building = true;
                let generation = view.generation;
                orders.push(BuildOrder { collection, slot, rows: Arc::clone(rows), generation });
            } else if graph.ended > COMPACT_LEAST + rows.rows / 4 {
                graph.ended = 0;
                let fresh = fresh.get_or_insert_with(|| View::clone(&view));
                fresh.slots[slot.index()] = Some(Arc::new(rows.compacted(view.generation)));
            }
        }
        if let Some(fresh) = fresh {
            self.shared.view.store(Arc::new(fresh));
        }
        orders
    }

    /// Puts a graph in place: its rows, then those that came since.
    pub(crate) fn publish(&mut self, built: Built) {
        let graph = &mut self.graphs[built.slot.index()];
        graph.building = false;
        let Some((mut rows, base)) = built.result else {
            graph.hold_until_rows = built.rows + built.rows / 4 + REBUILD_LEAST;
            return;
        };
        let mut view = View::clone(&self.shared.view.load());
        let Some(now) = view.slot(built.slot).map(Arc::clone) else { return };
        rows.extend_visible(&now, built.rows..now.rows, view.generation);
        graph.ended = rows.ended(view.generation);
        rows.base = Some(base);
        view.slots[built.slot.index()] = Some(Arc::new(rows));
        self.shared.view.store(Arc::new(view));
    }

    pub(crate) fn is_building(&self) -> bool {
        self.graphs.iter().any(|graph| graph.building)
    }
}

impl GraphState {
    fn is_due(&self, slot: &SlotView, exact_below: usize) -> bool {
        let living = slot.rows - self.ended.min(slot.rows);
        if living == 0 || living < exact_below || slot.rows < self.hold_until_rows {
            return false;
        }
        match &slot.base {
            None => true,
            Some(base) => {
                let newer = slot.rows - base.rows;
                newer > REBUILD_LEAST.max(exact_below / 4).max(base.rows / 4)
                    || self.ended > REBUILD_LEAST + slot.rows / 4
            }
        }
    }
}

fn count(counts: &mut Counts, modality: Modality, by: i64) {
    let count = match modality {
        Modality::Image => &mut counts.images,
        Modality::Text => &mut counts.texts,
    };
    *count = count.saturating_add_signed(by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_entry_has_any_more_are_let_go() {
        let mut names = Names::default();
        let metadata = |n: usize| Metadata::from([(format!("name {n}"), Value::Bool(true))]);
        let kept = names.fields(&metadata(0));
        for n in 1..=10 * PRUNE_LEAST {
            drop(names.fields(&metadata(n)));
            names.prune();
        }
        assert!(names.held.len() <= PRUNE_LEAST + 1);
        assert!(Arc::ptr_eq(&kept[0].0, &names.fields(&metadata(0))[0].0));
    }
}
