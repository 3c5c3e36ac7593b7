//! How packet memory is cut: chunks, and frames of several chunks where a port's packets need them.

use crate::xsk::{CHUNKS_MAX, HEADROOM, TAILROOM};

/// Bytes of the largest chunk that the kernel takes: a page.
const PAGE: u32 = 4096;
/// Two VLAN tags, which an MTU does not include. In a single chunk they are had from the headroom once the packet is opened, but
/// what a packet is gathered in must hold it as it came.
const TAGS: usize = 8;

/// The sizes that frames have in one packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a chunk.
    pub chunk: u32,
    /// Chunks of a long frame; 1 if there are none.
    pub run: u32,
}

impl Sizes {
    /// For ports of which the widest has this MTU; none if that is more than any frame can hold.
    pub fn of(mtu: u32) -> Option<Self> {
        let all = [2048, PAGE].map(|chunk| Self { chunk, run: 1 }).into_iter();
        let mut all = all.chain((2..=CHUNKS_MAX).map(|run| Self { chunk: PAGE, run }));
        all.find(|sizes| mtu <= sizes.mtu_max())
    }

    /// The largest MTU of a port whose packets fit, sealed too.
    pub const fn mtu_max(self) -> u32 {
        mtu_max((self.chunk * self.run) as usize) as u32
    }
}

/// The largest MTU of a port whose packets fit a frame of so many bytes.
pub const fn mtu_max(frame_size: usize) -> usize {
    let tags = if frame_size > PAGE as usize { TAGS } else { 0 };
    frame_size - HEADROOM - wire::ethernet::HEADER - tags - TAILROOM
}

/// The largest MTU for which no packet needs more than one chunk.
pub const ONE_CHUNK: u32 = mtu_max(PAGE as usize) as u32;
/// The largest MTU of all.
pub const WIDEST: u32 = mtu_max((CHUNKS_MAX * PAGE) as usize) as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_no_larger_than_the_widest_port_needs() {
        let of = |mtu| Sizes::of(mtu).map(|sizes| (sizes.chunk, sizes.run));
        let sizes =
            [(68, 2048, 1), (1500, 2048, 1), (1746, 2048, 1), (1747, 4096, 1), (3794, 4096, 1), (3795, 4096, 2)];
        for (mtu, chunk, run) in sizes.into_iter().chain([(9000, 4096, 3), (9216, 4096, 3), (WIDEST, 4096, 4)]) {
            assert_eq!(of(mtu), Some((chunk, run)), "an MTU of {mtu}");
        }
        assert_eq!((ONE_CHUNK, WIDEST, of(WIDEST + 1), of(65_535)), (3794, 16_074, None, None));
    }
}
