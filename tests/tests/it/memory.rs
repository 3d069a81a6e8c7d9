//! A server that holds as much memory as it may: what would make it hold more is refused, the rest goes on, and room comes back.

use diptych_model::testing::tiny_bundle;
use diptych_proto::v1;
use diptych_proto::v1::ingest_items_request::Message;
use diptych_tests::api::*;
use diptych_tests::process::{http_get, until};
use diptych_tests::{Api, Refusal, Server};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const COLLECTION: &str = "things";
const DIMS: usize = 2048;
/// What a server may take beyond what it has when it is idle.
const ROOM: u64 = 64 << 20;

/// A server that may hold so many bytes.
async fn limited(data: &TempDir, bytes: u64) -> (Server, Api) {
    let (bytes, models) = (bytes.to_string(), data.path().join("models"));
    tiny_bundle(1).unwrap().write(models.join("tiny")).unwrap();
    // No graph is built, which would take as much again at some time or other.
    let arguments = ["--sample", "false", "--memory-bytes", &bytes, "--exact-below", "1000000"];
    let arguments = [&arguments[..], &["--models-dir", models.to_str().unwrap()]].concat();
    let server = Server::start(&data.path().join("data"), &arguments).await.unwrap();
    let api = server.api().await.unwrap();
    (server, api)
}

fn full(status: &Status, limit: u64) {
    let refusal = Refusal::of(status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "MEMORY_FULL"));
    assert_eq!(refusal.limit, Some(limit));
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
}

fn put(id: &str) -> v1::UpsertItemRequest {
    let request_id = format!("{:08}-0000-4000-8000-000000000000", id.len());
    v1::UpsertItemRequest { request_id, ..upsert(COLLECTION, text_item(id, "a red heart")) }
}

async fn ingest_one(api: &Api) -> Status {
    let start = v1::IngestStart {
        collection: COLLECTION.to_owned(),
        ingest_id: "the whole".to_owned(),
        acknowledged_sequence: 0,
    };
    let item = v1::IngestItem { sequence: 1, item: Some(text_item("streamed", "a green heart")) };
    let asked = [Message::Start(start), Message::Item(item)];
    let asked = asked.map(|message| v1::IngestItemsRequest { message: Some(message) });
    // The caller stays: what ends the stream is the server.
    let asked = tokio_stream::StreamExt::chain(tokio_stream::iter(asked), tokio_stream::pending());
    let mut told = api.items().ingest_items(asked).await.unwrap().into_inner();
    loop {
        match told.message().await {
            Ok(told) => assert!(told.is_some(), "the stream ended well"),
            Err(status) => return status,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_memory_that_it_may_hold_nothing_more_is_taken_and_everything_else_goes_on() {
    let data = TempDir::new().unwrap();
    let (server, api) = limited(&data, 0).await;
    api.create(create(COLLECTION)).await.unwrap();
    api.items().upsert_item(put("a")).await.unwrap();
    api.items().upsert_item(put("bb")).await.unwrap();
    drop(server);

    let limit = 1 << 20;
    let (server, api) = limited(&data, limit).await;
    full(&api.items().upsert_item(put("ccc")).await.unwrap_err(), limit);
    let batch = upserts(COLLECTION, vec![text_item("d", "a star")]);
    full(&api.items().batch_upsert_items(batch).await.unwrap_err(), limit);
    full(&ingest_one(&api).await, limit);
    let load = v1::LoadModelRequest { path: "tiny".to_owned(), activate: false };
    full(&api.admin().load_model(load).await.unwrap_err(), limit);

    // What was put before is told again to who asks again.
    api.items().upsert_item(put("a")).await.unwrap();
    let question = || ask(COLLECTION, v1::Modality::Text, by_text("a red heart"));
    assert_eq!(api.hits(question()).await.unwrap().len(), 2);
    assert_eq!(api.delete(COLLECTION, "bb").await.unwrap(), 1);
    assert_eq!(ids(&api.hits(question()).await.unwrap()), ["a"]);

    let info = api.info().get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.limits.unwrap().memory_bytes, limit);
    let (_, page) = http_get(server.ops(), "/metrics").await.unwrap();
    assert!(page.contains("diptych_shed_total{lane=\"none\",reason=\"memory\"} 4"), "{page}");
}

fn vectors(first: usize) -> v1::BatchUpsertItemsRequest {
    let item = |n: usize| {
        let mut vector = vec![0.5; DIMS];
        vector[n % DIMS] = 1.0;
        vector_item(&format!("i{n}"), v1::Modality::Image, &vector, None)
    };
    upserts(COLLECTION, (first..first + 64).map(item).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_are_taken_until_there_is_no_room_and_again_once_there_is() {
    let data = TempDir::new().unwrap();
    let (server, _) = limited(&data, 0).await;
    let limit = server.resident_bytes().unwrap() + ROOM;
    drop(server);
    let (_server, api) = limited(&data, limit).await;
    let bare = || create_bare(COLLECTION, (u32::try_from(DIMS).unwrap(), 0, 0));
    api.create(bare()).await.unwrap();
    let mut refused = None;
    for first in (0..100_000).step_by(64) {
        if let Err(status) = api.items().batch_upsert_items(vectors(first)).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.unwrap();
    full(&refused, limit);
    let details = refused.get_error_details();
    let held: u64 = details.error_info().unwrap().metadata["actual"].parse().unwrap();
    assert!((limit..limit + ROOM / 2).contains(&held), "{held} of {limit}");

    let delete = v1::DeleteCollectionRequest { name: COLLECTION.to_owned(), ..Default::default() };
    api.collections().delete_collection(delete).await.unwrap();
    api.create(bare()).await.unwrap();
    let put = async || api.items().batch_upsert_items(vectors(0)).await.is_ok();
    until("puts are taken again", put).await.unwrap();
}
