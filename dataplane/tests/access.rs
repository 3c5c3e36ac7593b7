//! Access ends on the journey: hosts of VLANs in the clear, sites sealed, and what each may not do.

use ekiden_dataplane::access::{PER_NEIGHBOUR, WAITED_FOR};
use ekiden_dataplane::config::Idle;
use ekiden_dataplane::mailbox::{Event, Order};
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{PORT_MAC, Rehearsal, from_host, ipv4, ipv6};
use std::net::IpAddr;
use std::time::Duration;
use wire::vlan::{SERVICE, Tagged};
use wire::{DropReason, SiteSlot, TenantSlot, Vlan, checksum, ethernet};

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 0x12];
/// The site of tenant 0, and its end in VLAN 100; tenant 1 has the same addresses, in VLAN 10.100.
const END: SiteSlot = SiteSlot(2);
const END_OF_OTHER: SiteSlot = SiteSlot(3);
const HOST_V4: [u8; 4] = [10, 9, 2, 1];
const SITE_V4: [u8; 4] = [10, 9, 1, 1];
const GATEWAY_V4: [u8; 4] = [10, 9, 2, 254];

fn hundred() -> Vlan {
    Vlan::tagged(100).expect("an id")
}

fn double() -> Vlan {
    Vlan::double(SERVICE, 10, 100).expect("two ids")
}

fn hub() -> Rehearsal {
    let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"]];
    let addresses: &[&str] = &["10.9.2.254/24", "fd00:9:2::fe/64"];
    Rehearsal::with_access(&[sites(), sites()], &[(0, hundred(), addresses), (1, double(), addresses)], 512)
}

/// Carries out an order of control's.
fn obey(hub: &mut Rehearsal, order: Order) -> Vec<Vec<u8>> {
    hub.control.send(order);
    let now = hub.now;
    hub.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
    hub.leave()
}

fn learn(hub: &mut Rehearsal, end: SiteSlot, address: impl Into<IpAddr>, mac: [u8; 6]) -> Vec<Vec<u8>> {
    let until = hub.now + Duration::from_secs(30);
    obey(hub, Order::Neighbour(end, address.into(), Ok((mac, until))))
}

/// Header and packet of a frame to a host, whose padding is zeros.
fn to_host(frame: &[u8]) -> (Tagged, [u8; 6], Vec<u8>) {
    let tagged = Tagged::parse(frame).expect("an Ethernet header");
    let inner = wire::Inner::parse(&frame[tagged.payload_at..]).expect("a packet");
    let (packet, padding) = frame[tagged.payload_at..].split_at(inner.len);
    assert!(frame.len() >= 60 && padding.iter().all(|byte| *byte == 0), "padding");
    let destination = ethernet::View::parse(frame).expect("a header").destination();
    (tagged, destination, packet.to_vec())
}

#[test]
fn a_host_and_a_site_reach_each_other_in_their_tenant_alone() {
    let mut hub = hub();
    for (vlan, site, end) in [(hundred(), 0, END), (double(), 1, END_OF_OTHER)] {
        let out = hub.pass(&[from_host(vlan, HOST, &ipv4(HOST_V4, SITE_V4, 64, 100))]);
        let (found, packet) = hub.open(&out[0]).expect("sealed for a site");
        assert_eq!((out.len(), found), (1, site));
        assert_eq!(packet[..100], ipv4(HOST_V4, SITE_V4, 63, 100)[..]);

        learn(&mut hub, end, HOST_V4, HOST);
        let sealed = hub.seal(site, &ipv4(SITE_V4, HOST_V4, 64, 100));
        let out = hub.pass(&[sealed]);
        let (tagged, destination, packet) = to_host(&out[0]);
        assert_eq!((out.len(), tagged.vlan, tagged.source, destination), (1, vlan, PORT_MAC, HOST));
        assert_eq!((tagged.ethertype, packet), (ethernet::IPV4, ipv4(SITE_V4, HOST_V4, 63, 100)));
    }
    let (row, tenant) = (hub.journey.rows.site(END), hub.journey.rows.volume(TenantSlot(0)));
    assert_eq!((row.rx_packets.read(), row.rx_bytes.read(), row.rx_outer_bytes.read()), (1, 100, 118));
    assert_eq!((row.tx_packets.read(), row.tx_bytes.read(), row.tx_outer_bytes.read()), (1, 100, 118));
    assert_eq!(tenant.tx_outer_bytes.read(), 118 + hub.journey.rows.site(SiteSlot(0)).tx_outer_bytes.read());
}

#[test]
fn packets_wait_for_their_neighbour_in_order_and_within_bounds() {
    let mut hub = hub();
    let packet = |n: u8| ipv4(SITE_V4, HOST_V4, 64, 100 + usize::from(n));
    let frames: Vec<_> = (0..PER_NEIGHBOUR + 3).map(|n| hub.seal(0, &packet(n))).collect();
    assert_eq!(hub.pass(&frames), Vec::<Vec<u8>>::new());
    let wanted = Event::Neighbour { end: END, address: HOST_V4.into() };
    assert_eq!(hub.events(), [wanted], "asked once");
    assert_eq!(hub.drops(), [(DropReason::StagedOverflow, 3)], "the oldest went");
    assert_eq!(hub.journey.rows.site(END).staged.read(), u64::from(PER_NEIGHBOUR));
    let out = learn(&mut hub, END, HOST_V4, HOST);
    let lengths: Vec<_> = out.iter().map(|frame| to_host(frame).2.len()).collect();
    assert_eq!(lengths, (103..103 + usize::from(PER_NEIGHBOUR)).collect::<Vec<_>>());
    assert_eq!((hub.journey.rows.site(END).staged.read(), hub.journey.shelf.len()), (0, 0));
    let (pool, all) = hub.census();
    assert_eq!(pool, all);

    // One that is not there.
    let frame = hub.seal(0, &ipv4(SITE_V4, [10, 9, 2, 7], 64, 100));
    hub.pass(&[frame]);
    assert!(
        obey(&mut hub, Order::Neighbour(END, [10, 9, 2, 7].into(), Err(DropReason::NeighbourUnresolved))).is_empty()
    );
    assert!(hub.drops().contains(&(DropReason::NeighbourUnresolved, 1)));
    let frame = hub.seal(0, &ipv4(SITE_V4, [10, 9, 2, 7], 64, 100));
    hub.events();
    hub.pass(&[frame]);
    assert_eq!(hub.events().len(), 1, "the next packet asks anew");
}

#[test]
fn a_scan_of_a_network_waits_for_so_many_neighbours_and_no_more() {
    let mut hub = hub();
    let frames: Vec<_> = (0..WAITED_FOR + 20)
        .map(|n| {
            let to = format!("fd00:9:2::{:x}", n + 0x100);
            hub.seal(0, &ipv6("fd00:9:1::1", &to, 64, 60))
        })
        .collect();
    hub.pass(&frames);
    assert_eq!(hub.events().len(), usize::from(WAITED_FOR));
    assert!(hub.drops().contains(&(DropReason::NeighbourLimit, 20)), "{:?}", hub.drops());
    // An end has the share of the shelf that a site has.
    assert_eq!(hub.journey.shelf.len(), 64);
    for n in 0..WAITED_FOR {
        let address: IpAddr = format!("fd00:9:2::{:x}", n + 0x100).parse().unwrap();
        obey(&mut hub, Order::Neighbour(END, address, Err(DropReason::NeighbourUnresolved)));
    }
    assert_eq!((hub.journey.shelf.len(), hub.journey.sites.at(END).waited_for), (0, 0));
    let (pool, all) = hub.census();
    assert_eq!(pool, all);
}

#[test]
fn a_neighbour_that_is_used_beyond_its_time_is_asked_for_and_used_meanwhile() {
    let mut hub = hub();
    learn(&mut hub, END, HOST_V4, HOST);
    let send = |hub: &mut Rehearsal| {
        let frame = hub.seal(0, &ipv4(SITE_V4, HOST_V4, 64, 100));
        hub.pass(&[frame]).len()
    };
    assert_eq!((send(&mut hub), hub.events()), (1, vec![]));
    hub.now = hub.now + Duration::from_secs(31);
    let wanted = Event::Neighbour { end: END, address: HOST_V4.into() };
    assert_eq!((send(&mut hub), hub.events()), (1, vec![wanted]));
    assert_eq!((send(&mut hub), hub.events()), (1, vec![]), "once");
}

#[test]
fn what_a_host_may_not_send_has_its_reason() {
    let mut hub = hub();
    let v4 = |from, to| from_host(hundred(), HOST, &ipv4(from, to, 64, 100));
    let rows: Vec<(&str, Vec<u8>, DropReason)> = vec![
        ("from the gateway's address", v4(GATEWAY_V4, SITE_V4), DropReason::GatewaySource),
        (
            "from the gateway's address, IPv6",
            from_host(hundred(), HOST, &ipv6("fd00:9:2::fe", "fd00:9:1::1", 64, 100)),
            DropReason::GatewaySource,
        ),
        ("from a site's address", v4(SITE_V4, SITE_V4), DropReason::SourceNotAllowed),
        ("from nobody's address", v4([10, 9, 77, 1], SITE_V4), DropReason::SourceNotAllowed),
        (
            "from a link-local one",
            from_host(hundred(), HOST, &ipv6("fe80::1", "fd00:9:1::1", 64, 100)),
            DropReason::Martian,
        ),
        ("to a group", v4(HOST_V4, [224, 0, 0, 251]), DropReason::Martian),
        ("to nowhere", v4(HOST_V4, [10, 9, 77, 1]), DropReason::NoRoute),
        ("to all hosts of a network", v4(HOST_V4, [10, 9, 2, 255]), DropReason::Martian),
        ("UDP to the gateway", v4(HOST_V4, GATEWAY_V4), DropReason::GatewayNotPing),
        (
            "on another VLAN",
            from_host(Vlan::tagged(101).unwrap(), HOST, &ipv4(HOST_V4, SITE_V4, 64, 100)),
            DropReason::AccessUnknown,
        ),
        ("no packet", from_host(hundred(), HOST, &[0x45; 30]), DropReason::InnerMalformed),
    ];
    for (what, frame, reason) in rows {
        assert_eq!(hub.dropped_for(frame), reason, "{what}");
    }
    let mut strange = from_host(hundred(), HOST, &[0x45; 60]);
    strange[16..18].copy_from_slice(&[0x88, 0x64]);
    assert_eq!(hub.dropped_for(strange), DropReason::AccessUnknown);
    // A remote site is no gateway either.
    let sealed = hub.seal(0, &ipv4(GATEWAY_V4, HOST_V4, 64, 100));
    assert_eq!(hub.dropped_for(sealed), DropReason::SourceNotAllowed);
    let sealed = hub.seal(0, &ipv4(SITE_V4, [10, 9, 2, 255], 64, 100));
    assert_eq!(hub.dropped_for(sealed), DropReason::Martian);
}

#[test]
fn neighbour_messages_go_to_control_as_they_came() {
    let mut hub = hub();
    let header = |ethertype| ethernet::Fields { destination: PORT_MAC, source: HOST, ethertype };
    for (vlan, message, ethertype) in [
        (hundred(), vec![7; 28], wire::arp::ETHERTYPE),
        (
            double(),
            {
                let mut nd = ipv6("fe80::1", "ff02::1", 255, 72);
                nd[6] = 58;
                nd[40] = 135;
                nd
            },
            ethernet::IPV6,
        ),
    ] {
        let mut frame = vec![0; vlan.header_len()];
        vlan.emit(&header(ethertype), &mut frame).unwrap();
        frame.extend(message);
        assert!(hub.pass(std::slice::from_ref(&frame)).is_empty());
        let parcel = hub.control.parcel().expect("a parcel");
        assert_eq!(parcel.frame(), frame);
        hub.control.recycle(parcel);
    }
    assert_eq!((hub.journey.rows.turns.to_control.read(), hub.drops()), (2, vec![]));
}

/// An echo request of `len` bytes in all.
fn ping(v6: bool, to_gateway: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    let v6_of = |text: &str| text.parse::<std::net::Ipv6Addr>().unwrap().octets();
    match v6 {
        false => etherparse::PacketBuilder::ipv4(if to_gateway { HOST_V4 } else { SITE_V4 }, GATEWAY_V4, 1)
            .icmpv4_echo_request(7, 8)
            .write(&mut packet, &[0x5a; 40]),
        true => etherparse::PacketBuilder::ipv6(
            v6_of(if to_gateway { "fd00:9:2::1" } else { "fd00:9:1::1" }),
            v6_of("fd00:9:2::fe"),
            1,
        )
        .icmpv6_echo_request(7, 8)
        .write(&mut packet, &[0x5a; 40]),
    }
    .unwrap();
    packet
}

#[test]
fn the_gateway_answers_pings_of_hosts_and_sites_within_a_rate() {
    let mut hub = hub();
    learn(&mut hub, END, HOST_V4, HOST);
    learn(&mut hub, END, "fd00:9:2::1".parse::<IpAddr>().unwrap(), HOST);
    for v6 in [false, true] {
        let out = hub.pass(&[from_host(hundred(), HOST, &ping(v6, true))]);
        let (_, destination, reply) = to_host(&out[0]);
        let (hops, kind) = if v6 { (reply[7], reply[40]) } else { (reply[8], reply[20]) };
        assert_eq!(
            (destination, hops, kind),
            (HOST, 64, if v6 { 129 } else { 0 }),
            "the request's last hop was enough"
        );
        let sealed = hub.seal(0, &ping(v6, false));
        let out = hub.pass(&[sealed]);
        assert_eq!(hub.open(&out[0]).expect("for the site").0, 0);
    }
    let frames: Vec<_> = (0..150).map(|_| from_host(hundred(), HOST, &ping(false, true))).collect();
    assert_eq!(hub.pass(&frames).len(), 96);
    assert_eq!(hub.drops(), [(DropReason::IcmpRate, 54)]);
}

#[test]
fn a_router_tells_a_host_of_hops_and_sizes() {
    let mut hub = hub();
    learn(&mut hub, END, HOST_V4, HOST);
    for (packet, kind) in [(ipv4(HOST_V4, SITE_V4, 1, 100), 11), (ipv4(HOST_V4, SITE_V4, 64, 1490), 3)] {
        let out = hub.pass(&[from_host(hundred(), HOST, &packet)]);
        let (_, destination, answer) = to_host(&out[0]);
        assert_eq!((destination, &answer[12..16], answer[20]), (HOST, &GATEWAY_V4[..], kind));
    }
    // Towards a host, the port's MTU counts, and tags do not.
    for (len, sent) in [(1440, 1), (1500, 1)] {
        let frame = hub.seal_to(0, &ipv4(SITE_V4, HOST_V4, 64, len), len);
        assert_eq!(hub.pass(&[frame]).len(), sent, "{len}");
    }
}

#[test]
fn what_a_nic_should_have_finished_is_finished() {
    let mut hub = hub();
    let mut packet = Vec::new();
    etherparse::PacketBuilder::ipv4(HOST_V4, SITE_V4, 64).tcp(1, 2, 3, 4).write(&mut packet, b"payload").unwrap();
    let good = packet.clone();
    let pseudo = checksum::pseudo_header(&HOST_V4, &SITE_V4, 6).word(27);
    packet[36..38].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
    assert_ne!(packet, good);
    for sent in [good.clone(), packet] {
        let out = hub.pass(&[from_host(hundred(), HOST, &sent)]);
        let (_, arrived) = hub.open(&out[0]).unwrap();
        assert_eq!(arrived[36..38], good[36..38]);
        assert_eq!(arrived[20..47], good[20..]);
    }
}

#[test]
fn no_stale_byte_leaves_by_an_access_port_or_comes_in_by_one() {
    const POISON: u8 = 0xdb;
    let mut hub = hub();
    learn(&mut hub, END, HOST_V4, HOST);
    let poison = |hub: &mut Rehearsal| {
        for frame in &mut hub.journey.pool {
            frame.reset(0, frame.size());
            frame.bytes_mut().fill(POISON);
            frame.reset(0, 0);
        }
    };
    let clean = |bytes: &[u8]| assert!(!bytes.windows(4).any(|row| row == [POISON; 4]), "poison");
    for len in 28..=1440 {
        let mut packet = ipv4(SITE_V4, HOST_V4, 64, len);
        packet[20..].fill(0);
        poison(&mut hub);
        let sealed = hub.seal(0, &packet);
        let out = hub.pass(&[sealed]);
        clean(&out[0]);
        assert_eq!(to_host(&out[0]).2.len(), len);

        let mut packet = ipv4(HOST_V4, SITE_V4, 64, len);
        packet[20..].fill(0);
        let mut frame = from_host(hundred(), HOST, &packet);
        frame.extend([POISON; 20]); // what a switch may have padded with
        poison(&mut hub);
        let out = hub.pass(&[frame]);
        clean(&out[0]);
        clean(&hub.open(&out[0]).expect("for the site").1);
    }
}

#[test]
fn a_helper_that_has_not_heard_of_a_neighbour_leaves_the_packet_to_the_owner() {
    let mut hub = hub();
    learn(&mut hub, END, HOST_V4, OTHER);
    let (mut helper, _control) = hub.another();
    let mut frame = hub.journey.pool.pop().unwrap();
    frame.copy_from(&hub.seal(0, &ipv4(SITE_V4, HOST_V4, 64, 100)));
    let packet = ekiden_dataplane::packet::Packet::arrived(frame, wire::PortIndex(0));
    let mut batch = ekiden_dataplane::packet::Batch::from_iter([packet]);
    helper.relay(&mut batch, hub.now);
    assert!(batch[0].waits());
    batch[0].verdict = ekiden_dataplane::packet::Verdict::Forward;
    let now = hub.now;
    hub.journey.go_on(&mut batch, now);
    hub.journey.dispatch(&mut batch);
    assert_eq!(to_host(&hub.leave()[0]).1, OTHER);
}
