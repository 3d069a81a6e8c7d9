//! Snapshots and operations over the wire.

use diptych_proto::v1;
use tonic::Code;

use super::support::*;

fn of(collection: &str) -> v1::CreateSnapshotRequest {
    v1::CreateSnapshotRequest { collection: collection.to_owned(), ..Default::default() }
}

fn restore(name: &str, collection: &str) -> v1::RestoreSnapshotRequest {
    let (name, collection) = (name.to_owned(), collection.to_owned());
    v1::RestoreSnapshotRequest { name, collection, ..Default::default() }
}

async fn snapshot(server: &Server, collection: &str) -> v1::Snapshot {
    let reply = server.collections().create_snapshot(of(collection)).await.unwrap().into_inner();
    server.result(reply.operation).await
}

async fn all_items(server: &Server, collection: &str) -> Vec<v1::Item> {
    let list = v1::ListItemsRequest {
        collection: collection.to_owned(),
        read_mask: mask(&["metadata", "source", "vectors"]),
        ..Default::default()
    };
    server.items().list_items(list).await.unwrap().into_inner().items
}

#[tokio::test]
async fn a_snapshot_comes_back_under_another_name_as_it_was_and_answers_searches() {
    let server = Server::with_things().await;
    server.set_alias("now", "things").await;
    server.put("things", text_item("a", "a heart")).await;
    server.put("things", image_item("b", black_png(20, 20))).await;
    let made = snapshot(&server, "now").await;
    assert_eq!((made.collection.as_str(), made.sha256.len(), made.generation), ("things", 64, 2));
    let before = all_items(&server, "things").await;
    server.put("things", text_item("c", "a house")).await;
    let reply = server.collections().restore_snapshot(restore(&made.name, "copy")).await.unwrap();
    let operation = reply.into_inner().operation;
    let restored: v1::Collection = server.result(operation.clone()).await;
    assert_eq!((restored.name.as_str(), restored.generation), ("copy", made.generation));
    assert_eq!(restored.state(), v1::CollectionState::Ready);
    assert_eq!(all_items(&server, "copy").await, before);
    let search = ask("copy", v1::Modality::Text, by_text("a heart"));
    let found = server.search().search(search).await.unwrap().into_inner();
    assert_eq!(ids(&found.hits), ["a"]);
    let ended = server.ended(operation).await;
    assert_eq!((ended.kind.as_str(), ended.progress), ("RestoreSnapshot", 1.0));
    assert!(ended.done && ended.create_time.is_some() && ended.update_time.is_some());
}

#[tokio::test]
async fn snapshots_are_listed_in_pages_and_deleted_and_refusals_name_the_field() {
    let server = Server::with_things().await;
    server.make(create_bare("bare")).await;
    for collection in ["things", "bare", "things"] {
        snapshot(&server, collection).await;
    }
    let mut collections = server.collections();
    let mut request = v1::ListSnapshotsRequest { page_size: 2, ..Default::default() };
    let first = collections.list_snapshots(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = collections.list_snapshots(request).await.unwrap().into_inner();
    let all: Vec<v1::Snapshot> = first.snapshots.into_iter().chain(second.snapshots).collect();
    assert_eq!(all.len(), 3);
    let only = v1::ListSnapshotsRequest { collection: "bare".to_owned(), ..Default::default() };
    let bare = collections.list_snapshots(only).await.unwrap().into_inner().snapshots;
    assert_eq!(bare.len(), 1);
    let told = |code, reason: &str, field: &str| Refusal {
        code,
        reason: reason.to_owned(),
        field: field.to_owned(),
        limit: None,
    };
    let taken = refused(collections.restore_snapshot(restore(&bare[0].name, ""))).await;
    assert_eq!(taken, told(Code::AlreadyExists, "COLLECTION_EXISTS", "collection"));
    let missing = told(Code::NotFound, "SNAPSHOT_NOT_FOUND", "name");
    assert_eq!(refused(collections.restore_snapshot(restore("none", "a"))).await, missing);
    let bad = refused(collections.restore_snapshot(restore(&bare[0].name, "Bad"))).await;
    assert_eq!(bad, invalid("FIELD_INVALID", "collection", None));
    let delete = v1::DeleteSnapshotRequest { name: bare[0].name.clone(), ..Default::default() };
    collections.delete_snapshot(delete.clone()).await.unwrap();
    assert_eq!(refused(collections.delete_snapshot(delete)).await, missing);
    let lost = refused(collections.create_snapshot(of("none"))).await;
    assert_eq!((lost.code, lost.reason.as_str()), (Code::NotFound, "COLLECTION_NOT_FOUND"));
}

#[tokio::test]
async fn operations_are_listed_newest_first_found_by_name_and_waited_for_within_the_deadline() {
    let server = Server::with_things().await;
    let mut names = Vec::new();
    for _ in 0..3 {
        let request = v1::CompactRequest { collection: "things".to_owned() };
        let begun = server.admin().compact(request).await.unwrap().into_inner().operation;
        let compacted: v1::Collection = server.result(begun.clone()).await;
        assert_eq!(compacted.name, "things");
        names.insert(0, begun.unwrap().name);
    }
    let mut request = v1::ListOperationsRequest { page_size: 2, ..Default::default() };
    let mut operations = server.operations();
    let first = operations.list_operations(request.clone()).await.unwrap().into_inner();
    request.page_token = first.next_page_token;
    let second = operations.list_operations(request).await.unwrap().into_inner();
    let listed = first.operations.iter().chain(&second.operations);
    assert_eq!(listed.map(|operation| operation.name.clone()).collect::<Vec<_>>(), names);
    assert!(second.next_page_token.is_empty());
    let get = v1::GetOperationRequest { name: names[0].clone() };
    assert!(operations.get_operation(get).await.unwrap().into_inner().operation.unwrap().done);
    let cancel = v1::CancelOperationRequest { name: names[0].clone() };
    operations.cancel_operation(cancel).await.unwrap();
    let get = v1::GetOperationRequest { name: "none".to_owned() };
    let missing = refused(operations.get_operation(get)).await;
    let told = (missing.code, missing.reason.as_str(), missing.field.as_str());
    assert_eq!(told, (Code::NotFound, "OPERATION_NOT_FOUND", "name"));
    let timeout = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let wait = v1::WaitOperationRequest { name: names[0].clone(), timeout };
    let refusal = refused(operations.wait_operation(wait)).await;
    assert_eq!(refusal, invalid("FIELD_INVALID", "timeout", None));
}
