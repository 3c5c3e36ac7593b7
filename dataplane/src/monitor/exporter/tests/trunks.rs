use super::*;

#[test]
fn trunks_and_lanes_have_series_and_are_no_sites() {
    let mut hub = Hub::new(1);
    let before = scrape(&mut hub.exporter());
    assert!(
        !before.keys().any(|name| ["ekiden_trunk", "ekiden_lane", "ekiden_paths"].iter().any(|s| name.starts_with(s)))
    );
    hub.segment.configure(|directory| {
        directory.carried(SiteSlot(2), TenantSlot(0), "osaka").unwrap();
        // In any order of slots, a trunk's lanes stand together.
        directory.lane(SiteSlot(3), "osaka", 1).unwrap();
        directory.lane(SiteSlot(4), "na\"ha", 0).unwrap();
        directory.lane(SiteSlot(5), "osaka", 0).unwrap();
    });
    let now = Now::read();
    let (row, state) = (hub.rows[1].site(SiteSlot(3)), hub.control.site(SiteSlot(3)));
    state.up.set(1);
    state.session.set(3);
    state.since_ns.set(now.ns - 60_000_000_000);
    let fields = [&state.rtt_us, &state.jitter_us, &state.probes_sent, &state.probes_lost, &state.loss_ppm];
    (1..)
        .zip(fields.into_iter().chain([&state.changes, &state.mtu, &state.handshakes]))
        .for_each(|(n, f)| f.set(1000 * n));
    let fields = [&row.rx_outer_packets, &row.rx_outer_bytes, &row.tx_packets, &row.tx_outer_bytes, &row.tx_keepalives];
    (1..).zip(fields).for_each(|(n, field)| field.set(n));
    hub.control.site(SiteSlot(2)).session.set(5);
    [&hub.control.hub.paths, &hub.control.hub.paths_other, &hub.control.hub.paths_dead]
        .into_iter()
        .zip([10, 3, 2])
        .for_each(|(field, n)| field.set(n));

    let found = scrape(&mut hub.exporter());
    let lane = r#"{trunk="osaka",lane="1"}"#;
    for (name, value) in [
        (format!("ekiden_lane_up{lane}"), 1.0),
        (format!("ekiden_lane_session_up{lane}"), 1.0),
        (format!("ekiden_lane_rtt_seconds{lane}"), 0.001),
        (format!("ekiden_lane_jitter_seconds{lane}"), 0.002),
        (format!("ekiden_lane_probes_total{lane}"), 3000.0),
        (format!("ekiden_lane_probes_lost_total{lane}"), 4000.0),
        (format!("ekiden_lane_loss_ratio{lane}"), 0.005),
        (format!("ekiden_lane_changes_total{lane}"), 6000.0),
        (format!("ekiden_lane_mtu_bytes{lane}"), 7000.0),
        (format!("ekiden_lane_handshakes_total{lane}"), 8000.0),
        (format!("ekiden_lane_receive_outer_packets_total{lane}"), 1.0),
        (format!("ekiden_lane_receive_outer_bytes_total{lane}"), 2.0),
        (format!("ekiden_lane_transmit_outer_packets_total{lane}"), 3.0 + 5.0),
        (format!("ekiden_lane_transmit_outer_bytes_total{lane}"), 4.0),
        (r#"ekiden_lane_up{trunk="na\"ha",lane="0"}"#.into(), 0.0),
        (r#"ekiden_lane_session_up{trunk="osaka",lane="0"}"#.into(), 0.0),
        (r#"ekiden_trunk_up{trunk="osaka"}"#.into(), 1.0),
        (r#"ekiden_trunk_up{trunk="na\"ha"}"#.into(), 0.0),
        (r#"ekiden_trunk_lanes{trunk="osaka"}"#.into(), 2.0),
        (r#"ekiden_trunk_lanes_up{trunk="osaka"}"#.into(), 1.0),
        (r#"ekiden_site_session_up{tenant="WAN00001001",site="trunk:osaka"}"#.into(), 1.0),
        (r#"ekiden_paths{state="preferred"}"#.into(), 5.0),
        (r#"ekiden_paths{state="other"}"#.into(), 3.0),
        (r#"ekiden_paths{state="dead"}"#.into(), 2.0),
        ("ekiden_exporter_series_dropped".into(), 0.0),
    ] {
        assert_eq!(found.get(&name), Some(&value), "{name} in {found:#?}");
    }
    // What alerts and the dashboard ask for of trunks is there.
    let shipped = [
        include_str!("../../../../../docs/monitoring/alerts.yml"),
        include_str!("../../../../../docs/monitoring/dashboard.json"),
    ];
    let words = shipped.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    let asked: Vec<_> = words
        .filter(|word| ["trunk_", "lane_", "paths"].iter().any(|s| word.starts_with(&format!("ekiden_{s}"))))
        .collect();
    assert!(asked.len() > 10, "{asked:?}");
    for name in asked {
        assert!(found.keys().any(|series| series.split('{').next() == Some(name)), "nothing is called {name}");
    }
    let changed = now.wall_ns as f64 / 1e9 - found[&format!("ekiden_lane_last_change_timestamp_seconds{lane}")];
    assert!((59.0..61.0).contains(&changed), "{changed}");
    // Of the lane that never had an answer, no time is known.
    let other: Vec<_> = found.keys().filter(|name| name.ends_with(r#"{trunk="osaka",lane="0"}"#)).collect();
    assert_eq!(other.len(), 2 + 8, "{other:?}");
    assert_eq!(found.keys().filter(|name| name.starts_with("ekiden_site_info")).count(), 3);

    // A trunk is shown whatever the limit on tenants and sites.
    let mut exporter = hub.exporter();
    exporter.max_series = 0;
    assert_eq!(scrape(&mut exporter)[&format!("ekiden_lane_up{lane}")], 1.0);
}
