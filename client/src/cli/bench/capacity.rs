//! What a server can do: ever more callers until nothing is gained, then open loops near what they reached.

use std::sync::Arc;

use super::super::args::{Arrivals, BenchArgs};
use super::super::out::say;
use super::ask::Ask;
use super::load::{Measured, Mode, run};
use super::report;

/// More callers have to bring this much more.
const GAIN: f64 = 1.05;
/// Steps in sequence without it that end the search.
const STEPS_WITHOUT: usize = 2;
const MOST_CALLERS: u32 = 1024;
/// Open loops, as shares of the peak.
const SHARES: [f64; 5] = [0.6, 0.7, 0.8, 0.9, 1.0];
/// Share of calls that are to be answered at a rate that a server sustains.
const ANSWERED: f64 = 0.99;

/// What a server can do, and how that was found.
#[derive(Debug)]
pub(super) struct Capacity {
    pub(super) steps: Vec<Measured>,
    /// Most answered calls a second of the closed loops.
    pub(super) peak: f64,
    /// Highest rate of the open loops at which 99 % of calls were answered, calls did not wait ever longer and the tool kept its
    /// schedule.
    pub(super) sustained: Option<f64>,
}

/// Measures it; each step is told as it is done.
///
/// # Errors
/// When the system refuses a thread.
pub(super) async fn find(ask: &Arc<Ask>, args: &BenchArgs) -> std::io::Result<Capacity> {
    let mut steps = Vec::new();
    let mut gains = Gains::default();
    let mut callers = 1;
    while callers <= MOST_CALLERS && !gains.are_over() {
        let measured = run(ask, args, Mode::Closed { callers }).await?;
        say(&report::line(&measured));
        gains.note(measured.goodput());
        steps.push(measured);
        callers *= 2;
    }
    let peak = gains.peak;
    let mut sustained = None;
    for share in SHARES {
        let rate = peak * share;
        if rate <= 0.0 {
            break;
        }
        let measured = run(ask, args, Mode::Open { rate, arrivals: Arrivals::Poisson }).await?;
        say(&report::line(&measured));
        let answered = measured.tally.ok() as f64 >= ANSWERED * measured.tally.due() as f64;
        if answered && !measured.tally.is_growing() && measured.kept_up() {
            sustained = Some(measured.offered());
        }
        steps.push(measured);
    }
    Ok(Capacity { steps, peak, sustained })
}

/// Whether more callers still bring more.
#[derive(Debug, Default)]
struct Gains {
    peak: f64,
    /// The last goodput that was a gain, and the steps since.
    gained: f64,
    since: usize,
}

impl Gains {
    fn note(&mut self, goodput: f64) {
        self.peak = self.peak.max(goodput);
        if goodput > self.gained * GAIN {
            self.gained = goodput;
            self.since = 0;
        } else {
            self.since += 1;
        }
    }

    fn are_over(&self) -> bool {
        self.since >= STEPS_WITHOUT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_ends_after_two_steps_that_bring_little() {
        let over_after = |goodputs: &[f64]| {
            let mut gains = Gains::default();
            let ended = goodputs.iter().position(|goodput| {
                gains.note(*goodput);
                gains.are_over()
            });
            (ended, gains.peak)
        };
        assert_eq!(over_after(&[10.0, 19.0, 19.5, 30.0, 31.0, 31.2, 99.0]), (Some(5), 31.2));
        assert_eq!(over_after(&[0.0, 0.0]), (Some(1), 0.0));
        assert_eq!(over_after(&[1.0, 2.0, 4.0]), (None, 4.0));
    }
}
