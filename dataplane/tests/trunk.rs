//! Hubs joined by trunks: what arrives, by which lane, and what the hubs say of it.

mod hubs;

use ekiden_dataplane::fit::PIECES_MAX;
use ekiden_dataplane::mailbox::{Event, Order};
use ekiden_dataplane::reassembly::{Outcome, Reassembly};
use ekiden_dataplane::rehearsal::joined::LANE_MTU;
use ekiden_dataplane::rehearsal::{from_host, ipv4, ipv6};
use ekiden_dataplane::trunk::Trunk;
use hubs::{Arrival, CIPHERS, HUB_V4, HUB_V6, SITES, World, nets, packets, port, tenant, v4, v6, vlan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use wire::{DropReason, Inner, PortIndex, SiteSlot, fragment};

const LISTEN: u16 = 51820;

#[test]
fn all_pairs_of_a_tenant_reach_each_other_and_nobody_else() {
    for cipher in CIPHERS {
        let mut world = World::pair(4, cipher);
        for (hub, t, n) in [0, 1].into_iter().flat_map(|hub| (0..4).map(move |n| (hub, n / 2, n % 2))) {
            for (other, m) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().filter(|to| *to != (hub, n)) {
                let (from, to) = (nets(hub)[n], nets(other)[m]);
                let crossed = if hub == other { 1 } else { 2 };
                for len in [60, 61, 1419, LANE_MTU.into()] {
                    for (packet, older) in
                        packets(from, to, 64, len).into_iter().zip(packets(from, to, 64 - crossed, len))
                    {
                        let arrived = world.send(hub, 2 * t + n, &packet);
                        assert_eq!(arrived, [(other, 2 * t + m, older)], "{cipher:?}, {from} to {to}, {len} bytes");
                    }
                }
            }
        }
        for (hub, other) in [(0, 1), (1, 0)] {
            assert_eq!(world.hubs[hub].drops(), []);
            world.lanes_agree(hub, other);
            world.tenants_add_up(hub);
            let rows = &world.hubs[hub].journey.rows;
            for t in 0..2 {
                // Two sites, each to two of the other hub, four lengths of two versions.
                let row = rows.site(world.carried(hub, other, t));
                assert_eq!((row.tx_packets.read(), row.rx_packets.read()), (32, 32));
                let bytes = 2 * 4 * (60 + 61 + 1419 + u64::from(LANE_MTU));
                assert_eq!((row.tx_bytes.read(), row.rx_bytes.read()), (bytes, bytes));
                let now = world.hubs[hub].now.0;
                let [received, sent] = [&row.data_received_at, &row.data_sent_at].map(|at| at.read());
                assert_eq!((received, row.any_received_at.read(), sent, row.any_sent_at.read()), (now, now, now, now));
            }
        }
    }
}

#[test]
fn hosts_of_access_ports_reach_sites_and_hosts_of_the_other_hub() {
    const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
    let mut world = World::pair(2, CIPHERS[1]);
    let [near, far] = [0, 1].map(|hub| nets(hub)[2]);
    for t in 0..2 {
        let until = world.hubs[1].now + Duration::from_secs(30);
        let neighbour = Order::Neighbour(SiteSlot(SITES + t), v4(far).into(), Ok((HOST, until)));
        world.obey(1, neighbour);
        let of_host = |packet: &[u8]| from_host(vlan(t as usize), HOST, packet);
        // To a site, and to a host: in its VLAN, with no byte behind the packet.
        let out = world.pass(0, &[of_host(&ipv4(v4(near), v4(nets(1)[0]), 64, 100))]);
        assert_eq!(
            world.deliver(out, 0),
            [(1, 2 * t as usize, ipv4(v4(near), v4(nets(1)[0]), 62, 100))],
            "from a host to a site"
        );
        let out = world.pass(0, &[of_host(&ipv4(v4(near), v4(far), 64, 100))]);
        let out = world.pass(1, &out);
        assert_eq!(out.len(), 1);
        let mut expected = from_host(vlan(t as usize), [2, 0, 0, 0, 0, 1], &ipv4(v4(near), v4(far), 62, 100));
        expected[..6].copy_from_slice(&HOST);
        assert_eq!(out[0], expected, "from a host to a host");
        // A ping to the gateway of the other hub's VLAN is answered across.
        let mut ping = ipv4(v4(nets(0)[0]), [10, 9, far, 254], 64, 60);
        (ping[9], ping[20], ping[21]) = (1, 8, 0);
        sum(&mut ping);
        let answer = world.send(0, 2 * t as usize, &ping);
        let [(0, site, answer)] = &answer[..] else { panic!("{answer:?}") };
        assert_eq!((*site, answer[9], answer[20], &answer[12..16]), (2 * t as usize, 1, 0, &[10, 9, far, 254][..]));
    }
    world.lanes_agree(0, 1);
    world.lanes_agree(1, 0);
    world.tenants_add_up(0);
    world.tenants_add_up(1);
}

/// Writes both checksums of an ICMPv4 packet.
fn sum(packet: &mut [u8]) {
    for (range, at) in [(0..20, 10), (20..packet.len(), 22)] {
        packet[at..at + 2].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&packet[range]).finish();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// A packet of a flow, with the number in its payload.
fn of_flow(flow: u16, number: u32) -> Vec<u8> {
    let mut packet = ipv4(v4(1), v4(4), 64, 60);
    packet[20..24].copy_from_slice(&[(40_000 + flow).to_be_bytes(), 443u16.to_be_bytes()].concat());
    packet[28..32].copy_from_slice(&number.to_be_bytes());
    packet
}

fn flow_of(packet: &[u8]) -> (u16, u32) {
    let (port, number) = (packet[20..22].try_into().unwrap(), packet[28..32].try_into().unwrap());
    (u16::from_be_bytes(port) - 40_000, u32::from_be_bytes(number))
}

/// The lane that each flow takes.
fn lanes_of(world: &mut World, flows: u16) -> BTreeMap<u16, u16> {
    let mut lanes = BTreeMap::new();
    for flow in 0..flows {
        let frame = world.seal(0, 0, &of_flow(flow, 0));
        let out = world.pass(0, &[frame]);
        lanes.insert(flow, port(&out[0]) - LISTEN);
        assert_eq!(world.deliver(out, 0).len(), 1);
    }
    lanes
}

#[test]
fn flows_share_all_lanes_and_each_keeps_its_own_and_its_order() {
    const FLOWS: u16 = 200;
    let mut world = World::pair(16, CIPHERS[0]);
    let mut numbers = (0..).flat_map(|number| (0..FLOWS).map(move |flow| of_flow(flow, number)));
    let (mut lanes, mut next) = (BTreeMap::<u16, BTreeSet<u16>>::new(), vec![0; FLOWS as usize]);
    for _ in 0..20 {
        let frames: Vec<_> = numbers.by_ref().take(320).map(|packet| world.seal(0, 0, &packet)).collect();
        let out = world.pass(0, &frames);
        for frame in &out {
            let (lane, plain) = world.hubs[1].open_by(frame).expect("for the other hub");
            let lane = world.trunk(1, 0).lanes.iter().position(|slot| *slot == lane).unwrap() as u16;
            assert_eq!(port(frame), LISTEN + lane, "a lane has a port of its own");
            lanes.entry(flow_of(&plain[8..]).0).or_default().insert(lane);
        }
        for (.., packet) in world.deliver(out, 0) {
            let (flow, number) = flow_of(&packet);
            assert_eq!(number, next[flow as usize], "the order in flow {flow}");
            next[flow as usize] += 1;
        }
    }
    assert_eq!(next, vec![32; FLOWS as usize], "all arrived");
    assert!(lanes.values().all(|lanes| lanes.len() == 1), "a flow, a lane: {lanes:?}");
    assert_eq!(lanes.values().flatten().collect::<BTreeSet<_>>().len(), 16, "all lanes are used: {lanes:?}");
    world.lanes_agree(0, 1);

    // Fragments of one datagram, of which only the first has ports, go by one lane.
    let mut whole = ipv4(v4(1), v4(4), 64, 1400);
    (whole[6], whole[10]) = (0, whole[10].wrapping_add(0x40));
    let cuts = fragment::Cuts::new(&whole, 300).expect("cuts");
    let pieces = (1..cuts.count()).map(|n| {
        let mut piece = vec![0; cuts.len(n)];
        cuts.write(&whole, n, &mut piece);
        piece
    });
    let mut pieces: Vec<_> = pieces.collect();
    let mut first = whole.clone();
    cuts.shorten(&mut first);
    first.truncate(cuts.len(0));
    pieces.insert(0, first);
    let frames: Vec<_> = pieces.iter().map(|piece| world.seal(0, 0, piece)).collect();
    let out = world.pass(0, &frames);
    assert_eq!((out.len(), out.iter().map(|frame| port(frame)).collect::<BTreeSet<_>>().len()), (5, 1));
}

#[test]
fn a_lane_that_is_down_gives_its_flows_to_all_others_and_gets_them_back() {
    const FLOWS: u16 = 300;
    let mut world = World::pair(4, CIPHERS[0]);
    let before = lanes_of(&mut world, FLOWS);
    let down = world.lane(0, 1, 2);
    world.change(0, 1, |trunk| trunk.live.retain(|lane| *lane != down));
    let meanwhile = lanes_of(&mut world, FLOWS);
    let moved: BTreeSet<_> = before.iter().filter(|(_, lane)| **lane == 2).map(|(flow, _)| meanwhile[flow]).collect();
    assert_eq!(moved, BTreeSet::from([0, 1, 3]), "to all that are up");
    assert!(before.iter().all(|(flow, lane)| *lane == 2 || meanwhile[flow] == *lane), "nobody else moves");
    // If none is up, all are tried.
    world.change(0, 1, |trunk| trunk.live.clear());
    assert_eq!(lanes_of(&mut world, FLOWS), before);
    world.change(0, 1, |trunk| trunk.live = trunk.lanes.clone());
    assert_eq!(lanes_of(&mut world, FLOWS), before, "and all as it was");
    // A trunk without lanes has no way.
    world.change(0, 1, |trunk| {
        *trunk = Trunk { lanes: Default::default(), live: Default::default(), ..std::mem::take(trunk) }
    });
    let frame = world.seal(0, 0, &of_flow(0, 0));
    assert_eq!(world.dropped_for(0, frame), DropReason::SiteNoEndpoint);
}

#[test]
fn ten_thousand_sites_of_a_worker_stay_in_some_megabytes() {
    let (site, packet) = (size_of::<ekiden_dataplane::sites::Site>(), size_of::<ekiden_dataplane::packet::Packet>());
    assert!(site <= 256 && packet <= 96, "{site} bytes a slot, {packet} a packet");
}

/// What an ICMP error says: its type, its MTU, from whom to whom.
fn error(packet: &[u8]) -> (u8, u16, String, String) {
    let header = if packet[0] >> 4 == 4 { 20 } else { 40 };
    assert!(wire::icmp::is_error(packet));
    let inner = Inner::parse(packet).expect("a packet");
    let mtu = u16::from_be_bytes([packet[header + 6], packet[header + 7]]);
    (packet[header], mtu, inner.source.to_string(), inner.destination.to_string())
}

#[test]
fn errors_of_either_hub_reach_the_source() {
    let mut world = World::pair(3, CIPHERS[1]);
    let hub_v4 = std::net::IpAddr::from(HUB_V4).to_string();
    let expected = |packet: &[u8], types: [u8; 2], mtu: u16| {
        let four = packet[0] >> 4 == 4;
        let hub = if four { hub_v4.clone() } else { HUB_V6.to_owned() };
        let source = Inner::parse(packet).unwrap().source.to_string();
        (types[usize::from(!four)], mtu, hub, source)
    };
    let check = |world: &mut World, packet: &[u8], types, mtu, what: &str| {
        for site in [0, 2] {
            let arrived = world.send(0, site, packet);
            let [(0, to, answer)] = &arrived[..] else { panic!("{what}: {arrived:?}") };
            assert_eq!((*to, error(answer)), (site, expected(packet, types, mtu)), "{what}");
        }
    };
    let (from, to) = (nets(0)[0], nets(1)[1]);
    // The last hop at the first hub, and at the second.
    for (hops, at) in [(1, "here"), (2, "there")] {
        for packet in packets(from, to, hops, 100) {
            check(&mut world, &packet, [11, 3], 0, at);
        }
    }
    for packet in packets(from, to, 3, 100) {
        assert_eq!(world.send(0, 0, &packet).len(), 1, "as many hops as it takes");
    }
    // Too long for the trunk: one byte more than its lanes take, and what its configuration says.
    for packet in packets(from, to, 64, usize::from(LANE_MTU) + 1) {
        check(&mut world, &packet, [3, 2], LANE_MTU, "the lanes'");
    }
    world.change(0, 1, |trunk| trunk.payload_max = Some(1300));
    for packet in packets(from, to, 64, 1301) {
        check(&mut world, &packet, [3, 2], 1300, "the trunk's");
    }
    for packet in packets(from, to, 64, 1300) {
        assert_eq!(world.send(0, 0, &packet).len(), 1, "what fits");
    }
    // And for the site behind it: the other hub says so, across.
    for site in [1, 3] {
        world.hubs[1].journey.sites.at_mut(SiteSlot(site)).way.out.as_mut().unwrap().payload_max = 1290;
    }
    for packet in packets(from, to, 64, 1295) {
        check(&mut world, &packet, [3, 2], 1290, "the site's");
    }
    for (hub, other) in [(0, 1), (1, 0)] {
        world.lanes_agree(hub, other);
        world.tenants_add_up(hub);
    }
    let reasons = [DropReason::TtlExpired, DropReason::TooLarge];
    assert!((0..2).all(|hub| world.hubs[hub].drops().iter().map(|(reason, _)| *reason).eq(reasons)));
}

#[test]
fn what_may_be_cut_is_cut_inside_and_what_must_pass_outside() {
    let mut world = World::pair(2, CIPHERS[1]);
    world.change(0, 1, |trunk| trunk.payload_max = Some(1000));
    for n in 0..2 {
        let lane = world.lane(0, 1, n);
        world.hubs[0].journey.sites.at_mut(lane).way.out.as_mut().unwrap().payload_max = 1000;
    }
    let mut packet = ipv4(v4(nets(0)[0]), v4(nets(1)[0]), 64, 1400);
    (packet[6], packet[10]) = (0, packet[10].wrapping_add(0x40));
    let arrived = world.send(0, 0, &packet);
    let lengths: Vec<_> = arrived.iter().map(|(hub, site, packet)| (*hub, *site, packet.len())).collect();
    assert_eq!(lengths, [(1, 0, 996), (1, 0, 424)]);
    // No lane takes the 1,280 bytes that IPv6 promises: outer fragments carry them, each no longer than the way takes.
    let packet = ipv6(&v6(nets(0)[0]), &v6(nets(1)[0]), 64, 1280);
    let frame = world.seal(0, 0, &packet);
    let out = world.pass(0, &[frame]);
    assert_eq!(out.len(), 2);
    let longest = 20 + 8 + 16 + 8 + 1000 + 16;
    assert_eq!(out.iter().map(Vec::len).max(), Some(14 + longest), "the longest that the way takes");
    let mut reassembly = Reassembly::new(2048);
    assert!(matches!(reassembly.push(&out[0], 0), Outcome::Stored));
    let Outcome::Complete(whole) = reassembly.push(&out[1], 0) else { panic!("no datagram") };
    let out = world.obey(1, Order::Reassembled(PortIndex(0), whole));
    let [(1, 0, arrived)] = &world.deliver(out, 1)[..] else { panic!("it does not arrive") };
    assert_eq!(*arrived, ipv6(&v6(nets(0)[0]), &v6(nets(1)[0]), 62, 1280));
    // All that left is counted: the lane's bytes, and those of what it carried.
    world.tenants_add_up(0);
    let rows = &world.hubs[0].journey.rows;
    let of_lanes: u64 = (0..2).map(|n| rows.site(world.lane(0, 1, n)).tx_outer_bytes.read()).sum();
    assert_eq!(of_lanes, rows.site(world.carried(0, 1, 0)).tx_outer_bytes.read());
    // TCP keeps below it by itself: the segments of a connection, at whichever end it is opened.
    for (hub, site, from, to) in [(0, 0, nets(0)[0], nets(1)[0]), (1, 0, nets(1)[0], nets(0)[0])] {
        let mut syn = ipv4(v4(from), v4(to), 64, 44);
        syn[9] = 6;
        syn[20..44].copy_from_slice(&[
            0, 80, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 0x05, 0xb4,
        ]);
        let header = wire::checksum::Sum::ZERO.bytes(&syn[..10]).bytes(&syn[12..20]).finish();
        syn[10..12].copy_from_slice(&header.to_be_bytes());
        let arrived = world.send(hub, site, &syn);
        assert_eq!(arrived[0].2[42..44], 960u16.to_be_bytes(), "from hub {hub}");
    }
    const { assert!(PIECES_MAX > 2) };
}

#[test]
fn a_third_hub_is_reached_only_through_one_that_lets_pass() {
    let mut world = World::row(3, 2, CIPHERS[1]);
    let (from, to) = (nets(0)[0], nets(2)[1]);
    let dropped = |world: &World| world.hubs[1].drops();
    for t in [0, 1] {
        for packet in packets(from, to, 64, 200) {
            assert_eq!(world.send(0, 2 * t, &packet), [], "without transit");
        }
    }
    assert_eq!(dropped(&world), [(DropReason::SplitHorizon, 4)]);
    // The one that it would leave by doesn't matter.
    world.change(1, 2, |trunk| trunk.transit = true);
    assert_eq!(world.send(0, 0, &packets(from, to, 64, 200)[0]), []);
    world.change(1, 0, |trunk| trunk.transit = true);
    for t in [0, 1] {
        for (packet, older) in packets(from, to, 64, 200).into_iter().zip(packets(from, to, 61, 200)) {
            assert_eq!(world.send(0, 2 * t, &packet), [(2, 2 * t + 1, older)]);
        }
        // What the hub in between has to say comes back, and what the last one has, through it.
        for hops in [2, 3] {
            let arrived = world.send(0, 2 * t, &packets(from, to, hops, 200)[0]);
            let [(0, site, answer)] = &arrived[..] else { panic!("{hops} hops: {arrived:?}") };
            assert_eq!((*site, error(answer).0), (2 * t, 11));
        }
    }
    assert_eq!(dropped(&world), [(DropReason::TtlExpired, 2), (DropReason::SplitHorizon, 5)]);
    for (hub, other) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
        world.lanes_agree(hub, other);
    }
    (0..3).for_each(|hub| world.tenants_add_up(hub));
}

#[test]
fn loops_end_by_their_hops() {
    // Each of two hubs believes that the other has this network.
    let mut world = World::pair(2, CIPHERS[0]);
    let lost = |hub: usize| [(0, "10.77.0.0/16", 1 - hub), (0, "fd00:77::/32", 1 - hub)];
    (0..2).for_each(|hub| world.route(hub, &lost(hub)));
    let packets = |hops| [ipv4(v4(1), [10, 77, 0, 1], hops, 100), ipv6(&v6(1), "fd00:77::1", hops, 100)];
    for packet in packets(64) {
        assert_eq!(world.send(0, 0, &packet), []);
    }
    assert_eq!(world.hubs[1].drops(), [(DropReason::SplitHorizon, 2)], "at once, where nothing passes through");
    (0..2).for_each(|hub| world.change(hub, 1 - hub, |trunk| trunk.transit = true));
    // The source is not behind the other hub for the first, so that what comes back is refused there, before its hops end.
    for packet in packets(64) {
        assert_eq!(world.send(0, 0, &packet), []);
    }
    assert_eq!(world.hubs[0].drops(), [(DropReason::TrunkSource, 2)]);
    // Unless routes are wrong for the source, too; then its hops end it, and the answer finds no way either.
    let both = |hub: usize| [lost(hub)[0], lost(hub)[1], (0, "10.9.1.1/32", 1 - hub), (0, "fd00:9:1::1/128", 1 - hub)];
    world.route(0, &both(0));
    for packet in packets(64) {
        let frame = world.hubs[1].seal_by(world.lane(1, 0, 0), &tagged(&packet));
        let out = world.pass(0, &[frame]);
        assert_eq!(world.deliver(out, 0), []);
    }
    let expired: u64 = (0..2)
        .flat_map(|hub| world.hubs[hub].drops())
        .filter(|(reason, _)| *reason == DropReason::TtlExpired)
        .map(|(_, n)| n)
        .sum();
    assert!(expired >= 2, "{:?} {:?}", world.hubs[0].drops(), world.hubs[1].drops());
    (0..2).for_each(|hub| world.tenants_add_up(hub));
}

fn tagged(packet: &[u8]) -> Vec<u8> {
    let payload = wire::geneve::Payload::of(packet).expect("a version");
    ekiden_dataplane::rehearsal::joined::tagged(tenant(0), payload, packet)
}

#[test]
fn what_waits_for_a_lane_is_tagged_once_and_takes_another_if_it_is_down() {
    let mut world = World::pair(2, CIPHERS[1]);
    let lanes = lanes_of(&mut world, 64);
    let flow = |lane: u16| *lanes.iter().find(|(_, of)| **of == lane).expect("a flow of each lane").0;
    let lane = world.lane(0, 1, 1);
    let session = world.hubs[0].journey.sites.at_mut(lane).sending.take().expect("a session");
    let send = |world: &mut World, lane: u16, number| {
        let frame = world.seal(0, 0, &of_flow(flow(lane), number));
        world.pass(0, &[frame])
    };
    let out = send(&mut world, 0, 0);
    assert_eq!(world.deliver(out, 0).len(), 1, "the other lane goes on");
    for number in 0..5 {
        assert!(send(&mut world, 1, number).is_empty());
    }
    assert_eq!(world.hubs[0].events(), [Event::Wanted(lane)]);
    assert_eq!(world.hubs[0].journey.rows.site(lane).staged.read(), 5);
    let numbers = |arrived: &[Arrival]| arrived.iter().map(|(.., packet)| flow_of(packet).1).collect::<Vec<_>>();
    let out = world.obey(0, Order::Use(session.clone()));
    assert!(out.iter().all(|frame| port(frame) == LISTEN + 1));
    assert_eq!(numbers(&world.deliver(out, 0)), [0, 1, 2, 3, 4], "in their order, each with one tag");

    // It is down before it has a session.
    world.hubs[0].journey.sites.at_mut(lane).sending = None;
    (5..8).for_each(|number| assert!(send(&mut world, 1, number).is_empty()));
    world.change(0, 1, |trunk| trunk.live.retain(|live| *live != lane));
    let out = world.hubs[0].leave();
    let out = world.left(0, out);
    assert!(out.iter().all(|frame| port(frame) == LISTEN));
    assert_eq!(numbers(&world.deliver(out, 0)), [5, 6, 7]);
    assert_eq!(world.hubs[0].journey.rows.site(lane).staged.read(), 0);

    // And if it is given up while no other is there, its tenant hears of it.
    world.change(0, 1, |trunk| trunk.live.clear());
    (8..10).for_each(|number| assert!(send(&mut world, 1, number).is_empty()));
    world.obey(0, Order::GiveUp(lane));
    let row = world.hubs[0].journey.rows.tenant(wire::TenantSlot(0));
    assert_eq!(row.read(DropReason::SiteDown).0, 2);
    world.lanes_agree(0, 1);
}

#[test]
fn a_lane_lives_by_what_is_said_in_it() {
    let mut world = World::pair(2, CIPHERS[0]);
    world.hubs.iter_mut().for_each(|hub| hub.now.0 = 77_000_000_000);
    let [near, far] = [world.lane(0, 1, 1), world.lane(1, 0, 1)];
    let out = world.obey(0, Order::Keepalive(near));
    assert_eq!((out.len(), out[0].len(), port(&out[0])), (1, 14 + 20 + 8 + 32, LISTEN + 1));
    assert!(world.pass(1, &out).is_empty());
    let (sent, heard) = (world.hubs[0].journey.rows.site(near), world.hubs[1].journey.rows.site(far));
    assert_eq!((sent.tx_keepalives.read(), sent.tx_packets.read(), sent.data_sent_at.read()), (1, 0, 0));
    assert_eq!(sent.any_sent_at.read(), 77_000_000_000);
    assert_eq!((heard.rx_keepalives.read(), heard.data_received_at.read()), (1, 0));
    assert_eq!(heard.any_received_at.read(), 77_000_000_000);
    assert_eq!(world.hubs[1].journey.rows.turns.keepalives.read(), 1);
    // The responder's session was confirmed by that, and that it came from elsewhere would be noticed.
    let confirmed = world.hubs[1].events();
    assert!(matches!(confirmed[..], [Event::Confirmed { site, .. }] if site == far), "{confirmed:?}");
    let mut elsewhere = world.obey(0, Order::Keepalive(near)).remove(0);
    let source = [elsewhere[29], elsewhere[35]];
    (elsewhere[29], elsewhere[35]) = (source[0] ^ 1, source[1]);
    let sum = wire::checksum::Sum::ZERO.bytes(&elsewhere[14..24]).bytes(&elsewhere[26..34]).finish();
    elsewhere[24..26].copy_from_slice(&sum.to_be_bytes());
    assert!(world.pass(1, &[elsewhere]).is_empty());
    assert!(matches!(world.hubs[1].events()[..], [Event::Moved { site, .. }] if site == far));
    // Traffic is the lane's as well as the tenant's.
    let frame = world.seal(0, 0, &of_flow(1, 0));
    let out = world.pass(0, &[frame]);
    let lane = world.lane(1, 0, usize::from(port(&out[0]) - LISTEN));
    world.pass(1, &out);
    assert_eq!(world.hubs[1].journey.rows.site(lane).data_received_at.read(), 77_000_000_000);
    world.lanes_agree(0, 1);
    world.tenants_add_up(1);
}
