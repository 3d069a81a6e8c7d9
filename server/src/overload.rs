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
//! The time of a call that runs alone is not seen while there is always another one. So once a method is overloaded whose calls
//! were seldom alone, or not for long, it lets in one at a time for a moment and learns it (BBR's PROBE_RTT).
//!
//! While most calls are refused, another one always waits to be let in when one is answered: then hardly more are let in than run at once.
//!
//! Then also the newest of those that were read together are let in, not the oldest: whoever is refused for it has waited already
//! and would be answered last (Maurer 2015, "Fail at Scale": adaptive LIFO).
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
/// So long the calls under way take together at least, also then, up to so many of them, in turn: of those that are quicker, one is to be
/// ready when the other is done, since what it takes to read and refuse the rest is no longer small beside a call. Always two would make
/// their slowest too slow, and always one leaves a tenth of the time to refusals.
const ROUND: f64 = 5e-4;
const READY: [f64; 2] = [1.0, 2.0];
/// Answers are counted in windows of so much time and so many answers at least.
const WINDOW: Duration = Duration::from_millis(250);
const ANSWERS: u32 = 16;
/// Windows that are remembered: ten seconds or more.
const WINDOWS: usize = 40;
/// Calls that ran alone from which their time is known.
const ALONE: u32 = 16;
/// How long calls are let in one at a time at most to learn it, if one at least was alone; and how long it holds.
const PROBE: Duration = WINDOW;
const HOLDS: Duration = Duration::from_secs(30);
/// When it is given up where none was answered, as when all callers leave, and when it is tried again.
const GIVEN_UP: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(5);

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
    base: Base,
    rate: Rate,
    /// When somebody was last refused, while overloaded.
    refused: Option<Instant>,
    share: Share,
    /// Calls that have ended, which take turns.
    ended: usize,
    /// Calls that are to be decided on when all that was read with them has arrived, ever.
    arrived: u64,
}

/// What becomes of a call where it is read.
#[derive(Debug)]
pub enum Arrival {
    /// It may begin.
    Admitted(Pass),
    /// It is to come back after so long.
    Refused(Duration),
    /// [`Limiter::decide`] tells, by this number, once the others that were read with it have arrived.
    Among(u64),
}

/// How long a call takes alone.
#[derive(Debug, Default)]
struct Base {
    /// Seconds; `None` until one was alone.
    known: Option<f64>,
    /// Calls that it was learnt from, [`ALONE`] at most.
    calls: u32,
    /// When the newest of them was answered.
    learnt: Option<Instant>,
    /// Since when calls are let in one at a time to learn it, and what those took that were alone.
    probe: Option<(Instant, f64, u32)>,
    /// When that was last begun.
    probed: Option<Instant>,
}

impl Base {
    /// Notes a call that was alone.
    fn note(&mut self, took: f64, now: Instant) {
        self.learnt = Some(now);
        if let Some((since, sum, calls)) = self.probe {
            let (sum, calls) = (sum + took, calls + 1);
            if calls < ALONE && now.saturating_duration_since(since) < PROBE {
                self.probe = Some((since, sum, calls));
                return;
            }
            // What refusals take of the processor is in it: it can only be too long.
            let mean = sum / f64::from(calls);
            let known = self.known.filter(|_| self.calls >= ALONE);
            self.known = Some(known.map_or(mean, |known| known.min(mean)));
            (self.calls, self.probe) = (ALONE, None);
            return;
        }
        let known = self.known.get_or_insert(took);
        // One that met other work of the machine may have taken ten times as long as it should.
        *known += (took.min(2.0 * *known) - *known) * NEWEST;
        self.calls = (self.calls + 1).min(ALONE);
    }

    /// Begins to learn it where it is not known, or not of late.
    fn probe_if_due(&mut self, now: Instant) {
        let fresh = |learnt| now.saturating_duration_since(learnt) < HOLDS;
        let known = self.calls >= ALONE && self.learnt.is_some_and(fresh);
        let lately = |begun| now.saturating_duration_since(begun) < AGAIN;
        if !known && !self.probed.is_some_and(lately) {
            (self.probe, self.probed) = (Some((now, 0.0, 0)), Some(now));
        }
    }

    /// Whether calls are to be let in one at a time.
    fn is_probed(&self, now: Instant) -> bool {
        let goes_on = |since| now.saturating_duration_since(since) < GIVEN_UP;
        self.probe.is_some_and(|(since, _, _)| goes_on(since))
    }
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

    /// Takes a call that was read: one that comes while the method is overloaded and has enough to do is refused.
    pub fn arrive(self: &Arc<Self>, now: Instant) -> Arrival {
        let mut state = self.state.lock();
        if let Some(refused) = state.refused
            && now.saturating_duration_since(refused) > self.settings.recovery
        {
            state.refused = None;
            state.base.probe = None;
        }
        if state.under_way >= state.most(&self.settings, now) {
            return Arrival::Refused(state.refuse(now));
        }
        if state.refused.is_some() && state.share.most {
            state.arrived += 1;
            return Arrival::Among(state.arrived);
        }
        Arrival::Admitted(self.admit(&mut state, now))
    }

    /// Lets in the newest of those that arrived together.
    ///
    /// # Errors
    /// How long to wait, for one whose place is taken, or is for a newer one.
    pub fn decide(self: &Arc<Self>, number: u64, now: Instant) -> Result<Pass, Duration> {
        let mut state = self.state.lock();
        let most = state.most(&self.settings, now);
        let newer = usize::try_from(state.arrived - number).unwrap_or(usize::MAX);
        if state.under_way >= most || newer >= most {
            return Err(state.refuse(now));
        }
        Ok(self.admit(&mut state, now))
    }

    fn admit(self: &Arc<Self>, state: &mut State, now: Instant) -> Pass {
        state.share.note(now, false);
        let alone = state.under_way == 0;
        state.under_way += 1;
        Pass { limiter: Arc::clone(self), began: now, alone }
    }

    /// Whether calls are refused.
    pub fn overloaded(&self) -> bool {
        self.state.lock().refused.is_some()
    }

    /// Takes for known what a call takes alone, and how many were answered in a second.
    #[cfg(test)]
    pub(crate) fn teach(&self, base: Duration, rate: f64) {
        let mut state = self.state.lock();
        state.base = Base {
            known: Some(base.as_secs_f64()),
            calls: ALONE,
            learnt: Some(Instant::now()),
            ..Base::default()
        };
        state.rate.windows = vec![rate];
        state.rate.most = rate;
    }
}

impl State {
    /// Calls that may be under way.
    fn most(&self, settings: &OverloadSettings, now: Instant) -> usize {
        if self.rate.most == 0.0 {
            return usize::MAX;
        }
        if self.refused.is_some() && self.base.is_probed(now) {
            return 1;
        }
        if let Some(base) = self.base.known.filter(|_| self.refused.is_some()) {
            let calls = |slowdown: f64| (slowdown * base * self.rate.most).round() as usize;
            let most = calls(settings.slowdown);
            let ready = (ROUND / base).ceil().min(READY[self.ended % READY.len()]) as usize;
            let brisk = || calls(BRISK * settings.slowdown).max(ready);
            let calls = if self.share.most { brisk().min(most) } else { most };
            return calls.max(settings.least);
        }
        let wait = (settings.burst_wait.as_secs_f64() * self.rate.most) as usize;
        wait.min(settings.burst_most).max(settings.burst_calls)
    }

    /// Notes a refusal and tells how long to wait.
    fn refuse(&mut self, now: Instant) -> Duration {
        self.share.note(now, true);
        self.refused = Some(now);
        self.base.probe_if_due(now);
        Duration::from_secs_f64(self.drain_time().min(5.0))
    }

    /// Seconds until all that is under way is answered.
    fn drain_time(&self) -> f64 {
        self.under_way as f64 / self.rate.most.max(1e-3)
    }

    fn answered(&mut self, began: Instant, alone: bool, now: Instant) {
        // While others are refused, one that is alone has waited for that.
        let counts = self.refused.is_none() || self.base.is_probed(now);
        if alone && self.under_way == 0 && counts {
            self.base.note(now.saturating_duration_since(began).as_secs_f64(), now);
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
        let mut state = self.limiter.state.lock();
        state.under_way -= 1;
        state.ended = state.ended.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests;
