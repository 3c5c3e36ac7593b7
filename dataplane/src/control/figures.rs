//! What control writes into the statistics segment: who is in which slot, and what only control knows.

use super::{Control, SWEEP_PARTS};
use crate::clock;
use crate::config::{Desired, Filter};
use crate::liveness;
use crate::seats::Seats;
use crate::start::{Port, RING};
use classifier::filter::Action;
use crypto::Time;
use crypto::message::{self, Kind, Outgoing};
use stats::{Directory, Full, Now, SessionState};
use wire::{DropReason, SiteSlot};

/// Enters everything that is configured. What is there already stays what it is.
pub fn enter(directory: &mut Directory<'_>, desired: &Desired, seats: &Seats, ports: &[Port]) -> Result<(), Full> {
    for (slot, tenant) in seats.tenants(desired) {
        directory.tenant(slot, tenant.id, tenant.service_code.as_deref().unwrap_or_default(), &tenant.label)?;
    }
    seats.sites(desired).try_for_each(|(slot, tenant, _, site)| directory.site(slot, tenant, &site.name))?;
    seats.ends(desired).try_for_each(|(slot, tenant, _, access)| directory.access(slot, tenant, &access.name()))?;
    seats.all_lanes(desired).try_for_each(|(slot, _, lane, trunk)| directory.lane(slot, &trunk.name, lane))?;
    seats
        .all_carried(desired)
        .try_for_each(|(slot, tenant, .., trunk)| directory.carried(slot, tenant, &trunk.name))?;
    for (tenant, first, filter) in seats.filters(desired) {
        let rules = filter.rules.iter().map(|(name, rule)| (&**name, rule.action));
        for (row, (name, action)) in (first..).zip(rules.chain([(Filter::DEFAULT, filter.default)])) {
            directory.rule(row, tenant, name, action == Action::Deny)?;
        }
    }
    ports.iter().try_for_each(|port| directory.port(port.index, &port.name, port.queues, RING))
}

impl Control {
    /// A part of all history, sixteen times a second; with the first part what is true of the hub as a whole.
    pub(super) fn write_figures(&mut self, part: usize) {
        let now = Now::read();
        if part == 0 {
            self.copy_xdp();
            let (strangers, _) = self.figures.xdp_drops.read(DropReason::XdpInitiationStranger);
            if strangers != std::mem::replace(&mut self.strangers, strangers) {
                self.flooded();
            }
            self.write_hub(now);
            self.write_ends();
            self.write_carried();
        }
        self.segment.tick(now, part, SWEEP_PARTS);
    }

    /// XDP counts per CPU, in maps that need privileges to be read: a copy for everybody.
    pub(super) fn copy_xdp(&self) -> Vec<bpf::PortCounters> {
        let xdp = self.steering.counters().unwrap_or_else(|error| {
            tracing::error!("{error}");
            Vec::new()
        });
        let mut drops = stats::Totals::default();
        for (port, counters) in self.ports.iter().filter_map(|p| Some((p, xdp.iter().find(|c| c.port == p.index.0)?))) {
            let row = self.figures.xdp(port.index);
            let (mut frames, mut bytes) = (0, 0);
            for (number, count) in counters.dropped() {
                (frames, bytes) = (frames + count.packets, bytes + count.bytes);
                if let Some(reason) = DropReason::from_number(number) {
                    drops.add(reason, count.packets, count.bytes);
                }
            }
            row.dropped_frames.set(frames);
            row.dropped_bytes.set(bytes);
            row.redirected_frames.set(counters.redirected.packets);
            row.redirected_bytes.set(counters.redirected.bytes);
            row.passed_frames.set(counters.passed.packets);
            row.passed_bytes.set(counters.passed.bytes);
            row.seen_frames.set(counters.seen.packets);
            row.seen_bytes.set(counters.seen.bytes);
        }
        for (reason, packets, bytes) in drops.nonzero() {
            self.figures.xdp_drops.set(reason, packets, bytes);
        }
        xdp
    }

    fn write_hub(&mut self, now: Now) {
        let hub = &self.figures.hub;
        hub.sessions.set(self.sessions.len() as u64);
        hub.session_capacity.set(self.slots.capacity() as u64);
        hub.clock_synchronised.set(match stats::clock_synchronised() {
            Some(true) => 1,
            Some(false) => 2,
            None => 0,
        });
        for (w, ((_, rows), (_, share))) in self.workers.iter().zip(&self.busy).enumerate() {
            let state = self.figures.worker(w);
            state.busy_ppm.set((share * 1e6) as u64);
            let (batches, frames) = (rows.turns.batches.read(), rows.turns.frames.read());
            let (batches_before, frames_before) = std::mem::replace(&mut self.batched[w], (batches, frames));
            state
                .batch_milliframes
                .set(((frames - frames_before) * 1000).checked_div(batches - batches_before).unwrap_or(0));
        }
        let paths = self.trunks.paths.count();
        hub.paths.set(paths.all as u64);
        hub.paths_other.set(paths.other as u64);
        hub.paths_dead.set(paths.dead as u64);
        hub.ticked_wall_ns.set(now.wall_ns);
        hub.ticked_ns.set(now.ns);
        if self.segment.lost() && !std::mem::replace(&mut self.segment_lost, true) {
            tracing::error!(
                "somebody truncated the statistics file: until the hub is restarted, nobody sees what it counts"
            );
        }
    }

    /// How it stands with a site.
    pub(super) fn session_state(&self, slot: SiteSlot, now: Time) -> SessionState {
        let site = &self.sites[slot.index()];
        match (site.peer.current(now).is_some(), site.handshake.is_some(), site.peer.last_handshake().is_some()) {
            (true, true, _) => SessionState::Rekey,
            (true, false, _) => SessionState::Live,
            (false, true, _) => SessionState::Handshake,
            (false, false, true) => SessionState::Expired,
            (false, false, false) => SessionState::None,
        }
    }

    pub(super) fn write_site(&self, slot: SiteSlot) {
        let (site, state) = (&self.sites[slot.index()], self.figures.site(slot));
        state.session.set(match self.session_state(slot, clock::now()) {
            SessionState::None => 0,
            SessionState::Handshake => 1,
            SessionState::Live => 2,
            SessionState::Rekey => 3,
            SessionState::Expired => 4,
            SessionState::Attached => 5,
        });
        state.last_handshake_at.set(site.peer.last_handshake().map_or(0, |at| at.0));
        state.located.set(site.endpoint.is_some().into());
        state.shed_packets.set(self.shed(slot));
        self.write_lane(slot);
    }

    /// What is known of a lane besides, if it is one.
    pub(super) fn write_lane(&self, slot: SiteSlot) {
        let (site, state) = (&self.sites[slot.index()], self.figures.site(slot));
        let Some(lane) = &site.lane else { return };
        let known = lane.liveness.figures();
        state.up.set((known.state != liveness::State::Down).into());
        state.rtt_us.set(known.round_trip.map_or(0, |time| (time.as_micros() as u64).max(1)));
        state.jitter_us.set(known.jitter.as_micros() as u64);
        state.probes_sent.set(known.sent);
        state.probes_lost.set(known.missed - known.late);
        state.loss_ppm.set((u64::from(known.recent_lost) * 1_000_000).checked_div(known.recent.into()).unwrap_or(0));
        state.changes.set(known.changes);
        state.since_ns.set(known.since.0);
        state.mtu.set(site.way.out.as_ref().map_or(0, |path| path.payload_max.into()));
    }

    /// What trunks carry has no session: it is up with its trunk.
    fn write_carried(&self) {
        for (slot, _, place, ..) in self.seats.all_carried(&self.desired) {
            let (up, state) = (self.trunks.is_up(place), self.figures.site(slot));
            state.session.set(if up { 5 } else { 0 });
            state.located.set(up.into());
            state.shed_packets.set(0);
        }
    }

    /// What XDP kept from the rings of this site.
    pub(super) fn shed(&self, slot: SiteSlot) -> u64 {
        self.steering.shed(slot.0).saturating_sub(self.sites[slot.index()].shed_before)
    }

    /// Nobody is in the slot any more.
    pub(super) fn forget_site(&self, slot: SiteSlot) {
        let state = self.figures.site(slot);
        let all = [&state.session, &state.last_handshake_at, &state.handshakes, &state.located, &state.shed_packets];
        all.into_iter().for_each(|counter| counter.set(0));
    }

    /// Access ends have no session, and no moment at which they are looked at: all at once.
    pub(super) fn write_ends(&self) {
        for end in self.ends.iter() {
            let state = self.figures.site(end.slot);
            let up = end.link.state.is_ok();
            state.session.set(if up { 5 } else { 0 });
            state.located.set(up.into());
            state.shed_packets.set(self.steering.shed(end.slot.0));
        }
    }

    /// A handshake ended in a session.
    pub(super) fn count_handshake(&self, slot: SiteSlot) {
        self.figures.hub.handshakes_completed.add(1);
        self.figures.site(slot).handshakes.add(1);
    }

    /// A message that goes to a site.
    pub(super) fn count_message(&self, message: &Outgoing) {
        if message::kind(message) == Some(Kind::Initiation) {
            self.figures.hub.handshakes_begun.add(1);
        }
    }
}
