//! A data message with one bit flipped, each bit in turn, and cut at each length: what XDP says, and what a worker says
//! whatever XDP said. The tables are the promise; every frame behaves exactly as its row.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use bpf::{Options, Place, SessionEntry, SessionState, Steering, Verdict};
use crypto::message::{DATA_HEADER, data_header};
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use wire::DropReason::{self, *};
use wire::{DROP_REASONS, Template};

/// What XDP does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Xdp {
    /// It is not the hub's: passed.
    Kernel,
    /// It goes to a worker.
    Ring,
    /// Dropped.
    Drop(DropReason),
}
use Xdp::{Drop, Kernel, Ring};

/// What a worker does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    /// Its packet reaches its site.
    Sent,
    /// Dropped.
    Not(DropReason),
}
use Worker::{Not, Sent};

/// A row: the field, how many bits of it, and what a flip of any of them leads to.
type Row = (&'static str, usize, Xdp, Worker);

/// Ethernet, then IPv4. A flip anywhere in an IPv4 header contradicts its checksum.
#[rustfmt::skip]
const OVER_IPV4: &[Row] = &[
    ("destination MAC",                   48, Kernel,              Sent),
    ("source MAC",                        48, Ring,                Sent),
    ("EtherType",                         16, Kernel,              Not(OuterMalformed)),
    ("version",                            4, Kernel,              Not(OuterMalformed)),
    ("header length: 52",                  1, Kernel,              Not(OuterMalformed)), // the port is read elsewhere
    ("header length: 4",                   1, Drop(XdpMalformed),  Not(OuterMalformed)),
    ("header length: 28",                  1, Kernel,              Not(OuterMalformed)),
    ("header length: 16",                  1, Drop(XdpMalformed),  Not(OuterMalformed)),
    ("DSCP, ECN",                          8, Ring,                Not(OuterMalformed)),
    ("total length",                      16, Drop(XdpMalformed),  Not(OuterMalformed)),
    ("identification",                    16, Ring,                Not(OuterMalformed)),
    ("flags, fragment offset",            16, Ring,                Not(OuterMalformed)),
    ("TTL",                                8, Ring,                Not(OuterMalformed)),
    ("protocol",                           8, Kernel,              Not(OuterMalformed)),
    ("checksum",                          16, Ring,                Not(OuterMalformed)),
    ("source",                            32, Ring,                Not(OuterMalformed)),
    ("destination",                       32, Kernel,              Not(OuterMalformed)),
];

/// Ethernet, then IPv6, which has no checksum: what neither XDP nor a worker reads changes nothing.
#[rustfmt::skip]
const OVER_IPV6: &[Row] = &[
    ("destination MAC",                   48, Kernel,              Sent),
    ("source MAC",                        48, Ring,                Sent),
    ("EtherType",                         16, Kernel,              Not(OuterMalformed)),
    ("version",                            4, Kernel,              Not(OuterMalformed)),
    ("traffic class: DSCP",                6, Ring,                Sent),
    ("traffic class: ECN",                 2, Ring,                Sent), // capable, and not congested
    ("flow label",                        20, Ring,                Sent),
    ("payload length",                    16, Drop(XdpMalformed),  Not(OuterMalformed)),
    ("next header",                        8, Kernel,              Not(OuterMalformed)),
    ("hop limit",                          8, Ring,                Sent),
    ("source",                           128, Ring,                Sent), // as if the site had moved
    ("destination",                      128, Kernel,              Sent),
];

/// UDP and the message; the same over both. Numbers of WireGuard are little-endian.
#[rustfmt::skip]
const DATAGRAM: &[Row] = &[
    ("source port",                       16, Ring,                    Sent), // as if the site had moved
    ("destination port",                  16, Kernel,                  Sent),
    ("UDP length 104: longer",             9, Drop(XdpMalformed),      Not(OuterMalformed)),
    ("UDP length: 40, 72",                 2, Drop(XdpMalformed),      Not(AuthFailed)), // cut, were it not for XDP
    ("UDP length: 120",                    1, Drop(XdpMalformed),      Not(OuterMalformed)),
    ("UDP length: 96",                     1, Drop(XdpMalformed),      Not(AuthFailed)),
    ("UDP length: longer by 4, 2, 1",      3, Drop(XdpMalformed),      Not(OuterMalformed)),
    ("UDP checksum",                      16, Ring,                    Sent),
    ("type: none",                         3, Drop(XdpNotWireguard),   Not(OuterNotWireguard)),
    ("type: that of a trunk's data",       1, Ring,                    Not(SessionUnknown)), // it is a site's session
    ("type, reserved",                    28, Drop(XdpNotWireguard),   Not(OuterNotWireguard)),
    ("receiver index",                    32, Drop(XdpSessionUnknown), Not(SessionUnknown)),
    ("counter, bits 0 to 39",             40, Ring,                    Not(AuthFailed)),
    ("counter, bits 47 to 45",             3, Ring,                    Not(CounterLimit)),
    ("counter, bits 44 to 40",             5, Ring,                    Not(AuthFailed)),
    ("counter, bits 48 to 63",            16, Ring,                    Not(CounterLimit)),
    ("sealed packet",          8 * INNER_LEN, Ring,                    Not(AuthFailed)),
    ("tag",                              128, Ring,                    Not(AuthFailed)),
];

/// Bytes of the frame that are left, and what they lead to. The last row is the whole frame.
#[rustfmt::skip]
const CUT_OVER_IPV4: &[Row] = &[
    ("before the destination can be read",  34, Kernel,             Not(OuterMalformed)),
    ("from there on",                     104, Drop(XdpMalformed), Not(OuterMalformed)),
    ("whole",                               1, Ring,               Sent),
];
#[rustfmt::skip]
const CUT_OVER_IPV6: &[Row] = &[
    ("before the destination can be read",  54, Kernel,             Not(OuterMalformed)),
    ("from there on",                     104, Drop(XdpMalformed), Not(OuterMalformed)),
    ("whole",                               1, Ring,               Sent),
];
/// Bytes of the datagram that are left, all lengths and sums mended.
#[rustfmt::skip]
const SHORTENED: &[Row] = &[
    ("shorter than any message",            32, Drop(XdpNotWireguard), Not(OuterNotWireguard)),
    ("shorter than it was sealed",   INNER_LEN, Ring,                  Not(AuthFailed)),
    ("whole",                                1, Ring,                  Sent),
];

const INNER_LEN: usize = 64;
const HUB_V6: &str = "[2001:db8::1]:51820";
const SITE_V6: &str = "[2001:db8:7::9]:51821";
/// Bits of a receiver index that are its slot, as the rehearsal has them.
const BITS: u8 = 16;

struct Trial {
    steering: Steering,
    /// Where a worker would say that it has read its ring: without it, the ring would seem to run full.
    gauge: bpf::Gauge,
    _socket: OwnedFd,
}

impl Trial {
    fn new(name: &str) -> Self {
        let pins = format!("/sys/fs/bpf/ekiden-test-{}-{name}", std::process::id());
        let options = Options { pin_root: pins.into(), session_bits: BITS, ..Options::new("test", 51820) };
        let mut steering = Steering::load(options).unwrap();
        steering.set_mac(0, [2, 0, 0, 0, 0, 1]).unwrap();
        for address in ["192.0.2.1", "2001:db8::1"] {
            steering.set_local(address.parse().unwrap()).unwrap();
        }
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None).unwrap();
        steering.set_socket(Place::sole(0, 0), socket.as_fd()).unwrap();
        let index = hub().far[0].session.remote_index();
        let entry = SessionEntry { index, worker: 0, tenant: 0, site: 0, state: SessionState::Live };
        steering.set_session(index & 0xffff, entry).unwrap();
        steering.program(0).unwrap();
        let gauge = steering.gauge(Place::sole(0, 0)).unwrap();
        Self { steering, gauge, _socket: socket }
    }

    fn xdp(&mut self, frame: &[u8]) -> Xdp {
        let drops = |steering: &Steering| steering.counters().unwrap()[0].drops.clone();
        self.gauge.say(0);
        let before = drops(&self.steering);
        let (verdict, _) = self.steering.program(0).unwrap().test_run(frame, 1).unwrap();
        let after = drops(&self.steering);
        let counted = |reason: &&DropReason| {
            let number = **reason as usize;
            number < before.len() && before[number] != after[number]
        };
        match (verdict, DROP_REASONS.iter().find(counted)) {
            (Verdict::Pass, None) => Kernel,
            (Verdict::Redirect, None) => Ring,
            (Verdict::Drop, Some(reason)) => Drop(*reason),
            other => panic!("{other:?}"),
        }
    }

    /// Each frame of the table against its row.
    fn hold(&mut self, rows: &[&[Row]], frames: impl ExactSizeIterator<Item = Vec<u8>>) {
        let rows: Vec<&Row> = rows.iter().copied().flatten().collect();
        assert_eq!(
            rows.iter().map(|row| row.1).sum::<usize>(),
            frames.len(),
            "the table is as long as what it is about"
        );
        let each = rows.iter().flat_map(|row| std::iter::repeat_n(*row, row.1));
        for (at, (frame, (field, _, xdp, worker))) in frames.zip(each).enumerate() {
            // The kernel runs a program on nothing shorter than an Ethernet header, and no driver does.
            if frame.len() >= 14 {
                assert_eq!(self.xdp(&frame), *xdp, "{field}, {at} of the table: XDP");
            }
            assert_eq!(worker_of(&frame), *worker, "{field}, {at} of the table: a worker");
        }
    }
}

/// A hub with two sites. Only the first can send: its index is the one that is live, here as in XDP's map.
fn hub() -> Rehearsal {
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 1);
    let other = hub.far[1].session.remote_index();
    hub.journey.sessions.withdraw(other);
    hub
}

/// What a worker that has seen nothing before does with a frame; and that it loses no chunk.
fn worker_of(frame: &[u8]) -> Worker {
    let mut hub = hub();
    let left = hub.pass(&[frame.to_vec()]);
    assert_eq!(hub.census(), (1, 1), "a chunk is lost");
    match (&left[..], &hub.drops()[..]) {
        ([sent], []) => {
            assert_eq!(hub.open(sent).expect("a message of the hub's").0, 1);
            Sent
        }
        ([], [(reason, 1)]) => Not(*reason),
        other => panic!("{other:?}"),
    }
}

/// The frame that all others are made of, over IPv4 or IPv6, and its datagram cut to `len` bytes if that is asked.
fn frame(v6: bool, len: Option<usize>) -> Vec<u8> {
    let hub = hub();
    let sealed = hub.seal(0, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, INNER_LEN));
    let mut datagram = sealed[42..].to_vec();
    assert_eq!(datagram[..DATA_HEADER], data_header(hub.far[0].session.remote_index(), 0));
    datagram.truncate(len.unwrap_or(datagram.len()));
    if !v6 {
        return hub.frame(0, &datagram);
    }
    let (source, destination): (SocketAddr, SocketAddr) = (SITE_V6.parse().unwrap(), HUB_V6.parse().unwrap());
    let (source_mac, destination_mac) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
    let path = wire::Path { source_mac, destination_mac, source, destination, udp_checksum: true };
    let template = Template::new(&path).unwrap();
    let mut frame = vec![0; template.header_len()];
    frame.extend(datagram);
    template.write(&mut frame, 0, 0).unwrap();
    frame
}

#[test]
fn a_flip_of_each_bit_has_the_reason_of_its_field() {
    let mut trial = Trial::new("flips");
    for (v6, headers) in [(false, OVER_IPV4), (true, OVER_IPV6)] {
        let good = frame(v6, None);
        assert_eq!((trial.xdp(&good), worker_of(&good)), (Ring, Sent), "without a flip it arrives");
        let flipped = (0..good.len() * 8).map(|bit| {
            let mut frame = good.clone();
            frame[bit / 8] ^= 0x80 >> (bit % 8);
            frame
        });
        trial.hold(&[headers, DATAGRAM], flipped);
    }
}

#[test]
fn a_cut_at_each_length_has_its_reason() {
    let mut trial = Trial::new("cuts");
    for (v6, rows) in [(false, CUT_OVER_IPV4), (true, CUT_OVER_IPV6)] {
        let good = frame(v6, None);
        trial.hold(&[rows], (0..good.len() + 1).map(|len| good[..len].to_vec()));
        let datagram = good.len() - frame(v6, Some(0)).len();
        trial.hold(&[SHORTENED], (0..datagram + 1).map(|len| frame(v6, Some(len))));
    }
}
