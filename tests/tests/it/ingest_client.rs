//! The client's ingest over the real server: what is put comes through once, whatever becomes of servers and streams meanwhile.

use std::time::Duration;

use diptych::{
    Client, Deadlines, Ingest, Kind, Options, Outcomes, RetryBudget, RetryPolicy, TransportOptions,
};
use diptych_proto::v1;
use diptych_tests::Server;
use diptych_tests::api::*;
use tempfile::TempDir;

const COLLECTION: &str = "things";
/// Longer than a server takes to start again.
const PATIENCE: Duration = Duration::from_secs(120);

/// A client that waits for a server which is started again.
async fn client(server: &Server) -> Client {
    let options = Options {
        deadlines: Deadlines::all(PATIENCE),
        retry: RetryPolicy {
            attempts: 1000,
            max_backoff: Duration::from_millis(200),
            budget: RetryBudget::unlimited(),
            ..RetryPolicy::default()
        },
        transport: TransportOptions {
            ready_wait: PATIENCE,
            max_backoff: Duration::from_millis(200),
            ..TransportOptions::default()
        },
        ..Options::default()
    };
    Client::connect_with(server.listen(), options).await.unwrap()
}

async fn server() -> (TempDir, Server, Client) {
    let data = TempDir::new().unwrap();
    let server = Server::plain(data.path()).await.unwrap();
    server.api().await.unwrap().create(create(COLLECTION)).await.unwrap();
    let client = client(&server).await;
    (data, server, client)
}

fn start(id: &str, acknowledged_sequence: u64) -> v1::IngestStart {
    let (collection, ingest_id) = (COLLECTION.to_owned(), id.to_owned());
    v1::IngestStart { collection, ingest_id, acknowledged_sequence }
}

/// One in eleven has no text.
fn item(sequence: u64) -> v1::ItemInput {
    let text = if is_bad(sequence) { String::new() } else { format!("text number {sequence}") };
    text_item(&format!("n{sequence:05}"), &text)
}

fn is_bad(sequence: u64) -> bool {
    sequence.is_multiple_of(11)
}

/// Puts the items up to `count` and drops the end that they are put in.
async fn put(mut ingest: Ingest, count: u64) {
    while ingest.next_sequence() <= count {
        let next = ingest.next_sequence();
        assert_eq!(ingest.put(item(next)).await.unwrap(), next);
    }
}

/// Reads the next outcome, which must be that of `sequence`.
async fn told(outcomes: &mut Outcomes, sequence: u64) {
    let told = outcomes.next().await.unwrap().unwrap();
    assert_eq!(told.sequence, sequence);
    match told.outcome {
        Ok(written) => assert!(!is_bad(sequence) && written.id == format!("n{sequence:05}")),
        Err(error) => {
            assert!(is_bad(sequence), "{error}");
            assert_eq!(error.reason(), v1::ErrorReason::TextEmpty, "{error}");
        }
    }
}

/// Every good item is there once: every put makes a generation.
async fn check(server: &Server, count: u64) {
    let api = server.api().await.unwrap();
    let good = (1..=count).filter(|sequence| !is_bad(*sequence)).count() as u64;
    assert_eq!(api.collection(COLLECTION).await.unwrap().generation, good);
    let list = v1::ListItemsRequest {
        collection: COLLECTION.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    assert_eq!(api.list(list).await.unwrap().len() as u64, good);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_killed_and_told_to_stop_cost_no_item_and_no_second_write() {
    const COUNT: u64 = 700;
    let (_data, mut server, client) = server().await;
    let (ingest, mut outcomes) = client.ingest(start("", 0)).await.unwrap();
    assert!(!ingest.id().is_empty() && ingest.next_sequence() == 1);
    let putting = tokio::spawn(put(ingest, COUNT));
    for sequence in 1..=COUNT {
        told(&mut outcomes, sequence).await;
        match sequence {
            100 | 450 => {
                server.kill().unwrap();
                server.restart().await.unwrap();
            }
            300 | 550 => {
                server.terminate().unwrap();
                assert!(server.ended().await.unwrap().success());
                server.restart().await.unwrap();
            }
            _ => {}
        }
    }
    assert!(outcomes.next().await.unwrap().is_none());
    putting.await.unwrap();
    check(&server, COUNT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_is_taken_up_by_its_id_and_what_was_not_heard_is_told_again() {
    let (_data, server, client) = server().await;
    let (ingest, mut outcomes) = client.ingest(start("mine", 0)).await.unwrap();
    let putting = tokio::spawn(put(ingest, 40));
    for sequence in 1..=20 {
        told(&mut outcomes, sequence).await;
    }
    putting.await.unwrap();
    // As by a process that dies.
    drop(outcomes);
    let (ingest, mut outcomes) = client.ingest(start("mine", 20)).await.unwrap();
    let next = ingest.next_sequence();
    assert!((21..=41).contains(&next), "{next}");
    let putting = tokio::spawn(put(ingest, 100));
    for sequence in 21..=100 {
        told(&mut outcomes, sequence).await;
    }
    assert!(outcomes.next().await.unwrap().is_none());
    putting.await.unwrap();
    check(&server, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_no_outcomes_is_held_up_and_loses_nothing() {
    let (_data, server, client) = server().await;
    let (ingest, mut outcomes) = client.ingest(start("", 0)).await.unwrap();
    let putting = tokio::spawn(put(ingest, 1000));
    // What is read is bounded, so what is acknowledged is: outcomes that wait, those of the window, and what the wire holds.
    let api = server.api().await.unwrap();
    let mut before = 0;
    loop {
        let generation = api.collection(COLLECTION).await.unwrap().generation;
        if generation == before && generation >= 64 {
            break;
        }
        before = generation;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(!putting.is_finished(), "{before} were written and nothing was read");
    for sequence in 1..=1000 {
        told(&mut outcomes, sequence).await;
    }
    assert!(outcomes.next().await.unwrap().is_none());
    putting.await.unwrap();
    check(&server, 1000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_an_ingest_is_told_once_at_its_start_or_among_the_outcomes() {
    let (_data, _server, client) = server().await;
    let nowhere = v1::IngestStart { collection: "nowhere".to_owned(), ..Default::default() };
    assert_eq!(client.ingest(nowhere).await.unwrap_err().kind(), Kind::NotFound);
    let unknown = client.ingest(start("never", 7)).await.unwrap_err();
    assert_eq!(unknown.reason(), v1::ErrorReason::IngestUnknown);
    let (mut ingest, mut outcomes) = client.ingest(start("two", 0)).await.unwrap();
    ingest.put(item(1)).await.unwrap();
    told(&mut outcomes, 1).await;
    let (second, _outcomes) = client.ingest(start("two", 1)).await.unwrap();
    assert_eq!(second.next_sequence(), 2);
    let error = outcomes.next().await.unwrap_err();
    assert_eq!(error.reason(), v1::ErrorReason::StreamTakenOver);
    assert!(outcomes.next().await.unwrap().is_none());
    assert_eq!(ingest.put(item(2)).await.unwrap_err().kind(), Kind::Cancelled);
}
