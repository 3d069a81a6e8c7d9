//! Vectors of pictures and texts without storing anything.

use std::time::Duration;

use diptych_model::testing::disc;
use diptych_proto::v1;
use diptych_proto::v1::embed_input::Input;
use diptych_server::config::Flags;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::support::*;

fn numbers(vector: &v1::Vector) -> Vec<f32> {
    let Some(v1::vector::Values::PackedF32(bytes)) = &vector.values else { panic!("{vector:?}") };
    let (chunks, rest) = bytes.as_chunks::<4>();
    assert!(rest.is_empty() && chunks.len() == vector.dimension as usize);
    chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

fn distance(a: &v1::Embedding, b: &v1::Embedding) -> f32 {
    let of = |a: &Option<v1::Vector>, b: &Option<v1::Vector>| {
        let (a, b) = (numbers(a.as_ref().unwrap()), numbers(b.as_ref().unwrap()));
        1.0 - a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
    };
    of(&a.shared, &b.shared).max(of(&a.exclusive, &b.exclusive))
}

fn inputs() -> Vec<v1::EmbedInput> {
    let input = |input| v1::EmbedInput { input: Some(input), truncate: false };
    vec![
        input(Input::Text("a red heart".to_owned())),
        input(Input::Image(disc(30, 20).unwrap().into())),
        input(Input::Text("赤い円".to_owned())),
        input(Input::Image(b"no picture".as_slice().into())),
        v1::EmbedInput::default(),
        input(Input::Image(black_png(1, 1).into())),
    ]
}

fn text(text: &str) -> v1::EmbedInput {
    v1::EmbedInput { input: Some(Input::Text(text.to_owned())), truncate: false }
}

async fn alone(server: &Server, input: Input) -> v1::Embedding {
    match input {
        Input::Image(image) => {
            let request = v1::EmbedImageRequest { image, ..Default::default() };
            let reply = server.embedding().embed_image(request).await.unwrap().into_inner();
            assert_eq!(reply.embedding_digest, server.digest);
            reply.embedding.unwrap()
        }
        Input::Text(text) => {
            let request = v1::EmbedTextRequest { text, ..Default::default() };
            let reply = server.embedding().embed_text(request).await.unwrap().into_inner();
            reply.embedding.unwrap()
        }
    }
}

#[tokio::test]
async fn vectors_are_of_unit_length_and_the_same_alone_in_a_batch_and_in_a_stream() {
    use v1::batch_embed_response::result::Outcome;
    let server = Server::start().await;
    let request = v1::BatchEmbedRequest { inputs: inputs(), ..Default::default() };
    let batch = server.embedding().batch_embed(request).await.unwrap().into_inner();
    assert_eq!(batch.embedding_digest, server.digest);
    let outcomes: Vec<Outcome> =
        batch.results.into_iter().map(|result| result.outcome.unwrap()).collect();
    for place in [0, 1, 2, 5] {
        let Outcome::Embedding(batched) = &outcomes[place] else { panic!("{place}") };
        let length: f32 =
            numbers(batched.shared.as_ref().unwrap()).iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5);
        let single = alone(&server, inputs().remove(place).input.unwrap()).await;
        assert!(distance(batched, &single) <= 1e-5);
    }
    let told = |place: usize| match &outcomes[place] {
        Outcome::Status(status) => refusal_of(status),
        Outcome::Embedding(_) => panic!("{place}"),
    };
    assert_eq!(told(3), invalid("IMAGE_FORMAT_UNSUPPORTED", "inputs[3].image", None));
    assert_eq!(told(4), invalid("FIELD_INVALID", "inputs[4]", None));
}

#[tokio::test]
async fn a_stream_answers_every_input_by_its_number() {
    use v1::embed_stream_response::Outcome;
    let server = Server::start().await;
    let requests = (10..).zip(inputs()).map(|(sequence, input)| v1::EmbedStreamRequest {
        sequence,
        input: Some(input),
        embedding_digest: String::new(),
    });
    let requests: Vec<_> = requests.collect();
    let stream = server.embedding().embed_stream(tokio_stream::iter(requests)).await.unwrap();
    let mut replies: Vec<_> = stream.into_inner().map(Result::unwrap).collect().await;
    replies.sort_by_key(|reply| reply.sequence);
    assert_eq!(
        replies.iter().map(|reply| reply.sequence).collect::<Vec<_>>(),
        [10, 11, 12, 13, 14, 15]
    );
    let Some(Outcome::Embedding(streamed)) = &replies[1].outcome else { panic!("{replies:?}") };
    let single = alone(&server, inputs().remove(1).input.unwrap()).await;
    assert!(distance(streamed, &single) <= 1e-5);
    let Some(Outcome::Status(bad)) = &replies[3].outcome else { panic!("{replies:?}") };
    assert_eq!(refusal_of(bad), invalid("IMAGE_FORMAT_UNSUPPORTED", "input.image", None));
}

#[tokio::test]
async fn a_stream_answers_what_it_read_before_the_server_goes_down_and_says_so() {
    let server = Server::start().await;
    let (asked, requests) = tokio::sync::mpsc::channel(64);
    let stream = server.embedding().embed_stream(ReceiverStream::new(requests)).await.unwrap();
    let mut replies = stream.into_inner();
    for sequence in 1..=20 {
        let input = Some(text(&format!("a heart number {sequence}")));
        let request = v1::EmbedStreamRequest { sequence, input, ..Default::default() };
        asked.send(request).await.unwrap();
    }
    let mut answered = vec![replies.next().await.unwrap().unwrap().sequence];
    server.service.wind_down();
    let ended = loop {
        match replies.next().await.unwrap() {
            Ok(reply) => answered.push(reply.sequence),
            Err(status) => break refusal(&status),
        }
    };
    assert_eq!((ended.code, ended.reason.as_str()), (Code::Unavailable, "DRAINING"));
    answered.sort_unstable();
    assert!(answered.iter().copied().eq(1..=answered.len() as u64), "{answered:?}");
}

#[tokio::test]
async fn a_stream_outlives_the_time_of_a_call_but_not_its_callers_deadline() {
    let flags = Flags { timeout: Some("200ms".to_owned()), ..Flags::default() };
    let server = Server::with(Setup { flags, ..Setup::default() }).await;
    let request = |sequence: u64| v1::EmbedStreamRequest {
        sequence,
        input: Some(text(&format!("a heart number {sequence}"))),
        ..Default::default()
    };
    let (asked, requests) = tokio::sync::mpsc::channel(1);
    let stream = server.embedding().embed_stream(ReceiverStream::new(requests)).await.unwrap();
    let mut replies = stream.into_inner();
    tokio::time::sleep(Duration::from_millis(300)).await;
    asked.send(request(1)).await.unwrap();
    let reply = replies.next().await.unwrap().unwrap();
    let embedded = matches!(reply.outcome, Some(v1::embed_stream_response::Outcome::Embedding(_)));
    assert!(embedded, "{reply:?}");

    let (asked, requests) = tokio::sync::mpsc::channel(1);
    let mut timed = tonic::Request::new(ReceiverStream::new(requests));
    timed.set_timeout(Duration::from_millis(150));
    let mut replies = server.embedding().embed_stream(timed).await.unwrap().into_inner();
    let ended = replies.next().await.unwrap().unwrap_err();
    assert_eq!(refusal(&ended).reason, "DEADLINE_EXCEEDED");
    drop(asked);
}

#[tokio::test]
async fn a_bundle_that_is_not_here_is_not_found() {
    let server = Server::start().await;
    let told = Refusal {
        code: Code::NotFound,
        reason: "BUNDLE_NOT_FOUND".to_owned(),
        field: "embedding_digest".to_owned(),
        limit: None,
    };
    let request = v1::EmbedTextRequest {
        text: "a".to_owned(),
        embedding_digest: "cd".repeat(32),
        ..Default::default()
    };
    assert_eq!(refused(server.embedding().embed_text(request)).await, told);
    let first = v1::EmbedStreamRequest { embedding_digest: "cd".repeat(32), ..Default::default() };
    let stream = server.embedding().embed_stream(tokio_stream::iter([first])).await.unwrap();
    let status = stream.into_inner().next().await.unwrap().unwrap_err();
    assert_eq!(refusal(&status), told);
}
