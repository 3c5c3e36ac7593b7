//! TCP and UDP checksums that their sender left to a NIC which never came.
//!
//! A packet that was born on a virtual machine or in a container and comes through `virtio` or `veth` has only the sum of its pseudo
//! header in its checksum field: the kernel says beside the packet that the rest is to be added, and AF_XDP has no place for that.
//!
//! **How such a packet is known.** Let *P* be the folded sum of the pseudo header, which is what such a packet has in its field, and
//! *D* the sum of header and data with the field taken as zero. The right field is *C* = ~(*P* + *D*). If the field is not *P*, the
//! packet is left alone. If it is *P*, it is replaced by *C*. That is right for an unfinished packet. And it changes nothing for a
//! finished and undamaged one whose checksum happens to be *P*: its field is right, so that it equals ~(*P* + *D*) already. (In ones'
//! complement zero has two forms, 0 and ffff, which every receiver takes for the same. *P* is a sum of words of which one, the
//! protocol, is not zero, so it never folds to 0; a UDP field of 0, "no checksum", is therefore never taken for unfinished.) Only of
//! packets that were damaged on their way here, one in 65,536 gets a checksum that fits its damage: as many as a checksum overlooks
//! anyway.

use crate::{
    checksum::{self, Sum},
    ipv4, ipv6, udp,
};

/// Protocol number of TCP.
pub const TCP: u8 = 6;

/// Where the checksum lies in a header, and the shortest header.
const fn checksum_at(protocol: u8) -> Option<(usize, usize)> {
    match protocol {
        TCP => Some((16, 20)),
        udp::PROTOCOL => Some((6, udp::HEADER)),
        ipv6::ICMP => Some((2, 8)),
        _ => None,
    }
}

/// Completes the checksum of a packet which is no longer than its IP length, if it is unfinished; `true` if it was. Fragments are
/// left alone: a kernel finishes a packet before it cuts it.
pub fn complete(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => complete_v4(packet).is_some(),
        Some(6) => complete_v6(packet).is_some(),
        _ => false,
    }
}

fn complete_v4(packet: &mut [u8]) -> Option<()> {
    let ip = ipv4::View::parse(packet).ok()?;
    if ip.is_fragment() || ip.protocol() == ipv6::ICMP {
        return None;
    }
    let pseudo = checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), ip.protocol());
    let (at, protocol, len) = (ip.header_len(), ip.protocol(), ip.payload().len());
    finish(packet.get_mut(at..at + len)?, protocol, pseudo)
}

fn complete_v6(packet: &mut [u8]) -> Option<()> {
    let ip = ipv6::View::parse(packet).ok()?;
    let upper = ip.upper_layer()?;
    // With a routing header the pseudo header has the last destination, which may not be this one.
    if upper.fragment.is_some() || ip.next_header() == ipv6::ROUTING {
        return None;
    }
    let pseudo = checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), upper.protocol);
    let (protocol, len, total) = (upper.protocol, upper.payload.len(), ip.total_len());
    finish(packet.get_mut(total - len..total)?, protocol, pseudo)
}

fn finish(segment: &mut [u8], protocol: u8, pseudo: Sum) -> Option<()> {
    let (at, shortest) = checksum_at(protocol)?;
    if segment.len() < shortest {
        return None;
    }
    let pseudo = pseudo.word(segment.len() as u16);
    let field = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if field != !pseudo.finish() {
        return None;
    }
    segment[at..at + 2].fill(0);
    let sum = pseudo.bytes(segment);
    let right = if protocol == udp::PROTOCOL { checksum::udp_field(sum) } else { sum.finish() };
    segment[at..at + 2].copy_from_slice(&right.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    #[derive(Debug, Clone, Copy)]
    enum Kind {
        Tcp,
        Udp,
        Ping,
    }

    /// A packet as etherparse finishes it, and where its checksum lies.
    fn finished(
        v6: bool,
        kind: Kind,
        addresses: ([u8; 16], [u8; 16]),
        ports: (u16, u16),
        payload: &[u8],
    ) -> (Vec<u8>, usize) {
        let mut packet = Vec::new();
        let (a, b) = addresses;
        let v4 = |bytes: [u8; 16]| *bytes.first_chunk::<4>().unwrap();
        let start = match v6 {
            true => PacketBuilder::ipv6(a, b, 64),
            false => PacketBuilder::ipv4(v4(a), v4(b), 64),
        };
        match kind {
            Kind::Tcp => start.tcp(ports.0, ports.1, 7, 8).write(&mut packet, payload),
            Kind::Udp => start.udp(ports.0, ports.1).write(&mut packet, payload),
            Kind::Ping if v6 => start.icmpv6_echo_request(ports.0, ports.1).write(&mut packet, payload),
            Kind::Ping => start.icmpv4_echo_request(ports.0, ports.1).write(&mut packet, payload),
        }
        .unwrap();
        let at = if v6 { 40 } else { 20 }
            + match kind {
                Kind::Tcp => 16,
                Kind::Udp => 6,
                Kind::Ping => 2,
            };
        (packet, at)
    }

    /// The sum of the pseudo header, as the kernel leaves it.
    fn unfinished(packet: &[u8], at: usize) -> [u8; 2] {
        let sum = match packet[0] >> 4 {
            4 => {
                let ip = ipv4::View::parse(packet).unwrap();
                let pseudo = checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), ip.protocol());
                pseudo.word(ip.payload().len() as u16)
            }
            _ => {
                let ip = ipv6::View::parse(packet).unwrap();
                let pseudo =
                    checksum::pseudo_header(&ip.source().octets(), &ip.destination().octets(), ip.next_header());
                pseudo.word(ip.payload().len() as u16)
            }
        };
        assert!(at + 2 <= packet.len());
        (!sum.finish()).to_be_bytes()
    }

    /// Whether a stranger finds the checksum right, whichever zero it is.
    fn is_right(packet: &[u8]) -> bool {
        let sliced = SlicedPacket::from_ip(packet).unwrap();
        let net = sliced.net.as_ref().unwrap();
        let sum = |protocol| match net {
            etherparse::NetSlice::Ipv4(ip) => {
                checksum::pseudo_header(&ip.header().source(), &ip.header().destination(), protocol)
                    .word(ip.payload().payload.len() as u16)
            }
            etherparse::NetSlice::Ipv6(ip) => {
                checksum::pseudo_header(&ip.header().source(), &ip.header().destination(), protocol)
                    .word(ip.payload().payload.len() as u16)
            }
            etherparse::NetSlice::Arp(_) => panic!("an IP packet"),
        };
        match sliced.transport.as_ref().unwrap() {
            TransportSlice::Tcp(tcp) => sum(TCP).bytes(tcp.slice()).is_valid(),
            TransportSlice::Udp(udp) => udp.checksum() != 0 && sum(udp::PROTOCOL).bytes(udp.slice()).is_valid(),
            TransportSlice::Icmpv6(icmp) => sum(ipv6::ICMP).bytes(icmp.slice()).is_valid(),
            TransportSlice::Icmpv4(icmp) => Sum::ZERO.bytes(icmp.slice()).is_valid(),
            other => panic!("{other:?}"),
        }
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Tcp), Just(Kind::Udp), Just(Kind::Ping)]
    }

    proptest! {
        #[test]
        fn what_is_unfinished_is_finished_and_what_is_finished_stays(
            v6: bool, kind in kinds(), addresses: ([u8; 16], [u8; 16]), ports: (u16, u16),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let (good, at) = finished(v6, kind, addresses, ports, &payload);
            prop_assert!(is_right(&good));
            let mut packet = good.clone();
            let was_unfinished = good[at..at + 2] == unfinished(&good, at);
            prop_assert_eq!(complete(&mut packet), was_unfinished && (v6 || !matches!(kind, Kind::Ping)));
            prop_assert!(is_right(&packet));
            prop_assert!(was_unfinished || packet == good);
            if matches!(kind, Kind::Ping) && !v6 {
                return Ok(()); // ICMP has no pseudo header: no kernel leaves it to a NIC
            }
            packet[at..at + 2].copy_from_slice(&unfinished(&good, at));
            prop_assert!(complete(&mut packet));
            prop_assert_eq!(packet, good);
        }

        /// The payload's last word is chosen so that the right checksum is the sum of the pseudo header: nobody can say whether such
        /// a packet is finished, and nobody need.
        #[test]
        fn a_right_checksum_that_looks_unfinished_stays(
            v6: bool, tcp: bool, addresses: ([u8; 16], [u8; 16]), ports: (u16, u16), words in proptest::collection::vec(any::<[u8; 2]>(), 1..40),
        ) {
            let kind = if tcp { Kind::Tcp } else { Kind::Udp };
            let mut payload = words.concat();
            let last = payload.len() - 2;
            payload[last..].fill(0);
            let (bare, at) = finished(v6, kind, addresses, ports, &payload);
            // Right: P + D + field = ffff. With field = P, the last word must be ~(2P + D), where ~(P + D) = the field of `bare`.
            let p = u16::from_be_bytes(unfinished(&bare, at));
            let c = u16::from_be_bytes([bare[at], bare[at + 1]]);
            let word = checksum::updated(c, 0, p);
            payload[last..].copy_from_slice(&word.to_be_bytes());
            let (mut packet, at) = finished(v6, kind, addresses, ports, &payload);
            prop_assert!(is_right(&packet));
            let field = u16::from_be_bytes([packet[at], packet[at + 1]]);
            prop_assert_eq!(field, p);
            let before = packet.clone();
            prop_assert!(complete(&mut packet));
            prop_assert_eq!(packet, before);
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..100), shape: bool) {
            if shape && bytes.len() > 21 {
                let len = bytes.len() as u8;
                bytes[..4].copy_from_slice(&[0x45, 0, 0, len]);
                bytes[6..10].copy_from_slice(&[0, 0, 64, 6]);
            }
            let _ = complete(&mut bytes);
        }
    }

    #[test]
    fn no_checksum_and_fragments_are_left_alone() {
        let (mut packet, at) = finished(false, Kind::Udp, ([10; 16], [11; 16]), (1, 2), b"hello");
        packet[at..at + 2].fill(0);
        assert!(!complete(&mut packet), "UDP over IPv4 may have none");
        let mut fragment = packet.clone();
        fragment[at..at + 2].copy_from_slice(&unfinished(&packet, at));
        fragment[6] = 0x20;
        assert!(!complete(&mut fragment));
    }
}
