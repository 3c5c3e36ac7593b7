//! The path over rings in ordinary memory, with the test in the kernel's place.

use super::*;
use crate::xsk::ring::plain;
use crate::xsk::{Census, HEADROOM};
use proptest::prelude::*;

mod long;

/// The kernel's ends of the rings of one socket.
struct Kernel {
    fill: Consumer<u64>,
    completion: Producer<u64>,
    receive: Producer<Descriptor>,
    transmit: Consumer<Descriptor>,
}

impl Kernel {
    /// Takes a frame of the fill ring and returns it as a packet of `len` bytes.
    fn deliver(&mut self, len: u32, options: u32) -> bool {
        let Some(address) = self.fill.pop() else { return false };
        self.fill.release();
        self.receive.push(Descriptor { address: address + HEADROOM as u64, len, options }).expect("a ring with room");
        self.receive.publish();
        true
    }

    /// Sends one packet, and returns what it was and where.
    fn send(&mut self) -> Option<Descriptor> {
        let descriptor = self.transmit.pop()?;
        self.transmit.release();
        self.completion.push(descriptor.address).expect("a ring with room");
        self.completion.publish();
        Some(descriptor)
    }
}

/// A socket's path with rings of `size` entries whose indices begin at `start`, and its kernel.
fn path(umem: &'static Umem, size: u32, start: u32) -> (Path, Kernel) {
    let queue = Arc::new(Queue { id: umem.new_queue(), ifindex: 1, queue: 0, open: AtomicU32::new(1) });
    joint_path(umem, &queue, size, start, true)
}

fn joint_path(umem: &'static Umem, queue: &Arc<Queue>, size: u32, start: u32, owns: bool) -> (Path, Kernel) {
    let (fill, kernel_fill) = plain::ring(size, start);
    let (kernel_completion, completion) = plain::ring(size, start);
    let (kernel_receive, receive) = plain::ring(size, start);
    let (transmit, kernel_transmit) = plain::ring(size, start);
    let rings = Rings { fill: owns.then_some(fill), completion: owns.then_some(completion), receive, transmit };
    let kernel =
        Kernel { fill: kernel_fill, completion: kernel_completion, receive: kernel_receive, transmit: kernel_transmit };
    (Path::new(umem, Arc::clone(queue), rings, size as usize), kernel)
}

#[test]
fn a_frame_goes_round() {
    let umem = Umem::private(4, 2048);
    let mut pool = umem.frames(0..4);
    let (mut path, mut kernel) = path(umem, 8, u32::MAX - 1);
    assert_eq!(path.refill(&mut pool), 4);
    assert_eq!(umem.census(), Census { receive: 4, ..Census::default() });
    for len in [60, 1500] {
        assert!(kernel.deliver(len, 0));
    }
    let mut frames = Vec::new();
    assert_eq!(path.receive(&mut frames, 1), 1, "no more than asked for");
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!(frames.iter().map(|f| (f.headroom(), f.len())).collect::<Vec<_>>(), [(256, 60), (256, 1500)]);

    frames[0].trim_front(14);
    frames[0].prepend(42).fill(7);
    let offset = (frames[0].headroom() + frames[0].chunk() as usize * 2048) as u64;
    assert_eq!(path.transmit(&mut frames), 2);
    assert!(frames.is_empty());
    assert_eq!(umem.census(), Census { receive: 2, transmit: 2, ..Census::default() });
    let sent = kernel.send().unwrap();
    assert_eq!((sent.address, sent.len, sent.options), (offset, 88, 0));
    assert_eq!(
        path.in_kernel(),
        InKernel { fill: 2, receive: 0, transmit: 1, completion: 1, lent_receive: 2, lent_transmit: 2 }
    );
    assert_eq!(path.reclaim(&mut pool), 1);
    assert_eq!((pool[0].headroom(), pool[0].len()), (HEADROOM, 0));
    kernel.send().unwrap();
    assert_eq!(path.reclaim(&mut pool), 1);
    assert_eq!(umem.census(), Census { held: 2, receive: 2, ..Census::default() });
    let counts = Counts { filled: 4, received: 2, transmitted: 2, completed: 2, ..Counts::default() };
    assert_eq!(path.counts(), counts);
}

#[test]
fn what_does_not_fit_stays_with_the_caller() {
    let umem = Umem::private(12, 2048);
    let mut pool = umem.frames(0..12);
    let (mut path, mut kernel) = path(umem, 4, 0);
    assert_eq!(path.refill(&mut pool), 4);
    pool.iter_mut().for_each(|frame| frame.reset(HEADROOM, 60));
    let first: Vec<u32> = pool[..4].iter().map(Frame::chunk).collect();
    assert_eq!(path.transmit(&mut pool), 4);
    assert_eq!(pool.len(), 4);
    let frame = path.queue(pool.pop().unwrap()).unwrap_err();
    assert_eq!(frame.len(), 60, "as it was");
    let sent: Vec<u32> = std::iter::from_fn(|| kernel.send()).map(|d| (d.address / 2048) as u32).collect();
    assert_eq!(sent, first, "in the order of the vector");
    assert!(path.queue(frame).is_ok());
    assert_eq!(umem.census().held, 3);
}

#[test]
fn packets_of_several_buffers_are_dropped_whole() {
    let umem = Umem::private(8, 2048);
    let mut pool = umem.frames(0..8);
    let (mut path, mut kernel) = path(umem, 8, 0);
    path.refill(&mut pool);
    let (more, last) = (libc::XDP_PKT_CONTD, 0);
    for (len, options) in [(60, last), (1792, more), (1792, more), (9, last), (61, last), (1792, more)] {
        assert!(kernel.deliver(len, options));
    }
    let mut frames = Vec::new();
    assert_eq!(path.receive(&mut frames, 8), 2);
    assert_eq!(frames.iter().map(Frame::len).collect::<Vec<_>>(), [60, 61]);
    // The rest of the last packet arrives at the next turn.
    assert!(kernel.deliver(10, last) && kernel.deliver(62, last));
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!(frames[2].len(), 62);
    let counts = path.counts();
    assert_eq!((counts.received, counts.multi_buffer_packets, counts.multi_buffer_frames), (8, 2, 5));
    assert_eq!(path.refill(&mut pool), 5, "their frames go back to work");
    assert_eq!(umem.census(), Census { held: 3, receive: 5, ..Census::default() });
}

#[test]
fn descriptors_out_of_thin_air_are_counted() {
    let umem = Umem::private(4, 2048);
    let mut pool = umem.frames(0..4);
    let (mut path, mut kernel) = path(umem, 8, 0);
    let sent = pool.pop().unwrap();
    path.refill(&mut pool);
    let address = kernel.fill.pop().unwrap();
    let bad = [
        (address, 2049),     // longer than a chunk
        (address + 256, 60), // fine, once
        (address + 256, 60),
        (sent.chunk() as u64 * 2048, 60), // never lent
        (1 << 40, 60),
    ];
    for (address, len) in bad {
        kernel.receive.push(Descriptor { address, len, options: 0 }).unwrap();
    }
    kernel.receive.publish();
    let mut frames = Vec::new();
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!(path.counts().bad_descriptors, 4);
    kernel.completion.push(address).unwrap();
    kernel.completion.publish();
    assert_eq!(path.reclaim(&mut frames), 0);
    assert_eq!((path.counts().bad_descriptors, path.counts().completed), (5, 0));
    assert_eq!(umem.census(), Census { held: 2, receive: 2, ..Census::default() });
}

#[test]
fn two_sockets_of_a_queue_balance_together() {
    let umem = Umem::private(8, 2048);
    let mut pool = umem.frames(0..8);
    let queue = Arc::new(Queue { id: umem.new_queue(), ifindex: 1, queue: 0, open: AtomicU32::new(2) });
    let (mut owner, mut kernel) = joint_path(umem, &queue, 8, 0, true);
    let (mut joined, mut joined_kernel) = joint_path(umem, &queue, 8, 0, false);
    assert_eq!(owner.refill(&mut pool), 8);
    // The kernel takes frames of the one fill ring for both, and completes on the one completion ring.
    for options in [0, libc::XDP_PKT_CONTD, 0] {
        let address = kernel.fill.pop().unwrap();
        joined_kernel.receive.push(Descriptor { address, len: 60, options }).unwrap();
    }
    joined_kernel.receive.publish();
    let (mut frames, mut others) = (Vec::new(), Vec::new());
    assert_eq!(joined.receive(&mut frames, 8), 1);
    assert_eq!(joined.refill(&mut others), 0, "not its to fill");
    assert_eq!(others.len(), 2, "but what it dropped comes back");
    assert_eq!(joined.transmit(&mut frames), 1);
    let sent = joined_kernel.transmit.pop().unwrap();
    kernel.completion.push(sent.address).unwrap();
    kernel.completion.publish();
    assert_eq!(joined.reclaim(&mut others), 0);
    assert_eq!(owner.reclaim(&mut pool), 1);
    let (a, b) = (owner.in_kernel(), joined.in_kernel());
    assert_eq!((a.lent_receive + b.lent_receive, a.lent_transmit + b.lent_transmit), (5, 0));
    assert_eq!(umem.census(), Census { held: 3, receive: 5, ..Census::default() });
}

#[test]
#[should_panic(expected = "a frame of 13 bytes")]
fn runts_are_a_mistake() {
    let umem = Umem::private(1, 2048);
    let mut frame = umem.frames(0..1).pop().unwrap();
    frame.reset(HEADROOM, 13);
    let _ = path(umem, 8, 0).0.queue(frame);
}

#[derive(Clone, Debug)]
enum Op {
    Refill,
    Deliver(u8),
    Receive(usize),
    Transmit,
    Queue,
    Send(u8),
    Reclaim,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Refill),
        (1u8..6).prop_map(Op::Deliver),
        (0usize..6).prop_map(Op::Receive),
        Just(Op::Transmit),
        Just(Op::Queue),
        (1u8..6).prop_map(Op::Send),
        Just(Op::Reclaim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Whatever the order of events, every chunk is in one place, and each has one owner.
    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn no_chunk_is_lost_or_doubled(
        start in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        ops in prop::collection::vec(op(), 1..200),
    ) {
        let umem = Umem::private(11, 2048);
        let (mut path, mut kernel) = path(umem, 4, start);
        let (mut pool, mut frames) = (umem.frames(0..11), Vec::new());
        for op in ops {
            match op {
                Op::Refill => _ = path.refill(&mut pool),
                Op::Deliver(n) => for i in 0..n {
                    if kernel.receive.room() > 0 {
                        kernel.deliver(60, if i == 4 { libc::XDP_PKT_CONTD } else { 0 });
                    }
                },
                Op::Receive(max) => _ = path.receive(&mut frames, max),
                Op::Transmit => _ = path.transmit(&mut frames),
                Op::Queue => if let Some(frame) = frames.pop() && let Err(frame) = path.queue(frame) {
                    frames.push(frame);
                },
                Op::Send(n) => for _ in 0..n {
                    if kernel.completion.room() > 0 {
                        kernel.send();
                    }
                },
                Op::Reclaim => _ = path.reclaim(&mut pool),
            }
            let (census, seen) = (umem.census(), path.in_kernel());
            prop_assert_eq!(census.held as usize, pool.len() + frames.len() + path.spare.len());
            prop_assert_eq!((census.receive as i64, census.transmit as i64), (seen.lent_receive, seen.lent_transmit));
            prop_assert_eq!(census.held + census.receive + census.transmit, 11);
            prop_assert_eq!(seen.fill + seen.receive, census.receive);
            prop_assert_eq!(path.counts().bad_descriptors, 0);
            let mut chunks: Vec<u32> = pool.iter().chain(&frames).map(Frame::chunk).collect();
            chunks.sort();
            chunks.dedup();
            prop_assert_eq!(chunks.len(), pool.len() + frames.len());
        }
    }
}
