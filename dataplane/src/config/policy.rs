//! What was sold to a tenant and what it wants itself: rates, marks and a filter.

use super::errors::Problems;
use super::reader::{Located, Shape, Table, optional, required};
use super::{Name, values};
use classifier::filter::{self, Action, RULES_MAX};
use ipnet::IpNet;
use std::collections::HashMap;

pub(super) static FILTER: Shape = Shape {
    title: "[[tenant.filter]]",
    noun: Some(("filter", "name")),
    keys: &[
        optional("name", r#"name = "no telnet""#),
        required("action", r#"action = "deny""#),
        optional("from", r#"from = ["10.9.1.0/24"]"#),
        optional("to", r#"to = ["10.9.2.0/24"]"#),
        optional("protocol", r#"protocol = "tcp""#),
        optional("source_ports", r#"source_ports = "1024-65535""#),
        optional("ports", r#"ports = "22, 80, 8000-8100""#),
        optional("flags", r#"flags = "syn, !ack""#),
    ],
};

pub(super) static DIRECTIONS: Shape = Shape {
    title: "a rate or burst for each direction",
    noun: None,
    keys: &[optional("up", r#"up = "100 Mbit/s""#), optional("down", r#"down = "1 Gbit/s""#)],
};

/// What passes of one thing, each way; none: as much as there is room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// From sites to the hub.
    pub up: Option<Rate>,
    /// From the hub to sites.
    pub down: Option<Rate>,
}

/// A contracted rate, of inner IP bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bits that pass in a second.
    pub bits_per_s: u64,
    /// Bytes that pass at once after a pause.
    pub burst: u64,
}

impl Rate {
    /// With the burst that it has unless one is configured: 50 ms of it, but room for two of the largest packets. With less, what
    /// comes in while one is waited for can be more than there is room for, and the rate is not reached.
    pub fn with_usual_burst(bits_per_s: u64) -> Self {
        Self { bits_per_s, burst: (bits_per_s / 8 / 20).max(2 * values::BURST_MIN) }
    }
}

/// What the outer header of a packet says of its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dscp {
    /// Nothing: which of its packets matter is the tenant's secret.
    #[default]
    Zero,
    /// What the inner header says.
    Copy,
    /// This.
    Fixed(u8),
}

impl Dscp {
    /// The class outside of a packet that has this one inside.
    #[inline]
    pub const fn outside(self, inside: u8) -> u8 {
        match self {
            Self::Zero => 0,
            Self::Copy => inside,
            Self::Fixed(class) => class,
        }
    }
}

/// A tenant's filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Its rules, in their order, with their names: the place from 1 of those that have none.
    pub rules: Vec<(String, filter::Rule)>,
    /// What becomes of packets that none of them matches.
    pub default: Action,
}

impl Filter {
    /// The name of what becomes of packets that no rule matches, where rules are counted.
    pub const DEFAULT: &'static str = "default";
}

/// `rate` and `burst` of a tenant or site.
pub(super) fn rates(table: &Table<'_>, problems: &Problems) -> Rates {
    let (rates, bursts) = (both(table, "rate", values::rate), both(table, "burst", values::burst));
    let one = |rate: Option<u64>, burst: Option<u64>| {
        let usual = Rate::with_usual_burst(rate?);
        Some(Rate { burst: burst.unwrap_or(usual.burst), ..usual })
    };
    let before = problems.count();
    if table.has("burst") && !table.has("rate") {
        let message = format!("burst of {} has no rate that it belongs to; add rate = \"100 Mbit/s\"", table.owner());
        problems.add(&table.at_key("burst"), message);
    }
    for ((rate, burst), way) in [(rates[0], bursts[0]), (rates[1], bursts[1])].into_iter().zip(["up", "down"]) {
        if problems.count() == before && table.is_table("burst") && burst.is_some() && rate.is_none() {
            let message = format!("burst of {} is given {way}, where there is no rate; leave it out", table.owner());
            problems.add(&table.at_key("burst"), message);
        }
    }
    Rates { up: one(rates[0], bursts[0]), down: one(rates[1], bursts[1]) }
}

/// A value for both directions, or one for each.
fn both(table: &Table<'_>, key: &'static str, parse: fn(&str) -> Result<u64, String>) -> [Option<u64>; 2] {
    if table.is_table(key) {
        let Some(table) = table.table(key, &DIRECTIONS) else { return [None; 2] };
        return ["up", "down"].map(|way| table.string(way, parse).map(|found| found.value));
    }
    [table.string(key, parse).map(|found| found.value); 2]
}

/// `dscp` of a tenant.
pub(super) fn dscp(table: &Table<'_>) -> Dscp {
    let found = match table.is_integer("dscp") {
        true => table.integer("dscp", values::dscp_number),
        false => table.string("dscp", values::dscp),
    };
    found.map(|found| found.value).unwrap_or_default()
}

/// The filter of a tenant, if it has one.
pub(super) fn filter(tenant: &Table<'_>, problems: &Problems) -> Option<Filter> {
    let default = tenant.string("filter_default", values::action).map_or(Action::Allow, |action| action.value);
    let tables = tenant.tables("filter", &FILTER);
    if let Some(one) = tables.get(RULES_MAX) {
        let message = format!("the filter of {} has {} rules; {RULES_MAX} are the most", tenant.owner(), tables.len());
        problems.add(one.at(), message);
    }
    let mut names = HashMap::new();
    let mut rules = Vec::new();
    for (place, table) in (1..).zip(&tables) {
        let name = table.string("name", values::rule_name);
        if let Some(Located { value, at }) = &name
            && let Some(first) = names.insert(value.to_string(), at.clone())
        {
            let message =
                format!("filter {value:?} of {} has the name of the one at {first}; names differ", tenant.owner());
            problems.add(at, message);
        }
        let name = name.map_or_else(|| place.to_string(), |name: Located<Name>| name.value.to_string());
        rules.extend(rule(table, problems).map(|rule| (name, rule)));
    }
    (!rules.is_empty() || default == Action::Deny).then_some(Filter { rules, default })
}

fn rule(table: &Table<'_>, problems: &Problems) -> Option<filter::Rule> {
    let nets = |key: &'static str| -> Vec<IpNet> {
        if table.is_empty_list(key) {
            let message =
                format!("{key} of {} is empty, and so would match nothing; leave it out for any", table.owner());
            problems.add(&table.at_key(key), message);
        }
        table.strings(key, key, values::prefix).into_iter().map(|net| net.value).collect()
    };
    let (from, to) = (nets("from"), nets("to"));
    let apart = |v4: bool| {
        !from.is_empty()
            && !to.is_empty()
            && from.iter().all(|net| net.addr().is_ipv4() == v4)
            && to.iter().all(|net| net.addr().is_ipv4() != v4)
    };
    if apart(true) || apart(false) {
        let message = format!("from and to of {} are of different IP versions; no packet is of both", table.owner());
        problems.add(&table.at_key("to"), message);
    }
    let protocol = table.string("protocol", values::protocol).map(|protocol| protocol.value);
    let ports = |key: &'static str| table.string(key, values::ports).map(|ports| ports.value).unwrap_or_default();
    let (source_ports, ports) = (ports("source_ports"), ports("ports"));
    for key in ["source_ports", "ports"].into_iter().filter(|key| table.has(key)) {
        if !protocol.is_some_and(wire::has_ports) && (protocol.is_some() || !table.has("protocol")) {
            let owner = table.owner();
            let message =
                format!("{key} of {owner} needs a protocol that has ports; add protocol = \"tcp\" or \"udp\"");
            problems.add(&table.at_key(key), message);
        }
    }
    let flags = table.string("flags", values::tcp_flags).map(|flags| flags.value).unwrap_or_default();
    if table.has("flags") && protocol != Some(wire::tcp::PROTOCOL) && (protocol.is_some() || !table.has("protocol")) {
        let message = format!("flags of {} are TCP's; add protocol = \"tcp\"", table.owner());
        problems.add(&table.at_key("flags"), message);
    }
    let action = table.string("action", values::action)?.value;
    Some(filter::Rule { action, from, to, protocol, source_ports, ports, flags })
}
