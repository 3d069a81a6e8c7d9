//! The requests of a connection on their way to the service.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::either::Either;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::{Gate, Peer, Unread};

/// Asks the gate while the connection is read; only what it lets in has a clone of the service, whose work begins in a task of its
/// own.
#[derive(Debug)]
pub(super) struct Calls<G, S> {
    pub(super) peer: Peer,
    pub(super) unread: Unread,
    pub(super) gate: G,
    /// Set when a call is refused, for the connection.
    pub(super) refused: Arc<AtomicBool>,
    pub(super) service: S,
}

impl<G, S, B> hyper::service::Service<Request<Incoming>> for Calls<G, S>
where
    G: Gate<B>,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<B>, Infallible>>, Oneshot<S, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        match self.gate.refuse(&mut request) {
            Some(refusal) => {
                self.refused.store(true, Ordering::Relaxed);
                Either::Left(ready(Ok(refusal)))
            }
            None => {
                request.extensions_mut().insert(self.unread.clone());
                Either::Right(self.service.clone().oneshot(request))
            }
        }
    }
}
