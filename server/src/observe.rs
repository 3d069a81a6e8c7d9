//! What the server tells of itself while it runs: figures for Prometheus, one record for every call, traces.
//!
//! - `metrics`: every figure's name, labels and buckets; the only place that declares one
//! - `scrape`: figures that are read when asked for, and the page of all
//! - `context`: the caller's trace and request id, from the headers and back
//! - `record`: the call that runs here, and the stages that it went through
//! - `batch`: what was computed together, for which calls
//! - `otlp`: finished calls as spans, sent to a collector where one is set
//!
//! Figures that grow are the process's own, as a process is one server; what wants to count calls a function of this module. No
//! label, log line or span holds what a caller wrote but its request id: no captions, pixels, vectors, ids of items.

pub(crate) mod batch;
pub(crate) mod context;
pub(crate) mod metrics;
pub(crate) mod otlp;
pub(crate) mod record;
pub(crate) mod scrape;

use std::time::{Duration, Instant};

use diptych_model::Modality;

use self::batch::SpanId;
pub(crate) use self::batch::batched;
use self::metrics::METRICS;
pub(crate) use self::record::{Stage, inherited, took};
use crate::encoder::Lane;
use crate::error::Error;
use crate::timings::{EmbedTimings, Timings};

/// What is told, and to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time from which on a call with one reply is told in the log; zero for none.
    pub slow_call: Duration,
    /// Collector of spans; nobody is told without one.
    pub otlp_endpoint: Option<String>,
    /// Share of the calls without a caller's trace whose spans are sent, 0 to 1. Those that fail by a fault of the server's are
    /// sent in any case.
    pub trace_share: f64,
}

/// The labels of what has none.
pub(crate) const NONE: &[&str] = &[];
/// The lane of what is refused before it has one.
const NO_LANE: &str = "none";

/// Counts a refusal by a tower's admission.
pub(crate) fn shed_by_tower(lane: Lane, refused: Error) -> Error {
    let reason = refused.details().reason.as_str_name();
    let reason = reason.trim_start_matches("ERROR_REASON_").to_ascii_lowercase();
    METRICS.shed.with_label_values(&[reason.as_str(), lane.name()]).inc();
    refused
}

/// Why calls are refused before anything is done for them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shed {
    /// More come of a method than can be answered.
    MethodOverload,
    /// The caller has too many.
    TooManyCalls,
    /// There is no room for the request's bytes.
    ReceiveBytes,
    /// There is no room for the reply's bytes.
    ReplyBytes,
    /// The process holds as much memory as it may.
    Memory,
}

/// Counts such a refusal.
pub(crate) fn shed(why: Shed) {
    let reason = match why {
        Shed::MethodOverload => "method_overload",
        Shed::TooManyCalls => "too_many_calls",
        Shed::ReceiveBytes => "receive_bytes",
        Shed::ReplyBytes => "reply_bytes",
        Shed::Memory => "memory",
    };
    METRICS.shed.with_label_values(&[reason, NO_LANE]).inc();
}

/// Notes the stages of an input that was embedded. `began` is when it was admitted, `prepared` when it joined its lane, `batch`
/// what it was computed in, if that is traced.
pub(crate) fn embedded(
    (modality, lane): (Modality, Lane),
    (began, prepared): (Instant, Instant),
    timings: &EmbedTimings,
    batch: Option<SpanId>,
) {
    let EmbedTimings { decode, resize, tokenize, encode, .. } = *timings;
    let name = label(modality);
    let ended = Instant::now();
    let encoding = ended.checked_sub(encode).unwrap_or(began).max(prepared);
    let queued = encoding - prepared;
    METRICS.queue_wait.with_label_values(&[name, lane.name()]).observe(queued.as_secs_f64());
    let preparing = prepared.checked_sub(decode + resize + tokenize).unwrap_or(began).max(began);
    match modality {
        Modality::Image => {
            METRICS.decode.with_label_values(NONE).observe(decode.as_secs_f64());
            METRICS.resize.with_label_values(NONE).observe(resize.as_secs_f64());
            METRICS.decode_wait.with_label_values(NONE).observe((preparing - began).as_secs_f64());
            record::note(Stage::Decode, preparing, decode);
            record::note(Stage::Resize, preparing + decode, resize);
        }
        Modality::Text => {
            METRICS.tokenize.with_label_values(NONE).observe(tokenize.as_secs_f64());
            record::note(Stage::Tokenize, preparing, tokenize);
        }
    }
    record::note(Stage::Queue, prepared, queued);
    record::note_in(batch, Stage::Encode, encoding, encode);
}

/// Runs the networks on a batch of `inputs`, of at most `most`.
pub(crate) fn batch<T>(
    modality: Modality,
    (inputs, most): (usize, usize),
    encode: impl FnOnce() -> diptych_model::Result<T>,
) -> diptych_model::Result<T> {
    let (began, name) = (Instant::now(), label(modality));
    let encoded = encode();
    METRICS.encode.with_label_values(&[name]).observe(began.elapsed().as_secs_f64());
    METRICS.batch_inputs.with_label_values(&[name]).observe(inputs as f64);
    let fill = inputs as f64 / most.max(1) as f64;
    METRICS.batch_fill.with_label_values(&[name]).observe(fill.min(1.0));
    if encoded.is_err() && inputs == 1 {
        METRICS.poison.with_label_values(&[name]).inc();
    }
    encoded
}

/// Counts a look into a cache of vectors.
pub(crate) fn cache(hit: bool) {
    let counter = if hit { &METRICS.cache_hits } else { &METRICS.cache_misses };
    counter.with_label_values(NONE).inc();
}

/// Counts a search that was answered, with what its parts took.
pub(crate) fn searched(timings: &Timings, hits: usize) {
    let embed = timings.embed;
    let embed = embed.wait + embed.decode + embed.resize + embed.tokenize + embed.encode;
    let stages = [
        ("check", timings.check),
        ("embed", embed),
        ("search", timings.search),
        ("fill", timings.fill),
    ];
    for (stage, took) in stages {
        METRICS.search_stage.with_label_values(&[stage]).observe(took.as_secs_f64());
    }
    if hits == 0 {
        METRICS.search_empty.with_label_values(NONE).inc();
    }
}

/// Notes a commit to the store, which began at `began`.
pub(crate) fn committed(operation: &'static str, began: Instant) {
    let took = took(Stage::Commit, began);
    METRICS.commit.with_label_values(&[operation]).observe(took.as_secs_f64());
}

fn label(modality: Modality) -> &'static str {
    match modality {
        Modality::Image => "image",
        Modality::Text => "text",
    }
}

#[cfg(test)]
mod tests {
    use diptych_proto::v1::ErrorReason;

    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_refusal_is_counted_by_reason_and_lane() {
        let counter = METRICS.shed.with_label_values(&["deadline_unreachable", "bulk"]);
        let before = counter.get();
        let error = Error::new(Kind::Overloaded, ErrorReason::DeadlineUnreachable, "later");
        shed_by_tower(Lane::Bulk, error);
        assert_eq!(counter.get(), before + 1);
    }

    #[tokio::test]
    async fn an_embedded_picture_has_its_stages_one_after_the_other() {
        let record =
            record::Record::new("id".to_owned(), context::Trace::of(&http::HeaderMap::new(), 0.0));
        let ms = Duration::from_millis(1);
        let prepared = Instant::now();
        let began = prepared - 20 * ms;
        let timings = EmbedTimings { decode: 7 * ms, resize: 3 * ms, ..EmbedTimings::default() };
        let work = async {
            embedded((Modality::Image, Lane::Interactive), (began, prepared), &timings, None);
        };
        record::within(Some(std::sync::Arc::clone(&record)), work).await;
        let stages = record.stages();
        let names: Vec<_> = stages.iter().map(|took| took.stage.name()).collect();
        assert_eq!(names, ["decode", "resize", "queue", "encode"]);
        assert_eq!(stages[0].began, began + 10 * ms);
        for pair in stages.windows(2) {
            assert_eq!(pair[0].began + pair[0].took, pair[1].began);
        }
    }
}
