//! The file that a snapshot is: frames after a head, with a checksum each and one over the whole.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DIPTYCHS` |
//! | 4 | format version, little-endian |
//! | frames | kind (u8), length (u32), payload, CRC-32 of these three; numbers are little-endian |
//!
//! The first frame is a [`Head`] as JSON, then come items in the order of their versions, each a
//! postcard [`ArchivedItem`]; a source over 64 KiB goes before its item in frames of its own. The
//! last frame says how many items there were and gives the SHA-256 of every byte before it. Nothing
//! may follow. A version that adds to the head need not raise the format version; all else does.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    graph::BuilderKind,
    types::{
        CollectionSpec, Dims, ItemId, Metadata, Modality, Space, VectorStorage, check_metadata,
    },
};

const MAGIC: &[u8; 8] = b"DIPTYCHS";
/// Version of the layout above. Older ones stay readable; a fixture in the tests keeps each.
const VERSION: u32 = 1;
/// Longest payload of a frame: an item with its vectors and a source of 64 KiB stays far below.
const FRAME_MAX_BYTES: usize = 4 << 20;
/// Bytes of a large source in one frame.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

const HEAD: u8 = 1;
const ITEM: u8 = 2;
const CHUNK: u8 = 3;
const END: u8 = 4;

/// What the collection was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    pub(crate) collection: String,
    pub(crate) embedding_digest: Option<String>,
    pub(crate) dims: Dims,
    pub(crate) keep_source: bool,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) storage: VectorStorage,
    #[serde(default)]
    pub(crate) graph: BuilderKind,
    pub(crate) collection_created_at_ms: u64,
    /// Last sequence number of the collection.
    pub(crate) sequence: u64,
    pub(crate) items: u64,
    pub(crate) created_at_ms: u64,
}

impl Head {
    /// The spec of the collection, under another name.
    pub(crate) fn spec(&self, name: &str) -> CollectionSpec {
        CollectionSpec {
            name: name.to_owned(),
            embedding_digest: self.embedding_digest.clone(),
            dims: self.dims,
            keep_source: self.keep_source,
            description: self.description.clone(),
            storage: self.storage,
            graph: self.graph,
        }
    }
}

/// An item with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ArchivedItem {
    pub(crate) id: String,
    pub(crate) version: u64,
    pub(crate) modality: Modality,
    pub(crate) group: Option<String>,
    pub(crate) metadata: Metadata,
    pub(crate) created_at_ms: u64,
    pub(crate) updated_at_ms: u64,
    pub(crate) source: ArchivedSource,
    /// Unit vectors as they are stored; `None` where the collection has none for the modality.
    pub(crate) shared: Option<Vec<f32>>,
    pub(crate) exclusive: Option<Vec<f32>>,
}

/// Where an item's source is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum ArchivedSource {
    None,
    Here(Vec<u8>),
    /// In the frames before: its length.
    Before(u64),
}

/// What is wrong with an archive, in words, or with reading it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

fn refused<T>(problem: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused(problem.into()))
}

/// Writes an archive to anything that takes bytes.
#[derive(Debug)]
pub(crate) struct ArchiveWriter<W> {
    out: W,
    sha256: Sha256,
    items: u64,
    bytes: u64,
}

impl<W: Write> ArchiveWriter<W> {
    pub(crate) fn begin(out: W, head: &Head) -> Result<Self, Fault> {
        let mut writer = Self::started(out)?;
        let head = serde_json::to_vec(head).map_err(|e| Fault::Refused(e.to_string()))?;
        writer.frame(HEAD, &head)?;
        Ok(writer)
    }

    fn started(out: W) -> Result<Self, Fault> {
        let mut writer = Self { out, sha256: Sha256::new(), items: 0, bytes: 0 };
        writer.raw(MAGIC)?;
        writer.raw(&VERSION.to_le_bytes())?;
        Ok(writer)
    }

    /// A piece of the large source of the next item.
    pub(crate) fn chunk(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.frame(CHUNK, bytes)
    }

    pub(crate) fn item(&mut self, item: &ArchivedItem) -> Result<(), Fault> {
        let bytes = postcard::to_stdvec(item).map_err(|e| Fault::Refused(e.to_string()))?;
        self.frame(ITEM, &bytes)
    }

    /// Ends the archive; gives what it was written to, its length and its SHA-256.
    pub(crate) fn end(mut self) -> Result<(W, u64, [u8; 32]), Fault> {
        let so_far: [u8; 32] = self.sha256.clone().finalize().into();
        let end = [self.items.to_le_bytes().as_slice(), &so_far].concat();
        self.frame(END, &end)?;
        self.out.flush()?;
        Ok((self.out, self.bytes, self.sha256.finalize().into()))
    }

    fn frame(&mut self, kind: u8, payload: &[u8]) -> Result<(), Fault> {
        if kind == ITEM {
            self.items += 1;
        }
        if payload.len() > FRAME_MAX_BYTES {
            return refused("an item is larger than an archive takes");
        }
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
        let crc = checksum(kind, length, payload);
        self.raw(&[kind])?;
        self.raw(&length)?;
        self.raw(payload)?;
        self.raw(&crc.to_le_bytes())
    }

    fn raw(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(self.out.write_all(bytes)?)
    }
}

/// Parts, kind and content, as an archive whose lengths and checksums fit, whatever they hold.
pub(crate) fn in_frames(parts: &[(u8, &[u8])]) -> Result<Vec<u8>, Fault> {
    let mut writer = ArchiveWriter::started(Vec::new())?;
    parts.iter().try_for_each(|(kind, payload)| writer.frame(*kind, payload))?;
    writer.end().map(|(bytes, ..)| bytes)
}

fn checksum(kind: u8, length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// An item and its source.
pub(crate) type ReadItem = (ArchivedItem, Option<Vec<u8>>);

/// Reads an archive and believes nothing.
#[derive(Debug)]
pub(crate) struct ArchiveReader<R> {
    input: R,
    sha256: Sha256,
    head: Head,
    items: u64,
    last_version: u64,
    /// The large source of the next item.
    chunks: Vec<u8>,
}

impl<R: Read> ArchiveReader<R> {
    pub(crate) fn open(mut input: R) -> Result<Self, Fault> {
        let mut start = [0; 12];
        if input.read_exact(&mut start).is_err() || !start.starts_with(MAGIC) {
            return refused("it is no snapshot of Diptych");
        }
        let version = u32::from_le_bytes([start[8], start[9], start[10], start[11]]);
        if version == 0 || version > VERSION {
            return refused(format!(
                "it has format {version}, this program reads formats up to {VERSION}"
            ));
        }
        let mut sha256 = Sha256::new();
        sha256.update(start);
        let (kind, payload) = frame(&mut input, &mut sha256)?;
        let head: Option<Head> =
            (kind == HEAD).then(|| serde_json::from_slice(&payload).ok()).flatten();
        let Some(head) = head else { return refused("its head is not readable") };
        if let Err(error) = head.spec("a").check() {
            return refused(format!("its head is not possible: {error}"));
        }
        Ok(Self { input, sha256, head, items: 0, last_version: 0, chunks: Vec::new() })
    }

    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The next item with its source, checked; `None` at a sound end, after which comes nothing.
    pub(crate) fn next(&mut self) -> Result<Option<ReadItem>, Fault> {
        loop {
            let so_far = self.sha256.clone();
            let (kind, payload) = frame(&mut self.input, &mut self.sha256)?;
            match kind {
                CHUNK => self.chunks.extend_from_slice(&payload),
                ITEM => return self.item(&payload).map(Some),
                END => {
                    let expected =
                        [self.items.to_le_bytes().as_slice(), &so_far.finalize()].concat();
                    if payload != expected || !self.chunks.is_empty() {
                        return refused("the checksum of the whole does not fit");
                    }
                    if self.items != self.head.items {
                        return refused("it does not hold as many items as its head says");
                    }
                    return match self.input.read(&mut [0])? {
                        0 => Ok(None),
                        _ => refused("something follows its end"),
                    };
                }
                _ => return refused("it holds a part of an unknown kind"),
            }
        }
    }

    fn item(&mut self, payload: &[u8]) -> Result<ReadItem, Fault> {
        let Ok(mut item) = postcard::from_bytes::<ArchivedItem>(payload) else {
            return refused("an item is not readable");
        };
        if item.version <= self.last_version || item.version > self.head.sequence {
            return refused("versions are not in order");
        }
        self.last_version = item.version;
        self.items += 1;
        check(&item, &self.head.dims)?;
        let chunks = std::mem::take(&mut self.chunks);
        let source = match std::mem::replace(&mut item.source, ArchivedSource::None) {
            ArchivedSource::None if chunks.is_empty() => None,
            ArchivedSource::Here(bytes) if chunks.is_empty() => Some(bytes),
            ArchivedSource::Before(length) if chunks.len() as u64 == length => Some(chunks),
            _ => return refused("the source of an item does not fit"),
        };
        Ok((item, source))
    }
}

/// What an item of this program can be like.
fn check(item: &ArchivedItem, dims: &Dims) -> Result<(), Fault> {
    let named = ItemId::try_new(item.id.as_str()).is_ok()
        && item.group.as_ref().is_none_or(|group| ItemId::try_new(group.as_str()).is_ok())
        && check_metadata(&item.metadata).is_ok();
    let fits = |space, vector: &Option<Vec<f32>>| {
        let found = vector.as_ref().map(Vec::len);
        let unit = vector.as_ref().is_none_or(|vector| {
            let square: f32 = vector.iter().map(|x| x * x).sum();
            (square - 1.0).abs() < 0.01
        });
        found == dims.get(item.modality, space) && unit
    };
    if named && fits(Space::Shared, &item.shared) && fits(Space::Exclusive, &item.exclusive) {
        return Ok(());
    }
    refused("an item is not possible in such a collection")
}

fn frame(input: &mut impl Read, sha256: &mut Sha256) -> Result<(u8, Vec<u8>), Fault> {
    let mut start = [0; 5];
    exactly(input, &mut start)?;
    let length = [start[1], start[2], start[3], start[4]];
    let bytes = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if bytes > FRAME_MAX_BYTES {
        return refused("a part is longer than one can be: it is damaged");
    }
    let mut rest = vec![0; bytes + 4];
    exactly(input, &mut rest)?;
    let crc = rest.split_off(bytes);
    if checksum(start[0], length, &rest).to_le_bytes() != crc.as_slice() {
        return refused("the checksum of a part does not fit: it is damaged");
    }
    sha256.update(start);
    sha256.update(&rest);
    sha256.update(&crc);
    Ok((start[0], rest))
}

fn exactly(input: &mut impl Read, out: &mut [u8]) -> Result<(), Fault> {
    match input.read_exact(out) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            refused("it ends too early: it was cut off")
        }
        done => Ok(done?),
    }
}
