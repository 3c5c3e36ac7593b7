use super::super::{Status, Tenant, render, render_tenant};
use super::*;
use stats::{Segment, Shape, Spec};
use wire::{SiteSlot, TenantId, TenantSlot};

fn lane(lane: u32) -> Lane {
    Lane {
        lane,
        up: true,
        endpoint: Some(([192, 0, 2, 9], 51820 + lane as u16).into()),
        session: SessionState::Live,
        last_handshake_s_ago: Some(30),
        rtt_us: Some(3142),
        jitter_us: Some(57),
        loss_percent: Some(0.0),
        mtu: Some(1416),
        rx_packets: 17,
        rx_bytes: 12_345_678,
        tx_bytes: 987,
        ..Lane::default()
    }
}

/// Two trunks, one of which is dead, and a tenant with two sites that one of them carries.
fn example() -> Status {
    let dead = Lane { lane: 0, since_s_ago: Some(61), changes: 3, loss_percent: Some(100.0), ..Lane::default() };
    let way = |via: &str, priority, alive| Candidate { via: via.into(), priority, alive };
    let paths = |prefix: &str, via: &str, candidates: Vec<Candidate>| Paths {
        alive: candidates.iter().any(|way| way.alive && way.via == via),
        prefix: prefix.into(),
        via: via.into(),
        candidates,
    };
    let site = |name: &str, session| Site { name: name.into(), session, public_key: "key=".into(), ..Site::default() };
    Status {
        trunks: vec![
            Trunk {
                name: "osaka".into(),
                public_key: "osaka+key=".into(),
                up: true,
                cipher: "AES-256-GCM".into(),
                transit: true,
                endpoint: Some(([192, 0, 2, 9], 51820).into()),
                lanes: vec![
                    lane(0),
                    Lane {
                        session: SessionState::Expired,
                        up: false,
                        rtt_us: Some(250_000),
                        jitter_us: Some(12_345),
                        loss_percent: Some(13.0),
                        mtu: None,
                        since_s_ago: Some(7300),
                        changes: 1,
                        ..lane(1)
                    },
                ],
                announced: Announced { said: 1200, heard: 7 },
                ..Trunk::default()
            },
            Trunk {
                name: "na\x1b[2Jha".into(),
                cipher: "ChaCha20-Poly1305".into(),
                tenants: Carries::Some(vec![1001, 1002]),
                lanes: vec![dead],
                ..Trunk::default()
            },
        ],
        tenants: vec![Tenant {
            id: 1001,
            sites: vec![
                site("a", SessionState::Live),
                site("b", SessionState::None),
                Site { rx_packets: 5, rx_bytes: 5000, ..Site::carried("osaka", true, None) },
                Site::carried("naha", false, None),
            ],
            paths: vec![
                paths("10.9.3.0/24", "trunk:osaka", vec![way("trunk:naha", 100, false), way("trunk:osaka", 200, true)]),
                paths("10.9.4.0/24", "b", vec![way("b", 100, false), way("trunk:naha", 100, false)]),
                paths("10.9.5.0/24", "trunk:osaka", vec![way("a", 200, true), way("trunk:osaka", 50, true)]),
            ],
            ..Tenant::default()
        }],
        ..Status::default()
    }
}

const EXPECTED: &str = r"  sites       1 of 2 with a session, 1 tenants
  trunks      1 of 2 up, with 1 of 3 lanes
  packets     0 came, 0 went, 0 under way

TRUNK          STATE  LANES UP  CIPHER             TENANTS    TRANSIT  PREFIXES SAID  HEARD  ENDPOINT
osaka          up       1 of 2  AES-256-GCM        all        yes              1,200      7  192.0.2.9:51820
na\u{1b}[2Jha  DOWN     0 of 1  ChaCha20-Poly1305  1001 1002  no                   0      0  -

LANE             STATE  SESSION      RTT   JITTER   LOSS   MTU  CHANGED   CHANGES  RX BYTES  TX BYTES  ENDPOINT
osaka/0          up     live     3.14 ms    57 µs    0 %  1416  never           0  11.7 MiB     987 B  192.0.2.9:51820
osaka/1          DOWN   expired   250 ms  12.3 ms   13 %     -  2 h ago         1  11.7 MiB     987 B  192.0.2.9:51821
na\u{1b}[2Jha/0  DOWN   none           -        -  100 %     -  61 s ago        3       0 B       0 B  -

tenant 1001
  SITE         ENDPOINT  HANDSHAKE  SESSION  RX  RX BYTES  TX  TX BYTES  STAGED  PATH
  a            -         never      live      0       0 B   0       0 B       0  -
  b            -         never      none      0       0 B   0       0 B       0  -
  trunk:osaka  -         -          up        5   4.8 KiB   0       0 B       0  -
  trunk:naha   -         -          DOWN      0       0 B   0       0 B       0  -
  paths: 3 prefixes with several ways: 1 by the first, 1 by another, 1 DEAD

nothing dropped
";

#[test]
fn an_operator_sees_trunks_lanes_and_paths() {
    let text = render(&example());
    assert_eq!(&text[text.find("  sites ").unwrap()..], EXPECTED);
    assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 120), "{text}");
}

const EXPECTED_TENANT: &str = r"
  trunk:osaka
    state       up
    received    5 packets, 4.8 KiB
    sent        0 packets, 0 B
    staged      0 packets

  trunk:naha
    state       DOWN
    received    0 packets, 0 B
    sent        0 packets, 0 B
    staged      0 packets

  PREFIX       VIA          STATE  PRIORITY  WAYS
  10.9.3.0/24  trunk:osaka  alive       100  trunk:naha DEAD
                                        200  trunk:osaka alive
  10.9.4.0/24  b            DEAD        100  b DEAD
                                        100  trunk:naha DEAD
  10.9.5.0/24  trunk:osaka  alive       200  a alive
                                         50  trunk:osaka alive
";

#[test]
fn a_tenant_is_shown_with_what_trunks_carry_and_with_all_its_paths() {
    let text = render_tenant(&example().tenants[0]);
    assert_eq!(&text[text.find("\n  trunk:osaka").unwrap()..], EXPECTED_TENANT);
}

#[test]
fn a_program_reads_trunks_and_nothing_of_them_where_there_are_none() {
    let status = example();
    let json = serde_json::to_value(&status).unwrap();
    let [osaka, naha] = [&json["trunks"][0], &json["trunks"][1]];
    assert_eq!((&osaka["tenants"], &naha["tenants"]), (&"all".into(), &serde_json::json!([1001, 1002])));
    assert_eq!(osaka["announced"], serde_json::json!({"said": 1200, "heard": 7}));
    assert_eq!((&osaka["lanes"][1]["up"], &osaka["lanes"][1]["loss_percent"]), (&false.into(), &13.0.into()));
    assert_eq!((&naha["lanes"][0]["rtt_us"], &naha["endpoint"]), (&serde_json::Value::Null, &serde_json::Value::Null));
    let tenant = &json["tenants"][0];
    assert_eq!(tenant["sites"][2]["name"], "trunk:osaka");
    assert_eq!((&tenant["sites"][2]["session"], &tenant["sites"][3]["session"]), (&"up".into(), &"down".into()));
    assert_eq!(tenant["sites"][2].get("public_key"), None);
    let way = serde_json::json!({"via": "trunk:naha", "priority": 100, "alive": false});
    assert_eq!((&tenant["paths"][0]["via"], &tenant["paths"][0]["candidates"][0]), (&"trunk:osaka".into(), &way));
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);

    let none = Status { tenants: vec![Tenant::default()], ..Status::default() };
    let json = serde_json::to_value(&none).unwrap();
    assert_eq!((json.get("trunks"), json["tenants"][0].get("paths")), (None, None));
    assert!(!render(&none).contains("trunk") && !render(&none).contains("paths"));
}

#[test]
fn what_the_statistics_know_of_a_trunk_is_in_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let shape = Shape { tenants: 1, sites: 5, ports: 1, ..Shape::default() };
    let (hub, build) = ("tokyo".to_owned(), "1".to_owned());
    let spec = Spec { hub, build, config_hash: 1, shape, room: shape, workers: 1, memory: 1 << 20, group: None };
    let mut segment = Segment::create(&directory.path().join("stats"), spec).unwrap().segment;
    segment.configure(|directory| {
        directory.tenant(TenantSlot(0), TenantId::new(1).unwrap(), "", "").unwrap();
        directory.lane(SiteSlot(0), "naha", 0).unwrap();
        directory.lane(SiteSlot(1), "osaka", 0).unwrap();
        directory.lane(SiteSlot(2), "osaka", 1).unwrap();
        directory.carried(SiteSlot(3), TenantSlot(0), "osaka").unwrap();
    });
    let (rows, control) = (segment.rows(0), segment.control_rows());
    let (row, state) = (rows.site(SiteSlot(2)), control.site(SiteSlot(2)));
    let fields = [&row.rx_outer_packets, &row.rx_outer_bytes, &row.tx_packets, &row.tx_outer_bytes, &row.tx_keepalives];
    (1..).zip(fields).for_each(|(n, field)| field.set(n));
    let fields = [&state.rtt_us, &state.jitter_us, &state.probes_sent, &state.changes, &state.mtu, &state.up];
    fields.into_iter().zip([11, 12, 13, 14, 1400, 1]).for_each(|(field, n)| field.set(n));
    state.loss_ppm.set(70_000);
    state.session.set(3);
    state.since_ns.set(90_000_000_000);
    // What never changed is as it was since it was first looked at, which is no change.
    control.site(SiteSlot(1)).since_ns.set(80_000_000_000);
    state.last_handshake_at.set(80_500_000_000);
    let end = rows.site(SiteSlot(3));
    let fields = [&end.rx_packets, &end.rx_bytes, &end.tx_packets, &end.tx_bytes, &end.staged, &end.rx_over_rate];
    (21..).zip(fields.into_iter().chain([&end.tx_over_rate])).for_each(|(n, field)| field.set(n));

    let counted = segment.snapshot();
    let trunk = Trunk::counted("osaka", &counted, 100_000_000_000);
    let known = Lane {
        lane: 1,
        up: true,
        endpoint: None,
        session: SessionState::Rekey,
        last_handshake_s_ago: Some(19),
        rtt_us: Some(11),
        jitter_us: Some(12),
        loss_percent: Some(7.0),
        mtu: Some(1400),
        since_s_ago: Some(10),
        changes: 14,
        rx_packets: 1,
        rx_bytes: 2,
        tx_packets: 3 + 5,
        tx_bytes: 4,
    };
    assert_eq!((&*trunk.name, trunk.up, trunk.lanes), ("osaka", true, vec![Lane::default(), known]));
    assert!(!Trunk::counted("naha", &counted, 0).up);
    assert_eq!(Trunk::counted("else", &counted, 0).lanes, []);

    let found = counted.sites.iter().find(|site| site.slot == 3);
    let carried = Site::carried("osaka", true, found);
    assert_eq!((&carried.name, Some("osaka")), (&found.unwrap().name, found.unwrap().trunk()));
    assert_eq!([carried.rx_packets, carried.rx_bytes, carried.tx_packets, carried.tx_bytes], [21, 22, 23, 24]);
    assert_eq!((carried.staged, carried.rx_over_rate, carried.tx_over_rate), (25, 26, 27));
}
