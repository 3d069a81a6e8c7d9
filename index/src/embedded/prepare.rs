//! What can be checked and done before the writing thread: validation, unit length, source files.

use std::sync::Arc;

use super::Collection;
use crate::{
    encoding,
    engine::{Mark, PutBatch, RequestKey},
    error::{Rejection, Result},
    kernel,
    store::{Store, key::Slot, sources::INLINE_MAX_BYTES, write::NewSource},
    types::{
        ItemId, Metadata, Modality, NewItem, Space, VectorStorage, check_metadata, check_name,
    },
};

/// Longest key of a mark in bytes: with what the store puts before it, it is the key of a note.
const MARK_KEY_MAX_BYTES: usize = 200;

/// An item that only the store can still refuse.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: ItemId,
    pub(crate) modality: Modality,
    pub(crate) group: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) source: NewSource,
    /// Unit vectors, rounded as they are stored.
    pub(crate) vectors: Vec<(Slot, Vec<f32>)>,
    pub(crate) storage: VectorStorage,
    pub(crate) expected_version: Option<u64>,
}

/// A batch on its way to the writing thread.
#[derive(Debug)]
pub(crate) struct PreparedBatch {
    /// Aligned with the caller's items.
    pub(crate) items: Vec<Result<Prepared, Rejection>>,
    pub(crate) request: Option<RequestKey>,
    pub(crate) note: Vec<u8>,
    pub(crate) mark: Option<Mark>,
}

/// Checks a batch and writes its large sources to files.
pub(crate) fn prepare(
    store: &Store,
    collection: &Arc<Collection>,
    mut batch: PutBatch,
) -> Result<PreparedBatch> {
    if let Some(request) = &batch.request {
        check_request(request)?;
    }
    if let Some(mark) = &batch.mark {
        check_mark(&mark.key)?;
    }
    let mut items = Vec::with_capacity(batch.items.len());
    for item in std::mem::take(&mut batch.items) {
        items.push(match check(collection, &item) {
            Err(rejection) => Err(rejection),
            Ok(vectors) => {
                let kept = item.source.filter(|_| collection.spec.keep_source);
                Ok(Prepared {
                    id: item.id,
                    modality: item.modality,
                    group: item.group,
                    metadata: item.metadata,
                    source: source(store, kept)?,
                    vectors,
                    storage: collection.spec.storage,
                    expected_version: item.expected_version,
                })
            }
        });
    }
    let PutBatch { request, note, mark, .. } = batch;
    Ok(PreparedBatch { items, request, note, mark })
}

/// A request id has 1 to 256 bytes.
pub(crate) fn check_request(request: &RequestKey) -> Result<(), Rejection> {
    check_name("request_id", &request.id)
}

/// The key of a mark has 1 to 200 bytes.
pub(crate) fn check_mark(key: &str) -> Result<(), Rejection> {
    check_name("mark", key)?;
    if key.len() > MARK_KEY_MAX_BYTES {
        return Err(Rejection::limit("mark", "bytes", MARK_KEY_MAX_BYTES, key.len()));
    }
    Ok(())
}

/// A source as the store takes it: a large one is a synced file already.
pub(crate) fn source(store: &Store, bytes: Option<Vec<u8>>) -> Result<NewSource> {
    Ok(match bytes {
        None => NewSource::None,
        Some(bytes) if bytes.len() > INLINE_MAX_BYTES => {
            NewSource::File(store.sources().write_new(&bytes)?)
        }
        Some(bytes) => NewSource::Inline(bytes),
    })
}

fn check(collection: &Collection, item: &NewItem) -> Result<Vec<(Slot, Vec<f32>)>, Rejection> {
    if let Some(group) = &item.group {
        check_name("group", group)?;
    }
    check_metadata(&item.metadata)?;
    let mut vectors = Vec::with_capacity(2);
    for space in Space::ALL {
        let field = match space {
            Space::Shared => "vectors.shared",
            Space::Exclusive => "vectors.exclusive",
        };
        let dims = collection.spec.dims.get(item.modality, space);
        match (dims, item.vectors.get(space)) {
            (None, None) => {}
            (Some(_), None) => return Err(Rejection::invalid(field, "is missing")),
            (_, Some(vector)) => {
                let unit = unit_vector(collection, field, (item.modality, space), vector)?;
                let rounded = encoding::rounded(collection.spec.storage, &unit);
                vectors.push((Slot::new(item.modality, space), rounded));
            }
        }
    }
    if vectors.is_empty() {
        let reason = format!("the collection has no vectors for {}", item.modality);
        return Err(Rejection::invalid("modality", reason));
    }
    Ok(vectors)
}

/// A vector brought to unit length, if the collection takes it in this space.
pub(crate) fn unit_vector(
    collection: &Collection,
    field: &str,
    (modality, space): (Modality, Space),
    vector: &[f32],
) -> Result<Vec<f32>, Rejection> {
    let Some(dims) = collection.spec.dims.get(modality, space) else {
        return Err(Rejection::NoSpace { field: field.to_owned(), modality, space });
    };
    if vector.len() != dims {
        return Err(Rejection::Dimension {
            field: field.to_owned(),
            modality,
            space,
            expected: dims as u64,
            actual: vector.len() as u64,
        });
    }
    if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
        return Err(Rejection::invalid(field, format!("is not finite at position {at}")));
    }
    kernel::unit(vector).ok_or_else(|| Rejection::invalid(field, "is zero"))
}
