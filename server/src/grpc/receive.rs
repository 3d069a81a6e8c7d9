//! Bounds the bytes of requests under way, over all calls and of one caller.
//!
//! A message says its length before its bytes come, and nothing is taken for what is only said: room is taken as the bytes come, and
//! held until the call has been answered, or, for one message of a stream, until what it asks for is done. A message for which there
//! is no room is refused in the midst, with a time to wait; waiting for room would hold up what shares its connection. Small messages
//! of calls that have one are not counted: the number of calls bounds them.

use std::collections::VecDeque;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use diptych_proto::v1::ErrorReason;
use http::{Request, Response};
use http_body::Frame;
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::admission::caller;
use super::room::{Full, Room, Rooms};
use super::status::to_status;
use crate::error::{Error, Kind};
use crate::limits::takes_one_message;
use crate::observe::Shed;
use crate::observe::record::received;

/// Messages up to this length are not counted where a call has one.
pub(super) const FREE_BYTES: u64 = 64 << 10;
/// Bytes that one byte of a compressed message becomes at most (RFC 1951: a match of 258 bytes in two bits).
const INFLATED: u64 = 1032;
/// A flag and a length of four bytes go before every message.
pub(super) const PREFIX_BYTES: usize = 5;

/// Room of the messages of one call that came and were not taken, in their order; `None` for one that is not counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Received(Arc<Mutex<VecDeque<Option<Room>>>>);

impl Received {
    /// The room of the oldest message, for those who work on it beyond its call, or on one of a stream: it is free again when this is
    /// dropped.
    pub(super) fn take(&self) -> Option<Room> {
        self.0.lock().pop_front().flatten()
    }

    fn begin(&self, room: Option<Room>) {
        self.0.lock().push_back(room);
    }

    /// Takes room for `bytes` of the message that is coming.
    fn grow(&self, bytes: u64) -> Result<(), Status> {
        let mut rooms = self.0.lock();
        let Some(Some(room)) = rooms.back_mut() else { return Ok(()) };
        room.grow(bytes).map_err(refused)
    }
}

/// Bounds the bytes of requests.
#[derive(Debug, Clone)]
pub(super) struct ReceiveLayer {
    rooms: Arc<Rooms>,
    message_bytes: u64,
    patience: Duration,
}

impl ReceiveLayer {
    /// Room for `bytes` in messages of at most `message_bytes`, each of which must come within `patience`.
    pub(super) fn new(bytes: u64, message_bytes: usize, patience: Duration) -> Self {
        let message_bytes = message_bytes as u64;
        Self { rooms: Rooms::new(bytes, message_bytes), message_bytes, patience }
    }

    /// The most that a message of `length` bytes takes of the room; nothing for one that is not counted, or that is refused by its
    /// length alone, being longer than any.
    fn counts(&self, single: bool, length: u64, compressed: bool) -> u64 {
        let becomes = if compressed { length.saturating_mul(INFLATED) } else { length };
        match length > self.message_bytes || (single && becomes <= FREE_BYTES) {
            true => 0,
            false => becomes.min(self.message_bytes),
        }
    }
}

fn refused(full: Full) -> Status {
    to_status(&full.refused(Shed::ReceiveBytes, "requests under way", "try again later"))
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
        let path = request.uri().path();
        // Reflection takes none.
        let (single, ours) = (takes_one_message(path), path.starts_with("/diptych."));
        let caller = caller(request.extensions());
        let (mut parts, body) = request.into_parts();
        parts.extensions.insert(received.clone());
        let body = Counted {
            body,
            layer: self.layer.clone(),
            received: received.clone(),
            single,
            is_taken: single || ours,
            caller,
            messages: Messages::default(),
            coming: Coming::default(),
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
    /// Whether the call has one request.
    single: bool,
    /// Whether whoever answers takes the room of each message.
    is_taken: bool,
    caller: Option<IpAddr>,
    messages: Messages,
    coming: Coming,
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
        if let Some(data) = frame.data_ref()
            && let Err(refused) = this.count(data)
        {
            return Poll::Ready(Some(Err(refused)));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// The message that is coming.
#[derive(Debug, Default)]
struct Coming {
    /// How many came before it.
    before: usize,
    /// What its bytes are taken for, at most so many in all; 0 for one that is not counted.
    each: u64,
    most: u64,
    came: u64,
}

impl Counted {
    /// Takes room for the next piece of the body.
    fn count(&mut self, data: &[u8]) -> Result<(), Status> {
        let pieces = self.messages.pieces(data);
        received(data.len(), begun(&pieces));
        for piece in pieces {
            match piece {
                Piece::Begin { length, compressed } => self.begin(length, compressed)?,
                Piece::Bytes(bytes) if self.coming.most > 0 => {
                    self.coming.came += bytes;
                    let held = self.coming.came.saturating_mul(self.coming.each);
                    self.received.grow(held.min(self.coming.most))?;
                }
                Piece::Bytes(_) => {}
            }
        }
        if self.messages.left == 0 || self.coming.most == 0 {
            self.late = None;
        } else if self.late.is_none() {
            self.late = Some(Box::pin(sleep(self.layer.patience)));
        }
        Ok(())
    }

    fn begin(&mut self, length: u64, compressed: bool) -> Result<(), Status> {
        if self.single && self.coming.before > 0 {
            return Err(one_too_many());
        }
        let most = self.layer.counts(self.single, length, compressed);
        if !self.is_taken {
            self.received.0.lock().clear();
        }
        self.received.begin((most > 0).then(|| self.layer.rooms.open(self.caller)));
        self.late = None;
        let each = if compressed { INFLATED } else { 1 };
        self.coming = Coming { before: self.coming.before + 1, each, most, came: 0 };
        Ok(())
    }
}

fn one_too_many() -> Status {
    let message = "the call takes one message and a further one came";
    to_status(&Error::new(Kind::Invalid, ErrorReason::FieldInvalid, message))
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

/// A part of a piece of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// A message of this length begins.
    Begin { length: u64, compressed: bool },
    /// So many bytes of the last message that began.
    Bytes(u64),
}

fn begun(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| matches!(piece, Piece::Begin { .. })).count()
}

impl Messages {
    /// How many messages begin in the next piece of the body.
    pub(super) fn begun(&mut self, data: &[u8]) -> usize {
        begun(&self.pieces(data))
    }

    /// What the next piece of the body holds, but for prefixes that have not ended.
    pub(super) fn pieces(&mut self, mut data: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while !data.is_empty() {
            if self.left > 0 {
                let step = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= step as u64;
                data = &data[step..];
                pieces.push(Piece::Bytes(step as u64));
                continue;
            }
            self.prefix[self.have] = data[0];
            (self.have, data) = (self.have + 1, &data[1..]);
            if self.have == PREFIX_BYTES {
                let [flag, length @ ..] = self.prefix;
                (self.have, self.left) = (0, u32::from_be_bytes(length).into());
                pieces.push(Piece::Begin { length: self.left, compressed: flag != 0 });
            }
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
