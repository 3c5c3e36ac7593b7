//! Identifiers: what the operator and the wire call a tenant, and the dense slots by which the hub finds it.

use std::fmt;

/// A tenant as the operator and the wire know it: 24 bits, so that it fits the VNI of a Geneve header (RFC 8926, 3.1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(u32);

/// The number that a 24-bit identifier refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange(
    /// The number as it was given.
    pub u64,
);

impl TenantId {
    /// The largest id: 24 bits, all set.
    pub const MAX: u32 = (1 << 24) - 1;

    /// A tenant id, or the number back if it has more than 24 bits.
    pub const fn new(id: u64) -> Result<Self, OutOfRange> {
        if id <= Self::MAX as u64 { Ok(Self(id as u32)) } else { Err(OutOfRange(id)) }
    }

    /// The id with these 24 bits, as a VNI holds them: big-endian, none of them out of range.
    pub const fn of_bits([high, middle, low]: [u8; 3]) -> Self {
        Self(u32::from_be_bytes([0, high, middle, low]))
    }

    /// The id as a number below 2^24.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}", self.0)
    }
}

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit 24 bits; the largest id is {}", self.0, TenantId::MAX)
    }
}

impl std::error::Error for OutOfRange {}

macro_rules! slot {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The slot as an index into the tables that it numbers.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

slot! {
    /// A tenant's row in this hub's tables: dense, from 0, meaningless outside this process.
    TenantSlot(u32)
}
slot! {
    /// A site's row in this hub's tables: dense, from 0 over all tenants, meaningless outside this process.
    SiteSlot(u32)
}
slot! {
    /// A port's place in the configuration, from 0.
    PortIndex(u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_has_24_bits() {
        assert_eq!(TenantId::new(0xff_ffff).unwrap().as_u32(), 0xff_ffff);
        assert_eq!(TenantId::new(1 << 24), Err(OutOfRange(1 << 24)));
        assert_eq!(TenantId::new(1 << 32), Err(OutOfRange(1 << 32)));
    }
}
