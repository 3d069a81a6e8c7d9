//! How many calls may be sent again, of all: retries must not keep down a server that is down.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many calls may be sent again: a share of all calls, and a few beyond that. A retry and the second call of a hedge take one
/// each; an item that an ingest puts earns as much as a call. One budget for all clones of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryBudget {
    /// Retries that each call earns, such as 0.1: one in ten. Default 0.1.
    pub ratio: f64,
    /// Retries that are there at the start; no more than this many are ever saved up. Default 20.
    pub reserve: u32,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { ratio: 0.1, reserve: 20 }
    }
}

impl RetryBudget {
    /// No bound, for a caller that is alone and waits in between, as one that loads items is.
    pub fn unlimited() -> Self {
        Self { ratio: f64::INFINITY, reserve: u32::MAX }
    }
}

/// Parts of a retry in which calls are counted.
const PARTS: f64 = 1000.0;
const WHOLE: u64 = 1000;

/// What is left of a [`RetryBudget`].
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
    earned: u64,
    most: u64,
}

impl Budget {
    pub(crate) fn new(budget: &RetryBudget) -> Self {
        let most = u64::from(budget.reserve) * WHOLE;
        // A float to an integer goes to the nearest that there is: not a number to 0, infinity to the largest.
        let earned = (budget.ratio * PARTS).round() as u64;
        Self { left: AtomicU64::new(most), earned, most }
    }

    /// Counts calls, or what is worth as much.
    pub(crate) fn called(&self, calls: u64) {
        let earned = self.earned.saturating_mul(calls);
        let earn = |left: u64| Some(left.saturating_add(earned).min(self.most));
        self.change(earn);
    }

    /// Takes a retry, if there is one left.
    pub(crate) fn take(&self) -> bool {
        self.change(|left| left.checked_sub(WHOLE))
    }

    fn change(&self, change: impl Fn(u64) -> Option<u64>) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_calls_and_the_reserve() {
        let budget = Budget::new(&RetryBudget::default());
        let mut retries = 0;
        for _ in 0..1000 {
            budget.called(1);
            retries += u32::from(budget.take());
        }
        assert_eq!(retries, 120 - 1, "the first call earns nothing: the reserve is full");
    }

    #[test]
    fn no_more_is_saved_up_than_the_reserve() {
        let budget = Budget::new(&RetryBudget { ratio: 0.5, reserve: 3 });
        (0..500).for_each(|_| budget.called(2));
        assert_eq!((0..10).filter(|_| budget.take()).count(), 3);
    }

    #[test]
    fn a_budget_without_bound_has_none_and_one_of_nothing_has_nothing() {
        let endless = Budget::new(&RetryBudget::unlimited());
        assert!((0..100_000).all(|_| {
            endless.called(1);
            endless.take()
        }));
        let nothing = Budget::new(&RetryBudget { ratio: 0.0, reserve: 0 });
        nothing.called(1);
        assert!(!nothing.take());
    }
}
