//! Packets in several descriptors, with the test in the kernel's place.
#![allow(unsafe_code, reason = "writes and reads packets where the kernel would")]

use super::*;
use crate::xsk::HEADROOM;

const CHUNK: usize = 4096;
/// What the kernel puts into a chunk.
const ROOM: usize = CHUNK - HEADROOM;
const MORE: u32 = libc::XDP_PKT_CONTD;

impl Kernel {
    /// A packet comes, in as many descriptors as it needs.
    fn bring(&mut self, umem: &Umem, packet: &[u8]) {
        let parts = packet.len().div_ceil(ROOM);
        for (n, part) in packet.chunks(ROOM).enumerate() {
            self.bring_part(umem, part, if n + 1 < parts { MORE } else { 0 });
        }
    }

    fn bring_part(&mut self, umem: &Umem, part: &[u8], options: u32) {
        let address = self.fill.pop().expect("a chunk in the fill ring") + HEADROOM as u64;
        self.fill.release();
        // SAFETY: the chunk is the kernel's, which is this test; the part fits it.
        unsafe { umem.region().0.add(address as usize).as_ptr().copy_from_nonoverlapping(part.as_ptr(), part.len()) };
        self.receive.push(Descriptor { address, len: part.len() as u32, options }).expect("a ring with room");
        self.receive.publish();
    }

    /// Takes a packet from the transmit ring: its bytes, and where its pieces were. Nothing is completed.
    fn take(&mut self, umem: &Umem) -> Option<(Vec<u8>, Vec<u64>)> {
        let (mut bytes, mut pieces) = (Vec::new(), Vec::new());
        while let Some(Descriptor { address, len, options }) = self.transmit.pop() {
            let at = address as usize % CHUNK;
            assert!(at + len as usize <= CHUNK && len > 0, "{len} bytes at {at} cross their chunk");
            // SAFETY: lent to the kernel, which is this test.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(umem.region().0.add(address as usize).as_ptr(), len as usize)
            });
            pieces.push(address);
            if options & MORE == 0 {
                self.transmit.release();
                return Some((bytes, pieces));
            }
        }
        assert!(pieces.is_empty(), "a packet without its end");
        None
    }

    fn complete(&mut self, address: u64) {
        self.completion.push(address).expect("a ring with room");
        self.completion.publish();
    }
}

/// A packet of so many bytes, each of which says where it belongs.
fn packet(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 251 + at % 251) as u8).collect()
}

fn free(umem: &Umem) -> u32 {
    umem.long_frames().1
}

#[test]
fn parts_are_gathered_in_their_order_and_their_chunks_go_back_to_work() {
    let umem = Umem::private_with_long(8, CHUNK as u32, 2, 3);
    let mut pool = umem.frames(0..8);
    let (mut path, mut kernel) = path(umem, 8, u32::MAX - 2);
    path.refill(&mut pool);
    let packets = [60, 9014, ROOM - TAILROOM, ROOM].map(packet);
    for bytes in &packets {
        kernel.bring(umem, bytes);
    }
    let mut frames = Vec::new();
    assert_eq!(path.receive(&mut frames, 8), 4, "packets, not descriptors");
    for (frame, bytes) in frames.iter().zip(&packets) {
        assert_eq!(frame.bytes(), bytes);
        assert!(frame.headroom() == HEADROOM && frame.tailroom() >= TAILROOM, "{frame:?} can be sealed");
    }
    assert_eq!(frames.iter().map(Frame::is_long).collect::<Vec<_>>(), [false, true, false, true]);
    let counts = path.counts();
    assert_eq!((counts.received, counts.gathered, counts.multi_buffer_frames), (6, 2, 4));
    assert_eq!((counts.multi_buffer_packets, counts.bad_descriptors, free(umem)), (0, 0, 0));
    assert_eq!(path.refill(&mut pool), 4, "the parts' chunks");
    assert_eq!(umem.census(), Census { held: 4, receive: 6, ..Census::default() });
}

#[test]
fn parts_whose_places_in_the_fill_ring_are_taken_are_free() {
    let umem = Umem::private_with_long(16, CHUNK as u32, 1, 3);
    let mut pool = umem.frames(0..16);
    let (mut path, mut kernel) = path(umem, 8, 0);
    path.refill(&mut pool);
    kernel.bring(umem, &packet(9014));
    let mut frames = Vec::new();
    assert_eq!((path.refill(&mut pool), pool.len()), (3, 5), "before the packet was seen");
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!((path.refill(&mut pool), pool.len()), (0, 8));
}

#[test]
fn a_packet_without_a_long_frame_that_holds_it_is_dropped_whole() {
    let umem = Umem::private_with_long(16, CHUNK as u32, 1, 3);
    let mut pool = umem.frames(0..16);
    let (mut path, mut kernel) = path(umem, 16, 0);
    path.refill(&mut pool);
    let longest = 3 * CHUNK - HEADROOM - TAILROOM;
    for len in [longest + 1, longest, 5000, 61] {
        kernel.bring(umem, &packet(len));
    }
    let mut frames = Vec::new();
    assert_eq!(path.receive(&mut frames, 8), 2);
    assert_eq!(
        frames.iter().map(Frame::len).collect::<Vec<_>>(),
        [longest, 61],
        "one was too long, for one none was free"
    );
    assert_eq!(path.counts().multi_buffer_packets, 2);
    // The frame of the first was free again for the second; now it is again.
    assert!(umem.keep(frames.swap_remove(0)).is_none());
    kernel.bring(umem, &packet(5001));
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!(frames[1].bytes(), packet(5001));
    path.refill(&mut pool);
    assert_eq!(umem.census(), Census { held: 2, receive: 15, ..Census::default() });
}

#[test]
fn a_packet_may_come_in_two_turns_and_never_come_to_its_end() {
    let umem = Umem::private_with_long(8, CHUNK as u32, 1, 4);
    let mut pool = umem.frames(0..8);
    let (mut path, mut kernel) = path(umem, 8, 0);
    path.refill(&mut pool);
    let (bytes, mut frames) = (packet(9000), Vec::new());
    kernel.bring_part(umem, &bytes[..ROOM], MORE);
    assert_eq!(path.receive(&mut frames, 1), 0);
    path.refill(&mut pool);
    kernel.bring_part(umem, &bytes[ROOM..2 * ROOM], MORE);
    kernel.bring_part(umem, &bytes[2 * ROOM..], 0);
    assert_eq!(path.receive(&mut frames, 1), 1);
    assert_eq!(frames[0].bytes(), bytes);
    assert!(umem.keep(frames.remove(0)).is_none());
    // A descriptor that is none spoils its packet, once; what follows is whole.
    kernel.bring_part(umem, &bytes[..ROOM], MORE);
    kernel.receive.push(Descriptor { address: 1 << 40, len: 9, options: MORE }).unwrap();
    kernel.bring_part(umem, &bytes[..9], 0);
    kernel.bring(umem, &packet(60));
    assert_eq!(path.receive(&mut frames, 8), 1);
    assert_eq!((frames[0].len(), free(umem)), (60, 1));
    assert_eq!((path.counts().bad_descriptors, path.counts().multi_buffer_packets), (1, 0));
    // The socket is closed in the middle of one.
    kernel.bring_part(umem, &bytes[..ROOM], MORE);
    assert_eq!(path.receive(&mut frames, 8), 0);
    assert_eq!(free(umem), 0);
    let spare = path.take_spare();
    assert_eq!(free(umem), 1);
    assert_eq!(umem.census().held as usize, 1 + spare.len() + frames.len() + pool.len());
}

#[test]
fn a_long_frame_leaves_in_pieces_and_is_back_with_the_last() {
    let umem = Umem::private_with_long(4, CHUNK as u32, 3, 3);
    let mut pool = umem.frames(0..4);
    let (mut path, mut kernel) = path(umem, 4, u32::MAX);
    let mut frames = Vec::new();
    for (at, len) in [(100, 9000), (200, CHUNK - 200), (HEADROOM, CHUNK - HEADROOM + 1)] {
        let mut frame = umem.take_long().unwrap();
        frame.reset(at, len);
        frame.bytes_mut().copy_from_slice(&packet(len));
        frames.push(frame);
    }
    assert_eq!(path.transmit(&mut frames), 2, "three descriptors and one; for the last two there is no room");
    assert_eq!((frames.len(), kernel.transmit.outstanding()), (1, 4));
    let last = path.queue(frames.pop().unwrap()).unwrap_err();
    assert_eq!(last.bytes(), packet(CHUNK - HEADROOM + 1), "as it was");
    assert_eq!(umem.census(), Census { unissued: 0, held: 5, receive: 0, transmit: 2 });

    let (bytes, pieces) = kernel.take(umem).unwrap();
    assert_eq!((bytes, pieces.len()), (packet(9000), 3));
    let (bytes, single) = kernel.take(umem).unwrap();
    assert_eq!((bytes, single.len()), (packet(CHUNK - 200), 1));
    assert!(kernel.take(umem).is_none());
    // In another order than they were sent, one of them twice, and one that was never lent.
    for address in [pieces[2], pieces[0], pieces[2], last.base().addr().get() as u64] {
        kernel.complete(address);
    }
    assert_eq!((path.reclaim(&mut pool), path.counts().bad_descriptors, free(umem)), (0, 2, 0));
    assert_eq!(umem.census().transmit, 2, "a piece of it is away");
    kernel.complete(single[0]);
    kernel.complete(pieces[1]);
    assert_eq!((path.reclaim(&mut pool), path.counts().completed, free(umem)), (2, 2, 2));
    assert_eq!((path.in_kernel().lent_transmit, pool.len()), (0, 4));
    assert!(path.queue(last).is_ok());
    path.rings.transmit.publish();
    let (bytes, pieces) = kernel.take(umem).unwrap();
    assert_eq!((bytes, pieces.len()), (packet(CHUNK - HEADROOM + 1), 2));
}

#[test]
fn what_a_closed_socket_had_of_them_is_found() {
    let umem = Umem::private_with_long(4, CHUNK as u32, 3, 2);
    let (mut path, mut kernel) = path(umem, 8, 0);
    for _ in 0..2 {
        let mut frame = umem.take_long().unwrap();
        frame.reset(HEADROOM, 5000);
        path.queue(frame).unwrap();
    }
    path.rings.transmit.publish();
    // Of one the kernel has returned a piece.
    let (_, pieces) = kernel.take(umem).unwrap();
    kernel.complete(pieces[0]);
    assert_eq!((path.reclaim(&mut Vec::new()), free(umem)), (0, 1));
    // SAFETY: no socket ever knew this memory.
    let (frames, unsent) = unsafe { umem.recover(path.queue.id) };
    assert_eq!((frames.len(), unsent, free(umem)), (0, 2, 3));
    assert_eq!(umem.census(), Census { unissued: 4, held: 3, ..Census::default() });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// Packets of all lengths go through, each as it came or not at all; and afterwards every chunk is where it was.
    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn mixed_lengths_go_round(
        start in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        lens in prop::collection::vec(prop_oneof![14usize..200, 3700usize..3900, 14usize..13_000], 1..100),
        grow in 0usize..100,
    ) {
        let umem = Umem::private_with_long(16, CHUNK as u32, 3, 3);
        let (mut path, mut kernel) = path(umem, 8, start);
        let mut pool = umem.frames(0..16);
        let (mut frames, mut expected, mut dropped) = (Vec::new(), std::collections::VecDeque::new(), 0);
        for len in lens {
            path.refill(&mut pool);
            let bytes = packet(len);
            kernel.bring(umem, &bytes);
            let received = path.receive(&mut frames, 8);
            prop_assert_eq!(received == 0, len + HEADROOM + TAILROOM > 3 * CHUNK || free(umem) == 0 && path.counts().multi_buffer_packets > dropped);
            dropped = path.counts().multi_buffer_packets;
            if received == 1 {
                let frame = frames.last_mut().unwrap();
                prop_assert_eq!(frame.bytes(), &bytes[..]);
                frame.prepend(grow).fill(7);
                expected.push_back([&vec![7; grow][..], &bytes].concat());
            }
            path.transmit(&mut frames);
            if frames.len() > 2 || len % 3 == 0 {
                while let Some((bytes, pieces)) = kernel.take(umem) {
                    prop_assert_eq!(Some(bytes), expected.pop_front());
                    for piece in pieces {
                        kernel.complete(piece);
                        path.reclaim(&mut pool);
                    }
                }
            }
            let (census, seen) = (umem.census(), path.in_kernel());
            prop_assert_eq!((census.receive as i64, census.transmit as i64), (seen.lent_receive, seen.lent_transmit));
            prop_assert_eq!(census.held as usize, pool.len() + frames.len() + path.spare.len() + free(umem) as usize);
            prop_assert_eq!(census.held + census.receive + census.transmit, 16 + 3);
            prop_assert_eq!(path.counts().bad_descriptors, 0);
        }
    }
}
