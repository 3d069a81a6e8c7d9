//! What a walk writes on. One per thread, used again and again, so that a search does not ask for
//! memory.

use std::cell::Cell;

use super::{codes::Target, queue::Queue};

/// Most neighbours that are looked at together.
pub(super) const BATCH: usize = 256;

/// Room for a walk.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) seen: Seen,
    pub(super) queue: Queue,
    /// Points not allowed, from which allowed ones may be reached.
    pub(super) bridges: Queue,
    pub(super) target: Target,
    /// Lower bytes of a point, put together.
    pub(super) room: Vec<u8>,
    pub(super) choice: super::choose::Choice,
}

/// Which points a walk has come across: a bit each, so that those of a hundred thousand lie in the
/// fastest memory, with a list of what to undo.
#[derive(Debug, Default)]
pub(super) struct Seen {
    words: Vec<u64>,
    touched: Vec<u32>,
}

impl Seen {
    /// None of the points below `points`.
    pub(super) fn start(&mut self, points: usize) {
        for &word in &self.touched {
            self.words[word as usize] = 0;
        }
        self.touched.clear();
        let words = points.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Whether it is the first time. Points past the end have always been seen.
    #[inline(always)]
    pub(super) fn first(&mut self, point: u32) -> bool {
        let Some(word) = self.words.get_mut(point as usize / 64) else { return false };
        let bit = 1 << (point % 64);
        if *word & bit != 0 {
            return false;
        }
        if *word == 0 {
            self.touched.push(point / 64);
        }
        *word |= bit;
        true
    }
}

thread_local! {
    static KEPT: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Lends this thread's scratch. After a panic the next call makes a new one.
pub(super) fn with_scratch<T>(f: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = KEPT.take().unwrap_or_default();
    let result = f(&mut scratch);
    KEPT.set(Some(scratch));
    result
}
