//! EmbeddingService.

use std::pin::Pin;
use std::sync::Arc;

use diptych_model::Modality;
use diptych_proto::v1;
use diptych_proto::v1::embedding_service_server::EmbeddingService;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Handler;
use super::convert::{bundle_digest, count, truncation};
use super::receive::Received;
use super::status::{complete, to_message};
use super::value::vector_out;
use crate::deadline;
use crate::embedding::Input;
use crate::encoder::{Embedded, Lane, Work};
use crate::error::{Error, Result};
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

    type EmbedStreamStream =
        Pin<Box<dyn Stream<Item = Result<v1::EmbedStreamResponse, Status>> + Send>>;

    async fn embed_stream(
        &self,
        request: Request<Streaming<v1::EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        self.0.admit()?;
        let (sender, receiver) = tokio::sync::mpsc::channel(STREAM_IN_FLIGHT);
        let received = request.extensions().get::<Received>().cloned().unwrap_or_default();
        // The answer begins before the first input is there: some callers wait for it before they send.
        let requests = (request.into_inner(), received);
        let answers = answer_stream(Arc::clone(&self.0), requests, sender);
        tokio::spawn(deadline::inherited(answers));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// Answers inputs as they come, some at once, until the caller ends the stream or leaves, or the server goes down: then what was
/// taken is answered, and the caller told to go on elsewhere.
async fn answer_stream(
    service: Arc<Service>,
    (mut requests, received): (Streaming<v1::EmbedStreamRequest>, Received),
    replies: Sender<Result<v1::EmbedStreamResponse, Status>>,
) {
    let mut running = JoinSet::new();
    let mut model = None;
    let broken = loop {
        let request = tokio::select! {
            biased;
            // Dropped with its reply: nobody reads any more.
            () = replies.closed() => return,
            () = service.winding_down.cancelled() => break Some(draining().into()),
            request = requests.message() => request,
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => break None,
            Err(status) => {
                break Some(complete(&status, service.limits.message_bytes).unwrap_or(status));
            }
        };
        let model = match &model {
            Some(model) => Arc::clone(model),
            None => match find(&service, request.embedding_digest.clone()) {
                Ok(found) => Arc::clone(model.insert(found)),
                Err(error) => break Some(error.into()),
            },
        };
        if running.len() >= STREAM_IN_FLIGHT {
            running.join_next().await;
        }
        let (replies, room) = (replies.clone(), received.take());
        // No more is read than is answered, so each waits for its turn.
        let work = Work::here(Lane::Standard).patient();
        running.spawn(deadline::inherited(async move {
            let _room = room;
            // A caller that left does not need its answer.
            drop(replies.send(Ok(stream_answer(&model, request, work).await)).await);
        }));
    };
    while running.join_next().await.is_some() {}
    if let Some(status) = broken {
        drop(replies.send(Err(status)).await);
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
        let work = model.admit_batch(&modalities(&request.inputs), work)?;
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
fn modalities(inputs: &[v1::EmbedInput]) -> Vec<Modality> {
    use v1::embed_input::Input as Wire;
    let of = |input: &v1::EmbedInput| match input.input {
        Some(Wire::Image(_)) => Some(Modality::Image),
        Some(Wire::Text(_)) => Some(Modality::Text),
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
