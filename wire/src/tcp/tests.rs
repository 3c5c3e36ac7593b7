use super::*;
use etherparse::{IpNumber, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use proptest::prelude::*;

fn syn(v6: bool, options: &[TcpOptionElement], flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let step = match v6 {
        false => PacketBuilder::ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64).tcp(40_000, 443, 7, 1000),
        true => PacketBuilder::ipv6([1; 16], [2; 16], 64).tcp(40_000, 443, 7, 1000),
    };
    let step = if flags & SYN != 0 { step.syn() } else { step };
    let step = if flags & 0x10 != 0 { step.ack(9) } else { step };
    step.options(options).unwrap().write(&mut packet, payload).unwrap();
    packet
}

/// The size that is announced, if the checksum is right.
fn announced(packet: &[u8]) -> Option<u16> {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let right = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination()).unwrap()
        }
        etherparse::NetSlice::Ipv6(ip) => {
            tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(tcp.checksum(), right, "the checksum");
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
        _ => None,
    })
}

proptest! {
    #[test]
    fn it_is_lowered_to_what_fits_and_the_checksum_holds(
        v6: bool, ack: bool, size: u16, mtu in 68u16..9000, nops in 0usize..4, payload in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut options = vec![TcpOptionElement::Noop; nops];
        options.extend([TcpOptionElement::SelectiveAcknowledgementPermitted, TcpOptionElement::MaximumSegmentSize(size), TcpOptionElement::WindowScale(7)]);
        let mut packet = syn(v6, &options, SYN | if ack { 0x10 } else { 0 }, &payload);
        let before = packet.clone();
        let fits = (mtu - mtu.min(if v6 { 60 } else { 40 })).max(MSS_MIN);
        prop_assert_eq!(clamp_mss(&mut packet, mtu), size > fits);
        prop_assert_eq!(announced(&packet), Some(size.min(fits)));
        prop_assert!(size > fits || packet == before);
        // Once is enough.
        prop_assert!(!clamp_mss(&mut packet, mtu));
    }

    #[test]
    fn any_bytes_are_safe(first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()], mut bytes in proptest::collection::vec(any::<u8>(), 0..120), mtu: u16) {
        bytes.insert(0, first);
        if bytes.len() > 10 {
            (bytes[6], bytes[9]) = (if first >> 4 == 6 { 6 } else { 0 }, 6);
        }
        let before = bytes.clone();
        let changed = clamp_mss(&mut bytes, mtu);
        let differ = bytes.iter().zip(&before).filter(|(a, b)| a != b).count();
        prop_assert!(differ <= 4 && (changed || differ == 0));
    }
}

#[test]
fn what_opens_nothing_stays_as_it_is() {
    let size = [TcpOptionElement::MaximumSegmentSize(1460)];
    let mut packets = vec![syn(false, &size, 0x10, &[]), syn(true, &size, 0x10, &[]), syn(false, &[], SYN, &[])];
    // UDP, and a fragment that is not the first, with the same bytes.
    let (mut udp, mut later) = (syn(false, &size, SYN, &[]), syn(false, &size, SYN, &[]));
    (udp[9], later[7]) = (17, 1);
    packets.extend([udp, later]);
    for mut packet in packets {
        let before = packet.clone();
        assert!(!clamp_mss(&mut packet, 1280));
        assert_eq!(packet, before);
    }
}

#[test]
fn it_is_found_behind_extension_headers() {
    let mut packet = syn(true, &[TcpOptionElement::MaximumSegmentSize(1440)], SYN, &[]);
    packet.splice(40..40, [6, 0, 1, 4, 0, 0, 0, 0]);
    let len = (packet.len() - 40) as u16;
    packet[4..6].copy_from_slice(&len.to_be_bytes());
    packet[6] = 60;
    assert!(clamp_mss(&mut packet, 1280));
    assert_eq!(announced(&packet), Some(1220));
    assert_eq!(IpNumber(packet[6]), IpNumber::IPV6_DESTINATION_OPTIONS);
}

#[test]
fn options_that_contradict_themselves_end_the_search() {
    let whole = syn(false, &[TcpOptionElement::MaximumSegmentSize(1460)], SYN, &[]);
    for (at, byte) in [(41, 0), (41, 1), (41, 5), (41, 3), (41, 255), (40, 0), (32, 0x50)] {
        let mut packet = whole.clone();
        packet[at] = byte;
        assert!(!clamp_mss(&mut packet, 576), "byte {at} is {byte}");
    }
}
