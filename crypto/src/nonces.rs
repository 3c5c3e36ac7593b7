//! The send counter of a session: every number is handed out at most once, to whichever thread asks, and none beyond the limit.
//!
//! The counter only ever grows, by the one `fetch_add` that hands a range out, so that two ranges never meet. It would meet itself by
//! wrapping; but a thread adds only after it has found the counter below the limit, so that each thread adds at most one range to a
//! counter that has reached it, and the room between the limit and 2^64 is larger than a range for each thread.

use std::ops::Range;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::constants::{REJECT_AFTER_MESSAGES, RESERVE_MAX, WORKERS_MAX};

/// The counters of one key that haven't been used.
pub(crate) struct Nonces {
    next: AtomicU64,
}

// The workers, and control, which seals keepalives.
const _: () = assert!((WORKERS_MAX + 1) * RESERVE_MAX < u64::MAX - REJECT_AFTER_MESSAGES);

impl Nonces {
    /// All of them, from 0.
    pub(crate) fn new() -> Self {
        Self::starting_at(0)
    }

    pub(crate) fn starting_at(next: u64) -> Self {
        Self { next: AtomicU64::new(next) }
    }

    /// `count` counters that are the caller's alone, or what is left of them below the limit.
    pub(crate) fn reserve(&self, count: u32) -> Range<u64> {
        let count = u64::from(count);
        assert!(count <= RESERVE_MAX, "{count} counters at once: at most {RESERVE_MAX}");
        if self.next.load(Relaxed) >= REJECT_AFTER_MESSAGES {
            return REJECT_AFTER_MESSAGES..REJECT_AFTER_MESSAGES;
        }
        let first = self.next.fetch_add(count, Relaxed);
        first.min(REJECT_AFTER_MESSAGES)..(first + count).min(REJECT_AFTER_MESSAGES)
    }

    /// How many have been reserved.
    pub(crate) fn reserved(&self) -> u64 {
        self.next.load(Relaxed).min(REJECT_AFTER_MESSAGES)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "nonces/tests.rs"] // said, since this file is also read as a part of `loom_model`
mod tests;
