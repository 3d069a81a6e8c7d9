//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::greeting::Greeted;
use super::{Counters, Gate, Peer, Unread};
use crate::limits::ConnectionLimits;

/// Bytes that a peer may send ahead of what is read: one picture's worth of a stream, four of a connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// The least buffer of an HTTP/1 connection, which holds a head or a piece of a body.
const BUFFER_BYTES: usize = 64 << 10;
/// How often a connection is looked at for replies that nobody reads.
const GLANCE: Duration = Duration::from_secs(1);
/// How far the age of a connection is from the one that is set, in hundredths: not all peers are to come back at once.
const JITTER: u32 = 10;

/// What a connection knows of its listener.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) limits: ConnectionLimits,
    pub(super) goaway: CancellationToken,
    pub(super) counters: Arc<Counters>,
    pub(super) peer: SocketAddr,
}

impl Connection {
    /// Serves the connection until either side closes it.
    pub(super) async fn run<T, G, S, B>(self, stream: T, gate: G, service: S)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
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
        let _counted = self.counters.enter(|counters| &counters.connections);
        let refused = Arc::new(AtomicBool::new(false));
        let unread = Unread::default();
        let calls = Calls {
            peer: Peer(self.peer),
            unread: unread.clone(),
            gate,
            refused: Arc::clone(&refused),
            service: Arc::new(service),
        };
        let (stream, greeting) = Greeted::new(stream);
        let builder = self.builder();
        let served = builder.serve_connection(TokioIo::new(stream), calls);
        let mut served = std::pin::pin!(served);
        let mut handshake = std::pin::pin!(tokio::time::sleep(self.limits.handshake));
        let mut age = std::pin::pin!(tokio::time::sleep(jittered(self.limits.age)));
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut linger = std::pin::pin!(tokio::time::sleep(self.limits.linger));
        let (mut greeted, mut leaving) = (false, false);
        loop {
            tokio::select! {
                ended = poll_fn(|context| turn(&refused, served.as_mut(), context)) => {
                    if let Err(error) = ended {
                        tracing::debug!(peer = %self.peer, error, "a connection broke");
                    }
                    return;
                }
                now = glance.tick() => {
                    if unread.is_late(now) {
                        tracing::debug!(peer = %self.peer, "a connection whose peer reads no replies was closed");
                        return;
                    }
                }
                () = &mut handshake, if !greeted => {
                    if !greeting.heard() {
                        self.counters.silent.fetch_add(1, Ordering::Relaxed);
                        tracing::debug!(peer = %self.peer, "a connection said nothing and was closed");
                        return;
                    }
                    greeted = true;
                }
                // Calls under way go on, however long they take: their own deadlines end them.
                () = &mut age, if !leaving => {
                    leaving = true;
                    served.as_mut().graceful_shutdown();
                    linger.as_mut().reset(Instant::now() + self.limits.linger);
                }
                // A peer that never ends would keep its connection for ever.
                () = &mut linger, if leaving => {
                    tracing::debug!(peer = %self.peer, "a connection that did not end was closed");
                    return;
                }
                () = self.goaway.cancelled(), if !leaving => {
                    leaving = true;
                    served.as_mut().graceful_shutdown();
                    linger.as_mut().reset(Instant::now() + self.limits.linger);
                }
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let limits = &self.limits;
        let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.keepalive_interval)
            .max_buf_size(header_bytes.max(BUFFER_BYTES));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            .max_header_list_size(limits.header_bytes)
            .max_local_error_reset_streams(limits.local_resets)
            .max_pending_accept_reset_streams(limits.pending_resets)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(limits.keepalive_interval)
            .keep_alive_timeout(limits.keepalive_timeout);
        builder
    }
}

/// Polls a connection, unless it has refused calls since: then the tasks that tell their callers so have their turn first, and all
/// that they say goes in one write. Each in its own would cost more than all else that a refusal does.
fn turn<F: Future>(
    refused: &AtomicBool,
    served: Pin<&mut F>,
    context: &mut Context<'_>,
) -> Poll<F::Output> {
    if refused.swap(false, Ordering::Relaxed) {
        // Who wakes itself goes behind the others.
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    served.poll(context)
}

/// `age`, give or take a tenth.
fn jittered(age: Duration) -> Duration {
    age * rand::rng().random_range(100 - JITTER..=100 + JITTER) / 100
}
