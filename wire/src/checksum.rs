//! The Internet checksum (RFC 1071): summed in wide lanes, carried on in parts, and updated in place (RFC 1624).

/// A partial ones' complement sum: start from [`Sum::ZERO`], add what the checksum covers, [`finish`](Sum::finish).
///
/// The sum of 16-bit words does not depend on the order of bytes inside a word as long as all words agree (RFC 1071,
/// 2(B)), so the words are added as they lie in memory and turned once, at the end. Carries go around in 64 bits: no
/// amount of data overflows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Self = Self(0);

    /// Adds one 16-bit word, given in host order.
    #[inline]
    pub const fn word(self, value: u16) -> Self {
        self.lane(value.to_be() as u64)
    }

    /// Adds bytes that begin at an even place in what the checksum covers. An odd last byte is padded with a zero, so
    /// only the last run of bytes may be odd.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Each lane takes the two halves of a 64-bit word, so it can't overflow below 2^31 rounds; the compiler turns
        // the four lanes into vector additions.
        let mut lanes = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<32>();
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                let word = u64::from_ne_bytes(*word);
                *lane = lane.wrapping_add(word & 0xffff_ffff).wrapping_add(word >> 32);
            }
        }
        let mut sum = lanes.iter().fold(self, |sum, lane| sum.lane(*lane));

        // Seven words of 32 bits at the most: no carry out of 64.
        let (words, rest) = rest.as_chunks::<4>();
        let words = words.iter().map(|word| u32::from_ne_bytes(*word) as u64).sum();
        sum = sum.lane(words);
        match *rest {
            [] => sum,
            [a] => sum.lane(u16::from_ne_bytes([a, 0]) as u64),
            [a, b] => sum.lane(u16::from_ne_bytes([a, b]) as u64),
            [a, b, c, ..] => sum.lane(u32::from_ne_bytes([a, b, c, 0]) as u64),
        }
    }

    /// The checksum, in host order: the complement of the folded sum.
    #[inline]
    pub const fn finish(self) -> u16 {
        !u16::from_be(self.fold())
    }

    /// Whether data that includes its own checksum adds up: all ones.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.fold() == 0xffff
    }

    /// Adds 64 bits with the carry taken around. 2^16 = 1 modulo 2^16 - 1, so a lane of any width counts as its words.
    #[inline]
    const fn lane(self, value: u64) -> Self {
        let (sum, carry) = self.0.overflowing_add(value);
        Self(sum + carry as u64) // after a carry the sum is at most 2^64 - 2
    }

    #[inline]
    const fn fold(self) -> u16 {
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + carry as u32; // after a carry the sum is at most 2^32 - 2; and so below
        let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
        sum + carry as u16
    }
}

/// The checksum after one 16-bit word that it covers changed from `old` to `new` (RFC 1624, equation 3). All in host
/// order.
#[inline]
pub const fn updated(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Whether an IPv4 header, options included, agrees with its checksum.
#[inline]
pub fn verify_ipv4_header(header: &[u8]) -> bool {
    // Nearly every header is 20 bytes, and then the length is a constant and the sum five additions.
    match header.as_array::<20>() {
        Some(header) => Sum::ZERO.bytes(header).is_valid(),
        None => Sum::ZERO.bytes(header).is_valid(),
    }
}

/// The pseudo header of UDP, TCP and ICMPv6 over IPv6 (RFC 8200, 8.1), or of UDP and TCP over IPv4 (RFC 768), without
/// the length, which [`Sum::word`] adds.
#[inline]
pub fn pseudo_header<const N: usize>(source: &[u8; N], destination: &[u8; N], protocol: u8) -> Sum {
    Sum::ZERO.bytes(source).bytes(destination).word(protocol as u16)
}

/// What goes into a UDP header: a sum of zero is sent as all ones, since zero says "none" (RFC 768; RFC 8200, 8.1).
#[inline]
pub const fn udp_field(sum: Sum) -> u16 {
    match sum.finish() {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RFC 1071 as written: 16-bit words, one after another.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]) as u32;
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        // RFC 1071, section 3: the words 0001 f203 f4f5 f6f7 add up to ddf2.
        assert_eq!(Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).finish(), !0xddf2);
    }

    #[test]
    fn carries_survive_the_worst_data() {
        for len in [0, 1, 2, 3, 4, 7, 31, 32, 33, 63, 1450, 65_535] {
            assert_eq!(Sum::ZERO.bytes(&vec![0xff; len]).finish(), naive(&vec![0xff; len]), "{len} bytes of ff");
        }
        assert_eq!(Sum(u64::MAX).lane(u64::MAX).fold(), 0xffff);
        assert_eq!(Sum(u64::MAX).lane(1).fold(), 1);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        // RFC 1624, section 4: a header whose checksum dd2f covers 5555, which becomes 3285, has the checksum 0000.
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..2100), cut in 0usize..2100) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).finish(), naive(&bytes));
            let cut = (cut % (bytes.len() + 1)) & !1;
            let parts = Sum::ZERO.bytes(&bytes[..cut]).bytes(&bytes[cut..]);
            prop_assert_eq!(parts.finish(), naive(&bytes));
        }

        #[test]
        fn an_update_equals_a_new_sum(mut bytes in proptest::collection::vec(any::<u8>(), 20..60), at in 0usize..10, new: u16) {
            bytes[10..12].fill(0);
            let at = if at == 5 { 0 } else { at * 2 };
            let checksum = naive(&bytes);
            bytes[10..12].copy_from_slice(&checksum.to_be_bytes());
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            bytes[10..12].copy_from_slice(&updated(checksum, old, new).to_be_bytes());
            prop_assert!(verify_ipv4_header(&bytes));
            bytes[3] ^= 0x10;
            prop_assert!(!verify_ipv4_header(&bytes));
        }
    }
}
