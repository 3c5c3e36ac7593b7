//! Whose packet may go where: the routes of every tenant, the check that a site speaks only for itself, and the tenant's own
//! rules.
//!
//! [`Tables`] is a snapshot: built at once by control, read by every worker without a lock, replaced as a whole.
#![forbid(unsafe_code)]

pub mod filter;
mod ranges;

use std::net::IpAddr;

use filter::{Action, Filter};
use ipnet::IpNet;
use ranges::{RangesV4, RangesV6};
use wire::{Flow, SiteSlot, TenantSlot};

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
    has_filters: bool,
}

/// One tenant's routes ("virtual routing and forwarding").
#[derive(Debug, Default)]
struct Vrf {
    v4: RangesV4,
    v6: RangesV6,
    rules: Option<Rules>,
}

/// A tenant's filter, and the row of its first rule among the rules of all tenants.
#[derive(Debug)]
struct Rules {
    filter: Filter,
    first: u32,
}

/// What a tenant's filter says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// This rule decided: its row among the rules of all tenants, in which the default of each follows its rules.
    Rule(u32, Action),
    /// The packet hides what a rule may ask for.
    Unreadable,
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

    /// What the tenant's filter says of an inner packet, if it has one.
    #[inline]
    pub fn filter(&self, tenant: TenantSlot, packet: &[u8]) -> Option<Verdict> {
        let Rules { filter, first } = self.vrfs.get(tenant.index())?.rules.as_ref()?;
        let Some(flow) = Flow::parse(packet) else { return Some(Verdict::Unreadable) };
        let decision = filter.decide(&flow);
        Some(Verdict::Rule(first + decision.rule as u32, decision.action))
    }

    /// Whether any tenant has a filter.
    pub fn has_filters(&self) -> bool {
        self.has_filters
    }
}

/// Collects routes for [`Tables`].
#[derive(Debug, Default)]
pub struct Builder {
    routes: Vec<(TenantSlot, IpNet, Target)>,
    filters: Vec<(TenantSlot, Rules)>,
}

impl Builder {
    /// Adds a route. Inside a tenant, a longer prefix wins over a shorter, and of two equal prefixes the later; bits
    /// beyond the prefix length mean nothing.
    pub fn add(&mut self, tenant: TenantSlot, prefix: IpNet, target: Target) -> &mut Self {
        self.routes.push((tenant, prefix.trunc(), target));
        self
    }

    /// Gives a tenant a filter, whose first rule has this row among the rules of all tenants.
    pub fn filter(&mut self, tenant: TenantSlot, filter: Filter, first: u32) -> &mut Self {
        self.filters.push((tenant, Rules { filter, first }));
        self
    }

    /// The snapshot. The tables reach to the largest tenant slot that has a route or a filter.
    pub fn build(mut self) -> Tables {
        // Outer prefixes before those inside them; IPv4 before IPv6, as `IpAddr` sorts.
        self.routes.sort_by_key(|(tenant, prefix, _)| (*tenant, prefix.addr(), prefix.prefix_len()));
        let filtered = self.filters.iter().map(|(tenant, _)| *tenant);
        let tenants = self.routes.last().map(|(tenant, ..)| *tenant).into_iter().chain(filtered).max();
        let tenants = tenants.map_or(0, |tenant| tenant.index() + 1);
        let mut vrfs: Vec<Vrf> = std::iter::repeat_with(Vrf::default).take(tenants).collect();
        for routes in self.routes.chunk_by(|a, b| a.0 == b.0) {
            let (v4, v6) = routes.split_at(routes.partition_point(|(_, prefix, _)| prefix.addr().is_ipv4()));
            let Some(vrf) = vrfs.get_mut(routes[0].0.index()) else { continue };
            *vrf = Vrf { v4: RangesV4::new(v4), v6: RangesV6::new(v6), rules: None };
        }
        let has_filters = !self.filters.is_empty();
        for (tenant, rules) in self.filters {
            if let Some(vrf) = vrfs.get_mut(tenant.index()) {
                vrf.rules = Some(rules);
            }
        }
        Tables { vrfs: vrfs.into(), has_filters }
    }
}

#[cfg(test)]
mod tests;
