//! One bit per row, set by the writing thread while searches read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Bits that can only be set. Who sees one set sees what was noted before it: at which generation
/// the row ended.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Box<[AtomicU64]>,
    count: AtomicUsize,
}

impl Bits {
    /// So many bits, none set.
    pub(crate) fn new(len: usize) -> Self {
        let words = std::iter::repeat_with(AtomicU64::default).take(len.div_ceil(64)).collect();
        Self { words, count: AtomicUsize::new(0) }
    }

    pub(crate) fn set(&self, at: usize) {
        let bit = 1 << (at % 64);
        if self.words[at / 64].fetch_or(bit, Ordering::Release) & bit == 0 {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, at: usize) -> bool {
        self.words[at / 64].load(Ordering::Acquire) >> (at % 64) & 1 == 1
    }

    /// How many are set.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// 64 at a time, lowest first.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        self.words.iter().map(|word| word.load(Ordering::Acquire))
    }
}
