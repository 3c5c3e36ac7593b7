//! What every room of Ekiden agrees on: who a packet belongs to, why it was dropped, and how its headers read.
//!
//! No I/O, no state, no `unsafe`: a header view is checked once, when it is made, and can't be wrong afterwards.
#![forbid(unsafe_code)]

mod drop;
mod id;

pub use drop::{DROP_REASONS, DropReason};
pub use id::{OutOfRange, PortIndex, SiteSlot, TenantId, TenantSlot};
