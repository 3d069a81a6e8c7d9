use std::convert::Infallible;

use http_body::Body as _;
use tonic::Code;
use tower::service_fn;

use super::*;
use crate::config::{Config, Flags};

/// A message of `length` zeros as it comes.
fn message(length: u32, compressed: bool) -> Vec<u8> {
    let mut bytes = vec![u8::from(compressed)];
    bytes.extend(length.to_be_bytes());
    bytes.resize(PREFIX_BYTES + length as usize, 0);
    bytes
}

/// A body whose pieces come one after the other and which then ends, or does not.
struct Pieces(VecDeque<Bytes>, bool);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.1 => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

fn body(bytes: &[u8], piece: usize, ends: bool) -> Body {
    Body::new(Pieces(bytes.chunks(piece).map(Bytes::copy_from_slice).collect(), ends))
}

/// Reads a body to its end.
async fn read(body: Body) -> Result<usize, Status> {
    let mut body = body;
    let mut count = 0;
    while let Some(frame) =
        std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
    {
        count += frame?.data_ref().map_or(0, Bytes::len);
    }
    Ok(count)
}

/// What a call that reads its body to the end, and answers, is told.
async fn call(layer: &ReceiveLayer, body: Body) -> Result<usize, Status> {
    let inner = service_fn(|request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        let received = parts.extensions.get::<Received>().cloned();
        Ok::<_, Infallible>(Response::new((read(body).await, received)))
    });
    let (outcome, received) =
        layer.layer(inner).call(Request::new(body)).await.unwrap().into_body();
    drop(received);
    outcome
}

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGE: usize = 1 << 20;

#[tokio::test]
async fn a_message_without_room_is_refused_unread_and_room_comes_back() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let large = message(600 << 10, false);
    let under_way = layer.room(600 << 10, false).unwrap();
    let refused = call(&layer, body(&large, 16 << 10, true)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = tonic_types::StatusExt::get_error_details(&refused);
    assert_eq!(details.error_info().unwrap().reason, "QUEUE_FULL");
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    let small = message(1000, false);
    assert_eq!(call(&layer, body(&small, 16 << 10, true)).await.unwrap(), small.len());
    drop(under_way);
    for _ in 0..3 {
        assert_eq!(call(&layer, body(&large, 16 << 10, true)).await.unwrap(), large.len());
    }
    assert_eq!(layer.room.available_permits(), 1024);
}

#[tokio::test]
async fn a_compressed_message_counts_as_the_largest() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let held = layer.room(100 << 10, true).unwrap();
    assert_eq!(layer.room.available_permits(), 0);
    drop(held);
    assert!(layer.room(2 << 20, false).unwrap().is_none(), "too long by its length alone");
}

#[tokio::test]
async fn messages_of_a_stream_are_taken_one_by_one_in_their_order() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let stream = [message(100 << 10, false), message(10, false), message(200 << 10, false)];
    let inner = service_fn(|request: Request<Body>| async move {
        let (parts, body) = request.into_parts();
        read(body).await.unwrap();
        Ok::<_, Infallible>(Response::new(parts.extensions.get::<Received>().cloned().unwrap()))
    });
    let request = Request::new(body(&stream.concat(), 7001, true));
    let received = layer.layer(inner).call(request).await.unwrap().into_body();
    assert_eq!(layer.room.available_permits(), 1024 - 300);
    assert_eq!(received.take().unwrap().num_permits(), 100);
    assert!(received.take().is_none());
    assert_eq!(layer.room.available_permits(), 1024 - 200);
    drop(received);
    assert_eq!(layer.room.available_permits(), 1024);
}

#[tokio::test]
async fn a_message_that_does_not_come_gives_its_room_back() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, Duration::from_millis(1));
    let begun = &message(500 << 10, false)[..1000];
    let refused = call(&layer, body(begun, 100, false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!(layer.room.available_permits(), 1024);
}

#[test]
fn messages_are_found_in_any_pieces() {
    let wire = [message(3, false), message(0, true), message(70_000, false)].concat();
    for piece in [1, 2, 5, 6, 1000, wire.len()] {
        let mut messages = Messages::default();
        let begun: Vec<_> = wire.chunks(piece).flat_map(|data| messages.begun(data)).collect();
        assert_eq!(begun, [(3, false), (0, true), (70_000, false)], "pieces of {piece}");
        assert_eq!((messages.left, messages.have), (0, 0));
    }
}

#[test]
fn what_is_not_counted_is_bounded_by_the_number_of_calls() {
    let flags = Flags { queue_items: Some("64".to_owned()), ..Flags::default() };
    let config = Config::resolve(&flags, std::iter::empty()).unwrap();
    assert_eq!(crate::grpc::uncounted_bytes(&config), (2 * 64 + 256) * (64 << 10));
}
