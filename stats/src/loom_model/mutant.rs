//! `sequence.rs` as it is, on atomics that order nothing.
#![allow(dead_code, unreachable_pub, reason = "nobody outside the models needs any of it")]

#[path = "../sequence.rs"]
pub(super) mod sequence;

/// In the place of `crate::atomic`.
mod atomic {
    use ::loom::sync::atomic;
    pub(crate) use ::loom::sync::atomic::Ordering;

    #[derive(Debug)]
    pub(crate) struct AtomicU64(atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(atomic::AtomicU64::new(value))
        }

        /// The defect: what was written before need not be seen.
        pub(crate) fn load(&self, _: Ordering) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        /// The defect: what was written before may come later.
        pub(crate) fn store(&self, value: u64, _: Ordering) {
            self.0.store(value, Ordering::Relaxed);
        }
    }
}
