//! `ring.rs` on words whose stores do not release.

#[path = "../ring.rs"]
mod ring;

mod shared {
    words!(|_| Ordering::Relaxed, |order| order);
}

models!();
