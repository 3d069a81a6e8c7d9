//! True pairs and as many random non-pairs.

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::augment::generator;
use crate::eval::SEED;
use crate::eval::encoded::Side;

/// Keeps generators of this draw apart from all others of the same seed.
const PURPOSE: u64 = 0x0070_6169_7273;

/// Pairs aimed at where there are fewer queries: each is asked several times, with other partners.
const ENOUGH: usize = 8_192;

/// Most times that a query is asked.
const MOST_TIMES: usize = 8;

/// Draws of a partner of another concept before a query is given up: it takes only one in practice.
const TRIES: usize = 64;

/// The cosine of a query and a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scored {
    pub(super) score: f64,
    /// Whether they are of one concept.
    pub(super) pair: bool,
}

/// For each query that has a right candidate: one of these, and one of another concept, at random.
pub(super) fn pairs(queries: &Side, candidates: &Side, number: u64) -> Vec<Scored> {
    let mut right = BTreeMap::<u32, Vec<usize>>::new();
    for (at, concept) in candidates.concepts.iter().enumerate() {
        right.entry(*concept).or_default().push(at);
    }
    if right.len() < 2 {
        return Vec::new();
    }
    let times = (ENOUGH / queries.len().max(1)).clamp(1, MOST_TIMES);
    let mut rng = generator(SEED, &[PURPOSE, number]);
    let mut scored = Vec::with_capacity(2 * times * queries.len());
    for _ in 0..times {
        for (query, concept) in queries.concepts.iter().enumerate() {
            let own = right.get(concept).and_then(|own| own.choose(&mut rng));
            let other = (0..TRIES)
                .map(|_| rng.random_range(0..candidates.len()))
                .find(|at| candidates.concepts[*at] != *concept);
            if let (Some(own), Some(other)) = (own, other) {
                let score =
                    |at: usize| cosine(queries.shared.row(query), candidates.shared.row(at));
                scored.push(Scored { score: score(*own), pair: true });
                scored.push(Scored { score: score(other), pair: false });
            }
        }
    }
    scored
}

/// Of unit vectors.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::matrix::Matrix;

    #[test]
    fn pairs_and_non_pairs_are_as_many_and_what_they_say() {
        // Concept c has the unit vector of axis c on both sides: pairs score 1, non-pairs 0.
        let axes = (0..9).map(|at| f32::from(u8::from(at % 4 == 0))).collect();
        let side = Side::of_shared(Matrix::new(axes, 3), vec![0, 1, 2]);
        let scored = pairs(&side, &side, 0);
        assert_eq!(scored.len(), 2 * 3 * MOST_TIMES);
        assert!(scored.iter().all(|s| (s.score - f64::from(u8::from(s.pair))).abs() < 1e-9));
        assert_eq!(scored, pairs(&side, &side, 0));
        assert!(pairs(&side, &side.select(&[0]), 0).is_empty());
    }
}
