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

    /// Those that are set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.words.iter().enumerate().flat_map(|(i, word)| {
            let mut word = word.load(Ordering::Acquire);
            std::iter::from_fn(move || {
                if word == 0 {
                    return None;
                }
                let at = word.trailing_zeros() as usize;
                word &= word - 1;
                Some(i * 64 + at)
            })
        })
    }
}
