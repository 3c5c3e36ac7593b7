//! What control has to say to a worker, and what becomes of it: orders are read between batches, and the one kind that a packet may
//! be waiting for within one.

use crate::mailbox::Order;
use crate::packet::{BATCH, Batch, Packet, Verdict};
use crate::ports::{Ports, Ring};
use crate::seats::Vacant;
use crate::sites::{Kind, Way};
use crate::worker::Journey;
use crate::xsk::HEADROOM;
use crypto::{Session, Time};
use std::sync::Arc;
use wire::{DropReason, PortIndex, SiteSlot};

/// Orders that one turn obeys; the others have time. A thousand sites that come or go would else keep packets waiting for as long as
/// all of them take. They also bound the frames of control's own that a turn puts out: of a flood of handshakes, each answered with a
/// cookie, nothing would else be left for tenants' packets.
pub const AT_ONCE: usize = 32;
const _: () = assert!(AT_ONCE <= BATCH);

impl Journey {
    /// What control has to say, between batches. `true` if it said anything.
    pub fn obey(&mut self, now: Time, ports: &mut Ports) -> bool {
        for obeyed in 0..AT_ONCE {
            let Some(order) = self.postponed.pop_front().or_else(|| self.mail.order()) else { return obeyed > 0 };
            match order {
                Order::Publish(session) => self.sessions.publish(session),
                Order::Withdraw { site, index } => self.withdraw(site, index),
                Order::Way(site, way) => self.redirect(site, way),
                Order::Link(end, link) => self.sites.at_mut(end).kind = Kind::Access(link),
                Order::Neighbour(end, address, answer) => self.neighbour((end, address), answer, now),
                Order::Expect(site, replies) => self.sites.at_mut(site).expects = replies,
                Order::Tables(tables) => self.tables = tables,
                Order::Seat(end, seat) => self.sites.seat(end, seat),
                Order::Tenant(slot, tenant) => *self.tenants.at_mut(slot) = tenant,
                Order::Vacate(vacant, part) => self.vacate(&vacant, part),
                Order::Use(session) => self.use_session(session, now),
                Order::Trunk(trunk) => self.join(&trunk, now), // as the next: trunk.rs
                Order::Tell(lane, bytes) => self.tell_hub(lane, &bytes, now),
                Order::Keepalive(site) => self.keepalive(site, now),
                Order::GiveUp(site) => self.give_up(site),
                Order::Emit(port, frame) => self.emit(port, &frame),
                Order::Reassembled(port, frame) => self.reassembled(port, &frame, now),
                Order::Replace(ring) => self.replace(*ring, ports, now),
                Order::Frames { frames, unsent } => {
                    (0..unsent).for_each(|_| self.rows.hub.count(DropReason::PortDown, 0));
                    self.pool.extend(frames);
                }
                Order::Stop => self.stopped = true,
            }
        }
        true
    }

    /// A message came under a session that is unknown here: it may be in an order that control sent before the message
    /// could come. Sessions are read from the orders now, up to that one, and whose they are; everything else at the end of the
    /// batch. A slot that is taken waits for the order that empties it: packets of this batch may be under the session in it.
    pub(crate) fn learn(&mut self, index: u32) {
        while self.sessions.find(index).is_none()
            && let Some(order) = self.mail.order()
        {
            match order {
                Order::Publish(session) if self.sessions.is_free(session.local_index()) => {
                    self.sessions.publish(session)
                }
                Order::Seat(end, seat) => self.sites.seat(end, seat),
                Order::Trunk(trunk) => self.know(&trunk),
                other => self.postponed.push_back(other),
            }
        }
    }

    fn withdraw(&mut self, site: SiteSlot, index: u32) {
        self.sessions.withdraw(index);
        let site = self.sites.at_mut(site);
        site.sending.take_if(|session| session.local_index() == index);
        site.wanted = false;
    }

    /// Whoever was in these slots, of which it is the turn of a part, is gone, and what waits for him too.
    fn vacate(&mut self, vacant: &Vacant, part: usize) {
        for end in vacant.ends().skip(part * Vacant::PART).take(Vacant::PART) {
            self.give_up(end);
            self.sites.vacate(end);
            self.rows.clear_site(end);
        }
        vacant.tenants.iter().skip(part * Vacant::PART).take(Vacant::PART).for_each(|t| self.rows.clear_tenant(*t));
        vacant.rows_of_rules().skip(part * Vacant::PART).take(Vacant::PART).for_each(|rule| self.rows.clear_rule(rule));
    }

    fn redirect(&mut self, slot: SiteSlot, way: Way) {
        let site = self.sites.at_mut(slot);
        (site.way, site.moved) = (way, None);
    }

    /// A session to send under: what waited for it goes out first, in its order.
    fn use_session(&mut self, session: Arc<Session>, now: Time) {
        let slot = SiteSlot(session.owner());
        let site = self.sites.at_mut(slot);
        (site.sending, site.wanted) = (Some(session), false);
        while self.sites.at(slot).staged > 0 {
            let mut batch = Batch::new();
            while let (false, Some(packet)) = (batch.is_full(), self.shelf.take(slot, &mut self.sites)) {
                batch.push(packet);
            }
            self.send(&mut batch, now);
        }
        self.show_staged(slot);
    }

    /// A socket in the place of one whose interface is gone. What the old one received still goes its way.
    fn replace(&mut self, new: Ring, ports: &mut Ports, now: Time) {
        let Some(place) = ports.place_of(&new) else { return };
        loop {
            let mut batch = Batch::new();
            ports.receive(place, &mut batch, &self.rows);
            if batch.is_empty() {
                break;
            }
            self.relay(&mut batch, now);
            self.dispatch(&mut batch);
        }
        ports.reclaim(&mut self.pool, &self.rows);
        self.mail.retire(ports.replace(place, new, &self.rows));
    }

    /// An empty packet under the current session, if there is one.
    fn keepalive(&mut self, site: SiteSlot, now: Time) {
        if self.sites.at(site).sending.is_none() {
            return;
        }
        self.rows.turns.generated.add(1);
        let tenant = self.sites.at(site).owner();
        let Some(mut frame) = self.pool.pop() else {
            let row = tenant.map_or(&*self.rows.hub, |tenant| self.rows.tenant(tenant));
            return row.count(DropReason::NoChunk, 0);
        };
        frame.reset(HEADROOM, 0);
        let mut packet = Packet::arrived(frame, PortIndex(0));
        (packet.tenant, packet.to) = (tenant, site);
        self.send(&mut Batch::from_iter([packet]), now);
    }

    pub(crate) fn give_up(&mut self, slot: SiteSlot) {
        self.sites.at_mut(slot).wanted = false;
        while let Some(packet) = self.shelf.take(slot, &mut self.sites).or_else(|| self.waits_for_a_lane(slot)) {
            self.count_drop(&packet, DropReason::SiteDown);
            self.show_staged(packet.to);
            self.recycle(packet.frame);
        }
        self.show_staged(slot);
    }

    /// Control's own frames: handshake messages.
    fn emit(&mut self, port: PortIndex, bytes: &[u8]) {
        self.rows.turns.generated.add(1);
        let Some(mut packet) = self.fresh(port, bytes) else { return };
        packet.verdict = Verdict::Transmit(port);
        self.dispatch(&mut Batch::from_iter([packet]));
    }

    /// A datagram made whole: as if it had just come in.
    fn reassembled(&mut self, port: PortIndex, bytes: &[u8], now: Time) {
        self.rows.turns.reassembled.add(1);
        let Some(packet) = self.fresh(port, bytes) else { return };
        let mut batch = Batch::from_iter([packet]);
        self.relay(&mut batch, now);
        self.dispatch(&mut batch);
    }

    pub(crate) fn fresh(&mut self, port: PortIndex, bytes: &[u8]) -> Option<Packet> {
        let long = HEADROOM + bytes.len() > self.umem.chunk_size() as usize;
        let Some(mut frame) = (if long { self.umem.take_long() } else { self.pool.pop() }) else {
            self.rows.hub.count(DropReason::NoChunk, bytes.len());
            return None;
        };
        frame.copy_from(bytes);
        Some(Packet::arrived(frame, port))
    }
}
