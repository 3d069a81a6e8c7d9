//! From terms to one query vector per space.

use super::{MAX_K, MAX_TERMS, SearchQuery, Term, TermSource};
use crate::{
    engine::{Engine, Pin, StoredVector},
    error::{Error, Rejection, Result},
    kernel,
    types::{ItemId, Modality, Space},
};

/// A term whose vector is known.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) space: Space,
    pub(super) weight: f32,
    /// Unit vector.
    pub(super) vector: Vec<f32>,
}

/// All terms of one space as one query: score(x) = `length` x cosine(`vector`, x).
#[derive(Debug, Clone)]
pub(super) struct Fused {
    pub(super) space: Space,
    /// Unit vector; `None` when the terms cancel out, and the score is 0 for every item.
    pub(super) vector: Option<Vec<f32>>,
    pub(super) length: f32,
    /// Whether one of its terms is positive, so that its neighbours are candidates.
    pub(super) positive: bool,
}

/// Checks what needs no engine.
pub(super) fn check(query: &SearchQuery) -> Result<(), Rejection> {
    if query.k == 0 {
        return Err(Rejection::invalid("limit", "is 0"));
    }
    if query.k > MAX_K {
        return Err(Rejection::limit("limit", "hits", MAX_K, query.k));
    }
    if query.terms.is_empty() {
        return Err(Rejection::invalid("terms", "is empty"));
    }
    if query.terms.len() > MAX_TERMS {
        return Err(Rejection::limit("terms", "terms", MAX_TERMS, query.terms.len()));
    }
    if query.min_score.is_some_and(|score| !score.is_finite()) {
        return Err(Rejection::invalid("min_score", "is not a finite number"));
    }
    for (i, term) in query.terms.iter().enumerate() {
        check_term(i, term, query.target)?;
    }
    if !query.terms.iter().any(|term| term.weight > 0.0) {
        return Err(Rejection::invalid("terms", "has no term with a positive weight"));
    }
    if query.exact && query.prefix_dims > 0 {
        let reason = "is set beside `exact`, which looks at whole vectors: leave one out";
        return Err(Rejection::invalid("prefix_dims", reason));
    }
    match &query.filter {
        Some(filter) => filter.check(),
        None => Ok(()),
    }
}

fn check_term(i: usize, term: &Term, target: Modality) -> Result<(), Rejection> {
    let weight = format!("terms[{i}].weight");
    if !term.weight.is_finite() {
        return Err(Rejection::invalid(weight, "is not a finite number"));
    }
    if term.weight == 0.0 {
        return Err(Rejection::invalid(weight, "is 0"));
    }
    // Wider weights would lose the other terms to rounding, or overflow.
    if term.weight.abs() > 1e6 || term.weight.abs() < 1e-6 {
        return Err(Rejection::invalid(weight, "is not between 0.000001 and 1000000 in size"));
    }
    match &term.source {
        TermSource::Vector { modality: Some(found), .. } => {
            check_exclusive(i, term.space, *found, target)
        }
        TermSource::Vector { modality: None, .. } | TermSource::Item(_) => Ok(()),
    }
}

/// Exclusive vectors of pictures and of texts are two spaces, never compared.
fn check_exclusive(
    i: usize,
    space: Space,
    found: Modality,
    target: Modality,
) -> Result<(), Rejection> {
    if space == Space::Exclusive && found != target {
        let field = format!("terms[{i}].space");
        return Err(Rejection::ExclusiveMismatch { field, target, found });
    }
    Ok(())
}

/// Finds the vector of every term and checks it against the collection.
pub(super) async fn resolve(
    engine: &dyn Engine,
    collection: &str,
    query: &SearchQuery,
) -> Result<Vec<Resolved>> {
    let dims = engine.collection(collection).await?.spec.dims;
    let mut resolved = Vec::with_capacity(query.terms.len());
    for (i, term) in query.terms.iter().enumerate() {
        let stored;
        let (vector, modality) = match &term.source {
            TermSource::Vector { vector, modality } => (vector, modality.unwrap_or(query.target)),
            TermSource::Item(id) => {
                let found = of_item(engine, collection, (i, id, term.space), query).await?;
                stored = found.0;
                (&stored, found.1)
            }
        };
        let field = format!("terms[{i}].vector");
        let space = term.space;
        let Some(expected) = dims.get(query.target, space) else {
            let field = format!("terms[{i}].space");
            return Err(Rejection::NoSpace { field, modality: query.target, space }.into());
        };
        if vector.len() != expected {
            let (expected, actual) = (expected as u64, vector.len() as u64);
            return Err(Rejection::Dimension { field, modality, space, expected, actual }.into());
        }
        if let Some(at) = vector.iter().position(|x| !x.is_finite()) {
            let reason = format!("is not finite at position {at}");
            return Err(Rejection::invalid(field, reason).into());
        }
        let vector = kernel::unit(vector).ok_or_else(|| Rejection::invalid(field, "is zero"))?;
        resolved.push(Resolved { space, weight: term.weight, vector });
    }
    Ok(resolved)
}

async fn of_item(
    engine: &dyn Engine,
    collection: &str,
    (i, id, space): (usize, &ItemId, Space),
    query: &SearchQuery,
) -> Result<(Vec<f32>, Modality)> {
    let field = format!("terms[{i}].item_id");
    let asked = (query.pin.as_ref(), std::slice::from_ref(id), space);
    let found = stored(engine, collection, asked).await?.pop().flatten();
    let Some(found) = found else {
        return Err(Error::ItemMissing { field, id: id.to_string() });
    };
    check_exclusive(i, space, found.modality, query.target)?;
    let modality = found.modality;
    let vector = found.vector.ok_or(Rejection::NoSpace { field, modality, space })?;
    Ok((vector, modality))
}

/// Stored vectors, of a held generation or of now.
pub(super) async fn stored(
    engine: &dyn Engine,
    collection: &str,
    (pin, ids, space): (Option<&Pin>, &[ItemId], Space),
) -> Result<Vec<Option<StoredVector>>> {
    match pin {
        Some(pin) => engine.pinned_vectors(collection, pin, ids, space).await,
        None => engine.vectors(collection, ids, space).await,
    }
}

/// One query vector per space that has terms.
pub(super) fn fuse(terms: &[Resolved]) -> Vec<Fused> {
    let fused = Space::ALL.into_iter().filter_map(|space| {
        let of_space: Vec<&Resolved> = terms.iter().filter(|term| term.space == space).collect();
        let positive = of_space.iter().any(|term| term.weight > 0.0);
        match of_space.as_slice() {
            [] => None,
            // A single term is taken as it is, so that its scores are weight x cosine to the bit.
            [term] => {
                let sign = term.weight.signum();
                let vector = term.vector.iter().map(|x| x * sign).collect();
                Some(Fused { space, vector: Some(vector), length: term.weight.abs(), positive })
            }
            several => {
                let sum = weighted_sum(several);
                let vector = kernel::unit(&sum);
                let length = kernel::norm(&sum) as f32;
                Some(Fused { space, vector, length, positive })
            }
        }
    });
    fused.collect()
}

fn weighted_sum(terms: &[&Resolved]) -> Vec<f32> {
    let dims = terms.first().map_or(0, |term| term.vector.len());
    let mut sum = vec![0.0_f64; dims];
    for term in terms {
        for (sum, x) in sum.iter_mut().zip(&term.vector) {
            *sum += f64::from(term.weight) * f64::from(*x);
        }
    }
    sum.into_iter().map(|x| x as f32).collect()
}
