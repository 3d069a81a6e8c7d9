//! Why one item scores as it does for a query, and where it stands among all.

use std::sync::Arc;

use super::{Hit, SearchQuery, candidates::Run, terms};
use crate::{
    engine::{Engine, Fields, Route},
    error::{Error, Result},
    kernel,
    types::{Item, ItemId, Space},
};

/// One item under a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The item with its score and all term scores; a term's is 0 where the item has no vector to
    /// compare with it.
    pub hit: Hit,
    /// It has the target's modality, passes the filter and has the minimum score.
    pub passes: bool,
    /// Its place in the right answer, from 1; 0 when it does not pass, or when another item of its
    /// group stands for it.
    pub rank: u64,
    /// How the search as asked finds its candidates.
    pub route: Route,
    /// Rows whose score that search computed.
    pub visited: u64,
    /// As [`super::SearchReply::cut`] of that search.
    pub cut: bool,
    /// Generation of the collection that was looked at.
    pub generation: u64,
}

/// Runs a search as asked, scores one item exactly, and counts who comes before it. `resume` is not
/// read. Looks at the whole collection where the item stands far back.
///
/// # Errors
/// As [`super::search`]; [`Error::ItemMissing`] for `item_id`; [`Error::Unsupported`] by an engine
/// that cannot be exact.
pub async fn explain(
    engine: &dyn Engine,
    collection: &str,
    query: &SearchQuery,
    id: &ItemId,
) -> Result<Explanation> {
    terms::check(query)?;
    if !engine.capabilities().exact {
        return Err(Error::Unsupported { operation: "exact search" });
    }
    // All parts look at one generation.
    let pin = match &query.pin {
        Some(pin) => Some(pin.clone()),
        None => engine.pin(collection).await?,
    };
    let query = SearchQuery { pin, resume: None, ..query.clone() };
    let terms = terms::resolve(engine, collection, &query).await?;
    let missing = || Error::ItemMissing { field: "item_id".to_owned(), id: id.to_string() };
    let ids = std::slice::from_ref(id);
    let item = engine.get(collection, ids, Fields::default()).await?.pop().flatten();
    let item = item.ok_or_else(missing)?;
    let found = Run::new(engine, collection, &query, &terms).until_enough().await?;
    let exact = SearchQuery { exact: true, prefix_dims: 0, ..query.clone() };
    let mut run = Run::new(engine, collection, &exact, &terms);
    let mut vectors = Vec::with_capacity(Space::ALL.len());
    for space in Space::ALL {
        let asked = (query.pin.as_ref(), ids, space);
        let stored = terms::stored(engine, collection, asked).await?.pop().flatten();
        // Exclusive vectors of pictures and of texts are never compared.
        let stored = stored.ok_or_else(missing)?;
        let comparable = space == Space::Shared || stored.modality == query.target;
        vectors.push((space, stored.vector.filter(|_| comparable)));
    }
    let vector = |space| vectors.iter().find(|(of, _)| *of == space).and_then(|(_, v)| v.as_ref());
    let cosine = |query: &[f32], space| vector(space).map_or(0.0, |v| kernel::dot(query, v));
    let hit = Hit {
        id: id.clone(),
        group: item.group.as_deref().map(Arc::from),
        score: run.score(cosine),
        term_scores: terms.iter().map(|term| cosine(&term.vector, term.space)).collect(),
    };
    let passes = passes(&query, &item, hit.score);
    let before = if passes { run.before(&hit).await? } else { None };
    Ok(Explanation {
        hit,
        passes,
        rank: before.map_or(0, |before| before + 1),
        route: found.route,
        visited: found.visited,
        cut: found.cut,
        generation: found.generation,
    })
}

fn passes(query: &SearchQuery, item: &Item, score: f32) -> bool {
    item.modality == query.target
        && query.filter.as_ref().is_none_or(|filter| filter.matches(&item.metadata))
        && query.min_score.is_none_or(|least| score >= least)
}
