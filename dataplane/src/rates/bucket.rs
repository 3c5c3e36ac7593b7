//! A token bucket in one word.

use super::words::{AtomicU64, Ordering};
use crate::clock::Time;
use crate::config::Rate;

/// Parts of a nanosecond in which buckets reckon: at 100 Gbit/s a byte takes 0.08 ns. Nine years after the machine's start
/// the word would overflow.
const PARTS: u32 = 6;
/// Binary places of what a byte takes.
const PLACES: u32 = 20;

/// A token bucket.
#[derive(Debug)]
#[repr(align(64))] // no two in one cache line
pub struct Bucket {
    /// When it would be full, if nothing more were taken.
    full_at: AtomicU64,
    /// What a byte takes.
    per_byte: u64,
    /// What is taken from a full bucket to empty it.
    burst: u64,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Self {
        let second = 1_000_000_000_u128 << PARTS << PLACES;
        let per_byte = (8 * second / u128::from(rate.bits_per_s.max(1))).min(1 << 44) as u64;
        let burst = cost(per_byte, rate.burst);
        Self { full_at: AtomicU64::new(0), per_byte, burst }
    }

    /// Takes the right to send so many bytes; `false` if it does not have as many.
    #[inline]
    pub fn take(&self, now: Time, bytes: u64) -> bool {
        let (now, cost) = (now.0 << PARTS, cost(self.per_byte, bytes));
        // The word stands for nothing else, so that its order among other words means nothing.
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = full_at.max(now) + cost;
            if next - now > self.burst {
                return false;
            }
            match self.full_at.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(moved) => full_at = moved,
            }
        }
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&self, bytes: u64) {
        self.full_at.fetch_sub(cost(self.per_byte, bytes), Ordering::Relaxed);
    }
}

/// Rounded to the nearest. A thousand megabytes, the longest burst, at 64 kbit/s, the least rate, are 2^53.
#[inline]
fn cost(per_byte: u64, bytes: u64) -> u64 {
    ((u128::from(per_byte) * u128::from(bytes) + (1 << (PLACES - 1))) >> PLACES) as u64
}
