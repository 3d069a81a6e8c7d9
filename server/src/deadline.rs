//! The deadline of the call that runs now, for whatever runs for it.
//!
//! The wire's deadline layer sets it around a handler; anything below may ask [`current`] and drop work whose answer would come
//! too late: a queue before it computes, a search between its stages. It is task-local, so work that moves to another task takes
//! it along by [`inherited`]. Outside a call, as in work in the background, there is none.

use std::future::Future;
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::observe;

tokio::task_local! {
    static CURRENT: Option<Deadline>;
}

/// When a call must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// At `when`.
    pub fn at(when: Instant) -> Self {
        Self(when)
    }

    /// When it is.
    pub fn when(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}

/// The deadline of the call that this task works for.
pub fn current() -> Option<Deadline> {
    CURRENT.try_with(|deadline| *deadline).ok().flatten()
}

/// Runs `work` as part of a call with this deadline.
pub fn within<F: Future>(deadline: Option<Deadline>, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(deadline, work)
}

/// `work`, to be spawned, with the deadline and the record of the call that spawns it.
pub fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(current(), observe::inherited(work))
}

/// Refuses to go on with a call whose deadline has passed.
///
/// # Errors
/// DEADLINE_EXCEEDED.
pub fn check() -> Result<()> {
    match current() {
        Some(deadline) if deadline.passed() => Err(exceeded()),
        _ => Ok(()),
    }
}

/// What a call is told whose deadline has passed.
pub(crate) fn exceeded() -> Error {
    let message = "the deadline passed before the answer";
    Error::new(Kind::Deadline, ErrorReason::DeadlineExceeded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_spawned_task_has_the_deadline_of_the_call_that_spawned_it() {
        let deadline = Some(Deadline::at(Instant::now() + Duration::from_secs(60)));
        let told = within(deadline, async {
            let plain = tokio::spawn(async { current() }).await.unwrap();
            let inherits = tokio::spawn(inherited(async { current() })).await.unwrap();
            (current(), plain, inherits)
        });
        assert_eq!(told.await, (deadline, None, deadline));
        assert_eq!(current(), None);
    }

    #[tokio::test]
    async fn work_for_nobody_is_told_and_work_without_a_deadline_goes_on() {
        assert!(check().is_ok());
        let passed = Some(Deadline::at(Instant::now()));
        let told = within(passed, async { check() }).await.unwrap_err();
        assert_eq!(told.kind(), Kind::Deadline);
    }
}
