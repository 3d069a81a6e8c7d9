//! HTTP/2 by hand, for what no gRPC server does on demand.

use std::net::SocketAddr;

use h2::Reason;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::TcpListener;

/// A server that refuses so many streams of each connection unprocessed, and answers the others with an empty message.
pub(super) async fn refuses_first_streams(count: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut seen = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    seen += 1;
                    if seen <= count {
                        respond.send_reset(Reason::REFUSED_STREAM);
                    } else {
                        answer(respond);
                    }
                }
            });
        }
    });
    address
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
