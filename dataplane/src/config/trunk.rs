//! Other hubs, and what goes between them and this one.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

use crypto::aead::Cipher;
use wire::TenantId;

use super::errors::{Origin, Problems};
use super::ledger::Ledger;
use super::reader::{Located, Shape, Table, optional, required};
use super::{Hub, Name, PresharedKey, PublicKey, keys, values};

/// Lanes that a trunk may have.
pub const LANES_MAX: usize = 16;

/// Lanes of a trunk that says nothing of them.
const LANES: NonZeroU8 = NonZeroU8::new(4).unwrap();

/// The probe interval of a trunk that says nothing of it.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);

pub(super) static TRUNK: Shape = Shape {
    title: "[[trunk]]",
    noun: Some(("trunk", "name")),
    keys: &[
        required("name", r#"name = "osaka""#),
        required("public_key", "public_key = \"…\", as wg pubkey prints it"),
        optional("preshared_key_file", r#"preshared_key_file = "osaka.psk""#),
        optional("endpoint", r#"endpoint = "192.0.2.7:51820""#),
        required("cipher", r#"cipher = "aes-256-gcm""#),
        required("tenants", r#"tenants = [1001, 1002], or tenants = "all""#),
        optional("lanes", "lanes = 4"),
        optional("transit", "transit = true"),
        optional("probe_interval_ms", "probe_interval_ms = 300"),
        optional("udp_checksum", "udp_checksum = true"),
        optional("mtu", "mtu = 1380"),
    ],
};

/// Another hub, and what goes between it and this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Its name.
    pub name: Name,
    /// The other hub's key.
    pub public_key: PublicKey,
    /// The key that both hubs share besides their pairs.
    pub preshared_key: Option<PresharedKey>,
    /// Where the other hub is, by its listen port: lane *i* is *i* ports further. None: it calls.
    pub endpoint: Option<SocketAddr>,
    /// What packets are sealed with: the same at both ends.
    pub cipher: Cipher,
    /// Whose packets it may carry.
    pub carries: Carries,
    /// Sessions beside each other, at most [`LANES_MAX`]: the same at both ends.
    pub lanes: NonZeroU8,
    /// What comes by it may leave by another trunk.
    pub transit: bool,
    /// How often each lane is probed; three that are missed take it down.
    pub probe_interval: Duration,
    /// Whether outer IPv4 packets carry a real UDP checksum.
    pub udp_checksum: bool,
    /// The largest inner packet that it is sent; none: what its path takes.
    pub mtu: Option<NonZeroU16>,
    /// Where it is configured.
    pub origin: Origin,
}

impl Trunk {
    /// Whether it may carry packets of a tenant.
    pub fn carries(&self, tenant: TenantId) -> bool {
        match &self.carries {
            Carries::All => true,
            Carries::Some(tenants) => tenants.contains(&tenant),
        }
    }

    /// What it is called in the tenants whose packets it carries, beside their sites: `trunk:osaka`.
    pub fn end_name(&self) -> String {
        format!("{END_NAME}{}", self.name)
    }

    /// What a lane is called: `osaka/0`.
    pub fn lane_name(&self, lane: usize) -> String {
        format!("{}/{lane}", self.name)
    }

    /// What all lanes are called.
    pub fn lane_names(&self) -> impl Iterator<Item = String> + '_ {
        (0..usize::from(self.lanes.get())).map(|lane| self.lane_name(lane))
    }
}

/// The name of a cipher in the configuration.
pub fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        Cipher::Aes256Gcm => "aes-256-gcm",
    }
}

/// How a trunk's name in a tenant begins; no site's does.
pub(super) const END_NAME: &str = "trunk:";

/// Whose packets a trunk may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Those of all tenants of this hub.
    All,
    /// Those of these tenants, each once, in the order of their ids.
    Some(Vec<TenantId>),
}

/// Reads a trunk, whose preshared key was read from its file.
pub(super) fn read(
    table: &Table<'_>,
    preshared_key: Option<PresharedKey>,
    ledger: &mut Ledger,
    problems: &Problems,
) -> Option<Trunk> {
    let name = table.string("name", Name::new);
    if let Some(name) = &name {
        ledger.trunk(name, problems);
    }
    let public_key = table.string("public_key", keys::public_key);
    if let Some(key) = &public_key {
        ledger.trunk_key(key, table.owner(), problems);
    }
    let endpoint = table.string("endpoint", values::endpoint);
    let cipher = table.string("cipher", values::cipher);
    let carries = read_carries(table, ledger, problems);
    let lanes = table.integer("lanes", values::lanes);
    let transit = table.boolean("transit");
    let probe_interval = table.integer("probe_interval_ms", values::probe_interval);
    let udp_checksum = table.boolean("udp_checksum");
    let mtu = table.integer("mtu", values::mtu);
    Some(Trunk {
        name: name?.value,
        public_key: public_key?.value,
        preshared_key,
        endpoint: endpoint.map(|endpoint| endpoint.value),
        cipher: cipher?.value,
        carries: carries?,
        lanes: lanes.map_or(LANES, |lanes| lanes.value),
        transit: transit.unwrap_or(false),
        probe_interval: probe_interval.map_or(PROBE_INTERVAL, |interval| interval.value),
        udp_checksum: udp_checksum.unwrap_or(false),
        mtu: mtu.map(|mtu| mtu.value),
        origin: table.at().clone(),
    })
}

/// `"all"`, or a list of ids.
fn read_carries(table: &Table<'_>, ledger: &mut Ledger, problems: &Problems) -> Option<Carries> {
    if table.is_string("tenants") {
        return table.string("tenants", values::all).map(|_| Carries::All);
    }
    if table.is_empty_list("tenants") {
        let message = format!(
            "tenants of {} is empty, so it would carry nothing; ids of tenants or \"all\" are right",
            table.owner()
        );
        problems.add(&table.at_key("tenants"), message);
    }
    let ids = table.integers("tenants", "tenant", values::tenant_id);
    let mut seen = BTreeSet::new();
    for Located { value: id, at } in ids.iter().filter(|id| !seen.insert(id.value)) {
        problems.add(at, format!("tenant {id} of {}: listed twice; once is right", table.owner()));
    }
    // Their order says nothing.
    let tenants = seen.into_iter().collect();
    ids.into_iter().for_each(|id| ledger.carried(id, table.owner()));
    table.has("tenants").then_some(Carries::Some(tenants))
}

/// What only the whole can show: lane *i* has port *i* above the hub's at either end, and no two trunks go to the same place.
pub(super) fn lanes_have_ports(hub: &Hub, trunks: &[Trunk], problems: &Problems) {
    for (n, trunk) in trunks.iter().enumerate() {
        let further = u16::from(trunk.lanes.get()) - 1;
        let owner = format!("trunk {:?}", &*trunk.name);
        let beyond = |what: &str, port: u16| {
            let message = format!(
                "{} lanes of {owner}: lane i uses UDP port {what} {port} + i, and 65535 is the last; fewer lanes or a lower \
                 port are right",
                trunk.lanes
            );
            problems.add(&trunk.origin, message);
        };
        let listen_port = hub.listen_port.get();
        if listen_port.checked_add(further).is_none() {
            beyond("listen_port", listen_port);
        }
        let Some(endpoint) = trunk.endpoint else { continue };
        let Some(last) = endpoint.port().checked_add(further) else {
            beyond("of its endpoint", endpoint.port());
            continue;
        };
        let there = |other: &&Trunk| {
            let (Some(at), more) = (other.endpoint, u16::from(other.lanes.get()) - 1) else { return false };
            at.ip() == endpoint.ip() && at.port() <= last && endpoint.port() <= at.port().saturating_add(more)
        };
        if let Some(other) = trunks[..n].iter().find(there) {
            let message = format!(
                "endpoint {endpoint} of {owner}: its lanes go to UDP ports that lanes of trunk {:?} at {} go to; each hub is \
                 one trunk, and hubs behind one address have ports that are as many apart as there are lanes",
                &*other.name, other.origin
            );
            problems.add(&trunk.origin, message);
        }
    }
}
