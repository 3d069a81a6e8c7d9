//! Memory that one training step frees is kept for the next.
//!
//! A step makes and drops a few hundred tensors of up to 32 MiB. Left to itself, glibc maps each
//! large one anew and unmaps it again, and the kernel fills every page with zeros in between.

#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "glibc is told its settings through a C function")
)]

/// Tells the C library to serve large allocations from memory that it keeps, instead of mapping each
/// anew. Call it first in `main`: what was allocated before keeps its place. Returns whether all
/// settings were taken; where the C library is not glibc there is nothing to set, and nothing is lost
/// but time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_freed_memory() -> bool {
    /// The largest size that glibc accepts here, on 64 bits: what is larger is mapped in any case.
    const LARGEST_KEPT: libc::c_int = 32 << 20;
    /// How much may lie unused at the end of the heap before it is given back.
    const UNUSED: libc::c_int = 1 << 30;
    /// How much the heap grows beyond what is asked for.
    const GROWTH: libc::c_int = 64 << 20;
    let settings = [
        (libc::M_MMAP_THRESHOLD, LARGEST_KEPT),
        (libc::M_TRIM_THRESHOLD, UNUSED),
        (libc::M_TOP_PAD, GROWTH),
    ];
    // SAFETY: `mallopt` may be called at any time, takes two integers and keeps no reference.
    settings.into_iter().all(|(name, value)| unsafe { libc::mallopt(name, value) } == 1)
}

/// Nothing to set.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn keep_freed_memory() -> bool {
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_c_library_takes_the_settings() {
        assert!(super::keep_freed_memory());
    }
}
