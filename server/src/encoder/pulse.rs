//! What a tower's thread tells about itself without being asked: that it lives, and since when it computes.

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
    /// When a batch last gave a vector, as `busy_since`; `IDLE` before the first.
    succeeded_at: AtomicU64,
}

impl Pulse {
    pub(super) fn new() -> Self {
        let unset = || AtomicU64::new(IDLE);
        Self { epoch: Instant::now(), busy_since: unset(), succeeded_at: unset() }
    }

    /// Whether the thread lives and is not stuck.
    pub(super) fn healthy(&self) -> bool {
        self.healthy_at(self.now())
    }

    /// Notes that an input became a vector.
    pub(super) fn succeeded(&self) {
        self.succeeded_at.store(self.now(), Ordering::Relaxed);
    }

    /// Whether an input became a vector within the last `time`.
    pub(super) fn succeeded_within(&self, time: Duration) -> bool {
        match self.succeeded_at.load(Ordering::Relaxed) {
            IDLE => false,
            at => u128::from(self.now().saturating_sub(at)) <= time.as_millis(),
        }
    }

    /// Runs a batch and tells how long it took.
    pub(super) fn beat<R>(&self, batch: impl FnOnce() -> R) -> (R, Duration) {
        let began = Instant::now();
        self.busy_since.store(self.now(), Ordering::Relaxed);
        let outcome = batch();
        self.busy_since.store(IDLE, Ordering::Relaxed);
        (outcome, began.elapsed())
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
        pulse.beat(|| {
            assert!(pulse.healthy());
            assert!(!pulse.healthy_at(far));
        });
        assert!(pulse.healthy_at(far));
    }

    #[test]
    fn a_success_is_remembered_for_as_long_as_is_asked() {
        let pulse = Pulse::new();
        let hour = Duration::from_secs(3600);
        assert!(!pulse.succeeded_within(hour));
        pulse.succeeded();
        assert!(pulse.succeeded_within(hour));
        pulse.succeeded_at.store(1, Ordering::Relaxed);
        while pulse.now() < 3 {
            std::hint::spin_loop();
        }
        assert!(!pulse.succeeded_within(Duration::ZERO));
    }

    #[test]
    fn a_thread_that_ended_is_unhealthy() {
        let pulse = std::sync::Arc::new(Pulse::new());
        drop(EndMark(std::sync::Arc::clone(&pulse)));
        assert!(!pulse.healthy());
    }
}
