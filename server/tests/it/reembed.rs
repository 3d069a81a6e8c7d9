//! A collection's sources under another bundle, and the alias from one to the other and back.

use std::sync::Arc;

use diptych_proto::v1;
use tonic::Code;

use super::support::*;

fn start(digest: &str) -> v1::StartReembedRequest {
    v1::StartReembedRequest {
        alias: "now".to_owned(),
        embedding_digest: digest.to_owned(),
        collection: "new".to_owned(),
        ..Default::default()
    }
}

fn finish() -> v1::FinishReembedRequest {
    v1::FinishReembedRequest { alias: "now".to_owned(), ..Default::default() }
}

fn rollback() -> v1::RollbackReembedRequest {
    v1::RollbackReembedRequest { alias: "now".to_owned(), ..Default::default() }
}

/// A server with two bundles, the alias `now` for the collection `old`, and the second bundle's digest.
async fn server() -> (Server, String) {
    let (server, digest) = Server::with_two_bundles().await;
    server.make(create("old")).await;
    server.set_alias("now", "old").await;
    for n in 0..40 {
        let item = text_item(&format!("t{n}"), &format!("a heart number {n}"));
        server.put("now", v1::ItemInput { group: format!("g{}", n % 3), ..item }).await;
    }
    server.put("now", image_item("p", black_png(20, 20))).await;
    (server, digest)
}

async fn begin(server: &Server, digest: &str) -> Option<v1::Operation> {
    server.collections().start_reembed(start(digest)).await.unwrap().into_inner().operation
}

/// Ids with their groups and sources, in the order of ids.
async fn content(server: &Server, collection: &str) -> Vec<(String, String, Option<v1::Source>)> {
    let list = v1::ListItemsRequest {
        collection: collection.to_owned(),
        page_size: 1000,
        read_mask: mask(&["source"]),
        ..Default::default()
    };
    let items = server.items().list_items(list).await.unwrap().into_inner().items;
    items.into_iter().map(|item| (item.id, item.group, item.source)).collect()
}

async fn delete(server: &Server, collection: &str, id: &str) {
    let ids = v1::ItemIds { ids: vec![id.to_owned()] };
    let selection = Some(v1::delete_items_request::Selection::Ids(ids));
    let collection = collection.to_owned();
    let request = v1::DeleteItemsRequest { collection, selection, ..Default::default() };
    server.items().delete_items(request).await.unwrap();
}

#[tokio::test]
async fn a_collection_is_embedded_anew_beside_the_old_one_and_the_alias_moves_when_told_to() {
    let (server, digest) = server().await;
    let made: v1::Collection = server.result(begin(&server, &digest).await).await;
    assert_eq!((made.name.as_str(), made.embedding_digest.as_str()), ("new", digest.as_str()));
    assert_eq!(content(&server, "new").await, content(&server, "old").await);
    assert_eq!(server.collection("now").await.name, "old");

    // What is written and deleted while nobody has finished comes along.
    server.put("now", text_item("later", "a house")).await;
    server.put("now", text_item("t1", "a moon instead")).await;
    delete(&server, "now", "t2").await;
    let finished = server.collections().finish_reembed(finish()).await.unwrap().into_inner();
    assert_eq!(finished.alias.unwrap().collection, "new");
    assert_eq!(server.collection("now").await.embedding_digest, digest);
    assert_eq!(content(&server, "new").await, content(&server, "old").await);
    assert_eq!(content(&server, "now").await.len(), 41);
    let search = ask("now", v1::Modality::Text, by_text("a moon instead"));
    let found = server.search().search(search).await.unwrap().into_inner();
    assert_eq!((ids(&found.hits)[0], found.info.unwrap().embedding_digest), ("t1", digest));
    // Once more changes nothing.
    server.collections().finish_reembed(finish()).await.unwrap();
}

#[tokio::test]
async fn a_rollback_takes_what_was_written_since_back_to_the_old_collection() {
    let (server, digest) = server().await;
    let _: v1::Collection = server.result(begin(&server, &digest).await).await;
    server.collections().finish_reembed(finish()).await.unwrap();
    server.put("now", text_item("since", "a house")).await;
    server.put("now", text_item("t3", "a moon instead")).await;
    delete(&server, "now", "t4").await;
    let back = server.collections().rollback_reembed(rollback()).await.unwrap().into_inner();
    assert_eq!(back.alias.unwrap().collection, "old");
    assert_eq!(content(&server, "old").await, content(&server, "new").await);
    let search = ask("now", v1::Modality::Text, by_text("a moon instead"));
    let found = server.search().search(search).await.unwrap().into_inner();
    assert_eq!(ids(&found.hits)[0], "t3");
    assert_eq!(found.info.unwrap().embedding_digest, server.digest);
    // And forward again, with what came after the rollback.
    server.put("now", text_item("again", "a tree")).await;
    server.collections().finish_reembed(finish()).await.unwrap();
    assert_eq!(content(&server, "now").await, content(&server, "old").await);
    assert_eq!(server.collection("now").await.name, "new");
}

#[tokio::test]
async fn writers_that_never_stop_lose_nothing_when_the_alias_moves() {
    let (server, digest) = server().await;
    let server = Arc::new(server);
    let _: v1::Collection = server.result(begin(&server, &digest).await).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers = (0..4).map(|writer| {
        let (server, stopped) = (Arc::clone(&server), stopped.clone());
        tokio::spawn(async move {
            let mut written = Vec::new();
            for n in 0.. {
                let id = format!("w{writer}-{n}");
                server.put("now", text_item(&id, &format!("a heart of {writer} and {n}"))).await;
                written.push(id);
                if *stopped.borrow() {
                    break;
                }
            }
            written
        })
    });
    let writers: Vec<_> = writers.collect();
    server.collections().finish_reembed(finish()).await.unwrap();
    // Each writes on after the move.
    stop.send(true).unwrap();
    let there = {
        let mut all = Vec::new();
        for writer in writers {
            all.extend(writer.await.unwrap());
        }
        all
    };
    assert_eq!(server.collection("now").await.name, "new");
    let known: Vec<String> = content(&server, "now").await.into_iter().map(|item| item.0).collect();
    for id in there {
        assert!(known.contains(&id), "{id} was acknowledged and is lost");
    }
}

#[tokio::test]
async fn items_without_a_source_are_told_before_anything_is_made() {
    let (server, digest) = server().await;
    server.put("now", vector_item("v", &[0.5; SHARED], Some(&[0.5; EXCLUSIVE_IMAGE]))).await;
    let status = server.collections().start_reembed(start(&digest)).await.unwrap_err();
    let told = refusal(&status);
    let expected = (Code::FailedPrecondition, "SOURCE_MISSING", "alias");
    assert_eq!((told.code, told.reason.as_str(), told.field.as_str()), expected);
    assert!(status.message().starts_with("1 of 42 items keep no source, among them v: "));
    let get = v1::GetCollectionRequest { name: "new".to_owned() };
    assert_eq!(refused(server.collections().get_collection(get)).await.code, Code::NotFound);
    delete(&server, "now", "v").await;
    let _: v1::Collection = server.result(begin(&server, &digest).await).await;
    // One that comes later lets the finish fail, and the alias stays.
    server.put("now", vector_item("v", &[0.5; SHARED], Some(&[0.5; EXCLUSIVE_IMAGE]))).await;
    let told = refused(server.collections().finish_reembed(finish())).await;
    assert_eq!(told.reason, "SOURCE_MISSING");
    assert_eq!(server.collection("now").await.name, "old");
    delete(&server, "now", "v").await;
    server.collections().finish_reembed(finish()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_begun_or_is_at_another_step_is_refused() {
    let (server, digest) = server().await;
    let mut collections = server.collections();
    let told = |code, reason: &str, field: &str| Refusal {
        code,
        reason: reason.to_owned(),
        field: field.to_owned(),
        limit: None,
    };
    let precondition = |field| told(Code::FailedPrecondition, "REEMBED_STATE", field);
    assert_eq!(refused(collections.finish_reembed(finish())).await, precondition("alias"));
    assert_eq!(refused(collections.rollback_reembed(rollback())).await, precondition("alias"));
    let alias = |alias: &str| v1::StartReembedRequest { alias: alias.to_owned(), ..start(&digest) };
    let into =
        |name: &str| v1::StartReembedRequest { collection: name.to_owned(), ..start(&digest) };
    let cases = [
        (alias("old"), told(Code::NotFound, "ALIAS_NOT_FOUND", "alias")),
        (alias("none"), told(Code::NotFound, "ALIAS_NOT_FOUND", "alias")),
        (start(&"ab".repeat(32)), told(Code::NotFound, "BUNDLE_NOT_FOUND", "embedding_digest")),
        (start(""), invalid("FIELD_INVALID", "embedding_digest", None)),
        (start(&server.digest), invalid("FIELD_INVALID", "embedding_digest", None)),
        (into("old"), told(Code::AlreadyExists, "COLLECTION_EXISTS", "collection")),
        (into("Bad"), invalid("FIELD_INVALID", "collection", None)),
    ];
    for (request, expected) in cases {
        assert_eq!(refused(collections.start_reembed(request)).await, expected);
    }
    let _: v1::Collection = server.result(begin(&server, &digest).await).await;
    assert_eq!(refused(collections.rollback_reembed(rollback())).await, precondition("alias"));
    let second = v1::StartReembedRequest { collection: "third".to_owned(), ..start(&digest) };
    assert_eq!(refused(collections.start_reembed(second)).await, precondition("alias"));
    // Written to by its own name, the new collection is not what it should be.
    server.put("new", text_item("stray", "a stray heart")).await;
    let told = refused(collections.finish_reembed(finish())).await;
    assert_eq!(told.reason, "VERIFICATION_FAILED");
    delete(&server, "new", "stray").await;
    collections.finish_reembed(finish()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_change_of_bundle_takes_the_new_collection_back() {
    let (server, digest) = server().await;
    let begun = begin(&server, &digest).await;
    let name = begun.clone().unwrap().name;
    server.operations().cancel_operation(v1::CancelOperationRequest { name }).await.unwrap();
    let ended = server.ended(begun).await;
    match ended.outcome.unwrap() {
        v1::operation::Outcome::Error(status) => {
            assert_eq!(status.code, i32::from(Code::Cancelled));
            let get = v1::GetCollectionRequest { name: "new".to_owned() };
            assert_eq!(
                refused(server.collections().get_collection(get)).await.code,
                Code::NotFound
            );
            let told = refused(server.collections().finish_reembed(finish())).await;
            assert_eq!(told.reason, "REEMBED_STATE");
        }
        // It was done before it could be cancelled, and stays as it is.
        v1::operation::Outcome::Result(_) => {
            assert_eq!(server.collection("new").await.name, "new");
        }
    }
    assert_eq!(server.collection("now").await.name, "old");
}
