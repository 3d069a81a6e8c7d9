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
