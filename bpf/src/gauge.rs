//! How full each receive ring is, as its worker says; and who had to be refused because of it.
//!
//! Both are memory that the program shares with this process: nothing here makes a system call once it is mapped.

use std::mem::{offset_of, size_of};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapHandle};

use crate::Error;
use crate::program::types;
use crate::sys::Mapped;

/// The rows of all rings, and of all shares in them.
#[derive(Debug)]
pub(crate) struct Gauges {
    rings: Arc<Mapped>,
    shares: Mapped,
    /// Shares of a ring.
    per_ring: u32,
    /// Those before the first site's.
    before_sites: u32,
}

impl Gauges {
    pub(crate) fn map(rings: &MapHandle, shares: &MapHandle, sites: u32) -> Result<Self, Error> {
        let mapped = |map: &MapHandle, row: usize, name| {
            let bytes = map.max_entries() as usize * row;
            Mapped::new(map.as_fd(), bytes).map_err(|source| Error::Mapping { map: name, source })
        };
        let per_ring = shares.max_entries() / rings.max_entries();
        Ok(Self {
            rings: Arc::new(mapped(rings, size_of::<types::ring>(), "rings")?),
            shares: mapped(shares, size_of::<types::share>(), "shares")?,
            per_ring,
            before_sites: per_ring - sites,
        })
    }

    pub(crate) fn gauge(&self, ring: u32) -> Gauge {
        let at = ring as usize * size_of::<types::ring>() + offset_of!(types::ring, gauge);
        Gauge { rings: self.rings.clone(), at, turn: 0 }
    }

    /// Over all rings.
    pub(crate) fn shed(&self, site: u32) -> u64 {
        let row = size_of::<types::share>();
        let (first, step) = ((self.before_sites + site) as usize * row, self.per_ring as usize * row);
        let rows = (first..self.shares.len()).step_by(step);
        rows.map(|at| self.shares.word(at + offset_of!(types::share, shed)).load(Ordering::Relaxed)).sum()
    }
}

/// Where the worker of a receive ring says how full it is, for the program to know when to shed.
#[derive(Debug)]
pub struct Gauge {
    rings: Arc<Mapped>,
    at: usize,
    turn: u32,
}

impl Gauge {
    /// So many entries wait in the ring. To be said once a turn: it costs one store.
    ///
    /// From then on the program adds what it sends there itself, so it knows the ring running full while the worker is
    /// away, too.
    #[inline]
    pub fn say(&mut self, fill: u32) {
        self.turn = self.turn.wrapping_add(1);
        self.rings.word(self.at).store(u64::from(self.turn) << 32 | u64::from(fill), Ordering::Relaxed);
    }
}
