//! Whose packet may go where: the routes of every tenant, the check that a site speaks only for itself, and the tenant's own
//! rules.
//!
//! [`Tables`] is a snapshot: built at once by control, read by every worker without a lock, replaced as a whole.
#![forbid(unsafe_code)]

pub mod filter;
mod ranges;

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};

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

/// The number of a path among those of all tenants. It is that of one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct PathId(pub u32);

/// What stands at a prefix: as small as a target alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Site(SiteSlot),
    Path(PathId),
}

const _: () = assert!(size_of::<Option<Entry>>() == 8);

/// Several ends that lead to the same prefix, of which one is used.
#[derive(Debug)]
struct Path {
    /// From each of them packets of the prefix may come.
    ends: Box<[SiteSlot]>,
    /// The slot of the one that packets to the prefix go to. It alone is what is published here: whatever belongs to the slot was
    /// known to a worker before it had these tables. So relaxed loads and stores do.
    active: AtomicU32,
}

impl Path {
    #[inline]
    fn active(&self) -> SiteSlot {
        SiteSlot(self.active.load(Ordering::Relaxed))
    }
}

/// The routes of all tenants, each in a table of its own: no lookup ever sees another tenant's prefixes.
#[derive(Debug, Default)]
pub struct Tables {
    /// By tenant slot.
    vrfs: Box<[Vrf]>,
    /// By number.
    paths: Box<[Path]>,
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
        match self.find(tenant, destination)? {
            Entry::Site(site) => Some(Target::Site(site)),
            Entry::Path(PathId(number)) => Some(Target::Site(self.paths.get(number as usize)?.active())),
        }
    }

    #[inline]
    fn find(&self, tenant: TenantSlot, address: IpAddr) -> Option<Entry> {
        let vrf = self.vrfs.get(tenant.index())?;
        match address {
            IpAddr::V4(address) => vrf.v4.find(address.to_bits()),
            IpAddr::V6(address) => vrf.v6.find(address.to_bits()),
        }
    }

    /// Whether `source` is behind this end: packets to it would go there, or would if the path over it were the active one.
    #[inline]
    pub fn source_allowed(&self, tenant: TenantSlot, end: SiteSlot, source: IpAddr) -> bool {
        self.route(tenant, source) == Some(Target::Site(end)) || self.is_on_path(tenant, end, source)
    }

    /// Whether the longest prefix that holds `source` has a path over this end.
    #[cold]
    #[inline(never)]
    fn is_on_path(&self, tenant: TenantSlot, end: SiteSlot, source: IpAddr) -> bool {
        match self.find(tenant, source) {
            Some(Entry::Path(PathId(number))) => {
                self.paths.get(number as usize).is_some_and(|path| path.ends.contains(&end))
            }
            Some(Entry::Site(_)) | None => false,
        }
    }

    /// Sends the packets of a path to another of its ends: all workers do so from now on. `false`, and nothing changes, if it has no
    /// such end.
    pub fn switch(&self, path: PathId, end: SiteSlot) -> bool {
        let found = self.paths.get(path.0 as usize).filter(|path| path.ends.contains(&end));
        found.inspect(|path| path.active.store(end.0, Ordering::Relaxed)).is_some()
    }

    /// The end that a path's packets go to.
    pub fn active(&self, path: PathId) -> Option<SiteSlot> {
        self.paths.get(path.0 as usize).map(Path::active)
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
    routes: Vec<(TenantSlot, IpNet, Entry)>,
    paths: Vec<Path>,
    filters: Vec<(TenantSlot, Rules)>,
}

impl Builder {
    /// Adds a route. Inside a tenant, a longer prefix wins over a shorter, and of two equal prefixes the later; bits
    /// beyond the prefix length mean nothing.
    pub fn add(&mut self, tenant: TenantSlot, prefix: IpNet, target: Target) -> &mut Self {
        let Target::Site(site) = target;
        self.routes.push((tenant, prefix.trunc(), Entry::Site(site)));
        self
    }

    /// Adds a path over these ends, of which packets go to `active`, for prefixes to be added to it.
    pub fn path(&mut self, ends: &[SiteSlot], active: SiteSlot) -> PathId {
        let missing = (!ends.contains(&active)).then_some(active);
        let ends = ends.iter().copied().chain(missing).collect();
        self.paths.push(Path { ends, active: AtomicU32::new(active.0) });
        PathId(self.paths.len() as u32 - 1)
    }

    /// Adds a route over a path, as [`Self::add`] does one to a target. Several prefixes may share a path.
    pub fn add_path(&mut self, tenant: TenantSlot, prefix: IpNet, path: PathId) -> &mut Self {
        self.routes.push((tenant, prefix.trunc(), Entry::Path(path)));
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
        Tables { vrfs: vrfs.into(), paths: self.paths.into(), has_filters }
    }
}

#[cfg(test)]
mod tests;
