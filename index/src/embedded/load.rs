//! The rows in memory, when a store is opened: entries from its records, vectors from the files of
//! segments, and what these do not have from the store. All of it is checked by checksums, so that
//! damage is found here and not in the middle of a search. Damaged files of segments cost time only.

use std::{collections::HashMap, path::Path, sync::Arc};

use super::{
    Collection,
    segment::{
        Segment,
        file::{Files, Place, Stored},
    },
    slots::SlotState,
    state::{Names, State},
    view::{Entry, View},
};
use crate::{
    error::{Error, Result},
    store::{
        Store,
        key::{CollectionId, Slot},
        manifest::SegmentRecord,
        record::{CollectionRecord, ItemRecord, decode_vector},
    },
    types::{ItemId, Modality, VectorStorage},
};

/// The folder of segments, without the files that no commit names.
pub(crate) fn open_files(store: &Store) -> Result<Files> {
    let txn = store.read()?;
    let mut named = Vec::new();
    for (record, _) in store.collections(&txn)? {
        for slot in Slot::ALL {
            let manifest = store.manifest(&txn, record.id, slot)?;
            let numbers = manifest.segments.iter().map(|segment| segment.number);
            named.extend(numbers.map(|number| Place { collection: record.id, slot, number }));
        }
    }
    Ok(Files::open(store.index_path(), &named))
}

/// All collections of a store.
pub(crate) fn load(
    store: &Store,
    files: &Files,
    path: &Path,
) -> Result<HashMap<CollectionId, State>> {
    let txn = store.read()?;
    let mut states = HashMap::new();
    for (record, sequence) in store.collections(&txn)? {
        let loader = Loader { store, files, txn: &txn, path, record: &record };
        states.insert(record.id, loader.load(sequence)?);
    }
    Ok(states)
}

struct Loader<'a> {
    store: &'a Store,
    files: &'a Files,
    txn: &'a crate::store::env::ReadTxn<'a>,
    path: &'a Path,
    record: &'a CollectionRecord,
}

/// Entries of one modality by ascending version.
type ByVersion = Vec<(u64, Arc<Entry>)>;

impl Loader<'_> {
    fn load(&self, sequence: u64) -> Result<State> {
        let mut view = View::new(&self.record.spec, sequence);
        let mut names = Names::default();
        let mut entries: [ByVersion; 2] = Default::default();
        for row in self.store.items_after(self.txn, self.record.id, None)? {
            let (id, record) = row?;
            let entry = Arc::new(new_entry(id, &record, &mut names));
            let place = match entry.modality {
                Modality::Image => 0,
                Modality::Text => 1,
            };
            entries[place].push((record.version, entry));
        }
        view.counts.images = entries[0].len() as u64;
        view.counts.texts = entries[1].len() as u64;
        for of_modality in &mut entries {
            of_modality.sort_unstable_by_key(|(version, _)| *version);
        }
        let mut slots: [SlotState; 4] = Default::default();
        for slot in Slot::ALL {
            let of_modality = match slot.modality() {
                Modality::Image => &entries[0],
                Modality::Text => &entries[1],
            };
            slots[slot.index()] = self.load_slot(slot, of_modality, &mut view)?;
        }
        let everything = entries.into_iter().flatten().map(|(_, entry)| entry);
        Ok(State::new(Arc::new(Collection::new(self.record, view)), everything, names, slots))
    }

    /// Segments first; then only the vectors that none of them has are read from the store.
    fn load_slot(&self, slot: Slot, entries: &ByVersion, view: &mut View) -> Result<SlotState> {
        let Some(rows) = view.slot_mut(slot) else { return Ok(SlotState::default()) };
        let manifest = self.store.manifest(self.txn, self.record.id, slot)?;
        let (dims, storage) = (rows.delta.dims, rows.delta.storage);
        let mut covered = vec![false; entries.len()];
        for record in &manifest.segments {
            if let Some(stored) = self.read_segment(slot, record, (dims, storage)) {
                let segment = matched(record.number, stored, entries, &mut covered);
                rows.segments.push(Arc::new(segment));
            }
        }
        let state = SlotState::opened(manifest, &rows.segments);
        let mut vector = Vec::with_capacity(dims);
        for ((version, entry), _) in entries.iter().zip(covered).filter(|(_, covered)| !covered) {
            vector.clear();
            self.read_vector(slot, *version, entry, (dims, &mut vector))?;
            rows.delta.push(Arc::clone(entry), &vector);
        }
        Ok(state)
    }

    fn read_segment(
        &self,
        slot: Slot,
        record: &SegmentRecord,
        form: (usize, VectorStorage),
    ) -> Option<Stored> {
        let place = Place { collection: self.record.id, slot, number: record.number };
        match self.files.read(&place, record, form) {
            Ok(stored) => Some(stored),
            Err(fault) => {
                tracing::warn!(%fault, ?place, "a segment is not used; its rows are read instead");
                None
            }
        }
    }

    fn read_vector(
        &self,
        slot: Slot,
        version: u64,
        entry: &Entry,
        (dims, vector): (usize, &mut Vec<f32>),
    ) -> Result<()> {
        let what = || format!("the {} vector of item {:?}", slot.space(), entry.id.as_str());
        let found =
            self.store.vector_into(self.txn, (self.record.id, slot, version), |stored| {
                decode_vector(stored, dims, vector)
            })?;
        match found {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(self.damaged(&format!("{} is not readable", what()))),
            None => Err(self.damaged(&format!("{} is missing", what()))),
        }
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

/// A segment with the entries of its rows. A row whose version no item has any more, or that
/// another segment has too, has ended.
fn matched(number: u64, stored: Stored, entries: &ByVersion, covered: &mut [bool]) -> Segment {
    let mut at = 0;
    let found = stored.versions.iter().map(|&version| {
        at += entries[at..].partition_point(|(other, _)| *other < version);
        let (_, entry) = entries.get(at).filter(|(other, _)| *other == version)?;
        (!std::mem::replace(&mut covered[at], true)).then(|| Arc::clone(entry))
    });
    let found: Vec<_> = found.collect();
    let segment = Segment::new(number, stored.versions, found, stored.body).read_from_disk();
    // A graph that was good once is built again; where there was none, there is to be none.
    if stored.ef_search == 0 {
        segment.set_beside(None);
    }
    segment
}
