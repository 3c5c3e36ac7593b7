//! Chance that can be repeated: numbers of a seed, which a test prints.

use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

/// Random numbers, the same for the same seed (xorshift64*, Vigna 2016).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Another seed each time, unless `$EKIDEN_SEED` says which; printed, so that a failure can be had again.
    pub fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
        let seed = std::env::var("EKIDEN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(now);
        eprintln!("EKIDEN_SEED={seed}");
        Self::seeded(seed)
    }

    /// The numbers of this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number within a range.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start).max(1)
    }

    /// Yes, in so many of a thousand cases.
    pub fn per_mille(&mut self, cases: u64) -> bool {
        self.within(0..1000) < cases
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
