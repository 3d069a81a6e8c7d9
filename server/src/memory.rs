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

/// For so long what was seen is taken for what is: one look costs some microseconds, and a call adds some mebibytes at most.
const FRESH: Duration = Duration::from_millis(100);
/// How often the allocator is asked to give back what it keeps.
const TRIMMED: Duration = Duration::from_secs(10);
/// When a refused caller may try again.
const RETRY: Duration = Duration::from_secs(5);

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

impl Memory {
    /// Refuses from `most` bytes on; never for 0, and where the system does not tell what the process holds.
    pub fn new(most: u64) -> Self {
        Self::of(most, held)
    }

    fn of(most: u64, held: fn() -> Option<u64>) -> Self {
        Self { most, held, seen: Mutex::default() }
    }

    /// Lets in what makes the process hold more for good.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `MEMORY_FULL` with the limit, what is held, and a time to wait.
    pub(crate) fn admit(&self) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        let held = self.look(Instant::now());
        if held < self.most {
            return Ok(());
        }
        shed(Shed::Memory);
        let message = format!(
            "the server holds {} MiB of memory and takes no more from {} MiB on (memory_bytes): searches, reads and deletes go on; \
             delete items or collections, unload bundles, or give it more memory",
            held >> 20,
            self.most >> 20
        );
        let error = Error::new(Kind::Overloaded, ErrorReason::MemoryFull, message);
        let error = error.with("limit", self.most.to_string()).with("actual", held.to_string());
        Err(error.retry_after(RETRY))
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
            rayon::spawn(give_back);
        }
        held
    }
}

/// Bytes that only this process holds and that no file backs; all that are in memory where the kernel does not tell them apart.
fn held() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(kib("RssAnon:").or_else(|| kib("VmRSS:"))? << 10)
}

#[cfg(test)]
mod tests {
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

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_what_the_process_holds() {
        let before = held().unwrap();
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(held().unwrap() > before + (32 << 20), "{}", block.len());
    }
}
