//! Threads that answer searches: scans run here, not on the threads of tokio.
//!
//! A search whose rows are worth dividing goes to a pool. Any other goes to threads of our own that sleep while nothing comes. Those of
//! the pool, when they run out of work, look for more by yielding the core some thirty times, each of them a switch of threads
//! where there is something else to do: on a busy core that is as long as a small scan.
//!
//! Where there is one thread, what is not large runs where it is asked for: while another thread scanned, this one could do nothing, and on
//! a core that never rests each change of threads waits for a slice of the scheduler, longer than the scan.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// How much a search has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Extent {
    /// One walk, or a scan of no more than one thread takes at a time.
    Small,
    /// Worth dividing; one thread alone takes a millisecond or two.
    Medium,
    /// More than that.
    Large,
}

type Job = Box<dyn FnOnce() + Send>;

/// Where searches run. Its threads end when it is dropped.
#[derive(Debug)]
pub(super) struct Scans {
    jobs: Arc<Jobs>,
    /// `None` with one thread, which nothing can be divided among.
    divided: Option<ThreadPool>,
}

#[derive(Default)]
struct Jobs {
    waiting: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jobs").field("waiting", &self.waiting.lock().jobs.len()).finish()
    }
}

impl Scans {
    /// So many threads that take a search each, beside the pool, if any, for those that are divided.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn start(name: &str, threads: usize, divided: Option<ThreadPool>) -> Result<Self> {
        // From here on: those that started end also when a later one does not start.
        let scans = Self { jobs: Arc::default(), divided };
        for number in 0..threads.max(1) {
            let (name, jobs) = (format!("{name}-{number}"), Arc::clone(&scans.jobs));
            let failed = format!("thread {name} did not start");
            // Each is a pool of its own: what divides itself for a pool of many stays on it then. It ends with the last job.
            let own = ThreadPoolBuilder::new().num_threads(1).thread_name(move |_| name.clone());
            let own = own.build().map_err(|error| Error::internal(format!("{failed}: {error}")))?;
            own.spawn(move || run(&jobs));
        }
        Ok(scans)
    }

    /// Whether what is not large runs on the thread that asks.
    pub(super) fn here(&self) -> bool {
        self.divided.is_none()
    }

    /// Runs `job` soon, or at once where there is one thread and it is not large; one that is worth dividing on the pool.
    pub(super) fn run(&self, extent: Extent, job: impl FnOnce() + Send + 'static) {
        if self.here() && extent < Extent::Large {
            alone();
            guarded(job);
            return;
        }
        if let Some(pool) = self.divided.as_ref().filter(|_| extent > Extent::Small) {
            pool.spawn(job);
            return;
        }
        self.jobs.waiting.lock().jobs.push_back(Box::new(job));
        self.jobs.filled.notify_one();
    }
}

impl Drop for Scans {
    fn drop(&mut self) {
        self.jobs.waiting.lock().closed = true;
        self.jobs.filled.notify_all();
    }
}

/// Takes jobs until told to end; those that wait then are still run.
fn run(jobs: &Jobs) {
    loop {
        let job = {
            let mut waiting = jobs.waiting.lock();
            loop {
                if let Some(job) = waiting.jobs.pop_front() {
                    break job;
                }
                if waiting.closed {
                    return;
                }
                jobs.filled.wait(&mut waiting);
            }
        };
        guarded(job);
    }
}

/// A panic reaches the caller as an answer that never comes, not as the end of the thread.
fn guarded(job: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(job)).is_err() {
        tracing::error!("a scan panicked");
    }
}

/// Makes the thread that asks a pool of its own too, for good: it is one of the few that run as long as the process, since rayon does not
/// give back what it holds for such a thread.
fn alone() {
    thread_local! {
        static OWN: OnceCell<Option<ThreadPool>> = const { OnceCell::new() };
    }
    if rayon::current_thread_index().is_some() {
        return;
    }
    let own = || {
        let own = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        own.inspect_err(
            |error| tracing::debug!(%error, "scans that could be divided are handed over"),
        )
        .ok()
    };
    OWN.with(|pool| {
        pool.get_or_init(own);
    });
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use rayon::prelude::*;

    use super::*;

    fn pool() -> ThreadPool {
        ThreadPoolBuilder::new()
            .num_threads(2)
            .thread_name(|at| format!("pool-{at}"))
            .build()
            .unwrap()
    }

    /// Names of the threads on which a job of many parts ran.
    fn names(scans: &Scans, extent: Extent) -> Vec<String> {
        let (told, names) = mpsc::channel();
        scans.run(extent, move || {
            let name = |_| thread::current().name().unwrap_or_default().to_owned();
            told.send((0..64).into_par_iter().map(name).collect::<Vec<_>>()).unwrap();
        });
        let mut names = names.recv().unwrap();
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn what_is_small_stays_on_one_thread_and_what_is_large_may_be_divided() {
        let scans = Scans::start("scan", 2, Some(pool())).unwrap();
        assert!(["scan-0", "scan-1"].contains(&&*names(&scans, Extent::Small).concat()));
        for extent in [Extent::Medium, Extent::Large] {
            assert!(names(&scans, extent).iter().all(|name| name.starts_with("pool-")));
        }
    }

    #[test]
    fn alone_what_takes_a_moment_runs_where_it_is_asked_for_and_only_what_is_large_does_not() {
        let scans = Scans::start("scan", 1, None).unwrap();
        let here = thread::current().name().unwrap_or_default().to_owned();
        for extent in [Extent::Small, Extent::Medium] {
            assert_eq!(names(&scans, extent), [here.as_str()]);
        }
        assert_eq!(names(&scans, Extent::Large), ["scan-0"]);
    }

    #[test]
    fn a_panic_ends_its_job_alone() {
        let scans = Scans::start("scan", 1, None).unwrap();
        let (told, tells) = mpsc::channel::<()>();
        scans.run(Extent::Large, move || {
            drop(told);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(tells.recv().is_err());
        assert_eq!(names(&scans, Extent::Large), ["scan-0"]);
    }

    #[test]
    fn what_waits_when_it_ends_is_still_run() {
        let scans = Scans::start("scan", 1, None).unwrap();
        let (told, tells) = mpsc::channel();
        for number in 0..100 {
            let told = told.clone();
            scans.run(Extent::Large, move || told.send(number).unwrap());
        }
        drop((scans, told));
        assert_eq!(tells.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
