//! `replay.rs` and `nonces.rs` as they are, on atomics that are not.
#![allow(dead_code, unreachable_pub, reason = "the models need only a part, and nobody outside needs any")]

#[path = "../replay.rs"]
pub(super) mod replay;

#[path = "../nonces.rs"]
pub(super) mod nonces;

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

        /// The same defect as below.
        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            let now = self.0.load(order);
            self.0.store(now.wrapping_add(value), order);
            now
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
