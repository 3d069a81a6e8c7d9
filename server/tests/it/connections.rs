//! Connections that misbehave, and connections too many: each is bounded, and the others do not notice.

use std::sync::atomic::Ordering;
use std::time::Duration;

use diptych_proto::v1;
use diptych_proto::v1::embedding_service_client::EmbeddingServiceClient;
use diptych_proto::v1::info_service_client::InfoServiceClient;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::support::*;
use super::wire::{framed, tells, web};

/// What an HTTP/2 client says first: the preface and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Far above what is promised; promises are not what is tested by it.
const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(&server.address).await.unwrap()
}

/// Waits until the server has closed a connection.
async fn closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut rest)).await;
    drop(ended.expect("the connection is still open"));
}

async fn still_serves(server: &Server) {
    let request = v1::GetServerInfoRequest {};
    server.info().get_server_info(request).await.unwrap();
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_dribbles_is_closed() {
    let server = Server::with_flags(&["--handshake-timeout=100ms"]).await;
    let silent = connect(&server).await;
    let mut dribbling = connect(&server).await;
    dribbling.write_all(&PREFACE[..10]).await.unwrap();
    let mut greeting = connect(&server).await;
    greeting.write_all(PREFACE).await.unwrap();
    closed(silent).await;
    closed(dribbling).await;
    assert_eq!(server.counters.silent.load(Ordering::Relaxed), 2);
    // Who greeted is still there, and so is the tests' own connection.
    assert_eq!(server.counters.connections.load(Ordering::Relaxed), 2);
    still_serves(&server).await;
    drop(greeting);
}

#[tokio::test]
async fn headers_that_never_end_are_closed_by_the_keepalive() {
    let flags = ["--keepalive-interval=100ms", "--keepalive-timeout=100ms"];
    let server = Server::with_flags(&flags).await;
    let mut slow = connect(&server).await;
    slow.write_all(PREFACE).await.unwrap();
    // HEADERS of stream 1 without END_HEADERS, one byte of them: no frame but CONTINUATION may follow, no PING's answer either.
    slow.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await.unwrap();
    closed(slow).await;
    let mut slow = connect(&server).await;
    slow.write_all(b"POST /diptych.v1.InfoService/GetServerInfo HTTP/1.1\r\nx: ").await.unwrap();
    closed(slow).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn a_peer_that_is_gone_without_a_word_is_closed_by_the_keepalive() {
    let flags = ["--keepalive-interval=100ms", "--keepalive-timeout=100ms"];
    let server = Server::with_flags(&flags).await;
    let mut gone = connect(&server).await;
    gone.write_all(PREFACE).await.unwrap();
    closed(gone).await;
    still_serves(&server).await;
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once_and_a_place_comes_back() {
    let server = Server::with_flags(&["--max-connections=3"]).await;
    let second = connect(&server).await;
    let connections = &server.counters.connections;
    until("two connections", || connections.load(Ordering::Relaxed) == 2).await;
    // One caller may have half.
    closed(connect(&server).await).await;
    assert_eq!(server.counters.refused.load(Ordering::Relaxed), 1);
    still_serves(&server).await;
    let third = connect_from([127, 0, 0, 2], &server).await;
    until("three connections", || connections.load(Ordering::Relaxed) == 3).await;
    closed(connect_from([127, 0, 0, 3], &server).await).await;
    drop(third);
    drop(second);
    until("a place", || connections.load(Ordering::Relaxed) == 1).await;
    let address = format!("http://{}", server.address);
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let request = v1::GetServerInfoRequest {};
    InfoServiceClient::new(channel).get_server_info(request).await.unwrap();
}

/// A connection from another address of this machine.
async fn connect_from(address: [u8; 4], server: &Server) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(server.address.parse().unwrap()).await.unwrap()
}

/// A stream of inputs that stays open until it is dropped.
struct OpenStream {
    replies: tonic::Streaming<v1::EmbedStreamResponse>,
    _inputs: tokio::sync::mpsc::Sender<v1::EmbedStreamRequest>,
}

async fn open_stream(channel: Channel) -> OpenStream {
    let (inputs, receiver) = tokio::sync::mpsc::channel(1);
    let inputs_out = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = EmbeddingServiceClient::new(channel);
    let replies = client.embed_stream(inputs_out).await.unwrap().into_inner();
    OpenStream { replies, _inputs: inputs }
}

#[tokio::test]
async fn a_caller_with_too_many_streams_is_refused_with_a_time_to_wait_and_other_calls_are_not() {
    let server = Server::with_flags(&["--calls-per-caller=2"]).await;
    let mut held = vec![open_stream(server.channel.clone()).await];
    held.push(open_stream(server.channel.clone()).await);
    let mut embedding = EmbeddingServiceClient::new(server.channel.clone());
    let status = embedding.embed_stream(tokio_stream::empty()).await.unwrap_err();
    let told = refusal(&status);
    assert_eq!((told.code, told.reason.as_str()), (Code::ResourceExhausted, "TOO_MANY_CALLS"));
    assert_eq!(told.limit, Some(2));
    use tonic_types::StatusExt as _;
    assert!(status.get_error_details().retry_info().is_some());
    let request = HealthCheckRequest { service: String::new() };
    HealthClient::new(server.channel.clone()).check(request).await.unwrap();
    still_serves(&server).await;
    // A stream's place is given back when it ends.
    held.pop();
    let calls = &server.counters.calls;
    until("one call under way", || calls.load(Ordering::Relaxed) == 1).await;
    embedding.embed_stream(tokio_stream::empty()).await.unwrap();
}

#[tokio::test]
async fn a_stream_ends_at_the_servers_time_for_its_method_with_a_reason() {
    let server = Server::with_flags(&["--method-timeouts=EmbedStream=100ms"]).await;
    let mut stream = open_stream(server.channel.clone()).await;
    let told = refusal(&stream.replies.message().await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"));
    until("no call under way", || server.counters.calls.load(Ordering::Relaxed) == 0).await;
}

// By hand, for tonic's client would end the stream itself.
#[tokio::test]
async fn a_stream_and_a_slow_body_end_at_the_callers_deadline() {
    let server = Server::with_things().await;
    let search = ask("things", v1::Modality::Image, by_text("a")).encode_to_vec();
    let searches =
        v1::BatchSearchRequest { searches: vec![ask("things", v1::Modality::Image, by_text("a"))] };
    // More is announced than comes.
    let whole = framed(&search);
    let cut = &whole[..whole.len() - 1];
    let slow = tokio::time::timeout(PATIENCE, async {
        let mut socket = connect(&server).await;
        let head = format!(
            "POST /diptych.v1.SearchService/Search HTTP/1.1\r\nhost: {}\r\nx-grpc-web: 1\r\n\
             content-type: application/grpc-web+proto\r\ngrpc-timeout: 200m\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            server.address,
            whole.len()
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(cut).await.unwrap();
        let mut response = Vec::new();
        socket.read_to_end(&mut response).await.unwrap();
        String::from_utf8_lossy(&response).to_lowercase()
    });
    let response = slow.await.unwrap();
    assert!(tells(&response, Code::DeadlineExceeded as u8), "{response}");
    // One with time enough is answered as ever.
    let path = "/diptych.v1.SearchService/BatchSearch";
    let body = framed(&searches.encode_to_vec());
    let response = web(&server, path, "grpc-timeout: 50S\r\n", &body).await;
    assert!(tells(&response, Code::Ok as u8), "{response}");
}

#[tokio::test]
async fn headers_beyond_the_limit_are_refused_and_the_connection_goes_on() {
    let server = Server::with_flags(&["--header-bytes=1KiB"]).await;
    let mut request = tonic::Request::new(v1::GetServerInfoRequest {});
    request.metadata_mut().insert("x-long", "x".repeat(4096).parse().unwrap());
    server.info().get_server_info(request).await.unwrap_err();
    still_serves(&server).await;
    assert_eq!(server.counters.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn calls_beyond_the_streams_of_a_connection_wait_for_one() {
    let server = Server::with_flags(&["--streams-per-connection=1"]).await;
    let held = open_stream(server.channel.clone()).await;
    let mut info = server.info();
    let second =
        tokio::spawn(
            async move { info.get_server_info(v1::GetServerInfoRequest {}).await.map(|_| ()) },
        );
    // Another connection has streams of its own.
    let address = format!("http://{}", server.address);
    let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
    let request = v1::GetServerInfoRequest {};
    InfoServiceClient::new(channel).get_server_info(request).await.unwrap();
    assert!(!second.is_finished());
    drop(held);
    second.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_grew_old_is_replaced_and_its_stream_goes_on() {
    use std::error::Error as _;
    let server = Server::with_flags(&["--connection-age=50ms"]).await;
    let mut held = open_stream(server.channel.clone()).await;
    let connections = &server.counters.connections;
    let mut seen = 0;
    // The old one lives for its stream; the channel makes others, which grow old in their turn.
    while seen < 2 {
        let answer = server.info().get_server_info(v1::GetServerInfoRequest {}).await;
        // A call that its own client did not send any more has an error of the client's as its source.
        assert!(answer.as_ref().err().is_none_or(|status| status.source().is_some()), "{answer:?}");
        seen = seen.max(connections.load(Ordering::Relaxed));
    }
    let polled = tokio::time::timeout(Duration::from_millis(50), held.replies.message()).await;
    assert!(polled.is_err(), "the stream was ended: {polled:?}");
}

#[tokio::test]
async fn going_down_does_not_wait_for_who_never_closes_once_no_call_runs() {
    let server = Server::start().await;
    let mut mute = connect(&server).await;
    mute.write_all(PREFACE).await.unwrap();
    let silent = connect(&server).await;
    let connections = &server.counters.connections;
    until("three connections", || connections.load(Ordering::Relaxed) == 3).await;
    // Never cut: it ends by itself.
    server.ends.goaway.cancel();
    closed(mute).await;
    closed(silent).await;
    until("no connection", || connections.load(Ordering::Relaxed) == 0).await;
    TcpStream::connect(&server.address).await.unwrap_err();
}

#[tokio::test]
async fn a_stream_of_inputs_is_told_to_go_on_elsewhere_when_the_server_winds_down() {
    let server = Server::start().await;
    let mut stream = open_stream(server.channel.clone()).await;
    server.service.wind_down();
    server.ends.goaway.cancel();
    let told = refusal(&stream.replies.message().await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "DRAINING"));
}

#[tokio::test]
async fn a_stream_whose_caller_says_nothing_is_ended_and_may_be_opened_again() {
    let server = Server::with_flags(&["--stream-idle-timeout=50ms"]).await;
    let mut stream = open_stream(server.channel.clone()).await;
    let told = refusal(&stream.replies.message().await.unwrap_err());
    assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, "STREAM_IDLE"));
    open_stream(server.channel.clone()).await;
}

/// A connection whose peer lets no byte of a reply through.
async fn deaf(server: &Server) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    endpoint.initial_stream_window_size(0).connect().await.unwrap()
}

/// A call whose reply is not read, under way by now.
async fn unread(server: &Server) -> tokio::task::JoinHandle<()> {
    let mut info = InfoServiceClient::new(deaf(server).await);
    let call = tokio::spawn(async move {
        drop(info.get_server_info(v1::GetServerInfoRequest {}).await);
    });
    until("a call under way", || server.counters.calls.load(Ordering::Relaxed) == 1).await;
    call
}

#[tokio::test]
async fn a_reply_that_nobody_reads_gives_its_place_back_in_time() {
    let server = Server::with_flags(&["--timeout=300ms"]).await;
    let unread = unread(&server).await;
    until("no call under way", || server.counters.calls.load(Ordering::Relaxed) == 0).await;
    unread.abort();
    still_serves(&server).await;
}

#[tokio::test]
async fn a_connection_whose_peer_reads_nothing_is_closed_in_the_end() {
    let flags = ["--timeout=100ms", "--stream-timeout=100ms", "--connection-age=100ms"];
    let server = Server::with_flags(&flags).await;
    let unread = unread(&server).await;
    until("no connection", || server.counters.connections.load(Ordering::Relaxed) == 0).await;
    unread.abort();
}

#[tokio::test]
async fn a_connection_that_is_old_is_closed_after_the_longest_call_though_health_is_watched() {
    let flags = ["--timeout=100ms", "--stream-timeout=100ms", "--connection-age=100ms"];
    let server = Server::with_flags(&flags).await;
    let request = HealthCheckRequest { service: String::new() };
    // A watch has no end of its own.
    let watch = HealthClient::new(deaf(&server).await).watch(request).await.unwrap();
    until("no connection", || server.counters.connections.load(Ordering::Relaxed) == 0).await;
    drop(watch);
}
