//! Other hubs in the report: trunks with their lanes, what they carry of a tenant, and which of several ways is used.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use stats::Snapshot;

use super::{SessionState, Site};

/// Another hub, and how it stands with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Trunk {
    /// Its name.
    pub name: String,
    /// The other hub's public key, base64.
    pub public_key: String,
    /// Whether a lane is up.
    pub up: bool,
    /// What packets are sealed with.
    pub cipher: String,
    /// Whose packets it may carry.
    pub tenants: Carries,
    /// Whether what comes by it may leave by another trunk.
    pub transit: bool,
    /// Where the other hub is, by its listen port: configured, or where it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// Its lanes, in their order.
    pub lanes: Vec<Lane>,
    /// What the hubs told each other.
    pub announced: Announced,
}

/// Whose packets a trunk may carry: `"all"`, or the ids of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Carries {
    /// Those of all tenants.
    #[default]
    All,
    /// Those of these.
    #[serde(untagged)]
    Some(Vec<u32>),
}

/// How many prefixes the hubs said to be alive behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Announced {
    /// This hub, of its own.
    pub said: u64,
    /// The other hub, as this one has understood it.
    pub heard: u64,
}

/// A lane of a trunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Lane {
    /// Its number: it uses the UDP port that is so much greater than the hub's.
    pub lane: u32,
    /// Whether the other hub answers.
    pub up: bool,
    /// Where it was last heard from, or is configured to be.
    pub endpoint: Option<SocketAddr>,
    /// How far the hub is with it.
    pub session: SessionState,
    /// Seconds since the last completed handshake; null if there was none since the hub started.
    pub last_handshake_s_ago: Option<u64>,
    /// The round trip of probes, in microseconds; null before the first answer.
    pub rtt_us: Option<u64>,
    /// How much that varies, in microseconds.
    pub jitter_us: Option<u64>,
    /// Of the last hundred probes, those that were not answered; null before the first.
    pub loss_percent: Option<f64>,
    /// The largest inner packet that it takes; null while it has no way.
    pub mtu: Option<u32>,
    /// Seconds since it last went up or down; null if it never did.
    pub since_s_ago: Option<u64>,
    /// How often it did.
    pub changes: u64,
    /// Frames that came by it and verified.
    pub rx_packets: u64,
    /// Their bytes: whole frames, probes and keepalives too. What is inside counts for tenants.
    pub rx_bytes: u64,
    /// Frames sent by it.
    pub tx_packets: u64,
    /// And their bytes.
    pub tx_bytes: u64,
}

/// A prefix of a tenant to which there are several ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Paths {
    /// The prefix.
    pub prefix: String,
    /// The end that its packets go to: a site, an access end, or `trunk:` and the name of a trunk.
    pub via: String,
    /// Whether what is at that end is alive.
    pub alive: bool,
    /// All ways, that one among them.
    pub candidates: Vec<Candidate>,
}

/// One of several ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Candidate {
    /// The end.
    pub via: String,
    /// The smallest is preferred.
    pub priority: u16,
    /// Whether what is at that end is alive.
    pub alive: bool,
}

impl Paths {
    /// The way that is used while it is alive: of equal ones the first.
    pub(super) fn preferred(&self) -> Option<&Candidate> {
        self.candidates.iter().min_by_key(|candidate| candidate.priority)
    }
}

impl Trunk {
    /// What the statistics know of the trunk: its name, and its lanes but for their endpoints. The rest is the caller's.
    pub fn counted(name: &str, counted: &Snapshot, now_ns: u64) -> Self {
        let lanes = counted.lanes().filter(|(site, _)| site.trunk() == Some(name));
        let lanes: Vec<_> =
            (0..).zip(lanes).map(|(lane, (site, state))| Lane::new(lane, site, state, now_ns)).collect();
        Self { name: name.into(), up: lanes.iter().any(|lane| lane.up), lanes, ..Self::default() }
    }
}

impl Lane {
    fn new(lane: u32, site: &stats::Site, state: &stats::Lane, now_ns: u64) -> Self {
        let ago = |at: u64| (at > 0).then(|| now_ns.saturating_sub(at) / 1_000_000_000);
        let answered = state.rtt_us > 0;
        Self {
            lane,
            up: state.up,
            endpoint: None,
            session: site.session.into(),
            last_handshake_s_ago: ago(site.last_handshake_at),
            rtt_us: answered.then_some(state.rtt_us),
            jitter_us: answered.then_some(state.jitter_us),
            loss_percent: (state.probes_sent > 0).then(|| state.loss_ppm as f64 / 10_000.0),
            mtu: u32::try_from(state.mtu).ok().filter(|mtu| *mtu > 0),
            since_s_ago: ago(state.since_ns).filter(|_| state.changes > 0),
            changes: state.changes,
            rx_packets: site.traffic.rx_outer_packets,
            rx_bytes: site.traffic.rx_outer_bytes,
            tx_packets: site.traffic.tx_outer_packets,
            tx_bytes: site.traffic.tx_outer_bytes,
        }
    }
}

impl Site {
    /// What a trunk carries of a tenant, which stands among its sites.
    pub fn carried(trunk: &str, up: bool, counted: Option<&stats::Site>) -> Self {
        let traffic = counted.map(|found| found.traffic).unwrap_or_default();
        Self {
            name: format!("trunk:{trunk}"),
            session: if up { SessionState::Up } else { SessionState::Down },
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            staged: counted.map_or(0, |found| found.staged as u32),
            rx_over_rate: counted.map_or(0, |found| found.rx_over_rate),
            tx_over_rate: counted.map_or(0, |found| found.tx_over_rate),
            ..Self::default()
        }
    }

    /// Whether it is a trunk's end of the tenant.
    pub(super) fn is_carried(&self) -> bool {
        matches!(self.session, SessionState::Up | SessionState::Down)
    }
}

impl From<stats::SessionState> for SessionState {
    fn from(state: stats::SessionState) -> Self {
        match state {
            stats::SessionState::None => Self::None,
            stats::SessionState::Handshake => Self::Handshake,
            stats::SessionState::Live => Self::Live,
            stats::SessionState::Rekey => Self::Rekey,
            stats::SessionState::Expired => Self::Expired,
            stats::SessionState::Attached => Self::Up,
        }
    }
}
