//! The body of a reply that knows when it must end: a stream goes on after the call's head, beyond the reach of what bounds a
//! future.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::status::to_status;
use crate::deadline;
use crate::error::Error;
use crate::service::draining;

/// How long after its end a stream that nobody reads is let go of.
const SLACK: Duration = Duration::from_millis(500);

/// What ends a call early.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// When its time is over.
    pub(super) at: Option<Instant>,
    /// When the server wants it to be over.
    pub(super) cut: CancellationToken,
    /// Whether it says what it has to say by then before it is cut: for streams that seldom have anything.
    pub(super) heard_out: bool,
}

/// A body that ends with a status when its time is over.
pub(super) struct Reply<B> {
    inner: Arc<Mutex<Option<B>>>,
    watch: Option<Watch>,
}

/// What a stream watches beside its own frames.
struct Watch {
    time: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    heard_out: bool,
    /// Lets go of the inner body though nobody asks for frames, as when the peer reads nothing.
    guard: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.guard.abort();
    }
}

impl<B> Default for Reply<B> {
    fn default() -> Self {
        Self { inner: Arc::new(Mutex::new(None)), watch: None }
    }
}

impl<B: Send + 'static> Reply<B> {
    /// A body that is whole, or nearly so, when its head is: nothing ends it early.
    pub(super) fn short(inner: B) -> Self {
        Self { inner: Arc::new(Mutex::new(Some(inner))), watch: None }
    }

    /// A stream.
    pub(super) fn stream(inner: B, end: End) -> Self {
        let inner = Arc::new(Mutex::new(Some(inner)));
        let (held, ends) = (Arc::clone(&inner), end.clone());
        let guard = tokio::spawn(async move {
            let time = async {
                match ends.at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = time => {}
                () = ends.cut.cancelled() => {}
            }
            tokio::time::sleep(SLACK).await;
            // Dropped outside the lock: its owner's work ends with it.
            let unread = held.lock().take();
            drop(unread);
        });
        let watch = Watch {
            time: end.at.map(|at| Box::pin(sleep_until(at))),
            cut: Box::pin(end.cut.cancelled_owned()),
            heard_out: end.heard_out,
            guard: guard.abort_handle(),
        };
        Self { inner, watch: Some(watch) }
    }
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        // At once, and not when the guard has heard that it is over: a call's place goes with the body.
        let unread = self.inner.lock().take();
        drop(unread);
    }
}

/// Why a stream ends early.
#[derive(Debug, Clone, Copy)]
enum Over {
    Time,
    Cut { heard_out: bool },
}

impl Watch {
    /// Why the stream ends now, if it does.
    fn over(&mut self, context: &mut Context<'_>) -> Option<Over> {
        if let Some(time) = &mut self.time
            && time.as_mut().poll(context).is_ready()
        {
            return Some(Over::Time);
        }
        let cut = Over::Cut { heard_out: self.heard_out };
        self.cut.as_mut().poll(context).is_ready().then_some(cut)
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Reply<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        // Time first: a stream that always has a frame ends as well.
        let over = this.watch.as_mut().and_then(|watch| watch.over(context));
        let mut held = this.inner.lock();
        let frame = match (held.as_mut(), over) {
            (None, None) => return Poll::Ready(None),
            (Some(inner), None) => Pin::new(inner).poll_frame(context),
            (Some(inner), Some(Over::Cut { heard_out: true })) => {
                if !has_budget_remaining() {
                    // The runtime would let it say nothing, whatever it has to say.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Pin::new(inner).poll_frame(context)
            }
            (_, Some(_)) => Poll::Pending,
        };
        if let (Some(over), Poll::Pending) = (over, &frame) {
            this.watch = None;
            let unread = held.take();
            drop(held);
            drop(unread);
            let error = match over {
                Over::Time => deadline::exceeded(),
                Over::Cut { .. } => draining(),
            };
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&error)))));
        }
        let frame = std::task::ready!(frame);
        if frame.is_none() {
            let ended = held.take();
            drop(held);
            drop(ended);
            this.watch = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.lock().as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.lock().as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

fn trailers(error: &Error) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // Details that fit into no header are left out; code and sentence do.
    drop(to_status(error).add_header(&mut trailers));
    trailers
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;

    /// A body with some frames, and no end.
    struct Says(VecDeque<Bytes>);

    impl Body for Says {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.0
                .pop_front()
                .map_or(Poll::Pending, |said| Poll::Ready(Some(Ok(Frame::data(said)))))
        }
    }

    /// What a stream says that had something to say when it was cut.
    async fn said(heard_out: bool) -> Vec<String> {
        let end = End { at: None, cut: CancellationToken::new(), heard_out };
        end.cut.cancel();
        let inner = Says(["NOT", "SERVING"].map(Bytes::from).into());
        let mut reply = Reply::stream(inner, end);
        let mut said = Vec::new();
        while let Some(Ok(frame)) =
            std::future::poll_fn(|context| Pin::new(&mut reply).poll_frame(context)).await
        {
            said.push(match frame.into_data() {
                Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap();
                    trailers["grpc-status"].to_str().unwrap().to_owned()
                }
            });
        }
        said
    }

    #[tokio::test]
    async fn a_stream_that_is_heard_out_says_what_it_has_to_say_and_then_that_it_is_cut() {
        assert_eq!(said(true).await, ["NOT", "SERVING", "14"]);
    }

    #[tokio::test]
    async fn any_other_stream_is_cut_at_once() {
        assert_eq!(said(false).await, ["14"]);
    }
}
