//! One input between its admission and its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_model::{PreparedImage, PreparedText, Vectors};
use tokio::sync::oneshot;

use super::admission::Place;
use super::lanes::Waiting;
use crate::deadline::exceeded;
use crate::error::Result;
use crate::observe::batch::SpanId;
use crate::observe::record::Record;

/// What a tower encodes.
pub(super) trait Input: Send + 'static {
    /// Ids of a text, 1 for a picture: what it costs beside others of its kind.
    fn length(&self) -> usize;
}

impl Input for PreparedImage {
    fn length(&self) -> usize {
        1
    }
}

impl Input for PreparedText {
    fn length(&self) -> usize {
        self.token_count()
    }
}

/// An encoded input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Encoded {
    pub(super) vectors: Vectors,
    /// What its batch took.
    pub(super) took: Duration,
    /// Its batch, if that is traced.
    pub(super) batch: Option<SpanId>,
}

/// Where the answer goes.
pub(super) type Reply = oneshot::Sender<Result<Encoded>>;

/// An input with the one who waits for its vectors.
#[derive(Debug)]
pub(super) struct Job<T> {
    pub(super) input: T,
    /// As [`Input::length`] told.
    pub(super) length: usize,
    until: Option<Instant>,
    reply: Reply,
    place: Option<Place>,
    call: Option<Arc<Record>>,
}

impl<T> Job<T> {
    /// An input that nobody waits for any more after `until`.
    pub(super) fn new(input: T, length: usize, reply: Reply, until: Option<Instant>) -> Self {
        Self { input, length, until, reply, place: None, call: None }
    }

    /// Gives the place back with the answer.
    pub(super) fn holding(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// As a part of this call, if it is traced.
    pub(super) fn of(self, call: Option<Arc<Record>>) -> Self {
        Self { call, ..self }
    }

    /// Parts the input from the one who waits.
    pub(super) fn part(self) -> (T, Caller) {
        (self.input, Caller { reply: self.reply, place: self.place, call: self.call })
    }

    fn answer(self, outcome: Result<Encoded>) {
        self.part().1.answer(outcome);
    }
}

impl<T> Waiting for Job<T> {
    fn length(&self) -> usize {
        self.length
    }

    fn if_wanted(self, now: Instant) -> Option<Self> {
        if self.reply.is_closed() {
            return None;
        }
        if self.until.is_some_and(|until| until <= now) {
            self.answer(Err(exceeded()));
            return None;
        }
        Some(self)
    }
}

/// The one who waits for a job.
#[derive(Debug)]
pub(super) struct Caller {
    reply: Reply,
    place: Option<Place>,
    call: Option<Arc<Record>>,
}

impl Caller {
    /// The call that waits, if it is traced and still there.
    pub(super) fn call(&self) -> Option<&Arc<Record>> {
        self.call.as_ref().filter(|_| !self.reply.is_closed())
    }

    pub(super) fn answer(self, outcome: Result<Encoded>) {
        // First the place, so that who asks again at once finds it free.
        drop(self.place);
        // A caller that left does not need its answer.
        drop(self.reply.send(outcome));
    }
}
