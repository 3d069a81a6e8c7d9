//! Ranks and recall from scores: pure arithmetic.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// For each query, the rank of its best right candidate among all that are wrong, from 1.
///
/// The usual measure where each candidate counts by itself: a caption's picture among pictures, or the
/// best of a picture's captions among the captions of all pictures. `scores` is (queries, candidates),
/// row by row, higher is better; a candidate is right when its concept is the query's. Ties take the
/// middle of the places they share. `None` where no candidate is right.
#[must_use]
pub fn item_ranks(scores: &[f32], candidates: &[u32], queries: &[u32]) -> Vec<Option<f64>> {
    let rows = scores.par_chunks(candidates.len().max(1)).zip(queries);
    rows.map(|(row, query)| {
        let mut own = f32::NEG_INFINITY;
        for (score, concept) in row.iter().zip(candidates) {
            if concept == query {
                own = own.max(*score);
            }
        }
        if own == f32::NEG_INFINITY {
            return None;
        }
        let (mut higher, mut as_high) = (0_u32, 0_u32);
        for (score, concept) in row.iter().zip(candidates) {
            let wrong = concept != query;
            higher += u32::from(wrong && *score > own);
            as_high += u32::from(wrong && *score == own);
        }
        Some(1.0 + f64::from(higher) + f64::from(as_high) / 2.0)
    })
    .collect()
}

/// For each query, the rank of its best right group among all groups, from 1.
///
/// `scores` is (queries, candidates), row by row, higher is better; `groups` says which group (below
/// `group_count`) each candidate belongs to, and `right` which groups each query accepts. A group
/// scores as its best candidate does, as in a search with one hit per group. Groups that tie share
/// the mean of their ranks, so a model that scores everything alike gains nothing. `None` where no
/// accepted group has a candidate.
#[must_use]
pub fn group_ranks(
    scores: &[f32],
    groups: &[u32],
    group_count: usize,
    right: &[&[u32]],
) -> Vec<Option<f64>> {
    let rows = scores.par_chunks(groups.len().max(1)).zip(right);
    let scratch = || vec![f32::NEG_INFINITY; group_count];
    rows.map_init(scratch, |best, (row, right)| {
        best.fill(f32::NEG_INFINITY);
        for (score, group) in row.iter().zip(groups) {
            let best = &mut best[*group as usize];
            *best = best.max(*score);
        }
        rank_of_best(best, right)
    })
    .collect()
}

/// The mid-rank of the best of `right` among all groups that have a score.
fn rank_of_best(best: &[f32], right: &[u32]) -> Option<f64> {
    let own = right.iter().map(|group| best[*group as usize]).fold(f32::NEG_INFINITY, f32::max);
    if own == f32::NEG_INFINITY {
        return None;
    }
    let higher = best.iter().filter(|score| **score > own).count();
    // Groups as good as the best right one, itself included. Other right ones do not push it down.
    let rivals = best
        .iter()
        .enumerate()
        .filter(|(group, score)| **score == own && !right.contains(&(*group as u32)))
        .count();
    Some(1.0 + higher as f64 + rivals as f64 / 2.0)
}

/// The share of queries whose rank is at most `k`: a true match in the top k. 0 without queries.
#[must_use]
pub fn recall_at_k(ranks: &[f64], k: usize) -> f64 {
    let hits = ranks.iter().filter(|rank| **rank <= k as f64).count();
    hits as f64 / ranks.len().max(1) as f64
}

/// Recall of a set of queries at the three usual cuts, and the rank in the middle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// How many queries.
    pub queries: usize,
    /// Share with a true match first.
    pub at_1: f64,
    /// Share with a true match among the first five.
    pub at_5: f64,
    /// Share with a true match among the first ten.
    pub at_10: f64,
    /// Half of the queries rank their best true match at this place or better.
    pub median_rank: f64,
}

impl Recall {
    /// From the ranks of the queries.
    #[must_use]
    pub fn of(mut ranks: Vec<f64>) -> Self {
        ranks.sort_by(f64::total_cmp);
        let middle = |offset: usize| ranks.get((ranks.len().saturating_sub(offset)) / 2).copied();
        Self {
            queries: ranks.len(),
            at_1: recall_at_k(&ranks, 1),
            at_5: recall_at_k(&ranks, 5),
            at_10: recall_at_k(&ranks, 10),
            median_rank: (middle(0).unwrap_or(0.0) + middle(1).unwrap_or(0.0)) / 2.0,
        }
    }

    /// The three recalls in percent, added: 0 to 300. Both directions together are the `rsum` of the
    /// literature.
    #[must_use]
    pub fn sum_in_percent(&self) -> f64 {
        100.0 * (self.at_1 + self.at_5 + self.at_10)
    }
}

/// What [`recall_at_k`] gives in the mean when scores are random: for each query, of which we are told
/// how many of `candidates` are right, the chance that one of these is among `k` drawn without
/// replacement, `1 - C(n - r, k) / C(n, k)`.
#[must_use]
pub fn chance_at_k(right: &[usize], candidates: usize, k: usize) -> f64 {
    let miss = |right: usize| -> f64 {
        let drawn = 0..k.min(candidates);
        let wrong = |drawn: usize| candidates.saturating_sub(right + drawn) as f64;
        drawn.map(|drawn| wrong(drawn) / (candidates - drawn) as f64).product()
    };
    right.iter().map(|right| 1.0 - miss(*right)).sum::<f64>() / right.len().max(1) as f64
}

/// The chance that a query whose best right candidate has a rank among `wrong` others chooses it from
/// `choices` candidates, the others drawn from the wrong ones without replacement: none of those drawn
/// may be better. `C(wrong - better, k) / C(wrong, k)` with `k = choices - 1` and `better = rank - 1`,
/// which is the mean over all draws.
#[must_use]
pub fn choice_of(rank: f64, wrong: usize, choices: usize) -> f64 {
    let worse = wrong as f64 - (rank - 1.0);
    let drawn = 0..choices.saturating_sub(1);
    drawn.map(|drawn| (worse - drawn as f64).max(0.0) / (wrong - drawn) as f64).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Three queries, four candidates of three groups; group 1 has two of them (columns 1 and 2).
    //             group 0, group 1, group 1, group 2
    const SCORES: [f32; 12] = [
        0.9, 0.1, 0.3, 0.5, // best by group: .9, .3, .5
        0.2, 0.8, 0.1, 0.8, // .2, .8, .8
        0.4, 0.4, 0.4, 0.4, // all tie
    ];
    const GROUPS: [u32; 4] = [0, 1, 1, 2];

    fn ranks(right: [&[u32]; 3]) -> Vec<Option<f64>> {
        group_ranks(&SCORES, &GROUPS, 4, &right)
    }

    #[test]
    fn ranks_of_a_hand_made_matrix() {
        // Query 0 wants group 1, third of three. Query 1 wants group 1, which ties with group 2 for
        // places 1 and 2: 1.5. Query 2 wants group 0, one of three that tie: 2.
        assert_eq!(ranks([&[1], &[1], &[0]]), [Some(3.0), Some(1.5), Some(2.0)]);
    }

    #[test]
    fn the_best_accepted_group_counts_and_accepted_ones_do_not_compete() {
        assert_eq!(ranks([&[1, 2], &[1, 2], &[0, 1, 2]]), [Some(2.0), Some(1.0), Some(1.0)]);
    }

    #[test]
    fn a_group_without_candidates_has_no_rank() {
        assert_eq!(ranks([&[3], &[3, 0], &[3]]), [None, Some(3.0), None]);
    }

    #[test]
    fn ranks_of_items_count_each_wrong_candidate() {
        // Section K of the project's reference values: the diagonal is right. Row 0 ties for places 1
        // and 2, row 1 for all three, row 2 is second. Expected ranks 1.5, 2, 2; their median is 2.
        let scores = [0.9, 0.9, 0.1, 0.2, 0.2, 0.2, 0.3, 0.7, 0.6];
        let ranks = item_ranks(&scores, &[0, 1, 2], &[0, 1, 2]);
        assert_eq!(ranks, [Some(1.5), Some(2.0), Some(2.0)]);
        let recall = Recall::of(ranks.into_iter().flatten().collect());
        assert!((recall.median_rank - 2.0).abs() < 1e-12);
        // Both candidates of group 1 are wrong for query 0 (.9 wins); for query 1 its .8 ties with the
        // .8 of group 2; group 3 has no candidate.
        assert_eq!(item_ranks(&SCORES, &GROUPS, &[0, 1, 3]), [Some(1.0), Some(1.5), None]);
    }

    #[test]
    fn a_choice_is_the_mean_over_all_draws() {
        // First of all: always. Last of all but as many as are drawn: never.
        assert!((choice_of(1.0, 30, 20) - 1.0).abs() < 1e-12);
        assert!(choice_of(13.0, 30, 20).abs() < 1e-12);
        // One better of four wrong ones, two drawn: C(3, 2) / C(4, 2) = 3 / 6.
        assert!((choice_of(2.0, 4, 3) - 0.5).abs() < 1e-12);
        // One better of 19: it is always drawn.
        assert!(choice_of(2.0, 19, 20).abs() < 1e-12);
    }

    #[test]
    fn chance_is_that_of_a_draw() {
        // One right of ten: k/10. Two right of four, two drawn: 1 - (2/4)(1/3) = 5/6.
        assert!((chance_at_k(&[1, 1], 10, 5) - 0.5).abs() < 1e-12);
        assert!((chance_at_k(&[2], 4, 2) - 5.0 / 6.0).abs() < 1e-12);
        assert!((chance_at_k(&[4], 4, 1) - 1.0).abs() < 1e-12);
        assert!((chance_at_k(&[1], 3, 10) - 1.0).abs() < 1e-12);
        assert!(chance_at_k(&[], 3, 1).abs() < 1e-12);
    }

    #[test]
    fn recall_counts_ranks_up_to_k() {
        let recall = Recall::of(vec![3.0, 1.0, 12.0, 6.0]);
        assert_eq!(
            recall,
            Recall { queries: 4, at_1: 0.25, at_5: 0.5, at_10: 0.75, median_rank: 4.5 }
        );
        assert_eq!(Recall::of(Vec::new()), Recall::default());
    }
}
