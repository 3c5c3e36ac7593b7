//! The relay allocates nothing: no call of the allocator while packets pass.

use ekiden_dataplane::packet::{Batch, Packet};
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use wire::PortIndex;

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

#[test]
fn relaying_ten_thousand_packets_calls_no_allocator() {
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 256);
    let sealed: Vec<_> = (0..10_000).map(|_| hub.seal(0, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, 512))).collect();
    let before = CALLS.get();
    let mut left = 0;
    for some in sealed.chunks(64) {
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
    assert_eq!(CALLS.get() - before, 0, "the packet path allocated or freed");
    assert_eq!(left, 10_000);
    drop(vec![1]);
    assert!(CALLS.get() > before, "the counter counts");
}
