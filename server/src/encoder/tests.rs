use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, mpsc};
use std::task::Poll;

use diptych_model::testing::tiny_bundle;

use super::*;
use crate::error::Kind;

/// The batches that a tower was given.
type Seen = Arc<Mutex<Vec<Vec<f32>>>>;

/// An input that makes the networks of [`held_tower`] panic.
const POISON: f32 = -1.0;

fn vectors(value: f32) -> Vectors {
    Vectors { shared: vec![value], exclusive: Some(vec![value]) }
}

/// A tower whose every batch waits for a word, and that notes the batches it was given.
fn held_tower(places: usize) -> (Tower<f32>, mpsc::Sender<()>, Seen) {
    let (go, wait) = mpsc::channel();
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let sizes = Sizes { places, batch: 8, preparing: 2 };
    let tower = Tower::start("test", sizes, move |batch: &[f32]| {
        notes.lock().unwrap().push(batch.to_vec());
        wait.recv().unwrap();
        assert!(!batch.contains(&POISON), "a bad input");
        Ok(batch.iter().copied().map(vectors).collect())
    });
    (tower.unwrap(), go, seen)
}

async fn encode(tower: &Tower<f32>, input: f32) -> Result<Vectors> {
    tower.encode(Lane::Interactive, tower.admit()?, input).await
}

/// Lets the thread take up its first batch.
async fn until_busy(seen: &Seen) {
    while seen.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

/// Polls a future that must not be ready yet: what it sends is sent.
async fn begin<F: Future>(future: &mut std::pin::Pin<&mut F>) {
    std::future::poll_fn(|context| {
        assert!(future.as_mut().poll(context).is_pending(), "is ready too early");
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn inputs_that_wait_for_a_batch_share_the_next() {
    let (tower, go, seen) = held_tower(8);
    let mut first = pin!(encode(&tower, 0.0));
    begin(&mut first).await;
    until_busy(&seen).await;
    let mut rest =
        pin!(async { tokio::join!(encode(&tower, 1.0), encode(&tower, 2.0), encode(&tower, 3.0)) });
    begin(&mut rest).await;
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(first.await.unwrap(), vectors(0.0));
    let (one, two, three) = rest.await;
    assert_eq!([one.unwrap(), two.unwrap(), three.unwrap()], [1.0, 2.0, 3.0].map(vectors));
    assert_eq!(*seen.lock().unwrap(), [vec![0.0], vec![1.0, 2.0, 3.0]]);
}

#[tokio::test]
async fn a_batch_is_no_larger_than_it_may_be() {
    let (tower, go, seen) = held_tower(32);
    let mut first = pin!(encode(&tower, 0.0));
    begin(&mut first).await;
    until_busy(&seen).await;
    let mut waiting: Vec<_> =
        (1_u8..=9).map(|input| Box::pin(encode(&tower, f32::from(input)))).collect();
    for input in &mut waiting {
        begin(&mut input.as_mut()).await;
    }
    for _ in 0..3 {
        go.send(()).unwrap();
    }
    first.await.unwrap();
    for input in waiting {
        input.await.unwrap();
    }
    let sizes: Vec<usize> = seen.lock().unwrap().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 8, 1]);
}

#[tokio::test]
async fn who_finds_no_place_is_refused_at_once_with_a_time_to_wait() {
    let (tower, go, seen) = held_tower(2);
    let mut running = pin!(encode(&tower, 0.0));
    begin(&mut running).await;
    until_busy(&seen).await;
    let mut queued = pin!(encode(&tower, 1.0));
    begin(&mut queued).await;
    let refused = encode(&tower, 2.0).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Overloaded);
    assert_eq!(refused.details().reason, ErrorReason::QueueFull);
    assert!(refused.details().retry_after.is_some());
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert!(running.await.is_ok() && queued.await.is_ok());
    go.send(()).unwrap();
    assert!(encode(&tower, 3.0).await.is_ok(), "places are given back");
}

#[tokio::test]
async fn what_is_still_prepared_has_a_place_too() {
    let (tower, _go, _) = held_tower(1);
    let place = tower.admit().unwrap();
    assert_eq!(tower.admit().unwrap_err().kind(), Kind::Overloaded);
    drop(place);
    assert!(tower.admit().is_ok());
}

#[tokio::test]
async fn a_caller_that_left_is_not_computed() {
    let (tower, go, seen) = held_tower(8);
    let mut running = pin!(encode(&tower, 0.0));
    begin(&mut running).await;
    until_busy(&seen).await;
    {
        let mut left = pin!(encode(&tower, 1.0));
        begin(&mut left).await;
    }
    go.send(()).unwrap();
    running.await.unwrap();
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 2.0).await.unwrap(), vectors(2.0));
    assert_eq!(*seen.lock().unwrap(), [vec![0.0], vec![2.0]]);
}

#[tokio::test]
async fn a_panic_fails_its_own_input_and_the_thread_goes_on() {
    let (tower, go, seen) = held_tower(8);
    let mut running = pin!(encode(&tower, 0.0));
    begin(&mut running).await;
    until_busy(&seen).await;
    let mut both = pin!(async { tokio::join!(encode(&tower, POISON), encode(&tower, 1.0)) });
    begin(&mut both).await;
    // The first batch, the poisoned one, and its two inputs one by one.
    for _ in 0..4 {
        go.send(()).unwrap();
    }
    running.await.unwrap();
    let (bad, good) = both.await;
    assert_eq!(bad.unwrap_err().details().reason, ErrorReason::InferenceFailed);
    assert_eq!(good.unwrap(), vectors(1.0));
    assert!(tower.healthy());
}

#[tokio::test]
async fn a_panic_while_preparing_fails_its_own_input() {
    let (tower, go, _) = held_tower(1);
    let failed = tower.prepare(Lane::Interactive, || panic!("a bad file")).await.unwrap_err();
    assert_eq!(failed.details().reason, ErrorReason::InferenceFailed);
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 1.0).await.unwrap(), vectors(1.0));
}

fn handle() -> EncoderHandle {
    let settings = EncoderSettings {
        queue_items: 8,
        batch_images: 4,
        batch_texts: 4,
        decoders: 1,
        image_limits: ImageLimits::default(),
        text_bytes: 100,
    };
    let encoder = Encoder::open(&tiny_bundle(7).unwrap()).unwrap();
    EncoderHandle::start(Arc::new(encoder), settings).unwrap()
}

#[tokio::test]
async fn a_long_text_is_cut_only_when_asked_and_says_where() {
    let handle = handle();
    // Two bytes a letter, so that the limit would fall into the last one.
    let long = format!("x{}", "ä".repeat(60));
    let refused = handle.text(&long, false).await.unwrap_err();
    assert_eq!(refused.details().reason, ErrorReason::TextTooLong);
    assert_eq!(refused.details().metadata["limit"], "100");
    assert_eq!(refused.details().metadata["actual"], "121");
    let cut = handle.text(&long, true).await.unwrap();
    assert_eq!(cut.used_bytes, Some(99));
    let same = handle.text(&long[..99], false).await.unwrap();
    assert_eq!((same.used_bytes, same.vectors), (None, cut.vectors));
}

#[tokio::test]
async fn what_is_no_picture_is_refused_by_field_and_the_next_one_is_embedded() {
    let handle = handle();
    let refused = handle.image("no picture".into()).await.unwrap_err();
    assert_eq!(refused.details().reason, ErrorReason::ImageFormatUnsupported);
    assert_eq!(refused.details().violations[0].field, "image");
    let golden = tiny_bundle(7).unwrap().files()["golden/image-000.png"].to_vec();
    assert_eq!(handle.image(golden.into()).await.unwrap().vectors.shared.len(), 32);
    assert!(handle.healthy());
}
