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
