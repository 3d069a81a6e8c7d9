//! ExportItems: all items, filtered, taken up again, while others write, and when it ends early.

use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::item_service_client::ItemServiceClient;
use tokio_stream::StreamExt as _;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Streaming};

use super::support::*;

fn all(collection: &str) -> v1::ExportItemsRequest {
    v1::ExportItemsRequest { collection: collection.to_owned(), ..Default::default() }
}

async fn export(server: &Server, request: v1::ExportItemsRequest) -> Vec<v1::ExportItemsResponse> {
    let stream = server.items().export_items(request).await.unwrap().into_inner();
    stream.map(Result::unwrap).collect().await
}

fn ids_of(replies: &[v1::ExportItemsResponse]) -> Vec<&str> {
    replies.iter().map(|reply| reply.item.as_ref().unwrap().id.as_str()).collect()
}

/// A server with `count` items in `bare`, of which every third has the metadata `third`.
async fn filled(count: usize) -> Server {
    let server = Server::start().await;
    server.make(create_bare("bare")).await;
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(50) {
        let entries = some.iter().map(|&number| {
            let mut item = thing(number, 1.0);
            if number % 3 == 0 {
                item.metadata.insert("third".to_owned(), text_value("yes"));
            }
            let item = Some(item);
            v1::batch_upsert_items_request::Entry { item, expected_version: None }
        });
        let (collection, entries) = ("bare".to_owned(), entries.collect());
        let batch = v1::BatchUpsertItemsRequest { collection, entries, ..Default::default() };
        server.items().batch_upsert_items(batch).await.unwrap();
    }
    server
}

/// A reader that takes little at a time, so that an export has not read its next page before this one has.
async fn slow_reader(
    server: &Server,
    request: Request<v1::ExportItemsRequest>,
) -> Streaming<v1::ExportItemsResponse> {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = endpoint.initial_stream_window_size(1024).connect().await.unwrap();
    ItemServiceClient::new(channel).export_items(request).await.unwrap().into_inner()
}

fn thing(number: usize, value: f32) -> v1::ItemInput {
    vector_item(&format!("i{number:04}"), &[1.0, value, 0.0, 0.0], Some(&[1.0, 0.0]))
}

async fn next(stream: &mut Streaming<v1::ExportItemsResponse>) -> Option<String> {
    Some(stream.next().await?.unwrap().item.unwrap().id)
}

#[tokio::test]
async fn an_export_holds_what_is_there_by_id_in_parts_as_asked() {
    let server = filled(300).await;
    let list = v1::ListItemsRequest {
        collection: "bare".to_owned(),
        page_size: 1000,
        read_mask: mask(&["metadata", "vectors"]),
        ..Default::default()
    };
    let listed = server.items().list_items(list).await.unwrap().into_inner();
    let read_mask = mask(&["metadata", "vectors"]);
    let exported = export(&server, v1::ExportItemsRequest { read_mask, ..all("bare") }).await;
    assert!(exported.iter().all(|reply| reply.generation == listed.generation));
    let items: Vec<v1::Item> = exported.into_iter().map(|reply| reply.item.unwrap()).collect();
    assert_eq!(items, listed.items);
    let compare =
        v1::Compare { key: "third".to_owned(), operator: 0, value: Some(text_value("yes")) };
    let filter = Some(v1::Filter { condition: Some(v1::filter::Condition::Compare(compare)) });
    let thirds = v1::ExportItemsRequest { filter, after_id: "i0150".to_owned(), ..all("bare") };
    let exported = export(&server, thirds).await;
    let expected: Vec<String> =
        (151..300).filter(|number| number % 3 == 0).map(|number| format!("i{number:04}")).collect();
    assert_eq!(ids_of(&exported), expected);
    assert!(
        export(&server, v1::ExportItemsRequest { after_id: "z".to_owned(), ..all("bare") })
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn items_that_fill_many_messages_come_with_their_sources() {
    let server = Server::small().await;
    server.make(create("things")).await;
    // Texts of 4 KiB: 40 of them are more than two messages.
    for number in 0..40 {
        let text = format!("{number} {}", "a heart ".repeat(500));
        server.put("things", text_item(&format!("t{number:02}"), &text)).await;
    }
    let request = v1::ExportItemsRequest { read_mask: mask(&["source"]), ..all("things") };
    let exported = export(&server, request).await;
    assert_eq!(exported.len(), 40);
    for (number, reply) in exported.iter().enumerate() {
        let source = reply.item.as_ref().unwrap().source.clone().unwrap();
        let Some(v1::source::Content::Text(text)) = source.content else { panic!("{source:?}") };
        assert!(text.starts_with(&format!("{number} a heart")));
    }
}

#[tokio::test]
async fn what_nobody_writes_to_comes_once_while_others_write() {
    let server = filled(600).await;
    let mut stream = slow_reader(&server, Request::new(all("bare"))).await;
    let mut seen = Vec::new();
    let mut written = 0;
    while let Some(id) = next(&mut stream).await {
        seen.push(id);
        // Even ones are put again, new ones come before and after, all of them behind the back of the export.
        if seen.len() % 5 == 0 && written < 100 {
            server.put("bare", thing(2 * written, 2.0)).await;
            for name in ["a", "x"] {
                let item = vector_item(&format!("{name}{written}"), &[1.0; 4], Some(&[1.0, 0.0]));
                server.put("bare", item).await;
            }
            written += 1;
        }
    }
    assert!(seen.is_sorted() && seen.windows(2).all(|pair| pair[0] != pair[1]));
    let old = seen.iter().filter(|id| id.starts_with('i')).count();
    assert_eq!(old, 600);
}

#[tokio::test]
async fn what_is_wrong_with_an_export_is_told_at_once() {
    let server = filled(1).await;
    let told = refused(server.items().export_items(all(""))).await;
    assert_eq!(told, invalid("FIELD_INVALID", "collection", None));
    let told = refused(server.items().export_items(all("nothing"))).await;
    assert_eq!((told.code, told.field.as_str()), (Code::NotFound, "collection"));
    let request = v1::ExportItemsRequest { read_mask: mask(&["pixels"]), ..all("bare") };
    let told = refused(server.items().export_items(request)).await;
    assert_eq!(told, invalid("FIELD_INVALID", "read_mask.paths[0]", None));
    let request = v1::ExportItemsRequest { after_id: "i".repeat(257), ..all("bare") };
    let told = refused(server.items().export_items(request)).await;
    assert_eq!(told, invalid("FIELD_INVALID", "after_id", Some(256)));
    let request = v1::ExportItemsRequest { filter: Some(v1::Filter::default()), ..all("bare") };
    let told = refused(server.items().export_items(request)).await;
    assert_eq!(told.code, Code::InvalidArgument);
}

/// What an export ends with after `ends` happened in the middle of it.
async fn ended(
    server: &Server,
    request: Request<v1::ExportItemsRequest>,
    ends: impl AsyncFnOnce(),
) -> Refusal {
    let mut stream = slow_reader(server, request).await;
    assert!(next(&mut stream).await.is_some());
    ends().await;
    loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => return refusal(&status),
            None => panic!("it ended well"),
        }
    }
}

#[tokio::test]
async fn an_export_that_does_not_reach_its_end_says_so() {
    let server = filled(600).await;
    let mut timed = Request::new(all("bare"));
    let time = Duration::from_millis(400);
    timed.set_timeout(time);
    // Nobody reads until the deadline has passed.
    let late = ended(&server, timed, async || tokio::time::sleep(time).await).await;
    assert_eq!((late.code, late.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    let deleted = ended(&server, Request::new(all("bare")), async || {
        server.engine.drop_collection("bare").await.unwrap();
    });
    let told = deleted.await;
    assert_eq!((told.code, told.reason.as_str()), (Code::NotFound, "COLLECTION_NOT_FOUND"));
}

#[tokio::test]
async fn an_export_ends_when_the_server_goes_down() {
    let server = filled(600).await;
    let told = ended(&server, Request::new(all("bare")), async || server.service.wind_down()).await;
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "DRAINING"));
}
