//! From the configuration that a hub runs with and a new one to what there is to do. Nothing is touched: it is made in a thread of its
//! own, while everything goes on, and what is large is built here, so that a worker only changes a pointer.

use crate::config::{self, Desired, Route, Via, difference};
use crate::mailbox::Order;
use crate::rates::Contracts;
use crate::seats::{PathSpec, Seats, Vacant, own_addresses};
use crate::sites::Seat;
use crate::tenants::Tenant;
use classifier::Tables;
use ipnet::IpNet;
use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use wire::{SiteSlot, TenantId, TenantSlot};

/// What there is to do, and what holds afterwards.
#[derive(Debug)]
pub(super) struct Plan {
    /// The new configuration.
    pub(super) desired: Arc<Desired>,
    /// Who of it has which slot.
    pub(super) seats: Arc<Seats>,
    /// What its tenants are held to.
    pub(super) contracts: Arc<Contracts>,
    /// Its routes and filters, if they are others, and the paths in them, each over the end that it prefers.
    pub(super) tables: Option<(Arc<Tables>, Vec<PathSpec>)>,
    /// Tenants that are new, or to which the hub has other addresses.
    tenants: Vec<(TenantSlot, Vec<IpAddr>)>,
    /// Ends that are new, or that are held to other rates or marked otherwise.
    ends: Vec<(SiteSlot, Seat)>,
    /// Sites that are new.
    pub(super) added: Vec<Added>,
    /// Sites that stay, and have something else than before.
    pub(super) changed: Vec<Changed>,
    /// The slots of all that is gone.
    pub(super) vacant: Vacant,
    /// What an operator is told.
    pub(super) summary: Summary,
}

/// A site that is new.
#[derive(Debug)]
pub(super) struct Added {
    /// Its slot.
    pub(super) slot: SiteSlot,
    /// Its tenant.
    pub(super) tenant: (TenantSlot, TenantId),
    /// From where to where its way is measured.
    pub(super) probe: Option<(IpAddr, IpAddr)>,
    /// What the configuration says of it.
    pub(super) site: config::Site,
}

/// A site that stays, and what of it is another.
#[derive(Debug)]
pub(super) struct Changed {
    /// Its slot.
    pub(super) slot: SiteSlot,
    /// What the configuration says of it now.
    pub(super) site: config::Site,
    /// Its public or preshared key: it needs another handshake.
    pub(super) keys: bool,
    /// Where it is, if the configuration says so.
    pub(super) endpoint: bool,
    /// How packets travel there, how often an idle one does, or whether the way is measured.
    pub(super) way: bool,
    /// From where to where it is.
    pub(super) probe: Option<(IpAddr, IpAddr)>,
}

/// What a change was, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    tenants: [usize; 3],
    sites: [usize; 3],
    routes: [usize; 2],
    filters: usize,
    /// That carry others than before.
    trunks: usize,
}

const ADDED: usize = 0;
const GONE: usize = 1;
const CHANGED: usize = 2;

/// What is to be done to run with `new` in the place of `old`, or why a running hub can't, for an operator to read. What is new takes
/// slots from `vacant` first.
pub(super) fn plan(
    (old, seats_before, contracts): (&Desired, &Seats, &Contracts),
    new: Desired,
    room: usize,
    vacant: &mut Vacant,
) -> Result<Plan, String> {
    let difference = difference(old, &new).map_err(|errors| errors.to_string())?;
    let (mut left_over, mut summary) = (vacant.clone(), Summary::default());
    let (next, gone) = seats_before.next(old, &new, &difference, &mut left_over);
    let given = next.given();
    if given.ends.max(given.tenants) as usize > room {
        return Err(format!(
            "this hub has room for {room} sites, access ends, lanes of trunks, tenants that each trunk carries, and tenants at a time \
             until it is started anew, and with those that it had, {} are too many; restart it",
            given.ends.max(given.tenants)
        ));
    }
    let contracts_now = contracts.next(&new);
    let all_seats: ahash::AHashMap<_, _> = contracts_now.seats(&next, &new).collect();
    let mut plan = Plan {
        tables: None,
        tenants: Vec::new(),
        ends: Vec::new(),
        added: Vec::new(),
        changed: Vec::new(),
        vacant: gone,
        summary,
        seats: Arc::new(next),
        contracts: Arc::new(contracts_now),
        desired: Arc::new(new),
    };
    let seats = plan.seats.clone();
    let (mut filters, mut routes) = (false, false);
    summary.trunks = old.trunks.iter().zip(&plan.desired.trunks).filter(|(was, is)| was.carries != is.carries).count();
    let seat = |ends: &mut Vec<_>, slot| ends.extend(all_seats.get(&slot).map(|seat| (slot, seat.clone())));
    for (place, (was, tenant)) in difference.tenants.iter().zip(&plan.desired.tenants).enumerate() {
        let slot = seats.tenant(place);
        let before = was.as_ref().map(|was| (was, &old.tenants[was.place]));
        if before.is_none_or(|(_, before)| own_addresses(before) != own_addresses(tenant)) {
            plan.tenants.push((slot, own_addresses(tenant)));
        }
        summary.tenants[ADDED] += usize::from(before.is_none());
        let had = before.map_or(&[][..], |(_, before)| &before.routes);
        let (was_behind, is_behind) = (ways(had), ways(&tenant.routes));
        summary.routes[ADDED] += is_behind.difference(&was_behind).count();
        summary.routes[GONE] += was_behind.difference(&is_behind).count();
        // Of two ways that are as good the first is preferred.
        let in_other_order = had != tenant.routes && was_behind == is_behind;
        routes |= in_other_order;
        let changed = before.is_some_and(|(_, before)| {
            let all = |t: &config::Tenant| (t.service_code.clone(), t.label.clone(), own_addresses(t), t.rates, t.dscp);
            in_other_order || all(before) != all(tenant)
        });
        summary.tenants[CHANGED] += usize::from(changed);
        if before.map_or(tenant.filter.is_some(), |(_, before)| before.filter != tenant.filter) {
            filters = true;
            summary.filters += 1;
        }
        let all_other = before.is_none_or(|(_, before)| (before.rates, before.dscp) != (tenant.rates, tenant.dscp));
        for (n, (slot_of, site)) in seats.sites_of(place).iter().zip(&tenant.sites).enumerate() {
            let was = before.and_then(|(was, before)| Some(&before.sites[was.sites[n]?]));
            let Some(was) = was else {
                summary.sites[ADDED] += 1;
                summary.routes[ADDED] += site.prefixes.len();
                seat(&mut plan.ends, *slot_of);
                plan.added.push(Added {
                    slot: *slot_of,
                    tenant: (slot, tenant.id),
                    probe: plan.desired.probe_ends(tenant, site),
                    site: site.clone(),
                });
                continue;
            };
            if all_other || was.rates != site.rates {
                seat(&mut plan.ends, *slot_of);
            }
            let probe = plan.desired.probe_ends(tenant, site);
            let measured = before.and_then(|(_, before)| old.probe_ends(before, was));
            if was == site && probe == measured {
                continue;
            }
            summary.sites[CHANGED] += 1;
            let prefixes = |site: &config::Site| site.prefixes.iter().copied().collect::<HashSet<IpNet>>();
            let (had, has) = (prefixes(was), prefixes(site));
            summary.routes[ADDED] += has.difference(&had).count();
            summary.routes[GONE] += had.difference(&has).count();
            plan.changed.push(Changed {
                slot: *slot_of,
                keys: (was.public_key, &was.preshared_key) != (site.public_key, &site.preshared_key),
                endpoint: site.endpoint.is_some() && was.endpoint != site.endpoint,
                way: (was.keepalive_s, was.udp_checksum, was.mtu) != (site.keepalive_s, site.udp_checksum, site.mtu)
                    || probe != measured,
                probe,
                site: site.clone(),
            });
        }
        if let Some((was, before)) = before {
            summary.sites[GONE] += was.gone.len();
            summary.routes[GONE] += was.gone.iter().map(|site| before.sites[*site].prefixes.len()).sum::<usize>();
        }
    }
    for tenant in difference.gone.iter().map(|place| &old.tenants[*place]) {
        summary.tenants[GONE] += 1;
        summary.sites[GONE] += tenant.sites.len();
        summary.routes[GONE] +=
            tenant.sites.iter().map(|site| site.prefixes.len()).sum::<usize>() + tenant.routes.len();
        filters |= tenant.filter.is_some();
    }
    // Access ends of a tenant stay, and have a part in its rates.
    let of_access =
        |slot: &TenantSlot| plan.desired.tenants.iter().enumerate().find(|(n, _)| seats.tenant(*n) == *slot);
    for (slot, tenant, ..) in seats.ends(&plan.desired) {
        let id = of_access(&tenant).map(|(_, tenant)| tenant.id);
        let (was, is) = (&old.tenants, &plan.desired.tenants);
        let rates = |all: &[config::Tenant]| all.iter().find(|t| Some(t.id) == id).map(|t| t.rates);
        if rates(was) != rates(is) {
            seat(&mut plan.ends, slot);
        }
    }
    // What trunks carry of a tenant has a part in its rates, too, and is marked as all that is its.
    for ((place, tenant), was) in plan.desired.tenants.iter().enumerate().zip(&difference.tenants) {
        let before = was.as_ref().map(|was| (&old.tenants[was.place], seats_before.carried(was.place)));
        let other = before.is_none_or(|(before, _)| (before.rates, before.dscp) != (tenant.rates, tenant.dscp));
        let had = |n: usize| before.and_then(|(_, carried)| carried[n]);
        let now = seats.carried(place).iter().enumerate().filter_map(|(n, slot)| Some((n, (*slot)?)));
        now.filter(|(n, slot)| other || had(*n) != Some(*slot)).for_each(|(_, slot)| seat(&mut plan.ends, slot));
    }
    if filters || routes || summary.routes != [0, 0] {
        let (tables, paths) = seats.tables(&plan.desired);
        plan.tables = Some((Arc::new(tables), paths));
    }
    *vacant = left_over;
    plan.summary = summary;
    Ok(plan)
}

/// What routes say, whatever their order.
fn ways(routes: &[Route]) -> HashSet<(IpNet, &Via, u16)> {
    routes.iter().map(|route| (route.prefix, &route.via, route.priority)).collect()
}

impl Plan {
    /// What a worker is told before any trunk or route leads to those that come.
    pub(super) fn orders(&self) -> impl Iterator<Item = Order> + '_ {
        let tenants = self.tenants.iter().map(|(slot, own)| Order::Tenant(*slot, Tenant::new(own)));
        let ends = self.ends.iter().map(|(slot, seat)| Order::Seat(*slot, seat.clone()));
        tenants.chain(ends)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verbs = ["added", "removed", "changed"];
        let named = [("tenant", &self.tenants[..]), ("site", &self.sites), ("route", &self.routes)];
        let counted = named
            .into_iter()
            .flat_map(|(noun, counts)| counts.iter().zip(verbs).map(move |(count, verb)| (*count, noun, verb)));
        let all: Vec<String> = counted
            .chain([(self.filters, "filter", "changed"), (self.trunks, "trunk", "changed")])
            .filter(|(count, ..)| *count > 0)
            .map(|(count, noun, verb)| format!("{count} {noun}{} {verb}", if count == 1 { "" } else { "s" }))
            .collect();
        f.write_str(&if all.is_empty() { "nothing changed".into() } else { all.join(", ") })
    }
}

#[cfg(test)]
mod tests;
