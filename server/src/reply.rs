//! The size of replies: how many items one message can carry.
//!
//! A page of a thousand pictures would be larger than any message may be, and would be read into memory first. So the light
//! parts are read at first, which tell the length of the heavy ones, and a page ends early where the next item would not fit;
//! its token goes on from there.

use diptych_index::{Dims, Fields, Item, Metadata, Space, Value};
use diptych_proto::v1::ErrorReason;

use crate::error::{Error, Kind, Result};

/// What a reply holds besides its items: page token, digests, counts.
const REST_BYTES: usize = 4096;
/// What an item has besides its variable parts: version, times, scores, tags and lengths.
const ITEM_BYTES: usize = 320;
/// Tags and lengths of a metadata entry, and of an element of a list.
const ENTRY_BYTES: usize = 24;
const ELEMENT_BYTES: usize = 6;

/// How many of `items`, from the first on, fit into a message of `message_bytes` with `fields` filled. What is `None` takes
/// no room.
///
/// # Errors
/// RESOURCE_EXHAUSTED `MESSAGE_TOO_LARGE` when not even the first one fits.
pub(crate) fn fitting<'a>(
    items: impl IntoIterator<Item = Option<&'a Item>>,
    (fields, dims): (Fields, &Dims),
    message_bytes: usize,
) -> Result<usize> {
    let mut room = message_bytes.saturating_sub(REST_BYTES);
    let mut count = 0;
    for item in items {
        let size = item.map_or(0, |item| size(item, fields, dims));
        match room.checked_sub(size) {
            Some(rest) => room = rest,
            None if count == 0 => return Err(too_large(message_bytes, size)),
            None => break,
        }
        count += 1;
    }
    Ok(count)
}

/// An upper bound of an item's bytes on the wire.
fn size(item: &Item, fields: Fields, dims: &Dims) -> usize {
    let mut size = ITEM_BYTES + item.id.as_str().len() + metadata_size(&item.metadata);
    size += item.group.as_ref().map_or(0, String::len);
    if fields.source {
        size += usize::try_from(item.source_bytes).unwrap_or(usize::MAX / 2);
    }
    if fields.vectors {
        let of_space = |space| dims.get(item.modality, space).unwrap_or(0) * 4;
        size += of_space(Space::Shared) + of_space(Space::Exclusive);
    }
    size
}

fn metadata_size(metadata: &Metadata) -> usize {
    let value_size = |value: &Value| match value {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) => 10,
        Value::String(text) => text.len(),
        Value::Strings(texts) => texts.iter().map(|text| text.len() + ELEMENT_BYTES).sum(),
    };
    metadata.iter().map(|(key, value)| ENTRY_BYTES + key.len() + value_size(value)).sum()
}

fn too_large(limit: usize, size: usize) -> Error {
    let message = format!(
        "an item of {size} bytes does not fit into a message of {limit}: leave parts out by read_mask"
    );
    Error::new(Kind::Overloaded, ErrorReason::MessageTooLarge, message)
}

#[cfg(test)]
mod tests {
    use diptych_index::{ItemId, Modality, Vectors};

    use super::*;

    const ALL: Fields = Fields { source: true, vectors: true };
    const DIMS: Dims = Dims { shared: Some(4), exclusive_image: None, exclusive_text: None };

    fn item(source_bytes: u64) -> Item {
        Item {
            id: ItemId::try_new("a").unwrap(),
            modality: Modality::Image,
            group: None,
            metadata: Metadata::new(),
            source: None,
            source_bytes,
            vectors: Vectors::default(),
            version: 1,
            created_at_ms: 0,
            updated_at_ms: 0,
        }
    }

    #[test]
    fn a_page_ends_where_the_next_item_does_not_fit() {
        let items = [Some(item(30_000)), None, Some(item(30_000)), Some(item(30_000))];
        let count =
            |fields| fitting(items.iter().map(Option::as_ref), (fields, &DIMS), 70_000).unwrap();
        assert_eq!(count(ALL), 3);
        assert_eq!(count(Fields { source: false, ..ALL }), 4);
    }

    #[test]
    fn an_item_larger_than_a_message_is_refused_by_name_of_the_limit() {
        let large = item(70_000);
        let refused = fitting([Some(&large)], (ALL, &DIMS), 70_000).unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::MessageTooLarge);
        assert!(refused.details().message.contains("70000"));
    }
}
