//! Access ports by test-run: whose a frame is, by its VLAN, and that nothing else goes anywhere.
#![allow(unsafe_code, reason = "an AF_XDP socket for the redirect to go to")]

mod common;

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use bpf::{AccessEnd, Attachment, Limits, Options, Place, PortCounters, Rate, Roles, Steering, Verdict};
use common::{HUB4, PEER_MAC, PORT_MAC, Udp, message, options};
use wire::DropReason::{self, *};

/// Has ends alone.
const ACCESS: u16 = 2;
/// Has the WAN untagged, and an end.
const BOTH: u16 = 5;
const SERVICE: [u8; 2] = [0x88, 0xa8];
const CUSTOMER: [u8; 2] = [0x81, 0x00];

struct Bench {
    steering: Steering,
    _socket: OwnedFd,
}

impl Bench {
    fn new(name: &str, limits: Limits) -> Self {
        let mut roles = vec![Roles::default(); 8];
        roles[usize::from(ACCESS)] = Roles { wan: false, access: true };
        roles[usize::from(BOTH)] = Roles { wan: true, access: true };
        let mut steering = Steering::load(Options { roles, access_ends: 16, ..options(name, limits) }).unwrap();
        // SAFETY: no pointers; the result is checked before it is owned.
        let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        for port in [ACCESS, BOTH] {
            steering.set_mac(port, PORT_MAC).unwrap();
            steering.set_socket(Place::sole(port, 0), socket.as_fd()).unwrap();
            steering.program(port).unwrap();
        }
        steering.set_local(HUB4.into()).unwrap();
        for (site, (port, outer_type, outer, inner)) in
            (1..).zip([(ACCESS, 0x8100, 100, 0), (ACCESS, 0x88a8, 10, 100), (BOTH, 0x8100, 200, 0)])
        {
            let attachment = Attachment { port, outer_type, outer, inner };
            steering.set_access(attachment, AccessEnd { site, worker: 0 }).unwrap();
        }
        Self { steering, _socket: socket }
    }

    fn books(&self, port: u16) -> PortCounters {
        self.steering.counters().unwrap().into_iter().find(|counters| counters.port == port).unwrap()
    }

    /// Runs the program on a frame; gives the reason for which it was dropped, or the frame as it went to the ring. To the kernel
    /// goes nothing.
    fn run(&mut self, port: u16, frame: &[u8]) -> Result<Vec<u8>, DropReason> {
        let before = self.books(port);
        let (verdict, out) = self.steering.program(port).unwrap().test_run_out(frame).unwrap();
        let after = self.books(port);
        let moved = after.dropped().find(|(n, count)| *count != before.drops[usize::from(*n)]).map(|(n, _)| n);
        assert_eq!(after.seen.packets, before.seen.packets + 1);
        assert_eq!(after.seen.bytes, before.seen.bytes + frame.len() as u64);
        match verdict {
            Verdict::Redirect => {
                assert_eq!((moved, after.redirected.packets), (None, before.redirected.packets + 1));
                Ok(out)
            }
            Verdict::Drop => Err(DropReason::from_number(moved.expect("a drop is counted")).unwrap()),
            other => panic!("{other:?}"),
        }
    }
}

/// A frame with these tags, as a host sends it to `to`.
fn frame(to: [u8; 6], tags: &[([u8; 2], u16)], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = [to, PEER_MAC].concat();
    for (kind, id) in tags {
        frame.extend(kind);
        frame.extend(id.to_be_bytes());
    }
    frame.extend(kind);
    frame.extend(payload);
    frame
}

const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [0x33, 0x33, 0xff, 0, 0, 0xfe];

/// The beginning of an IPv6 packet with this ICMPv6 type.
fn icmp6(kind: u8) -> Vec<u8> {
    let mut packet = vec![0; 64];
    (packet[0], packet[6], packet[40]) = (0x60, 58, kind);
    packet
}

#[test]
fn only_what_is_for_the_gateway_on_a_known_vlan_goes_to_a_ring() {
    let mut bench = Bench::new("access", Limits::default());
    let packet = [0x45; 40];
    let one = |id: u16| vec![(CUSTOMER, id)];
    let two = |outer: [u8; 2], ids: [u16; 2]| vec![(outer, ids[0]), (CUSTOMER, ids[1])];
    type Row = (&'static str, u16, [u8; 6], Vec<([u8; 2], u16)>, [u8; 2], Vec<u8>, Result<(), DropReason>);
    let rows: Vec<Row> = vec![
        ("the gateway's", ACCESS, PORT_MAC, one(100), IPV4, packet.into(), Ok(())),
        ("a priority in the tag", ACCESS, PORT_MAC, one(0xe000 | 100), IPV6, packet.into(), Ok(())),
        ("two tags", ACCESS, PORT_MAC, two(SERVICE, [10, 100]), IPV4, packet.into(), Ok(())),
        ("a VLAN beside the WAN", BOTH, PORT_MAC, one(200), IPV4, packet.into(), Ok(())),
        ("ARP to the gateway", ACCESS, PORT_MAC, one(100), ARP, vec![0; 28], Ok(())),
        ("ARP to all", ACCESS, BROADCAST, one(100), ARP, vec![0; 28], Ok(())),
        ("a solicitation", ACCESS, GROUP, one(100), IPV6, icmp6(135), Ok(())),
        ("an advertisement to all", ACCESS, GROUP, one(100), IPV6, icmp6(136), Ok(())),
        ("a solicitation, two tags", ACCESS, GROUP, two(SERVICE, [10, 100]), IPV6, icmp6(135), Ok(())),
        // Whose VLAN?
        ("no tag", ACCESS, PORT_MAC, vec![], IPV4, packet.into(), Err(XdpVlanUnknown)),
        ("a priority alone", ACCESS, PORT_MAC, one(0xe000), IPV4, packet.into(), Err(XdpVlanUnknown)),
        ("an unknown VLAN", ACCESS, PORT_MAC, one(101), IPV4, packet.into(), Err(XdpVlanUnknown)),
        ("another port's VLAN", ACCESS, PORT_MAC, one(200), IPV4, packet.into(), Err(XdpVlanUnknown)),
        ("another port's VLAN, the other way", BOTH, PORT_MAC, one(100), IPV4, packet.into(), Err(XdpVlanUnknown)),
        (
            "the same id of a provider's tag",
            ACCESS,
            PORT_MAC,
            vec![(SERVICE, 100)],
            IPV4,
            packet.into(),
            Err(XdpVlanUnknown),
        ),
        ("hopping by two tags", ACCESS, PORT_MAC, two(CUSTOMER, [100, 200]), IPV4, packet.into(), Err(XdpVlanUnknown)),
        (
            "hopping by the same twice",
            ACCESS,
            PORT_MAC,
            two(CUSTOMER, [100, 100]),
            IPV4,
            packet.into(),
            Err(XdpVlanUnknown),
        ),
        (
            "two tags of the other type",
            ACCESS,
            PORT_MAC,
            two(CUSTOMER, [10, 100]),
            IPV4,
            packet.into(),
            Err(XdpVlanUnknown),
        ),
        ("the outer tag alone", ACCESS, PORT_MAC, vec![(SERVICE, 10)], IPV4, packet.into(), Err(XdpVlanUnknown)),
        (
            "the inner tag of type 802.1ad",
            ACCESS,
            PORT_MAC,
            vec![(SERVICE, 10), (SERVICE, 100)],
            IPV4,
            packet.into(),
            Err(XdpVlanUnknown),
        ),
        ("no VLAN inside", ACCESS, PORT_MAC, two(CUSTOMER, [100, 0]), IPV4, packet.into(), Err(XdpVlanUnknown)),
        ("no VLAN outside", ACCESS, PORT_MAC, two(CUSTOMER, [0, 100]), IPV4, packet.into(), Err(XdpVlanUnknown)),
        (
            "three tags",
            ACCESS,
            PORT_MAC,
            vec![(SERVICE, 10), (CUSTOMER, 100), (CUSTOMER, 7)],
            IPV4,
            packet.into(),
            Err(XdpVlanUnknown),
        ),
        ("cut in its tag", ACCESS, PORT_MAC, vec![], CUSTOMER, vec![0, 100], Err(XdpVlanUnknown)),
        ("cut in its second tag", ACCESS, PORT_MAC, vec![(SERVICE, 10)], CUSTOMER, vec![0, 100], Err(XdpVlanUnknown)),
        // To whom?
        ("to another station", ACCESS, PEER_MAC, one(100), IPV4, packet.into(), Err(XdpNotGateway)),
        ("ARP to another station", ACCESS, PEER_MAC, one(100), ARP, vec![0; 28], Err(XdpNotGateway)),
        ("broadcast", ACCESS, BROADCAST, one(100), IPV4, packet.into(), Err(XdpNotGateway)),
        ("a router solicitation", ACCESS, GROUP, one(100), IPV6, icmp6(133), Err(XdpNotGateway)),
        ("a group's echo request", ACCESS, GROUP, one(100), IPV6, icmp6(128), Err(XdpNotGateway)),
        ("spanning tree", ACCESS, [1, 0x80, 0xc2, 0, 0, 0], one(100), [0, 38], vec![0x42; 40], Err(XdpNotGateway)),
        // What?
        ("a type that nobody knows", ACCESS, PORT_MAC, one(100), [0x12, 0x34], packet.into(), Err(XdpNotIp)),
        ("PPPoE", ACCESS, PORT_MAC, one(100), [0x88, 0x64], packet.into(), Err(XdpNotIp)),
    ];
    for (name, port, to, tags, kind, payload, expected) in rows {
        let frame = frame(to, &tags, kind, &payload);
        let got = bench.run(port, &frame);
        assert_eq!(got.as_ref().map(|_| ()), expected.as_ref().copied(), "{name}");
        if let Ok(out) = got {
            // Whoever it was for: in the ring the destination is the port, which leaves the bit of a group to the stamp.
            assert_eq!((&out[..6], &out[6..]), (&PORT_MAC[..], &frame[6..]), "{name}");
        }
    }
    for len in 0..14 {
        // The kernel refuses to run a frame without an Ethernet header; one that is shorter is nobody's.
        if let Ok((verdict, _)) = bench.steering.program(ACCESS).unwrap().test_run(&vec![0; len], 1) {
            assert_eq!(verdict, Verdict::Drop);
        }
    }
}

#[test]
fn beside_the_wan_what_is_untagged_is_the_wans() {
    let mut bench = Bench::new("both", Limits::default());
    let mut other = Udp::v4(message(4, 1, 64));
    assert_eq!(bench.run(BOTH, &other.build()), Err(XdpSessionUnknown));
    other.port -= 1;
    let (verdict, _) = bench.steering.program(BOTH).unwrap().test_run(&other.build(), 1).unwrap();
    assert_eq!(verdict, Verdict::Pass, "the host's own");
    // On a port with ends alone even that is not the kernel's.
    assert_eq!(bench.run(ACCESS, &other.build()), Err(XdpVlanUnknown));
}

#[test]
fn each_end_has_its_own_rate_of_neighbour_discovery() {
    let neighbours = Rate { per_second: 1, burst: 5 };
    let mut bench = Bench::new("neighbours", Limits { neighbours, ..Limits::default() });
    let started = std::time::Instant::now();
    let ask = |tags: &[([u8; 2], u16)]| frame(BROADCAST, tags, ARP, &[0; 28]);
    let (flooding, other) = (ask(&[(CUSTOMER, 100)]), ask(&[(SERVICE, 10), (CUSTOMER, 100)]));
    let passed = (0..100).filter(|_| bench.run(ACCESS, &flooding).is_ok()).count() as u64;
    assert!((5..=6 + started.elapsed().as_secs()).contains(&passed), "{passed}");
    let refused = (0..20).map(|_| bench.run(ACCESS, &flooding)).filter(|got| *got == Err(XdpNeighbourRate)).count();
    assert!(refused > 10, "{refused}");
    assert!(bench.run(ACCESS, &other).is_ok(), "another VLAN has a bucket of its own");
    let packet = frame(PORT_MAC, &[(CUSTOMER, 100)], IPV4, &[0x45; 40]);
    assert!((0..100).all(|_| bench.run(ACCESS, &packet).is_ok()), "packets need no token");
}
