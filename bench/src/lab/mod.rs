//! The load lab: a generator that is faster than any hub, a sink that counts, and between them the hub under test.
//!
//! Sites of the generator's end make real handshakes, their frames are sealed ahead of time, and an XDP program sends them
//! as live frames, at a pace that it keeps itself. The sink counts in XDP and drops, tunnel by tunnel; now and then it keeps
//! a message, which its receiver opens afterwards to find out which packet it was and when it left.

mod compare;
mod forward;
mod frames;
mod hubs;
mod machine;
mod measure;
mod page;
mod programs;
mod rig;
pub mod search;
mod sites;
pub mod targets;
mod trial;
pub mod trunk;

pub use compare::{Effort, compare};
pub use forward::forward;
pub use frames::{SIZES, Size};
pub use hubs::{HUB_CORE, Kind, Running};
pub use machine::{Machine, Parts, parts, stolen};
pub use measure::{NDR, PDR, carried, latency, median, overload, progress, rates, short};
pub use rig::{Between, Options, Rig};
pub use trial::{Load, Outcome, Plot};
