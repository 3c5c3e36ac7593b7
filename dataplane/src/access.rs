//! The stages of the journey for packets that come from, or go to, a tenant's servers: in the clear, by an access port.
//!
//! ```text
//! admit -> enter -> check -> filter -> route -> visit -> police -> adapt -> deliver -> dispatch
//! ```
//!
//! 1. `enter`: the VLAN says whose end the frame comes from; what is not for routing (ARP, neighbour discovery) goes to control.
//! 2. `visit`: who is not what it says it is; checksums that the sender has left to a NIC; pings to the gateway itself.
//! 3. `deliver`: the neighbour's MAC address and the tags of its VLAN, in place of a tunnel. A packet whose neighbour is not known yet
//!    waits on the shelf.
//!
//! A hub without access ports passes each of these stages by one comparison a batch.

use crate::config::is_everybodys;
use crate::mailbox::Event;
use crate::packet::{BATCH, Batch, Packet, Verdict};
use crate::worker::Journey;
use ahash::AHashMap;
use crypto::Time;
use ipnet::IpNet;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::vlan::Tagged;
use wire::{DropReason, PortIndex, SiteSlot, Vlan, arp, echo, ethernet, ndisc, transport};

/// Packets that may wait for one neighbour, per worker (RFC 4861, 7.2.2 wants one at least; Linux keeps about as many).
pub const PER_NEIGHBOUR: u8 = 16;
/// Neighbours that packets of one end may wait for, per worker: a scan of a network must not fill the memory.
pub const WAITED_FOR: u16 = 256;
/// Bytes of the shortest frame, without its check sequence (IEEE 802.3, 4A.4.2): what is missing is zeros.
const SHORTEST: usize = 60;

/// How frames for an access end leave this hub, or why they can't; and what the hub is there.
#[derive(Clone, Debug)]
pub struct Link {
    /// The port.
    pub port: PortIndex,
    /// The VLAN.
    pub vlan: Vlan,
    /// The hub's own addresses, each with the network of its neighbours.
    pub addresses: Vec<IpNet>,
    /// Networks behind neighbours.
    pub routes: Vec<(IpNet, IpAddr)>,
    /// The port's MAC address and its MTU, or the reason for which packets are dropped meanwhile.
    pub state: Result<([u8; 6], u16), DropReason>,
}

impl Link {
    /// Whether this is an address of the hub itself.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|net| net.addr() == address)
    }

    /// Whose MAC address a packet to `destination` needs; `None` if it is for nobody, or for all at once: directed broadcasts are
    /// not forwarded (RFC 2644).
    pub fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        match self.addresses.iter().find(|net| net.contains(&destination)) {
            Some(net) => (!is_everybodys(destination, net)).then_some(destination),
            None => self.routes.iter().find(|(prefix, _)| prefix.contains(&destination)).map(|(_, via)| *via),
        }
    }
}

/// Where the hub has access ends, and who is there: a worker's private view.
#[derive(Debug, Default)]
pub struct Access {
    ends: AHashMap<(PortIndex, Vlan), SiteSlot>,
    /// By port: whether it has any.
    carries: Vec<bool>,
    neighbours: AHashMap<(SiteSlot, IpAddr), Neighbour>,
}

/// What is known of a neighbour's MAC address.
#[derive(Debug)]
enum Neighbour {
    /// Control asks for it.
    Waiting {
        /// Packets on the shelf.
        staged: u8,
        /// Control was told.
        told: bool,
    },
    Known {
        mac: [u8; 6],
        /// When control wants to know that it is still used.
        fresh_until: Time,
        told: bool,
    },
}

impl Access {
    /// The ends of a hub with so many ports.
    pub fn new(ports: usize, ends: impl IntoIterator<Item = (PortIndex, Vlan, SiteSlot)>) -> Self {
        let mut this = Self { carries: vec![false; ports], ..Self::default() };
        for (port, vlan, slot) in ends {
            this.carries[port.index()] = true;
            this.ends.insert((port, vlan), slot);
        }
        this
    }

    /// Whether there are no ends at all.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether a port has access ends.
    #[inline]
    pub fn is_at(&self, port: PortIndex) -> bool {
        self.carries.get(port.index()) == Some(&true)
    }

    /// The end at which a frame arrived.
    #[inline]
    pub fn find(&self, port: PortIndex, vlan: Vlan) -> Option<SiteSlot> {
        self.ends.get(&(port, vlan)).copied()
    }
}

impl Journey {
    /// Whether a frame is for [`Journey::enter`]: on a port with access ends, all but the untagged frames of a WAN.
    #[inline]
    pub(crate) fn is_of_access(&self, packet: &Packet) -> bool {
        self.access.is_at(packet.port)
            && Tagged::parse(packet.frame.bytes())
                .is_ok_and(|frame| frame.vlan != Vlan::UNTAGGED || self.access.find(packet.port, frame.vlan).is_some())
    }

    /// What came in the clear: whose it is, by the port and the VLAN.
    pub(crate) fn enter(&mut self, batch: &mut Batch, now: Time) {
        if self.access.is_empty() {
            return;
        }
        for packet in batch.iter_mut().filter(|p| p.verdict == Verdict::Plain) {
            let end = Tagged::parse(packet.frame.bytes()).ok();
            let end = end.and_then(|frame| Some((frame, self.access.find(packet.port, frame.vlan)?)));
            let Some((frame, slot)) = end else {
                packet.drop(DropReason::AccessUnknown);
                continue;
            };
            let tenant = self.sites.at(slot).tenant;
            (packet.tenant, packet.from) = (Some(tenant), slot);
            self.count_arrived(packet, now);
            let inner = &packet.frame.bytes()[frame.payload_at..];
            packet.verdict = match frame.ethertype {
                arp::ETHERTYPE => Verdict::Control,
                ethernet::IPV6 if ndisc::is_neighbour(inner) => Verdict::Control,
                ethernet::IPV4 | ethernet::IPV6 => {
                    self.rows.site(slot).data_received_at.set(now.0);
                    packet.frame.trim_front(frame.payload_at);
                    Verdict::Forward
                }
                _ => Verdict::Drop(DropReason::AccessUnknown),
            };
        }
    }

    /// What only a gateway has to look at: forged sources, unfinished checksums, and packets to itself.
    pub(crate) fn visit(&mut self, batch: &mut Batch, now: Time) {
        if self.access.is_empty() {
            return;
        }
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            if let Some(link) = self.sites.at(packet.from).link() {
                // It lies in the end's own network, so that the source check finds nothing wrong with it.
                if source_of(packet.frame.bytes()).is_none_or(|source| link.is_own(source)) {
                    packet.drop(DropReason::GatewaySource);
                    continue;
                }
                transport::complete(packet.frame.bytes_mut());
            }
            let Some(link) = self.sites.at(packet.to).link() else { continue };
            if !link.is_own(packet.destination) {
                continue;
            }
            let Some(tenant) = packet.tenant else { unreachable!("it has been routed") };
            if !echo::answer(packet.frame.bytes_mut()) {
                packet.drop(DropReason::GatewayNotPing);
            } else if !self.tenants.at_mut(tenant).may_answer(now) {
                packet.drop(DropReason::IcmpRate);
            } else {
                packet.to = packet.from;
            }
        }
    }

    /// What goes to a neighbour: Ethernet and the tags of its VLAN, and no byte that is not the packet's or zero.
    pub(crate) fn deliver(&mut self, batch: &mut Batch, now: Time) {
        if self.access.is_empty() {
            return;
        }
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let Some(link) = self.sites.at(packet.to).link() else { continue };
            let (source, mtu) = match link.state {
                Ok(open) => open,
                Err(reason) => {
                    packet.drop(reason);
                    continue;
                }
            };
            if packet.inner_len > mtu {
                packet.drop(DropReason::TooLarge);
                continue;
            }
            let Some(next_hop) = destination_of(packet.frame.bytes()).and_then(|address| link.next_hop(address)) else {
                packet.drop(DropReason::Martian);
                continue;
            };
            let Some(Neighbour::Known { mac, fresh_until, told }) =
                self.access.neighbours.get_mut(&(packet.to, next_hop))
            else {
                packet.verdict = Verdict::Resolve;
                continue;
            };
            if now > *fresh_until && !*told {
                *told = self.mail.tell(Event::Neighbour { end: packet.to, address: next_hop });
            }
            let ethertype = if next_hop.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
            let fields = ethernet::Fields { destination: *mac, source, ethertype };
            let (vlan, port) = (link.vlan, link.port);
            packet.frame.prepend(vlan.header_len());
            let Ok(()) = vlan.emit(&fields, packet.frame.bytes_mut()) else { unreachable!("there is room for it") };
            if packet.frame.len() < SHORTEST {
                packet.frame.resize(SHORTEST);
            }
            packet.verdict = Verdict::Transmit(port);
            self.count_left(packet, packet.to, now);
        }
    }

    /// A packet whose neighbour is not known is put on the shelf; what has to make room for it comes back.
    pub(crate) fn await_neighbour(&mut self, mut packet: Packet) -> Option<(Packet, DropReason)> {
        let link = self.sites.at(packet.to).link();
        let next_hop =
            destination_of(packet.frame.bytes()).zip(link).and_then(|(address, link)| link.next_hop(address));
        let Some(key) = next_hop.map(|address| (packet.to, address)) else {
            return Some((packet, DropReason::Martian));
        };
        let end = self.sites.at_mut(packet.to);
        let entry = match self.access.neighbours.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if end.waited_for >= WAITED_FOR => return Some((packet, DropReason::NeighbourLimit)),
            Entry::Vacant(entry) => {
                end.waited_for += 1;
                entry.insert(Neighbour::Waiting { staged: 0, told: false })
            }
        };
        let Neighbour::Waiting { staged, told } = entry else { unreachable!("deliver would have found it") };
        if !*told {
            *told = self.mail.tell(Event::Neighbour { end: key.0, address: key.1 });
        }
        let oldest = if *staged >= PER_NEIGHBOUR { self.take_waiting(key) } else { None };
        self.count_waiting(key, 1);
        // On the shelf this is what it waits for.
        (packet.verdict, packet.destination) = (Verdict::Forward, key.1);
        let evicted = self.shelf.park(packet, &mut self.sites);
        if let Some(evicted) = &evicted {
            self.count_waiting((evicted.to, evicted.destination), -1);
        }
        debug_assert!(oldest.is_none() || evicted.is_none(), "one place was made, and one was needed");
        self.show_staged(key.0);
        oldest.or(evicted).map(|packet| (packet, DropReason::StagedOverflow))
    }

    pub(crate) fn count_waiting(&mut self, key: (SiteSlot, IpAddr), change: i8) {
        if let Some(Neighbour::Waiting { staged, .. }) = self.access.neighbours.get_mut(&key) {
            *staged = staged.saturating_add_signed(change);
        }
    }

    /// The oldest packet that waits for a neighbour.
    fn take_waiting(&mut self, key: (SiteSlot, IpAddr)) -> Option<Packet> {
        let packet = self.shelf.take_first(&mut self.sites, |packet| (packet.to, packet.destination) == key)?;
        self.count_waiting(key, -1);
        Some(packet)
    }

    /// Control has an answer: what waited for it goes out, in its order, or ends here.
    pub(crate) fn neighbour(
        &mut self,
        key: (SiteSlot, IpAddr),
        answer: Result<([u8; 6], Time), DropReason>,
        now: Time,
    ) {
        const { assert!((PER_NEIGHBOUR as usize) < BATCH, "all that waits for one neighbour is one batch") };
        let mut batch = Batch::new();
        if let Some(Neighbour::Waiting { .. }) = self.access.neighbours.get(&key) {
            batch.extend(std::iter::from_fn(|| self.take_waiting(key)));
            self.sites.at_mut(key.0).waited_for -= 1;
        }
        match answer {
            Ok((mac, fresh_until)) => {
                self.access.neighbours.insert(key, Neighbour::Known { mac, fresh_until, told: false });
            }
            Err(reason) => {
                self.access.neighbours.remove(&key);
                batch.iter_mut().for_each(|packet| packet.drop(reason));
            }
        }
        self.send(&mut batch, now);
        self.show_staged(key.0);
    }
}

/// The source of an IP packet whose header was checked.
#[inline]
fn source_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*packet.get(12..16)?.as_array()?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(*packet.get(8..24)?.as_array()?))),
    }
}

/// The destination. Not what the stage `check` has read: an answer of the hub's goes to where its packet came from.
#[inline]
fn destination_of(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::V4(Ipv4Addr::from(*packet.get(16..20)?.as_array()?))),
        _ => Some(IpAddr::V6(Ipv6Addr::from(*packet.get(24..40)?.as_array()?))),
    }
}
