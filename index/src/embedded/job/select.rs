//! Which items a delete means, in the middle of a transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{Attempt, Fatal};
use crate::{
    embedded::{
        state::{Change, State},
        view::Entry,
    },
    engine::Selection,
    error::Result,
    filter::Filter,
    store::key::CollectionId,
    types::ItemId,
};

impl Attempt<'_, '_> {
    /// The items that are there, and how many ids are not.
    pub(super) fn select(
        &self,
        collection: CollectionId,
        selection: &Selection,
    ) -> Result<(Vec<ItemId>, u64), Fatal> {
        match selection {
            Selection::Group(group) => Ok((self.txn.group(collection, group)?, 0)),
            Selection::Filter(filter) => Ok((self.passing(collection, filter), 0)),
            Selection::Ids(ids) => {
                // An id given twice is one item, found or not.
                let (mut found, mut not_found, mut seen) = (Vec::new(), 0, HashSet::new());
                for id in ids.iter().filter(|id| seen.insert(*id)) {
                    match self.txn.item(collection, id)? {
                        Some(_) => found.push(id.clone()),
                        None => not_found += 1,
                    }
                }
                Ok((found, not_found))
            }
        }
    }

    /// Items that pass a filter, from memory: reading a million records here would hold up every
    /// other writer. Memory does not show yet what this transaction wrote before.
    fn passing(&self, collection: CollectionId, filter: &Filter) -> Vec<ItemId> {
        let mut changed: HashMap<&ItemId, Option<&Entry>> = HashMap::new();
        if let Some((_, changes)) = self.staged.changes.get(&collection) {
            for change in changes {
                match change {
                    Change::Put { entry, .. } => changed.insert(&entry.id, Some(entry)),
                    Change::Delete { id, .. } => changed.insert(id, None),
                };
            }
        }
        let committed = self.states.get(&collection).into_iter().flat_map(State::entries);
        let committed = committed.filter(|entry| !changed.contains_key(&entry.id));
        let all = committed.map(AsRef::as_ref).chain(changed.values().flatten().copied());
        // In the order of ids, so that a repeated run does the same.
        let passing: BTreeSet<&ItemId> =
            all.filter(|entry| filter.passes(*entry)).map(|entry| &entry.id).collect();
        passing.into_iter().cloned().collect()
    }
}
