//! What the services share between wire and use cases: enums, masks, request ids, digests, terms.

use diptych_index::types::ID_MAX_BYTES;
use diptych_index::{Fields, ItemId, Modality, RequestKey, Space};
use diptych_proto::v1::{self, ErrorReason};
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::value;
use crate::error::{Error, Result};
use crate::retrieval::{MAX_TERMS, QuerySource, QueryTerm};

/// Longest request id in bytes.
pub(super) const REQUEST_ID_BYTES: usize = 128;
/// Messages up to this size are hashed on the thread that serves: it takes less than the way to another one.
const HASH_HERE_BYTES: usize = 64 << 10;
/// Longest group in bytes.
pub(super) const GROUP_BYTES: usize = 256;
/// Length of a digest: SHA-256 in hex.
const DIGEST_BYTES: usize = 64;

/// SHA-256 of a method's name and a message's bytes. Maps are ordered, so that equal messages give equal bytes; the name
/// keeps apart messages of two methods that look alike on the wire.
///
/// # Errors
/// INTERNAL for hashing that ended early.
pub(super) async fn digest<M>(method: &'static str, message: &M) -> Result<[u8; 32]>
where
    M: Message + Clone + 'static,
{
    if message.encoded_len() <= HASH_HERE_BYTES {
        return Ok(hash(method, message));
    }
    // Pictures are shared, not copied, by a clone.
    let message = message.clone();
    let hashed = tokio::task::spawn_blocking(move || hash(method, &message)).await;
    hashed.map_err(|_| Error::internal("a digest ended early"))
}

fn hash(method: &str, message: &impl Message) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(method.as_bytes());
    hasher.update([0]);
    hasher.update(message.encode_to_vec());
    hasher.finalize().into()
}

/// The key of a repeatable write: its id, and the digest of the rest of the request.
pub(super) async fn request_key<M>(
    request_id: String,
    method: &'static str,
    rest: &M,
) -> Result<Option<RequestKey>>
where
    M: Message + Clone + 'static,
{
    match request_id.len() {
        0 => Ok(None),
        1..=REQUEST_ID_BYTES => {
            Ok(Some(RequestKey { id: request_id, digest: digest(method, rest).await? }))
        }
        length => Err(too_long("request_id", REQUEST_ID_BYTES, length)),
    }
}

fn too_long(field: &str, most: usize, length: usize) -> Error {
    Error::limit(ErrorReason::FieldInvalid, field, ("bytes", most as u64, length as u64))
}

/// A list that must hold 1 to `most` elements.
pub(super) fn count(field: &str, unit: &str, found: usize, most: usize) -> Result<()> {
    match found {
        0 => Err(Error::field(field, format!("is required: 1 to {most} {unit}"))),
        found if found <= most => Ok(()),
        found => {
            let sizes = (unit, most as u64, found as u64);
            Err(Error::limit(ErrorReason::FieldInvalid, field, sizes))
        }
    }
}

/// A bundle's digest; empty stands for the default bundle.
pub(super) fn bundle_digest(digest: String) -> Result<String> {
    match digest.len() {
        0..=DIGEST_BYTES => Ok(digest),
        length => Err(too_long("embedding_digest", DIGEST_BYTES, length)),
    }
}

/// An item's id.
pub(super) fn item_id(field: &str, id: String) -> Result<ItemId> {
    match id.len() {
        0 => Err(Error::field(field, "is required")),
        1..=ID_MAX_BYTES if id.chars().any(char::is_control) => {
            Err(Error::field(field, "holds a control character"))
        }
        1..=ID_MAX_BYTES => Ok(ItemId::try_new(id)?),
        length => Err(too_long(field, ID_MAX_BYTES, length)),
    }
}

/// A group; empty is none.
pub(super) fn group(group: String) -> Result<Option<String>> {
    match group.len() {
        0 => Ok(None),
        1..=GROUP_BYTES => Ok(Some(group)),
        length => Err(too_long("group", GROUP_BYTES, length)),
    }
}

/// A modality, `None` when it is not said.
pub(super) fn modality(field: &str, wire: i32) -> Result<Option<Modality>> {
    match v1::Modality::try_from(wire) {
        Ok(v1::Modality::Unspecified) => Ok(None),
        Ok(v1::Modality::Image) => Ok(Some(Modality::Image)),
        Ok(v1::Modality::Text) => Ok(Some(Modality::Text)),
        Err(_) => Err(Error::field(field, format!("{wire} is no modality"))),
    }
}

/// A modality as replies carry it.
pub(super) fn modality_out(modality: Modality) -> i32 {
    match modality {
        Modality::Image => v1::Modality::Image.into(),
        Modality::Text => v1::Modality::Text.into(),
    }
}

/// A space as replies carry it.
pub(super) fn space_out(space: Space) -> i32 {
    match space {
        Space::Shared => v1::Space::Shared.into(),
        Space::Exclusive => v1::Space::Exclusive.into(),
    }
}

fn space(wire: i32) -> Result<Space> {
    match v1::Space::try_from(wire) {
        Ok(v1::Space::Unspecified | v1::Space::Shared) => Ok(Space::Shared),
        Ok(v1::Space::Exclusive) => Ok(Space::Exclusive),
        Err(_) => Err(Error::field("space", format!("{wire} is no space"))),
    }
}

/// Parts of an item that a read mask asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask {
    pub(super) metadata: bool,
    pub(super) fields: Fields,
}

/// Reads a mask; the default is metadata. `known` are the paths that the method takes.
pub(super) fn mask(wire: Option<&prost_types::FieldMask>, known: &[&str]) -> Result<Mask> {
    let Some(wire) = wire.filter(|mask| !mask.paths.is_empty()) else {
        return Ok(Mask { metadata: true, fields: Fields::default() });
    };
    for (place, path) in wire.paths.iter().enumerate() {
        if !known.contains(&path.as_str()) {
            let text = format!("is unknown; known: {}", known.join(", "));
            return Err(Error::field(format!("read_mask.paths[{place}]"), text));
        }
    }
    let has = |path: &str| wire.paths.iter().any(|asked| asked == path);
    Ok(Mask {
        metadata: has("metadata"),
        fields: Fields { source: has("source"), vectors: has("vectors") },
    })
}

/// The terms of a general search for `target`.
pub(super) fn terms(wire: Vec<v1::Term>, target: Modality) -> Result<Vec<QueryTerm>> {
    count("terms", "terms", wire.len(), MAX_TERMS)?;
    let read = |(place, wire)| {
        term(wire, target).map_err(|error: Error| error.inside(&format!("terms[{place}]")))
    };
    let terms: Vec<QueryTerm> = wire.into_iter().enumerate().map(read).collect::<Result<_>>()?;
    if terms.iter().all(|term| term.weight < 0.0) {
        return Err(Error::field(
            "terms",
            "all weights are negative; at least one must be positive",
        ));
    }
    Ok(terms)
}

fn term(wire: v1::Term, target: Modality) -> Result<QueryTerm> {
    use v1::term::Source;
    let space = space(wire.space)?;
    let (source, modality) = match wire.source {
        None => return Err(Error::field("source", "is required")),
        Some(Source::Image(bytes)) => (QuerySource::Image(bytes), Some(Modality::Image)),
        Some(Source::Text(text)) => (QuerySource::Text(text), Some(Modality::Text)),
        Some(Source::Vector(wire)) => (QuerySource::Vector(value::vector("vector", wire)?), None),
        Some(Source::ItemId(id)) => (QuerySource::Item(item_id("item_id", id)?), None),
    };
    if let (Space::Exclusive, Some(found)) = (space, modality)
        && found != target
    {
        let text =
            format!("an EXCLUSIVE term must come from {target}, this one comes from {found}");
        return Err(Error::field_for(ErrorReason::ExclusiveModalityMismatch, "space", text));
    }
    if !wire.weight.is_finite() {
        return Err(Error::field("weight", "must be finite"));
    }
    let weight = if wire.weight == 0.0 { 1.0 } else { wire.weight };
    Ok(QueryTerm { source, weight, space })
}

/// Milliseconds since 1970 as a timestamp.
pub(super) fn timestamp(milliseconds: u64) -> prost_types::Timestamp {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    prost_types::Timestamp {
        seconds: milliseconds / 1000,
        nanos: i32::try_from(milliseconds % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// What was cut off a text.
pub(super) fn truncation(cut: Option<(usize, usize)>) -> Option<v1::Truncation> {
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    cut.map(|(used, total)| v1::Truncation { used_bytes: size(used), total_bytes: size(total) })
}
