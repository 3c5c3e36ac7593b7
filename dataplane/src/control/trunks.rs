//! Trunks: their lanes, each a peer as a site is; what this hub and the others tell each other over them; and which of several ways to
//! a prefix is used.
//!
//! ```text
//!   probes, replies --> Liveness of a lane --> trunk up or down --\
//!   states of the other hub --> Announcements -- what it reaches --+--> Paths --> a switch in the routes that all workers have
//!   sites' sessions and pings, links of access ends --------------/ \--> what is told to the other hubs
//! ```

use super::Control;
use super::probe;
use super::sites::fill_random;
use crate::announce::{self, Announcements};
use crate::clock;
use crate::config::{self, Desired, Via};
use crate::lane_mtu::{LaneMtu, NUMBERS};
use crate::liveness::{self, Liveness};
use crate::logging::Every;
use crate::mailbox::Order;
use crate::paths::{PathSpec, Paths};
use crate::prefixes::Prefixes;
use crate::seats::Seats;
use crate::status;
use crate::trunk::Trunk;
use ahash::{AHashMap, AHashSet};
use crypto::cookie::Checker;
use crypto::{Identity, Protocol, PublicKey, Time, suite_cipher};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::hub::{Alive, Message, Owner, Probe};
use wire::{DropReason, SiteSlot, TenantId, geneve};

/// What a lane has that a site has not.
pub(super) struct Lane {
    /// The place of its trunk in the configuration.
    pub(super) trunk: usize,
    /// Which lane of it.
    pub(super) number: u8,
    pub(super) liveness: Liveness,
    pub(super) mtu: LaneMtu,
}

impl Lane {
    pub(super) fn new(trunk: usize, number: u8, configured: &config::Trunk) -> Self {
        let liveness = Liveness::new(configured.probe_interval, clock::now());
        Self { trunk, number, liveness, mtu: LaneMtu::default() }
    }

    /// The largest outer packet on the way to this address, of which the kernel says that it takes `most` bytes; `overhead` of these are
    /// not plaintext.
    pub(super) fn fits(&mut self, remote: IpAddr, most: u16, overhead: u16) -> u16 {
        self.mtu.way(remote, most, overhead, clock::now());
        self.mtu.fits()
    }

    pub(super) fn next(&self) -> Time {
        self.liveness.next().min(self.mtu.next())
    }
}

/// All trunks, by their places in the configuration: a running hub has the same ones for its life.
pub(super) struct Trunks {
    /// Each lane by the other hub's key and its number.
    pub(super) by_key: AHashMap<(PublicKey, u8), SiteSlot>,
    pub(super) checker: Checker,
    all: Vec<One>,
    pub(super) paths: Paths,
    /// What each site and access end leads to: of which tenant, and which prefixes.
    behind: AHashMap<SiteSlot, (TenantId, Vec<IpNet>)>,
    /// The same by prefix: all ends, and trunks by their places.
    leading: Prefixes<Vec<Leading>>,
    /// Sites and access ends that are alive here, and what is said of them.
    alive: AHashMap<SiteSlot, Alive>,
    /// The initiation for which a site was last taken at its word.
    trusted: AHashMap<SiteSlot, Option<[u8; 12]>>,
    /// What workers may still have.
    before: Vec<Arc<Trunk>>,
    complaints: Every,
}

/// What leads to a prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leading {
    End(SiteSlot),
    Trunk(usize),
}

struct One {
    announcements: Announcements,
    /// As the workers have it.
    told: Arc<Trunk>,
    /// Whether any lane is up.
    up: bool,
    /// Whether all of those have missed a probe.
    doubted: bool,
}

impl Trunks {
    pub(super) fn new(desired: &Desired, seats: &Seats, identity: &Identity) -> Self {
        let lanes = desired.trunks.iter().enumerate().flat_map(|(place, trunk)| {
            (0..).zip(seats.lanes(place)).map(|(number, slot)| ((trunk.public_key, number), *slot))
        });
        let mut epoch = [0; 8];
        fill_random(&mut epoch);
        let one = |trunk: &config::Trunk| One {
            announcements: Announcements::new(u64::from_ne_bytes(epoch), trunk.probe_interval, clock::now()),
            told: Arc::default(),
            up: false,
            doubted: false,
        };
        Self {
            by_key: lanes.collect(),
            checker: Checker::of(Protocol::Trunk, identity),
            all: desired.trunks.iter().map(one).collect(),
            paths: Paths::default(),
            behind: AHashMap::new(),
            leading: Prefixes::default(),
            alive: AHashMap::new(),
            trusted: AHashMap::new(),
            before: Vec::new(),
            complaints: Every::new(Duration::from_secs(10)),
        }
    }

    /// Frees what no worker has any more.
    pub(super) fn sweep(&mut self) {
        self.before.retain_mut(|trunk| Arc::get_mut(trunk).is_none());
    }

    /// Whether any lane of a trunk answers.
    pub(super) fn is_up(&self, place: usize) -> bool {
        self.all[place].up
    }

    /// Prefixes that are alive behind this hub, and behind the other one.
    pub(super) fn announced(&self, place: usize) -> status::Announced {
        let Announcements { said, heard } = &self.all[place].announcements;
        status::Announced { said: said.len() as u64, heard: heard.len() as u64 }
    }

    /// When something is to be said, or a better way gone back to.
    pub(super) fn next(&self) -> Option<Time> {
        let said = self.all.iter().filter(|one| one.up).map(|one| one.announcements.next());
        said.chain([self.paths.next()]).min().filter(|at| *at != Time::NEVER)
    }
}

// What the workers know.
impl Control {
    /// Tells the workers what each trunk is, if it is another than they were told.
    pub(super) fn tell_trunks(&mut self) {
        (0..self.desired.trunks.len()).for_each(|place| self.tell_trunk(place));
    }

    /// The same of the trunk that a peer is a lane of, if it is one.
    pub(super) fn tell_trunk_of(&mut self, slot: SiteSlot) {
        if let Some(lane) = &self.sites[slot.index()].lane {
            self.tell_trunk(lane.trunk);
        }
    }

    fn tell_trunk(&mut self, place: usize) {
        let lanes = self.seats.lanes(place);
        let mut trunk = Trunk { transit: self.desired.trunks[place].transit, ..Trunk::default() };
        trunk.lanes.extend(lanes.iter().copied());
        // Those that are up; else those that answer, at least; else all.
        for wanted in [liveness::State::Up, liveness::State::Held] {
            if trunk.live.is_empty() {
                trunk.live.extend(lanes.iter().copied().filter(|lane| self.lane_state(*lane) == wanted));
            }
        }
        if trunk.live.is_empty() {
            trunk.live = trunk.lanes.clone();
        }
        let fits = |lane: &SiteSlot| Some(self.sites[lane.index()].way.out.as_ref().ok()?.payload_max);
        trunk.payload_max = trunk.live.iter().filter_map(fits).min();
        for (n, tenant) in self.desired.tenants.iter().enumerate() {
            match self.seats.carried(n)[place] {
                Some(end) => _ = trunk.carried.insert(tenant.id, end),
                None => _ = trunk.denied.insert(tenant.id),
            }
        }
        let one = &mut self.trunks.all[place];
        if trunk == *one.told {
            return;
        }
        let trunk = Arc::new(trunk);
        self.trunks.before.push(std::mem::replace(&mut one.told, trunk.clone()));
        self.order_all(|| Order::Trunk(trunk.clone()));
    }

    /// The lane of this name: its trunk's, and its number.
    pub(super) fn lane_of(&self, name: &str) -> Option<SiteSlot> {
        self.trunks.by_key.values().copied().find(|slot| *self.sites[slot.index()].name == *name)
    }

    fn lane_state(&self, slot: SiteSlot) -> liveness::State {
        self.sites[slot.index()].lane.as_ref().map_or(liveness::State::Down, |lane| lane.liveness.state())
    }
}

// What is said over lanes, and heard.
impl Control {
    /// A lane is never without a session for want of packets, nor because the other hub was away for some time.
    pub(super) fn keep_lane(&mut self, slot: SiteSlot) {
        let (site, now) = (&self.sites[slot.index()], clock::now());
        let wanted = site.lane.is_some() && site.endpoint.is_some() && site.handshake.is_none();
        if wanted && site.peer.current(now).is_none() && !site.peer.is_answered(now) {
            self.with_peer(slot, |peer, identity, cx, out| peer.want_session(identity, cx, out));
        }
    }

    /// A peer has a session now, or another, or none any more.
    pub(super) fn session_changed(&mut self, slot: SiteSlot) {
        match self.sites[slot.index()].lane {
            Some(_) => self.poll_lane(slot),
            None => self.end_changed(slot),
        }
    }

    /// What is due on a lane: probes of whether it is there, and of what it takes.
    pub(super) fn poll_lane(&mut self, slot: SiteSlot) {
        let now = clock::now();
        let site = &mut self.sites[slot.index()];
        let open = site.sending.is_some() && site.way.out.is_ok();
        let Some(lane) = &mut site.lane else { return };
        let (place, fitted) = (lane.trunk, lane.mtu.fits());
        lane.liveness.on_session(open, now);
        if !open {
            lane.mtu.pause();
        }
        let due = lane.liveness.poll(now).map(|number| (number, 0));
        let sizes = if open { lane.mtu.poll(now) } else { Vec::new() };
        let refitted = lane.mtu.fits() != fitted;
        let progress = self.trunks.all[place].announcements.progress();
        for (number, size) in due.into_iter().chain(sizes) {
            let plain = Probe { size, number, clock: now.0, progress }.plain();
            if size == 0 { self.tell(slot, plain) } else { self.measure(slot, &plain) }
        }
        self.set_probes(slot);
        if refitted {
            self.set_way(slot);
        }
        self.judge_trunk(place);
    }

    /// A message of the other hub by a lane: what followed its tag.
    pub(super) fn hear_hub(&mut self, slot: SiteSlot, payload: &[u8]) -> Result<(), DropReason> {
        let now = clock::now();
        let message = Message::parse(payload).map_err(|_| DropReason::TrunkControl)?;
        let Some(lane) = &mut self.sites[slot.index()].lane else { return Err(DropReason::TrunkControl) };
        let place = lane.trunk;
        let announcements = &mut self.trunks.all[place].announcements;
        match message {
            Message::Probe(probe) => {
                announcements.on_progress(&probe.progress, now);
                let reply = probe.reply(geneve::HEADER + payload.len(), announcements.progress());
                self.tell(slot, reply);
            }
            Message::Reply(reply) => {
                announcements.on_progress(&reply.progress, now);
                let fitted = lane.mtu.fits();
                if reply.number & NUMBERS == 0 {
                    lane.liveness.on_reply(reply.number, now);
                } else {
                    lane.mtu.on_reply(reply.number, reply.size, now);
                }
                let refitted = lane.mtu.fits() != fitted;
                self.set_probes(slot);
                if refitted {
                    self.set_way(slot);
                }
                self.judge_trunk(place);
            }
            Message::Progress(progress) => announcements.on_progress(&progress, now),
            Message::State(state) => announcements.on_state(&state, now),
        }
        self.poll_trunk(place);
        Ok(())
    }

    /// What is due of what trunks say, and of ways to go back to.
    pub(super) fn poll_trunks(&mut self) {
        let now = clock::now();
        for place in 0..self.trunks.all.len() {
            if self.trunks.all[place].up && self.trunks.all[place].announcements.next() <= now {
                self.poll_trunk(place);
            }
        }
        if self.trunks.paths.next() <= now {
            self.trunks.paths.poll(now);
            self.switch_paths();
        }
    }

    fn poll_trunk(&mut self, place: usize) {
        let lanes = self.seats.lanes(place).iter().copied();
        let speaker = lanes.filter(|lane| self.lane_state(*lane) != liveness::State::Down).min_by_key(|lane| {
            // The first that is up.
            self.lane_state(*lane) != liveness::State::Up
        });
        let Some(speaker) = speaker else { return };
        let longest = self.sites[speaker.index()].lane.as_ref().map_or(0, |lane| lane.mtu.plain_max());
        let announcements = &mut self.trunks.all[place].announcements;
        let messages = announcements.poll(longest.into(), clock::now());
        let changes = announcements.heard.changes();
        messages.into_iter().for_each(|message| self.tell(speaker, message));
        self.heed_changes(place, changes);
    }

    /// A message to the other hub by a lane.
    fn tell(&mut self, slot: SiteSlot, plain: Vec<u8>) {
        let worker = self.sites[slot.index()].worker;
        self.workers[usize::from(worker)].0.send(Order::Tell(slot, plain));
    }

    /// A probe of what a lane takes: in one piece or not at all.
    fn measure(&mut self, slot: SiteSlot, plain: &[u8]) {
        let site = &self.sites[slot.index()];
        let session = site.sending.and_then(|index| self.sessions.get(&index));
        let (Some(session), Ok(path)) = (session.filter(|s| !s.expired(clock::now())), &site.way.out) else { return };
        let port = path.port;
        if let Some(frame) = probe::seal(&path.template, session, plain, self.facts.backend) {
            self.emit(slot.index(), port, frame);
        }
    }

    /// Nobody answered a lane's initiations: all that is known of why.
    pub(super) fn say_given_up(&self, slot: SiteSlot) {
        let site = &self.sites[slot.index()];
        if site.lane.is_some() {
            let remote = site.endpoint.map_or_else(String::new, |endpoint| format!(" at {}", endpoint.remote));
            tracing::warn!("trunk {}{remote}: no session: {}; trying on", site.name, site.peer.heard());
        }
    }

    /// A hub offers another suite than is configured: itself, if it is known who; else somebody who knows this hub's key.
    pub(super) fn say_suite(&mut self, slot: Option<SiteSlot>, offered: u8) {
        let Some(silent) = self.trunks.complaints.ready(Instant::now()) else { return };
        let name = config::cipher_name;
        let unknown = || format!("suite {offered}, which this version does not know");
        let theirs = suite_cipher(offered).map_or_else(unknown, |cipher| name(cipher).into());
        match slot.map(|slot| &self.sites[slot.index()]) {
            Some(lane) => tracing::warn!(
                silent,
                "trunk {}: the other hub offers {theirs}, and {} is configured here: one of the two is to be changed",
                lane.name,
                name(lane.peer.profile().cipher())
            ),
            None => tracing::warn!(silent, "somebody who knows this hub's public key offers a trunk in {theirs}"),
        }
    }
}

// Which way is used.
impl Control {
    /// All paths of the configuration, each at what is best of what is alive now.
    pub(super) fn lay_paths(&mut self) {
        if !self.has_ways() && self.trunks.behind.is_empty() {
            return;
        }
        let now = clock::now();
        let tenants: AHashMap<_, _> =
            self.seats.tenants(&self.desired).map(|(slot, tenant)| (slot, tenant.id)).collect();
        let specs = (0..).zip(self.reload.paths()).filter_map(|(id, path)| {
            let (tenant, prefix, candidates) = (*tenants.get(&path.tenant)?, path.prefix, path.candidates.clone());
            Some(PathSpec { id, tenant, prefix, candidates })
        });
        self.trunks.paths = self.trunks.paths.renewed(specs.collect(), now);
        self.trunks.behind.clear();
        let mut by_site: AHashMap<(TenantId, &str), Vec<IpNet>> = AHashMap::new();
        for tenant in &self.desired.tenants {
            for route in &tenant.routes {
                if let Via::Site(name) = &route.via {
                    by_site.entry((tenant.id, &**name)).or_default().push(route.prefix);
                }
            }
        }
        for (slot, _, tenant, site) in self.seats.sites(&self.desired) {
            let routes = by_site.get(&(tenant.id, &*site.name)).into_iter().flatten();
            let prefixes = site.prefixes.iter().chain(routes).copied().collect();
            self.trunks.behind.insert(slot, (tenant.id, prefixes));
        }
        for (slot, tenant, _, end) in self.seats.ends(&self.desired) {
            if let Some(tenant) = tenants.get(&tenant) {
                self.trunks.behind.insert(slot, (*tenant, end.prefixes().collect()));
            }
        }
        let mut leading: Prefixes<Vec<Leading>> = Prefixes::default();
        for (slot, (tenant, prefixes)) in &self.trunks.behind {
            for prefix in prefixes {
                leading.or_insert_with(*tenant, *prefix, Vec::new).push(Leading::End(*slot));
            }
        }
        for (tenant, route) in
            self.desired.tenants.iter().flat_map(|tenant| tenant.routes.iter().map(move |route| (tenant, route)))
        {
            let Via::Trunk(name) = &route.via else { continue };
            let Some(place) = self.desired.trunks.iter().position(|trunk| trunk.name == *name) else { continue };
            leading.or_insert_with(tenant.id, route.prefix, Vec::new).push(Leading::Trunk(place));
        }
        // What nothing leads to any more is not alive here.
        let before = self.trunks.leading.iter().map(|(tenant, prefix, _)| (tenant, prefix));
        let gone: Vec<_> = before.filter(|(tenant, prefix)| leading.get(*tenant, *prefix).is_none()).collect();
        self.trunks.leading = leading;
        self.announce_prefixes(gone);
        self.trunks.alive.retain(|slot, _| self.trunks.behind.contains_key(slot));
        self.trunks.trusted.retain(|slot, _| self.trunks.behind.contains_key(slot));
        let ends: Vec<SiteSlot> = self.trunks.behind.keys().copied().collect();
        ends.into_iter().for_each(|slot| self.judge_end(slot));
        for place in 0..self.trunks.all.len() {
            let up = self.trunks.all[place].up;
            self.set_carried(place, up);
            let carried: AHashSet<TenantId> = self.trunks.all[place].told.carried.keys().copied().collect();
            self.trunks.all[place].announcements.heard.allow(Some(carried));
        }
        self.watch_sites();
        self.switch_paths();
    }

    /// Whether it matters to anybody what is alive here: to another hub, or because something has an alternative.
    fn has_ways(&self) -> bool {
        !self.desired.trunks.is_empty() || !self.reload.paths().is_empty()
    }

    /// Whether a trunk is up, after something of its lanes has changed.
    fn judge_trunk(&mut self, place: usize) {
        self.tell_trunk(place);
        self.seats.lanes(place).iter().for_each(|lane| self.write_lane(*lane));
        let lanes = self.seats.lanes(place).iter().filter_map(|lane| self.sites[lane.index()].lane.as_ref());
        let mut answering = lanes.filter(|lane| lane.liveness.state() != liveness::State::Down).peekable();
        let up = answering.peek().is_some();
        let doubted = up && answering.all(|lane| lane.liveness.is_in_doubt());
        if std::mem::replace(&mut self.trunks.all[place].doubted, doubted) != doubted {
            self.doubt_carried(place);
        }
        if std::mem::replace(&mut self.trunks.all[place].up, up) == up {
            return;
        }
        let name = &*self.desired.trunks[place].name;
        if up {
            tracing::info!("trunk {name} is up");
        } else {
            tracing::warn!("trunk {name} is down: no lane answers");
        }
        self.set_carried(place, up);
        // Whose sites the other hub has is of no use while it can't be reached.
        self.judge_owned();
        self.switch_paths();
    }

    /// What a trunk is to its tenants is in doubt, or is not.
    fn doubt_carried(&mut self, place: usize) {
        let One { told, doubted, .. } = &self.trunks.all[place];
        told.carried.values().for_each(|end| self.trunks.paths.doubt(*end, *doubted));
    }

    /// What a trunk is to its tenants is up, or is not, and reaches what the other hub says.
    fn set_carried(&mut self, place: usize, up: bool) {
        self.doubt_carried(place);
        let now = clock::now();
        let ends: Vec<SiteSlot> = self.trunks.all[place].told.carried.values().copied().collect();
        for end in ends {
            self.reaches(place, end, now);
            self.trunks.paths.set_up(end, up, now);
        }
        self.announce_transit(place);
    }

    fn reaches(&mut self, place: usize, end: SiteSlot, now: Time) {
        let heard = &self.trunks.all[place].announcements.heard;
        let paths = self.trunks.paths.of(end);
        let said: Vec<_> = paths.map(|(id, tenant, prefix)| (id, heard.is_alive(tenant, prefix))).collect();
        for (id, alive) in said {
            self.trunks.paths.set_reaches(id, end, alive, now);
        }
    }

    /// The other hub says that something is alive behind it now, or not any more.
    fn heed_changes(&mut self, place: usize, changes: announce::Changes) {
        if !changes.all && changes.prefixes.is_empty() {
            return;
        }
        let now = clock::now();
        let told = self.trunks.all[place].told.clone();
        if changes.all {
            told.carried.values().for_each(|end| self.reaches(place, *end, now));
            self.announce_transit(place);
            self.judge_owned();
            return self.switch_paths();
        }
        let mut shared = AHashSet::new();
        let mut leading = AHashSet::new();
        for (tenant, prefix) in changes.prefixes {
            let Some(end) = told.carried.get(&tenant).copied() else { continue };
            let (heard, paths) = (&self.trunks.all[place].announcements.heard, &mut self.trunks.paths);
            let touched: Vec<_> = paths.overlapping(end, tenant, prefix).collect();
            for (id, prefix) in touched {
                paths.set_reaches(id, end, heard.is_alive(tenant, prefix), now);
            }
            shared.extend(paths.ends(tenant, prefix).filter(|slot| self.sites.has(*slot)));
            let ways = self.trunks.leading.overlapping(tenant, prefix);
            let by_it = ways.filter(|(_, ways)| ways.contains(&Leading::Trunk(place)));
            leading.extend(by_it.map(|(prefix, _)| (tenant, prefix)));
        }
        if self.desired.trunks.iter().any(|trunk| trunk.transit) {
            self.announce_prefixes(leading.into_iter().collect());
        }
        shared.into_iter().for_each(|slot| self.judge_end(slot));
        self.switch_paths();
    }

    /// Sites that more than one hub has.
    fn judge_owned(&mut self) {
        let shared: Vec<SiteSlot> = self.trunks.paths.slots().filter(|slot| self.sites.has(*slot)).collect();
        shared.into_iter().for_each(|slot| self.judge_end(slot));
    }

    /// Whether an end of a tenant at this hub is alive; and what the other hubs are told of that.
    pub(super) fn judge_end(&mut self, slot: SiteSlot) {
        let now = clock::now();
        let Some((tenant, prefixes)) = self.trunks.behind.get(&slot) else { return };
        let owner = self
            .sites
            .has(slot)
            .then(|| &self.sites[slot.index()])
            .and_then(|site| Some(Owner { key: site.peer.remote().0, stamp: site.peer.last_timestamp()?.0 }));
        let alive = match self.ends.at(slot) {
            Some(end) => end.link.state.is_ok(),
            None => {
                let site = &self.sites[slot.index()];
                let answers = site.watch.as_ref().is_none_or(|watch| !watch.is_dead());
                answers && site.peer.current(now).is_some() && self.is_owned(*tenant, prefixes, owner.as_ref())
            }
        };
        match alive {
            true => _ = self.trunks.alive.insert(slot, Alive { hops: 0, owner }),
            false => _ = self.trunks.alive.remove(&slot),
        }
        // It has just said itself that it is here: that is no flapping.
        let stamp = owner.map(|owner| owner.stamp);
        if alive && self.trunks.trusted.insert(slot, stamp) != Some(stamp) {
            self.trunks.paths.trust(slot, now);
        }
        let keys: Vec<_> = prefixes.iter().map(|prefix| (*tenant, *prefix)).collect();
        self.announce_prefixes(keys);
        self.trunks.paths.set_up(slot, alive, now);
    }

    /// An end of a tenant at this hub may be alive now, or not any more.
    pub(super) fn end_changed(&mut self, slot: SiteSlot) {
        self.judge_end(slot);
        self.switch_paths();
    }

    /// Tells the other hubs how it stands with prefixes here, if they don't know.
    fn announce_prefixes(&mut self, keys: Vec<(TenantId, IpNet)>) {
        let configured = &self.desired.trunks;
        for to in 0..configured.len() {
            let carried = &self.trunks.all[to].told.carried;
            let keys = keys.iter().filter(|(tenant, _)| carried.contains_key(tenant));
            let changes: Vec<_> = keys.map(|key| (key.0, key.1, self.alive_for(to, key))).collect();
            self.trunks.all[to].announcements.said.update(changes);
        }
    }

    /// What is behind this hub, as seen from a trunk: what is behind another trunk is so only if it may pass through.
    fn alive_for(&self, to: usize, key: &(TenantId, IpNet)) -> Option<Alive> {
        let transit = self.desired.trunks[to].transit;
        let ways = self.trunks.leading.get(key.0, key.1)?.iter().filter_map(|way| match way {
            Leading::End(slot) => self.trunks.alive.get(slot).copied(),
            Leading::Trunk(by) if transit && *by != to && self.trunks.all[*by].up => {
                let heard = &self.trunks.all[*by].announcements.heard;
                let said = heard.get(key.0, key.1);
                let hops = said.map_or(0, |said| said.hops) + 1;
                heard.is_alive(key.0, key.1).then_some(Alive { hops, owner: said.and_then(|said| said.owner) })
            }
            Leading::Trunk(_) => None,
        });
        ways.min_by_key(|alive| alive.hops)
    }

    /// What leads by a trunk may be alive now for those who pass through here, or not any more.
    fn announce_transit(&mut self, by: usize) {
        if self.desired.trunks.iter().any(|trunk| trunk.transit) {
            let all = self.trunks.leading.iter();
            let by_it = all.filter(|(_, _, ways)| ways.contains(&Leading::Trunk(by)));
            let keys = by_it.map(|(tenant, prefix, _)| (tenant, prefix)).collect();
            self.announce_prefixes(keys);
        }
    }

    /// Whether this hub has a site, as far as the others say: it authenticated here last.
    fn is_owned(&self, tenant: TenantId, prefixes: &[IpNet], own: Option<&Owner>) -> bool {
        let up = self.desired.trunks.iter().zip(&self.trunks.all).filter(|(_, one)| one.up);
        let theirs = up.filter_map(|(trunk, one)| {
            let heard = |prefix: &IpNet| one.announcements.heard.get(tenant, *prefix);
            let claim = prefixes.iter().filter_map(heard).find(|alive| alive.owner.is_some())?;
            Some((trunk.public_key.0, claim))
        });
        let theirs =
            theirs.filter(|(_, claim)| own.is_none_or(|own| claim.owner.is_some_and(|owner| owner.key == own.key)));
        let hub = self.desired.hub.public_key.0;
        let ours = own.map(|own| (hub, Alive { hops: 0, owner: Some(*own) }));
        announce::owner(theirs.chain(ours)).is_none_or(|owner| owner == hub)
    }

    /// What was decided takes effect in every worker at once.
    fn switch_paths(&mut self) {
        for switch in self.trunks.paths.switches() {
            // What was decided last: no packet is to see what it was in between.
            self.reload.switch(switch.id, self.trunks.paths.active(switch.id).unwrap_or(switch.to));
        }
    }
}
