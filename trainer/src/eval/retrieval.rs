//! Retrieval both ways by the usual protocol, where each candidate counts by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::encoded::{Encoded, Side};
use super::matrix::Matrix;
use super::recall::{self, Recall};
use crate::error::Result;

/// Queries scored at a time: bounds the score matrix.
pub(super) const QUERIES: usize = 512;

/// Candidates of a choice, the right one among them.
const CHOICES: usize = 20;

/// Recall from texts to pictures and back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// Each name against all pictures.
    pub text_to_picture: Recall,
    /// Each picture against all names; the best of its own counts.
    pub picture_to_text: Recall,
    /// The six recalls in percent, added: 0 to 600.
    pub rsum: f64,
}

/// Shares of queries that find what is right among a few.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Names choosing among pictures.
    pub text_to_picture: f64,
    /// Pictures choosing among names.
    pub picture_to_text: f64,
}

/// Retrieval among the pictures and names of a split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Pictures asked and asked for.
    pub pictures: usize,
    /// Names asked and asked for: those that training was not kept from.
    pub names: usize,
    /// The names of all languages together.
    pub all: Directions,
    /// The share of queries that find a right one of theirs among 20, the others drawn from what is wrong;
    /// absent where there are too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_of_20: Option<Choice>,
    /// The names of one language, by language.
    pub by_language: BTreeMap<String, Directions>,
}

/// Asks in both directions, with all names and with those of each language.
///
/// # Errors
/// If a product fails.
pub fn evaluate(encoded: &Encoded, pictures: &Side, names: &Side) -> Result<Retrieval> {
    let seen = names.filter(|at| encoded.texts[names.rows[at]].seen);
    let all = directions(&seen, pictures)?;
    let mut by_language = BTreeMap::new();
    for language in encoded.languages() {
        let own = seen.filter(|at| encoded.texts[seen.rows[at]].language == language);
        if !own.is_empty() {
            by_language.insert(language.to_owned(), directions(&own, pictures)?);
        }
    }
    let there = choice((&seen.shared, &seen.concepts), (&pictures.shared, &pictures.concepts))?;
    let back = choice((&pictures.shared, &pictures.concepts), (&seen.shared, &seen.concepts))?;
    let choice_of_20 = there
        .zip(back)
        .map(|(text_to_picture, picture_to_text)| Choice { text_to_picture, picture_to_text });
    Ok(Retrieval { pictures: pictures.len(), names: seen.len(), all, choice_of_20, by_language })
}

/// The share of queries (Q, D) that choose rightly among [`CHOICES`] candidates, one of them right; `None`
/// where a query has fewer wrong ones.
fn choice(
    (queries, asked): (&Matrix, &[u32]),
    (candidates, concepts): (&Matrix, &[u32]),
) -> Result<Option<f64>> {
    let mut counts = BTreeMap::<u32, usize>::new();
    concepts.iter().for_each(|concept| *counts.entry(*concept).or_default() += 1);
    let mut chances = Vec::with_capacity(asked.len());
    let mut enough = !concepts.is_empty();
    for_scores(queries, candidates, |first, rows, scores| {
        let asked = &asked[first..first + rows];
        let ranks = recall::item_ranks(scores, concepts, asked);
        for (concept, rank) in asked.iter().zip(ranks) {
            let wrong = concepts.len() - counts.get(concept).copied().unwrap_or(0);
            enough &= wrong >= CHOICES - 1;
            chances.extend(rank.map(|rank| recall::choice_of(rank, wrong, CHOICES)));
        }
    })?;
    enough &= !chances.is_empty();
    Ok(enough.then(|| chances.iter().sum::<f64>() / chances.len() as f64))
}

/// Recall between names and pictures by their shared vectors.
///
/// # Errors
/// If a product fails.
pub fn directions(names: &Side, pictures: &Side) -> Result<Directions> {
    let text_to_picture =
        recall((&names.shared, &names.concepts), (&pictures.shared, &pictures.concepts))?;
    let picture_to_text =
        recall((&pictures.shared, &pictures.concepts), (&names.shared, &names.concepts))?;
    let rsum = text_to_picture.sum_in_percent() + picture_to_text.sum_in_percent();
    Ok(Directions { text_to_picture, picture_to_text, rsum })
}

/// Recall of queries (Q, D) with their concepts among candidates (C, D) with theirs, by inner
/// products. Queries without a right candidate are left out.
///
/// # Errors
/// If the dimensions differ.
pub fn recall(
    (queries, asked): (&Matrix, &[u32]),
    (candidates, concepts): (&Matrix, &[u32]),
) -> Result<Recall> {
    let mut ranks = Vec::with_capacity(asked.len());
    if !concepts.is_empty() {
        for_scores(queries, candidates, |first, rows, scores| {
            let asked = &asked[first..first + rows];
            ranks.extend(recall::item_ranks(scores, concepts, asked).into_iter().flatten());
        })?;
    }
    Ok(Recall::of(ranks))
}

/// Hands on the scores of queries against all candidates, some queries at a time: the first query's
/// number, how many there are, and (queries, candidates) scores.
pub(crate) fn for_scores(
    queries: &Matrix,
    candidates: &Matrix,
    mut take: impl FnMut(usize, usize, &[f32]),
) -> Result<()> {
    for first in (0..queries.rows()).step_by(QUERIES) {
        let rows = QUERIES.min(queries.rows() - first);
        let chosen: Vec<usize> = (first..first + rows).collect();
        let scores = queries.select(&chosen).times_transposed(candidates)?;
        take(first, rows, scores.values());
    }
    Ok(())
}

/// How far the two modalities lie apart in the shared space: the norm of the difference of the mean
/// unit vectors (Liang et al., 2022, "Mind the Gap"), 0 to 2.
#[must_use]
pub fn modality_gap(pictures: &Matrix, texts: &Matrix) -> f64 {
    let differences = pictures.mean().into_iter().zip(texts.mean()).map(|(p, t)| (p - t).powi(2));
    differences.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rows: &[[f32; 2]], concepts: &[u32]) -> Side {
        let mut shared = Matrix::new(rows.concat(), 2);
        shared.normalise();
        Side::of_shared(shared, concepts.to_vec())
    }

    #[test]
    fn figures_of_a_small_fixture_are_those_computed_by_hand() {
        // Three pictures and four names; concept 2 has two names.
        //   pictures  p0 (1, 0)   p1 (0, 1)   p2 (3, 4)/5
        //   names     n0 (1, 0)   n1 (4, 3)/5   n2 (0, 1)   m2 (3, 4)/5
        // Scores, names by pictures:
        //   n0:  1    0    .6    own p0: rank 1
        //   n1:  .8   .6   .96   own p1: behind p2 and p0, rank 3
        //   n2:  0    1    .8    own p2: behind p1, rank 2
        //   m2:  .6   .8   1     own p2: rank 1
        // R@1 2/4 = .5, R@5 and R@10 1, ranks 1 1 2 3: median 1.5.
        // Pictures by names: p0 finds n0 first (1), rank 1; p1 has n2 (1), m2 (.8) before its n1 (.6),
        // rank 3 (each name counts, though both are of concept 2); p2 has m2 first (1), rank 1.
        // R@1 2/3, R@5 and R@10 1, median 1. rsum = 50 + 100 + 100 + 66.67 + 100 + 100 = 516.67.
        let pictures = side(&[[1.0, 0.0], [0.0, 1.0], [3.0, 4.0]], &[0, 1, 2]);
        let names = side(&[[1.0, 0.0], [4.0, 3.0], [0.0, 1.0], [3.0, 4.0]], &[0, 1, 2, 2]);
        let found = directions(&names, &pictures).unwrap();
        let there = Recall { queries: 4, at_1: 0.5, at_5: 1.0, at_10: 1.0, median_rank: 1.5 };
        let back = Recall { queries: 3, at_1: 2.0 / 3.0, at_5: 1.0, at_10: 1.0, median_rank: 1.0 };
        assert_eq!((found.text_to_picture, found.picture_to_text), (there, back));
        assert!((found.rsum - 516.666_667).abs() < 1e-5, "{}", found.rsum);
        // Means (8, 9)/15 of the pictures and (12, 12)/20 of the names: gap = ||(-1/15, 0)|| = 1/15.
        let gap = modality_gap(&pictures.shared, &names.shared);
        assert!((gap - 1.0 / 15.0).abs() < 1e-6, "{gap}");
    }

    #[test]
    fn the_modality_gap_is_that_of_an_independent_computation() {
        // Input A and value 21 of the project's reference values, computed there with numpy in f64.
        let rows = |values: [f32; 12]| {
            let mut matrix = Matrix::new(values.to_vec(), 3);
            matrix.normalise();
            matrix
        };
        let pictures = rows([1., 2., 2., 2., -1., 2., 0., 3., 4., 4., -3., 0.]);
        let texts = rows([2., 1., 2., 1., -2., 2., 3., 0., 4., 0., -4., 3.]);
        let gap = modality_gap(&pictures, &texts);
        assert!((gap - 0.399_305).abs() < 1e-5, "{gap}");
    }

    #[test]
    fn a_query_without_a_right_candidate_is_left_out() {
        let pictures = side(&[[1.0, 0.0]], &[0]);
        let names = side(&[[1.0, 0.0], [0.0, 1.0]], &[0, 7]);
        let found = directions(&names, &pictures).unwrap();
        assert_eq!(found.text_to_picture.queries, 1);
        assert_eq!(directions(&names, &Side::default()).unwrap(), Directions::default());
    }
}
