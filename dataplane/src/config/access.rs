//! The ends of a tenant at access ports: where its servers are attached, and the hub's addresses there.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use wire::{Vlan, is_martian, vlan};

use super::errors::{Origin, Problems};
use super::ledger::TenantLedger;
use super::reader::{Located, Shape, Table, optional, required};
use super::{Mode, Port, PortName, Role, Tenant, values};

pub(super) static ACCESS: Shape = Shape {
    title: "[[tenant.access]]",
    noun: Some(("access to port", "port")),
    keys: &[
        required("port", r#"port = "eth1""#),
        optional("vlan", "vlan = 100, or vlan = [10, 100] for two tags"),
        optional("outer_tag", r#"outer_tag = "802.1q""#),
        required("addresses", r#"addresses = ["10.9.2.254/24"]"#),
        optional("neighbour", "[[tenant.access.neighbour]] with address and mac"),
        optional("route", "[[tenant.access.route]] with prefix and via"),
    ],
};

pub(super) static NEIGHBOUR: Shape = Shape {
    title: "[[tenant.access.neighbour]]",
    noun: Some(("neighbour", "address")),
    keys: &[required("address", r#"address = "10.9.2.1""#), required("mac", r#"mac = "02:00:00:00:00:01""#)],
};

pub(super) static ROUTE: Shape = Shape {
    title: "[[tenant.access.route]]",
    noun: Some(("route", "prefix")),
    keys: &[required("prefix", r#"prefix = "10.9.128.0/17""#), required("via", r#"via = "10.9.2.1""#)],
};

/// An end of a tenant at a port: a VLAN in which the hub is the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// The port.
    pub port: PortName,
    /// The VLAN; no other tenant has it on this port.
    pub vlan: Vlan,
    /// The hub's own addresses there, each with the network whose hosts are neighbours. Not empty.
    pub addresses: Vec<IpNet>,
    /// Hosts whose MAC addresses are configured; each in one of those networks.
    pub neighbours: Vec<(IpAddr, [u8; 6])>,
    /// Networks behind a host, which is in one of those networks. No two prefixes of a tenant overlap.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// Where the end is configured.
    pub origin: Origin,
}

impl Access {
    /// Its name in its tenant, as statistics have it: `eth1`, `eth1.100` or `eth1.10.100`.
    pub fn name(&self) -> String {
        match self.vlan {
            Vlan::UNTAGGED => self.port.to_string(),
            vlan => format!("{}.{vlan}", self.port),
        }
    }

    /// What leads to it: its networks, and those behind its hosts.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.addresses.iter().map(IpNet::trunc).chain(self.routes.iter().map(|(prefix, _)| *prefix))
    }
}

/// Reads an end. `turn` tells the ends and sites of a tenant apart.
pub(super) fn read(
    table: &Table<'_>,
    turn: usize,
    tenant: &str,
    ledger: &mut TenantLedger,
    problems: &Problems,
) -> Option<Access> {
    let port = table.string("port", PortName::new);
    let vlan = read_vlan(table, problems);
    let before = problems.count();
    let addresses = table.strings("addresses", "address", values::gateway_address);
    if table.is_empty_list("addresses") {
        let message = format!("addresses of {} is empty; the gateway needs at least one", table.owner());
        problems.add(&table.at_key("addresses"), message);
    }
    let networks = addresses
        .iter()
        .map(|address| Located { value: address.value.trunc(), at: address.at.clone() })
        .collect::<Vec<_>>();
    ledger.prefixes(&networks, turn, table);
    let known: Vec<IpNet> = addresses.iter().map(|address| address.value).collect();
    let all_known = problems.count() == before; // an address that failed may be the one that is missed
    let neighbours = table.tables("neighbour", &NEIGHBOUR).iter().filter_map(|one| neighbour(one)).collect::<Vec<_>>();
    let mut seen = HashSet::new();
    for (at, address) in neighbours.iter().map(|(address, _)| (&address.at, address.value)) {
        let wrong = if all_known { no_neighbour(address, &known) } else { None };
        let twice = (!seen.insert(address)).then(|| "it is configured twice; once is right".to_owned());
        if let Some(wrong) = wrong.or(twice) {
            problems.add(at, format!("neighbour {address} of {}: {wrong}", table.owner()));
        }
    }
    let mut routes = Vec::new();
    for one in table.tables("route", &ROUTE) {
        let prefix = one.string("prefix", values::prefix);
        let via = one.string("via", values::neighbour_address);
        let (Some(prefix), Some(via)) = (prefix, via) else { continue };
        let other = (prefix.value.addr().is_ipv4() != via.value.is_ipv4())
            .then(|| "it is of the other IP version than the prefix".to_owned());
        let wrong = if all_known { no_neighbour(via.value, &known) } else { None };
        if let Some(wrong) = wrong.or(other) {
            problems.add(&via.at, format!("via {} of {} of {}: {wrong}", via.value, one.owner(), table.owner()));
        }
        ledger.prefixes(std::slice::from_ref(&prefix), turn, table);
        routes.push((prefix.value, via.value));
    }
    let end = Access {
        port: port?.value,
        vlan: vlan?,
        addresses: known,
        neighbours: neighbours.into_iter().map(|(address, mac)| (address.value, mac)).collect(),
        routes,
        origin: table.at().clone(),
    };
    ledger.end_name(&end.name(), &end.origin, tenant, problems);
    Some(end)
}

fn read_vlan(table: &Table<'_>, problems: &Problems) -> Option<Vlan> {
    let before = problems.count();
    let ids = table.one_or_more_integers("vlan", "vlan", values::vlan_id);
    let outer = table.string("outer_tag", values::outer_tag);
    if problems.count() != before {
        return None;
    }
    let ids: Vec<u16> = ids.into_iter().map(|id| id.value).collect();
    let wrong = |message: &str| {
        problems.add(&table.at_key("vlan"), format!("vlan of {}: {message}", table.owner()));
        None
    };
    match (ids.as_slice(), outer) {
        ([], None) if table.has("vlan") => wrong("an empty list; leave it out for frames without a tag"),
        ([], None) => Some(Vlan::UNTAGGED),
        ([id], None) => Vlan::tagged(*id),
        ([outer, inner], kind) => Vlan::double(kind.map_or(vlan::SERVICE, |kind| kind.value), *outer, *inner),
        ([] | [_], Some(kind)) => {
            let message =
                format!("outer_tag of {} is for two tags, like vlan = [10, 100]; leave it out", table.owner());
            problems.add(&kind.at, message);
            None
        }
        ([_, _, ..], _) => wrong("a frame has at most two tags here: the outer and the inner one"),
    }
}

fn neighbour(table: &Table<'_>) -> Option<(Located<IpAddr>, [u8; 6])> {
    let address = table.string("address", values::neighbour_address);
    let mac = table.string("mac", values::mac);
    Some((address?, mac?.value))
}

/// Why no host of these networks has this address.
fn no_neighbour(address: IpAddr, gateway: &[IpNet]) -> Option<String> {
    let Some(net) = gateway.iter().find(|net| net.contains(&address)) else {
        return Some("it is in none of the networks of addresses, so it is nobody's neighbour".to_owned());
    };
    let reason = match address {
        _ if net.addr() == address => "it is the hub's own address there",
        _ if is_everybodys(address, net) => "it is the network's address or its broadcast address, and no host's",
        _ => return None,
    };
    Some(reason.to_owned())
}

/// Whether an address of a network is that of the network itself or of all of its hosts.
pub(crate) fn is_everybodys(address: IpAddr, net: &IpNet) -> bool {
    let pair = net.max_prefix_len() - net.prefix_len() <= 1; // both addresses are hosts' (RFC 3021, RFC 6164)
    match address {
        _ if pair => false,
        IpAddr::V4(_) => address == net.network() || address == net.broadcast(),
        IpAddr::V6(_) => address == net.network(), // the routers' anycast address (RFC 4291, 2.6.1)
    }
}

/// What only the whole can show: each end is at a port that can have it, and nobody else has its place.
pub(super) fn ends_fit_ports(ports: &[Port], tenants: &[Tenant], problems: &Problems) {
    let mut taken: HashMap<(&PortName, Vlan), (&Tenant, &Access)> = HashMap::new();
    for (tenant, end) in tenants.iter().flat_map(|tenant| tenant.access.iter().map(move |end| (tenant, end))) {
        let owner = format!("access to port {:?} of tenant {}", &*end.port, tenant.id);
        let vlan = match end.vlan {
            Vlan::UNTAGGED => "without a tag".to_owned(),
            vlan => format!("VLAN {vlan}"),
        };
        let wrong = match ports.iter().find(|port| port.name == end.port) {
            None => format!("there is no such [[port]]; add one with name = {:?} and role = \"access\"", &*end.port),
            Some(port) if port.role == Role::Wan && end.vlan == Vlan::UNTAGGED => {
                format!("what comes to the WAN port {:?} without a tag is the WAN's; give this one a vlan", &*end.port)
            }
            Some(port) if port.mode == Some(Mode::Generic) => {
                "its port is in generic mode, which shows neither tags nor whole frames of kernel senders; native is right"
                    .to_owned()
            }
            Some(_) => match taken.insert((&end.port, end.vlan), (tenant, end)) {
                None => continue,
                Some((other, first)) => {
                    format!("{vlan}, it is already tenant {}'s at {}; each has one tenant", other.id, first.origin)
                }
            },
        };
        problems.add(&end.origin, format!("{owner}: {wrong}"));
    }
}

/// An address with which the hub can be a gateway: a host's of its network.
pub(super) fn gateway(net: IpNet) -> Result<IpNet, String> {
    let longest = net.max_prefix_len();
    match net.addr() {
        _ if net.prefix_len() == longest => {
            Err("a network of one address has no neighbours; the length of the VLAN's network is right".to_owned())
        }
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Err("the unspecified address is nobody's".to_owned()),
        address if is_martian(address) => Err("no router forwards packets of this address".to_owned()),
        address if is_everybodys(address, &net) => Err(format!(
            "that is the address of the network itself or of all its hosts; a host's is right, like {}",
            if net.addr().is_ipv4() { net.hosts().last() } else { net.hosts().nth(1) }.unwrap_or(address)
        )),
        _ => Ok(net),
    }
}
