//! Values of the store: CRC-32 of key and body (little-endian), then the body: postcard or plain
//! bytes. With the key in it, a value that a damaged key leads to is noticed too.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::key::CollectionId;
use crate::{
    engine::StoredOutcome,
    error::{Error, Result},
    types::{CollectionSpec, Metadata, Modality},
};

/// A collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CollectionRecord {
    pub(crate) id: CollectionId,
    pub(crate) spec: CollectionSpec,
    pub(crate) created_at_ms: u64,
}

/// Where an item's source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SourceRef {
    /// Nowhere.
    None,
    /// In the store.
    Inline {
        /// Its length.
        bytes: u64,
    },
    /// In a file named by its SHA-256.
    File {
        /// SHA-256 of the bytes.
        digest: [u8; 32],
        /// Its length.
        bytes: u64,
    },
}

impl SourceRef {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Inline { bytes } | Self::File { bytes, .. } => bytes,
        }
    }
}

/// An item without its id (the key), vectors and source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ItemRecord {
    pub(crate) version: u64,
    pub(crate) modality: Modality,
    pub(crate) group: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) source: SourceRef,
    pub(crate) created_at_ms: u64,
    pub(crate) updated_at_ms: u64,
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RequestRecord {
    pub(crate) digest: [u8; 32],
    pub(crate) at_ms: u64,
    pub(crate) outcome: StoredOutcome,
}

/// What is wrong with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Puts the checksum before plain bytes.
pub(crate) fn frame(key: &[u8], body: &[u8]) -> Vec<u8> {
    [&checksum(key, body).to_le_bytes(), body].concat()
}

/// Checks and removes the checksum.
pub(crate) fn unframe<'v>(key: &[u8], value: &'v [u8]) -> Result<&'v [u8], Unreadable> {
    let (crc, body) = value.split_first_chunk::<4>().ok_or(Unreadable)?;
    if checksum(key, body) != u32::from_le_bytes(*crc) {
        return Err(Unreadable);
    }
    Ok(body)
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

/// A record with its checksum.
pub(crate) fn encode<T: Serialize>(key: &[u8], record: &T) -> Result<Vec<u8>> {
    let body = postcard::to_stdvec(record).map_err(|e| Error::internal(e.to_string()))?;
    Ok(frame(key, &body))
}

/// A record whose checksum fits.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Unreadable> {
    postcard::from_bytes(unframe(key, value)?).map_err(|_| Unreadable)
}

/// A vector with its checksum.
pub(crate) fn encode_vector(key: &[u8], vector: &[f32]) -> Vec<u8> {
    let body: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    frame(key, &body)
}

/// Appends a vector whose checksum and length fit.
pub(crate) fn decode_vector(
    (key, value): (&[u8], &[u8]),
    dims: usize,
    out: &mut Vec<f32>,
) -> Result<(), Unreadable> {
    let body = unframe(key, value)?;
    if body.len() != dims * 4 {
        return Err(Unreadable);
    }
    out.extend(body.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    Ok(())
}
