//! Callers that hang up: what they asked for is let go of, and nothing of it stays.

use std::time::Duration;

use diptych_proto::v1;
use diptych_tests::process::{http_get, until};
use diptych_tests::{Api, Server, inputs};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;
use tokio::task::JoinSet;

const CALLS: usize = 10_000;
/// Of each connection at once.
const AT_ONCE: usize = 50;
const CONNECTIONS: usize = 4;

/// The sum of a figure's values over its labels.
async fn figure(server: &Server, name: &str) -> f64 {
    let (_, page) = http_get(server.ops(), "/metrics").await.unwrap();
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
    let values: Vec<f64> = page
        .lines()
        .filter(of_name)
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(!values.is_empty(), "no {name} in {page}");
    values.into_iter().sum()
}

/// One call that is left after a while, whether it was answered or not: most while they wait or are computed.
async fn leave(api: Api, number: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(number as u64);
    let patience = Duration::from_micros(rng.random_range(0..4_000));
    let call = async {
        match number % 5 {
            0 => {
                let image = inputs::png(&mut rng).into();
                let request = v1::EmbedImageRequest { image, ..Default::default() };
                drop(api.embedding().embed_image(request).await);
            }
            1 => {
                let text = format!("a call that is given up, number {number}");
                let request = v1::EmbedTextRequest { text, ..Default::default() };
                drop(api.embedding().embed_text(request).await);
            }
            2 => {
                let collection = "emoji".to_owned();
                let entries = (0..2).map(|part| put(number, part)).collect();
                let request =
                    v1::BatchUpsertItemsRequest { collection, entries, ..Default::default() };
                drop(api.items().batch_upsert_items(request).await);
            }
            3 => {
                let input = |part| v1::EmbedInput {
                    input: Some(v1::embed_input::Input::Text(format!("{number}, part {part}"))),
                    ..Default::default()
                };
                let inputs = (0..4).map(input).collect();
                let request = v1::BatchEmbedRequest { inputs, ..Default::default() };
                drop(api.embedding().batch_embed(request).await);
            }
            _ => {
                let request = v1::SearchTextToImageRequest {
                    collection: "emoji".to_owned(),
                    text: format!("a search that is given up, number {number}"),
                    ..Default::default()
                };
                drop(api.search().search_text_to_image(request).await);
            }
        }
    };
    drop(tokio::time::timeout(patience, call).await);
}

/// An item over an earlier one: what is stored does not grow.
fn put(number: usize, part: usize) -> v1::batch_upsert_items_request::Entry {
    let item = v1::ItemInput {
        id: format!("given-up-{}-{part}", number % 20),
        input: Some(v1::item_input::Input::Text(format!(
            "a put that is given up, number {number}"
        ))),
        ..Default::default()
    };
    v1::batch_upsert_items_request::Entry { item: Some(item), expected_version: None }
}

async fn leave_all(server: &Server, first: usize) {
    let mut connections = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let api = server.api().await.unwrap();
        connections.spawn(async move {
            let numbers = (first..first + CALLS).skip(connection).step_by(CONNECTIONS);
            let mut calls = JoinSet::new();
            for number in numbers {
                if calls.len() == AT_ONCE {
                    calls.join_next().await;
                }
                calls.spawn(leave(api.clone(), number));
            }
            calls.join_all().await;
        });
    }
    connections.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_cancelled_calls_leave_nothing_behind() {
    let data = TempDir::new().unwrap();
    let server = Server::start(data.path(), &[]).await.unwrap();
    // What a server of this size comes to hold anyway: heaps of threads, buffers, the cache.
    leave_all(&server, 0).await;
    let before = server.resident_bytes().unwrap();
    leave_all(&server, CALLS).await;
    for name in ["diptych_queue_items", "diptych_queue_cost_seconds", "diptych_calls_in_flight"] {
        until(&format!("{name} is 0"), async || figure(&server, name).await == 0.0).await.unwrap();
    }
    let after = server.resident_bytes().unwrap();
    println!("{before} bytes before, {after} after");
    assert!(after < before + (16 << 20), "{before} bytes became {after}");
    // Every place is free again: a burst of calls is answered, those that are refused after the crowd when they come again.
    let api = server.api().await.unwrap();
    let mut calls = JoinSet::new();
    for number in 0..30 {
        let api = api.clone();
        calls.spawn(async move {
            let text = format!("a call after all that, number {number}");
            let request = v1::EmbedTextRequest { text, ..Default::default() };
            let answered = async || api.embedding().embed_text(request.clone()).await.is_ok();
            until("a call is answered", answered).await
        });
    }
    for answered in calls.join_all().await {
        answered.unwrap();
    }
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
}
