//! Contracted rates: token buckets that workers share without a lock.
//!
//! A bucket is one word, the time at which it will be full again. Who takes from it moves that time on by what it takes, with a
//! compare-and-swap, and is refused if it would then be further away than a whole burst: all workers together take no more
//! than the rate, and refusing only reads. What counts is inner IP bytes, as they are billed.

mod bucket;
#[cfg(test)]
mod loom_model;

use crate::clock::Time;
use crate::config::{self, Desired, Rates, Tenant};
use crate::seats::Seats;
use crate::sites::Seat;
use ahash::AHashMap;
pub use bucket::Bucket;
use std::sync::Arc;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

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
    fn if_any(self) -> Option<Self> {
        Some(self).filter(|limits| !limits.up.is_empty() || !limits.down.is_empty())
    }
}

/// The contracts of a configuration: what all ends of a tenant share.
#[derive(Debug, Default)]
pub struct Contracts(AHashMap<TenantId, (Rates, Limits)>);

impl Contracts {
    /// The contracts of another configuration: the buckets of tenants whose rates are the same stay what they are.
    pub fn next(&self, desired: &Desired) -> Self {
        let of_tenant = |tenant: &Tenant| match self.0.get(&tenant.id) {
            Some((rates, whole)) if *rates == tenant.rates => whole.clone(),
            _ => Limits {
                up: limit(tenant.rates.up, DropReason::RateTenantUp),
                down: limit(tenant.rates.down, DropReason::RateTenantDown),
            },
        };
        Self(desired.tenants.iter().map(|tenant| (tenant.id, (tenant.rates, of_tenant(tenant)))).collect())
    }

    /// What the configuration says of each end.
    pub fn seats<'a>(&'a self, seats: &Seats, desired: &'a Desired) -> impl Iterator<Item = (SiteSlot, Seat)> + 'a {
        let of_site = |(slot, tenant, of, site): (_, _, &Tenant, &config::Site)| {
            (slot, Seat { tenant, limits: self.of_end(of.id, Some(&site.rates)), dscp: of.dscp })
        };
        let sites: Vec<_> = seats.sites(desired).map(of_site).collect();
        let ids: AHashMap<_, _> = seats.tenants(desired).map(|(slot, tenant)| (slot, tenant.id)).collect();
        let of_access = |(slot, tenant, ..): (_, TenantSlot, PortIndex, &config::Access)| {
            (slot, Seat { tenant, limits: self.of_end(ids[&tenant], None), dscp: config::Dscp::Zero })
        };
        let access: Vec<_> = seats.ends(desired).map(of_access).collect();
        let of_trunk = |(slot, tenant, _, of, _): (_, _, usize, &Tenant, &config::Trunk)| {
            (slot, Seat { tenant, limits: self.of_end(of.id, None), dscp: of.dscp })
        };
        let carried: Vec<_> = seats.all_carried(desired).map(of_trunk).collect();
        sites.into_iter().chain(access).chain(carried)
    }

    /// What an end of a tenant is held to, and none if to nothing: a site to its own rates, with buckets that are new, and to its
    /// tenant's. Access ends, and what trunks carry, have none of their own. Clones share the buckets.
    pub fn of_end(&self, tenant: TenantId, own: Option<&Rates>) -> Option<Limits> {
        let own = own.copied().unwrap_or_default();
        let mut limits =
            Limits { up: limit(own.up, DropReason::RateSiteUp), down: limit(own.down, DropReason::RateSiteDown) };
        if let Some((_, whole)) = self.0.get(&tenant) {
            limits.up.extend(whole.up.iter().cloned());
            limits.down.extend(whole.down.iter().cloned());
        }
        limits.if_any()
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
