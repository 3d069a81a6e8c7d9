//! What calls came to.

use std::collections::BTreeMap;
use std::time::Duration;

use diptych::Error;
use serde_json::{Value as Json, json};

use super::ask::Found;
use super::histogram::Histogram;

/// How a call failed, for counting.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    /// The gRPC code, such as `RESOURCE_EXHAUSTED`.
    pub(super) code: String,
    /// The published reason, or empty.
    pub(super) reason: String,
    /// Whether the server said when to come back.
    pub(super) retry_info: bool,
}

impl Failure {
    fn of(error: &Error) -> Self {
        Self {
            code: code_name(error.code()),
            reason: error.reason_name().to_owned(),
            retry_info: error.retry_after().is_some(),
        }
    }
}

/// `ResourceExhausted` as gRPC writes it.
fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

/// A median of the second half that is so much above that of the first is no chance.
const GROWTH: f64 = 1.5;

/// Counts of one load.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Times of calls that were answered.
    pub(super) answered: Histogram,
    /// The same, of the first and of the second half of the time that is measured.
    halves: [Histogram; 2],
    /// Times of calls that were refused with a time to come back.
    pub(super) refused: Histogram,
    /// By how much calls were sent after their time, in an open loop.
    pub(super) lateness: Histogram,
    pub(super) failures: BTreeMap<Failure, u64>,
    /// Calls that were due and not sent, because too many were under way.
    pub(super) unsent: u64,
    with_truth: u64,
    found_any: u64,
    found_share: f64,
    /// The text of one failure that is no refusal, for people.
    pub(super) example: Option<String>,
}

impl Tally {
    /// Counts a call of the first or the second half.
    pub(super) fn note(
        &mut self,
        time: Duration,
        second_half: bool,
        outcome: &diptych::Result<Option<Found>>,
    ) {
        match outcome {
            Ok(found) => {
                self.answered.note(time);
                self.halves[usize::from(second_half)].note(time);
                if let Some(Found { any, share }) = found {
                    self.with_truth += 1;
                    self.found_any += u64::from(*any);
                    self.found_share += share;
                }
            }
            Err(error) => {
                let failure = Failure::of(error);
                if failure.retry_info {
                    self.refused.note(time);
                } else if self.example.is_none() {
                    self.example = Some(error.to_string());
                }
                *self.failures.entry(failure).or_default() += 1;
            }
        }
    }

    /// Whether calls wait ever longer: the server takes less than it is given.
    pub(super) fn is_growing(&self) -> bool {
        let [first, second] = &self.halves;
        second.quantile(0.5) > first.quantile(0.5).mul_f64(GROWTH)
    }

    /// Calls that were answered.
    pub(super) fn ok(&self) -> u64 {
        self.answered.count()
    }

    /// Calls that failed.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Calls that were due.
    pub(super) fn due(&self) -> u64 {
        self.ok() + self.failed() + self.unsent
    }

    /// Share of queries with a known truth for which a right item was among the hits; the mean share of right items found.
    pub(super) fn recall(&self) -> Option<(f64, f64)> {
        let count = self.with_truth as f64;
        (self.with_truth > 0).then(|| (self.found_any as f64 / count, self.found_share / count))
    }

    /// Every outcome with its count.
    pub(super) fn outcomes(&self) -> Json {
        let ok = json!({ "code": "OK", "reason": "", "retry_info": false, "count": self.ok() });
        let failure = |(failure, count): (&Failure, &u64)| {
            let Failure { code, reason, retry_info } = failure;
            json!({ "code": code, "reason": reason, "retry_info": retry_info, "count": count })
        };
        [ok].into_iter().chain(self.failures.iter().map(failure)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_code_reason_and_whether_a_time_was_told() {
        let mut tally = Tally::default();
        let pushed = |wait: &str| {
            let mut status = tonic::Status::resource_exhausted("full");
            status.metadata_mut().insert("grpc-retry-pushback-ms", wait.parse().unwrap());
            Err(Error::from(status))
        };
        tally.note(Duration::from_millis(1), false, &Ok(Some(Found { any: true, share: 0.5 })));
        tally.note(Duration::from_millis(3), true, &Ok(Some(Found { any: false, share: 0.0 })));
        tally.note(Duration::from_millis(9), true, &pushed("5"));
        tally.note(Duration::from_millis(9), true, &Err(tonic::Status::internal("x").into()));
        assert_eq!((tally.ok(), tally.failed(), tally.due()), (2, 2, 4));
        assert_eq!(tally.recall(), Some((0.5, 0.25)));
        assert_eq!(tally.answered.most(), Duration::from_millis(3));
        assert_eq!(tally.refused.count(), 1);
        assert!(tally.is_growing());
        let codes: Vec<_> = tally.failures.keys().map(|failure| failure.code.as_str()).collect();
        assert_eq!(codes, ["INTERNAL", "RESOURCE_EXHAUSTED"]);
        assert_eq!(tally.outcomes()[2]["retry_info"], true);
    }
}
