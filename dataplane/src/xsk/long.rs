//! Long frames: runs of consecutive chunks, for packets that no single chunk holds.
//!
//! The kernel makes no chunk larger than a page, and hands such a packet over in several of them. It is copied into a long
//! frame, once, and from there on travels as any other: in one piece, in place. It leaves without a copy, as the kernel wants
//! it: cut where its chunks end.
#![allow(unsafe_code, reason = "makes the one frame that a run of chunks has")]

use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;

use super::HEADROOM;
use super::frame::{CHUNKS_MAX, Frame};
use super::umem::{Census, Owner, Umem};

/// The long frames of a UMEM. They lie behind its ordinary chunks.
pub(super) struct Long {
    /// Chunks of each.
    run: u32,
    /// The ledger, as of ordinary chunks.
    entries: Box<[Entry]>,
    /// Those that nobody needs. Any worker takes and gives: a packet's frame comes back where its queue is served.
    free: ArrayQueue<Frame>,
}

struct Entry {
    owner: AtomicU32,
    /// The chunks that the kernel has, as bits: written by who lends, and then by who reads that queue's completion ring.
    away: AtomicU32,
}

/// What the kernel returned.
pub(super) enum Piece {
    /// A chunk, and it has others of the same frame.
    More,
    /// The last of them: the whole frame.
    Last(Frame),
    /// Nothing that it had.
    Foreign,
}

impl Long {
    /// `count` frames of `run` chunks. None of them is made yet.
    pub(super) fn new(count: u32, run: u32) -> Self {
        assert!((2..=CHUNKS_MAX).contains(&run) && count > 0, "{count} long frames of {run} chunks");
        let entry = |_| Entry { owner: AtomicU32::new(Owner::HELD.0), away: AtomicU32::new(0) };
        Long { run, entries: (0..count).map(entry).collect(), free: ArrayQueue::new(count as usize) }
    }

    /// Chunks of all.
    pub(super) fn chunks(&self) -> u32 {
        self.entries.len() as u32 * self.run
    }
}

impl Umem {
    /// Makes the long frames; once, when the UMEM is made.
    pub(super) fn make_long(&self) {
        let Some(long) = &self.long else { return };
        for at in 0..long.entries.len() as u32 {
            // SAFETY: called once, before the UMEM is anybody's; the ledger has them as held from the beginning.
            let frame = unsafe { self.make_of(at, HEADROOM, 0) };
            let _ = self.keep(frame);
        }
    }

    /// Bytes of the largest frame that there is: of a long one, or else of a chunk.
    pub fn frame_size(&self) -> usize {
        self.chunk_size() as usize * self.long.as_ref().map_or(1, |long| long.run as usize)
    }

    /// How many long frames there are, and how many of these nobody needs.
    pub fn long_frames(&self) -> (u32, u32) {
        self.long.as_ref().map_or((0, 0), |long| (long.entries.len() as u32, long.free.len() as u32))
    }

    /// A long frame, empty, with the usual headroom; none if all are in use or there never was one.
    pub fn take_long(&self) -> Option<Frame> {
        self.long.as_ref()?.free.pop()
    }

    /// Takes a long frame back that nobody needs any more, and returns any other, for the pool.
    #[inline]
    pub fn keep(&self, mut frame: Frame) -> Option<Frame> {
        if !frame.is_long() {
            return Some(frame);
        }
        let Some(long) = &self.long else { unreachable!("a long frame of another UMEM") };
        frame.reset(HEADROOM, 0);
        // There is room for all that were made.
        let _ = long.free.push(frame);
        None
    }

    /// Writes a long frame over to `to` and gives it up; returns where its packet lies in the UMEM. Who sends it must cut it
    /// as [`cut`] does.
    ///
    /// # Panics
    ///
    /// If the frame is of another UMEM.
    pub(super) fn lend_long(&self, frame: Frame, to: Owner) -> Range<u64> {
        let Some(long) = &self.long else { unreachable!("a long frame of another UMEM") };
        let at = frame.chunk() - self.chunks();
        let begin = self.place_of(at);
        assert!(frame.base().addr().get() == self.region().0.addr().get() + begin, "a frame of another UMEM");
        let packet = frame.place();
        let _ = frame.into_base();
        let chunk = u64::from(self.chunk_size());
        let away = cut(packet.clone(), self.chunk_size()).fold(0, |bits, (begin, ..)| bits | 1 << (begin / chunk));
        let entry = &long.entries[at as usize];
        entry.away.store(away, Ordering::Relaxed);
        entry.owner.store(to.0, Ordering::Relaxed);
        begin as u64 + packet.start..begin as u64 + packet.end
    }

    /// A piece of a long frame that was sent, which began at `address`.
    pub(super) fn claim_piece(&self, address: u64, from: Owner) -> Piece {
        let Some(long) = &self.long else { return Piece::Foreign };
        let chunk = address / u64::from(self.chunk_size());
        let Some(chunk) = chunk.checked_sub(self.chunks().into()) else { return Piece::Foreign };
        let (at, bit) = (chunk / u64::from(long.run), 1 << (chunk % u64::from(long.run)));
        let Some(entry) = usize::try_from(at).ok().and_then(|at| long.entries.get(at)) else { return Piece::Foreign };
        let away = entry.away.load(Ordering::Relaxed);
        if entry.owner.load(Ordering::Relaxed) != from.0 || away & bit == 0 {
            return Piece::Foreign;
        }
        // One thread reads the completion ring of the queue by which it was lent: nobody else changes it meanwhile.
        entry.away.store(away & !bit, Ordering::Relaxed);
        if away != bit {
            return Piece::More;
        }
        entry.owner.store(Owner::HELD.0, Ordering::Relaxed);
        // SAFETY: the ledger said that it was lent, so `lend_long` consumed the frame, and every maker of another writes HELD
        // first. The kernel has returned all its chunks that it had, each once, to a ring with one consumer; visibility
        // is as for `claim`.
        Piece::Last(unsafe { self.make_of(at as u32, HEADROOM, 0) })
    }

    /// Takes back all long frames still lent by way of `queue`; how many.
    ///
    /// # Safety
    ///
    /// As for `recover`.
    pub(super) unsafe fn recover_long(&self, queue: u32) -> usize {
        let Some(long) = &self.long else { return 0 };
        let mut found = 0;
        for (at, entry) in (0..).zip(&long.entries) {
            let was = Owner::transmit(queue).0;
            if entry.owner.compare_exchange(was, Owner::HELD.0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                entry.away.store(0, Ordering::Relaxed);
                // SAFETY: lent, so `lend_long` consumed its frame; the exchange lets one caller only make the next; and
                // the kernel has given its chunks up, by this function's contract.
                let frame = unsafe { self.make_of(at, HEADROOM, 0) };
                let _ = self.keep(frame);
                found += 1;
            }
        }
        found
    }

    /// Adds the long frames to a census, each as one.
    pub(super) fn count_long(&self, census: &mut Census) {
        for entry in self.long.iter().flat_map(|long| &long.entries) {
            census.count(Owner(entry.owner.load(Ordering::Relaxed)));
        }
    }

    /// Where a long frame begins in the UMEM.
    fn place_of(&self, at: u32) -> usize {
        self.chunks() as usize * self.chunk_size() as usize + at as usize * self.frame_size()
    }

    /// # Safety
    ///
    /// No other frame of this run may exist, nor may the kernel have any of its chunks.
    unsafe fn make_of(&self, at: u32, offset: usize, len: usize) -> Frame {
        // SAFETY: every run of the ledger lies in the region, which `Umem::leak` made large enough, is zeroed by its making and
        // never unmapped. That no one else has it is the caller's.
        unsafe {
            let base = self.region().0.add(self.place_of(at));
            Frame::new(base, self.chunks() + at, self.frame_size(), offset, len)
        }
    }
}

/// The pieces of a packet in chunks of this size, in their order: where each begins, its length, and whether it is the last.
pub(super) fn cut(packet: Range<u64>, chunk: u32) -> impl ExactSizeIterator<Item = (u64, u32, bool)> {
    let chunk = u64::from(chunk);
    let (first, last) = (packet.start / chunk, packet.end.saturating_sub(1) / chunk);
    (0..(last - first + 1) as usize).map(move |n| {
        let of_chunk = (first + n as u64) * chunk;
        let begin = packet.start.max(of_chunk);
        let end = packet.end.min(of_chunk + chunk);
        (begin, (end - begin) as u32, end == packet.end)
    })
}
