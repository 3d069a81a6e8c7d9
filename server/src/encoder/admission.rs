//! Who is let in: everything under way in a tower is counted by what it will take, and who would wait too long is refused at
//! once, before anything is decoded.
//!
//! The prediction is made of the measured costs of inputs (`cost.rs`), so it holds on any machine and for any network. Places
//! bound memory besides, whatever is predicted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_proto::v1::ErrorReason;
use rand::Rng as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::cost::CostTable;
use super::lanes::Lane;
use super::loads::{LaneLoad, Loaded, Loads};
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

/// All places of a tower, where callers of each lane have `places` of them.
pub(super) fn places_of(places: usize) -> usize {
    2 * places.max(1) + (places / BULK_SHARE).max(1)
}

/// How much a tower lets in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Inputs under way in a lane of callers.
    pub(super) places: usize,
    /// The longest predicted wait.
    pub(super) wait: Duration,
    /// Inputs in one batch.
    pub(super) batch: usize,
}

impl Bounds {
    fn places_in(self, lane: Lane) -> usize {
        match lane {
            Lane::Interactive | Lane::Standard => self.places.max(1),
            Lane::Bulk => (self.places / BULK_SHARE).max(1),
        }
    }
}

/// What an input goes through before it comes to the tower.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Before {
    /// How long it waits for that.
    pub(super) wait: Duration,
    /// How long that takes.
    pub(super) cost: Duration,
}

/// What is under way in a tower.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Bounds,
    costs: Arc<CostTable>,
    /// Each lane has places of its own: who waits for one is given the next, so that in common places those of streams, which wait,
    /// would come before searches, which do not, and bulk work could hold them all.
    places: [Arc<Semaphore>; 3],
    under_way: Loads,
}

/// A place among the inputs under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _load: Loaded,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    pub(super) fn new(bounds: Bounds, costs: Arc<CostTable>) -> Self {
        let places = Lane::ALL.map(|lane| Arc::new(Semaphore::new(bounds.places_in(lane))));
        Self { bounds, costs, places, under_way: Loads::default() }
    }

    /// Refuses at once what would wait too long, without letting anything in: inputs of these classes together.
    ///
    /// # Errors
    /// As [`Admission::enter`].
    pub(super) fn check(
        &self,
        work: Work,
        classes: impl ExactSizeIterator<Item = usize>,
        before: Before,
    ) -> Result<()> {
        let lane = work.lane;
        // What comes to one place of work waits for the other meanwhile: the slower one is what is waited for.
        let wait = self.under_way.wait(lane).max(before.wait);
        if wait > self.bounds.wait {
            let refused = full(wait - self.bounds.wait);
            return Err(shed_by_tower(lane, sized(refused, self.bounds.wait, wait)));
        }
        let left = work.until.map(|until| until.saturating_duration_since(Instant::now()));
        let beside = self.under_way.inputs(lane) + classes.len();
        let own: Duration = classes.map(|class| self.cost(class, beside)).sum();
        let needed = wait + before.cost + own;
        // Without anything ahead the prediction may be wrong and the caller's only chance is to try.
        if let Some(left) = left.filter(|left| *left < needed && !wait.is_zero()) {
            let refused = unreachable_deadline(needed - left);
            return Err(shed_by_tower(lane, sized(refused, left, needed)));
        }
        Ok(())
    }

    /// A place for one input of `class`. Who waits for one counts among those under way, since that is who others wait for.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL`, or `DEADLINE_UNREACHABLE` when the caller's own deadline is what is too short, with a
    /// time to wait; for who is not patient.
    pub(super) async fn enter(&self, work: Work, class: usize, before: Before) -> Result<Place> {
        let places = Arc::clone(&self.places[work.lane as usize]);
        if work.patient {
            let load = self.under_way.enter(work.lane, self.next_cost(work.lane, class));
            let permit = places.acquire_owned().await;
            let permit = permit.map_err(|_| Error::internal("the encoder has ended"))?;
            return Ok(Place { _load: load, _permit: permit });
        }
        self.check(work, std::iter::once(class), before)?;
        let permit = places.try_acquire_owned().map_err(|_| {
            let refused = full(self.wait(work.lane))
                .with("limit", self.bounds.places_in(work.lane).to_string());
            shed_by_tower(work.lane, refused)
        })?;
        let load = self.under_way.enter(work.lane, self.next_cost(work.lane, class));
        Ok(Place { _load: load, _permit: permit })
    }

    /// What is under way, by lane.
    pub(super) fn load(&self) -> [LaneLoad; 3] {
        self.under_way.all()
    }

    /// How long an input that comes now waits for its batch.
    pub(super) fn wait(&self, lane: Lane) -> Duration {
        self.under_way.wait(lane)
    }

    /// What one more input of `class` will take, in a batch with those of its lane.
    fn next_cost(&self, lane: Lane, class: usize) -> Duration {
        self.cost(class, self.under_way.inputs(lane) + 1)
    }

    fn cost(&self, class: usize, beside: usize) -> Duration {
        self.costs.input(class, beside.min(self.bounds.batch))
    }
}

/// A refusal with the time that may be waited and the one that would be, in milliseconds.
fn sized(refused: Error, limit: Duration, actual: Duration) -> Error {
    let milliseconds = |time: Duration| time.as_millis().to_string();
    refused.with("limit_ms", milliseconds(limit)).with("actual_ms", milliseconds(actual))
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
            places.push(
                admission.enter(work(Lane::Interactive), 0, Before::default()).await.unwrap(),
            );
        }
        let refused =
            admission.enter(work(Lane::Interactive), 0, Before::default()).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        let retry = refused.details().retry_after.unwrap();
        assert!((10 * MS..=12 * MS).contains(&retry), "{retry:?}");
        places.pop();
        assert!(admission.enter(work(Lane::Interactive), 0, Before::default()).await.is_ok());
    }

    #[tokio::test]
    async fn a_deadline_that_cannot_be_met_is_refused_as_such() {
        let admission = admission(100, 1000 * MS);
        let soon = Work { until: Some(Instant::now() + 15 * MS), ..work(Lane::Standard) };
        assert!(admission.enter(soon, 0, Before::default()).await.is_ok(), "nothing is ahead");
        let _ahead = admission.enter(work(Lane::Standard), 0, Before::default()).await.unwrap();
        let refused = admission.enter(soon, 0, Before::default()).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::DeadlineUnreachable);
        assert!(refused.details().retry_after.is_some());
        let later = Work { until: Some(Instant::now() + 60_000 * MS), ..work(Lane::Standard) };
        assert!(admission.enter(later, 0, Before::default()).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_bulk_lane_does_not_shut_callers_out_but_itself() {
        let admission = admission(1000, 50 * MS);
        let mut places = Vec::new();
        for _ in 0..100 {
            places.push(
                admission.enter(work(Lane::Bulk).patient(), 0, Before::default()).await.unwrap(),
            );
        }
        assert!(admission.check(work(Lane::Bulk), [0].into_iter(), Before::default()).is_err());
        assert!(admission.enter(work(Lane::Interactive), 0, Before::default()).await.is_ok());
    }

    #[tokio::test]
    async fn places_bound_what_is_under_way_whatever_it_costs() {
        let costs = Arc::new(CostTable::default());
        let bounds = Bounds { places: 2, wait: MS, batch: 8 };
        let admission = Admission::new(bounds, costs);
        let _one = admission.enter(work(Lane::Standard), 0, Before::default()).await.unwrap();
        let two = admission.enter(work(Lane::Standard), 0, Before::default()).await.unwrap();
        let refused =
            admission.enter(work(Lane::Standard), 0, Before::default()).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        drop(two);
        assert!(admission.enter(work(Lane::Standard), 0, Before::default()).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_left_when_all_places_are_given_back() {
        let admission = admission(10, 1000 * MS);
        for lane in Lane::ALL {
            let one = admission.enter(work(lane), 0, Before::default()).await.unwrap();
            let two = admission.enter(work(lane).patient(), 3, Before::default()).await.unwrap();
            assert!(admission.wait(lane) > Duration::ZERO);
            drop((one, two));
        }
        assert!(Lane::ALL.into_iter().all(|lane| admission.wait(lane).is_zero()));
    }

    #[tokio::test]
    async fn searches_find_places_while_inputs_of_streams_wait_for_theirs() {
        let costs = Arc::new(CostTable::default());
        let bounds = Bounds { places: 2, wait: MS, batch: 8 };
        let admission = Admission::new(bounds, costs);
        let stream = || admission.enter(work(Lane::Standard).patient(), 0, Before::default());
        let mut held = vec![stream().await.unwrap(), stream().await.unwrap()];
        let mut waiting = Box::pin(stream());
        let polled = std::future::poll_fn(|context| {
            std::task::Poll::Ready(waiting.as_mut().poll(context).is_pending())
        });
        assert!(polled.await);
        let search = || admission.enter(work(Lane::Interactive), 0, Before::default());
        assert!(search().await.is_ok());
        held.pop();
        assert!(search().await.is_ok());
        drop(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn inputs_that_wait_for_a_place_are_waited_for() {
        let admission = admission(1, 25 * MS);
        let stream = || admission.enter(work(Lane::Standard).patient(), 0, Before::default());
        let _held = stream().await.unwrap();
        let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(stream())).collect();
        for one in &mut waiting {
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(one.as_mut().poll(context).is_pending())
            });
            assert!(polled.await);
        }
        assert_eq!(admission.wait(Lane::Standard), 40 * MS);
        let refused = admission.enter(work(Lane::Standard), 0, Before::default()).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.details().metadata["limit_ms"], "25");
        assert_eq!(refused.details().metadata["actual_ms"], "40");
        drop(waiting);
        assert_eq!(admission.wait(Lane::Standard), 10 * MS);
    }

    #[tokio::test]
    async fn a_batch_needs_the_time_of_all_its_inputs() {
        let admission = admission(100, 1000 * MS);
        let _ahead = admission.enter(work(Lane::Standard), 0, Before::default()).await.unwrap();
        let soon = Work { until: Some(Instant::now() + 100 * MS), ..work(Lane::Standard) };
        let check = |inputs| admission.check(soon, vec![0; inputs].into_iter(), Before::default());
        assert!(check(2).is_ok());
        let refused = check(64).unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::DeadlineUnreachable);
        assert_eq!(refused.details().metadata["actual_ms"], "650");
    }

    #[tokio::test]
    async fn who_would_wait_too_long_before_the_tower_is_refused() {
        let admission = admission(100, 25 * MS);
        let before = |milliseconds| Before { wait: milliseconds * MS, cost: MS };
        assert!(admission.enter(work(Lane::Interactive), 0, before(20)).await.is_ok());
        let refused = admission.enter(work(Lane::Interactive), 0, before(30)).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        let soon = Work { until: Some(Instant::now() + 15 * MS), ..work(Lane::Interactive) };
        let refused = admission.enter(soon, 0, before(20)).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::DeadlineUnreachable);
    }
}
