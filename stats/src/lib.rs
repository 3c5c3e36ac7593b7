//! The statistics segment: counters that one writer each owns, any reader may read, and nobody waits for.
//!
//! A [`Segment`] is a file in a tmpfs that the hub maps and writes: [`Rows`] are a worker's part of it, [`ControlRows`] and the
//! directory are control's, and [`Segment::tick`] appends to the history. A [`Reader`] maps the same file read-only, in any
//! process that may open it; it takes no lock and asks nothing of the hub.
//!
//! `docs/STATS.md` is the contract about every byte.

#![cfg_attr(
    loom,
    allow(dead_code, unused_imports, unreachable_pub, reason = "the models need the sequence protocols alone")
)]

mod atomic;
mod sequence;

#[cfg(not(loom))]
mod directory;
#[cfg(not(loom))]
mod handover;
#[cfg(not(loom))]
mod histogram;
#[cfg(not(loom))]
mod history;
#[cfg(not(loom))]
pub mod layout;
#[cfg(not(loom))]
mod reader;
#[cfg(not(loom))]
mod rows;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod snapshot;
#[cfg(not(loom))]
mod sys;

#[cfg(all(test, loom))]
mod loom_model;

pub use sequence::Counter;
#[cfg(not(loom))]
pub use {
    directory::{Directory, Full},
    handover::hand_out,
    histogram::{BUCKETS, Histogram, MAX_NS, bucket_max},
    history::{History, Record},
    reader::{ReadError, Reader, Series},
    rows::{
        ControlRows, DropRow, HistogramRow, HubRow, LoopRow, One, PortRow, REASONS, Rows, RuleRow, Shape, SiteRow,
        SiteState, TenantRow, Totals, WorkerState, XdpRow,
    },
    segment::{CreateError, Created, Now, Segment, Spec},
    snapshot::{Books, Drop, Hub, Lane, Port, Rule, SessionState, Site, SiteKind, Snapshot, Tenant, Traffic, Worker},
    sys::clock_synchronised,
};
