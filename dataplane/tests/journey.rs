//! The journey in memory, stage by stage: what goes in, what comes out, where it is counted, and that no chunk is lost.

use crypto::aead::Cipher;
use crypto::constants::REJECT_AFTER_MESSAGES;
use crypto::{Role, Session, Time, message};
use ekiden_dataplane::config::Idle;
use ekiden_dataplane::mailbox::{Event, Order};
use ekiden_dataplane::packet::{Batch, Packet};
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6, way_to};
use ekiden_dataplane::sites::Way;
use ekiden_dataplane::staging;
use std::sync::Arc;
use wire::{DropReason, Inner, Outer, PortIndex, SiteSlot};

const A: [u8; 4] = [10, 9, 1, 1];
const B: [u8; 4] = [10, 9, 2, 1];

/// Two tenants with the same addresses, two sites each: 0 and 1 are the first's, 2 and 3 the second's.
fn twins() -> Rehearsal {
    let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
    Rehearsal::new(&[sites(), sites()], 512)
}

/// The sites that frames went to, with the inner packets, without padding.
fn delivered(hub: &Rehearsal, frames: &[Vec<u8>]) -> Vec<(usize, Vec<u8>)> {
    let open = |frame: &Vec<u8>| {
        let (site, mut packet) = hub.open(frame).expect("a data message of the hub's");
        let len = Inner::parse(&packet).expect("an IP packet").len;
        assert!(packet[len..].iter().all(|byte| *byte == 0), "padding that is not zero");
        packet.truncate(len);
        (site, packet)
    };
    frames.iter().map(open).collect()
}

fn obey(hub: &mut Rehearsal, order: Order) {
    hub.control.send(order);
    let now = hub.now;
    hub.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
}

#[test]
fn a_packet_reaches_its_site_one_hop_older_and_otherwise_the_same() {
    let mut hub = twins();
    for (packet, older) in [
        (ipv4(A, B, 64, 100), ipv4(A, B, 63, 100)),
        (ipv4(A, B, 2, 1440), ipv4(A, B, 1, 1440)),
        (ipv6("fd00:9:1::1", "fd00:9:2::1", 64, 1280), ipv6("fd00:9:1::1", "fd00:9:2::1", 63, 1280)),
    ] {
        let out = hub.pass(&[hub.seal(0, &packet)]);
        assert_eq!(delivered(&hub, &out), vec![(1, older)]);
    }
    let row = hub.journey.rows.site(SiteSlot(0));
    assert_eq!((row.rx_packets.read(), row.rx_bytes.read()), (3, 100 + 1440 + 1280));
    let row = hub.journey.rows.site(SiteSlot(1));
    assert_eq!((row.tx_packets.read(), row.tx_bytes.read()), (3, 100 + 1440 + 1280));
    assert_eq!(hub.drops(), vec![]);
}

#[test]
fn a_packet_is_opened_and_sealed_in_the_chunk_it_came_in() {
    let mut hub = twins();
    let bytes = hub.seal(0, &ipv4(A, B, 64, 1000));
    let mut frame = hub.journey.pool.pop().unwrap();
    frame.copy_from(&bytes);
    let chunk = frame.chunk();
    let mut batch = Batch::from_iter([Packet::arrived(frame, PortIndex(0))]);
    let now = hub.now;
    hub.journey.relay(&mut batch, now);
    hub.journey.dispatch(&mut batch);
    assert_eq!(hub.journey.out[0].iter().map(|frame| frame.chunk()).collect::<Vec<_>>(), vec![chunk]);
}

#[test]
fn tenants_with_the_same_addresses_never_meet() {
    let mut hub = twins();
    let frames: Vec<_> = [0, 2, 0, 2].map(|site| hub.seal(site, &ipv4(A, B, 64, 200))).into();
    let out = hub.pass(&frames);
    let sites: Vec<_> = delivered(&hub, &out).into_iter().map(|(site, _)| site).collect();
    assert_eq!(sites, vec![1, 3, 1, 3], "order kept, each to its own tenant");
}

#[test]
fn a_site_may_send_to_itself() {
    let mut hub = twins();
    let out = hub.pass(&[hub.seal(0, &ipv4(A, [10, 9, 1, 2], 64, 100))]);
    assert_eq!(delivered(&hub, &out)[0].0, 0);
}

#[test]
fn what_is_refused_has_its_reason() {
    let mut hub = twins();
    let seal = |hub: &Rehearsal, packet: Vec<u8>| hub.seal(0, &packet);
    let mut wrong_version = ipv4(A, B, 64, 100);
    wrong_version[0] = 0x55;
    let mut longer_than_it_is = ipv4(A, B, 64, 100);
    longer_than_it_is[2..4].copy_from_slice(&2000u16.to_be_bytes());
    let mut bad_sum = ipv4(A, B, 64, 100);
    bad_sum[10] ^= 1;
    for (packet, reason) in [
        (ipv4(B, A, 64, 100), DropReason::SourceNotAllowed),
        (ipv4([10, 9, 3, 1], B, 64, 100), DropReason::SourceNotAllowed),
        (ipv6("fd00:9:2::1", "fd00:9:1::1", 64, 100), DropReason::SourceNotAllowed),
        (ipv4(A, [10, 9, 3, 1], 64, 100), DropReason::NoRoute),
        (ipv4(A, [224, 0, 0, 1], 64, 100), DropReason::Martian),
        (ipv4(A, [192, 0, 2, 1], 64, 100), DropReason::NoRoute),
        (ipv6("fd00:9:1::1", "ff02::1", 64, 100), DropReason::Martian),
        (ipv4([127, 0, 0, 1], B, 64, 100), DropReason::Martian),
        (wrong_version, DropReason::InnerMalformed),
        (longer_than_it_is, DropReason::InnerMalformed),
        (bad_sum, DropReason::InnerMalformed),
        (vec![0x45; 3], DropReason::InnerMalformed),
    ] {
        let frame = seal(&hub, packet.clone());
        assert_eq!(hub.dropped_for(frame), reason, "{packet:x?}");
    }
}

#[test]
fn what_is_no_data_message_of_a_live_session_has_its_reason() {
    let mut hub = twins();
    let good = hub.seal(0, &ipv4(A, B, 64, 100));
    let changed = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] ^= value;
        frame
    };
    assert_eq!(hub.dropped_for(changed(good.len() - 1, 1)), DropReason::AuthFailed);
    assert_eq!(hub.dropped_for(changed(42 + 16, 1)), DropReason::AuthFailed);
    assert_eq!(hub.dropped_for(changed(42 + 8, 1)), DropReason::AuthFailed);
    assert_eq!(hub.dropped_for(changed(42 + 15, 1)), DropReason::CounterLimit);
    assert_eq!(hub.dropped_for(changed(42 + 4, 0xf0)), DropReason::SessionUnknown);
    assert_eq!(hub.dropped_for(changed(42, 8)), DropReason::OuterNotWireguard);
    assert_eq!(hub.dropped_for(changed(16, 1)), DropReason::OuterMalformed);
    assert_eq!(hub.dropped_for(good[..60].to_vec()), DropReason::OuterMalformed);
    assert_eq!(hub.pass(std::slice::from_ref(&good)).len(), 1, "the message itself is good");
    assert_eq!(hub.dropped_for(good), DropReason::CounterReplayed);
    let old = hub.seal(0, &ipv4(A, B, 64, 100));
    hub.now = Time(hub.now.0 + 180_000_000_000);
    assert_eq!(hub.dropped_for(old), DropReason::SessionExpired);
}

#[test]
fn a_message_behind_the_window_is_too_old_even_under_a_counter_never_seen() {
    let mut hub = twins();
    let late = hub.seal(0, &ipv4(A, B, 64, 100));
    let in_time = hub.seal(0, &ipv4(A, B, 64, 100));
    for _ in 0..8128 / 64 {
        let _ = hub.far[0].session.reserve(64);
    }
    // Counters 0 and 1 wait; the window ends at 8,130 - 8,128.
    assert_eq!(hub.pass(&[hub.seal(0, &ipv4(A, B, 64, 100))]).len(), 1);
    assert_eq!(hub.dropped_for(late), DropReason::CounterTooOld);
    assert_eq!(hub.dropped_for(in_time), DropReason::CounterTooOld);
}

#[test]
fn a_duplicate_in_the_same_batch_is_taken_once() {
    let mut hub = twins();
    let frame = hub.seal(0, &ipv4(A, B, 64, 100));
    assert_eq!(hub.pass(&[frame.clone(), frame.clone(), frame]).len(), 1);
    assert_eq!(hub.drops(), vec![(DropReason::CounterReplayed, 2)]);
}

#[test]
fn a_last_hop_and_a_packet_too_long_are_answered_by_icmp() {
    let mut hub = twins();
    for (packet, icmp_type) in [
        (ipv4(A, B, 1, 100), 11),
        (ipv6("fd00:9:1::1", "fd00:9:2::1", 1, 100), 3),
        (ipv4(A, B, 64, 1441), 3),
        (ipv6("fd00:9:1::1", "fd00:9:2::1", 64, 1441), 2),
    ] {
        let out = hub.pass(&[hub.seal(0, &packet)]);
        let (site, answer) = delivered(&hub, &out).remove(0);
        let header = if answer[0] >> 4 == 4 { 20 } else { 40 };
        assert_eq!((site, answer[header]), (0, icmp_type));
        assert_eq!(Inner::parse(&answer).unwrap().destination, Inner::parse(&packet).unwrap().source);
    }
    assert_eq!(hub.drops(), vec![(DropReason::TtlExpired, 2), (DropReason::TooLarge, 2)]);
    assert_eq!(hub.journey.rows.turns.generated.read(), 4);
}

#[test]
fn a_packet_that_would_grow_out_of_its_chunk_is_dropped() {
    let mut hub = twins();
    let mut way = way_to(hub.far[1].remote);
    way.out.as_mut().unwrap().payload_max = 1800;
    obey(&mut hub, Order::Way(SiteSlot(1), way));
    // 314 bytes of headroom and headers, 1,713 of packet, a tag: it fits as it comes, and not with 15 bytes of padding.
    let frame = hub.seal_to(0, &ipv4(A, B, 64, 1713), 1713);
    assert_eq!(hub.dropped_for(frame), DropReason::TooLarge);
    let frame = hub.seal_to(0, &ipv4(A, B, 64, 1712), 1712);
    assert_eq!(hub.pass(&[frame]).len(), 1);
}

#[test]
fn icmp_is_bounded() {
    let mut hub = twins();
    let frames: Vec<_> = (0..500).map(|_| hub.seal(0, &ipv4(A, B, 1, 100))).collect();
    let out = hub.pass(&frames);
    assert_eq!(out.len() as u64, ekiden_dataplane::tenants::ICMP_BURST);
    assert_eq!(hub.drops(), vec![(DropReason::TtlExpired, 500), (DropReason::IcmpRate, 400)]);
    let (pool, all) = hub.census();
    assert_eq!(pool, all);
}

#[test]
fn a_keepalive_ends_here_and_shows_that_its_site_lives() {
    let mut hub = twins();
    hub.now = Time(77_000_000_000);
    assert!(hub.pass(&[hub.seal(0, &[])]).is_empty());
    let row = hub.journey.rows.site(SiteSlot(0));
    assert_eq!((row.rx_keepalives.read(), row.rx_packets.read()), (1, 0));
    assert_eq!((row.any_received_at.read(), row.data_received_at.read()), (77_000_000_000, 0));
    assert_eq!(hub.drops(), vec![]);
}

#[test]
fn a_site_without_a_session_gets_its_packets_in_order_once_it_has_one() {
    let mut hub = twins();
    let session = hub.journey.sites.at_mut(SiteSlot(1)).sending.take().unwrap();
    let frames: Vec<_> = (0..70u8).map(|n| hub.seal(0, &ipv4(A, [10, 9, 2, n], 64, 100))).collect();
    assert!(hub.pass(&frames).is_empty());
    assert_eq!(hub.events(), vec![Event::Wanted(SiteSlot(1))], "told once");
    assert_eq!(hub.drops(), vec![(DropReason::StagedOverflow, 6)]);
    obey(&mut hub, Order::Use(session));
    let out = hub.leave();
    let order: Vec<_> = delivered(&hub, &out).iter().map(|(_, packet)| packet[19]).collect();
    assert_eq!(order, (6..70).collect::<Vec<u8>>(), "the oldest gave way, the order is kept");
    let (pool, all) = hub.census();
    assert_eq!(pool, all);
}

#[test]
fn the_shelf_is_bounded_for_a_tenant_and_in_all_and_the_oldest_gives_way() {
    // Thirty tenants of six sites each; nobody has a session to send under.
    let prefixes: Vec<String> = (0..6).map(|s| format!("10.9.{s}.0/24")).collect();
    let sites: Vec<Vec<&str>> = prefixes.iter().map(|prefix| vec![prefix.as_str()]).collect();
    let mut hub = Rehearsal::new(&vec![sites; 30], 2048);
    for site in 0..180 {
        hub.journey.sites.at_mut(SiteSlot(site)).sending = None;
    }
    let to_each = |hub: &Rehearsal, tenant: usize, each: usize| -> Vec<Vec<u8>> {
        let to = |n: usize| ipv4([10, 9, 0, 1], [10, 9, 1 + (n % 5) as u8, 1], 64, 60);
        (0..5 * each).map(|n| hub.seal(6 * tenant, &to(n))).collect()
    };
    let frames = to_each(&hub, 0, 60);
    hub.pass(&frames);
    assert_eq!(hub.journey.shelf.len(), staging::PER_TENANT as usize, "five sites of 60, within the bound of each");
    assert_eq!(hub.drops(), vec![(DropReason::StagedOverflow, 300 - staging::PER_TENANT as u64)]);
    for tenant in 1..30 {
        let frames = to_each(&hub, tenant, 8);
        hub.pass(&frames);
    }
    assert_eq!(hub.journey.shelf.len(), staging::IN_ALL);
    let offered = 300 + 29 * 40;
    assert_eq!(hub.drops(), vec![(DropReason::StagedOverflow, offered - staging::IN_ALL as u64)]);
    let (found, all) = hub.census();
    assert_eq!(found, all);
}

#[test]
fn what_waited_in_vain_is_dropped_and_the_next_packet_asks_again() {
    let mut hub = twins();
    hub.journey.sites.at_mut(SiteSlot(1)).sending = None;
    hub.pass(&[hub.seal(0, &ipv4(A, B, 64, 100))]);
    obey(&mut hub, Order::GiveUp(SiteSlot(1)));
    assert_eq!(hub.drops(), vec![(DropReason::SiteDown, 1)]);
    hub.pass(&[hub.seal(0, &ipv4(A, B, 64, 100))]);
    assert_eq!(hub.events(), vec![Event::Wanted(SiteSlot(1)), Event::Wanted(SiteSlot(1))]);
}

#[test]
fn a_way_that_is_blocked_says_why() {
    let mut hub = twins();
    for reason in
        [DropReason::SiteNoEndpoint, DropReason::NextHopUnresolved, DropReason::UnderlayNoRoute, DropReason::PortDown]
    {
        obey(&mut hub, Order::Way(SiteSlot(1), Way { ends: None, out: Err(reason) }));
        let frame = hub.seal(0, &ipv4(A, B, 64, 100));
        assert_eq!(hub.dropped_for(frame), reason);
    }
}

#[test]
fn a_site_that_moved_is_told_of_once_until_control_answers() {
    let mut hub = twins();
    let elsewhere = "198.51.100.9:4242".parse().unwrap();
    obey(&mut hub, Order::Way(SiteSlot(0), way_to(elsewhere)));
    let frames: Vec<_> = (0..3).map(|_| hub.seal(0, &ipv4(A, B, 64, 100))).collect();
    assert_eq!(hub.pass(&frames).len(), 3, "moving stops nothing");
    let events = hub.events();
    let [Event::Moved { site: SiteSlot(0), counter: 0, ends, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!((ends.remote(), ends.local()), (hub.far[0].remote, "192.0.2.1".parse().unwrap()));
    for _ in 0..70 {
        assert_eq!(hub.pass(&[hub.seal(0, &ipv4(A, B, 64, 100))]).len(), 1, "and goes on stopping nothing");
    }
    assert_eq!(hub.events(), vec![], "told of it once is enough");
    // A forged frame from a third place moves nobody.
    let mut forged = hub.seal(0, &ipv4(A, B, 64, 100));
    *forged.last_mut().unwrap() ^= 1;
    hub.pass(&[forged]);
    assert_eq!(hub.events(), vec![]);
}

#[test]
fn a_session_published_in_the_middle_of_a_batch_is_found() {
    let mut hub = twins();
    let frame = hub.seal(0, &ipv4(A, B, 64, 100));
    let index = hub.far[0].session.remote_index();
    let session = hub.journey.sites.at(SiteSlot(0)).sending.clone().unwrap();
    hub.journey.sessions.withdraw(index);
    assert_eq!(hub.dropped_for(frame), DropReason::SessionUnknown);
    let frame = hub.seal(0, &ipv4(A, B, 64, 100));
    hub.control.send(Order::Publish(session));
    assert_eq!(hub.pass(&[frame]).len(), 1, "the order was there before the frame");
}

#[test]
fn a_withdrawn_session_is_gone_and_nothing_is_sent_with_it() {
    let mut hub = twins();
    let index = hub.far[1].session.remote_index();
    obey(&mut hub, Order::Withdraw { site: SiteSlot(1), index });
    let frame = hub.seal(1, &ipv4(B, A, 64, 100));
    assert_eq!(hub.dropped_for(frame), DropReason::SessionUnknown);
    hub.pass(&[hub.seal(0, &ipv4(A, B, 64, 100))]);
    assert_eq!(hub.events(), vec![Event::Wanted(SiteSlot(1))]);
}

#[test]
fn a_handshake_message_goes_to_control_as_it_came() {
    let mut hub = twins();
    let mut message = vec![1, 0, 0, 0];
    message.resize(148, 7);
    let frame = hub.frame(0, &message);
    assert!(hub.pass(std::slice::from_ref(&frame)).is_empty());
    let parcel = hub.control.parcel().expect("a parcel");
    assert_eq!(parcel.frame(), frame);
    hub.control.recycle(parcel);
    assert_eq!((hub.journey.rows.turns.to_control.read(), hub.drops()), (1, vec![]));
}

#[test]
fn old_bytes_of_a_chunk_never_leave_it() {
    let mut hub = twins();
    const POISON: u8 = 0xdb;
    for frame in &mut hub.journey.pool {
        frame.reset(0, 2048);
        frame.bytes_mut().fill(POISON);
    }
    for len in (28..1440).step_by(7) {
        let mut packet = ipv4(A, B, 64, len);
        packet[20..].fill(0);
        let out = hub.pass(&[hub.seal(0, &packet)]);
        let (_, packet) = hub.open(&out[0]).unwrap();
        assert!(!packet.windows(3).any(|bytes| bytes == [POISON; 3]), "length {len}");
        let outer = Outer::parse(&out[0]).unwrap();
        assert_eq!(outer.payload.end, out[0].len(), "bytes behind the datagram");
    }
}

#[test]
fn the_outer_header_tells_nothing_of_the_inner_class() {
    let mut hub = twins();
    let mut urgent = ipv4(A, B, 64, 100);
    urgent[1] = 46 << 2;
    urgent[10..12].fill(0);
    let sum = wire::checksum::Sum::ZERO.bytes(&urgent[..20]).finish();
    urgent[10..12].copy_from_slice(&sum.to_be_bytes());
    let out = hub.pass(&[hub.seal(0, &urgent)]);
    assert_eq!(Outer::parse(&out[0]).unwrap().dscp, 0);
    assert_eq!(delivered(&hub, &out)[0].1[1], 46 << 2, "inside it stays");
}

#[test]
fn what_a_site_hides_in_its_padding_ends_here() {
    let mut hub = twins();
    let mut packet = ipv4(A, B, 64, 100);
    packet.extend_from_slice(&[0xdb; 12]);
    let out = hub.pass(&[hub.seal(0, &packet)]);
    assert_eq!(delivered(&hub, &out), vec![(1, ipv4(A, B, 63, 100))], "and zeros behind it");
}

#[test]
fn outer_congestion_reaches_the_inner_packet_or_drops_it() {
    let mut hub = twins();
    let mark = |frame: &mut Vec<u8>, tos: u8| {
        frame[15] = tos;
        frame[24..26].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&frame[14..34]).finish();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    };
    let mut frame = hub.seal(0, &ipv4(A, B, 64, 100));
    mark(&mut frame, 3);
    assert_eq!(hub.dropped_for(frame), DropReason::EcnNotCapable);
    let mut capable = ipv4(A, B, 64, 100);
    wire::ecn::set(&mut capable, wire::Ecn::Ect0);
    let mut frame = hub.seal(0, &capable);
    mark(&mut frame, 3);
    let out = hub.pass(&[frame]);
    assert_eq!(Inner::parse(&delivered(&hub, &out)[0].1).unwrap().ecn, wire::Ecn::Ce);
    assert_eq!(Outer::parse(&out[0]).unwrap().ecn, wire::Ecn::Ce, "and the next path's");
}

#[test]
fn answers_to_a_flood_of_handshakes_leave_room_for_packets() {
    let mut hub = twins();
    let cookie = hub.seal(0, &ipv4(A, B, 64, 100));
    for _ in 0..300 {
        hub.control.send(Order::Emit(PortIndex(0), cookie.clone()));
    }
    let now = hub.now;
    let mut turns = Vec::new();
    while hub.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive)) {
        turns.push(hub.journey.out[0].len());
        assert!(turns.len() < 100, "it never ends");
    }
    // A few a turn, and none is lost.
    assert_eq!(turns, [32, 64, 96, 128, 160, 192, 224, 256, 288, 300]);
}

#[test]
fn without_a_free_chunk_packets_go_on_and_what_is_the_hubs_own_is_counted() {
    let mut hub = twins();
    let handshake = hub.seal(0, &ipv4(A, B, 64, 100));
    // All chunks are somewhere else, but for the one that a packet comes in.
    let elsewhere: Vec<_> = hub.journey.pool.drain(1..).collect();
    let mut frame = hub.journey.pool.pop().unwrap();
    frame.copy_from(&hub.seal(0, &ipv4(A, B, 64, 100)));

    let generated = hub.journey.rows.turns.generated.read();
    obey(&mut hub, Order::Keepalive(SiteSlot(0)));
    obey(&mut hub, Order::Emit(PortIndex(0), handshake.clone()));
    obey(&mut hub, Order::Reassembled(PortIndex(0), handshake));
    assert_eq!(hub.drops(), vec![(DropReason::NoChunk, 3)]);
    assert_eq!(hub.journey.rows.turns.generated.read() - generated, 2);
    assert_eq!(hub.journey.rows.turns.reassembled.read(), 1);
    assert!(hub.journey.out[0].is_empty());

    let mut batch = Batch::from_iter([Packet::arrived(frame, PortIndex(0))]);
    let now = hub.now;
    hub.journey.relay(&mut batch, now);
    hub.journey.dispatch(&mut batch);
    let out = hub.leave();
    assert_eq!(delivered(&hub, &out), vec![(1, ipv4(A, B, 63, 100))]);

    // With a chunk again, they are made again.
    obey(&mut hub, Order::Keepalive(SiteSlot(0)));
    assert_eq!((hub.leave().len(), hub.drops()), (1, vec![(DropReason::NoChunk, 3)]));
    hub.journey.pool.extend(elsewhere);
    let (pool, all) = hub.census();
    assert_eq!(pool, all);
}

#[test]
fn the_last_counters_go_to_the_first_packets_and_the_others_are_counted() {
    for left in [0, 1, 3, 64, 200] {
        let mut hub = twins();
        let spent = |site: u32| {
            let keys = ([7; 32], [8; 32], Cipher::ChaCha20Poly1305);
            let session = Session::new(site, 1, 2, Role::Initiator, &keys.0, &keys.1, keys.2, hub.now);
            Some(Arc::new(session.used_up_but(left)))
        };
        let sessions = [0, 1].map(spent);
        for (site, session) in sessions.into_iter().enumerate() {
            hub.journey.sites.at_mut(SiteSlot(site as u32)).sending = session;
        }
        // To one site and to the other, in runs of 1 to 7, with a packet that goes nowhere among them.
        let mut wanted = [0; 2];
        let mut frames = Vec::new();
        for run in 0..40 {
            let to = run % 2;
            for _ in 0..1 + run % 7 {
                let (from, source, destination) = [(1, B, A), (0, A, B)][to];
                frames.push(hub.seal(from, &ipv4(source, destination, 64, 100)));
                wanted[to] += 1;
            }
            frames.push(hub.seal(1, &ipv4(B, [10, 9, 9, 9], 64, 100)));
        }
        let leave = wanted.map(|wanted: u64| wanted.min(left));
        let out = hub.pass(&frames);
        for (site, leave) in leave.into_iter().enumerate() {
            let remote = hub.far[site].remote;
            let to_it = out.iter().filter(|frame| Outer::parse(frame).unwrap().destination() == remote);
            let counter =
                |frame: &Vec<u8>| message::parse_data(&frame[Outer::parse(frame).unwrap().payload]).unwrap().1;
            let counters: Vec<_> = to_it.map(counter).collect();
            let first = REJECT_AFTER_MESSAGES - left;
            assert_eq!(counters, (first..first + leave).collect::<Vec<_>>(), "each in its order, and none lost");
        }
        let refused = wanted.iter().sum::<u64>() - leave.iter().sum::<u64>();
        let refused = (refused > 0).then_some((DropReason::NonceLimit, refused));
        assert_eq!(hub.drops(), [(DropReason::NoRoute, 40)].into_iter().chain(refused).collect::<Vec<_>>());
        let mut events: Vec<_> = hub.events().into_iter().filter(|event| matches!(event, Event::Wanted(_))).collect();
        events.sort_by_key(|event| format!("{event:?}"));
        let short = [0, 1].into_iter().filter(|site| wanted[*site as usize] > left);
        assert_eq!(events, short.map(|site| Event::Wanted(SiteSlot(site))).collect::<Vec<_>>(), "told of once each");
        let (found, all) = hub.census();
        assert_eq!(found, all);
    }
}
