//! A tunnel datagram on the way in: Ethernet, IP, UDP.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
};

use crate::{Ecn, FamilyMismatch, Malformed, ethernet, ipv4, ipv6, udp};

/// A site's address and port, and the hub's address that it talks to: in the form that headers have them, so that a worker
/// compares what it receives with what it knows in a few instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Endpoints {
    /// Source and destination address of IPv4, and the source port.
    V4([u8; 8], u16),
    /// The same of IPv6.
    V6([u8; 32], u16),
}

impl Endpoints {
    /// Of a site at `remote` that talks to `local`.
    pub fn new(remote: SocketAddr, local: IpAddr) -> Result<Self, FamilyMismatch> {
        match (remote.ip(), local) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut addresses = [0; 8];
                addresses[..4].copy_from_slice(&from.octets());
                addresses[4..].copy_from_slice(&to.octets());
                Ok(Self::V4(addresses, remote.port()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut addresses = [0; 32];
                addresses[..16].copy_from_slice(&from.octets());
                addresses[16..].copy_from_slice(&to.octets());
                Ok(Self::V6(addresses, remote.port()))
            }
            _ => Err(FamilyMismatch),
        }
    }

    /// The site's address and port.
    pub fn remote(&self) -> SocketAddr {
        match *self {
            Self::V4([a, b, c, d, ..], port) => SocketAddr::from((Ipv4Addr::new(a, b, c, d), port)),
            Self::V6(addresses, port) => {
                let ([source, ..], _) = addresses.as_chunks::<16>() else { unreachable!("two of 16 bytes") };
                SocketAddr::from((Ipv6Addr::from(*source), port))
            }
        }
    }

    /// The hub's address.
    pub fn local(&self) -> IpAddr {
        match *self {
            Self::V4([.., a, b, c, d], _) => Ipv4Addr::new(a, b, c, d).into(),
            Self::V6(addresses, _) => {
                let ([_, destination, ..], _) = addresses.as_chunks::<16>() else { unreachable!("two of 16 bytes") };
                Ipv6Addr::from(*destination).into()
            }
        }
    }
}

/// What the journey reads from the outer headers, once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outer {
    /// Where the datagram says it came from, and the hub's address that it was sent to.
    pub ends: Endpoints,
    /// The port that it was sent to.
    pub port: u16,
    /// Where in the frame the UDP payload lies.
    pub payload: Range<usize>,
    /// The upper six bits of TOS or traffic class.
    pub dscp: u8,
    /// Congestion notification on the path.
    pub ecn: Ecn,
}

impl Outer {
    /// Refuses all but one whole UDP datagram directly over IPv4 (options allowed) or IPv6, with lengths that agree and
    /// a right IPv4 header checksum. A fragment is [`Malformed::Fragment`], which is for reassembly.
    ///
    /// The UDP checksum is not looked at: the tag and the MACs of WireGuard's messages detect more, and a datagram born
    /// on this host comes through veth with a pseudo-header sum in its place.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let ethernet = ethernet::View::parse(frame)?;
        match ethernet.ethertype() {
            ethernet::IPV4 => {
                let ip = ipv4::View::parse(ethernet.payload())?;
                if !ip.verify() {
                    return Err(Malformed::Checksum);
                }
                if ip.protocol() != udp::PROTOCOL {
                    return Err(Malformed::Protocol);
                }
                if ip.is_fragment() {
                    return Err(Malformed::Fragment);
                }
                let udp = udp::View::parse(ip.payload())?;
                Ok(Self {
                    ends: Endpoints::V4(ip.addresses(), udp.source()),
                    port: udp.destination(),
                    payload: payload(ethernet::HEADER + ip.header_len(), &udp),
                    dscp: ip.tos() >> 2,
                    ecn: ip.ecn(),
                })
            }
            ethernet::IPV6 => {
                let ip = ipv6::View::parse(ethernet.payload())?;
                match ip.next_header() {
                    udp::PROTOCOL => {}
                    ipv6::FRAGMENT => return Err(Malformed::Fragment),
                    _ => return Err(Malformed::Protocol),
                }
                let udp = udp::View::parse(ip.payload())?;
                Ok(Self {
                    ends: Endpoints::V6(ip.addresses(), udp.source()),
                    port: udp.destination(),
                    payload: payload(ethernet::HEADER + ipv6::HEADER, &udp),
                    dscp: ip.tos() >> 2,
                    ecn: ip.ecn(),
                })
            }
            _ => Err(Malformed::Protocol),
        }
    }

    /// Where the datagram says it came from.
    pub fn source(&self) -> SocketAddr {
        self.ends.remote()
    }

    /// The hub's address and port that it was sent to.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ends.local(), self.port)
    }
}

#[inline]
fn payload(udp_at: usize, udp: &udp::View<'_>) -> Range<usize> {
    let start = udp_at + udp::HEADER;
    start..start + udp.payload().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;
    fn address() -> impl Strategy<Value = SocketAddr> {
        let v4 = any::<([u8; 4], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        let v6 = any::<([u8; 16], u16)>().prop_map(|(ip, port)| SocketAddr::from((ip, port)));
        prop_oneof![v4, v6]
    }

    /// The frame as etherparse writes it, or `None` if the families differ.
    fn frame(source: SocketAddr, destination: SocketAddr, tos: u8, options: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mut header =
                    etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, a.octets(), b.octets()).ok()?;
                header.dscp = (tos >> 2).try_into().ok()?;
                header.ecn = (tos & 3).try_into().ok()?;
                header.options = options.try_into().ok()?;
                ethernet.ip(etherparse::IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => ethernet.ip(etherparse::IpHeaders::Ipv6(
                etherparse::Ipv6Header {
                    traffic_class: tos,
                    hop_limit: 64,
                    source: a.octets(),
                    destination: b.octets(),
                    ..Default::default()
                },
                Default::default(),
            )),
            _ => return None,
        };
        let mut out = Vec::new();
        ip.udp(source.port(), destination.port()).write(&mut out, payload).ok()?;
        Some(out)
    }

    proptest! {
        #[test]
        fn reads_what_etherparse_wrote(
            source in address(), destination in address(), tos: u8, words in 0usize..=10,
            payload in proptest::collection::vec(any::<u8>(), 0..200), padding in 0usize..20,
        ) {
            let Some(mut bytes) = frame(source, destination, tos, &vec![1; words * 4], &payload) else { return Ok(()) };
            bytes.resize(bytes.len() + padding, 0);
            let outer = Outer::parse(&bytes).unwrap();
            prop_assert_eq!(&bytes[outer.payload.clone()], &payload[..]);
            prop_assert_eq!((outer.source(), outer.destination()), (source, destination));
            prop_assert_eq!(Endpoints::new(source, destination.ip()), Ok(outer.ends));
            prop_assert_eq!(outer.dscp << 2 | outer.ecn as u8, tos);
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), v6: bool, shape: bool) {
            if shape && bytes.len() > 24 {
                bytes[12..15].copy_from_slice(if v6 { &[0x86, 0xdd, 0x60] } else { &[0x08, 0x00, 0x45] });
                bytes[if v6 { 20 } else { 23 }] = 17;
            }
            if let Ok(outer) = Outer::parse(&bytes) {
                prop_assert!(outer.payload.end <= bytes.len() && outer.payload.start <= outer.payload.end);
            }
        }
    }

    #[test]
    fn refuses_by_name() {
        let v4 = frame("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap(), 0, &[], &[7; 20]).unwrap();
        let v6 =
            frame("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap(), 0, &[], &[7; 20]).unwrap();
        // Changes bytes and mends the IPv4 checksum.
        let spoilt = |frame: &[u8], at: usize, bytes: &[u8]| {
            let mut frame = frame.to_vec();
            frame[at..at + bytes.len()].copy_from_slice(bytes);
            if frame[12] == 0x08 {
                frame[24..26].fill(0);
                let checksum = crate::checksum::Sum::ZERO.bytes(&frame[14..34]).finish();
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            Outer::parse(&frame)
        };
        assert_eq!(Outer::parse(&v4[..13]), Err(Malformed::Short));
        assert_eq!(Outer::parse(&v4[..v4.len() - 1]), Err(Malformed::TotalLength));
        assert_eq!(spoilt(&v4, 12, &[0x08, 0x06]), Err(Malformed::Protocol));
        assert_eq!(spoilt(&v4, 23, &[6]), Err(Malformed::Protocol));
        assert_eq!(spoilt(&v4, 20, &[0x20, 0]), Err(Malformed::Fragment));
        assert_eq!(spoilt(&v4, 20, &[0, 1]), Err(Malformed::Fragment));
        assert!(spoilt(&v4, 20, &[0x40, 0]).is_ok(), "DF alone is no fragment");
        assert_eq!(spoilt(&v4, 38, &[0, 7]), Err(Malformed::TotalLength));
        assert_eq!(spoilt(&v4, 38, &[0, 29]), Err(Malformed::TotalLength));
        assert_eq!(spoilt(&v4, 38, &[0, 8]).unwrap().payload, 42..42);
        let mut damaged = v4.clone();
        damaged[22] ^= 1;
        assert_eq!(Outer::parse(&damaged), Err(Malformed::Checksum));
        assert_eq!(spoilt(&v6, 20, &[44]), Err(Malformed::Fragment));
        assert_eq!(spoilt(&v6, 20, &[6]), Err(Malformed::Protocol));
        assert_eq!(spoilt(&v6, 14, &[0x40]), Err(Malformed::Version));
    }
}
