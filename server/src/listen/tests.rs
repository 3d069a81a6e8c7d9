use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{
    AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf,
};
use tower::service_fn;

use super::*;

/// Refuses one path where it is read and one later, and notes what it is asked.
#[derive(Clone, Default)]
struct Closed(Arc<Mutex<Vec<&'static str>>>);

fn refusal() -> Response<String> {
    let mut response = Response::new("closed".to_owned());
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    response
}

impl Gate<String> for Closed {
    fn ask<Q>(&self, request: &mut Request<Q>) -> Asked<String> {
        self.0.lock().push("read");
        assert!(request.extensions().get::<Peer>().is_some());
        match request.uri().path() {
            "/closed" => Asked::Refused(refusal()),
            "/latest" => Asked::Among(7),
            _ => Asked::Passes,
        }
    }

    fn decide<Q>(&self, number: u64, _: &mut Request<Q>) -> Option<Response<String>> {
        self.0.lock().push("begun");
        assert_eq!(number, 7);
        Some(refusal())
    }
}

fn limits() -> ConnectionLimits {
    let long = Duration::from_secs(600);
    ConnectionLimits {
        connections: 10,
        streams: 10,
        handshake: long,
        header_bytes: 16 << 10,
        local_resets: 10,
        pending_resets: 10,
        keepalive_interval: long,
        keepalive_timeout: long,
        age: long,
        linger: long,
    }
}

/// The reply to a request, to the end of its connection.
async fn ask(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn what_the_gate_refuses_never_reaches_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| {
        notes.lock().push(request.uri().path().to_owned());
        async { Ok::<_, Infallible>(Response::new("open".to_owned())) }
    });
    let serving =
        tokio::spawn(serve(listener, (Closed::default(), service), limits(), Default::default()));
    for path in ["/closed", "/latest"] {
        let refused = ask(address, path).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("closed"), "{refused}");
    }
    let answered = ask(address, "/open").await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("open"), "{answered}");
    assert_eq!(*seen.lock(), ["/open"]);
    serving.abort();
}

/// A stream that notes what each write carries.
#[derive(Debug)]
struct Noted(DuplexStream, Arc<Mutex<Vec<Vec<u8>>>>);

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.1.lock().push(bytes.to_vec());
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Type and stream of the HTTP/2 frames in `bytes` (RFC 9113, section 4.1), as many as are whole.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u32)> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, stream @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let (Some(stream), Some(rest)) = (stream.first_chunk(), bytes.get(9 + length..)) else {
            break;
        };
        frames.push((*kind, u32::from_be_bytes(*stream)));
        bytes = rest;
    }
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_that_come_together_and_are_refused_are_told_so_in_one_write() {
    assert_eq!(refusals_of_three("/closed").await, ["read", "read", "read"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_is_decided_on_when_all_that_was_read_with_it_was_seen_and_told_so_with_the_others()
{
    let asked = refusals_of_three("/latest").await;
    assert_eq!(asked, ["read", "read", "read", "begun", "begun", "begun"]);
}

/// Sends three calls of one path together, sees that one write refuses them all, and gives back what the gate was asked.
async fn refusals_of_three(path: &str) -> Vec<&'static str> {
    const HEADERS: u8 = 1;
    let (mut near, far) = tokio::io::duplex(1 << 16);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new("open".to_owned()))
    });
    let connection = Connection {
        limits: limits(),
        goaway: CancellationToken::new(),
        counters: Default::default(),
        peer: "127.0.0.1:1".parse().unwrap(),
    };
    let (noted, gate) = (Noted(far, Arc::clone(&writes)), Closed::default());
    let serving = tokio::spawn(connection.run(noted, gate.clone(), service));
    // GET http://h and the path in HPACK's static table, and literals that are not kept (RFC 7541, appendix A and section 6.2.2).
    let length = u8::try_from(path.len()).unwrap();
    let head = [b"\x82\x86\x04", [length].as_slice(), path.as_bytes(), b"\x01\x01h"].concat();
    let mut asked = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for stream in [1, 3, 5] {
        // It ends the stream and the headers.
        asked.extend([0, 0, head.len() as u8, HEADERS, 5, 0, 0, 0, stream]);
        asked.extend(&head);
    }
    near.write_all(&asked).await.unwrap();
    let (mut told, mut piece) = (Vec::new(), [0; 4096]);
    let heads = |bytes: &[u8]| frames(bytes).iter().filter(|frame| frame.0 == HEADERS).count();
    while heads(&told) < 3 {
        let length = near.read(&mut piece).await.unwrap();
        assert!(length > 0, "closed after {told:?}");
        told.extend(&piece[..length]);
    }
    let in_each: Vec<usize> =
        writes.lock().iter().map(|write| heads(write)).filter(|heads| *heads > 0).collect();
    assert_eq!(in_each, [3]);
    serving.abort();
    gate.0.lock().clone()
}
