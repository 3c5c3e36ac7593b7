//! The send counter of a session: every number is handed out at most once, to whichever thread asks, and none beyond the limit.
//!
//! The counter only ever grows, by the one `fetch_add` that hands a range out, so that two ranges never meet. It would meet itself by
//! wrapping; but a thread adds only after it has found the counter below the limit, so that each thread adds at most one range to a
//! counter that has reached it, and the room between the limit and 2^64 is larger than a range for each thread.

use std::ops::Range;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::constants::{REJECT_AFTER_MESSAGES, RESERVE_MAX, WORKERS_MAX};

/// The counters of one key that haven't been used, below a limit.
pub(crate) struct Nonces {
    next: AtomicU64,
    limit: u64,
}

// The workers, and control, which seals keepalives. No limit is larger than this one: `up_to` asserts it.
const _: () = assert!((WORKERS_MAX + 1) * RESERVE_MAX < u64::MAX - REJECT_AFTER_MESSAGES);

impl Nonces {
    /// All of them, from 0, below a limit that is at most [`REJECT_AFTER_MESSAGES`].
    pub(crate) fn up_to(limit: u64) -> Self {
        Self::between(0, limit)
    }

    pub(crate) fn between(next: u64, limit: u64) -> Self {
        assert!(limit <= REJECT_AFTER_MESSAGES, "a limit of {limit} counters");
        Self { next: AtomicU64::new(next), limit }
    }

    /// The first counter that there is none of.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// `count` counters that are the caller's alone, or what is left of them below the limit.
    pub(crate) fn reserve(&self, count: u32) -> Range<u64> {
        let count = u64::from(count);
        assert!(count <= RESERVE_MAX, "{count} counters at once: at most {RESERVE_MAX}");
        if self.next.load(Relaxed) >= self.limit {
            return self.limit..self.limit;
        }
        let first = self.next.fetch_add(count, Relaxed);
        first.min(self.limit)..(first + count).min(self.limit)
    }

    /// How many have been reserved.
    pub(crate) fn reserved(&self) -> u64 {
        self.next.load(Relaxed).min(self.limit)
    }
}

#[cfg(all(test, not(loom)))]
#[path = "nonces/tests.rs"] // said, since this file is also read as a part of `loom_model`
mod tests;
