//! What the operator wants: `hub.toml` and the files that it includes, parsed once into types that can't be wrong.
//!
//! [`load`] depends on nothing but the files, so that a configuration can be checked on another machine than the hub's;
//! [`validate_machine`] compares it with the interfaces and cores of this one. Both say everything that is wrong at
//! once, each problem with its file and line, what was found, and what would be right.

mod access;
mod difference;
mod errors;
mod include;
mod keys;
mod ledger;
mod machine;
mod parse;
mod policy;
mod reader;
mod route;
mod trunk;
mod values;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;
use std::path::Path;

use ipnet::IpNet;
use wire::TenantId;

pub use access::Access;
pub(crate) use access::is_everybodys;
pub use difference::{Difference, Was, difference};
pub(crate) use errors::nearest;
pub use errors::{Errors, Origin, Problem};
pub use keys::{PresharedKey, PrivateKey, PublicKey};
pub use machine::{Interface, Machine, group_id, validate_machine};
pub use policy::{Dscp, Filter, Rate, Rates};
pub use route::{PRIORITY, Route, Via};
pub use trunk::{Carries, LANES_MAX, Trunk, cipher_name};
pub use values::{HubName, Label, Name, PortName};

/// Reads `path` and what it includes, and the key files that they name.
pub fn load(path: &Path) -> Result<Desired, Errors> {
    parse::load(path, parse::MissingKeys::Refused)
}

/// As [`load`], for a configuration that is being written: a site whose `public_key` is missing is accepted, and has a
/// random one that nobody knows the private half of.
pub fn load_draft(path: &Path) -> Result<Desired, Errors> {
    parse::load(path, parse::MissingKeys::Invented)
}

/// The whole configuration of a hub.
///
/// Two are equal if they want the same; where it was written (each `origin`) does not count.
#[derive(Debug, PartialEq, Eq)]
pub struct Desired {
    /// The hub itself.
    pub hub: Hub,
    /// The threads that carry packets.
    pub workers: Workers,
    /// What is counted, and who may see it.
    pub stats: Stats,
    /// The network interfaces, in the order of the configuration; at least one, each once.
    pub ports: Vec<Port>,
    /// The other hubs, by names and public keys that are unique; none is the hub's own or a site's.
    pub trunks: Vec<Trunk>,
    /// The tenants, in the order of the configuration; their ids, service codes and sites' public keys are unique.
    pub tenants: Vec<Tenant>,
    /// Tells texts of the configuration apart.
    pub digest: Digest,
}

impl Desired {
    /// Whether tenants are attached to a port.
    pub fn has_ends(&self, port: &PortName) -> bool {
        self.tenants.iter().flat_map(|tenant| &tenant.access).any(|end| end.port == *port)
    }

    /// The UDP ports at which the hub is reached: the one of its sites, and as many from there on as any trunk has lanes.
    pub fn listen_ports(&self) -> RangeInclusive<u16> {
        let first = self.hub.listen_port.get();
        let lanes = self.trunks.iter().map(|trunk| u16::from(trunk.lanes.get())).max().unwrap_or(1);
        first..=first.saturating_add(lanes - 1)
    }

    /// Between which addresses of the hub and of a site the pings go that measure its way; none: it is not measured.
    pub fn probe_ends(&self, tenant: &Tenant, site: &Site) -> Option<(IpAddr, IpAddr)> {
        let wanted = site.probe_mtu.unwrap_or(self.hub.probe_mtu);
        wanted.then(|| Self::watch_ends(tenant, site)).flatten()
    }

    /// Between which addresses of the hub and of a site the pings go that ask whether it is there; none: they have none.
    pub fn watch_ends(tenant: &Tenant, site: &Site) -> Option<(IpAddr, IpAddr)> {
        ping_ends(&tenant.hub_addresses, &site.address)
    }

    /// Whether any port is, or may be, one that tenants are attached to.
    pub fn has_access(&self) -> bool {
        self.ports.iter().any(|port| port.role == Role::Access || self.has_ends(&port.name))
    }
}

/// The first addresses of one IP version that both have: IPv4 before IPv6, whose fragments are rarer.
fn ping_ends(hub_addresses: &[IpAddr], of_site: &[IpNet]) -> Option<(IpAddr, IpAddr)> {
    [true, false].into_iter().find_map(|v4| {
        let hub = hub_addresses.iter().find(|address| address.is_ipv4() == v4)?;
        let site = of_site.iter().map(IpNet::addr).find(|address| address.is_ipv4() == v4)?;
        Some((*hub, site))
    })
}

/// A number that is another one for another text of the configuration. All are equal to each other: it is no part of what is desired.
#[derive(Clone, Copy, Debug, Default)]
pub struct Digest(pub u64);

impl PartialEq for Digest {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Digest {}

/// The hub itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Hub {
    /// Its name, part of the paths of its sockets, pins and state.
    pub name: HubName,
    /// Its private key.
    pub private_key: PrivateKey,
    /// The public half of its key, which no site has.
    pub public_key: PublicKey,
    /// The UDP port to which its sites send.
    pub listen_port: NonZeroU16,
    /// The implementations of the ciphers; what is left open: the fastest on this machine.
    pub crypto: crypto::aead::Wish,
    /// The way to each site is measured where that is possible, unless the site's own setting says otherwise.
    pub probe_mtu: bool,
}

/// The threads that carry packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workers {
    /// The cores that carry a worker each, without repetition; none: one worker a queue, on the cores that this
    /// process may use.
    pub cores: Option<Vec<usize>>,
    /// Where the cores are listed.
    pub origin: Origin,
    /// How frames come to the workers of a port that has fewer queues than there are workers.
    pub spread: Spread,
    /// What a worker does that has nothing to do.
    pub idle: Idle,
    /// Microseconds for which a worker polls the NIC itself, when a ring is empty; 0: interrupts do.
    pub busy_poll_us: u16,
}

/// What a worker does that has nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Looks again, for ever.
    Spin,
    /// Looks again for a while, then sleeps until there is something.
    #[default]
    Adaptive,
    /// Sleeps at once.
    Interrupt,
}

/// How frames come to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spread {
    /// By the NIC where it has a queue for each worker, else by XDP.
    #[default]
    Auto,
    /// By the NIC alone: no more workers than queues.
    Queues,
    /// By XDP, also where the NIC could.
    Sockets,
}

/// The statistics segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// MiB that it may have, history and all.
    pub memory_mib: u32,
    /// The group that may see into the hub's directory; none: the process's.
    pub group: Option<String>,
    /// Where the group is named.
    pub origin: Origin,
}

/// A network interface that the hub drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The interface's name.
    pub name: PortName,
    /// What is connected to it.
    pub role: Role,
    /// Where the XDP program runs; none: in the driver if it can.
    pub mode: Option<Mode>,
    /// Whether the kernel copies each frame; none: only if the driver can't do without.
    pub copy: Option<bool>,
    /// Where the port is configured.
    pub origin: Origin,
}

/// What is connected to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The network through which sites reach the hub. VLANs on it may be tenants' access ends.
    Wan,
    /// Tenants' servers.
    Access,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's network stack, for drivers that can't.
    Generic,
}

/// A customer: a wide-area network of its own, apart from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The number by which the wire knows it.
    pub id: TenantId,
    /// The operator's own name for the contract.
    pub service_code: Option<Name>,
    /// Free text for people; empty if none is configured.
    pub label: Label,
    /// The hub's own addresses inside this tenant's network, in none of its sites' prefixes.
    pub hub_addresses: Vec<IpAddr>,
    /// Its offices, by names unique within the tenant. No two prefixes overlap.
    pub sites: Vec<Site>,
    /// Its ends at access ports, whose names no site has. Their prefixes overlap nobody's either.
    pub access: Vec<Access>,
    /// Where else its prefixes are reached, beside what its sites and access ends say of theirs.
    pub routes: Vec<Route>,
    /// What it may send and receive in all.
    pub rates: Rates,
    /// How its packets are marked outside.
    pub dscp: Dscp,
    /// What of its packets may go where; none: all may go everywhere.
    pub filter: Option<Filter>,
    /// Where the tenant is configured.
    pub origin: Origin,
}

/// An office of a tenant: one WireGuard peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its name, which with the tenant's id is its identity.
    pub name: Name,
    /// The key by which it is known; unique on the hub.
    pub public_key: PublicKey,
    /// The addresses behind it: networks without host bits.
    pub prefixes: Vec<IpNet>,
    /// The addresses of its adapter's tunnel interface, with the length of their networks; each inside `prefixes`.
    pub address: Vec<IpNet>,
    /// The key that it and the hub share besides their pairs.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is reached before it was heard of.
    pub endpoint: Option<SocketAddr>,
    /// After how many silent seconds the hub sends it a keepalive; none: never.
    pub keepalive_s: Option<NonZeroU16>,
    /// Whether outer IPv4 packets to it carry a real UDP checksum; those over IPv6 always do.
    pub udp_checksum: bool,
    /// What it may send and receive.
    pub rates: Rates,
    /// The largest inner packet that it is sent; none: what its path takes.
    pub mtu: Option<NonZeroU16>,
    /// Whether it is found out what its path takes, by pings; none: as the hub's setting says.
    pub probe_mtu: Option<bool>,
    /// Where the site is configured.
    pub origin: Origin,
}
