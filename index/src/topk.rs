//! The best k of many, in one fixed order.

use std::{cmp::Ordering, collections::BinaryHeap};

use crate::types::ItemId;

/// A scored item: better is greater. Score decides, then the smaller id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scored<'a, T> {
    pub(crate) score: f32,
    pub(crate) id: &'a ItemId,
    pub(crate) item: T,
}

/// Score descending, then id ascending: `Less` when `a` comes before `b`. Scores are never NaN.
pub(crate) fn rank(a: (f32, &ItemId), b: (f32, &ItemId)) -> Ordering {
    b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1))
}

impl<T> Ord for Scored<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap keeps its greatest on top: that is the worst one, the first to go.
        rank((self.score, self.id), (other.score, other.id))
    }
}

impl<T> PartialOrd for Scored<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Scored<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Scored<'_, T> {}

/// Keeps the best k; ties at the edge are decided by id, so the answer does not depend on the
/// order in which items come.
#[derive(Debug)]
pub(crate) struct TopK<'a, T> {
    k: usize,
    heap: BinaryHeap<Scored<'a, T>>,
}

impl<'a, T> TopK<'a, T> {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, heap: BinaryHeap::with_capacity(k.min(4096)) }
    }

    /// Whether an item of this score could still enter.
    pub(crate) fn admits(&self, score: f32) -> bool {
        self.heap.len() < self.k || self.heap.peek().is_some_and(|worst| score >= worst.score)
    }

    pub(crate) fn push(&mut self, candidate: Scored<'a, T>) {
        if self.heap.len() < self.k {
            self.heap.push(candidate);
        } else if let Some(mut worst) = self.heap.peek_mut()
            && candidate < *worst
        {
            *worst = candidate;
        }
    }

    pub(crate) fn merge(mut self, other: Self) -> Self {
        for candidate in other.heap {
            self.push(candidate);
        }
        self
    }

    /// Best first.
    pub(crate) fn into_sorted(self) -> Vec<Scored<'a, T>> {
        self.heap.into_sorted_vec()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_sort_whatever_the_order(
            scores in proptest::collection::vec(0_u8..6, 0..60),
            k in 0_usize..70,
            cut in 0_usize..60,
        ) {
            let ids: Vec<ItemId> =
                (0..scores.len()).map(|i| ItemId::trusted(&format!("{:02}", (i * 37) % 61))).collect();
            let all: Vec<(f32, &ItemId)> =
                scores.iter().map(|s| f32::from(*s)).zip(&ids).collect();
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| rank(*a, *b));
            sorted.truncate(k);

            let (mut left, mut right) = (TopK::new(k), TopK::new(k));
            for (i, (score, id)) in all.into_iter().enumerate() {
                let half = if i < cut { &mut left } else { &mut right };
                if half.admits(score) {
                    half.push(Scored { score, id, item: () });
                }
            }
            let found: Vec<_> =
                left.merge(right).into_sorted().iter().map(|s| (s.score, s.id)).collect();
            prop_assert_eq!(found, sorted);
        }
    }
}
