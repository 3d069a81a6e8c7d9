//! What a walk writes on. One per thread, used again and again, so that a search does not ask for
//! memory.

use std::cell::Cell;

use super::{codes::Target, queue::Queue};

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
    /// Points whose bit is set; what follows the first `count` is room.
    trail: Vec<u32>,
    count: usize,
}

impl Seen {
    /// None of the points below `points`.
    pub(super) fn start(&mut self, points: usize) {
        for &point in &self.trail[..self.count] {
            self.words[point as usize / 64] = 0;
        }
        self.count = 0;
        let words = points.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Whether it is the first time.
    #[inline(always)]
    pub(super) fn first(&mut self, point: u32) -> bool {
        !self.firsts([point].into_iter(), 1).is_empty()
    }

    /// Those of at most `most` points that are seen for the first time. Without a branch per point:
    /// no processor could guess it. A point past the end, which no link leads to, is never seen.
    #[inline(always)]
    pub(super) fn firsts(&mut self, points: impl Iterator<Item = u32>, most: usize) -> &[u32] {
        let from = self.count;
        if self.trail.len() < from + most {
            self.trail.resize(2 * (from + most), 0);
        }
        let (words, room) = (self.words.as_mut_slice(), &mut self.trail[from..from + most]);
        let mut count = 0;
        for (point, _) in points.zip(0..most) {
            let Some(word) = words.get_mut(point as usize / 64) else { continue };
            let bit = 1 << (point % 64);
            room[count] = point;
            count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        self.count = from + count;
        &self.trail[from..self.count]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_point_is_seen_first_once_per_walk() {
        let mut seen = Seen::default();
        for points in [70, 200, 10] {
            seen.start(points);
            assert!(seen.first(3));
            assert_eq!(seen.firsts([3, 5, 5, 9, 3, 6].into_iter(), 6), [5, 9, 6]);
            assert_eq!(seen.firsts([7, 8].into_iter(), 1), [7]);
            assert!(!seen.first(9));
        }
        assert!(!seen.first(1 << 20));
    }
}
