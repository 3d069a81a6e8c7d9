//! When a call is sent again: pure decisions here, waiting in `client.rs`.
//!
//! Every call of [`Client`](crate::Client) may be repeated: reads change nothing, and a write carries a `request_id` that stays
//! the same, so that the server answers a repeat without doing it twice.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tonic::Code;

use crate::error::Error;
use crate::v1::ErrorReason;

/// When and how often a call is sent again.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Most times that a call is sent, the first included; 1 for no retries. Default 5.
    pub attempts: u32,
    /// Wait before the second time; it doubles from then on. Default 50 ms.
    pub first_backoff: Duration,
    /// Longest wait that the client chooses; the server may ask for a longer one. Default 2 s.
    pub max_backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
        }
    }
}

impl RetryPolicy {
    /// Sends every call once.
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// How long to wait before a call that was sent `sent` times and failed with `error` is sent again; `None` to give up.
    /// `left` is the time to the deadline, `jitter` a random number from 0 to 1.
    pub(crate) fn wait(
        &self,
        sent: u32,
        error: &Error,
        left: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        if sent >= self.attempts || !helps(error) {
            return None;
        }
        let wait = self.backoff(sent, jitter).max(error.retry_after().unwrap_or_default());
        // A call that starts at the deadline could only fail with a worse message than the one at hand.
        (wait < left).then_some(wait)
    }

    /// Between half and all of the doubled wait, so that callers who failed together do not come back together.
    fn backoff(&self, sent: u32, jitter: f64) -> Duration {
        let doubled = self.first_backoff.saturating_mul(1 << sent.saturating_sub(1).min(20));
        doubled.min(self.max_backoff).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

/// Whether the same call may succeed later without anybody changing it.
fn helps(error: &Error) -> bool {
    match error.code() {
        Code::Unavailable => true,
        // Without RetryInfo it is a size or a quota, which time does not mend.
        Code::ResourceExhausted => {
            error.retry_after().is_some() && error.reason() != ErrorReason::QuotaExceeded
        }
        _ => false,
    }
}

/// Ends retries when most calls fail, so that clients do not keep down a server that is down (gRFC A6: 100 tokens, a failure
/// takes one, a success gives a tenth back, below half nobody retries). One for all clones of a client.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

const TENTHS_FULL: u32 = 1000;
const TENTHS_FAILURE: u32 = 10;

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(TENTHS_FULL))
    }
}

impl Budget {
    pub(crate) fn succeeded(&self) {
        self.change(|tenths| (tenths + 1).min(TENTHS_FULL));
    }

    /// Counts a failure and says whether a retry is allowed. When the server itself says when to come back, it is.
    pub(crate) fn failed(&self, error: &Error) -> bool {
        if error.retry_after().is_some() {
            return true;
        }
        self.change(|tenths| tenths.saturating_sub(TENTHS_FAILURE)) > TENTHS_FULL / 2
    }

    fn change(&self, next: impl Fn(u32) -> u32) -> u32 {
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| Some(next(now)));
        next(before.unwrap_or_else(|now| now))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    const LEFT: Duration = Duration::from_secs(10);

    fn error(code: Code, reason: &str, retry_after_ms: Option<u64>) -> Error {
        let mut details = ErrorDetails::with_error_info(reason, "diptych", HashMap::new());
        if let Some(wait) = retry_after_ms {
            details.set_retry_info(Some(Duration::from_millis(wait)));
        }
        tonic::Status::with_error_details(code, "no", details).into()
    }

    #[test]
    fn waits_double_within_their_bounds() {
        let policy = RetryPolicy::default();
        let gone = error(Code::Unavailable, "DRAINING", None);
        let waits = |jitter: f64| {
            let wait = |sent| policy.wait(sent, &gone, LEFT, jitter).map(|wait| wait.as_millis());
            (1..=5).map(wait).collect::<Vec<_>>()
        };
        assert_eq!(waits(1.0), [Some(50), Some(100), Some(200), Some(400), None]);
        assert_eq!(waits(0.0), [Some(25), Some(50), Some(100), Some(200), None]);
        let long = RetryPolicy { attempts: 100, ..policy };
        assert_eq!(long.wait(99, &gone, LEFT, 1.0), Some(Duration::from_secs(2)));
    }

    #[test]
    fn the_servers_wait_is_honoured_unless_the_deadline_comes_first() {
        let policy = RetryPolicy::default();
        let full = error(Code::ResourceExhausted, "QUEUE_FULL", Some(700));
        assert_eq!(policy.wait(1, &full, LEFT, 0.5), Some(Duration::from_millis(700)));
        assert_eq!(policy.wait(1, &full, Duration::from_millis(700), 0.5), None);
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
            assert_eq!(policy.wait(1, &error(code, reason, after), LEFT, 0.5), None, "{reason}");
        }
        let gone = error(Code::Unavailable, "STARTING", None);
        assert_eq!(RetryPolicy::never().wait(1, &gone, LEFT, 0.5), None);
    }

    #[test]
    fn a_server_that_is_down_is_left_alone() {
        let budget = Budget::default();
        let gone = error(Code::Unavailable, "DRAINING", None);
        assert_eq!((0..100).take_while(|_| budget.failed(&gone)).count(), 49);
        assert!(budget.failed(&error(Code::Unavailable, "STARTING", Some(100))));
        (0..1000).for_each(|_| budget.succeeded());
        assert!(budget.failed(&gone));
    }
}
