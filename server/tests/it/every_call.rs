//! Every method of the contract, asked with nothing, with something whole, and with that less one field at a time: the answer is
//! always one that says what is wrong.
//!
//! The requests are taken apart by the contract's own descriptors, so that a new method or field is met without an edit; a new
//! method only needs a whole request in `every_call/requests.rs`.

mod contract;
mod requests;

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use diptych_proto::v1;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use self::contract::{Contract, Method, Missing, Promise};
use self::requests::whole_requests;
use super::support::*;

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(60);
/// Methods whose reply has a status for each element.
const BATCHES: [&str; 3] =
    ["SearchService/BatchSearch", "EmbeddingService/BatchEmbed", "ItemService/BatchUpsertItems"];
/// The method whose every request is such an element.
const STREAM: &str = "EmbeddingService/EmbedStream";

/// Messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        buffer.advance(buffer.remaining());
        Ok(Some(()))
    }
}

/// The status of one call, its stream read to the end.
async fn answer(channel: &Channel, method: &Method, message: Vec<u8>) -> Status {
    let called = async {
        let mut client = tonic::client::Grpc::new(channel.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(tokio_stream::iter([message]));
        let path = method.path.parse().unwrap();
        let mut replies = client.streaming(request, path, Raw).await?.into_inner();
        while replies.message().await?.is_some() {}
        Ok(())
    };
    match tokio::time::timeout(PATIENCE, called).await {
        Ok(Ok(())) => Status::ok(""),
        Ok(Err(status)) => status,
        Err(_) => panic!("{} does not answer", method.path),
    }
}

/// What may be said of a request: anything but that the server is at fault, or does not know.
fn must_be_clean(what: &str, status: &Status) {
    let clean = !matches!(
        status.code(),
        Code::Internal | Code::Unknown | Code::DataLoss | Code::Cancelled | Code::DeadlineExceeded
    );
    assert!(clean, "{what}: {status:?}");
    if status.code() != Code::Ok {
        let told = refusal(status);
        assert!(!told.reason.is_empty(), "{what}");
        let named = told.code != Code::InvalidArgument || !told.field.is_empty();
        assert!(named, "{what}: no field is named: {status:?}");
    }
}

/// A required field that is missing is told by its name; an optional one is not missed. What is not so, in words.
fn broken_promise(what: &str, method: &str, missing: &Missing, status: &Status) -> Option<String> {
    let told = (status.code() != Code::Ok).then(|| refusal(status));
    let named = told.as_ref().map(|told| without_places(&told.field)).unwrap_or_default();
    // An element of a batch is refused in the reply.
    let of_element = method == STREAM || BATCHES.contains(&method) && missing.path.contains('.');
    match missing.promise {
        Promise::Required if !of_element => {
            let code = told.map_or(Code::Ok, |told| told.code);
            let kept = code == Code::InvalidArgument && named == missing.path;
            (!kept).then(|| format!("{what}: {code:?} of `{named}`: {}", status.message()))
        }
        Promise::Optional if named == missing.path => Some(format!("{what} is missed")),
        Promise::Required | Promise::Optional | Promise::Unsaid => None,
    }
}

/// A path without places in lists.
fn without_places(path: &str) -> String {
    let parts = path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
    parts.collect()
}

#[tokio::test]
async fn every_method_answers_cleanly_whatever_is_left_out() {
    let server = Server::with_things().await;
    server.put("things", text_item("a", "a heart")).await;
    server.set_alias("live", "things").await;
    let contract = Contract::read();
    let mut whole = whole_requests();
    let (mut asked, mut broken) = (0, Vec::new());
    for method in &contract.methods {
        let short = method.path.trim_start_matches("/diptych.v1.");
        let message = whole.remove(short).unwrap_or_default();
        for missing in contract.without_each(&method.input, &message) {
            let status = answer(&server.channel, method, missing.message.clone()).await;
            let what = format!("{short} without {}", missing.path);
            must_be_clean(&what, &status);
            broken.extend(broken_promise(&what, short, &missing, &status));
            asked += 1;
        }
        // The whole request comes last: the others have its request id, and it is the one that is stored.
        for (missing, message) in [("all", Vec::new()), ("nothing", message)] {
            let status = answer(&server.channel, method, message).await;
            must_be_clean(&format!("{short} without {missing}"), &status);
        }
    }
    assert!(broken.is_empty(), "{} promises are broken:\n{}", broken.len(), broken.join("\n"));
    assert!(whole.is_empty(), "no such methods: {whole:?}");
    assert!(asked > 150, "only {asked} requests were made");
    assert!(contract.methods.iter().any(|method| method.streams));
    // And the server is as it was.
    let hits = server.search().search(ask("things", v1::Modality::Text, by_text("a heart"))).await;
    assert!(!hits.unwrap().into_inner().hits.is_empty());
}
