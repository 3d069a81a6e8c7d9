//! The layer around handlers that answer, fail, stream and never end. Figures are the process's own, so each test has a method to
//! itself and looks at what was added.

use std::convert::Infallible;

use diptych_proto::v1::ErrorReason;
use tower::service_fn;

use super::super::status::to_status;
use super::*;
use crate::error::Error;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn layer() -> ObserveLayer {
    ObserveLayer::new(Settings { slow_call: Duration::ZERO, otlp_endpoint: None, trace_share: 0.0 })
}

/// A body of frames that are there, and, if it has no trailers among them, of silence after them.
#[derive(Debug, Default)]
struct Frames(Vec<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(self.0.remove(0)))) }
    }
}

fn message() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"\0\0\0\0\x03abc"))
}

fn trailers(status: &tonic::Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    Frame::trailers(trailers)
}

fn request(path: &str) -> Request<()> {
    let mut request = Request::builder().uri(path).body(()).unwrap();
    request.headers_mut().insert(REQUEST_ID, HeaderValue::from_static("mine-1"));
    request.headers_mut().insert(TRACEPARENT, HeaderValue::from_static(TRACE));
    request
}

/// A reply of `frames` under the layer.
async fn reply(path: &str, frames: Vec<Frame<Bytes>>) -> Response<Observed<Frames>> {
    let mut frames = Some(frames);
    let inner = service_fn(move |_: Request<()>| {
        let frames = frames.take().unwrap_or_default();
        async move { Ok::<_, Infallible>(Response::new(Frames(frames))) }
    });
    layer().layer(inner).call(request(path)).await.unwrap()
}

async fn next(body: &mut Observed<Frames>) -> Frame<Bytes> {
    std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.unwrap().unwrap()
}

fn handled(path: &str, code: &str) -> u64 {
    let [kind, service, name] = observed(path).labels();
    METRICS.handled.with_label_values(&[kind, service, name, code]).get()
}

fn in_flight(path: &str) -> f64 {
    METRICS.calls_in_flight.with_label_values(&[observed(path).full.as_str()]).get()
}

#[tokio::test]
async fn a_stream_is_counted_at_its_end_with_its_messages() {
    let path = "/diptych.v1.ItemService/ListItems";
    let ok = trailers(&tonic::Status::new(Code::Ok, ""));
    let response = reply(path, vec![message(), message(), ok]).await;
    assert_eq!((handled(path, "OK"), in_flight(path)), (0, 1.0));
    let mut body = response.into_body();
    for _ in 0..3 {
        next(&mut body).await;
    }
    drop(body);
    assert_eq!((handled(path, "OK"), in_flight(path)), (1, 0.0));
    let labels = observed(path).labels();
    assert_eq!(METRICS.sent.with_label_values(&labels).get(), 2);
    assert_eq!(METRICS.handling_seconds.with_label_values(&labels).get_sample_count(), 1);
    let bytes = METRICS.call_bytes.with_label_values(&["diptych.v1.ItemService/ListItems", "sent"]);
    assert_eq!(bytes.get(), 16);
}

#[tokio::test]
async fn a_caller_that_leaves_counts_as_cancelled_before_the_head_and_after_it() {
    let path = "/diptych.v1.ItemService/GetItem";
    let endless =
        service_fn(|_: Request<()>| std::future::pending::<Result<Response<Frames>, Infallible>>());
    let mut service = layer().layer(endless);
    drop(service.call(request(path)));
    assert_eq!(handled(path, "Canceled"), 1);
    let mut body = reply(path, vec![message()]).await.into_body();
    next(&mut body).await;
    drop(body);
    assert_eq!((handled(path, "Canceled"), in_flight(path)), (2, 0.0));
}

#[tokio::test]
async fn paths_that_callers_make_up_have_one_label() {
    for number in 0..100 {
        let path = format!("/made.up/Method{number}");
        assert_eq!(observed(&path).full, "_other");
        let unimplemented = trailers(&tonic::Status::unimplemented("no such method"));
        let mut body = reply(&path, vec![unimplemented]).await.into_body();
        next(&mut body).await;
    }
    let page = METRICS.page();
    assert!(page.contains("grpc_method=\"_other\""));
    assert!(!page.contains("made.up"), "{page}");
}

#[tokio::test]
async fn the_request_id_is_in_the_metadata_and_in_the_details_of_an_error() {
    let error = Error::missing(ErrorReason::ItemNotFound, "item", "x");
    let path = "/diptych.v1.ItemService/DeleteItems";
    let head = service_fn(move |_: Request<()>| {
        let refused = to_status(&error).into_http::<Frames>();
        async { Ok::<_, Infallible>(refused) }
    });
    let in_head = layer().layer(head).call(request(path)).await.unwrap();
    let error = Error::missing(ErrorReason::ItemNotFound, "item", "x");
    let in_trailers = reply(path, vec![trailers(&to_status(&error))]).await;
    for response in [&in_head, &in_trailers] {
        assert_eq!(response.headers()[REQUEST_ID], "mine-1");
        let span = response.headers()[TRACEPARENT].to_str().unwrap();
        assert!(span.starts_with(&TRACE[..36]) && span != TRACE, "{span}");
    }
    let end = next(&mut in_trailers.into_body()).await.into_trailers().unwrap();
    for headers in [in_head.headers(), &end] {
        use tonic_types::StatusExt as _;
        let status = tonic::Status::from_header_map(headers).unwrap();
        let details = status.get_error_details();
        assert_eq!(details.request_info().unwrap().request_id, "mine-1");
        assert_eq!(details.error_info().unwrap().reason, "ITEM_NOT_FOUND");
        assert_eq!(details.resource_info().unwrap().resource_name, "x");
    }
}

#[test]
fn every_served_method_is_known_and_only_those_that_should_be_quick_are_timed() {
    let timed = |path: &str| observed(path).timed;
    assert!(timed("/diptych.v1.SearchService/Search"));
    for path in [
        "/diptych.v1.EmbeddingService/EmbedStream",
        "/diptych.v1.OperationService/WaitOperation",
        "/grpc.health.v1.Health/Watch",
    ] {
        assert!(!timed(path) && observed(path).full == path[1..], "{path}");
    }
}
