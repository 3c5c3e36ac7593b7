//! The replay window: each counter of a session is accepted at most once, whichever thread gets it, without a lock and without an owner.
//!
//! Counters are cut into laps of 8192. A counter has one bit in one of 256 words, and a word says which lap its bits are about:
//!
//! ```text
//! counter, 45 bits   lap (32) | word (8) | bit (5)
//! a word, 64 bits    lap (32) | flags (32)
//! ```
//!
//! **Why no counter is accepted twice.** Every change of a word is one compare-and-swap that either sets one clear bit of the same lap
//! or starts a newer lap with one bit. So in the modification order of a word, which all threads agree on, its lap never falls, and
//! within a lap a bit once set stays set. The swap that accepts a counter leaves its lap and its bit in the word: from there on each
//! attempt finds the bit set, or a newer lap, and loses. A lap is stored whole, so none is ever mistaken for another. This needs
//! neither `highest` nor any order between two words, so that every access may be relaxed: nothing else is published through them.
//!
//! **What `highest` is for.** It alone refuses counters more than [`REPLAY_WIDTH`] below the highest accepted, as RFC 6479 and the Linux
//! kernel do, and it may lag: a batch raises it once, after its last accept. A lagging `highest` admits an older counter for one batch
//! longer, but still once. A word of a newer lap never refuses a counter that the width allows: whoever started that lap accepted a
//! counter at least 8192 - 31 above each that the word held before, which is more than the width.
//!
//! Taken one after the other, with a `raise` after each, answers are the same as RFC 6479's for every counter below [`LIMIT`].

use std::array;
use std::fmt;

use super::atomic::{AtomicU64, Ordering::Relaxed};
use crate::constants::REPLAY_WIDTH;

/// The first counter that the window refuses for its size: 2^45, or 195 Gpps for the 180 s of a session.
pub const LIMIT: u64 = 1 << (LAP_BITS + LAP_SHIFT);

const LAP_BITS: u32 = 32;
const WORDS: usize = 256;
const FLAGS: u64 = 32;
const LAP_SHIFT: u32 = (WORDS as u64 * FLAGS).trailing_zeros();

// A newer lap overwrites only what the width has left behind.
const _: () = assert!(REPLAY_WIDTH < WORDS as u64 * FLAGS - (FLAGS - 1));

/// The counters accepted so far under one key.
///
/// For each message: [`look`](Self::look), open, and once the tag has verified [`accept`](Self::accept); for each batch then one
/// [`raise`](Self::raise) to the highest counter that was accepted.
pub struct Window {
    highest: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// Why a counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// It lies too far below the highest counter accepted for the window to remember it.
    TooOld,
    /// It has been accepted before.
    Replayed,
    /// It is [`LIMIT`] or above.
    Limit,
}

/// Where a counter has its bit.
struct Place {
    word: usize,
    lap: u64,
    flag: u64,
}

impl Window {
    /// A window that has accepted nothing.
    pub fn new() -> Self {
        Self { highest: AtomicU64::new(0), words: array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Whether `counter` could still be accepted: saves opening what would be refused afterwards. Changes nothing and promises nothing.
    #[inline]
    pub fn look(&self, counter: u64) -> Result<(), Reject> {
        let place = self.place(counter)?;
        place.mark(self.words[place.word].load(Relaxed)).map(drop)
    }

    /// Accepts `counter`, for good: of all calls with it, from all threads, at most one returns `Ok`. Only after its tag has verified.
    #[inline]
    pub fn accept(&self, counter: u64) -> Result<(), Reject> {
        let place = self.place(counter)?;
        let word = &self.words[place.word];
        let mut seen = word.load(Relaxed);
        // Lock-free: a swap fails only because another thread's has accepted a counter.
        loop {
            match word.compare_exchange_weak(seen, place.mark(seen)?, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => seen = now,
            }
        }
    }

    /// Moves the window up to `counter`, which has been accepted; once per batch, with the highest of it. Never moves it down.
    pub fn raise(&self, counter: u64) {
        debug_assert!(counter < LIMIT, "counter {counter} can't have been accepted");
        self.highest.fetch_max(counter, Relaxed);
    }

    /// Asks for what `counter` will be compared with.
    #[inline]
    pub fn foresee(&self, counter: u64) {
        crate::cache::foresee(&self.highest);
        crate::cache::foresee(&self.words[(counter / FLAGS) as usize % WORDS]);
    }

    /// The highest counter that the window was raised to; 0 before that.
    pub fn highest(&self) -> u64 {
        self.highest.load(Relaxed)
    }

    #[inline]
    fn place(&self, counter: u64) -> Result<Place, Reject> {
        if counter >= LIMIT {
            return Err(Reject::Limit);
        }
        if counter + REPLAY_WIDTH < self.highest() {
            return Err(Reject::TooOld);
        }
        Ok(Place {
            word: (counter / FLAGS) as usize % WORDS,
            lap: counter >> LAP_SHIFT << LAP_BITS,
            flag: 1 << (counter % FLAGS),
        })
    }
}

impl Place {
    /// What the word must become for the counter to be accepted, when it is `seen` now.
    #[inline]
    fn mark(&self, seen: u64) -> Result<u64, Reject> {
        let seen_lap = seen >> LAP_BITS << LAP_BITS;
        if seen_lap > self.lap {
            Err(Reject::TooOld)
        } else if seen_lap < self.lap {
            Ok(self.lap | self.flag)
        } else if seen & self.flag != 0 {
            Err(Reject::Replayed)
        } else {
            Ok(seen | self.flag)
        }
    }
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("highest", &self.highest()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
#[path = "replay/tests.rs"] // said, since this file is also read as a part of `loom_model`
mod tests;
