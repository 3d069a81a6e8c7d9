//! The replies of a stream: a bounded channel, and an end that is always told.
//!
//! Who answers may be slower or faster than who reads. A place in the channel is reserved before an input is read, so that
//! nothing is taken on whose reply has no room, and who answers never waits. How the stream ended travels beside the replies:
//! telling it never waits either, and a stream whose task broke off is never mistaken for one that is complete.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::deadline;
use crate::error::{Error, Kind};

/// Bytes of inputs that a stream works on at once; one that is larger comes alone.
const BYTES: u32 = 32 << 20;

/// What the caller reads.
#[derive(Debug)]
pub(crate) struct Replies<T> {
    replies: Receiver<T>,
    end: Option<oneshot::Receiver<Result<(), Status>>>,
}

/// Runs `work`, which answers through the channel it is given, in a task of its own within the call's deadline; at most `places`
/// replies wait to be read.
pub(super) fn answered<T, F>(places: usize, work: impl FnOnce(Sender<T>) -> F) -> Replies<T>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, replies) = mpsc::channel(places);
    let (end, ends) = oneshot::channel();
    let work = work(sender);
    tokio::spawn(deadline::inherited(async move {
        // A caller that left does not need to know.
        drop(end.send(work.await));
    }));
    Replies { replies, end: Some(ends) }
}

impl<T> Stream for Replies<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(reply) = ready!(self.replies.poll_recv(context)) {
            return Poll::Ready(Some(Ok(reply)));
        }
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let told = ready!(Pin::new(end).poll(context));
        self.end = None;
        let told = told.unwrap_or_else(|_| Err(Error::internal("the stream ended early").into()));
        Poll::Ready(told.err().map(Err))
    }
}

/// The next message of a stream of requests, for which nobody waits longer than `idle`.
pub(super) async fn next_within<T>(
    requests: &mut Streaming<T>,
    idle: Duration,
) -> Result<Option<T>, Status> {
    timeout(idle, requests.message()).await.unwrap_or_else(|_| {
        let message = format!(
            "no message came for {} seconds; open the stream again when there is one",
            idle.as_secs_f64()
        );
        Err(Error::new(Kind::Unavailable, ErrorReason::StreamIdle, message).into())
    })
}

/// What one stream may work on at once. Unlike the room of all requests (`receive.rs`), which refuses, it is waited for, and the
/// caller with it: so one stream alone comes nowhere near the other bound.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Semaphore>);

impl Share {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BYTES as usize)))
    }

    /// Waits until there is room for an input of so many bytes. It is given back with what this gives.
    pub(super) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).unwrap_or(BYTES).min(BYTES);
        Arc::clone(&self.0).acquire_many_owned(bytes).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;
    use tonic::Code;

    use super::*;

    #[tokio::test]
    async fn the_end_comes_after_the_last_reply_though_nobody_reads_while_it_is_told() {
        let mut replies = answered(2, |sender| async move {
            sender.send(1).await.unwrap();
            sender.send(2).await.unwrap();
            Err(Status::aborted("enough"))
        });
        assert_eq!(replies.next().await.unwrap().unwrap(), 1);
        assert_eq!(replies.next().await.unwrap().unwrap(), 2);
        assert_eq!(replies.next().await.unwrap().unwrap_err().code(), Code::Aborted);
        assert!(replies.next().await.is_none());
    }

    #[tokio::test]
    async fn a_task_that_broke_off_is_no_good_end() {
        let (go, gone) = oneshot::channel::<()>();
        let mut replies = answered(2, |_: Sender<()>| async move {
            // Dropped without a word: this fails.
            gone.await.map_err(|_| ()).unwrap();
            Ok(())
        });
        drop(go);
        assert_eq!(replies.next().await.unwrap().unwrap_err().code(), Code::Internal);
        let mut well = answered(1, |_: Sender<()>| async { Ok(()) });
        assert!(well.next().await.is_none());
    }

    #[tokio::test]
    async fn inputs_wait_for_room_and_a_large_one_comes_alone() {
        let share = Share::new();
        let large = share.take(usize::MAX).await.unwrap();
        let mut small = Box::pin(share.take(1));
        let polled = std::future::poll_fn(|context| Poll::Ready(small.as_mut().poll(context)));
        assert!(polled.await.is_pending());
        drop(large);
        assert!(small.await.is_some());
    }
}
