//! The outer headers on the way out, computed once for a path and completed for each packet.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::{
    Malformed,
    checksum::{self, Sum},
    ethernet, ipv4, ipv6, udp,
};

/// TOS or traffic class of handshake messages, as Linux's WireGuard sends them: DSCP AF41. Data has DSCP 0, so that a
/// tunnel does not show which of its packets matter, and the ECN of the packet inside.
pub const HANDSHAKE_TOS: u8 = 0x88;

/// TTL and hop limit: Linux's default.
const TTL: u8 = 64;

const V4: usize = ethernet::HEADER + ipv4::HEADER + udp::HEADER;
const V6: usize = ethernet::HEADER + ipv6::HEADER + udp::HEADER;

/// Where a path begins and ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Path {
    /// The port's MAC address.
    pub source_mac: [u8; 6],
    /// The next hop's MAC address.
    pub destination_mac: [u8; 6],
    /// The hub's address and port.
    pub source: SocketAddr,
    /// The site's endpoint.
    pub destination: SocketAddr,
    /// Compute the UDP checksum over IPv4 too, where it is optional. Over IPv6 it is always computed.
    pub udp_checksum: bool,
}

/// The two ends of a path are of different IP versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FamilyMismatch;

impl fmt::Display for FamilyMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path from IPv4 to IPv6, or from IPv6 to IPv4")
    }
}

impl std::error::Error for FamilyMismatch {}

/// Ethernet, IP and UDP headers of one path.
///
/// Over IPv4, DF is clear, as Linux's WireGuard sends: a link of 1454 or 1492 bytes on the way (PPPoE) then fragments a
/// full datagram, which the other end reassembles, where with DF set it would vanish until an ICMP message, often
/// filtered, has arrived. The packet inside keeps its own DF, and the hub answers for it. Since a router may fragment,
/// the identification must differ from packet to packet (RFC 6864, 4.2): it is an argument.
#[derive(Clone, Debug)]
pub struct Template(Headers);

#[derive(Clone, Debug)]
enum Headers {
    V4 {
        bytes: [u8; V4],
        /// Of the IP header, with tos, length and identification zero.
        ip: Sum,
        /// Of pseudo header and ports, if there is a checksum at all.
        udp: Option<Sum>,
    },
    V6 {
        bytes: [u8; V6],
        udp: Sum,
    },
}

impl Template {
    /// The most that a template needs in front of a payload.
    pub const MAX_LEN: usize = V6;

    /// The headers from `path.source` to `path.destination`.
    pub fn new(path: &Path) -> Result<Self, FamilyMismatch> {
        let ethernet =
            |ethertype| ethernet::Fields { destination: path.destination_mac, source: path.source_mac, ethertype };
        let ports =
            udp::Fields { source: path.source.port(), destination: path.destination.port(), len: 0, checksum: 0 };
        let with_ports = |pseudo: Sum| pseudo.word(ports.source).word(ports.destination);
        let mut udp_header = [0; udp::HEADER];
        ports.emit(&mut udp_header);
        let mut ethernet_header = [0; ethernet::HEADER];

        match (path.source.ip(), path.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip_header = [0; ipv4::HEADER];
                let fields = ipv4::Fields {
                    tos: 0,
                    total_len: 0,
                    id: 0,
                    dont_fragment: false,
                    ttl: TTL,
                    protocol: udp::PROTOCOL,
                    source,
                    destination,
                };
                fields.emit(&mut ip_header);
                ip_header[10..12].fill(0);
                ethernet(ethernet::IPV4).emit(&mut ethernet_header);
                let pseudo = checksum::pseudo_header(&source.octets(), &destination.octets(), udp::PROTOCOL);
                Ok(Self(Headers::V4 {
                    ip: Sum::ZERO.bytes(&ip_header),
                    bytes: joined(&[&ethernet_header, &ip_header, &udp_header]),
                    udp: path.udp_checksum.then(|| with_ports(pseudo)),
                }))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let mut ip_header = [0; ipv6::HEADER];
                let fields = ipv6::Fields {
                    tos: 0,
                    payload_len: 0,
                    next_header: udp::PROTOCOL,
                    hop_limit: TTL,
                    source,
                    destination,
                };
                fields.emit(&mut ip_header);
                ethernet(ethernet::IPV6).emit(&mut ethernet_header);
                let pseudo = checksum::pseudo_header(&source.octets(), &destination.octets(), udp::PROTOCOL);
                Ok(Self(Headers::V6 {
                    bytes: joined(&[&ethernet_header, &ip_header, &udp_header]),
                    udp: with_ports(pseudo),
                }))
            }
            _ => Err(FamilyMismatch),
        }
    }

    /// Bytes of the headers: 42 over IPv4, 62 over IPv6.
    #[inline]
    pub const fn header_len(&self) -> usize {
        match self.0 {
            Headers::V4 { .. } => V4,
            Headers::V6 { .. } => V6,
        }
    }

    /// Completes a frame that holds [`header_len`](Self::header_len) bytes of room and then the whole UDP payload, as
    /// it will be sent. `id` is the IPv4 identification. Refuses what is shorter than the headers, or longer than the
    /// length fields can say.
    #[inline]
    pub fn write(&self, frame: &mut [u8], tos: u8, id: u16) -> Result<(), Malformed> {
        match &self.0 {
            Headers::V4 { bytes, ip, udp } => {
                let (header, payload) = frame.split_first_chunk_mut::<V4>().ok_or(Malformed::Short)?;
                let udp_len = length(udp::HEADER, payload)?;
                let total_len = length(ipv4::HEADER + udp::HEADER, payload)?;
                *header = *bytes;
                header[15] = tos;
                header[16..18].copy_from_slice(&total_len.to_be_bytes());
                header[18..20].copy_from_slice(&id.to_be_bytes());
                let checksum = ip.word(tos as u16).word(total_len).word(id).finish();
                header[24..26].copy_from_slice(&checksum.to_be_bytes());
                header[38..40].copy_from_slice(&udp_len.to_be_bytes());
                if let Some(udp) = udp {
                    // The length counts twice: in the pseudo header and in the header.
                    let checksum = checksum::udp_field(udp.word(udp_len).word(udp_len).bytes(payload));
                    header[40..42].copy_from_slice(&checksum.to_be_bytes());
                }
            }
            Headers::V6 { bytes, udp } => {
                let (header, payload) = frame.split_first_chunk_mut::<V6>().ok_or(Malformed::Short)?;
                let udp_len = length(udp::HEADER, payload)?;
                *header = *bytes;
                header[14] |= tos >> 4;
                header[15] |= tos << 4;
                header[18..20].copy_from_slice(&udp_len.to_be_bytes());
                header[58..60].copy_from_slice(&udp_len.to_be_bytes());
                let checksum = checksum::udp_field(udp.word(udp_len).word(udp_len).bytes(payload));
                header[60..62].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        Ok(())
    }
}

/// Forbids routers to cut a frame that [`Template::write`] has completed: if it is too long for its way, it is lost. IPv6 knows nothing
/// else.
pub fn forbid_cuts(frame: &mut [u8]) {
    const FLAGS: usize = ethernet::HEADER + 6;
    const CHECKSUM: usize = ethernet::HEADER + 10;
    let Some([.., high, low]) = frame.first_chunk::<{ ethernet::HEADER }>() else { return };
    if u16::from_be_bytes([*high, *low]) != ethernet::IPV4 || frame.len() < V4 {
        return;
    }
    let word = |frame: &[u8], at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let (old, checksum) = (word(frame, FLAGS), word(frame, CHECKSUM));
    let new = old | 0x4000;
    frame[FLAGS..FLAGS + 2].copy_from_slice(&new.to_be_bytes());
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum::updated(checksum, old, new).to_be_bytes());
}

#[inline]
fn length(headers: usize, payload: &[u8]) -> Result<u16, Malformed> {
    u16::try_from(headers + payload.len()).map_err(|_| Malformed::TotalLength)
}

/// The parts, one after another; the callers' parts add up to `N`.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(parts.iter().copied().flatten()) {
        *to = *from;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ecn, Outer};
    use etherparse::{NetHeaders, PacketHeaders, SlicedPacket, TransportHeader};
    use proptest::prelude::*;

    fn addresses() -> impl Strategy<Value = (IpAddr, IpAddr)> {
        prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into())),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into())),
        ]
    }

    proptest! {
        #[test]
        fn etherparse_reads_it_and_agrees_on_every_checksum(
            (source, destination) in addresses(), ports: (u16, u16), macs: ([u8; 6], [u8; 6]), udp_checksum: bool,
            tos: u8, id: u16, payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ) {
            let path = Path {
                source_mac: macs.0, destination_mac: macs.1, udp_checksum,
                source: SocketAddr::new(source, ports.0), destination: SocketAddr::new(destination, ports.1),
            };
            let template = Template::new(&path).unwrap();
            let mut frame = vec![0xa5; template.header_len()];
            frame.extend_from_slice(&payload);
            template.write(&mut frame, tos, id).unwrap();

            // Our own reader takes it back.
            let outer = Outer::parse(&frame).unwrap();
            prop_assert_eq!((outer.source(), outer.destination()), (path.source, path.destination));
            prop_assert_eq!((outer.dscp, outer.ecn), (tos >> 2, Ecn::of_tos(tos)));
            prop_assert_eq!(outer.payload, template.header_len()..frame.len());

            // The same, in one piece or not at all.
            let mut whole = frame.clone();
            forbid_cuts(&mut whole);
            let headers = PacketHeaders::from_ethernet_slice(&whole).unwrap();
            if let Some(NetHeaders::Ipv4(ip, _)) = headers.net {
                prop_assert_eq!((ip.dont_fragment, ip.header_checksum), (true, ip.calc_header_checksum()));
                prop_assert_eq!(&whole[26..], &frame[26..]);
            } else {
                prop_assert_eq!(&whole, &frame);
            }

            // And so does a stranger's.
            let headers = PacketHeaders::from_ethernet_slice(&frame).unwrap();
            prop_assert_eq!(headers.payload.slice(), &payload[..]);
            let Some(etherparse::LinkHeader::Ethernet2(ethernet)) = headers.link else { panic!("no Ethernet header") };
            prop_assert_eq!((ethernet.source, ethernet.destination), macs);
            let Some(TransportHeader::Udp(udp)) = headers.transport else { panic!("no UDP header") };
            prop_assert_eq!((udp.source_port, udp.destination_port), ports);
            match headers.net {
                Some(NetHeaders::Ipv4(ip, _)) => {
                    prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
                    prop_assert_eq!((ip.identification, ip.dont_fragment, ip.more_fragments), (id, false, false));
                    let expected = if udp_checksum { udp.calc_checksum_ipv4(&ip, &payload).unwrap() } else { 0 };
                    prop_assert_eq!(udp.checksum, expected);
                }
                Some(NetHeaders::Ipv6(ip, _)) => {
                    prop_assert_eq!((ip.traffic_class, ip.flow_label.value()), (tos, 0));
                    prop_assert_eq!(udp.checksum, udp.calc_checksum_ipv6(&ip, &payload).unwrap());
                }
                other => panic!("no IP header: {other:?}"),
            }
        }
    }

    #[test]
    fn a_checksum_of_zero_is_sent_as_ones() {
        let path = Path {
            source_mac: [2; 6],
            destination_mac: [4; 6],
            source: "[2001:db8::1]:51820".parse().unwrap(),
            destination: "[2001:db8::2]:51820".parse().unwrap(),
            udp_checksum: false,
        };
        let template = Template::new(&path).unwrap();
        let mut frame = [0; V6 + 2];
        template.write(&mut frame, 0, 0).unwrap();
        let checksum = u16::from_be_bytes([frame[60], frame[61]]);
        // The payload word that brings the sum to all ones, so that its complement is zero.
        frame[V6..].copy_from_slice(&checksum.to_be_bytes());
        template.write(&mut frame, 0, 0).unwrap();
        assert_eq!(frame[60..62], [0xff, 0xff]);
        let Some(etherparse::TransportSlice::Udp(udp)) = SlicedPacket::from_ethernet(&frame).unwrap().transport else {
            panic!("no UDP header")
        };
        assert_eq!(udp.checksum(), 0xffff);
    }

    #[test]
    fn refuses_mixed_families_and_lengths_that_do_not_fit() {
        let v4: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let v6: SocketAddr = "[2001:db8::1]:1".parse().unwrap();
        let path = |source, destination| Path {
            source_mac: [2; 6],
            destination_mac: [4; 6],
            source,
            destination,
            udp_checksum: true,
        };
        assert_eq!(Template::new(&path(v4, v6)).err(), Some(FamilyMismatch));
        assert_eq!(Template::new(&path(v6, v4)).err(), Some(FamilyMismatch));
        for (address, headers, largest) in [(v4, 42, 65_535 - 28), (v6, 62, 65_535 - 8)] {
            let template = Template::new(&path(address, address)).unwrap();
            assert_eq!(template.write(&mut vec![0; headers - 1], 0, 0), Err(Malformed::Short));
            assert_eq!(template.write(&mut vec![0; headers + largest], 0, 0), Ok(()));
            assert_eq!(template.write(&mut vec![0; headers + largest + 1], 0, 0), Err(Malformed::TotalLength));
        }
    }
}
