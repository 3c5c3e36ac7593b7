//! A site as control knows it: its peer, where it is, and the way there; and what its state machine wants done. A lane of a trunk is a
//! peer like any other: so it is one of these, too.

use super::probe::Probing;
use super::trunks::Lane;
use super::watch::Watch;
use super::{Control, SAVE, unix_now};
use crate::clock;
use crate::config::{self, Desired, Role};
use crate::mailbox::Order;
use crate::seats::Seats;
use crate::sites::{Path, Way};
use crate::state::{Known, State};
use crate::underlay::Reach;
use bpf::{SessionEntry, SessionState};
use crypto::message::Outgoing;
use crypto::peer::{Action, Context, Peer};
use crypto::{Identity, Profile};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;
use wire::{DropReason, Endpoints, HANDSHAKE_TOS, PortIndex, SiteSlot, Template, TenantId, TenantSlot, geneve};

/// Bytes that a data message adds to its inner packet: header and tag.
pub(super) const SEALED: u16 = 32;

/// Where a site is: its address and port, and the hub's address that it talks to, if it has talked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The site's address and port.
    pub remote: SocketAddr,
    /// The hub's address.
    pub local: Option<IpAddr>,
}

/// A site and its peer.
pub(super) struct Site {
    pub(super) peer: Peer,
    /// Its tenant, and the name that it has there: who it is, whatever else changes. A lane has none, and its name is its trunk's and a
    /// number.
    pub(super) tenant: Option<(TenantSlot, TenantId)>,
    pub(super) name: Box<str>,
    pub(super) endpoint: Option<Endpoint>,
    /// The message that last moved the endpoint: only a later one may move it again.
    moved_by: Option<(u32, u64)>,
    /// A session that the site began in this life of the hub has carried data: each initiation that is newer now is newer than
    /// all before. Until then, one from the last moments of a hub that was killed could pass for new.
    pub(super) proven: bool,
    /// The way as the workers have it.
    pub(super) way: Way,
    /// The latest handshake message, if there is no way for it yet.
    waiting: Option<Outgoing>,
    /// The index of the session to send with.
    pub(super) sending: Option<u32>,
    /// The index of a handshake under way.
    pub(super) handshake: Option<u32>,
    /// The worker that receives what comes under its sessions, where XDP spreads.
    pub(super) worker: u16,
    /// What XDP had counted for whoever was in the slot before.
    pub(super) shed_before: u64,
    udp_checksum: bool,
    /// The largest inner packet that it is sent, if that is configured.
    mtu: Option<u16>,
    /// What it takes is measured.
    pub(super) probing: Option<Box<Probing>>,
    /// It is asked whether it is there.
    pub(super) watch: Option<Box<Watch>>,
    /// What only a lane has.
    pub(super) lane: Option<Box<Lane>>,
}

/// All sites by slot. In some slots there is none: access ends have slots too, and who has gone leaves one.
pub(super) struct Sites(Vec<Option<Site>>);

impl Sites {
    /// All sites of the configuration, each with what is remembered of it; and room for others.
    pub(super) fn of(desired: &Desired, seats: &Seats, room: usize, state: &State, workers: usize) -> Self {
        let mut this = Self((0..room).map(|_| None).collect());
        for (slot, tenant, of, site) in seats.sites(desired) {
            this.put(slot, Site::new(slot, (tenant, of.id), site, desired.probe_ends(of, site), state, workers));
        }
        for (place, trunk) in desired.trunks.iter().enumerate() {
            for (number, slot) in (0..).zip(seats.lanes(place)) {
                this.put(*slot, Site::of_lane(*slot, (place, number), trunk, state, workers));
            }
        }
        this
    }

    pub(super) fn put(&mut self, slot: SiteSlot, site: Site) {
        self.0[slot.index()] = Some(site);
    }

    pub(super) fn take(&mut self, slot: SiteSlot) -> Option<Site> {
        self.0[slot.index()].take()
    }

    /// Whether a site is there.
    pub(super) fn has(&self, slot: SiteSlot) -> bool {
        self.0.get(slot.index()).is_some_and(Option::is_some)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SiteSlot, &Site)> {
        (0..).map(SiteSlot).zip(&self.0).filter_map(|(slot, site)| Some((slot, site.as_ref()?)))
    }

    /// Slots.
    pub(super) fn room(&self) -> usize {
        self.0.len()
    }
}

impl std::ops::Index<usize> for Sites {
    type Output = Site;

    fn index(&self, slot: usize) -> &Site {
        self.0[slot].as_ref().expect("who asks for a site has it from a table of those that are there")
    }
}

impl std::ops::IndexMut<usize> for Sites {
    fn index_mut(&mut self, slot: usize) -> &mut Site {
        self.0[slot].as_mut().expect("who asks for a site has it from a table of those that are there")
    }
}

impl Site {
    /// A site of the configuration, with what is remembered of it.
    pub(super) fn new(
        slot: SiteSlot,
        tenant: (TenantSlot, TenantId),
        site: &config::Site,
        probe: Option<(IpAddr, IpAddr)>,
        state: &State,
        workers: usize,
    ) -> Self {
        let known = state.known(Some(tenant.1), &site.name, &site.public_key.0);
        let peer = peer(slot, site, known.and_then(|k| k.timestamp).map(crypto::Tai64n), stamped(state));
        Self {
            tenant: Some(tenant),
            udp_checksum: site.udp_checksum,
            mtu: site.mtu.map(NonZeroU16::get),
            probing: probe.map(|ends| Box::new(Probing::new(ends))),
            ..Self::with(slot, peer, &site.name, site.endpoint, known, workers)
        }
    }

    /// A lane of the trunk in this place of the configuration, with what is remembered of it.
    pub(super) fn of_lane(
        slot: SiteSlot,
        (place, number): (usize, u8),
        trunk: &config::Trunk,
        state: &State,
        workers: usize,
    ) -> Self {
        let name = trunk.lane_name(number.into());
        let known = state.known(None, &name, &trunk.public_key.0);
        let psk = trunk.preshared_key.as_ref().map(|key| *key.bytes());
        let heard = known.and_then(|k| k.timestamp).map(crypto::Tai64n);
        let profile = Profile::Trunk { cipher: trunk.cipher, lane: number };
        let mut peer = Peer::new(slot.0, trunk.public_key, psk, None, heard).speaking(profile);
        if let Some(stamp) = stamped(state) {
            peer.stamp_after(stamp);
        }
        let endpoint = trunk.endpoint.map(|first| SocketAddr::new(first.ip(), first.port() + u16::from(number)));
        Self {
            udp_checksum: trunk.udp_checksum,
            mtu: trunk.mtu.map(NonZeroU16::get),
            lane: Some(Box::new(Lane::new(place, number, trunk))),
            ..Self::with(slot, peer, &name, endpoint, known, workers)
        }
    }

    fn with(
        slot: SiteSlot,
        peer: Peer,
        name: &str,
        configured: Option<SocketAddr>,
        known: Option<&Known>,
        workers: usize,
    ) -> Self {
        let seen = known.and_then(|k| k.endpoint.map(|remote| Endpoint { remote, local: k.local }));
        Self {
            peer,
            tenant: None,
            name: name.into(),
            endpoint: seen.or(configured.map(|remote| Endpoint { remote, local: None })),
            moved_by: None,
            proven: false,
            way: Way { ends: None, out: Err(DropReason::SiteNoEndpoint) },
            waiting: None,
            sending: None,
            handshake: None,
            worker: (slot.index() % workers) as u16,
            shed_before: 0,
            udp_checksum: false,
            mtu: None,
            probing: None,
            watch: None,
            lane: None,
        }
    }

    /// Other keys: a peer in the place of the old one, which is given back. It goes on where that one was with its time stamps.
    pub(super) fn rekey(&mut self, slot: SiteSlot, site: &config::Site) -> Peer {
        let same = site.public_key == *self.peer.remote();
        let heard = self.peer.last_timestamp().filter(|_| same);
        self.proven &= same;
        let peer = peer(slot, site, heard, self.peer.last_stamp());
        std::mem::replace(&mut self.peer, peer)
    }

    /// What of its way is configured otherwise.
    pub(super) fn configure(&mut self, site: &config::Site, probe: Option<(IpAddr, IpAddr)>) {
        self.peer.set_keepalive(keepalive(site));
        self.udp_checksum = site.udp_checksum;
        self.mtu = site.mtu.map(NonZeroU16::get);
        if self.probing.as_ref().map(|probing| probing.ends()) != probe {
            self.probing = probe.map(|ends| Box::new(Probing::new(ends)));
        }
    }

    /// Writes into `state` what must outlive the hub.
    pub(super) fn remember(&self, state: &mut State) {
        if self.endpoint.is_some() || self.peer.last_timestamp().is_some() {
            let known = Known {
                public_key: self.peer.remote().0,
                endpoint: self.endpoint.map(|e| e.remote),
                local: self.endpoint.and_then(|e| e.local),
                timestamp: self.peer.last_timestamp().map(|t| t.0),
            };
            state.remember(self.tenant.map(|(_, id)| id), &self.name, known);
        }
    }

    fn way_by(&mut self, reach: Option<Reach>, listen_port: u16, mtu_max: u16) -> Way {
        let Some(endpoint) = self.endpoint else {
            return Way { ends: None, out: Err(DropReason::SiteNoEndpoint) };
        };
        let ends = |local| Endpoints::new(endpoint.remote, local).ok();
        let blocked = |reason| Way { ends: endpoint.local.and_then(ends), out: Err(reason) };
        let hop = match reach {
            Some(Reach::Via(hop)) => hop,
            Some(Reach::NoRoute) => return blocked(DropReason::UnderlayNoRoute),
            Some(Reach::PortDown) => return blocked(DropReason::PortDown),
            Some(Reach::Unresolved) | None => return blocked(DropReason::NextHopUnresolved),
        };
        let template = Template::new(&wire::Path {
            source_mac: hop.source_mac,
            destination_mac: hop.destination_mac,
            source: SocketAddr::new(
                hop.local,
                listen_port + self.lane.as_ref().map_or(0, |lane| u16::from(lane.number)),
            ),
            destination: endpoint.remote,
            udp_checksum: self.udp_checksum,
        });
        let Ok(template) = template else { return blocked(DropReason::UnderlayNoRoute) };
        let tag = if self.lane.is_some() { geneve::HEADER as u16 } else { 0 };
        let headers = (template.header_len() - wire::ethernet::HEADER) as u16 + SEALED + tag;
        let mtu = self.mtu.map_or(u16::MAX, |mtu| mtu.saturating_add(headers)).min(hop.mtu).min(mtu_max);
        let remote = endpoint.remote.ip();
        let fits = match (&mut self.probing, &mut self.lane) {
            (Some(probing), _) => probing.fits(remote, mtu, headers),
            (None, Some(lane)) => lane.fits(remote, mtu, headers - tag),
            (None, None) => mtu,
        };
        let payload_max = fits.saturating_sub(headers);
        Way { ends: ends(hop.local), out: Ok(Path { port: hop.port, template, payload_max }) }
    }
}

/// A site listens to no initiation older than one that it has heard, and the clock may have been set back since. What was sent after the
/// last save is not known, but when that was.
fn stamped(state: &State) -> Option<crypto::Tai64n> {
    state.stamped().map(|stamp| crypto::Tai64n(stamp).later(SAVE.as_secs()))
}

fn peer(slot: SiteSlot, site: &config::Site, heard: Option<crypto::Tai64n>, said: Option<crypto::Tai64n>) -> Peer {
    let psk = site.preshared_key.as_ref().map(|key| *key.bytes());
    let mut peer = Peer::new(slot.0, site.public_key, psk, keepalive(site), heard);
    if let Some(stamp) = said {
        peer.stamp_after(stamp);
    }
    peer
}

fn keepalive(site: &config::Site) -> Option<Duration> {
    site.keepalive_s.map(|s| Duration::from_secs(s.get().into()))
}

impl Control {
    /// Lets a site's state machine act, and carries out what it wants.
    pub(super) fn with_peer<R>(
        &mut self,
        slot: SiteSlot,
        act: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>, &mut Vec<Action>) -> R,
    ) -> R {
        let (result, actions) = self.ask(slot, act);
        self.carry_out(slot, actions);
        result
    }

    /// Lets a site's state machine act. What it wants is for [`Control::carry_out`].
    pub(super) fn ask<R>(
        &mut self,
        slot: SiteSlot,
        act: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>, &mut Vec<Action>) -> R,
    ) -> (R, Vec<Action>) {
        let mut actions = Vec::new();
        let slots = &mut self.slots;
        let mut indices = || {
            let mut random = [0; 4];
            fill_random(&mut random);
            slots.reserve(slot, u32::from_ne_bytes(random))
        };
        let now = clock::now();
        let mut cx = Context { now, unix: unix_now(), random: &mut fill_random, indices: &mut indices };
        let result = act(&mut self.sites[slot.index()].peer, &self.identity, &mut cx, &mut actions);
        // Whatever happened may have set a deadline, and only a poll tells it: at once.
        self.timers.set(slot, now);
        (result, actions)
    }

    /// Does what a state machine wants, in its order.
    pub(super) fn carry_out(&mut self, slot: SiteSlot, actions: Vec<Action>) {
        for action in actions {
            self.act(slot, action);
        }
    }

    fn act(&mut self, slot: SiteSlot, action: Action) {
        match action {
            Action::Reserved { index } => {
                self.sites[slot.index()].handshake = Some(index);
                self.publish(slot, index, SessionState::Handshake);
            }
            Action::Send(message) => {
                self.count_message(&message);
                self.send(slot, message);
            }
            Action::Established { session, confirmed } => {
                let index = session.local_index();
                self.sessions.insert(index, session.clone());
                self.order_all(|| Order::Publish(session.clone()));
                self.publish(slot, index, SessionState::Live);
                let site = &mut self.sites[slot.index()];
                site.handshake.take_if(|h| *h == index);
                if confirmed {
                    self.count_handshake(slot);
                    self.send_with(slot, index);
                    self.know(slot);
                } else {
                    self.figures.hub.handshakes_answered.add(1);
                }
            }
            Action::Use { index } => {
                self.count_handshake(slot);
                self.send_with(slot, index);
            }
            Action::Retire { index } => self.retire(slot, index),
            Action::Keepalive => {
                let worker = self.sites[slot.index()].worker;
                self.workers[usize::from(worker)].0.send(Order::Keepalive(slot));
            }
            Action::GiveUp => {
                self.figures.hub.handshakes_given_up.add(1);
                self.say_given_up(slot);
                self.order_all(|| Order::GiveUp(slot));
            }
        }
    }

    /// Tells XDP of a session. The workers know it already: a frame that XDP lets through finds it.
    pub(super) fn publish(&mut self, slot: SiteSlot, index: u32, state: SessionState) {
        let site = &self.sites[slot.index()];
        let tenant = site.tenant.map_or(u32::MAX, |(slot, _)| slot.0);
        let entry = SessionEntry { index, worker: site.worker, tenant, site: slot.0, state };
        if let Err(error) = self.steering.set_session(self.slots.slot(index), entry) {
            self.complain(&error);
        }
    }

    fn send_with(&mut self, slot: SiteSlot, index: u32) {
        let Some(session) = self.sessions.get(&index).cloned() else { return };
        self.sites[slot.index()].sending = Some(index);
        self.order_all(|| Order::Use(session.clone()));
        self.probe_with_session(slot);
        self.session_changed(slot);
    }

    fn retire(&mut self, slot: SiteSlot, index: u32) {
        let site = &mut self.sites[slot.index()];
        site.sending.take_if(|s| *s == index);
        site.handshake.take_if(|h| *h == index);
        if self.slots.owner(index).is_none() {
            return;
        }
        // XDP first, then the workers, then the slot: nothing new arrives for what is taken away.
        if let Err(error) = self.steering.clear_session(self.slots.slot(index)) {
            self.complain(&error);
        }
        if let Some(session) = self.sessions.remove(&index) {
            self.order_all(|| Order::Withdraw { site: slot, index });
            self.withdrawn.push(session);
        }
        self.slots.release(index);
        self.session_changed(slot);
    }

    /// A handshake message to where the site is, or as soon as there is a way there.
    fn send(&mut self, slot: SiteSlot, message: Outgoing) {
        let site = &mut self.sites[slot.index()];
        let Ok(path) = &site.way.out else {
            site.waiting = Some(message);
            return;
        };
        let mut frame = vec![0; path.template.header_len()];
        frame.extend_from_slice(&message);
        if path.template.write(&mut frame, HANDSHAKE_TOS, 0).is_ok() {
            let port = path.port;
            self.emit(slot.index(), port, frame);
        }
    }

    pub(super) fn emit(&mut self, spread: usize, port: PortIndex, frame: Vec<u8>) {
        let worker = spread % self.workers.len();
        self.workers[worker].0.send(Order::Emit(port, frame));
    }

    pub(super) fn order_all(&mut self, order: impl Fn() -> Order) {
        for (mail, _) in &mut self.workers {
            mail.send(order());
        }
    }

    /// The site has shown that it receives what is sent to its address: its next initiations are no stranger's.
    pub(super) fn know(&mut self, slot: SiteSlot) {
        let Some(endpoint) = self.sites[slot.index()].endpoint else { return };
        if let Err(error) = self.steering.know_source(endpoint.remote) {
            self.complain(&error);
        }
    }

    /// An authenticated data message came from elsewhere: the site has moved, if the message is newer than the last
    /// that moved it. Counters of different sessions don't compare; a session that came later is newer.
    pub(super) fn move_by_data(&mut self, slot: SiteSlot, index: u32, counter: u64, endpoint: Endpoint) {
        let Some(session) = self.sessions.get(&index) else { return };
        let born = session.born();
        let site = &mut self.sites[slot.index()];
        if let Some((last_index, last_counter)) = site.moved_by {
            let stale = match self.sessions.get(&last_index) {
                Some(_) if last_index == index => counter <= last_counter,
                Some(last) => born < last.born(),
                None => false,
            };
            if stale {
                return;
            }
        }
        site.moved_by = Some((index, counter));
        self.move_to(slot, endpoint);
    }

    /// The site is there now.
    pub(super) fn move_to(&mut self, slot: SiteSlot, endpoint: Endpoint) {
        let old = self.sites[slot.index()].endpoint.replace(endpoint);
        if old == Some(endpoint) {
            return;
        }
        // Where only the hub's own address is new, and the kernel had chosen the same, the way is known: what follows a
        // handshake at once, a first keepalive, need not wait until the kernel has said so again.
        let known = old.filter(|old| old.remote.ip() == endpoint.remote.ip());
        let known = known.and_then(|old| self.reach.get(&(old.remote.ip(), old.local))).and_then(|(reach, _)| *reach);
        let known = known.filter(|reach| matches!(reach, Reach::Via(hop) if Some(hop.local) == endpoint.local));
        if let Some(old) = old {
            self.unwatch(slot, old);
        }
        self.watch_from(slot, known);
    }

    /// Asks for the way to where the site is.
    pub(super) fn watch(&mut self, slot: SiteSlot) {
        self.watch_from(slot, None);
    }

    fn watch_from(&mut self, slot: SiteSlot, known: Option<Reach>) {
        let Some(endpoint) = self.sites[slot.index()].endpoint else { return };
        let key = (endpoint.remote.ip(), endpoint.local);
        let (_, sites) = self.reach.entry(key).or_insert_with(|| {
            self.underlay.watch(key.0, key.1);
            (known, Vec::new())
        });
        if !sites.contains(&slot) {
            sites.push(slot);
        }
        self.set_way(slot);
    }

    pub(super) fn unwatch(&mut self, slot: SiteSlot, endpoint: Endpoint) {
        let key = (endpoint.remote.ip(), endpoint.local);
        let Some((_, sites)) = self.reach.get_mut(&key) else { return };
        sites.retain(|s| *s != slot);
        if sites.is_empty() {
            self.reach.remove(&key);
            self.underlay.unwatch(key.0, key.1);
        }
    }

    /// Tells the workers how the site is reached now, and sends what waited for a way.
    pub(super) fn set_way(&mut self, slot: SiteSlot) {
        let site = &mut self.sites[slot.index()];
        let reach = site.endpoint.and_then(|e| self.reach.get(&(e.remote.ip(), e.local))).and_then(|(reach, _)| *reach);
        // A tunnel never leaves by a port where tenants' servers are, whatever the kernel's routes say.
        let reach = reach.map(|reach| match reach {
            Reach::Via(hop) if self.desired.ports[hop.port.index()].role == Role::Access => Reach::NoRoute,
            reach => reach,
        });
        site.way = site.way_by(reach, self.desired.hub.listen_port.get(), self.mtu_max);
        let way = site.way.clone();
        let open = way.out.is_ok();
        let waiting = if open { site.waiting.take() } else { None };
        self.probes.set(slot, clock::now()); // another way is to be measured anew
        self.order_all(|| Order::Way(slot, way.clone()));
        self.tell_trunk_of(slot);
        if let Some(message) = waiting {
            self.send(slot, message);
        }
    }
}

/// Randomness of the operating system.
pub(super) fn fill_random(bytes: &mut [u8]) {
    // The kernel's generator does not fail once it is seeded, and a hub without randomness must not go on.
    getrandom::fill(bytes).expect("getrandom(2) works on every supported kernel");
}
