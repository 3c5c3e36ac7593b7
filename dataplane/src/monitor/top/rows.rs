//! What the lines of the lists say.

use crate::status::table::{bytes, clean, count};
use ratatui::layout::HorizontalAlignment as Alignment;
use stats::{Histogram, Lane, Port, Series, SessionState, Site, SiteKind, Snapshot, Tenant, Traffic, Worker};
use std::collections::BTreeMap;
use std::time::Duration;
use unicode_width::UnicodeWidthChar;

/// The lists, in the order of their keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Tenants,
    Sites,
    Ports,
    Workers,
    Drops,
    Trunks,
}

impl View {
    /// The last is not to be seen where there are no trunks.
    pub(super) const ALL: [(Self, &'static str); 6] = [
        (Self::Tenants, "Tenants"),
        (Self::Sites, "Sites"),
        (Self::Ports, "Ports"),
        (Self::Workers, "Workers"),
        (Self::Drops, "Drops"),
        (Self::Trunks, "Trunks"),
    ];

    /// The columns, each with its width; 0 for what is left over.
    pub(super) fn columns(self) -> &'static [Column] {
        use Alignment::{Left, Right};
        match self {
            Self::Tenants => &[
                ("TENANT", 12, Left),
                ("LABEL", 0, Left),
                ("IN bit/s", 8, Right),
                ("OUT bit/s", 9, Right),
                ("IN pkt/s", 8, Right),
                ("OUT pkt/s", 9, Right),
                ("DROPS/s", 7, Right),
            ],
            Self::Sites => &[
                ("TENANT", 12, Left),
                ("SITE", 0, Left),
                ("SESSION", 9, Left),
                ("IN bit/s", 8, Right),
                ("OUT bit/s", 9, Right),
                ("IN pkt/s", 8, Right),
                ("OUT pkt/s", 9, Right),
            ],
            Self::Ports => &[
                ("PORT", 0, Left),
                ("IN bit/s", 8, Right),
                ("OUT bit/s", 9, Right),
                ("IN frm/s", 8, Right),
                ("OUT frm/s", 9, Right),
                ("XDP DROP/s", 10, Right),
                ("LOST/s", 7, Right),
            ],
            Self::Workers => &[
                ("WORKER", 0, Left),
                ("CORE", 4, Right),
                ("BUSY", 6, Right),
                ("FRAMES/s", 8, Right),
                ("BATCH", 6, Right),
                ("FREE CHUNKS", 13, Right),
                ("STAGED", 7, Right),
                ("p50", 7, Right),
                ("p99", 7, Right),
            ],
            Self::Drops => &[
                ("REASON", 0, Left),
                ("NUMBER", 6, Right),
                ("PACKETS/s", 9, Right),
                ("bit/s", 8, Right),
                ("PACKETS", 15, Right),
                ("BYTES", 11, Right),
            ],
            Self::Trunks => &[
                ("TRUNK/LANE", 0, Left),
                ("STATE", 10, Left),
                ("RTT", 7, Right),
                ("LOSS", 5, Right),
                ("IN bit/s", 8, Right),
                ("OUT bit/s", 9, Right),
                ("IN frm/s", 8, Right),
                ("OUT frm/s", 9, Right),
            ],
        }
    }
}

pub(super) type Column = (&'static str, u16, Alignment);

/// What a line is about, also after a restart of the hub.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Tenant(u32),
    Site(u32, String),
    Port(String),
    Worker(usize),
    Drop(u8),
    /// A trunk, or one of its lanes.
    Trunk(String, Option<usize>),
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) cells: Vec<String>,
    /// What the filter looks at, in small letters.
    pub(super) text: String,
    /// What it is sorted by: in, out, drops.
    pub(super) rates: [f64; 3],
    /// Its history, if there is a ring of it.
    pub(super) series: Option<Series>,
}

/// Two looks at the same hub, and the time between them; of the first look at a hub there are no rates.
pub(super) struct Looks<'a> {
    pub(super) old: Option<(&'a Snapshot, Duration)>,
    pub(super) new: &'a Snapshot,
}

impl<'a> Looks<'a> {
    fn before<T>(&self, find: impl Fn(&'a Snapshot) -> Option<&'a T>) -> Option<(&'a T, f64)> {
        let (old, time) = self.old?;
        Some((find(old)?, time.as_secs_f64()))
    }

    fn tenant(&self, new: &Tenant) -> Option<(&'a Tenant, f64)> {
        let same = |t: &&Tenant| (t.slot, t.generation) == (new.slot, new.generation);
        self.before(|old| by_slot(&old.tenants, new.slot, |t| t.slot).filter(same))
    }

    fn site(&self, new: &Site) -> Option<(&'a Site, f64)> {
        let same = |s: &&Site| (s.slot, s.generation) == (new.slot, new.generation);
        self.before(|old| by_slot(&old.sites, new.slot, |s| s.slot).filter(same))
    }

    /// The lines of a list, unsorted.
    pub(super) fn rows(&self, view: View) -> Vec<Row> {
        match view {
            View::Tenants => self.new.tenants.iter().map(|tenant| self.tenant_row(tenant)).collect(),
            View::Sites => self.new.ends().map(|site| self.site_row(site)).collect(),
            View::Ports => self.new.ports.iter().map(|port| self.port_row(port)).collect(),
            View::Workers => self.new.workers.iter().map(|worker| self.worker_row(worker)).collect(),
            View::Drops => self.drop_rows(),
            View::Trunks => self.trunk_rows(),
        }
    }

    fn tenant_row(&self, tenant: &Tenant) -> Row {
        let old = self.tenant(tenant);
        let flow = old.map(|(old, time)| Flow::between(&old.traffic, &tenant.traffic, time));
        let dropped = |tenant: &Tenant| tenant.drops.iter().map(|(_, packets, _)| packets).sum();
        let drops = old.map(|(old, time)| rate(dropped(old), dropped(tenant), time));
        let (name, label) = (tenant_name(tenant), plain(&tenant.label));
        let flow = flow.unwrap_or(Flow::UNKNOWN);
        Row {
            key: Key::Tenant(tenant.id.as_u32()),
            text: format!("{name} {label} {}", tenant.id).to_lowercase(),
            rates: [flow.in_bits, flow.out_bits, drops.unwrap_or(f64::NAN)],
            cells: [name, label].into_iter().chain(flow.cells()).chain([si(drops.unwrap_or(f64::NAN))]).collect(),
            series: Some(Series::Tenant(tenant.slot)),
        }
    }

    fn site_row(&self, site: &Site) -> Row {
        let old = self.site(site);
        let flow = old.map_or(Flow::UNKNOWN, |(old, time)| Flow::between(&old.traffic, &site.traffic, time));
        let tenant = by_slot(&self.new.tenants, site.tenant, |t| t.slot);
        let (owner, label) = tenant.map_or_else(Default::default, |t| (tenant_name(t), plain(&t.label)));
        let name = plain(&site.name);
        Row {
            key: Key::Site(tenant.map_or(u32::MAX, |t| t.id.as_u32()), site.name.clone()),
            text: format!("{name} {owner} {label}").to_lowercase(),
            rates: [flow.in_bits, flow.out_bits, 0.0],
            cells: [owner, name, session(site).to_owned()].into_iter().chain(flow.cells()).collect(),
            // The short ring of a site ends after five minutes.
            series: Some(Series::SiteLong(site.slot)),
        }
    }

    fn port_row(&self, port: &Port) -> Row {
        let old = self.before(|old| by_slot(&old.ports, port.slot, |p| p.slot).filter(|p| p.name == port.name));
        let of = |field: fn(&Port) -> u64| old.map_or(f64::NAN, |(old, time)| rate(field(old), field(port), time));
        let (rx, tx) = (of(|p| p.rx_bytes) * 8.0, of(|p| p.tx_bytes) * 8.0);
        let (dropped, lost) = (of(|p| p.xdp_dropped_frames), of(|p| p.ring_lost));
        let name = plain(&port.name);
        let rates = [rx, tx, of(|p| p.rx_frames), of(|p| p.tx_frames), dropped, lost];
        Row {
            key: Key::Port(port.name.clone()),
            text: name.to_lowercase(),
            rates: [rx, tx, dropped + lost],
            cells: std::iter::once(name).chain(rates.map(si)).collect(),
            series: None,
        }
    }

    fn worker_row(&self, worker: &Worker) -> Row {
        let old = self.before(|old| by_slot(&old.workers, worker.slot, |w| w.slot));
        let frames = old.map_or(f64::NAN, |(old, time)| rate(old.frames, worker.frames, time));
        let busy = worker.busy_ppm as f64 / 10_000.0;
        let latency = old.map(|(old, _)| between(&old.latency, &worker.latency)).filter(|latency| latency.count() > 0);
        let quantile = |part| latency.as_ref().map_or_else(|| "-".to_owned(), |all| time(all.quantile(part)));
        Row {
            key: Key::Worker(worker.slot),
            text: format!("{} {}", worker.slot, worker.core),
            rates: [frames, busy, 0.0],
            cells: vec![
                worker.slot.to_string(),
                worker.core.to_string(),
                format!("{busy:.1} %"),
                si(frames),
                format!("{:.1}", worker.batch_milliframes as f64 / 1000.0),
                format!("{} of {}", worker.chunks_free, worker.chunks),
                si(worker.staged as f64),
                quantile(0.5),
                quantile(0.99),
            ],
            series: None,
        }
    }

    fn drop_rows(&self) -> Vec<Row> {
        let row = |drop: &stats::Drop| {
            let old = self.before(|old| old.drops.iter().find(|d| d.number == drop.number));
            let packets = old.map_or(f64::NAN, |(old, time)| rate(old.packets, drop.packets, time));
            let bits = old.map_or(f64::NAN, |(old, time)| rate(old.bytes, drop.bytes, time) * 8.0);
            let name = plain(&drop.name);
            Row {
                key: Key::Drop(drop.number),
                text: name.to_lowercase(),
                rates: [bits, bits, packets],
                cells: vec![
                    name,
                    drop.number.to_string(),
                    si(packets),
                    si(bits),
                    count(drop.packets),
                    bytes(drop.bytes),
                ],
                series: Some(Series::Drop(drop.number)),
            }
        };
        self.new.drops.iter().filter(|drop| drop.packets > 0).map(row).collect()
    }

    /// Each trunk, and each of its lanes.
    fn trunk_rows(&self) -> Vec<Row> {
        let mut trunks: BTreeMap<&str, Vec<(&Site, &Lane)>> = BTreeMap::new();
        for (site, lane) in self.new.lanes() {
            trunks.entry(site.trunk().unwrap_or_default()).or_default().push((site, lane));
        }
        let mut rows = Vec::new();
        for (trunk, lanes) in trunks {
            let mut sum = Flow::default();
            for (number, (site, lane)) in lanes.iter().enumerate() {
                let old = self.site(site);
                let flow = old.map_or(Flow::UNKNOWN, |(old, time)| {
                    Flow::between(&outer(&old.traffic), &outer(&site.traffic), time)
                });
                sum.add(flow);
                let state = if lane.up { "up" } else { "DOWN" };
                let rtt = if lane.rtt_us > 0 { time(lane.rtt_us.saturating_mul(1000)) } else { "-".into() };
                let loss = if lane.probes_sent > 0 { format!("{} %", lane.loss_ppm / 10_000) } else { "-".into() };
                let series = Some(Series::SiteLong(site.slot));
                let key = Key::Trunk(trunk.to_owned(), Some(number));
                rows.push(trunk_row(key, [plain(&site.name), state.into(), rtt, loss], flow, series));
            }
            let up = lanes.iter().filter(|(_, lane)| lane.up).count();
            let state = format!("{up}/{} {}", lanes.len(), if up > 0 { "up" } else { "DOWN" });
            let cells = [plain(trunk), state, String::new(), String::new()];
            rows.push(trunk_row(Key::Trunk(trunk.to_owned(), None), cells, sum, None));
        }
        rows
    }

    /// What was dropped of a tenant, the most frequent first: reason, packets a second, packets.
    pub(super) fn drops_of(&self, tenant: &Tenant) -> Vec<(String, f64, u64)> {
        let old = self.tenant(tenant);
        let row = |&(number, packets, _): &(u8, u64, u64)| {
            let before =
                |old: &Tenant| old.drops.iter().find(|(n, ..)| *n == number).map_or(0, |(_, packets, _)| *packets);
            let rate = old.map_or(f64::NAN, |(old, time)| rate(before(old), packets, time));
            let name = self.new.drops.iter().find(|drop| drop.number == number);
            (name.map_or_else(|| number.to_string(), |drop| plain(&drop.name)), rate, packets)
        };
        let mut rows: Vec<_> = tenant.drops.iter().map(row).collect();
        rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
        rows
    }

    /// The whole hub: in and out, and drops a second.
    pub(super) fn totals(&self) -> (Flow, f64) {
        let mut flow = Flow::default();
        for tenant in &self.new.tenants {
            if let Some((old, time)) = self.tenant(tenant) {
                flow.add(Flow::between(&old.traffic, &tenant.traffic, time));
            }
        }
        let dropped = |snapshot: &Snapshot| snapshot.drops.iter().map(|drop| drop.packets).sum();
        match self.old {
            Some((old, time)) => (flow, rate(dropped(old), dropped(self.new), time.as_secs_f64())),
            None => (Flow::UNKNOWN, f64::NAN),
        }
    }
}

fn trunk_row(key: Key, cells: [String; 4], flow: Flow, series: Option<Series>) -> Row {
    Row {
        key,
        text: format!("{} {}", cells[0], cells[1]).to_lowercase(),
        rates: [flow.in_bits, flow.out_bits, 0.0],
        cells: cells.into_iter().chain(flow.cells()).collect(),
        series,
    }
}

/// Whole frames, as they count for lanes.
fn outer(traffic: &Traffic) -> Traffic {
    Traffic {
        rx_packets: traffic.rx_outer_packets,
        rx_bytes: traffic.rx_outer_bytes,
        tx_packets: traffic.tx_outer_packets,
        tx_bytes: traffic.tx_outer_bytes,
        ..Traffic::default()
    }
}

/// What moves in a second; what is not known is not a number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) in_bits: f64,
    pub(super) out_bits: f64,
    pub(super) in_packets: f64,
    pub(super) out_packets: f64,
}

impl Flow {
    pub(super) const UNKNOWN: Self =
        Self { in_bits: f64::NAN, out_bits: f64::NAN, in_packets: f64::NAN, out_packets: f64::NAN };

    fn between(old: &Traffic, new: &Traffic, time: f64) -> Self {
        Self {
            in_bits: rate(old.rx_bytes, new.rx_bytes, time) * 8.0,
            out_bits: rate(old.tx_bytes, new.tx_bytes, time) * 8.0,
            in_packets: rate(old.rx_packets, new.rx_packets, time),
            out_packets: rate(old.tx_packets, new.tx_packets, time),
        }
    }

    fn add(&mut self, more: Self) {
        self.in_bits += more.in_bits;
        self.out_bits += more.out_bits;
        self.in_packets += more.in_packets;
        self.out_packets += more.out_packets;
    }

    fn cells(self) -> [String; 4] {
        [self.in_bits, self.out_bits, self.in_packets, self.out_packets].map(si)
    }
}

fn rate(old: u64, new: u64, time: f64) -> f64 {
    if time > 0.0 { new.saturating_sub(old) as f64 / time } else { f64::NAN }
}

/// What was counted between two looks.
fn between(old: &Histogram, new: &Histogram) -> Histogram {
    let counts = new.counts.iter().zip(&old.counts).map(|(new, old)| new.saturating_sub(*old)).collect();
    Histogram { sum_ns: new.sum_ns.saturating_sub(old.sum_ns), counts }
}

/// The row of a slot; rows are in the order of slots.
fn by_slot<T>(rows: &[T], slot: usize, of: impl Fn(&T) -> usize) -> Option<&T> {
    rows.binary_search_by_key(&slot, of).ok().map(|at| &rows[at])
}

/// A tenant as its operator calls it.
pub(super) fn tenant_name(tenant: &Tenant) -> String {
    if tenant.service_code.is_empty() { tenant.id.to_string() } else { plain(&tenant.service_code) }
}

fn session(site: &Site) -> &'static str {
    match site.session {
        SessionState::Attached if site.kind == SiteKind::Trunk => "up",
        _ if site.kind == SiteKind::Trunk => "DOWN",
        SessionState::None => "none",
        SessionState::Handshake => "handshake",
        SessionState::Live => "live",
        SessionState::Rekey => "rekey",
        SessionState::Expired => "expired",
        SessionState::Attached => "attached",
    }
}

/// Text that others chose, such that any terminal finds it as wide as we do: no controls, nothing that turns the line
/// around, and of what has no width of its own only two accents a letter.
pub(super) fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut accents = 0;
    for c in clean(text).chars() {
        let accent = matches!(c, '\u{300}'..='\u{36f}' | '\u{3099}' | '\u{309a}');
        accents = if accent { accents + 1 } else { 0 };
        match c.width() {
            Some(0) if accent && accents <= 2 && !out.is_empty() => out.push(c),
            Some(0) if accent => {}
            // Joiners, selectors, fillers: terminals disagree about what becomes of their neighbours.
            Some(0) | None => out.extend(c.escape_unicode()),
            Some(_) if matches!(c, '\u{1f3fb}'..='\u{1f3ff}' | '\u{1f1e6}'..='\u{1f1ff}') => {
                out.extend(c.escape_unicode())
            }
            Some(_) => out.push(c),
        }
    }
    out
}

/// A number in three digits and a unit: `0`, `0.3`, `12.3`, `123`, `1.23k`, `45.6M`; `-` for what is not known.
pub(super) fn si(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    // By what is shown, not by what is: 999.6 is shown as 1.00k.
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    let digits = match (unit, value) {
        (0, 0.0) => 0,
        (0, ..99.95) => 1,
        (_, ..9.995) => 2,
        (_, ..99.95) => 1,
        _ => 0,
    };
    format!("{value:.digits$}{}", UNITS[unit])
}

const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// Nanoseconds in three digits: `850 ns`, `12.3 µs`, `1.23 ms`.
fn time(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr;

    #[test]
    fn numbers_have_three_digits() {
        let shown: Vec<String> =
            [0.0, 0.04, 0.3, 12.34, 99.96, 999.4, 999.6, 1234.0, 9_996.0, 45_600_000.0, 1e11, f64::NAN].map(si).into();
        assert_eq!(shown, ["0", "0.0", "0.3", "12.3", "100", "999", "1.00k", "1.23k", "10.0k", "45.6M", "100G", "-"]);
        let shown: Vec<String> = [0, 999, 1_000, 12_345, 999_949, 1_230_000, 8_500_000_000].map(time).into();
        assert_eq!(shown, ["0 ns", "999 ns", "1.00 µs", "12.3 µs", "1000 µs", "1.23 ms", "8.50 s"]);
    }

    #[test]
    fn nothing_is_left_of_what_terminals_disagree_about() {
        assert_eq!(plain("株式会社 駅伝"), "株式会社 駅伝");
        assert_eq!(plain("cafe\u{301}"), "cafe\u{301}");
        assert_eq!(plain("a\u{1b}[2J\u{7}b"), "a\\u{1b}[2J\\u{7}b");
        assert_eq!(plain("x\u{300}\u{301}\u{302}\u{303}"), "x\u{300}\u{301}");
        assert_eq!(plain("👨\u{200d}👩"), "👨\\u{200d}👩");
        assert_eq!(plain("\u{301}"), "");
        assert_eq!(plain("one\u{2028}two\u{ad}three"), "one\\u{2028}two\\u{ad}three");
    }

    proptest! {
        #[test]
        fn any_text_is_as_wide_as_the_sum_of_its_letters(text in any::<String>()) {
            let text = plain(&text);
            prop_assert_eq!(text.width(), text.chars().map(|c| c.width().unwrap_or(99)).sum::<usize>());
        }
    }
}
