//! Threads that answer searches: scans run here, not on the threads of tokio.
//!
//! A search whose rows are worth dividing goes to a pool. Any other goes to threads of our own that sleep while nothing comes. Those of
//! the pool, when they run out of work, look for more by yielding the core some thirty times, each of them a switch of threads
//! where there is something else to do: on a busy core that is as long as a small scan.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

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
            let jobs = Arc::clone(&scans.jobs);
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || run(&jobs))
                .map_err(|e| {
                    Error::internal(format!("thread {name}-{number} did not start: {e}"))
                })?;
        }
        Ok(scans)
    }

    /// Runs `job` soon; one that is `large` on the pool, where it may divide itself.
    pub(super) fn spawn(&self, large: bool, job: impl FnOnce() + Send + 'static) {
        if let Some(pool) = self.divided.as_ref().filter(|_| large) {
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
    // What divides itself for a pool of many stays on this thread then. Kept while the thread lives.
    let alone = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    if let Err(error) = &alone {
        tracing::debug!(%error, "scans that could be divided are handed over");
    }
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
        // A panic reaches the caller as an answer that never comes, not as the end of the thread.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a scan panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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
    fn names(scans: &Scans, large: bool) -> Vec<String> {
        let (told, names) = mpsc::channel();
        scans.spawn(large, move || {
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
        let scans = Scans::start("scan", 1, Some(pool())).unwrap();
        assert_eq!(names(&scans, false), ["scan-0"]);
        assert!(names(&scans, true).iter().all(|name| name.starts_with("pool-")));
        let scans = Scans::start("scan", 1, None).unwrap();
        assert_eq!(names(&scans, true), ["scan-0"]);
    }

    #[test]
    fn a_panic_ends_its_job_alone() {
        let scans = Scans::start("scan", 1, None).unwrap();
        let (told, tells) = mpsc::channel::<()>();
        scans.spawn(false, move || {
            drop(told);
            std::panic::resume_unwind(Box::new(()));
        });
        assert!(tells.recv().is_err());
        assert_eq!(names(&scans, false), ["scan-0"]);
    }

    #[test]
    fn what_waits_when_it_ends_is_still_run() {
        let scans = Scans::start("scan", 1, None).unwrap();
        let (told, tells) = mpsc::channel();
        for number in 0..100 {
            let told = told.clone();
            scans.spawn(false, move || told.send(number).unwrap());
        }
        drop((scans, told));
        assert_eq!(tells.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
