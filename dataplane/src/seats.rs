//! Who has which slot: tenants, their ends, and the rules of their filters.
//!
//! Everything that is fast is a plain index by slot, so a slot is its holder's for as long as the configuration has it, whatever else
//! comes and goes. At the start slots are given in the order of the configuration: to all sites, then to all access ends, to the lanes
//! of all trunks, and to what trunks carry of each tenant. What comes later takes slots that others have given up, and then new ones.

use crate::config::{self, Desired, Difference, PRIORITY, Site, Tenant, Trunk, Via};
use classifier::{PathId, Tables, Target};
use ipnet::IpNet;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::Range;
use wire::{PortIndex, SiteSlot, TenantSlot};

/// Ends that even the smallest hub has room for.
const ROOM_LEAST: usize = 2048;

/// Rules that even the smallest hub has places for.
const RULES_LEAST: usize = 65_536;

/// Ends, and tenants, that a hub which starts with so many ends has room for while it runs: BPF maps don't grow.
pub fn room(ends: usize) -> usize {
    (2 * ends).next_power_of_two().max(ROOM_LEAST)
}

/// Rules of filters that a hub which starts with so many has room for while it runs: places in the segment of statistics, which take no
/// memory before they are used.
pub fn room_for_rules(rules: usize) -> usize {
    (4 * rules).next_power_of_two().max(RULES_LEAST)
}

/// The slots of a configuration, each list in its order.
#[derive(Clone, Debug)]
pub struct Seats {
    tenants: Vec<Row>,
    /// By trunk.
    lanes: Vec<Vec<SiteSlot>>,
    given: Given,
}

/// The slots of a tenant.
#[derive(Clone, Debug)]
struct Row {
    slot: TenantSlot,
    sites: Vec<SiteSlot>,
    access: Vec<SiteSlot>,
    /// By trunk, where it carries this tenant.
    carried: Vec<Option<SiteSlot>>,
    /// Of its first rule, if it has a filter: its rules follow in their order, then its default.
    rules: Option<u32>,
}

/// How many slots of each kind were ever given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// To tenants.
    pub tenants: u32,
    /// To sites, access ends, lanes, and what trunks carry of tenants.
    pub ends: u32,
    /// To rules.
    pub rules: u32,
}

/// Slots that were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacant {
    /// Of tenants.
    pub tenants: Vec<TenantSlot>,
    /// Of sites.
    pub sites: Vec<SiteSlot>,
    /// Of what trunks carried of tenants.
    pub carried: Vec<SiteSlot>,
    /// Of rules, each a filter's.
    pub rules: Vec<Range<u32>>,
}

impl Vacant {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.ends().next().is_none() && self.rules.is_empty()
    }

    /// Slots of each kind of which a worker forgets who was there at a time: memory that no cache holds, some thousand cycles.
    pub const PART: usize = 4;

    /// How many parts it has.
    pub fn parts(&self) -> usize {
        let most = self.tenants.len().max(self.sites.len() + self.carried.len());
        most.max(self.rules.iter().map(Range::len).sum()).div_ceil(Self::PART)
    }

    /// Of all kinds of ends.
    pub fn ends(&self) -> impl Iterator<Item = SiteSlot> + '_ {
        self.sites.iter().chain(&self.carried).copied()
    }

    /// Of rules, one by one.
    pub fn rows_of_rules(&self) -> impl Iterator<Item = u32> + '_ {
        self.rules.iter().cloned().flatten()
    }

    /// Adds others.
    pub fn extend(&mut self, more: &Self) {
        self.tenants.extend(&more.tenants);
        self.sites.extend(&more.sites);
        self.carried.extend(&more.carried);
        self.rules.extend(more.rules.iter().cloned());
    }

    fn tenant(&mut self, given: &mut Given) -> TenantSlot {
        self.tenants.pop().unwrap_or_else(|| TenantSlot(next(&mut given.tenants, 1)))
    }

    /// Whatever kind of end it is for, and was of.
    fn end(&mut self, given: &mut Given) -> SiteSlot {
        self.sites.pop().or_else(|| self.carried.pop()).unwrap_or_else(|| SiteSlot(next(&mut given.ends, 1)))
    }

    /// So many in a row.
    fn rules(&mut self, count: u32, given: &mut Given) -> u32 {
        let Some(at) = self.rules.iter().position(|range| range.len() as u32 >= count) else {
            return next(&mut given.rules, count);
        };
        let first = self.rules[at].start;
        self.rules[at].start += count;
        if self.rules[at].is_empty() {
            self.rules.swap_remove(at);
        }
        first
    }
}

fn next(given: &mut u32, count: u32) -> u32 {
    let first = *given;
    *given += count;
    first
}

/// Rows of a filter, its default counted.
fn rules_of(filter: &config::Filter) -> u32 {
    filter.rules.len() as u32 + 1
}

impl Seats {
    /// The slots of a configuration with which a hub starts.
    pub fn first(desired: &Desired) -> Self {
        let mut given = Given::default();
        let mut rows: Vec<Row> =
            desired.tenants.iter().map(|_| Row::new(TenantSlot(next(&mut given.tenants, 1)))).collect();
        for (row, tenant) in rows.iter_mut().zip(&desired.tenants) {
            row.sites = tenant.sites.iter().map(|_| SiteSlot(next(&mut given.ends, 1))).collect();
            row.rules = tenant.filter.as_ref().map(|filter| next(&mut given.rules, rules_of(filter)));
        }
        for (row, tenant) in rows.iter_mut().zip(&desired.tenants) {
            row.access = tenant.access.iter().map(|_| SiteSlot(next(&mut given.ends, 1))).collect();
        }
        let lanes = desired.trunks.iter();
        let lanes =
            lanes.map(|trunk| (0..trunk.lanes.get()).map(|_| SiteSlot(next(&mut given.ends, 1))).collect()).collect();
        for (row, tenant) in rows.iter_mut().zip(&desired.tenants) {
            let slot = |trunk: &Trunk| trunk.carries(tenant.id).then(|| SiteSlot(next(&mut given.ends, 1)));
            row.carried = desired.trunks.iter().map(slot).collect();
        }
        Self { tenants: rows, lanes, given }
    }

    /// The slots of `new`, in which everybody who was in `old` keeps those that he has here; and those that are given up. What is
    /// new takes from `vacant` first. A filter that changed has other rows, since its rules count anew.
    pub fn next(&self, old: &Desired, new: &Desired, difference: &Difference, vacant: &mut Vacant) -> (Self, Vacant) {
        let mut given = self.given;
        let mut left = Vacant::default();
        let give_up_rules = |left: &mut Vacant, row: &Row, tenant: &Tenant| {
            left.rules.extend(row.rules.zip(tenant.filter.as_ref()).map(|(at, filter)| at..at + rules_of(filter)));
        };
        for place in &difference.gone {
            let row = &self.tenants[*place];
            left.tenants.push(row.slot);
            left.sites.extend(&row.sites);
            left.carried.extend(row.carried.iter().flatten());
            give_up_rules(&mut left, row, &old.tenants[*place]);
        }
        let mut rows = Vec::with_capacity(new.tenants.len());
        for (was, tenant) in difference.tenants.iter().zip(&new.tenants) {
            let before = was.as_ref().map(|was| (was, &self.tenants[was.place], &old.tenants[was.place]));
            let mut row = Row::new(before.map_or_else(|| vacant.tenant(&mut given), |(_, row, _)| row.slot));
            if let Some((was, row, _)) = before {
                left.sites.extend(was.gone.iter().map(|place| row.sites[*place]));
            }
            let kept = |n: usize| before.and_then(|(was, row, _)| Some(row.sites[was.sites[n]?]));
            row.sites = (0..tenant.sites.len()).map(|n| kept(n).unwrap_or_else(|| vacant.end(&mut given))).collect();
            row.access = before.map_or_else(Vec::new, |(_, row, _)| row.access.clone());
            // Trunks are the same ones, in the same order; whom they carry may be another.
            for (n, trunk) in new.trunks.iter().enumerate() {
                let had = before.and_then(|(_, row, _)| row.carried[n]);
                let has = trunk.carries(tenant.id).then(|| had.unwrap_or_else(|| vacant.end(&mut given)));
                left.carried.extend(had.filter(|_| has.is_none()));
                row.carried.push(has);
            }
            row.rules = match (before, &tenant.filter) {
                (Some((_, row, old)), filter) if old.filter == *filter => row.rules,
                (before, filter) => {
                    if let Some((_, row, old)) = before {
                        give_up_rules(&mut left, row, old);
                    }
                    filter.as_ref().map(|filter| vacant.rules(rules_of(filter), &mut given))
                }
            };
            rows.push(row);
        }
        (Self { tenants: rows, lanes: self.lanes.clone(), given }, left)
    }

    /// How many slots of each kind were ever given: all are below that.
    pub fn given(&self) -> Given {
        self.given
    }

    /// The slot of a tenant, by its place in the configuration.
    pub fn tenant(&self, place: usize) -> TenantSlot {
        self.tenants[place].slot
    }

    /// The slots of a tenant's sites, by its place in the configuration.
    pub fn sites_of(&self, place: usize) -> &[SiteSlot] {
        &self.tenants[place].sites
    }

    /// All tenants.
    pub fn tenants<'a>(&self, desired: &'a Desired) -> impl Iterator<Item = (TenantSlot, &'a Tenant)> {
        self.tenants.iter().map(|row| row.slot).zip(&desired.tenants)
    }

    /// All sites.
    pub fn sites<'a>(
        &self,
        desired: &'a Desired,
    ) -> impl Iterator<Item = (SiteSlot, TenantSlot, &'a Tenant, &'a Site)> {
        self.tenants.iter().zip(&desired.tenants).flat_map(|(row, tenant)| {
            row.sites.iter().zip(&tenant.sites).map(move |(slot, site)| (*slot, row.slot, tenant, site))
        })
    }

    /// All access ends, and the port of each.
    pub fn ends<'a>(
        &self,
        desired: &'a Desired,
    ) -> impl Iterator<Item = (SiteSlot, TenantSlot, PortIndex, &'a config::Access)> {
        let port = |end: &config::Access| desired.ports.iter().position(|port| port.name == end.port);
        self.tenants.iter().zip(&desired.tenants).flat_map(move |(row, tenant)| {
            // A configuration whose ends have no port is refused.
            let all = row.access.iter().zip(&tenant.access);
            all.filter_map(move |(slot, end)| Some((*slot, row.slot, PortIndex(port(end)? as u16), end)))
        })
    }

    /// The tenants that have a filter, each with the row of its first rule: its rules stand in their order, then its default.
    pub fn filters<'a>(&self, desired: &'a Desired) -> impl Iterator<Item = (TenantSlot, u32, &'a config::Filter)> {
        let all = self.tenants.iter().zip(&desired.tenants);
        all.filter_map(|(row, tenant)| Some((row.slot, row.rules?, tenant.filter.as_ref()?)))
    }

    /// The slots of a trunk's lanes, by its place in the configuration.
    pub fn lanes(&self, trunk: usize) -> &[SiteSlot] {
        &self.lanes[trunk]
    }

    /// For each trunk the slot of what it carries of a tenant, by the tenant's place in the configuration.
    pub fn carried(&self, place: usize) -> &[Option<SiteSlot>] {
        &self.tenants[place].carried
    }

    /// All lanes: the slot, the trunk's place in the configuration and the number in it.
    pub fn all_lanes<'a>(&self, desired: &'a Desired) -> impl Iterator<Item = (SiteSlot, usize, usize, &'a Trunk)> {
        let trunks = self.lanes.iter().zip(&desired.trunks).enumerate();
        trunks.flat_map(|(n, (lanes, trunk))| lanes.iter().enumerate().map(move |(lane, slot)| (*slot, n, lane, trunk)))
    }

    /// All that trunks carry of tenants: the slot, the tenant, and the trunk's place in the configuration.
    pub fn all_carried<'a>(
        &self,
        desired: &'a Desired,
    ) -> impl Iterator<Item = (SiteSlot, TenantSlot, usize, &'a Tenant, &'a Trunk)> {
        self.tenants.iter().zip(&desired.tenants).flat_map(move |(row, tenant)| {
            let trunks = row.carried.iter().zip(&desired.trunks).enumerate();
            trunks.filter_map(move |(n, (slot, trunk))| Some(((*slot)?, row.slot, n, tenant, trunk)))
        })
    }

    /// The routes and filters of all tenants; and of the prefixes that several ends lead to, which those are. Of each path the end
    /// that is preferred is the one that is used.
    pub fn tables(&self, desired: &Desired) -> (Tables, Vec<PathSpec>) {
        let mut builder = Tables::builder();
        let mut paths = Vec::new();
        for (row, tenant) in self.tenants.iter().zip(&desired.tenants) {
            if tenant.routes.is_empty() {
                // No two of its prefixes overlap.
                row.own(tenant).for_each(|(prefix, end)| _ = builder.add(row.slot, prefix, Target::Site(end)));
                continue;
            }
            for (prefix, candidates) in row.candidates(tenant, &desired.trunks) {
                if let [(_, end)] = candidates[..] {
                    builder.add(row.slot, prefix, Target::Site(end));
                    continue;
                }
                let ends: Vec<SiteSlot> = candidates.iter().map(|(_, end)| *end).collect();
                let id = builder.path(&ends, ends[0]);
                builder.add_path(row.slot, prefix, id);
                paths.push(PathSpec { tenant: row.slot, prefix, id, candidates });
            }
        }
        for (tenant, first, filter) in self.filters(desired) {
            let rules: Vec<_> = filter.rules.iter().map(|(_, rule)| rule.clone()).collect();
            builder.filter(tenant, classifier::filter::Filter::new(&rules, filter.default), first);
        }
        (builder.build(), paths)
    }
}

/// A prefix of a tenant that several ends lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// The tenant.
    pub tenant: TenantSlot,
    /// The prefix.
    pub prefix: IpNet,
    /// The number of the path in the tables that were built with this.
    pub id: PathId,
    /// The ends with their priorities, the most preferred first. At least two, each once.
    pub candidates: Vec<(u16, SiteSlot)>,
}

/// Paths of new tables use the ends that those of the tables before them used, where they still can.
pub fn take_over(before: (&Tables, &[PathSpec]), after: (&Tables, &[PathSpec])) {
    let active = |path: &PathSpec| Some(((path.tenant, path.prefix), before.0.active(path.id)?));
    let known: HashMap<_, _> = before.1.iter().filter_map(active).collect();
    for path in after.1 {
        if let Some(end) = known.get(&(path.tenant, path.prefix)) {
            after.0.switch(path.id, *end);
        }
    }
}

impl Row {
    fn new(slot: TenantSlot) -> Self {
        Self { slot, sites: Vec::new(), access: Vec::new(), carried: Vec::new(), rules: None }
    }

    /// What the tenant's sites and access ends say of themselves.
    fn own<'a>(&'a self, tenant: &'a Tenant) -> impl Iterator<Item = (IpNet, SiteSlot)> + 'a {
        let of_sites = self.sites.iter().zip(&tenant.sites);
        let of_sites = of_sites.flat_map(|(slot, site)| site.prefixes.iter().map(|prefix| (*prefix, *slot)));
        let of_access = self.access.iter().zip(&tenant.access);
        of_sites.chain(of_access.flat_map(|(slot, end)| end.prefixes().map(|prefix| (prefix, *slot))))
    }

    /// Each prefix of the tenant, and the ends that lead there with their priorities: the most preferred first, and of two alike the one
    /// that the configuration has first. What a route says of a prefix that its end has itself counts instead of what the end says.
    fn candidates(&self, tenant: &Tenant, trunks: &[Trunk]) -> BTreeMap<IpNet, Vec<(u16, SiteSlot)>> {
        let end = |via: &Via| match via {
            Via::Trunk(name) => self.carried[trunks.iter().position(|trunk| trunk.name == *name)?],
            Via::Site(name) => Some(self.sites[tenant.sites.iter().position(|site| site.name == *name)?]),
            Via::Access(name) => Some(self.access[tenant.access.iter().position(|end| end.name() == *name)?]),
        };
        // A configuration whose routes lead nowhere is refused.
        let routes = tenant.routes.iter().filter_map(|route| Some((route.prefix, route.priority, end(&route.via)?)));
        let mut all: BTreeMap<IpNet, Vec<(u16, SiteSlot)>> = BTreeMap::new();
        let own = self.own(tenant).map(|(prefix, slot)| (prefix, PRIORITY, slot));
        for (prefix, priority, slot) in own.chain(routes) {
            let ends = all.entry(prefix).or_default();
            match ends.iter_mut().find(|(_, known)| *known == slot) {
                Some((known, _)) => *known = priority,
                None => ends.push((priority, slot)),
            }
        }
        all.values_mut().for_each(|ends| ends.sort_by_key(|(priority, _)| *priority));
        all
    }
}

/// The addresses from which a tenant hears of the hub: those that it was given for that, then those at its access ends.
pub fn own_addresses(tenant: &Tenant) -> Vec<IpAddr> {
    let of_ends = tenant.access.iter().flat_map(|end| &end.addresses).map(|net| net.addr());
    tenant.hub_addresses.iter().copied().chain(of_ends).collect()
}

#[cfg(test)]
mod tests;
