//! Freed memory goes back to the system.
//!
//! glibc keeps what was freed for the next who asks, in as many places as there were threads: what a bundle held, or a collection,
//! stays with the process long after it is gone. Asked to, it gives back all but the end of each thread's heap.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "glibc gives memory back through a C function")
)]

/// Gives back what the allocator keeps and nobody uses. It takes a moment: not for threads that answer calls.
pub(crate) fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` may be called at any time from any thread, takes a number and keeps no reference.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    #[test]
    fn what_was_freed_is_no_longer_held() {
        // Small blocks with one in use now and then, so that the allocator keeps what lies between when it is freed.
        let blocks: Vec<Vec<u8>> = (0..20_000).map(|_| vec![1; 4096]).collect();
        let (kept, freed): (Vec<_>, Vec<_>) =
            blocks.into_iter().enumerate().partition(|(at, _)| at % 100 == 0);
        drop(freed);
        let before = super::super::held().unwrap();
        super::give_back();
        let after = super::super::held().unwrap();
        assert!(after + (32 << 20) < before, "{before} {after} {}", kept.len());
    }
}
