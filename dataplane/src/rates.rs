//! Contracted rates: token buckets that workers share without a lock.
//!
//! A bucket is one word, the time at which it will be full again. Who takes from it moves that time on by what it takes, with a
//! compare-and-swap, and is refused if it would then be further away than a whole burst: all workers together take no more
//! than the rate, and refusing only reads. What counts is inner IP bytes, as they are billed.

use crate::clock::Time;
use crate::config::{self, Desired};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::DropReason;

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
    pub fn new(rate: config::Rate) -> Self {
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
    fn give_back(&self, bytes: u64) {
        self.full_at.fetch_sub(cost(self.per_byte, bytes), Ordering::Relaxed);
    }
}

/// Rounded to the nearest. A thousand megabytes, the longest burst, at 64 kbit/s, the least rate, are 2^53.
#[inline]
fn cost(per_byte: u64, bytes: u64) -> u64 {
    ((u128::from(per_byte) * u128::from(bytes) + (1 << (PLACES - 1))) >> PLACES) as u64
}

/// A bucket, and why a packet is dropped that it has nothing for.
#[derive(Clone, Debug)]
pub struct Limit {
    bucket: Arc<Bucket>,
    reason: DropReason,
}

impl Limit {
    /// A bucket of its own.
    pub fn new(rate: config::Rate, reason: DropReason) -> Self {
        Self { bucket: Arc::new(Bucket::new(rate)), reason }
    }
}

/// What a site's packets need tokens of, each way: its own bucket and its tenant's.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// From the site.
    pub up: Vec<Limit>,
    /// For the site.
    pub down: Vec<Limit>,
}

impl Limits {
    /// For each end by slot, as a configuration wants it; none where nothing is limited. Clones share the buckets.
    pub fn of_sites(desired: &Desired) -> Vec<Option<Limits>> {
        let (mut all, mut wholes) = (Vec::new(), Vec::new());
        for tenant in &desired.tenants {
            let (up, down) = (DropReason::RateTenantUp, DropReason::RateTenantDown);
            let whole = Self { up: limit(tenant.rates.up, up), down: limit(tenant.rates.down, down) };
            for site in &tenant.sites {
                let mut limits = Self {
                    up: limit(site.rates.up, DropReason::RateSiteUp),
                    down: limit(site.rates.down, DropReason::RateSiteDown),
                };
                limits.up.extend(whole.up.iter().cloned());
                limits.down.extend(whole.down.iter().cloned());
                all.push(limits.if_any());
            }
            wholes.push(whole);
        }
        // Access ends have no rate of their own, and a part in their tenant's.
        all.extend(
            crate::control::ends(desired).into_iter().map(|(_, tenant, ..)| wholes[tenant.index()].clone().if_any()),
        );
        all
    }

    fn if_any(self) -> Option<Self> {
        Some(self).filter(|limits| !limits.up.is_empty() || !limits.down.is_empty())
    }
}

fn limit(rate: Option<config::Rate>, reason: DropReason) -> Vec<Limit> {
    rate.into_iter().map(|rate| Limit::new(rate, reason)).collect()
}

/// Takes so many bytes of each bucket, or of none: then the reason is that of the first that has not as many.
#[inline]
pub fn take_all<'a>(limits: impl Iterator<Item = &'a Limit> + Clone, now: Time, bytes: u64) -> Result<(), DropReason> {
    for (taken, limit) in limits.clone().enumerate() {
        if !limit.bucket.take(now, bytes) {
            limits.take(taken).for_each(|limit| limit.bucket.give_back(bytes));
            return Err(limit.reason);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
