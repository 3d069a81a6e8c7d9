//! From a request to one of several servers: the way of a call below the generated clients.
//!
//! - `target`: addresses as people write them; `resolve`: names to socket addresses, again and again
//! - `connection`: TCP and HTTP/2 to one socket address; `endpoint`: keeps one, and knows its server's health
//! - `table`: all endpoints and their states; `balance`: which of the ready ones takes a call

mod balance;
mod connection;
mod endpoint;
mod gather;
mod health;
mod resolve;
mod table;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, Parts, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;

use self::balance::Counted;
pub(crate) use self::connection::Fault;
pub use self::connection::TransportError;
use self::resolve::{Names, System};
use self::table::{Ready, Table};
use self::target::targets;
use crate::error::{Error, Result};
use crate::trace::TraceContext;

const USER_AGENT: &str = concat!("diptych/", env!("CARGO_PKG_VERSION"));
/// How long before its deadline a call ends its wait for a server.
const MARGIN: Duration = Duration::from_millis(5);

/// How servers are found, reached and watched.
#[derive(Debug, Clone, PartialEq)]
pub struct TransportOptions {
    /// Longest time to a connection whose server has told its health. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest wait of a call for a server that is connected and serving; then it fails with UNAVAILABLE. Default 3 s.
    pub ready_wait: Duration,
    /// Connections to each socket address, 1 or more. One carries as many calls at once as the server allows, 1,000 for Diptych
    /// unless it is told otherwise (`--streams-per-connection`); further ones wait in the client. Default 1.
    pub connections: usize,
    /// Names are resolved again after this time. Default 30 s.
    pub resolve_interval: Duration,
    /// A connection that fails has names resolved again, but not before this time has passed since they last were. Default 5 s.
    pub resolve_pause: Duration,
    /// Wait before a connection is tried again; it doubles from then on. Default 100 ms.
    pub first_backoff: Duration,
    /// Longest wait between tries. Default 10 s.
    pub max_backoff: Duration,
    /// The service whose health is watched; empty for the server as a whole. `None` takes every connected server for serving.
    pub health_service: Option<String>,
    /// How long one watch lasts before it is begun anew: a server that waits for its streams to end is held up for no longer.
    /// Default 30 s.
    pub health_interval: Duration,
    /// The same while the server says that it does not serve, as one does that is going down. Default 1 s.
    pub unhealthy_interval: Duration,
    /// A connection with calls under way is tested after so long a silence. Servers may drop who does so more often. Default 30 s.
    pub keepalive_interval: Duration,
    /// How long the test may take before the connection counts as broken. Default 10 s.
    pub keepalive_timeout: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            ready_wait: Duration::from_secs(3),
            connections: 1,
            resolve_interval: Duration::from_secs(30),
            resolve_pause: Duration::from_secs(5),
            first_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(10),
            health_service: Some(String::new()),
            health_interval: Duration::from_secs(30),
            unhealthy_interval: Duration::from_secs(1),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
        }
    }
}

/// Connections to all servers of a client: a service for the generated clients. Clones share them; the last one closes them.
///
/// Each call goes to the less busy of two ready endpoints drawn at random (power of two choices, by calls in flight). Endpoints
/// that are not connected, or whose server does not say SERVING, get none.
#[derive(Clone)]
pub struct Transport {
    table: Arc<Table>,
    /// What calls belong to.
    trace: Option<Arc<TraceContext>>,
    /// Ends with the last clone.
    _tasks: Arc<Tasks>,
}

struct Tasks(JoinHandle<()>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Transport").field("endpoints", &self.table.summary()).finish()
    }
}

impl Transport {
    /// Begins to connect to `addresses`, comma-separated.
    ///
    /// # Errors
    /// Addresses that are none.
    pub(crate) fn open(addresses: &str, options: TransportOptions) -> Result<Self> {
        Self::open_by(addresses, options, Arc::new(System))
    }

    fn open_by(addresses: &str, options: TransportOptions, names: Arc<dyn Names>) -> Result<Self> {
        let targets = targets(addresses)?;
        let table = Arc::new(Table::new(options));
        let following = resolve::follow(targets, names, Arc::clone(&table));
        let tasks = Arc::new(Tasks(tokio::spawn(following)));
        Ok(Self { table, trace: None, _tasks: tasks })
    }

    /// The same connections, for calls that belong to this trace.
    pub(crate) fn in_trace(&self, trace: TraceContext) -> Self {
        Self { trace: Some(Arc::new(trace)), ..self.clone() }
    }

    /// Waits until a server is connected.
    ///
    /// # Errors
    /// No server can be reached, or none in time.
    pub(crate) async fn connected(&self, addresses: &str) -> Result<()> {
        let deadline = after(self.table.options.connect_timeout);
        let mut changes = self.table.changes();
        let failed = |why: &str| {
            let message = format!("cannot reach a Diptych server at {addresses}: {why}");
            Err(Error::new(tonic::Code::Unavailable, message))
        };
        loop {
            match self.table.reached() {
                Some(Ok(())) => return Ok(()),
                Some(Err(why)) => return failed(&why),
                None => {}
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return failed("no answer in time");
            }
        }
    }

    /// An endpoint for a call, waited for if there is none now.
    async fn ready(&self, route: &Route) -> std::result::Result<Ready, TransportError> {
        let avoid = route.last();
        if let Some(ready) = balance::pick(&self.table, avoid) {
            return Ok(ready);
        }
        // Not to the call's own deadline: who waits in vain is to learn for what.
        let longest = after(self.table.options.ready_wait);
        let deadline = match route.deadline.and_then(|deadline| deadline.checked_sub(MARGIN)) {
            Some(deadline) => deadline.min(longest),
            None => longest,
        };
        let mut changes = self.table.changes();
        loop {
            if let Some(ready) = balance::pick(&self.table, avoid) {
                return Ok(ready);
            }
            if timeout_at(deadline, changes.changed()).await.is_err() {
                return Err(TransportError::no_endpoint(&self.table.summary()));
            }
        }
    }

    async fn send(
        self,
        mut request: Request<Body>,
    ) -> std::result::Result<Response<Body>, TransportError> {
        let route = request.extensions().get::<Route>().cloned().unwrap_or_default();
        let Ready { endpoint, mut sender } = self.ready(&route).await?;
        route.note(endpoint.address, &self.table);
        address(&mut request, &endpoint.authority);
        if let Some(trace) = &self.trace {
            trace.put(request.headers_mut());
        }
        let counted = Counted::begin(Arc::clone(&endpoint));
        match sender.send(request).await {
            Ok(response) => Ok(response.map(|incoming| Body::new(counted.body(incoming)))),
            Err(error) => {
                // Whoever keeps the connection may not have seen yet that it takes no more calls.
                if sender.is_closed() {
                    endpoint.closed();
                }
                Err(error)
            }
        }
    }
}

/// The time that is so far ahead; a year when it cannot be said.
pub(crate) fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400))
}

/// Addresses a request to the server that was chosen for it.
fn address(request: &mut Request<Body>, authority: &Authority) {
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
}

/// Where the attempts of one call went, so that the next one goes elsewhere if it can.
#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    went: Arc<Mutex<Went>>,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Went {
    /// The last server asked.
    last: Option<SocketAddr>,
    /// Whether there was another one.
    others: bool,
}

impl Route {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { went: Arc::default(), deadline: Some(deadline) }
    }

    /// Whether the next attempt can go to another server than the last one.
    pub(crate) fn has_others(&self) -> bool {
        self.went.lock().others
    }

    fn last(&self) -> Option<SocketAddr> {
        self.went.lock().last
    }

    fn note(&self, address: SocketAddr, table: &Table) {
        let others = table.ready().iter().any(|ready| ready.endpoint.address != address);
        *self.went.lock() = Went { last: Some(address), others };
    }
}

impl tower::Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = TransportError;
    type Future =
        Pin<Box<dyn Future<Output = std::result::Result<Response<Body>, TransportError>> + Send>>;

    /// Always ready: a call waits for a server in its own time.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
