//! When a call is sent again: pure decisions here, waiting in `call.rs`.
//!
//! Every call of [`Client`](crate::Client) may be repeated: reads change nothing, and a write carries a `request_id` that stays
//! the same, so that the server answers a repeat without doing it twice.

mod budget;

use std::time::Duration;

use tonic::Code;

pub(crate) use self::budget::Budget;
pub use self::budget::RetryBudget;
use crate::error::Error;
use crate::transport::Fault;
use crate::v1::ErrorReason;

/// Times that a call may go to another server at once, because one was going down.
const MOVES: u32 = 3;
/// Share of a server's wait that is added at random, so that callers who were refused together do not come back together.
const SPREAD: f64 = 0.2;

/// When and how often a call is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Most times that a call is sent, the first included; 1 for no retries. Default 5. Two kinds of repeats do not count, follow
    /// at once and take nothing from the budget: those of a call that was not sent because a connection ended just then, each over
    /// another connection, until the deadline; and the first one of a call whose stream a server refused without looking at it
    /// (REFUSED_STREAM).
    pub attempts: u32,
    /// Wait before the second time; it doubles from then on. Default 50 ms.
    pub first_backoff: Duration,
    /// Longest wait that the client chooses; the server may ask for a longer one. Default 2 s.
    pub max_backoff: Duration,
    /// How many calls may be sent again, of all.
    pub budget: RetryBudget,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            budget: RetryBudget::default(),
        }
    }
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Next {
    /// Sent again at once; nobody did any work for it.
    AtOnce,
    /// Sent again after this time, if the budget allows.
    After(Duration),
    /// The failure is the caller's.
    GiveUp,
}

impl RetryPolicy {
    /// Sends every call once.
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// What follows when a call that servers were asked `sent` times failed with `error`.
    fn next(&self, sent: u32, error: &Error, left: Duration, jitter: f64) -> Next {
        if sent >= self.attempts || error.is_unwelcome() || !helps(error) {
            return Next::GiveUp;
        }
        let asked = error.retry_after().unwrap_or_default().mul_f64(1.0 + SPREAD * jitter);
        let wait = self.backoff(sent, jitter).max(asked);
        // A call that starts at the deadline could only fail with a worse message than the one at hand.
        if wait < left { Next::After(wait) } else { Next::GiveUp }
    }

    /// Between half and all of the doubled wait.
    fn backoff(&self, sent: u32, jitter: f64) -> Duration {
        let doubled = self.first_backoff.saturating_mul(1 << sent.saturating_sub(1).min(20));
        doubled.min(self.max_backoff).mul_f64(0.5 + 0.5 * jitter)
    }
}

/// How often one call came to nothing so far.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    sent: u32,
    refused: bool,
}

impl Tries {
    /// The attempts that count: a server may have looked at them.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// What follows when the call failed, once more, with `error`. `others` says whether there is another server than the last one
    /// asked, `left` is the time to the deadline, `jitter` a random number from 0 to 1.
    pub(crate) fn next(
        &mut self,
        policy: &RetryPolicy,
        error: &Error,
        others: bool,
        (left, jitter): (Duration, f64),
    ) -> Next {
        let jitter = jitter.clamp(0.0, 1.0);
        match error.fault() {
            // It has waited already.
            Fault::NoEndpoint => return Next::GiveUp,
            // No server has had anything to do with it, so gRFC A6 sets no bound but the deadline. It does not spin: the connection
            // gets no call any more, and how soon there is another one, its keeper says. Nor does it wait beyond that: a connection
            // that has lain idle for as long may have ended too, which hyper says of none before a call goes that way.
            Fault::Unsent if left.is_zero() => return Next::GiveUp,
            Fault::Unsent => return Next::AtOnce,
            // Once, as gRFC A6 has it: a server that goes on refusing has too much to do.
            Fault::Refused if !self.refused => {
                self.refused = true;
                return Next::AtOnce;
            }
            Fault::Refused | Fault::Unknown => {}
        }
        self.sent = self.sent.saturating_add(1);
        // Of several servers one that goes down is no reason to wait, nor is its refusal a load on the others.
        if self.sent <= MOVES && others && is_elsewhere(error) {
            return Next::AtOnce;
        }
        policy.next(self.sent, error, left, jitter)
    }
}

/// Whether a server refused the call because it is going down or coming up: it did nothing, and another one may do it now.
fn is_elsewhere(error: &Error) -> bool {
    error.code() == Code::Unavailable
        && matches!(error.reason(), ErrorReason::Draining | ErrorReason::Starting)
}

/// Whether the same call may succeed later without anybody changing it.
pub(crate) fn helps(error: &Error) -> bool {
    match error.code() {
        Code::Unavailable => true,
        // Without RetryInfo it is a size or a quota, which time does not mend.
        Code::ResourceExhausted => {
            error.retry_after().is_some() && error.reason() != ErrorReason::QuotaExceeded
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;
    use crate::transport::TransportError;

    const LEFT: Duration = Duration::from_secs(10);

    fn status(code: Code, reason: &str, retry_after_ms: Option<u64>) -> tonic::Status {
        let mut details = ErrorDetails::with_error_info(reason, "diptych", HashMap::new());
        if let Some(wait) = retry_after_ms {
            details.set_retry_info(Some(Duration::from_millis(wait)));
        }
        tonic::Status::with_error_details(code, "no", details)
    }

    fn error(code: Code, reason: &str, retry_after_ms: Option<u64>) -> Error {
        status(code, reason, retry_after_ms).into()
    }

    fn after(milliseconds: u64) -> Next {
        Next::After(Duration::from_millis(milliseconds))
    }

    /// An error of the transport, as it comes through tonic.
    fn broken(fault: Fault) -> Error {
        tonic::Status::from_error(Box::new(TransportError::of(fault))).into()
    }

    #[test]
    fn what_was_not_sent_is_repeated_until_the_deadline() {
        let (policy, unsent) = (RetryPolicy::never(), broken(Fault::Unsent));
        let mut tries = Tries::default();
        for _ in 0..1000 {
            assert_eq!(tries.next(&policy, &unsent, false, (LEFT, 0.5)), Next::AtOnce);
        }
        assert_eq!(tries.sent(), 0);
        assert_eq!(tries.next(&policy, &unsent, false, (Duration::ZERO, 0.5)), Next::GiveUp);
    }

    #[test]
    fn what_was_refused_unseen_is_repeated_once_at_once_and_then_as_anything() {
        let (policy, refused) = (RetryPolicy::default(), broken(Fault::Refused));
        let mut tries = Tries::default();
        let next: Vec<Next> =
            (0..6).map(|_| tries.next(&policy, &refused, false, (LEFT, 1.0))).collect();
        let waits = [Next::AtOnce, after(50), after(100), after(200), after(400), Next::GiveUp];
        assert_eq!(next, waits);
    }

    #[test]
    fn a_server_that_goes_down_is_left_for_another_three_times_at_once() {
        let (policy, gone) = (RetryPolicy::default(), error(Code::Unavailable, "DRAINING", None));
        let mut tries = Tries::default();
        let next: Vec<Next> =
            (0..4).map(|_| tries.next(&policy, &gone, true, (LEFT, 1.0))).collect();
        assert_eq!(next, [Next::AtOnce, Next::AtOnce, Next::AtOnce, after(400)]);
        assert_eq!(Tries::default().next(&policy, &gone, false, (LEFT, 1.0)), after(50));
    }

    #[test]
    fn waits_double_within_their_bounds() {
        let policy = RetryPolicy::default();
        let gone = error(Code::Unavailable, "DRAINING", None);
        let waits =
            |jitter: f64| [1, 2, 3, 4, 5].map(|sent| policy.next(sent, &gone, LEFT, jitter));
        assert_eq!(waits(1.0), [after(50), after(100), after(200), after(400), Next::GiveUp]);
        assert_eq!(waits(0.0), [after(25), after(50), after(100), after(200), Next::GiveUp]);
        let long = RetryPolicy { attempts: 100, ..policy };
        assert_eq!(long.next(99, &gone, LEFT, 1.0), after(2000));
    }

    #[test]
    fn the_servers_wait_is_honoured_and_spread_unless_the_deadline_comes_first() {
        let policy = RetryPolicy::default();
        let full = error(Code::ResourceExhausted, "QUEUE_FULL", Some(700));
        assert_eq!(policy.next(1, &full, LEFT, 0.0), after(700));
        assert_eq!(policy.next(1, &full, LEFT, 1.0), after(840));
        assert_eq!(policy.next(1, &full, Duration::from_millis(700), 0.0), Next::GiveUp);
    }

    #[test]
    fn a_server_that_wants_no_repeat_gets_none() {
        let mut pushed = status(Code::Unavailable, "DRAINING", Some(5));
        pushed.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
        assert_eq!(RetryPolicy::default().next(1, &pushed.into(), LEFT, 0.5), Next::GiveUp);
    }

    #[test]
    fn what_time_does_not_mend_is_not_sent_again() {
        let policy = RetryPolicy::default();
        for (code, reason, after) in [
            (Code::InvalidArgument, "TEXT_EMPTY", None),
            (Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None),
            (Code::ResourceExhausted, "QUOTA_EXCEEDED", Some(5)),
            (Code::DeadlineExceeded, "DEADLINE_EXCEEDED", None),
            (Code::Internal, "INTERNAL", None),
        ] {
            let next = policy.next(1, &error(code, reason, after), LEFT, 0.5);
            assert_eq!(next, Next::GiveUp, "{reason}");
        }
        let gone = error(Code::Unavailable, "STARTING", None);
        assert_eq!(RetryPolicy::never().next(1, &gone, LEFT, 0.5), Next::GiveUp);
    }
}
