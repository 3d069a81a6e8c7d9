//! When calls are due, whatever became of those before: an open loop.

use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc;

use super::super::args::Arrivals;

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

/// Tells the times of a schedule before `end` as they come, counted from `begun`, to some microseconds.
///
/// From a thread that sleeps between them: the runtime's timer ticks by the millisecond, and to watch the time instead would take a whole
/// core, which who reads the answers may need.
///
/// # Errors
/// When the system refuses a thread.
pub(super) fn told(
    schedule: Schedule,
    (begun, end): (Instant, Duration),
) -> std::io::Result<mpsc::UnboundedReceiver<Duration>> {
    let (tell, told) = mpsc::unbounded_channel();
    thread::Builder::new().name("schedule".to_owned()).spawn(move || {
        wake_in_time();
        for due in schedule.take_while(|due| *due < end) {
            pause(due.saturating_sub(begun.elapsed()));
            if tell.send(due).is_err() {
                return;
            }
        }
    })?;
    Ok(told)
}

/// Asks Linux not to put off this thread's wake-ups, by 50 microseconds as is usual, to join them with others. Where that is not to be had,
/// calls are a little late, which is counted.
fn wake_in_time() {
    let Ok(own) = std::fs::read_link("/proc/thread-self") else { return };
    let Some(thread) = own.file_name() else { return };
    let slack = std::path::Path::new("/proc").join(thread).join("timerslack_ns");
    drop(std::fs::write(slack, "1"));
}

#[expect(clippy::disallowed_methods, reason = "the time itself is what is waited for")]
fn pause(time: Duration) {
    thread::sleep(time);
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

    #[tokio::test]
    async fn no_call_is_told_before_it_is_due_and_all_are() {
        let (begun, end) = (Instant::now(), Duration::from_millis(20));
        let mut told = told(Schedule::new(1000.0, Arrivals::Fixed, 1), (begun, end)).unwrap();
        let mut calls = 0;
        while let Some(due) = told.recv().await {
            assert!(begun.elapsed() >= due);
            calls += 1;
        }
        assert_eq!(calls, 19);
    }

    #[test]
    fn a_seed_gives_one_schedule() {
        let times = |seed| Schedule::new(10.0, Arrivals::Poisson, seed).take(5).collect::<Vec<_>>();
        assert_eq!(times(3), times(3));
        assert_ne!(times(3), times(4));
    }
}
