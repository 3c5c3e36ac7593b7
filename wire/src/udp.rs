//! UDP (RFC 768).

use crate::Malformed;

/// Bytes of the header.
pub const HEADER: usize = 8;
/// UDP in IPv4's protocol field and IPv6's next header.
pub const PROTOCOL: u8 = 17;

/// A datagram whose length fits itself and the bytes that are there.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    header: &'a [u8; HEADER],
    payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Refuses a length below the header or beyond the bytes. Bytes beyond the length are left out.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        let (header, rest) = datagram.split_first_chunk::<HEADER>().ok_or(Malformed::Short)?;
        let len = u16::from_be_bytes([header[4], header[5]]) as usize;
        let payload =
            len.checked_sub(HEADER).and_then(|payload_len| rest.get(..payload_len)).ok_or(Malformed::TotalLength)?;
        Ok(Self { header, payload })
    }

    /// Source port.
    #[inline]
    pub fn source(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// Destination port.
    #[inline]
    pub fn destination(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The checksum as it stands; zero says that there is none.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// What the datagram carries.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fields {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Bytes of header and payload.
    pub len: u16,
    /// The checksum, or zero for none: see [`crate::checksum::udp_field`].
    pub checksum: u16,
}

impl Fields {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER]) {
        out[..2].copy_from_slice(&self.source.to_be_bytes());
        out[2..4].copy_from_slice(&self.destination.to_be_bytes());
        out[4..6].copy_from_slice(&self.len.to_be_bytes());
        out[6..].copy_from_slice(&self.checksum.to_be_bytes());
    }
}
