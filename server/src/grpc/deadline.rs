//! Deadlines that answer DEADLINE_EXCEEDED, and the end of calls when the server goes down.
//!
//! tonic's own timer answers CANCELLED when a caller's deadline passes, which says that the caller left; so it is not used. This
//! layer takes the shorter of the caller's `grpc-timeout` and the server's own time for the method, ends a little before the
//! caller does, and says what happened: before the reply's head as its whole status, in a stream as its trailers. What a handler
//! calls finds the deadline by [`crate::deadline::current`].
//!
//! A call that still runs when the server is cut off is told UNAVAILABLE `DRAINING`; those who watch health are told so when the
//! server stops listening, for a watch has no end of its own. They hear NOT_SERVING first, also those who ask no sooner.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::admission::caller;
use super::reply::{End, Reply, Sending};
use super::room::Rooms;
use super::status::to_status;
use crate::deadline::{Deadline as CallDeadline, exceeded, within};
use crate::limits::{CallLimits, Caps, HEALTH};
use crate::listen::{Counters, Ends, Unread};
use crate::service::draining;

/// How much earlier than the caller's own timer a call ends, so that the answer is there in time; of a short one a tenth.
const MARGIN: Duration = Duration::from_millis(5);

/// Bounds every call by the caller's `grpc-timeout` and the server's own limits.
#[derive(Debug, Clone)]
pub(super) struct DeadlineLayer {
    caps: Arc<Caps>,
    ends: Ends,
    counters: Arc<Counters>,
    replies: Arc<Rooms>,
}

impl DeadlineLayer {
    /// `replies` is the room that large replies have until they are read.
    pub(super) fn new(
        limits: &CallLimits,
        (ends, counters): (Ends, Arc<Counters>),
        replies: Arc<Rooms>,
    ) -> Self {
        Self { caps: Arc::new(Caps::new(limits)), ends, counters, replies }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Deadline { inner, layer: self.clone() }
    }
}

/// A service under a [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub(super) struct Deadline<S> {
    inner: S,
    layer: DeadlineLayer,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Body<Data = Bytes> + Send + Unpin + 'static,
{
    type Response = Response<Reply<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let cap = self.layer.caps.of(request.uri().path());
        let rooms = Arc::clone(&self.layer.replies);
        let sending = Sending { rooms, caller: caller(request.extensions()) };
        if cap.streams {
            // Who answers in a stream keeps replies ahead of who reads.
            request.extensions_mut().insert(sending.clone());
        }
        let unread = request.extensions().get::<Unread>().cloned();
        let Ends { goaway, cut } = &self.layer.ends;
        let health = request.uri().path().starts_with(HEALTH);
        let cut = if health { goaway } else { cut }.clone();
        let asked = timeout(request.headers()).map(|asked| asked - MARGIN.min(asked / 10));
        let whole = [asked, cap.whole].into_iter().flatten().min();
        let head = whole.map_or(cap.head, |whole| whole.min(cap.head));
        let now = Instant::now();
        let (at, head) = (whole.map(|whole| now + whole), now + head);
        let counted = self.layer.counters.enter(|counters| &counters.calls);
        let call = within(Some(CallDeadline::at(at.unwrap_or(head))), self.inner.call(request));
        Box::pin(async move {
            let answer = tokio::select! {
                biased;
                () = cut.cancelled(), if !health => return Ok(to_status(&draining()).into_http()),
                answer = timeout_at(head, call) => answer,
            };
            let Ok(answer) = answer else { return Ok(to_status(&exceeded()).into_http()) };
            let (head, body) = answer?.into_parts();
            let waiting = unread.zip(at).map(|(unread, at)| unread.begin(at));
            let counted = (waiting, Box::new(counted) as Box<_>);
            let end = End { at, cut, heard_out: health };
            Ok(match cap.streams {
                true => Response::from_parts(head, Reply::stream(body, end, counted)),
                false => match Reply::short(body, counted, &sending) {
                    Ok(reply) => Response::from_parts(head, reply),
                    Err(refused) => to_status(&refused).into_http(),
                },
            })
        })
    }
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
    use std::convert::Infallible;

    use http_body::Frame;
    use tower::service_fn;

    use super::*;
    use crate::deadline;

    const SEARCH: &str = "/diptych.v1.SearchService/Search";
    const STREAM: &str = "/diptych.v1.EmbeddingService/EmbedStream";

    fn layer(ends: &Ends) -> DeadlineLayer {
        let limits = CallLimits {
            timeout: Duration::from_millis(20),
            stream_timeout: Duration::from_millis(40),
            ..CallLimits::wide()
        };
        DeadlineLayer::new(&limits, (ends.clone(), Arc::default()), Rooms::new(1 << 20, 1 << 20))
    }

    /// A body that never has a frame, and may tell that it is dropped.
    #[derive(Debug, Default)]
    struct Endless {
        _dropped: Option<Dropped>,
    }

    #[derive(Debug)]
    struct Dropped(Arc<tokio::sync::Notify>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    /// The service of a handler that answers at once, or never.
    fn service(
        ends: &Ends,
        answers: bool,
    ) -> impl Service<
        Request<()>,
        Response = Response<Reply<Endless>>,
        Error = Infallible,
        Future: Send,
    > + use<> {
        layer(ends).layer(service_fn(move |_: Request<()>| async move {
            if !answers {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Endless::default()))
        }))
    }

    fn request(path: &str, timeout: &str) -> Request<()> {
        Request::builder().uri(path).header("grpc-timeout", timeout).body(()).unwrap()
    }

    fn code(headers: &HeaderMap) -> Option<String> {
        headers.get("grpc-status").map(|code| code.to_str().unwrap().to_owned())
    }

    /// The status in the head of a reply.
    async fn head(header: &str, answers: bool) -> Option<String> {
        let mut service = service(&Ends::default(), answers);
        code(service.call(request(SEARCH, header)).await.unwrap().headers())
    }

    /// The status in the trailers of a stream.
    async fn trailer(response: Response<Reply<Endless>>) -> Option<String> {
        let mut body = response.into_body();
        let next = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context));
        let trailers = next.await.unwrap().unwrap().into_trailers().unwrap();
        assert!(body.is_end_stream());
        code(&trailers)
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_told_so() {
        assert_eq!(head("10m", false).await.as_deref(), Some("4"));
        assert_eq!(head("1n", false).await.as_deref(), Some("4"));
        assert_eq!(head("10S", true).await, None);
    }

    #[tokio::test]
    async fn the_servers_own_limit_holds_without_a_deadline_and_with_a_strange_one() {
        for header in ["1H", "x", "", "123456789S", "5"] {
            assert_eq!(head(header, false).await.as_deref(), Some("4"), "{header}");
        }
    }

    #[tokio::test]
    async fn a_stream_ends_with_a_status_at_the_callers_deadline_or_the_servers() {
        for header in ["10m", "1H"] {
            let mut service = service(&Ends::default(), true);
            let response = service.call(request(STREAM, header)).await.unwrap();
            assert_eq!(code(response.headers()), None);
            assert_eq!(trailer(response).await.as_deref(), Some("4"), "{header}");
        }
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_is_let_go_of() {
        let dropped = Arc::new(tokio::sync::Notify::new());
        let at = Some(Instant::now());
        let end = End { at, cut: Default::default(), heard_out: false };
        let unread = Reply::stream(
            Endless { _dropped: Some(Dropped(Arc::clone(&dropped))) },
            end,
            (None, Box::new(())),
        );
        dropped.notified().await;
        drop(unread);
    }

    #[tokio::test]
    async fn what_runs_when_the_server_is_cut_off_is_told_and_watchers_of_health_before() {
        let ends = Ends::default();
        let stream = service(&ends, true).call(request(STREAM, "1H")).await.unwrap();
        let mut waiting = service(&ends, false);
        let waiting = tokio::spawn(waiting.call(request(SEARCH, "1H")));
        let watching = format!("{HEALTH}Watch");
        let watch = service(&ends, true).call(request(&watching, "1H")).await.unwrap();
        ends.goaway.cancel();
        assert_eq!(trailer(watch).await.as_deref(), Some("14"));
        // One that comes later has a reply to be told it in.
        let late = service(&ends, true).call(request(&watching, "1H")).await.unwrap();
        assert_eq!(code(late.headers()), None);
        assert_eq!(trailer(late).await.as_deref(), Some("14"));
        ends.cut.cancel();
        assert_eq!(trailer(stream).await.as_deref(), Some("14"));
        let told = code(waiting.await.unwrap().unwrap().headers());
        // Its own time may be over first, on a machine with much to do.
        assert!(["14", "4"].contains(&told.as_deref().unwrap()), "{told:?}");
    }

    #[tokio::test]
    async fn what_a_handler_calls_finds_the_deadline() {
        let inner = service_fn(|_: Request<()>| async {
            let left = deadline::current().unwrap().left();
            Ok::<_, Infallible>(Response::builder().header("left", left.as_millis().to_string()))
                .map(|response| response.body(Endless::default()).unwrap())
        });
        let mut service = layer(&Ends::default()).layer(inner);
        let response = service.call(request(SEARCH, "10m")).await.unwrap();
        let left: u64 = response.headers()["left"].to_str().unwrap().parse().unwrap();
        assert!(left < 10, "{left}");
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
