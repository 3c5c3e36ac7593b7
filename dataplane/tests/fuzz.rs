//! The journey under any input: no panic, no chunk lost, and the books balance after every batch.
//!
//! A minute in all unless `EKIDEN_FUZZ_SECONDS` says how long each target runs. With `cargo bolero` the same targets are
//! driven by coverage.

use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

fn seconds() -> Duration {
    let asked = std::env::var("EKIDEN_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(asked.unwrap_or(20))
}

fn hub() -> Rehearsal {
    let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
    Rehearsal::new(&[sites(), sites()], 2048)
}

/// Lets the frames pass, and asserts: received + generated = sent + dropped + to control + keepalives + on the shelf.
fn pass(hub: &mut Rehearsal, frames: &[Vec<u8>], received: &mut u64, sent: &mut u64) {
    *received += frames.len() as u64;
    let out = hub.pass(frames);
    *sent += out.len() as u64;
    assert!(out.iter().all(|frame| hub.open(frame).is_some()), "a frame left that its site can't open");
    while let Some(parcel) = hub.control.parcel() {
        hub.control.recycle(parcel);
    }
    let _ = hub.events();
    let turns = &hub.journey.rows.turns;
    let dropped: u64 = hub.drops().iter().map(|(_, n)| n).sum();
    let ended = *sent + dropped + turns.to_control.read() + turns.keepalives.read() + hub.journey.shelf.len() as u64;
    assert_eq!(*received + turns.generated.read(), ended, "the books");
    let (found, all) = hub.census();
    assert_eq!(found, all, "a chunk is lost");
}

#[test]
fn any_frame_from_the_wire() {
    let mut hub = AssertUnwindSafe(hub());
    let (mut received, mut sent) = (0, 0);
    bolero::check!().with_test_time(seconds()).with_max_len(1792).for_each(move |input: &[u8]| {
        // As it came, and as the payload of a frame that gets as far as the sessions.
        let framed = hub.frame(0, &input[..input.len().min(1700)]);
        pass(&mut hub, &[input.to_vec(), framed], &mut received, &mut sent);
    });
}

#[test]
fn any_packet_inside_a_tunnel() {
    let mut hub = AssertUnwindSafe(hub());
    let (mut received, mut sent) = (0, 0);
    bolero::check!().with_test_time(seconds()).with_max_len(1440).for_each(move |input: &[u8]| {
        let sealed = hub.seal(input.first().map_or(0, |byte| *byte as usize % 4), input);
        pass(&mut hub, &[sealed], &mut received, &mut sent);
    });
}

#[test]
fn any_change_to_a_good_packet_or_its_frame() {
    let mut hub = AssertUnwindSafe(hub());
    let (mut received, mut sent) = (0, 0);
    let changes = bolero::generator::produce::<(bool, bool, u8, Vec<(u16, u8)>)>();
    bolero::check!().with_test_time(seconds()).with_generator(changes).for_each(move |(v6, inside, hops, changes)| {
        let mut packet = match v6 {
            false => ipv4([10, 9, 1, 1], [10, 9, 2, 1], *hops, 300),
            true => ipv6("fd00:9:1::1", "fd00:9:2::1", *hops, 300),
        };
        let change = |bytes: &mut Vec<u8>| {
            for (at, value) in changes {
                let at = *at as usize % bytes.len();
                bytes[at] ^= value;
            }
        };
        if *inside {
            change(&mut packet);
        }
        let mut frame = hub.seal(0, &packet);
        if !inside {
            change(&mut frame);
        }
        pass(&mut hub, &[frame.clone(), frame], &mut received, &mut sent);
    });
}
