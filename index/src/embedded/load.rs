//! The rows in memory, from the store, when it is opened. Every record and vector is read once, so
//! a damaged one is found here and not in the middle of a search.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    Collection,
    state::{Names, State},
    view::{Entry, View},
};
use crate::{
    error::{Error, Result},
    store::{
        Store,
        key::{CollectionId, Slot},
        record::{CollectionRecord, ItemRecord, decode_vector},
    },
    types::{ItemId, Modality},
};

/// All collections of a store.
pub(crate) fn load(store: &Store, path: &Path) -> Result<HashMap<CollectionId, State>> {
    let txn = store.read()?;
    let mut states = HashMap::new();
    for (record, sequence) in store.collections(&txn)? {
        let loader = Loader { store, txn: &txn, path, record: &record };
        states.insert(record.id, loader.load(sequence)?);
    }
    Ok(states)
}

struct Loader<'a> {
    store: &'a Store,
    txn: &'a crate::store::env::ReadTxn<'a>,
    path: &'a Path,
    record: &'a CollectionRecord,
}

impl Loader<'_> {
    fn load(&self, sequence: u64) -> Result<State> {
        let dims = self.record.spec.dims;
        let mut view = View::new(&dims, sequence);
        let mut names = Names::default();
        let mut by_id = HashMap::new();
        let mut by_version = HashMap::new();
        for row in self.store.items_after(self.txn, self.record.id, None)? {
            let (id, record) = row?;
            let entry = Arc::new(new_entry(id.clone(), &record, &mut names));
            match entry.modality {
                Modality::Image => view.counts.images += 1,
                Modality::Text => view.counts.texts += 1,
            }
            by_version.insert(record.version, Arc::clone(&entry));
            by_id.insert(id, entry);
        }
        for slot in Slot::ALL {
            self.load_slot(slot, &by_version, &mut view)?;
        }
        Ok(State::new(Arc::new(Collection::new(self.record, view)), by_id, names))
    }

    fn load_slot(
        &self,
        slot: Slot,
        entries: &HashMap<u64, Arc<Entry>>,
        view: &mut View,
    ) -> Result<()> {
        let expected = view.counts.get(slot.modality()) as usize;
        let Some(rows) = view.slot_mut(slot) else { return Ok(()) };
        let mut vector = Vec::with_capacity(rows.dims);
        self.store.each_vector(self.txn, (self.record.id, slot), |version, stored| {
            let entry = entries.get(&version).filter(|entry| entry.modality == slot.modality());
            let Some(entry) = entry else {
                let what = format!("a {} vector belongs to no item", slot.space());
                return Err(self.damaged(&what));
            };
            vector.clear();
            if decode_vector(stored, rows.dims, &mut vector).is_err() {
                let what = format!("the {} vector of item {:?}", slot.space(), entry.id.as_str());
                return Err(self.damaged(&format!("{what} is not readable")));
            }
            rows.push(Arc::clone(entry), &vector);
            Ok(())
        })?;
        if rows.rows != expected {
            let missing = format!(
                "{} of {expected} {} {} vectors are there",
                rows.rows,
                slot.modality(),
                slot.space()
            );
            return Err(self.damaged(&missing));
        }
        Ok(())
    }

    fn damaged(&self, problem: &str) -> Error {
        Error::Damaged {
            path: self.path.to_path_buf(),
            problem: format!("in collection {:?} {problem}", self.record.spec.name),
            remedy: "restore the folder from a backup, or move it away to start with an empty one"
                .to_owned(),
        }
    }
}

/// An item's record as searches hold it.
pub(crate) fn new_entry(id: ItemId, record: &ItemRecord, names: &mut Names) -> Entry {
    let group = record.group.as_deref().map(Arc::from);
    let fields = names.fields(&record.metadata);
    Entry::new(id, group, record.modality, record.version, fields)
}
