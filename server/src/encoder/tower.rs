//! One tower's queue and thread.
//!
//! Batches clock themselves: while one is computed the next one gathers, so that a lone input never waits and a crowd shares
//! the work. Nothing waits without bound: an input has one of a fixed number of places from its admission to its answer, and
//! who finds none is refused before anything is decoded. A caller that left is skipped; an input that fails is answered
//! alone, and the thread goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use diptych_model::Vectors;
use diptych_proto::v1::ErrorReason;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::pulse::{EndMark, Pulse};
use crate::error::{Error, Kind, Result};

/// Least and most that a caller who found no place is told to wait.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

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
    /// Unbounded, because every job in it holds a place.
    queue: Sender<Job<T>>,
    places: Arc<Semaphore>,
    preparing: Arc<Semaphore>,
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
        let (queue, jobs) = channel();
        let pulse = Arc::new(Pulse::new());
        let mark = EndMark(Arc::clone(&pulse));
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            run(&jobs, sizes.batch.max(1), &mark.0, &encode);
            drop(mark);
        })?;
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        let (places, preparing) = (semaphore(sizes.places), semaphore(sizes.preparing));
        Ok(Self { queue, places, preparing, pulse, sizes })
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

    /// Runs `work` on a thread that may compute, few at a time.
    ///
    /// # Errors
    /// Those of `work`; INTERNAL when it panics.
    pub(super) async fn prepare(
        &self,
        work: impl FnOnce() -> diptych_model::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.preparing).acquire_owned().await.map_err(|_| gone())?;
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
    pub(super) async fn encode(&self, place: Place, input: T) -> Result<Vectors> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Job { input, reply, place }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// The thread: takes what waits, encodes, answers, until no tower is left to ask.
fn run<T>(
    jobs: &Receiver<Job<T>>,
    most: usize,
    pulse: &Pulse,
    encode: &impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>>,
) {
    while let Ok(first) = jobs.recv() {
        let waiting = jobs.try_iter().take(most - 1);
        let (inputs, callers): (Vec<T>, Vec<_>) = std::iter::once(first)
            .chain(waiting)
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
