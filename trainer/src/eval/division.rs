//! Which concepts probes and maps are fitted on, and which they are scored on.

use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::SEED;
use crate::augment::generator;
use crate::corpus::Corpus;
use crate::shards::Split;

/// Keeps generators of this draw apart from all others of the same seed.
const PURPOSE: u64 = 0x6469_7669_6465;

/// How rows to fit on and rows to score were told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Fitted on the train split, scored on the split that is reported.
    Splits,
    /// No such split: fitted on a drawn four fifths of the concepts, scored on the others.
    #[default]
    Concepts,
    /// Of each concept one style (pictures), language (names) or row is scored, the others fitted on.
    LeftOut,
}

/// For each concept whether it is fitted on, and whether it is scored. Never both.
#[derive(Debug, Clone)]
pub struct Division {
    /// Fitted on.
    pub fitted: Vec<bool>,
    /// Scored.
    pub scored: Vec<bool>,
    /// How they were told apart.
    pub rule: Rule,
}

impl Division {
    /// Train and the reported split where there are both, else a seeded draw of concepts.
    #[must_use]
    pub fn of(corpus: &Corpus, scope: Option<Split>) -> Self {
        let scored = match scope {
            None if corpus.has(Split::Test) => Some(Split::Test),
            Some(Split::Train) | None => None,
            other => other,
        };
        let of = |split: Split| corpus.concepts.iter().map(move |c| c.split == split).collect();
        match scored {
            Some(split) if corpus.has(Split::Train) => {
                Self { fitted: of(Split::Train), scored: of(split), rule: Rule::Splits }
            }
            _ => Self::drawn(&super::encoded::in_scope(corpus, scope), 0.2, 0),
        }
    }

    /// Draws a share of the concepts to be scored; the others are fitted on.
    #[must_use]
    pub fn drawn(concepts: &[bool], scored_share: f64, number: u64) -> Self {
        let mut of: Vec<usize> = (0..concepts.len()).filter(|at| concepts[*at]).collect();
        of.shuffle(&mut generator(SEED, &[PURPOSE, number]));
        let (mut fitted, mut scored) = (vec![false; concepts.len()], vec![false; concepts.len()]);
        let cut = (of.len() as f64 * scored_share).round() as usize;
        of[..cut].iter().for_each(|at| scored[*at] = true);
        of[cut..].iter().for_each(|at| fitted[*at] = true);
        Self { fitted, scored, rule: Rule::Concepts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concept_is_fitted_on_or_scored_but_never_both() {
        let concepts: Vec<bool> = (0..100).map(|at| at % 10 != 0).collect();
        let Division { fitted, scored, .. } = Division::drawn(&concepts, 0.2, 0);
        assert_eq!(scored.iter().filter(|is| **is).count(), 18);
        for at in 0..100 {
            assert_eq!(fitted[at] ^ scored[at], concepts[at]);
        }
    }
}
