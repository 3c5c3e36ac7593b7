//! VLAN tags in front of a packet (IEEE 802.1Q, 9.5 and 9.6): none, one, or two (QinQ).

use std::fmt;

use crate::{Malformed, ethernet};

/// Bytes of one tag.
pub const TAG: usize = 4;
/// The type of a customer's tag (802.1Q).
pub const CUSTOMER: u16 = 0x8100;
/// The type of a provider's tag (802.1ad).
pub const SERVICE: u16 = 0x88a8;
/// The largest id that a VLAN can have: 4095 is reserved, and 0 says that there is none.
pub const ID_MAX: u16 = 4094;
/// Bytes of the longest header: Ethernet with two tags.
pub const HEADER_MAX: usize = ethernet::HEADER + 2 * TAG;

const ID: u16 = 0x0fff;
/// Stands for an inner tag that no VLAN here can have, as in `steer.bpf.c`.
const NONE: u16 = 0xffff;

/// The VLAN of a frame, by its tags. Two are equal if the same stations hear their frames; priorities do not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Vlan {
    outer_type: u16,
    outer: u16,
    inner: u16,
}

impl Vlan {
    /// Frames without a tag.
    pub const UNTAGGED: Self = Self { outer_type: 0, outer: 0, inner: 0 };

    /// One tag of type 802.1Q; `None` if no VLAN can have this id.
    pub fn tagged(id: u16) -> Option<Self> {
        is_id(id).then_some(Self { outer_type: CUSTOMER, outer: id, inner: 0 })
    }

    /// Two tags, the outer one of type [`SERVICE`] or [`CUSTOMER`]; `None` if no VLAN can have one of the ids, or the type is
    /// another.
    pub fn double(outer_type: u16, outer: u16, inner: u16) -> Option<Self> {
        let right = is_id(outer) && is_id(inner) && (outer_type == SERVICE || outer_type == CUSTOMER);
        right.then_some(Self { outer_type, outer, inner })
    }

    /// The type of the outer tag and the ids, outer first; zeros for what is not there.
    pub const fn parts(self) -> (u16, u16, u16) {
        (self.outer_type, self.outer, self.inner)
    }

    /// Bytes of an Ethernet header with these tags.
    #[inline]
    pub const fn header_len(self) -> usize {
        match self {
            Self { outer_type: 0, .. } => ethernet::HEADER,
            Self { inner: 0, .. } => ethernet::HEADER + TAG,
            _ => HEADER_MAX,
        }
    }

    /// Writes an Ethernet header with these tags, of priority 0, into the first [`header_len`](Self::header_len) bytes.
    #[inline]
    pub fn emit(self, fields: &ethernet::Fields, out: &mut [u8]) -> Result<(), Malformed> {
        let out = out.get_mut(..self.header_len()).ok_or(Malformed::Short)?;
        out[..6].copy_from_slice(&fields.destination);
        out[6..12].copy_from_slice(&fields.source);
        let words = [self.outer_type, self.outer, CUSTOMER, self.inner];
        let of_tags = if self.outer_type == 0 { 0 } else { (self.header_len() - ethernet::HEADER) / 2 };
        for (place, word) in
            out[12..].chunks_exact_mut(2).zip(words.into_iter().take(of_tags).chain([fields.ethertype]))
        {
            place.copy_from_slice(&word.to_be_bytes());
        }
        Ok(())
    }
}

const fn is_id(id: u16) -> bool {
    1 <= id && id <= ID_MAX
}

/// As it names an end: nothing, `100` or `10.100`.
impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { outer_type: 0, .. } => Ok(()),
            Self { inner: 0, outer, .. } => write!(f, "{outer}"),
            Self { inner, outer, .. } => write!(f, "{outer}.{inner}"),
        }
    }
}

/// An Ethernet header with its tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tagged {
    /// The VLAN.
    pub vlan: Vlan,
    /// Source address.
    pub source: [u8; 6],
    /// What follows the tags.
    pub ethertype: u16,
    /// Where that begins.
    pub payload_at: usize,
}

impl Tagged {
    /// Reads all tags of a frame, as `find_place` of `steer.bpf.c` does: one for VLAN 0 alone tells a priority and no VLAN, and what
    /// no end can have (three tags, other types inside) is a VLAN that equals none that can be made.
    #[inline]
    pub fn parse(frame: &[u8]) -> Result<Self, Malformed> {
        let ethernet = ethernet::View::parse(frame)?;
        let (source, mut vlan) = (ethernet.source(), Vlan::UNTAGGED);
        let (mut ethertype, mut rest) = (ethernet.ethertype(), ethernet.payload());
        if is_tag(ethertype) {
            let (id, next) = tag(rest)?;
            (vlan.outer_type, vlan.outer) = (ethertype, id);
            (ethertype, rest) = (next, &rest[TAG..]);
            if is_tag(ethertype) {
                let (id, next) = tag(rest)?;
                let right = ethertype == CUSTOMER && !is_tag(next) && id != 0;
                vlan.inner = if right { id } else { NONE };
                (ethertype, rest) = (next, &rest[TAG..]);
            } else if id == 0 {
                vlan.outer_type = 0;
            }
        }
        Ok(Self { vlan, source, ethertype, payload_at: frame.len() - rest.len() })
    }
}

const fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER || ethertype == SERVICE
}

/// The id of a tag, and the type of what follows.
fn tag(bytes: &[u8]) -> Result<(u16, u16), Malformed> {
    let [a, b, c, d] = *bytes.first_chunk::<TAG>().ok_or(Malformed::Short)?;
    Ok((u16::from_be_bytes([a, b]) & ID, u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{SlicedPacket, VlanId, VlanSlice};
    use proptest::prelude::*;

    fn vlans() -> impl Strategy<Value = Vlan> {
        let id = 1..=ID_MAX;
        prop_oneof![
            Just(Vlan::UNTAGGED),
            id.clone().prop_map(|id| Vlan::tagged(id).unwrap()),
            (id.clone(), id, any::<bool>()).prop_map(|(a, b, s)| Vlan::double(
                if s { SERVICE } else { CUSTOMER },
                a,
                b
            )
            .unwrap()),
        ]
    }

    fn header(vlan: Vlan) -> Vec<u8> {
        let fields = ethernet::Fields { destination: [2; 6], source: [4; 6], ethertype: ethernet::IPV4 };
        let mut bytes = vec![0xa5; vlan.header_len()];
        vlan.emit(&fields, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_by_us_and_by_a_stranger(vlan in vlans(), payload in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut frame = header(vlan);
            let at = frame.len();
            frame.extend(&payload);
            let read = Tagged::parse(&frame).unwrap();
            prop_assert_eq!(read, Tagged { vlan, source: [4; 6], ethertype: ethernet::IPV4, payload_at: at });

            frame.extend([0x45, 0, 0, 20, 0, 0, 0, 0, 64, 255, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
            let frame = [&frame[..at], &frame[at + payload.len()..]].concat();
            let ids: Vec<u16> = match SlicedPacket::from_ethernet(&frame).unwrap().vlan() {
                None => vec![],
                Some(VlanSlice::SingleVlan(tag)) => vec![tag.vlan_identifier().value()],
                Some(VlanSlice::DoubleVlan(tags)) =>
                    [tags.outer, tags.inner].map(|tag| VlanId::value(tag.vlan_identifier())).to_vec(),
            };
            let (_, outer, inner) = vlan.parts();
            prop_assert_eq!(ids, [outer, inner].into_iter().filter(|id| *id != 0).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_safe(mut frame in proptest::collection::vec(any::<u8>(), 0..40), at in proptest::collection::vec(any::<bool>(), 3)) {
            for (n, service) in at.iter().enumerate() {
                if let Some(place) = frame.get_mut(12 + 4 * n..14 + 4 * n) {
                    place.copy_from_slice(&if *service { SERVICE } else { CUSTOMER }.to_be_bytes());
                }
            }
            if let Ok(tagged) = Tagged::parse(&frame) {
                prop_assert!(tagged.payload_at <= frame.len());
            }
        }
    }

    #[test]
    fn a_priority_is_no_vlan_and_what_nobody_can_have_equals_nothing() {
        let frame = |tags: &[[u8; 4]]| {
            let mut frame = vec![0; 12];
            tags.iter().for_each(|tag| frame.extend(tag));
            frame.extend([0x08, 0x00]);
            Tagged::parse(&frame).unwrap()
        };
        assert_eq!(frame(&[[0x81, 0, 0xe0, 0]]).vlan, Vlan::UNTAGGED);
        assert_eq!(frame(&[[0x81, 0, 0xe0, 100]]).vlan, Vlan::tagged(100).unwrap());
        assert_eq!(frame(&[[0x88, 0xa8, 0, 10], [0x81, 0, 0, 100]]).vlan, Vlan::double(SERVICE, 10, 100).unwrap());
        assert_ne!(frame(&[[0x81, 0, 0, 10], [0x81, 0, 0, 100]]).vlan, Vlan::double(SERVICE, 10, 100).unwrap());
        let nobodys: [&[[u8; 4]]; 6] = [
            &[[0x88, 0xa8, 0, 100]],
            &[[0x81, 0, 0, 10], [0x88, 0xa8, 0, 100]],
            &[[0x81, 0, 0, 10], [0x81, 0, 0, 100], [0x81, 0, 0, 7]],
            &[[0x81, 0, 0, 100], [0x81, 0, 0, 0]],
            &[[0x81, 0, 0, 0], [0x81, 0, 0, 100]],
            &[[0x81, 0, 0x0f, 0xff]],
        ];
        for tags in nobodys {
            let vlan = frame(tags).vlan;
            let (kind, outer, inner) = vlan.parts();
            let made = [Some(Vlan::UNTAGGED), Vlan::tagged(outer), Vlan::double(kind, outer, inner)];
            assert!(!made.contains(&Some(vlan)), "{tags:?}: {vlan:?}");
        }
        for id in [0, 4095, 4096, u16::MAX] {
            assert_eq!(
                (Vlan::tagged(id), Vlan::double(SERVICE, 1, id), Vlan::double(SERVICE, id, 1)),
                (None, None, None)
            );
        }
        assert_eq!(Vlan::double(0x9100, 1, 2), None);
    }
}
