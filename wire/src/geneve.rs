//! The tag of a packet in a trunk: Geneve without options (RFC 8926, 3.4), of which the VNI is the tenant.
//!
//! ```text
//!  0                   1                   2                   3
//! +---+-----------+-+-+-----------+-------------------------------+
//! |Ver|  Opt Len  |O|C|    Rsvd   |         Protocol Type         |
//! | 0 |     0     | |0|     0     | 0x0800, 0x86dd; with O 0x88b5 |
//! +---+-----------+-+-+-----------+---------------+---------------+
//! |                   Tenant (VNI)                |  Reserved, 0  |
//! +-----------------------------------------------+---------------+
//! ```
//!
//! It stands inside what a trunk's session seals, so that nobody on the way reads or changes it. A tenant's id has 24 bits, all of which the
//! VNI has: every id, 0 too, is one that a header may hold.

use crate::{Malformed, TenantId, ethernet};

/// Bytes of the header.
pub const HEADER: usize = 8;

/// EtherType of what hubs say to each other: the first of the two that IEEE 802 leaves to local use (IEEE 802, 9.2.4). Nothing but a hub
/// ever sees it, and Geneve wants some type.
pub const CONTROL: u16 = 0x88b5;

/// The O bit, in the second byte: a control message.
const O: u8 = 0x80;

/// What follows the header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Payload {
    /// An IPv4 packet.
    Ipv4,
    /// An IPv6 packet.
    Ipv6,
    /// A message of the other hub, for this one.
    Control,
}

impl Payload {
    /// That of an inner packet, by its version; `None` if it is neither IPv4 nor IPv6.
    #[inline]
    pub fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Some(Self::Ipv4),
            6 => Some(Self::Ipv6),
            _ => None,
        }
    }
}

/// A tagged payload: nothing is reserved in its header, and an inner packet has the version that the header says.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    fields: Fields,
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Refuses another version, options, a reserved bit, another protocol, and a packet that is not what its header says. Nothing is
    /// ignored: what this version does not know, it can't have meant.
    #[inline]
    pub fn parse(plain: &'a [u8]) -> Result<Self, Malformed> {
        let (header, payload) = plain.split_first_chunk::<HEADER>().ok_or(Malformed::Short)?;
        let &[version_and_options, flags, protocol @ .., high, middle, low, reserved] = header;
        if version_and_options != 0 || flags & !O != 0 || reserved != 0 {
            return Err(Malformed::Reserved);
        }
        let said = match (flags & O != 0, u16::from_be_bytes(protocol)) {
            (false, ethernet::IPV4) => Payload::Ipv4,
            (false, ethernet::IPV6) => Payload::Ipv6,
            (true, CONTROL) => Payload::Control,
            _ => return Err(Malformed::Protocol),
        };
        if said != Payload::Control && Payload::of(payload) != Some(said) {
            return Err(Malformed::Version);
        }
        let tenant = TenantId::of_bits([high, middle, low]);
        Ok(Self { fields: Fields { tenant, payload: said }, payload })
    }

    /// Whose it is. In a control message, whom it is about, if the message is about one tenant.
    #[inline]
    pub fn tenant(&self) -> TenantId {
        self.fields.tenant
    }

    /// What follows.
    #[inline]
    pub fn kind(&self) -> Payload {
        self.fields.payload
    }

    /// All after the header: the packet, and after it the padding.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fields {
    /// The tenant.
    pub tenant: TenantId,
    /// What follows.
    pub payload: Payload,
}

impl Fields {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER]) {
        let (flags, protocol) = match self.payload {
            Payload::Ipv4 => (0, ethernet::IPV4),
            Payload::Ipv6 => (0, ethernet::IPV6),
            Payload::Control => (O, CONTROL),
        };
        let [first, second] = protocol.to_be_bytes();
        let [_, high, middle, low] = self.tenant.as_u32().to_be_bytes();
        *out = [0, flags, first, second, high, middle, low, 0];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant(id: u32) -> TenantId {
        TenantId::new(id.into()).unwrap()
    }

    /// A header and a first byte that goes with it.
    fn tagged(id: u32, payload: Payload) -> [u8; HEADER + 1] {
        let mut plain = [0; HEADER + 1];
        let (header, rest) = plain.split_first_chunk_mut().unwrap();
        Fields { tenant: tenant(id), payload }.emit(header);
        rest[0] = match payload {
            Payload::Ipv4 => 0x45,
            Payload::Ipv6 => 0x60,
            Payload::Control => 0,
        };
        plain
    }

    #[test]
    fn every_field_stands_where_the_rfc_puts_it() {
        assert_eq!(tagged(0x0a_0b0c, Payload::Ipv4)[..8], [0, 0, 0x08, 0x00, 0x0a, 0x0b, 0x0c, 0]);
        assert_eq!(tagged(1001, Payload::Ipv6)[..8], [0, 0, 0x86, 0xdd, 0, 0x03, 0xe9, 0]);
        assert_eq!(tagged(0, Payload::Control)[..8], [0, 0x80, 0x88, 0xb5, 0, 0, 0, 0]);
    }

    #[test]
    fn all_24_bits_of_a_tenants_id_come_back() {
        let ids = (0..24).map(|bit| 1 << bit).chain([0, 1001, 0x0a_0b0c, TenantId::MAX]);
        for (id, payload) in ids.flat_map(|id| [Payload::Ipv4, Payload::Ipv6, Payload::Control].map(|p| (id, p))) {
            let plain = tagged(id, payload);
            let view = View::parse(&plain).unwrap();
            assert_eq!((view.tenant(), view.kind(), view.payload()), (tenant(id), payload, &plain[8..]));
        }
    }

    #[test]
    fn any_flipped_bit_but_the_tenants_is_refused() {
        for payload in [Payload::Ipv4, Payload::Ipv6, Payload::Control] {
            let good = tagged(0x55_aa55, payload);
            for bit in 0..HEADER * 8 {
                let mut wrong = good;
                wrong[bit / 8] ^= 0x80 >> (bit % 8);
                let got = View::parse(&wrong).map(|view| view.tenant());
                match bit {
                    // Version, length of options, C and what is reserved.
                    0..8 | 9..16 | 56..64 => assert_eq!(got, Err(Malformed::Reserved), "bit {bit}"),
                    // O, and the protocol.
                    8 | 16..32 => assert_eq!(got, Err(Malformed::Protocol), "bit {bit}"),
                    _ => assert_eq!(got, Ok(tenant(0x55_aa55 ^ 0x80_0000 >> (bit - 32))), "bit {bit}"),
                }
            }
        }
    }

    #[test]
    fn a_packet_has_the_version_that_its_header_says() {
        for (payload, version) in [(Payload::Ipv4, 4), (Payload::Ipv6, 6)] {
            for first in 0..=255u8 {
                let mut plain = tagged(7, payload);
                plain[HEADER] = first;
                let got = View::parse(&plain).map(|view| view.kind());
                assert_eq!(got, if first >> 4 == version { Ok(payload) } else { Err(Malformed::Version) });
                assert_eq!(Payload::of(&plain[HEADER..]) == Some(payload), first >> 4 == version);
            }
            assert!(matches!(View::parse(&tagged(7, payload)[..HEADER]), Err(Malformed::Version)), "no packet at all");
        }
        let control = tagged(7, Payload::Control);
        assert_eq!(View::parse(&control[..HEADER]).map(|view| view.payload().len()), Ok(0));
        for len in 0..HEADER {
            assert!(matches!(View::parse(&control[..len]), Err(Malformed::Short)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe_and_what_is_read_is_what_would_be_written(
            mut plain in proptest::collection::vec(any::<u8>(), 0..64), likely: bool, protocol in 0usize..4,
        ) {
            if likely && plain.len() >= HEADER {
                let [first, second] = [0x0800u16, 0x86dd, CONTROL, 0x6558][protocol].to_be_bytes();
                plain[..4].copy_from_slice(&[0, if protocol == 2 { O } else { 0 }, first, second]);
                plain[7] = 0;
            }
            if let Ok(view) = View::parse(&plain) {
                let mut header = [0; HEADER];
                view.fields.emit(&mut header);
                prop_assert_eq!([&header, view.payload()].concat(), plain);
            }
        }
    }
}
