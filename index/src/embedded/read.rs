//! Get, list, vectors: straight from the store, one transaction each.

use std::collections::{BTreeSet, HashMap};

use super::{Collection, view::View};
use crate::{
    engine::{
        DeleteOutcome, Fields, RequestKey, Scan, ScanPage, Selection, StoredOutcome, StoredVector,
    },
    error::{Error, Result},
    store::{
        Store,
        env::ReadTxn,
        key::{CollectionId, Slot},
        record::{ItemRecord, SourceRef},
    },
    types::{Item, ItemId, Space, Vectors},
};

/// Items that one listing looks at before it returns what it has.
const SCAN_MAX_LOOKS: usize = 100_000;

pub(crate) fn outcome(
    store: &Store,
    collection: CollectionId,
    request: &RequestKey,
) -> Result<Option<StoredOutcome>> {
    let txn = store.read()?;
    match store.request_record(&txn, collection, &request.id)? {
        None => Ok(None),
        Some(found) if found.digest == request.digest => Ok(Some(found.outcome)),
        Some(_) => Err(Error::RequestConflict { request_id: request.id.clone() }),
    }
}

/// Items by id, aligned with the ids, as they were at one moment; only one whose source file went
/// away since is read as it is now.
pub(crate) fn items(
    store: &Store,
    collection: &Collection,
    ids: &[ItemId],
    fields: Fields,
) -> Result<Vec<Option<Item>>> {
    let (mut found, gone) = items_once(store, collection, ids, fields)?;
    for place in gone {
        found[place] = item(store, collection, &ids[place], fields)?;
    }
    Ok(found)
}

/// Items found, and the places of those whose source file is gone. The transaction ends here: a
/// thread has one at a time.
fn items_once(
    store: &Store,
    collection: &Collection,
    ids: &[ItemId],
    fields: Fields,
) -> Result<(Vec<Option<Item>>, Vec<usize>)> {
    let txn = store.read()?;
    let mut found = Vec::with_capacity(ids.len());
    let mut gone = Vec::new();
    for (place, id) in ids.iter().enumerate() {
        let record = store.item_record(&txn, collection.id, id)?;
        let known = record.is_some();
        let item = match record {
            Some(record) => hydrate(store, &txn, collection, (id.clone(), record), fields)?,
            None => None,
        };
        if known && item.is_none() {
            gone.push(place);
        }
        found.push(item);
    }
    Ok((found, gone))
}

/// One item. A source file can go away between the reading of the record and of the file, when
/// the item is written again: then the item is read once more.
pub(crate) fn item(
    store: &Store,
    collection: &Collection,
    id: &ItemId,
    fields: Fields,
) -> Result<Option<Item>> {
    let mut last_version = None;
    loop {
        let txn = store.read()?;
        let Some(record) = store.item_record(&txn, collection.id, id)? else { return Ok(None) };
        let version = record.version;
        if let Some(item) = hydrate(store, &txn, collection, (id.clone(), record), fields)? {
            return Ok(Some(item));
        }
        if last_version == Some(version) {
            return Err(source_missing(id));
        }
        last_version = Some(version);
    }
}

fn source_missing(id: &ItemId) -> Error {
    Error::Damaged {
        path: "sources".into(),
        problem: format!("the source file of item {:?} is missing", id.as_str()),
        remedy: "restore the file from a backup, or put the item again".to_owned(),
    }
}

/// A record with the parts asked for; `None` when its source file is gone.
fn hydrate(
    store: &Store,
    txn: &ReadTxn<'_>,
    collection: &Collection,
    (id, record): (ItemId, ItemRecord),
    fields: Fields,
) -> Result<Option<Item>> {
    let source = if fields.source {
        let source = store.source(txn, collection.id, &record)?;
        if source.is_none() && record.source != SourceRef::None {
            return Ok(None);
        }
        source
    } else {
        None
    };
    let mut vectors = Vectors::default();
    if fields.vectors {
        vectors.shared = vector(store, txn, collection, (&record, Space::Shared))?;
        vectors.exclusive = vector(store, txn, collection, (&record, Space::Exclusive))?;
    }
    Ok(Some(Item {
        id,
        modality: record.modality,
        source_bytes: record.source.bytes(),
        group: record.group,
        metadata: record.metadata,
        source,
        vectors,
        version: record.version,
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
    }))
}

fn vector(
    store: &Store,
    txn: &ReadTxn<'_>,
    collection: &Collection,
    (record, space): (&ItemRecord, Space),
) -> Result<Option<Vec<f32>>> {
    let Some(dims) = collection.spec.dims.get(record.modality, space) else { return Ok(None) };
    let slot = Slot::new(record.modality, space);
    store.vector(txn, (collection.id, slot, record.version), dims)
}

pub(crate) fn vectors(
    store: &Store,
    collection: &Collection,
    ids: &[ItemId],
    space: Space,
) -> Result<Vec<Option<StoredVector>>> {
    let txn = store.read()?;
    ids.iter()
        .map(|id| {
            let Some(record) = store.item_record(&txn, collection.id, id)? else {
                return Ok(None);
            };
            let vector = vector(store, &txn, collection, (&record, space))?;
            Ok(Some(StoredVector { modality: record.modality, vector }))
        })
        .collect()
}

/// As [`vectors`], as they were at the generation of a view. An item that was not written since is
/// read from the store by its id; the others are looked for among the view's rows.
pub(crate) fn vectors_at(
    store: &Store,
    collection: &Collection,
    view: &View,
    (ids, space): (&[ItemId], Space),
) -> Result<Vec<Option<StoredVector>>> {
    let mut changed: HashMap<&ItemId, Vec<usize>> = HashMap::new();
    let mut found = vec![None; ids.len()];
    {
        let txn = store.read()?;
        let now = store.sequence(&txn, collection.id)?;
        for (place, id) in ids.iter().enumerate() {
            match store.item_record(&txn, collection.id, id)? {
                Some(record) if record.version <= view.generation => {
                    let vector = vector(store, &txn, collection, (&record, space))?;
                    found[place] = Some(StoredVector { modality: record.modality, vector });
                }
                None if now <= view.generation => {}
                _ => changed.entry(id).or_default().push(place),
            }
        }
    }
    if changed.is_empty() {
        return Ok(found);
    }
    for slot in Slot::ALL {
        let Some(rows) = view.slot(slot) else { continue };
        let mut vector = Vec::new();
        for (row, entry) in rows.visible(view.generation) {
            let Some(places) = changed.get(&entry.id) else { continue };
            rows.row(row, &mut vector);
            for &place in places {
                let modality = entry.modality;
                let stored = found[place].get_or_insert(StoredVector { modality, vector: None });
                if slot.space() == space {
                    stored.vector = Some(vector.clone());
                }
            }
        }
    }
    Ok(found)
}

/// A page in the order of ids. It may be short, even empty, while `next` is set, when few items
/// pass.
pub(crate) fn scan(store: &Store, collection: &Collection, scan: &Scan) -> Result<ScanPage> {
    let (found, next, generation) = scan_once(store, collection, scan)?;
    let mut items = Vec::with_capacity(found.len());
    for (id, found) in found {
        match found {
            Some(found) => items.push(found),
            None => items.extend(item(store, collection, &id, scan.fields)?),
        }
    }
    Ok(ScanPage { items, next, generation })
}

/// Items found (`None`: its source file went away), where to go on, generation.
type Found = (Vec<(ItemId, Option<Item>)>, Option<ItemId>, u64);

fn scan_once(store: &Store, collection: &Collection, scan: &Scan) -> Result<Found> {
    let txn = store.read()?;
    let generation = store.sequence(&txn, collection.id)?;
    let mut found = Vec::new();
    let mut last: Option<ItemId> = None;
    for (looks, row) in candidates(store, &txn, collection, scan)?.enumerate() {
        if found.len() == scan.limit || looks == SCAN_MAX_LOOKS {
            return Ok((found, last, generation));
        }
        let (id, record) = row?;
        last = Some(id.clone());
        if passes(scan, &record) {
            let item = hydrate(store, &txn, collection, (id.clone(), record), scan.fields)?;
            found.push((id, item));
        }
    }
    Ok((found, None, generation))
}

/// What a delete would delete, and how many ids are not there.
pub(crate) fn matching(
    store: &Store,
    collection: &Collection,
    selection: &Selection,
) -> Result<DeleteOutcome> {
    let txn = store.read()?;
    let generation = store.sequence(&txn, collection.id)?;
    let (mut deleted, mut not_found) = (0, 0);
    match selection {
        Selection::Group(group) => {
            deleted = store.group_ids(&txn, collection.id, group)?.len() as u64;
        }
        Selection::Ids(ids) => {
            for id in ids.iter().collect::<BTreeSet<_>>() {
                match store.item_record(&txn, collection.id, id)? {
                    Some(_) => deleted += 1,
                    None => not_found += 1,
                }
            }
        }
        Selection::Filter(filter) => {
            for row in store.items_after(&txn, collection.id, None)? {
                deleted += u64::from(filter.matches(&row?.1.metadata));
            }
        }
    }
    Ok(DeleteOutcome { deleted, not_found, generation })
}

type Rows<'t> = Box<dyn Iterator<Item = Result<(ItemId, ItemRecord)>> + 't>;

fn candidates<'t>(
    store: &'t Store,
    txn: &'t ReadTxn<'t>,
    collection: &'t Collection,
    scan: &Scan,
) -> Result<Rows<'t>> {
    let Some(group) = &scan.group else {
        let rows = store.items_after(txn, collection.id, scan.after.as_ref())?;
        return Ok(Box::new(rows));
    };
    let mut ids = store.group_candidates(txn, collection.id, group)?;
    ids.sort_unstable();
    // Records are decoded one by one as the page fills, not for the whole group.
    ids.retain(|id| scan.after.as_ref().is_none_or(|after| id > after));
    Ok(Box::new(ids.into_iter().filter_map(move |id| {
        let record = store.item_record(txn, collection.id, &id).transpose()?;
        Some(record.map(|record| (id, record)))
    })))
}

fn passes(scan: &Scan, record: &ItemRecord) -> bool {
    scan.modality.is_none_or(|modality| modality == record.modality)
        && scan.group.as_ref().is_none_or(|group| record.group.as_ref() == Some(group))
        && scan.filter.as_ref().is_none_or(|filter| filter.matches(&record.metadata))
}
