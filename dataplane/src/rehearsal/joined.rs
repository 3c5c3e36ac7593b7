//! Hubs in memory that are joined by trunks: what leaves one by a lane can be handed to the other as it is.

use super::{BITS, MTU, Rehearsal, key};
use crate::mailbox::Order;
use crate::ports::Ports;
use crate::sites::{Path, Way};
use crate::trunk::Trunk;
use crate::worker::Journey;
use crate::xsk::Umem;
use crypto::aead::{Cipher, OpenJob, SealJob, TAG};
use crypto::message::{self, DATA_HEADER};
use crypto::{Protocol, Role, Session};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use wire::{Endpoints, Outer, PortIndex, SiteSlot, Template, TenantId, TenantSlot, Vlan, geneve};

/// The first lane's UDP port.
const LISTEN: u16 = 51820;
/// The longest inner packet that a lane takes: an outer IPv6 header's less than the underlay's MTU, as for sites, and the tag's.
pub const LANE_MTU: u16 = MTU - 60 - geneve::HEADER as u16;

impl Rehearsal {
    /// A hub that can be joined to others: with slots to spare for lanes, and for what its trunks carry. Each has a number of its own.
    ///
    /// # Panics
    /// If a prefix or an address is none.
    pub fn numbered(
        number: u8,
        tenants: &[Vec<Vec<&str>>],
        access: &[(u32, Vlan, &[&str])],
        chunks: u32,
        spare: usize,
    ) -> Self {
        Self { number, ..Self::over(Umem::private(chunks, 2048), tenants, access, spare) }
    }

    fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 51, 100, 1 + self.number)
    }

    /// Whether a frame is for this hub, by a lane.
    pub fn is_for(&self, frame: &[u8]) -> bool {
        Outer::parse(frame).is_ok_and(|outer| outer.destination().ip() == self.address())
    }

    /// So many slots that were nobody's.
    fn take(&mut self, slots: usize) -> impl Iterator<Item = SiteSlot> + use<> {
        let first = self.free;
        self.free += slots as u32;
        assert!(self.free as usize <= self.tenants.len(), "spare slots");
        (first..self.free).map(SiteSlot)
    }

    /// Carries out an order of control's.
    pub fn obey(&mut self, order: Order) {
        self.control.send(order);
        self.journey.obey(self.now, &mut Ports::new(Vec::new(), 1, crate::config::Idle::Adaptive));
    }

    /// A frame in which this hub sends that plaintext by a lane, whatever it is: it holds the keys.
    ///
    /// # Panics
    /// If the lane has no session, or no way.
    pub fn seal_by(&self, lane: SiteSlot, plaintext: &[u8]) -> Vec<u8> {
        let site = self.journey.sites.at(lane);
        let session = site.sending.as_ref().expect("a session");
        let counter = session.reserve(1).next().expect("a counter");
        let header = session.data_header(counter);
        let mut data = plaintext.to_vec();
        data.resize(plaintext.len() + TAG, 0);
        let aad = session.protocol().aad(&header);
        self.aead.seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data: &mut data }]);
        self.frame_by(lane, &[&header[..], &data].concat())
    }

    /// A datagram of this hub's as it leaves by a lane.
    ///
    /// # Panics
    /// If the lane has no way.
    pub fn frame_by(&self, lane: SiteSlot, datagram: &[u8]) -> Vec<u8> {
        let path = self.journey.sites.at(lane).way.out.as_ref().expect("a way");
        let mut frame = vec![0; path.template.header_len()];
        frame.extend_from_slice(datagram);
        path.template.write(&mut frame, 0, 1).expect("a frame");
        frame
    }

    /// By which of its lanes a frame comes to this hub, and the plaintext in it; none, if this hub can't open it.
    pub fn open_by(&self, frame: &[u8]) -> Option<(SiteSlot, Vec<u8>)> {
        let outer = Outer::parse(frame).ok()?;
        let datagram = &frame[outer.payload];
        let (index, counter) = Protocol::Trunk.parse_data(datagram)?;
        let session = self.journey.sessions.of(Protocol::Trunk, index)?;
        let (header, data) = datagram.split_first_chunk::<DATA_HEADER>()?;
        let (mut data, aad) = (data.to_vec(), Protocol::Trunk.aad(header));
        let mut job = [OpenJob { key: session.open_key(), counter, aad, data: &mut data, verified: false }];
        self.aead.open_batch(&mut job);
        let verified = job[0].verified;
        data.truncate(data.len() - TAG);
        verified.then(|| (SiteSlot(session.owner()), data))
    }
}

/// A trunk of so many lanes between two hubs, which carries these tenants, by their slots. Routes are the caller's to make.
///
/// # Panics
/// If a hub has no slots to spare.
pub fn join(hubs: [&mut Rehearsal; 2], lanes: usize, cipher: Cipher, tenants: &[TenantId]) -> [Arc<Trunk>; 2] {
    let [one, other] = hubs;
    let numbers = u32::from(one.number) << 24 | u32::from(other.number) << 16;
    let mut trunks = [Trunk::default(), Trunk::default()];
    for (hub, trunk) in [&mut *one, &mut *other].into_iter().zip(&mut trunks) {
        trunk.lanes = hub.take(lanes).collect();
        trunk.live = trunk.lanes.clone();
        trunk.payload_max = Some(LANE_MTU);
        for (tenant, (id, slot)) in (0..).zip(tenants.iter().zip(hub.take(tenants.len()))) {
            trunk.carried.insert(*id, slot);
            hub.tenants[slot.index()] = TenantSlot(tenant);
            hub.journey.sites.at_mut(slot).tenant = TenantSlot(tenant);
        }
    }
    let trunks = trunks.map(Arc::new);
    let index = |slot: SiteSlot| slot.0 | 0x5a << BITS;
    for n in 0..lanes {
        let keys = [1, 2].map(|direction| key(numbers | n as u32, direction));
        let ends = [(&*one, trunks[0].lanes[n]), (&*other, trunks[1].lanes[n])];
        let [near, far] = ends.map(|(hub, slot)| (SocketAddr::new(hub.address().into(), LISTEN + n as u16), slot));
        let sides = [(&mut *one, near, far, Role::Initiator, 0), (&mut *other, far, near, Role::Responder, 1)];
        for (hub, (from, slot), (to, theirs), role, first) in sides {
            let (send, receive) = (&keys[first], &keys[1 - first]);
            let session = Session::new(slot.0, index(slot), index(theirs), role, send, receive, cipher, hub.now);
            let session = Arc::new(session.of_trunk());
            hub.journey.sessions.publish(session.clone());
            let site = hub.journey.sites.at_mut(slot);
            (site.sending, site.way) = (Some(session), way(from, to));
        }
    }
    for (hub, trunk) in [one, other].into_iter().zip(&trunks) {
        hub.obey(Order::Trunk(trunk.clone()));
    }
    trunks
}

/// Tells another worker of the same hub what this one knows of a trunk.
pub fn share(hub: &Rehearsal, trunk: &Arc<Trunk>, worker: &mut Journey) {
    for lane in &trunk.lanes {
        let (known, site) = (hub.journey.sites.at(*lane), worker.sites.at_mut(*lane));
        (site.sending, site.way) = (known.sending.clone(), known.way.clone());
        known.sending.iter().for_each(|session| worker.sessions.publish(session.clone()));
    }
    worker.sites.join(trunk);
}

fn way(from: SocketAddr, to: SocketAddr) -> Way {
    let template = Template::new(&wire::Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: from,
        destination: to,
        udp_checksum: false,
    });
    let path = Path { port: PortIndex(0), template: template.expect("one family"), payload_max: LANE_MTU };
    Way { ends: Endpoints::new(to, from.ip()).ok(), out: Ok(path) }
}

/// A plaintext: a tag, and what it tags, padded as hubs do.
pub fn tagged(tenant: TenantId, payload: geneve::Payload, inner: &[u8]) -> Vec<u8> {
    let mut plain = vec![0; geneve::HEADER];
    let Some(header) = plain.first_chunk_mut() else { unreachable!("just made") };
    geneve::Fields { tenant, payload }.emit(header);
    plain.extend_from_slice(inner);
    let padded = message::padded_len(plain.len(), usize::from(LANE_MTU) + geneve::HEADER);
    plain.resize(padded, 0);
    plain
}
