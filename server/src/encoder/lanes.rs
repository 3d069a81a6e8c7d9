//! What waits for a tower's thread, in two lanes: callers who wait for an answer, and bulk work that has time.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Batches for callers after which one bulk input is taken along, so that bulk work gets on under any load.
const ALONG_EVERY: u32 = 16;
/// A bulk batch is this share of a whole one: a caller who comes while it is computed waits for no more.
const BULK_SHARE: usize = 4;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Someone waits for the answer.
    Interactive,
    /// Work in the background.
    Bulk,
}

#[derive(Debug)]
struct Waiting<T> {
    interactive: VecDeque<T>,
    bulk: VecDeque<T>,
    /// Batches since the last bulk input.
    passed: u32,
    closed: bool,
}

/// Both lanes. Unbounded: what is in them holds a place that its side counts.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Condvar,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        let waiting = Waiting {
            interactive: VecDeque::new(),
            bulk: VecDeque::new(),
            passed: 0,
            closed: false,
        };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new() }
    }

    /// Adds to the end of a lane; gives the job back when nobody takes any more.
    pub(super) fn push(&self, lane: Lane, job: T) -> Result<(), T> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(job);
        }
        match lane {
            Lane::Interactive => waiting.interactive.push_back(job),
            Lane::Bulk => waiting.bulk.push_back(job),
        }
        self.filled.notify_one();
        Ok(())
    }

    /// The next batch, at most `most`; waits for one. `None` once the lanes are closed and empty.
    pub(super) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut waiting = self.waiting.lock();
        loop {
            if !waiting.interactive.is_empty() {
                let count = waiting.interactive.len().min(most);
                let mut batch: Vec<T> = waiting.interactive.drain(..count).collect();
                waiting.passed += u32::from(!waiting.bulk.is_empty());
                if waiting.passed >= ALONG_EVERY {
                    waiting.passed = 0;
                    batch.extend(waiting.bulk.pop_front());
                }
                return Some(batch);
            }
            if !waiting.bulk.is_empty() {
                waiting.passed = 0;
                let count = waiting.bulk.len().min((most / BULK_SHARE).max(1));
                return Some(waiting.bulk.drain(..count).collect());
            }
            if waiting.closed {
                return None;
            }
            self.filled.wait(&mut waiting);
        }
    }

    /// Takes nothing more; what waits is still given out.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes, and lets go of all that waits: those who wait for an answer learn that there is none.
    pub(super) fn abandon(&self) {
        self.close();
        let mut waiting = self.waiting.lock();
        waiting.interactive.clear();
        waiting.bulk.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(interactive: u32, bulk: u32) -> Lanes<(Lane, u32)> {
        let lanes = Lanes::new();
        (0..bulk).for_each(|n| lanes.push(Lane::Bulk, (Lane::Bulk, n)).unwrap());
        (0..interactive)
            .for_each(|n| lanes.push(Lane::Interactive, (Lane::Interactive, n)).unwrap());
        lanes
    }

    #[test]
    fn callers_go_first_and_bulk_work_comes_in_small_batches() {
        let lanes = lanes(5, 6);
        let count = |batch: Vec<(Lane, u32)>, lane| {
            assert!(batch.iter().all(|job| job.0 == lane), "{batch:?}");
            batch.len()
        };
        assert_eq!(count(lanes.take(4).unwrap(), Lane::Interactive), 4);
        assert_eq!(count(lanes.take(4).unwrap(), Lane::Interactive), 1);
        assert_eq!(count(lanes.take(8).unwrap(), Lane::Bulk), 2);
        lanes.push(Lane::Interactive, (Lane::Interactive, 9)).unwrap();
        assert_eq!(count(lanes.take(8).unwrap(), Lane::Interactive), 1);
        assert_eq!(count(lanes.take(1).unwrap(), Lane::Bulk), 1);
    }

    #[test]
    fn bulk_work_gets_on_while_callers_never_stop() {
        let lanes = lanes(200, 2);
        let taken: Vec<_> = (0..40).flat_map(|_| lanes.take(4).unwrap()).collect();
        assert_eq!(taken.iter().filter(|job| job.0 == Lane::Bulk).count(), 2);
        assert_eq!(taken.len(), 162);
    }

    #[test]
    fn closed_lanes_give_out_what_waits_and_take_nothing() {
        let lanes = lanes(1, 1);
        lanes.close();
        assert!(lanes.push(Lane::Bulk, (Lane::Bulk, 7)).is_err());
        assert!(lanes.take(4).is_some() && lanes.take(4).is_some() && lanes.take(4).is_none());
    }
}
