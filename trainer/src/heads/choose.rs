//! Whether new shared vectors may take the place of the checkpoint's own: asked on the dev split.
//!
//! They may if both hold:
//!
//! - recall at 1 and at 10, from texts to pictures and from pictures to texts, are none of them lower;
//! - more concepts are found better than worse, by more than chance: a concept is found better if the
//!   reciprocal ranks of its right answers, over all questions that ask for or with it, add up to more than
//!   before. Of `n` concepts that differ, at least `n/2 + 3 sqrt(n)/2` must be better: three standard
//!   deviations of a sign test, since the best of several candidates is taken and pairs of one concept
//!   hang together.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::Result;
use crate::eval::encoded::{Encoded, Side};
use crate::eval::recall::{self, Recall};
use crate::eval::retrieval::{Directions, for_scores};

/// Standard deviations of a sign test.
const DEVIATIONS: f64 = 3.0;

/// How a model retrieves.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// Both directions by the usual protocol.
    pub(super) directions: Directions,
    /// Reciprocal ranks of the right answers, added by concept.
    by_concept: BTreeMap<u32, f64>,
}

/// New vectors beside the checkpoint's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether recall at 1 or at 10 is lower in a direction.
    pub lower: bool,
    /// Concepts that are found better.
    pub better: usize,
    /// Concepts that are found worse.
    pub worse: usize,
}

impl Standing {
    /// Asks in both directions.
    ///
    /// # Errors
    /// If a product fails.
    pub(super) fn of(encoded: &Encoded) -> Result<Self> {
        let (names, pictures) = (&encoded.names, &encoded.pictures);
        let mut by_concept = BTreeMap::new();
        let text_to_picture = asked(names, pictures, &mut by_concept)?;
        let picture_to_text = asked(pictures, names, &mut by_concept)?;
        let rsum = text_to_picture.sum_in_percent() + picture_to_text.sum_in_percent();
        Ok(Self { directions: Directions { text_to_picture, picture_to_text, rsum }, by_concept })
    }

    /// This beside `own`.
    pub(super) fn beside(&self, own: &Self) -> Comparison {
        let pairs = [
            (self.directions.text_to_picture, own.directions.text_to_picture),
            (self.directions.picture_to_text, own.directions.picture_to_text),
        ];
        let lower = pairs.iter().any(|(new, own)| new.at_1 < own.at_1 || new.at_10 < own.at_10);
        let (mut better, mut worse) = (0, 0);
        for (concept, new) in &self.by_concept {
            let own = own.by_concept.get(concept).copied().unwrap_or(0.0);
            better += usize::from(*new > own);
            worse += usize::from(*new < own);
        }
        Comparison { lower, better, worse }
    }
}

impl Comparison {
    /// Whether the new vectors may take the place of the others.
    #[must_use]
    pub fn is_gain(&self) -> bool {
        let (better, worse) = (self.better as f64, self.worse as f64);
        !self.lower && better - worse >= DEVIATIONS * (better + worse).sqrt() && self.better > 0
    }
}

/// One direction; adds reciprocal ranks to the concepts of the queries.
fn asked(queries: &Side, candidates: &Side, by_concept: &mut BTreeMap<u32, f64>) -> Result<Recall> {
    let mut ranks = Vec::with_capacity(queries.len());
    if !candidates.is_empty() {
        for_scores(&queries.shared, &candidates.shared, |first, rows, scores| {
            let concepts = &queries.concepts[first..first + rows];
            let found = recall::item_ranks(scores, &candidates.concepts, concepts);
            for (rank, concept) in found.into_iter().zip(concepts) {
                if let Some(rank) = rank {
                    *by_concept.entry(*concept).or_default() += 1.0 / rank;
                    ranks.push(rank);
                }
            }
        })?;
    }
    Ok(Recall::of(ranks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(lower: bool, better: usize, worse: usize) -> bool {
        Comparison { lower, better, worse }.is_gain()
    }

    #[test]
    fn a_gain_is_more_than_chance_and_costs_no_recall() {
        assert!(compared(false, 9, 0) && !compared(false, 8, 0));
        assert!(compared(false, 65, 35) && !compared(false, 64, 36));
        assert!(!compared(true, 100, 0) && !compared(false, 0, 0));
    }

    #[test]
    fn concepts_are_compared_by_the_ranks_of_their_answers() {
        let side = |rows: [[f32; 2]; 2]| {
            let shared = crate::eval::matrix::Matrix::new(rows.concat(), 2);
            Side::of_shared(shared, vec![0, 1])
        };
        let standing = |names| {
            let pictures = side([[1.0, 0.0], [0.0, 1.0]]);
            let encoded = Encoded { pictures, names: side(names), texts: Vec::new() };
            Standing::of(&encoded).unwrap()
        };
        let (right, wrong) =
            (standing([[1.0, 0.0], [0.0, 1.0]]), standing([[0.0, 1.0], [1.0, 0.0]]));
        assert_eq!(right.beside(&wrong), Comparison { lower: false, better: 2, worse: 0 });
        assert_eq!(wrong.beside(&right), Comparison { lower: true, better: 0, worse: 2 });
        assert_eq!(right.beside(&right), Comparison { lower: false, better: 0, worse: 0 });
        assert!((right.directions.rsum - 600.0).abs() < 1e-9);
    }
}
