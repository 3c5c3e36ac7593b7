//! Real sockets on real (veth) interfaces.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::*;
use lab::{Far, LEN, Steer, frame, in_lab, index, ip, mark, readable, two_queues, until};

mod jumbo;
mod lab;

const CHUNKS: u32 = 512;

fn small() -> Options {
    Options { fill: 128, completion: 128, receive: 64, transmit: 64, ..Options::default() }
}

/// One turn of a worker: frames received on `from` leave on `to`.
fn forward(from: &mut Socket, to: &mut Socket, pool: &mut Vec<Frame>, waiting: &mut Vec<Frame>) -> usize {
    let received = from.receive(waiting, 64);
    to.transmit(waiting);
    to.kick().unwrap();
    for socket in [from, to] {
        socket.reclaim(pool);
        socket.refill(pool);
    }
    received
}

/// Sends `count` frames at one far end and expects them, whole and in order, at the other.
fn relay(count: u64, ends: (&mut Far, &mut Far), sockets: (&mut Socket, &mut Socket), pool: &mut Vec<Frame>) {
    let mut waiting = Vec::with_capacity(64);
    let mut arrived = 0;
    for mark in 0..count {
        ends.0.send(0, mark);
        if mark % 48 == 47 || mark + 1 == count {
            until("frame at the far end", || {
                forward(sockets.0, sockets.1, pool, &mut waiting);
                while let Some(seen) = ends.1.receive() {
                    assert_eq!(seen, arrived);
                    arrived += 1;
                }
                (arrived == mark + 1).then_some(())
            });
        }
    }
    assert!(waiting.is_empty());
}

/// Every chunk is in the pool or where the sockets say.
fn assert_whole(umem: &Umem, pool: &[Frame], sockets: &[&Socket]) {
    let census = umem.census();
    let sum = |f: fn(&InKernel) -> i64| sockets.iter().map(|s| f(&s.in_kernel())).sum::<i64>();
    assert_eq!(census.unissued, 0);
    assert_eq!(census.held as usize, pool.len());
    assert_eq!(i64::from(census.receive), sum(|k| k.lent_receive));
    assert_eq!(i64::from(census.transmit), sum(|k| k.lent_transmit));
    assert_eq!(census.held + census.receive + census.transmit, umem.chunks());
}

fn relays_both_ways(share: bool) {
    let umem = Umem::new(CHUNKS, 2048).unwrap();
    let mut pool = umem.frames(0..CHUNKS);
    let mut a = Socket::open(umem, index("d0"), 0, &small(), None).unwrap();
    let mut b = Socket::open(umem, index("d1"), 0, &small(), share.then_some(&a)).unwrap();
    assert!(a.bound().owns_queue && b.bound().owns_queue);
    let (steer_a, steer_b) = (Steer::attach(index("d0")), Steer::attach(index("d1")));
    steer_a.to(0, &a);
    steer_b.to(0, &b);
    let (mut g, mut s) = (Far::open("g0"), Far::open("s0"));
    for socket in [&mut a, &mut b] {
        assert_eq!(socket.refill(&mut pool), 128);
    }
    assert_whole(umem, &pool, &[&a, &b]);
    relay(2000, (&mut g, &mut s), (&mut a, &mut b), &mut pool);
    relay(2000, (&mut s, &mut g), (&mut b, &mut a), &mut pool);
    until("completion", || {
        a.reclaim(&mut pool);
        b.reclaim(&mut pool);
        (umem.census().transmit == 0).then_some(())
    });
    assert_whole(umem, &pool, &[&a, &b]);
    for socket in [&a, &b] {
        let counts = socket.counts();
        assert_eq!((counts.received, counts.transmitted, counts.completed), (2000, 2000, 2000));
        assert_eq!((counts.bad_descriptors, counts.multi_buffer_packets), (0, 0));
        let statistics = socket.statistics().unwrap();
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full, statistics.tx_invalid_descs), (0, 0, 0));
    }
}

#[test]
fn relays_both_ways_with_a_shared_umem() {
    in_lab(|| relays_both_ways(true));
}

/// Registered twice, the same memory is two UMEMs to the kernel: a frame crosses without a copy, and each has its own
/// mode.
#[test]
fn relays_both_ways_with_memory_registered_twice() {
    in_lab(|| relays_both_ways(false));
}

#[test]
fn a_large_chunk_carries_a_large_frame_with_its_headroom() {
    in_lab(|| {
        ip("link set g0 mtu 3500");
        ip("link set d0 mtu 3500");
        let umem = Umem::new(64, 4096).unwrap();
        let mut pool = umem.frames(0..64);
        let mut socket = Socket::open(umem, index("d0"), 0, &small(), None).unwrap();
        let steer = Steer::attach(index("d0"));
        steer.to(0, &socket);
        socket.refill(&mut pool);
        let mut long = vec![0xA5; 3506];
        long[..LEN].copy_from_slice(&frame(0, 1));
        let far = std::fs::File::from(Far::open("g0").as_fd().try_clone_to_owned().unwrap());
        std::io::Write::write_all(&mut &far, &long).unwrap();
        let mut frames = Vec::new();
        until("frame", || (socket.receive(&mut frames, 8) > 0).then_some(()));
        assert_eq!(frames[0].headroom(), HEADROOM);
        assert_eq!(frames[0].bytes(), long);
    });
}

#[test]
fn sockets_of_one_queue_share_its_frames() {
    in_lab(|| {
        let umem = Umem::new(CHUNKS, 2048).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let mut first = Socket::open(umem, index("d0"), 0, &small(), None).unwrap();
        let mut second = Socket::open(umem, index("d0"), 0, &small(), Some(&first)).unwrap();
        assert!(first.bound().owns_queue && !second.bound().owns_queue);
        let steer = Steer::attach(index("d0"));
        steer.to(0, &first);
        steer.to(1, &second);
        let mut far = Far::open("g0");
        assert_eq!((second.refill(&mut pool), first.refill(&mut pool)), (0, 128));

        // Each gets its own, and sends it back from where it came; the first does the housekeeping for both.
        let (mut frames, mut marks) = (Vec::new(), Vec::new());
        for round in 0..20 {
            for i in 0..40 {
                far.send(i as u8 & 1, round * 40 + i);
            }
            let mut back = 0;
            until("all frames back", || {
                for (parity, socket) in [&mut first, &mut second].into_iter().enumerate() {
                    socket.receive(&mut frames, 64);
                    assert!(frames.iter().all(|f| mark(f.bytes()) & 1 == parity as u64));
                    socket.transmit(&mut frames);
                    assert!(frames.is_empty());
                    assert_eq!(socket.kick().unwrap(), Kick::Done);
                }
                first.reclaim(&mut pool);
                first.refill(&mut pool);
                while let Some(mark) = far.receive() {
                    marks.push(mark);
                    back += 1;
                }
                (back == 40).then_some(())
            });
        }
        marks.sort();
        assert_eq!(marks, (0..800).collect::<Vec<_>>());
        until("completion", || {
            first.reclaim(&mut pool);
            (umem.census().transmit == 0).then_some(())
        });
        assert_whole(umem, &pool, &[&first, &second]);
        assert_eq!((first.counts().received, second.counts().received), (400, 400));
        assert_eq!((first.counts().completed, second.counts().completed), (800, 0));
    });
}

#[test]
fn the_kernels_losses_are_known_to_the_frame() {
    in_lab(|| {
        let umem = Umem::new(CHUNKS, 2048).unwrap();
        let mut pool = umem.frames(0..40);
        let options = Options { receive: 16, ..small() };
        let mut socket = Socket::open(umem, index("d0"), 0, &options, None).unwrap();
        let steer = Steer::attach(index("d0"));
        steer.to(0, &socket);
        let mut far = Far::open("g0");
        let mut frames = Vec::new();
        let lost = |socket: &mut Socket, sent: u64| {
            until("frame or loss", || {
                let lost = socket.statistics().unwrap();
                let receive = u64::from(socket.in_kernel().receive);
                (receive + lost.rx_dropped + lost.rx_ring_full == sent).then_some(lost)
            })
        };
        // An empty fill ring.
        (0..10).for_each(|mark| far.send(0, mark));
        let statistics = lost(&mut socket, 10);
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (10, 0));
        assert!(statistics.rx_fill_ring_empty_descs > 0);
        // A full receive ring.
        assert_eq!(socket.refill(&mut pool), 40);
        (0..20).for_each(|mark| far.send(0, mark));
        let statistics = lost(&mut socket, 30);
        assert_eq!((statistics.rx_dropped, statistics.rx_ring_full), (10, 4));
        assert_eq!(socket.receive(&mut frames, 64), 16);
        assert!(frames.iter().map(|f| mark(f.bytes())).eq(0..16));
        assert_eq!(umem.census(), Census { unissued: CHUNKS - 40, held: 16, receive: 24, transmit: 0 });
    });
}

#[test]
fn poll_wakes_for_a_packet() {
    in_lab(|| {
        let umem = Umem::new(64, 2048).unwrap();
        let mut pool = umem.frames(0..64);
        let mut socket = Socket::open(umem, index("d0"), 0, &small(), None).unwrap();
        let steer = Steer::attach(index("d0"));
        steer.to(0, &socket);
        socket.refill(&mut pool);
        assert!(!readable(&[socket.as_fd()], Duration::from_millis(20)));
        let mut far = Far::open("g0");
        let waiter = std::thread::scope(|scope| {
            let fd = socket.as_fd();
            let waiter = scope.spawn(move || readable(&[fd], Duration::from_secs(10)));
            far.send(0, 0);
            waiter.join().unwrap()
        });
        assert!(waiter);
        assert_eq!(socket.receive(&mut pool, 8), 1);
        assert!(!readable(&[socket.as_fd()], Duration::ZERO));
    });
}

#[test]
fn a_kick_says_whether_to_come_again() {
    in_lab(|| {
        let umem = Umem::new(128, 2048).unwrap();
        let mut frames = umem.frames(0..64);
        let mut pool = Vec::new();
        // The kernel sends no more than it can complete.
        let options = Options { completion: 8, ..small() };
        let mut socket = Socket::open(umem, index("d1"), 0, &options, None).unwrap();
        let mut far = Far::open("s0");
        assert_eq!(socket.kick().unwrap(), Kick::Done, "nothing to do");
        for (mark, packet) in frames.iter_mut().enumerate() {
            packet.copy_from(&frame(0, mark as u64));
        }
        assert_eq!(socket.transmit(&mut frames), 64);
        let mut kicks = 0;
        loop {
            kicks += 1;
            match socket.kick().unwrap() {
                Kick::Done => break,
                Kick::Again => assert!(kicks < 1000),
                other => panic!("{other:?}"),
            }
            socket.reclaim(&mut pool);
        }
        assert!(kicks >= 8, "{kicks} kicks for 64 frames of which 8 fit");
        let mut arrived = Vec::new();
        until("all frames", || {
            arrived.extend(far.receive());
            socket.reclaim(&mut pool);
            (arrived.len() == 64 && pool.len() == 64).then_some(())
        });
        assert!(arrived.into_iter().eq(0..64));
    });
}

#[test]
fn an_interface_goes_down_and_up_and_away() {
    in_lab(|| {
        let umem = Umem::new(64, 2048).unwrap();
        let mut pool = umem.frames(0..64);
        let mut socket = Socket::open(umem, index("d1"), 0, &small(), None).unwrap();
        let sibling = Socket::open(umem, index("d1"), 0, &small(), Some(&socket)).unwrap();
        let mut far = Far::open("s0");
        let mut packet = |n: u64| {
            let mut packet = pool.pop().unwrap();
            packet.copy_from(&frame(0, n));
            packet
        };
        ip("link set d1 down");
        socket.queue(packet(1)).unwrap();
        assert_eq!(socket.kick().unwrap(), Kick::Down);
        ip("link set d1 up");
        assert_eq!(until("kick", || socket.kick().ok().filter(|k| *k == Kick::Done)), Kick::Done);
        assert_eq!(until("frame", || far.receive()), 1);
        ip("link del d1");
        socket.queue(packet(2)).unwrap();
        assert_eq!(socket.kick().unwrap(), Kick::Gone);
        socket.refill(&mut pool);
        assert_eq!(umem.census().held, 0);
        let remains = socket.close().recover(None).expect_err("its sibling might still read its own receive ring");
        drop(sibling);
        let (frames, _) = recovered(remains, None);
        assert_eq!(frames.len(), 64);
        assert_eq!(umem.census(), Census { held: 64, ..Census::default() });
    });
}

fn recovered(remains: Remains, successor: Option<&Socket>) -> (Vec<Frame>, usize) {
    let mut remains = Some(remains);
    until("recovery", || match remains.take().unwrap().recover(successor) {
        Ok(frames) => Some(frames),
        Err(again) => {
            remains = Some(again);
            None
        }
    })
}

#[test]
fn a_closed_socket_leaves_its_frames_to_be_recovered() {
    in_lab(|| {
        let umem = Umem::new(CHUNKS, 2048).unwrap();
        let mut pool = umem.frames(0..CHUNKS);
        let d0 = index("d0");
        let mut first = Socket::open(umem, d0, 0, &small(), None).unwrap();
        let second = Socket::open(umem, d0, 0, &small(), Some(&first)).unwrap();
        let mut other = Socket::open(umem, index("d1"), 0, &small(), None).unwrap();
        for socket in [&mut first, &mut other] {
            assert_eq!(socket.refill(&mut pool), 128);
        }
        // Packets that were never kicked.
        let mut unsent: Vec<Frame> = pool.drain(..10).collect();
        unsent.iter_mut().for_each(|packet| packet.copy_from(&frame(0, 0)));
        assert_eq!(first.transmit(&mut unsent), 10);

        let remains = first.close().recover(None).expect_err("its sibling is still open");
        let of_second = second.close();
        let (mut frames, unsent) = recovered(remains, None);
        assert_eq!((frames.len(), unsent), (138, 10), "those of its queue, in both directions");
        assert!(recovered(of_second, None).0.is_empty(), "only once");
        let mut chunks: Vec<_> = frames.iter().map(Frame::chunk).collect();
        chunks.sort();
        chunks.dedup();
        assert_eq!(chunks.len(), 138);
        pool.append(&mut frames);
        assert_eq!(umem.census(), Census { held: CHUNKS - 128, receive: 128, ..Census::default() });
        assert_eq!(other.in_kernel().lent_receive, 128);

        // A successor on the queue is proof enough.
        let place = index("d1");
        let remains = other.close();
        let successor = Socket::open(umem, place, 0, &small(), None).unwrap();
        let again = remains.recover(None).expect_err("the queue is taken");
        assert_eq!(recovered(again, Some(&successor)).0.len(), 128);
        assert_eq!(umem.census(), Census { held: CHUNKS, ..Census::default() });
    });
}

#[test]
fn a_queue_is_had_once_its_predecessor_is_gone() {
    in_lab(|| {
        let umem = Umem::new(64, 2048).unwrap();
        let q0 = two_queues();
        let first = Socket::open(umem, q0, 1, &small(), None).unwrap();
        let hurried = Options { patience: Duration::from_millis(30), ..small() };
        let start = Instant::now();
        let error = Socket::open(umem, q0, 1, &hurried, None).expect_err("taken");
        assert!(start.elapsed() >= hurried.patience);
        assert_eq!(error.source.raw_os_error(), Some(libc::EBUSY));
        let text = error.to_string();
        assert!(text.starts_with("interface q0 queue 1: cannot bind"), "{text}");
        assert!(text.contains("another socket, perhaps of another process, has this queue"), "{text}");

        let ending = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(first);
        });
        Socket::open(umem, q0, 1, &small(), None).expect("it waits for the first to go");
        ending.join().unwrap();
    });
}

#[test]
fn says_what_it_got_and_why_not_more() {
    in_lab(|| {
        let umem = Umem::new(64, 2048).unwrap();
        let q0 = two_queues();
        let insist = Options { zero_copy: Some(true), ..small() };
        let error = Socket::open(umem, q0, 0, &insist, None).expect_err("veth has no zero-copy");
        assert_eq!(error.step, Step::Bind { zero_copy: true, multi_buffer: false });
        assert!(error.to_string().contains("the driver has no zero-copy mode"), "{error}");

        let best = Socket::open(umem, q0, 0, &small(), None).unwrap();
        let Bound { zero_copy, zero_copy_refused, need_wakeup, .. } = *best.bound();
        assert!(!zero_copy && need_wakeup);
        assert_eq!(zero_copy_refused, Some(Refusal(libc::EOPNOTSUPP)));
        let shared = Socket::open(umem, index("d1"), 0, &small(), Some(&best)).unwrap();
        assert!(!shared.bound().zero_copy && shared.bound().zero_copy_refused.is_none());
        let copy = Options { zero_copy: Some(false), busy_poll: Some(BusyPoll { time_us: 20, budget: 64 }), ..small() };
        let copy = Socket::open(umem, q0, 1, &copy, None).unwrap();
        assert!(!copy.bound().zero_copy && copy.bound().zero_copy_refused.is_none());
    });
}

#[test]
fn errors_name_the_remedy() {
    in_lab(|| {
        let umem = Umem::new(64, 2048).unwrap();
        let d0 = index("d0");
        let refused = |ifindex, queue, options: &Options| {
            Socket::open(umem, ifindex, queue, options, None).expect_err("refused").to_string()
        };
        let text = refused(d0, 0, &Options { receive: 100, ..small() });
        assert!(text.contains("cannot make a receive ring of 100 entries: "), "{text}");
        assert!(text.ends_with("a ring has a power of two of entries"), "{text}");
        let text = refused(d0, 7, &small());
        assert!(text.starts_with("interface d0 queue 7: cannot bind in copy mode: "), "{text}");
        assert!(text.ends_with("see `ethtool -l` whether the interface has such a queue"), "{text}");
        let text = refused(9999, 0, &small());
        assert!(text.starts_with("interface number 9999 queue 0: cannot bind in copy mode: "), "{text}");
        assert!(text.ends_with("the interface is gone: check its name"), "{text}");
    });
}

#[test]
fn knows_driver_and_queues() {
    in_lab(|| {
        let ifindex = two_queues();
        let device = Device::find("q0").unwrap();
        assert_eq!((device.name.as_str(), device.driver.as_str(), device.ifindex), ("q0", "veth", ifindex));
        assert_eq!((device.receive_queues, device.transmit_queues), (2, 2));
        let lo = Device::find("lo").unwrap();
        assert_eq!((lo.ifindex, lo.driver.as_str(), lo.receive_queues), (1, "unknown", 1));
        for name in ["nosuch0", "a-name-that-is-too-long", "nul\0nul", ""] {
            assert_eq!(Device::find(name).unwrap_err().raw_os_error(), Some(libc::ENODEV), "{name:?}");
        }
    });
}
