//! Who is let in: everything under way in a tower is counted by what it will take, and who would wait too long is refused at
//! once, before anything is decoded.
//!
//! The prediction is made of the measured costs of inputs (`cost.rs`), so it holds on any machine and for any network. Places
//! bound memory besides, whatever is predicted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use diptych_proto::v1::ErrorReason;
use rand::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cost::CostTable;
use super::lanes::Lane;
use crate::deadline;
use crate::error::{Error, Kind, Result};
use crate::observe::shed_by_tower;

/// Least and most that a caller who is refused is told to wait.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));
/// By how much of itself the time to wait is drawn longer at random, so that those who were refused together do not come back
/// together.
const JITTER: f64 = 0.2;

/// Bulk work has so much of the places of callers, besides.
const BULK_SHARE: usize = 4;

/// For whom an input is embedded.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Where it waits.
    pub lane: Lane,
    /// When nobody waits for it any more.
    pub until: Option<Instant>,
    /// Whether it waits for its turn instead of being refused: work in the background, inputs of a batch that was let in, of a
    /// stream that is read no faster than it is answered.
    pub patient: bool,
    /// Whether it is computed though its vectors are known: a test of the encoder.
    pub fresh: bool,
}

impl Work {
    /// Work of the call that is running here, refused when it would wait too long.
    pub fn here(lane: Lane) -> Self {
        let until = deadline::current().map(|deadline| deadline.when().into_std());
        Self { lane, until, patient: false, fresh: false }
    }

    /// The same, waiting for its turn.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// The same, computed in any case.
    #[must_use]
    pub fn fresh(self) -> Self {
        Self { fresh: true, ..self }
    }
}

/// All places of a tower, where callers have `places` of them.
pub(super) fn places_of(places: usize) -> usize {
    places.max(1) + (places / BULK_SHARE).max(1)
}

/// How much a tower lets in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Inputs under way.
    pub(super) places: usize,
    /// The longest predicted wait.
    pub(super) wait: Duration,
    /// Inputs in one batch.
    pub(super) batch: usize,
}

/// What is under way in a tower.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Bounds,
    costs: Arc<CostTable>,
    places: Arc<Semaphore>,
    /// Bulk work has places of its own, so that it can never hold all of them.
    bulk_places: Arc<Semaphore>,
    under_way: Arc<[Load; 3]>,
}

/// What is under way in a lane of a tower.
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

/// A place among the inputs under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    lane: Lane,
    nanoseconds: u64,
    under_way: Arc<[Load; 3]>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let load = &self.under_way[self.lane as usize];
        load.inputs.fetch_sub(1, Ordering::Relaxed);
        load.nanoseconds.fetch_sub(self.nanoseconds, Ordering::Relaxed);
    }
}

impl Admission {
    pub(super) fn new(bounds: Bounds, costs: Arc<CostTable>) -> Self {
        let semaphore = |places: usize| Arc::new(Semaphore::new(places.max(1)));
        let (places, bulk_places) =
            (semaphore(bounds.places), semaphore(bounds.places / BULK_SHARE));
        Self { bounds, costs, places, bulk_places, under_way: Arc::default() }
    }

    /// Refuses at once what would wait too long, without letting anything in.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL`, or `DEADLINE_UNREACHABLE` when the caller's own deadline is what is too short, with a
    /// time to wait.
    pub(super) fn check(&self, lane: Lane, until: Option<Instant>, class: usize) -> Result<()> {
        let wait = self.wait(lane);
        if wait > self.bounds.wait {
            return Err(shed_by_tower(lane, full(wait - self.bounds.wait)));
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let needed = wait + self.cost(lane, class);
        // Without anything ahead the prediction may be wrong and the caller's only chance is to try.
        if let Some(left) = left.filter(|left| *left < needed && !wait.is_zero()) {
            return Err(shed_by_tower(lane, unreachable_deadline(needed - left)));
        }
        Ok(())
    }

    /// A place for one input of `class`.
    ///
    /// # Errors
    /// As [`Admission::check`], for who is not patient.
    pub(super) async fn enter(&self, work: Work, class: usize) -> Result<Place> {
        let places = match work.lane {
            Lane::Bulk => Arc::clone(&self.bulk_places),
            Lane::Interactive | Lane::Standard => Arc::clone(&self.places),
        };
        let permit = if work.patient {
            places.acquire_owned().await.map_err(|_| Error::internal("the encoder has ended"))?
        } else {
            self.check(work.lane, work.until, class)?;
            places
                .try_acquire_owned()
                .map_err(|_| shed_by_tower(work.lane, full(self.wait(work.lane))))?
        };
        let cost = self.cost(work.lane, class);
        let nanoseconds = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        let load = &self.under_way[work.lane as usize];
        load.inputs.fetch_add(1, Ordering::Relaxed);
        load.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        let under_way = Arc::clone(&self.under_way);
        Ok(Place { lane: work.lane, nanoseconds, under_way, _permit: permit })
    }

    /// What is under way, by lane.
    pub(super) fn load(&self) -> [LaneLoad; 3] {
        Lane::ALL.map(|lane| LaneLoad {
            inputs: self.under_way[lane as usize].inputs.load(Ordering::Relaxed),
            cost: self.cost_under_way(lane),
            wait: self.wait(lane),
        })
    }

    /// What the inputs of a lane take.
    fn cost_under_way(&self, lane: Lane) -> Duration {
        let load = &self.under_way[lane as usize];
        Duration::from_nanos(load.nanoseconds.load(Ordering::Relaxed))
    }

    /// How long an input that comes now waits for its batch, as far as the past tells: for its own lane's work, stretched by
    /// what other lanes may take beside it, and at most for all that is under way.
    pub(super) fn wait(&self, lane: Lane) -> Duration {
        let of = |lane: Lane| self.under_way[lane as usize].nanoseconds.load(Ordering::Relaxed);
        let all: u64 = Lane::ALL.into_iter().map(of).sum();
        let weights: u64 = Lane::ALL.into_iter().map(Lane::weight).sum();
        let stretched = of(lane).saturating_mul(weights) / lane.weight();
        Duration::from_nanos(stretched.min(all))
    }

    /// What one more input of `class` will take, in a batch with those of its lane.
    fn cost(&self, lane: Lane, class: usize) -> Duration {
        let beside = self.under_way[lane as usize].inputs.load(Ordering::Relaxed) as usize + 1;
        self.costs.input(class, beside.min(self.bounds.batch))
    }
}

fn full(longer: Duration) -> Error {
    let message = "the encoder has as much to do as it takes on; try again later";
    Error::new(Kind::Overloaded, ErrorReason::QueueFull, message).retry_after(retry(longer))
}

fn unreachable_deadline(longer: Duration) -> Error {
    let message = "the encoder cannot be done with this input before the deadline; try again later or allow more time";
    let error = Error::new(Kind::Overloaded, ErrorReason::DeadlineUnreachable, message);
    error.retry_after(retry(longer))
}

fn retry(longer: Duration) -> Duration {
    let (least, most) = RETRY_AFTER;
    longer.clamp(least, most).mul_f64(rand::rng().random_range(1.0..1.0 + JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A tower in which every input takes 10 ms.
    fn admission(places: usize, wait: Duration) -> Admission {
        let costs = CostTable::default();
        costs.learn(0, 1, 10 * MS);
        Admission::new(Bounds { places, wait, batch: 1 }, Arc::new(costs))
    }

    fn work(lane: Lane) -> Work {
        Work::here(lane)
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_refused_and_told_how_much_later_to_come() {
        let admission = admission(100, 25 * MS);
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(admission.enter(work(Lane::Interactive), 0).await.unwrap());
        }
        let refused = admission.enter(work(Lane::Interactive), 0).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        let retry = refused.details().retry_after.unwrap();
        assert!((10 * MS..=12 * MS).contains(&retry), "{retry:?}");
        places.pop();
        assert!(admission.enter(work(Lane::Interactive), 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_deadline_that_cannot_be_met_is_refused_as_such() {
        let admission = admission(100, 1000 * MS);
        let soon = Work { until: Some(Instant::now() + 15 * MS), ..work(Lane::Standard) };
        assert!(admission.enter(soon, 0).await.is_ok(), "nothing is ahead");
        let _ahead = admission.enter(work(Lane::Standard), 0).await.unwrap();
        let refused = admission.enter(soon, 0).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::DeadlineUnreachable);
        assert!(refused.details().retry_after.is_some());
        let later = Work { until: Some(Instant::now() + 60_000 * MS), ..work(Lane::Standard) };
        assert!(admission.enter(later, 0).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_bulk_lane_does_not_shut_callers_out_but_itself() {
        let admission = admission(1000, 50 * MS);
        let mut places = Vec::new();
        for _ in 0..100 {
            places.push(admission.enter(work(Lane::Bulk).patient(), 0).await.unwrap());
        }
        assert!(admission.check(Lane::Bulk, None, 0).is_err());
        assert!(admission.enter(work(Lane::Interactive), 0).await.is_ok());
    }

    #[tokio::test]
    async fn places_bound_what_is_under_way_whatever_it_costs() {
        let costs = Arc::new(CostTable::default());
        let bounds = Bounds { places: 2, wait: MS, batch: 8 };
        let admission = Admission::new(bounds, costs);
        let _one = admission.enter(work(Lane::Standard), 0).await.unwrap();
        let two = admission.enter(work(Lane::Standard), 0).await.unwrap();
        let refused = admission.enter(work(Lane::Standard), 0).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        drop(two);
        assert!(admission.enter(work(Lane::Standard), 0).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_left_when_all_places_are_given_back() {
        let admission = admission(10, 1000 * MS);
        for lane in Lane::ALL {
            let one = admission.enter(work(lane), 0).await.unwrap();
            let two = admission.enter(work(lane).patient(), 3).await.unwrap();
            assert!(admission.wait(lane) > Duration::ZERO);
            drop((one, two));
        }
        assert!(Lane::ALL.into_iter().all(|lane| admission.wait(lane).is_zero()));
    }
}
