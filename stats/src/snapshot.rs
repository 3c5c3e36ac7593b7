//! What a reader found, in plain values.

use crate::histogram::Histogram;
use crate::segment::Now;
use wire::TenantId;

/// A segment, as it was at one moment: names and numbers belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The hub.
    pub hub: Hub,
    /// Tenants, by slot.
    pub tenants: Vec<Tenant>,
    /// Sites and other ends of all tenants, and lanes of trunks, by slot.
    pub sites: Vec<Site>,
    /// Rules of filters, by slot: a tenant's in their order, and behind them its default.
    pub rules: Vec<Rule>,
    /// Ports, by slot.
    pub ports: Vec<Port>,
    /// Workers, by number.
    pub workers: Vec<Worker>,
    /// Every reason that this hub knows, by number, over all tenants, workers, control and XDP; those that never occurred too.
    pub drops: Vec<Drop>,
    /// The sums that must balance.
    pub books: Books,
}

impl Snapshot {
    /// The tenant that a site belongs to; none of a lane.
    pub fn tenant_of(&self, site: &Site) -> Option<&Tenant> {
        self.tenants.iter().find(|tenant| site.is_of(tenant))
    }

    /// The sites and other ends of a tenant.
    pub fn sites_of(&self, tenant: &Tenant) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(move |site| site.is_of(tenant))
    }

    /// The sites and other ends of all tenants.
    pub fn ends(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.kind != SiteKind::Lane)
    }

    /// The lanes of trunks: trunk by trunk, in their order.
    pub fn lanes(&self) -> impl Iterator<Item = (&Site, &Lane)> {
        self.sites.iter().filter_map(|site| Some((site, site.lane.as_ref()?)))
    }

    /// The rules of a tenant's filter.
    pub fn rules_of(&self, tenant: &Tenant) -> impl Iterator<Item = &Rule> {
        let slot = tenant.slot;
        self.rules.iter().filter(move |rule| rule.tenant == slot)
    }

    /// A tenant by its id or service code.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        let id = name.parse().ok();
        self.tenants.iter().find(|tenant| tenant.service_code == name || id == Some(tenant.id.as_u32()))
    }

    /// How long ago the hub last showed that it lives; a few seconds are normal, more means that it is gone or stuck.
    pub fn age_ns(&self) -> u64 {
        Now::read().ns.saturating_sub(self.hub.ticked_ns)
    }
}

/// The hub that a segment is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hub {
    /// Its name.
    pub name: String,
    /// The version of the program.
    pub build: String,
    /// Its process.
    pub pid: u32,
    /// Another for each start of the hub: all counters began at zero then.
    pub boot_id: [u8; 16],
    /// Grows when the hub, running, makes its segment anew; nothing begins at zero then.
    pub generation: u64,
    /// When it started: ns since 1970.
    pub started_wall_ns: u64,
    /// Whether it has stopped in order: these are its last figures.
    pub ended: bool,
    /// Tells configurations apart.
    pub config_hash: u64,
    /// When the directory was last changed: ns since 1970.
    pub configured_wall_ns: u64,
    /// When control last wrote: ns since boot.
    pub ticked_ns: u64,
    /// The same, since 1970.
    pub ticked_wall_ns: u64,
    /// Sessions then.
    pub sessions: u64,
    /// Sessions that there is room for.
    pub session_capacity: u64,
    /// Whether the kernel's clock is synchronised, if known.
    pub clock_synchronised: Option<bool>,
    /// Initiations that the hub sent, repetitions too.
    pub handshakes_begun: u64,
    /// Initiations of sites that were answered.
    pub handshakes_answered: u64,
    /// Handshakes that ended in a session.
    pub handshakes_completed: u64,
    /// Handshakes that the hub began and gave up.
    pub handshakes_given_up: u64,
    /// Cookies sent instead of an answer.
    pub cookies_sent: u64,
    /// Prefixes to which there are several ways now.
    pub paths: u64,
    /// Of these, how many go by another way than the preferred one.
    pub paths_other: u64,
    /// Of these, how many have no way that is alive.
    pub paths_dead: u64,
}

/// What was moved: `rx` from sites to the hub, `tx` from the hub to sites. Bytes are inner IP lengths, as they are billed; outer
/// ones are whole frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the fields of `SiteRow`")]
pub struct Traffic {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_outer_packets: u64,
    pub rx_outer_bytes: u64,
    pub rx_keepalives: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_outer_packets: u64,
    pub tx_outer_bytes: u64,
    pub tx_keepalives: u64,
}

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its slot.
    pub slot: usize,
    /// Another number: another tenant.
    pub generation: u64,
    /// Its id.
    pub id: TenantId,
    /// Its service code, or nothing.
    pub service_code: String,
    /// Its label, at most 256 bytes, or nothing.
    pub label: String,
    /// What it moved.
    pub traffic: Traffic,
    /// What was dropped of it, where anything was: number of the reason, packets, bytes.
    pub drops: Vec<(u8, u64, u64)>,
}

/// A rule of a tenant's filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its slot.
    pub slot: usize,
    /// Another number: another rule.
    pub generation: u64,
    /// The slot of its tenant.
    pub tenant: usize,
    /// Its name.
    pub name: String,
    /// Whether it drops what it matches.
    pub deny: bool,
    /// Packets that it decided.
    pub packets: u64,
    /// Their inner IP bytes.
    pub bytes: u64,
}

/// How it stands between the hub and a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// There never was a session.
    None,
    /// The first is on its way.
    Handshake,
    /// There is one.
    Live,
    /// There is one, and the next is on its way.
    Rekey,
    /// There was one.
    Expired,
    /// It needs none: it is an access end whose port is up, or what a trunk carries, a lane of which is up.
    Attached,
}

/// What a slot of sites is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SiteKind {
    /// A site.
    #[default]
    Site,
    /// An end at an access port.
    Access,
    /// What a trunk carries of a tenant: its name is `trunk:`, and that of the trunk.
    Trunk,
    /// A lane of a trunk: its name is that of the trunk, `/`, and its number. No tenant's.
    Lane,
}

/// What the name of a trunk's end of a tenant begins with. No site's does.
pub(crate) const CARRIED: &str = "trunk:";

/// How it stands with a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the fields of `SiteState`")]
pub struct Lane {
    pub up: bool,
    pub rtt_us: u64,
    pub jitter_us: u64,
    pub probes_sent: u64,
    pub probes_lost: u64,
    pub loss_ppm: u64,
    pub changes: u64,
    pub since_ns: u64,
    pub mtu: u64,
}

/// A site, another end of a tenant, or a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Its slot.
    pub slot: usize,
    /// Another number: another site.
    pub generation: u64,
    /// The slot of its tenant; that of none, if it is a lane.
    pub tenant: usize,
    /// What it is.
    pub kind: SiteKind,
    /// Its name.
    pub name: String,
    /// What it moved.
    pub traffic: Traffic,
    /// How it stands with it, if it is a lane.
    pub lane: Option<Lane>,
    /// Packets that wait for a session with it.
    pub staged: u64,
    /// Packets from it that were above a contracted rate, and dropped.
    pub rx_over_rate: u64,
    /// The same, for it.
    pub tx_over_rate: u64,
    /// When a packet with content last came from it: ns since boot, 0 for never.
    pub data_received_at: u64,
    /// When a packet with content was last sealed for it.
    pub data_sent_at: u64,
    /// Its session.
    pub session: SessionState,
    /// When the last handshake was completed: ns since boot, 0 for never.
    pub last_handshake_at: u64,
    /// Handshakes completed.
    pub handshakes: u64,
    /// Whether it is known where it is.
    pub located: bool,
    /// Frames that XDP dropped, since it had its share of a ring that ran full.
    pub shed_packets: u64,
}

impl Site {
    /// The trunk that it is a lane of, or an end of, by name.
    pub fn trunk(&self) -> Option<&str> {
        match self.kind {
            SiteKind::Site | SiteKind::Access => None,
            SiteKind::Trunk => self.name.strip_prefix(CARRIED),
            SiteKind::Lane => self.name.rsplit_once('/').map(|(trunk, _)| trunk),
        }
    }

    fn is_of(&self, tenant: &Tenant) -> bool {
        self.kind != SiteKind::Lane && self.tenant == tenant.slot
    }
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the fields of `PortRow` and `XdpRow`")]
pub struct Port {
    /// Its slot.
    pub slot: usize,
    /// Its interface.
    pub name: String,
    /// Receive queues.
    pub queues: u64,
    /// Entries of each of its receive rings; 0, if the hub is of a version that does not say.
    pub ring_entries: u64,
    pub rx_frames: u64,
    pub rx_bytes: u64,
    pub completed_frames: u64,
    pub ring_lost: u64,
    pub tx_frames: u64,
    pub tx_bytes: u64,
    pub ring_fill: u64,
    pub xdp_seen_frames: u64,
    pub xdp_seen_bytes: u64,
    pub xdp_passed_frames: u64,
    pub xdp_passed_bytes: u64,
    pub xdp_redirected_frames: u64,
    pub xdp_redirected_bytes: u64,
    pub xdp_dropped_frames: u64,
    pub xdp_dropped_bytes: u64,
}

/// A worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the fields of `LoopRow`")]
pub struct Worker {
    /// Its number.
    pub slot: usize,
    /// Its core.
    pub core: u64,
    /// Chunks of packet memory that are its own.
    pub chunks: u64,
    /// Of these, in its pool.
    pub chunks_free: u64,
    pub turns: u64,
    pub batches: u64,
    pub frames: u64,
    pub generated: u64,
    pub to_control: u64,
    pub keepalives: u64,
    pub reassembled: u64,
    pub staged: u64,
    pub busy_ns: u64,
    pub asleep_ns: u64,
    pub helped_frames: u64,
    /// The share of the last second in turns that found work, in millionths.
    pub busy_ppm: u64,
    /// Frames in a batch, on the average of the last second, in thousandths.
    pub batch_milliframes: u64,
    /// From receive ring to transmit ring.
    pub latency: Histogram,
    /// From XDP to the worker.
    pub ring_time: Histogram,
}

/// What was dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drop {
    /// Its number, never that of another reason.
    pub number: u8,
    /// Its name.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// What came into the workers and what ended there, read in such an order that `outputs` never exceeds `inputs`; at rest they are
/// equal but for what is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// Received, generated and reassembled.
    pub inputs: u64,
    /// Completed, to control, keepalives, and dropped by workers.
    pub outputs: u64,
}
