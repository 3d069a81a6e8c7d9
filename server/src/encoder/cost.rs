//! What batches and files cost, as measured while they run.
//!
//! The table has a cell for each class of input and each class of batch size. Texts have classes by length, padded to a power of
//! two, pictures one, and their files, which are decoded one by one, by pixels. A cell holds what one input took of late in such a batch, in nanoseconds of wall time, so that what else the
//! machine does is in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Lengths of texts up to 16, 32, 64, 128, 256, 512, and longer.
const LENGTHS: usize = 7;
/// Files of pictures of up to 64 thousand pixels, 128, and so on up to 64 million, and larger.
const CLASSES: usize = 12;
/// The pixels of the first class.
const FEWEST: u64 = 1 << 16;
/// Batches of 1, 2, up to 4, 8, 16, 32, 64, and larger.
const SIZES: usize = 8;
/// The padded length of the first class.
const SHORTEST: usize = 16;

/// The class of a length in ids: inputs of one class may share a batch, padded to the longest.
pub(super) fn length_class(length: usize) -> usize {
    let padded = length.max(SHORTEST).next_power_of_two();
    (padded.trailing_zeros() - SHORTEST.trailing_zeros()).min(LENGTHS as u32 - 1) as usize
}

/// A length as it counts against the budget of a batch: padded to its class.
pub(super) fn padded(length: usize) -> usize {
    length.max(SHORTEST).next_power_of_two()
}

/// The class of a picture file, for what decoding it takes.
pub(super) fn pixel_class(pixels: u64) -> usize {
    let padded = pixels.max(FEWEST).next_power_of_two();
    (padded.trailing_zeros() - FEWEST.trailing_zeros()).min(CLASSES as u32 - 1) as usize
}

fn size_class(inputs: usize) -> usize {
    (inputs.max(1).next_power_of_two().trailing_zeros() as usize).min(SIZES - 1)
}

/// Nanoseconds an input, by class and batch size; zero where nothing was measured yet.
#[derive(Debug, Default)]
pub(super) struct CostTable([[AtomicU64; SIZES]; CLASSES]);

impl CostTable {
    /// Learns from a batch: a quarter of the way to the newest cost, so that one slow batch does not rule the prediction.
    pub(super) fn learn(&self, class: usize, inputs: usize, took: Duration) {
        let newest = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / inputs.max(1) as u64;
        let cell = &self.0[class][size_class(inputs)];
        let known = cell.load(Ordering::Relaxed);
        let learnt = if known == 0 { newest } else { known - known / 4 + newest / 4 };
        cell.store(learnt.max(1), Ordering::Relaxed);
    }

    /// What one input of `class` will take in a batch of `inputs`; zero while nothing at all was measured.
    pub(super) fn input(&self, class: usize, inputs: usize) -> Duration {
        // The nearest class that was measured: a longer text costs in proportion to its length, at least.
        let nearest = (0..CLASSES)
            .map(|other| (other.abs_diff(class), other))
            .filter_map(|(distance, other)| Some((distance, other, self.in_class(other, inputs)?)))
            .min();
        let nanoseconds = nearest.map_or(0, |(_, other, cost)| {
            if class >= other {
                cost.saturating_mul(1 << (class - other))
            } else {
                cost >> (other - class)
            }
        });
        Duration::from_nanos(nanoseconds)
    }

    /// The cost in the measured batch size that is nearest to `inputs`, the smaller one of two.
    fn in_class(&self, class: usize, inputs: usize) -> Option<u64> {
        let wanted = size_class(inputs);
        (0..SIZES)
            .map(|size| (size.abs_diff(wanted), size, self.0[class][size].load(Ordering::Relaxed)))
            .filter(|(_, _, cost)| *cost > 0)
            .min()
            .map(|(_, _, cost)| cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn lengths_of_one_class_pad_to_the_same() {
        assert_eq!([0, 1, 16, 17, 32, 33, 512, 9000].map(length_class), [0, 0, 0, 1, 1, 2, 5, 6]);
        assert_eq!([0, 16, 17, 100].map(padded), [16, 16, 32, 128]);
    }

    #[test]
    fn files_are_told_apart_by_their_pixels() {
        let class = |side: u64| pixel_class(side * side);
        assert_eq!([1, 256, 257, 512, 4000, 8192, 100_000].map(class), [0, 0, 1, 2, 8, 10, 11]);
    }

    #[test]
    fn nothing_is_predicted_before_something_was_measured() {
        assert_eq!(CostTable::default().input(3, 8), Duration::ZERO);
    }

    #[test]
    fn the_prediction_follows_the_newest_without_jumping() {
        let costs = CostTable::default();
        costs.learn(0, 1, MS);
        assert_eq!(costs.input(0, 1), MS);
        costs.learn(0, 1, 9 * MS);
        assert_eq!(costs.input(0, 1), 3 * MS);
    }

    #[test]
    fn inputs_in_a_batch_cost_what_such_batches_took() {
        let costs = CostTable::default();
        costs.learn(0, 1, 4 * MS);
        costs.learn(0, 8, 8 * MS);
        assert_eq!((costs.input(0, 1), costs.input(0, 8)), (4 * MS, MS));
        assert_eq!(costs.input(0, 64), MS, "the nearest size stands in");
    }

    #[test]
    fn a_length_that_was_never_seen_costs_in_proportion_to_one_that_was() {
        let costs = CostTable::default();
        costs.learn(1, 1, 2 * MS);
        assert_eq!((costs.input(3, 1), costs.input(0, 1)), (8 * MS, MS));
    }
}
