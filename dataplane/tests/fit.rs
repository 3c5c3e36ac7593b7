//! Packets that fit, on the journey: fragments, TCP's segment sizes, and how packets are marked outside.

use ekiden_dataplane::config::Dscp;
use ekiden_dataplane::fit::PIECES_MAX;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6};
use etherparse::{Ipv4Header, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use wire::{DropReason, Outer, SiteSlot};

/// A tenant with two sites, the way to the second of which takes inner packets of `mtu` bytes.
fn hub(mtu: u16) -> Rehearsal {
    let sites = vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
    let mut hub = Rehearsal::new(&[sites], 2048);
    hub.journey.sites.at_mut(SiteSlot(1)).way.out.as_mut().unwrap().payload_max = mtu;
    hub
}

/// From site a to site b, with another byte in each place of the payload, and without DF.
fn may_be_cut(len: usize, tos: u8) -> Vec<u8> {
    let mut packet = ipv4([10, 9, 1, 1], [10, 9, 2, 1], 9, len);
    packet[20..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7) as u8);
    (packet[1], packet[6]) = (tos, 0);
    packet[10..12].fill(0);
    let sum = wire::checksum::Sum::ZERO.bytes(&packet[..20]).finish();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The inner packets that left for a site, each cut to its length, as they left.
fn inner(hub: &Rehearsal, frames: &[Vec<u8>], to: usize) -> Vec<Vec<u8>> {
    let opened = frames.iter().map(|frame| hub.open(frame).expect("a message of the hub's"));
    let cut = |(site, mut packet): (usize, Vec<u8>)| {
        assert_eq!(site, to);
        let len = wire::Inner::parse(&packet).unwrap().len;
        assert!(packet[len..].iter().all(|byte| *byte == 0), "padding is zeros");
        packet.truncate(len);
        packet
    };
    opened.map(cut).collect()
}

fn balanced(hub: &Rehearsal, received: usize, sent: usize) {
    let dropped: u64 = hub.drops().iter().map(|(_, n)| n).sum();
    assert_eq!(received as u64 + hub.journey.rows.turns.generated.read(), sent as u64 + dropped, "the books");
    let (found, all) = hub.census();
    assert_eq!(found, all, "a chunk is lost");
}

#[test]
fn what_does_not_fit_and_may_be_cut_arrives_in_fragments() {
    let mut hub = hub(500);
    let whole = may_be_cut(1400, 0);
    let left = hub.pass(&[hub.seal(0, &whole), hub.seal(0, &may_be_cut(500, 0))]);
    let mut packets = inner(&hub, &left, 1);
    packets.sort_by_key(|packet| Ipv4Header::from_slice(packet).unwrap().0.fragment_offset.value());
    let mut together = Vec::new();
    // The packet that fits has no offset either, and is whole.
    for packet in packets.iter().filter(|packet| packet[6..8] != [0, 0]) {
        assert!(packet.len() <= 500);
        let (header, payload) = Ipv4Header::from_slice(packet).unwrap();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(header.fragment_offset.value() as usize * 8, together.len());
        assert_eq!((header.time_to_live, header.identification), (8, 0));
        together.extend_from_slice(payload);
    }
    assert_eq!(together, whole[20..]);
    assert_eq!((packets.len(), hub.journey.rows.turns.generated.read()), (4, 2));
    assert_eq!(hub.drops(), []);
    balanced(&hub, 2, 4);
    assert_eq!(hub.journey.rows.site(SiteSlot(1)).tx_packets.read(), 4);
}

#[test]
fn what_must_not_be_cut_is_answered() {
    let mut hub = hub(1200);
    // With DF, and IPv6.
    let left = hub.pass(&[hub.seal(0, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 9, 1300))]);
    let answer = &inner(&hub, &left, 0)[0];
    assert_eq!((answer[20], answer[21], &answer[26..28]), (3, 4, &1200u16.to_be_bytes()[..]));
    let left = hub.pass(&[hub.seal(0, &ipv6("fd00:9:1::1", "fd00:9:2::1", 9, 1400))]);
    let answer = &inner(&hub, &left, 0)[0];
    assert_eq!((answer[40], &answer[44..48]), (2, &1280u32.to_be_bytes()[..]));
    assert_eq!(hub.drops(), [(DropReason::TooLarge, 2)]);
    balanced(&hub, 2, 2);
}

#[test]
fn a_turn_makes_no_more_fragments_than_there_is_room_for() {
    let mut hub = hub(200);
    let sealed: Vec<_> = (0..64).map(|_| hub.seal(0, &may_be_cut(1400, 0))).collect();
    let left = hub.pass(&sealed).len();
    // Eight fragments each, seven of which are new.
    let cut = PIECES_MAX / 7;
    assert_eq!(left, cut * 8);
    assert_eq!(hub.drops(), [(DropReason::NoChunk, 64 - cut as u64)]);
    balanced(&hub, 64, left);
    // The next turn has room again; and a hub whose chunks are all in use drops, and says so.
    assert_eq!(hub.pass(&sealed[..0]).len(), 0);
    assert_eq!(hub.pass(&[hub.seal(0, &may_be_cut(1400, 0))]).len(), 8);
    let frame = hub.seal(0, &may_be_cut(1400, 0));
    let held: Vec<_> = hub.journey.pool.drain(4..).collect();
    assert_eq!(hub.pass(&[frame]).len(), 0);
    hub.journey.pool.extend(held);
    assert_eq!(hub.drops(), [(DropReason::NoChunk, 65 - cut as u64)]);
    assert_eq!(hub.census().0, hub.census().1);
}

#[test]
fn fragments_wait_for_a_session_like_any_packet() {
    let mut hub = hub(500);
    let sending = hub.journey.sites.at_mut(SiteSlot(1)).sending.take().unwrap();
    assert_eq!(hub.pass(&[hub.seal(0, &may_be_cut(1400, 0))]).len(), 0);
    assert_eq!(hub.journey.shelf.len(), 3);
    assert_eq!(hub.census().0, hub.census().1);
    hub.control.send(ekiden_dataplane::mailbox::Order::Use(sending));
    let mut ports = ekiden_dataplane::ports::Ports::new(Vec::new(), 1, Default::default());
    hub.journey.obey(hub.now, &mut ports);
    let left = hub.leave();
    assert_eq!(inner(&hub, &left, 1).len(), 3);
}

fn announced(packet: &[u8]) -> u16 {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ip(packet).unwrap().transport else { panic!("no TCP") };
    let sizes = tcp.options_iterator().filter_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
        _ => None,
    });
    sizes.last().unwrap()
}

#[test]
fn segments_fit_both_ways() {
    let mut hub = hub(1240);
    for (from, to, v6) in [(1u8, 2u8, false), (2, 1, false), (1, 2, true), (2, 1, true)] {
        let step = match v6 {
            false => PacketBuilder::ipv4([10, 9, from, 1], [10, 9, to, 1], 9).tcp(4000, 80, 1, 1000),
            true => {
                let address = |site: u8| format!("fd00:9:{site}::1").parse::<std::net::Ipv6Addr>().unwrap().octets();
                PacketBuilder::ipv6(address(from), address(to), 9).tcp(4000, 80, 1, 1000)
            }
        };
        let mut packet = Vec::new();
        step.syn().options(&[TcpOptionElement::MaximumSegmentSize(1460)]).unwrap().write(&mut packet, &[]).unwrap();
        let left = hub.pass(&[hub.seal(from as usize - 1, &packet)]);
        // The way to b is the narrow one, and a's packets to it are what b's announcement speaks of: so both are held to it.
        assert_eq!(announced(&inner(&hub, &left, to as usize - 1)[0]), if v6 { 1180 } else { 1200 });
    }
    assert_eq!(hub.drops(), []);
}

#[test]
fn classes_are_shown_outside_as_the_tenant_wants() {
    let seen = |dscp: Dscp| {
        let mut hub = hub(1440);
        hub.journey.sites.mark([dscp, dscp]);
        // EF and ECT(0).
        let left = hub.pass(&[hub.seal(0, &may_be_cut(100, 46 << 2 | 2))]);
        let outer = Outer::parse(&left[0]).unwrap();
        let inside = &inner(&hub, &left, 1)[0];
        assert_eq!(inside[1], 46 << 2 | 2, "inside it stays");
        (outer.dscp, outer.ecn as u8)
    };
    assert_eq!(seen(Dscp::Zero), (0, 2));
    assert_eq!(seen(Dscp::Copy), (46, 2));
    assert_eq!(seen(Dscp::Fixed(10)), (10, 2));
}

/// The datagram that two fragments of an outer packet make, in a frame as if it had never been cut.
fn put_together(frames: &[Vec<u8>], mtu: usize) -> Vec<u8> {
    let v4 = frames[0][14] >> 4 == 4;
    let mut parts: Vec<(usize, bool, &[u8], &[u8])> = Vec::new();
    for frame in frames {
        let ip = &frame[14..];
        assert!(ip.len() <= mtu, "{} bytes", ip.len());
        if v4 {
            let (header, payload) = Ipv4Header::from_slice(ip).unwrap();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(usize::from(header.total_len), ip.len());
            parts.push((header.fragment_offset.value().into(), header.more_fragments, &ip[..20], payload));
        } else {
            let (header, rest) = etherparse::Ipv6Header::from_slice(ip).unwrap();
            assert_eq!((usize::from(header.payload_length), header.next_header.0), (rest.len(), 44));
            let (header, payload) = etherparse::Ipv6FragmentHeader::from_slice(rest).unwrap();
            assert_eq!(header.next_header.0, 17);
            parts.push((header.fragment_offset.value().into(), header.more_fragments, &ip[..40], payload));
        }
    }
    parts.sort_by_key(|(offset, ..)| *offset);
    let mut payload = Vec::new();
    for (n, (offset, more, _, bytes)) in parts.iter().enumerate() {
        assert_eq!((offset * 8, *more), (payload.len(), n + 1 < parts.len()));
        payload.extend_from_slice(bytes);
    }
    let mut whole = [&frames[0][..14], parts[0].2].concat();
    if v4 {
        whole[16..18].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&whole[14..34]).finish();
        whole[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        whole[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        whole[20] = 17;
    }
    whole.extend(payload);
    whole
}

/// From now on the way to a site is IPv6 outside.
fn reach_by_ipv6(hub: &mut Rehearsal, site: u32) {
    let path = wire::Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: "[2001:db8::1]:51820".parse().unwrap(),
        destination: "[2001:db8::2]:51821".parse().unwrap(),
        udp_checksum: false,
    };
    let out = hub.journey.sites.at_mut(SiteSlot(site)).way.out.as_mut().unwrap();
    out.template = wire::Template::new(&path).unwrap();
}

/// Two sites begin at the same counter; what is cut has another number for each packet.
#[test]
fn halves_of_two_packets_are_never_taken_for_one() {
    let mut hub = Rehearsal::new(&[vec![vec!["fd00:9:1::/64"], vec!["fd00:9:2::/64"], vec!["fd00:9:3::/64"]]], 256);
    reach_by_ipv6(&mut hub, 1);
    hub.journey.sites.at_mut(SiteSlot(1)).way.out.as_mut().unwrap().payload_max = 1200;
    let frames: Vec<_> = [(0, "fd00:9:1::1"), (2, "fd00:9:3::1")]
        .map(|(site, from)| hub.seal_to(site, &ipv6(from, "fd00:9:2::1", 9, 1280), 1280))
        .to_vec();
    let left = hub.pass(&frames);
    let mut ids: Vec<[u8; 4]> = left.iter().map(|frame| frame[14 + 44..14 + 48].try_into().unwrap()).collect();
    ids.sort_unstable();
    assert!(ids.len() == 4 && ids[0] == ids[1] && ids[1] != ids[2] && ids[2] == ids[3], "{ids:?}");
}

/// IPv6 takes 1,280 bytes for granted: on a way that has less room they go in two outer packets.
#[test]
fn what_ipv6_takes_for_granted_passes_a_narrow_way_cut_outside() {
    for outside_v6 in [false, true] {
        let overhead: usize = if outside_v6 { 80 } else { 60 };
        let mut hub = hub(1280 - overhead as u16);
        if outside_v6 {
            reach_by_ipv6(&mut hub, 1);
        }
        for (len, frames) in [(1280 - overhead, 1), (1280 - overhead + 1, 2), (1280, 2)] {
            let packet = ipv6("fd00:9:1::1", "fd00:9:2::1", 9, len);
            let before = hub.journey.rows.turns.generated.read();
            let left = hub.pass(&[hub.seal_to(0, &packet, len)]);
            assert_eq!(left.len(), frames, "{len} bytes");
            assert_eq!(hub.journey.rows.turns.generated.read() - before, frames as u64 - 1);
            let whole = if frames == 1 { left[0].clone() } else { put_together(&left, 1280) };
            let outer = Outer::parse(&whole).unwrap();
            let session = &hub.far[1].session;
            let mut datagram = whole[outer.payload].to_vec();
            let (_, counter) = crypto::message::parse_data(&datagram).unwrap();
            let data = &mut datagram[crypto::message::DATA_HEADER..];
            let mut job = [crypto::aead::OpenJob { key: session.open_key(), counter, aad: &[], data, verified: false }];
            hub.aead.open_batch(&mut job);
            assert!(job[0].verified);
            let inner = &datagram[crypto::message::DATA_HEADER..][..len];
            assert_eq!((inner[7], &inner[8..]), (8, &packet[8..]));
        }
        assert_eq!(hub.drops(), []);
        assert_eq!(hub.census().0, hub.census().1);
        // What is longer can be told so, and IPv4 is cut inside.
        let frame = hub.seal_to(0, &ipv6("fd00:9:1::1", "fd00:9:2::1", 9, 1281), 1281);
        assert_eq!(hub.pass(&[frame]).len(), 1);
        assert_eq!(hub.drops(), [(DropReason::TooLarge, 1)]);
        let frame = hub.seal_to(0, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 9, 1280), 1280);
        assert_eq!(hub.pass(&[frame]).len(), 1);
        assert_eq!(hub.drops(), [(DropReason::TooLarge, 2)]);
        // Without a chunk for the second half, neither goes.
        let frame = hub.seal_to(0, &ipv6("fd00:9:1::1", "fd00:9:2::1", 9, 1280), 1280);
        let held: Vec<_> = hub.journey.pool.drain(1..).collect();
        assert_eq!(hub.pass(&[frame]).len(), 0);
        hub.journey.pool.extend(held);
        assert!(hub.drops().contains(&(DropReason::NoChunk, 1)), "{:?}", hub.drops());
        assert_eq!(hub.census().0, hub.census().1);
    }
}
