//! Values of the store: CRC-32 of key and body (little-endian), then the body: postcard or plain
//! bytes. With the key in it, a value that a damaged key leads to is noticed too.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::key::CollectionId;
use crate::{
    encoding,
    engine::StoredOutcome,
    error::{Error, Result},
    graph::BuilderKind,
    types::{CollectionSpec, Dims, Metadata, Modality, VectorStorage},
};

/// Names two bytes per component.
const FORM_I16: u8 = 16;
/// Names one byte per component.
const FORM_I8: u8 = 8;

/// A collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CollectionRecord {
    pub(crate) id: CollectionId,
    pub(crate) spec: CollectionSpec,
    pub(crate) created_at_ms: u64,
}

/// A collection as it was written before its vectors had a storage. Its last number stands where
/// the present form has two more, so neither is read as the other.
#[derive(Deserialize)]
struct PlainCollection {
    id: CollectionId,
    spec: PlainSpec,
    created_at_ms: u64,
}

#[derive(Deserialize)]
struct PlainSpec {
    name: String,
    embedding_digest: Option<String>,
    dims: Dims,
    keep_source: bool,
    description: String,
}

/// A collection whose checksum fits, of this form or the one before.
pub(crate) fn decode_collection(key: &[u8], value: &[u8]) -> Result<CollectionRecord, Unreadable> {
    decode(key, value).or_else(|_| {
        let plain: PlainCollection = decode(key, value)?;
        let spec = CollectionSpec {
            name: plain.spec.name,
            embedding_digest: plain.spec.embedding_digest,
            dims: plain.spec.dims,
            keep_source: plain.spec.keep_source,
            description: plain.spec.description,
            storage: VectorStorage::default(),
            graph: BuilderKind::default(),
        };
        Ok(CollectionRecord { id: plain.id, spec, created_at_ms: plain.created_at_ms })
    })
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

/// What a collection's log of changes does not hold any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct LogRecord {
    /// Deletes in the log.
    pub(crate) deletes: u64,
    /// Highest number of a delete that may be missing; 0 when none is.
    pub(crate) floor: u64,
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AliasRecord {
    /// Number of the collection that it stands for.
    pub(crate) collection: CollectionId,
    /// Name of that collection.
    pub(crate) name: String,
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

/// A rounded vector ([`crate::encoding`]) with its checksum: f32 as they are; short forms after a
/// byte that names them and their step. No two forms of one number of components are of one length.
pub(crate) fn encode_vector(key: &[u8], vector: &[f32], storage: VectorStorage) -> Vec<u8> {
    let mut body = Vec::with_capacity(4 * vector.len());
    match storage {
        VectorStorage::F32 => body.extend(vector.iter().flat_map(|x| x.to_le_bytes())),
        VectorStorage::I16 => {
            let fixed = encoding::fixed_16(vector);
            body.push(FORM_I16);
            body.extend(fixed.step.to_le_bytes());
            body.extend(fixed.codes.iter().flat_map(|code| code.to_le_bytes()));
        }
        VectorStorage::I8 => {
            let fixed = encoding::fixed_8(vector);
            body.push(FORM_I8);
            body.extend(fixed.step.to_le_bytes());
            body.extend(fixed.codes.iter().map(|code| code.cast_unsigned()));
        }
    }
    frame(key, &body)
}

/// Appends a vector whose checksum and length fit, in whatever form it is.
pub(crate) fn decode_vector(
    (key, value): (&[u8], &[u8]),
    dims: usize,
    out: &mut Vec<f32>,
) -> Result<(), Unreadable> {
    let body = unframe(key, value)?;
    if body.len() == dims * 4 {
        out.extend(body.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        return Ok(());
    }
    let (form, rest) = body.split_first().ok_or(Unreadable)?;
    let (step, codes) = rest.split_first_chunk::<4>().ok_or(Unreadable)?;
    let step = f32::from_le_bytes(*step);
    match *form {
        FORM_I16 if codes.len() == dims * 2 => {
            let codes = codes.as_chunks::<2>().0.iter().map(|bytes| i16::from_le_bytes(*bytes));
            out.extend(codes.map(|code| f32::from(code) * step));
        }
        FORM_I8 if codes.len() == dims => {
            out.extend(codes.iter().map(|code| f32::from(code.cast_signed()) * step));
        }
        _ => return Err(Unreadable),
    }
    Ok(())
}
