//! Which end of each path is used: a path is a prefix that several ends of its tenant lead to.
//!
//! A pure state machine: what is alive and time come in, switches go out.
//!
//! 1. The live end with the smallest priority is used; of equals, the first. If none is live: the first of the smallest priority, so that
//!    what is sent there waits where it would go.
//! 2. A dead end is left at once, for one that is not held if there is one.
//! 3. To a better end it goes back when that has been alive for a while: not at all if it was never down, else 1 s, and twice as long
//!    each further time ([`HoldDown`]). But not while it is in doubt ([`Paths::doubt`]): what is dead and not known to be would else be
//!    gone back to just then.
//!
//! An end is alive for a path if it is up, which it is for all its paths ([`Paths::set_up`]), and if the prefix is alive behind it, which
//! is said of each ([`Paths::set_reaches`]).

use crate::hold::HoldDown;
use crate::prefixes::Prefixes;
use ahash::{AHashMap, AHashSet};
use crypto::Time;
use ipnet::IpNet;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;
use wire::{SiteSlot, TenantId};

/// After so long it is looked again at whether a better end is still in doubt.
const AGAIN: Duration = Duration::from_millis(100);

/// A path, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSpec {
    /// Its number in the classifier's table.
    pub id: u32,
    /// The tenant.
    pub tenant: TenantId,
    /// The prefix.
    pub prefix: IpNet,
    /// Ends, each with its priority: the smallest is preferred, of equals the first. At least one, each once.
    pub candidates: Vec<(u16, SiteSlot)>,
}

/// Another end is used from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switch {
    /// Which path.
    pub id: u32,
    /// The end that it left.
    pub from: SiteSlot,
    /// The end that it uses.
    pub to: SiteSlot,
}

/// How many paths there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// In all.
    pub all: usize,
    /// That use an end which is alive, and not the one that is preferred.
    pub other: usize,
    /// That have no end which is alive.
    pub dead: usize,
}

#[derive(Clone, Debug)]
struct Candidate {
    slot: SiteSlot,
    up: bool,
    reaches: bool,
    /// Since when it is alive, or is not.
    since: Time,
    hold: HoldDown,
}

impl Candidate {
    fn alive(&self) -> bool {
        self.up && self.reaches
    }

    /// When it may be gone back to, if it is alive.
    fn good(&self) -> Time {
        self.since + self.hold.span()
    }
}

#[derive(Clone, Debug)]
struct Path {
    id: u32,
    tenant: TenantId,
    prefix: IpNet,
    /// In the order of preference.
    candidates: Box<[Candidate]>,
    active: usize,
    /// When a better end may be gone back to.
    deadline: Time,
}

/// All paths of a hub.
#[derive(Debug, Default)]
pub struct Paths {
    paths: Vec<Path>,
    by_id: AHashMap<u32, usize>,
    /// The paths that an end is a candidate of, and its place there.
    by_slot: AHashMap<SiteSlot, Vec<(u32, u16)>>,
    by_prefix: Prefixes<usize>,
    deadlines: BinaryHeap<Reverse<(Time, usize)>>,
    doubted: AHashSet<SiteSlot>,
    switches: Vec<Switch>,
}

impl Paths {
    /// All at their preferred ends, of which none is up, and each would reach what it leads to.
    pub fn new(specs: Vec<PathSpec>, now: Time) -> Self {
        let mut new = Self::default();
        for spec in specs {
            let mut candidates = spec.candidates;
            candidates.sort_by_key(|(priority, _)| *priority);
            let at = new.paths.len();
            for (place, (_, slot)) in candidates.iter().enumerate() {
                new.by_slot.entry(*slot).or_default().push((at as u32, place as u16));
            }
            let candidates = candidates.into_iter().map(|(_, slot)| Candidate {
                slot,
                up: false,
                reaches: true,
                since: now,
                hold: HoldDown::default(),
            });
            let PathSpec { id, tenant, prefix, .. } = spec;
            new.by_id.insert(id, at);
            new.by_prefix.insert(tenant, prefix, at);
            let candidates = candidates.collect();
            new.paths.push(Path { id, tenant, prefix, candidates, active: 0, deadline: Time::NEVER });
        }
        new
    }

    /// The paths of another configuration, of which those stay as they are that are in both: what is alive, since when, and which end is
    /// used. The switches are those from the preferred ends, at which a new table begins.
    pub fn renewed(&self, specs: Vec<PathSpec>, now: Time) -> Self {
        let mut new = Self::new(specs, now);
        new.doubted.clone_from(&self.doubted);
        for at in 0..new.paths.len() {
            let path = &mut new.paths[at];
            let Some(before) = self.by_prefix.get(path.tenant, path.prefix).map(|at| &self.paths[*at]) else {
                continue;
            };
            for candidate in &mut path.candidates {
                if let Some(same) = before.candidates.iter().find(|before| before.slot == candidate.slot) {
                    *candidate = same.clone();
                }
            }
            let used = before.candidates.get(before.active).map(|candidate| candidate.slot);
            if let Some(active) = path.candidates.iter().position(|candidate| Some(candidate.slot) == used)
                && active != 0
            {
                let (from, to) = (path.candidates[0].slot, path.candidates[active].slot);
                path.active = active;
                new.switches.push(Switch { id: path.id, from, to });
            }
            new.choose(at, now);
        }
        new
    }

    /// The end that a path uses.
    pub fn active(&self, id: u32) -> Option<SiteSlot> {
        let path = &self.paths[*self.by_id.get(&id)?];
        path.candidates.get(path.active).map(|candidate| candidate.slot)
    }

    /// How it stands with all of them.
    pub fn count(&self) -> Count {
        let used = |path: &&Path| path.candidates[path.active].alive();
        let other = self.paths.iter().filter(used).filter(|path| path.active > 0).count();
        let dead = self.paths.iter().filter(|path| !used(path)).count();
        Count { all: self.paths.len(), other, dead }
    }

    /// Whether an end is alive for a path.
    pub fn alive(&self, id: u32, slot: SiteSlot) -> bool {
        let Some(path) = self.by_id.get(&id).map(|at| &self.paths[*at]) else { return false };
        path.candidates.iter().any(|candidate| candidate.slot == slot && candidate.alive())
    }

    /// The ends of all paths.
    pub fn slots(&self) -> impl Iterator<Item = SiteSlot> {
        self.by_slot.keys().copied()
    }

    /// The paths that an end is a candidate of.
    pub fn of(&self, slot: SiteSlot) -> impl Iterator<Item = (u32, TenantId, IpNet)> {
        let places = self.by_slot.get(&slot).into_iter().flatten();
        places.map(|(at, _)| &self.paths[*at as usize]).map(|path| (path.id, path.tenant, path.prefix))
    }

    /// The paths of a tenant whose prefixes are equal to one, around it, or inside, and that have an end as a candidate.
    pub fn overlapping(&self, slot: SiteSlot, tenant: TenantId, prefix: IpNet) -> impl Iterator<Item = (u32, IpNet)> {
        let all = self.by_prefix.overlapping(tenant, prefix).map(|(_, at)| &self.paths[*at]);
        let of = all.filter(move |path| path.candidates.iter().any(|candidate| candidate.slot == slot));
        of.map(|path| (path.id, path.prefix))
    }

    /// The ends that lead to a prefix or to what is around it or inside: each for each path.
    pub fn ends(&self, tenant: TenantId, prefix: IpNet) -> impl Iterator<Item = SiteSlot> {
        let all = self.by_prefix.overlapping(tenant, prefix).map(|(_, at)| &self.paths[*at]);
        all.flat_map(|path| path.candidates.iter().map(|candidate| candidate.slot))
    }

    /// An end is up, or is not, for all its paths.
    pub fn set_up(&mut self, slot: SiteSlot, up: bool, now: Time) {
        // Taken out while its paths are changed.
        let Some(places) = self.by_slot.get_mut(&slot).map(std::mem::take) else { return };
        for (at, place) in &places {
            self.change(*at as usize, usize::from(*place), now, |candidate| candidate.up = up);
        }
        self.by_slot.insert(slot, places);
    }

    /// Something was asked of an end and not answered in time, and it is not known yet whether it is dead; or it is known.
    pub fn doubt(&mut self, slot: SiteSlot, doubted: bool) {
        match doubted {
            true => _ = self.doubted.insert(slot),
            false => _ = self.doubted.remove(&slot),
        }
    }

    /// What an end has done before is forgotten: from now on it is gone back to at once when it is alive.
    pub fn trust(&mut self, slot: SiteSlot, now: Time) {
        for (at, place) in self.by_slot.get(&slot).cloned().unwrap_or_default() {
            self.paths[at as usize].candidates[usize::from(place)].hold = HoldDown::default();
            self.choose(at as usize, now);
        }
    }

    /// The prefix of a path is alive behind an end, or is not.
    pub fn set_reaches(&mut self, id: u32, slot: SiteSlot, reaches: bool, now: Time) {
        let Some(at) = self.by_id.get(&id).copied() else { return };
        let Some(place) = self.paths[at].candidates.iter().position(|candidate| candidate.slot == slot) else { return };
        self.change(at, place, now, |candidate| candidate.reaches = reaches);
    }

    /// What was decided since this was asked last, in order.
    pub fn switches(&mut self) -> Vec<Switch> {
        std::mem::take(&mut self.switches)
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        self.deadlines.peek().map_or(Time::NEVER, |Reverse((at, _))| *at)
    }

    /// Goes back to better ends, where it is time.
    pub fn poll(&mut self, now: Time) {
        while let Some(Reverse((due, at))) = self.deadlines.peek().copied()
            && due <= now
        {
            self.deadlines.pop();
            // Else it was replaced by another.
            if self.paths[at].deadline == due {
                self.paths[at].deadline = Time::NEVER;
                self.choose(at, now);
            }
        }
    }

    fn change(&mut self, at: usize, place: usize, now: Time, change: impl FnOnce(&mut Candidate)) {
        let candidate = &mut self.paths[at].candidates[place];
        let before = candidate.alive();
        change(candidate);
        if candidate.alive() != before {
            if before {
                candidate.hold.down(now.since(candidate.since));
            }
            candidate.since = now;
            self.choose(at, now);
        }
    }

    fn choose(&mut self, at: usize, now: Time) {
        let path = &mut self.paths[at];
        let (chosen, deadline) = choice(&path.candidates, path.active, &self.doubted, now);
        if chosen != path.active {
            let (from, to) = (path.candidates[path.active].slot, path.candidates[chosen].slot);
            path.active = chosen;
            self.switches.push(Switch { id: path.id, from, to });
        }
        if deadline != path.deadline {
            path.deadline = deadline;
            if deadline != Time::NEVER {
                self.deadlines.push(Reverse((deadline, at)));
            }
        }
    }
}

/// Which candidate to use, where `active` was; and when a better one may be gone back to.
fn choice(candidates: &[Candidate], active: usize, doubted: &AHashSet<SiteSlot>, now: Time) -> (usize, Time) {
    let good = |candidate: &Candidate| match doubted.contains(&candidate.slot) {
        true => candidate.good().max(now + AGAIN),
        false => candidate.good(),
    };
    let alive = || candidates.iter().enumerate().filter(|(_, candidate)| candidate.alive());
    let settled = alive().find(|(place, candidate)| good(candidate) <= now || *place == active);
    let chosen = settled.or_else(|| alive().next()).map_or(0, |(place, _)| place);
    let better = alive().take_while(|(place, _)| *place < chosen).map(|(_, candidate)| good(candidate));
    (chosen, better.min().unwrap_or(Time::NEVER))
}

#[cfg(test)]
mod tests;
