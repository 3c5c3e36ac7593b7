//! Access ends as control has them: where they are, what workers know of that, and ARP and neighbour discovery on their VLANs.

use super::Control;
use crate::access::Link;
use crate::clock;
use crate::config::Desired;
use crate::mailbox::Order;
use crate::neighbours::{Action, Claim, Key, Neighbours};
use crate::seats::Seats;
use ahash::AHashMap;
use crypto::Time;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;
use wire::arp::{self, Arp, Operation};
use wire::ndisc::{self, Kind, Neighbour};
use wire::vlan::Tagged;
use wire::{DropReason, PortIndex, SiteSlot, TenantId, TenantSlot, Vlan, ethernet};

/// A station that claims the gateway's address is answered so often at most (RFC 5227, 2.4 names ten seconds for a host that may
/// give its address up; the gateway does not).
const DEFEND: Duration = Duration::from_secs(1);
/// Bytes of the shortest frame, without its check sequence.
const SHORTEST: usize = 60;
const BROADCAST: [u8; 6] = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All access ends, in the order of their slots.
pub(super) struct Ends {
    /// The slot of the first: those of sites come before.
    first: u32,
    all: Vec<End>,
    by_place: AHashMap<(PortIndex, Vlan), usize>,
    pub(super) neighbours: Neighbours,
    /// Which are announced once more, and when: the first may come before a switch forwards what its port sends (RFC 5227, 2.3).
    again: VecDeque<(Time, usize)>,
}

/// Between the two announcements of an end (RFC 5227, 1.1, `ANNOUNCE_INTERVAL`).
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);

/// An access end.
pub(super) struct End {
    pub(super) slot: SiteSlot,
    pub(super) tenant: TenantSlot,
    /// Its tenant's id, and its name in there.
    tenant_id: TenantId,
    pub(super) name: String,
    pub(super) link: Link,
    defended_at: Time,
}

impl Ends {
    pub(super) fn new(desired: &Desired, seats: &Seats) -> Self {
        let mut all = Vec::new();
        let ids: AHashMap<_, _> = seats.tenants(desired).map(|(slot, tenant)| (slot, tenant.id)).collect();
        for (slot, tenant, port, access) in seats.ends(desired) {
            let (addresses, routes) = (access.addresses.clone(), access.routes.clone());
            let link = Link { port, vlan: access.vlan, addresses, routes, state: Err(DropReason::PortDown) };
            all.push(End { slot, tenant, tenant_id: ids[&tenant], name: access.name(), link, defended_at: Time(0) });
        }
        let first = all.first().map_or(u32::MAX, |end| end.slot.0);
        let by_place = all.iter().enumerate().map(|(n, end)| ((end.link.port, end.link.vlan), n)).collect();
        Self { first, all, by_place, neighbours: Neighbours::default(), again: VecDeque::new() }
    }

    /// When something is due here.
    pub(super) fn next(&self) -> Option<Time> {
        let again = self.again.front().map(|(at, _)| *at);
        [again, self.neighbours.next()].into_iter().flatten().min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &End> {
        self.all.iter()
    }

    pub(super) fn at(&self, slot: SiteSlot) -> Option<&End> {
        self.all.get(slot.0.checked_sub(self.first)? as usize)
    }
}

impl Control {
    /// Tells XDP and the workers of all ends, before a port is opened.
    pub(super) fn open_ends(&mut self) -> Result<(), bpf::Error> {
        let mut actions = Vec::new();
        for end in &self.ends.all {
            let (outer_type, outer, inner) = end.link.vlan.parts();
            let attachment = bpf::Attachment { port: end.link.port.0, outer_type, outer, inner };
            let worker = (end.slot.index() % self.workers.len()) as u16;
            self.steering.set_access(attachment, bpf::AccessEnd { site: end.slot.0, worker })?;
        }
        for (slot, tenant, _, access) in self.seats.ends(&self.desired) {
            for (address, mac) in &access.neighbours {
                self.ends.neighbours.fix(tenant, (slot, *address), *mac, &mut actions);
            }
        }
        (0..self.ports.len()).for_each(|port| self.set_links(PortIndex(port as u16)));
        self.ask_neighbours(actions);
        Ok(())
    }

    /// A port's state is another: so are the links of its ends.
    pub(super) fn set_links(&mut self, port: PortIndex) {
        let entry = &self.ports[port.index()];
        let state = match (entry.mac, entry.up) {
            (Some(mac), true) => Ok((mac, entry.mtu.min(self.mtu_max.into()) as u16)),
            _ => Err(DropReason::PortDown),
        };
        for n in (0..self.ends.all.len()).filter(|n| self.ends.all[*n].link.port == port).collect::<Vec<_>>() {
            let end = &mut self.ends.all[n];
            let before = std::mem::replace(&mut end.link.state, state);
            let (slot, link) = (end.slot, end.link.clone());
            self.order_all(|| Order::Link(slot, Box::new(link.clone())));
            if state.is_ok() && state != before {
                self.announce(n);
                self.ends.again.push_back((clock::now() + ANNOUNCE_INTERVAL, n));
            }
            self.end_changed(slot);
        }
    }

    /// A worker has a packet for a neighbour.
    pub(super) fn neighbour_wanted(&mut self, slot: SiteSlot, address: IpAddr) {
        let Some(tenant) = self.ends.at(slot).map(|end| end.tenant) else { return };
        let mut actions = Vec::new();
        self.ends.neighbours.want(tenant, (slot, address), clock::now(), &mut actions);
        self.ask_neighbours(actions);
    }

    /// What is due: second announcements, and in the table of neighbours.
    pub(super) fn poll_ends(&mut self) {
        let now = clock::now();
        while let Some((_, n)) = self.ends.again.pop_front_if(|(at, _)| *at <= now) {
            self.announce(n);
        }
        let mut actions = Vec::new();
        self.ends.neighbours.poll(now, &mut actions);
        self.ask_neighbours(actions);
    }

    fn ask_neighbours(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Ask(key, mac) => self.ask_neighbour(key, mac),
                Action::Tell((slot, address), mac, until) => {
                    self.order_all(|| Order::Neighbour(slot, address, Ok((mac, until))));
                }
                Action::Forget((slot, address), reason) => {
                    self.order_all(|| Order::Neighbour(slot, address, Err(reason)));
                }
            }
        }
    }

    fn ask_neighbour(&mut self, (slot, address): Key, station: Option<[u8; 6]>) {
        let Some(end) = self.ends.at(slot) else { return };
        let Ok((own_mac, _)) = end.link.state else { return };
        let own = end.link.addresses.iter().find(|net| net.contains(&address)).map(|net| net.addr());
        match (address, own) {
            (IpAddr::V4(target), Some(IpAddr::V4(sender))) => {
                let operation = Operation::Request;
                let ask = Arp { operation, sender_mac: own_mac, sender, target_mac: [0; 6], target };
                self.say(slot, station.unwrap_or(BROADCAST), arp::ETHERTYPE, &ask.bytes());
            }
            (IpAddr::V6(target), Some(IpAddr::V6(source))) => {
                let group = ndisc::solicited_node(target);
                let destination = if station.is_some() { target } else { group };
                let mac = Some(own_mac);
                let ask = Neighbour { kind: Kind::Solicitation, source, destination, target, mac };
                self.say(slot, station.unwrap_or(ndisc::group_mac(group)), ethernet::IPV6, &ask.bytes());
            }
            _ => {} // an address that no network has: workers do not ask for one
        }
    }

    /// A frame of the hub's own on an end's VLAN.
    fn say(&mut self, slot: SiteSlot, destination: [u8; 6], ethertype: u16, payload: &[u8]) {
        let Some(end) = self.ends.at(slot) else { return };
        let Ok((source, _)) = end.link.state else { return };
        let (port, vlan) = (end.link.port, end.link.vlan);
        let mut frame = vec![0; vlan.header_len()];
        if vlan.emit(&ethernet::Fields { destination, source, ethertype }, &mut frame).is_ok() {
            frame.extend_from_slice(payload);
            frame.resize(frame.len().max(SHORTEST), 0);
            self.emit(slot.index(), port, frame);
        }
    }

    /// All stations hear where the gateway is: at the start, with a new MAC address, and when another claims to be it.
    fn announce(&mut self, n: usize) {
        let end = &self.ends.all[n];
        let (slot, Ok((mac, _))) = (end.slot, end.link.state) else { return };
        for net in end.link.addresses.clone() {
            match net.addr() {
                // A request for itself, as RFC 5227, 3 has it.
                IpAddr::V4(own) => {
                    let operation = Operation::Request;
                    let tell = Arp { operation, sender_mac: mac, sender: own, target_mac: [0; 6], target: own };
                    self.say(slot, BROADCAST, arp::ETHERTYPE, &tell.bytes());
                }
                IpAddr::V6(own) => self.advertise(slot, (own, mac), ALL_NODES, ndisc::group_mac(ALL_NODES)),
            }
        }
    }

    fn advertise(&mut self, slot: SiteSlot, own: (Ipv6Addr, [u8; 6]), to: Ipv6Addr, station: [u8; 6]) {
        let (target, mac) = own;
        let kind = Kind::Advertisement { router: true, solicited: !to.is_multicast(), overrides: true };
        let tell = Neighbour { kind, source: target, destination: to, target, mac: Some(mac) };
        self.say(slot, station, ethernet::IPV6, &tell.bytes());
    }

    /// A frame from an access end. `None`: it is none.
    pub(super) fn hear_access(&mut self, port: PortIndex, frame: &[u8]) -> Option<Result<(), DropReason>> {
        let tagged = Tagged::parse(frame).ok()?;
        let n = *self.ends.by_place.get(&(port, tagged.vlan))?;
        let end = &self.ends.all[n];
        let Ok((own_mac, _)) = end.link.state else { return Some(Err(DropReason::PortDown)) };
        if tagged.source == own_mac {
            return Some(Err(DropReason::NeighbourIgnored)); // a switch that sends the hub's own frames back
        }
        let message = &frame[tagged.payload_at..];
        Some(match tagged.ethertype {
            arp::ETHERTYPE => match Arp::parse(message) {
                Ok(arp) if arp.sender_mac[0] & 1 == 0 => self.hear_arp(n, own_mac, arp),
                _ => Err(DropReason::NeighbourMalformed),
            },
            _ => match Neighbour::parse(message) {
                Ok(neighbour) => self.hear_neighbour(n, own_mac, neighbour, tagged.source),
                Err(_) => Err(DropReason::NeighbourMalformed),
            },
        })
    }

    fn hear_arp(&mut self, n: usize, own_mac: [u8; 6], arp: Arp) -> Result<(), DropReason> {
        let (slot, link) = (self.ends.all[n].slot, &self.ends.all[n].link);
        if link.is_own(arp.sender.into()) {
            return self.defend(n, arp.sender.into(), arp.sender_mac);
        }
        let asked = arp.operation == Operation::Request && link.is_own(arp.target.into());
        let answer = Arp {
            operation: Operation::Reply,
            sender_mac: own_mac,
            sender: arp.target,
            target_mac: arp.sender_mac,
            target: arp.sender,
        };
        if asked && arp.sender == Ipv4Addr::UNSPECIFIED {
            // It looks whether the address is free (RFC 5227, 2.1.1): it is not.
            self.say(slot, arp.sender_mac, arp::ETHERTYPE, &answer.bytes());
            return Ok(());
        }
        if !link.addresses.iter().any(|net| net.contains(&IpAddr::V4(arp.sender))) {
            return Err(DropReason::NeighbourForeign);
        }
        let answers = arp.operation == Operation::Reply && link.is_own(arp.target.into());
        if asked {
            self.say(slot, arp.sender_mac, arp::ETHERTYPE, &answer.bytes());
        }
        self.claim(n, Claim { key: (slot, arp.sender.into()), mac: arp.sender_mac, answers }, asked)
    }

    fn hear_neighbour(
        &mut self,
        n: usize,
        own_mac: [u8; 6],
        heard: Neighbour,
        sender: [u8; 6],
    ) -> Result<(), DropReason> {
        let (slot, link) = (self.ends.all[n].slot, &self.ends.all[n].link);
        let on_link = |address: Ipv6Addr| link.addresses.iter().any(|net| net.contains(&IpAddr::V6(address)));
        let mac = heard.mac.unwrap_or(sender);
        if mac[0] & 1 != 0 {
            return Err(DropReason::NeighbourMalformed);
        }
        match heard.kind {
            Kind::Advertisement { solicited, .. } => {
                if link.is_own(heard.target.into()) {
                    return self.defend(n, heard.target.into(), mac);
                }
                if heard.target.is_unicast_link_local() {
                    return Err(DropReason::NeighbourIgnored);
                }
                if !on_link(heard.target) {
                    return Err(DropReason::NeighbourForeign);
                }
                self.claim(n, Claim { key: (slot, heard.target.into()), mac, answers: solicited }, false)
            }
            Kind::Solicitation => {
                let asked = link.is_own(heard.target.into());
                if link.is_own(heard.source.into()) {
                    return self.defend(n, heard.source.into(), mac);
                }
                if heard.source.is_unspecified() {
                    if asked {
                        self.advertise(slot, (heard.target, own_mac), ALL_NODES, ndisc::group_mac(ALL_NODES));
                    }
                    return if asked { Ok(()) } else { Err(DropReason::NeighbourIgnored) };
                }
                let local = heard.source.is_unicast_link_local();
                if !local && !on_link(heard.source) {
                    return Err(DropReason::NeighbourForeign);
                }
                if asked {
                    self.advertise(slot, (heard.target, own_mac), heard.source, mac);
                }
                match local {
                    true if asked => Ok(()),
                    true => Err(DropReason::NeighbourIgnored),
                    false => self.claim(n, Claim { key: (slot, heard.source.into()), mac, answers: false }, asked),
                }
            }
        }
    }

    /// A station says that an address is its own. Who asked for the gateway need not have told anything new.
    fn claim(&mut self, n: usize, claim: Claim, asked: bool) -> Result<(), DropReason> {
        let mut actions = Vec::new();
        let result = self.ends.neighbours.heard(claim, clock::now(), &mut actions);
        self.ask_neighbours(actions);
        match result {
            Err(DropReason::NeighbourIgnored) if asked => Ok(()),
            Err(DropReason::NeighbourConflict) => {
                self.accuse(n, claim.key.1, claim.mac, "a neighbour's");
                Err(DropReason::NeighbourConflict)
            }
            other => other,
        }
    }

    /// A station claims an address of the gateway: who heard it hears the gateway, too.
    fn defend(&mut self, n: usize, address: IpAddr, mac: [u8; 6]) -> Result<(), DropReason> {
        let now = clock::now();
        let end = &mut self.ends.all[n];
        if now.since(end.defended_at) >= DEFEND {
            end.defended_at = now;
            self.announce(n);
        }
        self.accuse(n, address, mac, "the gateway's");
        Err(DropReason::GatewayClaimed)
    }

    fn accuse(&mut self, n: usize, address: IpAddr, mac: [u8; 6], whose: &str) {
        if let Some(silent) = self.complaints.ready(std::time::Instant::now()) {
            let end = &self.ends.all[n];
            let (id, name) = (end.tenant_id, &end.name);
            let station = super::report::mac_text(mac);
            tracing::warn!(silent, "tenant {id}, {name}: station {station} claims {whose} address {address}");
        }
    }
}
