//! The journey of a frame. Read it top to bottom: a worker turns, and what it received travels through the stages in
//! the order of this page.
//!
//! ```text
//! receive -> admit -> open -> check -> filter -> route -> police -> adapt -> seal -> address -> dispatch -> transmit -> recycle
//! ```
//!
//! What a tenant's servers send and get in the clear, by VLAN, goes the same way, with `enter` in place of `open`, a gateway's `visit`
//! after `route`, and `deliver` in place of `seal` and `address` ([`crate::access`]). What hubs carry for each other has `untag` after
//! `open`, `part` after `route`, and `tag` before `seal` ([`crate::trunk`]).
//!
//! A stage takes a batch and leaves a verdict on every packet; it does no I/O. [`Worker`] alone touches sockets, so that the
//! whole journey runs in a test, a fuzz target and a bench without one.
//!
//! What control tells a worker changes the tables between batches ([`crate::orders`]).
//!
//! The stages up to `address` may be another worker's, when this one has more than it can do ([`crate::team`]); dispatch
//! never is, and so no flow changes its order.

use crate::access::Access;
use crate::clock;
use crate::depot::Depot;
use crate::fit;
use crate::mailbox::{Event, Order, WorkerEnd};
use crate::packet::{BATCH, Batch, Packet, Verdict};
use crate::ports::Ports;
use crate::sites::{Kind, Sessions, Sites};
use crate::staging::Shelf;
use crate::team::Team;
use crate::tenants::Tenants;
use crate::trunk;
use crate::xsk::{Frame, Umem};
use arrayvec::ArrayVec;
use classifier::{Tables, Target};
use crypto::aead::{Backend, OpenJob, SealJob, TAG};
use crypto::message::{self, DATA_HEADER};
use crypto::{Protocol, Time, replay};
use stats::Rows;
use std::collections::VecDeque;
use std::sync::Arc;
use wire::icmp::{self, Answer};
use wire::{DropReason, Ecn, Endpoints, Inner, Outer, SiteSlot, ecn, is_martian, tcp};

/// One core's work: ports for I/O, and the journey between them.
pub struct Worker {
    ports: Ports,
    journey: Journey,
    team: Team,
    depot: Option<Arc<Depot>>,
}

impl Worker {
    /// A worker that moves frames between `ports` by way of `journey`, and helps the others of its team; with a depot, if it
    /// shares queues with them.
    pub fn new(ports: Ports, journey: Journey, team: Team, depot: Option<Arc<Depot>>) -> Self {
        Self { ports, journey, team, depot }
    }

    /// Turns until control says stop.
    pub fn run(mut self) {
        while !self.journey.stopped {
            if self.turn() {
                self.ports.wake();
            } else {
                self.ports.rest(&mut self.journey.mail, &self.journey.rows, &self.team);
            }
        }
    }

    /// One turn: orders, then each ring in its order, then what others ask for help with. `true` if there was anything to do.
    pub fn turn(&mut self) -> bool {
        let now = clock::now();
        let Self { ports, journey, team, depot } = self;
        let turns = &journey.rows.turns.turns;
        let frames = journey.rows.turns.frames.read();
        turns.add(1);
        if turns.read().is_multiple_of(TALLY) {
            ports.tally(&journey.rows);
        }
        let mut busy = journey.obey(now, ports);
        ports.reclaim(&mut journey.pool, &journey.rows);
        if let Some(depot) = depot {
            depot.level(&mut journey.pool);
        }
        let mut received = false;
        for ring in 0..ports.rings() {
            if let Some(batch) = team.batch() {
                received |= Self::take_on(ring, batch, ports, journey, team, now);
            }
            journey.retire(team, now);
            ports.refill(ring, &mut journey.pool);
        }
        team.offer(!received);
        let helped = team.help(|batch| journey.relay(batch, now));
        journey.rows.turns.helped_frames.add(helped as u64);
        journey.send_pieces(now);
        busy |= received || helped > 0 || team.is_under_way();
        busy |= ports.transmit(&mut journey.out, &mut journey.pool, &journey.rows);
        journey.rows.turns.chunks_free.set(journey.pool.len() as u64);
        journey.mail.flush();
        if busy {
            let spent = clock::now().since(now).as_nanos() as u64;
            journey.rows.turns.busy_ns.add(spent);
            journey.rows.latency.record(spent, journey.rows.turns.frames.read() - frames);
        }
        busy
    }

    /// A batch of what a ring has received goes through the stages: with a helper, if more than a batch is left behind it and
    /// somebody is idle, else here. `true` if there was any.
    fn take_on(
        ring: usize,
        mut batch: Box<Batch>,
        ports: &mut Ports,
        journey: &mut Journey,
        team: &mut Team,
        now: Time,
    ) -> bool {
        ports.receive(ring, &mut batch, &journey.rows);
        if batch.is_empty() {
            team.recycle(batch);
            return false;
        }
        let kept = if ports.waiting(ring) >= BATCH { team.hand_out(batch) } else { Err(batch) };
        if let Err(mut batch) = kept {
            journey.relay(&mut batch, now);
            team.keep(batch);
        }
        true
    }
}

/// Turns after which even a busy worker asks the kernel what it lost: some milliseconds.
const TALLY: u64 = 4096;

/// Everything between receive and transmit, with the private tables it needs.
pub struct Journey {
    /// Routes of all tenants: a snapshot, replaced as a whole.
    pub tables: Arc<Tables>,
    /// Sessions by receiver index.
    pub sessions: Sessions,
    /// Sites by slot.
    pub sites: Sites,
    /// Access ends, and who is there.
    pub access: Access,
    /// Tenants by slot.
    pub tenants: Tenants,
    /// Packets that wait for a session.
    pub shelf: Shelf,
    /// Free chunks.
    pub pool: Vec<Frame>,
    /// Where the chunks are from: it has the free frames of several chunks, too.
    pub umem: &'static Umem,
    /// Fragments that are to be sealed at the end of this turn.
    pub pieces: Vec<Packet>,
    /// Frames for each port, addressed and sealed.
    pub out: Vec<Vec<Frame>>,
    /// This worker's counters.
    pub rows: Arc<Rows>,
    /// The cipher.
    pub aead: &'static dyn Backend,
    /// Control.
    pub mail: WorkerEnd,
    /// Orders that were read in the middle of a batch and need its end.
    pub postponed: VecDeque<Order>,
    /// The ends of this batch's packets that did not come from where their sites were last.
    pub movers: ArrayVec<Endpoints, BATCH>,
    /// The last IPv4 identification given to an outer packet.
    pub identification: u16,
    /// Control said stop.
    pub stopped: bool,
}

/// Frames that one turn may put out for one port: the batches of eight rings. More than that is dropped.
pub const OUT_MAX: usize = 8 * BATCH;

impl Journey {
    /// What has been through the stages is dispatched, in the order in which it was received.
    pub fn retire(&mut self, team: &mut Team, now: Time) {
        while self.out.iter().all(|out| out.len() + BATCH <= OUT_MAX)
            && let Some((mut batch, helped)) = team.retire()
        {
            // A helper may not have heard yet of a session that this worker has, and that nothing waits for any more.
            if helped && batch.iter().any(Packet::waits) {
                batch.iter_mut().filter(|packet| packet.waits()).for_each(|packet| packet.verdict = Verdict::Forward);
                self.go_on(&mut batch, now);
            }
            self.dispatch(&mut batch);
            team.recycle(batch);
        }
    }

    /// The stages, in order. Afterwards no packet of the batch has the verdict [`Verdict::Forward`].
    pub fn relay(&mut self, batch: &mut Batch, now: Time) {
        self.foresee_arrivals(batch); // foresee.rs, as below
        self.admit(batch, now);
        self.open(batch, now);
        self.untag(batch, now); // what came by a trunk: trunk.rs
        self.enter(batch, now); // what came in the clear: access.rs
        self.check(batch);
        self.filter(batch); // the tenant's own rules: policy.rs
        self.route(batch);
        self.part(batch); // from trunk to trunk, or not: trunk.rs
        self.foresee_departures(batch);
        self.visit(batch, now); // as a gateway: access.rs
        self.police(batch, now); // the rates of the contract: policy.rs
        self.adapt(batch, now);
        self.go_on(batch, now);
    }

    /// The last stages, also for packets that begin or go on here: around each comes what its end needs.
    #[inline]
    pub fn go_on(&mut self, batch: &mut Batch, now: Time) {
        self.tag(batch); // towards another hub: trunk.rs
        self.deliver(batch, now); // towards a host: access.rs
        let too_long = self.seal(batch, now);
        self.address(batch, now);
        if too_long {
            self.cut_outside(batch); // what must pass all the same: fit.rs
        }
    }

    /// Outer headers, kind of message, session, and a first look at the replay window.
    fn admit(&mut self, batch: &mut Batch, now: Time) {
        self.movers.clear();
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            if self.is_of_access(packet) {
                packet.verdict = Verdict::Plain;
                continue;
            }
            let outer = match Outer::parse(packet.frame.bytes()) {
                Ok(outer) => outer,
                Err(wire::Malformed::Fragment) => {
                    packet.verdict = Verdict::Control;
                    continue;
                }
                Err(_) => {
                    packet.drop(DropReason::OuterMalformed);
                    continue;
                }
            };
            let datagram = &packet.frame.bytes()[outer.payload.clone()];
            let (protocol, index, counter) = if let Some((index, counter)) = message::parse_data(datagram) {
                (Protocol::WireGuard, index, counter)
            } else if let Some((index, counter)) = Protocol::Trunk.parse_data(datagram) {
                (Protocol::Trunk, index, counter)
            } else {
                let known = Protocol::recognise(datagram).is_some();
                packet.verdict = if known { Verdict::Control } else { Verdict::Drop(DropReason::OuterNotWireguard) };
                continue;
            };
            let session = match self.sessions.of(protocol, index) {
                Some(session) => session,
                None => {
                    self.learn(index);
                    let Some(session) = self.sessions.of(protocol, index) else {
                        packet.drop(DropReason::SessionUnknown);
                        continue;
                    };
                    session
                }
            };
            let slot = SiteSlot(session.owner());
            let site = self.sites.at(slot);
            packet.tenant = (protocol == Protocol::WireGuard).then_some(site.tenant); // else its tag will tell
            (packet.from, packet.index, packet.counter) = (slot, index, counter);
            if session.expired(now) {
                packet.drop(DropReason::SessionExpired);
                continue;
            }
            let looked = match protocol {
                Protocol::WireGuard => session.window().look(counter).map_err(rejected),
                Protocol::Trunk => trunk::look(session, site, counter),
            };
            if let Err(reason) = looked {
                packet.drop(reason);
                continue;
            }
            if site.way.ends != Some(outer.ends) {
                packet.moved = Some(self.movers.len() as u8);
                self.movers.push(outer.ends);
            }
            packet.ecn = outer.ecn;
            // Ethernet pads short frames, and the WireGuard message ends where UDP says.
            packet.frame.keep(outer.payload);
        }
    }

    /// Authenticate and decrypt, in place; then take each counter, once, for good.
    fn open(&mut self, batch: &mut Batch, now: Time) {
        let mut jobs = ArrayVec::<OpenJob<'_>, BATCH>::new();
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let Some(session) = self.sessions.find(packet.index) else { unreachable!("admitted in this batch") };
            let Some((header, data)) = packet.frame.bytes_mut().split_first_chunk_mut() else {
                unreachable!("its header")
            };
            let (key, aad) = (session.open_key(), session.protocol().aad(header));
            jobs.push(OpenJob { key, counter: packet.counter, aad, data, verified: false });
        }
        self.aead.open_batch(&mut jobs);
        let verified: ArrayVec<bool, BATCH> = jobs.iter().map(|job| job.verified).collect();
        drop(jobs);

        // The newest counter of each run of packets under one session moves its window, once.
        let mut run: Option<(u32, u64)> = None;
        for (packet, verified) in batch.iter_mut().filter(|p| p.goes_on()).zip(verified) {
            if !verified {
                packet.drop(DropReason::AuthFailed);
                continue;
            }
            let Some(session) = self.sessions.find(packet.index) else { unreachable!("admitted in this batch") };
            if let Err(reject) = session.window().accept(packet.counter) {
                packet.drop(rejected(reject));
                continue;
            }
            run = match run {
                Some((index, newest)) if index == packet.index => Some((index, newest.max(packet.counter))),
                other => {
                    self.raise(other);
                    Some((packet.index, packet.counter))
                }
            };
            packet.frame.keep(DATA_HEADER..packet.frame.len() - TAG);
            self.heard(packet, now);
        }
        self.raise(run);
    }

    fn raise(&self, run: Option<(u32, u64)>) {
        if let Some((index, newest)) = run
            && let Some(session) = self.sessions.find(index)
        {
            session.window().raise(newest);
        }
    }

    /// The site of an authenticated packet is alive: account for it, and tell control what it can't know.
    fn heard(&mut self, packet: &mut Packet, now: Time) {
        self.count_arrived(packet, now);
        let row = self.rows.site(packet.from);
        if packet.frame.is_empty() {
            row.rx_keepalives.add(1);
            packet.tenant.iter().for_each(|tenant| self.rows.volume(*tenant).rx_keepalives.add(1));
            packet.verdict = Verdict::Keepalive;
        } else {
            row.data_received_at.set(now.0);
        }
        let site = self.sites.at_mut(packet.from);
        let ends = packet.moved.map(|mover| self.movers[mover as usize]);
        if let Some(new) = ends
            && site.moved != ends
        {
            let event = Event::Moved { site: packet.from, index: packet.index, counter: packet.counter, ends: new };
            site.moved = self.mail.tell(event).then_some(new);
        } else if ends.is_none() && site.moved.is_some() {
            site.moved = None;
        }
        // After the move: what waited for the session goes to where the site is now.
        let confirmed = self.sessions.confirmed(packet.index);
        if !*confirmed {
            *confirmed = self.mail.tell(Event::Confirmed { site: packet.from, index: packet.index });
        }
    }

    /// The inner packet: its headers agree with its length, and its source is one of this site's.
    fn check(&mut self, batch: &mut Batch) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let Ok(inner) = Inner::parse(packet.frame.bytes()) else {
                packet.drop(DropReason::InnerMalformed);
                continue;
            };
            // What lies behind the IP length is padding, by whoever made it: it goes no further.
            packet.frame.resize(inner.len);
            packet.inner_len = inner.len as u16;
            // A route may hold them, as a default route does, and still they are no one host's.
            if is_martian(inner.source) || is_martian(inner.destination) {
                packet.drop(DropReason::Martian);
                continue;
            }
            let Some(tenant) = packet.tenant else { unreachable!("an opened packet has a tenant") };
            if !self.tables.source_allowed(tenant, packet.from, inner.source)
                && let Some(reason) = self.foreign(packet, inner.source)
            {
                packet.drop(reason);
                continue;
            }
            let (row, volume) = (self.rows.site(packet.from), self.rows.volume(tenant));
            row.rx_packets.add(1);
            volume.rx_packets.add(1);
            row.rx_bytes.add(inner.len as u64);
            volume.rx_bytes.add(inner.len as u64);
            let Some(ecn) = ecn::decapsulate(packet.ecn, inner.ecn) else {
                packet.drop(DropReason::EcnNotCapable);
                continue;
            };
            if ecn != inner.ecn {
                ecn::set(packet.frame.bytes_mut(), ecn);
            }
            (packet.ecn, packet.dscp) = (ecn::encapsulate(ecn), inner.dscp);
            packet.destination = inner.destination;
        }
    }

    /// The destination, in this tenant's own table.
    fn route(&mut self, batch: &mut Batch) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let Some(tenant) = packet.tenant else { unreachable!("an opened packet has a tenant") };
            match self.tables.route(tenant, packet.destination) {
                Some(Target::Site(site)) => packet.to = site,
                None if self.take_reply(packet) => {} // to a ping of the hub's own: probe.rs
                None => packet.drop(DropReason::NoRoute),
            }
        }
    }

    /// What a router changes: one hop less, TCP's segments to what fits, what does not fit cut (fit.rs); and what it refuses.
    fn adapt(&mut self, batch: &mut Batch, now: Time) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            if !wire::decrement_ttl(packet.frame.bytes_mut()) {
                self.answer(packet, DropReason::TtlExpired, Answer::TimeExceeded, now);
                continue;
            }
            let (from, to) = (self.sites.at(packet.from), self.sites.at(packet.to));
            if tcp::may_be_in(packet.frame.bytes()) {
                fit::clamp(packet, from, to);
            }
            let Some(mtu) = to.payload_max() else { continue };
            if packet.inner_len > mtu && !self.fragment(packet, mtu) && !self.must_pass(packet) {
                // Quoted as it arrived, less one hop that the quote may show as well as not (RFC 1812, 4.3.2.3).
                self.answer(packet, DropReason::TooLarge, Answer::TooBig { mtu }, now);
            }
        }
    }

    /// A packet that ends here, and in its chunk the hub's ICMP answer to the site that sent it, if one is due.
    fn answer(&mut self, packet: &mut Packet, reason: DropReason, answer: Answer, now: Time) {
        self.count_drop(packet, reason);
        packet.verdict = Verdict::Counted;
        let Some(tenant) = packet.tenant else { unreachable!("an opened packet has a tenant") };
        let tenant = self.tenants.at_mut(tenant);
        let original = packet.frame.bytes();
        let version = original[0] >> 4;
        let gateway = self.sites.at(packet.from).gateway(version);
        let Some(hub) = gateway.or_else(|| tenant.hub_address(version)) else { return };
        let mut reply = [0; icmp::MAX_V6];
        let Ok(len) = icmp::write(answer, original, hub, &mut reply) else { return };
        self.rows.turns.generated.add(1);
        if !tenant.may_answer(now) {
            packet.outer_len = len as u16;
            packet.drop(DropReason::IcmpRate);
            return;
        }
        packet.frame.resize(len);
        packet.frame.bytes_mut().copy_from_slice(&reply[..len]);
        (packet.to, packet.inner_len) = (packet.from, len as u16);
        (packet.ecn, packet.dscp) = (Ecn::NotEct, icmp::DSCP);
        packet.verdict = Verdict::Forward;
    }

    /// The destination's session: padding of zeros, a counter each, and the cipher, in place.
    ///
    /// `true` if some are longer then than what the way takes.
    fn seal(&mut self, batch: &mut Batch, now: Time) -> bool {
        let mut too_long = false;
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let site = self.sites.at(packet.to);
            let path = match &site.way.out {
                Ok(path) => path,
                Err(reason) => {
                    packet.drop(*reason);
                    continue;
                }
            };
            let (tag, plain_max) = (packet.tag_len(), path.payload_max as usize + site.tag_len());
            let plain = packet.inner_len as usize + tag;
            let sealed = message::padded_len(plain, plain_max) - tag + TAG;
            // Padding may make a packet longer than it came: one from beyond the port's MTU could leave its chunk.
            let longer = plain > plain_max;
            if (longer && !self.must_pass(packet)) || sealed > packet.frame.len() + packet.frame.tailroom() {
                packet.drop(DropReason::TooLarge);
                continue;
            }
            if site.sending.as_ref().is_none_or(|session| session.expired(now)) {
                packet.verdict = Verdict::Stage;
                continue;
            }
            too_long |= longer;
            packet.frame.resize(sealed);
        }
        let (mut jobs, mut used_up) = (ArrayVec::<SealJob<'_>, BATCH>::new(), false);
        // Counters for each run of packets to one site: an atomic operation costs more than their headers.
        for run in batch.chunk_by_mut(|a, b| a.to == b.to) {
            let going = run.iter().filter(|p| p.goes_on()).count();
            let Some(session) = self.sites.at(run[0].to).sending.as_ref().filter(|_| going > 0) else { continue };
            let (protocol, mut head) = (session.protocol(), session.data_header(0));
            let mut counters = session.reserve(going as u32);
            for packet in run.iter_mut().filter(|p| p.goes_on()) {
                let Some(counter) = counters.next() else {
                    packet.drop(DropReason::NonceLimit);
                    used_up = true;
                    continue;
                };
                if let Some(end) = packet.tagged {
                    trunk::put_tag(&mut packet.frame, self.sites.at(end));
                }
                packet.frame.uncover(DATA_HEADER);
                let Some((header, data)) = packet.frame.bytes_mut().split_first_chunk_mut() else {
                    unreachable!("its room")
                };
                head[DATA_HEADER - 8..].copy_from_slice(&counter.to_le_bytes());
                *header = head;
                jobs.push(SealJob { key: session.seal_key(), counter, aad: protocol.aad(header), data });
            }
        }
        self.aead.seal_batch(&mut jobs);
        drop(jobs);
        if used_up {
            let left_out = batch.iter().filter(|packet| packet.verdict == Verdict::Drop(DropReason::NonceLimit));
            left_out.for_each(|packet| self.want(packet.to));
        }
        too_long
    }

    /// Outer headers, by the template of the path.
    fn address(&mut self, batch: &mut Batch, now: Time) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let site = self.sites.at(packet.to);
            let Ok(path) = &site.way.out else { unreachable!("sealed for it") };
            let tos = site.dscp.outside(packet.dscp) << 2 | packet.ecn as u8;
            packet.frame.uncover(path.template.header_len());
            self.identification = self.identification.wrapping_add(1);
            let Ok(()) = path.template.write(packet.frame.bytes_mut(), tos, self.identification) else {
                unreachable!("a chunk is shorter than an IP packet can be")
            };
            packet.verdict = Verdict::Transmit(path.port);
            match site.kind {
                Kind::Lane(_) => self.count_by_lane(packet, now), // and what it carries: trunk.rs
                Kind::Site | Kind::Access(_) | Kind::Carried(..) => self.count_left(packet, packet.to, now),
            }
        }
    }

    /// A frame of this end has come, and is authentic or in its VLAN.
    #[inline]
    pub(crate) fn count_arrived(&self, packet: &Packet, now: Time) {
        let row = self.rows.site(packet.from);
        row.any_received_at.set(now.0);
        row.rx_outer_packets.add(1);
        row.rx_outer_bytes.add(packet.outer_len as u64);
        let Some(tenant) = packet.tenant else { return };
        let volume = self.rows.volume(tenant);
        volume.rx_outer_packets.add(1);
        volume.rx_outer_bytes.add(packet.outer_len as u64);
    }

    /// A whole frame is ready to leave for an end.
    #[inline]
    pub(crate) fn count_left(&self, packet: &Packet, end: SiteSlot, now: Time) {
        let (row, volume) = (self.rows.site(end), self.rows.volume(self.sites.at(end).tenant));
        row.any_sent_at.set(now.0);
        row.tx_outer_bytes.add(packet.frame.len() as u64);
        volume.tx_outer_bytes.add(packet.frame.len() as u64);
        if packet.inner_len == 0 {
            row.tx_keepalives.add(1);
            volume.tx_keepalives.add(1);
        } else {
            row.tx_packets.add(1);
            volume.tx_packets.add(1);
            row.tx_bytes.add(packet.inner_len as u64);
            volume.tx_bytes.add(packet.inner_len as u64);
            row.data_sent_at.set(now.0);
        }
    }

    /// Every packet to where its verdict says. Here alone a frame is dropped, and here it is counted.
    pub fn dispatch(&mut self, batch: &mut Batch) {
        for mut packet in batch.drain(..) {
            match packet.verdict {
                Verdict::Forward | Verdict::Plain => unreachable!("the last stage leaves none"),
                Verdict::Transmit(port) if self.out[port.index()].len() < OUT_MAX => {
                    self.out[port.index()].push(packet.frame);
                    continue;
                }
                Verdict::Transmit(_) => self.count_drop(&packet, DropReason::TxRingFull),
                Verdict::Drop(reason) => self.count_drop(&packet, reason),
                Verdict::Told => self.rows.turns.to_control.add(1),
                Verdict::Counted => {}
                Verdict::Keepalive => self.rows.turns.keepalives.add(1),
                Verdict::Control | Verdict::Message => match self.mail.copy(packet.source(), packet.frame.bytes()) {
                    true => self.rows.turns.to_control.add(1),
                    false => self.count_drop(&packet, DropReason::ControlBusy),
                },
                Verdict::Resolve => {
                    let Some((leaving, reason)) = self.await_neighbour(packet) else { continue };
                    self.show_staged(leaving.to);
                    self.count_drop(&leaving, reason);
                    packet = leaving;
                }
                Verdict::Stage => {
                    self.want(packet.to);
                    packet.verdict = Verdict::Forward;
                    let site = packet.to;
                    let oldest = self.shelf.park(packet, &mut self.sites);
                    self.show_staged(site);
                    let Some(oldest) = oldest else { continue };
                    self.count_waiting((oldest.to, oldest.destination), -1);
                    self.show_staged(oldest.to);
                    self.count_drop(&oldest, DropReason::StagedOverflow);
                    packet = oldest;
                }
            }
            self.recycle(packet.frame);
        }
    }

    pub(crate) fn show_staged(&self, site: SiteSlot) {
        self.rows.site(site).staged.set(self.sites.at(site).staged.into());
        self.rows.turns.staged.set(self.shelf.len() as u64);
    }

    /// A frame that nobody needs any more.
    pub(crate) fn recycle(&mut self, frame: Frame) {
        if let Some(frame) = self.umem.keep(frame) {
            self.pool.push(frame);
        }
    }

    pub(crate) fn send(&mut self, batch: &mut Batch, now: Time) {
        self.go_on(batch, now);
        self.dispatch(batch);
    }

    pub(crate) fn count_drop(&self, packet: &Packet, reason: DropReason) {
        let row = packet.tenant.map_or(&*self.rows.hub, |tenant| self.rows.tenant(tenant));
        row.count(reason, packet.outer_len as usize);
    }

    fn want(&mut self, site: SiteSlot) {
        let row = self.sites.at_mut(site);
        if !row.wanted {
            row.wanted = self.mail.tell(Event::Wanted(site));
        }
    }
}

pub(crate) fn rejected(reject: replay::Reject) -> DropReason {
    match reject {
        replay::Reject::TooOld => DropReason::CounterTooOld,
        replay::Reject::Replayed => DropReason::CounterReplayed,
        replay::Reject::Limit => DropReason::CounterLimit,
    }
}
