//! A listener that stays up: takes connections within limits, greets, ages and drains them.
//!
//! Ours and not tonic's, because tonic bounds neither connections nor the time to a connection's first frame, tries again without
//! a pause when the system has no file left, and leaves connections to themselves once its own future is dropped. Serves HTTP/2
//! and, for gRPC-Web and probes, HTTP/1.
//!
//! `connection` is the life of one connection, `greeting` tells whether it ever said something, `calls` hands its requests on, `unread`
//! knows which replies were not read.

mod calls;
mod connection;
mod greeting;
#[cfg(test)]
mod tests;
mod unread;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
pub(crate) use self::unread::{Unread, Waiting};
use crate::callers::{Callers, caller};
use crate::limits::ConnectionLimits;

/// Pause after the system refused to accept: it has no file left, and trying at once would only burn the processor.
const BREATH: Duration = Duration::from_millis(100);
/// Time for the last words of calls that were cut to leave.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long no call may run, once told to drain, before what is still connected counts as gone.
const SILENCE: Duration = Duration::from_secs(2);
/// Between two looks at the calls that run while draining.
const GLANCE: Duration = Duration::from_millis(100);

/// The two ends of a listener.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    /// Take nothing new, tell peers to go elsewhere (GOAWAY), finish what was accepted.
    pub goaway: CancellationToken,
    /// Answer UNAVAILABLE to what still runs, and close.
    pub cut: CancellationToken,
}

/// What a listener has seen.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections now.
    pub connections: AtomicUsize,
    /// Calls now, each until its reply's end.
    pub calls: AtomicUsize,
    /// Connections closed at once, because there were as many as there may be.
    pub refused: AtomicUsize,
    /// Connections closed because they said nothing in time.
    pub silent: AtomicUsize,
}

impl Counters {
    /// Counts in `gauge` for as long as the result lives.
    pub(crate) fn enter(
        self: &Arc<Self>,
        gauge: fn(&Self) -> &AtomicUsize,
    ) -> impl Drop + Send + Unpin + use<> {
        gauge(self).fetch_add(1, Ordering::Relaxed);
        Counted { counters: Arc::clone(self), gauge }
    }
}

struct Counted {
    counters: Arc<Counters>,
    gauge: fn(&Counters) -> &AtomicUsize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.counters).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The other end of a connection, among a request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Refuses requests before anything works for them.
pub trait Gate<B>: Clone + Send + Sync + 'static {
    /// Asked where a request is read. What the gate has to tell of one that passes is among its extensions then.
    fn ask<Q>(&self, request: &mut Request<Q>) -> Asked<B>;

    /// Asked of [`Asked::Among`], by its number, when the request's own task begins: all that was read with it was asked by then.
    /// The refusal, or nothing for one that passes.
    fn decide<Q>(&self, number: u64, request: &mut Request<Q>) -> Option<Response<B>>;
}

/// What becomes of a request where it is read.
#[derive(Debug)]
pub enum Asked<B> {
    /// It goes on.
    Passes,
    /// It ends here.
    Refused(Response<B>),
    /// [`Gate::decide`] tells.
    Among(u64),
}

/// A gate that refuses nobody.
#[derive(Debug, Clone, Copy)]
pub struct Open;

impl<B> Gate<B> for Open {
    fn ask<Q>(&self, _: &mut Request<Q>) -> Asked<B> {
        Asked::Passes
    }

    fn decide<Q>(&self, _: u64, _: &mut Request<Q>) -> Option<Response<B>> {
        None
    }
}

/// Serves `service` behind `gate` until [`Ends::goaway`], then finishes what was accepted, until [`Ends::cut`] at most. `counters.calls` must be
/// kept by the service: while it is zero, nobody is waited for who does not close.
pub async fn serve<G, S, B>(
    listener: TcpListener,
    (gate, service): (G, S),
    limits: ConnectionLimits,
    (ends, counters): (Ends, Arc<Counters>),
) where
    G: Gate<B>,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    // One caller cannot shut the others out.
    let callers = Callers::new(limits.connections.div_ceil(2));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = ends.goaway.cancelled() => break,
            // Ended ones are forgotten as they end.
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener) => accepted,
        };
        let place = Arc::clone(&places).try_acquire_owned().ok();
        let (Some(place), Some(counted)) = (place, callers.enter(Some(caller(peer)))) else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "a connection too many was closed");
            continue;
        };
        let connection = Connection {
            limits,
            goaway: ends.goaway.clone(),
            counters: Arc::clone(&counters),
            peer,
        };
        // Replies are small and wanted at once. A socket that refuses is closed soon anyway.
        drop(stream.set_nodelay(true));
        let (gate, service) = (gate.clone(), service.clone());
        connections.spawn(async move {
            connection.run(stream, gate, service).await;
            drop((place, counted));
        });
    }
    // From here on the system refuses who comes, so that a client tries the next server at once.
    drop(listener);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => {}
        () = silence(&counters) => {}
        () = cut(&ends.cut) => {}
    }
    let left = connections.len();
    if left > 0 {
        tracing::info!(left, "connections that did not close were closed");
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // It left before it came.
            Err(error)
                if [ConnectionAborted, ConnectionReset, Interrupted].contains(&error.kind()) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

/// Waits until no call ran for a while: what is still connected then never answers our goodbye.
async fn silence(counters: &Counters) {
    let mut since = Instant::now();
    while since.elapsed() < SILENCE {
        tokio::time::sleep(GLANCE).await;
        if counters.calls.load(Ordering::Relaxed) > 0 {
            since = Instant::now();
        }
    }
}

async fn cut(cut: &CancellationToken) {
    cut.cancelled().await;
    tokio::time::sleep(LAST_WORDS).await;
}
