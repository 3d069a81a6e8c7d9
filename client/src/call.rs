//! One call from its first attempt to its outcome: deadline, request id, retries, hedge.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use crate::deadline::Class;
use crate::error::{Error, Result};
use crate::hedge::Latencies;
use crate::options::Options;
use crate::retry::{Budget, Next, Tries, helps};
use crate::transport::{Route, after};

/// The metadata by which logs of client and server find together.
pub(crate) const REQUEST_ID: &str = "x-request-id";
/// How often a server may have looked at the call before (gRFC A6).
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// What all calls of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    budget: Budget,
    latencies: Latencies,
    calls: AtomicU64,
    retries: AtomicU64,
    resent: AtomicU64,
    hedges: AtomicU64,
}

/// What a client has done so far, all clones together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Calls.
    pub calls: u64,
    /// Attempts after the first one, for a failure that time may mend.
    pub retries: u64,
    /// Attempts after one that no server had done anything for.
    pub resent: u64,
    /// Second calls beside slow ones.
    pub hedges: u64,
}

impl Shared {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            budget: Budget::new(&options.retry.budget),
            latencies: Latencies::default(),
            calls: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            resent: AtomicU64::new(0),
            hedges: AtomicU64::new(0),
        }
    }

    /// Counts a call.
    pub(crate) fn called(&self) {
        count(&self.calls);
        self.budget.called(1);
    }

    /// Counts items of a stream as far as the budget goes: each is worth a call.
    pub(crate) fn progressed(&self, items: u64) {
        self.budget.called(items);
    }

    /// Counts an attempt after one that no server had done anything for.
    pub(crate) fn resent(&self) {
        count(&self.resent);
    }

    /// Takes a retry from the budget and counts it, if there is one left.
    pub(crate) fn retried(&self) -> bool {
        let left = self.budget.take();
        if left {
            count(&self.retries);
        }
        left
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Statistics {
            calls: read(&self.calls),
            retries: read(&self.retries),
            resent: read(&self.resent),
            hedges: read(&self.hedges),
        }
    }
}

fn count(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// One call.
pub(crate) struct Call<'a, Q, S> {
    options: &'a Options,
    shared: &'a Shared,
    class: Class,
    request: Q,
    send: S,
    deadline: Instant,
    request_id: String,
    route: Route,
}

impl<'a, Q, S, F, R> Call<'a, Q, S>
where
    Q: Clone,
    S: Fn(Request<Q>) -> F,
    F: Future<Output = std::result::Result<Response<R>, Status>>,
{
    /// A call of `request` that `send` sends once.
    pub(crate) fn new(
        (options, shared): (&'a Options, &'a Shared),
        class: Class,
        request: Q,
        send: S,
    ) -> Self {
        let deadline = after(options.deadlines.of(class));
        let request_id = fresh_id();
        Self {
            options,
            shared,
            class,
            request,
            send,
            deadline,
            request_id,
            route: Route::until(deadline),
        }
    }

    /// Sends until there is an answer, retries do not help, or the deadline passes.
    pub(crate) async fn run(self) -> Result<R> {
        self.shared.called();
        let mut tries = Tries::default();
        loop {
            let outcome = match self.hedge_delay() {
                None => self.attempt(tries.sent()).await,
                Some(delay) => self.hedged(tries.sent(), delay).await,
            };
            let error = match outcome {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            let others = self.route.has_others();
            let policy = &self.options.retry;
            match tries.next(policy, &error, others, (self.left(), rand::random())) {
                Next::AtOnce => self.shared.resent(),
                Next::After(wait) if self.shared.retried() => sleep(wait).await,
                Next::After(_) | Next::GiveUp => return Err(error.of_request(&self.request_id)),
            }
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn hedge_delay(&self) -> Option<Duration> {
        let delay = self.options.hedge.as_ref()?.delay(self.class, &self.shared.latencies)?;
        (delay < self.left()).then_some(delay)
    }

    async fn attempt(&self, sent: u32) -> Result<R> {
        let mut request = Request::new(self.request.clone());
        request.set_timeout(self.left());
        request.extensions_mut().insert(self.route.clone());
        if let Ok(id) = MetadataValue::try_from(self.request_id.as_str()) {
            request.metadata_mut().insert(REQUEST_ID, id);
        }
        if sent > 0 {
            request.metadata_mut().insert(PREVIOUS_ATTEMPTS, MetadataValue::from(sent));
        }
        let begun = Instant::now();
        match timeout_at(self.deadline, (self.send)(request)).await {
            Ok(Ok(reply)) => {
                if self.options.hedge.is_some() {
                    self.shared.latencies.note(self.class, begun.elapsed());
                }
                Ok(reply.into_inner())
            }
            Ok(Err(status)) => Err(Error::from(status)),
            Err(_) => Err(Error::too_late(self.options.deadlines.of(self.class))),
        }
    }

    /// An attempt, and a second one beside it when it is slow. The first success is the outcome, and so is a failure that a
    /// second try does not mend; what is still under way then is cancelled.
    async fn hedged(&self, sent: u32, delay: Duration) -> Result<R> {
        let mut first = std::pin::pin!(self.attempt(sent));
        tokio::select! {
            biased;
            outcome = &mut first => return outcome,
            () = sleep(delay) => {}
        }
        if !self.shared.budget.take() {
            return first.await;
        }
        count(&self.shared.hedges);
        let mut second = std::pin::pin!(self.attempt(sent + 1));
        let settled = |outcome: &Result<R>| !outcome.as_ref().is_err_and(helps);
        tokio::select! {
            outcome = &mut first => if settled(&outcome) { outcome } else { second.await },
            outcome = &mut second => if settled(&outcome) { outcome } else { first.await },
        }
    }
}

/// A name for a call or a request: a UUID of version 4, whose random bits cost no system call.
pub(crate) fn fresh_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}
