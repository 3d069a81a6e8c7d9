use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, mpsc};
use std::task::Poll;

use diptych_model::testing::tiny_bundle;

use super::job::Input;
use super::*;
use crate::error::Kind;

impl Input for f32 {
    fn length(&self) -> usize {
        1
    }
}

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
    let sizes = Sizes {
        places,
        wait: Duration::from_secs(3600),
        batch: Budget { inputs: 8, ids: usize::MAX },
        by_length: false,
        preparing: 2,
    };
    let tower = Tower::start(Modality::Text, sizes, move |batch: &[f32]| {
        notes.lock().unwrap().push(batch.to_vec());
        wait.recv().unwrap();
        assert!(!batch.contains(&POISON), "a bad input");
        Ok(batch.iter().copied().map(vectors).collect())
    });
    (tower.unwrap(), go, seen)
}

async fn encode(tower: &Tower<f32>, input: f32) -> Result<Vectors> {
    let work = Work::here(Lane::Interactive);
    let place = tower.admission().enter(work, 0, Before::default()).await?;
    Ok(tower.encode(work, place, input).await?.vectors)
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
    let enter = || tower.admission().enter(Work::here(Lane::Interactive), 0, Before::default());
    let place = enter().await.unwrap();
    assert_eq!(enter().await.unwrap_err().kind(), Kind::Overloaded);
    drop(place);
    assert!(enter().await.is_ok());
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
    let failed = tower
        .prepare::<f32>(Work::here(Lane::Interactive), || panic!("a bad file"))
        .await
        .unwrap_err();
    assert_eq!(failed.details().reason, ErrorReason::InferenceFailed);
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 1.0).await.unwrap(), vectors(1.0));
}

#[tokio::test]
async fn what_is_brief_is_computed_here_once_that_is_known_and_while_nobody_else_computes() {
    let (tower, go, seen) = held_tower(8);
    let here = async |input| {
        let place = tower
            .admission()
            .enter(Work::here(Lane::Interactive), 0, Before::default())
            .await
            .unwrap();
        tower.encode_here(Lane::Interactive, place, input)
    };
    assert!(here(0.0).await.is_err(), "nothing is known yet");
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 1.0).await.unwrap(), vectors(1.0));
    go.send(()).unwrap();
    assert_eq!(here(2.0).await.unwrap().unwrap().vectors, vectors(2.0));
    go.send(()).unwrap();
    let bad = here(POISON).await.unwrap().unwrap_err();
    assert_eq!(bad.details().reason, ErrorReason::InferenceFailed);
    let noted = seen.lock().unwrap().len();
    let mut running = pin!(encode(&tower, 3.0));
    begin(&mut running).await;
    while seen.lock().unwrap().len() == noted {
        tokio::task::yield_now().await;
    }
    assert!(here(4.0).await.is_err(), "the thread computes");
    go.send(()).unwrap();
    assert_eq!(running.await.unwrap(), vectors(3.0));
    assert_eq!(tower.admission().load()[0].inputs, 0, "all places are given back");
}

#[tokio::test]
async fn what_is_computed_here_is_what_the_threads_compute() {
    let golden = tiny_bundle(7).unwrap().files()["golden/image-000.png"].to_vec();
    let mut found = Vec::new();
    for threads in [1, 2] {
        let handle = handle_of(threads);
        let work = Work::here(Lane::Interactive).fresh();
        // The first of each is computed by a thread: what it takes is not known.
        for _ in 0..2 {
            let image = handle.image(golden.clone().into(), work).await.unwrap();
            let text = handle.text("a red heart", false, work).await.unwrap();
            found.push((image.vectors, text.vectors));
        }
    }
    assert!(found.iter().all(|vectors| *vectors == found[0]));
}

#[tokio::test]
async fn who_runs_out_of_time_before_its_turn_is_told_so() {
    let handle = handle_of(1);
    let work = Work::here(Lane::Interactive).fresh();
    handle.text("a red heart", false, work).await.unwrap();
    let late = Work { until: Some(Instant::now()), ..work };
    assert_eq!(handle.text("a heart", false, late).await.unwrap_err().kind(), Kind::Deadline);
    assert_eq!(handle.load().texts[0].inputs, 0);
}

fn handle() -> EncoderHandle {
    handle_of(1)
}

fn handle_of(threads: usize) -> EncoderHandle {
    let settings = EncoderSettings {
        queue_items: 8,
        queue_wait: Duration::from_secs(3600),
        batch_images: 4,
        batch_texts: 4,
        batch_ids: 1024,
        threads,
        cache_bytes: 1 << 20,
        image_limits: ImageLimits::default(),
        text_bytes: 100,
    };
    let encoder = Encoder::open(&tiny_bundle(7).unwrap()).unwrap();
    let decoders = Arc::new(Decoders::start(threads, 1 << 30).unwrap());
    EncoderHandle::start(Arc::new(encoder), settings, &decoders).unwrap()
}

#[tokio::test]
async fn a_long_text_is_cut_only_when_asked_and_says_where() {
    let handle = handle();
    // Two bytes a letter, so that the limit would fall into the last one.
    let long = format!("x{}", "ä".repeat(60));
    let work = Work::here(Lane::Standard);
    let refused = handle.text(&long, false, work).await.unwrap_err();
    assert_eq!(refused.details().reason, ErrorReason::TextTooLong);
    assert_eq!(refused.details().metadata["limit"], "100");
    assert_eq!(refused.details().metadata["actual"], "121");
    let cut = handle.text(&long, true, work).await.unwrap();
    assert_eq!(cut.used_bytes, Some(99));
    let same = handle.text(&long[..99], false, work).await.unwrap();
    assert_eq!((same.used_bytes, same.vectors), (None, cut.vectors));
}

#[tokio::test]
async fn what_is_no_picture_is_refused_by_field_and_the_next_one_is_embedded() {
    let handle = handle();
    let refused = handle.image("no picture".into(), Work::here(Lane::Standard)).await.unwrap_err();
    assert_eq!(refused.details().reason, ErrorReason::ImageFormatUnsupported);
    assert_eq!(refused.details().violations[0].field, "image");
    let golden = tiny_bundle(7).unwrap().files()["golden/image-000.png"].to_vec();
    let work = Work::here(Lane::Standard);
    assert_eq!(handle.image(golden.into(), work).await.unwrap().vectors.shared.len(), 32);
    assert!(handle.healthy());
}

#[tokio::test]
async fn what_is_asked_again_needs_no_place() {
    let handle = handle();
    let work = Work::here(Lane::Interactive);
    let first = handle.text("a red heart", false, work).await.unwrap();
    let all = handle.texts.admission();
    let mut places = Vec::new();
    for _ in 0..8 {
        places.push(all.enter(work, 0, Before::default()).await.unwrap());
    }
    assert_eq!(handle.text("a heart", false, work).await.unwrap_err().kind(), Kind::Overloaded);
    assert_eq!(handle.text("a red heart", false, work).await.unwrap().vectors, first.vectors);
}

#[tokio::test]
async fn who_runs_out_of_time_in_the_queue_is_told_so_and_not_computed() {
    let (tower, go, seen) = held_tower(8);
    let mut running = pin!(encode(&tower, 0.0));
    begin(&mut running).await;
    until_busy(&seen).await;
    let work = Work {
        until: Some(Instant::now() + Duration::from_millis(1)),
        ..Work::here(Lane::Interactive)
    };
    let place = tower.admission().enter(work, 0, Before::default()).await.unwrap();
    let mut late = pin!(tower.encode(work, place, 1.0));
    begin(&mut late).await;
    tokio::time::sleep_until(work.until.unwrap().into()).await;
    go.send(()).unwrap();
    running.await.unwrap();
    assert_eq!(late.await.unwrap_err().kind(), Kind::Deadline);
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 2.0).await.unwrap(), vectors(2.0));
    assert_eq!(*seen.lock().unwrap(), [vec![0.0], vec![2.0]]);
}

#[tokio::test]
async fn ten_thousand_callers_that_leave_leave_nothing_behind() {
    let (tower, go, seen) = held_tower(20_000);
    let mut running = pin!(encode(&tower, 0.0));
    begin(&mut running).await;
    until_busy(&seen).await;
    for _ in 0..10_000 {
        let mut left = pin!(encode(&tower, 1.0));
        begin(&mut left).await;
    }
    go.send(()).unwrap();
    running.await.unwrap();
    go.send(()).unwrap();
    assert_eq!(encode(&tower, 2.0).await.unwrap(), vectors(2.0));
    assert_eq!(*seen.lock().unwrap(), [vec![0.0], vec![2.0]]);
    assert!(tower.admission().load().iter().all(|lane| lane.inputs == 0));
}

#[tokio::test]
async fn the_time_of_an_embedding_is_told_by_parts() {
    let handle = handle();
    let golden = tiny_bundle(7).unwrap().files()["golden/image-000.png"].to_vec();
    let image = handle.image(golden.into(), Work::here(Lane::Standard)).await.unwrap().timings;
    assert!(!image.decode.is_zero() && !image.resize.is_zero() && !image.encode.is_zero());
    assert!(image.tokenize.is_zero());
    let text = handle.text("a red heart", false, Work::here(Lane::Standard)).await.unwrap().timings;
    assert!(!text.tokenize.is_zero() && !text.encode.is_zero());
    assert!(text.decode.is_zero() && text.resize.is_zero());
}

#[test]
fn what_waits_for_the_image_tower_is_bounded_by_its_places() {
    let handle = handle();
    let encoder = handle.encoder();
    let side = u64::from(encoder.image_preprocessing().unwrap().size);
    // 8 places for searches, 8 for other callers, 2 for work in the background, a byte for each channel of each pixel.
    assert_eq!(handle.queue_bytes(), (8 + 8 + 2) * 3 * side * side);
}
