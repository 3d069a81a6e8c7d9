//! Aliases: set, moved under a condition, listed, deleted; and settings of a collection.

use diptych_proto::v1;
use tonic::Code;

use super::support::*;

fn alias(name: &str, collection: &str) -> v1::SetAliasRequest {
    let alias = v1::Alias { name: name.to_owned(), collection: collection.to_owned() };
    v1::SetAliasRequest { alias: Some(alias), ..Default::default() }
}

fn told(code: Code, reason: &str, field: &str) -> Refusal {
    Refusal { code, reason: reason.to_owned(), field: field.to_owned(), limit: None }
}

#[tokio::test]
async fn every_call_takes_an_alias_and_a_moved_one_leads_to_the_other_collection() {
    let server = Server::start().await;
    server.make(create("old")).await;
    server.make(create("new")).await;
    assert_eq!(server.set_alias("now", "old").await.previous_collection, "");
    server.put("now", text_item("a", "a heart")).await;
    let shown = server.collection("now").await;
    assert_eq!(
        (shown.name.as_str(), shown.aliases.as_slice()),
        ("old", ["now".to_owned()].as_slice())
    );
    assert_eq!(shown.counts.unwrap().texts, 1);
    let search = ask("now", v1::Modality::Text, by_text("a heart"));
    let found = server.search().search(search.clone()).await.unwrap().into_inner();
    assert_eq!(ids(&found.hits), ["a"]);
    let list = v1::ListItemsRequest { collection: "now".to_owned(), ..Default::default() };
    assert_eq!(server.items().list_items(list).await.unwrap().into_inner().items.len(), 1);
    assert_eq!(server.set_alias("now", "new").await.previous_collection, "old");
    let found = server.search().search(search).await.unwrap().into_inner();
    assert!(found.hits.is_empty());
    assert!(server.collection("old").await.aliases.is_empty());
}

#[tokio::test]
async fn an_alias_moves_only_from_where_it_was_expected() {
    let server = Server::start().await;
    server.make(create("old")).await;
    server.make(create("new")).await;
    let mut collections = server.collections();
    let set = |collection: &str, expected: &str| v1::SetAliasRequest {
        expected_collection: Some(expected.to_owned()),
        ..alias("now", collection)
    };
    let mismatch = told(Code::Aborted, "ALIAS_MISMATCH", "expected_collection");
    assert_eq!(refused(collections.set_alias(set("old", "new"))).await, mismatch);
    collections.set_alias(set("old", "")).await.unwrap();
    assert_eq!(refused(collections.set_alias(set("new", ""))).await, mismatch);
    collections.set_alias(set("new", "old")).await.unwrap();
    // The same request again gets the answer of the first, though the alias has moved.
    let repeated = v1::SetAliasRequest { request_id: "one".to_owned(), ..set("old", "new") };
    let first = collections.set_alias(repeated.clone()).await.unwrap().into_inner();
    assert_eq!(collections.set_alias(repeated).await.unwrap().into_inner(), first);
}

#[tokio::test]
async fn a_name_is_a_collection_or_an_alias_never_both() {
    let server = Server::start().await;
    server.make(create("things")).await;
    server.set_alias("now", "things").await;
    let mut collections = server.collections();
    let exists = |field: &str| told(Code::AlreadyExists, "COLLECTION_EXISTS", field);
    assert_eq!(refused(collections.create_collection(create("now"))).await, exists("name"));
    let refusal = refused(collections.set_alias(alias("things", "things"))).await;
    assert_eq!(refusal, exists("alias.name"));
    let missing = told(Code::NotFound, "COLLECTION_NOT_FOUND", "alias.collection");
    assert_eq!(refused(collections.set_alias(alias("new", "none"))).await, missing);
    for (name, collection, field) in [
        ("Bad", "things", "alias.name"),
        ("a", "now", "alias.collection"),
        ("", "things", "alias.name"),
    ] {
        let refusal = refused(collections.set_alias(alias(name, collection))).await;
        assert_eq!(refusal, invalid("FIELD_INVALID", field, None));
    }
    let refusal = refused(collections.set_alias(v1::SetAliasRequest::default())).await;
    assert_eq!(refusal, invalid("FIELD_INVALID", "alias", None));
}

#[tokio::test]
async fn a_collection_with_an_alias_cannot_be_dropped_and_an_alias_is_deleted_by_its_own_call() {
    let server = Server::start().await;
    server.make(create("things")).await;
    server.set_alias("now", "things").await;
    let mut collections = server.collections();
    let drop =
        |name: &str| v1::DeleteCollectionRequest { name: name.to_owned(), ..Default::default() };
    let held = refused(collections.delete_collection(drop("things"))).await;
    assert_eq!(
        (held.code, held.reason.as_str()),
        (Code::FailedPrecondition, "COLLECTION_HAS_ALIAS")
    );
    let refusal = refused(collections.delete_collection(drop("now"))).await;
    assert_eq!(refusal, invalid("FIELD_INVALID", "name", None));
    let delete =
        |name: &str| v1::DeleteAliasRequest { name: name.to_owned(), ..Default::default() };
    let missing = told(Code::NotFound, "ALIAS_NOT_FOUND", "name");
    assert_eq!(refused(collections.delete_alias(delete("things"))).await, missing);
    collections.delete_alias(delete("now")).await.unwrap();
    assert_eq!(refused(collections.delete_alias(delete("now"))).await, missing);
    collections.delete_collection(drop("things")).await.unwrap();
}

#[tokio::test]
async fn aliases_are_listed_by_name_in_pages() {
    let server = Server::start().await;
    server.make(create("things")).await;
    for name in ["c", "a", "b"] {
        server.set_alias(name, "things").await;
    }
    let mut request = v1::ListAliasesRequest { page_size: 2, ..Default::default() };
    let first = server.collections().list_aliases(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = server.collections().list_aliases(request).await.unwrap().into_inner();
    let all = first.aliases.iter().chain(&second.aliases);
    let names: Vec<&str> = all.map(|alias| alias.name.as_str()).collect();
    assert_eq!(
        (names.as_slice(), second.next_page_token.as_str()),
        (["a", "b", "c"].as_slice(), "")
    );
    assert_eq!(server.collection("things").await.aliases, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_collection_is_told_to_keep_no_sources_and_what_else_is_asked_is_refused() {
    let server = Server::with_things().await;
    server.set_alias("now", "things").await;
    let update = |name: &str, paths: &[&str]| v1::UpdateCollectionRequest {
        collection: Some(v1::Collection { name: name.to_owned(), ..Default::default() }),
        update_mask: mask(paths),
        ..Default::default()
    };
    let mut collections = server.collections();
    let changed = collections.update_collection(update("now", &["keep_source"])).await.unwrap();
    let changed = changed.into_inner().collection.unwrap();
    assert!(!changed.keep_source && changed.name == "things" && changed.aliases == ["now"]);
    server.put("things", text_item("a", "a heart")).await;
    let get = v1::GetItemRequest {
        collection: "things".to_owned(),
        id: "a".to_owned(),
        read_mask: mask(&["source"]),
    };
    let item = server.items().get_item(get).await.unwrap().into_inner().item.unwrap();
    assert!(item.source.is_none());
    let field = |name: &str| invalid("FIELD_INVALID", name, None);
    let cases = [
        (update("things", &[]), field("update_mask")),
        (update("things", &["keep_source", "name"]), field("update_mask.paths[1]")),
        (v1::UpdateCollectionRequest::default(), field("collection")),
        (
            update("none", &["keep_source"]),
            told(Code::NotFound, "COLLECTION_NOT_FOUND", "collection.name"),
        ),
    ];
    for (request, expected) in cases {
        assert_eq!(refused(collections.update_collection(request)).await, expected);
    }
}

#[tokio::test]
async fn a_delete_by_filter_needs_the_count_of_its_dry_run() {
    let server = Server::with_things().await;
    for (id, lang) in [("a", "en"), ("b", "de"), ("c", "de")] {
        let metadata = [("lang".to_owned(), text_value(lang))].into();
        server.put("things", v1::ItemInput { metadata, ..text_item(id, "a heart") }).await;
    }
    let compare =
        v1::Compare { key: "lang".to_owned(), operator: 0, value: Some(text_value("de")) };
    let filter = v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) };
    let delete = |dry_run, expected_count| v1::DeleteItemsRequest {
        collection: "things".to_owned(),
        selection: Some(v1::delete_items_request::Selection::Filter(filter.clone())),
        dry_run,
        expected_count,
        ..Default::default()
    };
    let mut items = server.items();
    let refusal = refused(items.delete_items(delete(false, None))).await;
    assert_eq!(refusal, invalid("FIELD_INVALID", "expected_count", None));
    let counted = items.delete_items(delete(true, None)).await.unwrap().into_inner();
    assert_eq!((counted.deleted, counted.not_found), (2, 0));
    let refusal = refused(items.delete_items(delete(false, Some(3)))).await;
    let mismatch = told(Code::FailedPrecondition, "COUNT_MISMATCH", "expected_count");
    assert_eq!(refusal, mismatch);
    assert_eq!(server.collection("things").await.counts.unwrap().texts, 3);
    let deleted = items.delete_items(delete(false, Some(2))).await.unwrap().into_inner();
    assert_eq!((deleted.deleted, deleted.generation), (2, counted.generation + 2));
    assert_eq!(server.collection("things").await.counts.unwrap().texts, 1);
}
