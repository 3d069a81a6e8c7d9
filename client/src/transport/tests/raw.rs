//! HTTP/2 by hand, for what no gRPC server does on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that refuses so many streams of each connection unprocessed, and answers the others with an empty message; with the
/// number of streams that it has seen.
pub(super) async fn refuses_first_streams(count: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<AtomicUsize>::default();
    let all = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, count, Arc::clone(&all)));
        }
    });
    (address, seen)
}

/// A server that ends so many connections by a GOAWAY of this code, which says that not even the first call was looked at, and
/// serves all others.
pub(super) async fn ends_first_connections(count: usize, code: Reason) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for _ in 0..count {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(go_away(stream, code));
        }
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(stream, 0, Arc::default()));
        }
    });
    address
}

async fn answer_all(stream: TcpStream, refused: usize, all: Arc<AtomicUsize>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let mut seen = 0;
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        seen += 1;
        all.fetch_add(1, Ordering::Relaxed);
        if seen <= refused {
            respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            answer(respond);
        }
    }
}

fn answer(mut respond: h2::server::SendResponse<bytes::Bytes>) {
    let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    // Not compressed, no bytes.
    stream.send_data(bytes::Bytes::from_static(&[0; 5]), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
}

const PREFACE: usize = 24;
const HEADERS: u8 = 1;
/// SETTINGS without any.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// GOAWAY of eight bytes: the last stream, none, and a code.
const GOAWAY: [u8; 13] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Reads up to the first call and ends the connection; the client closes it.
async fn go_away(mut stream: TcpStream, code: Reason) {
    stream.read_exact(&mut [0; PREFACE]).await.unwrap();
    stream.write_all(&SETTINGS).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
        if head[3] == HEADERS {
            break;
        }
    }
    stream.write_all(&GOAWAY).await.unwrap();
    stream.write_all(&u32::from(code).to_be_bytes()).await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.ok();
}
