//! `replay.rs` as it is, on atomics that are not.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "the models need only a part of the window, and nobody outside needs any"
)]

#[path = "../replay.rs"]
pub(super) mod replay;

mod atomic {
    use ::loom::sync::atomic;
    pub(crate) use ::loom::sync::atomic::Ordering;

    pub(crate) struct AtomicU64(atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_max(value, order)
        }

        /// The defect: what another thread stores between this load and this store is lost.
        pub(crate) fn compare_exchange_weak(
            &self,
            current: u64,
            new: u64,
            order: Ordering,
            _failure: Ordering,
        ) -> Result<u64, u64> {
            let now = self.0.load(order);
            if now != current {
                return Err(now);
            }
            self.0.store(new, order);
            Ok(now)
        }
    }
}
