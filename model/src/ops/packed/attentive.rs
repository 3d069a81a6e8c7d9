//! Threads that wait for a network's next layer with open eyes.
//!
//! A worker of a rayon pool that finds nothing to do falls asleep within some microseconds. Between the short layers of
//! one picture that is every few of them, and waking it takes as long as a small layer.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Looks for work until a thread offers its core to others.
const LOOKS: u32 = 32;
/// How long a thread looks in vain. The network may be waiting for a task that this very thread is in the middle of: it took it up, waited
/// for a part of it that another thread has, and began to look meanwhile. Without an end both would wait for ever.
const IDLE: Duration = Duration::from_micros(100);
/// How long a thread looks at most, however much it finds: what it is in the middle of, another network's perhaps, goes on then.
const LONGEST: Duration = Duration::from_millis(20);

thread_local! {
    /// Networks that this thread computes, one within another where it took one up while it waited.
    static COMPUTING: Cell<usize> = const { Cell::new(0) };
}

/// Computes a network, while the other threads of its pool look for its tasks without falling asleep. For few inputs,
/// whose layers are divided between threads; on a thread of the pool, or without effect.
///
/// Nobody waits for the threads that look: one that took up another network in the meantime goes on with it.
pub fn attentive<R>(network: impl FnOnce() -> R) -> R {
    if rayon::current_num_threads() == 1 || rayon::current_thread_index().is_none() {
        return network();
    }
    let over = Over(Arc::default());
    let seen = Arc::clone(&over.0);
    rayon::spawn_broadcast(move |_| look_for_work(&seen));
    let _computing = Computing::begin();
    network()
}

/// Says that a network is computed, or that its thread panicked, when dropped.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

struct Computing;

impl Computing {
    fn begin() -> Self {
        COMPUTING.set(COMPUTING.get() + 1);
        Self
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.set(COMPUTING.get() - 1);
    }
}

fn look_for_work(over: &AtomicBool) {
    // A thread that waits in the middle of a network goes on with it as soon as it can.
    if COMPUTING.get() > 0 {
        return;
    }
    let begun = Instant::now();
    let (mut looks, mut idle) = (0_u32, begun);
    while !over.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(rayon::Yield::Executed) {
            (looks, idle) = (0, Instant::now());
        } else {
            looks += 1;
            if looks.is_multiple_of(LOOKS) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        if idle.elapsed() > IDLE || begun.elapsed() > LONGEST {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::AtomicU64;

    use rayon::prelude::*;

    use super::*;

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap()
    }

    /// Layers of a few tasks, one after the other, each long enough to be taken up by another thread.
    fn network(layers: usize) -> usize {
        let task = |layer: usize, task: usize| {
            (0..100).map(std::hint::black_box).fold(task * layer, |sum, _| sum)
        };
        let layer =
            |layer| (0..8).into_par_iter().with_max_len(1).map(|at| task(layer, at)).sum::<usize>();
        (0..layers).map(layer).sum()
    }

    #[test]
    fn networks_side_by_side_and_within_one_another_all_end() {
        let pool = pool();
        let expected = 28 * (0..200).sum::<usize>();
        let ended = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let within = || attentive(|| network(200));
                        assert_eq!(pool.install(|| attentive(|| network(200))), expected);
                        assert_eq!(
                            pool.install(|| attentive(|| rayon::join(within, within).0)),
                            expected
                        );
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(ended.into_inner(), 300);
    }

    #[test]
    fn a_thread_that_looks_in_vain_goes_on_with_what_it_was_at() {
        let never_over = AtomicBool::new(false);
        pool().install(|| look_for_work(&never_over));
        assert!(!never_over.into_inner());
    }

    #[test]
    fn a_network_that_panics_leaves_no_thread_looking() {
        let pool = pool();
        let looking = Arc::new(AtomicBool::new(false));
        pool.install(|| {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let over = Over(Arc::clone(&looking));
                let _computing = Computing::begin();
                assert!(!over.0.load(Ordering::Acquire));
                panic!("a kernel gave up");
            }));
            assert!(panicked.is_err());
            assert_eq!(COMPUTING.get(), 0);
        });
        assert!(looking.load(Ordering::Acquire));
    }

    #[test]
    fn outside_of_a_pool_it_is_the_network_alone() {
        assert_eq!(attentive(rayon::current_thread_index), None);
    }
}
