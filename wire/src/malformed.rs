//! What a header view can refuse.

use std::fmt;

/// Why bytes are not the packet that was expected. Small, so that the journey can carry it without cost; the stage
/// that parsed knows whether it means an outer or an inner packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Fewer bytes than the fixed header.
    Short,
    /// An IP version other than the expected, or neither 4 nor 6.
    Version,
    /// An IPv4 header length below 20 bytes or beyond the packet.
    HeaderLength,
    /// A length field below its own header, or beyond the bytes that are there (or that fit the field).
    TotalLength,
    /// An IPv4 header that does not agree with its checksum.
    Checksum,
    /// An outer packet that is no IP, or no UDP; in a trunk, neither IPv4 nor IPv6 nor a message of hubs.
    Protocol,
    /// A bit that must be zero is set.
    Reserved,
    /// A field of a message between hubs that says what can't be.
    Value,
    /// A fragment, where a whole datagram was expected.
    Fragment,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "shorter than its header",
            Self::Version => "another IP version",
            Self::HeaderLength => "the IPv4 header length contradicts the packet",
            Self::TotalLength => "a length field contradicts the packet",
            Self::Checksum => "the IPv4 header checksum is wrong",
            Self::Protocol => "of a protocol that has no place here",
            Self::Reserved => "a bit that must be zero is set",
            Self::Value => "a field says what can't be",
            Self::Fragment => "a fragment",
        })
    }
}

impl std::error::Error for Malformed {}
