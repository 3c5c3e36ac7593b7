//! Counters with one writer each: a worker adds to rows of its own, anybody reads them, nobody waits.
//!
//! A row is a cache line (or several) that one worker alone writes, by load and release store, never by a locked
//! instruction. A reader that takes outputs before inputs, with acquire loads, therefore never sees more leave than came.
#![forbid(unsafe_code)]

mod rows;

pub use rows::{Counter, DropRow, LoopRow, PortRow, Rows, Shape, SiteRow, Totals};
