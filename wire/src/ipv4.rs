//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use crate::{
    Malformed,
    checksum::{self, Sum},
    ecn::Ecn,
};

/// Bytes of the header without options.
pub const HEADER: usize = 20;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;

const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;

/// A packet whose lengths fit each other and the bytes that are there. The checksum is for [`View::verify`].
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    fixed: &'a [u8; HEADER],
    header: &'a [u8],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Refuses another version and lengths that contradict each other or the bytes. Bytes beyond the total length
    /// (padding) are left out.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let fixed: &[u8; HEADER] = packet.first_chunk().ok_or(Malformed::Short)?;
        let total = u16::from_be_bytes([fixed[2], fixed[3]]) as usize;
        // Nearly every header: without options, its length is a constant for all that follows.
        if fixed[0] == 0x45 {
            let (header, payload) = match packet.get(..total) {
                None => return Err(Malformed::TotalLength),
                Some(packet) => packet.split_at_checked(HEADER).ok_or(Malformed::HeaderLength)?,
            };
            return Ok(Self { fixed, header, payload });
        }
        if fixed[0] >> 4 != 4 {
            return Err(Malformed::Version);
        }
        let header_len = (fixed[0] & 0x0f) as usize * 4;
        if header_len < HEADER {
            return Err(Malformed::HeaderLength);
        }
        let packet = packet.get(..total).ok_or(Malformed::TotalLength)?;
        let (header, payload) = packet.split_at_checked(header_len).ok_or(Malformed::HeaderLength)?;
        Ok(Self { fixed, header, payload })
    }

    /// Whether the header agrees with its checksum.
    #[inline]
    pub fn verify(&self) -> bool {
        checksum::verify_ipv4_header(self.header)
    }

    /// Bytes of the header, options included: 20 to 60.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header.len()
    }

    /// Bytes of the whole packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.header.len() + self.payload.len()
    }

    /// The second byte: DSCP in the upper six bits, ECN in the lower two.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.fixed[1]
    }

    /// Explicit congestion notification.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::of_tos(self.fixed[1])
    }

    /// Identification, which the fragments of a datagram share.
    #[inline]
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.fixed[4], self.fixed[5]])
    }

    /// Routers may not fragment this packet.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags() & DONT_FRAGMENT != 0
    }

    /// Another fragment follows this one.
    #[inline]
    pub fn more_fragments(&self) -> bool {
        self.flags() & MORE_FRAGMENTS != 0
    }

    /// Where the payload belongs in the datagram, in bytes.
    #[inline]
    pub fn fragment_offset(&self) -> usize {
        (self.flags() & OFFSET) as usize * 8
    }

    /// Whether this is a part of a datagram, the first included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags() & (MORE_FRAGMENTS | OFFSET) != 0
    }

    /// Hops left.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.fixed[8]
    }

    /// What the payload is.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.fixed[9]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv4Addr {
        let [.., a, b, c, d, _, _, _, _] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv4Addr {
        let [.., a, b, c, d] = *self.fixed;
        Ipv4Addr::new(a, b, c, d)
    }

    /// Source and destination address, as they stand in the header.
    #[inline]
    pub(crate) fn addresses(&self) -> [u8; 8] {
        let Some(addresses) = self.fixed.last_chunk() else { unreachable!("the header is longer") };
        *addresses
    }

    /// What the packet carries, cut to the total length.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    #[inline]
    fn flags(&self) -> u16 {
        u16::from_be_bytes([self.fixed[6], self.fixed[7]])
    }
}

/// What a header without options says; a whole datagram, never a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes of the whole packet.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Routers may not fragment this packet.
    pub dont_fragment: bool,
    /// Hops left.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub destination: Ipv4Addr,
}

impl Fields {
    /// Writes the header with its checksum.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER]) {
        out[0] = 0x45;
        out[1] = self.tos;
        out[2..4].copy_from_slice(&self.total_len.to_be_bytes());
        out[4..6].copy_from_slice(&self.id.to_be_bytes());
        out[6..8].copy_from_slice(&if self.dont_fragment { DONT_FRAGMENT } else { 0 }.to_be_bytes());
        out[8] = self.ttl;
        out[9] = self.protocol;
        out[10..12].fill(0);
        out[12..16].copy_from_slice(&self.source.octets());
        out[16..].copy_from_slice(&self.destination.octets());
        let checksum = Sum::ZERO.bytes(out).finish();
        out[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{IpNumber, Ipv4Header};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_every_field_that_etherparse_wrote(
            id: u16, dont_fragment: bool, more_fragments: bool, units in 0u16..1 << 13, words in 0usize..=10, payload in 0usize..40,
        ) {
            let mut header = Ipv4Header::new(payload as u16, 64, IpNumber::UDP, [192, 0, 2, 1], [192, 0, 2, 2]).unwrap();
            header.identification = id;
            header.dont_fragment = dont_fragment;
            header.more_fragments = more_fragments;
            header.fragment_offset = units.try_into().unwrap();
            header.options = vec![1; words * 4].as_slice().try_into().unwrap();
            header.total_len = (header.header_len() + payload) as u16;
            header.header_checksum = header.calc_header_checksum();
            let mut packet = header.to_bytes().to_vec();
            packet.resize(packet.len() + payload, 7);

            let view = View::parse(&packet).unwrap();
            prop_assert!(view.verify());
            prop_assert_eq!((view.id(), view.protocol(), view.payload().len()), (id, 17, payload));
            prop_assert_eq!((view.dont_fragment(), view.more_fragments()), (dont_fragment, more_fragments));
            prop_assert_eq!(view.fragment_offset(), units as usize * 8);
            prop_assert_eq!(view.is_fragment(), header.is_fragmenting_payload());
        }
    }
}
