//! ARP for IPv4 over Ethernet (RFC 826).

use std::net::Ipv4Addr;

use crate::Malformed;

/// Bytes of a message.
pub const LEN: usize = 28;
/// EtherType of ARP.
pub const ETHERTYPE: u16 = 0x0806;

/// Ethernet, IPv4, and the lengths of their addresses.
const KIND: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// Asks or answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Who has the target's address?
    Request,
    /// The sender has.
    Reply,
}

/// What a message says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arp {
    /// Asks or answers.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: [u8; 6],
    /// The sender's address; unspecified in a probe (RFC 5227).
    pub sender: Ipv4Addr,
    /// The target's MAC address; zeros in a request.
    pub target_mac: [u8; 6],
    /// The target's address.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Refuses what is not for IPv4 over Ethernet, and operations other than these two.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let bytes = message.first_chunk::<LEN>().ok_or(Malformed::Short)?;
        let ([kind @ .., _, _], rest) = bytes.split_first_chunk::<8>().ok_or(Malformed::Short)?;
        if *kind != KIND {
            return Err(Malformed::Protocol);
        }
        let operation = match [bytes[6], bytes[7]] {
            [0, 1] => Operation::Request,
            [0, 2] => Operation::Reply,
            _ => return Err(Malformed::Protocol),
        };
        let &[a, b, c, d, e, f, s0, s1, s2, s3, g, h, i, j, k, l, t0, t1, t2, t3] =
            rest.first_chunk::<20>().ok_or(Malformed::Short)?;
        Ok(Self {
            operation,
            sender_mac: [a, b, c, d, e, f],
            sender: Ipv4Addr::new(s0, s1, s2, s3),
            target_mac: [g, h, i, j, k, l],
            target: Ipv4Addr::new(t0, t1, t2, t3),
        })
    }

    /// The message.
    pub fn bytes(&self) -> [u8; LEN] {
        let mut out = [0; LEN];
        out[..6].copy_from_slice(&KIND);
        out[7] = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        out[8..14].copy_from_slice(&self.sender_mac);
        out[14..18].copy_from_slice(&self.sender.octets());
        out[18..24].copy_from_slice(&self.target_mac);
        out[24..].copy_from_slice(&self.target.octets());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{ArpEthIpv4Packet, ArpHardwareId, ArpOperation, ArpPacket, EtherType};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_stranger_reads_what_is_written_and_writes_what_is_read(
            request: bool, macs: ([u8; 6], [u8; 6]), addresses: ([u8; 4], [u8; 4]),
        ) {
            let operation = if request { Operation::Request } else { Operation::Reply };
            let arp = Arp {
                operation, sender_mac: macs.0, sender: addresses.0.into(), target_mac: macs.1, target: addresses.1.into(),
            };
            let theirs = ArpEthIpv4Packet {
                operation: if request { ArpOperation::REQUEST } else { ArpOperation::REPLY },
                sender_mac: macs.0, sender_ipv4: addresses.0, target_mac: macs.1, target_ipv4: addresses.1,
            };
            prop_assert_eq!(&theirs.to_bytes()[..], &arp.bytes()[..]);
            prop_assert_eq!(Arp::parse(&theirs.to_bytes()), Ok(arp));
        }

        #[test]
        fn any_bytes_are_safe(mut bytes in proptest::collection::vec(any::<u8>(), 0..40), shape: bool) {
            if shape && bytes.len() > 8 {
                bytes[..6].copy_from_slice(&KIND);
            }
            let _ = Arp::parse(&bytes);
        }
    }

    #[test]
    fn other_networks_and_operations_are_refused() {
        let token_ring = ArpPacket::new(
            ArpHardwareId(6),
            EtherType::IPV4,
            ArpOperation::REQUEST,
            &[1; 6],
            &[1; 4],
            &[2; 6],
            &[2; 4],
        );
        assert_eq!(Arp::parse(&token_ring.unwrap().to_bytes()), Err(Malformed::Protocol));
        let reverse = ArpPacket::new(
            ArpHardwareId::ETHERNET,
            EtherType::IPV4,
            ArpOperation(3),
            &[1; 6],
            &[1; 4],
            &[2; 6],
            &[2; 4],
        );
        assert_eq!(Arp::parse(&reverse.unwrap().to_bytes()), Err(Malformed::Protocol));
        assert_eq!(Arp::parse(&[0; LEN - 1]), Err(Malformed::Short));
    }
}
