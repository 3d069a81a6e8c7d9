//! Turns of the one core: where a server has no more, what is brief is computed on the thread that runs its call.
//!
//! The way to another thread and back would take longer there, since on a core that never rests each change of threads waits for a slice
//! of the scheduler; and it would bring nothing, since the call's thread cannot do anything else meanwhile. That thread also
//! reads connections, so that calls are computed one at a time, and all connections are read between two of them, or every
//! millisecond where they are quicker: nobody waits for longer to be let in or refused.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Connections are read no more often than this: it takes a tenth of it.
const ROUND: Duration = Duration::from_millis(1);

/// One turn at a time, in the order of asking; none where there are more cores.
#[derive(Debug)]
pub(super) struct Turns(Option<Core>);

#[derive(Debug)]
struct Core {
    turn: Semaphore,
    /// When all connections had been read.
    read: Mutex<Option<Instant>>,
}

/// Leave to compute here.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Turns {
    /// Of a server that computes on so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self((threads <= 1).then(|| Core { turn: Semaphore::new(1), read: Mutex::default() }))
    }

    /// Leave to compute here, when whoever came before is done and all connections were read of late; nothing where other threads
    /// compute. It is to be held from here to there without waiting for anything.
    pub(super) async fn next(&self) -> Option<Turn<'_>> {
        let core = self.0.as_ref()?;
        let permit = core.turn.acquire().await.ok()?;
        let read = *core.read.lock();
        if read.is_none_or(|read| read.elapsed() >= ROUND) {
            pass().await;
            *core.read.lock() = Some(Instant::now());
        }
        Some(Turn { _permit: permit })
    }
}

/// Waits until all that is ready on this thread has run, and what the system says to be ready then, such as connections with
/// something to read.
async fn pass() {
    // This ends when the system was asked what is ready, before that runs.
    tokio::task::yield_now().await;
    // Who wakes itself goes to the end of the queue.
    let mut passed = false;
    poll_fn(|context| {
        if std::mem::replace(&mut passed, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn turns_come_one_at_a_time_in_order_and_after_what_is_ready() {
        let (turns, order) = (Turns::new(1), RefCell::new(Vec::new()));
        let computes = async |name| {
            let turn = turns.next().await.unwrap();
            order.borrow_mut().push(name);
            drop(turn);
        };
        let reads = async {
            order.borrow_mut().push("read");
        };
        tokio::join!(computes("first"), computes("second"), reads);
        assert_eq!(*order.borrow(), ["read", "first", "second"]);
    }

    #[tokio::test]
    async fn connections_are_read_anew_when_a_while_has_passed() {
        let turns = Turns::new(1);
        let mut rounds = Vec::new();
        for _ in 0..3 {
            drop(turns.next().await);
            rounds.push(turns.0.as_ref().unwrap().read.lock().unwrap());
            let begun = Instant::now();
            while begun.elapsed() < ROUND {
                std::hint::spin_loop();
            }
        }
        assert!(rounds.is_sorted_by(|one, next| one < next));
    }

    #[tokio::test]
    async fn where_there_are_more_cores_nobody_computes_here() {
        assert!(Turns::new(2).next().await.is_none());
    }

    #[tokio::test]
    async fn who_leaves_gives_the_turn_back() {
        let turns = Turns::new(1);
        let first = turns.next().await;
        let second = tokio::time::timeout(Duration::ZERO, turns.next()).await;
        assert!(second.is_err());
        drop(first);
        assert!(turns.next().await.is_some());
    }
}
