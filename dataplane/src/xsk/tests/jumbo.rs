//! Frames that no chunk holds, through a real kernel: sockets with multi-buffer, and an XDP program that allows for it.

use super::*;
use std::io::{Read, Write};

const MTU: u32 = 9000;
const LONG: u32 = 32;
const RUN: u32 = 3;

/// A frame of the tests of so many bytes, each of which says where it belongs.
fn long(mark: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at / 251 + at % 251) as u8).collect();
    bytes[..22].copy_from_slice(&frame(0, mark)[..22]);
    bytes
}

/// The far end, for frames of any length.
fn open(interface: &str) -> std::fs::File {
    std::fs::File::from(Far::open(interface).as_fd().try_clone_to_owned().unwrap())
}

fn read(far: &mut std::fs::File) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let len = far.read(&mut bytes).ok()?;
    bytes.truncate(len);
    Some(bytes)
}

fn wide() {
    for name in ["g0", "d0", "s0", "d1"] {
        ip(&format!("link set {name} mtu {MTU}"));
    }
}

fn options() -> Options {
    Options { multi_buffer: true, ..small() }
}

#[test]
fn frames_of_all_lengths_are_relayed_whole() {
    in_lab(|| {
        wide();
        let umem = Umem::with_long(CHUNKS, 4096, LONG, RUN).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let mut a = Socket::open(umem, index("d0"), 0, &options(), None).unwrap();
        let mut b = Socket::open(umem, index("d1"), 0, &small(), Some(&a)).unwrap();
        assert!(a.bound().multi_buffer && b.bound().multi_buffer, "who shares the memory has its mode");
        let steer = Steer::attach_wide(index("d0"));
        steer.to(0, &a);
        // A transmit to a veth needs native XDP, or GRO, on its end.
        let (mut g, mut s) = (open("g0"), open("s0"));
        a.refill(&mut pool);
        let lengths = [60, 1500, 3808, 3809, 3840, 3841, 7680, 7681, 8000, 9014];
        let (mut waiting, mut mark) = (Vec::new(), 0);
        for _ in 0..40 {
            for len in lengths {
                let bytes = long(mark, len);
                mark += 1;
                g.write_all(&bytes).unwrap();
                let arrived = until("the frame at the far end", || {
                    forward(&mut a, &mut b, &mut pool, &mut waiting);
                    read(&mut s)
                });
                assert!(arrived == bytes, "{len} bytes arrived as {}", arrived.len());
            }
        }
        until("all completions", || {
            b.reclaim(&mut pool);
            (umem.census().transmit == 0).then_some(())
        });
        // Parts wait beside the pool until the next refill.
        a.refill(&mut pool);
        let (counts, sent) = (a.counts(), b.counts());
        assert_eq!((counts.gathered, counts.multi_buffer_packets, counts.bad_descriptors), (40 * 7, 0, 0));
        assert_eq!(counts.received, 40 * (4 + 1 + 2 + 2 + 3 + 3 + 3), "descriptors: 3840 bytes each");
        assert_eq!((sent.transmitted, sent.completed, sent.bad_descriptors), (400, 400, 0));
        assert_eq!(b.statistics().unwrap().tx_invalid_descs, 0);
        assert_eq!(a.statistics().unwrap().rx_dropped, 0);
        assert_eq!(umem.long_frames(), (LONG, LONG));
        let census = umem.census();
        assert_eq!(census.held as usize, pool.len() + LONG as usize);
        assert_eq!(census.held + census.receive, CHUNKS + LONG);
    });
}

#[test]
fn a_burst_of_long_frames_leaves_in_order_by_a_ring_that_is_too_small() {
    in_lab(|| {
        wide();
        let umem = Umem::with_long(CHUNKS, 4096, LONG, RUN).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let options = Options { transmit: 8, completion: 16, ..options() };
        let mut socket = Socket::open(umem, index("d1"), 0, &options, None).unwrap();
        let mut far = open("s0");
        let mut frames = Vec::new();
        for mark in 0..u64::from(LONG) {
            let bytes = long(mark, 9014);
            let mut frame = umem.take_long().unwrap();
            frame.reset(HEADROOM, bytes.len());
            frame.bytes_mut().copy_from_slice(&bytes);
            frames.push(frame);
        }
        let mut arrived = 0;
        until("all frames", || {
            assert!(socket.transmit(&mut frames) <= 2, "eight descriptors hold two");
            assert!(matches!(socket.kick().unwrap(), Kick::Done | Kick::Again));
            socket.reclaim(&mut pool);
            while let Some(bytes) = read(&mut far) {
                assert!(bytes == long(arrived, 9014), "frame {arrived}");
                arrived += 1;
            }
            (arrived == u64::from(LONG) && umem.long_frames().1 == LONG).then_some(())
        });
        assert!(frames.is_empty());
        assert_eq!((socket.counts().completed, umem.census().transmit), (u64::from(LONG), 0));
    });
}

#[test]
fn what_is_longer_than_a_long_frame_costs_no_chunk() {
    in_lab(|| {
        wide();
        let umem = Umem::with_long(CHUNKS, 4096, 2, 2).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let mut socket = Socket::open(umem, index("d0"), 0, &options(), None).unwrap();
        let steer = Steer::attach_wide(index("d0"));
        steer.to(0, &socket);
        let mut far = open("g0");
        let mut frames = Vec::new();
        for round in 1..=100 {
            socket.refill(&mut pool);
            far.write_all(&long(round, 9014)).unwrap();
            until("the end of a frame", || {
                socket.receive(&mut frames, 8);
                (socket.counts().multi_buffer_packets == round).then_some(())
            });
        }
        assert!(frames.is_empty());
        socket.refill(&mut pool);
        assert_eq!(umem.long_frames(), (2, 2));
        let census = umem.census();
        assert_eq!((census.held as usize, census.held + census.receive), (pool.len() + 2, CHUNKS + 2));
    });
}

#[test]
fn without_the_option_the_kernel_drops_what_no_chunk_holds() {
    in_lab(|| {
        wide();
        let umem = Umem::new(CHUNKS, 4096).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let mut socket = Socket::open(umem, index("d0"), 0, &small(), None).unwrap();
        let steer = Steer::attach_wide(index("d0"));
        steer.to(0, &socket);
        socket.refill(&mut pool);
        open("g0").write_all(&long(1, 9014)).unwrap();
        until("the loss", || (socket.statistics().unwrap().rx_dropped == 1).then_some(()));
        assert_eq!(socket.receive(&mut pool, 8), 0);
    });
}
