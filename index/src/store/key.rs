//! Keys of the store: big-endian, collection first.

use sha2::{Digest, Sha256};

use crate::{
    error::{Error, Result},
    types::{ItemId, Modality, Space},
};

/// Number of a collection, never used again after it was dropped.
pub(crate) type CollectionId = u32;

/// One (modality, space) of a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(u8);

impl Slot {
    /// All four, in the order of storage.
    pub(crate) const ALL: [Self; 4] = [Self(0), Self(1), Self(2), Self(3)];

    pub(crate) fn new(modality: Modality, space: Space) -> Self {
        let modality = match modality {
            Modality::Image => 0,
            Modality::Text => 2,
        };
        Self(match space {
            Space::Shared => modality,
            Space::Exclusive => modality + 1,
        })
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    pub(crate) fn modality(self) -> Modality {
        if self.0 < 2 { Modality::Image } else { Modality::Text }
    }

    pub(crate) fn space(self) -> Space {
        if self.0.is_multiple_of(2) { Space::Shared } else { Space::Exclusive }
    }
}

/// `c`
pub(crate) fn collection(collection: CollectionId) -> [u8; 4] {
    collection.to_be_bytes()
}

/// `c, text`: an item by its id, or a request by its id.
pub(crate) fn named(collection: CollectionId, name: &str) -> Vec<u8> {
    [&collection.to_be_bytes(), name.as_bytes()].concat()
}

/// The id in an item's key.
pub(crate) fn item_id(key: &[u8]) -> Result<ItemId> {
    key.get(4..)
        .and_then(|id| std::str::from_utf8(id).ok())
        .filter(|id| !id.is_empty())
        .map(ItemId::trusted)
        .ok_or_else(|| Error::internal("an item's key is not readable"))
}

/// `c, slot`
pub(crate) fn slot(collection: CollectionId, slot: Slot) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4] = slot.0;
    key
}

/// `c, slot, version`
pub(crate) fn vector(collection: CollectionId, slot: Slot, version: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&self::slot(collection, slot));
    key[5..].copy_from_slice(&version.to_be_bytes());
    key
}

/// `c, version`
pub(crate) fn source(collection: CollectionId, version: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4..].copy_from_slice(&version.to_be_bytes());
    key
}

/// `c, kind`: the puts, or the deletes, of a collection's log of changes.
pub(crate) fn changes(collection: CollectionId, deleted: bool) -> [u8; 5] {
    let mut key = [0; 5];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4] = u8::from(deleted);
    key
}

/// `c, kind, sequence number`
pub(crate) fn change(collection: CollectionId, deleted: bool, sequence: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[..5].copy_from_slice(&changes(collection, deleted));
    key[5..].copy_from_slice(&sequence.to_be_bytes());
    key
}

/// `c, hash of the group`: groups may be longer than a key, so they are named by a hash, and what
/// is found is compared with the group itself.
pub(crate) fn group(collection: CollectionId, group: &str) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&collection.to_be_bytes());
    key[4..].copy_from_slice(&Sha256::digest(group.as_bytes())[..16]);
    key
}

/// `c, hash of the group, version`
pub(crate) fn group_member(collection: CollectionId, group: &str, version: u64) -> [u8; 28] {
    let mut key = [0; 28];
    key[..20].copy_from_slice(&self::group(collection, group));
    key[20..].copy_from_slice(&version.to_be_bytes());
    key
}

/// `time, hash of the request's key`
pub(crate) fn request_time(at_ms: u64, request_key: &[u8]) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&at_ms.to_be_bytes());
    key[8..].copy_from_slice(&Sha256::digest(request_key)[..16]);
    key
}

/// The last eight bytes of a key as a number.
pub(crate) fn trailing_u64(key: &[u8]) -> Result<u64> {
    key.last_chunk::<8>()
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or_else(|| Error::internal("a key is too short"))
}
