//! Details for the refusals that the transport itself makes: a message beyond the limit, whichever way it goes, one that does not
//! parse, an unknown method. Without this layer they would be the only errors without an `ErrorInfo`.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;
use tower::{Layer, Service};

use super::status::complete;

/// Completes statuses that carry no details.
#[derive(Debug, Clone)]
pub(super) struct DetailsLayer {
    message_bytes: usize,
}

impl DetailsLayer {
    /// `message_bytes` is the limit of a message, to be named.
    pub(super) fn new(message_bytes: usize) -> Self {
        Self { message_bytes }
    }
}

impl<S> Layer<S> for DetailsLayer {
    type Service = Details<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Details { inner, message_bytes: self.message_bytes }
    }
}

/// A service under a [`DetailsLayer`].
#[derive(Debug, Clone)]
pub(super) struct Details<S> {
    inner: S,
    message_bytes: usize,
}

impl<S, B, R> Service<Request<B>> for Details<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Default,
{
    type Response = Response<Completed<R>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = self.message_bytes;
        let call = self.inner.call(request);
        Box::pin(async move {
            let response = call.await?;
            // An answer that failed before it began has its status among the headers.
            let status = Status::from_header_map(response.headers());
            Ok(match status.and_then(|status| complete(&status, limit)) {
                Some(complete) => complete.into_http(),
                None => response.map(|body| Completed { body, limit }),
            })
        })
    }
}

/// A reply's body whose trailers, too, carry details.
#[derive(Debug, Default)]
pub(super) struct Completed<R> {
    body: R,
    limit: usize,
}

impl<R: Body<Data = Bytes> + Unpin> Body for Completed<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let mut frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
            && let Some(complete) = completed(trailers, self.limit)
        {
            *trailers = complete;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn completed(trailers: &HeaderMap, limit: usize) -> Option<HeaderMap> {
    let complete = complete(&Status::from_header_map(trailers)?, limit)?;
    let mut trailers = HeaderMap::new();
    complete.add_header(&mut trailers).ok()?;
    Some(trailers)
}
