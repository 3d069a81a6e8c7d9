use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tower::service_fn;

use super::*;

/// Refuses one path.
#[derive(Clone)]
struct Closed;

impl Gate<String> for Closed {
    fn refuse<Q>(&self, request: &mut Request<Q>) -> Option<Response<String>> {
        let refuse = |_| {
            let mut response = Response::new("closed".to_owned());
            *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            response
        };
        assert!(request.extensions().get::<Peer>().is_some());
        (request.uri().path() == "/closed").then_some(()).map(refuse)
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
    let serving = tokio::spawn(serve(listener, (Closed, service), limits(), Default::default()));
    let refused = ask(address, "/closed").await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.ends_with("closed"), "{refused}");
    let answered = ask(address, "/open").await;
    assert!(answered.starts_with("HTTP/1.1 200") && answered.ends_with("open"), "{answered}");
    assert_eq!(*seen.lock(), ["/open"]);
    serving.abort();
}
