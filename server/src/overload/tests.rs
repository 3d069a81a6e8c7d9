use std::collections::VecDeque;

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A call that is read alone.
fn enter(limiter: &Arc<Limiter>, now: Instant) -> Result<Pass, Duration> {
    match limiter.arrive(now) {
        Arrival::Admitted(pass) => Ok(pass),
        Arrival::Refused(wait) => Err(wait),
        Arrival::Among(number) => limiter.decide(number, now),
    }
}

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
        match enter(&self.limiter, self.now) {
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

/// The time that 99 of 100 do not exceed.
fn p99(took: &mut [Duration]) -> Duration {
    took.sort();
    took[took.len() * 99 / 100]
}

#[test]
fn three_times_the_load_is_answered_as_fast_as_a_little_and_as_much_as_can_be() {
    let mut server = Simulated::new();
    server.idle();
    server.load(2 * MS / 3, 60_000 * MS);
    let answered = server.took.len();
    assert!(answered > 29_000, "{answered} of 30,000 that could be");
    let p99 = p99(&mut server.took);
    assert!(p99 <= 5 * MS, "{p99:?}, alone 2 ms");
    assert!(server.refused.len() > 55_000);
    assert!(server.refused.iter().all(|wait| *wait > Duration::ZERO));
}

#[test]
fn a_server_that_was_never_idle_learns_how_long_a_call_takes_alone() {
    let mut server = Simulated::new();
    server.load(2 * MS / 3, 5_000 * MS);
    server.took.clear();
    server.load(2 * MS / 3, 20_000 * MS);
    let answered = server.took.len();
    assert!(answered > 9_500, "{answered} of 10,000 that could be");
    let p99 = p99(&mut server.took);
    assert!(p99 <= 5 * MS, "{p99:?}, alone 2 ms");
}

#[test]
fn calls_that_became_quicker_during_an_overload_are_learnt_anew() {
    let mut server = Simulated::new();
    server.each = 20 * MS;
    server.idle();
    server.load(2 * MS, 1_000 * MS);
    server.each = 2 * MS;
    server.load(2 * MS / 3, 45_000 * MS);
    server.took.clear();
    server.load(2 * MS / 3, 10_000 * MS);
    let p99 = p99(&mut server.took);
    assert!(p99 <= 5 * MS, "{p99:?}, alone 2 ms");
}

#[test]
fn the_more_are_refused_the_fewer_wait_and_as_much_is_answered() {
    let with = |every: Duration, least: usize| {
        let mut server = Simulated::new();
        server.limiter = Limiter::new(OverloadSettings { least, ..Default::default() });
        server.idle();
        server.load(every, 20_000 * MS);
        let mut half = server.took.split_off(server.took.len() / 2);
        assert!(half.len() > 4_600, "{} of 5,000", half.len());
        p99(&mut half)
    };
    // Each takes 2 ms.
    let (some, most) = (with(3 * MS / 2, 1), with(MS / 2, 1));
    assert!(most < 3 * MS && most < some && some <= 5 * MS, "{most:?}, {some:?}");
    assert!(with(MS / 2, 2) <= 5 * MS);
}

#[test]
fn while_most_are_refused_the_next_is_ready_only_of_calls_that_are_over_in_no_time() {
    let slowdown = |each: Duration| {
        let mut server = Simulated::new();
        server.limiter = Limiter::new(OverloadSettings { least: 1, ..Default::default() });
        server.each = each;
        server.idle();
        server.load(each / 4, 5_000 * MS);
        let mut half = server.took.split_off(server.took.len() / 2);
        p99(&mut half).as_secs_f64() / each.as_secs_f64()
    };
    assert!(slowdown(3 * MS / 10) > 1.5);
    assert!(slowdown(8 * MS / 10) < 1.5);
}

#[test]
fn while_most_are_refused_the_newest_of_those_that_arrive_together_is_let_in() {
    let mut server = Simulated::new();
    server.limiter = Limiter::new(OverloadSettings { least: 1, ..Default::default() });
    server.idle();
    server.load(MS / 2, 2_000 * MS);
    server.go_on(100 * MS);
    assert!(server.queue.is_empty() && server.limiter.overloaded());
    let together = [(); 3].map(|()| match server.limiter.arrive(server.now) {
        Arrival::Among(number) => number,
        other => panic!("{other:?} though places are free"),
    });
    let decided = together.map(|number| server.limiter.decide(number, server.now));
    assert!(matches!(&decided, [Err(_), Err(_), Ok(_)]), "{decided:?}");
    assert!(matches!(server.limiter.arrive(server.now), Arrival::Refused(_)), "no place is free");
    drop(decided);
    // Where other threads decide while more is read, whoever comes first has the place.
    let Arrival::Among(first) = server.limiter.arrive(server.now) else { panic!("refused") };
    let first = server.limiter.decide(first, server.now);
    assert!(first.is_ok() && matches!(server.limiter.arrive(server.now), Arrival::Refused(_)));
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
    let mut passes: Vec<Pass> = (0..30).map(|_| enter(&limiter, now).unwrap()).collect();
    passes.pop().unwrap().refused(now);
    assert!(limiter.overloaded());
    assert!(enter(&limiter, now).is_err());
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
        drop(enter(&limiter, now).unwrap());
    }
    let state = limiter.state.lock();
    assert_eq!(state.under_way, 0);
    assert!(state.base.known.is_none() && state.rate.last.is_none());
}

#[test]
fn callers_that_all_leave_do_not_keep_it_at_one_call_at_a_time() {
    let limiter = Limiter::new(OverloadSettings { burst_most: 40, ..Default::default() });
    limiter.state.lock().rate.most = 100.0;
    let now = Instant::now();
    let crowd: Vec<_> = (0..50).map(|_| enter(&limiter, now)).collect();
    assert!(limiter.overloaded());
    drop(crowd);
    // One at a time, to learn how long it takes; but nobody stays for that.
    let first = enter(&limiter, now).unwrap();
    assert!(enter(&limiter, now).is_err());
    drop(first);
    let later = now + 1_500 * MS;
    limiter.state.lock().refused = Some(later);
    let taken: Vec<_> = (0..30).filter_map(|_| enter(&limiter, later).ok()).collect();
    assert_eq!(taken.len(), 30);
}
