//! What the other hub says over a trunk.

use super::{PACE, WINDOW, of_wire};
use crate::prefixes::{Key, Prefixes};
use ahash::AHashSet;
use crypto::Time;
use ipnet::IpNet;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use wire::TenantId;
use wire::hub::{Alive, Kept, Owner, Place, Position, State};

/// Prefixes that another hub may say in a round at most; further ones count as not alive. Twice as many are remembered, some of which
/// are of an earlier round.
pub const ENTRIES_MAX: usize = 200_000;
/// Prefixes looked at in one call, when those are sorted out that a round has not said.
const SWEEP: usize = 8192;
/// Lives of the other hub that are over, and whose last messages may still come …
const DEAD: usize = 4;
/// … for so long. Whoever is heard after that is alive: he was taken for dead because an older life's message came later.
const DEAD_FOR: Duration = Duration::from_secs(2);

/// What has changed of what the other hub says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Everything may have changed: all is to be judged anew.
    pub all: bool,
    /// These, each at least once.
    pub prefixes: Vec<(TenantId, IpNet)>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    /// The round of which it was heard, and where its message ended: a message that ends sooner is older.
    at: (u64, u64),
    alive: Alive,
}

/// What is alive behind the other hub.
#[derive(Debug, Default)]
pub struct Heard {
    /// Whose packets the trunk may carry; none: anybody's.
    allowed: Option<AHashSet<TenantId>>,
    position: Option<Position>,
    dead: VecDeque<(u64, Time)>,
    /// Of this round nothing more is wanted, since something of it was refused.
    refused: Option<(u64, u32)>,
    /// Rounds of any epoch, as they were heard.
    rounds: u64,
    /// The newest number of which any message of this round knows.
    head: u64,
    /// The last round that was heard to its end; 0: none was.
    whole: u64,
    items: Prefixes<Item>,
    /// How many of them this round has said.
    renewed: usize,
    /// What lies beyond a gap, by where it begins.
    ahead: BTreeMap<u64, Kept>,
    /// What was not said since this round is being taken out; behind this key.
    sweep: Option<(u64, Option<Key>)>,
    changes: Changes,
    tell: bool,
    told: Time,
    overflow: u64,
    forbidden: u64,
}

impl Heard {
    /// Whether a whole state of the other was ever heard.
    pub fn is_known(&self) -> bool {
        self.whole > 0
    }

    /// Whether all was heard that the other is known to have said.
    pub fn is_current(&self) -> bool {
        self.position.is_some_and(|position| position.number >= self.head && self.whole == self.rounds)
    }

    /// Prefixes that are alive.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// All that is alive, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, IpNet, Alive)> {
        self.items.iter().map(|(tenant, prefix, item)| (tenant, prefix, item.alive))
    }

    /// What is said of this very prefix.
    pub fn get(&self, tenant: TenantId, prefix: IpNet) -> Option<Alive> {
        self.items.get(tenant, prefix).map(|item| item.alive)
    }

    /// Whether a route by this trunk is alive, as far as the other hub says: if something of it is. Before all was heard that it has to
    /// say, everything is.
    pub fn is_alive(&self, tenant: TenantId, prefix: IpNet) -> bool {
        !self.is_known() || self.items.overlaps(tenant, prefix)
    }

    /// The site that has this very prefix, and when it authenticated at the other hub.
    pub fn owner(&self, tenant: TenantId, prefix: IpNet) -> Option<Owner> {
        self.get(tenant, prefix)?.owner
    }

    /// Entries that were left out because there were too many, and because the trunk may not carry their tenant.
    pub fn left_out(&self) -> (u64, u64) {
        (self.overflow, self.forbidden)
    }

    /// How far all was heard.
    pub fn position(&self) -> Position {
        self.position.unwrap_or_default()
    }

    /// What has changed since this was asked last.
    pub fn changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    /// Whose packets the trunk may carry from now on; none: anybody's. What was left out of others' until now is asked for.
    pub fn allow(&mut self, tenants: Option<AHashSet<TenantId>>) {
        if self.allowed == tenants {
            return;
        }
        let before = std::mem::replace(&mut self.allowed, tenants);
        let forbidden: Vec<_> =
            self.items.after(None).filter(|(key, _)| !self.may(key.tenant())).map(|(key, _)| *key).collect();
        for key in forbidden {
            self.remove(&key);
        }
        let more = match (&before, &self.allowed) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(before), Some(now)) => !now.is_subset(before),
        };
        if let Some(position) = self.position.take_if(|_| more) {
            self.refused = Some((position.epoch, position.round));
            self.ahead.clear();
            self.tell = true;
        }
    }

    fn may(&self, tenant: TenantId) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&tenant))
    }

    /// A state that has come.
    pub fn on_state(&mut self, state: &State<'_>, now: Time) {
        let place = state.place;
        if self.dead.iter().any(|(epoch, until)| *epoch == place.epoch && now < *until) {
            return;
        }
        self.tell = true;
        if self.refused == Some((place.epoch, place.round)) {
            return;
        }
        match self.position {
            Some(position) if position.epoch == place.epoch && position.round > place.round => return,
            Some(position) if (position.epoch, position.round) == (place.epoch, place.round) => {}
            before => self.begin(before, &place, now),
        }
        self.head = self.head.max(place.head);
        if place.to > self.position().number {
            self.apply(state);
            self.advance(state);
        }
        if self.position().number >= self.head && self.whole != self.rounds {
            self.complete();
        }
    }

    /// A round that was not heard of.
    fn begin(&mut self, before: Option<Position>, place: &Place, now: Time) {
        if let Some(before) = before.filter(|before| before.epoch != place.epoch) {
            if self.dead.len() >= DEAD {
                self.dead.pop_front();
            }
            self.dead.push_back((before.epoch, now + DEAD_FOR));
        }
        self.position = Some(Position { epoch: place.epoch, round: place.round, number: 0 });
        (self.refused, self.rounds, self.head, self.renewed) = (None, self.rounds + 1, 0, 0);
        self.ahead.clear();
    }

    /// All of it that is newer than what is known, whether something before it is missing or not.
    fn apply(&mut self, state: &State<'_>) {
        let at = (self.rounds, state.place.to);
        for entry in state.entries() {
            let Some(prefix) = of_wire(&entry.prefix) else { continue };
            if !self.may(entry.tenant) {
                self.forbidden += 1;
                continue;
            }
            let full = self.renewed >= ENTRIES_MAX || self.items.len() >= 2 * ENTRIES_MAX;
            let known = self.items.get_mut(entry.tenant, prefix);
            match (known, entry.alive) {
                (Some(known), _) if known.at >= at => {}
                (Some(known), Some(alive)) => {
                    self.renewed += usize::from(known.at.0 != at.0);
                    let before = std::mem::replace(known, Item { at, alive });
                    if before.alive != alive {
                        self.changed(entry.tenant, prefix);
                    }
                }
                (Some(_), None) => self.remove(&Key::new(entry.tenant, prefix)),
                (None, Some(_)) if full => self.overflow += 1,
                (None, Some(alive)) => {
                    self.items.insert(entry.tenant, prefix, Item { at, alive });
                    self.renewed += 1;
                    self.changed(entry.tenant, prefix);
                }
                (None, None) => {}
            }
        }
    }

    /// How far it is known without a gap; or it is kept until the gap is filled.
    fn advance(&mut self, state: &State<'_>) {
        let Some(mut position) = self.position else { return };
        let Place { from, to, .. } = state.place;
        if from > position.number {
            if self.ahead.len() < WINDOW || self.ahead.contains_key(&from) {
                self.ahead.insert(from, state.keep());
            }
            return;
        }
        position.number = to;
        self.position = Some(position);
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= position.number) {
            let kept = next.remove();
            if kept.state().place.to > position.number {
                self.apply(&kept.state());
                position.number = kept.state().place.to;
                self.position = Some(position);
            }
        }
    }

    fn complete(&mut self) {
        if !self.is_known() {
            self.changes.all = true;
        }
        self.whole = self.rounds;
        if self.renewed < self.items.len() {
            self.sweep = Some((self.rounds, None));
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(item) = self.items.remove_key(key) {
            self.renewed -= usize::from(item.at.0 == self.rounds);
            self.changed(key.tenant(), key.prefix());
        }
    }

    fn changed(&mut self, tenant: TenantId, prefix: IpNet) {
        if self.changes.prefixes.len() >= 2 * ENTRIES_MAX {
            // Nobody has asked for long.
            self.changes = Changes { all: true, prefixes: Vec::new() };
        }
        self.changes.prefixes.push((tenant, prefix));
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        let tell = if self.tell { self.told + PACE } else { Time::NEVER };
        if self.sweep.is_some() { Time(0) } else { tell }
    }

    /// Goes on with what takes long; and whether to tell the other how far all was heard.
    pub fn poll(&mut self, now: Time) -> bool {
        if let Some((round, after)) = self.sweep {
            let looked: Vec<_> =
                self.items.after(after).take(SWEEP).map(|(key, item)| (*key, item.at.0 < round)).collect();
            self.sweep = (looked.len() == SWEEP).then(|| (round, looked.last().map(|(key, _)| *key)));
            for (key, _) in looked.into_iter().filter(|(_, stale)| *stale) {
                self.remove(&key);
            }
        }
        let tell = self.tell && now >= self.told + PACE;
        if tell {
            (self.tell, self.told) = (false, now);
        }
        tell
    }
}
