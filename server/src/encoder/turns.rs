//! Turns of the one core: where a server has no more, what is brief is computed on the thread that runs its call.
//!
//! The way to another thread and back would take longer there, since on a core that never rests each change of threads waits for a slice
//! of the scheduler; and it would bring nothing, since the call's thread cannot do anything else meanwhile. That thread also
//! reads connections, so that calls are computed one at a time, each when all connections were read: nobody waits for more
//! than one call to be let in or refused.

use std::future::poll_fn;
use std::task::Poll;

use tokio::sync::{Semaphore, SemaphorePermit};

/// One turn at a time, in the order of asking; none where there are more cores.
#[derive(Debug)]
pub(super) struct Turns(Option<Semaphore>);

/// Leave to compute here.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    _permit: SemaphorePermit<'a>,
}

impl Turns {
    /// Of a server that computes on so many threads.
    pub(super) fn new(threads: usize) -> Self {
        Self((threads <= 1).then(|| Semaphore::new(1)))
    }

    /// Leave to compute here, when whoever came before is done and all connections were read; nothing where other threads
    /// compute. It is to be held from here to there without waiting for anything.
    pub(super) async fn next(&self) -> Option<Turn<'_>> {
        let permit = self.0.as_ref()?.acquire().await.ok()?;
        pass().await;
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
    use std::time::Duration;

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
