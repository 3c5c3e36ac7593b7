//! What to ask the kernel next, and when: what is urgent at once, the rest in its pace.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::super::Key;
use super::super::netlink::{BATCH, Hop, Request};
use super::{Port, Table, tell_all};

/// Changes of routes come in bursts (one `ip link set down` makes a dozen events): wait until it has been quiet for so long,
const QUIET: Duration = Duration::from_millis(20);
/// but no longer than this.
const QUIET_MAX: Duration = Duration::from_millis(100);

/// After asking for the routes of many remotes, rest four times as long as it took, at most this: a routing protocol gone wild
/// gets a fifth of the thread.
const REST_FACTOR: u32 = 4;
const REST_MAX: Duration = Duration::from_secs(2);

/// Housekeeping: pokes, and the round of all routes.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// The kernel itself asks an unresolved neighbour three times, a second apart, and then gives up.
const PROBE_UNRESOLVED: Duration = Duration::from_millis(900);
/// A poked stale entry is waiting (5 s) and then probed (3 s); its state is only told when it changes.
const PROBE_STALE: Duration = Duration::from_secs(10);
/// Pokes of one tick, of all next hops in turn.
const PROBES_PER_TICK: usize = 1000;
/// Ticks in which every remote is asked for again.
const ROUND_TICKS: usize = 60;

/// When to ask again for routes that may have changed.
pub(super) struct Pace {
    /// All remotes are to be asked.
    pub(super) all: bool,
    first: Option<Instant>,
    last: Instant,
    /// When the asking began.
    began: Option<Instant>,
    not_before: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: false, first: None, last: now, began: None, not_before: now }
    }
}

impl Table {
    /// The next questions, at most `BATCH`: what is urgent, then pokes, then routes that may have changed.
    pub(in crate::underlay) fn questions(&mut self, now: Instant, batch: &mut Vec<Request>) {
        while batch.len() < BATCH
            && let Some((key, from_local)) = self.urgent.pop_front()
        {
            batch.extend(self.question(key, from_local));
        }
        while batch.len() < BATCH
            && let Some(hop) = self.probes.pop_front()
        {
            batch.push(Request::Probe(hop));
        }
        if self.again_due().is_none_or(|due| due > now) {
            return;
        }
        self.pace.began.get_or_insert(now);
        if self.again.is_empty() && std::mem::take(&mut self.pace.all) {
            for (key, remote) in &mut self.remotes {
                if !std::mem::replace(&mut remote.asking, true) {
                    self.again.push_back(*key);
                }
            }
        }
        while batch.len() < BATCH
            && let Some(key) = self.again.pop_front()
        {
            batch.extend(self.question(key, true));
        }
        if self.again.is_empty()
            && let Some(began) = self.pace.began.take()
        {
            self.pace.first = self.pace.all.then_some(now);
            self.pace.not_before = now + (now.saturating_duration_since(began) * REST_FACTOR).min(REST_MAX);
        }
    }

    /// When there is something to ask; None: not before there is news.
    pub(in crate::underlay) fn questions_due(&self, now: Instant) -> Option<Instant> {
        if self.urgent.is_empty() && self.probes.is_empty() { self.again_due() } else { Some(now) }
    }

    /// When `expire` wants to be called.
    pub(in crate::underlay) fn timer(&self) -> Instant {
        self.doubts.front().map_or(self.tick, |(end, _)| self.tick.min(*end))
    }

    pub(in crate::underlay) fn expire(&mut self, now: Instant) {
        while let Some(&(end, hop)) = self.doubts.front()
            && end <= now
        {
            self.doubts.pop_front();
            if let Some(in_use) = self.hops.get_mut(&hop)
                && in_use.doubt == Some(end)
            {
                (in_use.doubt, in_use.mac) = (None, None);
                tell_all(&in_use.users, &mut self.remotes, &mut self.news);
            }
        }
        if now >= self.tick {
            self.tick = now + TICK;
            self.probe_in_turn(now);
            self.ask_in_turn(now);
        }
    }

    /// Asks for the route at once.
    pub(in crate::underlay) fn ask(&mut self, key: Key, from_local: bool) {
        if let Some(remote) = self.remotes.get_mut(&key) {
            remote.asking = true;
            self.urgent.push_back((key, from_local));
        }
    }

    pub(super) fn ask_again(&mut self, key: Key, now: Instant) {
        if let Some(remote) = self.remotes.get_mut(&key) {
            if !std::mem::replace(&mut remote.asking, true) {
                self.again.push_back(key);
            }
            self.pace.first.get_or_insert(now);
            self.pace.last = now;
        }
    }

    pub(super) fn ask_all(&mut self, now: Instant) {
        self.pace.all = true;
        self.pace.first.get_or_insert(now);
        self.pace.last = now;
    }

    fn question(&mut self, key: Key, from_local: bool) -> Option<Request> {
        let ours = |address: &IpAddr| self.ports.iter().any(|p| p.addresses.contains(address));
        let source = key.local.filter(|address| from_local && ours(address));
        let remote = self.remotes.get_mut(&key)?;
        // In both queues, or watched again meanwhile: asked already.
        std::mem::take(&mut remote.asking).then_some(Request::Route { key, source })
    }

    fn again_due(&self) -> Option<Instant> {
        let first = self.pace.first?;
        let quiet = (self.pace.last + QUIET).min(first + QUIET_MAX);
        Some(quiet.max(self.pace.not_before))
    }

    /// Pokes the neighbour, unless that was done within `since`, or its port is down. Never one that was set by hand: a poke
    /// would take the state PERMANENT away. (It is neither stale nor without a MAC address, so nobody asks for that.)
    pub(super) fn probe(&mut self, hop: Hop, since: Duration, now: Instant) {
        let up = |p: &Port| p.link.as_ref().is_some_and(|link| link.ifindex == hop.ifindex && link.up);
        let Some(in_use) = self.hops.get_mut(&hop) else { return };
        let lately = in_use.probed.is_some_and(|probed| now.saturating_duration_since(probed) < since);
        if !lately && self.ports.iter().any(up) {
            in_use.probed = Some(now);
            self.probes.push_back(hop);
        }
    }

    fn probe_in_turn(&mut self, now: Instant) {
        for hop in turn(&self.hops, &mut self.probe_cursor, PROBES_PER_TICK) {
            match self.neighbours.get(&hop) {
                Some(neighbour) if neighbour.is_stale() => self.probe(hop, PROBE_STALE, now),
                Some(neighbour) if neighbour.mac.is_some() => {}
                _ => self.probe(hop, PROBE_UNRESOLVED, now),
            }
        }
    }

    fn ask_in_turn(&mut self, now: Instant) {
        self.round_credit += self.remotes.len();
        let share = self.round_credit / ROUND_TICKS;
        self.round_credit %= ROUND_TICKS;
        for key in turn(&self.remotes, &mut self.round_cursor, share) {
            self.ask_again(key, now);
        }
    }
}

/// The next keys after the cursor, from the start again after the last, none twice.
fn turn<K: Ord + Copy, V>(of: &BTreeMap<K, V>, cursor: &mut Option<K>, share: usize) -> Vec<K> {
    let (after, up_to) = match *cursor {
        Some(last) => (Bound::Excluded(last), Bound::Included(last)),
        None => (Bound::Unbounded, Bound::Unbounded),
    };
    let rest = of.range((after, Bound::Unbounded)).chain(of.range((Bound::Unbounded, up_to)));
    let turn: Vec<K> = rest.map(|(key, _)| *key).take(share.min(of.len())).collect();
    *cursor = turn.last().copied().or(*cursor);
    turn
}
