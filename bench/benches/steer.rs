//! What the XDP program costs a frame, by test-run: `cargo bench -p ekiden-bench --bench steer` (as root).
//!
//! One frame again and again, so every map row is in the cache: the floor of the cost, not the mean under a flood. The last two are
//! calls of 64 frames each, since a frame that was stamped is for another port, and can't be run again: what differs between them
//! is what a stamp costs 64 frames, and the rest is what the kernel takes to begin a run.
#![allow(unsafe_code, reason = "an AF_XDP socket for the redirect to go to")]

#[path = "../../bpf/tests/common/mod.rs"]
mod common;

use bpf::{Limits, Options, Place, Rate, Rings, SessionEntry, SessionState, Steering};
use common::{HUB4, HUB6, LISTEN, PEER_MAC, PORT_MAC, SITE6, SOURCE_PORT, Udp, message};
use criterion::{Criterion, criterion_group, criterion_main};
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

const LIVE: u32 = 0x1234_5621;

/// Frames of one call: no less, or it would be the kernel's own cost that is seen; no more, or it takes long to interrupt.
const AT_ONCE: std::ops::RangeInclusive<u64> = 20_000..=2_000_000;

fn steering(entries: u32, stamp_bits: u8) -> (Steering, OwnedFd) {
    let open = Rate { per_second: 1_000_000_000, burst: 1_000_000_000 };
    let strangers = Rate { per_second: 1, burst: 1 };
    let limits = Limits { strangers, known_source: open, fragments: open, ..Limits::default() };
    let rings = Rings { ports: 1, queues: 1, entries };
    let steering = Steering::load(Options { limits, rings, stamp_bits, ..Options::new("bench", LISTEN) });
    let steering = steering.expect("the program loads: this runs as root");
    steering.set_mac(0, PORT_MAC).expect("a row");
    steering.set_local(HUB4.into()).expect("a row");
    steering.set_local(HUB6.into()).expect("a row");
    let entry = SessionEntry { index: LIVE, worker: 0, tenant: 0, site: 0, state: SessionState::Live };
    steering.set_session(LIVE & 0xffff, entry).expect("a row");
    steering.know_source((SITE6, SOURCE_PORT).into()).expect("a row");
    // SAFETY: no pointers; checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "no AF_XDP socket: {}", io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    steering.set_socket(Place::sole(0, 0), socket.as_fd()).expect("a row");
    (steering, socket)
}

fn frames(c: &mut Criterion) {
    let another_mac = Udp { destination_mac: PEER_MAC, ..Udp::v4(message(4, LIVE, 64)) };
    let another_port = Udp { port: 53, ..Udp::v4(message(4, LIVE, 64)) };
    let fragment = Udp { fragment: Some((0, true)), ..Udp::v4(message(4, LIVE, 1000)) };
    let rows = [
        ("another MAC: passed", another_mac.build()),
        ("another UDP port: passed", another_port.build()),
        ("data over IPv4: to the ring", Udp::v4(message(4, LIVE, 1452)).build()),
        ("data over IPv6: to the ring", Udp::v6(message(4, LIVE, 1452)).build()),
        ("data of no session: dropped", Udp::v4(message(4, LIVE ^ 1, 1452)).build()),
        ("initiation of a stranger, no token: dropped", Udp::v4(message(1, 0, 148)).build()),
        ("initiation of a known source: to the ring", Udp::v6(message(1, 0, 148)).build()),
        ("fragment: to the ring", fragment.build()),
    ];
    for (ring, entries) in [("ring with room", u32::MAX), ("ring that runs over", 2048)] {
        let (mut steering, _socket) = steering(entries, 63);
        let program = steering.program(0).expect("one port");
        let mut group = c.benchmark_group(format!("steer, {ring}"));
        for (name, frame) in &rows {
            group.bench_function(*name, |b| {
                b.iter_custom(|rounds| {
                    let (mut left, mut spent) = (rounds, Duration::ZERO);
                    while left > 0 {
                        let run = left.clamp(*AT_ONCE.start(), *AT_ONCE.end());
                        let (_, each) = program.test_run(frame, run as u32).expect("it runs");
                        spent += Duration::from_nanos(u64::from(each) * run.min(left));
                        left -= run.min(left);
                    }
                    spent
                });
            });
        }
        group.finish();
    }
}

fn stamps(c: &mut Criterion) {
    let mut group = c.benchmark_group("steer, 64 frames");
    for (name, stamp_bits) in [("none stamped", 63), ("one stamped", 6)] {
        let (mut steering, _socket) = steering(u32::MAX, stamp_bits);
        let (program, frame) = (steering.program(0).expect("one port"), Udp::v4(message(4, LIVE, 1452)).build());
        group.bench_function(name, |b| {
            b.iter_custom(|rounds| {
                let run = |_| u64::from(program.test_run(&frame, 64).expect("it runs").1);
                Duration::from_nanos((0..rounds).map(run).sum::<u64>() * 64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frames, stamps);
criterion_main!(benches);
