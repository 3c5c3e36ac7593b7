//! When each site's state machine wants to be asked next.

use crypto::Time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use wire::SiteSlot;

/// Deadlines of all sites, the earliest first. A site has one; a later call replaces it.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, SiteSlot)>>,
    deadlines: Vec<Time>,
}

impl Timers {
    pub(crate) fn new(sites: usize) -> Self {
        Self { heap: BinaryHeap::new(), deadlines: vec![Time::NEVER; sites] }
    }

    /// Replaces the deadline of a site; [`Time::NEVER`] takes it away.
    pub(crate) fn set(&mut self, site: SiteSlot, at: Time) {
        if std::mem::replace(&mut self.deadlines[site.index()], at) != at && at != Time::NEVER {
            self.heap.push(Reverse((at, site)));
        }
    }

    /// The earliest deadline.
    pub(crate) fn next(&mut self) -> Option<Time> {
        while let Some(Reverse((at, site))) = self.heap.peek() {
            if self.deadlines[site.index()] == *at {
                return Some(*at);
            }
            // A deadline that was replaced.
            self.heap.pop();
        }
        None
    }

    /// A site whose deadline has passed, and which has none then.
    pub(crate) fn due(&mut self, now: Time) -> Option<SiteSlot> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, site)) = self.heap.pop()?;
        self.deadlines[site.index()] = Time::NEVER;
        Some(site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_due_first_and_a_replaced_one_never() {
        let mut timers = Timers::new(3);
        timers.set(SiteSlot(0), Time(30));
        timers.set(SiteSlot(1), Time(20));
        timers.set(SiteSlot(2), Time(10));
        timers.set(SiteSlot(2), Time(40));
        assert_eq!(timers.next(), Some(Time(20)));
        assert_eq!(timers.due(Time(19)), None);
        assert_eq!(timers.due(Time(35)), Some(SiteSlot(1)));
        assert_eq!(timers.due(Time(35)), Some(SiteSlot(0)));
        assert_eq!(timers.due(Time(35)), None);
        timers.set(SiteSlot(2), Time::NEVER);
        assert_eq!(timers.next(), None);
    }
}
