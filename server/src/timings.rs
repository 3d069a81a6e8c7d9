//! Where the time of one search went.

use std::time::{Duration, Instant};

/// What an input took until it was embedded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EmbedTimings {
    /// Waiting for a thread that prepares, for memory to decode in, and for the encoder.
    pub wait: Duration,
    /// A picture file to pixels.
    pub decode: Duration,
    /// Pixels to the square that the encoder reads.
    pub resize: Duration,
    /// A text to tokens.
    pub tokenize: Duration,
    /// The batch that it was encoded in.
    pub encode: Duration,
}

impl EmbedTimings {
    /// Adds what another input of the same question took.
    pub(crate) fn add(&mut self, other: &Self) {
        self.wait += other.wait;
        self.decode += other.decode;
        self.resize += other.resize;
        self.tokenize += other.tokenize;
        self.encode += other.encode;
    }
}

/// What the parts of an answer took.
#[derive(Debug, Clone, Copy)]
pub struct Timings {
    began: Instant,
    /// Checks of the request.
    pub check: Duration,
    /// Its inputs, summed.
    pub embed: EmbedTimings,
    /// The index.
    pub search: Duration,
    /// Reading the hits' items.
    pub fill: Duration,
}

impl Timings {
    /// Of a question that was received at `began` and is checked now.
    pub(crate) fn checked(began: Instant) -> Self {
        let (embed, none) = (EmbedTimings::default(), Duration::ZERO);
        Self { began, check: began.elapsed(), embed, search: none, fill: none }
    }

    /// All of it until now.
    pub(crate) fn total(&self) -> Duration {
        self.began.elapsed()
    }
}
