//! Messages counted before they are made.
//!
//! An empty sub-message is two bytes on the wire and a hundred in memory, so that a message within its limit of bytes could
//! take a gigabyte. This codec walks over the bytes first, along the descriptors, and counts what will have a place in memory
//! of its own: sub-messages, and the strings of lists. A walk steps over pictures and texts by their length and costs next to
//! nothing beside decoding.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::OnceLock;

use bytes::Buf as _;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

/// Most parts of a message. A batch of items as large as it may be has 274,624.
pub const MAX_PARTS: usize = 300_000;
/// What a status of RESOURCE_EXHAUSTED says of a message with more parts.
pub const TOO_MANY_PARTS: &str = "the message has too many parts";

/// Deepest nesting that is followed: decoding refuses what is deeper.
const MAX_DEPTH: usize = 100;

/// As [`ProstCodec`], with a bound on the parts of what is decoded.
#[derive(Debug, Clone)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(PhantomData)
    }
}

/// Counts, then decodes.
#[derive(Debug, Clone)]
pub struct BoundedDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // Shared with what decoding keeps of it, not copied.
        let bytes = from.copy_to_bytes(from.remaining());
        let mut left = MAX_PARTS;
        if let Some(shape) = shape_of::<U>()
            && !fits(&bytes, shape, (MAX_DEPTH, &mut left))
        {
            return Err(Status::resource_exhausted(TOO_MANY_PARTS));
        }
        // The gRPC status for what does not parse, as `tonic-prost` has it.
        U::decode(bytes).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// The fields of a message that are counted, by number.
type Shape = HashMap<u32, Part>;

/// What is counted.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// A message, whose own fields are looked at too: its place among all shapes.
    Message(usize),
    /// A string or bytes of a list.
    Text,
}

/// The shapes of all messages of the package and what it imports, and where each is by its full name.
#[derive(Debug, Default)]
struct Shapes {
    all: Vec<Shape>,
    places: HashMap<String, usize>,
}

fn shapes() -> &'static Shapes {
    static SHAPES: OnceLock<Shapes> = OnceLock::new();
    SHAPES.get_or_init(|| {
        // The set is a part of this crate, and a test reads it: it parses.
        let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut messages = Vec::new();
        for file in &set.file {
            let package = format!(".{}", file.package());
            file.message_type.iter().for_each(|it| gather(&package, it, &mut messages));
        }
        let name = |(place, (name, _)): (usize, &(String, &DescriptorProto))| (name.clone(), place);
        let places: HashMap<String, usize> = messages.iter().enumerate().map(name).collect();
        let all = messages.iter().map(|(_, message)| shape(message, &places)).collect();
        Shapes { all, places }
    })
}

/// A message and those within it, by full name.
fn gather<'a>(
    outer: &str,
    message: &'a DescriptorProto,
    messages: &mut Vec<(String, &'a DescriptorProto)>,
) {
    let name = format!("{outer}.{}", message.name());
    message.nested_type.iter().for_each(|inner| gather(&name, inner, messages));
    messages.push((name, message));
}

fn shape(message: &DescriptorProto, places: &HashMap<String, usize>) -> Shape {
    let part = |field: &prost_types::FieldDescriptorProto| {
        let part = match field.r#type() {
            Type::Message => Part::Message(*places.get(field.type_name())?),
            Type::String | Type::Bytes if field.label() == Label::Repeated => Part::Text,
            _ => return None,
        };
        Some((u32::try_from(field.number()).ok()?, part))
    };
    message.field.iter().filter_map(part).collect()
}

/// The shape of a generated type, which has the name of its message.
fn shape_of<U>() -> Option<usize> {
    let name = std::any::type_name::<U>().rsplit("::").next()?;
    shapes().places.get(&format!(".diptych.v1.{name}")).copied()
}

/// Whether the parts of a message are no more than `left`, which is made less by them. Bytes that are no message fit: decoding
/// tells what is wrong with them.
fn fits(mut bytes: &[u8], shape: usize, (depth, left): (usize, &mut usize)) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    let shapes = &shapes().all;
    while let Some(key) = varint(&mut bytes) {
        let (number, wire_type) = (u32::try_from(key >> 3).unwrap_or(0), key & 7);
        let length = match wire_type {
            0 => {
                if varint(&mut bytes).is_none() {
                    return true;
                }
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes).unwrap_or(u64::MAX),
            // Groups are none of ours; what is in them counts as if it were outside.
            3 | 4 => continue,
            5 => 4,
            _ => return true,
        };
        let content =
            usize::try_from(length).ok().and_then(|length| bytes.split_at_checked(length));
        let Some((content, rest)) = content else { return true };
        bytes = rest;
        let Some(part) = shapes[shape].get(&number).filter(|_| wire_type == 2) else { continue };
        let Some(fewer) = left.checked_sub(1) else { return false };
        *left = fewer;
        if let Part::Message(inner) = part
            && !fits(content, *inner, (depth, left))
        {
            return false;
        }
    }
    true
}

/// A number off the front; `None` where there is none.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn parts<M: Message>(message: &M) -> usize {
        let mut left = MAX_PARTS;
        let shape = shape_of::<M>().expect("a message of the package");
        assert!(fits(&message.encode_to_vec(), shape, (MAX_DEPTH, &mut left)));
        MAX_PARTS - left
    }

    #[test]
    fn every_message_that_a_method_takes_or_gives_has_a_shape() {
        let set = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("a descriptor set");
        let methods =
            set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        let mut count = 0;
        for method in methods {
            assert!(shapes().places.contains_key(method.input_type()), "{}", method.name());
            assert!(shapes().places.contains_key(method.output_type()), "{}", method.name());
            count += 1;
        }
        assert!(count > 40, "{count} methods");
        assert!(shape_of::<v1::SearchRequest>().is_some());
    }

    #[test]
    fn messages_maps_and_texts_of_lists_count_and_pictures_do_not() {
        let text = v1::Value { kind: Some(v1::value::Kind::TextValue("long".repeat(100))) };
        let list = v1::TextList { values: vec![String::new(); 5] };
        let list = v1::Value { kind: Some(v1::value::Kind::TextList(list)) };
        let item = v1::ItemInput {
            input: Some(v1::item_input::Input::Image(vec![0x12; 1000].into())),
            // An entry and a value; an entry, a value, a list and its five texts.
            metadata: [("a".to_owned(), text), ("b".to_owned(), list)].into(),
            ..Default::default()
        };
        let request = v1::UpsertItemRequest { item: Some(item), ..Default::default() };
        assert_eq!(parts(&request), 1 + 2 + 8);
    }

    #[test]
    fn the_largest_batch_of_items_has_room() {
        let texts = v1::TextList { values: vec!["x".to_owned(); 64] };
        let value = v1::Value { kind: Some(v1::value::Kind::TextList(texts)) };
        let metadata = (0..64).map(|key| (key.to_string(), value.clone())).collect();
        let item = Some(v1::ItemInput { metadata, ..Default::default() });
        let entry = v1::batch_upsert_items_request::Entry { item, expected_version: None };
        let entries = vec![entry; 64];
        let found = parts(&v1::BatchUpsertItemsRequest { entries, ..Default::default() });
        assert_eq!(found, 64 * (2 + 64 * 67));
    }

    #[test]
    fn one_part_too_many_does_not_fit_wherever_it_is() {
        let shape = shape_of::<v1::SearchRequest>().expect("a message of the package");
        let fits = |bytes: &[u8]| super::fits(bytes, shape, (MAX_DEPTH, &mut MAX_PARTS.clone()));
        // Empty terms: field 2, no content.
        assert!(fits(&[0x12, 0].repeat(MAX_PARTS)));
        assert!(!fits(&[0x12, 0].repeat(MAX_PARTS + 1)));
        // Behind the start of a group, which is passed over.
        assert!(!fits(&[vec![0x9B, 0x06], [0x12, 0].repeat(MAX_PARTS + 1)].concat()));
        // Within a filter: a list of conditions, field 1, each without content.
        let list = vec![v1::Filter::default(); MAX_PARTS];
        let list = v1::filter::Condition::And(v1::FilterList { filters: list });
        let filter = Some(v1::Filter { condition: Some(list) });
        let search = v1::SearchRequest { filter, ..Default::default() };
        assert!(!fits(&search.encode_to_vec()));
    }

    #[test]
    fn what_is_no_message_is_left_to_decoding() {
        let shape = shape_of::<v1::SearchRequest>().expect("a message of the package");
        for bytes in [&[0x12][..], &[0x12, 0xFF], &[0x0F], &[0x80; 20], &[0x12, 3, 0x0F, 0, 0]] {
            assert!(fits(bytes, shape, (MAX_DEPTH, &mut MAX_PARTS.clone())), "{bytes:?}");
        }
    }
}
