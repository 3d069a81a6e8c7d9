//! The gate: calls beyond what a method can answer are refused here, before any layer or record is made for them: where a connection
//! is read, or, where it is to be the newest of those read together that are let in, as the first thing of their tasks.
//!
//! With three times as many calls as can be answered, two of three are refused: what a refusal costs is taken from the others. So
//! its reply is made once for each time to wait, of which there are few; HTTP/2's header compression then sends it in some bytes. The
//! figures count such a call as any other; it has no span, its details do not name the request (the reply's metadata does), and it
//! is logged at `debug` alone.
//!
//! What is no gRPC over HTTP/2, as a browser's call, passes with its refusal, which admission answers in the browser's way.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_proto::v1::ErrorReason;
use http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use http_body::Body;
use parking_lot::Mutex;
use prometheus::{Histogram, IntCounter};
use rand::Rng as _;
use tonic::Code;

use super::observe::names;
use super::status::to_status;
use crate::error::{Error, Kind};
use crate::limits::{CallLimits, limited_methods, observed};
use crate::listen::{self, Asked, Peer};
use crate::observe::context::{REQUEST_ID, request_id_value};
use crate::observe::metrics::METRICS;
use crate::observe::{Shed, shed};
use crate::overload::{Arrival, Limiter, OverloadSettings, Pass};

/// Times to wait are told in steps of this.
const STEP: Duration = Duration::from_millis(50);
/// The least and the longest time to wait that is told, in steps.
const STEPS: std::ops::RangeInclusive<usize> = 4..=150;
/// By how much of itself the time to wait is drawn longer at random, so that those who were refused together do not come back
/// together.
const JITTER: f64 = 0.5;

/// What the gate found out about a call that it let pass, among the request's extensions.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    /// The call holds a place of its method.
    Admitted(Arc<Mutex<Option<Pass>>>),
    /// It is to be refused, with a time to wait.
    Refused(Duration),
}

/// Refuses calls of methods to which more come than they can answer. Clones share what they know.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    methods: Arc<HashMap<String, Method>>,
}

#[derive(Debug)]
struct Method {
    limiter: Arc<Limiter>,
    /// Its figures; made when first needed, so that methods that refuse nobody have none.
    figures: OnceLock<Figures>,
    path: String,
}

#[derive(Debug)]
struct Figures {
    started: IntCounter,
    handled: IntCounter,
    handling_seconds: Histogram,
    call_seconds: Histogram,
}

impl Gate {
    pub(super) fn new(limits: &CallLimits) -> Self {
        // Refused here before one caller's calls are too many: that refusal is dearer, and lets all that it may wait.
        let most = limits.per_caller / 4 * 3;
        let most = limits.overload.burst_most.min(most).max(1);
        let settings = OverloadSettings { burst_most: most, ..limits.overload };
        let limited = limited_methods().map(|path| {
            let limiter = Limiter::new(settings);
            (path.clone(), Method { limiter, figures: OnceLock::new(), path })
        });
        Self { methods: Arc::new(limited.collect()) }
    }
}

impl<B: Body<Data = Bytes> + Default> listen::Gate<B> for Gate {
    fn ask<Q>(&self, request: &mut Request<Q>) -> Asked<B> {
        let Some(method) = self.methods.get(request.uri().path()) else { return Asked::Passes };
        let place = match method.limiter.arrive(Instant::now()) {
            Arrival::Admitted(pass) => Ok(pass),
            Arrival::Refused(wait) => Err(wait),
            Arrival::Among(number) => return Asked::Among(number),
        };
        method.answer(request, place).map_or(Asked::Passes, Asked::Refused)
    }

    fn decide<Q>(&self, number: u64, request: &mut Request<Q>) -> Option<Response<B>> {
        let method = self.methods.get(request.uri().path())?;
        method.answer(request, method.limiter.decide(number, Instant::now()))
    }
}

impl Method {
    /// The refusal of a call that has no place, or nothing.
    fn answer<Q, B: Default>(
        &self,
        request: &mut Request<Q>,
        place: Result<Pass, Duration>,
    ) -> Option<Response<B>> {
        let wait = match place {
            Ok(pass) => {
                let entry = Entry::Admitted(Arc::new(Mutex::new(Some(pass))));
                request.extensions_mut().insert(entry);
                return None;
            }
            Err(wait) => wait,
        };
        if !is_grpc(request) {
            request.extensions_mut().insert(Entry::Refused(wait));
            return None;
        }
        self.count();
        let id = request_id_value(request.headers());
        let peer = request.extensions().get::<Peer>().map(|Peer(address)| address);
        let rpc = observed(&self.path).full.as_str();
        tracing::debug!(rpc, reason = "QUEUE_FULL", request_id = ?id, ?peer, "refused");
        let mut response = Response::new(B::default());
        *response.headers_mut() =
            refusal(wait, rand::rng().random_range(1.0..1.0 + JITTER)).clone();
        response.headers_mut().insert(REQUEST_ID, id);
        Some(response)
    }

    fn count(&self) {
        shed(Shed::MethodOverload);
        let figures = self.figures.get_or_init(|| Figures::of(&self.path));
        figures.started.inc();
        figures.handled.inc();
        figures.handling_seconds.observe(0.0);
        figures.call_seconds.observe(0.0);
    }
}

impl Figures {
    fn of(path: &str) -> Self {
        let method = observed(path);
        let [kind, service, name] = method.labels();
        let (code, old_code) = names(Code::ResourceExhausted);
        Self {
            started: METRICS.started.with_label_values(&[kind, service, name]),
            handled: METRICS.handled.with_label_values(&[kind, service, name, old_code]),
            handling_seconds: METRICS.handling_seconds.with_label_values(&[kind, service, name]),
            call_seconds: METRICS.call_seconds.with_label_values(&["grpc", &method.full, code]),
        }
    }
}

fn is_grpc<Q>(request: &Request<Q>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let of = |prefix: &[u8]| kind.is_some_and(|kind| kind.starts_with(prefix));
    request.version() == Version::HTTP_2 && of(b"application/grpc") && !of(b"application/grpc-web")
}

/// The error of a call that is to come back after `wait`.
pub(super) fn overloaded(wait: Duration) -> Error {
    let message = "more of these calls come than can be answered; try again later";
    Error::new(Kind::Overloaded, ErrorReason::QueueFull, message).retry_after(wait)
}

/// The time that a caller is told to wait: `wait` times `jitter` in whole steps, as their number.
fn step(wait: Duration, jitter: f64) -> usize {
    let steps = (wait.mul_f64(jitter).as_secs_f64() / STEP.as_secs_f64()).ceil() as usize;
    steps.clamp(*STEPS.start(), *STEPS.end())
}

/// The head of a refusal, which is all of it.
fn refusal(wait: Duration, jitter: f64) -> &'static HeaderMap {
    static HEADS: [OnceLock<HeaderMap>; *STEPS.end() + 1] =
        [const { OnceLock::new() }; *STEPS.end() + 1];
    let step = step(wait, jitter);
    HEADS[step].get_or_init(|| {
        let wait = STEP.saturating_mul(u32::try_from(step).unwrap_or(u32::MAX));
        to_status(&overloaded(wait)).into_http::<()>().into_parts().0.headers
    })
}

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;

    const SEARCH: &str = "/diptych.v1.SearchService/Search";

    fn gate() -> Gate {
        Gate::new(&CallLimits::wide())
    }

    fn request(path: &str, kind: &str) -> Request<()> {
        Request::builder()
            .version(Version::HTTP_2)
            .uri(path)
            .header("content-type", kind)
            .header("x-request-id", "mine")
            .body(())
            .unwrap()
    }

    fn ask(gate: &Gate, request: &mut Request<()>) -> Option<Response<String>> {
        match listen::Gate::<String>::ask(gate, request) {
            Asked::Passes => None,
            Asked::Refused(refusal) => Some(refusal),
            Asked::Among(number) => listen::Gate::<String>::decide(gate, number, request),
        }
    }

    /// Keeps asking until the method refuses, and gives back the calls that hold its places.
    fn overload(gate: &Gate) -> Vec<Request<()>> {
        let limiter = &gate.methods[SEARCH].limiter;
        limiter.teach(Duration::from_millis(10), 100.0);
        let mut held = Vec::new();
        for _ in 0..10_000 {
            let mut request = request(SEARCH, "application/grpc");
            if ask(gate, &mut request).is_some() {
                return held;
            }
            held.push(request);
        }
        panic!("nothing is refused");
    }

    #[test]
    fn a_refusal_is_a_whole_status_with_a_time_to_wait_and_names_the_request() {
        let gate = gate();
        let held = overload(&gate);
        let response = ask(&gate, &mut request(SEARCH, "application/grpc+proto")).unwrap();
        assert_eq!(response.headers()["x-request-id"], "mine");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let status = tonic::Status::from_header_map(response.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!((STEP * 4..=STEP * 150).contains(&wait), "{wait:?}");
        drop(held);
    }

    #[test]
    fn who_speaks_otherwise_passes_with_the_refusal_and_other_methods_are_not_touched() {
        let gate = gate();
        let _held = overload(&gate);
        let mut web = request(SEARCH, "application/grpc-web+proto");
        assert!(ask(&gate, &mut web).is_none());
        assert!(matches!(web.extensions().get(), Some(Entry::Refused(_))));
        let mut other = request("/diptych.v1.InfoService/GetServerInfo", "application/grpc");
        assert!(ask(&gate, &mut other).is_none());
        assert!(other.extensions().get::<Entry>().is_none());
        let mut read = request("/diptych.v1.ItemService/GetItem", "application/grpc");
        assert!(ask(&gate, &mut read).is_none());
        assert!(matches!(read.extensions().get(), Some(Entry::Admitted(_))));
    }

    #[test]
    fn refusals_are_counted_as_calls_that_were_handled() {
        let gate = gate();
        let _held = overload(&gate);
        let handled = || {
            let labels = ["unary", "diptych.v1.SearchService", "Search", "ResourceExhausted"];
            METRICS.handled.with_label_values(&labels).get()
        };
        let before = handled();
        ask(&gate, &mut request(SEARCH, "application/grpc")).unwrap();
        assert!(handled() > before);
    }

    #[test]
    fn times_to_wait_are_few_and_never_short() {
        assert_eq!(step(Duration::ZERO, 1.2), 4);
        assert_eq!(step(Duration::from_millis(220), 1.0), 5);
        assert_eq!(step(Duration::from_secs(3600), 1.5), 150);
    }
}
