//! TCP and HTTP/2 to one socket address, and what its failures mean for a call.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::body::Body;

use super::TransportOptions;
use super::gather::Gather;

/// A connection, and the task that ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Body>,
    /// Dropping it leaves the connection to the calls under way.
    pub(super) ended: JoinHandle<()>,
}

/// Connects; the time is the caller's to bound.
pub(super) async fn connect(
    address: SocketAddr,
    options: &TransportOptions,
) -> Result<Connection, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let shaken = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(options.keepalive_interval)
        .keep_alive_timeout(options.keepalive_timeout)
        .handshake(TokioIo::new(Gather::new(stream)))
        .await;
    let (sender, connection) = shaken.map_err(|error| last_cause(&error))?;
    let ended = tokio::spawn(async move {
        // Each call learns itself that the connection broke.
        connection.await.ok();
    });
    Ok(Connection { sender, ended })
}

/// The end of a chain of causes, which says what happened.
pub(super) fn last_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// What is known about a call that the transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    /// Nothing: the server may have done it, or not, or have answered itself.
    #[default]
    Unknown,
    /// The server did not look at it: it may be sent again, whatever it was.
    Unprocessed,
    /// It was not sent: no server is connected and serving.
    NoEndpoint,
}

/// A call that the transport failed.
#[derive(Debug)]
pub struct TransportError {
    fault: Fault,
    message: String,
    source: Option<hyper::Error>,
}

impl TransportError {
    pub(super) fn no_endpoint(summary: &str) -> Self {
        let message = format!("no server is ready: {summary}");
        Self { fault: Fault::NoEndpoint, message, source: None }
    }

    pub(crate) fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|error| error as &(dyn StdError + 'static))
    }
}

impl From<hyper::Error> for TransportError {
    fn from(error: hyper::Error) -> Self {
        let fault = if unprocessed(&error) { Fault::Unprocessed } else { Fault::Unknown };
        let message = "the connection to the server broke".to_owned();
        Self { fault, message, source: Some(error) }
    }
}

/// Whether the server did not look at the call. hyper says canceled of what it did not send, as after a GOAWAY; h2 gives the
/// streams after the last one that a GOAWAY names this error and no others (RFC 9113 section 6.8), and REFUSED_STREAM means the
/// same for one stream (section 8.7).
fn unprocessed(error: &hyper::Error) -> bool {
    if error.is_canceled() {
        return true;
    }
    let mut cause = error.source();
    while let Some(next) = cause {
        if let Some(h2) = next.downcast_ref::<h2::Error>() {
            let refused = h2.is_reset() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            return h2.is_remote() && (h2.is_go_away() || refused);
        }
        cause = next.source();
    }
    false
}

/// One connection as a service, for what asks this server and no other.
#[derive(Debug, Clone)]
pub(super) struct Direct(pub(super) SendRequest<Body>);

impl tower::Service<Request<Body>> for Direct {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = self.0.send_request(request);
        Box::pin(async move { Ok(sent.await?.map(Body::new)) })
    }
}
