//! A stream that notes whether its peer has said enough to be taken for one that speaks our protocol.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a greeting: HTTP/2's preface, and the head of the SETTINGS frame that must follow it. A request's head in HTTP/1
/// with fewer is none of a browser's, and the time for the rest of it is bounded elsewhere.
const ENOUGH: usize = 24 + 9;

/// How much a peer has said, up to where it is enough.
#[derive(Debug, Clone, Default)]
pub(super) struct Greeting(Arc<AtomicUsize>);

impl Greeting {
    /// Whether the peer has greeted.
    pub(super) fn heard(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= ENOUGH
    }

    fn hear(&self, bytes: usize) {
        if !self.heard() {
            self.0.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// A stream whose peer is listened to.
#[derive(Debug)]
pub(super) struct Greeted<S> {
    stream: S,
    greeting: Greeting,
}

impl<S> Greeted<S> {
    pub(super) fn new(stream: S) -> (Self, Greeting) {
        let greeting = Greeting::default();
        (Self { stream, greeting: greeting.clone() }, greeting)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.greeting.hear(buffer.filled().len() - before);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
