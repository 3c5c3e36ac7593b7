//! Pings (RFC 792, RFC 1122 3.2.2.6; RFC 4443, 4.1 and 4.2): those to an address of the hub, answered in the bytes in which they came;
//! and the hub's own, by which it learns what passes.

use std::net::IpAddr;

use crate::{FamilyMismatch, checksum, ipv4, ipv6};

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

/// Bytes by which the sender of a request knows its reply.
pub const TOKEN: usize = 16;
/// Bytes of the ICMP header of a request or reply.
const ICMP_HEADER: usize = 8;
/// Bytes of the shortest request over IPv6, the longer one.
pub const REQUEST_MIN: usize = ipv6::HEADER + ICMP_HEADER + TOKEN;

/// What tells one request of the hub's, and its reply, from all others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The identifier.
    pub id: u16,
    /// The sequence number.
    pub sequence: u16,
    /// The first bytes of the payload. At the beginning, so that the first fragment of a reply has them: that the whole request
    /// arrived is proved by the seal around it.
    pub token: [u8; TOKEN],
}

/// A packet that answers a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A reply, or the first fragment of one.
    Mark(Mark),
    /// A later fragment.
    Rest,
}

/// An echo request of `len` bytes in all, padded with zeros; of [`REQUEST_MIN`], if that is less.
pub fn request(source: IpAddr, destination: IpAddr, mark: &Mark, len: u16) -> Result<Vec<u8>, FamilyMismatch> {
    let len = len.max(REQUEST_MIN as u16);
    let mut packet = vec![0; len.into()];
    let (message_at, kind, sum) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (tos, id, ttl, protocol) = (0, 0, TTL - 1, ipv4::ICMP);
            let fields =
                ipv4::Fields { tos, total_len: len, id, dont_fragment: true, ttl, protocol, source, destination };
            if let Some(header) = packet.first_chunk_mut() {
                fields.emit(header);
            }
            (ipv4::HEADER, 8, checksum::Sum::ZERO)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let (payload_len, next_header) = (len - ipv6::HEADER as u16, ipv6::ICMP);
            let fields = ipv6::Fields { tos: 0, payload_len, next_header, hop_limit: TTL - 1, source, destination };
            if let Some(header) = packet.first_chunk_mut() {
                fields.emit(header);
            }
            let pseudo = checksum::pseudo_header(&source.octets(), &destination.octets(), ipv6::ICMP);
            (ipv6::HEADER, 128, pseudo.word(payload_len))
        }
        _ => return Err(FamilyMismatch),
    };
    let message = &mut packet[message_at..];
    message[0] = kind;
    message[4..6].copy_from_slice(&mark.id.to_be_bytes());
    message[6..8].copy_from_slice(&mark.sequence.to_be_bytes());
    message[ICMP_HEADER..ICMP_HEADER + TOKEN].copy_from_slice(&mark.token);
    let sum = sum.bytes(message).finish();
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Ok(packet)
}

/// Whether a packet, no longer than its IP length says, is a reply to [`request`], whole or in fragments. The sum of one in fragments
/// is not looked at.
pub fn reply(packet: &[u8]) -> Option<Reply> {
    let (message, kind, first, sum) = match packet.first()? >> 4 {
        4 => {
            let ip = ipv4::View::parse(packet).ok().filter(|ip| ip.protocol() == ipv4::ICMP)?;
            let sum = (!ip.is_fragment()).then_some(checksum::Sum::ZERO);
            (ip.payload(), 0, ip.fragment_offset() == 0, sum)
        }
        _ => {
            let ip = ipv6::View::parse(packet).ok()?;
            let (next_header, payload) = (ip.next_header(), ip.payload());
            if next_header == ipv6::FRAGMENT {
                let (header, message) = payload.split_first_chunk::<{ ipv6::FRAGMENT_HEADER }>()?;
                let offset = u16::from_be_bytes([header[2], header[3]]) & !7;
                (header[0] == ipv6::ICMP).then_some((message, 129, offset == 0, None))?
            } else {
                let sum = checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), ipv6::ICMP);
                (next_header == ipv6::ICMP).then_some((payload, 129, true, Some(sum.word(payload.len() as u16))))?
            }
        }
    };
    if !first {
        return Some(Reply::Rest);
    }
    let [found, code, _, _, i, d, s, q] = *message.first_chunk::<ICMP_HEADER>()?;
    let token = *message.get(ICMP_HEADER..)?.first_chunk()?;
    let right = (found, code) == (kind, 0) && sum.is_none_or(|sum| sum.bytes(message).is_valid());
    let (id, sequence) = (u16::from_be_bytes([i, d]), u16::from_be_bytes([s, q]));
    right.then_some(Reply::Mark(Mark { id, sequence, token }))
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
            let _ = reply(&bytes);
            let _ = answer(&mut bytes);
        }

        #[test]
        fn the_reply_to_an_own_request_is_known(v6: bool, id: u16, sequence: u16, token: [u8; TOKEN], len in 0u16..1500) {
            let (source, destination): (IpAddr, IpAddr) = match v6 {
                false => ("10.9.0.1".parse().unwrap(), "10.9.1.1".parse().unwrap()),
                true => ("fd00:9::1".parse().unwrap(), "fd00:9:1::1".parse().unwrap()),
            };
            let mark = Mark { id, sequence, token };
            let mut packet = super::request(source, destination, &mark, len).unwrap();
            prop_assert_eq!(packet.len(), usize::from(len).max(REQUEST_MIN));
            prop_assert_eq!(reply(&packet), None, "a request is no reply");
            // What any host makes of it.
            let sent = packet.clone();
            let host = SlicedPacket::from_ip(&sent).unwrap();
            prop_assert!(matches!(host.transport, Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_))));
            prop_assert!(answer(&mut packet));
            prop_assert_eq!(reply(&packet), Some(Reply::Mark(mark)));
            let last = packet.len() - 1;
            packet[last] ^= 1;
            prop_assert_eq!(reply(&packet), None, "damaged");
        }
    }

    #[test]
    fn a_reply_in_fragments_is_known_by_the_first() {
        let mark = Mark { id: 7, sequence: 8, token: [9; TOKEN] };
        for (source, destination) in [("10.9.0.1", "10.9.1.1"), ("fd00:9::1", "fd00:9:1::1")] {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
            let mut whole = super::request(source, destination, &mark, 1440).unwrap();
            assert!(answer(&mut whole));
            let fragment = |offset: u16, more: u16, bytes: &[u8]| match source {
                IpAddr::V4(_) => {
                    let mut packet = [&whole[..20], bytes].concat();
                    packet[2..4].copy_from_slice(&(20 + bytes.len() as u16).to_be_bytes());
                    packet[6..8].copy_from_slice(&((more << 13) | (offset / 8)).to_be_bytes());
                    packet
                }
                IpAddr::V6(_) => {
                    let field = (offset | more).to_be_bytes();
                    let mut packet = [&whole[..40], &[ipv6::ICMP, 0, field[0], field[1], 0, 0, 0, 1], bytes].concat();
                    packet[4..6].copy_from_slice(&(8 + bytes.len() as u16).to_be_bytes());
                    packet[6] = ipv6::FRAGMENT;
                    packet
                }
            };
            let message = &whole[if source.is_ipv4() { 20 } else { 40 }..];
            assert_eq!(reply(&fragment(0, 1, &message[..1392])), Some(Reply::Mark(mark)), "{source}");
            assert_eq!(reply(&fragment(1392, 0, &message[1392..])), Some(Reply::Rest), "{source}");
            assert_eq!(reply(&fragment(0, 1, &message[..16])), None, "too short to be known");
        }
        assert!(super::request("10.9.0.1".parse().unwrap(), "fd00::1".parse().unwrap(), &mark, 100).is_err());
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
