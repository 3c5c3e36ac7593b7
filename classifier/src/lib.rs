//! Whose packet may go where: the routes of every tenant, and the check that a site speaks only for itself.
//!
//! [`Tables`] is a snapshot: built at once by control, read by every worker without a lock, replaced as a whole.
#![forbid(unsafe_code)]

mod ranges;

use std::net::IpAddr;

use ipnet::IpNet;
use ranges::{RangesV4, RangesV6};
use wire::{SiteSlot, TenantSlot};

/// Where a packet goes on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// To a site of the same tenant, sealed.
    Site(SiteSlot),
}

/// The routes of all tenants, each in a table of its own: no lookup ever sees another tenant's prefixes.
#[derive(Debug, Default)]
pub struct Tables {
    /// By tenant slot.
    vrfs: Box<[Vrf]>,
}

/// One tenant's routes ("virtual routing and forwarding").
#[derive(Debug, Default)]
struct Vrf {
    v4: RangesV4,
    v6: RangesV6,
}

impl Tables {
    /// An empty set of routes to add to.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Where this tenant's packets to `destination` go: the target of the longest prefix that holds it.
    #[inline]
    pub fn route(&self, tenant: TenantSlot, destination: IpAddr) -> Option<Target> {
        let vrf = self.vrfs.get(tenant.index())?;
        match destination {
            IpAddr::V4(address) => vrf.v4.find(address.to_bits()),
            IpAddr::V6(address) => vrf.v6.find(address.to_bits()),
        }
    }

    /// Whether `source` is the site's own address: packets to it would go there.
    #[inline]
    pub fn source_allowed(&self, tenant: TenantSlot, site: SiteSlot, source: IpAddr) -> bool {
        self.route(tenant, source) == Some(Target::Site(site))
    }
}

/// Collects routes for [`Tables`].
#[derive(Debug, Default)]
pub struct Builder {
    routes: Vec<(TenantSlot, IpNet, Target)>,
}

impl Builder {
    /// Adds a route. Inside a tenant, a longer prefix wins over a shorter, and of two equal prefixes the later; bits
    /// beyond the prefix length mean nothing.
    pub fn add(&mut self, tenant: TenantSlot, prefix: IpNet, target: Target) -> &mut Self {
        self.routes.push((tenant, prefix.trunc(), target));
        self
    }

    /// The snapshot. The tables reach to the largest tenant slot that has a route.
    pub fn build(mut self) -> Tables {
        // Outer prefixes before those inside them; IPv4 before IPv6, as `IpAddr` sorts.
        self.routes.sort_by_key(|(tenant, prefix, _)| (*tenant, prefix.addr(), prefix.prefix_len()));
        let tenants = self.routes.last().map_or(0, |(tenant, ..)| tenant.index() + 1);
        let mut vrfs: Vec<Vrf> = std::iter::repeat_with(Vrf::default).take(tenants).collect();
        for routes in self.routes.chunk_by(|a, b| a.0 == b.0) {
            let (v4, v6) = routes.split_at(routes.partition_point(|(_, prefix, _)| prefix.addr().is_ipv4()));
            let Some(vrf) = vrfs.get_mut(routes[0].0.index()) else { continue };
            *vrf = Vrf { v4: RangesV4::new(v4), v6: RangesV6::new(v6) };
        }
        Tables { vrfs: vrfs.into() }
    }
}

#[cfg(test)]
mod tests;
