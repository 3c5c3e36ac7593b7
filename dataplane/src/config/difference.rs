//! What a configuration brings to a hub that runs with another one; and what it asks for that only a start can bring.

use std::collections::HashMap;
use std::hash::Hash;

use super::errors::{Errors, Origin, Problems};
use super::{Desired, Port, Tenant, Trunk};

/// A new configuration beside an old one: who of the new one was there, and who of the old one is gone. The trunks of both are the
/// same, in the same order; whom they carry may be another.
///
/// A tenant is known by its id, and a site by its tenant and its name: all else about them may change.
#[derive(Debug, PartialEq, Eq)]
pub struct Difference {
    /// For each tenant of the new configuration its place in the old one; none: it is new.
    pub tenants: Vec<Option<Was>>,
    /// The places in the old configuration of tenants that are gone.
    pub gone: Vec<usize>,
}

/// A tenant that was there.
#[derive(Debug, PartialEq, Eq)]
pub struct Was {
    /// Its place in the old configuration.
    pub place: usize,
    /// For each of its sites the place among its sites before; none: the site is new.
    pub sites: Vec<Option<usize>>,
    /// The places that its sites which are gone had.
    pub gone: Vec<usize>,
}

/// The difference, if a running hub can make it. Else what it can't, each with its place, and what to do.
pub fn difference(old: &Desired, new: &Desired) -> Result<Difference, Errors> {
    let problems = Problems::default();
    whole_hub(old, new, &problems);
    let (places, gone) = places(&old.tenants, &new.tenants, |tenant| tenant.id);
    let tenants = places.into_iter().zip(&new.tenants).map(|(place, tenant)| {
        let before = place.map(|place| &old.tenants[place]);
        attachments(before, tenant, &problems);
        let (sites, gone) = self::places(&before?.sites, &tenant.sites, |site| site.name.clone());
        Some(Was { place: place?, sites, gone })
    });
    let tenants = tenants.collect();
    for tenant in gone.iter().map(|place| &old.tenants[*place]).filter(|tenant| !tenant.access.is_empty()) {
        let main = main_file(new);
        problems.add(&main, format!("tenant {} is gone and had access ends; {RESTART}", tenant.id));
    }
    problems.done()?;
    Ok(Difference { tenants, gone })
}

const RESTART: &str = "a running hub can't change that: restart it, or put back what was there";

/// What is of the hub as a whole is there for its life.
fn whole_hub(old: &Desired, new: &Desired, problems: &Problems) {
    let main = main_file(new);
    let hub = [
        ("name", old.hub.name != new.hub.name),
        ("private_key_file", old.hub.private_key != new.hub.private_key),
        ("listen_port", old.hub.listen_port != new.hub.listen_port),
        ("crypto", old.hub.crypto != new.hub.crypto),
    ];
    let workers = [
        ("cores", old.workers.cores != new.workers.cores),
        ("spread", old.workers.spread != new.workers.spread),
        ("idle", old.workers.idle != new.workers.idle),
        ("busy_poll_us", old.workers.busy_poll_us != new.workers.busy_poll_us),
    ];
    let stats =
        [("memory_mib", old.stats.memory_mib != new.stats.memory_mib), ("group", old.stats.group != new.stats.group)];
    for (section, keys) in [("[hub]", &hub[..]), ("[workers]", &workers), ("[stats]", &stats)] {
        for (key, _) in keys.iter().filter(|(_, changed)| *changed) {
            problems.add(&main, format!("{key} of {section} is another one; {RESTART}"));
        }
    }
    let name = |port: &Port| (port.name.to_string(), port.origin.clone());
    all_stay("port", &old.ports, &new.ports, name, |old, new| old == new, (&main, problems));
    let name = |trunk: &Trunk| (trunk.name.to_string(), trunk.origin.clone());
    // Whom a trunk may carry changes with the tenants that there are.
    let same = |old: &Trunk, new: &Trunk| *old == Trunk { carries: old.carries.clone(), ..new.clone() };
    all_stay("trunk", &old.trunks, &new.trunks, name, same, (&main, problems));
}

/// Each is there as it was, in the same order.
fn all_stay<T>(
    noun: &str,
    old: &[T],
    new: &[T],
    named: impl Fn(&T) -> (String, Origin),
    same: impl Fn(&T, &T) -> bool,
    (main, problems): (&Origin, &Problems),
) {
    let (places, gone) = places(old, new, |one| named(one).0);
    for (n, (place, one)) in places.into_iter().zip(new).enumerate() {
        let what = match place {
            None => "is new".to_owned(),
            Some(place) if !same(&old[place], one) => "is configured otherwise".to_owned(),
            Some(place) if place != n && gone.is_empty() => format!("stands in another place among the {noun}s"),
            Some(_) => continue,
        };
        let (name, at) = named(one);
        problems.add(&at, format!("{noun} {name:?} {what}; {RESTART}"));
    }
    for (name, _) in gone.into_iter().map(|place| named(&old[place])) {
        problems.add(main, format!("{noun} {name:?} is gone; {RESTART}"));
    }
}

/// Which VLANs are whose is in XDP's maps and every worker's tables from the start.
fn attachments(before: Option<&Tenant>, tenant: &Tenant, problems: &Problems) {
    let had = before.map_or(&[][..], |before| &before.access);
    if had != tenant.access {
        let at = tenant.access.first().map_or(&tenant.origin, |end| &end.origin);
        problems.add(at, format!("the access ends of tenant {} are others; {RESTART}", tenant.id));
    }
}

/// The main file as a whole.
fn main_file(desired: &Desired) -> Origin {
    desired.ports.first().map_or_else(|| desired.workers.origin.clone(), |port| port.origin.whole_file())
}

/// For each of `new` its place in `old`; and the places of those that are not in `new`.
fn places<T, K: Hash + Eq>(old: &[T], new: &[T], key: impl Fn(&T) -> K) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut by_key: HashMap<K, usize> = old.iter().enumerate().map(|(place, one)| (key(one), place)).collect();
    let places = new.iter().map(|one| by_key.remove(&key(one))).collect();
    let mut gone: Vec<usize> = by_key.into_values().collect();
    gone.sort_unstable();
    (places, gone)
}
