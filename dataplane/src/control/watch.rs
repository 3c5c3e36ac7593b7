//! Whether a site that several ways lead to, or that stands for one of several, is still there: a stock client answers no probe of a
//! hub's, but its adapter answers pings. So it is asked as a lane is ([`crate::liveness`]), by pings to its `address`, sealed under its
//! session.
//!
//! A site that has never answered is not held for dead: it may drop pings. Then its session is all that is known of it.

use super::Control;
use super::probe::{self, REMEMBERED};
use super::sites::{Site, fill_random};
use crate::clock;
use crate::config::Desired;
use crate::liveness::{Liveness, State};
use crate::mailbox::Order;
use crypto::Time;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
use wire::SiteSlot;
use wire::echo::{self, Mark};

/// How often a site is asked.
const INTERVAL: Duration = Duration::from_millis(300);
/// Replies that a worker may tell of between two pings: those of earlier ones may still come.
const EXPECTED: u8 = 16;

/// A site that is watched.
pub(super) struct Watch {
    /// From the hub's address in the tenant to the site's.
    ends: (IpAddr, IpAddr),
    liveness: Liveness,
    /// What was asked and not answered, the oldest first.
    asked: VecDeque<(Mark, u64)>,
    id: u16,
}

impl Watch {
    fn new(ends: (IpAddr, IpAddr)) -> Self {
        let mut random = [0; 2];
        fill_random(&mut random);
        let liveness = Liveness::new(INTERVAL, clock::now());
        Self { ends, liveness, asked: VecDeque::new(), id: u16::from_ne_bytes(random) }
    }

    /// Whether it has answered before, and does not any more.
    pub(super) fn is_dead(&self) -> bool {
        let known = self.liveness.figures();
        known.state == State::Down && known.answered + known.late > 0
    }

    /// For people.
    pub(super) fn state(&self) -> &'static str {
        let known = self.liveness.figures();
        match (known.state, known.answered + known.late) {
            (State::Up | State::Held, _) => "answers",
            (State::Down, 0) => "unanswered",
            (State::Down, _) => "silent",
        }
    }

    pub(super) fn next(&self) -> Time {
        self.liveness.next()
    }

    fn mark(&mut self, number: u64) -> Mark {
        let mut token = [0; echo::TOKEN];
        fill_random(&mut token);
        let mark = Mark { id: self.id, sequence: number as u16, token };
        if self.asked.len() >= REMEMBERED {
            self.asked.pop_front();
        }
        self.asked.push_back((mark, number));
        mark
    }
}

impl Control {
    /// Watches the sites to which there is an alternative, as far as both have addresses; and no others.
    pub(super) fn watch_sites(&mut self) {
        let shared: ahash::AHashSet<SiteSlot> = self.trunks.paths.slots().collect();
        let ends: Vec<_> = self
            .seats
            .sites(&self.desired)
            .map(|(slot, _, tenant, site)| {
                (slot, shared.contains(&slot).then(|| Desired::watch_ends(tenant, site)).flatten())
            })
            .collect();
        for (slot, ends) in ends {
            let site = &mut self.sites[slot.index()];
            if site.watch.as_ref().map(|watch| watch.ends) != ends {
                site.watch = ends.map(|ends| Box::new(Watch::new(ends)));
                self.trunks.paths.doubt(slot, false);
                self.set_probes(slot);
            }
        }
    }

    /// What is due of a site's watch.
    pub(super) fn poll_watch(&mut self, slot: SiteSlot) {
        let now = clock::now();
        let site = &mut self.sites[slot.index()];
        let session = site.sending.and_then(|index| self.sessions.get(&index)).filter(|session| !session.expired(now));
        let Site { watch: Some(watch), way, .. } = site else { return };
        let before = watch.is_dead();
        watch.liveness.on_session(session.is_some() && way.out.is_ok(), now);
        let asked = watch.liveness.poll(now).map(|number| watch.mark(number));
        let (after, ends) = (watch.is_dead(), watch.ends);
        self.trunks.paths.doubt(slot, watch.liveness.is_in_doubt());
        let ping = asked.zip(way.out.as_ref().ok()).zip(session);
        let ping = ping.and_then(|((mark, path), session)| {
            let inner = echo::request(ends.0, ends.1, &mark, 0).ok()?;
            Some((path.port, probe::seal(&path.template, session, &inner, self.facts.backend)?))
        });
        if let Some((port, frame)) = ping {
            self.order_all(|| Order::Expect(slot, EXPECTED));
            self.emit(slot.index(), port, frame);
        }
        if before != after {
            self.end_changed(slot);
        }
    }

    /// A reply to one of those pings; `false` if it is to another.
    pub(super) fn hear_watched(&mut self, slot: SiteSlot, mark: Mark) -> bool {
        let Some(watch) = &mut self.sites[slot.index()].watch else { return false };
        let Some(at) = watch.asked.iter().position(|(asked, _)| *asked == mark) else { return false };
        let Some((_, number)) = watch.asked.remove(at) else { return false };
        let before = watch.is_dead();
        watch.liveness.on_reply(number, clock::now());
        let after = watch.is_dead();
        self.trunks.paths.doubt(slot, watch.liveness.is_in_doubt());
        self.set_probes(slot);
        if before != after {
            self.end_changed(slot);
        }
        true
    }
}
