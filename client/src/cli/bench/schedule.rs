//! When calls are due, whatever became of those before: an open loop.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use super::super::args::Arrivals;

/// The runtime's timer ticks by the millisecond: nearer than this, time is watched.
const WATCHED: Duration = Duration::from_millis(2);

/// The times of calls from the start of a load on, without end.
#[derive(Debug)]
pub(super) struct Schedule {
    gap: f64,
    arrivals: Arrivals,
    random: StdRng,
    due: f64,
}

impl Schedule {
    /// `rate` calls a second.
    pub(super) fn new(rate: f64, arrivals: Arrivals, seed: u64) -> Self {
        Self { gap: 1.0 / rate, arrivals, random: StdRng::seed_from_u64(seed), due: 0.0 }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.due += match self.arrivals {
            Arrivals::Fixed => self.gap,
            // Gaps of a Poisson process; the random number is below 1.
            Arrivals::Poisson => -(1.0 - self.random.random::<f64>()).ln() * self.gap,
        };
        Duration::try_from_secs_f64(self.due).ok()
    }
}

/// Waits until `due`, to some microseconds; what else is to be done is done meanwhile.
pub(super) async fn wait_until(due: Instant) {
    loop {
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        if left > WATCHED {
            sleep(left - WATCHED).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_calls_are_evenly_apart() {
        let due: Vec<u128> = Schedule::new(100.0, Arrivals::Fixed, 1)
            .take(3)
            .map(|due| due.as_micros().div_ceil(10) * 10)
            .collect();
        assert_eq!(due, [10_000, 20_000, 30_000]);
    }

    #[test]
    fn poisson_calls_come_at_the_rate_with_gaps_that_vary_as_much_as_they_last() {
        let due: Vec<f64> = Schedule::new(500.0, Arrivals::Poisson, 7)
            .take(20_000)
            .map(|due| due.as_secs_f64())
            .collect();
        let rate = due.len() as f64 / due[due.len() - 1];
        assert!((rate / 500.0 - 1.0).abs() < 0.03, "{rate}");
        let gaps: Vec<f64> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        let times = |seed| Schedule::new(10.0, Arrivals::Poisson, seed).take(5).collect::<Vec<_>>();
        assert_eq!(times(3), times(3));
        assert_ne!(times(3), times(4));
    }
}
