//! `ring.rs` on words whose loads do not acquire.

#[path = "../ring.rs"]
mod ring;

mod shared {
    words!(|order| order, |_| Ordering::Relaxed);
}

models!();
