//! `ring.rs` on words that are as they should be.

#[path = "../ring.rs"]
mod ring;

mod shared {
    words!(|order| order, |order| order);
}

models!();
