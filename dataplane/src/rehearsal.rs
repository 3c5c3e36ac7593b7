//! The journey in memory: a worker's stages with sites at its far ends, and no socket, no kernel and no thread.
//!
//! Tests, fuzz targets and benches rehearse here what the hub performs. Chunks are real, keys are real, and the far ends
//! seal and open with sessions of their own. Several hubs can be joined by trunks ([`joined`]).

pub mod joined;

use crate::access::{Access, Link};
use crate::mailbox::{Bell, ControlEnd, Event, mailbox};
use crate::packet::{BATCH, Batch, Packet};
use crate::sites::{Kind, Path, Sessions, Sites, Way};
use crate::staging::Shelf;
use crate::tenants::{Tenant, Tenants};
use crate::worker::{Journey, OUT_MAX};
use crate::xsk::{Frame, HEADROOM, Umem};
use arrayvec::ArrayVec;
use classifier::{Builder, Tables, Target};
use crypto::aead::{Backend, Cipher, OpenJob, SealJob, TAG};
use crypto::message::{self, DATA_HEADER};
use crypto::{Role, Session, Time};
use ipnet::IpNet;
use stats::{Rows, Shape, Totals};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use wire::{Endpoints, Outer, PortIndex, SiteSlot, Template, TenantSlot, Vlan};

/// Low bits of a receiver index that are its slot, here.
const BITS: u8 = 16;
/// Rows for rules of filters, which tests bring themselves.
const RULES: usize = 64;
/// The MTU of the underlay.
const MTU: u16 = 1500;
/// What fits an underlay of 9,000 bytes, sealed.
const WIDE: u16 = 9000 - 60;
/// The hub's WAN address and port.
const HUB: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 51820);

/// A hub's only worker, and everything around it.
pub struct Rehearsal {
    /// The stages.
    pub journey: Journey,
    /// Control's end of the mailbox.
    pub control: ControlEnd,
    /// The time that the next batch sees.
    pub now: Time,
    /// The sites' own ends.
    pub far: Vec<Far>,
    ends: Vec<(SiteSlot, TenantSlot, Link)>,
    /// Of all slots.
    tenants: Vec<TenantSlot>,
    /// Slots that are nobody's yet: the first of them.
    free: u32,
    /// Which hub it is, where there are several.
    number: u8,
    umem: &'static Umem,
    /// The cipher of the far ends, which take packets one by one.
    pub aead: &'static dyn Backend,
}

/// The MAC address of the hub's port.
pub const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A site's own end of its tunnel.
pub struct Far {
    /// Its session with the hub.
    pub session: Arc<Session>,
    /// Its tenant.
    pub tenant: TenantSlot,
    /// Where it is.
    pub remote: SocketAddr,
    to_hub: Template,
}

impl Rehearsal {
    /// A hub for these tenants, each a list of sites, each a list of prefixes; every site has a session and a way.
    ///
    /// # Panics
    /// If a prefix is none.
    pub fn new(tenants: &[Vec<Vec<&str>>], chunks: u32) -> Self {
        Self::with_access(tenants, &[], chunks)
    }

    /// The same, with chunks of a page and so many frames of three besides, for packets that no chunk holds; and so wide ways.
    ///
    /// # Panics
    /// If a prefix is none.
    pub fn wide(tenants: &[Vec<Vec<&str>>], chunks: u32, long: u32) -> Self {
        let mut this = Self::over(Umem::private_with_long(chunks, 4096, long, 3), tenants, &[], 0);
        for slot in (0..this.far.len() as u32).map(SiteSlot) {
            if let Ok(path) = &mut this.journey.sites.at_mut(slot).way.out {
                path.payload_max = WIDE;
            }
        }
        this
    }

    /// The same, with access ends on the hub's only port, beside the WAN: each with its tenant, its VLAN, and the hub's addresses.
    /// Their slots follow those of all sites.
    ///
    /// # Panics
    /// If a prefix or an address is none.
    pub fn with_access(tenants: &[Vec<Vec<&str>>], access: &[(u32, Vlan, &[&str])], chunks: u32) -> Self {
        Self::over(Umem::private(chunks, 2048), tenants, access, 0)
    }

    fn over(umem: &'static Umem, tenants: &[Vec<Vec<&str>>], access: &[(u32, Vlan, &[&str])], spare: usize) -> Self {
        let aead = crypto::aead::single();
        // Not the one for this machine, which does small batches by ring: what the hub seals the other way, sites open one by one.
        let of_hub = crypto::aead::lanes().last().copied().unwrap_or(aead);
        let mut tables = routes(tenants);
        let mut of_site: Vec<_> =
            (0..).map(TenantSlot).zip(tenants).flat_map(|(t, sites)| sites.iter().map(move |_| t)).collect();
        let (sites, mut ends) = (of_site.len(), Vec::new());
        for (tenant, vlan, addresses) in access {
            let (slot, tenant) = (SiteSlot(of_site.len() as u32), TenantSlot(*tenant));
            let addresses: Vec<IpNet> = addresses.iter().map(|address| address.parse().expect("an address")).collect();
            addresses.iter().for_each(|net| _ = tables.add(tenant, *net, Target::Site(slot)));
            of_site.push(tenant);
            let (port, vlan, state) = (PortIndex(0), *vlan, Ok((PORT_MAC, MTU)));
            ends.push((slot, tenant, Link { port, vlan, addresses, routes: Vec::new(), state }));
        }
        let free = of_site.len() as u32;
        of_site.resize(of_site.len() + spare, TenantSlot(0));
        let (control, mail) = mailbox(Arc::new(tokio::sync::Notify::new()), Bell::new().expect("an eventfd"), 2048);
        let shape = Shape { tenants: tenants.len(), sites: of_site.len(), ports: 1, rules: RULES };
        let journey = Journey {
            tables: Arc::new(tables.build()),
            sessions: Sessions::new(BITS),
            sites: Sites::new(&of_site),
            access: Access::default(),
            tenants: Tenants::new(tenants.iter().map(|_| tenant())),
            shelf: Shelf::new(tenants.len()),
            pool: umem.frames(0..umem.chunks()),
            umem,
            pieces: Vec::new(),
            out: vec![Vec::with_capacity(OUT_MAX)],
            rows: Arc::new(Rows::new(shape)),
            aead: of_hub,
            mail,
            postponed: VecDeque::new(),
            movers: ArrayVec::new(),
            identification: 0,
            stopped: false,
        };
        let (far, now) = (Vec::new(), Time(1_000_000_000));
        let mut this = Self { journey, control, now, far, ends, tenants: of_site, free, number: 0, umem, aead };
        attach(&mut this.journey, &this.ends);
        for slot in 0..sites {
            this.connect(SiteSlot(slot as u32), this.tenants[slot]);
        }
        this
    }

    /// A session and a way for a site: what control does after a handshake.
    fn connect(&mut self, slot: SiteSlot, tenant: TenantSlot) {
        let n = slot.0;
        let [_, a, b, c] = n.to_be_bytes();
        let remote = SocketAddr::new(Ipv4Addr::new(198, 18 ^ a, b, c).into(), 51821);
        let keys = [key(n, 1), key(n, 2)];
        let (ours, theirs) = (n | 0x5a << BITS, n | 0xa5 << BITS);
        let cipher = Cipher::ChaCha20Poly1305;
        let near = Arc::new(Session::new(n, ours, theirs, Role::Initiator, &keys[0], &keys[1], cipher, self.now));
        let far = Arc::new(Session::new(n, theirs, ours, Role::Responder, &keys[1], &keys[0], cipher, self.now));
        self.journey.sessions.publish(near.clone());
        let site = self.journey.sites.at_mut(slot);
        site.sending = Some(near);
        site.way = way_to(remote);
        let hub = SocketAddr::from(HUB);
        let to_hub = Template::new(&wire::Path {
            source_mac: [2, 0, 0, 0, 0, 2],
            destination_mac: [2, 0, 0, 0, 0, 1],
            source: remote,
            destination: hub,
            udp_checksum: false,
        });
        self.far.push(Far { session: far, tenant, remote, to_hub: to_hub.expect("one family") });
    }

    /// The journey of another worker of the same hub, which knows the same sites and sessions and has no chunk; and control's end
    /// of its mailbox.
    pub fn another(&self) -> (Journey, ControlEnd) {
        let (control, mail) = mailbox(Arc::new(tokio::sync::Notify::new()), Bell::new().expect("an eventfd"), 2048);
        let mut journey = Journey {
            tables: self.journey.tables.clone(),
            sessions: Sessions::new(BITS),
            sites: Sites::new(&self.tenants),
            access: Access::default(),
            tenants: Tenants::new((0..self.journey.tenants.len()).map(|_| tenant())),
            shelf: Shelf::new(self.journey.tenants.len()),
            pool: Vec::new(),
            umem: self.umem,
            pieces: Vec::new(),
            out: vec![Vec::with_capacity(OUT_MAX)],
            rows: Arc::new(Rows::new(Shape {
                tenants: self.journey.tenants.len(),
                sites: self.tenants.len(),
                ports: 1,
                ..Shape::default()
            })),
            aead: self.journey.aead,
            mail,
            postponed: VecDeque::new(),
            movers: ArrayVec::new(),
            identification: 0,
            stopped: false,
        };
        for (slot, far) in (0..).map(SiteSlot).zip(&self.far) {
            let session = self.journey.sites.at(slot).sending.clone().expect("it has a session");
            journey.sessions.publish(session.clone());
            let site = journey.sites.at_mut(slot);
            (site.sending, site.way) = (Some(session), way_to(far.remote));
        }
        attach(&mut journey, &self.ends);
        (journey, control)
    }

    /// An inner packet as the site would send it: sealed, padded, in a whole frame.
    ///
    /// # Panics
    /// If the site's session is used up.
    pub fn seal(&self, site: usize, inner: &[u8]) -> Vec<u8> {
        self.seal_to(site, inner, message::padded_len(inner.len(), 1440))
    }

    /// The same, padded to `len` bytes.
    ///
    /// # Panics
    /// If the site's session is used up.
    pub fn seal_to(&self, site: usize, inner: &[u8], len: usize) -> Vec<u8> {
        let far = &self.far[site];
        let counter = far.session.reserve(1).next().expect("a counter");
        let mut message = message::data_header(far.session.remote_index(), counter).to_vec();
        message.extend_from_slice(inner);
        message.resize(DATA_HEADER + len + TAG, 0);
        let data = &mut message[DATA_HEADER..];
        self.aead.seal_batch(&mut [SealJob { key: far.session.seal_key(), counter, aad: &[], data }]);
        self.frame(site, &message)
    }

    /// A datagram as it comes from a site.
    ///
    /// # Panics
    /// If it is too long for a datagram.
    pub fn frame(&self, site: usize, datagram: &[u8]) -> Vec<u8> {
        let to_hub = &self.far[site].to_hub;
        let mut frame = vec![0; to_hub.header_len()];
        frame.extend_from_slice(datagram);
        to_hub.write(&mut frame, 0, 1).expect("a frame");
        frame
    }

    /// Whom a frame that left the hub is for, and the padded packet in it; `None` if it is no data message of the hub's.
    pub fn open(&self, frame: &[u8]) -> Option<(usize, Vec<u8>)> {
        let outer = Outer::parse(frame).ok()?;
        let site = self.far.iter().position(|far| far.remote == outer.destination())?;
        let mut datagram = frame[outer.payload].to_vec();
        let (index, counter) = message::parse_data(&datagram)?;
        let session = &self.far[site].session;
        let data = &mut datagram[DATA_HEADER..];
        let mut job = [OpenJob { key: session.open_key(), counter, aad: &[], data, verified: false }];
        self.aead.open_batch(&mut job);
        let good = job[0].verified && index == session.local_index();
        good.then(|| (site, datagram[DATA_HEADER..datagram.len() - TAG].to_vec()))
    }

    /// Lets frames arrive, in batches, and returns those that leave.
    ///
    /// # Panics
    /// If all chunks are in use.
    pub fn pass(&mut self, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut left = Vec::new();
        for some in frames.chunks(BATCH) {
            let mut batch = Batch::new();
            for bytes in some {
                let long = bytes.len() + HEADROOM > self.umem.chunk_size() as usize;
                let frame = if long { self.umem.take_long() } else { self.journey.pool.pop() };
                let mut frame = frame.expect("a free chunk");
                frame.copy_from(bytes);
                batch.push(Packet::arrived(frame, PortIndex(0)));
            }
            self.journey.relay(&mut batch, self.now);
            self.journey.dispatch(&mut batch);
            self.journey.send_pieces(self.now);
            left.append(&mut self.leave());
        }
        left
    }

    /// What one frame is dropped for, with nothing sent, nothing else dropped and no chunk lost.
    ///
    /// # Panics
    /// If that is not so.
    pub fn dropped_for(&mut self, frame: Vec<u8>) -> wire::DropReason {
        let before = self.drops();
        assert_eq!(self.pass(&[frame]), Vec::<Vec<u8>>::new(), "something was sent");
        let (pool, all) = self.census();
        assert_eq!(pool, all, "a chunk is lost");
        let mut after = self.drops();
        after.retain(|row| !before.contains(row));
        let [(reason, _)] = after[..] else { panic!("{before:?} -> {after:?}") };
        reason
    }

    /// What the journey has put out, its chunks recycled.
    pub fn leave(&mut self) -> Vec<Vec<u8>> {
        let frames: Vec<Frame> = self.journey.out[0].drain(..).collect();
        let bytes = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
        self.journey.pool.extend(frames.into_iter().filter_map(|frame| self.umem.keep(frame)));
        bytes
    }

    /// Drops by reason, hub and tenants together.
    pub fn drops(&self) -> Vec<(wire::DropReason, u64)> {
        let mut totals = Totals::default();
        totals.add_row(&self.journey.rows.hub);
        (0..self.journey.tenants.len()).for_each(|t| totals.add_row(self.journey.rows.tenant(TenantSlot(t as u32))));
        totals.nonzero().map(|(reason, packets, _)| (reason, packets)).collect()
    }

    /// What the worker told control.
    pub fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.control.event()).collect()
    }

    /// Chunks that are in the pool or on the shelf, against all there are: equal unless one was lost. Long frames count as one each.
    pub fn census(&self) -> (usize, usize) {
        let (long, free) = self.umem.long_frames();
        let found = self.journey.pool.len() + self.journey.shelf.len() + free as usize;
        (found, (self.umem.chunks() + long) as usize)
    }
}

/// Tells a journey of its access ends.
fn attach(journey: &mut Journey, ends: &[(SiteSlot, TenantSlot, Link)]) {
    journey.access = Access::new(1, ends.iter().map(|(slot, _, link)| (link.port, link.vlan, *slot)));
    for (slot, _, link) in ends {
        journey.sites.at_mut(*slot).kind = Kind::Access(Box::new(link.clone()));
    }
}

/// A packet as a host of a VLAN sends it to the hub.
///
/// # Panics
/// If it is none.
pub fn from_host(vlan: Vlan, source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet[0] >> 4 == 4 { wire::ethernet::IPV4 } else { wire::ethernet::IPV6 };
    let mut frame = vec![0; vlan.header_len()];
    let fields = wire::ethernet::Fields { destination: PORT_MAC, source, ethertype };
    vlan.emit(&fields, &mut frame).expect("room for the header");
    frame.extend_from_slice(packet);
    frame
}

/// The routes of a hub for these tenants.
///
/// # Panics
/// If a prefix is none.
pub fn routes(tenants: &[Vec<Vec<&str>>]) -> Builder {
    let mut tables = Tables::builder();
    let mut slot = SiteSlot(0);
    for (tenant, sites) in (0..).map(TenantSlot).zip(tenants) {
        for prefixes in sites {
            for prefix in prefixes {
                let prefix: IpNet = prefix.parse().expect("a prefix of the test");
                tables.add(tenant, prefix, Target::Site(slot));
            }
            slot.0 += 1;
        }
    }
    tables
}

/// The way to a site on the hub's only port.
pub fn way_to(remote: SocketAddr) -> Way {
    let template = Template::new(&wire::Path {
        source_mac: [2, 0, 0, 0, 0, 1],
        destination_mac: [2, 0, 0, 0, 0, 2],
        source: SocketAddr::from(HUB),
        destination: remote,
        udp_checksum: false,
    });
    let path = Path { port: PortIndex(0), template: template.expect("one family"), payload_max: MTU - 60 };
    Way { ends: Endpoints::new(remote, HUB.0.into()).ok(), out: Ok(path) }
}

/// Whose hub has an address.
fn tenant() -> Tenant {
    Tenant::new(&["fd00:9::1".parse().expect("an address")])
}

/// A key that is another for each site and direction.
fn key(n: u32, direction: u8) -> [u8; 32] {
    let mut key = [direction; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    key
}

/// An IPv4 packet of `len` bytes in all, with UDP inside.
///
/// # Panics
/// If `len` is less than the headers.
pub fn ipv4(source: [u8; 4], destination: [u8; 4], ttl: u8, len: usize) -> Vec<u8> {
    assert!(len >= 28, "an IPv4 header and a UDP header");
    let mut packet = vec![0x5a; len];
    let mut header = [0; wire::ipv4::HEADER];
    let fields = wire::ipv4::Fields {
        tos: 0,
        total_len: len as u16,
        id: 0,
        dont_fragment: true,
        ttl,
        protocol: wire::udp::PROTOCOL,
        source: source.into(),
        destination: destination.into(),
    };
    fields.emit(&mut header);
    packet[..20].copy_from_slice(&header);
    packet
}

/// An IPv6 packet of `len` bytes in all, with UDP inside.
///
/// # Panics
/// If `len` is less than the headers, or an address is none.
pub fn ipv6(source: &str, destination: &str, hop_limit: u8, len: usize) -> Vec<u8> {
    assert!(len >= 48, "an IPv6 header and a UDP header");
    let mut packet = vec![0x5a; len];
    let mut header = [0; wire::ipv6::HEADER];
    let fields = wire::ipv6::Fields {
        tos: 0,
        payload_len: (len - 40) as u16,
        next_header: wire::udp::PROTOCOL,
        hop_limit,
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
    };
    fields.emit(&mut header);
    packet[..40].copy_from_slice(&header);
    packet
}
