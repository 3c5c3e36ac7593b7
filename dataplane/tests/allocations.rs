//! The relay allocates nothing: no call of the allocator while packets pass.

mod hubs;

use ekiden_dataplane::packet::{Batch, Packet};
use ekiden_dataplane::rehearsal::joined::tagged;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4};
use hubs::{CIPHERS, World, nets, packets, tenant};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::PortIndex;
use wire::geneve::Payload;

struct Counting;

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "an allocator that counts is an allocator")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.set(CALLS.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Lets frames pass; how many left, and how often that called the allocator.
fn relay(hub: &mut Rehearsal, frames: &[Vec<u8>]) -> (usize, u64) {
    let (before, mut left) = (CALLS.get(), 0);
    for some in frames.chunks(64) {
        let mut batch = Batch::new();
        for bytes in some {
            let mut frame = hub.journey.pool.pop().expect("a chunk");
            frame.copy_from(bytes);
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        hub.journey.relay(&mut batch, hub.now);
        hub.journey.dispatch(&mut batch);
        left += hub.journey.out[0].len();
        let out = &mut hub.journey.out[0];
        hub.journey.pool.append(out);
    }
    (left, CALLS.get() - before)
}

#[test]
fn relaying_ten_thousand_packets_calls_no_allocator() {
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 256);
    let sealed: Vec<_> = (0..10_000).map(|_| hub.seal(0, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, 512))).collect();
    let before = CALLS.get();
    assert_eq!(relay(&mut hub, &sealed), (10_000, 0), "the packet path allocated or freed");
    drop(vec![1]);
    assert!(CALLS.get() > before, "the counter counts");
}

#[test]
fn nor_does_a_trunk_either_way() {
    let mut world = World::pair(4, CIPHERS[1]);
    let there = packets(nets(0)[0], nets(1)[0], 64, 512);
    let back = packets(nets(1)[0], nets(0)[0], 64, 512);
    let mut frames: Vec<_> = (0..5_000).map(|n| world.seal(0, 0, &there[n % 2])).collect();
    for n in 0..5_000 {
        let payload = if n % 2 == 0 { Payload::Ipv4 } else { Payload::Ipv6 };
        let plain = tagged(tenant(0), payload, &back[n % 2]);
        frames.push(world.hubs[1].seal_by(world.lane(1, 0, n % 4), &plain));
    }
    assert_eq!(relay(&mut world.hubs[0], &frames), (10_000, 0), "the packet path allocated or freed");
}
