//! Chunks hold other tenants' old packets. Here every free one is full of poison whenever a packet comes, and whatever
//! leaves the hub is looked through, sealed and opened.

use ekiden_dataplane::config::Idle;
use ekiden_dataplane::mailbox::Order;
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6};
use wire::{Inner, PortIndex, SiteSlot};

/// In no packet here; keys and counters are the same each time, and so is what is sealed.
const POISON: u8 = 0xdb;
/// So many of them in a row are no accident.
const ROW: usize = 4;

struct Poisoned(Rehearsal);

impl Poisoned {
    fn new() -> Self {
        let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
        let mut this = Self(Rehearsal::new(&[sites(), sites()], 96));
        this.poison();
        this
    }

    fn poison(&mut self) {
        for frame in &mut self.0.journey.pool {
            frame.reset(0, frame.size());
            frame.bytes_mut().fill(POISON);
            frame.reset(0, 0);
        }
    }

    /// Lets a frame come into a poisoned chunk; what leaves is clean.
    fn pass(&mut self, frame: Vec<u8>) -> Vec<Vec<u8>> {
        self.poison();
        let left = self.0.pass(&[frame]);
        left.iter().for_each(|frame| self.clean(frame));
        left
    }

    /// Carries out an order of control's; what leaves is clean.
    fn obey(&mut self, order: Order) -> Vec<Vec<u8>> {
        self.poison();
        self.0.control.send(order);
        let now = self.0.now;
        self.0.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
        let left = self.0.leave();
        left.iter().for_each(|frame| self.clean(frame));
        left
    }

    /// No poison in a frame; and if it is a data message, none in what its site opens, and zeros behind its packet.
    fn clean(&self, frame: &[u8]) {
        let poison = |bytes: &[u8]| bytes.windows(ROW).any(|row| row == [POISON; ROW]);
        assert!(!poison(frame), "poison in a frame of {}", frame.len());
        let outer = wire::Outer::parse(frame).expect("a whole datagram");
        assert_eq!(outer.payload.end, frame.len(), "something behind the datagram");
        if let Some((_, packet)) = self.0.open(frame) {
            assert!(!poison(&packet), "poison in a packet of {}", packet.len());
            let len = if packet.is_empty() { 0 } else { Inner::parse(&packet).expect("a packet").len };
            assert!(packet[len..].iter().all(|byte| *byte == 0), "a pad that is not zero");
        }
    }
}

/// A packet of each version from site 0 to site 1, its contents zeros.
fn packets(hops: u8, len: usize) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    if len >= 28 {
        all.push(ipv4([10, 9, 1, 1], [10, 9, 2, 1], hops, len));
        all[0][20..].fill(0);
    }
    if len >= 48 {
        let mut packet = ipv6("fd00:9:1::1", "fd00:9:2::1", hops, len);
        packet[40..].fill(0);
        all.push(packet);
    }
    all
}

#[test]
fn a_poisoned_chunk_would_be_seen() {
    let mut hub = Poisoned::new();
    let mut packet = packets(64, 100).remove(0);
    packet[60..70].fill(POISON);
    let frame = hub.0.seal(0, &packet);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hub.pass(frame)));
    assert!(caught.is_err(), "what looks for poison is blind");
}

#[test]
fn packets_of_every_length_leave_clean() {
    let mut hub = Poisoned::new();
    for len in 28..=1440 {
        for packet in packets(64, len) {
            // As a client pads, as one that does not, and in a frame that Ethernet has padded.
            for padded in [len.next_multiple_of(16).min(1440), len] {
                let mut frame = hub.0.seal_to(0, &packet, padded);
                frame.extend([POISON; 18]);
                assert_eq!(hub.pass(frame).len(), 1, "length {len}");
            }
        }
    }
}

#[test]
fn runts_leave_nothing_behind() {
    let mut hub = Poisoned::new();
    let whole = hub.0.seal(0, &packets(64, 28)[0]);
    for len in 0..whole.len() {
        assert!(hub.pass(whole[..len].to_vec()).is_empty());
    }
    for len in 0..28 {
        let runt = hub.0.seal_to(0, &vec![0x45; len], len);
        assert!(hub.pass(runt).is_empty());
    }
    let (found, all) = hub.0.census();
    assert_eq!(found, all);
}

#[test]
fn icmp_of_the_hub_leaves_clean() {
    let mut hub = Poisoned::new();
    let (expired, too_large) = ((28..=1440).step_by(13), 1441..=1500);
    for (hops, len) in expired.map(|len| (1, len)).chain(too_large.map(|len| (64, len))) {
        for packet in packets(hops, len) {
            hub.0.now.0 += 20_000_000; // within the rate of ICMP
            let frame = hub.0.seal_to(0, &packet, len);
            let left = hub.pass(frame);
            assert_eq!(hub.0.open(&left[0]).expect("for a site").0, 0, "an answer to {len} bytes");
        }
    }
}

#[test]
fn what_control_sends_leaves_as_it_was_made() {
    let mut hub = Poisoned::new();
    // Initiation, response, cookie reply.
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        let mut message = vec![0x77; len];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let frame = hub.0.frame(0, &message);
        assert_eq!(hub.obey(Order::Emit(PortIndex(0), frame.clone())), [frame]);
    }
    let [keepalive] = &hub.obey(Order::Keepalive(SiteSlot(1)))[..] else { panic!("one keepalive") };
    assert_eq!(keepalive.len(), 14 + 20 + 8 + 32);
    assert_eq!(hub.0.open(keepalive).expect("for site 1"), (1, vec![]));
}

#[test]
fn what_waited_or_came_in_fragments_leaves_clean() {
    let mut hub = Poisoned::new();
    for len in (28..=1440).step_by(29) {
        for packet in packets(64, len) {
            let whole = hub.0.seal(0, &packet);
            assert_eq!(hub.obey(Order::Reassembled(PortIndex(0), whole)).len(), 1, "length {len}");
            let session = hub.0.journey.sites.at_mut(SiteSlot(1)).sending.take().expect("a session");
            let frame = hub.0.seal(0, &packet);
            assert!(hub.pass(frame).is_empty(), "it waits");
            assert_eq!(hub.obey(Order::Use(session)).len(), 1, "length {len}");
        }
    }
}

#[test]
fn control_sees_the_message_and_nothing_of_what_its_parcel_held() {
    let mut hub = Poisoned::new();
    for (kind, len) in [(1, 148), (2, 92), (3, 64)] {
        let mut message = vec![0x77; len];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let frame = hub.0.frame(0, &message);
        assert!(hub.pass(frame.clone()).is_empty());
        let parcel = hub.0.control.parcel().expect("a parcel");
        assert_eq!(parcel.frame(), frame);
        hub.0.control.recycle(parcel);
    }
}
