//! Longest-prefix match as a search among ranges.
//!
//! Nested prefixes are flattened into ranges that do not overlap: at each address where the answer changes stands the
//! new answer, and a lookup is one binary search for the last such address not above the wanted one. A tenant has a
//! few to a few hundred prefixes and there are a thousand tenants, so what counts is small tables that are dense in
//! memory; tries are made for the opposite, one table of a million prefixes.
//!
//! Measured on one core of an EPYC (Zen 4), best of six runs: ns for a lookup in IPv4 / IPv6, of random addresses among
//! as many /24 and as many /64.
//!
//! | prefixes                 | these ranges | `poptrie` 0.2 | `prefix-trie` 0.10 | `treebitmap` 0.5 |
//! |--------------------------|--------------|---------------|--------------------|------------------|
//! | 1                        | 1.6 / 2.0    | 17 / 63       | 25 / 112           | 62 / 241         |
//! | 10                       | 4.5 / 5.0    | 17 / 62       | 26 / 119           | 68 / 177         |
//! | 1,000                    | 11 / 12      | 19 / 65       | 34 / 150           | 67 / 206         |
//! | 100,000                  | 39 / 93      | 340 / 437     | 264 / 407          | 105 / 569        |
//! | 100,000, two hot         | 20 / 29      | 17 / 44       | 26 / 78            | 69 / 205         |
//! | 1,000 tenants x (10, 10) | 9 / 11       | 32 / 90       | 75 / 176           | 128 / 269        |
//! | bytes a prefix, of those | 42           | 203           | 95                 | 370              |
//! | ms to build all of those | 0.6          | 2.8           | 1.7                | 5.5              |
//!
//! The machine was shared; the 100,000, which live in the outer caches, suffered most from that.
//!
//! That was without the index of a large table (from [`LARGE`] ranges on). With it and without, in alternation, by `cargo bench --bench
//! classify` (batches of 64, IPv4 / IPv6): 100,000 routes 11 / 15 ns instead of 34 / 55; 1,000 tenants of 1,000 routes each, which no
//! cache holds, 97 / 134 instead of 126 / 350; 10 routes 10 / 13 and 9 / 12, which is the machine's noise.

use ipnet::IpNet;
use wire::TenantSlot;

use crate::Entry;

/// A route as the builder sorts them: by address, then by prefix length.
type Route = (TenantSlot, IpNet, Entry);

/// Ranges from which on a table has an index.
const LARGE: usize = 256;

/// Where to begin in a large table: the span from its first start to its last is cut into about as many equal parts as it has
/// ranges, and each part knows its first. What is left to search is then a few ranges in the same cache line or two, where the
/// binary search of 100,000 goes from miss to miss.
#[derive(Debug)]
struct Index {
    base: u64,
    shift: u32,
    /// For each part the ranges that begin before it; at the end, all.
    before: Box<[u32]>,
}

impl Index {
    /// Of these starts, which ascend; `None` if they are few.
    fn new(starts: impl ExactSizeIterator<Item = u64> + Clone) -> Option<Box<Self>> {
        let count = starts.len();
        let (base, last) = (starts.clone().next()?, starts.clone().last()?);
        if count < LARGE {
            return None;
        }
        // So that there are at least half as many parts as ranges, and at most as many.
        let shift = (u64::BITS - (last - base).leading_zeros()).saturating_sub(count.ilog2());
        let mut before = vec![0; ((last - base) >> shift) as usize + 2];
        for start in starts {
            before[((start - base) >> shift) as usize + 1] += 1;
        }
        let mut sum = 0;
        for part in &mut before {
            sum += *part;
            *part = sum;
        }
        Some(Box::new(Self { base, shift, before: before.into() }))
    }

    /// Where those starts are that may be the last at or before `key`: all before are, and none behind.
    #[inline]
    fn part(&self, key: u64) -> std::ops::Range<usize> {
        let Some(beyond) = key.checked_sub(self.base) else { return 0..0 };
        let part = ((beyond >> self.shift) as usize).min(self.before.len() - 2);
        self.before[part] as usize..self.before[part + 1] as usize
    }
}

/// IPv4 ranges.
#[derive(Debug, Default)]
pub(crate) struct RangesV4 {
    index: Option<Box<Index>>,
    /// Where each range begins, ascending. It ends before the next.
    starts: Box<[u32]>,
    /// As many as starts. `None` is a gap between prefixes.
    targets: Box<[Option<Entry>]>,
}

impl RangesV4 {
    /// From IPv4 routes of one tenant, sorted.
    pub(crate) fn new(routes: &[Route]) -> Self {
        let ranges = flatten(routes);
        Self {
            index: Index::new(ranges.iter().map(|(start, _)| *start as u64)),
            starts: ranges.iter().map(|(start, _)| *start as u32).collect(),
            targets: ranges.iter().map(|(_, target)| *target).collect(),
        }
    }

    #[inline]
    pub(crate) fn find(&self, address: u32) -> Option<Entry> {
        let begun = |start: &u32| *start <= address;
        let after = match &self.index {
            None => self.starts.partition_point(begun),
            Some(index) => {
                let part = index.part(address.into());
                part.start + self.starts.get(part)?.partition_point(begun)
            }
        };
        *self.targets.get(after.checked_sub(1)?)?
    }
}

/// IPv6 ranges. The starts are kept as halves: nearly all prefixes are no longer than /64, so that the upper halves
/// alone decide, in a search without branches. With `u128` as the key the comparison is a branch that random addresses
/// mispredict: 16 ns instead of 5 among 10 prefixes.
#[derive(Debug, Default)]
pub(crate) struct RangesV6 {
    /// Of the upper halves.
    index: Option<Box<Index>>,
    upper: Box<[u64]>,
    lower: Box<[u64]>,
    targets: Box<[Option<Entry>]>,
}

impl RangesV6 {
    /// From IPv6 routes of one tenant, sorted.
    pub(crate) fn new(routes: &[Route]) -> Self {
        let ranges = flatten(routes);
        Self {
            index: Index::new(ranges.iter().map(|(start, _)| (start >> 64) as u64)),
            upper: ranges.iter().map(|(start, _)| (start >> 64) as u64).collect(),
            lower: ranges.iter().map(|(start, _)| *start as u64).collect(),
            targets: ranges.iter().map(|(_, target)| *target).collect(),
        }
    }

    #[inline]
    pub(crate) fn find(&self, address: u128) -> Option<Entry> {
        let (upper, lower) = ((address >> 64) as u64, address as u64);
        let (first, part) = match &self.index {
            None => (0, &*self.upper),
            Some(index) => {
                let part = index.part(upper);
                (part.start, self.upper.get(part)?)
            }
        };
        let mut at = (first + part.partition_point(|start| *start <= upper)).checked_sub(1)?;
        if self.upper.get(at) == Some(&upper) && self.lower.get(at).is_some_and(|start| *start > lower) {
            // The last range of this /64 begins beyond the address: search among those of the /64.
            let first = first + part.partition_point(|start| *start < upper);
            let before = self.lower.get(first..at)?.partition_point(|start| *start <= lower);
            at = (first + before).checked_sub(1)?;
        }
        *self.targets.get(at)?
    }
}

/// The addresses at which the answer changes, and what it is from there on. `routes` are of one tenant and one IP
/// version, outer prefixes before inner ones.
fn flatten(routes: &[Route]) -> Vec<(u128, Option<Entry>)> {
    let mut ranges: Vec<(u128, Option<Entry>)> = Vec::with_capacity(2 * routes.len());
    let mut change = |start: u128, target: Option<Entry>| match ranges.last_mut() {
        Some((last, before)) if *last == start => *before = target,
        Some((_, before)) if *before == target => {}
        _ => ranges.push((start, target)),
    };
    // The prefixes around the place that the sweep has reached, outermost first, by their last address.
    let mut open: Vec<(u128, Entry)> = Vec::new();
    let mut max = 0;
    for (_, prefix, target) in routes {
        let (start, end, highest) = bounds(prefix);
        max = highest;
        while let Some((last, _)) = open.pop_if(|(last, _)| *last < start) {
            change(last + 1, open.last().map(|(_, target)| *target));
        }
        change(start, Some(*target));
        open.push((end, *target));
    }
    while let Some((last, _)) = open.pop() {
        // Beyond the highest address nothing begins.
        if last < max {
            change(last + 1, open.last().map(|(_, target)| *target));
        }
    }
    ranges
}

/// First and last address of a prefix, and the highest address of its IP version.
fn bounds(prefix: &IpNet) -> (u128, u128, u128) {
    match prefix {
        IpNet::V4(net) => (net.network().to_bits().into(), net.broadcast().to_bits().into(), u32::MAX.into()),
        IpNet::V6(net) => (net.network().to_bits(), net.broadcast().to_bits(), u128::MAX),
    }
}
