//! `bucket.rs` on words that are as they should be.

#[path = "../bucket.rs"]
mod bucket;

mod words {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

models!();
