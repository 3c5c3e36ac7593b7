//! One chunk of packet memory, or a run of several, owned.
#![allow(unsafe_code, reason = "turns the ownership of a chunk into slices of its bytes")]

use std::fmt;
use std::ptr::NonNull;

/// Bytes that the kernel leaves free before a received packet (`XDP_PACKET_HEADROOM`), and that a recycled frame starts
/// with.
pub const HEADROOM: usize = 256;

/// Bytes by which a packet can grow behind its end when it is sealed (padding and tag): what a packet is copied into has them.
pub const TAILROOM: usize = 32;
/// Chunks of the longest frame that there can be.
pub const CHUNKS_MAX: u32 = 4;

/// The smallest chunk, and the unit of the sizes of all others.
const SMALL: usize = 2048;
/// The largest chunk.
const LARGE: usize = 4096;
/// The high bits of `Frame::chunk` are the frame's size in units of the smallest one.
const SIZE_SHIFT: u32 = 28;

/// A packet in a chunk of UMEM: the sole right to that chunk, with the packet's place in it.
///
/// It moves and can't be cloned, so a chunk is in one place at a time. Dropping it costs nothing and returns nothing:
/// the chunk is then lost until the process ends, and the census shows it as held. Put it into a pool or a ring
/// instead.
///
/// The methods that move the packet's bounds panic when told to leave the chunk, as slices do; `headroom`, `len` and
/// `tailroom` are there to be asked first. Bytes that such a move uncovers are zeroed, since the chunk holds somebody's
/// earlier packet.
#[must_use = "a dropped frame is a chunk lost: give it to a pool, a queue or a socket"]
pub struct Frame {
    // Invariant: `base` points to a chunk of `self.size()` initialised bytes that nothing else reads or writes while
    // this value exists, and `offset + len <= size`.
    base: NonNull<u8>,
    chunk: u32,
    offset: u16,
    len: u16,
}

// SAFETY: a frame is the only access to its chunk (the invariant above), and the memory lives as long as the process
// and belongs to no thread.
unsafe impl Send for Frame {}
// SAFETY: a shared frame only hands out `&[u8]`; whoever could write holds `&mut`.
unsafe impl Sync for Frame {}

impl Frame {
    /// The frame of chunk number `chunk`, whose `size` bytes begin at `base`, with the packet at `offset`.
    ///
    /// # Safety
    ///
    /// `base` must point to `size` initialised bytes that stay mapped for ever, and no other `Frame` for them may
    /// exist, nor may the kernel touch them, until this one has been consumed by `into_base`.
    pub(super) unsafe fn new(base: NonNull<u8>, chunk: u32, size: usize, offset: usize, len: usize) -> Self {
        debug_assert!(chunk >> SIZE_SHIFT == 0 && size.is_multiple_of(SMALL) && size <= CHUNKS_MAX as usize * LARGE);
        assert!(offset <= size && len <= size - offset, "packet {offset}+{len} in a chunk of {size}");
        const { assert!(CHUNKS_MAX as usize * LARGE / SMALL < 1 << (u32::BITS - SIZE_SHIFT)) };
        Frame { base, chunk: chunk | ((size / SMALL) as u32) << SIZE_SHIFT, offset: offset as u16, len: len as u16 }
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `offset + len <= size`, so this lies in the chunk, whose bytes are initialised and ours alone; the
        // borrow of `self` keeps `bytes_mut` away.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.offset as usize), self.len as usize) }
    }

    /// The packet, to be changed.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and `&mut self` means that no other slice of this chunk is alive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(self.offset as usize), self.len as usize) }
    }

    /// Length of the packet.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the packet has no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How far [`prepend`](Self::prepend) can grow.
    #[inline]
    pub fn headroom(&self) -> usize {
        self.offset as usize
    }

    /// How far [`resize`](Self::resize) can grow beyond `len`.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.size() - self.offset as usize - self.len as usize
    }

    /// Number of the chunk in its UMEM; those of long frames follow those of all chunks.
    #[inline]
    pub fn chunk(&self) -> u32 {
        self.chunk & ((1 << SIZE_SHIFT) - 1)
    }

    /// Whether it has more than one chunk.
    #[inline]
    pub fn is_long(&self) -> bool {
        self.size() > LARGE
    }

    /// Cuts `n` bytes off the front, as after a header that has been read.
    ///
    /// # Panics
    ///
    /// If the packet has fewer than `n` bytes.
    #[inline]
    pub fn trim_front(&mut self, n: usize) {
        assert!(n <= self.len(), "trim of {n} from a packet of {}", self.len);
        self.offset += n as u16;
        self.len -= n as u16;
    }

    /// Cuts the packet to a part of it.
    ///
    /// # Panics
    ///
    /// If that is not all in it.
    #[inline]
    pub fn keep(&mut self, part: std::ops::Range<usize>) {
        assert!(part.start <= part.end && part.end <= self.len(), "{part:?} of a packet of {}", self.len);
        self.offset += part.start as u16;
        self.len = (part.end - part.start) as u16;
    }

    /// Grows the packet by `n` zero bytes at the front and returns them, for a header to be written.
    ///
    /// # Panics
    ///
    /// If `n` exceeds `headroom()`.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> &mut [u8] {
        self.uncover(n);
        let header = &mut self.bytes_mut()[..n];
        header.fill(0);
        header
    }

    /// Grows the packet by `n` bytes at the front, for a header of which the caller writes every byte: they hold what the chunk
    /// held there, somebody's old packet perhaps.
    ///
    /// # Panics
    ///
    /// If `n` exceeds `headroom()`.
    #[inline]
    pub fn uncover(&mut self, n: usize) {
        assert!(n <= self.headroom(), "{n} bytes of header with a headroom of {}", self.offset);
        self.offset -= n as u16;
        self.len += n as u16;
    }

    /// Cuts or grows the packet to `len` at its end; new bytes are zero.
    ///
    /// # Panics
    ///
    /// If `len` exceeds `len() + tailroom()`.
    #[inline]
    pub fn resize(&mut self, len: usize) {
        let old = self.len();
        if len <= old {
            self.len = len as u16;
            return;
        }
        assert!(len <= old + self.tailroom(), "resize to {len} where {} fit", old + self.tailroom());
        self.len = len as u16;
        self.bytes_mut()[old..].fill(0);
    }

    /// Forgets the packet: `len` zero bytes after `headroom` bytes of room.
    ///
    /// # Panics
    ///
    /// If the two exceed the chunk.
    #[inline]
    pub fn reset(&mut self, headroom: usize, len: usize) {
        assert!(
            headroom <= self.size() && len <= self.size() - headroom,
            "reset to {headroom}+{len} in a chunk of {}",
            self.size()
        );
        self.offset = headroom as u16;
        self.len = 0;
        self.resize(len);
    }

    /// Forgets the packet and takes a copy of `packet`, with the usual headroom.
    ///
    /// # Panics
    ///
    /// If `packet` is longer than the chunk less [`HEADROOM`].
    pub fn copy_from(&mut self, packet: &[u8]) {
        let room = self.size() - HEADROOM;
        assert!(packet.len() <= room, "a packet of {} in a chunk with room for {room}", packet.len());
        self.offset = HEADROOM as u16;
        self.len = packet.len() as u16;
        self.bytes_mut().copy_from_slice(packet);
    }

    /// Grows the packet by these bytes at its end.
    ///
    /// # Panics
    ///
    /// If they exceed `tailroom()`.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let old = self.len();
        assert!(bytes.len() <= self.tailroom(), "{} bytes where {} fit", bytes.len(), self.tailroom());
        self.len += bytes.len() as u16;
        self.bytes_mut()[old..].copy_from_slice(bytes);
    }

    /// Size of the chunk, or of all its chunks.
    #[inline]
    pub fn size(&self) -> usize {
        SMALL * (self.chunk >> SIZE_SHIFT) as usize
    }

    /// The chunk's first byte; with it the right to the chunk passes to the caller.
    #[inline]
    pub(super) fn into_base(self) -> NonNull<u8> {
        self.base
    }

    /// The chunk's first byte, to be compared and not followed.
    #[inline]
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Where the packet begins in the chunk.
    #[inline]
    pub(super) fn offset(&self) -> usize {
        self.offset as usize
    }

    /// The packet's place in the chunk.
    pub(super) fn place(&self) -> std::ops::Range<u64> {
        self.offset.into()..u64::from(self.offset) + u64::from(self.len)
    }
}

/// Says where the packet is and never what is in it: packets have no place in a log.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame(chunk {}, {}+{})", self.chunk(), self.offset, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Umem;
    use super::*;

    fn poisoned(size: u32) -> Frame {
        let mut frame = Umem::private(1, size).frames(0..1).pop().unwrap();
        frame.reset(0, size as usize);
        frame.bytes_mut().fill(0xEE);
        frame.reset(HEADROOM, 0);
        frame
    }

    #[test]
    fn a_frame_is_16_bytes() {
        assert_eq!(size_of::<Frame>(), 16);
        assert_eq!(size_of::<Option<Frame>>(), 16);
    }

    #[test]
    fn bounds_move_within_the_chunk() {
        for size in [2048, 4096] {
            let mut frame = poisoned(size);
            assert_eq!((frame.headroom(), frame.len(), frame.tailroom()), (256, 0, size as usize - 256));
            frame.copy_from(b"hello");
            frame.trim_front(2);
            assert_eq!(frame.bytes(), b"llo");
            assert_eq!(frame.headroom(), 258);
            frame.prepend(3).copy_from_slice(b"abc");
            assert_eq!(frame.bytes(), b"abcllo");
            frame.resize(4);
            assert_eq!(frame.bytes(), b"abcl");
            frame.resize(6);
            assert_eq!(frame.bytes(), b"abcl\0\0");
            frame.resize(6 + frame.tailroom());
            assert_eq!(frame.tailroom(), 0);
            let _ = frame.prepend(frame.headroom());
            assert_eq!(frame.len(), size as usize);
        }
    }

    #[test]
    fn uncovered_bytes_are_never_stale() {
        let mut frame = poisoned(2048);
        frame.resize(100);
        assert!(frame.bytes().iter().all(|&b| b == 0));
        assert!(frame.prepend(70).iter().all(|&b| b == 0));
        frame.bytes_mut().fill(0xEE);
        frame.resize(10);
        frame.resize(170);
        assert!(frame.bytes()[10..].iter().all(|&b| b == 0));
        frame.reset(0, 2048);
        assert!(frame.bytes().iter().all(|&b| b == 0));
    }

    #[test]
    fn no_move_leaves_the_chunk() {
        type Step = fn(&mut Frame);
        let steps: [Step; 7] = [
            |f| f.trim_front(f.len() + 1),
            |f| _ = f.prepend(f.headroom() + 1),
            |f| f.uncover(f.headroom() + 1),
            |f| f.resize(f.len() + f.tailroom() + 1),
            |f| f.reset(1, f.size()),
            |f| f.reset(usize::MAX, 2),
            |f| f.copy_from(&[0; 1793]),
        ];
        for step in steps {
            let mut frame = poisoned(2048);
            frame.resize(8);
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(&mut frame)));
            assert!(outcome.is_err());
            assert!(frame.headroom() + frame.len() + frame.tailroom() == 2048);
        }
    }
}
