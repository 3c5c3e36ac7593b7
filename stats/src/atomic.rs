//! The atomics of the sequence protocols: those of the standard library, or loom's, which try every order that the memory
//! model allows.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
