//! Use case: why one item scores as it does for a question.

use std::time::Instant;

use diptych_index::{Fields, ItemId};
use diptych_proto::v1::ErrorReason;

use crate::error::{Error, Result};
use crate::retrieval::{Answer, FilledHit, Question};
use crate::service::{DEFAULT_SEARCH_LIMIT, Service, named_at};
use crate::timings::Timings;

/// One item under a question.
#[derive(Debug, Clone)]
pub struct Explained {
    /// The item as a hit, with all term scores.
    pub hit: FilledHit,
    /// It passes filter and minimum score and has the target's modality.
    pub passes: bool,
    /// Place among all that pass, from 1; 0 when it does not pass or another one stands for its group.
    pub rank: u64,
    /// How the search as asked finds its candidates.
    pub route: &'static str,
    /// Rows whose score that search computed.
    pub visited: u64,
    /// That search, without its hits.
    pub answer: Answer,
}

impl Service {
    /// Explains an item. The question's page token and limit are not read.
    ///
    /// # Errors
    /// As [`Service::search`], under the field `search`; NOT_FOUND for `item_id`.
    pub async fn explain(&self, mut question: Question, id: &ItemId) -> Result<Explained> {
        self.admit()?;
        let collection = self.collection(&question.collection).await;
        let collection = collection.map_err(|error| error.inside("search"))?;
        let name = &collection.spec.name;
        let scale = self.scale(&collection, &question);
        let mut timings = Timings::checked(question.received);
        let prepared = self.query(&collection, &mut question, DEFAULT_SEARCH_LIMIT).await;
        let (query, inputs) = prepared.map_err(|error| error.inside("search"))?;
        timings.embed = inputs.timings;
        let began = Instant::now();
        let explained = diptych_index::explain(&*self.engine, name, &query, id).await;
        let explained = explained.map_err(|error| match error.field() {
            Some("item_id") => error.into(),
            _ => named_at("collection", error).inside("search"),
        })?;
        timings.search = began.elapsed();
        let began = Instant::now();
        let fields = Fields { source: question.source, vectors: false };
        let item = self.read(&collection, std::slice::from_ref(id), fields).await?.pop().flatten();
        let missing =
            || Error::missing(ErrorReason::ItemNotFound, "item", id.as_str()).at("item_id");
        let item = item.ok_or_else(missing)?;
        timings.fill = began.elapsed();
        self.same(&collection).await.map_err(|error| error.inside("search"))?;
        let scale = scale.filter(|_| item.modality == question.target);
        let hit = explained.hit;
        Ok(Explained {
            hit: FilledHit {
                score: hit.score,
                term_scores: hit.term_scores,
                probability: scale.and_then(|scale| scale.probability(hit.score)),
                item,
            },
            passes: explained.passes,
            rank: explained.rank,
            route: explained.route.name(),
            visited: explained.visited,
            answer: Answer {
                hits: Vec::new(),
                next_page_token: String::new(),
                generation: explained.generation,
                embedding_digest: collection.spec.embedding_digest.unwrap_or_default(),
                cut: explained.cut,
                pages: self.engine.capabilities().pages,
                truncation: inputs.truncation,
                timings: question.with_timings.then_some(timings),
            },
        })
    }
}
