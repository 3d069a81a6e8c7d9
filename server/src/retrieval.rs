//! Use case: search. Terms become vectors, the index answers, the hits are filled from the store.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use diptych_index::{
    CollectionInfo, Fields, Filter, Hit, Item, ItemId, Modality, Pages, Pin, Resume, SearchQuery,
    Space, Term, TermSource,
};
use diptych_proto::v1::ErrorReason;

use crate::deadline;
use crate::embedding::Input;
use crate::encoder::{Lane, Work};
use crate::error::{Error, Result};
use crate::observe::{self, Stage};
use crate::page::{Mark, expired};
use crate::probability::Scale;
use crate::service::{DEFAULT_SEARCH_LIMIT, Service, named_at};
use crate::timings::{EmbedTimings, Timings};

/// Most terms of a query.
pub const MAX_TERMS: usize = 16;
/// Widest graph search.
pub const MAX_EF_SEARCH: usize = 10_000;

/// Where a term's vector comes from.
#[derive(Debug, Clone)]
pub enum QuerySource {
    /// A picture file.
    Image(Bytes),
    /// A text.
    Text(String),
    /// A vector that the caller brought.
    Vector(Vec<f32>),
    /// A stored item.
    Item(ItemId),
}

/// One part of a question.
#[derive(Debug, Clone)]
pub struct QueryTerm {
    /// Where its vector comes from.
    pub source: QuerySource,
    /// How much it counts.
    pub weight: f32,
    /// The space that is compared.
    pub space: Space,
}

/// A question, checked field by field but for what only the collection can tell.
#[derive(Debug, Clone)]
pub struct Question {
    /// Name of the collection.
    pub collection: String,
    /// The terms.
    pub terms: Vec<QueryTerm>,
    /// Modality of the hits.
    pub target: Modality,
    /// Condition on metadata.
    pub filter: Option<Filter>,
    /// As asked; 0 for the default.
    pub limit: u32,
    /// As given.
    pub page_token: String,
    /// SHA-256 of the question without limit and token.
    pub digest: [u8; 32],
    /// Least score.
    pub min_score: Option<f32>,
    /// Best hit of each group only.
    pub one_per_group: bool,
    /// Width of the graph search; 0 for the default.
    pub ef_search: u32,
    /// Look at everything.
    pub exact: bool,
    /// Fill term scores.
    pub term_scores: bool,
    /// Cut texts that are too long.
    pub truncate: bool,
    /// Find candidates by so many first components; 0 for all.
    pub prefix_dims: u32,
    /// Fill sources.
    pub source: bool,
    /// Paths of the terms in messages: the plain searches have one term and call it by its own name.
    pub plain: bool,
    /// When it was received.
    pub received: Instant,
    /// Tell where the time went.
    pub with_timings: bool,
}

/// One answer, filled.
#[derive(Debug, Clone)]
pub struct FilledHit {
    /// Sum of weight times cosine.
    pub score: f32,
    /// Each term's cosine, when asked for.
    pub term_scores: Vec<f32>,
    /// Probability of a true pair, where the question has one.
    pub probability: Option<f64>,
    /// The stored item.
    pub item: Item,
}

/// The answers.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Best first.
    pub hits: Vec<FilledHit>,
    /// Token of the next page; empty at the end.
    pub next_page_token: String,
    /// Generation of the collection.
    pub generation: u64,
    /// Digest of the collection's bundle; empty without one.
    pub embedding_digest: String,
    /// Candidates were bounded before the answer was certain.
    pub cut: bool,
    /// How later pages behave.
    pub pages: Pages,
    /// Bytes used and total of the first text that was cut.
    pub truncation: Option<(usize, usize)>,
    /// Where the time went, when asked for.
    pub timings: Option<Timings>,
}

/// What is known of a question's inputs once they are embedded.
#[derive(Debug, Default)]
pub(crate) struct Inputs {
    /// Bytes used and total of the first text that was cut.
    pub(crate) truncation: Option<(usize, usize)>,
    /// What it took, summed.
    pub(crate) timings: EmbedTimings,
}

impl Service {
    /// Answers a question.
    ///
    /// # Errors
    /// What is wrong with the question, naming the field; a missing collection or item; an encoder that is overloaded.
    pub async fn search(&self, question: Question) -> Result<Answer> {
        self.admit()?;
        self.answer(question).await
    }

    /// [`Service::search`] for one who was let in before, or who asks before the door opens: an element of a batch, the
    /// server itself.
    pub(crate) async fn answer(&self, mut question: Question) -> Result<Answer> {
        let most = self.limits.search_limit;
        let k = Self::bounded("limit", question.limit, (DEFAULT_SEARCH_LIMIT, most))?;
        let collection = self.collection(&question.collection).await?;
        let page = self.pages.read(&question.digest, &question.page_token)?;
        let (first, seen) = (page.is_none(), page.as_ref().map_or(0, |mark| mark.seen));
        let scale = self.scale(&collection, &question);
        let pin = self.pin(&collection, page.as_ref()).await?;
        let mut timings = Timings::checked(question.received);
        let (mut query, inputs) = self.query(&collection, &mut question, k).await?;
        timings.embed = inputs.timings;
        (query.resume, query.pin) = (page.map(resume).transpose()?, pin);
        deadline::check()?;
        let began = Instant::now();
        let reply = diptych_index::search(&*self.engine, &collection.spec.name, &query).await;
        let mut reply = reply.map_err(|error| named_at("collection", error))?;
        timings.search = observe::took(Stage::Search, began);
        self.gauge(&collection, &query, &reply);
        deadline::check()?;
        let found = reply.hits.len();
        let parts = (question.target, question.source);
        let began = Instant::now();
        let hits = self.fill(&collection, &mut reply.hits, (parts, scale.as_ref())).await?;
        timings.fill = observe::took(Stage::Fill, began);
        observe::searched(&timings, hits.len());
        self.same(&collection).await?;
        let more = reply.more || reply.hits.len() < found;
        let held = self.hold(&collection, query.pin.as_ref(), (first, more)).await?;
        let seen = seen.saturating_add(u32::try_from(reply.hits.len()).unwrap_or(u32::MAX));
        let mark = reply.hits.last().filter(|_| more).map(|hit| Mark {
            generation: reply.generation,
            epoch: held.map_or(0, |pin| pin.id().epoch),
            seen,
            score: hit.score,
            id: hit.id.as_str().to_owned(),
        });
        let token = mark.map(|mark| self.pages.issue(&question.digest, &mark));
        Ok(Answer {
            hits,
            next_page_token: token.unwrap_or_default(),
            generation: reply.generation,
            embedding_digest: collection.spec.embedding_digest.unwrap_or_default(),
            cut: reply.cut,
            pages: if held.is_some() { Pages::Pinned } else { Pages::BestEffort },
            truncation: inputs.truncation,
            timings: question.with_timings.then_some(timings),
        })
    }

    /// The generation that a page shows: the first page the present one, later ones that of the first; `None` where the engine
    /// holds none.
    async fn pin(&self, collection: &CollectionInfo, page: Option<&Mark>) -> Result<Option<Pin>> {
        let name = &collection.spec.name;
        let Some(mark) = page else { return Ok(self.engine.pin(name).await?) };
        let Some(id) = mark.pin() else { return Ok(None) };
        let pin = self.engine.pinned(name, id).await?;
        let gone = || expired("the generation that the first page showed is not held any longer");
        pin.ok_or_else(gone).map(Some)
    }

    /// Sees to it that the next page finds the generation of this one; `None` when it will not.
    async fn hold<'a>(
        &self,
        collection: &CollectionInfo,
        pin: Option<&'a Pin>,
        (first, more): (bool, bool),
    ) -> Result<Option<&'a Pin>> {
        let Some(pin) = pin.filter(|_| self.engine.capabilities().pages == Pages::Pinned) else {
            return Ok(None);
        };
        let held = !first || !more || self.engine.keep(&collection.spec.name, pin).await?;
        Ok(held.then_some(pin))
    }

    /// The question as the index takes it, its terms embedded.
    pub(crate) async fn query(
        &self,
        collection: &CollectionInfo,
        question: &mut Question,
        k: usize,
    ) -> Result<(SearchQuery, Inputs)> {
        self.check_prefix(collection, question)?;
        let (terms, inputs) = self.resolve(collection, question).await?;
        let query = SearchQuery {
            filter: question.filter.take().map(Arc::new),
            min_score: question.min_score,
            one_per_group: question.one_per_group,
            ef_search: usize::try_from(question.ef_search).unwrap_or(usize::MAX),
            exact: question.exact,
            term_scores: question.term_scores,
            prefix_dims: usize::try_from(question.prefix_dims).unwrap_or(usize::MAX),
            ..SearchQuery::new(question.target, terms, k)
        };
        Ok((query, inputs))
    }

    /// Prefixes of a bundle's vectors work alone where it was trained so. What bare vectors are good for, their owner knows; the
    /// index checks lengths.
    fn check_prefix(&self, collection: &CollectionInfo, question: &Question) -> Result<()> {
        if question.prefix_dims == 0 || collection.spec.embedding_digest.is_none() {
            return Ok(());
        }
        let model = self.encoders_of(collection)?;
        for term in question.terms.iter().filter(|term| term.weight > 0.0) {
            let prefixes = model.prefixes(question.target, term.space);
            if !prefixes.contains(&(question.prefix_dims as usize)) {
                let known: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let (asked, space) = (question.prefix_dims, term.space);
                let text = format!("is {asked}; prefixes of the bundle's {space} vectors: {known}");
                return Err(Error::field("prefix_dims", text));
            }
        }
        Ok(())
    }

    /// Vectors of the terms, in their order.
    async fn resolve(
        &self,
        collection: &CollectionInfo,
        question: &mut Question,
    ) -> Result<(Vec<Term>, Inputs)> {
        let asked = std::mem::take(&mut question.terms);
        let mut terms = Vec::with_capacity(asked.len());
        let mut inputs = Inputs::default();
        for (place, QueryTerm { source, weight, space }) in asked.into_iter().enumerate() {
            let input = match source {
                QuerySource::Vector(vector) => {
                    let source = TermSource::Vector { vector, modality: None };
                    terms.push(Term { source, weight, space });
                    continue;
                }
                QuerySource::Item(id) => {
                    terms.push(Term { source: TermSource::Item(id), weight, space });
                    continue;
                }
                QuerySource::Image(image) => Input::Image(image),
                QuerySource::Text(text) => Input::Text { text, truncate: question.truncate },
            };
            let (source, cut, timings) =
                self.embed_term(collection, input, space).await.map_err(|error| {
                    if question.plain { error } else { error.inside(&format!("terms[{place}]")) }
                })?;
            inputs.truncation = inputs.truncation.or(cut);
            inputs.timings.add(&timings);
            terms.push(Term { source, weight, space });
        }
        Ok((terms, inputs))
    }

    async fn embed_term(
        &self,
        collection: &CollectionInfo,
        input: Input,
        space: Space,
    ) -> Result<(TermSource, Option<(usize, usize)>, EmbedTimings)> {
        let model = self.encoders_of(collection)?;
        let (modality, bytes) = match &input {
            Input::Image(_) => (Modality::Image, 0),
            Input::Text { text, .. } => (Modality::Text, text.len()),
        };
        let embedded = model.embed(input, Work::here(Lane::Interactive)).await?;
        let vector = match space {
            Space::Shared => embedded.vectors.shared,
            Space::Exclusive => embedded.vectors.exclusive.ok_or_else(|| {
                let message = format!("the collection has no EXCLUSIVE vectors for {modality}");
                Error::field_for(ErrorReason::SpaceMismatch, "space", message)
            })?,
        };
        let cut = embedded.used_bytes.map(|used| (used, bytes));
        Ok((TermSource::Vector { vector, modality: Some(modality) }, cut, embedded.timings))
    }

    /// Reads the hits' items, all at once. An item that was deleted, or put as the other modality, between search and read is
    /// left out; hits for which the reply has no room are taken off `hits`.
    async fn fill(
        &self,
        collection: &CollectionInfo,
        hits: &mut Vec<Hit>,
        ((target, source), scale): ((Modality, bool), Option<&Scale>),
    ) -> Result<Vec<FilledHit>> {
        let ids: Vec<ItemId> = hits.iter().map(|hit| hit.id.clone()).collect();
        let items = self.read(collection, &ids, Fields { source, vectors: false }).await?;
        hits.truncate(items.len());
        let filled = hits.iter_mut().zip(items).filter_map(|(hit, item)| {
            let term_scores = std::mem::take(&mut hit.term_scores);
            let item = item.filter(|item| item.modality == target)?;
            let probability = scale.and_then(|scale| scale.probability(hit.score));
            Some(FilledHit { score: hit.score, term_scores, probability, item })
        });
        Ok(filled.collect())
    }
}

fn resume(mark: Mark) -> Result<Resume> {
    let id = ItemId::try_new(mark.id)
        .map_err(|_| Error::field_for(ErrorReason::PageTokenInvalid, "page_token", "is damaged"))?;
    Ok(Resume { score: mark.score, id, seen: mark.seen as usize })
}
