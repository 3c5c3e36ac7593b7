//! TCP (RFC 9293), as far as a router looks into it.

use crate::{checksum, ipv4, ipv6};

/// Bytes of the header without options.
pub const HEADER: usize = 20;
/// Protocol number.
pub const PROTOCOL: u8 = 6;
/// Where the flags are in the header.
pub const FLAGS: usize = 13;
/// The flag of a packet that opens a connection.
pub const SYN: u8 = 0x02;

/// Where the checksum is in the header.
const CHECKSUM: usize = 16;
/// The option that says which segments its sender can take (RFC 9293, 3.7.1).
const OPTION_MSS: u8 = 2;
/// The least that is written: Linux takes no less seriously (`TCP_MIN_MSS` is 88 with its options, its floor 48).
const MSS_MIN: u16 = 48;

/// Whether an inner packet may hold a segment: what [`clamp_mss`] looks closer at.
#[inline]
pub fn may_be_in(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => packet.get(9) == Some(&PROTOCOL),
        Some(6) => packet.get(6).is_some_and(|next| *next == PROTOCOL || ipv6::is_extension(*next)),
        _ => false,
    }
}

/// Lowers the segment size that an inner packet announces, if it opens a connection and its answers would else not fit packets of
/// `mtu` bytes; `true` if it did. A size is never raised, and none is announced where there was none: what is taken for
/// granted then, 536 or 1220 bytes, fits everywhere.
#[inline]
pub fn clamp_mss(packet: &mut [u8], mtu: u16) -> bool {
    // Nearly every packet is sent on its way by these comparisons.
    let (at, headers) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => match packet.first_chunk::<{ ipv4::HEADER }>() {
            Some(ip) if ip[9] == PROTOCOL && (ip[6] & 0x1f, ip[7]) == (0, 0) => {
                ((ip[0] & 0xf) as usize * 4, ipv4::HEADER + HEADER)
            }
            _ => return false,
        },
        Some(6) => match packet.get(6) {
            Some(&PROTOCOL) => (ipv6::HEADER, ipv6::HEADER + HEADER),
            Some(next) if ipv6::is_extension(*next) => match behind_extensions(packet) {
                Some(at) => (at, ipv6::HEADER + HEADER),
                None => return false,
            },
            _ => return false,
        },
        _ => return false,
    };
    let Some(segment) = packet.get_mut(at..) else { return false };
    if segment.len() < HEADER || segment[FLAGS] & SYN == 0 {
        return false;
    }
    // The size of a segment does not count options, of IP or of TCP (RFC 6691).
    lower(segment, mtu.saturating_sub(headers as u16).max(MSS_MIN))
}

fn behind_extensions(packet: &[u8]) -> Option<usize> {
    let ip = ipv6::View::parse(packet).ok()?;
    let layer = ip.upper_layer()?;
    (layer.protocol == PROTOCOL).then(|| ip.total_len() - layer.payload.len())
}

/// The option, wherever it stands among the others.
fn lower(segment: &mut [u8], most: u16) -> bool {
    let end = ((segment[12] >> 4) as usize * 4).min(segment.len());
    let mut at = HEADER;
    while at < end {
        match segment[at] {
            0 => return false,
            1 => at += 1,
            kind => {
                let Some(len) = segment[..end].get(at + 1).map(|len| *len as usize) else { return false };
                if len < 2 || at + len > end {
                    return false;
                }
                if kind == OPTION_MSS && len == 4 {
                    return rewrite(segment, at + 2, most);
                }
                at += len;
            }
        }
    }
    false
}

fn rewrite(segment: &mut [u8], at: usize, most: u16) -> bool {
    let old = u16::from_be_bytes([segment[at], segment[at + 1]]);
    if old <= most {
        return false;
    }
    segment[at..at + 2].copy_from_slice(&most.to_be_bytes());
    // At an odd place its two bytes lie in two words, with their weights exchanged.
    let (old, new) = if at.is_multiple_of(2) { (old, most) } else { (old.swap_bytes(), most.swap_bytes()) };
    let checksum = u16::from_be_bytes([segment[CHECKSUM], segment[CHECKSUM + 1]]);
    segment[CHECKSUM..CHECKSUM + 2].copy_from_slice(&checksum::updated(checksum, old, new).to_be_bytes());
    true
}

#[cfg(test)]
mod tests;
