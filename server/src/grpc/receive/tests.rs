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

/// Room that another call has.
fn taken(layer: &ReceiveLayer, bytes: u64) -> Room {
    let mut room = layer.rooms.open(None);
    room.grow(bytes).unwrap();
    room
}

#[tokio::test]
async fn a_message_without_room_is_refused_and_room_comes_back() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let large = message(600 << 10, false);
    let under_way = taken(&layer, 600 << 10);
    let refused = call(&layer, body(&large, 16 << 10, true)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let info = details.error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["limit"].as_str()), ("QUEUE_FULL", "1048576"));
    assert!(details.retry_info().unwrap().retry_delay.is_some());
    let small = message(1000, false);
    assert_eq!(call(&layer, body(&small, 16 << 10, true)).await.unwrap(), small.len());
    drop(under_way);
    for _ in 0..3 {
        assert_eq!(call(&layer, body(&large, 16 << 10, true)).await.unwrap(), large.len());
    }
    assert_eq!(layer.rooms.free(), 1 << 20);
}

#[tokio::test]
async fn what_is_said_and_does_not_come_takes_no_room() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let begun = &message(MESSAGE as u32, false)[..10_000];
    let mut slow: Vec<_> =
        (0..16).map(|_| Box::pin(call(&layer, body(begun, 1000, false)))).collect();
    for one in &mut slow {
        let polled = std::future::poll_fn(|context| Poll::Ready(one.as_mut().poll(context)));
        assert!(polled.await.is_pending());
    }
    assert_eq!(layer.rooms.free(), (1 << 20) - 16 * (10_000 - PREFIX_BYTES as u64));
    let large = message(600 << 10, false);
    assert_eq!(call(&layer, body(&large, 16 << 10, true)).await.unwrap(), large.len());
    drop(slow);
    assert_eq!(layer.rooms.free(), 1 << 20);
}

#[tokio::test]
async fn one_caller_cannot_have_all_room() {
    let layer = ReceiveLayer::new(1 << 20, 100 << 10, PATIENCE);
    let mut hoard = layer.rooms.open(Some([10, 0, 0, 1].into()));
    hoard.grow(512 << 10).unwrap();
    let large = message(100 << 10, false);
    let of = |last: u8| {
        let inner = service_fn(|request: Request<Body>| async move {
            Ok::<_, Infallible>(Response::new(read(request.into_body()).await))
        });
        let mut request = Request::new(body(&large, 16 << 10, true));
        let peer = std::net::SocketAddr::from(([10, 0, 0, last], 7));
        request.extensions_mut().insert(crate::listen::Peer(peer));
        layer.layer(inner).call(request)
    };
    let refused = of(1).await.unwrap().into_body().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("one caller"), "{refused}");
    of(2).await.unwrap().into_body().unwrap();
}

#[tokio::test]
async fn a_compressed_message_counts_as_what_it_may_become() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    assert_eq!(layer.counts(true, 60, true), 0, "it stays small whatever it holds");
    assert_eq!(layer.counts(true, 200, true), 200 * INFLATED);
    assert_eq!(layer.counts(true, 100 << 10, true), MESSAGE as u64);
    assert_eq!(layer.counts(true, 2 << 20, false), 0, "too long by its length alone");
    let short = message(200, true);
    assert_eq!(call(&layer, body(&short, 50, true)).await.unwrap(), short.len());
    let _under_way = taken(&layer, (1 << 20) - (100 << 10));
    call(&layer, body(&short, 50, true)).await.unwrap_err();
    assert_eq!(layer.rooms.free(), 100 << 10);
}

#[tokio::test]
async fn a_call_of_one_message_is_refused_a_second_one_before_they_pile_up() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, PATIENCE);
    let inner = || {
        service_fn(|request: Request<Body>| async move {
            let received = request.extensions().get::<Received>().cloned().unwrap();
            let read = read(request.into_body()).await;
            Ok::<_, Infallible>(Response::new((read, received.0.lock().len())))
        })
    };
    let many = message(0, false).repeat(10_000);
    let ask = |path: &str| {
        let request = Request::builder().uri(path).body(body(&many, 16 << 10, true)).unwrap();
        layer.layer(inner()).call(request)
    };
    let (read, waiting) = ask("/diptych.v1.SearchService/Search").await.unwrap().into_body();
    assert_eq!((read.unwrap_err().code(), waiting), (Code::InvalidArgument, 1));
    let (read, waiting) =
        ask("/diptych.v1.EmbeddingService/EmbedStream").await.unwrap().into_body();
    assert_eq!((read.unwrap(), waiting), (many.len(), 10_000));
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let (read, waiting) = ask(reflection).await.unwrap().into_body();
    assert_eq!((read.unwrap(), waiting), (many.len(), 1), "nobody takes those");
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
    let path = "/diptych.v1.ItemService/IngestItems";
    let stream = body(&stream.concat(), 7001, true);
    let request = Request::builder().uri(path).body(stream).unwrap();
    let received = layer.layer(inner).call(request).await.unwrap().into_body();
    assert_eq!(layer.rooms.free(), (724 << 10) - 10);
    assert!(received.take().is_some());
    assert_eq!(layer.rooms.free(), (824 << 10) - 10);
    assert!(received.take().is_some());
    assert_eq!(layer.rooms.free(), 824 << 10);
    drop(received);
    assert_eq!(layer.rooms.free(), 1 << 20);
}

#[tokio::test]
async fn a_message_that_does_not_come_gives_its_room_back() {
    let layer = ReceiveLayer::new(1 << 20, MESSAGE, Duration::from_millis(1));
    let begun = &message(500 << 10, false)[..1000];
    let refused = call(&layer, body(begun, 100, false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert_eq!(layer.rooms.free(), 1 << 20);
}

#[test]
fn messages_are_found_in_any_pieces() {
    let wire = [message(3, false), message(0, true), message(70_000, false)].concat();
    for piece in [1, 2, 5, 6, 1000, wire.len()] {
        let mut messages = Messages::default();
        let begun: Vec<_> = wire.chunks(piece).flat_map(|data| messages.pieces(data)).collect();
        let begins = |length, compressed| Piece::Begin { length, compressed };
        let bytes = |piece: &Piece| if let Piece::Bytes(bytes) = piece { *bytes } else { 0 };
        assert_eq!(begun.iter().map(bytes).sum::<u64>(), 70_003, "pieces of {piece}");
        let begun: Vec<_> = begun.into_iter().filter(|piece| bytes(piece) == 0).collect();
        assert_eq!(begun, [begins(3, false), begins(0, true), begins(70_000, false)]);
        assert_eq!((messages.left, messages.have), (0, 0));
    }
}

#[test]
fn what_is_not_counted_is_bounded_by_the_number_of_calls() {
    let flags = Flags { queue_items: Some("64".to_owned()), ..Flags::default() };
    let config = Config::resolve(&flags, std::iter::empty()).unwrap();
    assert_eq!(crate::grpc::uncounted_bytes(&config), (2 * 64 + 256) * 5 / 4 * (64 << 10));
}
