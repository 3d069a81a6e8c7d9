//! When more is asked than can be answered: each method lets in what it answers in time and refuses the rest at once.
//!
//! A method is **well** until more calls are under way than a burst may have, and they would take longer than a burst may take.
//! Then it is **overloaded**: it lets in so many calls as keep it busy, no more, so that those it takes are answered almost as
//! fast as when it is idle. By Little's law that many are `slowdown * base * rate`, with `base` the time of a call that runs alone
//! and `rate` the most answers a second of late, both measured all the time (as BBR measures what a network path holds: Cardwell et
//! al. 2016, "BBR: Congestion-Based Congestion Control"). It is well again when nobody was refused for a while. So callers that
//! wait for their answers before they ask again, however many, are not refused for being many at once; those that keep coming
//! faster than answers go out are.
//!
//! The rate is the highest of some windows and not the newest: when refusals, or other work, take the processor from the calls,
//! answers come more slowly, and letting in fewer calls for it would make them slower yet, down to none.
//!
//! While most calls are refused, another one always waits to be let in when one is answered: then hardly more are let in than run at once.
//!
//! Nothing here reads a request: a refusal costs a lock and some arithmetic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much of the way to the newest sample an average moves.
const NEWEST: f64 = 1.0 / 16.0;
/// The share of refused calls up from which the next one always waits, and the part of the slowdown that is left then.
const MOST_REFUSED: f64 = 0.6;
const BRISK: f64 = 0.6;
/// So long the calls under way take together at least, also then: of those that are quicker, one is to be ready when the other is
/// done, since what it takes to read and refuse the rest is no longer small beside a call.
const ROUND: f64 = 1e-3;
/// Answers are counted in windows of so much time and so many answers at least.
const WINDOW: Duration = Duration::from_millis(250);
const ANSWERS: u32 = 16;
/// Windows that are remembered: ten seconds or more.
const WINDOWS: usize = 40;

/// What counts as an overload, and what is done then.
#[derive(Debug, Clone, Copy)]
pub struct OverloadSettings {
    /// Calls of one method that may be under way at once, however long they take.
    pub burst_calls: usize,
    /// How long the calls under way may take together before their method is overloaded.
    pub burst_wait: Duration,
    /// Calls under way with which a method is overloaded, however quick they are.
    pub burst_most: usize,
    /// How many times as long as an idle server's a call may take while its method is overloaded.
    pub slowdown: f64,
    /// Calls under way of an overloaded method at least: two, so that one is ready when the other is done; one where calls are
    /// computed on the thread that lets them in.
    pub least: usize,
    /// How long nobody must have been refused until the method is well again.
    pub recovery: Duration,
}

impl Default for OverloadSettings {
    fn default() -> Self {
        Self {
            burst_calls: 40,
            burst_wait: Duration::from_millis(250),
            burst_most: 1000,
            slowdown: 2.2,
            least: 2,
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
    rate: Rate,
    /// When somebody was last refused, while overloaded.
    refused: Option<Instant>,
    share: Share,
}

/// Whether most calls are refused, by windows of time.
#[derive(Debug, Default)]
struct Share {
    since: Option<Instant>,
    asked: u32,
    refused: u32,
    most: bool,
}

impl Share {
    fn note(&mut self, now: Instant, refused: bool) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WINDOW {
            self.most = f64::from(self.refused) >= MOST_REFUSED * f64::from(self.asked);
            (self.since, self.asked, self.refused) = (Some(now), 0, 0);
        }
        self.asked += 1;
        self.refused += u32::from(refused);
    }
}

/// The most answers a second of late, while others waited.
#[derive(Debug, Default)]
struct Rate {
    /// The newest answer.
    last: Option<Instant>,
    /// Answers of the present window, and the time between them.
    answers: u32,
    busy: Duration,
    /// Answers a second of the windows before, the oldest overwritten first.
    windows: Vec<f64>,
    next: usize,
    most: f64,
}

impl Rate {
    /// Notes an answer; the time since the one before counts where `waited` somebody all the while.
    fn answered(&mut self, now: Instant, waited: impl FnOnce(Instant) -> bool) {
        let Some(last) = self.last.replace(now).filter(|last| waited(*last)) else { return };
        self.answers += 1;
        self.busy += now.saturating_duration_since(last);
        if self.answers < ANSWERS || self.busy.is_zero() {
            return;
        }
        let rate = f64::from(self.answers) / self.busy.as_secs_f64();
        if self.busy < WINDOW {
            // The first window is told as it grows.
            if self.windows.is_empty() {
                self.most = rate;
            }
            return;
        }
        if self.windows.len() < WINDOWS {
            self.windows.push(rate);
        } else {
            self.windows[self.next] = rate;
        }
        self.next = (self.next + 1) % WINDOWS;
        self.most = self.windows.iter().copied().fold(0.0, f64::max);
        (self.busy, self.answers) = (Duration::ZERO, 0);
    }
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
        let refused = state.under_way >= state.most(&self.settings);
        state.share.note(now, refused);
        if refused {
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

    /// Takes for known what a call takes alone, and how many were answered in a second.
    #[cfg(test)]
    pub(crate) fn teach(&self, base: Duration, rate: f64) {
        let mut state = self.state.lock();
        state.base = Some(base.as_secs_f64());
        state.rate.windows = vec![rate];
        state.rate.most = rate;
    }
}

impl State {
    /// Calls that may be under way.
    fn most(&self, settings: &OverloadSettings) -> usize {
        let Some(base) = self.base.filter(|_| self.rate.most > 0.0) else { return usize::MAX };
        if self.refused.is_some() {
            let calls = |slowdown: f64| (slowdown * base * self.rate.most).round() as usize;
            let most = calls(settings.slowdown);
            let brisk = || calls(BRISK * settings.slowdown).max((ROUND / base).ceil() as usize);
            let calls = if self.share.most { brisk().min(most) } else { most };
            return calls.max(settings.least);
        }
        let wait = (settings.burst_wait.as_secs_f64() * self.rate.most) as usize;
        wait.min(settings.burst_most).max(settings.burst_calls)
    }

    /// Seconds until all that is under way is answered.
    fn drain_time(&self) -> f64 {
        self.under_way as f64 / self.rate.most.max(1e-3)
    }

    fn answered(&mut self, began: Instant, alone: bool, now: Instant) {
        // While others are refused, one that is alone has waited for that.
        if alone && self.under_way == 0 && self.refused.is_none() {
            let took = now.saturating_duration_since(began).as_secs_f64();
            let base = self.base.get_or_insert(took);
            // One that met other work of the machine may have taken ten times as long as it should.
            *base += (took.min(2.0 * *base) - *base) * NEWEST;
        }
        let others = self.under_way > 0;
        self.rate.answered(now, |last| others && last >= began);
    }
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

    /// The call is refused elsewhere, because too many are under way: its method is overloaded.
    pub fn refused(self, now: Instant) {
        self.limiter.state.lock().refused = Some(now);
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
        /// Time of a call.
        each: Duration,
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
            let (each, now) = (2 * MS, Instant::now());
            Self { limiter, each, now, queue, done: None, took, refused }
        }

        fn ask(&mut self) -> bool {
            match self.limiter.enter(self.now) {
                Ok(pass) => {
                    self.queue.push_back((pass, self.now));
                    self.done.get_or_insert(self.now + self.each);
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
                self.done = (!self.queue.is_empty()).then_some(done + self.each);
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
    fn the_more_are_refused_the_fewer_wait_and_as_much_is_answered() {
        let p99 = |every: Duration, least: usize| {
            let mut server = Simulated::new();
            server.limiter = Limiter::new(OverloadSettings { least, ..Default::default() });
            server.idle();
            server.load(every, 20_000 * MS);
            let half = server.took.split_off(server.took.len() / 2);
            assert!(half.len() > 4_600, "{} of 5,000", half.len());
            let mut half = half;
            half.sort();
            half[half.len() * 99 / 100]
        };
        // Each takes 2 ms.
        let (some, most) = (p99(3 * MS / 2, 1), p99(MS / 2, 1));
        assert!(most < 3 * MS && most < some && some <= 5 * MS, "{most:?}, {some:?}");
        assert!(p99(MS / 2, 2) <= 5 * MS);
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
    fn what_slows_answers_for_a_while_does_not_shrink_what_is_let_in() {
        let mut server = Simulated::new();
        server.limiter = Limiter::new(OverloadSettings { slowdown: 10.0, ..Default::default() });
        server.idle();
        server.load(MS / 10, 5_000 * MS);
        // One of six may just have been answered.
        assert!([5, 6].contains(&server.queue.len()));
        // Refusals take nine tenths of the processor.
        server.each = 20 * MS;
        server.load(MS / 10, 5_000 * MS);
        assert!([5, 6].contains(&server.queue.len()));
    }

    #[test]
    fn a_quiet_time_says_nothing_of_how_many_can_be_answered() {
        let mut server = Simulated::new();
        server.idle();
        server.load(2 * MS / 3, 5_000 * MS);
        let rate = server.limiter.state.lock().rate.most;
        assert!((450.0..=550.0).contains(&rate), "{rate}");
        server.go_on(5_000 * MS);
        for _ in 0..1000 {
            server.ask();
            server.go_on(100 * MS);
        }
        assert!(server.limiter.state.lock().rate.most > 450.0);
    }

    #[test]
    fn a_crowd_after_a_standstill_is_refused_but_for_a_burst_and_then_for_what_keeps_it_busy() {
        let mut server = Simulated::new();
        server.limiter = Limiter::new(OverloadSettings { burst_most: 50, ..Default::default() });
        server.each = MS / 4;
        server.idle();
        server.load(MS / 8, 5_000 * MS);
        assert!(server.limiter.overloaded());
        // Nothing moves, nobody is refused; then all come at once.
        server.now += 2_000 * MS;
        server.refused.clear();
        let taken = (0..5_000).filter(|_| server.ask()).count();
        assert!(taken <= 50, "{taken}");
        server.took.clear();
        server.load(MS / 8, 1_000 * MS);
        let late = server.took.len() / 10;
        assert!(server.took[late..].iter().all(|took| *took <= 3 * MS));
    }

    #[test]
    fn who_is_refused_elsewhere_tells_that_it_is_too_much() {
        let limiter = Limiter::new(OverloadSettings::default());
        limiter.teach(10 * MS, 100.0);
        let now = Instant::now();
        let mut passes: Vec<Pass> = (0..30).map(|_| limiter.enter(now).unwrap()).collect();
        passes.pop().unwrap().refused(now);
        assert!(limiter.overloaded());
        assert!(limiter.enter(now).is_err());
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
        assert!(state.base.is_none() && state.rate.last.is_none());
    }
}
