//! Loads: open, by a schedule, and closed, by callers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::args::{Arrivals, BenchArgs};
use super::ask::Ask;
use super::schedule::{Schedule, told};
use super::tally::Tally;

/// A schedule that is behind lets answers be read after so many calls.
const BURST: u64 = 8;

/// How calls are begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    /// So many a second, whatever becomes of those before.
    Open { rate: f64, arrivals: Arrivals },
    /// By so many callers, one call at a time each.
    Closed { callers: u32 },
}

/// What a load came to.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) mode: Mode,
    pub(super) duration: Duration,
    pub(super) tally: Tally,
    /// Share of its threads' time that the tool computed in; nothing where that is not known.
    pub(super) busy: Option<f64>,
    /// Share of calls that were late.
    pub(super) late: f64,
}

impl Measured {
    /// Answered calls a second.
    pub(super) fn goodput(&self) -> f64 {
        self.tally.ok() as f64 / self.duration.as_secs_f64()
    }

    /// Calls a second that were due.
    pub(super) fn offered(&self) -> f64 {
        self.tally.due() as f64 / self.duration.as_secs_f64()
    }

    /// Whether the tool was quick enough for its own figures to be about the server.
    pub(super) fn kept_up(&self) -> bool {
        match self.mode {
            Mode::Open { .. } => self.late <= 0.01 && self.tally.unsent == 0,
            Mode::Closed { .. } => self.busy.is_none_or(|busy| busy < 0.9),
        }
    }
}

/// What the calls of one load share.
#[derive(Debug)]
struct Run {
    ask: Arc<Ask>,
    tally: Mutex<Tally>,
    begun: Instant,
    /// What is measured, from the beginning on.
    window: std::ops::Range<Duration>,
    numbers: AtomicU64,
    under_way: AtomicU64,
    idle: Notify,
}

/// Makes calls for the warm-up and the duration of `args`, and waits for the last answer.
///
/// # Errors
/// When the system refuses a thread.
pub(super) async fn run(ask: &Arc<Ask>, args: &BenchArgs, mode: Mode) -> std::io::Result<Measured> {
    let run = Arc::new(Run {
        ask: Arc::clone(ask),
        tally: Mutex::default(),
        begun: Instant::now(),
        window: args.warm_up..args.warm_up + args.duration,
        numbers: AtomicU64::new(0),
        under_way: AtomicU64::new(0),
        idle: Notify::new(),
    });
    let before = computed();
    match mode {
        Mode::Open { rate, arrivals } => {
            open(&run, args, Schedule::new(rate, arrivals, args.seed)).await?;
        }
        Mode::Closed { callers } => closed(&run, callers).await,
    }
    let whole = run.begun.elapsed().as_secs_f64() * f64::from(args.threads);
    let busy = before.zip(computed()).map(|(before, after)| (after - before).as_secs_f64() / whole);
    let tally = std::mem::take(&mut *run.tally.lock());
    let late = tally.lateness.share_above(args.late);
    Ok(Measured { mode, duration: args.duration, tally, busy, late })
}

async fn open(run: &Arc<Run>, args: &BenchArgs, schedule: Schedule) -> std::io::Result<()> {
    let mut told = told(schedule, (run.begun.into_std(), run.window.end))?;
    while let Some(due) = told.recv().await {
        let number = run.numbers.fetch_add(1, Ordering::Relaxed);
        let measured = run.window.contains(&due);
        let late = run.begun.elapsed().saturating_sub(due);
        if measured {
            run.tally.lock().lateness.note(late);
        }
        if run.under_way.load(Ordering::Relaxed) >= u64::from(args.in_flight) {
            run.tally.lock().unsent += u64::from(measured);
        } else {
            run.under_way.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(Arc::clone(run).scheduled(number, due));
        }
        if number.is_multiple_of(BURST) {
            tokio::task::yield_now().await;
        }
    }
    while run.under_way.load(Ordering::Acquire) > 0 {
        run.idle.notified().await;
    }
    Ok(())
}

impl Run {
    fn is_second_half(&self, time: Duration) -> bool {
        time >= (self.window.start + self.window.end) / 2
    }

    /// A call of a schedule: its time is that from when it was due, also when it was sent later.
    async fn scheduled(self: Arc<Self>, number: u64, due: Duration) {
        let outcome = self.ask.call(number).await;
        let time = self.begun.elapsed().saturating_sub(due);
        if self.window.contains(&due) {
            self.tally.lock().note(time, self.is_second_half(due), &outcome);
        }
        if self.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.idle.notify_one();
        }
    }

    /// One caller of a closed loop. What ends in the window is counted.
    async fn caller(self: Arc<Self>) {
        loop {
            let begun = self.begun.elapsed();
            if begun >= self.window.end {
                return;
            }
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            let outcome = self.ask.call(number).await;
            let ended = self.begun.elapsed();
            if self.window.contains(&ended) {
                let time = ended.saturating_sub(begun);
                self.tally.lock().note(time, self.is_second_half(ended), &outcome);
            }
        }
    }
}

async fn closed(run: &Arc<Run>, callers: u32) {
    let mut calling = JoinSet::new();
    for _ in 0..callers {
        calling.spawn(Arc::clone(run).caller());
    }
    while calling.join_next().await.is_some() {}
}

/// Time that this process has computed for, as Linux tells it, in ticks of a hundredth of a second.
fn computed() -> Option<Duration> {
    let told = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, in parentheses, may hold anything; user and system time are the 12th and 13th field after it.
    let (_, fields) = told.rsplit_once(')')?;
    let ticks = |field: usize| fields.split_ascii_whitespace().nth(field)?.parse::<u64>().ok();
    Some(Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}
