//! TCP (RFC 9293), as far as a router looks into it.

/// Bytes of the header without options.
pub const HEADER: usize = 20;
/// Protocol number.
pub const PROTOCOL: u8 = 6;
/// Where the flags are in the header.
pub const FLAGS: usize = 13;
/// The flag of a packet that opens a connection.
pub const SYN: u8 = 0x02;
