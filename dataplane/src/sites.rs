//! A worker's private view of sessions and sites: slot to session, site to session and way out. Only orders change it.

use crate::access::Link;
use crate::config::Dscp;
use crate::rates::Limits;
use crate::trunk::Trunk;
use crypto::cache::foresee;
use crypto::{Protocol, Role, Session};
use std::net::IpAddr;
use std::sync::Arc;
use wire::{DropReason, Endpoints, PortIndex, SiteSlot, TenantId, TenantSlot, geneve};

/// How sealed frames for a site leave this hub, or why they can't.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Way {
    /// The site's address and port, and the hub's address that it talks to; none before it was ever heard of.
    pub ends: Option<Endpoints>,
    /// The frame headers and the port, or the reason for which packets are dropped meanwhile.
    pub out: Result<Path, DropReason>,
}

/// A way that is open.
#[derive(Clone, Debug)]
pub struct Path {
    /// The port to transmit on.
    pub port: PortIndex,
    /// Ethernet, IP and UDP headers, all but lengths and sums.
    pub template: wire::Template,
    /// The longest inner packet that fits one outer packet once sealed; in a lane with its tag.
    pub payload_max: u16,
}

/// The sessions that data may arrive under, by the low bits of their receiver index.
#[derive(Debug)]
pub struct Sessions {
    slots: Vec<Slot>,
    mask: u32,
    /// Slots that are taken.
    taken: usize,
}

#[derive(Debug, Default)]
struct Slot {
    session: Option<Arc<Session>>,
    confirmed: bool,
}

impl Sessions {
    /// An empty table of 2^`bits` slots.
    pub fn new(bits: u8) -> Self {
        let slots = (0..1usize << bits).map(|_| Slot::default()).collect();
        Self { slots, mask: (1u32 << bits) - 1, taken: 0 }
    }

    /// The session with this receiver index.
    #[inline]
    pub fn find(&self, index: u32) -> Option<&Session> {
        let session = self.slots[(index & self.mask) as usize].session.as_deref()?;
        (session.local_index() == index).then_some(session)
    }

    /// The session with this receiver index, if its messages are of this protocol.
    #[inline]
    pub fn of(&self, protocol: Protocol, index: u32) -> Option<&Session> {
        self.find(index).filter(|session| session.protocol() == protocol)
    }

    /// What is in the slot of this index, whoever's it is, and how many are taken: to ask for it beforehand.
    #[inline]
    pub fn slot(&self, index: u32) -> &Option<Arc<Session>> {
        &self.slots[(index & self.mask) as usize].session
    }

    /// How many sessions there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.taken
    }

    /// Whether control has been told that the peer has used this session. An initiator's session needs no telling.
    #[inline]
    pub fn confirmed(&mut self, index: u32) -> &mut bool {
        &mut self.slots[(index & self.mask) as usize].confirmed
    }

    /// Whether no session is in the slot of this index.
    pub fn is_free(&self, index: u32) -> bool {
        self.slots[(index & self.mask) as usize].session.is_none()
    }

    /// Accepts data under this session from now on.
    pub fn publish(&mut self, session: Arc<Session>) {
        let slot = (session.local_index() & self.mask) as usize;
        let confirmed = session.role() == Role::Initiator;
        let before = std::mem::replace(&mut self.slots[slot], Slot { session: Some(session), confirmed });
        self.taken += usize::from(before.session.is_none());
    }

    /// Forgets the session with this index, if it is still the one in its slot.
    pub fn withdraw(&mut self, index: u32) {
        if self.find(index).is_some() {
            self.slots[(index & self.mask) as usize] = Slot::default();
            self.taken -= 1;
        }
    }
}

/// What is in a slot: how its packets are told on the way in, and what is put around them on the way out.
#[derive(Debug, Default)]
pub enum Kind {
    /// A site, with a session of its own.
    #[default]
    Site,
    /// An access end: it has no session, and its way is its neighbours'.
    Access(Box<Link>),
    /// A lane of a trunk: with a session and a way, as a site, but of no tenant.
    Lane(Arc<Trunk>),
    /// What a trunk carries of a tenant: its packets go by one of the lanes, with the tenant's id in their tags.
    Carried(TenantId, Arc<Trunk>),
}

/// A site, or another end, as packets to it need it.
///
/// In the order in which packets touch it: one from a site over IPv4 needs the first cache line alone, one to it the first three.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Site {
    /// The ends that control was last told of, until it answers or the site is heard at its known ends again.
    pub moved: Option<Endpoints>,
    /// Its tenant; a lane has none, and this says nothing then.
    pub tenant: TenantSlot,
    /// Where the sealed frame goes.
    pub way: Way,
    /// The session to seal under.
    pub sending: Option<Arc<Session>>,
    /// What it is.
    pub kind: Kind,
    /// How its packets are marked outside.
    pub dscp: Dscp,
    /// Control was told that a session is wanted, and has not answered yet.
    pub wanted: bool,
    /// So many replies to pings of the hub's own, which measure the way there, control wants to hear of.
    pub expects: u8,
    /// Packets parked for it.
    pub staged: u16,
    /// Neighbours of it whose MAC addresses packets wait for.
    pub waited_for: u16,
    /// The rates that its packets are held to, if any.
    pub limits: Option<Box<Limits>>,
}

const _: () = {
    use std::mem::offset_of;
    let line = [offset_of!(Site, moved), offset_of!(Site, tenant), offset_of!(Site, way), offset_of!(Way, ends)];
    assert!(
        line[0] < 64
            && line[1] < 64
            && line[2] + line[3] + size_of::<(std::net::SocketAddrV4, std::net::SocketAddrV4)>() <= 64
    );
    assert!(offset_of!(Site, dscp) < 192 && size_of::<Site>() == 256);
};

impl Site {
    /// A site of which nothing is known but its tenant.
    pub fn new(tenant: TenantSlot) -> Self {
        let way = Way { ends: None, out: Err(DropReason::SiteNoEndpoint) };
        Self {
            tenant,
            sending: None,
            way,
            moved: None,
            wanted: false,
            staged: 0,
            kind: Kind::Site,
            waited_for: 0,
            limits: None,
            dscp: Dscp::Zero,
            expects: 0,
        }
    }
}

impl Site {
    /// Asks for what packets from it touch.
    #[inline]
    pub fn foresee_from(&self) {
        foresee(&self.tenant);
    }

    /// Asks for what packets to it touch.
    #[inline]
    pub fn foresee_to(&self) {
        foresee(&self.way);
    }

    /// Where it is, if it is an access end.
    #[inline]
    pub fn link(&self) -> Option<&Link> {
        if let Kind::Access(link) = &self.kind { Some(link) } else { None }
    }

    /// Whose its packets are, before a tag tells: nobody's, if it is a lane.
    pub fn owner(&self) -> Option<TenantSlot> {
        if let Kind::Lane(_) = self.kind { None } else { Some(self.tenant) }
    }

    /// The bytes in front of an inner packet that is sealed for it.
    #[inline]
    pub fn tag_len(&self) -> usize {
        if let Kind::Lane(_) = self.kind { geneve::HEADER } else { 0 }
    }

    /// The hub's own address there, if it is an access end: as a router answers from where a packet came in (RFC 1812, 4.3.2.4).
    pub fn gateway(&self, version: u8) -> Option<IpAddr> {
        let addresses = self.link().into_iter().flat_map(|link| &link.addresses).map(|net| net.addr());
        addresses.into_iter().find(|address| address.is_ipv4() == (version == 4))
    }

    /// The longest inner packet that fits the way there, if it is open.
    #[inline]
    pub fn payload_max(&self) -> Option<u16> {
        match &self.kind {
            Kind::Site | Kind::Lane(_) => self.way.out.as_ref().ok().map(|path| path.payload_max),
            Kind::Access(link) => link.state.ok().map(|(_, mtu)| mtu),
            Kind::Carried(_, trunk) => trunk.payload_max,
        }
    }
}

/// What the configuration says of an end.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its tenant.
    pub tenant: TenantSlot,
    /// The rates that its packets are held to, if any.
    pub limits: Option<Limits>,
    /// How packets for it are marked outside.
    pub dscp: Dscp,
}

/// All sites by slot.
#[derive(Debug)]
pub struct Sites {
    all: Vec<Site>,
    /// Sites whose packets are held to a rate.
    limited: usize,
    /// Some are of a trunk.
    trunks: bool,
}

impl Sites {
    /// One site a slot, each with its tenant.
    pub fn new(tenants_of_sites: &[TenantSlot]) -> Self {
        Self { all: tenants_of_sites.iter().map(|t| Site::new(*t)).collect(), limited: 0, trunks: false }
    }

    /// So many slots in which nobody is yet.
    pub fn with_room(slots: usize) -> Self {
        Self { all: (0..slots).map(|_| Site::new(TenantSlot(0))).collect(), limited: 0, trunks: false }
    }

    /// The site in this slot.
    #[inline]
    pub fn at(&self, slot: SiteSlot) -> &Site {
        &self.all[slot.index()]
    }

    /// The site in this slot, to change.
    #[inline]
    pub fn at_mut(&mut self, slot: SiteSlot) -> &mut Site {
        &mut self.all[slot.index()]
    }

    /// The configuration says this of the end in this slot, from now on.
    pub fn seat(&mut self, slot: SiteSlot, seat: Seat) {
        let Seat { tenant, limits, dscp } = seat;
        let site = self.at_mut(slot);
        let before = std::mem::replace(&mut site.limits, limits.map(Box::new)).is_some();
        (site.tenant, site.dscp) = (tenant, dscp);
        self.limited = self.limited - usize::from(before) + usize::from(self.at(slot).limits.is_some());
    }

    /// Nobody is in this slot any more.
    pub fn vacate(&mut self, slot: SiteSlot) {
        let tenant = self.at(slot).tenant;
        self.seat(slot, Seat { tenant, limits: None, dscp: Dscp::Zero });
        *self.at_mut(slot) = Site::new(tenant);
    }

    /// The lanes of a trunk, and what it carries of each tenant, are this from now on. The ends that it no longer is have no way; which
    /// they are.
    pub fn join(&mut self, trunk: &Arc<Trunk>) -> Vec<SiteSlot> {
        let mut left = Vec::new();
        self.trunks = true;
        let before = trunk.lanes.first().and_then(|lane| match &self.at(*lane).kind {
            Kind::Lane(before) => Some(before.clone()),
            Kind::Site | Kind::Access(_) | Kind::Carried(..) => None,
        });
        for (slot, of) in before.iter().flat_map(|before| before.carried.values().map(move |slot| (*slot, before))) {
            // Unless it is somebody else's by now.
            if matches!(&self.at(slot).kind, Kind::Carried(_, trunk) if Arc::ptr_eq(trunk, of)) {
                self.at_mut(slot).kind = Kind::Site;
                left.extend((!trunk.carried.values().any(|end| *end == slot)).then_some(slot));
            }
        }
        trunk.lanes.iter().for_each(|lane| self.at_mut(*lane).kind = Kind::Lane(trunk.clone()));
        for (tenant, slot) in &trunk.carried {
            self.at_mut(*slot).kind = Kind::Carried(*tenant, trunk.clone());
        }
        left
    }

    /// Whether there are trunks.
    #[inline]
    pub fn have_trunks(&self) -> bool {
        self.trunks
    }

    /// Holds the packets of sites, by slot, to rates.
    pub fn limit(&mut self, limits: impl IntoIterator<Item = Option<Limits>>) {
        for (site, limits) in self.all.iter_mut().zip(limits) {
            site.limits = limits.map(Box::new);
        }
        self.limited = self.all.iter().filter(|site| site.limits.is_some()).count();
    }

    /// Marks the packets for sites, by slot, outside.
    pub fn mark(&mut self, classes: impl IntoIterator<Item = Dscp>) {
        for (site, dscp) in self.all.iter_mut().zip(classes) {
            site.dscp = dscp;
        }
    }

    /// Whether any site's packets are held to a rate.
    #[inline]
    pub fn are_limited(&self) -> bool {
        self.limited > 0
    }
}
