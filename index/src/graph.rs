//! Approximate neighbours: one small trait, its builder, and the proof that a graph is good.

mod hnsw;
mod verify;

use std::{fmt, sync::atomic::AtomicBool};

pub(crate) use self::{hnsw::build, verify::reaches_recall};

/// Rows that can be walked.
pub(crate) trait Graph: Send + Sync + fmt::Debug {
    /// About `ef` rows near the query, in no order, each once; rows equal to a found one are among
    /// them, so there may be more. `None` when the graph failed; a scan then answers.
    fn search(&self, query: &[f32], ef: usize) -> Option<Vec<u32>>;
}

/// Unit vectors by row number.
pub(crate) trait Rows: Sync {
    /// Number of rows.
    fn len(&self) -> usize;
    /// One row.
    fn row(&self, row: usize) -> &[f32];
}

/// Tells a long build to end.
pub(crate) type Cancel = AtomicBool;

/// A repeatable sequence of numbers (splitmix64, Steele, Lea and Flood 2014). Not for secrets.
#[derive(Debug, Clone)]
pub(crate) struct Sequence(u64);

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which is over 0. The bias is below 2^-32 for any count of rows.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((u128::from(z) * bound as u128) >> 64) as usize
    }

    /// Fisher-Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests;
