//! Weighted terms to hits, written once above [`Engine`].
//!
//! score(x) = sum over terms of weight x cosine(query, x in that term's space), never
//! renormalised. Terms of one space fuse into one query vector (the score is linear). Candidates
//! are the union, over the spaces with a positive term, of the nearest
//! `max(10 k, ef_search, 200)`, or a few more than k where the neighbours in one space are the
//! answer; all are scored exactly, and the lists are widened fourfold while too few hits are left,
//! up to the whole collection. With terms in several spaces, and better hits
//! likely beyond the lists, the sum over the spaces is taken of every item where the engine does
//! that; else the lists are widened while the hits still change, up to sixteen times.

mod candidates;
mod explain;
mod terms;

use std::sync::Arc;

use self::candidates::Run;
pub use self::explain::{Explanation, explain};
use crate::{
    engine::{Engine, Pin, Route},
    error::{Error, Result},
    filter::Filter,
    types::{ItemId, Modality, Space},
};

/// Most hits of one search.
pub const MAX_K: usize = 10_000;
/// Most terms of one search.
pub const MAX_TERMS: usize = 16;
/// Least number of candidates per space, where there are several spaces, groups or prefixes.
pub const LEAST_CANDIDATES: usize = 200;

/// Where a term's vector comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum TermSource {
    /// A vector already computed. `modality` is what it was computed from; `None` for a vector
    /// that the caller brought, which then counts as one of the target's modality.
    Vector {
        /// Any length but zero.
        vector: Vec<f32>,
        /// Modality it was computed from.
        modality: Option<Modality>,
    },
    /// The stored vector of an item. The item itself is not excluded from the hits.
    Item(ItemId),
}

/// One weighted term.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The vector.
    pub source: TermSource,
    /// Finite and not 0; negative pushes away. At least one term of a query is positive.
    pub weight: f32,
    /// Space of the vector. EXCLUSIVE needs a term of the target's own modality.
    pub space: Space,
}

/// The last hit of the page before.
#[derive(Debug, Clone, PartialEq)]
pub struct Resume {
    /// Its score, to the bit.
    pub score: f32,
    /// Its id.
    pub id: ItemId,
    /// Hits on all pages before; a hint that saves widening.
    pub seen: usize,
}

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchQuery {
    /// Modality of the hits.
    pub target: Modality,
    /// 1 to 16 terms.
    pub terms: Vec<Term>,
    /// Only items that pass.
    pub filter: Option<Arc<Filter>>,
    /// Most hits, at least 1 (the caller sets its own upper limit).
    pub k: usize,
    /// Only hits with at least this score.
    pub min_score: Option<f32>,
    /// Only the best hit of each group; items without a group count alone.
    pub one_per_group: bool,
    /// Width of graph searches, and least number of candidates of a query in several spaces; 0 for
    /// the default.
    pub ef_search: usize,
    /// Look at everything: this defines the right answer.
    pub exact: bool,
    /// Go on after this hit.
    pub resume: Option<Resume>,
    /// Whether [`Hit::term_scores`] are wanted.
    pub term_scores: bool,
    /// Search this generation in place of the present one.
    pub pin: Option<Pin>,
    /// Nobody waits for it: it gives way to other searches.
    pub bulk: bool,
    /// Find candidates by the first so many components (Matryoshka), shorter than every space that
    /// has a positive term; 0 for the whole vectors. Scores are those of whole vectors all the same.
    pub prefix_dims: usize,
}

impl SearchQuery {
    /// The best `k` for these terms, without further wishes.
    pub fn new(target: Modality, terms: Vec<Term>, k: usize) -> Self {
        Self {
            target,
            terms,
            filter: None,
            k,
            min_score: None,
            one_per_group: false,
            ef_search: 0,
            exact: false,
            resume: None,
            term_scores: false,
            pin: None,
            bulk: false,
            prefix_dims: 0,
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The item.
    pub id: ItemId,
    /// Its group.
    pub group: Option<Arc<str>>,
    /// Sum of weight x cosine.
    pub score: f32,
    /// Cosine with each term, aligned with the terms; empty unless asked for.
    pub term_scores: Vec<f32>,
}

/// Answer to a [`SearchQuery`].
#[derive(Debug, Clone, PartialEq)]
pub struct SearchReply {
    /// By score descending, then id.
    pub hits: Vec<Hit>,
    /// Generation of the collection. Without a pin a later page may see another one: see
    /// [`crate::engine::Pages::BestEffort`].
    pub generation: u64,
    /// It is not proved that no better hit lies beyond the candidates: they came from a graph or by
    /// prefixes, or the query lies in several spaces and its candidates were bounded.
    pub cut: bool,
    /// How candidates were found; of several lists, the least certain way.
    pub route: Route,
    /// Candidates scored.
    pub candidates: usize,
    /// Rows whose score was computed to find the candidates.
    pub visited: u64,
    /// Whether more hits may follow: pass the last one as [`Resume`].
    pub more: bool,
}

/// Searches one collection of an engine.
///
/// # Errors
/// [`crate::Rejection`] naming `terms`, `terms[i].weight`, `terms[i].vector`, `terms[i].space`,
/// `filter`, `min_score`, `prefix_dims` or `limit`; [`crate::Error::ItemMissing`] for `terms[i].item_id`; what
/// the engine answers.
pub async fn search(
    engine: &dyn Engine,
    collection: &str,
    query: &SearchQuery,
) -> Result<SearchReply> {
    terms::check(query)?;
    if query.exact && !engine.capabilities().exact {
        return Err(Error::Unsupported { operation: "exact search" });
    }
    let terms = terms::resolve(engine, collection, query).await?;
    let mut run = Run::new(engine, collection, query, &terms);
    let mut reply = run.until_enough().await?;
    if query.term_scores {
        run.add_term_scores(&mut reply.hits).await?;
    }
    Ok(reply)
}
