//! What a tower's thread tells about itself without being asked: that it lives, since when it computes, and what an input costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A batch that runs longer than this means that the thread is stuck: batches take milliseconds.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// Value of `busy_since` while nothing runs.
const IDLE: u64 = 0;
/// Value of `busy_since` when the thread has ended.
const ENDED: u64 = u64::MAX;

/// Written by one thread, read by all.
#[derive(Debug)]
pub(super) struct Pulse {
    epoch: Instant,
    /// When the running batch began, in milliseconds since `epoch` plus 1; or `IDLE`, `ENDED`.
    busy_since: AtomicU64,
    /// Nanoseconds that an input took of late, in the middle.
    cost_ns: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), busy_since: AtomicU64::new(IDLE), cost_ns: AtomicU64::new(0) }
    }

    /// Whether the thread lives and is not stuck.
    pub(super) fn healthy(&self) -> bool {
        self.healthy_at(self.now())
    }

    /// How long `inputs` will take, as far as the past tells.
    pub(super) fn predict(&self, inputs: usize) -> Duration {
        let cost = self.cost_ns.load(Ordering::Relaxed);
        Duration::from_nanos(cost.saturating_mul(inputs as u64))
    }

    /// Runs a batch of `inputs` and learns from the time it takes.
    pub(super) fn beat<R>(&self, inputs: usize, batch: impl FnOnce() -> R) -> R {
        let began = Instant::now();
        self.busy_since.store(self.now(), Ordering::Relaxed);
        let outcome = batch();
        self.busy_since.store(IDLE, Ordering::Relaxed);
        self.learn(began.elapsed().as_nanos() / inputs.max(1) as u128);
        outcome
    }

    /// Moves a quarter of the way to the newest cost, so that one slow batch does not rule the prediction.
    fn learn(&self, newest_ns: u128) {
        let newest = u64::try_from(newest_ns).unwrap_or(u64::MAX);
        let known = self.cost_ns.load(Ordering::Relaxed);
        let learnt = if known == 0 { newest } else { known - known / 4 + newest / 4 };
        self.cost_ns.store(learnt, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(ENDED - 2) + 1
    }

    fn healthy_at(&self, now: u64) -> bool {
        match self.busy_since.load(Ordering::Relaxed) {
            IDLE => true,
            ENDED => false,
            since => u128::from(now.saturating_sub(since)) < STUCK_AFTER.as_millis(),
        }
    }
}

/// Marks the thread as ended, however it ends.
#[derive(Debug)]
pub(super) struct EndMark(pub(super) std::sync::Arc<Pulse>);

impl Drop for EndMark {
    fn drop(&mut self) {
        self.0.busy_since.store(ENDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_without_end_is_unhealthy_and_an_idle_thread_is_not() {
        let pulse = Pulse::new();
        let far = 1_000_000_000;
        assert!(pulse.healthy_at(far));
        pulse.beat(1, || {
            assert!(pulse.healthy());
            assert!(!pulse.healthy_at(far));
        });
        assert!(pulse.healthy_at(far));
    }

    #[test]
    fn a_thread_that_ended_is_unhealthy() {
        let pulse = std::sync::Arc::new(Pulse::new());
        drop(EndMark(std::sync::Arc::clone(&pulse)));
        assert!(!pulse.healthy());
    }

    #[test]
    fn the_prediction_follows_the_cost_without_jumping() {
        let pulse = Pulse::new();
        assert_eq!(pulse.predict(100), Duration::ZERO);
        pulse.learn(1000);
        assert_eq!(pulse.predict(100), Duration::from_micros(100));
        pulse.learn(9000);
        assert_eq!(pulse.predict(100), Duration::from_micros(300));
    }
}
