//! A hub without a hub: a segment, its directory, and workers that count.
#![allow(dead_code, reason = "each test uses its part")]

use stats::{ControlRows, Now, Rows, Segment, Shape, Spec};
use std::path::{Path, PathBuf};
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

pub(crate) const SECOND: u64 = 1_000_000_000;

pub(crate) struct Hub {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) segment: Segment,
    pub(crate) rows: Vec<Rows>,
    pub(crate) control: ControlRows,
}

pub(crate) fn spec(shape: Shape, workers: usize) -> Spec {
    Spec {
        hub: "tokyo-1".into(),
        build: "0.1.0".into(),
        config_hash: 0xfeed,
        shape,
        room: Shape::default(),
        workers,
        memory: 64 << 20,
        group: None,
    }
}

impl Hub {
    /// Tenants 1000, 1001... each with two sites "a" and "b"; two ports.
    pub(crate) fn new(tenants: u32, workers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shape = Shape { tenants: tenants as usize, sites: 2 * tenants as usize + 4, ports: 2, ..Shape::default() };
        let mut segment = Segment::create(&directory.path().join("stats"), spec(shape, workers)).unwrap().segment;
        segment.configure(|directory| {
            for t in 0..tenants {
                let (slot, id) = (TenantSlot(t), TenantId::new(u64::from(1000 + t)).unwrap());
                directory.tenant(slot, id, &format!("WAN{:08}", 1000 + t), "株式会社 駅伝").unwrap();
                directory.site(SiteSlot(2 * t), slot, "a").unwrap();
                directory.site(SiteSlot(2 * t + 1), slot, "大阪").unwrap();
            }
            directory.port(PortIndex(0), "wan0", workers as u32, 2048).unwrap();
            directory.port(PortIndex(1), "wan1", workers as u32, 4096).unwrap();
            (0..workers).for_each(|w| directory.worker(w, w + 2, 4096).unwrap());
        });
        segment.publish().unwrap();
        let rows = (0..workers).map(|w| segment.rows(w)).collect();
        let control = segment.control_rows();
        Self { directory, segment, rows, control }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("stats")
    }

    pub(crate) fn tick(&mut self, second: u64) {
        self.segment.tick(Now { ns: second * SECOND, wall_ns: (1_700_000_000 + second) * SECOND }, 0, 1);
    }
}

/// The trunk "osaka", with what it carries of the tenant 1000 and two lanes behind it, in slots after those of sites: the first
/// lane's.
pub(crate) fn trunk(hub: &mut Hub, first_tenant: u32) -> SiteSlot {
    let carried = hub.segment.snapshot().sites.iter().map(|site| site.slot as u32 + 1).max().unwrap_or_default();
    hub.segment.configure(|directory| {
        directory.carried(SiteSlot(carried), TenantSlot(first_tenant), "osaka").unwrap();
        (0..2).for_each(|lane| directory.lane(SiteSlot(carried + 1 + lane), "osaka", lane as usize).unwrap());
    });
    SiteSlot(carried + 1)
}

/// A packet from a site, opened and accepted.
pub(crate) fn receive(rows: &Rows, tenant: u32, site: u32, bytes: u64) {
    rows.port(PortIndex(0)).rx_frames.add(1);
    rows.port(PortIndex(0)).rx_bytes.add(bytes + 74);
    let (site, volume) = (rows.site(SiteSlot(site)), rows.volume(TenantSlot(tenant)));
    site.rx_outer_packets.add(1);
    site.rx_outer_bytes.add(bytes + 74);
    volume.rx_outer_packets.add(1);
    volume.rx_outer_bytes.add(bytes + 74);
    site.rx_bytes.add(bytes);
    site.rx_packets.add(1);
    volume.rx_bytes.add(bytes);
    volume.rx_packets.add(1);
}

/// The same, sealed for another.
pub(crate) fn send(rows: &Rows, tenant: u32, site: u32, bytes: u64) {
    let (site, volume) = (rows.site(SiteSlot(site)), rows.volume(TenantSlot(tenant)));
    for row in [&site.tx_packets, &volume.tx_packets] {
        row.add(1);
    }
    for row in [&site.tx_bytes, &volume.tx_bytes] {
        row.add(bytes);
    }
    for row in [&site.tx_outer_bytes, &volume.tx_outer_bytes] {
        row.add(bytes + 74);
    }
    let port = rows.port(PortIndex(1));
    port.tx_frames.add(1);
    port.tx_bytes.add(bytes + 74);
    port.completed_frames.add(1);
}

/// Some of everything, different in every row, so that no two can be mistaken for each other.
pub(crate) fn fill(hub: &Hub, tenants: u32) {
    for (w, rows) in (1..).zip(&hub.rows) {
        for t in 0..tenants {
            for _ in 0..w * (u64::from(t) + 1) {
                receive(rows, t, 2 * t, 1000 * w + u64::from(t));
                send(rows, t, 2 * t + 1, 1000 * w + u64::from(t));
            }
            receive(rows, t, 2 * t + 1, 77);
            rows.tenant(TenantSlot(t)).count(DropReason::NoRoute, 77);
            rows.site(SiteSlot(2 * t)).rx_keepalives.add(w);
            rows.volume(TenantSlot(t)).rx_keepalives.add(w);
            rows.site(SiteSlot(2 * t)).tx_keepalives.add(2 * w);
            rows.volume(TenantSlot(t)).tx_keepalives.add(2 * w);
        }
        rows.hub.count(DropReason::AuthFailed, 1490);
        rows.turns.turns.add(100 * w);
        rows.turns.batches.add(10 * w);
        rows.turns.frames.add(90 * w);
        rows.latency.record(10_000 * w, 3);
        rows.ring_time.record(500 * w, 2);
    }
    hub.control.drops.count(DropReason::HandshakeMac1, 190);
    hub.control.xdp_drops.set(DropReason::XdpSessionUnknown, 17, 17 * 74);
    hub.control.hub.sessions.set(4);
    hub.control.hub.session_capacity.set(256);
    hub.control.hub.handshakes_completed.add(9);
    hub.control.hub.clock_synchronised.set(2);
    hub.control.hub.paths.set(30);
    hub.control.hub.paths_other.set(20);
    hub.control.hub.paths_dead.set(10);
    hub.control.xdp(PortIndex(1)).seen_frames.set(4711);
    hub.control.worker(0).busy_ppm.set(250_000);
    hub.control.site(SiteSlot(1)).session.set(2);
    hub.control.site(SiteSlot(1)).last_handshake_at.set(123);
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().mode() & 0o7777
}
