use super::*;
use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header, NetHeaders, PacketBuilder,
    PacketHeaders,
};
use proptest::prelude::*;
use wire::Outer;

const LARGEST: usize = 2048;
const SECOND: u64 = 1_000_000_000;

/// A UDP datagram as a frame, whole.
fn datagram(v6: bool, source: u8, options: usize, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let ip = if v6 {
        let mut header = Ipv6Header { hop_limit: 60, traffic_class: 2, ..Default::default() };
        header.source = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, source];
        header.destination = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        IpHeaders::Ipv6(header, Default::default())
    } else {
        let mut header = Ipv4Header::new(0, 60, IpNumber::UDP, [192, 0, 2, source], [198, 51, 100, 1]).unwrap();
        header.ecn = 2.try_into().unwrap();
        header.options = vec![1; options * 4].as_slice().try_into().unwrap();
        IpHeaders::Ipv4(header, Default::default())
    };
    let mut out = Vec::new();
    link.ip(ip).udp(40_000, 51_820).write(&mut out, payload).unwrap();
    if !v6 {
        // The builder sets DF, which no datagram that gets fragmented has.
        out[20] = 0;
        mend(&mut out);
    }
    out
}

/// Recomputes the checksum of an IPv4 header.
fn mend(frame: &mut [u8]) {
    let (mut header, _) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    header.header_checksum = header.calc_header_checksum();
    let bytes = header.to_bytes();
    frame[14..14 + bytes.len()].copy_from_slice(&bytes);
}

/// One fragment of a whole frame: bytes `range` of the IP payload.
fn fragment(whole: &[u8], id: u32, range: Range<usize>, more: bool) -> Vec<u8> {
    let headers = PacketHeaders::from_ethernet_slice(whole).unwrap();
    let offset = IpFragOffset::try_new((range.start / 8) as u16).unwrap();
    let (header, payload) = match headers.net.unwrap() {
        NetHeaders::Ipv4(mut ip, _) => {
            let at = 14 + ip.header_len();
            ip.set_payload_len(range.len()).unwrap();
            (ip.identification, ip.more_fragments, ip.fragment_offset) = (id as u16, more, offset);
            ip.header_checksum = ip.calc_header_checksum();
            (ip.to_bytes().to_vec(), &whole[at..])
        }
        NetHeaders::Ipv6(mut ip, _) => {
            ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
            ip.set_payload_length(8 + range.len()).unwrap();
            let extension = Ipv6FragmentHeader::new(IpNumber::UDP, offset, more, id);
            ([ip.to_bytes().as_slice(), extension.to_bytes().as_slice()].concat(), &whole[54..])
        }
        other => panic!("no IP: {other:?}"),
    };
    [&whole[..14], &header, &payload[range]].concat()
}

/// All fragments of a frame, cut at multiples of 8.
fn fragments(whole: &[u8], id: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
    let headers = if whole[12] == 0x08 { 14 + (whole[14] & 15) as usize * 4 } else { 54 };
    let len = whole.len() - headers;
    let mut edges: Vec<usize> = cuts.iter().map(|cut| cut * 8 % len / 8 * 8).chain([0]).collect();
    edges.sort_unstable();
    edges.dedup();
    edges.push(len);
    edges.windows(2).map(|edge| fragment(whole, id, edge[0]..edge[1], edge[1] != len)).collect()
}

fn pair(v6: bool, source: u8, id: u32) -> [Vec<u8>; 2] {
    let whole = datagram(v6, source, 0, &[id as u8; 1400]);
    fragments(&whole, id, &[100]).try_into().unwrap()
}

fn told(reassembly: &mut Reassembly, now: u64) -> Vec<(DropReason, u32)> {
    reassembly.expire(now).collect()
}

proptest! {
    #[test]
    fn any_order_with_duplicates_gives_the_datagram_back(
        v6: bool, options in 0usize..=10, payload in proptest::collection::vec(any::<u8>(), 100..1900),
        cuts in proptest::collection::vec(0usize..240, 1..12), order in any::<[u32; 16]>(), twice: u16, padding in 0usize..20,
    ) {
        let whole = datagram(v6, 1, options, &payload);
        let mut parts = fragments(&whole, 77, &cuts);
        prop_assume!(parts.len() > 1 && whole.len() <= LARGEST);
        let count = parts.len();
        // The last to arrive is not doubled, since what comes after completion begins anew.
        let mut arriving: Vec<(u32, Vec<u8>)> = parts.drain(..).enumerate().map(|(i, part)| (order[i], part)).collect();
        arriving.sort_by_key(|(key, _)| *key);
        let mut reassembly = Reassembly::new(LARGEST);
        let mut complete = None;
        let mut doubled = 0;
        for (i, (_, part)) in arriving.iter().enumerate() {
            let mut padded = part.clone();
            padded.resize(part.len() + padding, 0);
            match reassembly.push(&padded, i as u64) {
                Outcome::Complete(frame) => {
                    prop_assert_eq!(i, count - 1);
                    complete = Some(frame);
                }
                outcome => prop_assert_eq!(outcome, Outcome::Stored),
            }
            if i < count - 1 && twice & 1 << i != 0 {
                prop_assert_eq!(reassembly.push(part, i as u64), Outcome::Dropped(DropReason::FragmentOverlap));
                doubled += 1;
            }
        }
        let frame = complete.unwrap();
        let outer = Outer::parse(&frame).unwrap();
        prop_assert_eq!(&frame[outer.payload], &payload[..]);
        let headers = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        match headers.net.unwrap() {
            NetHeaders::Ipv4(ip, _) => {
                prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                prop_assert!(!ip.is_fragmenting_payload());
                // All but the identification is as it was sent.
                let mut expected = whole.clone();
                expected[18..20].copy_from_slice(&77u16.to_be_bytes());
                mend(&mut expected);
                prop_assert_eq!(&frame, &expected);
            }
            _ => prop_assert_eq!(&frame, &whole),
        }
        prop_assert_eq!((reassembly.held(), reassembly.bytes, reassembly.datagrams.len()), (0, 0, 0));
        prop_assert_eq!(reassembly.joined(), count as u64);
        prop_assert_eq!(told(&mut reassembly, SECOND), vec![], "{} doubled", doubled);
    }

    /// Fragments of few datagrams, thrown together: they overlap, contradict each other, come late, exceed every limit.
    #[test]
    fn the_books_close_and_memory_is_bounded_whatever_comes(
        soup in proptest::collection::vec((any::<bool>(), 0u8..4, 0u32..6, 0usize..30, 1usize..24, any::<bool>(), 0u64..20), 1..150),
        spoil in proptest::collection::vec(0usize..400, 0..8),
    ) {
        let limits = Limits { datagrams: 6, per_source: 3, bytes: 600, fragments: 3, timeout: 100 };
        let mut reassembly = Reassembly::with_limits(280, limits);
        let whole = [datagram(false, 0, 0, &[0; 500]), datagram(true, 0, 0, &[0; 500])];
        let (mut now, mut pushed, mut dropped) = (0, 0u64, 0u64);
        for (i, (v6, source, id, at, len, more, step)) in soup.into_iter().enumerate() {
            now += step;
            let end = at * 8 + if more { len * 8 } else { len };
            let mut frame = fragment(&whole[v6 as usize], id, at * 8..end, more);
            frame[if v6 { 37 } else { 29 }] = source;
            if !v6 {
                mend(&mut frame);
            }
            if let Some(at) = spoil.iter().find(|at| **at % 150 == i) && let Some(byte) = frame.get_mut(*at) {
                *byte ^= 0x81;
            }
            pushed += 1;
            match reassembly.push(&frame, now) {
                Outcome::Complete(whole) => {
                    prop_assert!(whole.len() <= 280);
                    prop_assert!(!matches!(Outer::parse(&whole), Err(Malformed::Fragment | Malformed::Checksum)));
                }
                Outcome::Stored => {}
                Outcome::Dropped(_) => dropped += 1,
            }
            if i % 7 == 0 {
                dropped += reassembly.expire(now).map(|(_, count)| count as u64).sum::<u64>();
            }
            let untold: u64 = reassembly.dropped.iter().map(|(_, count)| *count as u64).sum();
            prop_assert_eq!(pushed, dropped + untold + reassembly.joined() + reassembly.held() as u64);

            prop_assert!(reassembly.bytes <= limits.bytes && reassembly.datagrams.len() <= limits.datagrams);
            prop_assert_eq!(reassembly.serials.len(), reassembly.datagrams.len());
            prop_assert!(reassembly.sources.values().all(|queue| (1..=limits.per_source).contains(&queue.len())));
            prop_assert_eq!(reassembly.sources.values().map(VecDeque::len).sum::<usize>(), reassembly.datagrams.len());
            let waiting = || reassembly.datagrams.values().filter_map(|datagram| match &datagram.state {
                State::Waiting(parts) => Some(parts),
                State::Condemned(_) => None,
            });
            prop_assert_eq!(waiting().map(Parts::size).sum::<usize>(), reassembly.bytes);
            prop_assert_eq!(waiting().map(|parts| parts.ranges.len()).sum::<usize>(), reassembly.held());
        }
        dropped += reassembly.expire(now + 100).map(|(_, count)| count as u64).sum::<u64>();
        prop_assert_eq!(pushed, dropped + reassembly.joined());
        prop_assert!(reassembly.datagrams.is_empty() && reassembly.sources.is_empty() && reassembly.bytes == 0);
    }

    #[test]
    fn any_bytes_are_safe(frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..100), any::<bool>()), 1..20)) {
        let mut reassembly = Reassembly::new(LARGEST);
        for (mut frame, v6) in frames {
            if frame.len() > 54 {
                frame[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] });
                let len = (frame.len() - if v6 { 54 } else { 14 }) as u16;
                let at = if v6 { 18 } else { 16 };
                frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
                if v6 {
                    (frame[20], frame[54]) = (44, 17);
                } else {
                    frame[23] = 17;
                    mend(&mut frame);
                }
            }
            let _ = reassembly.push(&frame, 0);
        }
    }
}

#[test]
fn an_overlap_condemns_the_datagram_and_what_still_comes() {
    for v6 in [false, true] {
        let whole = datagram(v6, 1, 0, &[7; 1400]);
        let mut reassembly = Reassembly::new(LARGEST);
        assert_eq!(reassembly.push(&fragment(&whole, 1, 0..800, true), 0), Outcome::Stored);
        assert_eq!(reassembly.push(&fragment(&whole, 1, 1000..1200, true), 0), Outcome::Stored);
        let overlapping = fragment(&whole, 1, 792..1000, true);
        assert_eq!(reassembly.push(&overlapping, 0), Outcome::Dropped(DropReason::FragmentOverlap));
        assert_eq!(reassembly.held(), 0);
        let rest = fragment(&whole, 1, 800..1408, false);
        assert_eq!(reassembly.push(&rest, 1), Outcome::Dropped(DropReason::FragmentOverlap));
        assert_eq!(told(&mut reassembly, 2), [(DropReason::FragmentOverlap, 2)]);
        assert_eq!(told(&mut reassembly, 3), []);
        // Once it is forgotten, the identification is as good as new.
        assert_eq!(told(&mut reassembly, SECOND), []);
        assert_eq!(reassembly.push(&fragment(&whole, 1, 0..800, true), SECOND), Outcome::Stored);
        assert!(matches!(reassembly.push(&rest, SECOND), Outcome::Complete(_)));
    }
}

#[test]
fn contradictions_count_as_overlaps() {
    let whole = datagram(false, 1, 0, &[7; 1400]);
    let overlap = Outcome::Dropped(DropReason::FragmentOverlap);
    let first = |range: Range<usize>, more| {
        let mut reassembly = Reassembly::new(LARGEST);
        assert_eq!(reassembly.push(&fragment(&whole, 1, range, more), 0), Outcome::Stored);
        reassembly
    };
    assert_eq!(first(800..1408, false).push(&fragment(&whole, 1, 400..600, false), 0), overlap, "two ends");
    assert_eq!(first(400..600, false).push(&fragment(&whole, 1, 800..1400, true), 0), overlap, "beyond the end");
    assert_eq!(first(800..1400, true).push(&fragment(&whole, 1, 8..400, false), 0), overlap, "an end before others");
    // The same place with other bytes, or with another claim of being the last.
    let mut other = fragment(&whole, 1, 800..1400, true);
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(first(800..1400, true).push(&other, 0), overlap);
    let mut reassembly = first(800..1400, true);
    assert_eq!(reassembly.push(&fragment(&whole, 1, 800..1400, false), 0), overlap);
    assert_eq!(reassembly.held(), 0, "not a duplicate");
}

#[test]
fn late_fragments_are_given_up_at_their_time() {
    for v6 in [false, true] {
        let [a, b] = pair(v6, 1, 5);
        let mut reassembly = Reassembly::new(LARGEST);
        assert_eq!(reassembly.push(&a, 10), Outcome::Stored);
        assert_eq!(told(&mut reassembly, 10 + SECOND - 1), []);
        assert_eq!(reassembly.push(&b, 10 + SECOND), Outcome::Stored, "its other half is gone");
        assert_eq!(told(&mut reassembly, 10 + SECOND), [(DropReason::FragmentTimeout, 1)]);
        assert_eq!(reassembly.held(), 1);
    }
}

#[test]
fn a_source_pushes_out_its_own_oldest_and_a_flood_the_oldest_of_all() {
    let mut reassembly = Reassembly::new(LARGEST);
    let [honest, rest] = pair(false, 250, 1);
    assert_eq!(reassembly.push(&honest, 0), Outcome::Stored);
    for id in 0..1000 {
        assert_eq!(reassembly.push(&pair(false, 1, id)[0], 0), Outcome::Stored);
    }
    assert_eq!(reassembly.held(), 1 + LIMITS.per_source);
    assert_eq!(told(&mut reassembly, 0), [(DropReason::FragmentLimit, 1000 - LIMITS.per_source as u32)]);
    assert!(matches!(reassembly.push(&pair(false, 1, 999)[1], 0), Outcome::Complete(_)), "the newest is kept");
    assert!(matches!(reassembly.push(&rest, 0), Outcome::Complete(_)), "and another source's");

    for source in 2..=20 {
        for id in 0..LIMITS.per_source as u32 {
            reassembly.push(&pair(false, source, id)[0], 0);
        }
    }
    assert_eq!(reassembly.datagrams.len(), LIMITS.datagrams);
    assert!(reassembly.bytes <= LIMITS.bytes);
    assert_eq!(reassembly.push(&pair(false, 2, 63)[1], 0), Outcome::Stored, "the oldest went first");
    assert!(matches!(reassembly.push(&pair(false, 20, 63)[1], 0), Outcome::Complete(_)));
}

#[test]
fn what_would_not_fit_a_frame_is_refused() {
    for v6 in [false, true] {
        let headers = if v6 { 54 } else { 34 };
        let whole = datagram(v6, 1, 0, &[7; 2000]);
        let cut = |range: Range<usize>| fragment(&whole, 3, range.clone(), range.end != 2008);
        let limit = Outcome::Dropped(DropReason::FragmentLimit);
        let mut reassembly = Reassembly::new(headers + 2007);
        assert_eq!(reassembly.push(&cut(0..1000), 0), Outcome::Stored);
        assert_eq!(reassembly.push(&cut(1000..2008), 0), limit);
        assert_eq!(told(&mut reassembly, 0), [(DropReason::FragmentLimit, 1)]);
        let mut reassembly = Reassembly::new(headers + 2008);
        assert_eq!(reassembly.push(&cut(0..1000), 0), Outcome::Stored);
        assert!(
            matches!(reassembly.push(&cut(1000..2008), 0), Outcome::Complete(frame) if frame.len() == headers + 2008)
        );

        let mut reassembly = Reassembly::new(LARGEST);
        for i in 0..LIMITS.fragments {
            assert_eq!(reassembly.push(&cut(i * 8..i * 8 + 8), 0), Outcome::Stored);
        }
        assert_eq!(reassembly.push(&cut(800..808), 0), limit, "too many crumbs");
    }
    // Options that come with the first fragment count, too.
    let whole = datagram(false, 1, 10, &[7; 1000]);
    let mut reassembly = Reassembly::new(74 + 1007);
    let bare = datagram(false, 1, 0, &[7; 1000]);
    assert_eq!(reassembly.push(&fragment(&bare, 3, 800..1008, false), 0), Outcome::Stored);
    assert_eq!(reassembly.push(&fragment(&whole, 3, 0..800, true), 0), Outcome::Dropped(DropReason::FragmentLimit));
}

#[test]
fn an_atomic_fragment_is_whole_in_itself() {
    let whole = datagram(true, 1, 0, &[7; 100]);
    let mut reassembly = Reassembly::new(LARGEST);
    let [waiting, _] = pair(true, 1, 9);
    assert_eq!(reassembly.push(&waiting, 0), Outcome::Stored);
    assert_eq!(reassembly.push(&fragment(&whole, 9, 0..108, false), 0), Outcome::Complete(whole));
    assert_eq!((reassembly.held(), reassembly.joined()), (1, 1));
}

#[test]
fn a_mark_on_one_fragment_marks_the_whole() {
    for v6 in [false, true] {
        let [a, mut b] = pair(v6, 1, 9);
        b[15] |= if v6 { 0x30 } else { 3 };
        if !v6 {
            mend(&mut b);
        }
        for order in [[&a, &b], [&b, &a]] {
            let mut reassembly = Reassembly::new(LARGEST);
            assert_eq!(reassembly.push(order[0], 0), Outcome::Stored);
            let Outcome::Complete(whole) = reassembly.push(order[1], 0) else { panic!("not complete") };
            assert_eq!(Outer::parse(&whole).unwrap().ecn, Ecn::Ce);
        }
    }
}

#[test]
fn refuses_what_is_no_fragment_of_udp() {
    let malformed = Outcome::Dropped(DropReason::OuterMalformed);
    for v6 in [false, true] {
        let whole = datagram(v6, 1, 0, &[7; 1400]);
        let mut reassembly = Reassembly::new(LARGEST);
        assert_eq!(reassembly.push(&whole, 0), malformed, "not a fragment");
        assert_eq!(reassembly.push(&fragment(&whole, 1, 0..804, true), 0), malformed, "not a multiple of 8");
        assert_eq!(reassembly.push(&fragment(&whole, 1, 800..800, true), 0), malformed, "empty");
        let mut tcp = fragment(&whole, 1, 0..800, true);
        tcp[if v6 { 54 } else { 23 }] = 6;
        if !v6 {
            mend(&mut tcp);
        }
        assert_eq!(reassembly.push(&tcp, 0), malformed, "not UDP");
        let mut beyond = fragment(&whole, 1, 0..800, true);
        beyond[if v6 { 56 } else { 20 }] |= if v6 { 0xff } else { 0x1f };
        beyond[if v6 { 57 } else { 21 }] |= if v6 { 0xf8 } else { 0xff };
        if !v6 {
            mend(&mut beyond);
        }
        assert_eq!(reassembly.push(&beyond, 0), malformed, "beyond 65,535");
        assert_eq!(reassembly.datagrams.len(), 0);
    }
    let mut damaged = pair(false, 1, 1)[0].clone();
    damaged[22] ^= 1;
    assert_eq!(Reassembly::new(LARGEST).push(&damaged, 0), malformed, "a wrong header checksum");
}
