//! Histograms of nanoseconds, in the buckets of `HdrHistogram`.
//!
//! With two significant digits a value below 256 has a bucket of its own; from there on each power of two is cut into 128
//! equal buckets, so that a bucket is never wider than 1/128 of what it counts.

/// Values from here on are counted as this: 8.6 s.
pub const MAX_NS: u64 = (1 << 33) - 1;
/// Buckets of the array.
pub const BUCKETS: usize = index(MAX_NS) + 1;

/// The bucket of a value.
#[inline]
pub(crate) const fn index(ns: u64) -> usize {
    let ns = if ns > MAX_NS { MAX_NS } else { ns };
    let doublings = (ns | 255).ilog2() - 7;
    ((doublings as usize) << 7) + (ns >> doublings) as usize
}

/// The largest value that a bucket counts.
pub const fn bucket_max(index: usize) -> u64 {
    let doublings = if index < 256 { 0 } else { (index >> 7) - 1 };
    let part = (index - (doublings << 7)) as u64;
    (part << doublings) + (1 << doublings) - 1
}

/// What a histogram had counted when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// The sum of all values, in nanoseconds.
    pub sum_ns: u64,
    /// Values by bucket.
    pub counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { sum_ns: 0, counts: vec![0; BUCKETS] }
    }
}

impl Histogram {
    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.wrapping_add(*n))
    }

    /// How many values are at most `ns`, as far as buckets tell them apart.
    pub fn count_to(&self, ns: u64) -> u64 {
        let whole = self.counts.iter().enumerate().take_while(|(at, _)| bucket_max(*at) <= ns);
        whole.fold(0, |sum, (_, n)| sum.wrapping_add(*n))
    }

    /// The value that so great a part of all values does not exceed, 0 to 1, as the largest of its bucket; 0 if there are none.
    pub fn quantile(&self, part: f64) -> u64 {
        let wanted = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut seen = 0_u64;
        let found = self.counts.iter().position(|n| {
            seen = seen.saturating_add(*n);
            seen >= wanted
        });
        found.map_or(0, bucket_max)
    }

    pub(crate) fn add_row(&mut self, row: &crate::rows::HistogramRow) {
        self.sum_ns = self.sum_ns.wrapping_add(row.sum_ns.read());
        for (sum, count) in self.counts.iter_mut().zip(&row.counts) {
            *sum = sum.wrapping_add(count.read());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_bucket_begins_where_the_one_before_ends() {
        for at in 0..BUCKETS {
            let max = bucket_max(at);
            assert_eq!(index(max), at);
            assert_eq!(index(max + 1), (at + 1).min(BUCKETS - 1));
        }
        assert_eq!((BUCKETS, index(u64::MAX)), (3456, 3455));
    }

    proptest! {
        /// The array is what the `hdrhistogram` crate would have counted, bucket by bucket.
        #[test]
        fn agrees_with_hdrhistogram(values in prop::collection::vec((0..64u32, any::<u64>()), 1..200)) {
            let mut theirs = hdrhistogram::Histogram::<u64>::new_with_bounds(1, MAX_NS, 2).unwrap();
            let mut ours = Histogram::default();
            for (shift, value) in values {
                let value = (value >> shift).min(MAX_NS);
                theirs.record(value).unwrap();
                ours.counts[index(value)] += 1;
            }
            for (at, count) in ours.counts.iter().enumerate() {
                prop_assert_eq!(theirs.count_at(bucket_max(at)), *count);
                prop_assert_eq!(theirs.highest_equivalent(bucket_max(at)), bucket_max(at));
            }
            for part in [0.5, 0.9, 0.99, 1.0] {
                prop_assert_eq!(theirs.value_at_quantile(part), ours.quantile(part));
            }
        }
    }
}
