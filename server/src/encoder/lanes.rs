//! What waits for a tower's thread, or for those that decode, in three lanes, and how a batch is picked from them.
//!
//! Lanes share the thread by weight (stride scheduling): each has a clock that moves by what its batches cost over its weight,
//! and the lane whose clock is furthest behind goes next. Who uses less than its share is therefore next at once, and who would
//! use more than its share gets that share under any load. A batch holds inputs of one lane and one class of length, so that
//! short texts are not padded to a long one and do not wait for it.

use std::collections::VecDeque;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::cost::{length_class, padded};

/// A bulk batch is this share of a whole one: a caller who comes while it is computed waits for no more.
const BULK_SHARE: usize = 4;
/// Inputs of a lane that are looked at for one batch, so that picking costs little beside computing.
const LOOKED_AT: usize = 256;

/// What an id moves a clock by, so that a division by a weight loses nothing that matters.
const CLOCK_UNIT: u64 = 1 << 10;

/// Who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Someone looks at a screen: searches.
    Interactive,
    /// A program waits for vectors.
    Standard,
    /// Work that is measured by its throughput: writes, a change of bundle.
    Bulk,
}

impl Lane {
    /// All lanes; of two that are equally far behind, the first goes.
    pub(crate) const ALL: [Self; 3] = [Self::Interactive, Self::Standard, Self::Bulk];

    /// Its name in figures.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Standard => "standard",
            Self::Bulk => "bulk",
        }
    }

    /// The share of the thread that a lane has while all are full.
    pub(super) fn weight(self) -> u64 {
        match self {
            Self::Interactive => 8,
            Self::Standard => 3,
            Self::Bulk => 1,
        }
    }
}

/// What waits in a lane.
pub(super) trait Waiting: Sized {
    /// Its length, which decides what it may share a batch with.
    fn length(&self) -> usize;

    /// Itself, while someone waits for it; who waits in vain is told so.
    fn if_wanted(self, now: Instant) -> Option<Self>;
}

/// How much one batch may hold.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Inputs.
    pub(super) inputs: usize,
    /// Ids of texts, each padded to its class of length. An input that is longer comes alone.
    pub(super) ids: usize,
}

impl Budget {
    fn of(self, lane: Lane) -> Self {
        match lane {
            Lane::Bulk => Self { inputs: self.inputs / BULK_SHARE, ids: self.ids / BULK_SHARE },
            Lane::Interactive | Lane::Standard => self,
        }
    }
}

#[derive(Debug)]
struct Queues<J> {
    jobs: [VecDeque<J>; 3],
    /// What each lane has used, over its weight.
    clocks: [u64; 3],
    /// The clock of the lane that went last, when it went.
    now: u64,
    closed: bool,
}

impl<J> Queues<J> {
    /// The lane that is furthest behind of those where someone waits, or comes.
    fn next(&self, coming: Option<Lane>) -> Option<Lane> {
        Lane::ALL
            .into_iter()
            .filter(|lane| coming == Some(*lane) || !self.jobs[*lane as usize].is_empty())
            .min_by_key(|lane| self.clocks[*lane as usize])
    }

    /// A lane that was away has saved nothing up, and has no debts from when it was alone.
    fn catch_up(&mut self, lane: Lane) {
        self.clocks[lane as usize] = self.clocks[lane as usize].max(self.now);
    }

    /// Moves the clock of the lane that goes by what so many padded ids cost it.
    fn pay(&mut self, lane: Lane, ids: usize) {
        self.now = self.clocks[lane as usize];
        self.clocks[lane as usize] += ids as u64 * CLOCK_UNIT / lane.weight();
    }
}

/// The lanes. Unbounded: what is in them holds a place that its side counts.
#[derive(Debug)]
pub(super) struct Lanes<J> {
    waiting: Mutex<Queues<J>>,
    filled: Condvar,
    /// Whether inputs of different lengths are kept apart.
    by_length: bool,
}

impl<J: Waiting> Lanes<J> {
    pub(super) fn new(by_length: bool) -> Self {
        let jobs = std::array::from_fn(|_| VecDeque::new());
        let waiting = Queues { jobs, clocks: [0; 3], now: 0, closed: false };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new(), by_length }
    }

    /// Adds to the end of a lane; gives the job back when nobody takes any more.
    pub(super) fn push(&self, lane: Lane, job: J) -> Result<(), J> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(job);
        }
        if waiting.jobs[lane as usize].is_empty() {
            waiting.catch_up(lane);
        }
        waiting.jobs[lane as usize].push_back(job);
        self.filled.notify_one();
        Ok(())
    }

    /// The next batch, never empty; waits for one. Jobs whose callers left are dropped, those whose time is over are told so,
    /// both without being computed. `None` once the lanes are closed and empty.
    pub(super) fn take(&self, budget: Budget) -> Option<Vec<J>> {
        let mut waiting = self.waiting.lock();
        loop {
            let Some(lane) = waiting.next(None) else {
                if waiting.closed {
                    return None;
                }
                self.filled.wait(&mut waiting);
                continue;
            };
            let batch = pick(&mut waiting.jobs[lane as usize], budget.of(lane), self.by_length);
            waiting.pay(lane, batch.iter().map(|job| padded(job.length())).sum());
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().jobs.iter().all(VecDeque::is_empty)
    }

    /// Whether none but bulk inputs wait.
    pub(super) fn only_bulk(&self) -> bool {
        let waiting = self.waiting.lock();
        Lane::ALL
            .into_iter()
            .all(|lane| lane == Lane::Bulk || waiting.jobs[lane as usize].is_empty())
    }

    /// Whether an input that comes now would be the next one. Then it may be computed elsewhere, before all that waits, and its
    /// lane pays as if it had been taken.
    pub(super) fn pass(&self, lane: Lane, length: usize) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.jobs[lane as usize].is_empty() {
            return false;
        }
        waiting.catch_up(lane);
        let is_next = waiting.next(Some(lane)) == Some(lane);
        if is_next {
            waiting.pay(lane, padded(length));
        }
        is_next
    }

    /// Takes nothing more; what waits is still given out.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.filled.notify_all();
    }

    /// Closes, and lets go of all that waits: those who wait for an answer learn that there is none.
    pub(super) fn abandon(&self) {
        self.close();
        self.waiting.lock().jobs.iter_mut().for_each(VecDeque::clear);
    }
}

/// Takes a batch from a lane: its first job, and those after it that are alike, in their order.
fn pick<J: Waiting>(jobs: &mut VecDeque<J>, budget: Budget, by_length: bool) -> Vec<J> {
    let now = Instant::now();
    let mut batch: Vec<J> = Vec::new();
    let mut passed = VecDeque::new();
    let mut ids = 0;
    for _ in 0..LOOKED_AT {
        if batch.len() >= budget.inputs.max(1) {
            break;
        }
        let Some(job) = jobs.pop_front() else { break };
        let Some(job) = job.if_wanted(now) else { continue };
        let class = length_class(job.length());
        let alike = |first: &J| !by_length || length_class(first.length()) == class;
        let fits = ids + padded(job.length()) <= budget.ids;
        if batch.first().is_none_or(|first| alike(first) && fits) {
            ids += padded(job.length());
            batch.push(job);
        } else {
            passed.push_back(job);
        }
    }
    while let Some(job) = passed.pop_back() {
        jobs.push_front(job);
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::encoder::job::{Encoded, Job};
    use crate::error::{Kind, Result};

    type Answer = oneshot::Receiver<Result<Encoded>>;

    const WHOLE: Budget = Budget { inputs: 8, ids: 1024 };

    fn job(length: usize, until: Option<Instant>) -> (Job<(Lane, usize)>, Answer) {
        let (reply, answer) = oneshot::channel();
        (Job::new((Lane::Interactive, length), length, reply, until), answer)
    }

    /// Lanes with so many one-id jobs each, and what keeps their callers there.
    fn lanes(counts: [usize; 3]) -> (Lanes<Job<(Lane, usize)>>, Vec<Answer>) {
        let lanes = Lanes::new(true);
        let mut answers = Vec::new();
        for (lane, count) in Lane::ALL.into_iter().zip(counts) {
            for number in 0..count {
                let (mut job, answer) = job(1, None);
                job.input = (lane, number);
                assert!(lanes.push(lane, job).is_ok());
                answers.push(answer);
            }
        }
        (lanes, answers)
    }

    fn taken(lanes: &Lanes<Job<(Lane, usize)>>, budget: Budget) -> Vec<(Lane, usize)> {
        lanes.take(budget).unwrap().into_iter().map(|job| job.input).collect()
    }

    #[test]
    fn a_batch_is_of_one_lane_in_order_and_callers_go_first() {
        let (lanes, _answers) = lanes([2, 1, 1]);
        assert_eq!(taken(&lanes, WHOLE), [(Lane::Interactive, 0), (Lane::Interactive, 1)]);
        assert_eq!(taken(&lanes, WHOLE), [(Lane::Standard, 0)]);
        assert_eq!(taken(&lanes, WHOLE), [(Lane::Bulk, 0)]);
    }

    #[test]
    fn full_lanes_share_the_thread_by_weight() {
        let (lanes, _answers) = lanes([400, 400, 400]);
        let budget = Budget { inputs: 4, ids: 1024 };
        let mut counts = [0; 3];
        for _ in 0..120 {
            taken(&lanes, budget).into_iter().for_each(|(lane, _)| counts[lane as usize] += 1);
        }
        let all: usize = counts.iter().sum();
        for (lane, count) in Lane::ALL.into_iter().zip(counts) {
            let share = lane.weight() as f64 / 12.0;
            let got = count as f64 / all as f64;
            assert!((got - share).abs() < 0.02, "{lane:?} got {got}, its share is {share}");
        }
    }

    #[test]
    fn a_caller_who_comes_seldom_is_next_while_bulk_work_never_ends() {
        let (lanes, mut answers) = lanes([0, 0, 100]);
        for number in 0..10 {
            assert_eq!(taken(&lanes, WHOLE).len(), 2, "a quarter of a whole batch");
            let (mut job, answer) = job(1, None);
            job.input = (Lane::Interactive, number);
            assert!(lanes.push(Lane::Interactive, job).is_ok());
            answers.push(answer);
            assert_eq!(taken(&lanes, WHOLE), [(Lane::Interactive, number)]);
        }
    }

    /// Who passes computes elsewhere what one id costs.
    #[test]
    fn who_would_be_next_passes_as_often_as_its_share_allows() {
        let (lanes, _answers) = lanes([0, 0, 100]);
        let bulk = Budget { inputs: 4, ids: 1024 };
        let mut passed = 0;
        for round in 1..=10 {
            assert_eq!(taken(&lanes, bulk).len(), 1);
            assert!(lanes.only_bulk());
            while lanes.pass(Lane::Interactive, 1) {
                passed += 1;
            }
            // Eight to one by weight, and one more where both are equally far behind.
            assert_eq!(passed, 8 * round + 1);
        }
    }

    #[test]
    fn nobody_passes_those_of_its_own_lane_or_of_a_more_urgent_one() {
        let (lanes, _answers) = lanes([1, 0, 1]);
        assert!(!lanes.only_bulk());
        assert!(!lanes.pass(Lane::Interactive, 1));
        assert!(!lanes.pass(Lane::Standard, 1));
        assert!(!lanes.pass(Lane::Bulk, 1));
        lanes.take(WHOLE);
        assert!(lanes.pass(Lane::Standard, 1));
    }

    #[test]
    fn where_nobody_waits_all_pass() {
        let (lanes, _answers) = lanes([0; 3]);
        assert!((0..100).all(|_| lanes.pass(Lane::Bulk, 9)));
    }

    #[test]
    fn a_lane_that_was_away_has_saved_nothing_up() {
        let (lanes, mut answers) = lanes([50, 0, 0]);
        for _ in 0..5 {
            taken(&lanes, WHOLE);
        }
        for _ in 0..50 {
            let (mut job, answer) = job(1, None);
            job.input = (Lane::Standard, 0);
            assert!(lanes.push(Lane::Standard, job).is_ok());
            answers.push(answer);
        }
        let first: Vec<_> = (0..2).map(|_| taken(&lanes, WHOLE)[0].0).collect();
        assert!(first.contains(&Lane::Interactive), "{first:?}");
    }

    #[test]
    fn a_batch_holds_one_class_of_length_within_its_budget_of_ids() {
        let lanes = Lanes::new(true);
        let mut answers = Vec::new();
        for length in [100, 10, 120, 16, 128, 70] {
            let (job, answer) = job(length, None);
            assert!(lanes.push(Lane::Interactive, job).is_ok());
            answers.push(answer);
        }
        let lengths = |batch: Vec<(Lane, usize)>| -> Vec<usize> {
            batch.into_iter().map(|(_, length)| length).collect()
        };
        let budget = Budget { inputs: 8, ids: 3 * 128 };
        assert_eq!(lengths(taken(&lanes, budget)), [100, 120, 128]);
        assert_eq!(lengths(taken(&lanes, budget)), [10, 16]);
        assert_eq!(lengths(taken(&lanes, budget)), [70]);
    }

    #[test]
    fn an_input_longer_than_the_budget_comes_alone() {
        let lanes = Lanes::new(true);
        let (long, _first) = job(5000, None);
        let (other, _second) = job(5000, None);
        assert!(lanes.push(Lane::Bulk, long).is_ok() && lanes.push(Lane::Bulk, other).is_ok());
        assert_eq!(taken(&lanes, WHOLE).len(), 1);
        assert_eq!(taken(&lanes, WHOLE).len(), 1);
    }

    #[test]
    fn who_left_is_not_taken_and_who_is_late_is_told_so() {
        let lanes = Lanes::new(true);
        let now = Instant::now();
        let (left, answer) = job(1, None);
        drop(answer);
        let (late, mut too_late) = job(1, Some(now));
        let (wanted, _answer) = job(2, Some(now + Duration::from_secs(600)));
        for job in [left, late, wanted] {
            assert!(lanes.push(Lane::Standard, job).is_ok());
        }
        assert_eq!(taken(&lanes, WHOLE), [(Lane::Interactive, 2)]);
        assert_eq!(too_late.try_recv().unwrap().unwrap_err().kind(), Kind::Deadline);
    }

    #[test]
    fn closed_lanes_give_out_what_waits_and_take_nothing() {
        let (lanes, _answers) = lanes([1, 0, 1]);
        lanes.close();
        assert!(lanes.push(Lane::Bulk, job(1, None).0).is_err());
        assert!(lanes.take(WHOLE).is_some() && lanes.take(WHOLE).is_some());
        assert!(lanes.take(WHOLE).is_none());
    }
}
