//! What the two sides of a ring touch: words that are atomic, and slots that are read and written in turns.
#![allow(unsafe_code, reason = "a slot is written through a shared reference")]

use std::cell::UnsafeCell;

pub(super) use std::sync::atomic::{AtomicU32, Ordering};

/// An entry of a ring: no more than its bytes. The models put another in its place, which notices when the turns are not kept.
#[repr(transparent)]
pub(super) struct Slot<T>(UnsafeCell<T>);

impl<T: Copy> Slot<T> {
    #[cfg(test)]
    pub(super) fn new(entry: T) -> Self {
        Self(UnsafeCell::new(entry))
    }

    /// # Safety
    ///
    /// Nobody else may read or write it at the same time.
    #[inline]
    pub(super) unsafe fn write(&self, entry: T) {
        // SAFETY: the pointer is that of a living cell, and no one else uses it now, by this function's contract.
        unsafe { self.0.get().write(entry) }
    }

    /// # Safety
    ///
    /// Nobody else may write it at the same time.
    #[inline]
    pub(super) unsafe fn read(&self) -> T {
        // SAFETY: as for `write`; its bytes are always a value, since `T` is one of plain numbers that the kernel fills in.
        unsafe { self.0.get().read() }
    }
}
