//! Requests: the bytes of a message to the method that takes it, in a server of its own without a socket.

use std::cell::RefCell;
use std::sync::Arc;

use diptych_index::{EmbeddedConfig, EmbeddedEngine};
use diptych_model::testing::{disc, tiny_bundle};
use diptych_proto::v1;
use diptych_server::config::{Config, Flags};
use diptych_server::encoder::Decoders;
use diptych_server::grpc::fuzzing::{Answer, Methods, NAMES};
use diptych_server::models::{Model, Models};
use diptych_server::page::PageKey;
use diptych_server::service::Service;
use prost::Message as _;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Calls of one server: what they wrote goes with it.
const CALLS: u32 = 20_000;
/// gRPC's INTERNAL, which no request may bring about.
const INTERNAL: i32 = 13;

struct Server {
    methods: Methods,
    runtime: Runtime,
    left: u32,
    _data: TempDir,
}

impl Server {
    fn start() -> Self {
        // Where nothing is written to a disk, if there is such a place.
        let data = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let config = Config::resolve(&Flags::default(), std::iter::empty()).expect("no settings");
        let engine = EmbeddedEngine::open(&EmbeddedConfig::new(data.path().join("store")));
        let bundle = tiny_bundle(7).expect("the bundle of tests");
        let decoders = Arc::new(Decoders::start(1, config.decode_bytes).expect("a thread"));
        let model = Model::start(bundle, config.encoder, &decoders).expect("the bundle of tests");
        let models = Arc::new(Models::new(data.path().join("bundles"), model));
        let key = PageKey::new(*b"0123456789abcdef");
        let engine = Arc::new(engine.expect("an empty store"));
        let service = Service::new(engine, models, config.limits, key);
        service.set_ready(true);
        let methods = Methods::new(Arc::new(service), &config);
        let server = Self { methods, runtime, left: CALLS, _data: data };
        for (method, message) in furniture() {
            assert_eq!(server.call(method, &message), Answer::Answered, "{}", NAMES[method]);
        }
        server
    }

    fn call(&self, method: usize, message: &[u8]) -> Answer {
        self.runtime.block_on(self.methods.call(method, message))
    }
}

/// Whatever is asked is answered or refused with a reason, and never a fault of the server.
pub fn requests(data: &[u8]) {
    thread_local! {
        static SERVER: RefCell<Option<Server>> = const { RefCell::new(None) };
    }
    SERVER.with_borrow_mut(|kept| {
        let server = kept.get_or_insert_with(Server::start);
        let (method, message) = crate::choice(data);
        if let Answer::Refused(code, reason) = server.call(method, message) {
            let name = NAMES[method % NAMES.len()];
            assert!(code != INTERNAL && !reason.is_empty(), "{name}: code {code}, {reason:?}");
        }
        server.left -= 1;
        if server.left == 0 {
            *kept = None;
        }
    });
}

fn number(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("a method that is there")
}

fn item(id: &str, input: v1::item_input::Input) -> v1::UpsertItemRequest {
    let value = v1::Value { kind: Some(v1::value::Kind::IntValue(3)) };
    let metadata = [("a".to_owned(), value)].into();
    let (id, group) = (id.to_owned(), "g".to_owned());
    let item = v1::ItemInput { id, input: Some(input), group, metadata, ..Default::default() };
    v1::UpsertItemRequest {
        collection: "things".to_owned(),
        item: Some(item),
        ..Default::default()
    }
}

/// What a server has before it is asked.
fn furniture() -> Vec<(usize, Vec<u8>)> {
    let create = v1::CreateCollectionRequest { name: "things".to_owned(), ..Default::default() };
    let dims = v1::Dimensions { shared: 4, exclusive_image: 2, exclusive_text: 2 };
    let bare = v1::CreateCollectionRequest {
        name: "bare".to_owned(),
        vectors_by: Some(v1::create_collection_request::VectorsBy::Dimensions(dims)),
        ..Default::default()
    };
    let picture = disc(9, 9).expect("a picture");
    let upsert = number("upsert_item");
    vec![
        (number("create_collection"), create.encode_to_vec()),
        (number("create_collection"), bare.encode_to_vec()),
        (upsert, item("text", v1::item_input::Input::Text("a heart".to_owned())).encode_to_vec()),
        (upsert, item("image", v1::item_input::Input::Image(picture.into())).encode_to_vec()),
    ]
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let things = || "things".to_owned();
    let text = || v1::term::Source::Text("a heart".to_owned());
    let floats = v1::FloatList { values: vec![1.0; 4] };
    let vector = v1::Vector { dimension: 4, values: Some(v1::vector::Values::Floats(floats)) };
    let term = |source| v1::Term { source: Some(source), weight: 0.5, space: 1 };
    let search = |collection: &str, source| v1::SearchRequest {
        collection: collection.to_owned(),
        terms: vec![term(source)],
        target: 2,
        limit: 3,
        min_score: Some(-1.0),
        ..Default::default()
    };
    let id = || v1::term::Source::ItemId("image".to_owned());
    let mask = Some(prost_types::FieldMask { paths: vec!["source".to_owned()] });
    let input = v1::EmbedInput {
        input: Some(v1::embed_input::Input::Text("a".to_owned())),
        truncate: true,
    };
    let entry = v1::batch_upsert_items_request::Entry {
        item: item("b", v1::item_input::Input::Text("b".to_owned())).item,
        expected_version: Some(0),
    };
    let ids = v1::ItemIds { ids: vec!["nobody".to_owned()] };
    let alias = v1::Alias { name: "other".to_owned(), collection: things() };
    let all: Vec<(&str, Vec<u8>)> = vec![
        ("search", search("things", text()).encode_to_vec()),
        ("search", search("things", id()).encode_to_vec()),
        ("search", search("bare", v1::term::Source::Vector(vector)).encode_to_vec()),
        (
            "batch_search",
            v1::BatchSearchRequest { searches: vec![search("things", id()); 2] }.encode_to_vec(),
        ),
        (
            "explain_match",
            v1::ExplainMatchRequest {
                search: Some(search("things", text())),
                item_id: "text".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "search_text_to_image",
            v1::SearchTextToImageRequest {
                collection: things(),
                text: "a".to_owned(),
                limit: 1,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "embed_text",
            v1::EmbedTextRequest { text: "a heart".to_owned(), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            "batch_embed",
            v1::BatchEmbedRequest { inputs: vec![input; 2], ..Default::default() }.encode_to_vec(),
        ),
        (
            "batch_upsert_items",
            v1::BatchUpsertItemsRequest {
                collection: things(),
                entries: vec![entry],
                request_id: "r".to_owned(),
            }
            .encode_to_vec(),
        ),
        (
            "get_item",
            v1::GetItemRequest {
                collection: things(),
                id: "text".to_owned(),
                read_mask: mask.clone(),
            }
            .encode_to_vec(),
        ),
        (
            "list_items",
            v1::ListItemsRequest {
                collection: things(),
                page_size: 1,
                group: "g".to_owned(),
                read_mask: mask,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "delete_items",
            v1::DeleteItemsRequest {
                collection: things(),
                selection: Some(v1::delete_items_request::Selection::Ids(ids)),
                dry_run: true,
                ..Default::default()
            }
            .encode_to_vec(),
        ),
        (
            "list_collections",
            v1::ListCollectionsRequest { page_size: 1, ..Default::default() }.encode_to_vec(),
        ),
        (
            "set_alias",
            v1::SetAliasRequest { alias: Some(alias), ..Default::default() }.encode_to_vec(),
        ),
        (
            "measure_recall",
            v1::MeasureRecallRequest { collection: things(), ..Default::default() }.encode_to_vec(),
        ),
    ];
    let seed =
        |(name, message): (&str, Vec<u8>)| [&[number(name) as u8], message.as_slice()].concat();
    let furniture = furniture()
        .into_iter()
        .map(|(method, message)| [&[method as u8], message.as_slice()].concat());
    all.into_iter().map(seed).chain(furniture).collect()
}
