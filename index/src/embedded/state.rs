//! What the writing thread knows of each collection, and how a commit reaches the searches.

use std::{
    borrow::Borrow,
    collections::HashSet,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    Collection,
    builder::{Done, Order},
    slots::{Policy, SlotState},
    view::{Entry, View},
};
use crate::{
    background::paced,
    store::{key::Slot, manifest::Manifest},
    types::{Counts, ItemId, Metadata, Modality, Value},
};

/// Fewer names than this are not worth a pruning.
const PRUNE_LEAST: usize = 1024;

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
    by_id: HashSet<ById>,
    names: Names,
    slots: [SlotState; 4],
}

/// An entry found by its id, which is held once.
#[derive(Debug)]
struct ById(Arc<Entry>);

impl Borrow<ItemId> for ById {
    fn borrow(&self) -> &ItemId {
        &self.0.id
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.id.hash(hasher);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

/// Names of metadata fields, each held once.
#[derive(Debug, Default)]
pub(crate) struct Names {
    held: HashSet<Arc<str>>,
    /// How many were left by the last pruning.
    pruned: usize,
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
        entries: impl IntoIterator<Item = Arc<Entry>>,
        names: Names,
        slots: [SlotState; 4],
    ) -> Self {
        Self { shared, by_id: entries.into_iter().map(ById).collect(), names, slots }
    }

    pub(crate) fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    /// What is there, in no order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.by_id.iter().map(|ById(entry)| entry)
    }

    /// Shows a commit to the searches.
    pub(crate) fn apply(&mut self, changes: Vec<Change<'_>>, generation: u64) {
        let mut view = View::clone(&self.shared.view.load());
        for change in paced(changes) {
            match change {
                Change::Put { entry, vectors } => {
                    count(&mut view.counts, entry.modality, 1);
                    if let Some(ById(old)) = self.by_id.replace(ById(Arc::clone(&entry))) {
                        self.end(&mut view, &old, entry.version);
                    }
                    for (slot, vector) in vectors {
                        if let Some(rows) = view.slot_mut(*slot) {
                            rows.delta.push(Arc::clone(&entry), vector);
                        }
                    }
                }
                Change::Delete { id, generation } => {
                    if let Some(ById(old)) = self.by_id.take(&id) {
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
            if slot.modality() == entry.modality
                && let Some(rows) = view.slot(slot)
            {
                self.slots[slot.index()].end(rows, entry.version, generation);
            }
        }
    }

    /// Compacts what need not wait for the building thread, and says what it is to do.
    pub(crate) fn tidy(&mut self, policy: Policy) -> Vec<Order> {
        self.names.prune();
        let view = self.shared.view.load_full();
        let mut fresh: Option<View> = None;
        let mut orders = Vec::new();
        for slot in Slot::ALL {
            let Some(rows) = view.slot(slot) else { continue };
            let state = &mut self.slots[slot.index()];
            if let Some(work) = state.due(rows, policy) {
                let (collection, graph) = (self.shared.id, self.shared.spec.graph);
                orders.push(Order { collection, slot, graph, work });
            } else if let Some(delta) = state.compacted(rows, view.generation)
                && let Some(rows) = fresh.get_or_insert_with(|| View::clone(&view)).slot_mut(slot)
            {
                rows.delta = delta;
            }
        }
        if let Some(fresh) = fresh {
            self.shared.view.store(Arc::new(fresh));
        }
        orders
    }

    /// Shows what the building thread made.
    pub(crate) fn publish(&mut self, done: Done) {
        let mut view = View::clone(&self.shared.view.load());
        let generation = view.generation;
        if let Some(rows) = view.slot_mut(done.slot) {
            self.slots[done.slot.index()].publish(rows, done.outcome, generation);
            self.shared.view.store(Arc::new(view));
        }
    }

    /// What the next commit is to name of a slot.
    pub(crate) fn manifest(&self, slot: Slot) -> Option<Manifest> {
        self.slots[slot.index()].manifest(self.shared.view.load().slot(slot)?)
    }

    pub(crate) fn slot_mut(&mut self, slot: Slot) -> &mut SlotState {
        &mut self.slots[slot.index()]
    }

    /// Has every slot that there is made one segment.
    pub(crate) fn compact(&mut self) {
        self.retry();
        let view = self.shared.view.load();
        for slot in Slot::ALL.into_iter().filter(|slot| view.slot(*slot).is_some()) {
            self.slots[slot.index()].compact();
        }
    }

    /// Tries again at once what the disk refused.
    pub(crate) fn retry(&mut self) {
        self.slots.iter_mut().for_each(SlotState::retry);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.slots.iter().any(SlotState::is_busy)
    }

    /// Whether every row is in one segment, as asked for.
    pub(crate) fn is_compact(&self) -> bool {
        !self.slots.iter().any(|slot| slot.is_compacting() || slot.is_busy())
    }

    /// Whether something is due at a later time.
    pub(crate) fn waits(&self) -> bool {
        self.any(SlotState::waits)
    }

    /// Whether every segment can be read from disk by the next start.
    pub(crate) fn is_saved(&self) -> bool {
        !self.any(|state, rows| !state.is_saved(rows))
    }

    fn any(&self, test: impl Fn(&SlotState, &super::view::SlotView) -> bool) -> bool {
        let view = self.shared.view.load();
        Slot::ALL
            .into_iter()
            .any(|slot| view.slot(slot).is_some_and(|rows| test(&self.slots[slot.index()], rows)))
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
