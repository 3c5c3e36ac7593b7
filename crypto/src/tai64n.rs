//! TAI64N: the time stamp in an initiation, by which a peer refuses one that it has seen before.
//!
//! Only its order matters: twelve bytes, big-endian, compared as bytes (WG 5.1; the format is D. J. Bernstein's, cr.yp.to/libtai/tai64.html).

use std::fmt;

/// What the wall clock said: the time since the beginning of 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct SystemTimeParts {
    /// Whole seconds.
    pub secs: u64,
    /// Nanoseconds above that, below 1,000,000,000.
    pub nanos: u32,
}

impl From<std::time::SystemTime> for SystemTimeParts {
    /// A clock that stands before 1970 counts as 1970.
    fn from(time: std::time::SystemTime) -> Self {
        let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        SystemTimeParts { secs: since.as_secs(), nanos: since.subsec_nanos() }
    }
}

/// A time stamp as it stands in an initiation. A later one is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n(
    /// Seconds as TAI64 (8 bytes), then nanoseconds (4 bytes), both big-endian.
    pub [u8; 12],
);

/// TAI64 counts from 2^62 at the beginning of 1970, TAI, which was 10 s ahead of UTC. Leap seconds since then are left out, as
/// every WireGuard does.
const EPOCH: u64 = (1 << 62) + 10;

/// The stamp is rounded down to a multiple of 2^24 ns (16.8 ms): no finer than the rate at which a peer takes initiations, so that
/// it tells nobody the exact state of this machine's clock.
const COARSE: u32 = 1 << 24;

impl Tai64n {
    /// The stamp of this moment, rounded down.
    pub fn at(unix: SystemTimeParts) -> Self {
        Self::new(EPOCH.saturating_add(unix.secs), unix.nanos & !(COARSE - 1))
    }

    /// The smallest stamp that is greater than this one.
    pub fn next(self) -> Self {
        let (secs, nanos) = self.parts();
        if nanos < 999_999_999 { Self::new(secs, nanos + 1) } else { Self::new(secs.saturating_add(1), 0) }
    }

    /// The stamp so many seconds later.
    pub fn later(self, seconds: u64) -> Self {
        let (secs, nanos) = self.parts();
        Self::new(secs.saturating_add(seconds), nanos)
    }

    /// Whole seconds by which the clock is behind the stamp.
    pub fn ahead_of(self, unix: SystemTimeParts) -> u64 {
        self.parts().0.saturating_sub(EPOCH.saturating_add(unix.secs))
    }

    fn new(secs: u64, nanos: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&secs.to_be_bytes());
        bytes[8..].copy_from_slice(&nanos.to_be_bytes());
        Self(bytes)
    }

    fn parts(self) -> (u64, u32) {
        let [a, b, c, d, e, f, g, h, nanos @ ..] = self.0;
        (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u32::from_be_bytes(nanos))
    }
}

impl fmt::Debug for Tai64n {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secs, nanos) = self.parts();
        write!(f, "TAI64N {secs:#x}.{nanos:09}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64, nanos: u32) -> Tai64n {
        Tai64n::at(SystemTimeParts { secs, nanos })
    }

    #[test]
    fn stands_on_the_wire_as_specified() {
        // The specification's own example: 1992-06-02 08:07:09 TAI.
        assert_eq!(at(0x2a2b_2c2d - 10, 0).0, [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x2d, 0, 0, 0, 0]);
        assert_eq!(at(0, 999_999_999).0, [0x40, 0, 0, 0, 0, 0, 0, 10, 0x3b, 0, 0, 0]);
    }

    #[test]
    fn later_is_greater_and_next_is_greater_by_one() {
        assert!(at(5, 0) < at(5, COARSE) && at(5, COARSE) < at(6, 0));
        assert_eq!(at(5, 0), at(5, COARSE - 1));
        let mut stamp = Tai64n::new(7, 999_999_998);
        for expected in [(7, 999_999_999), (8, 0), (8, 1)] {
            assert!(stamp.next() > stamp);
            stamp = stamp.next();
            assert_eq!(stamp.parts(), expected);
        }
        assert_eq!(stamp.later(90).parts(), (98, 1));
        // A stamp from the network, or from a file, may hold any bytes.
        assert_eq!(Tai64n([0xff; 12]).later(1).parts().0, u64::MAX);
        assert_eq!(Tai64n([0xff; 12]).next().parts(), (u64::MAX, 0));
    }
}
