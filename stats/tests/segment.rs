//! What a writer writes is what a reader reads: names, counts, history; across growth, restart and reuse of slots.

mod common;

use common::{Hub, SECOND, fill, mode, receive, send, spec};
use stats::{BUCKETS, Lane, Now, ReadError, Reader, Segment, Series, SessionState, Shape, SiteKind, Spec};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

#[test]
fn a_reader_finds_every_count_under_its_name() {
    let hub = Hub::new(3, 2);
    fill(&hub, 3);
    let snapshot = Reader::open(&hub.path()).unwrap().snapshot().unwrap();

    assert_eq!((&*snapshot.hub.name, &*snapshot.hub.build, snapshot.hub.config_hash), ("tokyo-1", "0.1.0", 0xfeed));
    assert_eq!(snapshot.hub.pid, std::process::id());
    assert_ne!(snapshot.hub.boot_id, [0; 16]);
    assert_eq!((snapshot.hub.sessions, snapshot.hub.session_capacity), (4, 256));
    assert_eq!((snapshot.hub.handshakes_completed, snapshot.hub.clock_synchronised), (9, Some(false)));
    assert_eq!((snapshot.hub.paths, snapshot.hub.paths_other, snapshot.hub.paths_dead), (30, 20, 10));
    assert_eq!(snapshot.tenants.iter().map(|t| t.id.as_u32()).collect::<Vec<_>>(), [1000, 1001, 1002]);

    let tenant = snapshot.tenant("WAN00001002").unwrap();
    assert_eq!((tenant, &*tenant.label), (snapshot.tenant("1002").unwrap(), "株式会社 駅伝"));
    // Worker 1: three packets of 1002 bytes; worker 2: six of 2002; both one more of 77, which was dropped.
    assert_eq!((tenant.traffic.rx_packets, tenant.traffic.rx_bytes), (11, 3 * 1002 + 6 * 2002 + 2 * 77));
    assert_eq!((tenant.traffic.tx_packets, tenant.traffic.tx_bytes), (9, 3 * 1002 + 6 * 2002));
    assert_eq!(tenant.traffic.rx_outer_bytes, tenant.traffic.rx_bytes + 11 * 74);
    assert_eq!((tenant.traffic.rx_keepalives, tenant.traffic.tx_outer_packets), (3, 9 + 6));
    assert_eq!(tenant.drops, [(DropReason::NoRoute as u8, 2, 2 * 77)]);

    let sites: Vec<_> = snapshot.sites_of(tenant).collect();
    assert_eq!(sites.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["a", "大阪"]);
    assert_eq!((sites[0].traffic.rx_packets, sites[1].traffic.tx_bytes), (9, 3 * 1002 + 6 * 2002));
    assert_eq!(snapshot.tenant_of(sites[1]), Some(tenant));
    assert_eq!((snapshot.sites[1].session, snapshot.sites[1].last_handshake_at), (SessionState::Live, 123));

    let drop = |reason: DropReason| {
        let drop = snapshot.drops.iter().find(|d| d.number == reason as u8).unwrap();
        assert_eq!(drop.name, reason.name());
        (drop.packets, drop.bytes)
    };
    assert_eq!(snapshot.drops.len(), wire::DROP_REASONS.len());
    assert_eq!(drop(DropReason::NoRoute), (6, 6 * 77));
    assert_eq!(drop(DropReason::AuthFailed), (2, 2980));
    assert_eq!(drop(DropReason::HandshakeMac1), (1, 190));
    assert_eq!(drop(DropReason::XdpSessionUnknown), (17, 17 * 74));
    assert_eq!(drop(DropReason::TtlExpired), (0, 0));

    assert_eq!((snapshot.ports.len(), &*snapshot.ports[1].name, snapshot.ports[1].queues), (2, "wan1", 2));
    assert_eq!((snapshot.ports[0].ring_entries, snapshot.ports[1].ring_entries), (2048, 4096));
    assert_eq!((snapshot.ports[1].xdp_seen_frames, snapshot.ports[0].rx_frames), (4711, 18 + 6));
    assert_eq!((snapshot.workers[1].core, snapshot.workers[1].frames, snapshot.workers[0].busy_ppm), (3, 180, 250_000));
    assert_eq!((snapshot.workers[1].latency.count(), snapshot.workers[1].latency.sum_ns), (3, 60_000));
    assert_eq!(
        (snapshot.workers[1].ring_time.quantile(1.0), snapshot.workers[1].latency.counts.len()),
        (1003, BUCKETS)
    );
    assert_eq!((snapshot.books.inputs, snapshot.books.outputs), (24, 18 + 6 + 2));
    assert_eq!(hub.segment.snapshot(), snapshot, "the hub itself finds the same");
}

#[test]
fn a_lane_is_no_tenants_and_what_a_trunk_carries_is_its_tenants() {
    let mut hub = Hub::new(2, 2);
    hub.segment.configure(|directory| directory.access(SiteSlot(3), TenantSlot(1), "eth1.100")).unwrap();
    let first = common::trunk(&mut hub, 1);
    let (carried, second) = (first.index() - 1, first.index() + 1);
    let state = hub.control.site(first);
    let fields = [
        &state.rtt_us,
        &state.jitter_us,
        &state.probes_sent,
        &state.probes_lost,
        &state.loss_ppm,
        &state.changes,
        &state.since_ns,
        &state.mtu,
    ];
    (1..).zip(fields).for_each(|(n, field)| field.set(100 * n));
    state.up.set(1);
    hub.control.site(SiteSlot(carried as u32)).session.set(5);
    let mut reader = Reader::open(&hub.path()).unwrap();
    let snapshot = reader.snapshot().unwrap();

    let kinds: Vec<_> = snapshot.sites.iter().map(|site| (site.kind, site.trunk())).collect();
    let (site, osaka) = ((SiteKind::Site, None), Some("osaka"));
    let lane = (SiteKind::Lane, osaka);
    assert_eq!(kinds, [site, site, site, (SiteKind::Access, None), (SiteKind::Trunk, osaka), lane, lane]);
    let names =
        |tenant: usize| snapshot.sites_of(&snapshot.tenants[tenant]).map(|site| &*site.name).collect::<Vec<_>>();
    assert_eq!((names(0), names(1)), (vec!["a", "大阪"], vec!["a", "eth1.100", "trunk:osaka"]));
    assert_eq!(snapshot.ends().count(), 5);
    assert_eq!(snapshot.sites[carried].session, SessionState::Attached);
    assert!(snapshot.sites[..first.index()].iter().all(|end| snapshot.tenant_of(end).is_some() && end.lane.is_none()));
    let lanes: Vec<_> = snapshot.lanes().map(|(site, lane)| (site.slot, &*site.name, *lane)).collect();
    let known = Lane {
        up: true,
        rtt_us: 100,
        jitter_us: 200,
        probes_sent: 300,
        probes_lost: 400,
        loss_ppm: 500,
        changes: 600,
        since_ns: 700,
        mtu: 800,
    };
    assert_eq!(lanes, [(first.index(), "osaka/0", known), (second, "osaka/1", Lane::default())]);
    let nobody = |site: &stats::Site| site.tenant as u64 == u64::MAX && snapshot.tenant_of(site).is_none();
    assert!(snapshot.lanes().all(|(site, _)| nobody(site)));

    // A site, an end and a lane of one name are not each other.
    let generation = |reader: &mut Reader| reader.snapshot().unwrap().sites[0].generation;
    let before = generation(&mut reader);
    for (grown, kind) in [(2, SiteKind::Access), (4, SiteKind::Site)] {
        hub.segment
            .configure(|directory| match kind {
                SiteKind::Access => directory.access(SiteSlot(0), TenantSlot(0), "a"),
                _ => directory.site(SiteSlot(0), TenantSlot(0), "a"),
            })
            .unwrap();
        assert_eq!(generation(&mut reader), before + grown);
    }
}

#[test]
fn the_history_of_a_lane_is_of_what_is_outer() {
    let mut hub = Hub::new(1, 2);
    let lane = common::trunk(&mut hub, 0);
    let rows = [hub.rows[0].site(lane), hub.rows[1].site(lane)];
    for row in rows {
        row.rx_packets.add(1);
        row.rx_bytes.add(10);
        row.rx_outer_packets.add(3);
        row.rx_outer_bytes.add(500);
        row.tx_packets.add(2);
        row.tx_bytes.add(20);
        row.tx_outer_bytes.add(700);
    }
    hub.tick(100);
    let reader = Reader::open(&hub.path()).unwrap();
    for series in [Series::Site(lane.index()), Series::SiteLong(lane.index())] {
        let records = reader.history(series, 0).unwrap().records;
        let found: Vec<_> = records.iter().map(|r| (r.rx_packets, r.rx_bytes, r.tx_packets, r.tx_bytes)).collect();
        assert_eq!(found, [(6, 1000, 4, 1400)]);
    }
}

#[test]
fn only_the_group_may_look_and_the_file_appears_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let shape = Shape { tenants: 1, sites: 1, ports: 1, ..Shape::default() };
    // As root, any group; else our own is the only one that may be given.
    let own = fs::metadata(directory.path()).unwrap();
    let group = if own.uid() == 0 { 12345 } else { own.gid() };
    let mut spec = spec(shape, 1);
    spec.group = Some(group);
    let mut segment = Segment::create(&path, spec).unwrap().segment;
    assert!(!path.exists(), "not before it is published");
    segment.publish().unwrap();
    assert_eq!((mode(&path), fs::metadata(&path).unwrap().gid()), (0o640, group));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left of the temporary name");
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.blocks() * 512 >= metadata.len(), "its memory is all there");
}

#[test]
fn history_tells_every_second_that_moved_and_how_many_are_gone() {
    let mut hub = Hub::new(1, 2);
    let reader = Reader::open(&hub.path()).unwrap();
    for second in 10..20 {
        receive(&hub.rows[0], 0, 0, 100);
        send(&hub.rows[1], 0, 1, 100);
        hub.tick(second);
        hub.tick(second); // again at once: too early
    }
    hub.tick(20); // nothing moved
    let history = reader.history(Series::Tenant(0), 0).unwrap();
    assert_eq!((history.records.len(), history.missed, history.next, history.period_ns), (10, 0, 10, common::SECOND));
    for (n, record) in (0..).zip(&history.records) {
        assert_eq!(
            (record.number, record.ns, record.wall_ns),
            (n, (10 + n) * common::SECOND, (1_700_000_010 + n) * common::SECOND)
        );
        assert_eq!(
            (record.rx_packets, record.rx_bytes, record.tx_packets, record.tx_bytes),
            (n + 1, 100 * (n + 1), n + 1, 100 * (n + 1))
        );
    }
    assert_eq!(reader.history(Series::Tenant(0), 7).unwrap().records, history.records[7..]);
    assert_eq!(reader.history(Series::Tenant(0), 10).unwrap().records, []);
    assert_eq!(reader.history(Series::Tenant(5), 0).unwrap().records, [], "an empty slot");
    assert_eq!(reader.history(Series::Tenant(100_000), 0).unwrap().records, [], "no slot");
    // One site received, the other was sent to; ten seconds are one record of the long ring, and what came since the next.
    assert_eq!(reader.history(Series::Site(0), 0).unwrap().records.len(), 10);
    let long = reader.history(Series::SiteLong(1), 0).unwrap().records;
    assert_eq!(long.iter().map(|r| (r.ns / common::SECOND, r.tx_bytes)).collect::<Vec<_>>(), [(10, 100), (20, 1000)]);

    // Whoever comes after 300 records of a site finds 300, and hears how many there were before.
    for second in 31..631 {
        receive(&hub.rows[0], 0, 0, 100);
        hub.tick(second);
    }
    let site = reader.history(Series::Site(0), 4).unwrap();
    assert_eq!((site.records.len(), site.missed, site.next), (300, 610 - 300 - 4, 610));
    assert_eq!(site.records[0].number, 310);
    assert_eq!(reader.history(Series::Tenant(0), 0).unwrap().records.len(), 610);
    assert_eq!(reader.history_span_ns(Series::Tenant(0)), 3600 * common::SECOND);

    hub.rows[0].hub.count(DropReason::AuthFailed, 60);
    hub.tick(641);
    let drops = reader.history(Series::Drop(DropReason::AuthFailed as u8), 0).unwrap().records;
    assert_eq!(drops.iter().map(|r| (r.rx_packets, r.rx_bytes)).collect::<Vec<_>>(), [(1, 60)]);
}

#[test]
fn a_slot_has_another_generation_for_another_tenant_and_nothing_of_the_old_one() {
    let mut hub = Hub::new(2, 1);
    let mut reader = Reader::open(&hub.path()).unwrap();
    receive(&hub.rows[0], 0, 0, 100);
    hub.rows[0].tenant(TenantSlot(0)).count(DropReason::NoRoute, 60);
    hub.tick(1);
    let before = reader.snapshot().unwrap().tenants[0].clone();
    // Another label is the same tenant.
    let id = TenantId::new(1000).unwrap();
    hub.segment.configure(|d| d.tenant(TenantSlot(0), id, "WAN00001000", "renamed")).unwrap();
    let renamed = reader.snapshot().unwrap().tenants[0].clone();
    assert_eq!((renamed.generation, &*renamed.label, renamed.traffic), (before.generation, "renamed", before.traffic));
    assert_eq!(reader.history(Series::Tenant(0), 0).unwrap().records.len(), 1);

    hub.segment.configure(|d| d.clear_tenant(TenantSlot(0)).and(d.clear_site(SiteSlot(0)))).unwrap();
    let snapshot = reader.snapshot().unwrap();
    assert_eq!((snapshot.tenants.len(), snapshot.tenants[0].slot, snapshot.sites.len()), (1, 1, 3));
    hub.rows[0].clear_tenant(TenantSlot(0));
    hub.rows[0].clear_site(SiteSlot(0));
    hub.segment.configure(|d| d.tenant(TenantSlot(0), TenantId::new(7).unwrap(), "new", "")).unwrap();
    let after = reader.snapshot().unwrap().tenants[0].clone();
    assert_eq!((after.generation, after.traffic, after.drops), (before.generation + 2, Default::default(), vec![]));
    assert_eq!(reader.history(Series::Tenant(0), 0).unwrap().records, [], "the history of another");
    receive(&hub.rows[0], 0, 0, 1);
    hub.tick(2);
    assert_eq!(reader.history(Series::Tenant(0), 0).unwrap().records[0].rx_bytes, 1);

    let full = hub.segment.configure(|d| d.site(SiteSlot(1_000_000), TenantSlot(0), "x")).unwrap_err();
    assert_eq!((full.slot, full.room), (1_000_000, hub.segment.room().sites));
}

/// A segment with one tenant and two sites, and places for many more.
fn roomy(memory: u64) -> (tempfile::TempDir, Segment) {
    // In memory, as a hub's: other file systems give nothing to who reads where nothing is.
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let few = Shape { tenants: 1, sites: 2, ports: 1, rules: 1 };
    let room = Shape { tenants: 2000, sites: 2000, ports: 1, rules: 5000 };
    let spec = Spec { room, memory, ..spec(few, 2) };
    let segment = Segment::create(&directory.path().join("stats"), spec).unwrap().segment;
    (directory, segment)
}

fn seat(segment: &mut Segment, tenant: u32, sites: std::ops::Range<u32>) {
    let id = TenantId::new(u64::from(1000 + tenant)).unwrap();
    segment.configure(|d| {
        d.tenant(TenantSlot(tenant), id, &format!("T{tenant}"), "").unwrap();
        sites.for_each(|site| d.site(SiteSlot(site), TenantSlot(tenant), &format!("s{site}")).unwrap());
    });
}

#[test]
fn a_segment_grows_in_its_place_while_workers_count_and_readers_read() {
    let (directory, mut segment) = roomy(512 << 20);
    let path = directory.path().join("stats");
    seat(&mut segment, 0, 0..2);
    segment.configure(|d| d.port(PortIndex(0), "wan0", 2, 2048)).unwrap();
    segment.publish().unwrap();
    let rows: Vec<_> = (0..2).map(|w| segment.rows(w)).collect();
    let mut reader = Reader::open(&path).unwrap();
    let mut handed = Reader::from_file(segment.descriptor().unwrap(), "the hub's".as_ref()).unwrap();
    receive(&rows[0], 0, 1, 100);
    rows[1].tenant(TenantSlot(0)).count(DropReason::NoRoute, 60);
    let tick = |segment: &mut Segment, second: u64| segment.tick(at(second), 0, 1);
    tick(&mut segment, 1);
    let before = reader.snapshot().unwrap();
    let history = reader.history(Series::Site(1), 0).unwrap();
    let (length, inode) = (fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().ino());
    let room = segment.room();
    assert!(room.sites < 1000 && segment.configure(|d| d.site(SiteSlot(999), TenantSlot(0), "x")).is_err());

    // Workers go on in the rows that they have, of those who were there and of those who come; nobody tells them anything.
    assert_eq!(segment.grow(Shape { tenants: 900, sites: 1000, ports: 1, rules: 3000 }).unwrap(), None);
    assert!(segment.room().sites >= 1000 && segment.room().tenants >= 900 && segment.room().rules >= 3000);
    let mut same = reader.snapshot().unwrap();
    same.hub.configured_wall_ns = before.hub.configured_wall_ns;
    assert_eq!(same, before, "nothing but room has changed");
    assert_eq!(reader.history(Series::Site(1), 0).unwrap(), history);
    seat(&mut segment, 899, 990..1000);
    segment.configure(|d| d.rule(2999, TenantSlot(899), "r", true)).unwrap();
    receive(&rows[1], 0, 1, 10);
    receive(&rows[1], 899, 999, 7);
    rows[0].tenant(TenantSlot(899)).count(DropReason::NoRoute, 7);
    rows[0].rule(2999).packets.add(3);
    segment.control_rows().site(SiteSlot(999)).session.set(2);
    tick(&mut segment, 2);

    for reader in [&mut reader, &mut handed] {
        let after = reader.snapshot().unwrap();
        assert_eq!((after.hub.generation, after.hub.boot_id), (1, before.hub.boot_id));
        assert_eq!((after.tenants.len(), after.sites.len()), (2, 12));
        let site = |slot: usize| after.sites.iter().find(|site| site.slot == slot).unwrap();
        assert_eq!((site(1).traffic.rx_packets, site(1).traffic.rx_bytes), (2, 110));
        assert_eq!((&*site(999).name, site(999).traffic.rx_bytes, site(999).session), ("s999", 7, SessionState::Live));
        assert_eq!((site(990).traffic, site(0).traffic), Default::default());
        let tenant = after.tenant("T899").unwrap();
        assert_eq!((tenant.traffic.rx_bytes, &tenant.drops[..]), (7, &[(DropReason::NoRoute as u8, 1, 7)][..]));
        assert_eq!((after.rules.len(), after.rules[0].packets), (1, 3));
        let dropped = after.drops.iter().find(|d| d.number == DropReason::NoRoute as u8).unwrap();
        assert_eq!((dropped.packets, dropped.bytes), (2, 67), "of who was there and of who came");
        assert_eq!((after.books.inputs, after.books.outputs), (3, 2));
        let news = reader.history(Series::Site(1), history.next).unwrap().records;
        assert_eq!(news.iter().map(|r| r.rx_bytes).collect::<Vec<_>>(), [110]);
        assert_eq!(reader.history(Series::Tenant(899), 0).unwrap().records[0].rx_bytes, 7);
    }
    assert_eq!((fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().ino()), (length, inode));
    let full = segment.grow(Shape { tenants: 1, sites: 2001, ports: 1, rules: 0 }).unwrap_err().to_string();
    assert!(full.contains("places for 2000 tenants, 2000 sites and 5000 rules"), "{full}");
}

#[test]
fn room_takes_no_memory_before_it_is_used_and_none_by_being_read() {
    let (directory, mut segment) = roomy(1 << 30);
    let path = directory.path().join("stats");
    seat(&mut segment, 0, 0..2);
    segment.publish().unwrap();
    let memory = || fs::metadata(&path).unwrap().blocks() * 512;
    let (at_first, length) = (memory(), fs::metadata(&path).unwrap().len());
    assert!(at_first * 20 < length, "{at_first} of {length} bytes");
    let mut reader = Reader::open(&path).unwrap();
    (1..20).for_each(|second| segment.tick(at(second), 0, 1));
    reader.snapshot().unwrap();
    (0..2000).for_each(|slot| _ = reader.history(Series::Tenant(slot), 0).unwrap());
    assert_eq!(memory(), at_first);

    segment.grow(Shape { tenants: 100, sites: 2, ports: 1, rules: 1 }).unwrap();
    let grown = memory();
    assert!(grown > at_first && grown * 5 < length, "{grown} of {length} bytes");
    // What is used is there, so that a full file system fails nobody later.
    seat(&mut segment, 99, 2..4);
    receive(&segment.rows(1), 99, 3, 5);
    (20..40).for_each(|second| segment.tick(at(second), 0, 1));
    assert_eq!(reader.snapshot().unwrap().tenants[1].traffic.rx_bytes, 5);
    assert_eq!(memory(), grown);
}

#[test]
fn more_memory_than_is_configured_is_said_once() {
    let (_directory, mut segment) = roomy(8 << 20);
    let span = |segment: &Segment| {
        let reader = Reader::from_file(segment.descriptor().unwrap(), "it".as_ref()).unwrap();
        reader.history_span_ns(Series::Tenant(0))
    };
    let before = span(&segment);
    let warning = segment.grow(Shape { tenants: 200, ..Shape::default() }).unwrap().unwrap();
    assert!(warning.contains("where 8 MiB are configured"), "{warning}");
    assert_eq!(segment.grow(Shape { tenants: 400, ..Shape::default() }).unwrap(), None);
    assert_eq!(span(&segment), before);
}

#[test]
fn a_restart_is_another_boot_and_no_silent_reset() {
    let mut hub = Hub::new(1, 1);
    receive(&hub.rows[0], 0, 0, 100);
    hub.tick(1);
    receive(&hub.rows[0], 0, 0, 11);
    let mut reader = Reader::open(&hub.path()).unwrap();
    let before = reader.snapshot().unwrap();
    hub.segment.end();
    for series in [Series::Tenant(0), Series::Site(0), Series::SiteLong(0)] {
        assert_eq!(reader.history(series, 0).unwrap().records.last().unwrap().rx_bytes, 111, "the last word");
    }
    assert!(reader.snapshot().unwrap().hub.ended);
    let path = hub.path();
    let Hub { directory, .. } = hub; // the process is gone, its file is not
    assert_eq!(reader.snapshot().unwrap().tenants, before.tenants);

    let mut next =
        Segment::create(&path, spec(Shape { tenants: 1, sites: 1, ports: 1, ..Shape::default() }, 1)).unwrap().segment;
    next.publish().unwrap();
    let after = reader.snapshot().unwrap();
    assert_ne!(after.hub.boot_id, before.hub.boot_id);
    assert!(!after.hub.ended && after.tenants.is_empty());
    fs::remove_file(&path).unwrap();
    assert_eq!(reader.snapshot().unwrap().hub.boot_id, after.hub.boot_id, "what is mapped is read on");
    drop(directory);
}

#[test]
fn too_little_memory_shortens_the_history_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stats");
    let shape = Shape { tenants: 100, sites: 400, ports: 1, ..Shape::default() };
    let mut whole = spec(shape, 1);
    whole.memory = 512 << 20;
    assert_eq!(Segment::create(&path, whole.clone()).unwrap().warning, None);
    let mut half = whole.clone();
    half.memory = 32 << 20;
    let created = Segment::create(&path, half.clone()).unwrap();
    let warning = created.warning.unwrap();
    let mut segment = created.segment;
    segment.publish().unwrap();
    assert!(fs::metadata(&path).unwrap().len() <= half.memory);
    let span = Reader::open(&path).unwrap().history_span_ns(Series::Tenant(0)) / common::SECOND;
    assert!((600..3600).contains(&span), "{span}");
    assert!(warning.contains(&format!("32 MiB: {span} s of tenants")), "{warning}");

    // Even if the counters alone are more, the hub counts.
    let mut none = whole;
    none.memory = 1;
    assert!(Segment::create(&path, none).unwrap().warning.unwrap().contains("the counters alone"));
}

#[test]
fn a_descriptor_reads_what_a_name_does() {
    let hub = Hub::new(1, 1);
    receive(&hub.rows[0], 0, 0, 100);
    let file = hub.segment.descriptor().unwrap();
    assert!(file.set_len(0).is_err(), "for reading alone");
    let handed = Reader::from_file(file, "the hub's".as_ref()).unwrap().snapshot().unwrap();
    assert_eq!(handed, Reader::open(&hub.path()).unwrap().snapshot().unwrap());
}

#[test]
fn a_socket_hands_the_segment_out() {
    let hub = Hub::new(1, 1);
    receive(&hub.rows[0], 0, 0, 100);
    let socket = hub.directory.path().join("stats.sock");
    assert!(Reader::from_socket(&socket).unwrap_err().to_string().contains("could not get the segment from"));
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let file = hub.segment.descriptor().unwrap();
    std::thread::spawn(move || stats::hand_out(&listener, &file));
    let mut readers: Vec<_> = (0..3).map(|_| Reader::from_socket(&socket).unwrap()).collect();
    fs::remove_file(hub.path()).unwrap();
    for reader in &mut readers {
        assert_eq!(reader.snapshot().unwrap().tenants[0].traffic.rx_bytes, 100);
    }
}

#[test]
fn a_file_that_shrinks_under_a_reader_is_an_error_and_not_the_end_of_it() {
    let hub = Hub::new(3, 1);
    fill(&hub, 3);
    let mut reader = Reader::open(&hub.path()).unwrap();
    let other = Reader::open(&hub.path()).unwrap();
    reader.snapshot().unwrap();
    let file = File::options().write(true).open(hub.path()).unwrap();
    file.set_len(8192).unwrap();
    assert!(matches!(reader.snapshot(), Err(ReadError::Truncated { .. })));
    assert!(matches!(other.history(Series::Site(3), 0), Err(ReadError::Truncated { .. })));
    assert!(matches!(Reader::open(&hub.path()), Err(ReadError::NotASegment { .. })));
    file.set_len(0).unwrap();
    assert!(matches!(reader.snapshot(), Err(ReadError::Truncated { .. })));
    assert_eq!(
        Reader::open(&hub.path()).unwrap_err().to_string().split(": ").nth(1),
        Some("0 bytes; a header has 4096")
    );
    // The hub counts on, into memory that nobody else sees, and knows it.
    receive(&hub.rows[0], 0, 0, 1);
    assert!(hub.rows[0].lost() && hub.segment.lost());
}

#[test]
fn a_directory_that_never_stands_still_is_given_up() {
    let mut hub = Hub::new(1, 1);
    let mut reader = Reader::open(&hub.path()).unwrap();
    let result = hub.segment.configure(|_| reader.snapshot());
    assert!(matches!(result, Err(ReadError::Busy { .. })), "{result:?}");
    reader.snapshot().unwrap();
}

#[test]
fn rows_without_a_file_count_as_well() {
    let rows = stats::Rows::new(Shape { tenants: 1, sites: 2, ports: 1, ..Shape::default() });
    receive(&rows, 0, 1, 5);
    assert_eq!((rows.site(SiteSlot(1)).rx_bytes.read(), rows.port(PortIndex(0)).rx_frames.read()), (5, 1));
}

fn at(second: u64) -> Now {
    Now { ns: second * SECOND, wall_ns: (1_700_000_000 + second) * SECOND }
}
