//! What a writer and its readers agree on: counters, records and the directory, each with one writer that never waits.
//!
//! Every store is a release and every load an acquire; on x86 and ARMv8 they cost what plain ones cost. From that follows
//! all that is promised here: who has seen a value sees everything that its writer wrote before it.

use super::atomic::{AtomicU64, Ordering};

/// A monotone counter, or the latest of a changing value, with a single writer.
#[derive(Debug)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    #[cfg(all(test, loom))]
    pub(crate) fn new(value: u64) -> Self {
        Self(AtomicU64::new(value))
    }

    /// Adds `n`. For the row's owner alone: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// Replaces the value. For the row's owner alone.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// The value now.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Guards what takes several words to say, such as the directory. Odd while it changes.
///
/// The guarded words are [`Counter`]s. A reader that has seen a new word sees the odd number that was stored before it, so
/// that it can't find the sequence unchanged.
#[derive(Debug)]
pub(crate) struct Sequence<'a>(&'a Counter);

impl<'a> Sequence<'a> {
    pub(crate) fn of(counter: &'a Counter) -> Self {
        Self(counter)
    }

    /// Changes what is guarded. For the only writer.
    pub(crate) fn change<R>(&self, change: impl FnOnce() -> R) -> R {
        let before = self.0.read();
        self.0.set(before | 1);
        let result = change();
        self.0.set((before | 1).wrapping_add(1));
        result
    }

    /// What a reader notes before it reads; `None` while there is a change under way.
    pub(crate) fn begin(&self) -> Option<u64> {
        Some(self.0.read()).filter(|sequence| sequence & 1 == 0)
    }

    /// Whether what was read since [`Sequence::begin`] belongs together.
    pub(crate) fn unchanged(&self, begun: u64) -> bool {
        self.0.read() == begun
    }
}

/// Words of a record besides its own sequence. (Loom tries every order of every one of them: there, two stand for all.)
pub(crate) const WORDS: usize = if cfg!(loom) { 2 } else { 7 };

/// A place in a ring of history: 64 bytes, under a sequence of its own, which also tells the record's number.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Place {
    sequence: Counter,
    words: [Counter; WORDS],
}

/// What a reader found in a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The record that it looked for.
    Record([u64; WORDS]),
    /// A later one has taken its place, or is about to.
    Overwritten,
}

impl Place {
    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Self { sequence: Counter::new(0), words: std::array::from_fn(|_| Counter::new(0)) }
    }

    /// The sequence of a place that holds the record with this number: even, and never that of an empty one.
    fn code(number: u64) -> u64 {
        number.wrapping_add(1) << 1
    }

    /// Puts a record here, in the place of one that is older by the depth of the ring. For the only writer.
    pub(crate) fn write(&self, number: u64, words: [u64; WORDS]) {
        self.sequence.set(Self::code(number) | 1);
        for (place, word) in self.words.iter().zip(words) {
            place.set(word);
        }
        self.sequence.set(Self::code(number));
    }

    /// The record with this number, if it still is here.
    pub(crate) fn read(&self, number: u64) -> Found {
        let code = Self::code(number);
        if self.sequence.read() != code {
            return Found::Overwritten;
        }
        let words = std::array::from_fn(|at| self.words[at].read());
        if self.sequence.read() == code { Found::Record(words) } else { Found::Overwritten }
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Place>() == 64 && size_of::<Counter>() == 8);
