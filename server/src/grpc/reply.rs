//! The body of a reply: it ends in time, and what nobody reads does not stay.
//!
//! A call's places go with the body of its reply, and HTTP/2 asks for no further frame while its peer takes none. A stream has a guard
//! that ends its work when its time is over; what lies in the connection's buffers then goes with the connection (`listen/unread.rs`).
//! What is large is handed on in pieces, so that most of it lies here. One reply that is large has room among all such replies first
//! (`room.rs`), else the caller is refused; streams of large replies see to that themselves.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::task::coop::has_budget_remaining;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::room::{Full, Room, Rooms};
use super::status::to_status;
use crate::deadline;
use crate::error::Error;
use crate::listen::Waiting;
use crate::observe::Shed;
use crate::service::draining;

/// How long after its end a reply that nobody reads is let go of.
const SLACK: Duration = Duration::from_millis(500);
/// Replies up to this length are not counted, and larger ones are handed on in such pieces.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// Room for replies, and whose they are.
#[derive(Debug, Clone)]
pub(super) struct Sending {
    pub(super) rooms: Arc<Rooms>,
    pub(super) caller: Option<IpAddr>,
}

impl Sending {
    /// Room for a reply of so many bytes; `None` for one that is not counted.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL`, with a time to wait.
    pub(super) fn room(&self, bytes: usize) -> Result<Option<Room>, Error> {
        if bytes <= PIECE_BYTES {
            return Ok(None);
        }
        let mut room = self.rooms.open(self.caller);
        room.grow(bytes as u64).map_err(refused)?;
        Ok(Some(room))
    }
}

fn refused(full: Full) -> Error {
    let what = "replies that were not read yet";
    full.refused(Shed::ReplyBytes, what, "read them, or try again later")
}

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
    held: Arc<Mutex<Option<Holding<B>>>>,
    /// What a stream watches beside its own frames.
    watch: Option<Watch>,
    /// Whether its last frame was given.
    ended: bool,
    /// For its connection.
    _unread: Option<Waiting>,
}

/// What goes when nobody reads.
struct Holding<B> {
    body: B,
    /// Its first frame, where that was asked for before.
    first: Option<Frame<Bytes>>,
    /// The rest of a large frame, and its room.
    rest: Bytes,
    room: Option<Room>,
    _counted: Counted,
}

/// Counts a call for as long as its reply is held.
type Counted = Box<dyn Send>;

struct Watch {
    time: Option<Pin<Box<Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    heard_out: bool,
    /// Lets go of the inner body though nobody asks for frames.
    guard: AbortHandle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.guard.abort();
    }
}

impl<B> Default for Reply<B> {
    fn default() -> Self {
        Self { held: Arc::default(), watch: None, ended: true, _unread: None }
    }
}

impl<B: Body<Data = Bytes> + Send + Unpin + 'static> Reply<B> {
    /// A body that is whole when its head is, or nearly so: nothing ends it early but its connection.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL` when it is large and there is no room for it.
    pub(super) fn short(
        mut body: B,
        (unread, counted): (Option<Waiting>, Counted),
        sending: &Sending,
    ) -> Result<Self, Error> {
        if body.is_end_stream() {
            return Ok(Self::default());
        }
        // Whoever sends it asks again for what is not there yet.
        let mut context = Context::from_waker(Waker::noop());
        let first = match Pin::new(&mut body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            Poll::Pending => None,
            Poll::Ready(Some(Err(_)) | None) => return Ok(Self::default()),
        };
        let length = first.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        let room = sending.room(length)?;
        let holding = Holding { body, first, rest: Bytes::new(), room, _counted: counted };
        let held = Arc::new(Mutex::new(Some(holding)));
        Ok(Self { held, watch: None, ended: false, _unread: unread })
    }

    /// A stream.
    pub(super) fn stream(body: B, end: End, (unread, counted): (Option<Waiting>, Counted)) -> Self {
        let rest = Bytes::new();
        let holding = Holding { body, first: None, rest, room: None, _counted: counted };
        let held = Arc::new(Mutex::new(Some(holding)));
        let (watched, ends) = (Arc::clone(&held), end.clone());
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
            let unread = watched.lock().take();
            drop(unread);
        });
        let watch = Watch {
            time: end.at.map(|at| Box::pin(sleep_until(at))),
            cut: Box::pin(end.cut.cancelled_owned()),
            heard_out: end.heard_out,
            guard: guard.abort_handle(),
        };
        Self { held, watch: Some(watch), ended: false, _unread: unread }
    }
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        // At once, and not when the guard has heard that it is over: a call's place goes with the body.
        let unread = self.held.lock().take();
        drop(unread);
    }
}

impl<B: Body<Data = Bytes> + Unpin> Holding<B> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.piece())));
        }
        let frame = match self.first.take() {
            Some(first) => first,
            None => match std::task::ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            },
        };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                self.piece()
            }
            Err(frame) => frame,
        })))
    }

    /// The next piece of a frame; the frame's room goes with the last one.
    fn piece(&mut self) -> Frame<Bytes> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        if self.rest.is_empty() {
            self.room = None;
        }
        Frame::data(piece)
    }

    fn is_end(&self) -> bool {
        self.first.is_none() && self.rest.is_empty() && self.body.is_end_stream()
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
        if this.ended {
            return Poll::Ready(None);
        }
        // Time first: a stream that always has a frame ends as well.
        let over = this.watch.as_mut().and_then(|watch| watch.over(context));
        let mut held = this.held.lock();
        let frame = match (held.as_mut(), over) {
            // The guard has let go of it.
            (None, _) | (Some(_), Some(Over::Time | Over::Cut { heard_out: false })) => {
                Poll::Pending
            }
            (Some(holding), None) => holding.poll(context),
            (Some(holding), Some(Over::Cut { heard_out: true })) => {
                if !has_budget_remaining() {
                    // The runtime would let it say nothing, whatever it has to say.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                holding.poll(context)
            }
        };
        let frame = match (frame, over) {
            (Poll::Ready(Some(Ok(frame))), _) => return Poll::Ready(Some(Ok(frame))),
            (Poll::Ready(ended), _) => ended,
            (Poll::Pending, None) if held.is_some() => return Poll::Pending,
            (Poll::Pending, over) => {
                let error = match over {
                    Some(Over::Cut { .. }) => draining(),
                    Some(Over::Time) | None => deadline::exceeded(),
                };
                Some(Ok(Frame::trailers(trailers(&error))))
            }
        };
        (this.ended, this.watch) = (true, None);
        let unread = held.take();
        drop(held);
        drop(unread);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.held.lock().as_ref().is_some_and(Holding::is_end)
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { SizeHint::default() }
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

    use diptych_proto::v1::ErrorReason;

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

    fn sending(bytes: u64) -> Sending {
        Sending { rooms: Rooms::new(bytes, 0), caller: None }
    }

    fn counted() -> (Option<Waiting>, Counted) {
        (None, Box::new(()))
    }

    fn large(bytes: usize) -> Says {
        Says([Bytes::from(vec![7; bytes])].into())
    }

    async fn next<B: Body<Data = Bytes, Error = Infallible> + Unpin>(
        reply: &mut Reply<B>,
    ) -> Frame<Bytes> {
        let next = std::future::poll_fn(|context| Pin::new(&mut *reply).poll_frame(context));
        next.await.unwrap().unwrap()
    }

    /// What a stream says that had something to say when it was cut.
    async fn said(heard_out: bool) -> Vec<String> {
        let end = End { at: None, cut: CancellationToken::new(), heard_out };
        end.cut.cancel();
        let inner = Says(["NOT", "SERVING"].map(Bytes::from).into());
        let mut reply = Reply::stream(inner, end, counted());
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

    #[tokio::test]
    async fn a_large_reply_has_room_until_its_last_piece_is_taken_and_one_without_is_refused() {
        let sending = sending(250 << 10);
        let mut first = Reply::short(large(100 << 10), counted(), &sending).unwrap();
        let second = Reply::short(large(100 << 10), counted(), &sending).unwrap();
        let Err(refused) = Reply::short(large(100 << 10), counted(), &sending) else {
            panic!("there is no room");
        };
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        assert!(refused.details().retry_after.is_some());
        assert!(Reply::short(large(PIECE_BYTES), counted(), &sending).is_ok(), "it is small");
        let mut read = 0;
        while read < 100 << 10 {
            assert_eq!(sending.rooms.free(), 50 << 10);
            let piece = next(&mut first).await.into_data().unwrap();
            assert!(piece.len() <= PIECE_BYTES && piece.iter().all(|byte| *byte == 7));
            read += piece.len();
        }
        assert_eq!((read, sending.rooms.free()), (100 << 10, 150 << 10));
        drop(second);
        assert_eq!(sending.rooms.free(), 250 << 10);
    }

    #[tokio::test]
    async fn a_large_frame_of_a_stream_comes_in_pieces() {
        let end = End { at: None, cut: CancellationToken::new(), heard_out: false };
        let mut reply = Reply::stream(large(100 << 10), end, counted());
        let mut lengths = Vec::new();
        for _ in 0..2 {
            lengths.push(next(&mut reply).await.into_data().unwrap().len());
        }
        assert_eq!(lengths, [PIECE_BYTES, (100 << 10) - PIECE_BYTES]);
    }
}
