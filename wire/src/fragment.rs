//! How a router cuts an IPv4 packet that does not fit (RFC 791, 3.2; RFC 1812, 4.2.2.7), and who sends an IPv6 packet his own (RFC 8200,
//! 4.5).

use crate::{checksum::Sum, ipv4, ipv6};

/// Fragments that one packet is cut into at the most: a path so narrow that more were needed is none.
pub const FRAGMENTS_MAX: usize = 16;

const HEADER_MAX: usize = 60;
const MORE: u16 = 0x2000;
const OFFSET_MAX: usize = 0x1fff * 8;

/// Where a packet is cut.
#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    header_len: usize,
    payload_len: usize,
    /// Where the packet itself belongs in its datagram, and whether more of that follows.
    offset: usize,
    more: bool,
    /// The header of all fragments but the first, which has fewer options.
    later: [u8; HEADER_MAX],
    later_len: usize,
    /// Payload of the first fragment, and of the others.
    first: usize,
    step: usize,
}

impl Cuts {
    /// For a packet that [`crate::Inner::parse`] accepted and that is cut to its length. `None` if it is not IPv4, must not be
    /// fragmented, fits, or would become too many.
    pub fn new(packet: &[u8], mtu: u16) -> Option<Self> {
        let ip = ipv4::View::parse(packet).ok()?;
        if ip.dont_fragment() || ip.total_len() <= mtu as usize {
            return None;
        }
        let (header_len, payload_len) = (ip.header_len(), ip.payload().len());
        let mut later = [0; HEADER_MAX];
        let later_len = copied_header(&packet[..header_len], &mut later);
        // All but the last are multiples of eight bytes.
        let room = |header: usize| Some(((mtu as usize).checked_sub(header)?) & !7).filter(|room| *room > 0);
        let (first, step) = (room(header_len)?, room(later_len)?);
        let (offset, more) = (ip.fragment_offset(), ip.more_fragments());
        let this =
            Self { header_len, payload_len, offset, more, later, later_len, first: first.min(payload_len), step };
        (this.count() <= FRAGMENTS_MAX && offset + payload_len <= OFFSET_MAX).then_some(this)
    }

    /// Fragments in all, two at the least.
    pub fn count(&self) -> usize {
        1 + self.payload_len.saturating_sub(self.first).div_ceil(self.step)
    }

    /// Bytes of a fragment, its header included: 0 is the first.
    pub fn len(&self, n: usize) -> usize {
        let (begin, end) = self.payload(n);
        end - begin + if n == 0 { self.header_len } else { self.later_len }
    }

    fn payload(&self, n: usize) -> (usize, usize) {
        let begin = if n == 0 { 0 } else { (self.first + (n - 1) * self.step).min(self.payload_len) };
        let room = if n == 0 { self.first } else { self.step };
        (begin, (begin + room).min(self.payload_len))
    }

    /// Writes a fragment after the first one into `out`, which has [`len`](Self::len) bytes, from the packet that is still whole.
    pub fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) {
        let (begin, end) = self.payload(n);
        let Some((header, payload)) = out.split_at_mut_checked(self.later_len) else { return };
        let Some(bytes) = packet.get(self.header_len + begin..self.header_len + end) else { return };
        header.copy_from_slice(&self.later[..self.later_len]);
        if payload.len() == bytes.len() {
            payload.copy_from_slice(bytes);
        }
        self.finish(header, n);
    }

    /// Turns the packet into its first fragment, once the others are written; it ends at [`len`](Self::len).
    pub fn shorten(&self, packet: &mut [u8]) {
        if let Some(header) = packet.get_mut(..self.header_len) {
            self.finish(header, 0);
        }
    }

    fn finish(&self, header: &mut [u8], n: usize) {
        let (begin, end) = self.payload(n);
        let more = if self.more || end < self.payload_len { MORE } else { 0 };
        let offset = ((self.offset + begin) / 8) as u16;
        header[2..4].copy_from_slice(&(self.len(n) as u16).to_be_bytes());
        header[6..8].copy_from_slice(&(more | offset).to_be_bytes());
        header[10..12].fill(0);
        let sum = Sum::ZERO.bytes(header).finish();
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Where an IPv6 packet without extension headers is cut by who sends it.
#[derive(Clone, Copy, Debug)]
pub struct CutsV6 {
    protocol: u8,
    payload_len: usize,
    /// Payload of each fragment but the last.
    step: usize,
    id: u32,
}

impl CutsV6 {
    /// Bytes by which the first fragment's headers are longer than the packet's.
    pub const GROWTH: usize = ipv6::FRAGMENT_HEADER;
    const HEADERS: usize = ipv6::HEADER + ipv6::FRAGMENT_HEADER;

    /// For fragments of `mtu` bytes, known by `id` as those of one packet. `None` if it is not IPv6, fits, or would become too many.
    pub fn new(packet: &[u8], mtu: u16, id: u32) -> Option<Self> {
        let ip = ipv6::View::parse(packet).ok()?;
        let step = (mtu as usize).checked_sub(Self::HEADERS)? & !7;
        let (protocol, payload_len) = (ip.next_header(), ip.payload().len());
        let this = Self { protocol, payload_len, step, id };
        (ip.total_len() > mtu as usize && step > 0 && this.count() <= FRAGMENTS_MAX).then_some(this)
    }

    /// Fragments in all, two at the least.
    pub fn count(&self) -> usize {
        self.payload_len.div_ceil(self.step)
    }

    /// Bytes of a fragment, its headers included: 0 is the first.
    pub fn len(&self, n: usize) -> usize {
        let (begin, end) = self.payload(n);
        Self::HEADERS + end - begin
    }

    fn payload(&self, n: usize) -> (usize, usize) {
        let begin = (n * self.step).min(self.payload_len);
        (begin, (begin + self.step).min(self.payload_len))
    }

    /// Writes a fragment after the first one into `out`, which has [`len`](Self::len) bytes, from the packet that is still whole.
    pub fn write(&self, packet: &[u8], n: usize, out: &mut [u8]) {
        let (begin, end) = self.payload(n);
        let Some((headers, payload)) = out.split_at_mut_checked(Self::HEADERS) else { return };
        let bytes = packet.get(ipv6::HEADER + begin..ipv6::HEADER + end);
        if let (Some(fixed), Some(bytes)) = (packet.get(..ipv6::HEADER), bytes)
            && payload.len() == bytes.len()
        {
            headers[..ipv6::HEADER].copy_from_slice(fixed);
            payload.copy_from_slice(bytes);
            self.finish(headers, n);
        }
    }

    /// Turns the packet into its first fragment, once the others are written: in front of it are [`GROWTH`](Self::GROWTH) bytes of room
    /// that belong to `packet`, and it ends at [`len`](Self::len).
    pub fn shorten(&self, packet: &mut [u8]) {
        if let Some(headers) = packet.get_mut(..Self::HEADERS) {
            headers.copy_within(Self::GROWTH.., 0);
            self.finish(headers, 0);
        }
    }

    fn finish(&self, headers: &mut [u8], n: usize) {
        let (begin, end) = self.payload(n);
        let more = u16::from(end < self.payload_len);
        let payload_len = (ipv6::FRAGMENT_HEADER + end - begin) as u16;
        headers[4..6].copy_from_slice(&payload_len.to_be_bytes());
        headers[6] = ipv6::FRAGMENT;
        let [o, f] = (begin as u16 | more).to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        headers[ipv6::HEADER..].copy_from_slice(&[self.protocol, 0, o, f, a, b, c, d]);
    }
}

/// The header with those options alone that every fragment has (the first bit of their kind says so); its length.
fn copied_header(header: &[u8], out: &mut [u8; HEADER_MAX]) -> usize {
    let (fixed, mut options) = header.split_at(ipv4::HEADER);
    out[..ipv4::HEADER].copy_from_slice(fixed);
    let mut len = ipv4::HEADER;
    // A list that contradicts itself ends there.
    while let [kind, rest @ ..] = options {
        let bytes = match kind {
            0 => break,
            1 => 1,
            _ => match rest.first() {
                Some(len) if (2..=options.len()).contains(&(*len as usize)) => *len as usize,
                _ => break,
            },
        };
        if kind & 0x80 != 0 {
            out[len..len + bytes].copy_from_slice(&options[..bytes]);
            len += bytes;
        }
        options = &options[bytes..];
    }
    // The rest of the last word is "end of options".
    let len = len.next_multiple_of(4);
    out[0] = 0x40 | (len / 4) as u8;
    len
}

#[cfg(test)]
mod tests;
