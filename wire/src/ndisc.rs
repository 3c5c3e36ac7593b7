//! Neighbour discovery for IPv6 (RFC 4861): solicitations and advertisements, each a whole IP packet.

use std::net::Ipv6Addr;

use crate::{Malformed, checksum, ipv6};

/// Bytes of a packet that is written here: IP, message, and one option.
pub const LEN: usize = ipv6::HEADER + MESSAGE + OPTION;
/// The type of a solicitation.
pub const SOLICITATION: u8 = 135;
/// The type of an advertisement.
pub const ADVERTISEMENT: u8 = 136;

const MESSAGE: usize = 24;
const OPTION: usize = 8;
const SOURCE_LINK: u8 = 1;
const TARGET_LINK: u8 = 2;
/// What no router lets through: so the sender is on this link (RFC 4861, 7.1).
const HOP_LIMIT: u8 = 255;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its kind.
    pub kind: Kind,
    /// The packet's source; unspecified where a host first looks whether an address is free (RFC 4862, 5.4).
    pub source: Ipv6Addr,
    /// The packet's destination.
    pub destination: Ipv6Addr,
    /// The address that is asked for or told.
    pub target: Ipv6Addr,
    /// The sender's MAC address in a solicitation, the target's in an advertisement, where it is told.
    pub mac: Option<[u8; 6]>,
}

/// Asks or tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Who has the target?
    Solicitation,
    /// The sender has.
    Advertisement {
        /// The sender is a router.
        router: bool,
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what was known.
        overrides: bool,
    },
}

/// Whether an IPv6 packet is a message for [`Neighbour::parse`], right or wrong.
#[inline]
pub fn is_neighbour(packet: &[u8]) -> bool {
    packet.len() > ipv6::HEADER
        && packet[0] >> 4 == 6
        && packet[6] == ipv6::ICMP
        && matches!(packet[ipv6::HEADER], SOLICITATION | ADVERTISEMENT)
}

impl Neighbour {
    /// Refuses what RFC 4861, 7.1.1 and 7.1.2 tell to discard.
    pub fn parse(packet: &[u8]) -> Result<Self, Malformed> {
        let ip = ipv6::View::parse(packet)?;
        let message = ip.payload();
        let [kind, code, _, _, flags, ..] = *message.first_chunk::<MESSAGE>().ok_or(Malformed::Short)?;
        if ip.next_header() != ipv6::ICMP || ip.hop_limit() != HOP_LIMIT || code != 0 {
            return Err(Malformed::Protocol);
        }
        let (source, destination) = (ip.source(), ip.destination());
        let sum = checksum::pseudo_header(&source.octets(), &destination.octets(), ipv6::ICMP);
        if !sum.word(message.len() as u16).bytes(message).is_valid() {
            return Err(Malformed::Checksum);
        }
        let target: [u8; 16] = *message[8..MESSAGE].first_chunk().ok_or(Malformed::Short)?;
        let target = Ipv6Addr::from(target);
        let (kind, option) = match kind {
            SOLICITATION => (Kind::Solicitation, SOURCE_LINK),
            ADVERTISEMENT => {
                let has = |flag| flags & flag != 0;
                let (router, solicited, overrides) = (has(ROUTER), has(SOLICITED), has(OVERRIDE));
                (Kind::Advertisement { router, solicited, overrides }, TARGET_LINK)
            }
            _ => return Err(Malformed::Protocol),
        };
        let mac = link_address(&message[MESSAGE..], option)?;
        let wrong = target.is_multicast()
            || match kind {
                Kind::Solicitation => {
                    source.is_unspecified() && (mac.is_some() || destination != solicited_node(target))
                }
                Kind::Advertisement { solicited, .. } => destination.is_multicast() && solicited,
            };
        if wrong {
            return Err(Malformed::Protocol);
        }
        Ok(Self { kind, source, destination, target, mac })
    }

    /// The packet; `mac` becomes its option, and is all zeros where it is missing.
    pub fn bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        let (Some((header, message)), mac) = (out.split_first_chunk_mut(), self.mac.unwrap_or_default()) else {
            unreachable!("it is longer than the header")
        };
        let fields = ipv6::Fields {
            tos: 0xc0, // as Linux: CS6, what networks are kept working by
            payload_len: (MESSAGE + OPTION) as u16,
            next_header: ipv6::ICMP,
            hop_limit: HOP_LIMIT,
            source: self.source,
            destination: self.destination,
        };
        fields.emit(header);
        let (kind, flags, option) = match self.kind {
            Kind::Solicitation => (SOLICITATION, 0, SOURCE_LINK),
            Kind::Advertisement { router, solicited, overrides } => {
                let flag = |set, flag| if set { flag } else { 0 };
                let flags = flag(router, ROUTER) | flag(solicited, SOLICITED) | flag(overrides, OVERRIDE);
                (ADVERTISEMENT, flags, TARGET_LINK)
            }
        };
        (message[0], message[4]) = (kind, flags);
        message[8..MESSAGE].copy_from_slice(&self.target.octets());
        message[MESSAGE..MESSAGE + 2].copy_from_slice(&[option, 1]);
        message[MESSAGE + 2..].copy_from_slice(&mac);
        let sum = checksum::pseudo_header(&self.source.octets(), &self.destination.octets(), ipv6::ICMP);
        let sum = sum.word(message.len() as u16).bytes(message).finish();
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        out
    }
}

/// The link address in the options, which must be whole (RFC 4861, 4.6).
fn link_address(mut options: &[u8], wanted: u8) -> Result<Option<[u8; 6]>, Malformed> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let len = usize::from(units) * 8;
        let option = options.get(..len).filter(|_| len > 0).ok_or(Malformed::TotalLength)?;
        if kind == wanted {
            found = option[2..].first_chunk().copied();
        }
        options = &options[len..];
    }
    if options.is_empty() { Ok(found) } else { Err(Malformed::TotalLength) }
}

/// The group in which whoever has an address listens (RFC 4291, 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// The MAC address of an IPv6 group (RFC 2464, 7).
pub fn group_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, SlicedPacket, TransportSlice};
    use proptest::prelude::*;

    fn messages() -> impl Strategy<Value = Neighbour> {
        let flags = (any::<bool>(), any::<bool>(), any::<bool>());
        let unicast = || {
            any::<[u8; 15]>().prop_map(|rest| {
                let mut octets = [0xfd; 16];
                octets[1..].copy_from_slice(&rest);
                Ipv6Addr::from(octets)
            })
        };
        (prop::option::of(flags), unicast(), unicast(), unicast(), any::<[u8; 6]>()).prop_map(
            |(flags, source, destination, target, mac)| {
                let kind = flags.map_or(Kind::Solicitation, |(router, solicited, overrides)| Kind::Advertisement {
                    router,
                    solicited,
                    overrides,
                });
                Neighbour { kind, source, destination, target, mac: Some(mac) }
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_us_and_by_a_stranger(message in messages()) {
            let bytes = message.bytes();
            prop_assert!(is_neighbour(&bytes));
            prop_assert_eq!(Neighbour::parse(&bytes), Ok(message));
            let sliced = SlicedPacket::from_ip(&bytes).unwrap();
            let ip = sliced.net.as_ref().unwrap().ipv6_ref().unwrap();
            prop_assert_eq!(ip.header().next_header(), IpNumber::IPV6_ICMP);
            let Some(TransportSlice::Icmpv6(icmp)) = &sliced.transport else { panic!("no ICMPv6") };
            prop_assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        }

        #[test]
        fn any_change_of_one_byte_is_noticed(message in messages(), at in 40usize..LEN, flip in 1u8..) {
            let mut bytes = message.bytes();
            bytes[at] ^= flip;
            prop_assert!(Neighbour::parse(&bytes).is_err());
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), shape: bool) {
            if shape && bytes.len() > 44 {
                let len = bytes.len() as u8 - 40;
                bytes[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, len, 58, 255]);
                bytes[40..42].copy_from_slice(&[135, 0]);
                bytes[42..44].fill(0);
                let addresses: ([u8; 16], [u8; 16]) = (bytes[8..24].try_into().unwrap(), bytes[24..40].try_into().unwrap());
                let sum = checksum::pseudo_header(&addresses.0, &addresses.1, 58).word(len.into()).bytes(&bytes[40..]).finish();
                bytes[42..44].copy_from_slice(&sum.to_be_bytes());
            }
            let _ = Neighbour::parse(&bytes);
        }
    }

    /// A message with bytes changed and its checksum mended.
    fn changed(message: Neighbour, changes: &[(usize, u8)]) -> Result<Neighbour, Malformed> {
        let mut bytes = message.bytes();
        changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
        bytes[42..44].fill(0);
        let (source, destination): ([u8; 16], [u8; 16]) =
            (bytes[8..24].try_into().unwrap(), bytes[24..40].try_into().unwrap());
        let sum = checksum::pseudo_header(&source, &destination, 58).word(32).bytes(&bytes[40..]).finish();
        bytes[42..44].copy_from_slice(&sum.to_be_bytes());
        Neighbour::parse(&bytes)
    }

    #[test]
    fn what_the_specification_discards_is_refused() {
        let target: Ipv6Addr = "fd00:9:2::fe".parse().unwrap();
        let ask = Neighbour {
            kind: Kind::Solicitation,
            source: "fd00:9:2::1".parse().unwrap(),
            destination: solicited_node(target),
            target,
            mac: Some([2; 6]),
        };
        assert!(changed(ask, &[]).is_ok());
        let wrong: [(&str, &[(usize, u8)]); 5] = [
            ("a router was in between", &[(7, 254)]),
            ("a code", &[(41, 1)]),
            ("an option without a length", &[(65, 0)]),
            ("an option beyond the end", &[(65, 2)]),
            ("a group as the target", &[(48, 0xff)]),
        ];
        for (what, changes) in wrong {
            assert!(changed(ask, changes).is_err(), "{what}");
        }
        let nobody: Vec<_> = (8..24).map(|at| (at, 0)).collect();
        assert!(changed(ask, &nobody).is_err(), "who has no address has no MAC address to be told either");
        let mut probe = nobody.clone();
        probe.push((64, 14)); // a nonce (RFC 7527) in the place of the MAC address
        assert_eq!(changed(ask, &probe).map(|read| (read.source, read.mac)), Ok((Ipv6Addr::UNSPECIFIED, None)));
        probe.push((39, 7));
        assert!(changed(ask, &probe).is_err(), "a probe goes to the target's group");

        let solicited = |solicited| Kind::Advertisement { router: false, solicited, overrides: true };
        let all: Ipv6Addr = "ff02::1".parse().unwrap();
        let tell = |kind| Neighbour { kind, destination: all, ..ask };
        assert!(changed(tell(solicited(false)), &[]).is_ok());
        assert!(changed(tell(solicited(true)), &[]).is_err(), "an answer goes to who asked");
    }

    #[test]
    fn groups_are_those_of_the_specification() {
        let group = solicited_node("fe80::2aa:ff:fe28:9c5a".parse().unwrap());
        assert_eq!(group, "ff02::1:ff28:9c5a".parse::<Ipv6Addr>().unwrap());
        assert_eq!(group_mac(group), [0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a]);
    }
}
