use super::*;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpNumber, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4, icmpv6,
};
use proptest::prelude::*;

const FROM_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const FROM_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 9, 0, 0, 0, 0, 0, 1);

fn udp_v4(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv4(source, destination, 1).udp(1000, 2000).write(&mut out, payload).unwrap();
    out
}

fn udp_v6(source: [u8; 16], destination: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    PacketBuilder::ipv6(source, destination, 1).udp(1000, 2000).write(&mut out, payload).unwrap();
    out
}

fn answers() -> impl Strategy<Value = Answer> {
    prop_oneof![Just(Answer::TimeExceeded), (68u16..2000).prop_map(|mtu| Answer::TooBig { mtu })]
}

proptest! {
    #[test]
    fn etherparse_reads_an_answer_over_ipv4(
        answer in answers(), host in 1u8..=254, payload in proptest::collection::vec(any::<u8>(), 0..1500), padding in 0usize..16,
    ) {
        let packet = udp_v4([10, 9, 1, host], [10, 9, 2, 1], &payload);
        let mut out = [0xa5; MAX_V4];
        let padded = [packet.as_slice(), &[0; 16][..padding]].concat();
        let len = write(answer, &padded, FROM_V4.into(), &mut out).unwrap();
        prop_assert_eq!(len, 576.min(28 + packet.len()));

        let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
        let Some(NetSlice::Ipv4(ip)) = sliced.net else { panic!("no IPv4 header") };
        let ip = ip.header().to_header();
        prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        prop_assert_eq!((ip.source, ip.destination), (FROM_V4.octets(), [10, 9, 1, host]));
        let Some(TransportSlice::Icmpv4(icmp)) = sliced.transport else { panic!("no ICMP header") };
        prop_assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
        prop_assert_eq!(icmp.payload(), &packet[..len - 28]);
        let expected = match answer {
            Answer::TimeExceeded => Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit),
            Answer::TooBig { mtu } =>
                Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu }),
        };
        prop_assert_eq!(icmp.icmp_type(), expected);
    }

    #[test]
    fn etherparse_reads_an_answer_over_ipv6(
        answer in answers(), host: u8, payload in proptest::collection::vec(any::<u8>(), 0..1500), padding in 0usize..16,
    ) {
        let source = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, host as u16 + 1).octets();
        let packet = udp_v6(source, FROM_V6.octets(), &payload);
        let mut out = [0xa5; MAX_V6];
        let padded = [packet.as_slice(), &[0; 16][..padding]].concat();
        let len = write(answer, &padded, FROM_V6.into(), &mut out).unwrap();
        prop_assert_eq!(len, 1280.min(48 + packet.len()));

        let sliced = SlicedPacket::from_ip(&out[..len]).unwrap();
        let Some(NetSlice::Ipv6(ip)) = sliced.net else { panic!("no IPv6 header") };
        let ip = ip.header().to_header();
        prop_assert_eq!((ip.source, ip.destination), (FROM_V6.octets(), source));
        let Some(TransportSlice::Icmpv6(icmp)) = sliced.transport else { panic!("no ICMPv6 header") };
        prop_assert!(icmp.is_checksum_valid(ip.source, ip.destination));
        prop_assert_eq!(icmp.payload(), &packet[..len - 48]);
        let expected = match answer {
            Answer::TimeExceeded => Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded),
            Answer::TooBig { mtu } => Icmpv6Type::PacketTooBig { mtu: mtu.max(1280) as u32 },
        };
        prop_assert_eq!(icmp.icmp_type(), expected);
    }

    #[test]
    fn any_bytes_are_safe(mut packet in proptest::collection::vec(any::<u8>(), 0..120), v6: bool, fit: bool, room in 0usize..1300) {
        if fit && packet.len() > 8 {
            let len = packet.len() as u16;
            packet[0] = if v6 { 0x60 } else { 0x45 };
            let (at, value) = if v6 { (4, len.saturating_sub(40)) } else { (2, len) };
            packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
        }
        let mut out = vec![0; room];
        for answer in [Answer::TimeExceeded, Answer::TooBig { mtu: 1280 }] {
            for from in [IpAddr::V4(FROM_V4), IpAddr::V6(FROM_V6)] {
                if let Ok(len) = write(answer, &packet, from, &mut out) {
                    prop_assert!(len <= room);
                    prop_assert!(SlicedPacket::from_ip(&out[..len]).is_ok());
                    // An answer is never answered.
                    let mut again = [0; MAX_V6];
                    prop_assert_eq!(write(answer, &out[..len], from, &mut again), Err(Silence::IcmpError));
                }
            }
        }
    }
}

#[test]
fn stays_silent_over_ipv4() {
    let ask = |packet: &[u8]| write(Answer::TimeExceeded, packet, FROM_V4.into(), &mut [0; MAX_V4]);
    let good = udp_v4([10, 9, 1, 1], [10, 9, 2, 1], &[0; 32]);
    assert_eq!(ask(&good), Ok(28 + good.len()));
    for source in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]] {
        assert_eq!(ask(&udp_v4(source, [10, 9, 2, 1], &[])), Err(Silence::Source), "{source:?}");
    }
    for destination in [[224, 0, 0, 1], [239, 255, 255, 250], [255, 255, 255, 255]] {
        assert_eq!(ask(&udp_v4([10, 9, 1, 1], destination, &[])), Err(Silence::Destination), "{destination:?}");
    }
    let mut later = good.clone();
    later[6..8].copy_from_slice(&[0x00, 0x02]);
    assert_eq!(ask(&later), Err(Silence::Fragment));
    let mut first = good.clone();
    first[6..8].copy_from_slice(&[0x20, 0x00]);
    assert!(ask(&first).is_ok());
    for kind in 0..=255u8 {
        let mut icmp = good.clone();
        icmp[9] = 1;
        icmp[20] = kind;
        let query = matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43);
        assert_eq!(ask(&icmp).is_ok(), query, "ICMP type {kind}");
    }
    assert_eq!(ask(&good[..30]), Err(Silence::Malformed));
    assert_eq!(write(Answer::TimeExceeded, &good, FROM_V6.into(), &mut [0; MAX_V6]), Err(Silence::Family));
    assert_eq!(write(Answer::TimeExceeded, &good, FROM_V4.into(), &mut [0; 87]), Err(Silence::NoRoom));
}

#[test]
fn stays_silent_over_ipv6() {
    let host = Ipv6Addr::new(0xfd00, 9, 1, 0, 0, 0, 0, 2).octets();
    let there = Ipv6Addr::new(0xfd00, 9, 2, 0, 0, 0, 0, 2).octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
    let ask = |answer, packet: &[u8]| write(answer, packet, FROM_V6.into(), &mut [0; MAX_V6]);
    let too_big = Answer::TooBig { mtu: 1400 };
    let good = udp_v6(host, there, &[0; 32]);
    assert_eq!(ask(Answer::TimeExceeded, &good), Ok(48 + good.len()));
    for source in [[0; 16], Ipv6Addr::LOCALHOST.octets(), group] {
        assert_eq!(ask(too_big, &udp_v6(source, there, &[])), Err(Silence::Source));
    }
    assert_eq!(ask(Answer::TimeExceeded, &udp_v6(host, group, &[])), Err(Silence::Destination));
    assert!(ask(too_big, &udp_v6(host, group, &[])).is_ok());

    // Behind extension headers: hop-by-hop options, then a fragment header, then ICMPv6.
    let chain = |offset: u8, kind: u8| {
        let mut packet = good.clone();
        packet[6] = ipv6::HOP_BY_HOP;
        packet[40..56].copy_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, offset << 3 | 1, 0, 0, 0, 9]);
        packet[56] = kind;
        packet
    };
    for kind in 0..=255u8 {
        assert_eq!(ask(too_big, &chain(0, kind)).is_ok(), kind >= 128 && kind != 137, "ICMPv6 type {kind}");
    }
    assert_eq!(ask(too_big, &chain(1, 128)), Err(Silence::Fragment));
    let mut endless = good.clone();
    endless[6] = ipv6::DESTINATION_OPTIONS;
    endless[41] = 200;
    assert_eq!(ask(too_big, &endless), Err(Silence::Malformed));
    assert_eq!(IpNumber::IPV6_ICMP.0, ipv6::ICMP);
}

#[test]
fn errors_are_told_from_all_else() {
    let mut v4 = udp_v4([10, 9, 1, 1], [10, 9, 2, 1], &[0; 32]);
    let mut v6 = udp_v6([1; 16], [2; 16], &[0; 32]);
    assert!(!is_error(&v4) && !is_error(&v6) && !is_error(&[]));
    (v4[9], v6[6]) = (1, 58);
    for kind in 0..=255u8 {
        (v4[20], v6[40]) = (kind, kind);
        assert_eq!(is_error(&v4), matches!(kind, 3 | 11 | 12), "ICMP type {kind}");
        assert_eq!(is_error(&v6), matches!(kind, 1..=4), "ICMPv6 type {kind}");
    }
    (v4[20], v6[40]) = (3, 2);
    for packet in [&v4, &v6] {
        assert!(is_error(packet));
        assert!((0..packet.len()).all(|len| !is_error(&packet[..len])), "cut short");
    }
    v4[7] = 1;
    assert!(!is_error(&v4), "a later fragment");
    for (answer, packet) in [
        (Answer::TimeExceeded, udp_v4([10, 9, 1, 1], [10, 9, 2, 1], &[])),
        (Answer::TooBig { mtu: 1280 }, udp_v6([1; 16], [2; 16], &[])),
    ] {
        let from = if packet[0] >> 4 == 4 { IpAddr::from(FROM_V4) } else { FROM_V6.into() };
        let mut out = [0; MAX_V6];
        let len = write(answer, &packet, from, &mut out).unwrap();
        assert!(is_error(&out[..len]), "its own");
    }
}
