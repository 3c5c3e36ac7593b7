//! The report as an operator sees it, letter by letter, and as a program reads it.

use super::*;

/// A hub in the middle of its life: one port in order and one gone, one tenant with sites in every state.
fn example() -> Status {
    let site = |name: &str| Site { name: name.into(), public_key: format!("{name}+key="), ..Site::default() };
    Status {
        hub: Hub {
            name: "lab".into(),
            version: "0.1.0".into(),
            pid: 4242,
            started: "2026-07-01T09:00:00+09:00".into(),
            uptime_s: 97_200,
            public_key: "hub+key=".into(),
            listen_port: 51820,
            config_path: "/etc/ekiden/lab.toml".into(),
            configuration: Configuration {
                hash: "00c0ffee00c0ffee".into(),
                applied: "2026-07-01T09:00:00+09:00".into(),
                last_reload: Some(Reload {
                    at: "2026-07-02T10:30:00+09:00".into(),
                    applied: false,
                    text: "lab.toml:3: listen_port is bad\nlab.toml:9: mtu is bad".into(),
                }),
            },
            ciphers: vec![
                Cipher {
                    name: "ChaCha20-Poly1305".into(),
                    by: "lanes (AVX2)".into(),
                    thresholds: Some("seal from 4 x 64 B; open from 5 x 64 B; else ring".into()),
                },
                Cipher { name: "AES-256-GCM".into(), by: "aws-lc".into(), thresholds: None },
            ],
            kernel: Some("6.1.0-37-amd64".into()),
            sessions: Some(3),
            session_capacity: Some(65536),
            staged: Some(7),
        },
        ports: vec![
            Port {
                name: "d0".into(),
                role: "wan".into(),
                ifindex: Some(3),
                driver: Some("veth".into()),
                xdp: Some(XdpMode::Native),
                copy: Some(CopyMode::Copy),
                queues: Some(1),
                sockets: Some(1),
                headroom: Some(128),
                chunk_size: Some(2048),
                multi_buffer: Some(false),
                need_wakeup: Some(true),
                mtu: Some(1500),
                mac: Some("02:00:00:00:00:01".into()),
                up: true,
                addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
                xdp_seen: Some(1_234_567),
                xdp_passed: Some(42),
                xdp_redirected: Some(1_234_500),
                xdp_dropped: Some(25),
                ring_lost: Some(0),
                rx_frames: 1_234_500,
                rx_bytes: 1_851_750_000,
                tx_frames: 1_234_400,
                tx_bytes: 1_851_600_000,
                warnings: vec!["frames are copied: the driver veth has no zero-copy mode".into()],
            },
            Port { name: "d1".into(), role: "wan".into(), ..Port::default() },
        ],
        workers: vec![
            Worker {
                id: 0,
                core: Some(1),
                queues: vec!["d0:0".into(), "d1:0".into()],
                chunks_total: 8192,
                chunks_free: Some(4000),
                batches: 98_760,
                frames: 1_234_500,
                busy_share: Some(0.374),
                ..Worker::default()
            },
            Worker { id: 1, chunks_total: 8192, ..Worker::default() },
        ],
        books: Books {
            received: 1_234_500,
            generated: 12,
            completed: 1_234_393,
            to_control: 9,
            keepalives: 3,
            dropped: 98,
            staged: 7,
            sending: 2,
            ..Books::default()
        },
        trunks: Vec::new(),
        tenants: vec![Tenant {
            filter: vec![Rule { name: "no telnet".into(), action: "deny".into(), packets: 23, bytes: 920 }],
            id: 1001,
            service_code: Some("WAN00001001".into()),
            label: Some("Acme KK / 大阪\x1b[31m".into()),
            sites: vec![
                Site {
                    endpoint: Some("192.0.2.7:51820".parse().unwrap()),
                    local: Some("192.0.2.1".parse().unwrap()),
                    last_handshake_s_ago: Some(12),
                    session: SessionState::Live,
                    rx_packets: 617_250,
                    rx_bytes: 925_875_000,
                    tx_packets: 617_000,
                    tx_bytes: 925_500_000,
                    path: Some(Path {
                        port: Some("d0".into()),
                        next_hop: Some("192.0.2.254".parse().unwrap()),
                        next_hop_mac: Some("02:00:00:00:00:fe".into()),
                        mtu: Some(1500),
                        inner_mtu: Some(1440),
                        probe: Some("found".into()),
                        watch: None,
                        unreachable: None,
                    }),
                    ..site("a")
                },
                Site {
                    endpoint: Some("[2001:db8::7]:40001".parse().unwrap()),
                    last_handshake_s_ago: Some(7300),
                    session: SessionState::Handshake,
                    rx_packets: 9,
                    rx_bytes: 1023,
                    staged: 7,
                    shed_packets: 51_000,
                    rx_over_rate: 17,
                    path: Some(Path { unreachable: Some("no route".into()), ..Path::default() }),
                    ..site("東京")
                },
                site("new"),
            ],
            access: Vec::new(),
            paths: Vec::new(),
            drops: BTreeMap::from([("no_route".into(), 12), ("staged_overflow".into(), 0), ("auth_failed".into(), 3)]),
        }],
        drops: vec![
            Drop::new(DropReason::XdpNotWireguard, 25, Some(2500)),
            Drop::new(DropReason::AuthFailed, 3, None),
            Drop::new(DropReason::NoRoute, 1_012, Some(1_036_288)),
            Drop::new(DropReason::TtlExpired, 0, Some(0)),
        ],
        warnings: vec!["could not save what is known of the sites: could not write /var/lib/ekiden/lab/peers.new: No space left on device (os error 28)".into()],
    }
}

#[test]
fn access_ends_are_shown_with_their_hosts() {
    let mut status = example();
    let neighbour = |last: u8, mac: Option<&str>, state: &str| Neighbour {
        address: [10, 9, 2, last].into(),
        mac: mac.map(str::to_owned),
        state: state.into(),
    };
    status.tenants[0].access = vec![Access {
        name: "eth1.100".into(),
        up: true,
        addresses: vec!["10.9.2.254/24".into()],
        mtu: Some(1500),
        rx_packets: 12,
        neighbours: vec![neighbour(1, Some("02:00:00:00:00:01"), "reachable"), neighbour(7, None, "incomplete")],
        ..Access::default()
    }];
    let line = |text: String, begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin)).unwrap_or_default().to_owned();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line(render(&status), "  eth1.100"), "eth1.100 10.9.2.254/24 up 1 12 0 B 0 0 B 0");
    let whole = render_tenant(&status.tenants[0]);
    assert_eq!(line(whole.clone(), "    host        10.9.2.1 "), "host 10.9.2.1 02:00:00:00:00:01 reachable");
    assert_eq!(line(whole, "    host        10.9.2.7 "), "host 10.9.2.7 - incomplete");
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn an_operator_sees_the_hub_at_a_glance() {
    assert_eq!(render(&example()), EXPECTED);
    for line in EXPECTED.lines() {
        assert!(unicode_width::UnicodeWidthStr::width(line) <= 120, "{line}");
    }
}

const EXPECTED: &str = r"hub lab: ekiden 0.1.0, pid 4242, up 1 d 3 h (since 2026-07-01T09:00:00+09:00)
  public key  hub+key=
  listens on  UDP port 51820
  ciphers     ChaCha20-Poly1305: lanes (AVX2), seal from 4 x 64 B; open from 5 x 64 B; else ring
              AES-256-GCM: aws-lc
  kernel      6.1.0-37-amd64
  config      /etc/ekiden/lab.toml
              00c0ffee00c0ffee since 2026-07-01T09:00:00+09:00
  reload      REFUSED, nothing was changed at 2026-07-02T10:30:00+09:00: lab.toml:3: listen_port is bad (and 1 more)
  sites       1 of 3 with a session, 1 tenants; 3 of 65,536 session slots in use; 7 packets staged
  packets     1,234,512 came, 1,234,503 went, 9 under way

warning: could not save what is known of the sites: could not write /var/lib/ekiden/lab/peers.new: No space left on
         device (os error 28)
warning: port d0: frames are copied: the driver veth has no zero-copy mode

PORT  ROLE  LINK  DRIVER  XDP     FRAMES  QUEUES   MTU  CHUNK  HEADROOM  WAKEUP  MAC
d0    wan   up    veth    native  copy         1  1500   2048       128  yes     02:00:00:00:00:01
d1    wan   gone  -       -       -            -     -      -         -  -       -
d0 has 192.0.2.1, 2001:db8::1

PORT       SEEN  TO KERNEL  TO WORKERS  DROPPED  LOST         RX  RX BYTES         TX  TX BYTES
d0    1,234,567         42   1,234,500       25     0  1,234,500   1.7 GiB  1,234,400   1.7 GiB
d1            -          -           -        -     -          0       0 B          0       0 B

WORKER  CORE  BUSY     FRAMES  BATCHES  FRAMES/BATCH  CHUNKS FREE     OF  QUEUES
     0     1  37 %  1,234,500   98,760          12.5        4,000  8,192  d0:0 d1:0
     1     -     -          0        0             -            -  8,192

tenant 1001  WAN00001001  Acme KK / 大阪\u{1b}[31m
  SITE  ENDPOINT             HANDSHAKE  SESSION         RX   RX BYTES       TX   TX BYTES  STAGED  PATH
  a     192.0.2.7:51820      12 s ago   live       617,250  882.9 MiB  617,000  882.6 MiB       0  d0
  東京  [2001:db8::7]:40001  2 h ago    handshake        9     1023 B        0        0 B       7  no route
  new   -                    never      none             0        0 B        0        0 B       0  -
  shed: 東京 51,000
  dropped: auth_failed 3, no_route 12

DROPPED            PACKETS       BYTES
no_route             1,012  1012.0 KiB
  No site of this tenant has the inner destination among its prefixes.
xdp_not_wireguard       25     2.4 KiB
  UDP to the hub's port that is no WireGuard message (type, reserved bytes or length); scanners do this.
auth_failed              3           -
  A data message whose tag does not verify; damaged on the way, or forged.
";

#[test]
fn a_tenant_is_shown_with_all_that_is_known_of_its_sites() {
    assert_eq!(render_tenant(&example().tenants[0]), EXPECTED_TENANT);
}

const EXPECTED_TENANT: &str = r"tenant 1001  WAN00001001  Acme KK / 大阪\u{1b}[31m

  site a
    public key  a+key=
    endpoint    192.0.2.7:51820
    hub's side  192.0.2.1
    path        port d0, next hop 192.0.2.254 (02:00:00:00:00:fe), MTU 1500, 1440 inside (pings: found)
    session     live
    handshake   12 s ago
    received    617,250 packets, 882.9 MiB
    sent        617,000 packets, 882.6 MiB
    staged      0 packets
    shed        0 packets
    over rate   0 packets received, 0 sent

  site 東京
    public key  東京+key=
    endpoint    [2001:db8::7]:40001
    hub's side  -
    path        unreachable: no route
    session     handshake
    handshake   2 h ago
    received    9 packets, 1023 B
    sent        0 packets, 0 B
    staged      7 packets
    shed        51,000 packets
    over rate   17 packets received, 0 sent

  site new
    public key  new+key=
    endpoint    none known
    hub's side  -
    path        -
    session     none
    handshake   never
    received    0 packets, 0 B
    sent        0 packets, 0 B
    staged      0 packets
    shed        0 packets
    over rate   0 packets received, 0 sent

  RULE       ACTION  PACKETS  BYTES
  no telnet  deny         23  920 B

  DROPPED      PACKETS  BYTES
  no_route          12      -
    No site of this tenant has the inner destination among its prefixes.
  auth_failed        3      -
    A data message whose tag does not verify; damaged on the way, or forged.
";

#[test]
fn a_hub_that_has_just_started_is_shown_too() {
    let text = render(&Status::default());
    assert!(text.starts_with("hub : ekiden , pid 0, up 0 s"), "{text}");
    assert!(text.ends_with("\nnothing dropped\n"), "{text}");
}

#[test]
fn what_is_not_known_is_null_and_what_a_program_reads_is_what_was_sent() {
    let status = example();
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["ports"][0]["xdp"], "native");
    assert_eq!(json["ports"][0]["copy"], "copy");
    assert_eq!(json["ports"][1]["xdp"], serde_json::Value::Null);
    assert_eq!(json["tenants"][0]["sites"][1]["session"], "handshake");
    assert_eq!(json["tenants"][0]["sites"][2]["last_handshake_s_ago"], serde_json::Value::Null);
    assert_eq!(json["tenants"][0]["drops"]["no_route"], 12);
    assert_eq!(json["drops"][1]["bytes"], serde_json::Value::Null);
    assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status);
}

#[test]
fn a_tenant_is_meant_by_its_id_or_its_service_code() {
    let mut status = example();
    status.tenants.push(Tenant { id: 7, service_code: Some("1001".into()), ..Tenant::default() });
    assert_eq!(status.tenant("1001").unwrap().id, 1001, "an id goes before a service code");
    assert_eq!(status.tenant("WAN00001001").unwrap().id, 1001);
    assert_eq!(status.tenant("7").unwrap().id, 7);
    assert_eq!(status.tenant("Acme"), None);
}
