//! Finished calls as spans, sent to a collector over OTLP/gRPC where one is set.
//!
//! A call is told once, when it is over, from its [`Record`]: nothing is sent or waited for while it runs. Calls wait in a queue of
//! bounded length; when the collector is slow or away, spans are dropped and counted, and no call is the slower for it.

mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use self::wire::{ExportRequest, ExportResponse, Link, Span, number, text};
use super::batch::Batch;
use super::context::fresh;
use super::metrics::METRICS;
use super::record::Record;

/// Where collectors take spans.
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Calls that wait to be sent.
const WAITING: usize = 1024;
/// Calls that are sent together.
const TOGETHER: usize = 128;
/// How long calls gather before they are sent.
const GATHER: Duration = Duration::from_millis(200);
/// How long the collector has to take them.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last ones may hold up the end of the server.
const LAST: Duration = Duration::from_secs(2);

/// A call that is over.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) record: &'a Record,
    /// `package.Service/Method`.
    pub(crate) method: &'a str,
    pub(crate) began: (Instant, SystemTime),
    pub(crate) took: Duration,
    /// Name of the status code.
    pub(crate) code: &'static str,
    /// Reason of ours for an error; may be empty.
    pub(crate) reason: &'a str,
    /// Whether the status is one by which a server's span has failed.
    pub(crate) failed: bool,
}

/// Sends finished calls.
#[derive(Debug)]
pub(crate) struct Exporter {
    calls: mpsc::Sender<Vec<Span>>,
    closing: CancellationToken,
    task: JoinHandle<()>,
}

impl Exporter {
    /// Sends to the collector at `endpoint`, which is connected to when there is something to send.
    ///
    /// # Errors
    /// When `endpoint` is no address.
    pub(crate) fn start(endpoint: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(endpoint.to_owned())?;
        let channel = endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy();
        let (calls, waiting) = mpsc::channel(WAITING);
        let closing = CancellationToken::new();
        let task = tokio::spawn(run(Grpc::new(channel), waiting, closing.clone()));
        Ok(Self { calls, closing, task })
    }

    /// Takes a call's spans, to be sent soon.
    pub(crate) fn tell(&self, call: &Finished<'_>) {
        let spans = spans(call);
        if let Err(full) = self.calls.try_send(spans) {
            count("dropped", full.into_inner().len());
        }
    }

    /// Sends what waits, for a while, and ends.
    pub(crate) async fn close(self: Arc<Self>) {
        self.closing.cancel();
        // The task ends by itself; whoever still has the exporter finds it closed.
        let ended = async {
            while !self.task.is_finished() {
                tokio::time::sleep(GATHER / 20).await;
            }
        };
        if timeout(LAST, ended).await.is_err() {
            self.task.abort();
        }
    }
}

fn count(outcome: &str, spans: usize) {
    METRICS.spans.with_label_values(&[outcome]).inc_by(spans as u64);
}

async fn run(
    mut collector: Grpc<Channel>,
    mut calls: mpsc::Receiver<Vec<Span>>,
    closing: CancellationToken,
) {
    let mut told = false;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = calls.recv_many(&mut batch, 1) => {}
            () = closing.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(GATHER) => {}
            () = closing.cancelled() => {}
        }
        while batch.len() < TOGETHER
            && let Ok(spans) = calls.try_recv()
        {
            batch.push(spans);
        }
        let spans: Vec<Span> = batch.into_iter().flatten().collect();
        let number = spans.len();
        match timeout(PATIENCE, export(&mut collector, spans)).await {
            Ok(Ok(())) => {
                count("sent", number);
                told = false;
            }
            failed => {
                count("failed", number);
                let code = failed.ok().and_then(Result::err).map(|status| status.code());
                // Once, until it takes some again.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(?code, "the collector of traces takes no spans");
                }
            }
        }
    }
}

async fn export(collector: &mut Grpc<Channel>, spans: Vec<Span>) -> Result<(), tonic::Status> {
    collector.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let request = tonic::Request::new(ExportRequest::of(spans));
    let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
    collector.unary(request, PathAndQuery::from_static(EXPORT), codec).await?;
    Ok(())
}

/// The call's span, those of its stages below it, and those of the batches that it tells of.
fn spans(call: &Finished<'_>) -> Vec<Span> {
    let trace = call.record.trace;
    let (began, began_at) = call.began;
    let start = began_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = |instant: Instant| nanoseconds(start + instant.saturating_duration_since(began));
    let trace_id = trace.trace.to_be_bytes().to_vec();
    let mut attributes = vec![
        text("rpc.system.name", "grpc"),
        text("rpc.method", call.method),
        text("rpc.response.status_code", call.code),
        text("diptych.request_id", &call.record.request_id),
    ];
    if call.failed {
        attributes.push(text("error.type", call.code));
    }
    if !call.reason.is_empty() {
        attributes.push(text("diptych.reason", call.reason));
    }
    let parent = trace.parent.map(|parent| parent.to_be_bytes().to_vec());
    let mut spans = vec![Span {
        trace_id: trace_id.clone(),
        span_id: trace.span.to_be_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        name: call.method.to_owned(),
        kind: wire::SERVER,
        start_time_unix_nano: nanoseconds(start),
        end_time_unix_nano: nanoseconds(start + call.took),
        attributes,
        status: call.failed.then_some(wire::Status { code: wire::ERROR }),
        flags: u32::from(trace.sampled),
        ..Span::default()
    }];
    spans.extend(call.record.stages().into_iter().map(|stage| Span {
        trace_id: trace_id.clone(),
        span_id: fresh(rand::random::<u64>).to_be_bytes().to_vec(),
        parent_span_id: trace.span.to_be_bytes().to_vec(),
        name: stage.stage.name().to_owned(),
        kind: wire::INTERNAL,
        start_time_unix_nano: at(stage.began),
        end_time_unix_nano: at(stage.began + stage.took),
        links: stage.batch.map(Link::to).into_iter().collect(),
        flags: u32::from(trace.sampled),
        ..Span::default()
    }));
    spans.extend(call.record.batches().into_iter().map(|batch| span_of(batch, at)));
    spans
}

/// A batch's span, the only one of its trace.
fn span_of(batch: Batch, at: impl Fn(Instant) -> u64) -> Span {
    Span {
        trace_id: batch.id.trace.to_be_bytes().to_vec(),
        span_id: batch.id.span.to_be_bytes().to_vec(),
        name: "batch".to_owned(),
        kind: wire::INTERNAL,
        start_time_unix_nano: at(batch.began),
        end_time_unix_nano: at(batch.began + batch.took),
        attributes: vec![
            text("diptych.modality", super::label(batch.modality)),
            number("diptych.batch.inputs", batch.inputs),
        ],
        links: batch.calls.into_iter().map(Link::to).collect(),
        dropped_links_count: u32::try_from(batch.unnamed).unwrap_or(u32::MAX),
        flags: 1,
        ..Span::default()
    }
}

fn nanoseconds(since_1970: Duration) -> u64 {
    u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
}
