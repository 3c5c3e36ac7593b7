//! A segment as a hub would write it, and what the exporter makes of it.

mod trunks;

use super::text::Label;
use super::*;
use proptest::prelude::*;
use stats::{ControlRows, Rows, Segment, Shape, Spec};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

struct Hub {
    _directory: tempfile::TempDir,
    path: PathBuf,
    segment: Segment,
    rows: Vec<Rows>,
    control: ControlRows,
}

impl Hub {
    /// Tenants with two sites each; two workers, two ports.
    fn new(tenants: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/tokyo-1/stats");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        Self::at(directory, path, tenants)
    }

    fn at(directory: tempfile::TempDir, path: PathBuf, tenants: u32) -> Self {
        let shape = Shape { tenants: tenants as usize, sites: 2 * tenants as usize, ports: 2, ..Shape::default() };
        let spec = Spec {
            hub: "tokyo-1".into(),
            build: "1.2.3".into(),
            config_hash: 0xfeed,
            shape,
            room: Shape::default(),
            workers: 2,
            memory: 1 << 20,
            group: None,
        };
        let mut segment = Segment::create(&path, spec).unwrap().segment;
        segment.configure(|directory| {
            for t in 0..tenants {
                let (slot, id) = (TenantSlot(t), TenantId::new(u64::from(1001 + t)).unwrap());
                directory.tenant(slot, id, &format!("WAN{:08}", 1001 + t), "株式会社 駅伝").unwrap();
                directory.site(SiteSlot(2 * t), slot, "a").unwrap();
                directory.site(SiteSlot(2 * t + 1), slot, "b").unwrap();
            }
            directory.port(PortIndex(0), "wan0", 2, 2048).unwrap();
            directory.port(PortIndex(1), "wan1", 2, 512).unwrap();
            (0..2).for_each(|w| directory.worker(w, w + 4, 4096).unwrap());
        });
        segment.publish().unwrap();
        let rows = (0..2).map(|w| segment.rows(w)).collect();
        let control = segment.control_rows();
        control.hub.ticked_ns.set(Now::read().ns);
        Self { _directory: directory, path, segment, rows, control }
    }

    /// Another hub of that name.
    fn restarted(self, tenants: u32) -> Self {
        let Self { _directory, path, mut segment, .. } = self;
        segment.end();
        Self::at(_directory, path, tenants)
    }

    fn exporter(&self) -> Exporter {
        let run_dir = self.path.parent().unwrap().parent().unwrap().to_owned();
        Exporter::new(&ExporterArgs {
            listen: ([127, 0, 0, 1], 0).into(),
            interface: None,
            segment: SegmentArgs { hub: None, stats: None, run_dir },
            no_sites: false,
            max_series: 1000,
            log: None,
        })
    }
}

/// Series and their values, from an answer in either format.
fn series(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(found.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{name} twice");
    }
    found
}

fn scrape(exporter: &mut Exporter) -> BTreeMap<String, f64> {
    let (open, classic) = (exporter.scrape(Format::OpenMetrics).unwrap(), exporter.scrape(Format::Classic).unwrap());
    let (open, classic) = (series(&open), series(&classic));
    let names = |all: &BTreeMap<String, f64>| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&open), names(&classic), "both formats have the same series");
    classic
}

#[test]
fn every_count_is_found_under_its_name() {
    let hub = Hub::new(2);
    // What a site, a tenant, a port... counted is the number of the field, once by each worker: none can be mistaken.
    for rows in &hub.rows {
        let (site, tenant, port) = (rows.site(SiteSlot(2)), rows.volume(TenantSlot(1)), rows.port(PortIndex(1)));
        for (n, (s, t)) in (1..).zip([
            (&site.rx_packets, &tenant.rx_packets),
            (&site.rx_bytes, &tenant.rx_bytes),
            (&site.rx_outer_packets, &tenant.rx_outer_packets),
            (&site.rx_outer_bytes, &tenant.rx_outer_bytes),
            (&site.rx_keepalives, &tenant.rx_keepalives),
            (&site.tx_packets, &tenant.tx_packets),
            (&site.tx_bytes, &tenant.tx_bytes),
            (&site.tx_outer_bytes, &tenant.tx_outer_bytes),
            (&site.tx_keepalives, &tenant.tx_keepalives),
        ]) {
            s.set(n);
            t.set(100 + n);
        }
        site.staged.set(20);
        let fields = [&port.rx_frames, &port.rx_bytes, &port.ring_lost, &port.tx_frames, &port.tx_bytes];
        for (n, field) in (21..).zip(fields.into_iter().chain([&port.completed_frames, &port.ring_fill])) {
            field.set(n);
        }
        rows.tenant(TenantSlot(1)).set(DropReason::NoRoute, 31, 3100);
        rows.hub.set(DropReason::AuthFailed, 32, 3200);
    }
    let worker = &hub.rows[1].turns;
    let fields = [&worker.turns, &worker.batches, &worker.frames, &worker.generated, &worker.to_control];
    for (n, field) in (41..).zip(fields.into_iter().chain([&worker.keepalives, &worker.reassembled])) {
        field.set(n);
    }
    worker.staged.set(48);
    worker.chunks_free.set(49);
    worker.busy_ns.set(1_500_000_000);
    worker.asleep_ns.set(2_500_000_000);
    let control = &hub.control;
    control.worker(1).busy_ppm.set(250_000);
    control.worker(1).batch_milliframes.set(1500);
    control.drops.set(DropReason::HandshakeMac1, 33, 3300);
    control.xdp_drops.set(DropReason::XdpMalformed, 34, 3400);
    let xdp = control.xdp(PortIndex(1));
    for (n, field) in (51..).zip([
        &xdp.seen_frames,
        &xdp.seen_bytes,
        &xdp.passed_frames,
        &xdp.passed_bytes,
        &xdp.redirected_frames,
        &xdp.redirected_bytes,
        &xdp.dropped_frames,
        &xdp.dropped_bytes,
    ]) {
        field.set(n);
    }
    for (n, field) in (61..).zip([
        &control.hub.sessions,
        &control.hub.session_capacity,
        &control.hub.handshakes_begun,
        &control.hub.handshakes_answered,
        &control.hub.handshakes_completed,
        &control.hub.handshakes_given_up,
        &control.hub.cookies_sent,
    ]) {
        field.set(n);
    }
    control.hub.clock_synchronised.set(2);
    control.site(SiteSlot(2)).session.set(3);
    control.site(SiteSlot(2)).handshakes.set(71);
    control.site(SiteSlot(2)).located.set(1);

    let found = scrape(&mut hub.exporter());
    let site = r#"{tenant="WAN00001002",site="a"}"#;
    let tenant = r#"{tenant="WAN00001002"}"#;
    let mut expected = Vec::new();
    for (n, name) in (1..).zip(["packets", "bytes", "outer_packets", "outer_bytes", "keepalives"]) {
        expected.push((format!("ekiden_site_receive_{name}_total{site}"), 2 * n));
        expected.push((format!("ekiden_tenant_receive_{name}_total{tenant}"), 2 * (100 + n)));
    }
    for (n, name) in [(6, "packets"), (7, "bytes"), (6 + 9, "outer_packets"), (8, "outer_bytes"), (9, "keepalives")] {
        let tenants = if name == "outer_packets" { 106 + 109 } else { 100 + n };
        expected.push((format!("ekiden_site_transmit_{name}_total{site}"), 2 * n));
        expected.push((format!("ekiden_tenant_transmit_{name}_total{tenant}"), 2 * tenants));
    }
    let port = r#"{port="wan1"}"#;
    for (n, name) in (21..).zip([
        "receive_frames_total",
        "receive_bytes_total",
        "receive_lost_frames_total",
        "transmit_frames_total",
        "transmit_bytes_total",
        "transmit_completed_frames_total",
        "ring_fill_frames",
    ]) {
        expected.push((format!("ekiden_port_{name}{port}"), 2 * n));
    }
    for (n, name) in (41..).zip([
        "turns_total",
        "batches_total",
        "frames_total",
        "generated_packets_total",
        "to_control_packets_total",
        "keepalives_total",
        "reassembled_packets_total",
        "staged_packets",
        "chunks_free",
    ]) {
        expected.push((format!(r#"ekiden_worker_{name}{{worker="1"}}"#), n));
    }
    for (n, verdict) in [(53, "passed"), (55, "redirected"), (57, "dropped")] {
        expected.push((format!(r#"ekiden_port_xdp_frames_total{{port="wan1",verdict="{verdict}"}}"#), n));
        expected.push((format!(r#"ekiden_port_xdp_bytes_total{{port="wan1",verdict="{verdict}"}}"#), n + 1));
    }
    let more = [
        ("ekiden_up", 1),
        ("ekiden_hub_running", 1),
        (r#"ekiden_hub_build_info{hub="tokyo-1",version="1.2.3"}"#, 1),
        (r#"ekiden_hub_config_info{hash="000000000000feed"}"#, 1),
        ("ekiden_hub_sessions", 61),
        ("ekiden_hub_session_capacity", 62),
        ("ekiden_hub_clock_synchronised", 0),
        ("ekiden_handshakes_begun_total", 63),
        ("ekiden_handshakes_answered_total", 64),
        (r#"ekiden_handshakes_total{result="completed"}"#, 65),
        (r#"ekiden_handshakes_total{result="given_up"}"#, 66),
        ("ekiden_handshake_cookies_sent_total", 67),
        (r#"ekiden_drops_total{reason="no_route"}"#, 62),
        (r#"ekiden_drop_bytes_total{reason="no_route"}"#, 6200),
        (r#"ekiden_drops_total{reason="auth_failed"}"#, 64),
        (r#"ekiden_drops_total{reason="handshake_mac1"}"#, 33),
        (r#"ekiden_drops_total{reason="xdp_malformed"}"#, 34),
        (r#"ekiden_drops_total{reason="port_down"}"#, 0),
        (r#"ekiden_tenant_drops_total{tenant="WAN00001002",reason="no_route"}"#, 62),
        (r#"ekiden_tenant_drop_bytes_total{tenant="WAN00001002",reason="no_route"}"#, 6200),
        (r#"ekiden_tenant_info{tenant="WAN00001002",id="1002",label="株式会社 駅伝"}"#, 1),
        (r#"ekiden_site_info{tenant="WAN00001002",site="b"}"#, 1),
        (r#"ekiden_site_session_up{tenant="WAN00001002",site="a"}"#, 1),
        (r#"ekiden_site_session_up{tenant="WAN00001002",site="b"}"#, 0),
        (r#"ekiden_site_located{tenant="WAN00001002",site="a"}"#, 1),
        (r#"ekiden_site_handshakes_total{tenant="WAN00001002",site="a"}"#, 71),
        (r#"ekiden_site_staged_packets{tenant="WAN00001002",site="a"}"#, 40),
        (r#"ekiden_port_xdp_seen_frames_total{port="wan1"}"#, 51),
        (r#"ekiden_port_xdp_seen_bytes_total{port="wan1"}"#, 52),
        (r#"ekiden_port_queues{port="wan1"}"#, 2),
        (r#"ekiden_port_ring_entries{port="wan1"}"#, 512),
        (r#"ekiden_port_ring_entries{port="wan0"}"#, 2048),
        (r#"ekiden_worker_info{worker="1",core="5"}"#, 1),
        (r#"ekiden_worker_chunks{worker="1"}"#, 4096),
        ("ekiden_exporter_series_dropped", 0),
    ];
    expected.extend(more.map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in expected {
        assert_eq!(found.get(&name), Some(&f64::from(value)), "{name} in {found:#?}");
    }
    let fractions =
        [("busy_seconds_total", 1.5), ("asleep_seconds_total", 2.5), ("busy_ratio", 0.25), ("batch_frames", 1.5)];
    for (name, value) in fractions {
        assert_eq!(found[&format!(r#"ekiden_worker_{name}{{worker="1"}}"#)], value, "{name}");
    }
    let shown = |name: &str| found.keys().any(|series| series.starts_with(name));
    assert!(shown("process_cpu_seconds_total") && shown("process_resident_memory_bytes") && shown("process_open_fds"));
    let exporter = format!(r#"ekiden_exporter_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"));
    assert!(found.contains_key(&exporter));
}

#[test]
fn moments_are_told_by_the_wall_clock_and_stand_still() {
    let hub = Hub::new(1);
    let now = Now::read();
    hub.control.site(SiteSlot(0)).last_handshake_at.set(now.ns - 60_000_000_000);
    hub.rows[0].site(SiteSlot(0)).data_received_at.set(now.ns - 5_000_000_000);
    let mut exporter = hub.exporter();
    let handshake = r#"ekiden_site_last_handshake_timestamp_seconds{tenant="WAN00001001",site="a"}"#;
    let found = scrape(&mut exporter);
    let ago = now.wall_ns as f64 / 1e9 - found[handshake];
    assert!((59.0..61.0).contains(&ago), "{ago}");
    let received = r#"ekiden_site_last_receive_timestamp_seconds{tenant="WAN00001001",site="a"}"#;
    assert!((found[received] - found[handshake] - 55.0).abs() < 1e-3);
    let never = found.keys().filter(|name| name.contains("_timestamp_seconds{") && name.contains(r#"site="b""#));
    assert_eq!(never.count(), 0, "what never happened has no moment");
    for _ in 0..50 {
        assert_eq!(scrape(&mut exporter)[handshake], found[handshake], "it moved, though nothing happened");
    }
    let mut times = Times::default();
    times.set(1_000_000_000_000);
    times.set(1_000_000_000_000 + CLOCK_STEP_NS / 2);
    let before = times;
    times.set(2_000_000_000_000);
    assert_ne!(format!("{before:?}"), format!("{times:?}"), "a clock that was set is followed");
}

#[test]
fn a_ring_whose_room_is_not_known_is_not_said_to_have_none() {
    let mut hub = Hub::new(1);
    hub.segment.configure(|directory| directory.port(PortIndex(1), "wan1", 2, 0).unwrap());
    let found = scrape(&mut hub.exporter());
    assert_eq!(found[r#"ekiden_port_ring_entries{port="wan0"}"#], 2048.0);
    assert!(!found.contains_key(r#"ekiden_port_ring_entries{port="wan1"}"#), "{found:#?}");
}

#[test]
fn latencies_are_cumulative_buckets() {
    let hub = Hub::new(1);
    hub.rows[0].latency.record(900, 3);
    hub.rows[0].latency.record(60_000, 5);
    hub.rows[0].latency.record(7_000_000_000, 2);
    let found = scrape(&mut hub.exporter());
    let bucket = |le: &str| found[&format!(r#"ekiden_worker_latency_seconds_bucket{{le="{le}",worker="0"}}"#)];
    assert_eq!(["0.000001", "0.00005", "0.0001", "5.0", "+Inf"].map(bucket), [3.0, 3.0, 8.0, 8.0, 10.0], "{found:#?}");
    assert_eq!(found[r#"ekiden_worker_latency_seconds_count{worker="0"}"#], 10.0);
    let sum = found[r#"ekiden_worker_latency_seconds_sum{worker="0"}"#];
    assert!((sum - (3.0 * 900e-9 + 5.0 * 60e-6 + 14.0)).abs() < 1e-9, "{sum}");
}

#[test]
fn labels_can_hold_anything_and_end_nowhere_but_at_their_end() {
    let mut hub = Hub::new(1);
    let hostile = "a\"} 1\nekiden_up{x=\"\\";
    hub.segment.configure(|directory| {
        directory
            .tenant(TenantSlot(0), TenantId::new(7).unwrap(), hostile, "\\n is not \n, and \u{1b}[2J no color")
            .unwrap();
        directory.site(SiteSlot(0), TenantSlot(0), "# EOF\n").unwrap();
    });
    let found = scrape(&mut hub.exporter());
    let code = r#"a\"} 1\nekiden_up{x=\"\\"#;
    let info =
        format!(r#"ekiden_tenant_info{{tenant="{code}",id="7",label="\\n is not \n, and \\u{{1b}}[2J no color"}}"#);
    assert!(found.contains_key(&info), "{found:#?}");
    assert!(found.contains_key(&format!("ekiden_tenant_receive_bytes_total{{tenant=\"{code}\"}}")));
    assert!(found.contains_key(&format!("ekiden_site_info{{tenant=\"{code}\",site=\"# EOF\\n\"}}")));
    assert_eq!(found["ekiden_up"], 1.0);
    assert_ne!(Label::new("\u{7f}"), Label::new("\u{85}"));
}

#[test]
fn of_two_tenants_with_one_code_the_second_is_called_by_its_id() {
    let mut hub = Hub::new(4);
    hub.segment.configure(|directory| {
        for (slot, id, code) in [(0, 7, "x"), (1, 8, "x"), (2, 9, ""), (3, 9, "9")] {
            directory.tenant(TenantSlot(slot), TenantId::new(id).unwrap(), code, "").unwrap();
        }
        directory.site(SiteSlot(1), TenantSlot(0), "a").unwrap();
    });
    let found = scrape(&mut hub.exporter());
    let infos: Vec<_> = found.keys().filter(|name| name.starts_with("ekiden_tenant_info")).collect();
    assert_eq!(infos.len(), 3, "{infos:?}");
    assert!(found.contains_key(r#"ekiden_tenant_receive_bytes_total{tenant="8"}"#));
    // The fourth tenant, its two sites, and the second site "a" of the first.
    assert_eq!(found["ekiden_exporter_series_dropped"], (11 + 3 * 17) as f64);
}

#[test]
fn what_a_limit_leaves_out_is_told_exactly() {
    let hub = Hub::new(10);
    hub.rows[0].tenant(TenantSlot(3)).set(DropReason::NoRoute, 1, 100);
    hub.control.site(SiteSlot(5)).last_handshake_at.set(1);
    let limited = |found: &BTreeMap<String, f64>| {
        found.keys().filter(|name| name.starts_with("ekiden_tenant_") || name.starts_with("ekiden_site_")).count()
    };
    let mut exporter = hub.exporter();
    let whole = limited(&scrape(&mut exporter));
    assert_eq!(whole, 10 * 11 + 2 + 20 * 17 + 1);
    for max in [whole, whole - 1, 200, 113, 112, 50, 11, 10, 0] {
        exporter.max_series = max;
        let found = scrape(&mut exporter);
        let shown = limited(&found);
        assert!(shown <= max, "{shown} of at most {max}");
        // All, all tenants, and the first of them: what just fits is shown.
        assert!(![whole, 112, 11].contains(&max) || shown == max, "{shown} where {max} fit");
        assert_eq!(found["ekiden_exporter_series_dropped"], (whole - shown) as f64, "at most {max}");
        assert!(max > 0 || found["ekiden_up"] == 1.0);
    }
    exporter.max_series = whole;
    exporter.sites = false;
    let found = scrape(&mut exporter);
    assert_eq!((limited(&found), found["ekiden_exporter_series_dropped"]), (112, 0.0), "without sites");
}

#[test]
fn it_answers_without_a_hub_and_follows_one_through_its_lives() {
    let hub = Hub::new(1);
    let mut exporter = hub.exporter();
    let bytes = r#"ekiden_tenant_receive_bytes_total{tenant="WAN00001001"}"#;
    hub.rows[0].volume(TenantSlot(0)).rx_bytes.set(500);
    let aside = hub.path.with_extension("aside");
    fs::rename(&hub.path, &aside).unwrap();
    let found = scrape(&mut exporter);
    assert_eq!(found["ekiden_up"], 0.0);
    assert!(found.contains_key("process_cpu_seconds_total") && !found.contains_key(bytes), "{found:?}");
    assert!(exporter.complaint.as_ref().is_some_and(|text| text.contains("no hub")), "{:?}", exporter.complaint);

    fs::rename(&aside, &hub.path).unwrap();
    let first = scrape(&mut exporter);
    assert_eq!((first["ekiden_up"], first["ekiden_hub_running"], first[bytes]), (1.0, 1.0, 500.0));
    assert_eq!(exporter.complaint, None);

    // A hub that says nothing more is gone, but its last word stands.
    hub.control.hub.ticked_ns.set(1);
    let found = scrape(&mut exporter);
    assert_eq!((found["ekiden_up"], found["ekiden_hub_running"], found[bytes]), (1.0, 0.0, 500.0));

    let mut hub = hub.restarted(2);
    let found = scrape(&mut exporter);
    assert_eq!((found["ekiden_hub_running"], found[bytes]), (1.0, 0.0));
    assert!(found["ekiden_hub_start_time_seconds"] > first["ekiden_hub_start_time_seconds"]);
    assert!(found.contains_key(r#"ekiden_tenant_receive_bytes_total{tenant="WAN00001002"}"#));
    hub.segment.end();
    assert_eq!(scrape(&mut exporter)["ekiden_hub_running"], 0.0);

    // Something else in its place is an error, until a segment is there again.
    fs::rename(&hub.path, &aside).unwrap();
    fs::write(&hub.path, b"not this").unwrap();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 0.0);
    fs::rename(&aside, &hub.path).unwrap();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 1.0);

    // So is one that was cut, until the same file is whole again.
    let bytes = fs::read(&hub.path).unwrap();
    fs::OpenOptions::new().write(true).open(&hub.path).unwrap().set_len(8192).unwrap();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 0.0);
    fs::write(&hub.path, bytes).unwrap();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 1.0);
}

#[test]
fn among_several_hubs_one_must_be_named() {
    let hub = Hub::new(1);
    let other = hub.path.parent().unwrap().with_file_name("osaka-1");
    fs::create_dir(&other).unwrap();
    let mut exporter = hub.exporter();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 1.0, "a directory without statistics is no hub");
    fs::write(other.join("stats"), b"").unwrap();
    let mut exporter = hub.exporter();
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 0.0);
    assert!(
        exporter.complaint.as_ref().is_some_and(|text| text.contains("osaka-1, tokyo-1")),
        "{:?}",
        exporter.complaint
    );
    exporter.segment.hub = Some("tokyo-1".into());
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 1.0);
    let mut exporter = hub.exporter();
    exporter.segment.stats = Some(hub.path.clone());
    assert_eq!(scrape(&mut exporter)["ekiden_up"], 1.0);
}

#[test]
fn the_format_is_the_one_that_was_asked_for() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, expected) in [
        (vec![], Format::Classic),
        (vec!["*/*"], Format::Classic),
        (vec!["text/plain;version=0.0.4"], Format::Classic),
        (vec![prometheus], Format::OpenMetrics),
        (vec!["application/openmetrics-text"], Format::OpenMetrics),
        (vec!["Application/OpenMetrics-Text; version=\"1.0.0\"; q=0.3"], Format::OpenMetrics),
        (vec!["text/plain", "application/openmetrics-text"], Format::OpenMetrics),
        (vec!["text/plain;q=0.9, application/openmetrics-text;q=0.4"], Format::Classic),
        (vec!["application/openmetrics-text; q=0"], Format::Classic),
        (vec!["application/openmetrics-text; version=2.0.0"], Format::Classic),
        (vec!["application/openmetrics-text; q=nonsense"], Format::Classic),
    ] {
        assert_eq!(Format::wanted(accept.iter().copied()), expected, "{accept:?}");
    }
}

#[test]
fn each_format_calls_families_as_it_must() {
    let hub = Hub::new(1);
    let mut exporter = hub.exporter();
    let open = exporter.scrape(Format::OpenMetrics).unwrap();
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("\n# TYPE ekiden_tenant_receive_bytes counter\n# UNIT ekiden_tenant_receive_bytes bytes\n"));
    assert!(open.contains("\n# TYPE ekiden_tenant info\n"));
    let classic = exporter.scrape(Format::Classic).unwrap();
    assert!(classic.contains("\n# TYPE ekiden_tenant_receive_bytes_total counter\n"));
    assert!(classic.contains("\n# TYPE ekiden_tenant_info gauge\n"));
    assert!(
        classic.contains("\n# HELP ekiden_hub_sessions Sessions with sites now\n# TYPE ekiden_hub_sessions gauge\n")
    );
    assert!(!classic.contains("# EOF") && !classic.contains("# UNIT"));
}

proptest! {
    /// Whatever a damaged segment says, there is an answer.
    #[test]
    fn a_damaged_segment_is_answered_for(words in prop::collection::vec((any::<prop::sample::Index>(), any::<u64>()), 1..64)) {
        let hub = Hub::new(2);
        let mut bytes = fs::read(&hub.path).unwrap();
        // Behind the header and the table of sections, which the reader checks.
        let all = bytes[4096..].len() / 8;
        for (at, value) in words {
            let at = 4096 + 8 * at.index(all);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        // In the place of the old one, as a hub's would be: who writes into it is not who reads it.
        let new = hub.path.with_extension("damaged");
        fs::write(&new, &bytes).unwrap();
        fs::rename(&new, &hub.path).unwrap();
        let mut exporter = hub.exporter();
        exporter.scrape(Format::OpenMetrics).unwrap();
        exporter.scrape(Format::Classic).unwrap();
    }
}

#[test]
fn rules_of_a_filter_are_counted_by_tenant_name_and_action() {
    let mut hub = Hub::new(3);
    hub.segment.configure(|directory| {
        directory.rule(0, TenantSlot(1), "no \"telnet\"", true).unwrap();
        directory.rule(1, TenantSlot(1), "default", false).unwrap();
        directory.rule(2, TenantSlot(2), "default", true).unwrap();
    });
    hub.rows[0].rule(0).packets.add(3);
    hub.rows[0].rule(0).bytes.add(120);
    hub.rows[0].rule(1).packets.add(4);
    let found = scrape(&mut hub.exporter());
    let of = |tenant: &str, rule: &str, action: &str| {
        let labels = format!("{{tenant=\"{tenant}\",rule=\"{rule}\",action=\"{action}\"}}");
        [
            found[&format!("ekiden_filter_rule_packets_total{labels}")],
            found[&format!("ekiden_filter_rule_bytes_total{labels}")],
        ]
    };
    assert_eq!(of("WAN00001002", "no \\\"telnet\\\"", "deny"), [3.0, 120.0]);
    assert_eq!(of("WAN00001002", "default", "allow"), [4.0, 0.0]);
    assert_eq!(of("WAN00001003", "default", "deny"), [0.0, 0.0]);
    assert_eq!(found.keys().filter(|name| name.starts_with("ekiden_filter")).count(), 6);
    // They count against the limit, with their tenant: one of the three tenants has nothing of it.
    let mut exporter = hub.exporter();
    (exporter.max_series, exporter.sites) = (11 + 15, false);
    let found = scrape(&mut exporter);
    assert_eq!(found.keys().filter(|name| name.starts_with("ekiden_filter")).count(), 4);
}
