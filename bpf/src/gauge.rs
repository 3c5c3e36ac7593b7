//! How full each receive ring is, as its worker says; who had to be refused because of it; and how long a frame was in it.
//!
//! All of it is memory that the program shares with this process: nothing here makes a system call once it is mapped.

use std::mem::{offset_of, size_of};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use libbpf_rs::{MapCore, MapHandle};

use crate::Error;
use crate::maps::Maps;
use crate::program::types;
use crate::sys::Mapped;

/// The rows of all rings, and of all shares in them.
#[derive(Debug)]
pub(crate) struct Gauges {
    rings: Arc<Mapped>,
    shares: Mapped,
    ports: Arc<Mapped>,
    /// Shares of a ring.
    per_ring: u32,
    /// Those before the first site's.
    before_sites: u32,
}

impl Gauges {
    pub(crate) fn map(maps: &Maps, sites: u32) -> Result<Self, Error> {
        let (rings, shares, ports) = (maps.rings(), maps.shares(), maps.ports());
        let mapped = |map: &MapHandle, row: usize, name| {
            let bytes = map.max_entries() as usize * row;
            Mapped::new(map.as_fd(), bytes).map_err(|source| Error::Mapping { map: name, source })
        };
        let per_ring = shares.max_entries() / rings.max_entries();
        Ok(Self {
            rings: Arc::new(mapped(rings, size_of::<types::ring>(), "rings")?),
            shares: mapped(shares, size_of::<types::share>(), "shares")?,
            ports: Arc::new(mapped(ports, size_of::<types::port>(), "ports")?),
            per_ring,
            before_sites: per_ring - sites,
        })
    }

    pub(crate) fn gauge(&self, port: u16, ring: u32) -> Gauge {
        let at = ring as usize * size_of::<types::ring>() + offset_of!(types::ring, gauge);
        let mac = usize::from(port) * size_of::<types::port>() + offset_of!(types::port, mac);
        Gauge { rings: self.rings.clone(), at, turn: 0, ports: self.ports.clone(), mac }
    }

    /// Over all rings.
    pub(crate) fn shed(&self, site: u32) -> u64 {
        let row = size_of::<types::share>();
        let (first, step) = ((self.before_sites + site) as usize * row, self.per_ring as usize * row);
        let rows = (first..self.shares.len()).step_by(step);
        rows.map(|at| self.shares.word(at + offset_of!(types::share, shed)).load(Ordering::Relaxed)).sum()
    }
}

/// Where the worker of a receive ring says how full it is, for the program to know when to shed; and where it learns when the
/// program put a frame there.
#[derive(Debug)]
pub struct Gauge {
    rings: Arc<Mapped>,
    at: usize,
    turn: u32,
    ports: Arc<Mapped>,
    /// Where the port's address is in there.
    mac: usize,
}

/// When the program sent a frame to its ring: 47 bits of `CLOCK_BOOTTIME`, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(u64);

/// Bits of a time that there is room for beside the mark.
const STAMP_BITS: u32 = 47;

impl Stamp {
    /// Nanoseconds from then to `now` (`CLOCK_BOOTTIME`), if that are less than 19 hours. None, if `now` was before.
    pub fn until(self, now_ns: u64) -> u64 {
        let unused = u64::BITS - STAMP_BITS;
        // As a signed number of 47 bits: the program reads the clock by another way, which may be ahead by a hair.
        let elapsed = ((now_ns.wrapping_sub(self.0) << unused) as i64) >> unused;
        elapsed.max(0) as u64
    }
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

    /// Takes the time off a frame of the ring, if it carries one (see `stamp` in `steer.bpf.c`), and gives the frame back the
    /// destination that lay there: the port's address.
    #[inline]
    pub fn unstamp(&self, frame: &mut [u8]) -> Option<Stamp> {
        let mac = frame.first_chunk_mut::<6>()?;
        if mac[0] & 1 == 0 {
            return None;
        }
        let [a, b, c, d, e, f] = *mac;
        let word = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let port = self.ports.word(self.mac).load(Ordering::Relaxed).to_ne_bytes();
        mac.copy_from_slice(&port[..6]);
        Some(Stamp(word >> 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_as_old_as_it_is_across_the_end_of_its_bits() {
        let wrap = 1 << STAMP_BITS;
        for stamped in [0, 1, wrap - 1, wrap, 5 * wrap - 3, u64::MAX - 10] {
            for elapsed in [0, 1, 7, 1_000_000_000, wrap / 2 - 1] {
                assert_eq!(
                    Stamp(stamped % wrap).until(stamped.wrapping_add(elapsed)),
                    elapsed,
                    "{stamped} + {elapsed}"
                );
            }
            assert_eq!(Stamp(stamped % wrap).until(stamped.wrapping_sub(5)), 0, "five before {stamped}");
        }
    }
}
