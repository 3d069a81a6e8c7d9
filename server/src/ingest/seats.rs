//! One open stream for each ingest: who comes later takes over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

use crate::callers::{Callers, Counted};
use crate::error::{Error, Kind, Result};

/// Most ingests with an open stream.
const MOST: usize = 32;
/// When one who found no seat may come again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// The seats of all ingests, by id. One caller has half at most.
#[derive(Debug)]
pub(crate) struct Seats {
    entries: Mutex<HashMap<String, Entry>>,
    callers: Arc<Callers>,
}

impl Default for Seats {
    fn default() -> Self {
        Self { entries: Mutex::default(), callers: Callers::new(MOST / 2) }
    }
}

#[derive(Debug)]
struct Entry {
    /// Tells the stream that has the seat, or waits for it, to leave.
    taken: CancellationToken,
    /// Held by who sits; everybody who waits has a share in it.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Leave to write for an ingest; until it is dropped, nobody else does.
#[derive(Debug)]
pub(crate) struct Seat {
    taken: CancellationToken,
    _turn: OwnedMutexGuard<()>,
    _counted: Counted,
}

impl Seat {
    /// Cancelled when another stream takes over.
    pub(crate) fn taken(&self) -> CancellationToken {
        self.taken.clone()
    }
}

impl Seats {
    /// Takes the seat of an ingest, as soon as the one who has it has finished what it began.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `QUEUE_FULL` for too many ingests at once; ABORTED `STREAM_TAKEN_OVER` when a third one comes.
    pub(crate) async fn take(&self, id: &str, caller: Option<IpAddr>) -> Result<Seat> {
        let most = self.callers.most();
        let counted = self.callers.enter(caller).ok_or_else(|| {
            full(most, &format!("the caller has {most} ingests open, as many as one may have"))
        })?;
        let (taken, turn) = self.ask(id)?;
        tokio::select! {
            biased;
            () = taken.cancelled() => Err(taken_over()),
            turn = turn.lock_owned() => Ok(Seat { taken, _turn: turn, _counted: counted }),
        }
    }

    /// Whether somebody has the seat, or waits for it.
    pub(crate) fn is_taken(&self, id: &str) -> bool {
        self.entries.lock().get(id).is_some_and(Entry::is_taken)
    }

    fn ask(&self, id: &str) -> Result<(CancellationToken, Arc<tokio::sync::Mutex<()>>)> {
        let mut seats = self.entries.lock();
        seats.retain(|_, entry| entry.is_taken());
        if seats.len() >= MOST && !seats.contains_key(id) {
            return Err(full(MOST, &format!("{MOST} ingests are open, which is the limit")));
        }
        let fresh = || Entry { taken: CancellationToken::new(), turn: Arc::default() };
        let entry = seats.entry(id.to_owned()).or_insert_with(fresh);
        entry.taken.cancel();
        entry.taken = CancellationToken::new();
        Ok((entry.taken.clone(), Arc::clone(&entry.turn)))
    }
}

impl Entry {
    fn is_taken(&self) -> bool {
        Arc::strong_count(&self.turn) > 1
    }
}

fn full(most: usize, message: &str) -> Error {
    let full = Error::new(Kind::Overloaded, ErrorReason::QueueFull, message);
    full.with("limit", most.to_string()).retry_after(COME_AGAIN)
}

/// What a stream is told whose seat another one has.
pub(crate) fn taken_over() -> Error {
    let message = "another stream with this ingest_id was opened and goes on from here";
    Error::new(Kind::Conflict, ErrorReason::StreamTakenOver, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_later_waits_until_the_first_has_finished_and_the_last_one_sits() {
        let seats = Arc::new(Seats::default());
        let first = seats.take("a", None).await.unwrap();
        let sit = || {
            let seats = Arc::clone(&seats);
            tokio::spawn(async move { seats.take("a", None).await })
        };
        let second = sit();
        first.taken().cancelled().await;
        let third = sit();
        let told = second.await.unwrap().unwrap_err();
        assert_eq!(told.details().reason, ErrorReason::StreamTakenOver);
        assert!(!third.is_finished(), "the first one still writes");
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert!(seats.is_taken("a"));
        drop(third);
        assert!(!seats.is_taken("a"));
    }

    #[tokio::test]
    async fn one_ingest_too_many_is_told_to_come_again() {
        let seats = Seats::default();
        let mut taken = Vec::new();
        for number in 0..MOST {
            taken.push(seats.take(&number.to_string(), None).await.unwrap());
        }
        let refused = seats.take("more", None).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::QueueFull);
        assert!(refused.details().retry_after.is_some());
        taken.pop();
        assert!(seats.take("more", None).await.is_ok());
    }

    #[tokio::test]
    async fn one_caller_leaves_seats_to_others() {
        let seats = Seats::default();
        let [one, other] = [1, 2].map(|last| Some(IpAddr::from([10, 0, 0, last])));
        let mut taken = Vec::new();
        for number in 0..MOST / 2 {
            taken.push(seats.take(&number.to_string(), one).await.unwrap());
        }
        let refused = seats.take("more", one).await.unwrap_err();
        assert_eq!(refused.details().metadata["limit"], "16");
        assert!(seats.take("more", other).await.is_ok());
        taken.pop();
        assert!(seats.take("more", one).await.is_ok());
    }
}
