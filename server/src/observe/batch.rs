//! What was computed together: a batch has a trace of its own, whose span names the calls that it was computed for, and a call's
//! encoding names the batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_model::Modality;

use super::context::fresh;
use super::record::Record;

/// Most calls that a batch names; OpenTelemetry's own default.
const LINKS: usize = 128;

/// A span and its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanId {
    pub(crate) trace: u128,
    pub(crate) span: u64,
}

/// A batch that was computed.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) id: SpanId,
    pub(crate) modality: Modality,
    pub(crate) inputs: usize,
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// The spans of calls with inputs in it, as far as they are traced.
    pub(crate) calls: Vec<SpanId>,
    /// Such calls beyond [`LINKS`].
    pub(crate) unnamed: usize,
}

/// Notes a batch of `inputs`, computed for these calls; the first of them tells of it. Nothing when none is traced.
pub(crate) fn batched<'a>(
    (modality, inputs): (Modality, usize),
    (began, took): (Instant, Duration),
    calls: impl Iterator<Item = &'a Arc<Record>>,
) -> Option<SpanId> {
    let mut calls = calls.peekable();
    let teller = Arc::clone(calls.peek()?);
    let mut named: Vec<SpanId> = Vec::new();
    let mut unnamed = 0;
    for call in calls.map(|call| call.trace.id()) {
        // Inputs of one call lie together.
        if named.last() == Some(&call) {
            continue;
        }
        if named.len() < LINKS { named.push(call) } else { unnamed += 1 }
    }
    let id = SpanId { trace: fresh(rand::random), span: fresh(rand::random) };
    teller.tell_of(Batch { id, modality, inputs, began, took, calls: named, unnamed });
    Some(id)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::observe::context::Trace;

    fn call() -> Arc<Record> {
        Record::traced("id".to_owned(), Trace::of(&HeaderMap::new(), 1.0))
    }

    fn batch(calls: &[&Arc<Record>]) -> Option<SpanId> {
        let when = (Instant::now(), Duration::from_millis(1));
        batched((Modality::Text, calls.len()), when, calls.iter().copied())
    }

    #[test]
    fn the_first_call_tells_of_a_batch_which_names_every_call_once() {
        let (first, second) = (call(), call());
        let id = batch(&[&first, &first, &second]).unwrap();
        assert!(second.batches().is_empty());
        let told = first.batches();
        let ids = [first.trace.id(), second.trace.id()];
        assert_eq!((told.len(), told[0].id, told[0].inputs), (1, id, 3));
        assert_eq!((told[0].calls.as_slice(), told[0].unnamed), (ids.as_slice(), 0));
        assert!(ids.iter().all(|call| call.trace != id.trace));
        assert_eq!(batch(&[]), None);
    }

    #[test]
    fn a_batch_of_many_calls_names_some_and_counts_the_others() {
        let calls: Vec<_> = (0..LINKS + 5).map(|_| call()).collect();
        batch(&calls.iter().collect::<Vec<_>>());
        let told = calls[0].batches();
        assert_eq!((told[0].calls.len(), told[0].unnamed), (LINKS, 5));
    }
}
