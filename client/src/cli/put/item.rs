//! An item on its way, and the short digests that it is known by.

use diptych::v1;
use diptych::v1::item_input::Input;
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::table::Place;

/// The first half of a SHA-256: long enough that two never meet, short enough to keep one for every item.
pub(crate) type Key = [u8; 16];

/// The key of some parts, told apart by their lengths.
pub(crate) fn key(parts: &[&[u8]]) -> Key {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut key = Key::default();
    key.copy_from_slice(&hasher.finalize()[..size_of::<Key>()]);
    key
}

/// An item, where it was read, and what the journal knows it by.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) item: v1::ItemInput,
    pub(crate) place: Place,
    /// Of its id.
    pub(crate) id: Key,
    /// Of all of it.
    pub(crate) content: Key,
}

impl Piece {
    pub(crate) fn new(item: v1::ItemInput, place: Place) -> Self {
        let (id, content) = (key(&[item.id.as_bytes()]), content(&item));
        Self { item, place, id, content }
    }

    /// About how much of a message it takes.
    pub(crate) fn bytes(&self) -> usize {
        self.item.encoded_len()
    }
}

/// The picture is hashed where it lies; only the rest is written out for it.
fn content(item: &v1::ItemInput) -> Key {
    match &item.input {
        Some(Input::Image(bytes)) => {
            let rest = v1::ItemInput {
                id: item.id.clone(),
                group: item.group.clone(),
                metadata: item.metadata.clone(),
                ..Default::default()
            };
            key(&[&rest.encode_to_vec(), bytes])
        }
        _ => key(&[&item.encode_to_vec()]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn any_change_of_an_item_changes_its_content() {
        let keys = |item: &v1::ItemInput| {
            let piece = Piece::new(item.clone(), Place::file(Path::new("a")));
            (piece.id, piece.content)
        };
        let first = diptych::image_item("a", "x");
        assert_eq!(keys(&first), keys(&first.clone()));
        let mut group = first.clone();
        group.group = "g".to_owned();
        for other in [diptych::image_item("a", "y"), group, diptych::text_item("a", "x")] {
            assert_eq!(keys(&first).0, keys(&other).0);
            assert_ne!(keys(&first).1, keys(&other).1);
        }
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
    }
}
