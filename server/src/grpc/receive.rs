//! Bounds the bytes of requests under way, over all calls.
//!
//! A message says its length before its bytes come. From then on that many bytes are counted until its call has been answered,
//! or, for one message of a stream, until what it asks for is done. A message for which there is no room is refused before it
//! is read, with a time to wait; waiting for room would hold up what shares its connection. Small messages are not counted:
//! the number of calls bounds them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use diptych_proto::v1::ErrorReason;
use http::{Request, Response};
use http_body::Frame;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::status::to_status;
use crate::error::{Error, Kind};
use crate::observe::record::received;
use crate::observe::{Shed, shed};

/// Messages up to this length are not counted.
pub(super) const FREE_BYTES: u64 = 64 << 10;
/// What the counter counts in.
const UNIT_BYTES: u64 = 1 << 10;
/// A flag and a length of four bytes go before every message.
const PREFIX_BYTES: usize = 5;
/// What a caller who finds no room is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The room of one message; `None` for one that is not counted.
pub(super) type Room = Option<OwnedSemaphorePermit>;

/// Room of the messages of one call that came and were not taken, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Received(Arc<Mutex<VecDeque<Room>>>);

impl Received {
    /// The room of the oldest message, for those who work on the messages of a stream: it is free again when this is dropped.
    pub(super) fn take(&self) -> Room {
        self.0.lock().pop_front().flatten()
    }
}

/// Bounds the bytes of requests.
#[derive(Debug, Clone)]
pub(super) struct ReceiveLayer {
    room: Arc<Semaphore>,
    message_bytes: u64,
    patience: Duration,
}

impl ReceiveLayer {
    /// Room for `bytes` in messages of at most `message_bytes`, each of which must come within `patience`.
    pub(super) fn new(bytes: u64, message_bytes: usize, patience: Duration) -> Self {
        let units = usize::try_from(bytes / UNIT_BYTES).unwrap_or(usize::MAX);
        let room = Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS)));
        Self { room, message_bytes: message_bytes as u64, patience }
    }

    /// Room for a message that says to have `length` bytes, which decompress to more where it is `compressed`.
    fn room(&self, length: u64, compressed: bool) -> Result<Room, Status> {
        // What is longer than any message is refused by its length alone.
        if length > self.message_bytes || (length <= FREE_BYTES && !compressed) {
            return Ok(None);
        }
        let bytes = if compressed { self.message_bytes } else { length };
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(units);
        room.map(Some).map_err(|_| {
            shed(Shed::ReceiveBytes);
            let message = "the server has as many bytes of requests under way as it takes on; try again later";
            let error = Error::new(Kind::Overloaded, ErrorReason::QueueFull, message);
            to_status(&error.retry_after(RETRY_AFTER))
        })
    }
}

impl<S> Layer<S> for ReceiveLayer {
    type Service = Receive<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Receive { inner, layer: self.clone() }
    }
}

/// A service under a [`ReceiveLayer`].
#[derive(Debug, Clone)]
pub(super) struct Receive<S> {
    inner: S,
    layer: ReceiveLayer,
}

impl<S, R> Service<Request<Body>> for Receive<S>
where
    S: Service<Request<Body>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let received = Received::default();
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(received.clone());
        let body = Counted {
            body,
            layer: self.layer.clone(),
            received: received.clone(),
            messages: Messages::default(),
            late: None,
        };
        let call = self.inner.call(Request::from_parts(parts, Body::new(body)));
        Box::pin(async move {
            let answer = call.await;
            // A single message has been dealt with. A stream takes its own.
            drop(received);
            answer
        })
    }
}

/// A request's body whose messages are counted.
struct Counted {
    body: Body,
    layer: ReceiveLayer,
    received: Received,
    messages: Messages,
    /// When a message that has begun to come must be there.
    late: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(late) = &mut this.late else { return Poll::Pending };
                ready!(late.as_mut().poll(context));
                return Poll::Ready(Some(Err(too_slow())));
            }
        };
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        if let Some(data) = frame.data_ref() {
            let begun = this.messages.begun(data);
            received(data.len(), begun.len());
            for (length, compressed) in begun {
                let room = match this.layer.room(length, compressed) {
                    Ok(room) => room,
                    Err(refused) => return Poll::Ready(Some(Err(refused))),
                };
                this.late = room.as_ref().map(|_| Box::pin(sleep(this.layer.patience)));
                this.received.0.lock().push_back(room);
            }
            if this.messages.left == 0 {
                this.late = None;
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

fn too_slow() -> Status {
    let message = "a message took too long to come";
    to_status(&Error::new(Kind::Deadline, ErrorReason::DeadlineExceeded, message))
}

/// Where a body is between its messages.
#[derive(Debug, Default)]
pub(super) struct Messages {
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the prefix that are there.
    have: usize,
    /// Bytes of the message that are still to come.
    left: u64,
}

impl Messages {
    /// The messages that begin in the next piece of the body: length, and whether it is compressed.
    pub(super) fn begun(&mut self, mut data: &[u8]) -> Vec<(u64, bool)> {
        let mut begun = Vec::new();
        while !data.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= step as u64;
                data = &data[step..];
                continue;
            }
            self.prefix[self.have] = data[0];
            (self.have, data) = (self.have + 1, &data[1..]);
            if self.have == PREFIX_BYTES {
                let [flag, length @ ..] = self.prefix;
                (self.have, self.left) = (0, u32::from_be_bytes(length).into());
                begun.push((self.left, flag != 0));
            }
        }
        begun
    }
}

#[cfg(test)]
mod tests;
