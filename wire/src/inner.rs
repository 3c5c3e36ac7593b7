//! The packet inside the tunnel: what routing needs of it, and what a router changes in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Ecn, Malformed, ipv4, ipv6};

/// What the journey reads from an inner packet, once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Bytes of the packet; what the buffer holds beyond is WireGuard's padding and is to be cut off.
    pub len: usize,
    /// TTL or hop limit, as it arrived.
    pub ttl: u8,
    /// Congestion notification, as it arrived.
    pub ecn: Ecn,
    /// The class of its traffic: six bits.
    pub dscp: u8,
}

impl Inner {
    /// Refuses what is neither IPv4 nor IPv6, a header that contradicts the bytes, and an IPv4 header whose checksum is
    /// wrong: a router must not mend it by its own update (RFC 1812, 5.2.2).
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        match packet.first().map(|byte| byte >> 4) {
            Some(4) => {
                let ip = ipv4::View::parse(packet)?;
                if !ip.verify() {
                    return Err(Malformed::Checksum);
                }
                Ok(Self {
                    source: IpAddr::V4(ip.source()),
                    destination: IpAddr::V4(ip.destination()),
                    len: ip.total_len(),
                    ttl: ip.ttl(),
                    ecn: ip.ecn(),
                    dscp: ip.tos() >> 2,
                })
            }
            Some(6) => {
                let ip = ipv6::View::parse(packet)?;
                Ok(Self {
                    source: IpAddr::V6(ip.source()),
                    destination: IpAddr::V6(ip.destination()),
                    len: ip.total_len(),
                    ttl: ip.hop_limit(),
                    ecn: ip.ecn(),
                    dscp: ip.tos() >> 2,
                })
            }
            Some(_) => Err(Malformed::Version),
            None => Err(Malformed::Short),
        }
    }
}

/// Whether a packet from or to this address must not be forwarded, whatever the routes say: no single host beyond one
/// link has it. What is merely reserved for documentation or private use is the tenant's own affair.
///
/// IPv4: this network, loopback, link-local, multicast, and 240.0.0.0/4 with the limited broadcast (RFC 1812, 4.2.2.11,
/// 5.3.4, 5.3.7; RFC 3927, 7). IPv6: unspecified, loopback, IPv4-mapped, link-local, multicast (RFC 4291, 2.5.2, 2.5.3,
/// 2.5.6, 2.7; RFC 6890, 2.2.3). A hub has no multicast routes, and a unicast one does not stand in for them.
#[inline]
pub fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_martian_v4(address),
        IpAddr::V6(address) => is_martian_v6(address),
    }
}

#[inline]
fn is_martian_v4(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    match first {
        0 | 127 | 224.. => true,
        169 => second == 254,
        _ => false,
    }
}

#[inline]
fn is_martian_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let multicast = bits >> 120 == 0xff;
    let link_local = bits >> 118 == 0xfe80 >> 6;
    let mapped = bits >> 32 == 0xffff;
    multicast || link_local || mapped || bits <= 1
}

/// Takes one hop from a packet that [`Inner::parse`] accepted, with the IPv4 checksum. `false` if none is left to take:
/// then the packet is unchanged, must not be forwarded (RFC 1812, 5.3.1; RFC 8200, 3) and can be quoted to its source
/// as it arrived.
#[inline]
#[must_use]
pub fn decrement_ttl(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk_mut::<{ ipv4::HEADER }>() else { return false };
            if header[8] <= 1 {
                return false;
            }
            header[8] -= 1;
            // The TTL is the upper half of its word (RFC 1141); a sum of 0xffff is written as zero (RFC 1624, 3).
            let checksum = u16::from_be_bytes([header[10], header[11]]) as u32 + 0x0100;
            let checksum = (checksum + (checksum >= 0xffff) as u32) as u16;
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            true
        }
        Some(6) => {
            let Some(header) = packet.first_chunk_mut::<{ ipv6::HEADER }>() else { return false };
            if header[7] <= 1 {
                return false;
            }
            header[7] -= 1;
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_etherparse_wrote_and_takes_one_hop(
            source: [u8; 4], destination: [u8; 4], ttl: u8, tos: u8, id: u16,
            options in (0usize..=10).prop_map(|words| vec![1u8; words * 4]), payload in 0u16..1400, padding in 0usize..16,
        ) {
            let mut header = Ipv4Header::new(payload, ttl, IpNumber::TCP, source, destination).unwrap();
            header.identification = id;
            header.dscp = (tos >> 2).try_into().unwrap();
            header.ecn = (tos & 3).try_into().unwrap();
            header.options = options.as_slice().try_into().unwrap();
            header.total_len = (header.header_len() + payload as usize) as u16;
            header.header_checksum = header.calc_header_checksum();
            let mut packet = header.to_bytes().to_vec();
            packet.resize(header.total_len as usize + padding, 0);

            prop_assert_eq!(Inner::parse(&packet), Ok(Inner {
                source: source.into(), destination: destination.into(), len: header.total_len as usize, ttl, ecn: Ecn::of_tos(tos), dscp: tos >> 2,
            }));
            if decrement_ttl(&mut packet) {
                header.time_to_live -= 1;
                header.header_checksum = header.calc_header_checksum();
            } else {
                prop_assert!(ttl <= 1);
            }
            prop_assert_eq!(Ipv4Header::from_slice(&packet).unwrap().0, header);
        }

        #[test]
        fn reads_ipv6_and_takes_one_hop(
            source: [u8; 16], destination: [u8; 16], hop_limit: u8, traffic_class: u8, label in 0u32..1 << 20,
            payload in 0u16..1400, padding in 0usize..16,
        ) {
            let mut header = Ipv6Header {
                traffic_class, flow_label: Ipv6FlowLabel::try_new(label).unwrap(), payload_length: payload,
                next_header: IpNumber::TCP, hop_limit, source, destination,
            };
            let mut packet = header.to_bytes().to_vec();
            packet.resize(40 + payload as usize + padding, 0);
            prop_assert_eq!(Inner::parse(&packet), Ok(Inner {
                source: source.into(), destination: destination.into(), len: 40 + payload as usize, ttl: hop_limit,
                ecn: Ecn::of_tos(traffic_class), dscp: traffic_class >> 2,
            }));
            if decrement_ttl(&mut packet) {
                header.hop_limit -= 1;
            } else {
                prop_assert!(hop_limit <= 1);
            }
            prop_assert_eq!(Ipv6Header::from_slice(&packet).unwrap().0, header);
        }

        #[test]
        fn any_bytes_are_safe_and_a_length_is_never_beyond_them(mut packet in proptest::collection::vec(any::<u8>(), 0..80), first: u8) {
            if let (Some(byte), true) = (packet.first_mut(), first & 1 == 0) {
                *byte = if first & 2 == 0 { 0x45 } else { 0x60 };
            }
            if let Ok(inner) = Inner::parse(&packet) {
                prop_assert!(inner.len <= packet.len());
            }
            let _ = decrement_ttl(&mut packet);
        }
    }

    #[test]
    fn refuses_by_name() {
        let mut header = Ipv4Header::new(8, 64, IpNumber::UDP, [10, 9, 1, 1], [10, 9, 2, 1]).unwrap();
        header.header_checksum = header.calc_header_checksum();
        let good = [header.to_bytes().as_slice(), &[0; 8]].concat();
        assert!(Inner::parse(&good).is_ok());
        let spoilt = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            Inner::parse(&packet)
        };
        assert_eq!(Inner::parse(&[]), Err(Malformed::Short));
        assert_eq!(Inner::parse(&good[..19]), Err(Malformed::Short));
        assert_eq!(spoilt(0, 0x55), Err(Malformed::Version));
        assert_eq!(spoilt(0, 0x44), Err(Malformed::HeaderLength));
        assert_eq!(spoilt(0, 0x4f), Err(Malformed::HeaderLength));
        assert_eq!(spoilt(2, 0xff), Err(Malformed::TotalLength));
        assert_eq!(spoilt(3, 19), Err(Malformed::HeaderLength));
        assert_eq!(spoilt(8, 63), Err(Malformed::Checksum));
        assert_eq!(Inner::parse(&[0x60; 39]), Err(Malformed::Short));
        assert_eq!(Inner::parse(&[0x60; 41]), Err(Malformed::TotalLength));
    }

    #[test]
    fn the_last_hop_is_not_taken() {
        for ttl in [0, 1, 2] {
            let mut v4 = Ipv4Header::new(0, ttl, IpNumber::UDP, [10, 9, 1, 1], [10, 9, 2, 1]).unwrap();
            v4.header_checksum = v4.calc_header_checksum();
            let v6 = Ipv6Header { hop_limit: ttl, ..Default::default() };
            for before in [v4.to_bytes().to_vec(), v6.to_bytes().to_vec()] {
                let mut packet = before.clone();
                assert_eq!(decrement_ttl(&mut packet), ttl == 2);
                assert_eq!(packet == before, ttl < 2);
            }
        }
    }

    #[test]
    fn what_no_router_forwards_begins_and_ends_where_it_is_assigned() {
        #[rustfmt::skip]
        let rows = [
            // The address before, the first, the last, the address after.
            ["", "0.0.0.0", "0.255.255.255", "1.0.0.0"],
            ["126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"],
            ["169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"],
            ["223.255.255.255", "224.0.0.0", "255.255.255.255", ""],
            ["", "::", "::1", "::2"],
            ["::fffe:ffff:ffff", "::ffff:0:0", "::ffff:ffff:ffff", "::1:0:0:0"],
            ["fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fec0::"],
            ["feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""],
        ];
        for row in rows {
            for (at, text) in row.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
                assert_eq!(is_martian(text.parse().unwrap()), at == 1 || at == 2, "{text}");
            }
        }
        for text in ["10.0.0.1", "100.64.0.1", "172.16.0.1", "192.0.0.8", "192.168.0.255", "198.18.0.1", "203.0.113.1"]
        {
            assert!(!is_martian(text.parse().unwrap()), "{text}");
        }
        for text in ["fd00:9::1", "2001:db8::1", "64:ff9b::1", "fc00::", "2000::"] {
            assert!(!is_martian(text.parse().unwrap()), "{text}");
        }
    }
}
