//! IngestItems: acknowledgements, credits, breaks at any point, and every rule of the stream.

mod support;

use std::collections::BTreeMap;

use diptych_proto::v1;
use diptych_proto::v1::ingest_items_request::Message as Asked;
use diptych_proto::v1::ingest_items_response::Message as Told;
use diptych_proto::v1::item_service_client::ItemServiceClient;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_types::StatusExt as _;

use self::support::{Outcome, Stream, WINDOW, bare, check, go_on, item, note, start, vector};
use super::support::*;

#[tokio::test]
async fn every_item_is_acknowledged_in_order_and_a_bad_one_spoils_no_neighbour() {
    let server = bare().await;
    let mut stream = Stream::open(&server, "bare", "one", 0).await;
    let credit = v1::IngestCredit { items: WINDOW, durable_sequence: 0, throttle: 0 };
    assert_eq!(stream.next().await.unwrap(), Some(Told::Credit(credit)));
    let mut order = Vec::new();
    let (mut acks, mut next, mut most) = (BTreeMap::new(), 1, u64::from(WINDOW));
    while order.len() < 300 {
        while next <= most.min(300) {
            stream.ask(item(next, vector(next))).await;
            next += 1;
        }
        match stream.next().await.unwrap().unwrap() {
            Told::Ack(ack) => {
                order.push(ack.sequence);
                note(&mut acks, ack);
            }
            Told::Credit(credit) => {
                most += u64::from(credit.items);
                assert_eq!(most, credit.durable_sequence + u64::from(WINDOW));
                assert_eq!(order.last(), Some(&credit.durable_sequence), "acknowledged before");
            }
        }
    }
    stream.finish(&mut acks).await.unwrap();
    assert_eq!(order, (1..=300).collect::<Vec<_>>());
    check(&server, &acks, 300).await;
}

#[tokio::test]
async fn texts_and_pictures_are_embedded_as_by_a_plain_put() {
    let server = Server::with_things().await;
    let (mut acks, mut stream) = (BTreeMap::new(), Stream::open(&server, "things", "a", 0).await);
    stream.credit(&mut acks).await;
    stream.ask(item(1, text_item("t", "a red heart"))).await;
    stream.ask(item(2, image_item("broken", b"no picture".to_vec()))).await;
    stream.ask(item(3, image_item("p", black_png(20, 20)))).await;
    stream.ask(Asked::Item(v1::IngestItem { sequence: 4, item: None })).await;
    stream.ask(item(5, text_item("", "without an id"))).await;
    stream.finish(&mut acks).await.unwrap();
    server.put("things", text_item("plain", "a red heart")).await;
    let fields = |sequence: u64| match &acks[&sequence] {
        Outcome::Refused(refused) => (refused.reason.as_str(), refused.field.as_str()),
        Outcome::Written(_) => panic!("{sequence} was written"),
    };
    assert_eq!(acks[&1], Outcome::Written(1));
    assert_eq!(fields(2), ("IMAGE_FORMAT_UNSUPPORTED", "item.item.image"));
    assert_eq!(acks[&3], Outcome::Written(2));
    assert_eq!(fields(4), ("FIELD_INVALID", "item.item"));
    assert_eq!(fields(5), ("FIELD_INVALID", "item.item.id"));
    let vectors = |id: &str| {
        let (id, read_mask) = (id.to_owned(), mask(&["vectors"]));
        let get = v1::GetItemRequest { collection: "things".to_owned(), id, read_mask };
        let mut items = server.items();
        async move { items.get_item(get).await.unwrap().into_inner().item.unwrap().vectors }
    };
    assert_eq!(vectors("t").await, vectors("plain").await);
}

#[tokio::test]
async fn a_stream_that_breaks_anywhere_is_taken_up_and_writes_every_item_once() {
    let server = bare().await;
    let mut random = rand::rngs::StdRng::seed_from_u64(13);
    let (count, mut acks, mut done, mut breaks) = (600, BTreeMap::new(), false, 0);
    while !done {
        let acknowledged = acks.keys().next_back().copied().unwrap_or(0);
        let mut stream = Stream::open(&server, "bare", "broken", acknowledged).await;
        let replies = random.random_range(0..120);
        done = go_on(&mut stream, &mut acks, (count, replies)).await;
        breaks += 1;
        if random.random_bool(0.5) {
            // The caller's side closes, and nobody reads what comes.
            drop(stream.asked);
        }
    }
    assert!(breaks > 5, "{breaks}");
    check(&server, &acks, count).await;
}

#[tokio::test]
async fn an_ingest_is_known_after_a_restart_and_what_was_lost_is_acknowledged_again() {
    let server = bare().await;
    let (mut acks, mut stream) = (BTreeMap::new(), Stream::open(&server, "bare", "kept", 0).await);
    assert!(go_on(&mut stream, &mut acks, (100, usize::MAX)).await);
    stream.finish(&mut acks).await.unwrap();
    let server = server.restart().await;
    let mut stream = Stream::open(&server, "bare", "kept", 60).await;
    let mut again = BTreeMap::new();
    let credit = stream.credit(&mut again).await;
    assert_eq!((credit.durable_sequence, credit.items), (100, WINDOW));
    assert!(again.keys().copied().eq(61..=100));
    again.iter().for_each(|(sequence, outcome)| assert_eq!(acks[sequence], *outcome));
    let generation = server.collection("bare").await.generation;
    // Some are sent again though they are durable.
    for sequence in 90..=110 {
        stream.ask(item(sequence, vector(sequence))).await;
    }
    stream.finish(&mut acks).await.unwrap();
    check(&server, &acks, 110).await;
    assert_eq!(server.collection("bare").await.generation, generation + 9);
}

#[tokio::test]
async fn items_that_are_all_refused_count_as_done() {
    let server = bare().await;
    let (mut acks, mut stream) = (BTreeMap::new(), Stream::open(&server, "bare", "bad", 0).await);
    stream.credit(&mut acks).await;
    for sequence in 1..=5 {
        stream.ask(item(sequence, vector(7))).await;
    }
    stream.finish(&mut acks).await.unwrap();
    let mut stream = Stream::open(&server, "bare", "bad", 0).await;
    let mut again = BTreeMap::new();
    assert_eq!(stream.credit(&mut again).await.durable_sequence, 5);
    assert_eq!(acks, again);
    assert!(acks.values().all(|outcome| matches!(outcome, Outcome::Refused(_))));
}

#[tokio::test]
async fn a_caller_that_breaks_the_rules_is_told_which_one() {
    let server = bare().await;
    let ok = |sequence| item(sequence, vector(1));
    let empty = v1::IngestItemsRequest { message: None };
    let stream = Stream::raw(&server).await;
    stream.asked.send(empty).await.unwrap();
    let told = refusal(&stream.end().await);
    assert_eq!(told, invalid("FIELD_INVALID", "message", None));
    let cases: [(&[Asked], &str, &str); 9] = [
        (&[ok(1)], "start", "first message"),
        (&[start("bare", "a", 0), start("bare", "a", 0)], "start", "once"),
        (&[start("bare", "b", 0), ok(0)], "item.sequence", "is 0, expected 1"),
        (&[start("bare", "c", 0), ok(2)], "item.sequence", "is 2, expected 1"),
        (&[start("bare", "d", 0), ok(1), ok(3)], "item.sequence", "is 3, expected 2"),
        (&[start("bare", "e", 0), ok(1), ok(1)], "item.sequence", "is 1, expected 2"),
        (&[start("bare", "", 0)], "start.ingest_id", "is required"),
        (&[start("bare", &"x".repeat(129), 0)], "start.ingest_id", "the limit is 128"),
        (&[start("", "f", 0)], "start.collection", "is required"),
    ];
    for (messages, field, said) in cases {
        let mut stream = Stream::raw(&server).await;
        for (place, message) in messages.iter().enumerate() {
            stream.ask(message.clone()).await;
            if place == 0 && messages.len() > 1 {
                stream.credit(&mut BTreeMap::new()).await;
            }
        }
        let status = stream.end().await;
        let told = refusal(&status);
        assert_eq!((told.code, told.field.as_str()), (Code::InvalidArgument, field));
        assert!(status.message().contains(said), "{said}: {}", status.message());
    }
    let gone = refusal(&Stream::open(&server, "nothing", "g", 0).await.end().await);
    assert_eq!((gone.code, gone.field.as_str()), (Code::NotFound, "start.collection"));
}

#[tokio::test]
async fn an_item_beyond_the_credit_ends_the_stream_and_what_was_read_is_written() {
    let server = bare().await;
    let mut acks = BTreeMap::new();
    let mut stream = Stream::open(&server, "bare", "greedy", 0).await;
    stream.credit(&mut acks).await;
    // More than any credit that may come meanwhile.
    for sequence in 1..=2000 {
        stream.ask(item(sequence, vector(sequence))).await;
    }
    let ended = loop {
        match stream.next().await {
            Ok(Some(Told::Ack(ack))) => note(&mut acks, ack),
            Ok(Some(Told::Credit(_))) => {}
            Ok(None) => panic!("all was taken"),
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(&ended), invalid("FIELD_INVALID", "item.sequence", None));
    assert!(ended.message().contains("no credit allows"), "{}", ended.message());
    let count = acks.len() as u64;
    check(&server, &acks, count).await;
}

#[tokio::test]
async fn an_id_is_for_one_collection_and_what_is_not_known_is_said() {
    let server = bare().await;
    server.make(create_bare("other")).await;
    let (mut acks, mut stream) = (BTreeMap::new(), Stream::open(&server, "bare", "mine", 0).await);
    assert!(go_on(&mut stream, &mut acks, (3, usize::MAX)).await);
    stream.finish(&mut acks).await.unwrap();
    let reused = refusal(&Stream::open(&server, "other", "mine", 0).await.end().await);
    assert_eq!((reused.code, reused.reason.as_str()), (Code::Aborted, "REQUEST_ID_REUSED"));
    assert_eq!(reused.field, "start.ingest_id");
    let unknown = refusal(&Stream::open(&server, "bare", "mine", 4).await.end().await);
    assert_eq!(
        (unknown.code, unknown.reason.as_str()),
        (Code::FailedPrecondition, "INGEST_UNKNOWN")
    );
    assert_eq!(unknown.field, "start.acknowledged_sequence");
    // The collection that another one of its name follows takes its ingests with it.
    let delete = v1::DeleteCollectionRequest { name: "bare".to_owned(), ..Default::default() };
    server.collections().delete_collection(delete).await.unwrap();
    server.make(create_bare("bare")).await;
    let mut stream = Stream::open(&server, "bare", "mine", 0).await;
    assert_eq!(stream.credit(&mut BTreeMap::new()).await.durable_sequence, 0);
}

#[tokio::test]
async fn a_second_stream_takes_over_and_goes_on_where_the_first_one_ends() {
    let server = bare().await;
    let mut acks = BTreeMap::new();
    let mut first = Stream::open(&server, "bare", "seat", 0).await;
    first.credit(&mut acks).await;
    for sequence in 1..=40 {
        first.ask(item(sequence, vector(sequence))).await;
    }
    while acks.len() < 10 {
        if let Told::Ack(ack) = first.next().await.unwrap().unwrap() {
            note(&mut acks, ack);
        }
    }
    let mut second = Stream::open(&server, "bare", "seat", 10).await;
    let credit = second.credit(&mut acks).await;
    let told = refusal(&first.end().await);
    assert_eq!((told.code, told.reason.as_str()), (Code::Aborted, "STREAM_TAKEN_OVER"));
    let durable = credit.durable_sequence;
    assert!(durable >= 10 && acks.len() as u64 == durable);
    for sequence in durable + 1..=60 {
        second.ask(item(sequence, vector(sequence))).await;
    }
    second.finish(&mut acks).await.unwrap();
    check(&server, &acks, 60).await;
}

#[tokio::test]
async fn a_server_that_goes_down_finishes_what_it_read_and_says_when_to_come_back() {
    let server = bare().await;
    let mut acks = BTreeMap::new();
    let mut stream = Stream::open(&server, "bare", "drained", 0).await;
    stream.credit(&mut acks).await;
    for sequence in 1..=30 {
        stream.ask(item(sequence, vector(sequence))).await;
    }
    while acks.is_empty() {
        if let Told::Ack(ack) = stream.next().await.unwrap().unwrap() {
            note(&mut acks, ack);
        }
    }
    server.service.wind_down();
    let status = loop {
        match stream.next().await {
            Ok(Some(Told::Ack(ack))) => note(&mut acks, ack),
            Ok(Some(Told::Credit(_))) => {}
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    let told = refusal(&status);
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(status.get_details_retry_info().is_some());
    let count = acks.len() as u64;
    check(&server, &acks, count).await;
    let server = server.restart().await;
    let mut stream = Stream::open(&server, "bare", "drained", count).await;
    assert!(go_on(&mut stream, &mut acks, (30, usize::MAX)).await);
    check(&server, &acks, 30).await;
}

#[tokio::test]
async fn a_caller_that_reads_nothing_is_not_read_from_for_long() {
    const SENT: u64 = 5000;
    let server = bare().await;
    let narrow = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let channel = narrow.initial_stream_window_size(1024).connect().await.unwrap();
    let (asked, requests) = mpsc::channel(1);
    let requests = ReceiverStream::new(requests);
    let mut items = ItemServiceClient::new(channel);
    let mut told = items.ingest_items(requests).await.unwrap().into_inner();
    let sending = tokio::spawn(async move {
        let messages = std::iter::once(start("bare", "deaf", 0));
        for message in messages.chain((1..=SENT).map(|n| item(n, vector(1)))) {
            if asked.send(v1::IngestItemsRequest { message: Some(message) }).await.is_err() {
                return;
            }
        }
    });
    while server.collection("bare").await.generation < u64::from(WINDOW) / 2 {
        tokio::task::yield_now().await;
    }
    server.service.wind_down();
    let mut acknowledged = 0;
    let ended = loop {
        match told.message().await {
            Ok(Some(reply)) => {
                acknowledged += u64::from(matches!(reply.message, Some(Told::Ack(_))));
            }
            Ok(None) => panic!("it ended well"),
            Err(status) => break status,
        }
    };
    drop(told);
    sending.await.unwrap();
    // It ran into the end of its credit, or into the end of the server.
    assert!(["FIELD_INVALID", "DRAINING"].contains(&refusal(&ended).reason.as_str()), "{ended:?}");
    assert_eq!(server.collection("bare").await.generation, acknowledged);
    // What waits to be read, and what the narrow window took.
    assert!(acknowledged <= u64::from(WINDOW) + 8 + 1024 / 20, "{acknowledged}");
}

#[tokio::test]
async fn later_items_follow_an_alias_and_a_deleted_collection_ends_the_stream() {
    let server = bare().await;
    server.make(create_bare("next")).await;
    server.set_alias("live", "bare").await;
    let mut acks = BTreeMap::new();
    let mut stream = Stream::open(&server, "live", "moves", 0).await;
    stream.credit(&mut acks).await;
    let mut acked = async |stream: &mut Stream, until: usize| {
        while acks.len() < until {
            if let Told::Ack(ack) = stream.next().await.unwrap().unwrap() {
                note(&mut acks, ack);
            }
        }
    };
    stream.ask(item(1, vector(1))).await;
    acked(&mut stream, 1).await;
    server.set_alias("live", "next").await;
    stream.ask(item(2, vector(2))).await;
    acked(&mut stream, 2).await;
    let generations =
        (server.collection("bare").await.generation, server.collection("next").await.generation);
    assert_eq!(generations, (1, 1));
    drop(stream);
    let mut stream = Stream::open(&server, "live", "moves", 2).await;
    assert_eq!(stream.credit(&mut BTreeMap::new()).await.durable_sequence, 2);

    let mut stream = Stream::open(&server, "bare", "ends", 0).await;
    stream.credit(&mut BTreeMap::new()).await;
    server.engine.drop_collection("bare").await.unwrap();
    stream.ask(item(1, vector(1))).await;
    let told = refusal(&stream.end().await);
    assert_eq!((told.code, told.field.as_str()), (Code::NotFound, "start.collection"));
}

#[tokio::test]
async fn the_callers_deadline_ends_the_stream_and_says_so() {
    let server = bare().await;
    let (asked, requests) = mpsc::channel(4);
    let mut request = tonic::Request::new(ReceiverStream::new(requests));
    request.set_timeout(std::time::Duration::from_millis(300));
    let message = Some(start("bare", "late", 0));
    asked.send(v1::IngestItemsRequest { message }).await.unwrap();
    let told = server.items().ingest_items(request).await.unwrap().into_inner();
    let status = Stream { asked, told }.end().await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(refusal(&status).reason, "DEADLINE_EXCEEDED");
}
