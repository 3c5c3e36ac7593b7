//! Contracted rates: token buckets that workers share without a lock.
//!
//! A bucket is one word, the time at which it will be full again. Who takes from it moves that time on by what it takes, with a
//! compare-and-swap, and is refused if it would then be further away than a whole burst: all workers together take no more
//! than the rate, and refusing only reads. What counts is inner IP bytes, as they are billed.

mod bucket;
#[cfg(test)]
mod loom_model;

use crate::clock::Time;
use crate::config::{self, Desired};
pub use bucket::Bucket;
use std::sync::Arc;
use wire::DropReason;

/// The words that buckets are: other ones where their order is tried (`loom_model`).
mod words {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
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
