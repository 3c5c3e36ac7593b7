//! Pings to an address of the hub (RFC 792, RFC 1122 3.2.2.6; RFC 4443, 4.1 and 4.2), answered in the bytes in which they came.

use crate::{checksum, ipv4, ipv6};

/// TTL and hop limit of an answer that a router decrements once more on its way out: it leaves with 64.
const TTL: u8 = 65;

/// Turns a request into its reply, in place; `false`, and nothing changed, if it is no whole echo request, or damaged. The packet
/// must be no longer than its IP length says.
pub fn answer(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => answer_v4(packet).is_some(),
        Some(6) => answer_v6(packet).is_some(),
        _ => false,
    }
}

fn answer_v4(packet: &mut [u8]) -> Option<()> {
    let ip = ipv4::View::parse(packet).ok()?;
    let (start, [kind, code, ..]) = (ip.header_len(), *ip.payload().first_chunk::<8>()?);
    if ip.protocol() != ipv4::ICMP || ip.is_fragment() || (kind, code) != (8, 0) {
        return None;
    }
    if !checksum::Sum::ZERO.bytes(ip.payload()).is_valid() {
        return None;
    }
    let (header, message) = packet.split_at_mut(start);
    // A source route or a record of one is not gone back; the bytes stay as harmless as a reply's may be (RFC 1122, 3.2.2.6).
    header[ipv4::HEADER..].fill(0);
    let (source, destination) = header[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    header[8] = TTL;
    header[10..12].fill(0);
    let sum = checksum::Sum::ZERO.bytes(header).finish();
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    message[0] = 0;
    renew(&mut message[2..4], [8, 0], [0, 0]);
    Some(())
}

fn answer_v6(packet: &mut [u8]) -> Option<()> {
    let ip = ipv6::View::parse(packet).ok()?;
    let [kind, code, ..] = *ip.payload().first_chunk::<8>()?;
    if ip.next_header() != ipv6::ICMP || (kind, code) != (128, 0) {
        return None;
    }
    let sum = checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), ipv6::ICMP);
    if !sum.word(ip.payload().len() as u16).bytes(ip.payload()).is_valid() {
        return None;
    }
    let (header, message) = packet.split_at_mut(ipv6::HEADER);
    let (source, destination) = header[8..40].split_at_mut(16);
    source.swap_with_slice(destination);
    header[7] = TTL;
    message[0] = 129;
    renew(&mut message[2..4], [128, 0], [129, 0]);
    Some(())
}

/// A checksum after a word that it covers changed.
fn renew(sum: &mut [u8], old: [u8; 2], new: [u8; 2]) {
    let now = checksum::updated(u16::from_be_bytes([sum[0], sum[1]]), u16::from_be_bytes(old), u16::from_be_bytes(new));
    sum.copy_from_slice(&now.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn request(v6: bool, id: u16, seq: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        match v6 {
            false => PacketBuilder::ipv4([10, 9, 1, 1], [10, 9, 2, 254], 1)
                .icmpv4_echo_request(id, seq)
                .write(&mut packet, payload),
            true => {
                PacketBuilder::ipv6([0xfd; 16], [0xfc; 16], 1).icmpv6_echo_request(id, seq).write(&mut packet, payload)
            }
        }
        .unwrap();
        packet
    }

    proptest! {
        #[test]
        fn a_request_becomes_its_reply(v6: bool, id: u16, seq: u16, payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut packet = request(v6, id, seq, &payload);
            prop_assert!(answer(&mut packet));
            prop_assert!(crate::decrement_ttl(&mut packet));
            let reply = packet.clone();
            let sliced = SlicedPacket::from_ip(&reply).unwrap();
            match (sliced.net.as_ref().unwrap(), sliced.transport.as_ref().unwrap()) {
                (etherparse::NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
                    prop_assert_eq!((ip.header().source(), ip.header().destination()), ([10, 9, 2, 254], [10, 9, 1, 1]));
                    prop_assert_eq!((ip.header().ttl(), ip.header().header_checksum()), (64, ip.header().to_header().calc_header_checksum()));
                    prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::EchoReply(etherparse::IcmpEchoHeader { id, seq }));
                    prop_assert!(checksum::Sum::ZERO.bytes(icmp.slice()).is_valid());
                    prop_assert_eq!(icmp.payload(), &payload[..]);
                }
                (etherparse::NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
                    let (source, destination) = (ip.header().source(), ip.header().destination());
                    prop_assert_eq!((source, destination, ip.header().hop_limit()), ([0xfc; 16], [0xfd; 16], 64));
                    prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::EchoReply(etherparse::IcmpEchoHeader { id, seq }));
                    prop_assert!(icmp.is_checksum_valid(source, destination));
                    prop_assert_eq!(icmp.payload(), &payload[..]);
                }
                other => panic!("{other:?}"),
            }
            prop_assert!(!answer(&mut packet), "a reply is no request");
        }

        #[test]
        fn a_damaged_one_is_left_as_it_is(v6: bool, at in 0usize..16, flip in 1u8..) {
            let mut packet = request(v6, 1, 2, &[7; 8]);
            let at = packet.len() - 16 + at;
            packet[at] ^= flip;
            let before = packet.clone();
            prop_assert!(!answer(&mut packet));
            prop_assert_eq!(packet, before);
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&mut bytes);
        }
    }

    #[test]
    fn a_fragment_is_not_answered() {
        let mut packet = request(false, 1, 2, &[7; 8]);
        packet[6] = 0x20;
        packet[10..12].fill(0);
        let sum = checksum::Sum::ZERO.bytes(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        assert!(!answer(&mut packet));
    }
}
