use super::*;
use etherparse::{IpNumber, Ipv4Header};
use proptest::prelude::*;

fn packet(options: &[u8], payload: &[u8], offset: usize, more: bool, df: bool) -> Vec<u8> {
    let mut header = Ipv4Header::new(0, 61, IpNumber::UDP, [10, 9, 1, 1], [10, 9, 2, 1]).unwrap();
    header.options = options.try_into().unwrap();
    header.identification = 0x1234;
    header.dscp = 46.try_into().unwrap();
    header.ecn = 1.try_into().unwrap();
    (header.dont_fragment, header.more_fragments) = (df, more);
    header.fragment_offset = (offset as u16 / 8).try_into().unwrap();
    header.total_len = (header.header_len() + payload.len()) as u16;
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], payload].concat()
}

fn cut(mut packet: Vec<u8>, mtu: u16) -> Option<Vec<Vec<u8>>> {
    let cuts = Cuts::new(&packet, mtu)?;
    let mut later: Vec<Vec<u8>> = (1..cuts.count())
        .map(|n| {
            let mut out = vec![0xee; cuts.len(n)];
            cuts.write(&packet, n, &mut out);
            out
        })
        .collect();
    packet.truncate(cuts.len(0));
    cuts.shorten(&mut packet);
    later.insert(0, packet);
    Some(later)
}

proptest! {
    #[test]
    fn the_fragments_are_the_packet_again(
        payload in proptest::collection::vec(any::<u8>(), 1..3400), mtu in 68u16..1500, words in 0usize..=10,
        offset in 0usize..1000, more: bool,
    ) {
        // Copied, not copied, padding: in turn.
        let options: Vec<u8> = [[0x83u8, 4, 7, 7], [0x44, 4, 5, 5], [1, 1, 1, 1]].iter().cycle().take(words).flatten().copied().collect();
        let payload = if more { &payload[..payload.len() & !7] } else { &payload[..] };
        let offset = offset * 8;
        let whole = packet(&options, payload, offset, more, false);
        let Some(fragments) = cut(whole.clone(), mtu) else {
            // It fits, or it would be too many.
            let least = payload.len().div_ceil((mtu as usize - 20 - 40) & !7);
            prop_assert!(whole.len() <= mtu as usize || least > FRAGMENTS_MAX);
            return Ok(());
        };
        prop_assert!(fragments.len() >= 2 && fragments.len() <= FRAGMENTS_MAX);
        let (before, _) = Ipv4Header::from_slice(&whole).unwrap();
        let mut together = Vec::new();
        for (n, fragment) in fragments.iter().enumerate() {
            prop_assert!(fragment.len() <= mtu as usize);
            let (header, rest) = Ipv4Header::from_slice(fragment).unwrap();
            prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            prop_assert_eq!(header.total_len as usize, fragment.len());
            prop_assert_eq!(header.fragment_offset.value() as usize * 8, offset + together.len());
            prop_assert_eq!(header.more_fragments, more || n + 1 < fragments.len());
            prop_assert_eq!((header.identification, header.dscp, header.ecn, header.time_to_live, header.protocol, header.source, header.destination),
                (before.identification, before.dscp, before.ecn, before.time_to_live, before.protocol, before.source, before.destination));
            let kept: Vec<u8> = if n == 0 { options.clone() } else { options.chunks(4).filter(|o| o[0] == 0x83).flatten().copied().collect() };
            prop_assert_eq!(header.options.as_slice(), &kept[..]);
            together.extend_from_slice(rest);
        }
        prop_assert_eq!(&together[..], payload);
    }

    #[test]
    fn any_options_are_safe(options in proptest::collection::vec(any::<u8>(), 0..=40), mtu in 20u16..200) {
        let options = &options[..options.len() & !3];
        for fragment in cut(packet(options, &[7; 400], 0, false, false), mtu).into_iter().flatten() {
            prop_assert!(fragment.len() <= mtu as usize && ipv4::View::parse(&fragment).is_ok_and(|ip| ip.verify()));
        }
    }
}

proptest! {
    #[test]
    fn an_own_ipv6_packet_is_cut_and_put_together(payload in proptest::collection::vec(any::<u8>(), 1..3400), mtu in 100u16..1500, id: u32) {
        let mut whole = Vec::new();
        etherparse::PacketBuilder::ipv6([1; 16], [2; 16], 64).udp(1, 2).write(&mut whole, &payload).unwrap();
        let Some(cuts) = CutsV6::new(&whole, mtu, id) else {
            let step = (mtu as usize - 48) & !7;
            prop_assert!(whole.len() <= mtu as usize || (payload.len() + 8).div_ceil(step) > FRAGMENTS_MAX);
            return Ok(());
        };
        let mut fragments: Vec<Vec<u8>> = (1..cuts.count())
            .map(|n| {
                let mut out = vec![0xee; cuts.len(n)];
                cuts.write(&whole, n, &mut out);
                out
            })
            .collect();
        let mut first = [&[0xee; CutsV6::GROWTH][..], &whole].concat();
        first.truncate(cuts.len(0));
        cuts.shorten(&mut first);
        fragments.insert(0, first);
        prop_assert!(fragments.len() >= 2);
        let mut together = Vec::new();
        for (n, fragment) in fragments.iter().enumerate() {
            prop_assert!(fragment.len() <= mtu as usize);
            let (header, rest) = etherparse::Ipv6Header::from_slice(fragment).unwrap();
            prop_assert_eq!(header.payload_length as usize, rest.len());
            prop_assert_eq!((header.source, header.destination, header.hop_limit), ([1; 16], [2; 16], 64));
            prop_assert_eq!(header.next_header, IpNumber::IPV6_FRAGMENTATION_HEADER);
            let (header, rest) = etherparse::Ipv6FragmentHeader::from_slice(rest).unwrap();
            prop_assert_eq!((header.next_header, header.identification), (IpNumber::UDP, id));
            prop_assert_eq!(header.fragment_offset.value() as usize * 8, together.len());
            prop_assert_eq!(header.more_fragments, n + 1 < fragments.len());
            together.extend_from_slice(rest);
        }
        prop_assert_eq!(&together[..], &whole[40..]);
    }
}

#[test]
fn what_must_not_be_cut_is_not() {
    assert!(cut(packet(&[], &[0; 1400], 0, false, true), 1280).is_none(), "DF");
    assert!(cut(packet(&[], &[0; 1260], 0, false, false), 1280).is_none(), "it fits");
    assert_eq!(cut(packet(&[], &[0; 1261], 0, false, false), 1280).unwrap().len(), 2);
    assert!(cut(packet(&[], &[0; 1400], 0, false, false), 27).is_none(), "no room for eight bytes");
    assert!(cut(packet(&[], &[0; 1400], 0, false, false), 68).is_none(), "thirty fragments");
    assert!(cut(packet(&[], &[0; 1400], 65_000, false, false), 1280).is_none(), "beyond the end of any datagram");
    assert!(cut([&[0x60][..], &[0; 1400]].concat(), 1280).is_none(), "IPv6");
}
