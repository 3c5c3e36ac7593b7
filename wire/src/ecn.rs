//! Explicit congestion notification through a tunnel (RFC 6040).

use crate::{checksum, ipv4, ipv6};

/// The two bits of congestion notification (RFC 3168, 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Ecn {
    /// The transport does not understand marks.
    NotEct = 0b00,
    /// It does, codepoint 1.
    Ect1 = 0b01,
    /// It does, codepoint 0.
    Ect0 = 0b10,
    /// Congestion experienced.
    Ce = 0b11,
}

impl Ecn {
    /// The lower two bits of a TOS byte or traffic class.
    #[inline]
    pub const fn of_tos(tos: u8) -> Self {
        match tos & 3 {
            0 => Self::NotEct,
            1 => Self::Ect1,
            2 => Self::Ect0,
            _ => Self::Ce,
        }
    }
}

/// What the outer header says of a packet sealed (RFC 6040, 4.1, normal mode): the inner bits as they are.
///
/// Linux's WireGuard writes ECT(0) over an inner CE, as RFC 3168 did. Both arrive as CE, at its end and at ours; the
/// copy keeps a mark visible to who measures the path.
#[inline]
pub const fn encapsulate(inner: Ecn) -> Ecn {
    inner
}

/// What the inner header says of a packet opened (RFC 6040, 4.2, figure 4). `None` if it must be dropped: a router has
/// marked congestion for a transport that would not understand it, so a drop is the only signal left.
#[inline]
pub const fn decapsulate(outer: Ecn, inner: Ecn) -> Option<Ecn> {
    match (inner, outer) {
        (Ecn::NotEct, Ecn::Ce) => None,
        (Ecn::NotEct, _) => Some(Ecn::NotEct),
        (Ecn::Ce, _) | (_, Ecn::Ce) => Some(Ecn::Ce),
        (Ecn::Ect0, Ecn::Ect1) | (Ecn::Ect1, _) => Some(Ecn::Ect1),
        (Ecn::Ect0, _) => Some(Ecn::Ect0),
    }
}

/// Writes the bits into an inner packet, with the IPv4 checksum. What is no whole IP header stays as it is.
#[inline]
pub fn set(packet: &mut [u8], ecn: Ecn) {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let Some(header) = packet.first_chunk_mut::<{ ipv4::HEADER }>() else { return };
            let old = u16::from_be_bytes([header[0], header[1]]);
            header[1] = header[1] & !3 | ecn as u8;
            let new = u16::from_be_bytes([header[0], header[1]]);
            let checksum = checksum::updated(u16::from_be_bytes([header[10], header[11]]), old, new);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Some(6) => {
            let Some(header) = packet.first_chunk_mut::<{ ipv6::HEADER }>() else { return };
            header[1] = header[1] & !0x30 | (ecn as u8) << 4;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{Ecn::*, *};
    use etherparse::{IpEcn, IpNumber, Ipv4Header, Ipv6Header};

    /// RFC 6040, figure 4: a row an inner codepoint; columns outer Not-ECT, ECT(0), ECT(1), CE.
    const FIGURE_4: [(Ecn, [Option<Ecn>; 4]); 4] = [
        (NotEct, [Some(NotEct), Some(NotEct), Some(NotEct), None]),
        (Ect0, [Some(Ect0), Some(Ect0), Some(Ect1), Some(Ce)]),
        (Ect1, [Some(Ect1), Some(Ect1), Some(Ect1), Some(Ce)]),
        (Ce, [Some(Ce), Some(Ce), Some(Ce), Some(Ce)]),
    ];

    #[test]
    fn decapsulates_as_figure_4() {
        for (inner, row) in FIGURE_4 {
            for (outer, expected) in [NotEct, Ect0, Ect1, Ce].into_iter().zip(row) {
                assert_eq!(decapsulate(outer, inner), expected, "outer {outer:?}, inner {inner:?}");
            }
        }
    }

    #[test]
    fn a_tunnel_without_congestion_changes_nothing() {
        for inner in [NotEct, Ect0, Ect1, Ce] {
            assert_eq!(decapsulate(encapsulate(inner), inner), Some(inner));
        }
    }

    #[test]
    fn written_bits_read_back_and_the_checksum_holds() {
        for ecn in [NotEct, Ect0, Ect1, Ce] {
            for before in 0..4u8 {
                let mut v4 = Ipv4Header::new(8, 64, IpNumber::UDP, [10, 9, 1, 1], [10, 9, 2, 1]).unwrap();
                v4.ecn = IpEcn::try_new(before).unwrap();
                v4.dscp = 46.try_into().unwrap();
                v4.header_checksum = v4.calc_header_checksum();
                let mut bytes = v4.to_bytes().to_vec();
                set(&mut bytes, ecn);
                let (after, _) = Ipv4Header::from_slice(&bytes).unwrap();
                v4.ecn = IpEcn::try_new(ecn as u8).unwrap();
                v4.header_checksum = v4.calc_header_checksum();
                assert_eq!(after, v4);

                let mut v6 = Ipv6Header {
                    traffic_class: 46 << 2 | before,
                    flow_label: 0xabcde.try_into().unwrap(),
                    ..Default::default()
                };
                let mut bytes = v6.to_bytes();
                set(&mut bytes, ecn);
                v6.traffic_class = 46 << 2 | ecn as u8;
                assert_eq!(Ipv6Header::from_slice(&bytes).unwrap().0, v6);
            }
        }
        for mut short in [vec![], vec![0x45; 19], vec![0x60; 39], vec![0x12; 60]] {
            let before = short.clone();
            set(&mut short, Ce);
            assert_eq!(short, before);
        }
    }
}
