//! A hub without a hub: a segment, and somebody who counts in it as workers and control do.

use stats::{ControlRows, Now, Reader, Rows, Segment, Shape, Spec};
use std::path::PathBuf;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

pub(super) const S: u64 = 1_000_000_000;
/// The machine runs for so many seconds when a hub starts.
const STARTED: u64 = 100_000;
/// The machine started so that the hub does at noon of 14 November 2023, UTC, less a thousand seconds.
const WALL: u64 = 1_699_963_200 - 1000 - STARTED;

pub(super) struct Hub {
    directory: tempfile::TempDir,
    segment: Segment,
    rows: Rows,
    pub(super) control: ControlRows,
    /// Seconds since boot.
    pub(super) second: u64,
}

impl Hub {
    /// Three tenants with sites "a" and "b" each: one as they are, one that means harm, and one without a name.
    pub(super) fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), STARTED)
    }

    fn in_directory(directory: tempfile::TempDir, second: u64) -> Self {
        let shape = Shape { tenants: 3, sites: 6, ports: 1, ..Shape::default() };
        let spec = Spec {
            hub: "tokyo-1".into(),
            build: "0.1.0".into(),
            config_hash: 1,
            shape,
            room: Shape::default(),
            workers: 1,
            memory: 64 << 20,
            group: None,
        };
        let started = Now { ns: second * S, wall_ns: (WALL + second) * S };
        let mut segment = Segment::create_at(&directory.path().join("stats"), spec, started).unwrap().segment;
        segment.configure(|directory| {
            let tenants = [
                (1001, "WAN00001001", "株式会社 駅伝 東京本社ネットワークサービス"),
                (1002, "WAN00001002", "evil\u{1b}[2J\u{202e}\r\n👨\u{200d}👩\u{7}<b>&amp;"),
                (1003, "", ""),
            ];
            for (t, (id, code, label)) in tenants.into_iter().enumerate() {
                let slot = TenantSlot(t as u32);
                directory.tenant(slot, TenantId::new(id).unwrap(), code, label).unwrap();
                directory.site(SiteSlot(2 * t as u32), slot, "a").unwrap();
                directory.site(SiteSlot(2 * t as u32 + 1), slot, "大阪").unwrap();
            }
            directory.port(PortIndex(0), "wan0", 1, 2048).unwrap();
            directory.worker(0, 2, 4096).unwrap();
        });
        segment.publish().unwrap();
        let (rows, control) = (segment.rows(0), segment.control_rows());
        control.hub.sessions.set(6);
        control.hub.session_capacity.set(4096);
        control.hub.clock_synchronised.set(1);
        (0..6).for_each(|site| control.site(SiteSlot(site)).session.set(2));
        let mut this = Self { directory, segment, rows, control, second };
        this.tick();
        this
    }

    /// Another hub of that name, after `seconds`.
    pub(super) fn restarted(self, seconds: u64) -> Self {
        let second = self.second + seconds;
        let Self { directory, .. } = self;
        Self::in_directory(directory, second)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().join("stats")
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    pub(super) fn now(&self) -> Now {
        Now { ns: self.second * S, wall_ns: (WALL + self.second) * S }
    }

    /// A second passes.
    pub(super) fn pass(&mut self) {
        self.second += 1;
        self.tick();
    }

    fn tick(&mut self) {
        let now = self.now();
        self.control.hub.ticked_ns.set(now.ns);
        self.control.hub.ticked_wall_ns.set(now.wall_ns);
        self.control.worker(0).busy_ppm.set(123_456);
        self.control.worker(0).batch_milliframes.set(4_200);
        self.segment.tick(now, 0, 1);
    }

    /// From now on there is a trunk to "osaka" with two lanes, in the slots 7 and 8, which carries the first tenant.
    pub(super) fn trunk(&mut self) {
        self.segment.configure(|directory| {
            directory.carried(SiteSlot(6), TenantSlot(0), "osaka").unwrap();
            (0..2).for_each(|lane| directory.lane(SiteSlot(7 + lane), "osaka", lane as usize).unwrap());
        });
        self.control.site(SiteSlot(6)).session.set(5);
        for lane in [7, 8] {
            let state = self.control.site(SiteSlot(lane));
            [&state.up, &state.probes_sent].into_iter().for_each(|field| field.set(1));
            state.rtt_us.set(3142);
        }
    }

    /// Frames that come by a lane, and as many bytes that go.
    pub(super) fn carry(&self, lane: u32, frames: u64, bytes: u64) {
        let row = self.rows.site(SiteSlot(7 + lane));
        row.rx_outer_packets.add(frames);
        row.rx_outer_bytes.add(bytes);
        row.tx_outer_bytes.add(bytes);
        row.tx_keepalives.add(frames);
    }

    /// Site "a" of a tenant sends packets to its "大阪".
    pub(super) fn relay(&self, tenant: u32, packets: u64, bytes_each: u64) {
        let (from, to) = (self.rows.site(SiteSlot(2 * tenant)), self.rows.site(SiteSlot(2 * tenant + 1)));
        let sum = self.rows.volume(TenantSlot(tenant));
        for row in [&from.rx_packets, &sum.rx_packets, &to.tx_packets, &sum.tx_packets] {
            row.add(packets);
        }
        for row in [&from.rx_bytes, &sum.rx_bytes, &to.tx_bytes, &sum.tx_bytes] {
            row.add(packets * bytes_each);
        }
        let port = self.rows.port(PortIndex(0));
        [&port.rx_frames, &port.tx_frames, &self.rows.turns.frames].into_iter().for_each(|row| row.add(packets));
        [&port.rx_bytes, &port.tx_bytes].into_iter().for_each(|row| row.add(packets * (bytes_each + 74)));
        self.rows.latency.record(20_000, packets);
    }

    /// Packets of a tenant that go nowhere.
    pub(super) fn drop(&self, tenant: u32, reason: DropReason, packets: u64) {
        (0..packets).for_each(|_| self.rows.tenant(TenantSlot(tenant)).count(reason, 100));
    }
}
