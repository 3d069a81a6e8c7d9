//! How many calls are read and worked on at once: of one caller, and of all. Those of one method were counted at the gate.
//!
//! A caller, told by the address until there are keys, who has as many as one may have is refused at once. Beyond those of all
//! callers a call waits a little, unread, and is refused then. Streams, which may go on for an hour, are counted apart, and one too
//! many is refused at once: they never hold the places of the others. A place is held until the reply's end. Health is never among
//! them: probes must be answered by a server that has much to do.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_proto::v1::ErrorReason;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::{Layer, Service};

use super::gate::{Entry, overloaded};
use super::status::to_status;
use crate::callers::{self, Callers, Counted};
use crate::error::{Error, Kind};
use crate::limits::{CallLimits, HEALTH, is_unary};
use crate::listen::Peer;
use crate::observe::{Shed, shed};
use crate::overload::Pass;

/// When a caller with too many calls may try again: about the time that one takes.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Bounds calls.
#[derive(Debug, Clone)]
pub(super) struct AdmissionLayer {
    calls: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    /// How many there are of both.
    most: (usize, usize),
    wait: Duration,
    callers: Arc<Callers>,
    streamers: Arc<Callers>,
}

impl AdmissionLayer {
    pub(super) fn new(limits: &CallLimits) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self {
            calls: semaphore(limits.calls),
            streams: semaphore(limits.streams),
            most: (limits.calls, limits.streams),
            wait: limits.wait,
            callers: Callers::new(limits.per_caller),
            streamers: Callers::new(limits.per_caller.min((limits.streams / 2).max(1))),
        }
    }

    /// A place among all calls, waited for a little.
    async fn call(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = timeout(self.wait, Arc::clone(&self.calls).acquire_owned());
        place.await.ok().and_then(Result::ok).ok_or_else(|| {
            let most = self.most.0;
            full(most, &format!("the server has {most} calls under way, as many as it takes on"))
        })
    }

    /// A place among all streams.
    fn stream(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            let most = self.most.1;
            full(most, &format!("the server has {most} streams open, as many as it takes on"))
        })
    }
}

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Admission { inner, layer: self.clone() }
    }
}

/// A service under an [`AdmissionLayer`].
#[derive(Debug, Clone)]
pub(super) struct Admission<S> {
    inner: S,
    layer: AdmissionLayer,
}

impl<S, B, R> Service<Request<B>> for Admission<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<Held<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.uri().path().starts_with(HEALTH) {
            let call = self.inner.call(request);
            return Box::pin(async move { Ok(call.await?.map(Held::freely)) });
        }
        let pass = match request.extensions_mut().remove::<Entry>() {
            Some(Entry::Admitted(pass)) => pass.lock().take(),
            Some(Entry::Refused(wait)) => {
                shed(Shed::MethodOverload);
                let refused = to_status(&overloaded(wait.max(RETRY_AFTER))).into_http();
                return Box::pin(async { Ok(refused) });
            }
            None => None,
        };
        let name = caller(request.extensions());
        let unary = is_unary(request.uri().path());
        let callers = if unary { &self.layer.callers } else { &self.layer.streamers };
        let Some(caller) = callers.enter(name) else {
            crowded(pass);
            let refused = to_status(&too_many(callers.most(), unary)).into_http();
            return Box::pin(async { Ok(refused) });
        };
        let layer = self.layer.clone();
        let places = Places::default();
        request.extensions_mut().insert(places.clone());
        // Nothing of the request is read before the first poll.
        let call = self.inner.call(request);
        Box::pin(async move {
            let place = if unary { layer.call().await } else { layer.stream() };
            match place {
                Ok(place) => {
                    places.hold(Place { _call: place, _caller: caller, pass: Mutex::new(pass) });
                }
                Err(refused) => {
                    crowded(pass);
                    return Ok(to_status(&refused).into_http());
                }
            }
            let answer = call.await?;
            // What failed says nothing of how long answers take.
            if !answer.headers().contains_key("grpc-status") {
                places.answered();
            }
            Ok(answer.map(|body| Held { body, _places: Some(places) }))
        })
    }
}

/// Counts a call that is refused because too many are under way, and tells its method.
fn crowded(pass: Option<Pass>) {
    shed(Shed::TooManyCalls);
    if let Some(pass) = pass {
        pass.refused(Instant::now());
    }
}

fn too_many(most: usize, unary: bool) -> Error {
    let what = if unary { "calls under way" } else { "streams open" };
    let message = format!(
        "the caller has {most} {what}, as many as one caller may have; wait for one to end"
    );
    Error::new(Kind::Overloaded, ErrorReason::TooManyCalls, message)
        .with("limit", most.to_string())
        .retry_after(RETRY_AFTER)
}

fn full(most: usize, message: &str) -> Error {
    Error::new(Kind::Overloaded, ErrorReason::QueueFull, format!("{message}; try again later"))
        .with("limit", most.to_string())
        .retry_after(RETRY_AFTER)
}

/// A call's places, given back when the last clone is dropped: its reply has one, and work that goes on when its caller leaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<OnceLock<Place>>);

impl Places {
    fn hold(&self, place: Place) {
        drop(self.0.set(place));
    }

    fn answered(&self) {
        if let Some(pass) = self.0.get().and_then(|place| place.pass.lock().take()) {
            pass.answered(Instant::now());
        }
    }

    #[cfg(test)]
    pub(super) fn are_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

#[derive(Debug)]
struct Place {
    _call: OwnedSemaphorePermit,
    _caller: Counted,
    /// Of its method.
    pass: Mutex<Option<Pass>>,
}

/// Who calls, as callers are told apart; `None` for a call of no address, such as a test's.
pub(super) fn caller(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<Peer>().map(|Peer(address)| callers::caller(*address))
}

/// A reply's body that holds its call's places.
#[derive(Debug, Default)]
pub(super) struct Held<R> {
    body: R,
    _places: Option<Places>,
}

impl<R> Held<R> {
    fn freely(body: R) -> Self {
        Self { body, _places: None }
    }
}

impl<R: Body<Data = Bytes> + Unpin> Body for Held<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic_types::StatusExt as _;
    use tower::service_fn;

    use super::*;

    const GET: &str = "/diptych.v1.ItemService/GetItem";
    const SEARCH: &str = "/diptych.v1.SearchService/Search";
    const STREAM: &str = "/diptych.v1.EmbeddingService/EmbedStream";

    fn limits(per_caller: usize, calls: usize) -> CallLimits {
        CallLimits { per_caller, calls, ..CallLimits::wide() }
    }

    fn request(path: &str, address: &str) -> Request<()> {
        let mut request = Request::builder().uri(path).body(()).unwrap();
        request.extensions_mut().insert(Peer(format!("{address}:1").parse().unwrap()));
        request
    }

    fn code<R>(response: &Response<R>) -> Option<&str> {
        response.headers().get("grpc-status").map(|code| code.to_str().unwrap())
    }

    #[tokio::test]
    async fn a_caller_with_too_many_calls_is_refused_and_others_are_not() {
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let mut service = AdmissionLayer::new(&limits(2, 100)).layer(inner);
        let mut call = |path: &'static str, address: &str| service.call(request(path, address));
        let first = call(GET, "10.0.0.1").await.unwrap();
        let second = call(GET, "10.0.0.1").await.unwrap();
        let third = call(GET, "10.0.0.1").await.unwrap();
        assert_eq!((code(&first), code(&second), code(&third)), (None, None, Some("8")));
        assert_eq!(code(&call(GET, "10.0.0.2").await.unwrap()), None);
        let health = call("/grpc.health.v1.Health/Check", "10.0.0.1").await.unwrap();
        assert_eq!(code(&health), None);
        // The place is given back with the reply, not with its head.
        drop(first);
        assert_eq!(code(&call(GET, "10.0.0.1").await.unwrap()), None);
        drop(second);
        assert!(service.layer.callers.is_empty());
    }

    #[tokio::test]
    async fn a_call_too_many_of_all_waits_unread_and_health_does_not() {
        let read = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&read);
        let inner = service_fn(move |request: Request<()>| {
            let notes = Arc::clone(&notes);
            async move {
                notes.lock().push(request.uri().path().to_owned());
                Ok::<_, Infallible>(Response::new(()))
            }
        });
        let mut service = AdmissionLayer::new(&limits(100, 1)).layer(inner);
        let held = service.call(request(GET, "10.0.0.1")).await.unwrap();
        let mut waiting = service.call(request(SEARCH, "10.0.0.2"));
        let polled = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        let health = format!("{HEALTH}Check");
        service.call(request(&health, "10.0.0.3")).await.unwrap();
        drop(held);
        waiting.await.unwrap();
        assert_eq!(*read.lock(), [GET, &health, SEARCH]);
    }

    #[tokio::test]
    async fn a_call_waits_for_a_place_no_longer_than_it_may() {
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let limits = CallLimits { wait: Duration::from_millis(1), ..limits(100, 1) };
        let mut service = AdmissionLayer::new(&limits).layer(inner);
        let held = service.call(request(GET, "10.0.0.1")).await.unwrap();
        let refused = service.call(request(GET, "10.0.0.2")).await.unwrap();
        let status = tonic::Status::from_header_map(refused.headers()).unwrap();
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
        assert_eq!(details.error_info().unwrap().metadata["limit"], "1");
        assert!(details.retry_info().is_some());
        drop(held);
        assert_eq!(code(&service.call(request(GET, "10.0.0.2")).await.unwrap()), None);
    }

    #[tokio::test]
    async fn open_streams_hold_no_places_of_other_calls_and_one_caller_has_half_of_theirs() {
        let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
        let limits = CallLimits { streams: 4, ..limits(100, 1) };
        let mut service = AdmissionLayer::new(&limits).layer(inner);
        let mut open = Vec::new();
        for address in ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"] {
            open.push(service.call(request(STREAM, address)).await.unwrap());
        }
        assert!(open.iter().all(|stream| code(stream).is_none()));
        let refused = service.call(request(STREAM, "10.0.0.1")).await.unwrap();
        assert_eq!(code(&refused), Some("8"), "it has half");
        let refused = service.call(request(STREAM, "10.0.0.3")).await.unwrap();
        assert_eq!(code(&refused), Some("8"), "all are open");
        assert_eq!(code(&service.call(request(GET, "10.0.0.1")).await.unwrap()), None);
        open.pop();
        assert_eq!(code(&service.call(request(STREAM, "10.0.0.3")).await.unwrap()), None);
    }
}
