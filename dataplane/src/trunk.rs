//! The stages of the journey for packets that come from, or go to, another hub, tagged; and what of that a worker knows.
//!
//! ```text
//! admit -> open -> untag -> check -> filter -> route -> part -> police -> adapt -> tag -> seal -> address -> dispatch
//! ```
//!
//! 1. `untag`: whose a packet is that came by a lane. From here on it is from what the trunk carries of this tenant, an end as any
//!    other. What the other hub says itself goes to control.
//! 2. `part`: what came by a trunk does not leave by one, unless it may pass through.
//! 3. `tag`: what goes to such an end goes by a lane, all packets of a flow by the same one. The tag itself is written when the packet is
//!    sealed, so that one that waits for a session can still take another lane.
//!
//! A hub without trunks passes each of these stages by one comparison a batch.

use crate::config::LANES_MAX;
use crate::packet::{BATCH, Batch, Packet, Verdict};
use crate::sites::{Kind, Site};
use crate::staging::PER_SITE;
use crate::tenants::DUMMY_V4;
use crate::worker::{Journey, rejected};
use crate::xsk::{Frame, HEADROOM};
use ahash::{AHashMap, AHashSet};
use arrayvec::ArrayVec;
use crypto::message::DATA_HEADER;
use crypto::{Session, Time};
use std::net::IpAddr;
use std::sync::Arc;
use wire::geneve::{self, Payload};
use wire::{DropReason, PortIndex, SiteSlot, TenantId, ethernet, icmp, ipv6, udp};

// What goes by a trunk has the most in front of it: an outer fragment's header too.
const _: () = {
    let outer = ethernet::HEADER + ipv6::HEADER + ipv6::FRAGMENT_HEADER + udp::HEADER;
    assert!(outer + DATA_HEADER + geneve::HEADER <= HEADROOM);
};

/// A trunk, as workers need it: replaced as a whole when anything of it changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Trunk {
    /// All lanes, in their order: each has a session and a way of its own, like a site's.
    pub lanes: ArrayVec<SiteSlot, LANES_MAX>,
    /// The lanes that packets go by: those that are up, or all if none is.
    pub live: ArrayVec<SiteSlot, LANES_MAX>,
    /// The end that this trunk is to each tenant that it may carry.
    pub carried: AHashMap<TenantId, SiteSlot>,
    /// The tenants that this hub has, but that this trunk may not carry, are told apart from those that it has not.
    pub denied: AHashSet<TenantId>,
    /// What comes by it may leave by another trunk.
    pub transit: bool,
    /// The longest inner packet that fits every lane that is up, if the way is open.
    pub payload_max: Option<u16>,
}

impl Trunk {
    /// The lane of a flow, by its number ([`wire::spread`]): the same as long as that lane is up, whatever becomes of the others.
    #[inline]
    pub fn lane(&self, flow: u32) -> Option<SiteSlot> {
        let pick =
            |lanes: &[SiteSlot], flow: u32| lanes.get(((u64::from(flow) * lanes.len() as u64) >> 32) as usize).copied();
        let own = pick(&self.lanes, flow)?;
        if self.live.len() == self.lanes.len() || self.live.is_empty() || self.live.contains(&own) {
            return Some(own);
        }
        // The upper half has said which lane it was, and would say the same for all of its flows.
        pick(&self.live, flow.rotate_left(16))
    }
}

/// A first look at a message of a trunk's session: its counter, and that the trunk is known here already.
pub(crate) fn look(session: &Session, lane: &Site, counter: u64) -> Result<(), DropReason> {
    match lane.kind {
        Kind::Lane(_) => session.look(counter).map_err(rejected),
        Kind::Site | Kind::Access(_) | Kind::Carried(..) => Err(DropReason::SessionUnknown),
    }
}

/// The tag goes in front of a packet for `end`.
pub(crate) fn put_tag(frame: &mut Frame, end: &Site) {
    let payload = Payload::of(frame.bytes()).unwrap_or(Payload::Ipv4);
    frame.uncover(geneve::HEADER);
    let Some((header, _)) = frame.bytes_mut().split_first_chunk_mut() else { unreachable!("its room") };
    match end.kind {
        Kind::Carried(tenant, _) => geneve::Fields { tenant, payload }.emit(header),
        Kind::Site | Kind::Access(_) | Kind::Lane(_) => unreachable!("the stage `tag` has just looked"),
    }
}

impl Journey {
    /// What came by a lane: whose it is, by its tag.
    #[inline]
    pub(crate) fn untag(&mut self, batch: &mut Batch, now: Time) {
        if self.sites.have_trunks() {
            self.read_tags(batch, now);
        }
    }

    fn read_tags(&mut self, batch: &mut Batch, now: Time) {
        for packet in batch.iter_mut().filter(|p| p.goes_on() && p.tenant.is_none()) {
            let Kind::Lane(trunk) = &self.sites.at(packet.from).kind else { unreachable!("admitted as one") };
            let Ok(tag) = geneve::View::parse(packet.frame.bytes()) else {
                packet.drop(DropReason::TrunkTagMalformed);
                continue;
            };
            if tag.kind() == Payload::Control {
                let says = !tag.payload().is_empty();
                packet.frame.trim_front(geneve::HEADER);
                packet.verdict = if says { Verdict::Message } else { Verdict::Drop(DropReason::TrunkControl) };
                continue;
            }
            let Some(end) = trunk.carried.get(&tag.tenant()).copied() else {
                let denied = trunk.denied.contains(&tag.tenant());
                packet.drop(if denied { DropReason::TrunkTenantDenied } else { DropReason::TrunkTenantUnknown });
                continue;
            };
            let site = self.sites.at(end);
            // Else somebody else has the slot, or will have: the tenant is gone.
            if !matches!(site.kind, Kind::Carried(tenant, _) if tenant == tag.tenant()) {
                packet.drop(DropReason::TrunkTenantUnknown);
                continue;
            }
            (packet.tenant, packet.from) = (Some(site.tenant), end);
            packet.frame.trim_front(geneve::HEADER);
            self.count_arrived(packet, now);
            self.rows.site(end).data_received_at.set(now.0);
        }
    }

    /// Why a packet may not have this source, which the routes have elsewhere. None: it may, since the other hub reports an error with it,
    /// by the address that hubs have to this tenant, or by none of its own. Nobody could trace a route, or learn what fits, if that were refused.
    #[cold]
    pub(crate) fn foreign(&mut self, packet: &Packet, source: IpAddr) -> Option<DropReason> {
        let Kind::Carried(..) = self.sites.at(packet.from).kind else { return Some(DropReason::SourceNotAllowed) };
        let version = if source.is_ipv4() { 4 } else { 6 };
        let hub = packet.tenant.and_then(|tenant| self.tenants.at_mut(tenant).hub_address(version));
        let reports = (hub == Some(source) || source == DUMMY_V4) && icmp::is_error(packet.frame.bytes());
        (!reports).then_some(DropReason::TrunkSource)
    }

    /// Split horizon: what came by a trunk leaves by one only if the one that it came by may be passed through.
    #[inline]
    pub(crate) fn part(&mut self, batch: &mut Batch) {
        if self.sites.have_trunks() {
            self.hold_back(batch);
        }
    }

    fn hold_back(&mut self, batch: &mut Batch) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let (from, to) = (&self.sites.at(packet.from).kind, &self.sites.at(packet.to).kind);
            if let (Kind::Carried(_, by), Kind::Carried(..)) = (from, to)
                && !by.transit
            {
                packet.drop(DropReason::SplitHorizon);
            }
        }
    }

    /// A lane for each packet that a trunk carries.
    #[inline]
    pub(crate) fn tag(&mut self, batch: &mut Batch) {
        if self.sites.have_trunks() {
            self.choose_lanes(batch);
        }
    }

    fn choose_lanes(&mut self, batch: &mut Batch) {
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            // It has waited for its lane, and its tenant may be gone.
            if let Some(end) = packet.tagged {
                if !matches!(self.sites.at(end).kind, Kind::Carried(..)) {
                    packet.drop(DropReason::SiteNoEndpoint);
                }
                continue;
            }
            let Kind::Carried(tenant, trunk) = &self.sites.at(packet.to).kind else { continue };
            match trunk.lane(wire::spread(packet.frame.bytes(), tenant.as_u32())) {
                Some(lane) => (packet.tagged, packet.to) = (Some(packet.to), lane),
                None => packet.drop(DropReason::SiteNoEndpoint),
            }
        }
    }

    /// A frame is ready to leave by a lane: it is the lane's, and that of what is carried, if it is not the hub's own.
    pub(crate) fn count_by_lane(&self, packet: &Packet, now: Time) {
        let row = self.rows.site(packet.to);
        row.any_sent_at.set(now.0);
        row.tx_outer_bytes.add(packet.frame.len() as u64);
        if packet.inner_len == 0 {
            row.tx_keepalives.add(1);
        } else {
            row.tx_packets.add(1);
            row.data_sent_at.set(now.0);
        }
        if let Some(end) = packet.tagged {
            self.count_left(packet, end, now);
        }
    }

    /// What a trunk is from now on. Of a tenant that it no longer carries nothing goes on waiting for a lane.
    pub(crate) fn know(&mut self, trunk: &Arc<Trunk>) {
        self.sites.join(trunk).into_iter().for_each(|end| self.give_up(end));
    }

    /// The oldest packet of what a trunk carries that waits for a lane.
    pub(crate) fn waits_for_a_lane(&mut self, end: SiteSlot) -> Option<Packet> {
        if self.sites.have_trunks() { self.shelf.take_first(&mut self.sites, |p| p.tagged == Some(end)) } else { None }
    }

    /// The same; and what waits for a lane that is down takes another.
    pub(crate) fn join(&mut self, trunk: &Arc<Trunk>, now: Time) {
        self.know(trunk);
        if trunk.live.is_empty() {
            return;
        }
        const { assert!(PER_SITE as usize <= BATCH, "all that waits for one lane is one batch") };
        for lane in trunk.lanes.iter().filter(|lane| !trunk.live.contains(lane)) {
            let mut batch: Batch = std::iter::from_fn(|| self.shelf.take(*lane, &mut self.sites)).collect();
            for packet in &mut batch {
                packet.to = packet.tagged.take().unwrap_or(packet.to);
            }
            self.send(&mut batch, now);
            self.show_staged(*lane);
        }
    }

    /// A message of control's for the other hub, if the lane has a session now.
    pub(crate) fn tell_hub(&mut self, lane: SiteSlot, message: &[u8], now: Time) {
        if self.sites.at(lane).sending.as_ref().is_none_or(|session| session.expired(now)) {
            return;
        }
        self.rows.turns.generated.add(1);
        let Some(mut packet) = self.fresh(PortIndex(0), message) else { return };
        (packet.to, packet.inner_len) = (lane, message.len() as u16);
        self.send(&mut Batch::from_iter([packet]), now);
    }
}
