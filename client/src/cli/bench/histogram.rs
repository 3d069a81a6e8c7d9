//! Times, counted in buckets whose width grows with the time: every quantile is told to within 1 in 128, in fixed memory.

use std::time::Duration;

/// Buckets within each doubling.
const PARTS: u64 = 128;
/// log2 of it.
const PART_BITS: u32 = PARTS.trailing_zeros();
/// Doublings of a nanosecond above the first [`PARTS`] ones: up to 2^42 ns, more than an hour.
const DOUBLINGS: u32 = 42 - PART_BITS;
const BUCKETS: usize = (PARTS * (DOUBLINGS as u64 + 1)) as usize;

/// Counts of times.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: Duration,
    most: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], count: 0, sum: Duration::ZERO, most: Duration::ZERO }
    }
}

impl Histogram {
    pub(crate) fn note(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.count += 1;
        self.sum += time;
        self.most = self.most.max(time);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn most(&self) -> Duration {
        self.most
    }

    pub(crate) fn mean(&self) -> Duration {
        match u32::try_from(self.count) {
            Ok(0) => Duration::ZERO,
            Ok(count) => self.sum / count,
            Err(_) => self.sum.div_f64(self.count as f64),
        }
    }

    /// A time that `share` of all (0 to 1) do not exceed, 0.8 % too long at most; zero when there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = (share * self.count as f64).ceil().max(1.0);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return Duration::from_nanos(end(bucket)).min(self.most);
            }
        }
        self.most
    }

    /// The share of times above `limit`, by whole buckets.
    pub(crate) fn share_above(&self, limit: Duration) -> f64 {
        let limit = bucket(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
        let above: u64 = self.counts[limit + 1..].iter().sum();
        above as f64 / self.count.max(1) as f64
    }
}

/// The bucket of a time: its doubling, and the [`PART_BITS`] bits after the first one.
fn bucket(nanoseconds: u64) -> usize {
    let doubling = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(PART_BITS + 1);
    if doubling >= DOUBLINGS {
        return BUCKETS - 1;
    }
    // Below 2 * PARTS * (DOUBLINGS + 1), which is small.
    usize::try_from(u64::from(doubling) * PARTS + (nanoseconds >> doubling)).unwrap_or(BUCKETS - 1)
}

/// The longest time of a bucket.
fn end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < 2 * PARTS {
        return bucket;
    }
    let doubling = bucket / PARTS - 1;
    ((bucket - doubling * PARTS + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_a_bucket_that_ends_close_above_it() {
        let mut last = 0;
        for power in 0..41 {
            for extra in [0, 1, 3, 77] {
                let time = (1_u64 << power) + extra * (1 << power) / 80;
                let end = end(bucket(time));
                assert!(end >= time && (end - time) as f64 <= time as f64 / 127.0, "{time} {end}");
                assert!(bucket(time) >= last);
                last = bucket(time);
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let mut histogram = Histogram::default();
        (1..=1000).rev().for_each(|time| histogram.note(Duration::from_micros(time)));
        for (share, expected) in
            [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)]
        {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!(found >= expected && found <= expected * 1.008, "{share}: {found}");
        }
        assert_eq!(histogram.most(), Duration::from_millis(1));
        assert_eq!(histogram.mean(), Duration::from_nanos(500_500));
        assert!((histogram.share_above(Duration::from_micros(900)) - 0.1).abs() < 0.01);
    }

    #[test]
    fn an_empty_one_says_nothing() {
        let empty = Histogram::default();
        assert_eq!((empty.quantile(0.99), empty.mean()), (Duration::ZERO, Duration::ZERO));
    }
}
