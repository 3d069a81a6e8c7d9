//! Details for the refusals that the transport makes before a handler is reached: a message beyond the receive limit, one
//! that does not parse, an unknown method. Without this layer they would be the only errors without an `ErrorInfo`.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tower::{Layer, Service};

use super::status::complete;

/// Completes statuses that carry no details.
#[derive(Debug, Clone)]
pub(super) struct DetailsLayer {
    message_bytes: usize,
}

impl DetailsLayer {
    /// `message_bytes` is the receive limit, to be named.
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
    type Response = Response<R>;
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
            // Only an answer that failed before it began has its status among the headers.
            let status = Status::from_header_map(response.headers());
            match status.and_then(|status| complete(&status, limit)) {
                Some(complete) => Ok(complete.into_http()),
                None => Ok(response),
            }
        })
    }
}
