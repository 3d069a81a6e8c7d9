//! SearchService.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use diptych_index::{Modality, Space};
use diptych_proto::v1::search_service_server::SearchService;
use diptych_proto::v1::{self, ErrorReason};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Handler;
use super::batch::Answers;
use super::convert::{count, digest, item_id, mask, modality, terms};
use super::hit::{answer_out, explained_out};
use super::value::filter;
use crate::error::{Error, Result};
use crate::retrieval::{MAX_EF_SEARCH, QuerySource, QueryTerm, Question};
use crate::service::Service;

#[tonic::async_trait]
impl SearchService for Handler {
    async fn search_text_to_image(
        &self,
        request: Request<v1::SearchTextToImageRequest>,
    ) -> Result<Response<v1::SearchTextToImageResponse>, Status> {
        let question = text_question(request.into_inner()).await?;
        let answer = self.0.search(question).await?;
        let (hits, next_page_token, info) = answer_out(answer, true);
        Ok(Response::new(v1::SearchTextToImageResponse { hits, next_page_token, info: Some(info) }))
    }

    async fn search_image_to_text(
        &self,
        request: Request<v1::SearchImageToTextRequest>,
    ) -> Result<Response<v1::SearchImageToTextResponse>, Status> {
        let question = image_question(request.into_inner()).await?;
        let answer = self.0.search(question).await?;
        let (hits, next_page_token, info) = answer_out(answer, true);
        Ok(Response::new(v1::SearchImageToTextResponse { hits, next_page_token, info: Some(info) }))
    }

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<v1::SearchResponse>, Status> {
        self.0.admit()?;
        Ok(Response::new(search(&self.0, request.into_inner()).await?))
    }

    type BatchSearchStream =
        Pin<Box<dyn Stream<Item = Result<v1::BatchSearchResponse, Status>> + Send>>;

    async fn batch_search(
        &self,
        request: Request<v1::BatchSearchRequest>,
    ) -> Result<Response<Self::BatchSearchStream>, Status> {
        // Once for all elements: a batch under way outlives the closing of the door.
        self.0.admit()?;
        let (_, mut extensions, message) = request.into_parts();
        let holds = (extensions.remove(), extensions.remove());
        let searches = message.searches;
        count("searches", "searches", searches.len(), self.0.limits.batch_items)?;
        let service = Arc::clone(&self.0);
        let one = move |wire| {
            let service = Arc::clone(&service);
            async move { search(&service, wire).await }
        };
        Ok(Response::new(Box::pin(Answers::new(searches, holds, one))))
    }

    async fn explain_match(
        &self,
        request: Request<v1::ExplainMatchRequest>,
    ) -> Result<Response<v1::ExplainMatchResponse>, Status> {
        let v1::ExplainMatchRequest { search, item_id: id } = request.into_inner();
        let search = search.ok_or_else(|| Error::field("search", "is required"))?;
        let id = item_id("item_id", id)?;
        // What is not read is not refused either.
        let search = v1::SearchRequest { limit: 0, page_token: String::new(), ..search };
        let question = general_question(search).await;
        let (question, metadata) = question.map_err(|error| error.inside("search"))?;
        let question = Question { term_scores: true, ..question };
        let explained = self.0.explain(question, &id).await?;
        Ok(Response::new(explained_out(explained, metadata)))
    }
}

/// One search of a caller that was let in.
async fn search(service: &Service, wire: v1::SearchRequest) -> Result<v1::SearchResponse> {
    let (question, metadata) = general_question(wire).await?;
    let answer = service.answer(question).await?;
    let (hits, next_page_token, info) = answer_out(answer, metadata);
    Ok(v1::SearchResponse { hits, next_page_token, info: Some(info) })
}

async fn text_question(mut wire: v1::SearchTextToImageRequest) -> Result<Question> {
    let received = Instant::now();
    let page_token = std::mem::take(&mut wire.page_token);
    let limit = std::mem::take(&mut wire.limit);
    let with_timings = std::mem::take(&mut wire.with_timings);
    let digest = digest("SearchTextToImage", &wire).await?;
    Ok(Question {
        collection: wire.collection,
        terms: vec![plain(QuerySource::Text(wire.text))],
        filter: filter(wire.filter)?,
        one_per_group: wire.one_per_group,
        truncate: wire.truncate,
        limit,
        page_token,
        received,
        with_timings,
        ..question(Modality::Image, digest)
    })
}

async fn image_question(mut wire: v1::SearchImageToTextRequest) -> Result<Question> {
    let received = Instant::now();
    let page_token = std::mem::take(&mut wire.page_token);
    let limit = std::mem::take(&mut wire.limit);
    let with_timings = std::mem::take(&mut wire.with_timings);
    let digest = digest("SearchImageToText", &wire).await?;
    Ok(Question {
        collection: wire.collection,
        terms: vec![plain(QuerySource::Image(wire.image))],
        filter: filter(wire.filter)?,
        one_per_group: wire.one_per_group,
        limit,
        page_token,
        received,
        with_timings,
        ..question(Modality::Text, digest)
    })
}

/// The question, and whether metadata is wanted.
async fn general_question(mut wire: v1::SearchRequest) -> Result<(Question, bool)> {
    let received = Instant::now();
    let page_token = std::mem::take(&mut wire.page_token);
    let limit = std::mem::take(&mut wire.limit);
    let with_timings = std::mem::take(&mut wire.with_timings);
    let digest = digest("Search", &wire).await?;
    let target = modality("target", wire.target)?
        .ok_or_else(|| Error::field("target", "is required: IMAGE or TEXT"))?;
    let mask = mask(wire.read_mask.as_ref(), &["metadata", "source"])?;
    if wire.ef_search as usize > MAX_EF_SEARCH {
        let sizes = ("at most", MAX_EF_SEARCH as u64, wire.ef_search.into());
        return Err(Error::limit(ErrorReason::FieldInvalid, "ef_search", sizes));
    }
    if wire.min_score.is_some_and(f64::is_nan) {
        return Err(Error::field("min_score", "is not a number"));
    }
    let question = Question {
        collection: wire.collection,
        terms: terms(wire.terms, target)?,
        filter: filter(wire.filter)?,
        min_score: wire.min_score.map(|score| score as f32),
        one_per_group: wire.one_per_group,
        ef_search: wire.ef_search,
        exact: wire.exact,
        term_scores: wire.with_term_scores,
        truncate: wire.truncate,
        prefix_dims: wire.prefix_dims,
        source: mask.fields.source,
        plain: false,
        limit,
        page_token,
        received,
        with_timings,
        ..question(target, digest)
    };
    Ok((question, mask.metadata))
}

fn plain(source: QuerySource) -> QueryTerm {
    QueryTerm { source, weight: 1.0, space: Space::Shared }
}

/// A plain question without terms: what the three kinds share.
fn question(target: Modality, digest: [u8; 32]) -> Question {
    Question {
        collection: String::new(),
        terms: Vec::new(),
        target,
        filter: None,
        limit: 0,
        page_token: String::new(),
        digest,
        min_score: None,
        one_per_group: false,
        ef_search: 0,
        exact: false,
        term_scores: false,
        truncate: false,
        prefix_dims: 0,
        source: false,
        plain: true,
        received: Instant::now(),
        with_timings: false,
    }
}
