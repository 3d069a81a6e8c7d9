//! EmbeddingService.

use std::sync::Arc;
use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::embedding_service_server::EmbeddingService;
use prost::Message as _;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tonic::{Request, Response, Status, Streaming};

use super::Handler;
use super::convert::{bundle_digest, count, truncation};
use super::receive::Received;
use super::replies::{Replies, Share, answered, next_within};
use super::status::{complete, to_message};
use super::value::vector_out;
use crate::deadline;
use crate::embedding::{Input, InputKind};
use crate::encoder::{Embedded, Lane, Work};
use crate::error::{Error, Kind, Result};
use crate::models::Model;
use crate::service::{Service, draining};

/// Inputs of a stream that are worked on at once.
const STREAM_IN_FLIGHT: usize = 32;

#[tonic::async_trait]
impl EmbeddingService for Handler {
    async fn embed_image(
        &self,
        request: Request<v1::EmbedImageRequest>,
    ) -> Result<Response<v1::EmbedImageResponse>, Status> {
        let request = request.into_inner();
        let (embedding, embedding_digest) =
            self.embed(request.embedding_digest, Input::Image(request.image), 0).await?;
        Ok(Response::new(v1::EmbedImageResponse { embedding: Some(embedding), embedding_digest }))
    }

    async fn embed_text(
        &self,
        request: Request<v1::EmbedTextRequest>,
    ) -> Result<Response<v1::EmbedTextResponse>, Status> {
        let v1::EmbedTextRequest { text, truncate, embedding_digest } = request.into_inner();
        let total = text.len();
        let (embedding, embedding_digest) =
            self.embed(embedding_digest, Input::Text { text, truncate }, total).await?;
        Ok(Response::new(v1::EmbedTextResponse { embedding: Some(embedding), embedding_digest }))
    }

    async fn batch_embed(
        &self,
        request: Request<v1::BatchEmbedRequest>,
    ) -> Result<Response<v1::BatchEmbedResponse>, Status> {
        Ok(Response::new(self.batch(request.into_inner()).await?))
    }

    type EmbedStreamStream = Replies<v1::EmbedStreamResponse>;

    async fn embed_stream(
        &self,
        request: Request<Streaming<v1::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        self.0.admit()?;
        let service = Arc::clone(&self.0);
        let received = request.extensions().get::<Received>().cloned().unwrap_or_default();
        let requests = (request.into_inner(), received, self.1.calls.stream_idle);
        // The answer begins before the first input is there: some callers wait for it before they send.
        Ok(Response::new(answered(STREAM_IN_FLIGHT, |replies| {
            answer_stream(service, requests, replies)
        })))
    }
}

/// Answers inputs as they come, some at once, until the caller closes its side or leaves, or the server goes down: then what was
/// read is answered, and the caller told to go on elsewhere.
async fn answer_stream(
    service: Arc<Service>,
    (mut requests, received, idle): (Streaming<v1::EmbedStreamRequest>, Received, Duration),
    replies: Sender<v1::EmbedStreamResponse>,
) -> Result<(), Status> {
    let (mut running, share) = (JoinSet::new(), Share::new());
    let (mut model, mut sound) = (None, true);
    let ended = loop {
        // No input is read before there is a place for its answer.
        let next = async {
            let place = replies.clone().reserve_owned().await.ok()?;
            Some((place, next_within(&mut requests, idle).await))
        };
        let next = tokio::select! {
            biased;
            // Dropped with its reply: nobody reads any more.
            () = replies.closed() => return Ok(()),
            () = service.winding_down.cancelled() => break Err(draining().into()),
            next = next => next,
        };
        let Some((place, request)) = next else { return Ok(()) };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => break Ok(()),
            Err(status) => {
                break Err(complete(&status, service.limits.message_bytes).unwrap_or(status));
            }
        };
        let model = match &model {
            Some(model) => Arc::clone(model),
            None => match find(&service, request.embedding_digest.clone()) {
                Ok(found) => Arc::clone(model.insert(found)),
                Err(error) => break Err(error.into()),
            },
        };
        let counted = received.take();
        let room = tokio::select! {
            biased;
            () = replies.closed() => return Ok(()),
            room = share.take(request.encoded_len()) => (room, counted),
        };
        // No more is read than is answered, so each waits for its turn.
        let work = Work::here(Lane::Standard).patient();
        running.spawn(deadline::inherited(async move {
            place.send(stream_answer(&model, request, work).await);
            drop(room);
        }));
        while let Some(done) = running.try_join_next() {
            sound &= done.is_ok();
        }
    };
    let rest = async {
        while let Some(done) = running.join_next().await {
            sound &= done.is_ok();
        }
        // An input whose task broke off has no answer.
        if sound { ended } else { Err(Error::internal("an input ended early").into()) }
    };
    // What a caller that left had asked for is dropped with it.
    tokio::select! {
        () = replies.closed() => Ok(()),
        ended = rest => ended,
    }
}

/// The bundle of a digest, the default for an empty one.
fn find(service: &Service, digest: String) -> Result<Arc<Model>> {
    let digest = bundle_digest(digest)?;
    service.models.find(&digest).map_err(|error| error.at("embedding_digest"))
}

impl Handler {
    async fn embed(
        &self,
        digest: String,
        input: Input,
        total: usize,
    ) -> Result<(v1::Embedding, String)> {
        self.0.admit()?;
        let model = find(&self.0, digest)?;
        let embedded = model.embed(input, Work::here(Lane::Standard)).await?;
        Ok((embedding_out(&embedded, total), model.digest().to_owned()))
    }

    async fn batch(&self, request: v1::BatchEmbedRequest) -> Result<v1::BatchEmbedResponse> {
        self.0.admit()?;
        count("inputs", "inputs", request.inputs.len(), self.0.limits.batch_items)?;
        let model = find(&self.0, request.embedding_digest)?;
        let work = Work::here(Lane::Standard);
        let work = model.admit_batch(&kinds(&request.inputs), work)?;
        let mut running = JoinSet::new();
        let mut results = vec![v1::batch_embed_response::Result::default(); request.inputs.len()];
        for (place, input) in request.inputs.into_iter().enumerate() {
            let model = Arc::clone(&model);
            let embedded = async move { (place, one(&model, Some(input), work).await) };
            running.spawn(deadline::inherited(embedded));
        }
        while let Some(done) = running.join_next().await {
            use v1::batch_embed_response::result::Outcome;
            let (place, outcome) = done.map_err(|_| Error::internal("an input ended early"))?;
            results[place].outcome = Some(match outcome {
                Ok(embedding) => Outcome::Embedding(embedding),
                // The deadline is the call's: what is late for one input is late for the answer.
                Err(error) if error.kind() == Kind::Deadline => return Err(error),
                Err(error) => {
                    Outcome::Status(to_message(&error.inside(&format!("inputs[{place}]"))))
                }
            });
        }
        Ok(v1::BatchEmbedResponse { results, embedding_digest: model.digest().to_owned() })
    }
}

async fn stream_answer(
    model: &Model,
    request: v1::EmbedStreamRequest,
    work: Work,
) -> v1::EmbedStreamResponse {
    use v1::embed_stream_response::Outcome;
    let outcome = match one(model, request.input, work).await {
        Ok(embedding) => Outcome::Embedding(embedding),
        Err(error) => Outcome::Status(to_message(&error.inside("input"))),
    };
    v1::EmbedStreamResponse {
        sequence: request.sequence,
        outcome: Some(outcome),
        embedding_digest: model.digest().to_owned(),
    }
}

/// The kinds of inputs that there are.
fn kinds(inputs: &[v1::EmbedInput]) -> Vec<InputKind> {
    use v1::embed_input::Input as Wire;
    let of = |input: &v1::EmbedInput| match &input.input {
        Some(Wire::Image(_)) => Some(InputKind::Image),
        Some(Wire::Text(text)) => Some(InputKind::Text { bytes: text.len() }),
        None => None,
    };
    inputs.iter().filter_map(of).collect()
}

async fn one(model: &Model, input: Option<v1::EmbedInput>, work: Work) -> Result<v1::Embedding> {
    use v1::embed_input::Input as Wire;
    let input = input.ok_or_else(|| Error::field("", "is required"))?;
    let truncate = input.truncate;
    let (input, total) = match input.input.ok_or_else(|| Error::field("", "is required"))? {
        Wire::Image(bytes) => (Input::Image(bytes), 0),
        Wire::Text(text) => {
            let total = text.len();
            (Input::Text { text, truncate }, total)
        }
    };
    Ok(embedding_out(&model.embed(input, work).await?, total))
}

fn embedding_out(embedded: &Embedded, total: usize) -> v1::Embedding {
    v1::Embedding {
        shared: Some(vector_out(&embedded.vectors.shared)),
        exclusive: embedded.vectors.exclusive.as_deref().map(vector_out),
        truncation: truncation(embedded.used_bytes.map(|used| (used, total))),
    }
}
