//! What this hub says over a trunk.

use super::{BURST, PACE, WINDOW, to_wire};
use ahash::AHashMap;
use crypto::Time;
use ipnet::IpNet;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::TenantId;
use wire::hub::{Alive, Entry, HOPS_MAX, Place, Position, Progress, Writer};

/// Between two beginnings of the whole state.
pub(super) const ROUND: Duration = Duration::from_secs(30);
/// No round begins sooner after another, whatever the other says.
pub(super) const ROUND_MIN: Duration = Duration::from_secs(1);
/// After this time a round begins anew for who says that he knows nothing, though he has acknowledged nothing of it.
const ROUND_LOST: Duration = Duration::from_secs(10);
/// Messages said again at once: more may be missing than the one that the other waits for.
const AGAIN: usize = 8;
/// Prefixes that are not alive any more, and of which the other has not acknowledged that: from here on, and if they are more than those
/// alive, they are forgotten, and a round begins.
const GONE_MAX: usize = 100_000;

type Key = (TenantId, IpNet);

#[derive(Clone, Copy, Debug)]
struct Item {
    /// Of its last change.
    number: u64,
    /// None: not alive any more, which the other may not know.
    alive: Option<Alive>,
}

/// What is alive behind this hub, and how much of that the other hub knows.
#[derive(Debug)]
pub struct Said {
    interval: Duration,
    epoch: u64,
    round: u32,
    began: Time,
    /// The newest number, which is that of no item only if it is 1: a hub that has nothing to say says that.
    head: u64,
    /// The newest when the round began.
    whole: u64,
    items: AHashMap<Key, Item>,
    /// Each item's key by its number.
    log: BTreeMap<u64, Key>,
    gone: usize,
    /// The other knows, of this round, all up to here.
    acknowledged: u64,
    /// All up to here was sent, in order.
    sent: u64,
    /// All up to here was sent, in order or ahead; or is part of the round, and no news.
    fresh: u64,
    /// Where messages end that were sent in order and are not acknowledged.
    flight: VecDeque<u64>,
    again: Time,
    /// What was lost was sent again, up to here.
    recovery: u64,
    paced: Time,
    /// The other's epoch; 0: not known.
    other: u64,
    anew: bool,
}

impl Said {
    /// Nothing alive, nothing said.
    pub fn new(epoch: u64, interval: Duration, now: Time) -> Self {
        Self {
            interval,
            epoch: epoch.max(1),
            round: 1,
            began: now,
            head: 1,
            whole: 1,
            items: AHashMap::new(),
            log: BTreeMap::new(),
            gone: 0,
            acknowledged: 0,
            sent: 0,
            fresh: 1,
            flight: VecDeque::new(),
            again: Time::NEVER,
            recovery: 0,
            paced: Time(0),
            other: 0,
            anew: false,
        }
    }

    /// Prefixes that are alive.
    pub fn len(&self) -> usize {
        self.items.len() - self.gone
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was said of a prefix.
    pub fn get(&self, tenant: TenantId, prefix: IpNet) -> Option<Alive> {
        self.items.get(&(tenant, prefix.trunc()))?.alive
    }

    /// How far it has come.
    pub fn position(&self) -> Position {
        Position { epoch: self.epoch, round: self.round, number: self.head }
    }

    /// Whether the other knows everything.
    pub fn all_heard(&self) -> bool {
        self.acknowledged == self.head
    }

    /// Prefixes that are alive now, or otherwise than before; or, with none, not any more. What has come by too many hubs is not alive.
    pub fn update(&mut self, changes: impl IntoIterator<Item = (TenantId, IpNet, Option<Alive>)>) {
        for (tenant, prefix, alive) in changes {
            let key = (tenant, prefix.trunc());
            let alive = alive.filter(|alive| alive.hops <= HOPS_MAX);
            let before = self.items.get(&key).copied();
            if before.and_then(|item| item.alive) == alive {
                continue;
            }
            self.head += 1;
            if let Some(before) = before {
                self.log.remove(&before.number);
                self.gone -= usize::from(before.alive.is_none());
            }
            self.gone += usize::from(alive.is_none());
            self.items.insert(key, Item { number: self.head, alive });
            self.log.insert(self.head, key);
        }
        if self.gone > GONE_MAX && self.gone > self.len() {
            self.items.retain(|_, item| item.alive.is_some());
            let items = &self.items;
            self.log.retain(|_, key| items.contains_key(key));
            (self.gone, self.anew) = (0, true);
        }
    }

    /// What the other says of what it has heard.
    pub fn on_progress(&mut self, progress: &Progress, now: Time) {
        let (theirs, heard) = (progress.said.epoch, progress.heard);
        if theirs != 0 && theirs != self.other {
            self.anew |= self.other != 0;
            self.other = theirs;
        }
        if heard.epoch != self.epoch {
            // It knows nothing of us, or of another life of ours.
            self.anew |= self.acknowledged > 0 || now >= self.began + ROUND_LOST;
        } else if heard.round == self.round && (self.acknowledged + 1..=self.sent).contains(&heard.number) {
            self.acknowledge(heard.number, now);
        }
    }

    fn acknowledge(&mut self, number: u64, now: Time) {
        let known = self.log.range(self.acknowledged + 1..=number);
        let gone: Vec<_> =
            known.filter(|(_, key)| self.items[*key].alive.is_none()).map(|(at, key)| (*at, *key)).collect();
        self.gone -= gone.len();
        for (number, key) in gone {
            self.log.remove(&number);
            self.items.remove(&key);
        }
        self.acknowledged = number;
        while self.flight.front().is_some_and(|to| *to <= number) {
            self.flight.pop_front();
        }
        self.again = match self.flight.is_empty() {
            true => Time::NEVER,
            // What is behind a gap that was filled has come, or there is another gap.
            false if number < self.recovery => now,
            false => now + self.interval,
        };
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        let round = match (self.anew, self.acknowledged >= self.whole) {
            (true, _) => self.began + ROUND_MIN,
            (false, true) => self.began + ROUND,
            (false, false) => Time::NEVER,
        };
        let news = if self.waits() { Time(0) } else { Time::NEVER };
        round.min(news).min(self.again).max(self.paced)
    }

    /// Whether there is something to say that may be said.
    fn waits(&self) -> bool {
        self.ahead() || self.sent < self.head && self.flight.len() < WINDOW
    }

    /// Whether there is news, while older things are still to be said.
    fn ahead(&self) -> bool {
        self.sent < self.fresh && self.fresh < self.head
    }

    /// Appends what is to be sent now: whole plaintexts, each of at most `longest` bytes.
    pub fn poll(&mut self, longest: usize, now: Time, out: &mut Vec<Vec<u8>>) {
        if now < self.paced {
            return;
        }
        let due = self.acknowledged >= self.whole && now >= self.began + ROUND;
        if due || self.anew && now >= self.began + ROUND_MIN {
            self.begin(now);
        }
        if self.sent == 0 {
            // Nothing is ahead of the first.
            self.fresh = self.head;
        }
        let before = out.len();
        while self.ahead() && out.len() - before < BURST {
            let (to, message) = self.message(self.fresh, self.head, longest);
            out.push(message);
            self.fresh = to;
        }
        if now >= self.again {
            let mut from = self.acknowledged;
            for _ in 0..AGAIN {
                if from == self.sent {
                    break;
                }
                let (to, message) = self.message(from, self.sent, longest);
                out.push(message);
                from = to;
            }
            (self.again, self.recovery) = (now + self.interval, self.sent);
        }
        while self.sent < self.head && self.flight.len() < WINDOW && out.len() - before < BURST {
            if self.flight.is_empty() {
                self.again = now + self.interval;
            }
            let (to, message) = self.message(self.sent, self.head, longest);
            out.push(message);
            self.flight.push_back(to);
            (self.sent, self.fresh) = (to, self.fresh.max(to));
        }
        if out.len() > before {
            self.paced = now + PACE;
        }
    }

    fn begin(&mut self, now: Time) {
        (self.round, self.began, self.whole, self.anew) = (self.round.wrapping_add(1), now, self.head, false);
        (self.acknowledged, self.sent, self.fresh, self.recovery) = (0, 0, self.head, 0);
        (self.again, self.paced) = (Time::NEVER, Time(0));
        self.flight.clear();
    }

    /// What there is after one number up to another, or as much as fits; and up to where that is.
    fn message(&self, from: u64, up_to: u64, longest: usize) -> (u64, Vec<u8>) {
        let mut writer = Writer::new(longest);
        let mut to = up_to;
        let mut last = from;
        for (number, (tenant, prefix)) in self.log.range(from + 1..=up_to) {
            let Some(wire) = to_wire(*prefix) else { continue };
            let entry = Entry { tenant: *tenant, prefix: wire, alive: self.items[&(*tenant, *prefix)].alive };
            if !writer.push(&entry) {
                to = last;
                break;
            }
            last = *number;
        }
        (to, writer.finish(&Place { epoch: self.epoch, round: self.round, from, to, head: self.head }))
    }
}
