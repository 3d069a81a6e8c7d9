//! The best few points of a walk, in order, each known to be expanded or not.

/// A bounded list sorted by similarity, best first. At widths up to some hundreds, moving a few
/// cache lines to make room costs less than a pair of heaps.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// `order(similarity) << 32 | point << 1 | expanded`, ascending, so best first.
    entries: Vec<u64>,
    width: usize,
    /// No entry before this one waits to be expanded.
    next: usize,
}

/// Points are numbered below this, for the bit beside them.
pub(super) const MAX_POINTS: usize = 1 << 31;

/// Smaller for a greater similarity. A total order, whatever the bits.
fn order(similarity: f32) -> u32 {
    let bits = similarity.to_bits();
    if bits >> 31 == 0 { !(bits | 1 << 31) } else { bits }
}

fn similarity(entry: u64) -> f32 {
    let order = (entry >> 32) as u32;
    f32::from_bits(if order >> 31 == 0 { !order & !(1 << 31) } else { order })
}

fn point(entry: u64) -> u32 {
    (entry as u32) >> 1
}

impl Queue {
    /// Empties it, and has it hold `width` points at most, 1 at least.
    pub(super) fn start(&mut self, width: usize) {
        self.entries.clear();
        self.width = width.max(1);
        self.entries.reserve(self.width);
        self.next = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.width
    }

    /// Similarity of the worst point, once it is full.
    pub(super) fn worst(&self) -> Option<f32> {
        if self.is_full() { self.entries.last().map(|&entry| similarity(entry)) } else { None }
    }

    /// Takes a point in if it is among the best. Equal similarities are ranked by number.
    #[inline(always)]
    pub(super) fn insert(&mut self, similarity: f32, point: u32) {
        let entry = u64::from(order(similarity)) << 32 | u64::from(point) << 1;
        if self.is_full() {
            if self.entries.last().is_some_and(|&worst| entry >= worst) {
                return;
            }
            self.entries.pop();
        }
        let at = self.entries.partition_point(|&other| other < entry);
        self.entries.insert(at, entry);
        self.next = self.next.min(at);
    }

    /// The best point not expanded yet, which then is.
    #[inline(always)]
    pub(super) fn expand(&mut self) -> Option<u32> {
        let entry = self.waiting()?;
        self.entries[self.next] |= 1;
        self.next += 1;
        Some(point(entry))
    }

    /// The entry of the best point not expanded yet.
    #[inline(always)]
    fn waiting(&mut self) -> Option<u64> {
        loop {
            let &entry = self.entries.get(self.next)?;
            if entry & 1 == 0 {
                return Some(entry);
            }
            self.next += 1;
        }
    }

    /// The best point not expanded yet of this queue and of `bridges`, which then is. A bridge worse
    /// than all of a full queue leads nowhere.
    #[inline(always)]
    pub(super) fn expand_either(&mut self, bridges: &mut Self) -> Option<u32> {
        let worst = if self.is_full() { self.entries.last().copied() } else { None };
        match (self.waiting(), bridges.waiting()) {
            (Some(own), Some(bridge)) if bridge < own => bridges.expand(),
            (Some(_), _) => self.expand(),
            (None, Some(bridge)) if worst.is_none_or(|worst| bridge < worst) => bridges.expand(),
            (None, _) => None,
        }
    }

    /// The best point not expanded yet, as far as is known.
    #[inline(always)]
    pub(super) fn peek(&self) -> Option<u32> {
        self.entries.get(self.next).map(|&entry| point(entry))
    }

    /// Similarities and points, best first.
    pub(super) fn best(&self) -> impl Iterator<Item = (f32, u32)> {
        self.entries.iter().map(|&entry| (similarity(entry), point(entry)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_the_best_in_order(
            values in proptest::collection::vec(-1.0_f32..1.0, 0..80),
            width in 1_usize..20,
        ) {
            let mut queue = Queue::default();
            queue.start(width);
            for (point, &value) in values.iter().enumerate() {
                queue.insert(value, point as u32);
            }
            let mut expected: Vec<(f32, u32)> =
                values.iter().enumerate().map(|(point, &value)| (value, point as u32)).collect();
            expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            expected.truncate(width);
            prop_assert_eq!(queue.best().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn expands_each_once_and_what_comes_later_in_its_turn() {
        let mut queue = Queue::default();
        queue.start(3);
        queue.insert(0.5, 5);
        queue.insert(0.7, 7);
        assert_eq!(queue.expand(), Some(7));
        queue.insert(0.9, 9);
        assert_eq!(queue.peek(), Some(9));
        assert_eq!(queue.expand(), Some(9));
        assert_eq!(queue.expand(), Some(5));
        assert_eq!(queue.expand(), None);
        queue.insert(0.6, 6);
        assert_eq!(queue.expand(), Some(6));
        assert_eq!(queue.expand(), None);
    }

    #[test]
    fn takes_values_that_are_no_numbers_without_falling_over() {
        let mut queue = Queue::default();
        queue.start(2);
        for value in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, -0.0, 0.0, -f32::NAN] {
            queue.insert(value, 1);
        }
        assert_eq!(queue.entries.len(), 2);
    }
}
