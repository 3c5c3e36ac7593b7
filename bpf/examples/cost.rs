//! What the program costs a frame, by test-run: `cargo run -p ekiden-bpf --example cost` (as root).
//!
//! One frame again and again, so every map row is in the cache: the floor of the cost, not the mean under a flood. A frame that
//! was stamped is for another port, and could not be run again: so stamps come last, in runs that end with one.
#![allow(unsafe_code, reason = "an AF_XDP socket for the redirect to go to")]
#![allow(clippy::print_stdout, reason = "a program that prints")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::error::Error;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use bpf::{Limits, Options, Place, Rate, Rings, SessionEntry, SessionState, Steering};
use common::{HUB4, HUB6, LISTEN, PEER_MAC, PORT_MAC, SITE6, SOURCE_PORT, Udp, message};

const LIVE: u32 = 0x1234_5621;

fn main() -> Result<(), Box<dyn Error>> {
    let open = Rate { per_second: 1_000_000_000, burst: 1_000_000_000 };
    let limits = Limits {
        strangers: Rate { per_second: 1, burst: 1 },
        known_source: open,
        fragments: open,
        ..Limits::default()
    };
    for (ring, entries) in [("a ring that is not half full", u32::MAX), ("a ring that runs over", 2048)] {
        println!("{ring}:");
        measure(limits.clone(), Rings { ports: 1, queues: 1, entries })?;
    }
    println!("64 frames of data, v4, to the ring, on the average of {CALLS} times:");
    let rings = Rings { ports: 1, queues: 1, entries: u32::MAX };
    for (name, stamp_bits) in [("without a stamp", 63), ("the last stamped", 6), ("without", 63), ("stamped", 6)] {
        let (mut steering, _socket) = steering(limits.clone(), rings, stamp_bits)?;
        let (program, frame) = (steering.program(0)?, Udp::v4(message(4, LIVE, 1452)).build());
        let mut sum = 0;
        for _ in 0..CALLS {
            sum += u64::from(program.test_run(&frame, 64)?.1);
        }
        println!("{:6.1} ns a frame, {name}", sum as f64 / f64::from(CALLS));
    }
    Ok(())
}

/// A call takes the kernel some 20 ms, whatever the program does.
const CALLS: u32 = 200;

fn steering(limits: Limits, rings: Rings, stamp_bits: u8) -> Result<(Steering, OwnedFd), Box<dyn Error>> {
    let steering = Steering::load(Options { limits, rings, stamp_bits, ..Options::new("cost", LISTEN) })?;
    steering.set_mac(0, PORT_MAC)?;
    steering.set_local(HUB4.into())?;
    steering.set_local(HUB6.into())?;
    let entry = SessionEntry { index: LIVE, worker: 0, tenant: 0, site: 0, state: SessionState::Live };
    steering.set_session(LIVE & 0xffff, entry)?;
    steering.know_source((SITE6, SOURCE_PORT).into())?;
    // SAFETY: no pointers; checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    steering.set_socket(Place::sole(0, 0), socket.as_fd())?;
    Ok((steering, socket))
}

fn measure(limits: Limits, rings: Rings) -> Result<(), Box<dyn Error>> {
    let (mut steering, _socket) = steering(limits, rings, 63)?;
    let another_mac = Udp { destination_mac: PEER_MAC, ..Udp::v4(message(4, LIVE, 64)) };
    let another_port = Udp { port: 53, ..Udp::v4(message(4, LIVE, 64)) };
    let fragment = Udp { fragment: Some((0, true)), ..Udp::v4(message(4, LIVE, 1000)) };
    let rows = [
        ("passed: another MAC", another_mac.build()),
        ("passed: another UDP port", another_port.build()),
        ("data, live session, v4: to the ring", Udp::v4(message(4, LIVE, 1452)).build()),
        ("data, live session, v6: to the ring", Udp::v6(message(4, LIVE, 1452)).build()),
        ("data, unknown index, v4: dropped", Udp::v4(message(4, LIVE ^ 1, 1452)).build()),
        ("initiation, stranger without a token: dropped", Udp::v4(message(1, 0, 148)).build()),
        ("initiation, known source with a token: to the ring", Udp::v6(message(1, 0, 148)).build()),
        ("fragment with a token: to the ring", fragment.build()),
    ];
    let program = steering.program(0)?;
    for (name, frame) in rows {
        let runs = (0..5).map(|_| program.test_run(&frame, 2_000_000)).collect::<Result<Vec<_>, _>>()?;
        let (verdict, _) = runs[0];
        let best = runs.iter().map(|(_, nanoseconds)| nanoseconds).min().unwrap_or(&0);
        println!("{best:4} ns  {name} ({verdict:?})");
    }
    Ok(())
}
