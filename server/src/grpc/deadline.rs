//! Deadlines that answer DEADLINE_EXCEEDED.
//!
//! tonic's own timer answers CANCELLED when a caller's deadline passes, which says that the caller left. This layer ends a
//! little earlier and says what happened. It bounds the time to the reply's head; a stream goes on at its own pace.
//!
//! It also bounds how many calls are read and worked on at once, over all connections: the others wait unread, within their
//! deadlines. Health is never among them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use http::{HeaderMap, Request, Response};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::status::to_status;
use crate::error::{Error, Kind};

/// How much earlier than tonic's timer this one ends. A call that has less is refused at once.
const MARGIN: Duration = Duration::from_millis(5);

/// Calls that are not counted: probes must be answered by a server that has much to do.
const HEALTH: &str = "/grpc.health.v1.Health/";

/// When a call is ended, for methods that wait on purpose.
#[derive(Debug, Clone, Copy)]
pub(super) struct CallDeadline(Instant);

impl CallDeadline {
    /// What is left of its time.
    pub(super) fn left(&self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Bounds every call by the caller's `grpc-timeout` and the server's own limit.
#[derive(Debug, Clone)]
pub(super) struct DeadlineLayer {
    most: Duration,
    calls: Arc<Semaphore>,
}

impl DeadlineLayer {
    /// `most` is the longest call, `calls` how many run at once.
    pub(super) fn new(most: Duration, calls: usize) -> Self {
        Self { most, calls: Arc::new(Semaphore::new(calls)) }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline { inner, most: self.most, calls: Arc::clone(&self.calls) }
    }
}

/// A service under a [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    most: Duration,
    calls: Arc<Semaphore>,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let asked = timeout(request.headers()).map(|asked| asked.saturating_sub(MARGIN));
        let time = asked.map_or(self.most, |asked| asked.min(self.most));
        if time.is_zero() {
            return Box::pin(async { Ok(to_status(&too_late()).into_http()) });
        }
        // From the call on, not from its first poll: tonic's timer runs already.
        let deadline = Instant::now() + time;
        request.extensions_mut().insert(CallDeadline(deadline));
        let counted = !request.uri().path().starts_with(HEALTH);
        let calls = counted.then(|| Arc::clone(&self.calls));
        // Nothing of the request is read before the first poll.
        let call = self.inner.call(request);
        let in_turn = async move {
            let _place = match &calls {
                Some(calls) => calls.acquire().await.ok(),
                None => None,
            };
            call.await
        };
        Box::pin(async move {
            match tokio::time::timeout_at(deadline, in_turn).await {
                Ok(answer) => answer,
                Err(_) => Ok(to_status(&too_late()).into_http()),
            }
        })
    }
}

fn too_late() -> Error {
    Error::new(
        Kind::Deadline,
        ErrorReason::DeadlineExceeded,
        "the deadline passed before the answer",
    )
}

/// The caller's deadline: up to 8 digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tower::service_fn;

    use super::*;

    /// The status of a call that answers at once, or never.
    async fn code(header: &str, answers: bool) -> Option<String> {
        let inner = service_fn(move |_: Request<()>| async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok::<_, std::convert::Infallible>(Response::new(()))
        });
        let mut service = DeadlineLayer::new(Duration::from_millis(20), 1).layer(inner);
        let request = Request::builder().header("grpc-timeout", header).body(()).unwrap();
        let response = service.call(request).await.unwrap();
        response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_told_so() {
        assert_eq!(code("10m", false).await.as_deref(), Some("4"));
        assert_eq!(code("10S", true).await, None);
    }

    #[tokio::test]
    async fn the_servers_own_limit_holds_without_a_deadline_and_with_a_strange_one() {
        for header in ["1H", "x", "", "123456789S", "5"] {
            assert_eq!(code(header, false).await.as_deref(), Some("4"), "{header}");
        }
    }

    #[tokio::test]
    async fn a_call_too_many_waits_unread_within_its_deadline_and_health_does_not() {
        let read = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let notes = Arc::clone(&read);
        let inner = service_fn(move |request: Request<()>| {
            let notes = Arc::clone(&notes);
            async move {
                notes.lock().push(request.uri().path().to_owned());
                if request.uri().path() == "/hangs" {
                    std::future::pending::<()>().await;
                }
                Ok::<_, std::convert::Infallible>(Response::new(()))
            }
        });
        let mut service = DeadlineLayer::new(Duration::from_secs(30), 1).layer(inner);
        let mut call = |path: &str, timeout: &str| {
            let request = Request::builder().uri(path).header("grpc-timeout", timeout);
            service.call(request.body(()).unwrap())
        };
        let code = |response: Response<()>| response.headers().get("grpc-status").cloned();
        let mut held = call("/hangs", "30S");
        let polled = std::future::poll_fn(|context| Poll::Ready(held.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        let health = format!("{HEALTH}Check");
        assert_eq!(code(call(&health, "30S").await.unwrap()), None);
        assert_eq!(code(call("/late", "20m").await.unwrap()).unwrap(), "4");
        drop(held);
        assert_eq!(code(call("/quick", "30S").await.unwrap()), None);
        assert_eq!(*read.lock(), ["/hangs", &health, "/quick"]);
    }

    #[test]
    fn every_unit_is_read() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            timeout(&headers)
        };
        let milliseconds = [("1H", 3_600_000), ("2M", 120_000), ("3S", 3000), ("4m", 4)];
        for (text, expected) in milliseconds {
            assert_eq!(read(text), Some(Duration::from_millis(expected)), "{text}");
        }
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
    }
}
