//! TCP and HTTP/2 to one socket address, and what its failures mean for a call.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
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
    pub(super) sender: Sender,
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
    Ok(Connection { sender: Sender { requests: sender, ending: Arc::default() }, ended })
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
    /// It was not sent, or only after the last call that the server still took from a connection which it ended in good order: it
    /// may be sent again over another connection, whatever it was and however often this happens.
    Unsent,
    /// The server turned it away without looking at it: it may be sent again, whatever it was, but is a load on who has too much
    /// to do.
    Refused,
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

    /// One that a test makes.
    #[cfg(test)]
    pub(crate) fn of(fault: Fault) -> Self {
        Self { fault, message: String::new(), source: None }
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
        let fault = fault(&error);
        let message = "the connection to the server broke".to_owned();
        Self { fault, message, source: Some(error) }
    }
}

/// What hyper and h2 know. hyper says canceled of what it did not send, as after a GOAWAY; h2 gives the streams after the last one
/// that a GOAWAY names this error and no others (RFC 9113 section 6.8), and REFUSED_STREAM means the same for one stream (section
/// 8.7). A GOAWAY with another code than NO_ERROR is a complaint, such as ENHANCE_YOUR_CALM, and no invitation to come back at once.
fn fault(error: &hyper::Error) -> Fault {
    if error.is_canceled() {
        return Fault::Unsent;
    }
    let mut cause = error.source();
    while let Some(next) = cause {
        if let Some(h2) = next.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::NO_ERROR) if h2.is_remote() && h2.is_go_away() => Fault::Unsent,
                Some(_) if h2.is_remote() && h2.is_go_away() => Fault::Refused,
                Some(h2::Reason::REFUSED_STREAM) if h2.is_remote() => Fault::Refused,
                _ => Fault::Unknown,
            };
        }
        cause = next.source();
    }
    Fault::Unknown
}

/// The way into one connection. A service too, for what asks this server and no other.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    requests: SendRequest<Body>,
    /// A call has learned that the connection takes no more, which hyper may not have told the others yet.
    ending: Arc<AtomicBool>,
}

impl Sender {
    /// Whether the connection takes no more calls.
    pub(super) fn is_closed(&self) -> bool {
        self.requests.is_closed() || self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn send(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TransportError>> + Send + use<> {
        let sent = self.requests.send_request(request);
        let ending = Arc::clone(&self.ending);
        async move {
            let error = match sent.await {
                Ok(response) => return Ok(response),
                Err(error) => TransportError::from(error),
            };
            // Its repeat must not come here again, however soon it is sent.
            if error.fault() == Fault::Unsent {
                ending.store(true, Ordering::Relaxed);
            }
            Err(error)
        }
    }
}

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sent = self.send(request);
        Box::pin(async move { Ok(sent.await?.map(Body::new)) })
    }
}
