//! Packets that no chunk holds, on the journey: opened, sealed and cut in frames of several chunks, and no frame lost.

use ekiden_dataplane::packet::BATCH;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6};
use wire::{DropReason, SiteSlot};

const LONG: u32 = 64;

fn hub() -> Rehearsal {
    let sites = vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
    Rehearsal::wide(&[sites], 512, LONG)
}

fn whole(hub: &Rehearsal) {
    let (found, all) = hub.census();
    assert_eq!(found, all, "a chunk is lost");
}

/// From site a to site b, with another byte in each place of the payload.
fn packet(v6: bool, len: usize) -> Vec<u8> {
    let (mut packet, headers) = match v6 {
        false => (ipv4([10, 9, 1, 1], [10, 9, 2, 1], 9, len), 28),
        true => (ipv6("fd00:9:1::1", "fd00:9:2::1", 9, len), 48),
    };
    packet[headers..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at / 251 + at % 251) as u8);
    packet
}

#[test]
fn a_batch_of_all_lengths_is_opened_and_sealed_as_it_came() {
    let mut hub = hub();
    for seed in 0..4 {
        let lengths =
            (0..BATCH).map(|n| [48, 8940, 1400, 3800, 8920, 60, 7700, 5000][(n + seed) % 8] - seed % 3 * (n % 2));
        let sent: Vec<_> = lengths.map(|len| packet(len % 3 == 0, len.max(48))).collect();
        let frames: Vec<_> = sent.iter().map(|packet| hub.seal(0, packet)).collect();
        let left = hub.pass(&frames);
        assert_eq!(left.len(), BATCH, "{:?}", hub.drops());
        for (frame, packet) in left.iter().zip(&sent) {
            let (site, arrived) = hub.open(frame).expect("a message of the hub's");
            // All but what a router changes: one hop less, and so another checksum.
            let changed = if packet[0] >> 4 == 4 { 12 } else { 8 };
            assert!(site == 1 && arrived[changed..packet.len()] == packet[changed..], "{} bytes", packet.len());
            assert!(arrived[packet.len()..].iter().all(|byte| *byte == 0), "padding is zeros");
        }
        whole(&hub);
    }
}

#[test]
fn what_does_not_fit_is_cut_into_pieces_that_fit_chunks() {
    let mut hub = hub();
    // Even where the way would take pieces that no chunk holds.
    for mtu in [1440, 5000] {
        hub.journey.sites.at_mut(SiteSlot(1)).way.out.as_mut().unwrap().payload_max = mtu;
        let mut long = packet(false, 8940);
        let mut told = long.clone();
        long[6] = 0;
        long[10..12].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&long[..20]).finish();
        long[10..12].copy_from_slice(&sum.to_be_bytes());
        let left = hub.pass(&[hub.seal(0, &long)]);
        let mut together = vec![0; long.len() - 20];
        for frame in &left {
            let (_, piece) = hub.open(frame).expect("a message of the hub's");
            let len = wire::Inner::parse(&piece).unwrap().len;
            let at = (u16::from_be_bytes([piece[6], piece[7]]) & 0x1fff) as usize * 8;
            assert!(len <= mtu as usize);
            together[at..at + len - 20].copy_from_slice(&piece[20..len]);
        }
        assert_eq!(together, long[20..], "in {} pieces", left.len());
        // Who forbids it hears of it, in the frame in which it was sent.
        told[8] = 7;
        told[10..12].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&told[..20]).finish();
        told[10..12].copy_from_slice(&sum.to_be_bytes());
        let left = hub.pass(&[hub.seal(0, &told)]);
        assert_eq!(left.len(), 1);
        assert_eq!(hub.open(&left[0]).expect("an answer").0, 0);
        whole(&hub);
    }
    assert_eq!(hub.drops(), [(DropReason::TooLarge, 2)]);
}

#[test]
fn forged_and_waiting_ones_are_free_again() {
    let mut hub = hub();
    let mut forged: Vec<_> = (0..LONG).map(|_| hub.seal(0, &packet(false, 8900))).collect();
    forged.iter_mut().for_each(|frame| *frame.last_mut().unwrap() ^= 1);
    assert!(hub.pass(&forged).is_empty());
    assert_eq!(hub.drops(), [(DropReason::AuthFailed, LONG.into())]);
    whole(&hub);
    // Without a session they wait on the shelf, which drops the oldest.
    let session = hub.journey.sites.at_mut(SiteSlot(1)).sending.take();
    for _ in 0..3 {
        let frames: Vec<_> = (0..32).map(|_| hub.seal(0, &packet(true, 8900))).collect();
        // Those on the shelf hold theirs.
        if hub.journey.shelf.len() + 32 > LONG as usize {
            break;
        }
        assert!(hub.pass(&frames).is_empty());
        whole(&hub);
    }
    assert_eq!(hub.journey.shelf.len(), 64);
    let small: Vec<_> = (0..64).map(|_| hub.seal(0, &packet(true, 100))).collect();
    assert!(hub.pass(&small).is_empty());
    whole(&hub);
    hub.journey.sites.at_mut(SiteSlot(1)).sending = session;
    let again: Vec<_> = (0..LONG).map(|_| hub.seal(0, &packet(false, 8900))).collect();
    assert_eq!(hub.pass(&again).len(), LONG as usize, "all long ones were free");
}
