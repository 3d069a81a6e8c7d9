//! Counts, names and tells every call: the outermost layer that sees gRPC, so it knows how each ended.
//!
//! A call begins with its head and ends with the end of its reply, or when its caller leaves. It has one request id, the caller's
//! or a new one, which the reply's metadata, the details of an error, the log and the trace all name.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use prost::Message as _;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb::{ErrorInfo, RequestInfo, Status as Details};
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::receive::Messages;
use crate::limits::{Observed as Method, observed};
use crate::listen::Peer;
use crate::observe::Settings;
use crate::observe::context::{REQUEST_ID, TRACEPARENT, Trace, request_id};
use crate::observe::metrics::METRICS;
use crate::observe::otlp::{Exporter, Finished};
use crate::observe::record::{Record, Stage, within};

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// What `Any` calls the types that are read and added here.
const ERROR_INFO: &str = "type.googleapis.com/google.rpc.ErrorInfo";
const REQUEST_INFO: &str = "type.googleapis.com/google.rpc.RequestInfo";
/// Binary headers come with and without padding, and go without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Observes calls.
#[derive(Debug, Clone)]
pub(super) struct ObserveLayer {
    settings: Settings,
    exporter: Option<Arc<Exporter>>,
}

impl ObserveLayer {
    /// A layer that tells the collector of `settings`, if there is one.
    pub(super) fn new(settings: Settings) -> Self {
        let exporter = settings.otlp_endpoint.as_deref().and_then(|endpoint| {
            let started = Exporter::start(endpoint);
            started.inspect_err(|error| tracing::error!(%error, "no traces are sent")).ok()
        });
        Self { settings, exporter: exporter.map(Arc::new) }
    }

    /// Sends the last spans, for a while.
    pub(super) async fn close(self) {
        if let Some(exporter) = self.exporter {
            exporter.close().await;
        }
    }
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, layer: self.clone() }
    }
}

/// A service under an [`ObserveLayer`].
#[derive(Debug, Clone)]
pub(super) struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B, R> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Observed<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut open = Open::begin(&self.layer, &request);
        let record = Arc::clone(&open.record);
        let (request_id, trace_id) = (record.request_id.as_str(), record.trace.hex());
        let span = tracing::info_span!("call", request_id, trace_id);
        let call = within(Some(Arc::clone(&record)), self.inner.call(request));
        let observed = async move {
            let mut response = call.await?;
            let headers = response.headers_mut();
            if let Ok(id) = HeaderValue::from_str(&open.record.request_id) {
                headers.insert(REQUEST_ID, id);
            }
            if let Some(trace) = open.record.trace.header() {
                headers.insert(TRACEPARENT, trace);
            }
            open.see(headers);
            Ok(response.map(|body| Observed { body, open: Some(Box::new(open)) }))
        };
        Box::pin(observed.instrument(span))
    }
}

/// A call that began; told when dropped.
#[derive(Debug)]
struct Open {
    layer: ObserveLayer,
    method: &'static Method,
    record: Arc<Record>,
    peer: Option<Peer>,
    began: (Instant, SystemTime),
    /// Code and reason; `None` until they are there, and for good when the caller left before.
    status: Option<(Code, String)>,
    messages: Messages,
    messages_sent: u64,
    bytes_sent: u64,
}

impl Open {
    fn begin<B>(layer: &ObserveLayer, request: &Request<B>) -> Self {
        let method = observed(request.uri().path());
        METRICS.calls_in_flight.with_label_values(&[method.full.as_str()]).inc();
        METRICS.started.with_label_values(&method.labels()).inc();
        let trace = Trace::of(request.headers(), layer.settings.trace_share);
        let record = match layer.exporter.is_some() && trace.sampled {
            true => Record::traced,
            false => Record::new,
        };
        Self {
            layer: layer.clone(),
            method,
            record: record(request_id(request.headers()), trace),
            peer: request.extensions().get::<Peer>().copied(),
            began: (Instant::now(), SystemTime::now()),
            status: None,
            messages: Messages::default(),
            messages_sent: 0,
            bytes_sent: 0,
        }
    }

    /// Reads the status in the head or the trailers of a reply, if there is one, and names the request in its details.
    fn see(&mut self, headers: &mut HeaderMap) {
        let Some(status) = headers.get(STATUS) else { return };
        let code = Code::from_bytes(status.as_bytes());
        let given = headers.get(DETAILS).and_then(|details| BASE64.decode(details).ok());
        let mut reason = String::new();
        if let Some(mut details) = given.filter(|_| code != Code::Ok) {
            reason = reason_of(&details).unwrap_or_default();
            // Messages add up when their bytes are put together.
            details.extend(request_info(&self.record.request_id).encode_to_vec());
            if let Ok(value) = HeaderValue::try_from(BASE64.encode(details)) {
                headers.insert(DETAILS, value);
            }
        }
        self.status = Some((code, reason));
    }

    fn count(&self, code: Code, took: f64) {
        let (method, record, names) = (self.method, &self.record, names(code));
        let full = method.full.as_str();
        METRICS.calls_in_flight.with_label_values(&[full]).dec();
        METRICS.call_seconds.with_label_values(&["grpc", full, names.0]).observe(took);
        let [kind, service, name] = method.labels();
        METRICS.handled.with_label_values(&[kind, service, name, names.1]).inc();
        METRICS.handling_seconds.with_label_values(&method.labels()).observe(took);
        let received = &record.messages_received;
        let messages = [
            (&METRICS.received, received.load(Ordering::Relaxed)),
            (&METRICS.sent, self.messages_sent),
        ];
        for (counter, messages) in messages {
            counter.with_label_values(&method.labels()).inc_by(messages);
        }
        let bytes = [
            ("received", record.bytes_received.load(Ordering::Relaxed)),
            ("sent", self.bytes_sent),
        ];
        for (direction, bytes) in bytes {
            METRICS.call_bytes.with_label_values(&[full, direction]).inc_by(bytes);
        }
    }

    fn log(&self, code: Code, reason: &str, took: Duration) {
        let Self { method, record, .. } = self;
        let (rpc, code_name) = (method.full.as_str(), names(code).0);
        let peer = self.peer.map(|Peer(address)| address.to_string()).unwrap_or_default();
        let (dur_ms, trace_id) = (milliseconds(took), record.trace.hex());
        let request_id = record.request_id.as_str();
        let bytes_in = record.bytes_received.load(Ordering::Relaxed);
        let bytes_out = self.bytes_sent;
        macro_rules! finished {
            ($level:ident) => {
                tracing::$level!(
                    rpc,
                    code = code_name,
                    reason,
                    dur_ms,
                    request_id,
                    trace_id,
                    peer,
                    bytes_in,
                    bytes_out,
                    "call"
                )
            };
        }
        match code {
            Code::Internal | Code::Unknown | Code::DataLoss => finished!(info),
            _ => finished!(debug),
        }
        let slow = self.layer.settings.slow_call;
        if slow.is_zero() || took < slow || !method.timed {
            return;
        }
        let stages = record.stages();
        let of = |stage: Stage| {
            let mut of = stages.iter().filter(|took| took.stage == stage).map(|took| took.took);
            let first = of.next()?;
            Some(milliseconds(of.fold(first, |sum, took| sum + took)))
        };
        tracing::warn!(
            rpc,
            code = code_name,
            reason,
            dur_ms,
            request_id,
            trace_id,
            peer,
            bytes_in,
            bytes_out,
            decode_ms = of(Stage::Decode),
            resize_ms = of(Stage::Resize),
            tokenize_ms = of(Stage::Tokenize),
            queue_ms = of(Stage::Queue),
            encode_ms = of(Stage::Encode),
            search_ms = of(Stage::Search),
            fill_ms = of(Stage::Fill),
            commit_ms = of(Stage::Commit),
            "a slow call"
        );
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let took = self.began.0.elapsed();
        let (code, reason) = self.status.take().unwrap_or((Code::Cancelled, String::new()));
        self.count(code, took.as_secs_f64());
        self.log(code, &reason, took);
        let (record, failed) = (&self.record, is_failure(code));
        let Some(exporter) = &self.layer.exporter else { return };
        // A caller's trace is sent as the caller says; of ours also what failed.
        if record.trace.sampled || (failed && record.trace.parent.is_none()) {
            exporter.tell(&Finished {
                record,
                method: &self.method.full,
                began: self.began,
                took,
                code: names(code).0,
                reason: &reason,
                failed,
            });
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn reason_of(details: &[u8]) -> Option<String> {
    let details = Details::decode(details).ok()?.details;
    let info = details.iter().find(|detail| detail.type_url == ERROR_INFO)?;
    Some(ErrorInfo::decode(info.value.as_slice()).ok()?.reason)
}

fn request_info(request_id: &str) -> Details {
    let info = RequestInfo { request_id: request_id.to_owned(), serving_data: String::new() };
    let info = Any { type_url: REQUEST_INFO.to_owned(), value: info.encode_to_vec() };
    Details { details: vec![info], ..Details::default() }
}

/// The codes by which a server's span has failed, as OpenTelemetry has it; the others are the caller's affair.
fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// A code's name as OpenTelemetry and as older dashboards spell it.
pub(super) fn names(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::Ok => ("OK", "OK"),
        Code::Cancelled => ("CANCELLED", "Canceled"),
        Code::Unknown => ("UNKNOWN", "Unknown"),
        Code::InvalidArgument => ("INVALID_ARGUMENT", "InvalidArgument"),
        Code::DeadlineExceeded => ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
        Code::NotFound => ("NOT_FOUND", "NotFound"),
        Code::AlreadyExists => ("ALREADY_EXISTS", "AlreadyExists"),
        Code::PermissionDenied => ("PERMISSION_DENIED", "PermissionDenied"),
        Code::ResourceExhausted => ("RESOURCE_EXHAUSTED", "ResourceExhausted"),
        Code::FailedPrecondition => ("FAILED_PRECONDITION", "FailedPrecondition"),
        Code::Aborted => ("ABORTED", "Aborted"),
        Code::OutOfRange => ("OUT_OF_RANGE", "OutOfRange"),
        Code::Unimplemented => ("UNIMPLEMENTED", "Unimplemented"),
        Code::Internal => ("INTERNAL", "Internal"),
        Code::Unavailable => ("UNAVAILABLE", "Unavailable"),
        Code::DataLoss => ("DATA_LOSS", "DataLoss"),
        Code::Unauthenticated => ("UNAUTHENTICATED", "Unauthenticated"),
    }
}

/// A reply's body whose end is the end of its call.
#[derive(Debug, Default)]
pub(super) struct Observed<R> {
    body: R,
    open: Option<Box<Open>>,
}

impl<R: Body<Data = Bytes> + Unpin> Body for Observed<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let (Some(open), Some(Ok(frame))) = (&mut self.open, &mut frame) {
            if let Some(data) = frame.data_ref() {
                open.bytes_sent += data.len() as u64;
                open.messages_sent += open.messages.begun(data) as u64;
            }
            if let Some(trailers) = frame.trailers_mut() {
                open.see(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
