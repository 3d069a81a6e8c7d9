//! Every figure: name, labels, buckets, meaning. Nothing is declared elsewhere.
//!
//! Names end in their unit, or in `_total` when they only grow. `rpc_*` are OpenTelemetry's names for servers, as Prometheus spells
//! them; `grpc_server_*` those that ready-made dashboards know; `process_*` those that every program has; the others are ours. All
//! labels have few values: methods of the contract and `_other`, codes, lanes, at most [`COLLECTIONS`] collections and `_other`.

use std::sync::LazyLock;

use prometheus::core::Collector;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
};

/// Collections with a label of their own, those that were made first; the others are summed under [`OTHER`].
pub(crate) const COLLECTIONS: usize = 50;
/// The label of what has none of its own.
pub(crate) const OTHER: &str = "_other";
/// The label of a call's status: the key has had several names in OpenTelemetry, this is the one of its stable conventions.
const STATUS: &str = "rpc_response_status_code";

/// Seconds of calls, as OpenTelemetry cuts them.
const CALL: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds of a call's parts.
const PART: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
const INPUTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const SHARE: &[f64] = &[0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0];

/// A kind of figure.
trait Declared: Collector + Clone + Sized + 'static {
    fn declared(opts: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self>;
}

impl Declared for IntCounterVec {
    fn declared(opts: Opts, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(opts, labels)
    }
}

impl Declared for GaugeVec {
    fn declared(opts: Opts, labels: &[&str], _: &[f64]) -> prometheus::Result<Self> {
        Self::new(opts, labels)
    }
}

impl Declared for HistogramVec {
    fn declared(opts: Opts, labels: &[&str], buckets: &[f64]) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::from(opts).buckets(buckets.to_vec()), labels)
    }
}

macro_rules! metrics {
    ($($field:ident: $kind:ident $name:literal [$($label:expr),*] $($buckets:ident)?, $help:literal;)*) => {
        /// All figures.
        #[derive(Debug)]
        pub(crate) struct Metrics {
            registry: Registry,
            $(pub(crate) $field: $kind,)*
        }

        impl Metrics {
            fn declare() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let buckets: &[f64] = &[&[] as &[f64] $(, $buckets)?].concat();
                    let opts = Opts::new($name, $help);
                    let $field = <$kind as Declared>::declared(opts, &[$($label),*], buckets)?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }
        }
    };
}

metrics! {
    call_seconds: HistogramVec "rpc_server_call_duration_seconds" ["rpc_system_name", "rpc_method", STATUS] CALL,
        "Time from a call's head to the end of its reply.";
    calls_in_flight: GaugeVec "diptych_calls_in_flight" ["rpc_method"],
        "Calls that began and did not end.";
    call_bytes: IntCounterVec "diptych_call_bytes_total" ["rpc_method", "direction"],
        "Bytes of requests (received) and replies (sent), with the prefixes of messages and as compressed on the wire.";
    started: IntCounterVec "grpc_server_started_total" ["grpc_type", "grpc_service", "grpc_method"],
        "Calls that began.";
    handled: IntCounterVec "grpc_server_handled_total" ["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
        "Calls that ended, whichever way; one whose caller left counts as Canceled.";
    handling_seconds: HistogramVec "grpc_server_handling_seconds" ["grpc_type", "grpc_service", "grpc_method"] CALL,
        "Time from a call's head to the end of its reply.";
    received: IntCounterVec "grpc_server_msg_received_total" ["grpc_type", "grpc_service", "grpc_method"],
        "Messages of requests that began to come.";
    sent: IntCounterVec "grpc_server_msg_sent_total" ["grpc_type", "grpc_service", "grpc_method"],
        "Messages of replies.";

    connections: GaugeVec "diptych_connections" [],
        "Connections to the main listener.";
    connections_refused: IntCounterVec "diptych_connections_refused_total" [],
        "Connections that were closed at once, because there were as many as there may be.";
    connections_silent: IntCounterVec "diptych_connections_silent_total" [],
        "Connections that were closed because they said nothing in time.";
    shed: IntCounterVec "diptych_shed_total" ["reason", "lane"],
        "Calls and inputs that were refused because of too much load. Lane none: by what has no lanes, such as the transport.";

    queue_items: GaugeVec "diptych_queue_items" ["modality", "lane"],
        "Inputs under way to the encoders, those that are computed included.";
    queue_cost: GaugeVec "diptych_queue_cost_seconds" ["modality", "lane"],
        "Predicted computing time of the inputs under way.";
    queue_predicted_wait: GaugeVec "diptych_queue_predicted_wait_seconds" ["modality", "lane"],
        "How long an input that came now would wait; the longest of all bundles.";
    queue_wait: HistogramVec "diptych_queue_wait_seconds" ["modality", "lane"] PART,
        "How long an input waited for its batch once it was prepared.";
    batch_inputs: HistogramVec "diptych_batch_inputs" ["modality"] INPUTS,
        "Inputs of a batch.";
    batch_fill: HistogramVec "diptych_batch_fill_ratio" ["modality"] SHARE,
        "Inputs of a batch over those that it may have.";
    encode: HistogramVec "diptych_encode_seconds" ["modality"] PART,
        "Time of the networks for a batch.";
    decode: HistogramVec "diptych_decode_seconds" [] PART,
        "Time from a picture's file to pixels.";
    decode_wait: HistogramVec "diptych_decode_wait_seconds" [] PART,
        "How long a picture waited for a thread and for memory to be decoded in.";
    resize: HistogramVec "diptych_resize_seconds" [] PART,
        "Time from a picture's pixels to the square that the encoder reads.";
    tokenize: HistogramVec "diptych_tokenize_seconds" [] PART,
        "Time from a text to tokens.";
    poison: IntCounterVec "diptych_poison_inputs_total" ["modality"],
        "Inputs that the encoder failed on, alone.";
    cache_hits: IntCounterVec "diptych_cache_hits_total" [],
        "Inputs whose vectors were found in a cache.";
    cache_misses: IntCounterVec "diptych_cache_misses_total" [],
        "Inputs whose vectors were looked for and not found.";

    search_stage: HistogramVec "diptych_search_stage_seconds" ["stage"] PART,
        "Time of a search's parts: check, embed, search, fill.";
    search_empty: IntCounterVec "diptych_search_empty_total" [],
        "Searches without a hit.";
    commit: HistogramVec "diptych_commit_seconds" ["operation"] PART,
        "Time of a write by a caller to the store, until it is durable and visible.";

    items: GaugeVec "diptych_collection_items" ["collection", "modality"],
        "Items of a collection.";
    generation: GaugeVec "diptych_collection_generation" ["collection"],
        "Grows with every change of a collection's items.";
    rows: GaugeVec "diptych_index_rows" ["collection", "modality", "space"],
        "Rows in memory, with those that ended and were not compacted yet.";
    graph_rows: GaugeVec "diptych_index_graph_rows" ["collection", "modality", "space"],
        "Rows that graphs cover.";
    ended_rows: GaugeVec "diptych_index_ended_rows" ["collection", "modality", "space"],
        "Rows of segments that ended and were not compacted yet.";
    segments: GaugeVec "diptych_index_segments" ["collection", "modality", "space"],
        "Segments that the rows lie in, beside the newest.";
    recall: GaugeVec "diptych_recall_ratio" ["collection"],
        "Share of the right hits that searches find, of the newest hundred or so that were compared.";
    compared: GaugeVec "diptych_recall_searches" ["collection"],
        "Searches that were compared with their exact answers.";

    model: GaugeVec "diptych_model_info" ["embedding_digest", "use"],
        "The bundles that are loaded; 1 each.";
    server: GaugeVec "diptych_server_info" ["version"],
        "The program; 1.";
    ready: GaugeVec "diptych_ready" [],
        "1 while /readyz says yes.";
    spans: IntCounterVec "diptych_spans_total" ["outcome"],
        "Spans for the collector: sent, dropped because too many waited, failed to be taken.";

    memory: GaugeVec "process_resident_memory_bytes" [],
        "Memory that the process has.";
    files: GaugeVec "process_open_fds" [],
        "Files and sockets that the process has open.";
    threads: GaugeVec "process_threads" [],
        "Threads of the process.";
    started_at: GaugeVec "process_start_time_seconds" [],
        "When the process started, seconds since 1970-01-01 UTC.";
}

/// The figures of this process.
pub(crate) static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    // The names above are all there is to be wrong, and a test reads them.
    Metrics::declare().expect("figures are declared with right and different names")
});

impl Metrics {
    /// The page, in the text format of Prometheus.
    pub(crate) fn page(&self) -> String {
        let families = self.registry.gather();
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "the figures cannot be written");
            String::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_named_as_prometheus_wants_them() {
        let metrics = Metrics::declare().unwrap();
        metrics.connections.with_label_values::<&str>(&[]).set(1.0);
        metrics.shed.with_label_values(&["queue_full", "bulk"]).inc();
        metrics.encode.with_label_values(&["text"]).observe(0.003);
        let page = metrics.page();
        assert!(page.contains("# TYPE diptych_connections gauge\ndiptych_connections 1\n"));
        assert!(page.contains("diptych_shed_total{lane=\"bulk\",reason=\"queue_full\"} 1\n"));
        assert!(page.contains("diptych_encode_seconds_bucket{modality=\"text\",le=\"0.005\"} 1\n"));
        assert!(page.contains("diptych_encode_seconds_count{modality=\"text\"} 1\n"));
    }
}
