//! The families of trunks and their lanes.

use std::fmt;

use stats::SessionState;

use super::families::Sheet;
use super::{Page, ShownLane};

/// A family with one counter for each lane: its name, its help, its value.
type Counts = (&'static str, &'static str, fn(&ShownLane) -> u64);
/// The same, of a value that may fall, and need not be known.
type Gauges = (&'static str, &'static str, fn(&ShownLane) -> Option<f64>);

const COUNTS: [Counts; 8] = [
    ("ekiden_lane_probes", "Probes sent by a lane", |l| l.lane.probes_sent),
    ("ekiden_lane_probes_lost", "Probes of a lane that were not answered in time", |l| l.lane.probes_lost),
    ("ekiden_lane_changes", "How often a lane went up or down", |l| l.lane.changes),
    ("ekiden_lane_handshakes", "Handshakes completed by a lane, whoever began", |l| l.site.handshakes),
    ("ekiden_lane_receive_outer_packets", "Frames authenticated as of a lane, probes and keepalives too", |l| {
        l.site.traffic.rx_outer_packets
    }),
    ("ekiden_lane_receive_outer_bytes", "Bytes of frames authenticated as of a lane, Ethernet header included", |l| {
        l.site.traffic.rx_outer_bytes
    }),
    ("ekiden_lane_transmit_outer_packets", "Frames sent by a lane, probes and keepalives too", |l| {
        l.site.traffic.tx_outer_packets
    }),
    ("ekiden_lane_transmit_outer_bytes", "Bytes of frames sent by a lane, Ethernet header included", |l| {
        l.site.traffic.tx_outer_bytes
    }),
];

const GAUGES: [Gauges; 6] = [
    ("ekiden_lane_up", "Whether the other hub answers probes by a lane", |l| Some(f64::from(l.lane.up))),
    ("ekiden_lane_session_up", "Whether a lane has a session", |l| {
        Some(f64::from(matches!(l.site.session, SessionState::Live | SessionState::Rekey)))
    }),
    ("ekiden_lane_rtt_seconds", "The round trip of probes, smoothed", |l| answered(l, l.lane.rtt_us)),
    ("ekiden_lane_jitter_seconds", "How much the round trip of probes varies, smoothed", |l| {
        answered(l, l.lane.jitter_us)
    }),
    ("ekiden_lane_loss_ratio", "Of the last hundred probes, the share that was not answered", |l| {
        (l.lane.probes_sent > 0).then(|| l.lane.loss_ppm as f64 / 1e6)
    }),
    ("ekiden_lane_mtu_bytes", "The longest inner packet that a lane takes", |l| {
        (l.lane.mtu > 0).then_some(l.lane.mtu as f64)
    }),
];

/// Microseconds as seconds; nothing before the first answer.
fn answered(lane: &ShownLane, us: u64) -> Option<f64> {
    (lane.lane.rtt_us > 0).then_some(us as f64 / 1e6)
}

impl Page {
    pub(super) fn trunks(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let trunks = || self.lanes.chunk_by(|a, b| a.trunk == b.trunk);
        let up = |lanes: &[ShownLane]| lanes.iter().filter(|shown| shown.lane.up).count();
        let samples = trunks().map(|lanes| ([("trunk", &lanes[0].trunk)], f64::from(up(lanes) > 0)));
        sheet.gauges("ekiden_trunk_up", "Whether a lane of the trunk is up", samples)?;
        let samples = trunks().map(|lanes| ([("trunk", &lanes[0].trunk)], lanes.len() as f64));
        sheet.gauges("ekiden_trunk_lanes", "Lanes of the trunk", samples)?;
        let samples = trunks().map(|lanes| ([("trunk", &lanes[0].trunk)], up(lanes) as f64));
        sheet.gauges("ekiden_trunk_lanes_up", "Lanes of the trunk that are up", samples)?;

        let shown = || self.lanes.iter().map(|shown| ([("trunk", &shown.trunk), ("lane", &shown.label)], shown));
        for (name, help, value) in GAUGES {
            sheet.gauges(name, help, shown().filter_map(|(labels, lane)| Some((labels, value(lane)?))))?;
        }
        for (name, help, value) in COUNTS {
            sheet.counters(name, help, shown().map(|(labels, lane)| (labels, value(lane))))?;
        }
        type Moments = (&'static str, &'static str, fn(&ShownLane) -> u64);
        let moments: [Moments; 2] = [
            ("ekiden_lane_last_change_timestamp_seconds", "When a lane last went up or down", |l| l.lane.since_ns),
            ("ekiden_lane_last_handshake_timestamp_seconds", "When the last handshake of a lane was completed", |l| {
                l.site.last_handshake_at
            }),
        ];
        for (name, help, value) in moments {
            let samples = shown().filter_map(|(labels, lane)| Some((labels, self.times.seconds(value(lane))?)));
            sheet.gauges(name, help, samples)?;
        }

        let Some(hub) = self.snapshot.as_ref().map(|snapshot| &snapshot.hub).filter(|hub| hub.paths > 0) else {
            return Ok(());
        };
        let first = hub.paths.saturating_sub(hub.paths_other.saturating_add(hub.paths_dead));
        let states = [("preferred", first), ("other", hub.paths_other), ("dead", hub.paths_dead)];
        let help =
            "Prefixes of tenants with several ways, by whether the preferred one is used, another, or none is alive";
        sheet.gauges("ekiden_paths", help, states.map(|(state, count)| ([("state", state)], count as f64)))
    }
}
