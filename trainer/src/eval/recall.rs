//! Ranks and recall from scores: pure arithmetic.

use serde::{Deserialize, Serialize};

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
    let mut best = vec![f32::NEG_INFINITY; group_count];
    let rows = scores.chunks(groups.len().max(1)).zip(right);
    rows.map(|(row, right)| {
        best.fill(f32::NEG_INFINITY);
        for (score, group) in row.iter().zip(groups) {
            let best = &mut best[*group as usize];
            *best = best.max(*score);
        }
        rank_of_best(&best, right)
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
    fn recall_counts_ranks_up_to_k() {
        let recall = Recall::of(vec![3.0, 1.0, 12.0, 6.0]);
        assert_eq!(
            recall,
            Recall { queries: 4, at_1: 0.25, at_5: 0.5, at_10: 0.75, median_rank: 4.5 }
        );
        assert_eq!(Recall::of(Vec::new()), Recall::default());
    }
}
