//! Rows that may be found: one bit each.

/// A set of row numbers below a bound.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RowSet {
    words: Vec<u64>,
    count: usize,
}

impl RowSet {
    /// The rows below `rows` for which `allowed` says so.
    pub(crate) fn from_fn(rows: usize, allowed: impl Fn(usize) -> bool) -> Self {
        let mut words = vec![0; rows.div_ceil(64)];
        let mut count = 0;
        for row in (0..rows).filter(|&row| allowed(row)) {
            words[row / 64] |= 1 << (row % 64);
            count += 1;
        }
        Self { words, count }
    }

    /// From one bit per row below `rows`, lowest first; bits past it are not set.
    pub(crate) fn from_words(rows: usize, words: Vec<u64>) -> Self {
        debug_assert_eq!(words.len(), rows.div_ceil(64));
        let count = words.iter().map(|word| word.count_ones() as usize).sum();
        Self { words, count }
    }

    /// All rows below `rows`.
    pub(crate) fn all(rows: usize) -> Self {
        let mut words = vec![u64::MAX; rows.div_ceil(64)];
        if !rows.is_multiple_of(64)
            && let Some(last) = words.last_mut()
        {
            *last = (1 << (rows % 64)) - 1;
        }
        Self { words, count: rows }
    }

    /// Takes out those of the rows from `64 * at` on that have a bit, lowest first.
    pub(crate) fn remove(&mut self, at: usize, bits: u64) {
        if let Some(word) = self.words.get_mut(at) {
            self.count -= (*word & bits).count_ones() as usize;
            *word &= !bits;
        }
    }

    /// Whether the row is in it. Rows past the bound are not.
    #[inline(always)]
    pub(crate) fn contains(&self, row: u32) -> bool {
        self.words.get(row as usize / 64).is_some_and(|word| word >> (row % 64) & 1 == 1)
    }

    /// Its rows, ascending.
    #[inline(always)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.words.iter().enumerate().filter(|(_, word)| **word != 0);
        words.flat_map(|(at, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros();
                // Clears the lowest bit; a word without bits has come to its end.
                left &= left.checked_sub(1)?;
                Some(at as u32 * 64 + bit)
            })
        })
    }

    /// How many rows are in it.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_what_was_allowed_and_nothing_past_its_end() {
        for rows in [0, 1, 63, 64, 65, 200] {
            let set = RowSet::from_fn(rows, |row| row % 3 == 0);
            let expected: Vec<u32> = (0..rows as u32).filter(|row| row % 3 == 0).collect();
            assert_eq!(set.iter().collect::<Vec<_>>(), expected);
            assert_eq!(set.len(), expected.len());
            assert!((0..300).all(|row| set.contains(row) == expected.contains(&row)));
        }
    }

    #[test]
    fn what_is_taken_out_is_gone_and_counted_once() {
        for rows in [0, 1, 63, 64, 65, 200] {
            let mut set = RowSet::all(rows);
            assert_eq!(set, RowSet::from_fn(rows, |_| true));
            for _ in 0..2 {
                (0..5).for_each(|at| set.remove(at, 0x5555_5555_5555_5555));
                assert_eq!(set, RowSet::from_fn(rows, |row| row % 2 == 1));
            }
        }
    }
}
