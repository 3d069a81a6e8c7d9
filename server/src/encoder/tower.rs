//! One tower's queue and thread.
//!
//! Batches clock themselves: while one is computed the next one gathers, so that a lone input never waits and a crowd shares
//! the work. Nothing waits without bound: an input has one of a fixed number of places from its admission to its answer, and
//! who finds none is refused before anything is decoded. A caller that left is skipped; an input that fails is answered
//! alone, and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use diptych_model::Vectors;
use diptych_proto::v1::ErrorReason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::lanes::{Lane, Lanes};
use super::pulse::{EndMark, Pulse};
use crate::error::{Error, Kind, Result};

/// Least and most that a caller who found no place is told to wait.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Bulk inputs under way in a tower: two small batches, so that the thread need not wait for the next one.
const BULK_PLACES: usize = 16;

/// How much a tower takes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Inputs under way.
    pub(super) places: usize,
    /// Inputs in one batch.
    pub(super) batch: usize,
    /// Inputs that are prepared at the same time.
    pub(super) preparing: usize,
}

/// A place among the inputs under way; given back when dropped.
pub(super) type Place = OwnedSemaphorePermit;

#[derive(Debug)]
struct Job<T> {
    input: T,
    reply: oneshot::Sender<Result<Vectors>>,
    place: Place,
}

/// The async side.
#[derive(Debug)]
pub(super) struct Tower<T> {
    lanes: Arc<Lanes<Job<T>>>,
    places: Arc<Semaphore>,
    bulk_places: Arc<Semaphore>,
    preparing: Arc<Semaphore>,
    /// Bulk inputs are prepared one at a time, beside the others.
    bulk_preparing: Arc<Semaphore>,
    pulse: Arc<Pulse>,
    sizes: Sizes,
}

impl<T: Send + 'static> Tower<T> {
    /// Starts the thread; it ends when the tower is dropped.
    pub(super) fn start(
        name: &str,
        sizes: Sizes,
        encode: impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let lanes = Arc::new(Lanes::new());
        let jobs = Taker(Arc::clone(&lanes));
        let pulse = Arc::new(Pulse::new());
        let mark = EndMark(Arc::clone(&pulse));
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            run(&jobs.0, sizes.batch.max(1), &mark.0, &encode);
            drop((jobs, mark));
        })?;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        let (places, preparing) = (semaphore(sizes.places), semaphore(sizes.preparing));
        let (bulk_places, bulk_preparing) = (semaphore(BULK_PLACES), semaphore(1));
        Ok(Self { lanes, places, bulk_places, preparing, bulk_preparing, pulse, sizes })
    }

    pub(super) fn healthy(&self) -> bool {
        self.pulse.healthy()
    }

    /// A place for one input.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL` with a time to wait, at once.
    pub(super) fn admit(&self) -> Result<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned();
        place.map_err(|_| {
            let (least, most) = RETRY_AFTER;
            Error::new(
                Kind::Overloaded,
                ErrorReason::QueueFull,
                "the encoder has as much to do as it takes on; try again later",
            )
            .retry_after(self.pulse.predict(self.sizes.places).clamp(least, most))
        })
    }

    /// A place for one input of bulk work; waits for one.
    ///
    /// # Errors
    /// INTERNAL when the tower has ended.
    pub(super) async fn admit_bulk(&self) -> Result<Place> {
        Arc::clone(&self.bulk_places).acquire_owned().await.map_err(|_| gone())
    }

    /// Runs `work` on a thread that may compute, few at a time.
    ///
    /// # Errors
    /// Those of `work`; INTERNAL when it panics.
    pub(super) async fn prepare(
        &self,
        lane: Lane,
        work: impl FnOnce() -> diptych_model::Result<T> + Send + 'static,
    ) -> Result<T> {
        let preparing = match lane {
            Lane::Interactive => &self.preparing,
            Lane::Bulk => &self.bulk_preparing,
        };
        let permit = Arc::clone(preparing).acquire_owned().await.map_err(|_| gone())?;
        // The permit goes with the work, which goes on when its caller leaves.
        let guarded = move || {
            let outcome = work();
            drop(permit);
            outcome
        };
        Ok(tokio::task::spawn_blocking(guarded).await.map_err(|_| failed())??)
    }

    /// The vectors of a prepared input.
    ///
    /// # Errors
    /// INTERNAL when the networks fail on it.
    pub(super) async fn encode(&self, lane: Lane, place: Place, input: T) -> Result<Vectors> {
        let (reply, answer) = oneshot::channel();
        self.lanes.push(lane, Job { input, reply, place }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl<T> Drop for Tower<T> {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

/// The thread's end of the lanes: when it ends, however, nobody waits for it any more.
struct Taker<T>(Arc<Lanes<T>>);

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// The thread: takes what waits, encodes, answers, until no tower is left to ask.
fn run<T>(
    jobs: &Lanes<Job<T>>,
    most: usize,
    pulse: &Pulse,
    encode: &impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>>,
) {
    while let Some(batch) = jobs.take(most) {
        let (inputs, callers): (Vec<T>, Vec<_>) = batch
            .into_iter()
            .filter(|job| !job.reply.is_closed())
            .map(|job| (job.input, (job.reply, job.place)))
            .unzip();
        if inputs.is_empty() {
            continue;
        }
        let outcomes = pulse.beat(inputs.len(), || encode_all(&inputs, encode));
        for ((reply, place), outcome) in callers.into_iter().zip(outcomes) {
            drop(place);
            // A caller that left does not need its answer.
            drop(reply.send(outcome));
        }
    }
}

/// Encodes a batch; when it fails as a whole, each input alone, so that only the bad one fails.
fn encode_all<T>(
    inputs: &[T],
    encode: &impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>>,
) -> Vec<Result<Vectors>> {
    match guarded(inputs, encode) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(error) if inputs.len() == 1 => vec![Err(error)],
        Err(_) => inputs
            .iter()
            .map(|input| {
                let mut one = guarded(std::slice::from_ref(input), encode)?;
                one.pop().ok_or_else(failed)
            })
            .collect(),
    }
}

/// One call of the networks, in which a panic is an error like another. They keep no state that it could spoil.
fn guarded<T>(
    inputs: &[T],
    encode: &impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>>,
) -> Result<Vec<Vectors>> {
    let vectors = catch_unwind(AssertUnwindSafe(|| encode(inputs))).map_err(|_| failed())??;
    if vectors.len() == inputs.len() { Ok(vectors) } else { Err(failed()) }
}

fn failed() -> Error {
    let message = "the encoder failed on this input";
    Error::new(Kind::Internal, ErrorReason::InferenceFailed, message)
}

fn gone() -> Error {
    Error::internal("the encoder has ended")
}
