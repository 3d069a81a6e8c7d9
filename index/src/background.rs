//! How threads whose work takes long give way to those that answer calls.
//!
//! A low priority says how much of a core a thread has beside others, not when: one that computes without a pause is taken from its
//! core when its slice is over, milliseconds after another one woke. Where cores are few a search would wait so long. So long
//! work is done in steps, with a pause after each.

use std::thread;

/// How low the priority of a thread is that nobody waits for, in steps of nice(2).
const NICENESS: i32 = 10;

/// Brief items in one step.
const STEP: usize = 256;

/// Bytes written in one step: some kernels do not take a core from who is in a system call, however long that is.
const PART: usize = 128 << 10;

/// Lowers the priority of this thread, which nobody waits for.
pub(crate) fn lower() {
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::debug!(%error, "a thread in the background keeps its priority");
    }
}

/// Ends a step of long work: those who wait for this core have it first. Steps are of some microseconds at least, beside which a
/// pause in vain costs nothing.
pub(crate) fn pause() {
    thread::yield_now();
}

/// Items that are brief each, so that only many of them are a step.
pub(crate) fn paced<T>(items: impl IntoIterator<Item = T>) -> impl Iterator<Item = T> {
    items.into_iter().enumerate().map(|(at, item)| {
        if at % STEP == STEP - 1 {
            pause();
        }
        item
    })
}

/// Bytes to be written, in parts with a pause before each.
pub(crate) fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(PART).inspect(|_| pause())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_leave_nothing_out_and_keep_the_order() {
        assert!(paced(0..3 * STEP + 1).eq(0..3 * STEP + 1));
        let bytes: Vec<u8> = (0..2 * PART + 5).map(|at| at as u8).collect();
        assert_eq!(parts(&bytes).collect::<Vec<_>>().concat(), bytes);
        assert_eq!(parts(&bytes).map(<[u8]>::len).max(), Some(PART));
    }
}
