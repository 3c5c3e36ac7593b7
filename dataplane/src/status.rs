//! What a running hub tells about itself: the report that control fills, the API sends as JSON, and `ekiden status` shows.
//!
//! Every number is cumulative since the hub started unless its name says otherwise. What isn't known is `null`, never a
//! zero that could be taken for a measurement. The report holds no secret: no private, preshared or session key.

mod render;
pub(crate) mod table;
#[cfg(test)]
mod tests;
mod trunk;

pub use render::{render, render_tenant};
pub use trunk::{Announced, Candidate, Carries, Lane, Paths, Trunk};

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use wire::DropReason;

/// One hub at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Status {
    /// The hub as a whole.
    pub hub: Hub,
    /// Its ports, in the order of the configuration.
    pub ports: Vec<Port>,
    /// Its workers, by id.
    pub workers: Vec<Worker>,
    /// Whether every packet and every chunk is accounted for.
    pub books: Books,
    /// Its trunks to other hubs, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trunks: Vec<Trunk>,
    /// Its tenants, in the order of the configuration.
    pub tenants: Vec<Tenant>,
    /// What was dropped, hub-wide, by reason. A reason that is missing here was not counted at all.
    pub drops: Vec<Drop>,
    /// What an operator should look at: downgrades, what could not be set up, what could not be saved.
    pub warnings: Vec<String>,
}

/// The hub as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Hub {
    /// Its name in the configuration.
    pub name: String,
    /// The version of `ekiden`.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, RFC 3339 with the local offset.
    pub started: String,
    /// Seconds since then, counted by a clock that can't be set.
    pub uptime_s: u64,
    /// Its public key, base64, as the sites configure it.
    pub public_key: String,
    /// The UDP port on which it hears its sites.
    pub listen_port: u16,
    /// The configuration that it runs.
    pub config_path: String,
    /// Which that is, and since when.
    pub configuration: Configuration,
    /// What it chose for this processor, or was told to take.
    pub ciphers: Vec<Cipher>,
    /// The release of the kernel that it runs on.
    pub kernel: Option<String>,
    /// Sessions that are live now, and how many there is room for.
    pub sessions: Option<u32>,
    /// The size of the table of sessions.
    pub session_capacity: Option<u32>,
    /// Packets that wait for a session now.
    pub staged: Option<u32>,
}

/// The configuration in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Configuration {
    /// Another one for another text, in hexadecimal digits.
    pub hash: String,
    /// When it was applied, RFC 3339 with the local offset: at the start, or by a reload.
    pub applied: String,
    /// How the last reload ended; null: there was none.
    pub last_reload: Option<Reload>,
}

/// How a reload ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Reload {
    /// When, RFC 3339 with the local offset.
    pub at: String,
    /// Whether what was read is in force; else nothing has changed.
    pub applied: bool,
    /// What changed, or what is wrong: a problem a line.
    pub text: String,
}

/// Who computes a cipher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cipher {
    /// As the RFCs call it.
    pub name: String,
    /// The lanes or the library.
    pub by: String,
    /// For lanes: from how many packets at once on they are used, and what takes the others one by one.
    pub thresholds: Option<String>,
}

/// How the XDP program sits on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's common code, after a socket buffer was made: slow.
    Generic,
}

/// How frames come from the port into packet memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyMode {
    /// The kernel copies each frame.
    Copy,
    /// The device writes into packet memory itself.
    ZeroCopy,
}

/// A port: a network interface that the hub uses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Port {
    /// The interface's name.
    pub name: String,
    /// What the hub uses it for: `wan`.
    pub role: String,
    /// The interface's number; null while it does not exist.
    pub ifindex: Option<u32>,
    /// Its driver.
    pub driver: Option<String>,
    /// How the XDP program is attached.
    pub xdp: Option<XdpMode>,
    /// Whether frames are copied.
    pub copy: Option<CopyMode>,
    /// Its receive queues.
    pub queues: Option<u32>,
    /// Sockets on each queue: one, or one for each worker, between which XDP spreads by session.
    pub sockets: Option<u32>,
    /// Bytes in front of a received frame.
    pub headroom: Option<u32>,
    /// Bytes of packet memory a frame.
    pub chunk_size: Option<u32>,
    /// Whether frames may have several chunks, as they must where the MTU is larger than one holds.
    #[serde(default)]
    pub multi_buffer: Option<bool>,
    /// Whether the kernel tells when it must be woken.
    pub need_wakeup: Option<bool>,
    /// The interface's MTU.
    pub mtu: Option<u32>,
    /// Its MAC address.
    pub mac: Option<String>,
    /// Whether its link is up.
    pub up: bool,
    /// Its own addresses: where sites reach the hub.
    pub addresses: Vec<IpAddr>,
    /// Frames that the XDP program saw.
    pub xdp_seen: Option<u64>,
    /// Of these, left to the kernel.
    pub xdp_passed: Option<u64>,
    /// Of these, sent to a worker.
    pub xdp_redirected: Option<u64>,
    /// Of these, dropped, for reasons that `drops` lists.
    pub xdp_dropped: Option<u64>,
    /// Frames that the kernel lost between XDP and a worker (`XDP_STATISTICS`: full ring, empty fill ring, no room).
    pub ring_lost: Option<u64>,
    /// Frames that workers received.
    pub rx_frames: u64,
    /// And their bytes.
    pub rx_bytes: u64,
    /// Frames that were put into transmit rings.
    pub tx_frames: u64,
    /// And their bytes.
    pub tx_bytes: u64,
    /// What is not as good as it could be on this port.
    pub warnings: Vec<String>,
}

/// A worker: a thread that carries packets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Worker {
    /// Its number.
    pub id: u32,
    /// The core that it is pinned to.
    pub core: Option<u32>,
    /// The queues that it serves, as `port:queue`.
    pub queues: Vec<String>,
    /// Chunks of packet memory that belong to it.
    pub chunks_total: u32,
    /// Of these, how many were free a moment ago.
    pub chunks_free: Option<u32>,
    /// Batches that it has received.
    pub batches: u64,
    /// Frames in them.
    pub frames: u64,
    /// The share of the last second that it spent on packets, 0 to 1.
    pub busy_share: Option<f64>,
    /// Packets that it made: ICMP answers, keepalives, and handshake messages for control.
    pub generated: u64,
    /// Datagrams that control made whole from fragments and gave to it.
    pub reassembled: u64,
    /// Handshake messages and fragments that it copied for control.
    pub to_control: u64,
    /// Keepalives of sites.
    pub keepalives: u64,
    /// Packets that wait for a session now.
    pub staged: u64,
}

/// A tenant and its sites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Tenant {
    /// The tenant's id.
    pub id: u32,
    /// What the operator's other systems call its service.
    pub service_code: Option<String>,
    /// Free text.
    pub label: Option<String>,
    /// Its sites, in the order of the configuration; behind them what trunks carry of it.
    pub sites: Vec<Site>,
    /// Its ends at access ports, in the order of the configuration.
    #[serde(default)]
    pub access: Vec<Access>,
    /// Prefixes to which there are several ways, and which of these is used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<Paths>,
    /// Packets of this tenant that were dropped, by the reason's name.
    pub drops: BTreeMap<String, u64>,
    /// The rules of its filter in their order, and behind them what becomes of packets that none of them matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter: Vec<Rule>,
}

/// A rule of a filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Rule {
    /// Its name, or its place from 1; `default` if it is what no rule matches.
    pub name: String,
    /// `allow` or `deny`.
    pub action: String,
    /// Packets that it decided.
    pub packets: u64,
    /// Their inner IP bytes.
    pub bytes: u64,
}

/// The workers' books: what came is what went, and what is under way. Each number is a sum over all workers.
///
/// What went is read before what came, so that a hub at work never seems to have sent what it did not receive; and when
/// it is at rest, [`Books::missing`] and [`Books::chunks_missing`] are zero exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Books {
    /// Came: frames received.
    pub received: u64,
    /// Came: packets that the hub made.
    pub generated: u64,
    /// Came: datagrams made whole from fragments.
    pub reassembled: u64,
    /// Went: frames that the kernel reported sent.
    pub completed: u64,
    /// Went: handshake messages and fragments, copied for control.
    pub to_control: u64,
    /// Went: keepalives of sites, which end here.
    pub keepalives: u64,
    /// Went: frames that the workers dropped, for whatever reason.
    pub dropped: u64,
    /// Under way: packets that wait for a session.
    pub staged: u64,
    /// Under way, by the census of the chunks: being sent.
    pub sending: u64,
    /// Chunks lent to the kernel to receive into.
    pub receiving: u64,
    /// Chunks that are free.
    pub free: u64,
    /// All chunks there are.
    pub chunks: u64,
}

impl Books {
    /// All that came.
    pub fn came(&self) -> u64 {
        self.received + self.generated + self.reassembled
    }

    /// What came less what went: what is under way, by subtraction.
    pub fn under_way(&self) -> i64 {
        let went = self.completed + self.to_control + self.keepalives + self.dropped;
        self.came() as i64 - went as i64
    }

    /// Packets that came, and neither went nor are found under way.
    pub fn missing(&self) -> i64 {
        self.under_way() - (self.staged + self.sending) as i64
    }

    /// Chunks that are nowhere.
    pub fn chunks_missing(&self) -> i64 {
        self.chunks as i64 - (self.free + self.receiving + self.sending + self.staged) as i64
    }
}

/// How far the hub is with a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// No session, and no handshake under way.
    #[default]
    None,
    /// A first handshake is under way.
    Handshake,
    /// A session carries packets.
    Live,
    /// A session carries packets while the handshake for the next one is under way.
    Rekey,
    /// The last session ended and there is no new one: the site is silent.
    Expired,
    /// It is what a trunk carries, and a lane of the trunk is up.
    Up,
    /// It is what a trunk carries, and no lane of the trunk is up.
    Down,
}

/// A site of a tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Site {
    /// Its name inside the tenant; of what a trunk carries `trunk:`, and the trunk's.
    pub name: String,
    /// Its public key, base64; what a trunk carries has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_key: String,
    /// Where it was last heard from, or is configured to be.
    pub endpoint: Option<SocketAddr>,
    /// The hub's own address that it talks to.
    pub local: Option<IpAddr>,
    /// Seconds since the last completed handshake; null if there was none since the hub started.
    pub last_handshake_s_ago: Option<u64>,
    /// How far the hub is with it.
    pub session: SessionState,
    /// Data packets that came from it and verified.
    pub rx_packets: u64,
    /// Their bytes: lengths of inner IP packets, as they are billed.
    pub rx_bytes: u64,
    /// Data packets sealed for it.
    pub tx_packets: u64,
    /// And their bytes.
    pub tx_bytes: u64,
    /// Packets that wait now for a session with it.
    pub staged: u32,
    /// Frames that named a session of it and that XDP dropped (`xdp_shed`), since it had its share of a ring that was more
    /// than half full. They are not verified, so they need not be its own.
    pub shed_packets: u64,
    /// Packets from it that were above a contracted rate, its own or its tenant's, and dropped.
    #[serde(default)]
    pub rx_over_rate: u64,
    /// The same of packets for it.
    #[serde(default)]
    pub tx_over_rate: u64,
    /// The way to it through the underlay; null if there is no endpoint to look for.
    pub path: Option<Path>,
}

/// An end of a tenant at an access port.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Access {
    /// Its name inside the tenant: the port, and the VLAN's ids behind points.
    pub name: String,
    /// Whether its port is up.
    pub up: bool,
    /// The hub's addresses there, with the lengths of their networks.
    pub addresses: Vec<String>,
    /// The largest packet that fits.
    pub mtu: Option<u32>,
    /// Packets that came from its hosts and were theirs to send.
    pub rx_packets: u64,
    /// Their bytes: lengths of IP packets, as they are billed.
    pub rx_bytes: u64,
    /// Packets sent to its hosts.
    pub tx_packets: u64,
    /// And their bytes.
    pub tx_bytes: u64,
    /// Packets that wait now for the MAC address of a host.
    pub staged: u32,
    /// Frames of it that XDP dropped (`xdp_shed`), since it had its share of a ring that was more than half full.
    pub shed_packets: u64,
    /// The hosts that the hub has asked for, or knows.
    pub neighbours: Vec<Neighbour>,
}

/// A host on the VLAN of an access end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its address.
    pub address: IpAddr,
    /// Its MAC address, once it has answered.
    pub mac: Option<String>,
    /// `static`, `incomplete` (being asked for), `reachable`, `stale` (to be asked when it is next used) or `probe`.
    pub state: String,
}

/// The way to a site: either a port and a next hop, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Path {
    /// The port.
    pub port: Option<String>,
    /// The router, or the site itself where it is on the link.
    pub next_hop: Option<IpAddr>,
    /// Its MAC address.
    pub next_hop_mac: Option<String>,
    /// The largest outer packet that this way takes.
    pub mtu: Option<u32>,
    /// The largest inner packet that the site is sent.
    #[serde(default)]
    pub inner_mtu: Option<u32>,
    /// What is found out by pings of what this way takes, if that is wanted: `searching`, `found` or `unanswered`.
    #[serde(default)]
    pub probe: Option<String>,
    /// How it answers the pings by which the hub knows that it is there, if there is another way to what is behind it: `answers`,
    /// `silent`, or `unanswered` if it never did.
    #[serde(default)]
    pub watch: Option<String>,
    /// Why the site can't be reached, if it can't.
    pub unreachable: Option<String>,
}

/// What was dropped for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Drop {
    /// The reason's name.
    pub reason: String,
    /// Its number.
    pub number: u8,
    /// Packets.
    pub packets: u64,
    /// Bytes of these, where they are counted.
    pub bytes: Option<u64>,
    /// What it means.
    pub doc: String,
}

impl Drop {
    /// The row of a reason.
    pub fn new(reason: DropReason, packets: u64, bytes: Option<u64>) -> Self {
        Self { reason: reason.name().into(), number: reason as u8, packets, bytes, doc: reason.doc().into() }
    }
}

impl Status {
    /// The tenant that an operator means by `wanted`: the one with this id or service code.
    pub fn tenant(&self, wanted: &str) -> Option<&Tenant> {
        let id = wanted.parse::<u32>().ok();
        self.tenants
            .iter()
            .find(|tenant| Some(tenant.id) == id)
            .or_else(|| self.tenants.iter().find(|tenant| tenant.service_code.as_deref() == Some(wanted)))
    }
}
