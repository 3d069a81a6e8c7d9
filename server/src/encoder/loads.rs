//! What is under way, by lane, as far as can be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::lanes::Lane;

/// What is under way in each lane of one place of work.
#[derive(Debug, Clone, Default)]
pub(super) struct Loads(Arc<[Load; 3]>);

/// What is under way in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLoad {
    /// Inputs, those that are computed included.
    pub inputs: u64,
    /// What they take, as far as can be told.
    pub cost: Duration,
    /// How long one that comes now would wait.
    pub wait: Duration,
}

#[derive(Debug, Default)]
struct Load {
    inputs: AtomicU64,
    nanoseconds: AtomicU64,
}

/// An input that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct Loaded {
    lane: Lane,
    nanoseconds: u64,
    loads: Loads,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let load = self.loads.of(self.lane);
        load.inputs.fetch_sub(1, Ordering::Relaxed);
        load.nanoseconds.fetch_sub(self.nanoseconds, Ordering::Relaxed);
    }
}

impl Loads {
    /// Counts an input that takes so long.
    pub(super) fn enter(&self, lane: Lane, cost: Duration) -> Loaded {
        let nanoseconds = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let load = self.of(lane);
        load.inputs.fetch_add(1, Ordering::Relaxed);
        load.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        Loaded { lane, nanoseconds, loads: self.clone() }
    }

    /// Inputs of a lane.
    pub(super) fn inputs(&self, lane: Lane) -> usize {
        self.of(lane).inputs.load(Ordering::Relaxed) as usize
    }

    /// How long an input that comes now waits for its turn, as far as the past tells: for its own lane's work, stretched by what
    /// other lanes may take beside it, and at most for all that is under way.
    pub(super) fn wait(&self, lane: Lane) -> Duration {
        let all: u64 = Lane::ALL.into_iter().map(|lane| self.nanoseconds(lane)).sum();
        let weights: u64 = Lane::ALL.into_iter().map(Lane::weight).sum();
        let stretched = self.nanoseconds(lane).saturating_mul(weights) / lane.weight();
        Duration::from_nanos(stretched.min(all))
    }

    /// Every lane.
    pub(super) fn all(&self) -> [LaneLoad; 3] {
        Lane::ALL.map(|lane| LaneLoad {
            inputs: self.inputs(lane) as u64,
            cost: Duration::from_nanos(self.nanoseconds(lane)),
            wait: self.wait(lane),
        })
    }

    fn nanoseconds(&self, lane: Lane) -> u64 {
        self.of(lane).nanoseconds.load(Ordering::Relaxed)
    }

    fn of(&self, lane: Lane) -> &Load {
        &self.0[lane as usize]
    }
}
