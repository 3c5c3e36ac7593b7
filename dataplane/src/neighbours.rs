//! Who is on a tenant's VLAN: the hub's neighbours, their MAC addresses, and how sure it is of each (RFC 826; RFC 4861, 7.3).
//!
//! A pure state machine, as those of `crypto`: time and messages come in as arguments, actions go out.
//!
//! ```text
//!            wanted                 answered                30 s                wanted
//!   nothing --------> Incomplete -----------> Reachable ----------> Stale -----------------> Probe
//!      ^                  |                       ^                   |                        |
//!      |   3 s, no answer |                       |    10 min, unused |       answered         |
//!      +------------------+                       +-------------------|------------------------+
//!      +--------------------------------------------------------------+   3 s, no answer: nothing
//! ```
//!
//! Three rules keep a station from taking another's address:
//!
//! 1. Nobody is learned who was not asked for: a flood of made-up addresses finds no place in the table.
//! 2. Who claims the address of a neighbour that is known only makes the hub ask that one first. While it answers, it stays.
//! 3. A neighbour that is configured is never asked, and never replaced.

use crypto::Time;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::Duration;
use wire::{DropReason, SiteSlot, TenantSlot};

/// How long an answer holds (RFC 4861, 10: REACHABLE_TIME).
pub const REACHABLE: Duration = Duration::from_secs(30);
/// Between questions (RFC 4861, 10: RETRANS_TIMER).
pub const RETRY: Duration = Duration::from_secs(1);
/// Questions without an answer after which a neighbour is not there (RFC 4861, 10: MAX_MULTICAST_SOLICIT, MAX_UNICAST_SOLICIT).
pub const QUESTIONS: u8 = 3;
/// How long an address that nobody uses is remembered: twice what hosts and switches usually keep.
pub const UNUSED: Duration = Duration::from_secs(600);
/// Neighbours of one tenant, on all of its VLANs; some 100 bytes each here, and as many in each worker.
pub const PER_TENANT: usize = 4096;
/// A neighbour that has just answered against a claim is not asked again for so long: claims cost their sender more than the hub.
const SETTLED: Duration = Duration::from_secs(5);

/// A neighbour's name: an access end, and an address there.
pub type Key = (SiteSlot, IpAddr);

/// What the table wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask who has this address: this station alone, or all.
    Ask(Key, Option<[u8; 6]>),
    /// Tell the workers the address, and how long it holds.
    Tell(Key, [u8; 6], Time),
    /// Tell the workers that there is none, and why.
    Forget(Key, DropReason),
}

/// What a station says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The address that it says is its own.
    pub key: Key,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// It answers a question of the hub's, rather than asking or announcing itself.
    pub answers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Static,
    /// Asked for so many times, the next time at this one.
    Incomplete {
        asked: u8,
        next: Time,
    },
    Reachable {
        until: Time,
    },
    Stale {
        until: Time,
    },
    Probe {
        asked: u8,
        next: Time,
    },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tenant: TenantSlot,
    /// None while it was never known.
    mac: Option<[u8; 6]>,
    state: State,
    /// Claims against it are not followed before.
    settled_until: Time,
}

/// How a neighbour is known, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose.
    pub key: Key,
    /// Its MAC address, if it has answered.
    pub mac: Option<[u8; 6]>,
    /// `static`, `incomplete`, `reachable`, `stale` or `probe`.
    pub state: &'static str,
}

/// All neighbours of a hub.
#[derive(Debug, Default)]
pub struct Neighbours {
    entries: HashMap<Key, Entry, ahash::RandomState>,
    per_tenant: HashMap<TenantSlot, usize, ahash::RandomState>,
    /// When to look at an entry again; what is no longer its time is passed over.
    timers: BinaryHeap<Reverse<(Time, Key)>>,
}

impl Neighbours {
    /// A neighbour that is configured.
    pub fn fix(&mut self, tenant: TenantSlot, key: Key, mac: [u8; 6], out: &mut Vec<Action>) {
        self.insert(key, Entry { tenant, mac: Some(mac), state: State::Static, settled_until: Time(0) });
        out.push(Action::Tell(key, mac, Time::NEVER));
    }

    /// A packet waits for it, or went to where it was.
    pub fn want(&mut self, tenant: TenantSlot, key: Key, now: Time, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get(&key).copied() else {
            if self.per_tenant.get(&tenant).is_some_and(|count| *count >= PER_TENANT) && !self.make_room(tenant, out) {
                return out.push(Action::Forget(key, DropReason::NeighbourLimit));
            }
            let next = now + RETRY;
            self.insert(
                key,
                Entry { tenant, mac: None, state: State::Incomplete { asked: 1, next }, settled_until: Time(0) },
            );
            self.timers.push(Reverse((next, key)));
            return out.push(Action::Ask(key, None));
        };
        match (entry.state, entry.mac) {
            (State::Incomplete { .. } | State::Probe { .. }, _) | (_, None) => {}
            (State::Static, Some(mac)) => out.push(Action::Tell(key, mac, Time::NEVER)),
            (State::Reachable { until }, Some(mac)) if until > now => out.push(Action::Tell(key, mac, until)),
            (State::Reachable { .. } | State::Stale { .. }, Some(mac)) => self.probe(key, mac, now, out),
        }
    }

    /// A station says that an address is its own. An error is why that is not believed, or changes nothing.
    pub fn heard(&mut self, claim: Claim, now: Time, out: &mut Vec<Action>) -> Result<(), DropReason> {
        let Claim { key, mac, answers } = claim;
        let Some(entry) = self.entries.get_mut(&key) else { return Err(DropReason::NeighbourIgnored) };
        let same = entry.mac == Some(mac);
        match entry.state {
            State::Static if same => Ok(()),
            State::Static => Err(DropReason::NeighbourConflict),
            State::Incomplete { .. } => {
                self.confirm(key, mac, now, out);
                Ok(())
            }
            // Only an answer shows that it hears us, too (RFC 4861, 7.2.3).
            _ if same => {
                if answers {
                    if let State::Probe { .. } = entry.state {
                        entry.settled_until = now + SETTLED;
                    }
                    self.confirm(key, mac, now, out);
                }
                Ok(())
            }
            // Who was there has been asked, and is silent.
            State::Probe { asked: 2.., .. } => {
                self.confirm(key, mac, now, out);
                Ok(())
            }
            State::Probe { .. } => Err(DropReason::NeighbourConflict),
            State::Reachable { .. } | State::Stale { .. } => {
                if let Some(old) = entry.mac.filter(|_| entry.settled_until <= now) {
                    self.probe(key, old, now, out);
                }
                Err(DropReason::NeighbourConflict)
            }
        }
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Time, out: &mut Vec<Action>) {
        while let Some(Reverse((at, key))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            self.due(key, at, now, out);
        }
    }

    fn due(&mut self, key: Key, at: Time, now: Time, out: &mut Vec<Action>) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match &mut entry.state {
            State::Incomplete { asked, next } | State::Probe { asked, next } if *next == at => {
                if *asked >= QUESTIONS {
                    self.remove(key);
                    return out.push(Action::Forget(key, DropReason::NeighbourUnresolved));
                }
                (*asked, *next) = (*asked + 1, now + RETRY);
                self.timers.push(Reverse((*next, key)));
                out.push(Action::Ask(key, None));
            }
            State::Reachable { until } if *until == at => {
                let until = now + UNUSED;
                entry.state = State::Stale { until };
                self.timers.push(Reverse((until, key)));
            }
            State::Stale { until } if *until == at => {
                self.remove(key);
                out.push(Action::Forget(key, DropReason::NeighbourUnresolved));
            }
            _ => {} // it had another time when this one was noted
        }
    }

    /// When to poll next.
    pub fn next(&self) -> Option<Time> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// All of them.
    pub fn known(&self) -> impl Iterator<Item = Known> + '_ {
        self.entries.iter().map(|(key, entry)| Known {
            key: *key,
            mac: entry.mac,
            state: match entry.state {
                State::Static => "static",
                State::Incomplete { .. } => "incomplete",
                State::Reachable { .. } => "reachable",
                State::Stale { .. } => "stale",
                State::Probe { .. } => "probe",
            },
        })
    }

    fn confirm(&mut self, key: Key, mac: [u8; 6], now: Time, out: &mut Vec<Action>) {
        let until = now + REACHABLE;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        (entry.mac, entry.state) = (Some(mac), State::Reachable { until });
        self.timers.push(Reverse((until, key)));
        out.push(Action::Tell(key, mac, until));
    }

    /// Asks who was there; if it is silent, everybody.
    fn probe(&mut self, key: Key, mac: [u8; 6], now: Time, out: &mut Vec<Action>) {
        let next = now + RETRY;
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.state = State::Probe { asked: 1, next };
        self.timers.push(Reverse((next, key)));
        out.push(Action::Ask(key, Some(mac)));
    }

    /// Forgets the neighbour of a tenant that was confirmed longest ago, if none is older than its answer holds, nobody.
    fn make_room(&mut self, tenant: TenantSlot, out: &mut Vec<Action>) -> bool {
        let of_tenant = self.entries.iter().filter(|(_, entry)| entry.tenant == tenant);
        let stale = of_tenant.filter_map(|(key, entry)| match entry.state {
            State::Stale { until } => Some((until, *key)),
            _ => None,
        });
        let Some((_, key)) = stale.min() else { return false };
        self.remove(key);
        out.push(Action::Forget(key, DropReason::NeighbourUnresolved));
        true
    }

    fn insert(&mut self, key: Key, entry: Entry) {
        if self.entries.insert(key, entry).is_none() {
            *self.per_tenant.entry(entry.tenant).or_default() += 1;
        }
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key)
            && let Some(count) = self.per_tenant.get_mut(&entry.tenant)
        {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
