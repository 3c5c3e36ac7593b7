//! A history as a curve: what had moved until any moment, and of which times nothing is known.

#[cfg(test)]
mod tests;

use stats::{History, Hub};
use std::ops::Range;

/// Received packets and bytes, then sent ones, as in [`stats::Record`].
pub(super) type Counts = [u64; 4];

/// What had moved until when. Between two corners it moved evenly; before the first and after the last nothing did.
#[derive(Debug, Default)]
pub(super) struct Curve {
    corners: Vec<(u64, Counts)>,
    holes: Vec<Range<u64>>,
}

/// What moved in one interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    /// When it begins: ns since boot.
    pub(super) start_ns: u64,
    /// What moved; `None` if that is not known of the whole interval.
    pub(super) moved: Option<Counts>,
}

impl Curve {
    /// The curve of a ring of a hub, from when the hub started to when it last wrote. What is not in the ring between these
    /// two did not move, as a ring gets records only for periods in which something did.
    pub(super) fn of(history: &History, hub: &Hub) -> Self {
        let period = history.period_ns;
        let mut this = Self::default();
        let mut total: Counts = [0; 4];
        // Whatever the ring has lost, it lost at its older end.
        let mut previous = None;
        this.holes.push(0..started_ns(hub));
        for record in &history.records {
            let counts = [record.rx_packets, record.rx_bytes, record.tx_packets, record.tx_bytes];
            let Some((number, boot, ns, before)) = previous.replace((record.number, record.boot, record.ns, counts))
            else {
                if history.missed == 0 {
                    this.corners.push((record.ns.saturating_sub(period), total));
                    total = counts;
                } else {
                    this.holes.push(0..record.ns);
                }
                this.corners.push((record.ns, total));
                continue;
            };
            if record.ns <= ns {
                // No hub writes this. The order of corners must hold all the same.
                previous = Some((number, boot, ns, before));
                continue;
            }
            if record.boot != boot || record.number != number.wrapping_add(1) {
                this.holes.push(ns..record.ns);
            } else if record.ns - ns > period + period / 2 {
                this.corners.push((record.ns - period, total));
            }
            for (sum, (new, old)) in total.iter_mut().zip(counts.iter().zip(before)) {
                // Of another boot this is too little, and in a hole.
                *sum = sum.saturating_add(new.saturating_sub(old));
            }
            this.corners.push((record.ns, total));
        }
        // Each ring is looked at once in a period.
        this.holes.push(hub.ticked_ns.saturating_sub(period)..u64::MAX);
        this
    }

    /// What had moved until `ns`.
    pub(super) fn until(&self, ns: u64) -> Counts {
        let after = self.corners.partition_point(|(at, _)| *at <= ns);
        let (Some((from, a)), Some((to, b))) = (self.corners.get(after.wrapping_sub(1)), self.corners.get(after))
        else {
            return self.corners.get(after.saturating_sub(1)).map_or([0; 4], |(_, counts)| *counts);
        };
        let (passed, whole) = (u128::from(ns - from), u128::from(to - from));
        std::array::from_fn(|i| a[i] + (u128::from(b[i] - a[i]) * passed / whole) as u64)
    }

    /// `n` intervals of `step` ns each. Their sum is exactly what moved in all.
    pub(super) fn intervals(&self, from: u64, step: u64, n: usize) -> Vec<Interval> {
        let mut before = self.until(from);
        let interval = |i| {
            let start_ns = from + i as u64 * step;
            let end = start_ns + step;
            let now = self.until(end);
            let moved = std::array::from_fn(|i| now[i] - before[i]);
            before = now;
            let known = !self.holes.iter().any(|hole| hole.start < end && start_ns < hole.end);
            Interval { start_ns, moved: known.then_some(moved) }
        };
        (0..n).map(interval).collect()
    }
}

/// When a hub started: ns since boot.
pub(super) fn started_ns(hub: &Hub) -> u64 {
    hub.ticked_ns.saturating_sub(hub.ticked_wall_ns.saturating_sub(hub.started_wall_ns))
}
