//! The contract by its own descriptors: its methods, what its comments promise of fields, and a request less one field at a time.

use std::collections::BTreeMap;
use std::path::Path;

use diptych_proto::v1;
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::DescriptorProto;
use prost_types::field_descriptor_proto::Type;

use super::super::support::*;

pub(super) struct Method {
    pub(super) path: String,
    /// The full name of its request.
    pub(super) input: String,
    pub(super) streams: bool,
}

/// What the contract's comments say of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    Required,
    Optional,
    /// Neither: of fields that stand in replies, too.
    Unsaid,
}

/// A request less one field.
pub(super) struct Missing {
    /// The path of what is missing, without places in lists; of a choice its name.
    pub(super) path: String,
    pub(super) promise: Promise,
    pub(super) message: Vec<u8>,
}

/// A message's descriptor, and where its comments are.
struct Described {
    message: DescriptorProto,
    file: usize,
    place: Vec<i32>,
}

pub(super) struct Contract {
    pub(super) methods: Vec<Method>,
    messages: BTreeMap<String, Described>,
    /// By file, and place in it.
    comments: BTreeMap<(usize, Vec<i32>), String>,
}

/// Numbers of `descriptor.proto`, of which places in a file are made.
const MESSAGES: i32 = 4;
const NESTED: i32 = 3;
const FIELDS: i32 = 2;
const CHOICES: i32 = 8;

impl Contract {
    /// From the protos themselves, since the descriptors that are served have no comments.
    pub(super) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/proto");
        let files = std::fs::read_dir(root.join("diptych/v1")).unwrap();
        let files = files.map(|file| file.unwrap().path());
        let mut compiler = protox::Compiler::new([root]).unwrap();
        compiler.include_source_info(true).open_files(files).unwrap();
        let set = compiler.file_descriptor_set();
        let mut contract =
            Self { methods: Vec::new(), messages: BTreeMap::new(), comments: BTreeMap::new() };
        for (number, file) in set.file.iter().enumerate() {
            let owner = (format!(".{}", file.package()), vec![MESSAGES]);
            contract.collect(number, &owner, &file.message_type);
            let source = file.source_code_info.as_ref().unwrap();
            let comments = source.location.iter().filter(|place| place.leading_comments.is_some());
            contract.comments.extend(
                comments.map(|place| {
                    ((number, place.path.clone()), place.leading_comments().to_owned())
                }),
            );
            for service in &file.service {
                let owner = format!("/{}.{}/", file.package(), service.name());
                contract.methods.extend(service.method.iter().map(|method| Method {
                    path: format!("{owner}{}", method.name()),
                    input: method.input_type().to_owned(),
                    streams: method.client_streaming() || method.server_streaming(),
                }));
            }
        }
        contract
    }

    fn collect(
        &mut self,
        file: usize,
        (owner, place): &(String, Vec<i32>),
        found: &[DescriptorProto],
    ) {
        for (number, message) in (0..).zip(found) {
            let name = format!("{owner}.{}", message.name());
            let place = [place.as_slice(), &[number]].concat();
            let nested = (name.clone(), [place.as_slice(), &[NESTED]].concat());
            self.collect(file, &nested, &message.nested_type);
            self.messages.insert(name, Described { message: message.clone(), file, place });
        }
    }

    /// The name by which a field is missed, and what was promised of it: a choice's, where it is one.
    fn promise(&self, owner: &Described, number: usize) -> (String, Promise) {
        let field = &owner.message.field[number];
        let choice = field.oneof_index.filter(|_| !field.proto3_optional());
        let (name, part) = match choice {
            Some(choice) => {
                let index = usize::try_from(choice).unwrap();
                (owner.message.oneof_decl[index].name(), [CHOICES, choice])
            }
            None => (field.name(), [FIELDS, i32::try_from(number).unwrap()]),
        };
        let place = (owner.file, [owner.place.as_slice(), &part].concat());
        let comment = self.comments.get(&place).map_or("", |comment| comment.trim_start());
        let promise = match comment {
            said if said.starts_with("REQUIRED.") => Promise::Required,
            said if said.starts_with("OPTIONAL.") => Promise::Optional,
            _ => Promise::Unsaid,
        };
        (name.to_owned(), promise)
    }

    /// `message` of type `name`, once without each field that it has, at any depth.
    pub(super) fn without_each(&self, name: &str, message: &[u8]) -> Vec<Missing> {
        let mut found = Vec::new();
        let fields = fields(message);
        let Some(owner) = self.messages.get(name) else { return found };
        for (place, field) in fields.iter().enumerate() {
            let others = |changed: Option<Vec<u8>>| -> Vec<u8> {
                let mut bytes = Vec::new();
                for (other, field) in fields.iter().enumerate() {
                    match (&changed, other == place) {
                        (Some(changed), true) => bytes.extend_from_slice(changed),
                        (None, true) => {}
                        (_, false) => bytes.extend_from_slice(&field.whole),
                    }
                }
                bytes
            };
            let known = &owner.message.field;
            let Some(number) = known.iter().position(|known| known.number() == field.number) else {
                continue;
            };
            let (path, promise) = self.promise(owner, number);
            found.push(Missing { path, promise, message: others(None) });
            let descriptor = &known[number];
            if descriptor.r#type() == Type::Message {
                for inner in self.without_each(descriptor.type_name(), &field.content) {
                    let mut bytes = Vec::new();
                    encode_key(field.number.unsigned_abs(), WireType::LengthDelimited, &mut bytes);
                    encode_varint(inner.message.len() as u64, &mut bytes);
                    bytes.extend_from_slice(&inner.message);
                    let path = format!("{}.{}", descriptor.name(), inner.path);
                    found.push(Missing { path, message: others(Some(bytes)), ..inner });
                }
            }
        }
        found
    }
}

/// A field as it stands in a message.
struct Field {
    number: i32,
    /// Key, length and content.
    whole: Vec<u8>,
    /// The content alone.
    content: Vec<u8>,
}

fn fields(mut message: &[u8]) -> Vec<Field> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let start = message;
        let (number, wire) = decode_key(&mut message).unwrap();
        let length = match wire {
            WireType::Varint => {
                let mut rest = message;
                decode_varint(&mut rest).unwrap();
                message.len() - rest.len()
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                let length = decode_varint(&mut message).unwrap();
                usize::try_from(length).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let content = message[..length].to_vec();
        message = &message[length..];
        let whole = start[..start.len() - message.len()].to_vec();
        found.push(Field { number: i32::try_from(number).unwrap(), whole, content });
    }
    found
}

#[test]
fn a_request_is_taken_apart_field_by_field_at_any_depth() {
    let contract = Contract::read();
    let request = upsert("things", text_item("a", "a heart")).encode_to_vec();
    let missing = contract.without_each(".diptych.v1.UpsertItemRequest", &request);
    let told: Vec<_> = missing.iter().map(|it| (it.path.as_str(), it.promise)).collect();
    let required = ["collection", "item", "item.id", "item.input"];
    assert_eq!(told, required.map(|path| (path, Promise::Required)));
    let without_id = v1::UpsertItemRequest::decode(missing[2].message.as_slice()).unwrap();
    assert_eq!(without_id, upsert("things", text_item("", "a heart")));
}
