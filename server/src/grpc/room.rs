//! Bytes that calls hold together: bounded over all of them, and no caller has more than half.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;

use crate::error::{Error, Kind};
use crate::observe::{Shed, shed};

/// What a caller who finds no room is told to wait.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// A number of bytes that is given out.
#[derive(Debug)]
pub(super) struct Rooms {
    most: u64,
    /// The most that one caller has.
    share: u64,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u64,
    /// Of each caller who has some.
    callers: HashMap<IpAddr, u64>,
}

/// Bytes of one message, given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    rooms: Arc<Rooms>,
    /// `None` for a call of no address, such as a test's.
    caller: Option<IpAddr>,
    bytes: u64,
}

/// There is no room for so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full {
    /// What may be taken: by all, or by the caller.
    pub(super) limit: u64,
    /// What would be taken.
    pub(super) actual: u64,
    /// Whether it is the caller who has as much as one may have.
    pub(super) of_caller: bool,
}

impl Full {
    /// Counts a refusal and tells it: of what there is no more room, and what helps.
    pub(super) fn refused(self, why: Shed, what: &str, helps: &str) -> Error {
        shed(why);
        let whose = if self.of_caller { "one caller's " } else { "" };
        let message = format!(
            "the server has {} bytes of {whose}{what}, as many as it takes on, or nearly so; {helps}",
            self.limit
        );
        Error::new(Kind::Overloaded, ErrorReason::QueueFull, message)
            .with("limit", self.limit.to_string())
            .with("actual", self.actual.to_string())
            .retry_after(RETRY_AFTER)
    }
}

impl Rooms {
    /// `most` bytes, for messages of up to `message` bytes, of which any caller may have one.
    pub(super) fn new(most: u64, message: u64) -> Arc<Self> {
        let share = (most / 2).max(message).min(most);
        Arc::new(Self { most, share, taken: Mutex::default() })
    }

    /// Room of a caller's message, without any bytes yet.
    pub(super) fn open(self: &Arc<Self>, caller: Option<IpAddr>) -> Room {
        Room { rooms: Arc::clone(self), caller, bytes: 0 }
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.most - self.taken.lock().all
    }
}

impl Room {
    /// Takes as much more as makes it `bytes`; it never becomes less.
    ///
    /// # Errors
    /// There is no room for them; what it has, it keeps.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), Full> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return Ok(());
        };
        let (most, share) = (self.rooms.most, self.rooms.share);
        let mut taken = self.rooms.taken.lock();
        let all = taken.all.saturating_add(more);
        if all > most {
            return Err(Full { limit: most, actual: all, of_caller: false });
        }
        if let Some(caller) = self.caller {
            let mine = taken.callers.get(&caller).copied().unwrap_or_default() + more;
            if mine > share {
                return Err(Full { limit: share, actual: mine, of_caller: true });
            }
            taken.callers.insert(caller, mine);
        }
        taken.all = all;
        drop(taken);
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut taken = self.rooms.taken.lock();
        taken.all -= self.bytes;
        let Some(caller) = self.caller else { return };
        if let Some(mine) = taken.callers.get_mut(&caller) {
            *mine -= self.bytes;
            if *mine == 0 {
                taken.callers.remove(&caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn a_caller_has_half_and_another_one_the_rest() {
        let rooms = Rooms::new(100, 10);
        let (mut one, mut more) = (rooms.open(caller(1)), rooms.open(caller(1)));
        one.grow(45).unwrap();
        assert_eq!(more.grow(6), Err(Full { limit: 50, actual: 51, of_caller: true }));
        more.grow(5).unwrap();
        let mut other = rooms.open(caller(2));
        other.grow(50).unwrap();
        let mut third = rooms.open(caller(3));
        assert_eq!(third.grow(1), Err(Full { limit: 100, actual: 101, of_caller: false }));
        drop(one);
        third.grow(45).unwrap();
        drop((more, other, third));
        assert_eq!(rooms.free(), 100);
        assert!(rooms.taken.lock().callers.is_empty());
    }

    #[test]
    fn room_grows_with_what_comes_and_keeps_what_it_has_when_there_is_no_more() {
        let rooms = Rooms::new(100, 100);
        let mut room = rooms.open(caller(1));
        room.grow(30).unwrap();
        room.grow(20).unwrap();
        assert_eq!(rooms.free(), 70);
        assert!(room.grow(101).is_err());
        assert_eq!(rooms.free(), 70);
        room.grow(100).unwrap();
        assert_eq!(rooms.free(), 0, "the largest message has room, though it is more than half");
    }
}
