//! Who has which slot: tenants, their ends, and the rules of their filters.
//!
//! Everything that is fast is a plain index by slot, so a slot is its holder's for as long as the configuration has it, whatever else
//! comes and goes. At the start slots are given in the order of the configuration, to all sites before all access ends. What comes
//! later takes slots that others have given up, and then new ones.

use crate::config::{self, Desired, Difference, Site, Tenant};
use classifier::{Tables, Target};
use std::net::IpAddr;
use std::ops::Range;
use wire::{PortIndex, SiteSlot, TenantSlot};

/// Ends that even the smallest hub has room for.
const ROOM_LEAST: usize = 2048;

/// Ends, and tenants, that a hub which starts with so many ends has room for while it runs: BPF maps don't grow.
pub fn room(ends: usize) -> usize {
    (2 * ends).next_power_of_two().max(ROOM_LEAST)
}

/// The slots of a configuration, each list in its order.
#[derive(Clone, Debug)]
pub struct Seats {
    tenants: Vec<Row>,
    given: Given,
}

/// The slots of a tenant.
#[derive(Clone, Debug)]
struct Row {
    slot: TenantSlot,
    sites: Vec<SiteSlot>,
    access: Vec<SiteSlot>,
    /// Of its first rule, if it has a filter: its rules follow in their order, then its default.
    rules: Option<u32>,
}

/// How many slots of each kind were ever given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// To tenants.
    pub tenants: u32,
    /// To sites and access ends.
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
    /// Of rules, each a filter's.
    pub rules: Vec<Range<u32>>,
}

impl Vacant {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.sites.is_empty() && self.rules.is_empty()
    }

    /// Adds others.
    pub fn extend(&mut self, more: &Self) {
        self.tenants.extend(&more.tenants);
        self.sites.extend(&more.sites);
        self.rules.extend(more.rules.iter().cloned());
    }

    fn tenant(&mut self, given: &mut Given) -> TenantSlot {
        self.tenants.pop().unwrap_or_else(|| TenantSlot(next(&mut given.tenants, 1)))
    }

    fn site(&mut self, given: &mut Given) -> SiteSlot {
        self.sites.pop().unwrap_or_else(|| SiteSlot(next(&mut given.ends, 1)))
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
        Self { tenants: rows, given }
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
            row.sites = (0..tenant.sites.len()).map(|n| kept(n).unwrap_or_else(|| vacant.site(&mut given))).collect();
            row.access = before.map_or_else(Vec::new, |(_, row, _)| row.access.clone());
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
        (Self { tenants: rows, given }, left)
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

    /// The routes and filters of all tenants.
    pub fn tables(&self, desired: &Desired) -> Tables {
        let mut builder = Tables::builder();
        for (slot, tenant, _, site) in self.sites(desired) {
            site.prefixes.iter().for_each(|prefix| _ = builder.add(tenant, *prefix, Target::Site(slot)));
        }
        for (slot, tenant, _, end) in self.ends(desired) {
            end.prefixes().for_each(|prefix| _ = builder.add(tenant, prefix, Target::Site(slot)));
        }
        for (tenant, first, filter) in self.filters(desired) {
            let rules: Vec<_> = filter.rules.iter().map(|(_, rule)| rule.clone()).collect();
            builder.filter(tenant, classifier::filter::Filter::new(&rules, filter.default), first);
        }
        builder.build()
    }
}

impl Row {
    fn new(slot: TenantSlot) -> Self {
        Self { slot, sites: Vec::new(), access: Vec::new(), rules: None }
    }
}

/// The addresses from which a tenant hears of the hub: those that it was given for that, then those at its access ends.
pub fn own_addresses(tenant: &Tenant) -> Vec<IpAddr> {
    let of_ends = tenant.access.iter().flat_map(|end| &end.addresses).map(|net| net.addr());
    tenant.hub_addresses.iter().copied().chain(of_ends).collect()
}
