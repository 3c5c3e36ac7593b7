//! What another hub may not send, although it holds the keys of its trunk: each has its reason, and nothing else happens. And what
//! hubs say to each other.

mod hubs;

use crypto::aead::Cipher;
use crypto::message::Kind;
use crypto::{Protocol, Role, Session, Time};
use ekiden_dataplane::mailbox::{Order, Source};
use ekiden_dataplane::packet::{Batch, Packet};
use ekiden_dataplane::rehearsal::joined::{LANE_MTU, share, tagged};
use ekiden_dataplane::rehearsal::{ipv4, ipv6};
use ekiden_dataplane::seats::Vacant;
use ekiden_dataplane::sites::Seat;
use ekiden_dataplane::team::Team;
use ekiden_dataplane::tenants::Tenant;
use hubs::{CIPHERS, HUB_V4, HUB_V6, World, nets, packets, port, tenant, v4, v6};
use std::sync::Arc;
use wire::geneve::{self, Payload};
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot};

const DATAGRAM: usize = 14 + 20 + 8;

/// What hub 0 drops of hub 1, which seals this plaintext.
fn refused(world: &mut World, plaintext: &[u8]) -> DropReason {
    let frame = world.hubs[1].seal_by(world.lane(1, 0, 0), plaintext);
    world.dropped_for(0, frame)
}

/// What becomes of it if it is good.
fn taken(world: &mut World, plaintext: &[u8]) -> Vec<hubs::Arrival> {
    let frame = world.hubs[1].seal_by(world.lane(1, 0, 0), plaintext);
    let out = world.pass(0, &[frame]);
    out.iter().map(|frame| world.arrival(0, frame)).collect()
}

fn id(number: u64) -> TenantId {
    TenantId::new(number).expect("24 bits")
}

/// Packets of both versions from a site of hub 1 to one of hub 0, with what their tags say.
fn good() -> [(Payload, Vec<u8>); 2] {
    let [four, six] = packets(nets(1)[0], nets(0)[0], 64, 100);
    [(Payload::Ipv4, four), (Payload::Ipv6, six)]
}

#[test]
fn a_tag_is_taken_only_if_it_is_right_in_every_bit() {
    for cipher in CIPHERS {
        let mut world = World::pair(2, cipher);
        let hub = |world: &World, reason| world.hubs[0].journey.rows.hub.read(reason).0;
        for (payload, packet) in good() {
            for t in 0..2 {
                let [(0, site, _)] = taken(&mut world, &tagged(tenant(t), payload, &packet))[..] else { panic!() };
                assert_eq!(site, 2 * t);
            }
            let plain = tagged(tenant(0), payload, &packet);
            for bit in (0..32).chain(56..64) {
                let mut wrong = plain.clone();
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(refused(&mut world, &wrong), DropReason::TrunkTagMalformed, "bit {bit}");
            }
            // Every other tenant, but the two that there are.
            for bit in 32..56 {
                let mut wrong = plain.clone();
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
                assert_eq!(refused(&mut world, &wrong), DropReason::TrunkTenantUnknown, "bit {bit}");
            }
            for len in 1..=geneve::HEADER {
                assert_eq!(refused(&mut world, &plain[..len]), DropReason::TrunkTagMalformed, "{len} bytes");
            }
            let other = if payload == Payload::Ipv4 { Payload::Ipv6 } else { Payload::Ipv4 };
            assert_eq!(refused(&mut world, &tagged(tenant(0), other, &packet)), DropReason::TrunkTagMalformed);
            // The tag is right, and the packet contradicts itself.
            assert_eq!(refused(&mut world, &plain[..60]), DropReason::InnerMalformed);
        }
        assert_eq!(refused(&mut world, &[0; 32]), DropReason::TrunkTagMalformed);
        assert!(hub(&world, DropReason::TrunkTagMalformed) > 0 && hub(&world, DropReason::TrunkTenantUnknown) == 48);
        let of_lanes = &world.hubs[0].journey.rows;
        let [first, second] = [0, 1].map(|t| of_lanes.site(world.carried(0, 1, t)).rx_outer_packets.read());
        assert_eq!((first, second), (4, 2), "what has no tenant is counted with none");
    }
}

#[test]
fn a_trunk_carries_the_tenants_that_it_may() {
    let mut world = World::pair(2, Cipher::Aes256Gcm);
    let (payload, packet) = good()[0].clone();
    for end in [tenant(0), tenant(1)] {
        assert_eq!(taken(&mut world, &tagged(end, payload, &packet)).len(), 1);
    }
    // The other hub holds the keys, and not the tenant.
    world.change(0, 1, |trunk| {
        trunk.carried.remove(&tenant(1));
        trunk.denied.insert(tenant(1));
    });
    assert_eq!(refused(&mut world, &tagged(tenant(1), payload, &packet)), DropReason::TrunkTenantDenied);
    assert_eq!(refused(&mut world, &tagged(id(0), payload, &packet)), DropReason::TrunkTenantUnknown);
    assert_eq!(refused(&mut world, &tagged(id(0xff_ffff), payload, &packet)), DropReason::TrunkTenantUnknown);
    assert_eq!(world.hubs[0].journey.rows.hub.read(DropReason::TrunkTenantDenied).0, 1);
    assert_eq!(taken(&mut world, &tagged(tenant(0), payload, &packet)).len(), 1, "the others go on");
    // Nor does anything of it leave that way any more.
    let frame = world.hubs[0].seal(2, &packets(nets(0)[0], nets(1)[0], 64, 100)[0]);
    assert_eq!(world.dropped_for(0, frame), DropReason::SiteNoEndpoint);
}

#[test]
fn a_swapped_tag_gets_nobody_into_another_tenant() {
    let mut world = World::pair(2, Cipher::ChaCha20Poly1305);
    // A network behind the other hub, and one here, that only the first tenant has.
    world.route(0, &[(0, "10.50.0.0/16", 1), (0, "fd00:50::/32", 1)]);
    for (payload, packet) in
        [(Payload::Ipv4, ipv4([10, 50, 0, 1], v4(1), 64, 80)), (Payload::Ipv6, ipv6("fd00:50::1", &v6(1), 64, 80))]
    {
        assert_eq!(taken(&mut world, &tagged(tenant(0), payload, &packet)).len(), 1);
        assert_eq!(refused(&mut world, &tagged(tenant(1), payload, &packet)), DropReason::TrunkSource);
    }
    // Sources that are here, nowhere, or behind another end.
    for (from, to) in [(nets(0)[1], nets(0)[0]), (99, nets(0)[0]), (nets(0)[2], nets(0)[0])] {
        for (packet, payload) in packets(from, to, 64, 100).into_iter().zip([Payload::Ipv4, Payload::Ipv6]) {
            for t in 0..2 {
                assert_eq!(refused(&mut world, &tagged(tenant(t), payload, &packet)), DropReason::TrunkSource);
            }
        }
    }
    let row = world.hubs[0].journey.rows.tenant(TenantSlot(1));
    assert_eq!(row.read(DropReason::TrunkSource).0, 8, "whom the tag named");
    // And the source of a site that is not its own has still the other reason.
    let frame = world.hubs[0].seal(0, &packets(nets(1)[0], nets(0)[1], 64, 100)[0]);
    assert_eq!(world.dropped_for(0, frame), DropReason::SourceNotAllowed);
}

/// An ICMP error of this type from this address to a site of hub 0.
fn error(from: &str, kind: u8) -> (Payload, Vec<u8>) {
    let source: std::net::IpAddr = from.parse().expect("an address");
    match source {
        std::net::IpAddr::V4(source) => {
            let mut packet = ipv4(source.octets(), v4(nets(0)[0]), 64, 60);
            (packet[9], packet[20]) = (1, kind);
            packet[10..12].fill(0);
            let sum = wire::checksum::Sum::ZERO.bytes(&packet[..20]).finish();
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (Payload::Ipv4, packet)
        }
        std::net::IpAddr::V6(_) => {
            let mut packet = ipv6(from, &v6(nets(0)[0]), 64, 80);
            (packet[6], packet[40]) = (58, kind);
            (Payload::Ipv6, packet)
        }
    }
}

#[test]
fn a_hub_reports_errors_by_its_address_and_says_nothing_else_by_it() {
    let mut world = World::pair(1, Cipher::Aes256Gcm);
    let hub_v4 = std::net::IpAddr::from(HUB_V4).to_string();
    let of = |(payload, packet): (Payload, Vec<u8>)| tagged(tenant(0), payload, &packet);
    for (from, kind) in [(&*hub_v4, 11), (&*hub_v4, 3), (HUB_V6, 3), (HUB_V6, 2)] {
        assert_eq!(taken(&mut world, &of(error(from, kind))).len(), 1, "{from}, type {kind}");
    }
    for (from, kind) in
        [(&*hub_v4, 8), (&*hub_v4, 0), (&*hub_v4, 5), (HUB_V6, 128), (HUB_V6, 137), ("10.99.0.1", 3), ("fd00:99::1", 2)]
    {
        assert_eq!(refused(&mut world, &of(error(from, kind))), DropReason::TrunkSource, "{from}, type {kind}");
    }
    let packet = ipv4(HUB_V4, v4(nets(0)[0]), 64, 60);
    assert_eq!(refused(&mut world, &tagged(tenant(0), Payload::Ipv4, &packet)), DropReason::TrunkSource);
    // If this hub has another address there, the other one may still have none, or the same.
    *world.hubs[0].journey.tenants.at_mut(TenantSlot(0)) = Tenant::new(&["10.99.0.1".parse().unwrap()]);
    for from in [&*hub_v4, "10.99.0.1"] {
        assert_eq!(taken(&mut world, &of(error(from, 11))).len(), 1, "{from}");
    }
    assert_eq!(refused(&mut world, &of(error(HUB_V6, 2))), DropReason::TrunkSource);
    // A site's word is not a hub's.
    let frame = world.hubs[0].seal(1, &error(&hub_v4, 11).1);
    assert_eq!(world.dropped_for(0, frame), DropReason::SourceNotAllowed);
}

#[test]
fn a_message_is_of_the_protocol_of_its_session() {
    for cipher in CIPHERS {
        let mut world = World::pair(2, cipher);
        let (payload, packet) = good()[0].clone();
        let plain = tagged(tenant(0), payload, &packet);
        let frame = world.hubs[1].seal_by(world.lane(1, 0, 0), &plain);
        let changed = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[DATAGRAM + at] ^= value;
            frame
        };
        for (at, value, reason) in [
            (0, 0x10, DropReason::SessionUnknown), // a site's data, by the index of a lane
            (1, 1, DropReason::OuterNotWireguard),
            (2, 1, DropReason::OuterNotWireguard),
            (3, 1, DropReason::OuterNotWireguard),
            (6, 0xf0, DropReason::SessionUnknown),
            (8, 1, DropReason::AuthFailed),
            (16, 1, DropReason::AuthFailed),
            (frame.len() - DATAGRAM - 1, 1, DropReason::AuthFailed),
            (13, 0x20, DropReason::CounterLimit), // 2^45
        ] {
            assert_eq!(world.dropped_for(0, changed(at, value)), reason, "byte {at}");
        }
        // AES-256-GCM opens 2^29 messages of a session, the other cipher as many as the window has.
        let beyond = if cipher == Cipher::Aes256Gcm { DropReason::CounterLimit } else { DropReason::AuthFailed };
        assert_eq!(world.dropped_for(0, changed(11, 0x20)), beyond);
        // The index of the other lane.
        let index = world.hubs[1].journey.sites.at(world.lane(1, 0, 1)).sending.as_ref().unwrap().remote_index();
        let mut swapped = frame.clone();
        swapped[DATAGRAM + 4..DATAGRAM + 8].copy_from_slice(&index.to_le_bytes());
        assert_eq!(world.dropped_for(0, swapped), DropReason::AuthFailed);
        // And a trunk's data by the index of a site.
        let mut of_site = world.hubs[0].seal(0, &packets(nets(0)[0], nets(0)[1], 64, 100)[0]);
        of_site[DATAGRAM] = 0x14;
        assert_eq!(world.dropped_for(0, of_site), DropReason::SessionUnknown);
        assert_eq!(world.pass(0, &[frame.clone(), frame.clone()]).len(), 1, "the message itself is good, once");
        assert_eq!(world.dropped_for(0, frame), DropReason::CounterReplayed);
        let old = world.hubs[1].seal_by(world.lane(1, 0, 0), &plain);
        world.hubs[0].now = Time(world.hubs[0].now.0 + 180_000_000_000);
        assert_eq!(world.dropped_for(0, old), DropReason::SessionExpired);
        let rows = &world.hubs[0].journey.rows;
        assert_eq!(rows.hub.read(DropReason::SessionExpired).0, 1, "no tag was read: it is nobody's");
    }
}

#[test]
fn handshake_messages_of_hubs_go_to_control() {
    let mut world = World::pair(1, Cipher::Aes256Gcm);
    let lane = world.lane(1, 0, 0);
    for (head, len, kind) in [
        ([0x11, 2, 7, 0], 148, Kind::Initiation),
        ([0x12, 0, 0, 0], 92, Kind::Response),
        ([0x13, 0, 0, 0], 64, Kind::Cookie),
    ] {
        let mut message = vec![0x77; len];
        message[..4].copy_from_slice(&head);
        assert_eq!(Protocol::recognise(&message), Some((Protocol::Trunk, kind)));
        let frame = world.hubs[1].frame_by(lane, &message);
        assert!(world.pass(0, std::slice::from_ref(&frame)).is_empty());
        assert_eq!(world.parcels(0), [(Source::Port(PortIndex(0)), frame)]);
    }
}

#[test]
fn what_hubs_say_to_each_other_reaches_control_by_its_lane() {
    for cipher in CIPHERS {
        let mut world = World::pair(3, cipher);
        let [near, far] = [world.lane(0, 1, 2), world.lane(1, 0, 2)];
        let room = usize::from(LANE_MTU);
        for len in [1, 8, 100, room] {
            let said: Vec<u8> = (0..len).map(|n| (n % 251 + 1) as u8).collect();
            let plain = tagged(id(0), Payload::Control, &said)[..geneve::HEADER + len].to_vec();
            let out = world.obey(0, Order::Tell(near, plain.clone()));
            assert_eq!((out.len(), port(&out[0])), (1, 51822));
            let (lane, padded) = world.hubs[1].open_by(&out[0]).expect("it opens");
            assert_eq!((lane, &padded[..plain.len()]), (far, &plain[..]));
            assert_eq!(padded.len(), plain.len().next_multiple_of(16).min(room + geneve::HEADER), "{len}");
            assert!(padded[plain.len()..].iter().all(|byte| *byte == 0));
            assert!(world.pass(1, &out).is_empty());
            assert_eq!(world.parcels(1), [(Source::Lane(far), padded[geneve::HEADER..].to_vec())]);
        }
        let rows = [&world.hubs[0].journey.rows, &world.hubs[1].journey.rows];
        assert_eq!((rows[0].site(near).tx_packets.read(), rows[1].site(far).rx_outer_packets.read()), (4, 4));
        assert!(rows[1].site(far).data_received_at.read() > 0, "a lane lives by it");
        assert!((0..2).all(|t| rows[1].volume(TenantSlot(t)).rx_outer_packets.read() == 0), "it is nobody's");
        world.lanes_agree(0, 1);
        // A byte more does not fit; without a session nothing is said, and nothing waits.
        let plain = tagged(id(0), Payload::Control, &vec![1; room + 1])[..geneve::HEADER + room + 1].to_vec();
        assert!(world.obey(0, Order::Tell(near, plain.clone())).is_empty());
        assert_eq!(world.hubs[0].drops(), [(DropReason::TooLarge, 1)]);
        world.hubs[0].journey.sites.at_mut(near).sending = None;
        assert!(world.obey(0, Order::Tell(near, plain)).is_empty());
        assert_eq!((world.hubs[0].drops(), world.hubs[0].events()), (vec![(DropReason::TooLarge, 1)], vec![]));
        // One that says nothing, and more than control has read.
        let nothing = tagged(id(0), Payload::Control, &[])[..geneve::HEADER].to_vec();
        assert_eq!(refused(&mut world, &nothing), DropReason::TrunkControl);
        let said = tagged(tenant(0), Payload::Control, &[1]);
        let mut dropped = 0;
        for _ in 0..1100 {
            let frame = world.hubs[1].seal_by(world.lane(1, 0, 0), &said);
            assert!(world.pass(0, &[frame]).is_empty());
            dropped = world.hubs[0].journey.rows.hub.read(DropReason::ControlBusy).0;
        }
        assert_eq!(dropped, 1100 - 1024);
        assert_eq!(world.parcels(0).len(), 1024);
    }
}

#[test]
fn nothing_is_left_of_a_tenant_that_is_gone() {
    let mut world = World::pair(1, Cipher::Aes256Gcm);
    let (payload, packet) = good()[0].clone();
    let plain = tagged(tenant(1), payload, &packet);
    assert_eq!(taken(&mut world, &plain).len(), 1);
    // Its slot is emptied before the trunk is told, and somebody else has it then.
    let slot = world.carried(0, 1, 1);
    let vacant = Vacant { tenants: vec![TenantSlot(1)], carried: vec![slot], ..Vacant::default() };
    world.obey(0, Order::Vacate(Arc::new(vacant), 0));
    assert_eq!(refused(&mut world, &plain), DropReason::TrunkTenantUnknown);
    let seat = Seat { tenant: TenantSlot(0), limits: None, dscp: ekiden_dataplane::config::Dscp::Zero };
    world.obey(0, Order::Seat(slot, seat));
    assert_eq!(refused(&mut world, &plain), DropReason::TrunkTenantUnknown);
    world.change(0, 1, |trunk| _ = trunk.carried.remove(&tenant(1)));
    assert_eq!(refused(&mut world, &plain), DropReason::TrunkTenantUnknown);
    assert_eq!(taken(&mut world, &tagged(tenant(0), payload, &packet)).len(), 1);
}

#[test]
fn a_session_of_a_lane_is_learnt_in_the_middle_of_a_batch_with_its_trunk() {
    let mut world = World::pair(1, Cipher::Aes256Gcm);
    let plain = tagged(tenant(0), good()[0].0, &good()[0].1);
    let [near, far] = [world.lane(0, 1, 0), world.lane(1, 0, 0)];
    let make = |slot: SiteSlot, indices: [u32; 2], keys: [&[u8; 32]; 2], role| {
        let session = Session::new(
            slot.0,
            indices[0],
            indices[1],
            role,
            keys[0],
            keys[1],
            Cipher::Aes256Gcm,
            Time(1_000_000_000),
        );
        Arc::new(session.of_trunk())
    };
    let (here, there) = (0x77_0000 | 900, 0x66_0000 | 900);
    let session = make(near, [here, there], [&[1; 32], &[2; 32]], Role::Responder);
    world.hubs[1].journey.sites.at_mut(far).sending =
        Some(make(far, [there, here], [&[2; 32], &[1; 32]], Role::Initiator));
    let frame = |world: &World| world.hubs[1].seal_by(far, &plain);
    assert_eq!(
        {
            let frame = frame(&world);
            world.dropped_for(0, frame)
        },
        DropReason::SessionUnknown
    );
    // A worker that has not heard of the trunk: nobody's session is no session.
    let trunk = world.trunk(0, 1).clone();
    world.hubs[0].journey.sites.vacate(near);
    world.hubs[0].journey.sites.vacate(world.sides[0].trunk.carried[&tenant(0)]);
    world.hubs[0].control.send(Order::Publish(session));
    assert_eq!(
        {
            let frame = frame(&world);
            world.dropped_for(0, frame)
        },
        DropReason::SessionUnknown
    );
    world.hubs[0].control.send(Order::Withdraw { site: near, index: here });
    let _ = world.obey(0, Order::Expect(near, 0));
    // All of it in one row of orders, of which none has been read when the message comes.
    let again = make(near, [here, there], [&[1; 32], &[2; 32]], Role::Responder);
    world.hubs[0].control.send(Order::Trunk(trunk));
    world.hubs[0].control.send(Order::Publish(again));
    assert_eq!(taken(&mut world, &plain).len(), 1);
}

#[test]
fn what_a_helper_could_not_seal_its_owner_tags_no_second_time() {
    let mut world = World::pair(1, Cipher::Aes256Gcm);
    let trunk = world.trunk(0, 1).clone();
    let (mut helper, _control) = world.hubs[0].another();
    share(&world.hubs[0], &trunk, &mut helper);
    helper.sites.at_mut(trunk.lanes[0]).sending = None;
    for slot in trunk.carried.values() {
        helper.sites.at_mut(*slot).tenant = world.hubs[0].journey.sites.at(*slot).tenant;
    }
    let bells = [(); 2].map(|()| ekiden_dataplane::mailbox::Bell::new().unwrap());
    let [mut owner, mut other] = <[Team; 2]>::try_from(Team::of(&bells)).unwrap();
    other.offer(true);
    let packets = packets(nets(0)[0], nets(1)[0], 64, 100);
    let frames: Vec<_> = packets.iter().map(|packet| world.seal(0, 0, packet)).collect();
    let mut batch: Box<Batch> = owner.batch().unwrap();
    for bytes in &frames {
        let mut frame = world.hubs[0].journey.pool.pop().unwrap();
        frame.copy_from(bytes);
        batch.push(Packet::arrived(frame, PortIndex(0)));
    }
    owner.hand_out(batch).unwrap();
    let now = world.hubs[0].now;
    other.help(|batch| helper.relay(batch, now));
    world.hubs[0].journey.retire(&mut owner, now);
    let out = world.hubs[0].leave();
    let arrived = world.deliver(out, 0);
    let expected = hubs::packets(nets(0)[0], nets(1)[0], 62, 100);
    assert_eq!(arrived, expected.map(|packet| (1, 0, packet)));
}

#[test]
fn nothing_that_waits_for_a_lane_outlives_its_tenant() {
    let gone: [fn(&mut World); 2] = [
        |world| {
            let vacant =
                Vacant { tenants: vec![TenantSlot(1)], carried: vec![world.carried(0, 1, 1)], ..Vacant::default() };
            world.obey(0, Order::Vacate(Arc::new(vacant), 0));
        },
        |world| world.change(0, 1, |trunk| _ = trunk.carried.remove(&tenant(1))),
    ];
    for gone in gone {
        let mut world = World::pair(1, Cipher::Aes256Gcm);
        let lane = world.lane(0, 1, 0);
        let session = world.hubs[0].journey.sites.at_mut(lane).sending.take().expect("a session");
        let sites = [0, 2].map(|site| world.seal(0, site, &packets(nets(0)[0], nets(1)[0], 64, 100)[0]));
        assert!(world.pass(0, &sites).is_empty());
        assert_eq!(world.hubs[0].journey.rows.site(lane).staged.read(), 2);
        gone(&mut world);
        assert_eq!(world.hubs[0].journey.rows.site(lane).staged.read(), 1);
        let out = world.obey(0, Order::Use(session));
        assert_eq!(world.deliver(out, 0), [(1, 0, packets(nets(0)[0], nets(1)[0], 62, 100)[0].clone())]);
    }
}

/// In no packet here.
const POISON: u8 = 0xdb;

#[test]
fn chunks_that_held_others_packets_leave_nothing_in_a_trunk() {
    let poison = |world: &mut World, hub: usize| {
        for frame in &mut world.hubs[hub].journey.pool {
            frame.reset(0, frame.size());
            frame.bytes_mut().fill(POISON);
            frame.reset(0, 0);
        }
    };
    let clean = |bytes: &[u8]| !bytes.windows(4).any(|row| row == [POISON; 4]);
    let mut world = World::pair(4, Cipher::Aes256Gcm);
    for len in 28..=usize::from(LANE_MTU) {
        for packet in packets(nets(0)[0], nets(1)[0], 64, len.max(48)) {
            let mut packet = packet;
            let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
            packet[header..].fill(0);
            poison(&mut world, 0);
            let mut frame = world.seal(0, 0, &packet);
            frame.extend([POISON; 18]); // as Ethernet pads
            let out = world.pass(0, &[frame]);
            let (_, plain) = world.hubs[1].open_by(&out[0]).expect("it opens");
            assert!(clean(&out[0]) && clean(&plain), "{len} bytes");
            assert_eq!(plain.len(), (8 + packet.len()).next_multiple_of(16).min(8 + usize::from(LANE_MTU)));
            assert!(plain[8 + packet.len()..].iter().all(|byte| *byte == 0), "padding that is not zero");
            // Padding of the other hub's goes no further, whatever it is.
            let mut spoiled = plain.clone();
            spoiled[8 + packet.len()..].fill(POISON);
            for plain in [plain, spoiled] {
                poison(&mut world, 1);
                let frame = world.hubs[0].seal_by(world.lane(0, 1, 0), &plain);
                let out = world.pass(1, &[frame]);
                assert!(clean(&out[0]));
                assert!(clean(&world.arrival(1, &out[0]).2));
            }
        }
    }
    poison(&mut world, 0);
    let told = world.obey(0, Order::Tell(world.lane(0, 1, 0), tagged(id(0), Payload::Control, &[1])[..9].to_vec()));
    let (_, plain) = world.hubs[1].open_by(&told[0]).expect("it opens");
    assert_eq!((clean(&plain), plain[9..].iter().all(|byte| *byte == 0), plain.len()), (true, true, 16));
}
