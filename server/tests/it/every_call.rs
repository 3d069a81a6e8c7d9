//! Every method of the contract, asked with nothing, with something whole, and with that less one field at a time: the answer is
//! always one that says what is wrong.
//!
//! The requests are taken apart by the contract's own descriptors, so that a new method or field is met without an edit; a new
//! method only needs a whole request here.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use diptych_proto::{FILE_DESCRIPTOR_SET, v1};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::support::*;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);

/// Messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

struct Method {
    path: String,
    /// The full name of its request.
    input: String,
    streams: bool,
}

struct Contract {
    methods: Vec<Method>,
    messages: BTreeMap<String, DescriptorProto>,
}

impl Contract {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let (mut methods, mut messages) = (Vec::new(), BTreeMap::new());
        for file in &set.file {
            let package = format!(".{}", file.package());
            collect(&package, &file.message_type, &mut messages);
            for service in &file.service {
                let owner = format!("/{}.{}/", file.package(), service.name());
                methods.extend(service.method.iter().map(|method| Method {
                    path: format!("{owner}{}", method.name()),
                    input: method.input_type().to_owned(),
                    streams: method.client_streaming() || method.server_streaming(),
                }));
            }
        }
        Self { methods, messages }
    }

    /// `message` of type `name`, once without each field that it has, at any depth, with the path of what is missing.
    fn without_each(&self, name: &str, message: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let fields = fields(message);
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
            let known = self.messages.get(name).into_iter().flat_map(|message| &message.field);
            let Some(descriptor) = known.into_iter().find(|known| known.number() == field.number)
            else {
                continue;
            };
            found.push((descriptor.name().to_owned(), others(None)));
            if descriptor.r#type() == Type::Message {
                for (path, inner) in self.without_each(descriptor.type_name(), &field.content) {
                    let mut bytes = Vec::new();
                    encode_key(field.number.unsigned_abs(), WireType::LengthDelimited, &mut bytes);
                    encode_varint(inner.len() as u64, &mut bytes);
                    bytes.extend_from_slice(&inner);
                    found.push((format!("{}.{path}", descriptor.name()), others(Some(bytes))));
                }
            }
        }
        found
    }
}

fn collect(
    owner: &str,
    found: &[DescriptorProto],
    messages: &mut BTreeMap<String, DescriptorProto>,
) {
    for message in found {
        let name = format!("{owner}.{}", message.name());
        collect(&name, &message.nested_type, messages);
        messages.insert(name, message.clone());
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

/// Paths, without what all have in common, and requests.
type Requests = Vec<(&'static str, Vec<u8>)>;

/// A request of every method that has something to leave out, each saying all it can.
fn whole_requests() -> BTreeMap<&'static str, Vec<u8>> {
    let all = [
        searches(),
        embeddings(),
        items_to_change(),
        items_to_read(),
        collections(),
        changes_of_collections(),
        administration(),
        operations(),
    ];
    all.into_iter().flatten().collect()
}

fn things() -> String {
    "things".to_owned()
}

fn whole_search() -> v1::SearchRequest {
    v1::SearchRequest {
        limit: 3,
        filter: Some(filter()),
        min_score: Some(-1.0),
        read_mask: mask(&["metadata"]),
        ef_search: 100,
        one_per_group: true,
        ..ask("things", v1::Modality::Text, by_text("a heart"))
    }
}

fn whole_item() -> v1::ItemInput {
    v1::ItemInput {
        group: "g".to_owned(),
        modality: v1::Modality::Text.into(),
        metadata: [("k".to_owned(), text_value("v"))].into(),
        ..text_item("b", "another heart")
    }
}

fn whole_input() -> v1::EmbedInput {
    let input = Some(v1::embed_input::Input::Text("a heart".to_owned()));
    v1::EmbedInput { truncate: true, input }
}

fn searches() -> Requests {
    vec![
        ("SearchService/Search", whole_search().encode_to_vec()),
        (
            "SearchService/SearchTextToImage",
            v1::SearchTextToImageRequest {
                collection: things(),
                text: "a heart".to_owned(),
                limit: 3,
                filter: Some(filter()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "SearchService/SearchImageToText",
            v1::SearchImageToTextRequest {
                collection: things(),
                image: diptych_model::testing::disc(20, 20).unwrap().into(),
                limit: 3,
                filter: Some(filter()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "SearchService/BatchSearch",
            v1::BatchSearchRequest { searches: vec![whole_search()] }.encode_to_vec(),
        ),
        (
            "SearchService/ExplainMatch",
            v1::ExplainMatchRequest { search: Some(whole_search()), item_id: "a".to_owned() }
                .encode_to_vec(),
        ),
    ]
}

fn embeddings() -> Requests {
    vec![
        (
            "EmbeddingService/EmbedText",
            v1::EmbedTextRequest {
                text: "a heart".to_owned(),
                truncate: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "EmbeddingService/EmbedImage",
            v1::EmbedImageRequest {
                image: diptych_model::testing::disc(20, 20).unwrap().into(),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "EmbeddingService/BatchEmbed",
            v1::BatchEmbedRequest { inputs: vec![whole_input()], ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "EmbeddingService/EmbedStream",
            v1::EmbedStreamRequest {
                sequence: 1,
                input: Some(whole_input()),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn items_to_change() -> Requests {
    vec![
        ("ItemService/UpsertItem", upsert("things", whole_item()).encode_to_vec()),
        (
            "ItemService/IngestItems",
            v1::IngestItemsRequest {
                message: Some(v1::ingest_items_request::Message::Start(v1::IngestStart {
                    collection: things(),
                    ingest_id: "i".to_owned(),
                    acknowledged_sequence: 1,
                })),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/BatchUpsertItems",
            v1::BatchUpsertItemsRequest {
                collection: things(),
                entries: vec![v1::batch_upsert_items_request::Entry {
                    item: Some(whole_item()),
                    expected_version: Some(1),
                }],
                request_id: "r".to_owned(),
            }
            .encode_to_vec(),
        ),
    ]
}

fn items_to_read() -> Requests {
    vec![
        (
            "ItemService/GetItem",
            v1::GetItemRequest {
                collection: things(),
                id: "a".to_owned(),
                read_mask: mask(&["metadata"]),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/ListItems",
            v1::ListItemsRequest {
                collection: things(),
                page_size: 3,
                filter: Some(filter()),
                modality: v1::Modality::Text.into(),
                read_mask: mask(&["metadata"]),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/ExportItems",
            v1::ExportItemsRequest {
                collection: things(),
                filter: Some(filter()),
                read_mask: mask(&["metadata"]),
                after_id: "0".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "ItemService/DeleteItems",
            v1::DeleteItemsRequest {
                collection: things(),
                selection: Some(v1::delete_items_request::Selection::Group("none".to_owned())),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn collections() -> Requests {
    vec![
        (
            "CollectionService/CreateCollection",
            v1::CreateCollectionRequest {
                vectors_by: create_bare("bare").vectors_by,
                ..create("bare")
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/GetCollection",
            v1::GetCollectionRequest { name: things() }.encode_to_vec(),
        ),
        (
            "CollectionService/DeleteCollection",
            v1::DeleteCollectionRequest { name: "none".to_owned(), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/SetAlias",
            v1::SetAliasRequest {
                alias: Some(v1::Alias { name: "alias".to_owned(), collection: things() }),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/UpdateCollection",
            v1::UpdateCollectionRequest {
                collection: Some(v1::Collection { name: things(), ..Default::default() }),
                update_mask: mask(&["metadata"]),
                ..Default::default()
            }
            .encode_to_vec(),
        ),
    ]
}

fn changes_of_collections() -> Requests {
    vec![
        (
            "CollectionService/DeleteAlias",
            v1::DeleteAliasRequest { name: "alias".to_owned(), request_id: "d".to_owned() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/MeasureRecall",
            v1::MeasureRecallRequest {
                collection: things(),
                queries: 1,
                limit: 1,
                ef_search: 100,
                seed: 1,
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/CreateSnapshot",
            v1::CreateSnapshotRequest { collection: things(), request_id: "s".to_owned() }
                .encode_to_vec(),
        ),
        (
            "CollectionService/RestoreSnapshot",
            v1::RestoreSnapshotRequest {
                name: "snapshots/none".to_owned(),
                collection: "restored".to_owned(),
                request_id: "t".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "CollectionService/StartReembed",
            v1::StartReembedRequest {
                alias: "alias".to_owned(),
                embedding_digest: "0".repeat(64),
                collection: "again".to_owned(),
                request_id: "u".to_owned(),
            }
            .encode_to_vec(),
        ),
    ]
}

fn administration() -> Requests {
    let digest = "0".repeat(64);
    vec![
        ("AdminService/Compact", v1::CompactRequest { collection: things() }.encode_to_vec()),
        (
            "AdminService/LoadModel",
            v1::LoadModelRequest { path: "none".to_owned(), activate: true }.encode_to_vec(),
        ),
        (
            "AdminService/ActivateModel",
            v1::ActivateModelRequest { embedding_digest: digest.clone() }.encode_to_vec(),
        ),
        (
            "AdminService/UnloadModel",
            v1::UnloadModelRequest { embedding_digest: digest.clone(), force: true }
                .encode_to_vec(),
        ),
        (
            "AdminService/RunSelfTest",
            v1::RunSelfTestRequest { embedding_digest: digest }.encode_to_vec(),
        ),
    ]
}

fn operations() -> Requests {
    vec![
        (
            "OperationService/WaitOperation",
            v1::WaitOperationRequest {
                name: "operations/none".to_owned(),
                timeout: Some(prost_types::Duration { seconds: 0, nanos: 1 }),
            }
            .encode_to_vec(),
        ),
        (
            "OperationService/GetOperation",
            v1::GetOperationRequest { name: "operations/none".to_owned() }.encode_to_vec(),
        ),
    ]
}

fn filter() -> v1::Filter {
    let value = Some(text_value("v"));
    let compare = v1::Compare { key: "k".to_owned(), operator: 1, value };
    v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) }
}

/// The status of one call, its stream read to the end.
async fn answer(channel: &Channel, method: &Method, message: Vec<u8>) -> Status {
    let called = async {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(tokio_stream::iter([message]));
        let path = method.path.parse().unwrap();
        let mut replies = client.streaming(request, path, Raw).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, called).await {
        Ok(Ok(())) => Status::ok(""),
        Ok(Err(status)) => status,
        Err(_) => panic!("{} does not answer", method.path),
    }
}

/// What may be said of a request that lacks something: anything but that the server is at fault, or does not know.
fn must_be_clean(what: &str, status: &Status) {
    let clean = !matches!(
        status.code(),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Cancelled | Code::DeadlineExceeded
    );
    assert!(clean, "{what}: {status:?}");
    if status.code() != Code::Ok {
        let told = refusal(status);
        assert!(!told.reason.is_empty(), "{what}");
        let named = told.code != Code::InvalidArgument || !told.field.is_empty();
        assert!(named, "{what}: no field is named: {status:?}");
    }
}

#[tokio::test]
async fn every_method_answers_cleanly_whatever_is_left_out() {
    let server = Server::with_things().await;
    server.put("things", text_item("a", "a heart")).await;
    let contract = Contract::read();
    let mut whole = whole_requests();
    let mut asked = 0;
    for method in &contract.methods {
        let short = method.path.trim_start_matches("/diptych.v1.");
        let message = whole.remove(short).unwrap_or_default();
        let mut cases =
            vec![("nothing".to_owned(), Vec::new()), ("all".to_owned(), message.clone())];
        cases.extend(contract.without_each(&method.input, &message));
        for (missing, message) in cases {
            let status = answer(&server.channel, method, message).await;
            must_be_clean(&format!("{short} without {missing}"), &status);
            asked += 1;
        }
    }
    assert!(whole.is_empty(), "no such methods: {whole:?}");
    assert!(asked > 150, "only {asked} requests were made");
    assert!(contract.methods.iter().any(|method| method.streams));
    // And the server is as it was.
    let hits = server.search().search(ask("things", v1::Modality::Text, by_text("a heart"))).await;
    assert!(!hits.unwrap().into_inner().hits.is_empty());
}

#[test]
fn a_request_is_taken_apart_field_by_field_at_any_depth() {
    let contract = Contract::read();
    let request = upsert("things", text_item("a", "a heart")).encode_to_vec();
    let missing = contract.without_each(".diptych.v1.UpsertItemRequest", &request);
    let paths: Vec<&str> = missing.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(paths, ["collection", "item", "item.id", "item.text"]);
    let without_id = v1::UpsertItemRequest::decode(missing[2].1.as_slice()).unwrap();
    assert_eq!(without_id, upsert("things", text_item("", "a heart")));
}
