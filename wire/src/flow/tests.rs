use super::*;
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, PacketBuilder};
use proptest::prelude::*;

fn upper(source_port: u16, destination_port: u16, tcp_flags: u8) -> Option<Upper> {
    Some(Upper { source_port, destination_port, tcp_flags })
}

/// An IPv4 packet of this protocol, at this offset of a datagram.
fn v4(protocol: u8, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut header =
        Ipv4Header::new(payload.len() as u16, 64, IpNumber(protocol), [10, 9, 1, 1], [10, 9, 2, 1]).unwrap();
    header.fragment_offset = (offset as u16 / 8).try_into().unwrap();
    header.more_fragments = more;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

/// An IPv6 packet whose payload begins with this header.
fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: payload.len() as u16,
        next_header: IpNumber(next_header),
        hop_limit: 64,
        ..Default::default()
    };
    [&header.to_bytes()[..], payload].concat()
}

fn fragment_header(next_header: u8, offset: u16, more: bool) -> [u8; 8] {
    let [a, b] = (offset | u16::from(more)).to_be_bytes();
    [next_header, 0, a, b, 0, 0, 0, 7]
}

#[test]
fn reads_what_etherparse_wrote() {
    let tcp = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
        let mut packet = Vec::new();
        builder.tcp(40_000, 443, 1, 1000).syn().ack(7).write(&mut packet, &[1, 2, 3]).unwrap();
        packet
    };
    let udp = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
        let mut packet = Vec::new();
        builder.udp(5353, 53).write(&mut packet, &[1, 2, 3]).unwrap();
        packet
    };
    let four = || PacketBuilder::ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64);
    let six = || PacketBuilder::ipv6([1; 16], [2; 16], 64);
    for (packet, protocol, expected) in [
        (tcp(four()), 6, upper(40_000, 443, 0x12)),
        (tcp(six()), 6, upper(40_000, 443, 0x12)),
        (udp(four()), 17, upper(5353, 53, 0)),
        (udp(six()), 17, upper(5353, 53, 0)),
    ] {
        let flow = Flow::parse(&packet).unwrap();
        assert_eq!((flow.protocol, flow.upper), (protocol, expected));
    }
    assert_eq!(Flow::parse(&tcp(four())).unwrap().source, IpAddr::from([10, 9, 1, 1]));
    assert_eq!(Flow::parse(&tcp(six())).unwrap().destination, IpAddr::from([2; 16]));
    // What has no ports has none, and needs no bytes for them.
    assert_eq!(Flow::parse(&v4(1, 0, false, &[])).unwrap().upper, upper(0, 0, 0));
}

#[test]
fn a_first_fragment_holds_its_header_or_is_refused() {
    let header = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x02, 0, 0, 0, 0, 0, 0];
    for len in [0, 8, 16] {
        assert_eq!(Flow::parse(&v4(6, 0, true, &header[..len])), None, "{len} bytes of TCP");
        assert_eq!(Flow::parse(&v4(6, 0, false, &header[..len])), None, "{len} bytes of TCP, no fragment");
        let payload = [&fragment_header(6, 0, true)[..], &header[..len]].concat();
        assert_eq!(Flow::parse(&v6(44, &payload)), None, "{len} bytes of TCP over IPv6");
    }
    assert_eq!(Flow::parse(&v4(6, 0, true, &header)).unwrap().upper, upper(40_000, 443, 2));
    assert_eq!(Flow::parse(&v4(17, 0, true, &header[..8])).unwrap().upper, upper(40_000, 443, 0));
    assert_eq!(Flow::parse(&v4(17, 0, true, &header[..7])), None);
    let payload = [&fragment_header(6, 0, true)[..], &header].concat();
    assert_eq!(Flow::parse(&v6(44, &payload)).unwrap().upper, upper(40_000, 443, 2));
}

#[test]
fn a_later_fragment_has_a_protocol_and_no_ports() {
    for (packet, protocol) in [
        (v4(17, 8, true, &[0xff; 40]), 17),
        (v4(6, 16, false, &[0xff; 40]), 6),
        (v6(44, &[&fragment_header(17, 8, true)[..], &[0xff; 40]].concat()), 17),
        (v6(44, &[&fragment_header(6, 16, false)[..], &[0xff; 40]].concat()), 6),
    ] {
        let flow = Flow::parse(&packet).unwrap();
        assert_eq!((flow.protocol, flow.upper), (protocol, None));
    }
    // It would lie over the flags of the first.
    assert_eq!(Flow::parse(&v4(6, 8, false, &[0xff; 40])), None);
    assert_eq!(Flow::parse(&v6(44, &[&fragment_header(6, 8, false)[..], &[0xff; 40]].concat())), None);
    // What the datagram carries stands in the first one only.
    assert_eq!(Flow::parse(&v6(44, &[&fragment_header(60, 64, false)[..], &[6; 40]].concat())), None);
}

#[test]
fn extension_headers_are_walked_within_bounds() {
    let udp = [0x14, 0xe9, 0, 53, 0, 8, 0, 0];
    let chain = |headers: usize| {
        let mut payload = Vec::new();
        for n in 0..headers {
            payload.extend_from_slice(&[if n + 1 == headers { 17 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
        }
        payload.extend_from_slice(&udp);
        v6(if headers == 0 { 17 } else { 60 }, &payload)
    };
    for headers in 0..=8 {
        assert_eq!(Flow::parse(&chain(headers)).unwrap().upper, upper(5353, 53, 0), "{headers} headers");
    }
    assert_eq!(Flow::parse(&chain(9)), None);
    // A length that leads out of the packet.
    assert_eq!(Flow::parse(&v6(0, &[17, 255, 1, 4, 0, 0, 0, 0, 0, 0, 0, 53])), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()], mut bytes in proptest::collection::vec(any::<u8>(), 0..200), fit: bool) {
        bytes.insert(0, first);
        if fit && bytes.len() > 20 {
            let len = bytes.len() as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..6].copy_from_slice(&len.saturating_sub(40).to_be_bytes());
        }
        if let Some(flow) = Flow::parse(&bytes) {
            prop_assert_eq!(flow.source.is_ipv4(), first >> 4 == 4);
            prop_assert!(flow.protocol == 6 || flow.upper.is_none_or(|upper| upper.tcp_flags == 0));
        }
    }
}

/// How 16 ways would share these, with the most and the least that one has.
fn shared(packets: impl Iterator<Item = Vec<u8>>, seed: u32) -> (u32, u32) {
    let mut ways = [0; 16];
    for packet in packets {
        ways[(spread(&packet, seed) >> 28) as usize] += 1;
    }
    (ways.into_iter().min().unwrap(), ways.into_iter().max().unwrap())
}

fn udp_of(source: u32, destination: u32, ports: u32) -> Vec<u8> {
    let mut packet = v4(17, 0, false, &[0; 12]);
    packet[12..16].copy_from_slice(&source.to_be_bytes());
    packet[16..20].copy_from_slice(&destination.to_be_bytes());
    packet[20..24].copy_from_slice(&ports.to_be_bytes());
    packet
}

fn udp_of_v6(source: u128, destination: u128, ports: u32) -> Vec<u8> {
    let mut packet = v6(17, &[0; 12]);
    packet[8..24].copy_from_slice(&source.to_be_bytes());
    packet[24..40].copy_from_slice(&destination.to_be_bytes());
    packet[40..44].copy_from_slice(&ports.to_be_bytes());
    packet
}

#[test]
fn flows_that_differ_little_are_spread_evenly() {
    const EACH: u32 = 16_000;
    let (a, b) = (0x0a09_0101, 0x0a09_0201);
    let long = |address: u32| 0xfd00_0009_0000_0000_0000_0000_0000_0000 | u128::from(address);
    let even = |name: &str, packets: &mut dyn Iterator<Item = Vec<u8>>| {
        let (least, most) = shared(packets, 7);
        // A thousand for each: chance alone would leave ten in eleven within 50, and hardly ever one beyond 150.
        assert!(least > 850 && most < 1150, "{name}: {least} to {most}");
    };
    even("source ports", &mut (0..EACH).map(|n| udp_of(a, b, (40_000 + n) << 16 | 443)));
    even("destination ports", &mut (0..EACH).map(|n| udp_of(a, b, 40_000 << 16 | n)));
    even("sources", &mut (0..EACH).map(|n| udp_of(a + n, b, 443)));
    even("destinations", &mut (0..EACH).map(|n| udp_of(a, b + n, 443)));
    even("networks", &mut (0..EACH).map(|n| udp_of(n << 16, b, 443)));
    even("both at once", &mut (0..EACH).map(|n| udp_of(a + n, b + n, n << 16 | n)));
    even("IPv6, source ports", &mut (0..EACH).map(|n| udp_of_v6(long(a), long(b), (40_000 + n) << 16 | 443)));
    even("IPv6, sources", &mut (0..EACH).map(|n| udp_of_v6(long(a + n), long(b), 443)));
    even("IPv6, networks", &mut (0..EACH).map(|n| udp_of_v6(long(a), long(b) + (u128::from(n) << 64), 443)));
    // The same flow of so many tenants, who all have the same addresses.
    let mut ways = [0; 16];
    (0..EACH).for_each(|seed| ways[(spread(&udp_of(a, b, 443), seed) >> 28) as usize] += 1);
    assert!(ways.iter().all(|n| (850..1150).contains(n)), "{ways:?}");
}

#[test]
fn all_packets_of_a_flow_have_one_number() {
    let of = |packet: &[u8]| spread(packet, 7);
    let packet = udp_of(0x0a09_0101, 0x0a09_0201, 40_000 << 16 | 443);
    let mut other = packet.clone();
    // Class, length, identification, DF, TTL, checksums, contents.
    other.push(0);
    (other[1], other[3], other[5], other[6], other[8], other[10], other[24], other[31]) = (9, 33, 9, 0x40, 9, 9, 9, 9);
    assert_eq!(of(&other), of(&packet));
    // With options, ports stand further behind.
    let mut options = packet.clone();
    options.splice(20..20, [1; 4]);
    (options[0], options[3]) = (0x46, 36);
    assert_eq!(of(&options), of(&packet));
    for (at, what) in
        [(15, "source"), (19, "destination"), (9, "protocol"), (21, "source port"), (23, "destination port")]
    {
        let mut other = packet.clone();
        other[at] ^= 1;
        assert_ne!(of(&other), of(&packet), "{what}");
    }
    assert_ne!(spread(&packet, 8), of(&packet), "of another tenant");

    let packet = udp_of_v6(1 << 64 | 5, 2 << 64 | 6, 40_000 << 16 | 443);
    let mut other = packet.clone();
    (other[1], other[3], other[7], other[46]) = (9, 9, 9, 9);
    assert_eq!(of(&other), of(&packet));
    let mut options = packet.clone();
    options.splice(40..40, [17, 0, 0, 0, 0, 0, 0, 0]);
    (options[5], options[6]) = (20, 60);
    assert_eq!(of(&options), of(&packet), "behind an extension header");
    for at in [15, 23, 31, 39, 41, 43] {
        let mut other = packet.clone();
        other[at] ^= 1;
        assert_ne!(of(&other), of(&packet), "byte {at}");
    }
}

#[test]
fn fragments_of_a_datagram_have_one_number_whatever_each_holds() {
    let of = |packet: &[u8]| spread(packet, 7);
    let first = v4(17, 0, true, &[1, 2, 3, 4, 0, 24, 0, 0]);
    for later in
        [v4(17, 8, true, &[9; 8]), v4(17, 1480, false, &[7; 3]), v4(6, 8, false, &[]), v4(17, 0, true, &[8; 8])]
    {
        assert_eq!(of(&later), of(&first));
    }
    assert_ne!(of(&v4(17, 0, false, &[1, 2, 3, 4, 0, 24, 0, 0])), of(&first), "a whole datagram has ports");
    let six = |offset, more, payload: &[u8]| v6(44, &[&fragment_header(17, offset, more)[..], payload].concat());
    let first = six(0, true, &[1, 2, 3, 4, 0, 24, 0, 0]);
    for later in [six(8, true, &[9; 8]), six(1448, false, &[7; 3]), six(0, false, &[8; 8])] {
        assert_eq!(of(&later), of(&first));
    }
    // What hides its ports goes by its addresses, too: a chain that leaves the packet, a header cut short.
    assert_eq!(of(&v6(0, &[17, 9, 0, 0, 0, 0, 0, 0])), of(&first));
    assert_eq!(of(&v4(17, 0, false, &[1, 2, 3])), of(&v4(17, 0, false, &[1])));
}

proptest! {
    #[test]
    fn any_bytes_can_be_spread(packet in proptest::collection::vec(any::<u8>(), 0..80), seed: u32) {
        spread(&packet, seed);
    }
}
