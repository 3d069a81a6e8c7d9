//! How much of the right answer an engine finds: its usual route against the exact one.

use std::collections::HashSet;

use crate::{
    engine::{Draw, Engine, Nearest, Neighbour},
    error::{Rejection, Result},
    types::{ItemId, Modality, Space},
};

/// Most vectors asked with, per index.
pub const MAX_QUERIES: usize = 1000;
/// Most neighbours compared.
pub const MAX_K: usize = 1000;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// Stored vectors asked with, per index, 1 to [`MAX_QUERIES`]; all of them where there are fewer.
    pub queries: usize,
    /// Neighbours compared, 1 to [`MAX_K`].
    pub k: usize,
    /// Width of graph searches; 0 for the engine's own.
    pub ef_search: usize,
    /// The same seed asks with the same rows of the same generation.
    pub seed: u64,
}

/// Recall of one (modality, space).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Pictures or texts.
    pub modality: Modality,
    /// The space.
    pub space: Space,
    /// Mean share of the k nearest that were found, 0 to 1; 1 where there is nothing to find.
    pub recall: f64,
    /// Rows.
    pub rows: u64,
    /// Vectors asked with.
    pub queries: usize,
}

/// Asks with stored vectors drawn at random, by the engine's usual route and exactly, at one
/// generation where the engine can hold one, and compares. Only indexes that hold rows are told.
///
/// The row that a query was drawn from does not count: every index finds it. An answer as near as the
/// last right one is right, so that equal rows are no misses. One question at a time, all in bulk:
/// the work is at most `2 x queries` searches per index, and ends when the caller drops it.
///
/// # Errors
/// [`Rejection`] naming `queries` or `limit`; [`crate::Error::Unsupported`] by an engine that cannot
/// draw rows or be exact.
pub async fn measure_recall(
    engine: &dyn Engine,
    collection: &str,
    measure: Measure,
) -> Result<Vec<Measured>> {
    within("queries", measure.queries, MAX_QUERIES)?;
    within("limit", measure.k, MAX_K)?;
    let dims = engine.collection(collection).await?.spec.dims;
    let mut measured = Vec::new();
    for modality in [Modality::Image, Modality::Text] {
        for space in Space::ALL {
            if dims.get(modality, space).is_some() {
                measured.extend(index(engine, collection, (modality, space), measure).await?);
            }
        }
    }
    Ok(measured)
}

fn within(field: &str, found: usize, most: usize) -> Result<(), Rejection> {
    match found {
        0 => Err(Rejection::invalid(field, "is 0")),
        found if found <= most => Ok(()),
        found => Err(Rejection::limit(field, "asked for", most, found)),
    }
}

/// `None` without rows.
async fn index(
    engine: &dyn Engine,
    collection: &str,
    (modality, space): (Modality, Space),
    measure: Measure,
) -> Result<Option<Measured>> {
    let pin = engine.pin(collection).await?;
    let draw = Draw { modality, space, count: measure.queries, seed: measure.seed };
    let drawn = engine.draw(collection, draw).await?;
    if drawn.of == 0 {
        return Ok(None);
    }
    let queries = drawn.rows.len();
    let mut sum = 0.0;
    for (id, vector) in drawn.rows {
        // One more, for the row itself.
        let usual = Nearest {
            ef_search: measure.ef_search,
            pin: pin.clone(),
            bulk: true,
            ..Nearest::new(modality, space, vector, measure.k + 1)
        };
        let exact = Nearest { exact: true, ..usual.clone() };
        let right = engine.nearest(collection, exact).await?.neighbours;
        let found = engine.nearest(collection, usual).await?.neighbours;
        sum += share(&without(right, &id), &without(found, &id), measure.k);
    }
    let recall = if queries == 0 { 1.0 } else { sum / queries as f64 };
    Ok(Some(Measured { modality, space, recall, rows: drawn.of, queries }))
}

fn without(neighbours: Vec<Neighbour>, id: &ItemId) -> Vec<(ItemId, f32)> {
    let others = neighbours.into_iter().filter(|near| near.id != *id);
    others.map(|near| (near.id, near.score)).collect()
}

/// Share of the first k right answers that were found, 0 to 1; 1 where there are none. Both lists
/// best first, with their scores.
pub fn share(right: &[(ItemId, f32)], found: &[(ItemId, f32)], k: usize) -> f64 {
    let right = &right[..right.len().min(k)];
    let Some((_, last)) = right.last() else { return 1.0 };
    let ids: HashSet<&ItemId> = right.iter().map(|(id, _)| id).collect();
    let is_right = |(id, score): &&(ItemId, f32)| *score >= *last || ids.contains(id);
    let hit = found.iter().take(k).filter(is_right).count();
    hit.min(right.len()) as f64 / right.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[(&str, f32)]) -> Vec<(ItemId, f32)> {
        names.iter().map(|(name, score)| (ItemId::trusted(name), *score)).collect()
    }

    #[test]
    fn the_share_counts_right_answers_among_the_first_k() {
        let right = list(&[("a", 0.9), ("b", 0.8), ("c", 0.7)]);
        for (found, k, expected) in [
            (list(&[("a", 0.9), ("b", 0.8), ("c", 0.7)]), 3, 1.0),
            (list(&[("a", 0.9), ("x", 0.1), ("c", 0.7)]), 2, 0.5),
            (list(&[]), 3, 0.0),
            // As near as the last right one.
            (list(&[("a", 0.9), ("b", 0.8), ("y", 0.7)]), 3, 1.0),
        ] {
            assert!((share(&right, &found, k) - expected).abs() < 1e-12, "{found:?}");
        }
        assert!((share(&[], &[], 3) - 1.0).abs() < 1e-12);
    }
}
