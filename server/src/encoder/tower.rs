//! One tower's queue and thread.
//!
//! Batches clock themselves: while one is computed the next one gathers, so that a lone input never waits and a crowd shares
//! the work. Nothing waits without bound: an input has a place from its admission to its answer, and who would wait too long is
//! refused before anything is decoded. A caller that left is skipped; an input that fails is answered alone, and the thread
//! goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_model::{Modality, Vectors};
use diptych_proto::v1::ErrorReason;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, oneshot};

use super::admission::{Admission, Bounds, Place, Work};
use super::cost::{CostTable, length_class};
use super::job::{Caller, Encoded, Input, Job};
use super::lanes::{Budget, Lane, Lanes};
use super::pulse::{EndMark, Pulse};
use crate::deadline::exceeded;
use crate::error::{Error, Kind, Result};
use crate::memory::give_back;
use crate::observe::{batch::SpanId, batched, record::Record, record::traced};

/// What is computed where its call runs takes at most so long: others of that thread wait for it.
const BRIEF: Duration = Duration::from_millis(2);
/// A batch of a warm-up takes at most so long, as far as one input tells.
const WARM_UP: Duration = Duration::from_millis(500);

/// How much a tower takes on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Inputs under way.
    pub(super) places: usize,
    /// The longest predicted wait.
    pub(super) wait: Duration,
    /// What one batch may hold.
    pub(super) batch: Budget,
    /// Whether inputs of different lengths are computed apart.
    pub(super) by_length: bool,
    /// Inputs that are prepared at the same time.
    pub(super) preparing: usize,
}

/// The async side.
#[derive(Debug)]
pub(super) struct Tower<T> {
    lanes: Arc<Lanes<Job<T>>>,
    admission: Admission,
    preparing: Arc<Semaphore>,
    /// Bulk inputs are prepared beside the others, fewer at a time.
    bulk_preparing: Arc<Semaphore>,
    networks: Arc<Networks<T>>,
}

impl<T: Input> Tower<T> {
    /// Starts the thread; it ends when the tower is dropped.
    pub(super) fn start(
        modality: Modality,
        sizes: Sizes,
        encode: impl Fn(&[T]) -> diptych_model::Result<Vec<Vectors>> + Send + 'static,
    ) -> std::io::Result<Self> {
        let lanes = Arc::new(Lanes::new(sizes.by_length));
        let networks = Arc::new(Networks {
            modality,
            costs: Arc::default(),
            pulse: Arc::new(Pulse::new()),
            encode: Mutex::new(Box::new(encode)),
        });
        let computer = Computer {
            lanes: Taker(Arc::clone(&lanes)),
            batch: sizes.batch,
            _mark: EndMark(Arc::clone(&networks.pulse)),
            networks: Arc::clone(&networks),
        };
        let name = match modality {
            Modality::Image => "encode-image",
            Modality::Text => "encode-text",
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            computer.run();
            // Often it was the last who held the weights.
            give_back();
        })?;
        let bounds =
            Bounds { places: sizes.places, wait: sizes.wait, batch: sizes.batch.inputs.max(1) };
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.max(1)));
        Ok(Self {
            lanes,
            admission: Admission::new(bounds, Arc::clone(&networks.costs)),
            preparing: semaphore(sizes.preparing),
            bulk_preparing: semaphore(sizes.preparing / 2),
            networks,
        })
    }

    pub(super) fn healthy(&self) -> bool {
        self.networks.pulse.healthy()
    }

    /// Whether an input became a vector within the last `time`.
    pub(super) fn succeeded_within(&self, time: Duration) -> bool {
        self.networks.pulse.succeeded_within(time)
    }

    /// Who decides whether an input is let in.
    pub(super) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Runs `work` on a thread that may compute, few at a time.
    ///
    /// # Errors
    /// Those of `work`; DEADLINE_EXCEEDED when its turn comes too late; INTERNAL when it panics.
    pub(super) async fn prepare<P: Send + 'static>(
        &self,
        whom: Work,
        work: impl FnOnce() -> diptych_model::Result<P> + Send + 'static,
    ) -> Result<P> {
        let preparing = match whom.lane {
            Lane::Interactive | Lane::Standard => &self.preparing,
            Lane::Bulk => &self.bulk_preparing,
        };
        let permit = Arc::clone(preparing).acquire_owned().await.map_err(|_| gone())?;
        if whom.until.is_some_and(|until| until <= Instant::now()) {
            return Err(exceeded());
        }
        // The permit goes with the work, which goes on when its caller leaves.
        let guarded = move || {
            let outcome = work();
            drop(permit);
            outcome
        };
        Ok(tokio::task::spawn_blocking(guarded).await.map_err(|_| failed())??)
    }

    /// Runs `work` here: what is done before another thread would have begun.
    ///
    /// # Errors
    /// Those of `work`; INTERNAL when it panics.
    pub(super) fn prepare_here<P>(work: impl FnOnce() -> diptych_model::Result<P>) -> Result<P> {
        Ok(catch_unwind(AssertUnwindSafe(work)).map_err(|_| failed())??)
    }

    /// Computes an input alone and in a batch of up to `most`, fewer where that would take long.
    ///
    /// # Errors
    /// Those of `prepare`.
    pub(super) fn warm_up(
        &self,
        most: usize,
        prepare: impl Fn() -> diptych_model::Result<T>,
    ) -> diptych_model::Result<()> {
        let encode = self.networks.encode.lock();
        let compute = |inputs: usize| {
            let inputs =
                (0..inputs).map(|_| prepare()).collect::<diptych_model::Result<Vec<T>>>()?;
            let (_, took, _) = self.networks.compute(&encode, &inputs, std::iter::empty);
            diptych_model::Result::Ok(took)
        };
        // The first time is slower and teaches nothing.
        drop(encode_all(&[prepare()?], &encode));
        let alone = compute(1)?;
        let fit = WARM_UP.as_nanos() / alone.as_nanos().max(1);
        let batch = usize::try_from(fit).unwrap_or(most).clamp(1, most.max(1));
        if batch > 1 {
            compute(batch)?;
        }
        Ok(())
    }

    /// The vectors of a prepared input.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED when its turn comes too late; INTERNAL when the networks fail on it.
    pub(super) async fn encode(&self, work: Work, place: Place, input: T) -> Result<Encoded> {
        let (reply, answer) = oneshot::channel();
        let length = input.length();
        let job = Job::new(input, length, reply, work.until).holding(place).of(traced());
        self.lanes.push(work.lane, job).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The vectors of a prepared input, computed here and now.
    ///
    /// # Errors
    /// Those of [`Tower::encode`]; the place and the input of one that is better queued: it is not brief, as far as is known, or
    /// others are before it.
    pub(super) fn encode_here(
        &self,
        lane: Lane,
        place: Place,
        input: T,
    ) -> Result<Result<Encoded>, (Place, T)> {
        let length = input.length();
        let cost = self.networks.costs.input(length_class(length), 1);
        let brief = !cost.is_zero() && cost <= BRIEF;
        match self.networks.encode.try_lock().filter(|_| brief && self.lanes.pass(lane, length)) {
            Some(encode) => Ok(self.networks.one(&encode, input, place)),
            None => Err((place, input)),
        }
    }
}

impl<T> Drop for Tower<T> {
    fn drop(&mut self) {
        self.lanes.close();
    }
}

/// The thread's end of the lanes: when it ends, however, nobody waits for it any more.
struct Taker<T>(Arc<Lanes<Job<T>>>);

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// What inputs go through, by one thread at a time.
struct Networks<T> {
    modality: Modality,
    costs: Arc<CostTable>,
    pulse: Arc<Pulse>,
    encode: Mutex<Encode<T>>,
}

type Encode<T> = Box<dyn Fn(&[T]) -> diptych_model::Result<Vec<Vectors>> + Send>;
/// The right to compute.
type Computing<'a, T> = MutexGuard<'a, Encode<T>>;

impl<T> std::fmt::Debug for Networks<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Networks").field("modality", &self.modality).finish_non_exhaustive()
    }
}

impl<T: Input> Networks<T> {
    /// Encodes a batch for these callers and answers them.
    fn batch(&self, encode: Computing<'_, T>, inputs: &[T], callers: Vec<Caller>) {
        let calls = || callers.iter().filter_map(Caller::call);
        let (outcomes, took, batch) = self.compute(&encode, inputs, calls);
        // Who is answered finds the networks free.
        drop(encode);
        for (caller, outcome) in callers.into_iter().zip(outcomes) {
            caller.answer(outcome.map(|vectors| Encoded { vectors, took, batch }));
        }
    }

    /// Encodes the input of the call that runs here.
    fn one(&self, encode: &Computing<'_, T>, input: T, place: Place) -> Result<Encoded> {
        let call = traced();
        let (mut outcomes, took, batch) = self.compute(encode, &[input], || call.iter());
        drop(place);
        let vectors = outcomes.pop().unwrap_or_else(|| Err(failed()))?;
        Ok(Encoded { vectors, took, batch })
    }

    /// The outcomes of a batch, what it took, and itself as far as it is traced for one of the calls.
    fn compute<'a, C: Iterator<Item = &'a Arc<Record>>>(
        &self,
        encode: &Computing<'_, T>,
        inputs: &[T],
        calls: impl FnOnce() -> C,
    ) -> (Vec<Result<Vectors>>, Duration, Option<SpanId>) {
        let longest = inputs.iter().map(Input::length).max().unwrap_or(0);
        let began = Instant::now();
        let (outcomes, took) = self.pulse.beat(|| encode_all(inputs, encode));
        let batch = batched((self.modality, inputs.len()), (began, took), calls());
        self.costs.learn(length_class(longest), inputs.len(), took);
        if outcomes.iter().any(Result::is_ok) {
            self.pulse.succeeded();
        }
        (outcomes, took, batch)
    }
}

/// The thread's side.
struct Computer<T> {
    lanes: Taker<T>,
    batch: Budget,
    networks: Arc<Networks<T>>,
    _mark: EndMark,
}

impl<T: Input> Computer<T> {
    /// Takes what waits, encodes, answers, until no tower is left to ask.
    fn run(self) {
        while let Some(batch) = self.lanes.0.take(self.batch) {
            let (inputs, callers): (Vec<T>, Vec<Caller>) = batch.into_iter().map(Job::part).unzip();
            let encode = self.networks.encode.lock();
            self.networks.batch(encode, &inputs, callers);
            // Where cores are few, the thread that reads connections would else wait until the system takes this one's from a bulk
            // load; and while the system runs others, the networks are free for who is more urgent.
            if self.lanes.0.only_bulk() {
                std::thread::yield_now();
            }
        }
    }
}

/// Encodes a batch. When it fails as a whole, its halves are tried, and theirs, so that only what is bad fails.
fn encode_all<T>(inputs: &[T], encode: &Encode<T>) -> Vec<Result<Vectors>> {
    match guarded(inputs, encode) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(error) if inputs.len() <= 1 => vec![Err(error)],
        Err(_) => {
            let (front, back) = inputs.split_at(inputs.len() / 2);
            let mut outcomes = encode_all(front, encode);
            outcomes.extend(encode_all(back, encode));
            outcomes
        }
    }
}

/// One call of the networks, in which a panic is an error like another. They keep no state that it could spoil.
fn guarded<T>(inputs: &[T], encode: &Encode<T>) -> Result<Vec<Vectors>> {
    let vectors = catch_unwind(AssertUnwindSafe(|| encode(inputs))).map_err(|_| failed())??;
    if vectors.len() == inputs.len() { Ok(vectors) } else { Err(failed()) }
}

pub(super) fn failed() -> Error {
    let message = "the encoder failed on this input";
    Error::new(Kind::Internal, ErrorReason::InferenceFailed, message)
}

pub(super) fn gone() -> Error {
    Error::internal("the encoder has ended")
}
