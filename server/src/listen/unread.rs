//! Replies of one connection that were not read yet.
//!
//! What a peer does not read lies in the connection's own buffers, where nothing but its end reaches it, and holds the places of its
//! calls. A peer that neither reads a reply nor gives it up when the call's time is over is not served any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long after its call's end a reply may still be read.
const SLACK: Duration = Duration::from_secs(1);

/// The replies of a connection, among its requests' extensions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread(Arc<Mutex<Due>>);

#[derive(Debug, Default)]
struct Due {
    /// When each must have been read, with a number that tells those of one moment apart.
    by: BTreeSet<(Instant, u64)>,
    numbered: u64,
}

/// A reply that was not read yet, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    unread: Unread,
    key: (Instant, u64),
}

impl Unread {
    /// A reply of a call whose time is over `at`.
    pub(crate) fn begin(&self, at: Instant) -> Waiting {
        let mut due = self.0.lock();
        due.numbered += 1;
        let key = (at + SLACK, due.numbered);
        due.by.insert(key);
        Waiting { unread: self.clone(), key }
    }

    /// Whether one should have been read by `now`.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.0.lock().by.first().is_some_and(|(by, _)| *by <= now)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.unread.0.lock().by.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_not_read_in_time_is_late_until_it_is_read() {
        let (unread, now) = (Unread::default(), Instant::now());
        let [first, same] = [unread.begin(now), unread.begin(now)];
        let later = unread.begin(now + Duration::from_secs(60));
        assert!(!unread.is_late(now));
        assert!(unread.is_late(now + SLACK));
        drop(first);
        assert!(unread.is_late(now + SLACK));
        drop(same);
        assert!(!unread.is_late(now + SLACK));
        drop(later);
        assert!(unread.0.lock().by.is_empty());
    }
}
