//! Messages: bytes that do not parse, and fields whose values no client of ours sends.

use diptych_proto::v1;
use diptych_proto::v1::filter::Condition;
use diptych_proto::v1::term::Source;
use diptych_tests::api::*;
use diptych_tests::wire;
use prost::Message as _;
use tonic::Code;

use super::{Case, Told, limited, refused};

const SEARCH: &str = "SearchService/Search";
const BATCH: &str = "SearchService/BatchSearch";
const UPSERT: &str = "ItemService/UpsertItem";
const LIST: &str = "ItemService/ListItems";
const DELETE: &str = "ItemService/DeleteItems";
const GET: &str = "ItemService/GetItem";

/// Dimension of the sample bundle's shared vectors.
const SHARED: usize = 128;

pub(super) fn cases() -> Vec<Case> {
    [unreadable(), unknown(), vectors(), scores(), filters(), names(), tokens(), counts(), unset()]
        .concat()
}

fn good() -> v1::SearchRequest {
    ask("things", v1::Modality::Text, by_text("a red heart"))
}

fn field(name: &str) -> Told {
    refused("FIELD_INVALID", name)
}

fn field_limit(name: &str, limit: u64) -> Told {
    limited("FIELD_INVALID", name, limit)
}

/// Bytes that are no message. All are told of the message as a whole.
fn unreadable() -> Vec<Case> {
    let search = good().encode_to_vec();
    let nested = |levels: usize| {
        let leaf = wire::long(6, wire::long(1, "a"));
        (0..levels).fold(leaf, |inner, _| wire::long(3, inner))
    };
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("cut", search[..search.len() - 1].to_vec()),
        ("cut in its first number", vec![0x80]),
        ("a number of eleven bytes", [wire::tag(5, 0), vec![0xFF; 11]].concat()),
        ("a length beyond the end", [wire::tag(1, 2), wire::varint(100), b"abc".to_vec()].concat()),
        ("a length of 2^63", [wire::tag(1, 2), wire::varint(1 << 63)].concat()),
        ("a length of 2^64 - 1", [wire::tag(1, 2), wire::varint(u64::MAX)].concat()),
        ("field 0", wire::number(0, 1)),
        ("field 2^29", [wire::varint(1 << 32), vec![1]].concat()),
        ("wire type 6", vec![0x0E, 0]),
        ("wire type 7", vec![0x0F, 0]),
        ("a name as a number", wire::number(1, 7)),
        ("terms as numbers", wire::number(2, 7)),
        ("a limit as a string", wire::long(5, "ten")),
        ("a score as four bytes", [wire::tag(7, 5), vec![0; 4]].concat()),
        ("a group that never ends", wire::tag(99, 3)),
        ("the end of a group that never began", wire::tag(99, 4)),
        ("1,000 groups in one another", wire::tag(99, 3).repeat(1000)),
        ("200 filters in one another", [search.clone(), wire::long(4, nested(200))].concat()),
        (
            "100,000 filters in one another",
            [search.clone(), wire::long(4, nested(100_000))].concat(),
        ),
        ("noise", (0..500_u32).map(|place| (place * 167 + 13) as u8).collect()),
        ("ones", vec![0xFF; 5000]),
        ("a page of HTML", b"<html><body>504</body></html>".to_vec()),
    ];
    let case = |(what, message): (&str, Vec<u8>)| {
        Case::new(format!("message: {what}"), SEARCH, message, field("message"))
    };
    messages.into_iter().map(case).collect()
}

/// What a newer client may send: fields and values that are not known are passed over or told.
fn unknown() -> Vec<Case> {
    let search = good().encode_to_vec();
    let with = |more: Vec<u8>| [search.clone(), more].concat();
    vec![
        Case::new("message: empty", SEARCH, Vec::new(), field("target")),
        Case::new("message: zeros", SEARCH, vec![0; 100], field("message")),
        Case::new(
            "message: an unknown field",
            SEARCH,
            with(wire::long(9999, "new")),
            Told::Answered,
        ),
        Case::new(
            "message: 100,000 unknown fields",
            SEARCH,
            with(wire::number(9999, 1).repeat(100_000)),
            Told::Answered,
        ),
        Case::new(
            "message: a megabyte of an unknown field",
            SEARCH,
            with(wire::long(9999, vec![7; 1 << 20])),
            Told::Answered,
        ),
        Case::new(
            "message: a field a thousand times",
            SEARCH,
            with(wire::number(5, 3).repeat(1000)),
            Told::Answered,
        ),
        Case::new("message: an unknown target", SEARCH, with(wire::number(3, 77)), field("target")),
        Case::new(
            "message: a target below 0",
            SEARCH,
            with(wire::number(3, u64::MAX)),
            field("target"),
        ),
        Case::of("message: an unknown space", SEARCH, &spaced(9), field("terms[0].space")),
        Case::new(
            "message: a truth of 2^63",
            SEARCH,
            with(wire::number(11, 1 << 63)),
            Told::Answered,
        ),
        Case::new(
            "message: a limit beyond 32 bits",
            SEARCH,
            with(wire::number(5, (7 << 32) | 3)),
            Told::Answered,
        ),
    ]
}

fn spaced(space: i32) -> v1::SearchRequest {
    let mut search = good();
    search.terms[0].space = space;
    search
}

fn by_vector(what: &str, vector: v1::Vector, told: Told) -> Case {
    let search = ask("things", v1::Modality::Text, Source::Vector(vector));
    Case::of(&format!("vector: {what}"), SEARCH, &search, told)
}

fn vectors() -> Vec<Case> {
    let all = |value: f32| [value; SHARED];
    let one = |value: f32| {
        let mut vector = all(1.0);
        vector[5] = value;
        floats(&vector)
    };
    let invalid = || refused("VECTOR_INVALID", "terms[0].vector");
    let mismatch = || limited("DIMENSION_MISMATCH", "terms[0].vector", SHARED as u64);
    let bytes = |count: usize| v1::Vector {
        dimension: 0,
        values: Some(v1::vector::Values::PackedF32(vec![1; count].into())),
    };
    let told_otherwise = v1::Vector { dimension: 7, ..packed(&all(1.0)) };
    vec![
        by_vector("not a number", one(f32::NAN), invalid()),
        by_vector(
            "not a number, negative, with a load",
            one(f32::from_bits(0xFFC1_2345)),
            invalid(),
        ),
        by_vector("infinite", one(f32::INFINITY), invalid()),
        by_vector("infinite, negative", one(f32::NEG_INFINITY), invalid()),
        by_vector("zeros", floats(&all(0.0)), invalid()),
        by_vector("negative zeros", packed(&all(-0.0)), invalid()),
        by_vector("the smallest numbers", floats(&all(f32::from_bits(1))), Told::Answered),
        by_vector("the largest numbers", packed(&all(f32::MAX)), Told::Answered),
        by_vector("one of the largest numbers", one(f32::MAX), Told::Answered),
        by_vector("sizes far apart", one(1e30), Told::Answered),
        by_vector("without values", v1::Vector::default(), field("terms[0].vector")),
        by_vector("of no numbers", floats(&[]), invalid()),
        by_vector("of no bytes", bytes(0), invalid()),
        by_vector("of a number more", floats(&[1.0; SHARED + 1]), mismatch()),
        by_vector("of a million numbers", packed(&vec![1.0; 1_000_000]), mismatch()),
        by_vector("of 3 bytes", bytes(3), invalid()),
        by_vector(
            "of another dimension than it says",
            told_otherwise,
            refused("DIMENSION_MISMATCH", "terms[0].vector"),
        ),
    ]
}

fn scores() -> Vec<Case> {
    let scored = |score: f64| v1::SearchRequest { min_score: Some(score), ..good() };
    let weighed = |weight: f32| {
        let mut search = good();
        search.terms[0].weight = weight;
        search
    };
    let list = |what: &str, search: v1::SearchRequest, told| Case::of(what, SEARCH, &search, told);
    vec![
        list("least score: not a number", scored(f64::NAN), field("min_score")),
        list("least score: infinite", scored(f64::INFINITY), field("min_score")),
        list("least score: beyond 32 bits", scored(1e300), field("min_score")),
        list("least score: the smallest", scored(f64::from_bits(1)), Told::Answered),
        list("weight: not a number", weighed(f32::NAN), field("terms[0].weight")),
        list("weight: infinite", weighed(f32::INFINITY), field("terms[0].weight")),
        list("weight: the largest", weighed(f32::MAX), field("terms[0].weight")),
        list("weight: the smallest", weighed(f32::from_bits(1)), field("terms[0].weight")),
        list("weight: negative zero", weighed(-0.0), Told::Answered),
        list("weight: negative", weighed(-1.0), field("terms")),
        list(
            "ef_search: the largest",
            v1::SearchRequest { ef_search: u32::MAX, ..good() },
            field_limit("ef_search", 10_000),
        ),
        list(
            "limit: the largest",
            v1::SearchRequest { limit: u32::MAX, ..good() },
            field_limit("limit", 1000),
        ),
        list(
            "prefix: the largest",
            v1::SearchRequest { prefix_dims: u32::MAX, ..good() },
            field("prefix_dims"),
        ),
    ]
}

fn filters() -> Vec<Case> {
    let node = |condition| v1::Filter { condition: Some(condition) };
    let exists = |key: &str| node(Condition::Exists(v1::Exists { key: key.to_owned() }));
    let nots = |levels: usize| {
        (1..levels).fold(exists("a"), |inner, _| node(Condition::Not(Box::new(inner))))
    };
    let and = |filters| node(Condition::And(v1::FilterList { filters }));
    let compare = |operator, value| {
        let key = "a".to_owned();
        node(Condition::Compare(v1::Compare { key, operator, value: Some(value) }))
    };
    let float = |value| v1::Value { kind: Some(v1::value::Kind::FloatValue(value)) };
    let within = |least, most| {
        let key = "a".to_owned();
        node(Condition::Range(v1::Range { key, at_least: least, at_most: most }))
    };
    let any_of = |count: usize| {
        let values = vec![int_value(1); count];
        node(Condition::In(v1::In { key: "a".to_owned(), values }))
    };
    let list = v1::Value { kind: Some(v1::value::Kind::TextList(v1::TextList::default())) };
    let truth = v1::Value { kind: Some(v1::value::Kind::BoolValue(true)) };
    let too_large = |limit| limited("FILTER_TOO_LARGE", "filter", limit);
    let filters: Vec<(&str, v1::Filter, Told)> = vec![
        ("8 levels", nots(8), Told::Answered),
        ("9 levels", nots(9), too_large(8)),
        ("40 levels", nots(40), too_large(8)),
        ("128 nodes", and(vec![exists("a"); 127]), Told::Answered),
        ("129 nodes", and(vec![exists("a"); 128]), too_large(128)),
        ("60,000 nodes", and(vec![exists("a"); 60_000]), too_large(128)),
        ("128 lists of 8", and(vec![and(vec![exists("a"); 8]); 128]), too_large(128)),
        ("lists of nothing", and(vec![and(Vec::new()); 100]), Told::Answered),
        ("nothing", v1::Filter::default(), field("filter")),
        ("nothing within", and(vec![v1::Filter::default()]), field("filter")),
        ("no key", exists(""), field("filter.key")),
        ("a key of a megabyte", exists(&"k".repeat(1 << 20)), field_limit("filter.key", 64)),
        ("an unknown operator", compare(77, int_value(1)), field("filter.compare.operator")),
        ("less than a truth", compare(3, truth), field("filter")),
        ("equal to a list", compare(1, list), field("filter.value")),
        ("equal to no kind", compare(1, v1::Value::default()), field("filter.value")),
        ("equal to no number", compare(1, float(f64::NAN)), field("filter.value.float_value")),
        ("below infinity", within(None, Some(f64::INFINITY)), field("filter.range")),
        ("from the end to the start", within(Some(9.0), Some(-9.0)), Told::Answered),
        ("one of nothing", any_of(0), field("filter.in.values")),
        ("one of 128", any_of(128), Told::Answered),
        ("one of 129", any_of(129), field_limit("filter.in.values", 128)),
        ("one of 100,000", any_of(100_000), field_limit("filter.in.values", 128)),
    ];
    let case = |(what, filter, told): (&str, v1::Filter, Told)| {
        let search = v1::SearchRequest { filter: Some(filter), ..good() };
        Case::of(&format!("filter: {what}"), SEARCH, &search, told)
    };
    filters.into_iter().map(case).collect()
}

/// Names, ids, keys and groups: too long, of odd letters, or paths.
#[expect(clippy::too_many_lines, reason = "a table")]
fn names() -> Vec<Case> {
    let huge = || "n".repeat(8 << 20);
    let search =
        |collection: &str| v1::SearchRequest { collection: collection.to_owned(), ..good() };
    let missing =
        |field: &str| Told::Refused(Code::NotFound, "COLLECTION_NOT_FOUND", field.to_owned(), None);
    let get = |id: &str| v1::GetItemRequest {
        collection: "things".to_owned(),
        id: id.to_owned(),
        read_mask: None,
    };
    let no_item = || Told::Refused(Code::NotFound, "ITEM_NOT_FOUND", "id".to_owned(), None);
    let create = |name: &str| create(name).encode_to_vec();
    const CREATE: &str = "CollectionService/CreateCollection";
    let none = |name: String| v1::GetOperationRequest { name };
    let no_operation =
        || Told::Refused(Code::NotFound, "OPERATION_NOT_FOUND", "name".to_owned(), None);
    vec![
        Case::of("collection: none", SEARCH, &search(""), field("collection")),
        Case::of("collection: a path", SEARCH, &search("../things"), missing("collection")),
        Case::of("collection: hidden", SEARCH, &search("~things"), missing("collection")),
        Case::of("collection: of other case", SEARCH, &search("Things"), missing("collection")),
        Case::of(
            "collection: with a zero byte",
            SEARCH,
            &search("things\0"),
            missing("collection"),
        ),
        Case::of("collection: of 8 MB", SEARCH, &search(&huge()), field_limit("collection", 63)),
        Case::new("new collection: a path", CREATE, create("../a"), field("name")),
        Case::new("new collection: hidden", CREATE, create("~a"), field("name")),
        Case::new("new collection: a space", CREATE, create("a b"), field("name")),
        Case::new("new collection: of 8 MB", CREATE, create(&huge()), field_limit("name", 63)),
        Case::of("id: a path", GET, &get("../../good"), no_item()),
        Case::of("id: of letters that look alike", GET, &get("gооd"), no_item()),
        Case::of("id: a line", GET, &get("good\n"), field("id")),
        Case::of("id: of 8 MB", GET, &get(&huge()), field_limit("id", 256)),
        Case::of(
            "operation: none",
            "OperationService/GetOperation",
            &none(String::new()),
            field("name"),
        ),
        Case::of(
            "operation: unknown",
            "OperationService/GetOperation",
            &none("x".to_owned()),
            no_operation(),
        ),
        Case::of(
            "operation: of 8 MB",
            "OperationService/GetOperation",
            &none(huge()),
            no_operation(),
        ),
        Case::of(
            "request id: of 8 MB",
            UPSERT,
            &v1::UpsertItemRequest { request_id: huge(), ..upsert("things", text_item("a", "a")) },
            field_limit("request_id", 128),
        ),
        Case::of(
            "mask: 100,000 paths",
            GET,
            &v1::GetItemRequest { read_mask: mask(&["x"; 100_000]), ..get("good") },
            field("read_mask.paths[0]"),
        ),
        Case::of(
            "mask: a path of 8 MB",
            GET,
            &v1::GetItemRequest { read_mask: mask(&[&huge()]), ..get("good") },
            field("read_mask.paths[0]"),
        ),
        Case::of(
            "digest: of 8 MB",
            "EmbeddingService/EmbedText",
            &v1::EmbedTextRequest {
                text: "a".to_owned(),
                embedding_digest: huge(),
                ..Default::default()
            },
            field_limit("embedding_digest", 64),
        ),
        Case::of(
            "engine: of 8 MB",
            CREATE,
            &v1::CreateCollectionRequest { engine: huge(), ..super::create("a") },
            field("engine"),
        ),
        Case::of(
            "alias: of 8 MB",
            "CollectionService/SetAlias",
            &v1::SetAliasRequest {
                alias: Some(v1::Alias { name: huge(), collection: "things".to_owned() }),
                ..Default::default()
            },
            field_limit("alias.name", 63),
        ),
        Case::of(
            "snapshot: a path",
            "CollectionService/RestoreSnapshot",
            &v1::RestoreSnapshotRequest {
                name: "../../etc/passwd".to_owned(),
                ..Default::default()
            },
            Told::Refused(Code::NotFound, "SNAPSHOT_NOT_FOUND", "name".to_owned(), None),
        ),
    ]
}

fn tokens() -> Vec<Case> {
    let tokens: [(&str, String); 7] = [
        ("a letter", "x".to_owned()),
        ("no base64", "not base64 at all!".to_owned()),
        ("of zeros", "A".repeat(80)),
        ("with padding", "QUFB=".to_owned()),
        ("of 8 MB", "A".repeat(8 << 20)),
        ("odd letters", "ключ".to_owned()),
        ("of another version", "_".repeat(80)),
    ];
    let told = || refused("PAGE_TOKEN_INVALID", "page_token");
    let case = |(what, page_token): (&str, String)| {
        let search = v1::SearchRequest { page_token: page_token.clone(), ..good() };
        let collection = "things".to_owned();
        let list = v1::ListItemsRequest { collection, page_token, ..Default::default() };
        [
            Case::of(&format!("token of a search: {what}"), SEARCH, &search, told()),
            Case::of(&format!("token of a listing: {what}"), LIST, &list, told()),
        ]
    };
    tokens.into_iter().flat_map(case).collect()
}

/// Parts of a message at most.
fn too_many_parts() -> Told {
    let field = "message".to_owned();
    Told::Refused(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", field, Some(300_000))
}

/// More of something than there may be.
#[expect(clippy::too_many_lines, reason = "a table")]
fn counts() -> Vec<Case> {
    let collection = || "things".to_owned();
    let terms = vec![good().terms.remove(0); 20_000];
    let searches = |count| v1::BatchSearchRequest { searches: vec![good(); count] };
    let ids = v1::ItemIds { ids: vec!["x".to_owned(); 50_000] };
    let delete = v1::DeleteItemsRequest {
        collection: collection(),
        selection: Some(v1::delete_items_request::Selection::Ids(ids)),
        ..Default::default()
    };
    let metadata = (0..5000).map(|number| (format!("k{number}"), int_value(number))).collect();
    let item = |metadata| v1::ItemInput { metadata, ..text_item("a", "a heart") };
    let texts = v1::TextList { values: vec![String::new(); 50_000] };
    let texts = v1::Value { kind: Some(v1::value::Kind::TextList(texts)) };
    let texts = [("k".to_owned(), texts)].into();
    let inputs = vec![v1::EmbedInput::default(); 5000];
    let embed = v1::BatchEmbedRequest { inputs, ..Default::default() };
    vec![
        Case::of(
            "count: 20,000 terms",
            SEARCH,
            &v1::SearchRequest { terms, ..good() },
            field_limit("terms", 16),
        ),
        // Two bytes each, and a hundred in memory: told before they are made.
        Case::new(
            "count: 8,000,000 terms",
            SEARCH,
            wire::long(2, "").repeat(8_000_000),
            too_many_parts(),
        ),
        Case::new(
            "count: 8,000,000 searches",
            BATCH,
            wire::long(1, "").repeat(8_000_000),
            too_many_parts(),
        ),
        Case::new(
            "count: 7,000,000 filters",
            SEARCH,
            wire::long(4, wire::long(1, wire::long(1, "").repeat(7_000_000))),
            too_many_parts(),
        ),
        Case::of("count: no searches", BATCH, &searches(0), field("searches")),
        Case::of("count: 2,000 searches", BATCH, &searches(2000), field_limit("searches", 64)),
        Case::of("count: 50,000 ids", DELETE, &delete, field_limit("ids.ids", 1000)),
        Case::of(
            "count: 5,000 keys",
            UPSERT,
            &upsert("things", item(metadata)),
            field_limit("item.metadata", 64),
        ),
        Case::of(
            "count: 50,000 texts",
            UPSERT,
            &upsert("things", item(texts)),
            field_limit("item.metadata.k.text_list", 64),
        ),
        Case::of(
            "count: 5,000 inputs",
            "EmbeddingService/BatchEmbed",
            &embed,
            field_limit("inputs", 64),
        ),
        Case::of(
            "count: pages of 2^32",
            LIST,
            &v1::ListItemsRequest {
                collection: collection(),
                page_size: u32::MAX,
                ..Default::default()
            },
            field_limit("page_size", 1000),
        ),
    ]
}

/// Messages and alternatives that are not set.
#[expect(clippy::too_many_lines, reason = "a table")]
fn unset() -> Vec<Case> {
    let item = |input| v1::ItemInput { id: "a".to_owned(), input, ..Default::default() };
    let sourceless = v1::SearchRequest { terms: vec![v1::Term::default()], ..good() };
    let delete = v1::DeleteItemsRequest { collection: "things".to_owned(), ..Default::default() };
    let no_vectors = v1::item_input::Input::Vectors(v1::Vectors::default());
    vec![
        Case::of("unset: a term's source", SEARCH, &sourceless, field("terms[0].source")),
        Case::of(
            "unset: all terms",
            SEARCH,
            &v1::SearchRequest { terms: Vec::new(), ..good() },
            field("terms"),
        ),
        Case::of(
            "unset: an item",
            UPSERT,
            &v1::UpsertItemRequest { item: None, ..upsert("things", item(None)) },
            field("item"),
        ),
        Case::of(
            "unset: an item's input",
            UPSERT,
            &upsert("things", item(None)),
            field("item.input"),
        ),
        Case::of(
            "unset: vectors of an item",
            UPSERT,
            &upsert("things", item(Some(no_vectors))),
            field("item.modality"),
        ),
        Case::of("unset: what to delete", DELETE, &delete, field("selection")),
        Case::new(
            "unset: what to explain",
            "SearchService/ExplainMatch",
            Vec::new(),
            field("search"),
        ),
        Case::new("unset: an alias", "CollectionService/SetAlias", Vec::new(), field("alias")),
        Case::new(
            "unset: a collection to change",
            "CollectionService/UpdateCollection",
            Vec::new(),
            field("collection"),
        ),
        Case::of(
            "unset: a metadata value",
            UPSERT,
            &upsert(
                "things",
                v1::ItemInput {
                    metadata: [("k".to_owned(), v1::Value::default())].into(),
                    ..text_item("a", "a")
                },
            ),
            field("item.metadata.k"),
        ),
        Case::of(
            "a wait below 0",
            "OperationService/WaitOperation",
            &v1::WaitOperationRequest {
                name: "x".to_owned(),
                timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
            },
            field("timeout"),
        ),
        Case::of(
            "a wait of half a second below 0",
            "OperationService/WaitOperation",
            &v1::WaitOperationRequest {
                name: "x".to_owned(),
                timeout: Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN }),
            },
            field("timeout"),
        ),
    ]
}
