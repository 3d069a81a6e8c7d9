//! The call that runs here, and the stages that it went through, for whatever works for it.
//!
//! The wire's observing layer sets it around a handler. It is task-local as the deadline is, and work that moves to another task
//! takes both along by [`crate::deadline::inherited`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::batch::{Batch, SpanId};
use super::context::Trace;

/// Most stages that are kept of one call; a large batch has more, which are not told one by one.
const STAGES: usize = 64;

tokio::task_local! {
    static CURRENT: Option<Arc<Record>>;
}

/// A part of a call's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// A picture's file to pixels.
    Decode,
    /// Pixels to the encoder's square.
    Resize,
    /// A text to tokens.
    Tokenize,
    /// Waiting for a batch.
    Queue,
    /// The batch.
    Encode,
    /// The index.
    Search,
    /// Reading the hits' items.
    Fill,
    /// A write to the store.
    Commit,
}

impl Stage {
    /// Its name in traces and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Tokenize => "tokenize",
            Self::Queue => "queue",
            Self::Encode => "encode",
            Self::Search => "search",
            Self::Fill => "fill",
            Self::Commit => "commit",
        }
    }
}

/// A stage that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Took {
    pub(crate) stage: Stage,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// What it was a part of.
    pub(crate) batch: Option<SpanId>,
}

/// What is known of a call.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) request_id: String,
    pub(crate) trace: Trace,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) messages_received: AtomicU64,
    /// Whether its spans are sent, however it ends.
    traced: bool,
    stages: Mutex<Vec<Took>>,
    batches: Mutex<Vec<Batch>>,
}

impl Record {
    pub(crate) fn new(request_id: String, trace: Trace) -> Arc<Self> {
        Self::of(request_id, trace, false)
    }

    /// Of a call whose spans are sent.
    pub(crate) fn traced(request_id: String, trace: Trace) -> Arc<Self> {
        Self::of(request_id, trace, true)
    }

    fn of(request_id: String, trace: Trace, traced: bool) -> Arc<Self> {
        Arc::new(Self {
            request_id,
            trace,
            bytes_received: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            traced,
            stages: Mutex::default(),
            batches: Mutex::default(),
        })
    }

    /// The stages so far, in the order of their ends; the first [`STAGES`].
    pub(crate) fn stages(&self) -> Vec<Took> {
        self.stages.lock().clone()
    }

    /// The batches that this call tells of.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        self.batches.lock().clone()
    }

    /// Has the call tell of a batch; as many as of stages.
    pub(crate) fn tell_of(&self, batch: Batch) {
        let mut batches = self.batches.lock();
        if batches.len() < STAGES {
            batches.push(batch);
        }
    }
}

/// Runs `work` as part of a call.
pub(crate) fn within<F: Future>(
    record: Option<Arc<Record>>,
    work: F,
) -> impl Future<Output = F::Output> {
    CURRENT.scope(record, work)
}

/// `work`, to be spawned, as part of the call that spawns it.
pub(crate) fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(CURRENT.try_with(Clone::clone).ok().flatten(), work)
}

fn with(tell: impl FnOnce(&Record)) {
    // Outside a call there is nobody to tell.
    if let Some(record) = CURRENT.try_with(Clone::clone).ok().flatten() {
        tell(&record);
    }
}

/// The call that runs here, if its spans are sent.
pub(crate) fn traced() -> Option<Arc<Record>> {
    CURRENT.try_with(Clone::clone).ok().flatten().filter(|record| record.traced)
}

/// Notes a stage of the call that runs here.
pub(crate) fn note(stage: Stage, began: Instant, took: Duration) {
    note_in(None, stage, began, took);
}

/// Notes a stage that was a part of a batch.
pub(crate) fn note_in(batch: Option<SpanId>, stage: Stage, began: Instant, took: Duration) {
    with(|record| {
        let mut stages = record.stages.lock();
        if stages.len() < STAGES {
            stages.push(Took { stage, began, took, batch });
        }
    });
}

/// Notes a stage that began at `began` and is over now, and tells what it took.
pub(crate) fn took(stage: Stage, began: Instant) -> Duration {
    let took = began.elapsed();
    note(stage, began, took);
    took
}

/// Notes a piece of the request of the call that runs here.
pub(crate) fn received(bytes: usize, messages: usize) {
    with(|record| {
        record.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
        record.messages_received.fetch_add(messages as u64, Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::deadline;

    #[tokio::test]
    async fn what_works_for_a_call_notes_its_stages_there_and_in_bounds() {
        let record = Record::new("id".to_owned(), Trace::of(&HeaderMap::new(), 0.0));
        let work = async {
            took(Stage::Search, Instant::now());
            let spawned = deadline::inherited(async { took(Stage::Fill, Instant::now()) });
            tokio::spawn(spawned).await.unwrap();
            tokio::spawn(async { took(Stage::Commit, Instant::now()) }).await.unwrap();
        };
        within(Some(Arc::clone(&record)), work).await;
        let names: Vec<_> = record.stages().iter().map(|took| took.stage.name()).collect();
        assert_eq!(names, ["search", "fill"]);
        let many =
            async { (0..1000).for_each(|_| note(Stage::Encode, Instant::now(), Duration::ZERO)) };
        within(Some(Arc::clone(&record)), many).await;
        assert_eq!(record.stages().len(), STAGES);
    }
}
