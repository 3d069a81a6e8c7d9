//! The requests of a connection on their way to the service.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::either::Either;
use tower::ServiceExt as _;
use tower::util::Oneshot;

use super::{Asked, Gate, Peer, Unread};

/// Asks the gate while the connection is read; only what it lets in has a clone of the service, whose work begins in a task of its
/// own.
#[derive(Debug)]
pub(super) struct Calls<G, S> {
    pub(super) peer: Peer,
    pub(super) unread: Unread,
    pub(super) gate: G,
    /// Set when a call is refused, for the connection.
    pub(super) refused: Arc<AtomicBool>,
    pub(super) service: Arc<S>,
}

impl<G, S, B> hyper::service::Service<Request<Incoming>> for Calls<G, S>
where
    G: Gate<B>,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<Refused<B>, Oneshot<Begun<G, S>, Request<Incoming>>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        let number = match self.gate.ask(&mut request) {
            Asked::Refused(refusal) => return Either::Left(tell(refusal, &self.refused)),
            Asked::Passes => None,
            Asked::Among(number) => Some(number),
        };
        let begun = Begun {
            number,
            gate: self.gate.clone(),
            unread: self.unread.clone(),
            refused: Arc::clone(&self.refused),
            service: Arc::clone(&self.service),
        };
        Either::Right(begun.oneshot(request))
    }
}

type Refused<B> = Ready<Result<Response<B>, Infallible>>;

/// The reply of a refused call, of which its connection hears.
fn tell<B>(refusal: Response<B>, refused: &AtomicBool) -> Refused<B> {
    refused.store(true, Ordering::Relaxed);
    ready(Ok(refusal))
}

/// A call in its own task, where the gate decides on those that it could not yet.
#[derive(Debug)]
pub(super) struct Begun<G, S> {
    number: Option<u64>,
    gate: G,
    unread: Unread,
    refused: Arc<AtomicBool>,
    service: Arc<S>,
}

impl<G, S, B> tower::Service<Request<Incoming>> for Begun<G, S>
where
    G: Gate<B>,
    S: tower::Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Either<Refused<B>, Oneshot<S, Request<Incoming>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let decide = |number| self.gate.decide(number, &mut request);
        if let Some(refusal) = self.number.take().and_then(decide) {
            return Either::Left(tell(refusal, &self.refused));
        }
        request.extensions_mut().insert(self.unread.clone());
        Either::Right(S::clone(&self.service).oneshot(request))
    }
}
