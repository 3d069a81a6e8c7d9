//! Items that are put, read, listed and deleted.

use diptych_proto::v1;
use diptych_tests::api::*;
use tonic::Code;

use super::{Case, Told, field, field_limit, huge, refused, tokens};

const UPSERT: &str = "ItemService/UpsertItem";
const LIST: &str = "ItemService/ListItems";
const DELETE: &str = "ItemService/DeleteItems";
const GET: &str = "ItemService/GetItem";

pub(super) fn cases() -> Vec<Case> {
    [names(), pages(), counts(), unset()].concat()
}

/// Ids and paths: too long, of odd letters, or paths of files.
fn names() -> Vec<Case> {
    let get = |id: &str| v1::GetItemRequest {
        collection: "things".to_owned(),
        id: id.to_owned(),
        read_mask: None,
    };
    let no_item = || Told::Refused(Code::NotFound, "ITEM_NOT_FOUND", "id".to_owned(), None);
    vec![
        Case::of("id: a path", GET, &get("../../good"), no_item()),
        Case::of("id: of letters that look alike", GET, &get("gооd"), no_item()),
        Case::of("id: a line", GET, &get("good\n"), field("id")),
        Case::of("id: of 8 MB", GET, &get(&huge()), field_limit("id", 256)),
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
    ]
}

fn pages() -> Vec<Case> {
    let case = |(what, page_token): (&str, String)| {
        let collection = "things".to_owned();
        let list = v1::ListItemsRequest { collection, page_token, ..Default::default() };
        let told = refused("PAGE_TOKEN_INVALID", "page_token");
        Case::of(&format!("token of a listing: {what}"), LIST, &list, told)
    };
    tokens().into_iter().map(case).collect()
}

/// More of something than there may be.
fn counts() -> Vec<Case> {
    let collection = || "things".to_owned();
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
    vec![
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
fn unset() -> Vec<Case> {
    let item = |input| v1::ItemInput { id: "a".to_owned(), input, ..Default::default() };
    let delete = v1::DeleteItemsRequest { collection: "things".to_owned(), ..Default::default() };
    let no_vectors = v1::item_input::Input::Vectors(v1::Vectors::default());
    vec![
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
    ]
}
