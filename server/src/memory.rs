//! How much memory the process may hold before it refuses to hold more.
//!
//! A process that reaches its container's limit is killed, and every call in it with it. Requests under way are bounded by their own
//! settings; what grows for good are items, bundles and what is restored. Beyond the limit these are refused, and everything else
//! goes on: searches, reads, deletes.
//!
//! What counts is what only this process holds and the kernel cannot take back (`RssAnon`): pages of the store's files go when memory
//! is short, and are no reason to refuse anything.
//!
//! - `container`: the limit that the process runs under
//! - `trim`: what the allocator keeps, given back

mod container;
mod trim;

use std::time::{Duration, Instant};

use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;

pub use self::container::limit as container_limit;
pub(crate) use self::trim::give_back;
use crate::error::{Error, Kind, Result};
use crate::observe::{Shed, shed};
use crate::process_status::ProcessStatus;

/// For so long what was seen is taken for what is: one look costs some microseconds.
const FRESH: Duration = Duration::from_millis(100);
/// How often the allocator is asked to give back what it keeps.
const TRIMMED: Duration = Duration::from_secs(10);
/// When a refused caller may try again.
const RETRY: Duration = Duration::from_secs(5);
/// How often long work looks whether there is still room.
const GLANCE: Duration = Duration::from_secs(1);

/// The limit, and what was seen of the process of late.
#[derive(Debug)]
pub struct Memory {
    /// 0 for none.
    most: u64,
    held: fn() -> Option<u64>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    held: Option<(Instant, u64)>,
    trimmed: Option<Instant>,
}

/// The limit where no setting names one: what a container has, less what calls under way may take at most, and less a tenth at least, since
/// the kernel counts pages of files and sockets too. Half is for what stays in any case. 0, no limit, outside a container.
pub fn limit_within(container: Option<u64>, under_way: u64) -> u64 {
    container.map_or(0, |all| all.saturating_sub(under_way.max(all / 10)).max(all / 2))
}

impl Memory {
    /// Refuses from `most` bytes on; never for 0, and where the system does not tell what the process holds.
    pub fn new(most: u64) -> Self {
        Self::of(most, held)
    }

    fn of(most: u64, held: fn() -> Option<u64>) -> Self {
        Self { most, held, seen: Mutex::default() }
    }

    /// Bytes from which on more is refused; 0 for none.
    pub(crate) fn limit(&self) -> u64 {
        self.most
    }

    /// Lets in a call that makes the process hold more for good.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `MEMORY_FULL` with the limit, what is held, and a time to wait.
    pub(crate) fn admit(&self) -> Result<()> {
        self.check().inspect_err(|_| shed(Shed::Memory))
    }

    /// Lets in a call that makes the process hold `bytes` more for good.
    ///
    /// # Errors
    /// As [`Memory::admit`]; without a time to wait where that many never fit in.
    pub(crate) fn admit_with(&self, bytes: u64) -> Result<()> {
        self.check_with(bytes).inspect_err(|_| shed(Shed::Memory))
    }

    /// [`Memory::admit`] for work of the server's own, which is no refused call.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn check(&self) -> Result<()> {
        self.check_with(0)
    }

    fn check_with(&self, bytes: u64) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let held = self.look(Instant::now());
        let would = held.saturating_add(bytes);
        if held < self.most && would <= self.most {
            return Ok(());
        }
        let more =
            if bytes > 0 { format!(", which needs {} MiB", bytes >> 20) } else { String::new() };
        let message = format!(
            "the server holds {} MiB of memory and takes no more{more} from {} MiB on (memory_bytes): searches, reads and deletes go on; \
             delete items or collections, unload bundles, or give it more memory",
            held >> 20,
            self.most >> 20
        );
        let error = Error::new(Kind::Overloaded, ErrorReason::MemoryFull, message);
        let error = error.with("limit", self.most.to_string()).with("actual", would.to_string());
        Err(if bytes > self.most { error } else { error.retry_after(RETRY) })
    }

    /// Waits until there is no room, and tells it as [`Memory::check`] does.
    pub(crate) async fn full(&self) -> Error {
        loop {
            if let Err(full) = self.check() {
                return full;
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Bytes that the process holds. Where that is too much, the allocator is asked to give back what it keeps, for the next look.
    fn look(&self, now: Instant) -> u64 {
        let mut seen = self.seen.lock();
        let of_late = |since: Instant, time| now.saturating_duration_since(since) < time;
        if let Some((when, held)) = seen.held
            && of_late(when, FRESH)
        {
            return held;
        }
        let held = (self.held)().unwrap_or(0);
        seen.held = Some((now, held));
        if held >= self.most && !seen.trimmed.is_some_and(|when| of_late(when, TRIMMED)) {
            seen.trimmed = Some(now);
            give_back_beside();
        }
        held
    }
}

/// [`give_back`] on a thread of its own: those of the networks and of scans have other things to do.
pub(crate) fn give_back_beside() {
    let begun = std::thread::Builder::new().name("give-back".to_owned()).spawn(give_back);
    if let Err(error) = begun {
        tracing::debug!(%error, "freed memory stays with the process");
    }
}

/// Bytes that only this process holds and that no file backs; `None` where the kernel does not tell them apart.
fn held() -> Option<u64> {
    ProcessStatus::read()?.bytes("RssAnon")
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[test]
    fn beyond_the_limit_more_is_refused_with_what_is_held_and_what_may_be() {
        let refused = Memory::of(1 << 20, || Some(3 << 20)).admit().unwrap_err();
        let details = refused.details();
        assert_eq!((details.kind, details.reason), (Kind::Overloaded, ErrorReason::MemoryFull));
        assert!(details.message.contains("3 MiB") && details.message.contains("1 MiB"));
        let known = |name: &str| details.metadata.get(name).cloned();
        assert_eq!(known("limit"), Some((1_u64 << 20).to_string()));
        assert_eq!(known("actual"), Some((3_u64 << 20).to_string()));
        assert_eq!(details.retry_after, Some(RETRY));
    }

    #[test]
    fn below_the_limit_without_one_or_where_nothing_is_known_everything_is_let_in() {
        Memory::of(8, || Some(7)).admit().unwrap();
        Memory::of(0, || Some(7)).admit().unwrap();
        Memory::of(8, || None).admit().unwrap();
    }

    #[test]
    fn what_was_seen_a_moment_ago_is_not_looked_at_again() {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LOOKS: AtomicU64 = AtomicU64::new(0);
        let memory = Memory::of(u64::MAX, || Some(LOOKS.fetch_add(1, Ordering::Relaxed)));
        let began = Instant::now();
        assert_eq!((memory.look(began), memory.look(began + FRESH / 2)), (0, 0));
        assert_eq!(memory.look(began + FRESH), 1);
    }

    #[test]
    fn a_container_keeps_room_for_calls_under_way_and_half_of_it_for_items_at_least() {
        const GIB: u64 = 1 << 30;
        assert_eq!(limit_within(None, GIB), 0);
        assert_eq!(limit_within(Some(10 * GIB), 2 * GIB), 8 * GIB);
        assert_eq!(limit_within(Some(100 * GIB), 2 * GIB), 90 * GIB);
        assert_eq!(limit_within(Some(GIB), 2 * GIB), GIB / 2);
    }

    #[tokio::test]
    async fn long_work_hears_when_there_is_no_room_and_else_waits() {
        let full = Memory::of(8, || Some(8)).full().await;
        assert_eq!(full.details().reason, ErrorReason::MemoryFull);
        let some = Memory::of(8, || Some(7));
        let mut waits = std::pin::pin!(some.full());
        let pending = std::future::poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx).is_pending()));
        assert!(pending.await);
    }
}
