//! The packet memory and the ledger of its chunks.
#![allow(unsafe_code, reason = "maps the memory, and makes the one frame that a chunk has")]

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::frame::{Frame, HEADROOM};
use super::long::Long;
use super::sys;

/// Who has a chunk, as the ledger writes it: nobody yet, user space as a `Frame`, or the kernel by way of one queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner(pub(super) u32);

impl Owner {
    const NOBODY: Owner = Owner(0);
    pub(super) const HELD: Owner = Owner(1);

    /// Lent by way of the fill ring of queue `id` (from 1 up); comes back by a receive ring.
    pub(super) const fn receive(id: u32) -> Owner {
        Owner(id << 1)
    }

    /// Lent by way of a transmit ring of queue `id`; comes back by its completion ring.
    pub(super) const fn transmit(id: u32) -> Owner {
        Owner(id << 1 | 1)
    }

    fn queue(self) -> u32 {
        self.0 >> 1
    }
}

/// Where the chunks of a UMEM are; a long frame counts as one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Census {
    /// Not handed out yet.
    pub unissued: u32,
    /// Held by user space as a [`Frame`]; also those lost by dropping one.
    pub held: u32,
    /// In a fill ring, in the kernel, or in a receive ring.
    pub receive: u32,
    /// In a transmit ring, in the kernel, or in a completion ring.
    pub transmit: u32,
}

impl Census {
    pub(super) fn count(&mut self, owner: Owner) {
        let place = match owner {
            Owner::NOBODY => &mut self.unissued,
            Owner::HELD => &mut self.held,
            _ if owner == Owner::receive(owner.queue()) => &mut self.receive,
            _ => &mut self.transmit,
        };
        *place += 1;
    }
}

/// Packet memory, cut into chunks of equal size, shared with the kernel.
///
/// It lives as long as the process, because frames point into it, and lies in a memfd, so that a successor can map the
/// same memory. It is kept out of core dumps.
pub struct Umem {
    base: NonNull<u8>,
    len: usize,
    chunk_size: usize,
    /// The ledger. Written by whoever lends or claims the chunk, who has it in hand at that moment.
    owners: Box<[AtomicU32]>,
    /// Frames of several chunks, behind the others.
    pub(super) long: Option<Long>,
    /// Number for the next queue that lends of this memory; zero stands for none.
    next_queue: AtomicU32,
    memory: Memory,
}

enum Memory {
    /// Of the allocator: no socket, no file.
    Private,
    File {
        fd: OwnedFd,
        huge: bool,
    },
}

// SAFETY: `base` is only an address here; the bytes behind it are reached through `Frame`s alone, each the only one of
// its chunk. Everything else in here is shareable by itself.
unsafe impl Send for Umem {}
// SAFETY: as above.
unsafe impl Sync for Umem {}

impl Umem {
    /// Maps memory for `chunks` chunks of 2048 or 4096 bytes, on huge pages where enough are free; already faulted in.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for another chunk size or for no chunk at all, otherwise what the kernel said.
    pub fn new(chunks: u32, chunk_size: u32) -> io::Result<&'static Umem> {
        Self::with_long(chunks, chunk_size, 0, 1)
    }

    /// The same, with `long` frames of `run` chunks each besides, if any.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// On a run of one chunk, or of more than [`CHUNKS_MAX`](super::CHUNKS_MAX).
    pub fn with_long(chunks: u32, chunk_size: u32, long: u32, run: u32) -> io::Result<&'static Umem> {
        let long = (long > 0).then(|| Long::new(long, run));
        let len = checked_len(chunks + long.as_ref().map_or(0, Long::chunks), chunk_size)?;
        // A hugetlb mapping reserves its pages when it is made: where they lack, it fails now and not by SIGBUS later.
        let (fd, base, huge) = match Self::map(len, true) {
            Ok((fd, base)) => (fd, base, true),
            Err(_) => {
                let (fd, base) = Self::map(len, false)?;
                (fd, base, false)
            }
        };
        Ok(Self::leak((base, len), chunks, chunk_size, long, Memory::File { fd, huge }))
    }

    /// Memory of this process alone, for what runs without a socket: the same frames, the same ledger.
    ///
    /// # Panics
    ///
    /// On a chunk size other than 2048 or 4096, no chunk, or no memory.
    pub fn private(chunks: u32, chunk_size: u32) -> &'static Umem {
        Self::private_with_long(chunks, chunk_size, 0, 1)
    }

    /// The same, with `long` frames of `run` chunks each besides, if any.
    ///
    /// # Panics
    ///
    /// Likewise, and on a run of one chunk, or of more than [`CHUNKS_MAX`](super::CHUNKS_MAX).
    pub fn private_with_long(chunks: u32, chunk_size: u32, long: u32, run: u32) -> &'static Umem {
        let long = (long > 0).then(|| Long::new(long, run));
        let len = checked_len(chunks + long.as_ref().map_or(0, Long::chunks), chunk_size);
        let len = len.expect("a valid size of a private UMEM");
        let layout = std::alloc::Layout::from_size_align(len, 4096).expect("checked_len keeps it far below isize::MAX");
        // SAFETY: `checked_len` refuses no chunks, so the size is not zero.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        let base = base.unwrap_or_else(|| std::alloc::handle_alloc_error(layout));
        Self::leak((base, len), chunks, chunk_size, long, Memory::Private)
    }

    fn map(len: usize, huge: bool) -> io::Result<(OwnedFd, NonNull<u8>)> {
        let len = if huge { len.next_multiple_of(sys::HUGE_PAGE) } else { len };
        let fd = sys::memory_file(len, huge)?;
        let mapping = sys::Mapping::shared(fd.as_fd(), 0, len)?;
        mapping.exclude_from_dumps()?;
        Ok((fd, mapping.leak()))
    }

    /// A UMEM over these bytes: so many chunks, and then its long frames.
    fn leak(
        (base, len): (NonNull<u8>, usize),
        chunks: u32,
        chunk_size: u32,
        long: Option<Long>,
        memory: Memory,
    ) -> &'static Umem {
        let chunk_size = chunk_size as usize;
        let owners = (0..chunks).map(|_| AtomicU32::new(Owner::NOBODY.0)).collect();
        let next_queue = AtomicU32::new(1);
        let umem = Box::leak(Box::new(Umem { base, len, chunk_size, owners, long, next_queue, memory }));
        umem.make_long();
        umem
    }

    /// The frames of these chunks, empty, with the usual headroom; each chunk's only once.
    ///
    /// # Panics
    ///
    /// If the range leaves the memory, or one of its chunks was handed out before.
    pub fn frames(&self, chunks: Range<u32>) -> Vec<Frame> {
        assert!(chunks.start <= chunks.end && chunks.end <= self.chunks(), "{chunks:?} of {} chunks", self.chunks());
        let mut frames = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let was = self.owners[chunk as usize].swap(Owner::HELD.0, Ordering::Relaxed);
            assert!(was == Owner::NOBODY.0, "chunk {chunk} was handed out before");
            // SAFETY: the swap saw NOBODY, which is written only when the UMEM is made, so this call alone, on any
            // thread, makes the chunk's first frame, and the kernel was never told of the chunk.
            frames.push(unsafe { self.make(chunk, HEADROOM, 0) });
        }
        frames
    }

    /// Number of chunks, those of long frames aside.
    pub fn chunks(&self) -> u32 {
        self.owners.len() as u32
    }

    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size as u32
    }

    /// Whether the memory lies on huge pages.
    pub fn huge_pages(&self) -> bool {
        matches!(self.memory, Memory::File { huge: true, .. })
    }

    /// The file that a successor can map; none for private memory.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        match &self.memory {
            Memory::Private => None,
            Memory::File { fd, .. } => Some(fd.as_fd()),
        }
    }

    /// Counts the chunks by owner. Exact when nobody moves frames meanwhile, otherwise a moment's blur.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for owner in &self.owners {
            census.count(Owner(owner.load(Ordering::Relaxed)));
        }
        self.count_long(&mut census);
        census
    }

    /// A number under which a queue can lend.
    pub(super) fn new_queue(&self) -> u32 {
        // 2^31 of them outlast any process that opens sockets; wrapping would only blur the ledger, not memory.
        self.next_queue.fetch_add(1, Ordering::Relaxed)
    }

    /// The memory as `XDP_UMEM_REG` wants it: address and length of the chunks.
    pub(super) fn region(&self) -> (NonNull<u8>, usize) {
        (self.base, self.len)
    }

    /// Writes the chunk over to `to` and gives its frame up; returns where the packet begins in the UMEM.
    ///
    /// # Panics
    ///
    /// If the frame is of another UMEM.
    #[inline]
    pub(super) fn lend(&self, frame: Frame, to: Owner) -> u64 {
        let chunk = frame.chunk() as usize;
        let address = chunk * self.chunk_size;
        assert!(
            address < self.len && frame.base().addr().get() == self.base.addr().get() + address,
            "a frame of another UMEM"
        );
        let address = address + frame.offset();
        let _ = frame.into_base();
        self.owners[chunk].store(to.0, Ordering::Relaxed);
        address as u64
    }

    /// The frame of a packet that the kernel returned, `len` bytes at `address`. None if no such chunk was lent to
    /// `from`, or the packet leaves it.
    #[inline]
    pub(super) fn claim(&self, address: u64, len: usize, from: Owner) -> Option<Frame> {
        let chunk = (address / self.chunk_size as u64) as usize;
        let offset = (address % self.chunk_size as u64) as usize;
        let owner = self.owners.get(chunk)?;
        if owner.load(Ordering::Relaxed) != from.0 || len > self.chunk_size - offset {
            return None;
        }
        owner.store(Owner::HELD.0, Ordering::Relaxed);
        // SAFETY: the ledger said that the chunk was lent, so `lend` consumed its frame, and no other was made since:
        // every maker (this function, `frames`, `recover`) writes HELD first. Two threads can't both have seen it lent,
        // since the kernel returns a chunk once (see the module), to one ring, which has one consumer; and having
        // returned it, the kernel leaves it alone. That the lender's writes are visible here follows from the
        // rings' release and acquire, by which the address went to the kernel and came back.
        Some(unsafe { self.make(chunk as u32, offset, len) })
    }

    /// The frames of all chunks still lent by way of `queue`, and how many were lent to be sent, long ones included: those are
    /// taken back at once.
    ///
    /// # Safety
    ///
    /// The kernel must have given up every socket of that queue, and every packet of it that waited to be sent.
    pub(super) unsafe fn recover(&self, queue: u32) -> (Vec<Frame>, usize) {
        // SAFETY: by the same contract.
        let (mut frames, mut unsent) = (Vec::new(), unsafe { self.recover_long(queue) });
        for (chunk, owner) in self.owners.iter().enumerate() {
            let was = owner.load(Ordering::Relaxed);
            if was <= Owner::HELD.0 || Owner(was).queue() != queue {
                continue;
            }
            if owner.compare_exchange(was, Owner::HELD.0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                // SAFETY: lent, so `lend` consumed its frame; the exchange lets one caller only make the next; and the
                // kernel has given the chunk up, by this function's contract.
                frames.push(unsafe { self.make(chunk as u32, HEADROOM, 0) });
                unsent += usize::from(Owner(was) == Owner::transmit(queue));
            }
        }
        (frames, unsent)
    }

    /// # Safety
    ///
    /// No other frame of this chunk may exist, nor may the kernel have it.
    #[inline]
    unsafe fn make(&self, chunk: u32, offset: usize, len: usize) -> Frame {
        // SAFETY: `chunk` indexed `owners`, so the chunk lies in the region, which is zeroed by its making and never
        // unmapped. That no one else has it is the caller's.
        unsafe { Frame::new(self.base.add(chunk as usize * self.chunk_size), chunk, self.chunk_size, offset, len) }
    }
}

fn checked_len(chunks: u32, chunk_size: u32) -> io::Result<usize> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if chunk_size != 2048 && chunk_size != 4096 {
        return refuse(format!("a chunk of {chunk_size} bytes: it can have 2048 or 4096"));
    }
    if chunks == 0 || chunks >= 1 << 28 {
        return refuse(format!("{chunks} chunks: there can be 1 to 268435455"));
    }
    Ok(chunks as usize * chunk_size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_handed_out_once() {
        let umem = Umem::private(8, 2048);
        let first = umem.frames(0..4);
        assert_eq!(umem.census(), Census { unissued: 4, held: 4, ..Census::default() });
        assert!(std::panic::catch_unwind(|| umem.frames(3..5)).is_err());
        assert!(std::panic::catch_unwind(|| umem.frames(7..9)).is_err());
        assert_eq!(first.iter().map(Frame::chunk).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn frames_do_not_overlap() {
        let mut frames = Umem::private(4, 4096).frames(0..4);
        for (i, frame) in frames.iter_mut().enumerate() {
            frame.reset(0, 4096);
            frame.bytes_mut().fill(i as u8 + 1);
        }
        for (i, frame) in frames.iter().enumerate() {
            assert!(frame.bytes().iter().all(|&b| b == i as u8 + 1));
        }
    }

    #[test]
    fn only_what_was_lent_can_be_claimed() {
        let umem = Umem::private(4, 2048);
        let mut frame = umem.frames(2..3).pop().unwrap();
        frame.copy_from(b"packet");
        let (rx, tx) = (Owner::receive(1), Owner::transmit(1));
        assert!(umem.claim(2 * 2048, 0, tx).is_none(), "held by us");
        let address = umem.lend(frame, tx);
        assert_eq!(address, 2 * 2048 + 256);
        assert_eq!(umem.census(), Census { unissued: 3, transmit: 1, ..Census::default() });
        assert!(umem.claim(address, 6, rx).is_none(), "lent in the other direction");
        assert!(umem.claim(address, 6, Owner::transmit(2)).is_none(), "lent by another queue");
        assert!(umem.claim(2048, 6, tx).is_none(), "not lent at all");
        assert!(umem.claim(4 * 2048, 6, tx).is_none(), "outside");
        assert!(umem.claim(u64::MAX, 6, tx).is_none(), "far outside");
        assert!(umem.claim(address, 1793, tx).is_none(), "longer than the chunk");
        let frame = umem.claim(address, 6, tx).unwrap();
        assert_eq!(frame.bytes(), b"packet");
        assert!(umem.claim(address, 6, tx).is_none(), "twice");
    }

    #[test]
    #[should_panic(expected = "another UMEM")]
    fn a_frame_of_another_umem_is_refused() {
        let frame = Umem::private(1, 2048).frames(0..1).pop().unwrap();
        Umem::private(1, 2048).lend(frame, Owner::transmit(1));
    }

    #[test]
    fn recovers_one_queue() {
        let umem = Umem::private(4, 2048);
        for (frame, owner) in
            umem.frames(0..4).into_iter().zip([1, 2, 1, 2].map(|q| [Owner::receive(q), Owner::transmit(q)]).concat())
        {
            umem.lend(frame, owner);
        }
        assert_eq!(umem.census(), Census { receive: 2, transmit: 2, ..Census::default() });
        // SAFETY: no socket ever knew this memory.
        let (frames, unsent) = unsafe { umem.recover(2) };
        assert_eq!(unsent, 1);
        assert_eq!(frames.iter().map(Frame::chunk).collect::<Vec<_>>(), [2, 3]);
        // SAFETY: as above.
        assert!(unsafe { umem.recover(2) }.0.is_empty());
    }

    #[test]
    fn refuses_sizes() {
        for (chunks, size) in [(0, 2048), (1, 1024), (1, 3000), (1, 8192), (1 << 28, 2048)] {
            assert_eq!(checked_len(chunks, size).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps a file")]
    fn lies_in_a_file_outside_core_dumps() {
        let umem = Umem::new(64, 2048).unwrap();
        let mut frame = umem.frames(63..64).pop().unwrap();
        frame.copy_from(b"in the file");
        let mut read = [0; 11];
        let file = std::fs::File::from(umem.file().unwrap().try_clone_to_owned().unwrap());
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut read, 63 * 2048 + 256).unwrap();
        assert_eq!(&read, b"in the file");

        let start = format!("{:x}-", umem.base.addr());
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mapping = maps.split(&start).nth(1).expect("our mapping");
        let flags = mapping.lines().find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    }
}
