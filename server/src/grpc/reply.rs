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

impl Watch {
    /// Why the stream ends now, if it does.
    fn over(&mut self, context: &mut Context<'_>) -> Option<Error> {
        if let Some(time) = &mut self.time
            && time.as_mut().poll(context).is_ready()
        {
            return Some(deadline::exceeded());
        }
        self.cut.as_mut().poll(context).is_ready().then(draining)
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
        if let Some(error) = over {
            this.watch = None;
            let unread = held.take();
            drop(held);
            drop(unread);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&error)))));
        }
        let Some(inner) = held.as_mut() else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(inner).poll_frame(context));
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
