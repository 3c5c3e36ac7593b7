//! IPv6 (RFC 8200).

use std::net::Ipv6Addr;

use crate::{Malformed, ecn::Ecn};

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// What every link takes (RFC 8200, 5).
pub const MTU_MIN: usize = 1280;
/// Bytes of the fragment header (RFC 8200, 4.5).
pub const FRAGMENT_HEADER: usize = 8;

/// Next header: hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const ROUTING: u8 = 43;
/// Next header: fragment.
pub const FRAGMENT: u8 = 44;
/// Next header: authentication (RFC 4302).
pub const AUTHENTICATION: u8 = 51;
/// Next header: ICMPv6.
pub const ICMP: u8 = 58;
/// Next header: destination options.
pub const DESTINATION_OPTIONS: u8 = 60;

/// Extension headers that are looked behind. The order that RFC 8200, 4.1 recommends has seven; each one costs
/// whoever walks the chain.
const EXTENSIONS_MAX: usize = 8;

/// Whether a next header is one that [`View::upper_layer`] looks behind.
#[inline]
pub const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | AUTHENTICATION | FRAGMENT)
}

/// A packet whose payload length fits the bytes that are there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    fixed: &'a [u8; HEADER],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Refuses another version and a payload length beyond the bytes. Bytes beyond it (padding) are left out. Jumbograms
    /// (RFC 2675) fit no frame of ours: their length of zero is taken as it stands.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        let (fixed, rest) = packet.split_first_chunk::<HEADER>().ok_or(Malformed::Short)?;
        if fixed[0] >> 4 != 6 {
            return Err(Malformed::Version);
        }
        let len = u16::from_be_bytes([fixed[4], fixed[5]]) as usize;
        let payload = rest.get(..len).ok_or(Malformed::TotalLength)?;
        Ok(Self { fixed, payload })
    }

    /// Bytes of the whole packet.
    #[inline]
    pub fn total_len(&self) -> usize {
        HEADER + self.payload.len()
    }

    /// The traffic class: DSCP in the upper six bits, ECN in the lower two.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.fixed[0] << 4 | self.fixed[1] >> 4
    }

    /// Explicit congestion notification.
    #[inline]
    pub fn ecn(&self) -> Ecn {
        Ecn::of_tos(self.fixed[1] >> 4)
    }

    /// What follows the fixed header.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.fixed[6]
    }

    /// Hops left.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.fixed[7]
    }

    /// Source address.
    #[inline]
    pub fn source(&self) -> Ipv6Addr {
        address(self.fixed, 8)
    }

    /// Destination address.
    #[inline]
    pub fn destination(&self) -> Ipv6Addr {
        address(self.fixed, 24)
    }

    /// Source and destination address, as they stand in the header.
    #[inline]
    pub(crate) fn addresses(&self) -> [u8; 32] {
        let Some(addresses) = self.fixed.last_chunk() else { unreachable!("the header is longer") };
        *addresses
    }

    /// What the packet carries after the fixed header, extension headers included, cut to the payload length.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// Walks the extension headers to what the packet carries. `None` if the chain leaves the packet, or has more than eight.
    pub fn upper_layer(&self) -> Option<UpperLayer<'a>> {
        let (mut kind, mut rest) = (self.next_header(), self.payload);
        let mut fragment = None;
        for _ in 0..=EXTENSIONS_MAX {
            let len = match kind {
                HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (*rest.get(1)? as usize + 1) * 8,
                AUTHENTICATION => (*rest.get(1)? as usize + 2) * 4,
                FRAGMENT => {
                    let header = Fragment::parse(rest)?;
                    fragment = Some(header);
                    if header.offset != 0 {
                        // The chain goes on in the first fragment; here are bytes from the middle.
                        return Some(UpperLayer { protocol: header.next_header, fragment, payload: &rest[..0] });
                    }
                    FRAGMENT_HEADER
                }
                protocol => return Some(UpperLayer { protocol, fragment, payload: rest }),
            };
            kind = *rest.first()?;
            rest = rest.get(len..)?;
        }
        None
    }
}

/// What stands behind the extension headers.
#[derive(Clone, Copy, Debug)]
pub struct UpperLayer<'a> {
    /// What the payload is.
    pub protocol: u8,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// What the packet carries; empty in a fragment that is not the first.
    pub payload: &'a [u8],
}

/// A fragment header (RFC 8200, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fragment {
    /// What the datagram's first fragment begins with.
    pub next_header: u8,
    /// Where what follows belongs in the datagram, in bytes.
    pub offset: usize,
    /// Another fragment follows this one.
    pub more: bool,
    /// What the fragments of a datagram share.
    pub id: u32,
}

impl Fragment {
    /// Reads a fragment header from its first byte.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [next_header, _, a, b, i, j, k, l] = *bytes.first_chunk::<FRAGMENT_HEADER>()?;
        let field = u16::from_be_bytes([a, b]);
        Some(Self {
            next_header,
            offset: (field & !7) as usize,
            more: field & 1 != 0,
            id: u32::from_be_bytes([i, j, k, l]),
        })
    }
}

/// What a header without extensions says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes after the fixed header.
    pub payload_len: u16,
    /// What the payload is.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: Ipv6Addr,
    /// Destination address.
    pub destination: Ipv6Addr,
}

impl Fields {
    /// Writes the header, with flow label zero.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER]) {
        out[0] = 0x60 | self.tos >> 4;
        out[1] = self.tos << 4;
        out[2..4].fill(0);
        out[4..6].copy_from_slice(&self.payload_len.to_be_bytes());
        out[6] = self.next_header;
        out[7] = self.hop_limit;
        out[8..24].copy_from_slice(&self.source.octets());
        out[24..].copy_from_slice(&self.destination.octets());
    }
}

/// The address at a place in the header. Called with 8 and 24 only; anything else that fits would do no harm.
#[inline(always)]
fn address(header: &[u8; HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}
