//! The ICMP errors that the hub sends as a router (RFC 792, RFC 1812; RFC 4443): when a packet's last hop is used up,
//! and when it does not fit the way on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    checksum::{self, Sum},
    ipv4, ipv6,
};

/// The largest answer over IPv4 (RFC 1812, 4.3.2.3).
pub const MAX_V4: usize = 576;
/// The largest answer over IPv6: the least MTU of any link (RFC 4443, 2.4(c)).
pub const MAX_V6: usize = 1280;

const HEADER: usize = 8;
/// CS6: the class that RFC 1812, 4.3.2.5 wants for errors, "internetwork control".
pub const DSCP: u8 = 0x30;
const TOS: u8 = DSCP << 2;
const TTL: u8 = 64;

/// What the source of a packet is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Its TTL or hop limit ended here.
    TimeExceeded,
    /// It exceeds what can be carried on: "fragmentation needed" (RFC 1191), "packet too big" (RFC 8201).
    TooBig {
        /// The largest inner packet that would fit. Over IPv6, told as 1280 if it is less: no host accepts less.
        mtu: u16,
    },
}

/// Why a packet gets no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    /// It is no IP packet that could be answered.
    Malformed,
    /// It is an ICMP error itself, or can't be told from one.
    IcmpError,
    /// It is a fragment, and not the first.
    Fragment,
    /// Its source names no single host: multicast, broadcast, unspecified, loopback.
    Source,
    /// It went to many: multicast or broadcast.
    Destination,
    /// The hub's address for the answer is of the other IP version.
    Family,
    /// The answer does not fit the room given.
    NoRoom,
}

/// Whether a packet is an error that a router or a host reports: unreachable, too big, time exceeded, parameter problem.
pub fn is_error(packet: &[u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => ipv4::View::parse(packet).is_ok_and(|ip| {
            ip.protocol() == ipv4::ICMP
                && ip.fragment_offset() == 0
                && matches!(ip.payload().first(), Some(3 | 11 | 12))
        }),
        Some(6) => ipv6::View::parse(packet).is_ok_and(|ip| {
            ip.upper_layer().is_some_and(|up| up.protocol == ipv6::ICMP && matches!(up.payload.first(), Some(1..=4)))
        }),
        _ => false,
    }
}

/// Writes the answer to `packet`, which is quoted as it arrived, as a whole IP packet from `from`, and returns its
/// length. Room of [`MAX_V4`] or [`MAX_V6`] bytes is always enough.
pub fn write(answer: Answer, packet: &[u8], from: IpAddr, out: &mut [u8]) -> Result<usize, Silence> {
    match (packet.first().map(|byte| byte >> 4), from) {
        (Some(4), IpAddr::V4(from)) => write_v4(answer, packet, from, out),
        (Some(6), IpAddr::V6(from)) => write_v6(answer, packet, from, out),
        (Some(4 | 6), _) => Err(Silence::Family),
        _ => Err(Silence::Malformed),
    }
}

fn write_v4(answer: Answer, packet: &[u8], from: Ipv4Addr, out: &mut [u8]) -> Result<usize, Silence> {
    let original = ipv4::View::parse(packet).map_err(|_| Silence::Malformed)?;
    // RFC 1812, 4.3.2.7: what must not be answered.
    if original.fragment_offset() != 0 {
        return Err(Silence::Fragment);
    }
    if original.protocol() == ipv4::ICMP {
        // Only queries are answered, so that a type invented later can't begin a loop.
        match original.payload().first() {
            Some(0 | 8 | 9 | 10 | 13..=18 | 42 | 43) => {}
            Some(_) | None => return Err(Silence::IcmpError),
        }
    }
    let source = original.source();
    // 240.0.0.0/4 includes the limited broadcast address.
    if source.octets()[0] == 0 || source.is_loopback() || source.octets()[0] >= 224 {
        return Err(Silence::Source);
    }
    if original.destination().octets()[0] >= 224 {
        return Err(Silence::Destination);
    }

    let quoted = original.total_len().min(MAX_V4 - ipv4::HEADER - HEADER);
    let len = ipv4::HEADER + HEADER + quoted;
    let out = out.get_mut(..len).ok_or(Silence::NoRoom)?;
    let (ip, message) = out.split_first_chunk_mut().ok_or(Silence::NoRoom)?;
    let fields = ipv4::Fields {
        tos: TOS,
        total_len: len as u16, // at most 576
        id: 0,                 // free in a datagram that can't be fragmented (RFC 6864, 4.1)
        dont_fragment: true,
        ttl: TTL,
        protocol: ipv4::ICMP,
        source: from,
        destination: source,
    };
    fields.emit(ip);
    let [mtu_high, mtu_low] = match answer {
        Answer::TimeExceeded => [0, 0],
        Answer::TooBig { mtu } => mtu.to_be_bytes(),
    };
    let [kind, code] = match answer {
        Answer::TimeExceeded => [11, 0],
        Answer::TooBig { .. } => [3, 4],
    };
    finish([kind, code, 0, 0, 0, 0, mtu_high, mtu_low], &packet[..quoted], Sum::ZERO, message);
    Ok(len)
}

fn write_v6(answer: Answer, packet: &[u8], from: Ipv6Addr, out: &mut [u8]) -> Result<usize, Silence> {
    let original = ipv6::View::parse(packet).map_err(|_| Silence::Malformed)?;
    // RFC 4443, 2.4(e): what must not be answered.
    let upper = original.upper_layer().ok_or(Silence::Malformed)?;
    if upper.fragment.is_some_and(|fragment| fragment.offset != 0) {
        return Err(Silence::Fragment);
    }
    if upper.protocol == ipv6::ICMP {
        // Errors are below 128; 137 is a redirect.
        match upper.payload.first() {
            Some(137) | Some(..128) | None => return Err(Silence::IcmpError),
            Some(_) => {}
        }
    }
    let source = original.source();
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() {
        return Err(Silence::Source);
    }
    // Too big is told even to the senders of multicast: path MTU discovery needs it (2.4(e.3)).
    if original.destination().is_multicast() && answer == Answer::TimeExceeded {
        return Err(Silence::Destination);
    }

    let quoted = original.total_len().min(MAX_V6 - ipv6::HEADER - HEADER);
    let len = ipv6::HEADER + HEADER + quoted;
    let out = out.get_mut(..len).ok_or(Silence::NoRoom)?;
    let (ip, message) = out.split_first_chunk_mut().ok_or(Silence::NoRoom)?;
    let payload_len = (HEADER + quoted) as u16; // at most 1240
    let fields = ipv6::Fields {
        tos: TOS,
        payload_len,
        next_header: ipv6::ICMP,
        hop_limit: TTL,
        source: from,
        destination: source,
    };
    fields.emit(ip);
    let pseudo = checksum::pseudo_header(&from.octets(), &source.octets(), ipv6::ICMP).word(payload_len);
    let [mtu_high, mtu_low] = match answer {
        Answer::TimeExceeded => [0, 0],
        Answer::TooBig { mtu } => mtu.max(MAX_V6 as u16).to_be_bytes(),
    };
    let kind = match answer {
        Answer::TimeExceeded => 3,
        Answer::TooBig { .. } => 2,
    };
    finish([kind, 0, 0, 0, 0, 0, mtu_high, mtu_low], &packet[..quoted], pseudo, message);
    Ok(len)
}

/// Header, quote and checksum. `message` is as long as the two together.
fn finish(header: [u8; HEADER], quote: &[u8], pseudo: Sum, message: &mut [u8]) {
    let Some((head, body)) = message.split_first_chunk_mut::<HEADER>() else { return };
    *head = header;
    body.copy_from_slice(quote);
    let checksum = pseudo.bytes(head).bytes(body).finish();
    head[2..4].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests;
