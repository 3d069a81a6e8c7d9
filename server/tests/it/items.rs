//! Puts, reads and deletes of items.

use diptych_index::RequestKey;
use diptych_model::testing::disc;
use diptych_proto::v1;
use diptych_proto::v1::batch_upsert_items_response::result::Outcome;
use diptych_proto::v1::delete_items_request::Selection;
use diptych_server::error::Error;
use diptych_server::items::{Content, ItemPut};
use tonic::Code;

use super::support::*;

async fn get(server: &Server, collection: &str, id: &str, paths: &[&str]) -> v1::Item {
    let request = v1::GetItemRequest {
        collection: collection.to_owned(),
        id: id.to_owned(),
        read_mask: mask(paths),
    };
    server.items().get_item(request).await.unwrap().into_inner().item.unwrap()
}

fn entries(items: Vec<v1::ItemInput>) -> Vec<v1::batch_upsert_items_request::Entry> {
    let entry =
        |item| v1::batch_upsert_items_request::Entry { item: Some(item), expected_version: None };
    items.into_iter().map(entry).collect()
}

#[tokio::test]
async fn an_item_comes_back_as_it_was_put() {
    let server = Server::with_things().await;
    let image = disc(30, 20).unwrap();
    let list = v1::TextList { values: vec!["red".to_owned(), "rot".to_owned()] };
    let metadata = [
        ("style".to_owned(), text_value("noto")),
        ("tags".to_owned(), v1::Value { kind: Some(v1::value::Kind::TextList(list)) }),
        ("big".to_owned(), v1::Value { kind: Some(v1::value::Kind::BoolValue(true)) }),
    ];
    let put = v1::ItemInput {
        group: "2764".to_owned(),
        metadata: metadata.into(),
        ..image_item("bild/ä 😀", image.clone())
    };
    let written = server.put("things", put.clone()).await;
    assert!(written.created);
    let item = get(&server, "things", "bild/ä 😀", &["metadata", "source", "vectors"]).await;
    assert_eq!(
        (item.group, item.metadata, item.version),
        (put.group, put.metadata, written.version)
    );
    assert_eq!(item.source.unwrap().content, Some(v1::source::Content::Image(image.into())));
    let vectors = item.vectors.unwrap();
    assert_eq!(vectors.shared.unwrap().dimension as usize, SHARED);
    assert_eq!(vectors.exclusive.unwrap().dimension as usize, EXCLUSIVE_IMAGE);
    assert!(item.create_time.is_some());
    let plain = get(&server, "things", "bild/ä 😀", &[]).await;
    assert!(plain.source.is_none() && plain.vectors.is_none() && !plain.metadata.is_empty());
}

#[tokio::test]
async fn a_missing_item_is_not_found_by_name() {
    let server = Server::with_things().await;
    let request = v1::GetItemRequest {
        collection: "things".to_owned(),
        id: "none".to_owned(),
        read_mask: None,
    };
    let status = server.items().get_item(request).await.unwrap_err();
    assert_eq!(refusal(&status).field, "id");
    let details = tonic_types::StatusExt::get_error_details(&status);
    let missing = details.resource_info().unwrap();
    assert_eq!((missing.resource_type.as_str(), missing.resource_name.as_str()), ("item", "none"));
}

#[tokio::test]
async fn one_bad_item_never_spoils_its_neighbours() {
    let server = Server::with_things().await;
    let mut batch = entries(vec![
        text_item("a", "a heart"),
        text_item("b", ""),
        image_item("c", disc(20, 20).unwrap()),
        image_item("d", b"no picture".to_vec()),
        text_item(&"e".repeat(300), "x"),
        vector_item("f", &[1.0; 3], Some(&[1.0; EXCLUSIVE_IMAGE])),
        text_item("g", "a ball"),
    ]);
    batch.push(v1::batch_upsert_items_request::Entry::default());
    batch[6].expected_version = Some(7);
    let request = v1::BatchUpsertItemsRequest {
        collection: "things".to_owned(),
        entries: batch,
        ..Default::default()
    };
    let reply = server.items().batch_upsert_items(request).await.unwrap().into_inner();
    assert!(reply.generation > 0);
    let outcomes: Vec<Outcome> =
        reply.results.into_iter().map(|result| result.outcome.unwrap()).collect();
    let told = |place: usize| match &outcomes[place] {
        Outcome::Written(written) => panic!("{written:?}"),
        Outcome::Status(status) => refusal_of(status),
    };
    for (place, id) in [(0, "a"), (2, "c")] {
        let Outcome::Written(written) = &outcomes[place] else { panic!("{:?}", outcomes[place]) };
        assert_eq!(written.id, id);
        assert_eq!(get(&server, "things", id, &[]).await.version, written.version);
    }
    assert_eq!(told(1), invalid("TEXT_EMPTY", "entries[1].item.text", None));
    assert_eq!(told(3), invalid("IMAGE_FORMAT_UNSUPPORTED", "entries[3].item.image", None));
    assert_eq!(told(4), invalid("FIELD_INVALID", "entries[4].item.id", Some(256)));
    let shared = "entries[5].item.vectors.shared";
    assert_eq!(told(5), invalid("DIMENSION_MISMATCH", shared, Some(SHARED as u64)));
    assert_eq!((told(6).code, told(6).reason.as_str()), (Code::Aborted, "VERSION_MISMATCH"));
    assert_eq!(told(7), invalid("FIELD_INVALID", "entries[7].item", None));
}

#[tokio::test]
async fn a_batch_of_nothing_but_bad_items_is_answered_item_by_item() {
    let server = Server::with_things().await;
    let request = v1::BatchUpsertItemsRequest {
        collection: "things".to_owned(),
        entries: entries(vec![text_item("a", ""), text_item("", "x")]),
        ..Default::default()
    };
    let reply = server.items().batch_upsert_items(request).await.unwrap().into_inner();
    assert_eq!(reply.results.len(), 2);
    let bad = |result: &v1::batch_upsert_items_response::Result| {
        matches!(result.outcome, Some(Outcome::Status(_)))
    };
    assert!(reply.results.iter().all(bad));
}

#[tokio::test]
async fn a_repeated_request_is_answered_without_writing_again() {
    let server = Server::with_things().await;
    let request = v1::UpsertItemRequest {
        request_id: "one".to_owned(),
        ..upsert("things", text_item("a", "a heart"))
    };
    let first = server.items().upsert_item(request.clone()).await.unwrap().into_inner();
    let again = server.items().upsert_item(request.clone()).await.unwrap().into_inner();
    assert_eq!(first, again);
    let other = v1::UpsertItemRequest { item: Some(text_item("a", "a ball")), ..request };
    let told = refused(server.items().upsert_item(other)).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));

    let selection = Some(Selection::Ids(v1::ItemIds { ids: vec!["a".to_owned()] }));
    let delete = v1::DeleteItemsRequest {
        collection: "things".to_owned(),
        selection,
        request_id: "two".to_owned(),
        ..Default::default()
    };
    let first = server.items().delete_items(delete.clone()).await.unwrap().into_inner();
    let again = server.items().delete_items(delete).await.unwrap().into_inner();
    assert_eq!((first.deleted, first), (1, again));
}

#[tokio::test]
async fn a_repeat_is_told_all_that_the_first_was_told_and_nothing_is_embedded_for_it() {
    let server = Server::with_things().await;
    let put = |id: &str, text: String| {
        Ok(ItemPut {
            id: diptych_index::ItemId::try_new(id).unwrap(),
            content: Content::Text { text, truncate: true },
            group: None,
            metadata: Default::default(),
            expected_version: None,
        })
    };
    let key = RequestKey { id: "one".to_owned(), digest: [1; 32] };
    let puts = vec![
        put("a", "heart ".repeat(2000)),
        Err(Error::missing(v1::ErrorReason::BundleNotFound, "bundle", "x").at("a field")),
        put("b", String::new()),
        put("c", "a heart".to_owned()),
    ];
    let first = server.service.put("things", puts, Some(key.clone())).await.unwrap();
    assert!(first.0[0].as_ref().unwrap().truncation.is_some() && first.0[2].is_err());
    // Were they looked at, there would be no results at all.
    let again = server.service.put("things", Vec::new(), Some(key)).await.unwrap();
    assert_eq!(format!("{first:?}"), format!("{again:?}"));
}

#[tokio::test]
async fn a_write_that_expects_a_version_loses_against_another() {
    let server = Server::with_things().await;
    let put = |expected_version| v1::UpsertItemRequest {
        expected_version,
        ..upsert("things", text_item("a", "a heart"))
    };
    let first = server.items().upsert_item(put(Some(0))).await.unwrap().into_inner();
    let version = first.written.unwrap().version;
    for stale in [0, version + 1] {
        let told = refused(server.items().upsert_item(put(Some(stale)))).await;
        assert_eq!((told.code, told.reason.as_str()), (Code::Aborted, "VERSION_MISMATCH"));
    }
    let second = server.items().upsert_item(put(Some(version))).await.unwrap().into_inner();
    let written = second.written.unwrap();
    assert!(!written.created && written.version > version);
    assert!(second.generation > first.generation);
}

#[tokio::test]
async fn a_cut_text_says_so_and_keeps_its_source_whole() {
    let server = Server::with_things().await;
    let text = "heart ".repeat(2000);
    let item = v1::ItemInput { truncate: true, ..text_item("a", &text) };
    let cut = server.put("things", item).await.truncation.unwrap();
    assert_eq!(cut.total_bytes as usize, text.len());
    let item = get(&server, "things", "a", &["source"]).await;
    assert_eq!(item.source.unwrap().content, Some(v1::source::Content::Text(text)));
}

#[tokio::test]
async fn a_collection_that_keeps_no_sources_gives_none_back() {
    let server = Server::start().await;
    let request = v1::CreateCollectionRequest { keep_source: Some(false), ..create("lean") };
    server.make(request).await;
    server.put("lean", text_item("a", "a heart")).await;
    assert!(get(&server, "lean", "a", &["source"]).await.source.is_none());
}

#[tokio::test]
async fn items_are_deleted_by_id_and_by_group_and_twice_is_no_error() {
    let server = Server::with_things().await;
    for (id, group) in [("a", "g"), ("b", "g"), ("c", "")] {
        let item = v1::ItemInput { group: group.to_owned(), ..text_item(id, "heart") };
        server.put("things", item).await;
    }
    let delete = async |selection| {
        let collection = "things".to_owned();
        let request =
            v1::DeleteItemsRequest { collection, selection: Some(selection), ..Default::default() };
        let reply = server.items().delete_items(request).await.unwrap().into_inner();
        (reply.deleted, reply.not_found)
    };
    let of = |ids: &[&str]| {
        Selection::Ids(v1::ItemIds { ids: ids.iter().map(ToString::to_string).collect() })
    };
    assert_eq!(delete(of(&["c", "none"])).await, (1, 1));
    assert_eq!(delete(of(&["c"])).await, (0, 1));
    assert_eq!(delete(Selection::Group("g".to_owned())).await, (2, 0));
    assert_eq!(delete(Selection::Group("g".to_owned())).await, (0, 0));
    let list = v1::ListItemsRequest { collection: "things".to_owned(), ..Default::default() };
    assert!(server.items().list_items(list).await.unwrap().into_inner().items.is_empty());
}
