//! `bucket.rs` on words that are written whatever they hold meanwhile.

#[path = "../bucket.rs"]
mod bucket;

mod words {
    pub(super) use loom::sync::atomic::Ordering;

    #[derive(Debug)]
    pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(super) fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        pub(super) fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub(super) fn compare_exchange_weak(
            &self,
            old: u64,
            new: u64,
            success: Ordering,
            _: Ordering,
        ) -> Result<u64, u64> {
            self.0.store(new, success);
            Ok(old)
        }

        pub(super) fn fetch_sub(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_sub(value, order)
        }
    }
}

models!();
