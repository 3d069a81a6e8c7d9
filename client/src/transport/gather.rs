//! A stream that writes what its tasks have to say in one piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream whose writes wait until the tasks that can run have run once.
///
/// HTTP/2's connection sends a call's head as soon as it has it, and its message, which comes from a task of its own, in a second packet
/// right after it; likewise calls that are made together. A turn later all of that goes in one: half the work for this side's system,
/// and for the server's.
#[derive(Debug)]
pub(super) struct Gather<S> {
    stream: S,
    /// Whether what is to be written has waited.
    waited: bool,
}

impl<S> Gather<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, waited: false }
    }

    fn wait(&mut self, context: &Context<'_>) -> Poll<()> {
        if self.waited {
            return Poll::Ready(());
        }
        self.waited = true;
        // Who wakes itself goes behind the others.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.wait(context));
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.waited = false;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_write_waits_a_turn_and_those_up_to_the_flush_do_not() {
        let (near, _far) = tokio::io::duplex(1 << 10);
        let mut stream = Gather::new(near);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        for turn in 1..=2 {
            assert!(Pin::new(&mut stream).poll_write(&mut context, b"head").is_pending());
            assert_eq!(woken.0.load(Ordering::Relaxed), turn);
            for piece in [b"head".as_slice(), b"message"] {
                let written = Pin::new(&mut stream).poll_write(&mut context, piece);
                assert!(matches!(written, Poll::Ready(Ok(bytes)) if bytes == piece.len()));
            }
            assert!(Pin::new(&mut stream).poll_flush(&mut context).is_ready());
        }
    }
}
