//! How many calls are read and worked on at once: of one caller, and of all. Those of one method were counted at the gate.
//!
//! A caller, told by the address until there are keys, who has as many as one may have is refused at once. Beyond those of all
//! callers a call waits, unread, within its deadline. Either place is held until the reply's end, so that a stream counts for as
//! long as it goes on. Health is never among them: probes must be answered by a server that has much to do.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use diptych_proto::v1::ErrorReason;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Layer, Service};

use super::gate::{Entry, overloaded};
use super::status::to_status;
use crate::error::{Error, Kind};
use crate::limits::{CallLimits, HEALTH};
use crate::listen::Peer;
use crate::observe::{Shed, shed};

/// When a caller with too many calls may try again: about the time that one takes.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// The part of an IPv6 address that a caller is told by: a single host may have all the rest.
const PREFIX_BITS: u32 = 64;

/// Bounds calls.
#[derive(Debug, Clone)]
pub(super) struct AdmissionLayer {
    calls: Arc<Semaphore>,
    callers: Arc<Callers>,
}

impl AdmissionLayer {
    pub(super) fn new(limits: &CallLimits) -> Self {
        let callers = Callers { most: limits.per_caller, under_way: Mutex::default() };
        Self { calls: Arc::new(Semaphore::new(limits.calls)), callers: Arc::new(callers) }
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
        let peer = request.extensions().get::<Peer>().copied();
        let Some(caller) = Callers::enter(&self.layer.callers, peer) else {
            shed(Shed::TooManyCalls);
            if let Some(pass) = pass {
                pass.refused(Instant::now());
            }
            let refused = to_status(&too_many(self.layer.callers.most)).into_http();
            return Box::pin(async { Ok(refused) });
        };
        let calls = Arc::clone(&self.layer.calls);
        // Nothing of the request is read before the first poll.
        let call = self.inner.call(request);
        Box::pin(async move {
            let place = Place { _call: calls.acquire_owned().await.ok(), _caller: caller };
            let answer = call.await?;
            // What failed says nothing of how long answers take.
            if let Some(pass) = pass.filter(|_| !answer.headers().contains_key("grpc-status")) {
                pass.answered(Instant::now());
            }
            Ok(answer.map(|body| Held { body, _place: Some(place) }))
        })
    }
}

fn too_many(most: usize) -> Error {
    let message = format!(
        "the caller has {most} calls under way, as many as one caller may have; wait for one to end"
    );
    Error::new(Kind::Overloaded, ErrorReason::TooManyCalls, message)
        .with("limit", most.to_string())
        .retry_after(RETRY_AFTER)
}

/// A call's places, given back when dropped.
#[derive(Debug)]
struct Place {
    _call: Option<OwnedSemaphorePermit>,
    _caller: Caller,
}

/// The calls of every caller who has some.
#[derive(Debug)]
struct Callers {
    most: usize,
    under_way: Mutex<HashMap<IpAddr, usize>>,
}

/// One call of a caller.
#[derive(Debug)]
struct Caller {
    callers: Arc<Callers>,
    /// `None` for a call of no address, such as a test's.
    name: Option<IpAddr>,
}

impl Callers {
    /// Counts a call, or gives `None` when its caller has as many as one may have.
    fn enter(callers: &Arc<Self>, peer: Option<Peer>) -> Option<Caller> {
        let name = peer.map(|Peer(address)| name(address.ip()));
        if let Some(name) = name {
            let mut under_way = callers.under_way.lock();
            let calls = under_way.entry(name).or_default();
            if *calls >= callers.most {
                return None;
            }
            *calls += 1;
        }
        Some(Caller { callers: Arc::clone(callers), name })
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let Some(name) = self.name else { return };
        let mut under_way = self.callers.under_way.lock();
        if let Some(calls) = under_way.get_mut(&name) {
            *calls -= 1;
            // Only who has calls under way takes room.
            if *calls == 0 {
                under_way.remove(&name);
            }
        }
    }
}

fn name(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> (128 - PREFIX_BITS) << (128 - PREFIX_BITS);
            Ipv6Addr::from_bits(prefix).into()
        }
        v4 => v4,
    }
}

/// A reply's body that holds its call's places.
#[derive(Debug, Default)]
pub(super) struct Held<R> {
    body: R,
    _place: Option<Place>,
}

impl<R> Held<R> {
    fn freely(body: R) -> Self {
        Self { body, _place: None }
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

    use tower::service_fn;

    use super::*;

    fn limits(per_caller: usize, calls: usize) -> CallLimits {
        let hour = Duration::from_secs(3600);
        let methods = Default::default();
        let overload = Default::default();
        CallLimits { timeout: hour, stream_timeout: hour, methods, per_caller, calls, overload }
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
        let first = call("/a", "10.0.0.1").await.unwrap();
        let second = call("/a", "10.0.0.1").await.unwrap();
        let third = call("/a", "10.0.0.1").await.unwrap();
        assert_eq!((code(&first), code(&second), code(&third)), (None, None, Some("8")));
        assert_eq!(code(&call("/a", "10.0.0.2").await.unwrap()), None);
        let health = call("/grpc.health.v1.Health/Check", "10.0.0.1").await.unwrap();
        assert_eq!(code(&health), None);
        // The place is given back with the reply, not with its head.
        drop(first);
        assert_eq!(code(&call("/a", "10.0.0.1").await.unwrap()), None);
        // Addresses of one host are one caller.
        let held = [call("/a", "[2001:db8::1]").await, call("/a", "[2001:db8::2]").await];
        assert_eq!(code(&call("/a", "[2001:db8::3]").await.unwrap()), Some("8"));
        assert_eq!(code(&call("/a", "[2001:db8:0:1::3]").await.unwrap()), None);
        drop((held, second));
        assert!(service.layer.callers.under_way.lock().is_empty());
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
        let held = service.call(request("/first", "10.0.0.1")).await.unwrap();
        let mut waiting = service.call(request("/second", "10.0.0.2"));
        let polled = std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        let health = format!("{HEALTH}Check");
        service.call(request(&health, "10.0.0.3")).await.unwrap();
        drop(held);
        waiting.await.unwrap();
        assert_eq!(*read.lock(), ["/first", &health, "/second"]);
    }
}
