//! A second call beside a slow one: whichever succeeds first is the answer (Dean and Barroso 2013, "The tail at scale"; gRFC A6).

use std::time::Duration;

use parking_lot::Mutex;

use crate::deadline::Class;

/// When a read is sent a second time beside the first, to another server if there is one. Only reads are: searches, embeddings,
/// gets and lists. A hedge takes a retry of the budget, so at most a tenth of calls are hedged in the long run.
#[derive(Debug, Clone, PartialEq)]
pub enum Hedge {
    /// After this time without an answer.
    After(Duration),
    /// After the time within which 95 % of the latest calls of its kind were answered, but not before `at_least`. Not until 32
    /// calls were answered.
    AfterP95 {
        /// Shortest wait.
        at_least: Duration,
    },
}

impl Hedge {
    /// The wait before the second call; nothing when there is to be none.
    pub(crate) fn delay(&self, class: Class, latencies: &Latencies) -> Option<Duration> {
        match self {
            _ if !class.is_read() => None,
            Self::After(delay) => Some(*delay),
            Self::AfterP95 { at_least } => latencies.p95(class).map(|p95| p95.max(*at_least)),
        }
    }
}

/// Latencies that the 95th percentile is taken of.
const KEPT: usize = 256;
/// It is taken anew after so many, and not before there are so many.
const EVERY: usize = 32;

/// How long the latest calls of each kind took.
#[derive(Debug, Default)]
pub(crate) struct Latencies([Mutex<Latest>; Class::COUNT]);

#[derive(Debug, Default)]
struct Latest {
    times: Vec<Duration>,
    seen: usize,
    p95: Option<Duration>,
}

impl Latencies {
    pub(crate) fn note(&self, class: Class, time: Duration) {
        let mut latest = self.0[class as usize].lock();
        let place = latest.seen % KEPT;
        match latest.times.get_mut(place) {
            Some(old) => *old = time,
            None => latest.times.push(time),
        }
        latest.seen += 1;
        if latest.seen.is_multiple_of(EVERY) {
            let mut sorted = latest.times.clone();
            sorted.sort_unstable();
            latest.p95 = sorted.get(sorted.len() * 95 / 100).copied();
        }
    }

    fn p95(&self, class: Class) -> Option<Duration> {
        self.0[class as usize].lock().p95
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_never_hedged() {
        let latencies = Latencies::default();
        let hedge = Hedge::After(Duration::ZERO);
        let hedged = |class| hedge.delay(class, &latencies).is_some();
        assert!(hedged(Class::Search) && hedged(Class::Embed) && hedged(Class::Read));
        assert!(!hedged(Class::Write) && !hedged(Class::Admin));
    }

    #[test]
    fn the_delay_follows_the_latest_calls_of_its_kind() {
        let latencies = Latencies::default();
        let hedge = Hedge::AfterP95 { at_least: Duration::from_millis(2) };
        let note = |times: std::ops::Range<u64>| {
            times.for_each(|time| latencies.note(Class::Search, Duration::from_millis(time)));
        };
        note(0..31);
        assert_eq!(hedge.delay(Class::Search, &latencies), None);
        note(31..100);
        note(0..28);
        let delay = hedge.delay(Class::Search, &latencies).unwrap();
        assert!((88..=96).contains(&delay.as_millis()), "{delay:?}");
        assert_eq!(hedge.delay(Class::Embed, &latencies), None);
        (0..1024).for_each(|_| latencies.note(Class::Search, Duration::ZERO));
        assert_eq!(hedge.delay(Class::Search, &latencies), Some(Duration::from_millis(2)));
    }
}
