//! The program by test-run, as a table: a frame goes in, and exactly one line of the books moves.
#![allow(unsafe_code, reason = "an AF_XDP socket for the redirect to go to")]

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use bpf::{Count, Error, Limits, Place, PortCounters, Rate, SessionEntry, SessionState, Steering, Verdict};
use common::{HUB4, HUB6, LANES, LISTEN, PEER_MAC, PORT_MAC, SITE6, SOURCE_PORT, Udp, message, options};
use wire::{DROP_REASONS, DropReason};

/// Slot 0x21 of 256, live; slot 0x22 waits for the answer to a handshake.
const LIVE: u32 = 0x1234_5621;
const WAITING: u32 = 0x89ab_cd22;
/// The port's number: not 0, so that a program that ignores it would be seen.
const PORT: u16 = 3;

/// What the books say of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Booked {
    Passed,
    Redirected,
    Dropped(DropReason),
}
use Booked::{Dropped, Passed, Redirected};
use DropReason::*;

struct Bench {
    steering: Steering,
    _socket: OwnedFd,
}

impl Bench {
    fn new(name: &str, limits: Limits) -> Self {
        Self::with(options(name, limits))
    }

    fn with(options: bpf::Options) -> Self {
        let mut steering = Steering::load(options).unwrap();
        steering.set_mac(PORT, PORT_MAC).unwrap();
        steering.set_local(HUB4.into()).unwrap();
        steering.set_local(HUB6.into()).unwrap();
        let session = |index, state| SessionEntry { index, worker: 0, tenant: 0, site: 0, state };
        steering.set_session(LIVE & 0xff, session(LIVE, SessionState::Live)).unwrap();
        steering.set_session(WAITING & 0xff, session(WAITING, SessionState::Handshake)).unwrap();
        // SAFETY: no pointers; the result is checked before it is owned.
        let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        steering.set_socket(Place::sole(PORT, 0), socket.as_fd()).unwrap();
        steering.program(PORT).unwrap(); // so that its books are there
        Self { steering, _socket: socket }
    }

    fn books(&self) -> PortCounters {
        self.steering.counters().unwrap().into_iter().find(|counters| counters.port == PORT).unwrap()
    }

    /// Runs the program `times` on a frame; gives what moved. The verdict is that of the last.
    fn run(&mut self, frame: &[u8], times: u32) -> (Verdict, BTreeMap<String, u64>) {
        let before = self.books();
        let (verdict, _) = self.steering.program(PORT).unwrap().test_run(frame, times).unwrap();
        let after = self.books();
        let mut moved = BTreeMap::new();
        let mut line = |name: String, before: Count, after: Count| {
            let packets = after.packets - before.packets;
            assert_eq!(after.bytes - before.bytes, packets * frame.len() as u64, "bytes of {name}");
            if packets != 0 {
                moved.insert(name, packets);
            }
            packets
        };
        let seen = line("seen".into(), before.seen, after.seen);
        let mut out = line("passed".into(), before.passed, after.passed);
        out += line("redirected".into(), before.redirected, after.redirected);
        for (number, (before, after)) in before.drops.iter().zip(&after.drops).enumerate() {
            let name = DropReason::from_number(number as u8).map_or(format!("no reason {number}"), |r| r.name().into());
            out += line(name, *before, *after);
        }
        assert_eq!(seen, out, "the books: {moved:?}");
        assert_eq!(seen, u64::from(times));
        (verdict, moved)
    }

    /// Runs the program on one frame; gives the one line that it must have moved.
    fn book(&mut self, frame: &[u8]) -> Booked {
        let (verdict, moved) = self.run(frame, 1);
        let line = moved.keys().find(|name| *name != "seen").unwrap().clone();
        let (expected, booked) = match line.as_str() {
            "passed" => (Verdict::Pass, Passed),
            "redirected" => (Verdict::Redirect, Redirected),
            name => (Verdict::Drop, Dropped(*DROP_REASONS.iter().find(|reason| reason.name() == name).unwrap())),
        };
        assert_eq!(verdict, expected, "verdict against {line}");
        booked
    }
}

fn data(len: usize) -> Vec<u8> {
    message(4, LIVE, len)
}

fn with_head(head: [u8; 4], len: usize) -> Vec<u8> {
    let mut message = message(head[0], LIVE, len);
    message[..4].copy_from_slice(&head);
    message
}

/// With its suite, its lane, and the byte that is zero.
fn initiation_of_a_trunk([suite, lane, zero]: [u8; 3]) -> Vec<u8> {
    with_head([0x11, suite, lane, zero], 148)
}

/// Both families, with one change each.
fn both(payload: Vec<u8>, change: impl Fn(&mut Udp)) -> [Vec<u8>; 2] {
    [Udp::v4(payload.clone()), Udp::v6(payload)].map(|mut udp| {
        change(&mut udp);
        udp.build()
    })
}

#[test]
fn of_a_frame_in_several_buffers_the_lengths_are_those_of_the_whole() {
    let mut options = options("frags", Limits::default());
    options.frags = (0..=PORT).map(|port| port == PORT).collect();
    let mut bench = Bench::with(options);
    let plain = |_: &mut Udp| {};
    let rows = [
        (both(data(8932), plain), Redirected),
        (both(data(3000), plain), Redirected),
        (both(data(9000), |u| u.trailer = 5000), Redirected),
        (both(data(9000), |u| u.fragment = Some((0, true))), Redirected),
        (both(message(4, 0x5555, 9000), plain), Dropped(XdpSessionUnknown)),
        (both(message(0, LIVE, 9000), plain), Dropped(XdpNotWireguard)),
        (both(data(9000), plain).map(|frame| frame[..frame.len() - 1].to_vec()), Dropped(XdpMalformed)),
        (
            both(data(9000), |u| u.fragment = Some((0, true))).map(|frame| frame[..frame.len() - 1].to_vec()),
            Dropped(XdpMalformed),
        ),
    ];
    for (n, (frames, expected)) in rows.into_iter().enumerate() {
        for frame in frames {
            assert_eq!(bench.book(&frame), expected, "row {n}, {} bytes", frame.len());
        }
    }
}

#[test]
fn each_frame_moves_one_line_of_the_books() {
    let session = Dropped(XdpSessionUnknown);
    let malformed = Dropped(XdpMalformed);
    let not_wireguard = Dropped(XdpNotWireguard);
    let plain = |_: &mut Udp| {};
    let v4 = |payload: Vec<u8>, change: fn(&mut Udp)| {
        let mut udp = Udp::v4(payload);
        change(&mut udp);
        vec![udp.build()]
    };
    let v6 = |payload: Vec<u8>, change: fn(&mut Udp)| {
        let mut udp = Udp::v6(payload);
        change(&mut udp);
        vec![udp.build()]
    };
    let edit = |mut frame: Vec<u8>, at: usize, bytes: &[u8]| {
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        vec![frame]
    };
    let v4_frame = || Udp::v4(data(128)).build();
    let v6_frame = || Udp::v6(data(128)).build();

    #[rustfmt::skip]
    let rows: Vec<(&str, Vec<Vec<u8>>, Booked)> = vec![
        // The hub's, and good.
        ("keepalive", both(data(32), plain).into(), Redirected),
        ("data", both(data(1452), plain).into(), Redirected),
        ("data of a sender that does not pad", both(data(33), plain).into(), Redirected),
        ("Ethernet padding after the packet", both(data(32), |u| u.trailer = 18).into(), Redirected),
        ("IPv4 options", v4(data(64), |u| u.options = 4), Redirected),
        ("as many IPv4 options as there can be", v4(data(64), |u| u.options = 40), Redirected),
        ("initiation", both(message(1, 0, 148), plain).into(), Redirected),
        ("response to a handshake of ours", both(message(2, WAITING, 92), plain).into(), Redirected),
        ("cookie for our initiation", both(message(3, WAITING, 64), plain).into(), Redirected),
        ("cookie for our response", both(message(3, LIVE, 64), plain).into(), Redirected),
        ("keepalive of a trunk", both(message(0x14, LIVE, 32), plain).into(), Redirected),
        ("data of a trunk", both(message(0x14, LIVE, 1440), plain).into(), Redirected),
        ("initiation of a trunk", both(initiation_of_a_trunk([2, 0, 0]), plain).into(), Redirected),
        ("initiation of a trunk, of any suite and lane", both(initiation_of_a_trunk([0xff, 0xff, 0]), plain).into(), Redirected),
        ("response to a handshake of ours with a hub", both(message(0x12, WAITING, 92), plain).into(), Redirected),
        ("cookie for our initiation to a hub", both(message(0x13, WAITING, 64), plain).into(), Redirected),
        ("cookie for our response to a hub", both(message(0x13, LIVE, 64), plain).into(), Redirected),
        ("data to the port of another lane", both(message(0x14, LIVE, 64), |u| u.port = LANES.end - 1).into(), Redirected),
        ("first fragment", both(data(1000), |u| u.fragment = Some((0, true))).into(), Redirected),
        ("last fragment", both(vec![7; 100], |u| u.fragment = Some((185, false))).into(), Redirected),
        ("atomic fragment (RFC 6946)", v6(data(64), |u| u.fragment = Some((0, false))), Redirected),

        // Sessions.
        ("index of an empty slot", both(message(4, 0x1234_5677, 64), plain).into(), session),
        ("do not fragment is no fragment", edit(Udp::v4(message(4, 0x5555, 64)).build(), 20, &[0x40, 0]), session),
        ("index 0 of an empty slot", both(message(4, 0, 64), plain).into(), session),
        ("right slot, other randomness", both(message(4, LIVE ^ 0x100, 64), plain).into(), session),
        ("right randomness, other slot", both(message(4, LIVE ^ 0x40, 64), plain).into(), session),
        ("data before the handshake ended", both(message(4, WAITING, 64), plain).into(), session),
        ("a second response", both(message(2, LIVE, 92), plain).into(), session),
        ("response for an unknown index", both(message(2, 0x5555, 92), plain).into(), session),
        ("cookie for an unknown index", both(message(3, 0x5555, 64), plain).into(), session),
        ("a trunk's data for an empty slot", both(message(0x14, 0x1234_5677, 64), plain).into(), session),
        ("a trunk's data before the handshake ended", both(message(0x14, WAITING, 64), plain).into(), session),
        ("a second response of a trunk", both(message(0x12, LIVE, 92), plain).into(), session),
        ("response of a trunk for an unknown index", both(message(0x12, 0x5555, 92), plain).into(), session),
        ("cookie of a trunk for an unknown index", both(message(0x13, 0x5555, 64), plain).into(), session),

        // No WireGuard.
        ("no payload", both(vec![], plain).into(), not_wireguard),
        ("three bytes", both(vec![4, 0, 0], plain).into(), not_wireguard),
        ("three bytes and Ethernet padding", both(vec![4, 0, 0], |u| u.trailer = 40).into(), not_wireguard),
        ("data shorter than a keepalive", both(data(31), plain).into(), not_wireguard),
        ("type 0", both(message(0, LIVE, 64), plain).into(), not_wireguard),
        ("type 5", both(message(5, LIVE, 148), plain).into(), not_wireguard),
        ("reserved byte set", both([4, 1, 0, 0].into_iter().chain(data(64).into_iter().skip(4)).collect(), plain).into(), not_wireguard),
        ("type in the last byte", both([0, 0, 0, 4].into_iter().chain(data(64).into_iter().skip(4)).collect(), plain).into(), not_wireguard),
        ("initiation too short", both(message(1, 0, 147), plain).into(), not_wireguard),
        ("initiation too long", both(message(1, 0, 149), plain).into(), not_wireguard),
        ("response of a wrong length", both(message(2, WAITING, 93), plain).into(), not_wireguard),
        ("cookie of a wrong length", both(message(3, WAITING, 63), plain).into(), not_wireguard),
        ("a trunk's data shorter than a keepalive", both(message(0x14, LIVE, 31), plain).into(), not_wireguard),
        ("reserved byte of a trunk's data set", both(with_head([0x14, 1, 0, 0], 64), plain).into(), not_wireguard),
        ("reserved byte of a trunk's response set", both(with_head([0x12, 0, 1, 0], 92), plain).into(), not_wireguard),
        ("reserved byte of a trunk's cookie set", both(with_head([0x13, 0, 0, 1], 64), plain).into(), not_wireguard),
        ("last byte of the head of a trunk's initiation set", both(initiation_of_a_trunk([2, 0, 1]), plain).into(), not_wireguard),
        ("a suite in a site's initiation", both(with_head([1, 2, 0, 0], 148), plain).into(), not_wireguard),
        ("initiation of a trunk, too short", both(message(0x11, 0, 147), plain).into(), not_wireguard),
        ("initiation of a trunk, too long", both(message(0x11, 0, 149), plain).into(), not_wireguard),
        ("response of a trunk of a wrong length", both(message(0x12, WAITING, 93), plain).into(), not_wireguard),
        ("cookie of a trunk of a wrong length", both(message(0x13, WAITING, 63), plain).into(), not_wireguard),
        ("types beside those of trunks", both(message(0x10, LIVE, 148), plain).into(), not_wireguard),
        ("types beyond those of trunks", both(message(0x15, LIVE, 148), plain).into(), not_wireguard),
        ("DNS", both(vec![b'x'; 40], plain).into(), not_wireguard),

        // Lengths.
        ("IP length beyond the frame", both(data(64), |u| u.ip_length = 1).into(), malformed),
        ("IP length below UDP's", both(data(64), |u| u.ip_length = -1).into(), malformed),
        ("IP length beyond UDP's, in the frame", both(data(64), |u| { u.ip_length = 4; u.trailer = 8 }).into(), malformed),
        ("UDP length beyond IP's", both(data(64), |u| u.udp_length = 1).into(), malformed),
        ("UDP length below IP's", both(data(64), |u| u.udp_length = -1).into(), malformed),
        ("UDP length below its header", both(vec![], |u| { u.udp_length = -1; u.ip_length = -1 }).into(), malformed),
        ("both lengths beyond the frame", both(data(64), |u| { u.udp_length = 1; u.ip_length = 1 }).into(), malformed),
        ("UDP length 0", both(data(64), |u| u.udp_length = -72).into(), malformed),
        ("IPv4 total length below its header", edit(v4_frame(), 16, &[0, 19]), malformed),
        ("IPv4 header of 16 bytes", edit(v4_frame(), 14, &[0x44]), malformed),
        ("IPv4 header beyond the frame", edit(Udp::v4(vec![]).build(), 14, &[0x4f]), malformed),
        ("fragment longer than the frame", both(vec![7; 100], |u| { u.fragment = Some((185, true)); u.ip_length = 1 }).into(), malformed),
        ("IPv4 fragment of nothing", v4(vec![], |u| { u.fragment = Some((185, true)); u.ip_length = -8 }), malformed),
        ("IPv6 fragment of nothing", v6(vec![], |u| { u.fragment = Some((185, true)); u.ip_length = -8 }), malformed),

        // The kernel's.
        ("another MAC", both(data(64), |u| u.destination_mac = PEER_MAC).into(), Passed),
        ("broadcast", both(data(64), |u| u.destination_mac = [0xff; 6]).into(), Passed),
        ("start of the MAC differs", both(data(64), |u| u.destination_mac[1] ^= 1).into(), Passed),
        ("middle of the MAC differs", both(data(64), |u| u.destination_mac[3] ^= 4).into(), Passed),
        ("last byte of the MAC differs", both(data(64), |u| u.destination_mac[5] ^= 0x80).into(), Passed),
        ("another UDP port", both(data(64), |u| u.port = LANES.end).into(), Passed),
        ("the port before", both(data(64), |u| u.port = LISTEN - 1).into(), Passed),
        ("the port 64 further", both(data(64), |u| u.port = LISTEN + 64).into(), Passed),
        ("the port with its bytes exchanged", both(data(64), |u| u.port = LISTEN.swap_bytes()).into(), Passed),
        ("another IPv4 address", v4(data(64), |u| u.to = Ipv4Addr::new(192, 0, 2, 2).into()), Passed),
        ("another IPv6 address", v6(data(64), |u| u.to = Ipv6Addr::from_bits(HUB6.to_bits() ^ 1 << 64).into()), Passed),
        ("fragment to another IPv4 address", v4(data(64), |u| { u.to = Ipv4Addr::new(192, 0, 2, 2).into(); u.fragment = Some((0, true)) }), Passed),
        ("fragment to another IPv6 address", v6(data(64), |u| { u.to = SITE6.into(); u.fragment = Some((0, true)) }), Passed),
        ("TCP to the port", both(data(64), |u| u.protocol = 6).into(), Passed),
        ("ICMP", both(data(64), |u| u.protocol = 1).into(), Passed),
        ("neighbour discovery", both(data(64), |u| u.protocol = 58).into(), Passed),
        ("fragment of TCP", both(data(64), |u| { u.protocol = 6; u.fragment = Some((0, true)) }).into(), Passed),
        ("IPv6 with hop-by-hop options", v6(data(64), |u| u.protocol = 0), Passed),
        ("ARP", edit(v4_frame(), 12, &[0x08, 0x06]), Passed),
        ("a VLAN tag", edit(v4_frame(), 12, &[0x81, 0x00]), Passed),
        ("IPv4 type, version 6", edit(v4_frame(), 14, &[0x65]), Passed),
        ("IPv6 type, version 4", edit(v6_frame(), 14, &[0x40]), Passed),
    ];

    let mut bench = Bench::new("rows", Limits::default());
    for (name, frames, expected) in &rows {
        for frame in frames {
            let family = if frame[12] == 0x86 { "IPv6" } else { "IPv4" };
            assert_eq!(bench.book(frame), *expected, "{name}, {family}");
        }
    }
    // The other reasons are in tests below, and in those of access ports.
    let mut elsewhere = vec![XdpInitiationKnown, XdpInitiationStranger, XdpNoSocket, XdpFragmentRate, XdpShed];
    elsewhere.extend([XdpVlanUnknown, XdpNotGateway, XdpNotIp, XdpNeighbourRate, XdpNoHeadroom]);
    let booked: Vec<_> = rows.iter().map(|row| row.2).collect();
    for reason in counted_by_the_program(&mut bench.steering).keys().map(|name| reason_named(name)) {
        assert!(booked.contains(&Dropped(reason)) != elsewhere.contains(&reason), "{reason:?} belongs in one of them");
    }
}

#[test]
fn a_hub_frame_cut_anywhere_is_dropped_once_its_address_can_be_read() {
    let mut bench = Bench::new("cut", Limits::default());
    let fragment = |mut udp: Udp| {
        udp.fragment = Some((0, true));
        udp.build()
    };
    let mut options = Udp::v4(data(64));
    options.options = 12;
    let frames = [
        (34, Udp::v4(data(64)).build()),
        (34, options.build()),
        (54, Udp::v6(data(64)).build()),
        (34, fragment(Udp::v4(data(64)))),
        (54, fragment(Udp::v6(data(64)))),
        (34, Udp::v4(message(1, 0, 148)).build()),
    ];
    for (addressed, frame) in frames {
        for len in 14..frame.len() {
            let expected = if len < addressed { Passed } else { Dropped(XdpMalformed) };
            assert_eq!(bench.book(&frame[..len]), expected, "the first {len} of {} bytes", frame.len());
        }
        assert_eq!(bench.book(&frame), Redirected);
    }
}

#[test]
fn no_change_of_a_byte_gets_a_hub_frame_to_the_kernel_unless_it_changes_whose_it_is() {
    let mut bench = Bench::new("bytes", Limits::default());
    // MAC, EtherType, version and header length, fragment bits (another path), protocol, destination address and port
    let v4: Vec<usize> = [0..6, 12..15, 23..24, 30..34, 36..38].into_iter().flatten().collect();
    let v6: Vec<usize> = [0..6, 12..15, 20..21, 38..54, 56..58].into_iter().flatten().collect();
    for (frame, whose) in [(Udp::v4(data(64)).build(), v4), (Udp::v6(data(64)).build(), v6)] {
        for at in (0..frame.len().min(80)).filter(|at| !whose.contains(at)) {
            for value in (0..=255).filter(|value| *value != frame[at]) {
                let mut changed = frame.clone();
                changed[at] = value;
                let (verdict, moved) = bench.run(&changed, 1);
                assert!(matches!(verdict, Verdict::Drop | Verdict::Redirect), "byte {at} = {value}: {moved:?}");
            }
        }
    }
}

#[test]
fn without_a_socket_the_hubs_frames_are_dropped() {
    let mut bench = Bench::new("socket", Limits::default());
    let frame = Udp::v4(data(64)).build();
    bench.steering.set_socket(Place::sole(PORT + 1, 0), bench._socket.as_fd()).unwrap();
    bench.steering.set_socket(Place::sole(PORT, 1), bench._socket.as_fd()).unwrap();
    assert_eq!(bench.book(&frame), Redirected);
    bench.steering.clear_socket(Place::sole(PORT, 0)).unwrap();
    assert_eq!(bench.book(&frame), Dropped(XdpNoSocket), "the sockets of another port and queue are not for it");
    bench.steering.clear_socket(Place::sole(PORT, 0)).unwrap();
    assert_eq!(
        bench.book(&Udp::v4(message(4, 1, 64)).build()),
        Dropped(XdpSessionUnknown),
        "the reason that came first"
    );
}

#[test]
fn what_user_space_takes_back_is_gone() {
    let mut bench = Bench::new("back", Limits::default());
    let frame = Udp::v6(data(64)).build();
    assert_eq!(bench.book(&frame), Redirected);
    bench.steering.clear_session(LIVE & 0xff).unwrap();
    assert_eq!(bench.book(&frame), Dropped(XdpSessionUnknown));
    let response = Udp::v6(message(2, LIVE, 92)).build();
    assert_eq!(bench.book(&response), Dropped(XdpSessionUnknown));
    bench.steering.clear_local(HUB6.into()).unwrap();
    bench.steering.clear_local(HUB6.into()).unwrap();
    assert_eq!(bench.book(&frame), Passed);
    bench.steering.set_local(HUB6.into()).unwrap();
    bench.steering.set_mac(PORT, PEER_MAC).unwrap();
    assert_eq!(bench.book(&frame), Passed);
}

#[test]
fn ports_of_a_hub_share_maps_and_count_apart() {
    let mut bench = Bench::new("apart", Limits::default());
    let frame = Udp::v4(data(64)).build();
    bench.steering.set_mac(PORT + 1, PORT_MAC).unwrap();
    let books = bench.books();
    let (verdict, _) = bench.steering.program(PORT + 1).unwrap().test_run(&frame, 1).unwrap();
    assert_eq!(verdict, Verdict::Drop, "the session is known there too, but no socket");
    assert_eq!(bench.books(), books);
    let other = bench.steering.counters().unwrap().into_iter().find(|counters| counters.port == PORT + 1).unwrap();
    let one = Count { packets: 1, bytes: frame.len() as u64 };
    assert_eq!(other.dropped().collect::<Vec<_>>(), [(XdpNoSocket as u8, one)]);
    assert_eq!(other.seen, one);
}

/// What the hub's clock says.
fn boot_ns() -> u64 {
    // SAFETY: all zeros is a time.
    let mut now: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: writes the time into what it is given.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn every_64th_frame_of_a_ring_carries_the_time_and_loses_nothing() {
    let options = bpf::Options { stamp_bits: 6, ..options("stamps", Limits::default()) };
    let mut bench = Bench::with(options);
    let gauge = bench.steering.gauge(Place::sole(PORT, 0)).unwrap();
    let frames = [Udp::v4(data(64)).build(), Udp::v6(data(1000)).build(), Udp::v4(message(4, 7, 64)).build()];
    let (mut sent, mut stamped) = (0, Vec::new());
    for run in 0..300 {
        let frame = &frames[run % 3];
        let before = boot_ns();
        let (verdict, mut out) = bench.steering.program(PORT).unwrap().test_run_out(frame).unwrap();
        let after = boot_ns();
        sent += u32::from(verdict == Verdict::Redirect);
        let changed = out != *frame;
        assert_eq!(out[6..], frame[6..], "only the destination");
        let stamp = gauge.unstamp(&mut out);
        assert_eq!((stamp.is_some(), &out), (changed, frame), "as it came, run {run}");
        let Some(stamp) = stamp else { continue };
        assert_eq!(verdict, Verdict::Redirect);
        stamped.push(sent);
        assert!(stamp.until(after) <= after - before, "{} ns in {} ns", stamp.until(after), after - before);
        assert_eq!(stamp.until(before), 0);
    }
    assert_eq!((sent, stamped), (200, vec![64, 128, 192]), "dropped ones are not counted");

    // The address is the one that the port has by now, and that of no other port.
    let mut stamped = vec![0xff; 60];
    bench.steering.set_mac(PORT, PEER_MAC).unwrap();
    bench.steering.set_mac(PORT + 1, PORT_MAC).unwrap();
    assert!(gauge.unstamp(&mut stamped).is_some() && stamped[..6] == PEER_MAC);
    assert!(gauge.unstamp(&mut []).is_none() && gauge.unstamp(&mut [1; 5]).is_none());
}

/// Buckets that do not fill again while a test runs.
fn slow(known: u32, strangers: u32, fragments: u32) -> Limits {
    let rate = |burst| Rate { per_second: u32::from(burst != 0), burst };
    Limits {
        known_source: rate(known),
        strangers: rate(strangers),
        fragments: rate(fragments),
        known_sources: 1000,
        ..Limits::default()
    }
}

/// A 1-per-second bucket gives its burst, and one more for each second that the test took.
fn assert_took(moved: &BTreeMap<String, u64>, burst: u64, started: std::time::Instant, refused: DropReason) {
    let took = moved.get("redirected").copied().unwrap_or(0);
    let most = burst + started.elapsed().as_secs() + 1;
    assert!((burst..=most).contains(&took), "{moved:?}: expected {burst} tokens");
    assert!(moved[refused.name()] > 0);
}

fn initiation(from: impl Into<IpAddr>) -> Vec<u8> {
    first_message(message(1, 0, 148), from)
}

fn first_message(message: Vec<u8>, from: impl Into<IpAddr>) -> Vec<u8> {
    let from = from.into();
    let mut udp = if from.is_ipv4() { Udp::v4(message) } else { Udp::v6(message) };
    udp.from = from;
    udp.build()
}

#[test]
fn strangers_share_one_bucket_and_a_known_source_has_its_own() {
    let mut bench = Bench::new("buckets", slow(5, 20, 1));
    let started = std::time::Instant::now();
    let known = Ipv4Addr::new(203, 0, 113, 5);
    bench.steering.know_source((known, SOURCE_PORT).into()).unwrap();

    // Each of a thousand strangers sends one, so it is not the address that has the bucket.
    let mut passed = 0;
    for stranger in 0..1000u32 {
        match bench.book(&initiation(Ipv4Addr::from_bits(0x0a00_0000 + stranger))) {
            Redirected => passed += 1,
            refused => assert_eq!(refused, Dropped(XdpInitiationStranger)),
        }
    }
    assert!((20..=21 + started.elapsed().as_secs()).contains(&passed), "{passed} of 20 tokens");
    assert_eq!(bench.book(&initiation(SITE6)), Dropped(XdpInitiationStranger), "IPv6 is in the same bucket");
    let of_a_hub = first_message(initiation_of_a_trunk([2, 3, 0]), Ipv4Addr::new(203, 0, 113, 6));
    assert_eq!(bench.book(&of_a_hub), Dropped(XdpInitiationStranger), "and so are hubs");

    let (_, moved) = bench.run(&initiation(known), 50);
    assert_took(&moved, 5, started, XdpInitiationKnown);
    let of_a_hub = first_message(initiation_of_a_trunk([2, 3, 0]), known);
    assert!(bench.run(&of_a_hub, 50).1[XdpInitiationKnown.name()] > 45, "a known hub's too");
    bench.steering.know_source((known, SOURCE_PORT).into()).unwrap();
    let (_, moved) = bench.run(&initiation(known), 50);
    assert!(moved[XdpInitiationKnown.name()] > 45, "to be known again fills no bucket: {moved:?}");
    assert_eq!(bench.book(&Udp::v4(data(64)).build()), Redirected, "data needs no token");
}

#[test]
fn a_flood_in_the_name_of_a_known_source_does_not_shut_it_out() {
    let mut bench = Bench::new("endpoint", slow(5, 0, 0));
    let known = Ipv4Addr::new(203, 0, 113, 5);
    for address in [IpAddr::from(known), SITE6.into()] {
        let started = std::time::Instant::now();
        bench.steering.know_source((address, SOURCE_PORT).into()).unwrap();
        let own = initiation(address);
        let mut by_another_port = own.clone();
        let port = if address.is_ipv4() { 34 } else { 54 };
        by_another_port[port] ^= 1;
        let (_, moved) = bench.run(&by_another_port, 1000);
        assert_took(&moved, 5, started, XdpInitiationKnown);
        // Its own address and port: a bucket that nobody else empties.
        let (_, moved) = bench.run(&own, 1000);
        assert_took(&moved, 5, started, XdpInitiationKnown);
    }
    let mut neighbour = initiation(Ipv6Addr::from_bits(SITE6.to_bits() ^ 1));
    let started = std::time::Instant::now();
    bench.run(&neighbour, 20);
    neighbour[54] ^= 1;
    let took = bench.run(&neighbour, 20).1.get("redirected").copied().unwrap_or(0);
    assert!(took <= 1 + started.elapsed().as_secs(), "the /64 has one bucket for all its other addresses and ports");
}

#[test]
fn an_ipv6_source_is_its_64() {
    let mut bench = Bench::new("prefix", slow(3, 0, 0));
    bench.steering.know_source((SITE6, SOURCE_PORT).into()).unwrap();
    let neighbour = Ipv6Addr::from_bits(SITE6.to_bits() ^ (1 << 40 | 0xffff));
    let elsewhere = Ipv6Addr::from_bits(SITE6.to_bits() ^ 1 << 64);
    assert_eq!(bench.book(&initiation(neighbour)), Redirected);
    assert_eq!(bench.book(&initiation(elsewhere)), Dropped(XdpInitiationStranger));
    bench.steering.know_source("198.51.100.7:9".parse().unwrap()).unwrap();
    assert_eq!(bench.book(&initiation(Ipv4Addr::new(198, 51, 100, 7))), Redirected);
    assert_eq!(
        bench.book(&initiation(Ipv4Addr::new(198, 51, 100, 8))),
        Dropped(XdpInitiationStranger),
        "each IPv4 address is one"
    );
}

#[test]
fn fragments_share_one_bucket() {
    let mut bench = Bench::new("fragments", slow(0, 0, 7));
    let started = std::time::Instant::now();
    let [v4, v6] = both(data(1000), |udp| udp.fragment = Some((0, true)));
    let (_, moved) = bench.run(&v4, 100);
    assert_took(&moved, 7, started, XdpFragmentRate);
    assert_eq!(bench.book(&v6), Dropped(XdpFragmentRate));
}

#[test]
fn a_bucket_fills_again_at_its_rate() {
    let strangers = Rate { per_second: 20, burst: 1 };
    let mut bench = Bench::new("refill", Limits { strangers, ..slow(0, 0, 0) });
    let frame = initiation(SITE6);
    let started = std::time::Instant::now();
    assert_eq!(bench.book(&frame), Redirected);
    while bench.book(&frame) != Redirected {
        assert!(started.elapsed().as_secs() < 10, "the token never comes back");
    }
    assert!(started.elapsed().as_millis() >= 50, "the second token in {:?} at 20 a second", started.elapsed());
}

#[test]
fn all_cpus_together_take_no_more_than_the_bucket_has() {
    const BURST: u64 = 150_000;
    let mut bench = Bench::new("cpus", slow(BURST as u32, 0, 0));
    bench.steering.know_source((SITE6, SOURCE_PORT).into()).unwrap();
    let frame = initiation(SITE6);
    let program = bench.steering.program(PORT).unwrap();
    let (started, together) = (std::time::Instant::now(), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                together.wait();
                program.test_run(&frame, 100_000).unwrap();
            });
        }
    });
    let took = bench.books().redirected.packets;
    assert!(took <= BURST + 1 + started.elapsed().as_secs(), "{took} of {BURST} tokens");
    // A CPU that loses the race four times over gives up, so a few tokens may be left.
    assert!(took >= BURST / 10 * 9, "{took} of {BURST} tokens");
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    let mut bench = Bench::new("range", Limits::default());
    let entry = SessionEntry { index: 0, worker: 0, tenant: 0, site: 0, state: SessionState::Live };
    let socket = bench._socket.as_fd();
    let refused = [
        bench.steering.set_session(256, entry).unwrap_err(),
        bench.steering.set_mac(64, PORT_MAC).unwrap_err(),
        bench.steering.set_socket(Place::sole(0, 64), socket).unwrap_err(),
        bench.steering.set_socket(Place::sole(64, 0), socket).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::Range { .. }), "{error}");
    }
    assert!(matches!(bench.steering.program(64), Err(Error::Range { .. })));
    for bits in [0, 25] {
        let refused = Steering::load(bpf::Options { session_bits: bits, ..options("bits", Limits::default()) });
        assert!(matches!(refused, Err(Error::SessionBits { .. })));
    }
}

/// The enum of the C file, as the object's BTF has it.
fn counted_by_the_program(steering: &mut Steering) -> BTreeMap<String, u8> {
    let id = libbpf_rs::Program::id_from_fd(steering.program(0).unwrap().as_fd()).unwrap();
    let btf = libbpf_rs::btf::Btf::from_prog_id(id).unwrap();
    let reasons = btf.type_by_name::<libbpf_rs::btf::types::Enum<'_>>("drop_reason").unwrap();
    let name = |member: &libbpf_rs::btf::types::EnumMember<'_>| member.name.unwrap().to_str().unwrap().to_lowercase();
    reasons.iter().map(|member| (name(&member), member.value.try_into().unwrap())).collect()
}

fn reason_named(name: &str) -> DropReason {
    *DROP_REASONS.iter().find(|reason| reason.name() == name).unwrap_or_else(|| panic!("{name} is no DropReason"))
}

#[test]
fn the_programs_reasons_are_those_of_wire() {
    let counted = counted_by_the_program(&mut Bench::new("btf", Limits::default()).steering);
    assert!(!counted.is_empty());
    for (name, number) in &counted {
        assert_eq!(reason_named(name) as u8, *number, "{name}");
    }
    let of_the_program = DROP_REASONS.iter().filter(|reason| (**reason as u8) < 32).count();
    assert_eq!(of_the_program, counted.len(), "reasons that are the program's, and that it does not know");
}
