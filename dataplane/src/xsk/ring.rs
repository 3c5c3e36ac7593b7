//! The rings that a socket shares with the kernel: one side writes, the other reads, and each owns one index.
//!
//! Indices run freely over all of `u32` and wrap; a slot is the index modulo the size, and differences of indices are
//! counts, whatever wrapped in between. Each side works on a private copy of its own index and of the last value seen
//! of the other's, and touches the shared words once per batch.
#![allow(unsafe_code, reason = "reads and writes memory that the other side also has")]

use std::ptr::NonNull;

use super::shared::{AtomicU32, Ordering, Slot};
use super::sys::Mapping;

/// What both sides see. `T` is a plain number or struct of the kernel's interface.
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    slots: NonNull<Slot<T>>,
    mask: u32,
    /// What the pointers above point into, kept alive.
    _memory: Box<dyn Send>,
}

// SAFETY: the pointers go into `_memory`, which moves along and is itself sendable. The words are atomic. A slot is
// only touched by the side whose turn it is: the producer writes slots of [producer, consumer + size), the consumer
// reads those of [consumer, producer); the sets are disjoint, and a slot passes from one to the other by a release
// store of an index and an acquire load of it. The kernel, on the other side of a mapping, keeps to the same rules.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Copy> Shared<T> {
    fn mapped(mapping: Mapping, offsets: &libc::xdp_ring_offset, size: u32) -> Self {
        let word = |offset: u64| -> NonNull<AtomicU32> {
            let offset = offset as usize;
            assert!(offset.is_multiple_of(4) && offset + 4 <= mapping.len(), "a ring's word at {offset}");
            // SAFETY: inside the mapping, by the assertion.
            unsafe { mapping.base().add(offset) }.cast()
        };
        let start = offsets.desc as usize;
        assert!(size.is_power_of_two(), "a ring of {size}");
        assert!(
            start.is_multiple_of(align_of::<Slot<T>>())
                && start + size as usize * size_of::<Slot<T>>() <= mapping.len(),
            "a ring's slots at {start}"
        );
        Shared {
            producer: word(offsets.producer),
            consumer: word(offsets.consumer),
            flags: word(offsets.flags),
            // SAFETY: inside the mapping, by the assertion.
            slots: unsafe { mapping.base().add(start) }.cast(),
            mask: size - 1,
            _memory: Box::new(mapping),
        }
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: points into `_memory`, checked and aligned where it was made; atomics may be shared with anybody.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as `producer`.
        unsafe { self.flags.as_ref() }
    }

    #[inline]
    fn slot(&self, index: u32) -> &Slot<T> {
        // SAFETY: `index & mask` is below the size, and that many slots lie in `_memory`, aligned. A slot may be shared with
        // anybody: what may be read and written in it, and when, is a matter of its own calls.
        unsafe { self.slots.add((index & self.mask) as usize).as_ref() }
    }

    /// Whether the kernel waits to be woken before it looks at this ring again.
    #[inline]
    fn wakeup_wanted(&self) -> bool {
        self.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// How many entries the consumer has not taken, as both indices say now.
    fn outstanding(&self) -> u32 {
        let consumer = self.consumer().load(Ordering::Acquire);
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer)
    }
}

/// The writing side of a ring.
pub(super) struct Producer<T> {
    ring: Shared<T>,
    /// Next slot to write. Up to `size` ahead of `consumer`.
    head: u32,
    /// The other side's index when last read.
    consumer: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn new(mapping: Mapping, offsets: &libc::xdp_ring_offset, size: u32) -> Self {
        Self::over(Shared::mapped(mapping, offsets, size))
    }

    fn over(ring: Shared<T>) -> Self {
        let head = ring.producer().load(Ordering::Relaxed);
        let consumer = ring.consumer().load(Ordering::Acquire);
        Producer { ring, head, consumer }
    }

    /// Writes an entry that the other side sees at the next `publish`; gives it back if the ring is full.
    #[inline]
    pub(super) fn push(&mut self, entry: T) -> Result<(), T> {
        if !self.has_room() {
            return Err(entry);
        }
        // SAFETY: `head` is at most size - 1 ahead of `consumer`, an index that the other side had passed, and said so
        // by a release store that we acquired, before this write: it reads the slot no more until `publish`
        // shows it.
        unsafe { self.ring.slot(self.head).write(entry) };
        self.head = self.head.wrapping_add(1);
        Ok(())
    }

    /// Shows the other side all that was pushed.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.producer().store(self.head, Ordering::Release);
    }

    /// Whether a push will succeed; asks the other side only when the ring looks full.
    #[inline]
    pub(super) fn has_room(&mut self) -> bool {
        self.free() > 0 || self.room() > 0
    }

    /// Entries that can be pushed now.
    #[inline]
    pub(super) fn room(&mut self) -> u32 {
        self.refresh();
        self.free()
    }

    #[inline]
    fn free(&self) -> u32 {
        // Never below zero: `head` stops at `consumer + size`, and the other side only moves `consumer` on.
        self.ring.mask + 1 - self.head.wrapping_sub(self.consumer)
    }

    #[inline]
    fn refresh(&mut self) {
        let consumer = self.ring.consumer().load(Ordering::Acquire);
        // An index ahead of what we wrote would be nonsense; believing it would make `free` exceed the size.
        if self.head.wrapping_sub(consumer) <= self.ring.mask + 1 {
            self.consumer = consumer;
        }
    }

    /// Entries published and not yet taken.
    #[inline]
    pub(super) fn outstanding(&self) -> u32 {
        self.ring.outstanding()
    }

    /// Whether the kernel waits to be woken for this ring.
    #[inline]
    pub(super) fn wakeup_wanted(&self) -> bool {
        self.ring.wakeup_wanted()
    }
}

/// The reading side of a ring.
pub(super) struct Consumer<T> {
    ring: Shared<T>,
    /// Next slot to read.
    tail: u32,
    /// The other side's index when last read.
    producer: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn new(mapping: Mapping, offsets: &libc::xdp_ring_offset, size: u32) -> Self {
        Self::over(Shared::mapped(mapping, offsets, size))
    }

    fn over(ring: Shared<T>) -> Self {
        let tail = ring.consumer().load(Ordering::Relaxed);
        Consumer { ring, tail, producer: tail }
    }

    /// Reads the next entry; its slot is the other side's again at the next `release`.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.tail == self.producer {
            self.producer = self.ring.producer().load(Ordering::Acquire);
            if self.tail == self.producer {
                return None;
            }
        }
        // SAFETY: `tail` is before `producer`, so the other side wrote the slot before its release store of that index,
        // which we acquired, and leaves it alone until `release` passes it.
        let entry = unsafe { self.ring.slot(self.tail).read() };
        self.tail = self.tail.wrapping_add(1);
        Some(entry)
    }

    /// Gives the slots that were read back to the other side.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.consumer().store(self.tail, Ordering::Release);
    }

    /// Entries published and not yet released.
    pub(super) fn outstanding(&self) -> u32 {
        self.ring.outstanding()
    }
}

/// Rings in ordinary memory, with both sides in our hands.
#[cfg(test)]
pub(super) mod plain {
    use super::*;
    use std::sync::Arc;

    struct Plain<T> {
        producer: AtomicU32,
        consumer: AtomicU32,
        flags: AtomicU32,
        slots: Box<[Slot<T>]>,
    }

    // SAFETY: slots are touched in turns, as said at `Shared`; the rest is atomic.
    unsafe impl<T: Send> Sync for Plain<T> {}

    impl<T: Copy + Send + 'static> Shared<T> {
        fn plain(plain: Arc<Plain<T>>) -> Self {
            Shared {
                producer: NonNull::from(&plain.producer),
                consumer: NonNull::from(&plain.consumer),
                flags: NonNull::from(&plain.flags),
                slots: NonNull::from(&*plain.slots).cast(),
                mask: plain.slots.len() as u32 - 1,
                _memory: Box::new(plain),
            }
        }
    }

    /// Both sides of an empty ring whose indices stand at `start`.
    pub(in super::super) fn ring<T: Copy + Default + Send + 'static>(
        size: u32,
        start: u32,
    ) -> (Producer<T>, Consumer<T>) {
        assert!(size.is_power_of_two());
        let plain = Arc::new(Plain {
            producer: AtomicU32::new(start),
            consumer: AtomicU32::new(start),
            flags: AtomicU32::new(0),
            slots: (0..size).map(|_| Slot::new(T::default())).collect(),
        });
        (Producer::over(Shared::plain(Arc::clone(&plain))), Consumer::over(Shared::plain(plain)))
    }
}
