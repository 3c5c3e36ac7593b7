//! Control: the one writer. It makes handshakes, keeps every timer, follows the kernel, and tells XDP and the workers
//! what holds now. It never touches a packet of a tenant.
//!
//! ```text
//!   kernel (netlink) --\                            /--> BPF maps: sessions, addresses, sources
//!   workers' events ----+--> Control::run (a turn) -+--> orders to the workers
//!   workers' parcels --/                            \--> state file, status
//! ```

mod access;
mod figures;
mod handshake;
mod plan;
mod probe;
mod reload;
mod report;
mod sites;
mod slots;
mod timers;
mod trunks;
mod watch;

pub use figures::enter;
pub use report::Facts;
pub use sites::Endpoint;

use crate::api::{Refused, Request};
use crate::caps;
use crate::clock;
use crate::config::Desired;
use crate::logging::Every;
use crate::mailbox::{ControlEnd, Event, Order};
use crate::notify::Notify;
use crate::rates::Contracts;
use crate::reassembly::Reassembly;
use crate::reserve::Reserved;
use crate::seats::{PathSpec, Seats};
use crate::seccomp;
use crate::state::{SaveError, State};
use crate::underlay::{Change, Reach, Underlay};
use crate::xsk::{HEADROOM, Remains};
use ahash::AHashMap;
use classifier::Tables;
use crypto::cookie::Checker;
use crypto::peer::Activity;
use crypto::{Identity, PublicKey, Session, SystemTimeParts, Time};
use reload::Reload;
use sites::Sites;
use slots::Slots;
use stats::{ControlRows, Rows, Segment};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use timers::Timers;
use tokio::sync::Notify as Wake;
use tokio::sync::mpsc;
use trunks::Trunks;
use wire::{PortIndex, SiteSlot, TenantId};

/// Every site's activity is looked at once in this time: the grain of the timers that traffic sets.
const SWEEP: Duration = Duration::from_secs(1);
/// A sweep is done in so many parts, so that no part of it delays a handshake.
const SWEEP_PARTS: usize = 16;
/// Handshakes that the hub begins at a time when it starts, and how often: 3,200 a second, half of what a core can. So few
/// at a time that their answers find room where they wait.
const STARTUP_BATCH: usize = 32;
const STARTUP_EVERY: Duration = Duration::from_millis(10);
/// How often what must outlive the hub is written, if it changed.
const SAVE: Duration = Duration::from_secs(10);

/// What the start has prepared, and control runs from then on.
pub struct Parts {
    /// The configuration.
    pub desired: Arc<Desired>,
    /// Who of it has which slot.
    pub seats: Arc<Seats>,
    /// What its tenants are held to.
    pub contracts: Arc<Contracts>,
    /// Its routes, as the workers have them.
    pub tables: Arc<Tables>,
    /// The prefixes in them that several ends lead to.
    pub paths: Vec<PathSpec>,
    /// The hub's key pair.
    pub identity: Identity,
    /// XDP.
    pub steering: bpf::Steering,
    /// The kernel's routing, followed.
    pub underlay: Underlay,
    /// What outlived the last hub.
    pub state: State,
    /// A mailbox to each worker, and the worker's rows.
    pub workers: Vec<(ControlEnd, Arc<Rows>)>,
    /// The statistics segment that the rows are in.
    pub segment: Segment,
    /// Notified by the workers.
    pub wake: Arc<Wake>,
    /// Requests of the API.
    pub requests: mpsc::Receiver<Request>,
    /// The ports as they were opened.
    pub ports: Vec<crate::start::Port>,
    /// Facts that status repeats.
    pub facts: Facts,
    /// The listen port, taken on each address.
    pub reserved: Reserved,
    /// systemd.
    pub notify: Notify,
    /// Bits of a receiver index that are its slot.
    pub session_bits: u8,
}

/// A remote, and the local address that its site talks to, as the underlay is asked for it.
type Watched = (IpAddr, Option<IpAddr>);

/// The hub's control: all that changes, in one thread.
pub struct Control {
    desired: Arc<Desired>,
    seats: Arc<Seats>,
    contracts: Arc<Contracts>,
    reload: Reload,
    identity: Identity,
    steering: bpf::Steering,
    underlay: Underlay,
    reserved: Reserved,
    state: State,
    wake: Arc<Wake>,
    workers: Vec<(ControlEnd, Arc<Rows>)>,
    requests: mpsc::Receiver<Request>,
    ports: Vec<crate::start::Port>,
    facts: Facts,
    notify: Notify,

    sites: Sites,
    ends: access::Ends,
    by_key: AHashMap<PublicKey, SiteSlot>,
    trunks: Trunks,
    /// What is known of the way to each remote, and who wants to know.
    reach: AHashMap<Watched, (Option<Reach>, Vec<SiteSlot>)>,
    slots: Slots,
    sessions: AHashMap<u32, Arc<Session>>,
    /// Sessions that were withdrawn; freed, and so zeroized, once no worker holds them.
    withdrawn: Vec<Arc<Session>>,
    timers: Timers,
    /// When to measure the way to each site next.
    probes: Timers,
    checker: Checker,
    /// Handshake messages need a cookie until then.
    loaded_until: Time,
    /// Strangers' initiations that XDP had dropped at the last look.
    strangers: u64,
    reassembly: Reassembly,
    segment: Segment,
    /// What control itself counts.
    figures: ControlRows,
    startup: VecDeque<SiteSlot>,
    swept: usize,
    /// Turns that each worker had made when systemd was last told that the hub lives.
    turns: Vec<u64>,
    /// Closed sockets, and the worker that their chunks belong to.
    remains: Vec<(usize, Remains)>,
    /// What fits a chunk, whatever a port's MTU is raised to while the hub runs.
    mtu_max: u16,
    /// A state file being written.
    saving: Option<JoinHandle<Result<(), SaveError>>>,
    /// Each worker's busy time at the last look, and its share of the time between the last two.
    busy: Vec<(u64, f64)>,
    /// Each worker's batches, and the frames in them, at the last look.
    batched: Vec<(u64, u64)>,
    /// It was said that the segment's file is not what it was.
    segment_lost: bool,
    looked_at: Time,
    complaints: Every,
}

impl Control {
    /// Control over what the start has prepared.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            desired,
            seats,
            contracts,
            tables,
            paths,
            identity,
            steering,
            underlay,
            state,
            workers,
            segment,
            wake,
            requests,
            ports,
            mut facts,
            session_bits,
            reserved,
            notify,
        } = parts;
        let behind = state.stamped().map_or(0, |stamp| crypto::Tai64n(stamp).ahead_of(unix_now()));
        if behind > 0 {
            let warning = format!(
                "the wall clock is {behind} s behind what an earlier hub has told its sites: the timestamps of handshakes go on from there"
            );
            tracing::warn!("{warning}");
            facts.warnings.push(warning);
        }
        let sites = Sites::of(&desired, &seats, facts.room, &state, workers.len());
        let ends = access::Ends::new(&desired, &seats);
        let of_tenants = sites.iter().filter(|(_, site)| site.tenant.is_some());
        let by_key = of_tenants.map(|(slot, site)| (*site.peer.remote(), slot)).collect();
        let startup = sites.iter().filter(|(_, site)| site.endpoint.is_some()).map(|(slot, _)| slot).collect();
        let frame_size = ports.first().map_or(2048, crate::start::Port::frame_size);
        Self {
            trunks: Trunks::new(&desired, &seats, &identity),
            reserved,
            notify,
            reload: Reload::new(tables, paths),
            reach: AHashMap::new(),
            slots: Slots::new(session_bits),
            sessions: AHashMap::new(),
            withdrawn: Vec::new(),
            timers: Timers::new(sites.room()),
            probes: Timers::new(sites.room()),
            checker: Checker::new(&identity),
            loaded_until: Time(0),
            strangers: 0,
            reassembly: Reassembly::new(frame_size - HEADROOM),
            figures: segment.control_rows(),
            segment,
            swept: 0,
            turns: vec![0; workers.len()],
            remains: Vec::new(),
            saving: None,
            mtu_max: crate::memory::mtu_max(frame_size) as u16,
            busy: vec![(0, 0.0); workers.len()],
            batched: vec![(0, 0); workers.len()],
            segment_lost: false,
            looked_at: clock::now(),
            complaints: Every::new(Duration::from_secs(10)),
            desired,
            seats,
            contracts,
            identity,
            steering,
            underlay,
            state,
            workers,
            wake,
            requests,
            ports,
            facts,
            sites,
            ends,
            by_key,
            startup,
        }
    }

    /// Turns until `stop`, then tells the workers to stop. The segment is given back: they still count a last turn.
    pub async fn run(
        mut self,
        mut stop: mpsc::Receiver<&'static str>,
        mut hang_up: tokio::signal::unix::Signal,
    ) -> anyhow::Result<Segment> {
        let wake = self.wake.clone();
        self.open().await?;
        for slot in self.startup.clone() {
            self.watch(slot);
            // It has talked to the hub from there: if it calls first, it is no stranger.
            if self.sites[slot.index()].endpoint.is_some_and(|endpoint| endpoint.local.is_some()) {
                self.know(slot);
            }
        }
        let mut startup = tokio::time::interval(STARTUP_EVERY);
        startup.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP / SWEEP_PARTS as u32);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut save = tokio::time::interval(SAVE);
        let mut watchdog = tokio::time::interval(self.notify.watchdog_period().unwrap_or(Duration::from_secs(3600)));
        loop {
            self.hear_workers();
            self.run_timers();
            let next = [self.timers.next(), self.probes.next(), self.ends.next(), self.trunks.next()]
                .into_iter()
                .flatten()
                .min();
            let wait = next.map_or(SWEEP, |at| at.since(clock::now()));
            if self.workers.iter().any(|(mail, _)| !mail.is_quiet()) {
                // More waits than one turn reads: go on at once, but let the runtime look at its sockets and signals
                // before, or a flood of handshakes would shut out netlink and the API.
                wake.notify_one();
                tokio::task::yield_now().await;
            }
            tokio::select! {
                reason = stop.recv() => {
                    tracing::info!("stopping: {}", reason.unwrap_or("the hub ended"));
                    break;
                }
                _ = watchdog.tick() => self.pat_watchdog(),
                change = self.underlay.next() => self.follow(change),
                Some(request) = self.requests.recv() => self.serve(request),
                Some(()) = hang_up.recv() => self.reload_wanted(None),
                Some(read) = self.reload.news.recv() => self.apply(read).await,
                too_big = self.reserved.too_big() => self.underlay.refresh(too_big.remote.ip()),
                _ = startup.tick(), if !self.startup.is_empty() => self.call(),
                _ = sweep.tick() => self.sweep(),
                _ = save.tick() => self.save(),
                () = wake.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.end();
        Ok(self.segment)
    }

    /// Learns the hub's addresses, and opens its ports: in this order, since XDP passes what is not the hub's.
    async fn open(&mut self) -> anyhow::Result<()> {
        self.write_figures(0);
        while !self.underlay.is_settled() {
            // Not every fact is a change, so the last one may have been read without one.
            if let Ok(change) = tokio::time::timeout(Duration::from_millis(20), self.underlay.next()).await {
                self.follow(change);
            }
        }
        self.open_ends()?;
        self.tell_trunks();
        self.lay_paths();
        for port in &mut self.ports {
            port.attach(&mut self.steering)?;
        }
        // What only the start needed goes before the first packet is relayed.
        let access = self.desired.has_access();
        caps::settle(&caps::needs(self.desired.hub.listen_port.get(), access))?;
        seccomp::confine(access)?;
        let summary =
            format!("{} ports, {} workers, {} sites", self.ports.len(), self.workers.len(), self.by_key.len());
        tracing::info!("hub {} is ready: {summary}", &*self.desired.hub.name);
        self.notify.ready(&summary);
        Ok(())
    }

    /// Tells systemd that the hub lives: control turns, and every worker has turned since the last time.
    fn pat_watchdog(&mut self) {
        let turns: Vec<u64> = self.workers.iter().map(|(_, rows)| rows.turns.turns.read()).collect();
        if turns.iter().zip(&self.turns).all(|(now, before)| now != before) {
            self.notify.alive();
        }
        self.turns = turns;
    }

    /// Everything that workers have to say.
    fn hear_workers(&mut self) {
        for worker in 0..self.workers.len() {
            while let Some(event) = self.workers[worker].0.event() {
                self.heed(event);
            }
            // A bounded number, so that a flood leaves time for everything else.
            for _ in 0..handshake::PER_TURN {
                let Some(parcel) = self.workers[worker].0.parcel() else { break };
                self.receive(worker, &parcel);
                self.workers[worker].0.recycle(parcel);
            }
            while let Some(ring) = self.workers[worker].0.spent() {
                self.remains.push((worker, ring.socket.close()));
            }
            self.workers[worker].0.flush();
        }
    }

    fn heed(&mut self, event: Event) {
        match event {
            // What a worker said before it heard that the site is gone.
            Event::Wanted(site)
            | Event::Confirmed { site, .. }
            | Event::Moved { site, .. }
            | Event::Reply { site, .. }
                if !self.sites.has(site) => {}
            Event::Wanted(site) => self.with_peer(site, |peer, identity, cx, out| peer.want_session(identity, cx, out)),
            Event::Neighbour { end, address } => self.neighbour_wanted(end, address),
            Event::Confirmed { site, index } => {
                self.with_peer(site, |peer, _, cx, out| peer.on_confirmed(index, cx, out));
                self.sites[site.index()].proven = true;
                self.know(site);
            }
            Event::Reply { site, mark } => self.hear_reply(site, mark),
            Event::Moved { site, index, counter, ends } => {
                self.move_by_data(site, index, counter, Endpoint { remote: ends.remote(), local: Some(ends.local()) });
            }
        }
    }

    /// The kernel changed its mind about something.
    fn follow(&mut self, change: Change) {
        match change {
            Change::Reach { remote, local, reach } => {
                let Some((known, sites)) = self.reach.get_mut(&(remote, local)) else { return };
                *known = Some(reach);
                for site in sites.clone() {
                    self.set_way(site);
                }
            }
            Change::Local { port, added, removed } => self.addresses_changed(port, &added, &removed),
            Change::Link { port, ifindex, mac, mtu, up, recreated } => {
                let entry = &mut self.ports[port.index()];
                (entry.ifindex, entry.mac, entry.mtu, entry.up) = (Some(ifindex), Some(mac), mtu, up);
                let result = if recreated { self.reopen(port) } else { Ok(()) };
                let result = result.and_then(|()| Ok(self.steering.set_mac(port.0, mac)?));
                if let Err(error) = result {
                    tracing::error!("port {}: {error:#}", self.ports[port.index()].name);
                    self.ports[port.index()].warn(format!("{error:#}"));
                }
                self.set_links(port);
            }
            Change::Gone { port } => {
                let entry = &mut self.ports[port.index()];
                tracing::warn!("port {}: its interface is gone", entry.name);
                (entry.ifindex, entry.up) = (None, false);
                self.set_links(port);
            }
        }
    }

    /// The same name, another interface: what was attached to the old one went with it.
    fn reopen(&mut self, port: PortIndex) -> anyhow::Result<()> {
        let entry = &mut self.ports[port.index()];
        tracing::warn!("port {}: its interface was made anew; attaching again", entry.name);
        let sockets = entry.reopen(&mut self.steering)?;
        for (worker, ring) in sockets {
            self.workers[worker].0.send(Order::Replace(Box::new(ring)));
        }
        Ok(())
    }

    fn addresses_changed(&mut self, port: PortIndex, added: &[IpAddr], removed: &[IpAddr]) {
        let entry = &mut self.ports[port.index()];
        entry.addresses.retain(|a| !removed.contains(a));
        entry.addresses.extend(added);
        let name = entry.name.clone();
        for address in added {
            tracing::info!("port {name}: address {address}");
            let taken = self.reserved.reserve(*address).map_err(anyhow::Error::from);
            if let Err(error) = taken.and_then(|()| Ok(self.steering.set_local(*address)?)) {
                tracing::error!("port {name}: {error:#}");
                self.ports[port.index()].warn(format!("{error:#}"));
            }
        }
        for address in removed {
            // Another port may have the same address.
            if !self.ports.iter().any(|p| p.addresses.contains(address)) {
                tracing::info!("port {name}: address {address} is gone");
                self.reserved.release(*address);
                if let Err(error) = self.steering.clear_local(*address) {
                    tracing::error!("port {name}: {error}");
                }
            }
        }
    }

    /// The next of the sites that the hub calls when it starts, unless those before them have more to say than is read.
    fn call(&mut self) {
        if self.workers.iter().any(|(mail, _)| mail.parcels_waiting() >= STARTUP_BATCH) {
            return;
        }
        for _ in 0..STARTUP_BATCH {
            let Some(site) = self.startup.pop_front() else { break };
            self.with_peer(site, |peer, identity, cx, out| peer.want_session(identity, cx, out));
        }
    }

    /// A part of all sites: their activity sets and clears timers.
    fn sweep(&mut self) {
        let slots = self.seats.given().ends as usize;
        let count = slots.div_ceil(SWEEP_PARTS);
        let from = self.swept * count;
        self.swept = (self.swept + 1) % SWEEP_PARTS;
        for site in (from..(from + count).min(slots)).map(|slot| SiteSlot(slot as u32)) {
            if self.sites.has(site) {
                self.poll(site);
            }
        }
        let now = clock::now();
        if self.swept == 0 {
            let passed = now.since(self.looked_at).as_nanos().max(1) as f64;
            for ((before, share), (_, rows)) in self.busy.iter_mut().zip(&self.workers) {
                let busy = rows.turns.busy_ns.read();
                *share = (busy - std::mem::replace(before, busy)) as f64 / passed;
            }
            self.looked_at = now;
        }
        self.write_figures(self.swept);
        for (reason, count) in self.reassembly.expire(now.0) {
            (0..count).for_each(|_| self.figures.drops.count(reason, 0));
        }
        for (worker, remains) in std::mem::take(&mut self.remains) {
            match remains.recover(None) {
                Ok((frames, unsent)) => self.workers[worker].0.send(Order::Frames { frames, unsent }),
                Err(not_yet) => self.remains.push((worker, not_yet)),
            }
        }
        self.withdrawn.retain_mut(|session| Arc::get_mut(session).is_none());
        self.reload.sweep(now);
        self.trunks.sweep();
    }

    fn run_timers(&mut self) {
        let now = clock::now();
        while let Some(site) = self.timers.due(now) {
            self.poll(site);
        }
        self.poll_probes();
        self.poll_ends();
        self.poll_trunks();
    }

    fn poll(&mut self, slot: SiteSlot) {
        let activity = self.activity(slot);
        let mut next = Time::NEVER;
        self.with_peer(slot, |peer, identity, cx, out| next = peer.poll(identity, &activity, cx, out));
        self.write_site(slot);
        self.timers.set(slot, next);
        self.keep_lane(slot);
    }

    /// What all workers together did for a site.
    fn activity(&self, slot: SiteSlot) -> Activity {
        let latest = |field: fn(&stats::SiteRow) -> &stats::Counter| {
            Time(self.workers.iter().map(|(_, rows)| field(rows.site(slot)).read()).max().unwrap_or(0))
        };
        Activity {
            data_sent: latest(|row| &row.data_sent_at),
            any_sent: latest(|row| &row.any_sent_at),
            data_received: latest(|row| &row.data_received_at),
            any_received: latest(|row| &row.any_received_at),
            sealed: self.sites[slot.index()].sending.and_then(|i| self.sessions.get(&i)).map_or(0, |s| s.sent()),
        }
    }

    fn save(&mut self) {
        for (_, site) in self.sites.iter() {
            site.remember(&mut self.state);
        }
        if let Some(stamp) = self.sites.iter().filter_map(|(_, site)| site.peer.last_stamp()).max() {
            self.state.note_stamp(stamp.0);
        }
        let saved = self.saving.take_if(|saving| saving.is_finished()).map(JoinHandle::join);
        if let Some(Ok(Err(error))) = saved {
            self.state.unsaved();
            tracing::error!("{error}; tunnels go on, but a restart may forget where sites are");
        }
        // The disk may take its time; control has none to give it.
        if self.saving.is_none()
            && let Some(snapshot) = self.state.snapshot()
        {
            let thread = std::thread::Builder::new().name("ekiden-state".into());
            match thread.spawn(move || snapshot.write()) {
                Ok(saving) => self.saving = Some(saving),
                Err(error) => {
                    self.state.unsaved();
                    tracing::error!("could not save what is known of the sites: {error}");
                }
            }
        }
    }

    fn end(&mut self) {
        self.notify.stopping();
        self.copy_xdp();
        // What is being written may be older than what is known now: that is written after it.
        if let Some(saving) = self.saving.take()
            && !matches!(saving.join(), Ok(Ok(())))
        {
            self.state.unsaved();
        }
        self.save();
        if let Some(Err(error)) = self.saving.take().and_then(|saving| saving.join().ok()) {
            tracing::error!("{error}");
        }
        self.order_all(|| Order::Stop);
    }

    /// What the API asks.
    fn serve(&mut self, request: Request) {
        // A client that has gone away needs no answer.
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Health(reply) => drop(reply.send(())),
            Request::Reload(reply) => self.reload_wanted(Some(reply)),
            Request::Handshake { tenant, site, reply } => drop(reply.send(self.handshake_now(tenant, &site))),
            Request::Move { tenant, site, worker, reply } => drop(reply.send(self.give_to(tenant, &site, worker))),
        }
    }

    fn slot_of(&self, tenant: TenantId, site: &str) -> Result<SiteSlot, Refused> {
        let t = self.desired.tenants.iter().position(|t| t.id == tenant).ok_or(Refused::UnknownTenant)?;
        let sites = &self.desired.tenants[t].sites;
        let position = sites.iter().position(|s| *s.name == *site).ok_or(Refused::UnknownSite)?;
        Ok(self.seats.sites_of(t)[position])
    }

    /// Another worker for a site's sessions, also for those to come until the hub starts anew.
    fn give_to(&mut self, tenant: TenantId, site: &str, worker: u16) -> Result<(), Refused> {
        let slot = self.slot_of(tenant, site)?;
        if usize::from(worker) >= self.workers.len() {
            return Err(Refused::UnknownWorker);
        }
        if self.ports.iter().all(|port| port.sockets == 1) {
            return Err(Refused::NothingShared);
        }
        self.sites[slot.index()].worker = worker;
        let live: Vec<u32> = self.sessions.values().filter(|s| s.owner() == slot.0).map(|s| s.local_index()).collect();
        for index in live {
            self.publish(slot, index, bpf::SessionState::Live);
        }
        Ok(())
    }

    fn handshake_now(&mut self, tenant: Option<TenantId>, name: &str) -> Result<(), Refused> {
        let slot = match tenant {
            Some(tenant) => self.slot_of(tenant, name)?,
            None => self.lane_of(name).ok_or(Refused::UnknownLane)?,
        };
        if self.sites[slot.index()].endpoint.is_none() {
            return Err(Refused::NoEndpoint);
        }
        match self.with_peer(slot, |peer, identity, cx, out| peer.renew(identity, cx, out)) {
            true => Ok(()),
            false => Err(Refused::TooSoon),
        }
    }

    /// An error that the network might be able to provoke: said, but not once a packet.
    fn complain(&mut self, error: &dyn std::error::Error) {
        if let Some(silent) = self.complaints.ready(std::time::Instant::now()) {
            tracing::error!(silent, "{error}");
        }
    }
}

/// Bits of a receiver index that are its slot, on a hub with so many sites.
pub fn session_bits(sites: usize) -> u8 {
    Slots::bits_for(sites)
}

/// The wall clock, for the timestamps of initiations.
fn unix_now() -> SystemTimeParts {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SystemTimeParts { secs: since.as_secs(), nanos: since.subsec_nanos() }
}
