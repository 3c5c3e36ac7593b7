//! What a filter asks of an inner packet besides its addresses: protocol, ports, TCP flags, or that it is a later fragment,
//! which has only the first of these.

use std::net::IpAddr;

use crate::{ipv4, ipv6, tcp, udp};

/// UDP-Lite (RFC 3828), DCCP (RFC 4340) and SCTP (RFC 9260): their ports stand where UDP's do.
const WITH_PORTS: [u8; 5] = [tcp::PROTOCOL, udp::PROTOCOL, 33, 132, 136];

/// Whether packets of this protocol have ports.
pub const fn has_ports(protocol: u8) -> bool {
    let mut at = 0;
    while at < WITH_PORTS.len() {
        if WITH_PORTS[at] == protocol {
            return true;
        }
        at += 1;
    }
    false
}

/// A packet as a filter sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// What the packet carries, behind all extension headers.
    pub protocol: u8,
    /// What stands at the beginning of that; none in a fragment that is not the first.
    pub upper: Option<Upper>,
}

/// The beginning of what a packet carries. Zeros where the protocol has no such thing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Upper {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// TCP flags: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128.
    pub tcp_flags: u8,
}

impl Flow {
    /// `None` if what it asks can't be told for sure: a header is cut short, in a packet or in a first fragment that does not
    /// hold all of it (RFC 1858, 3; RFC 7112, 5); a fragment of TCP begins eight bytes behind the first, which some hosts let
    /// overwrite the flags (RFC 3128, 2); a later fragment does not name what its datagram carries; the chain of extension
    /// headers leaves the packet, or is longer than any that is sent in earnest.
    #[inline]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let ip = ipv4::View::parse(packet).ok()?;
                let (source, destination) = (IpAddr::V4(ip.source()), IpAddr::V4(ip.destination()));
                let upper = Upper::read(ip.protocol(), ip.fragment_offset(), ip.payload())?;
                Some(Self { source, destination, protocol: ip.protocol(), upper })
            }
            6 => {
                let ip = ipv6::View::parse(packet).ok()?;
                let (source, destination) = (IpAddr::V6(ip.source()), IpAddr::V6(ip.destination()));
                let layer = ip.upper_layer()?;
                let offset = layer.fragment.map_or(0, |fragment| fragment.offset);
                if offset != 0 && ipv6::is_extension(layer.protocol) {
                    return None;
                }
                let upper = Upper::read(layer.protocol, offset, layer.payload)?;
                Some(Self { source, destination, protocol: layer.protocol, upper })
            }
            _ => None,
        }
    }
}

impl Upper {
    #[inline]
    fn read(protocol: u8, offset: usize, payload: &[u8]) -> Option<Option<Self>> {
        if offset != 0 {
            return (protocol != tcp::PROTOCOL || offset != 8).then_some(None);
        }
        if protocol == tcp::PROTOCOL {
            let header: &[u8; tcp::HEADER] = payload.first_chunk()?;
            let [a, b, c, d, ..] = *header;
            return Some(Some(Self {
                source_port: u16::from_be_bytes([a, b]),
                destination_port: u16::from_be_bytes([c, d]),
                tcp_flags: header[tcp::FLAGS],
            }));
        }
        if !has_ports(protocol) {
            return Some(Some(Self::default()));
        }
        // The least that a fragment which is not the last can carry is as much as UDP's header.
        let [a, b, c, d, ..] = *payload.first_chunk::<{ udp::HEADER }>()?;
        let (source_port, destination_port) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Some(Some(Self { source_port, destination_port, tcp_flags: 0 }))
    }
}

/// A number by which packets are spread over several ways: the same for all packets of a flow, and with another `seed` or for another
/// flow as good as drawn.
///
/// A flow is what has the same addresses, protocol and ports. Only the first fragment of a datagram has ports, so that of all
/// fragments, and of whatever hides them, the addresses alone count.
#[inline]
pub fn spread(packet: &[u8], seed: u32) -> u32 {
    let (addresses, upper) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => match ipv4::View::parse(packet) {
            Ok(ip) => {
                let addresses = u64::from(ip.source().to_bits()) << 32 | u64::from(ip.destination().to_bits());
                let upper = if ip.is_fragment() { 0 } else { beginning(ip.protocol(), ip.payload()) };
                (addresses, upper)
            }
            Err(_) => (0, 0),
        },
        Some(6) => match ipv6::View::parse(packet) {
            Ok(ip) => {
                let halves = |address: std::net::Ipv6Addr| (address.to_bits() as u64, (address.to_bits() >> 64) as u64);
                let ((a, b), (c, d)) = (halves(ip.source()), halves(ip.destination()));
                let layer = ip.upper_layer().filter(|layer| layer.fragment.is_none());
                (fold(fold(a, b) ^ c, d), layer.map_or(0, |layer| beginning(layer.protocol, layer.payload)))
            }
            Err(_) => (0, 0),
        },
        _ => (0, 0),
    };
    let mixed = fold(addresses, upper) ^ u64::from(seed);
    (fold(mixed, 0) >> 32) as u32
}

/// Protocol and ports, in a word that isn't zero.
#[inline]
fn beginning(protocol: u8, payload: &[u8]) -> u64 {
    let ports =
        payload.first_chunk::<4>().filter(|_| has_ports(protocol)).map_or(0, |ports| u32::from_be_bytes(*ports));
    1 << 40 | u64::from(protocol) << 32 | u64::from(ports)
}

/// Two words into one, of which each bit depends on all bits of both: the halves of a product. The numbers are digits of pi.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ 0x243f_6a88_85a3_08d3) * u128::from(b ^ 0x1319_8a2e_0370_7344);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests;
