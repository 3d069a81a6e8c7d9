//! When more is asked than can be answered: each method lets in what it answers in time and refuses the rest at once.
//!
//! A method is **well** until more calls are under way than a burst may have, and they would take longer than a burst may take.
//! Then it is **overloaded**: it lets in so many calls as keep it busy, no more, so that those it takes are answered almost as
//! fast as when it is idle. By Little's law that many are `slowdown * base / interval`, with `base` the time of a call that runs
//! alone and `interval` the time between two answers under load, both measured all the time. It is well again when nobody was
//! refused for a while. So callers that wait for their answers before they ask again, however many, are not refused for being
//! many at once; those that keep coming faster than answers go out are.
//!
//! Nothing here reads a request: a refusal costs a few atomic operations and a reply without a body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much of the way to the newest sample an average moves.
const NEWEST: f64 = 1.0 / 16.0;

/// What counts as an overload, and what is done then.
#[derive(Debug, Clone, Copy)]
pub struct OverloadSettings {
    /// Calls of one method that may be under way at once, however long they take.
    pub burst_calls: usize,
    /// How long the calls under way may take together before their method is overloaded.
    pub burst_wait: Duration,
    /// How many times as long as an idle server's a call may take while its method is overloaded.
    pub slowdown: f64,
    /// How long nobody must have been refused until the method is well again.
    pub recovery: Duration,
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self {
            burst_calls: 40,
            burst_wait: Duration::from_millis(250),
            slowdown: 1.6,
            recovery: Duration::from_secs(1),
        }
    }
}

/// One method's limiter.
#[derive(Debug)]
pub struct Limiter {
    settings: OverloadSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    /// Seconds that a call takes alone; `None` until one did.
    base: Option<f64>,
    /// Seconds between two answers while others wait.
    interval: Option<f64>,
    answered: Option<Instant>,
    /// When somebody was last refused, while overloaded.
    refused: Option<Instant>,
}

/// Leave to make a call; ends it when dropped.
#[derive(Debug)]
pub struct Pass {
    limiter: Arc<Limiter>,
    began: Instant,
    alone: bool,
}

impl Limiter {
    /// A method that is well.
    pub fn new(settings: OverloadSettings) -> Arc<Self> {
        Arc::new(Self { settings, state: Mutex::default() })
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// How long to wait, for one that comes while the method is overloaded and has enough to do.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state.lock();
        if let Some(refused) = state.refused
            && now.saturating_duration_since(refused) > self.settings.recovery
        {
            state.refused = None;
        }
        if state.under_way >= state.most(&self.settings) {
            state.refused = Some(now);
            return Err(Duration::from_secs_f64(state.drain_time().min(5.0)));
        }
        let alone = state.under_way == 0;
        state.under_way += 1;
        Ok(Pass { limiter: Arc::clone(self), began: now, alone })
    }

    /// Whether calls are refused.
    pub fn overloaded(&self) -> bool {
        self.state.lock().refused.is_some()
    }
}

impl State {
    /// Calls that may be under way.
    fn most(&self, settings: &OverloadSettings) -> usize {
        let (Some(base), Some(interval)) = (self.base, self.interval) else { return usize::MAX };
        if self.refused.is_some() {
            // At least two, so that one is ready when the other is done.
            return ((settings.slowdown * base / interval) as usize).max(2);
        }
        let wait = (settings.burst_wait.as_secs_f64() / interval) as usize;
        wait.max(settings.burst_calls)
    }

    /// Seconds until all that is under way is answered.
    fn drain_time(&self) -> f64 {
        self.interval.unwrap_or(0.0) * self.under_way as f64
    }

    fn answered(&mut self, began: Instant, alone: bool, now: Instant) {
        if alone && self.under_way == 0 {
            let took = now.saturating_duration_since(began).as_secs_f64();
            learn(&mut self.base, took);
        }
        if let Some(last) = self.answered.replace(now)
            && self.under_way > 0
            && last >= began
        {
            learn(&mut self.interval, now.saturating_duration_since(last).as_secs_f64());
        }
    }
}

fn learn(average: &mut Option<f64>, newest: f64) {
    // Never zero: it is divided by.
    let newest = newest.max(1e-7);
    *average = Some(average.map_or(newest, |known| known + (newest - known) * NEWEST));
}

impl Pass {
    /// The call was answered; what its method takes is learnt from it. One that is dropped without this, because its caller
    /// left or it failed, teaches nothing.
    pub fn answered(self, now: Instant) {
        let mut state = self.limiter.state.lock();
        // Without itself; the drop below counts it out.
        state.under_way -= 1;
        state.answered(self.began, self.alone, now);
        state.under_way += 1;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.limiter.state.lock().under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A server that answers one call each 2 ms, in order, on a clock of its own.
    struct Simulated {
        limiter: Arc<Limiter>,
        now: Instant,
        queue: VecDeque<(Pass, Instant)>,
        /// When the call at the head of the queue will be answered.
        done: Option<Instant>,
        took: Vec<Duration>,
        refused: Vec<Duration>,
    }

    impl Simulated {
        fn new() -> Self {
            let limiter = Limiter::new(OverloadSettings::default());
            let (queue, took, refused) = (VecDeque::new(), Vec::new(), Vec::new());
            Self { limiter, now: Instant::now(), queue, done: None, took, refused }
        }

        fn ask(&mut self) -> bool {
            match self.limiter.enter(self.now) {
                Ok(pass) => {
                    self.queue.push_back((pass, self.now));
                    self.done.get_or_insert(self.now + 2 * MS);
                    true
                }
                Err(wait) => {
                    self.refused.push(wait);
                    false
                }
            }
        }

        fn go_on(&mut self, by: Duration) {
            let end = self.now + by;
            while let Some(done) = self.done.filter(|done| *done <= end) {
                let (pass, began) = self.queue.pop_front().unwrap();
                pass.answered(done);
                self.took.push(done - began);
                self.done = (!self.queue.is_empty()).then_some(done + 2 * MS);
            }
            self.now = end;
        }

        /// Calls one after the other.
        fn idle(&mut self) {
            for _ in 0..50 {
                assert!(self.ask());
                self.go_on(3 * MS);
            }
            self.took.clear();
        }

        /// A call each `every` for `time`.
        fn load(&mut self, every: Duration, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.ask();
                self.go_on(every);
            }
        }
    }

    #[test]
    fn three_times_the_load_is_answered_as_fast_as_a_little_and_as_much_as_can_be() {
        let mut server = Simulated::new();
        server.idle();
        server.load(2 * MS / 3, 60_000 * MS);
        let answered = server.took.len();
        assert!(answered > 29_000, "{answered} of 30,000 that could be");
        server.took.sort();
        let p99 = server.took[answered * 99 / 100];
        assert!(p99 <= 5 * MS, "{p99:?}, alone 2 ms");
        assert!(server.refused.len() > 55_000);
        assert!(server.refused.iter().all(|wait| *wait > Duration::ZERO));
    }

    #[test]
    fn callers_that_wait_for_their_answers_are_not_refused_however_many() {
        let mut server = Simulated::new();
        server.idle();
        for _ in 0..100 {
            assert!(server.ask());
        }
        for _ in 0..10_000 {
            let before = server.took.len();
            server.go_on(2 * MS);
            for _ in before..server.took.len() {
                assert!(server.ask());
            }
        }
    }

    #[test]
    fn it_is_well_again_after_the_overload() {
        let mut server = Simulated::new();
        server.idle();
        server.load(MS / 2, 2_000 * MS);
        assert!(server.limiter.overloaded());
        server.go_on(1_500 * MS);
        server.refused.clear();
        for _ in 0..30 {
            assert!(server.ask(), "a burst after the overload");
        }
        assert!(!server.limiter.overloaded());
    }

    #[test]
    fn load_that_can_just_be_answered_is_not_refused() {
        let mut server = Simulated::new();
        server.idle();
        server.load(2 * MS, 10_000 * MS);
        assert!(server.refused.is_empty());
    }

    #[test]
    fn who_leaves_gives_the_place_back_and_teaches_nothing() {
        let limiter = Limiter::new(OverloadSettings::default());
        let now = Instant::now();
        for _ in 0..10_000 {
            drop(limiter.enter(now).unwrap());
        }
        let state = limiter.state.lock();
        assert_eq!(state.under_way, 0);
        assert!(state.base.is_none() && state.interval.is_none());
    }
}
