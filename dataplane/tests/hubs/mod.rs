//! Hubs in memory with the same two tenants, joined by trunks; what happens between them, and their books.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::sync::Arc;

use classifier::Target;
use crypto::aead::Cipher;
use ekiden_dataplane::mailbox::{Order, Source};
use ekiden_dataplane::rehearsal::joined::join;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6, routes};
use ekiden_dataplane::trunk::Trunk;
use wire::{DropReason, Inner, Outer, SiteSlot, TenantId, TenantSlot, Vlan};

pub(crate) const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
/// Both tenants have the same addresses.
pub(crate) const TENANTS: [u64; 2] = [1001, 2002];
/// The hubs' address to a tenant, as the rehearsal has it.
pub(crate) const HUB_V4: [u8; 4] = [192, 0, 0, 8];
pub(crate) const HUB_V6: &str = "fd00:9::1";
/// Slots of each hub: two sites of the first tenant, two of the second, an access end of each; then lanes and what is carried.
pub(crate) const SITES: u32 = 4;

pub(crate) fn tenant(slot: usize) -> TenantId {
    TenantId::new(TENANTS[slot]).expect("24 bits")
}

pub(crate) fn vlan(tenant: usize) -> Vlan {
    Vlan::tagged(100 + tenant as u16).expect("an id")
}

/// The networks of a hub: its tenants' first site, their second, and their access end.
pub(crate) fn nets(hub: usize) -> [u8; 3] {
    let first = 1 + 3 * hub as u8;
    [first, first + 1, first + 2]
}

pub(crate) fn v4(net: u8) -> [u8; 4] {
    [10, 9, net, 1]
}

pub(crate) fn v6(net: u8) -> String {
    format!("fd00:9:{net}::1")
}

/// A packet of each version from net to net.
pub(crate) fn packets(from: u8, to: u8, hops: u8, len: usize) -> [Vec<u8>; 2] {
    [ipv4(v4(from), v4(to), hops, len), ipv6(&v6(from), &v6(to), hops, len)]
}

/// One hub and another, and the trunk as the first of them knows it.
pub(crate) struct Side {
    pub(crate) hub: usize,
    pub(crate) other: usize,
    pub(crate) trunk: Arc<Trunk>,
}

/// What came to a site: at which hub, which site, and the packet without padding.
pub(crate) type Arrival = (usize, usize, Vec<u8>);

pub(crate) struct World {
    pub(crate) hubs: Vec<Rehearsal>,
    pub(crate) sides: Vec<Side>,
    received: Vec<u64>,
    sent: Vec<u64>,
}

impl World {
    /// Hubs in a row, each joined to the next, all of whose networks are routed there.
    pub(crate) fn row(count: usize, lanes: usize, cipher: Cipher) -> Self {
        let hub = |number: usize| {
            let [a, b, c] = nets(number);
            let of = |net: u8| vec![format!("10.9.{net}.0/24"), format!("fd00:9:{net}::/64")];
            let texts = [of(a), of(b)];
            let sites: Vec<Vec<&str>> = texts.iter().map(|site| site.iter().map(String::as_str).collect()).collect();
            let gateway = [format!("10.9.{c}.254/24"), format!("fd00:9:{c}::fe/64")];
            let gateway: Vec<&str> = gateway.iter().map(String::as_str).collect();
            let access = [(0, vlan(0), &gateway[..]), (1, vlan(1), &gateway[..])];
            Rehearsal::numbered(number as u8, &[sites.clone(), sites], &access, 1024, 64)
        };
        let mut this = Self {
            hubs: (0..count).map(hub).collect(),
            sides: Vec::new(),
            received: vec![0; count],
            sent: vec![0; count],
        };
        for first in 0..count - 1 {
            let [one, other] = this.hubs.get_disjoint_mut([first, first + 1]).expect("two hubs");
            let tenants = [tenant(0), tenant(1)];
            let [there, back] = join([one, other], lanes, cipher, &tenants);
            this.sides.push(Side { hub: first, other: first + 1, trunk: there });
            this.sides.push(Side { hub: first + 1, other: first, trunk: back });
        }
        (0..count).for_each(|hub| this.route(hub, &[]));
        this
    }

    /// Two hubs.
    pub(crate) fn pair(lanes: usize, cipher: Cipher) -> Self {
        Self::row(2, lanes, cipher)
    }

    /// The routes of a hub: its own networks, those of the others behind the next of the row, and `more`, each a tenant, a prefix and
    /// the hub that it is behind.
    pub(crate) fn route(&mut self, hub: usize, more: &[(usize, &str, usize)]) {
        let [a, b, c] = nets(hub);
        let text = |net: u8| [format!("10.9.{net}.0/24"), format!("fd00:9:{net}::/64")];
        let mut tables = routes(&[]);
        for t in 0..2u32 {
            let own = [(a, 2 * t), (b, 2 * t + 1), (c, SITES + t)];
            for (net, slot) in own {
                for prefix in text(net) {
                    tables.add(TenantSlot(t), prefix.parse().expect("a prefix"), Target::Site(SiteSlot(slot)));
                }
            }
            for other in (0..self.hubs.len()).filter(|other| *other != hub) {
                let next = if other > hub { hub + 1 } else { hub - 1 };
                let end = self.carried(hub, next, t as usize);
                for prefix in nets(other).into_iter().flat_map(text) {
                    tables.add(TenantSlot(t), prefix.parse().expect("a prefix"), Target::Site(end));
                }
            }
        }
        for (t, prefix, next) in more {
            let end = self.carried(hub, *next, *t);
            tables.add(TenantSlot(*t as u32), prefix.parse().expect("a prefix"), Target::Site(end));
        }
        self.hubs[hub].journey.tables = Arc::new(tables.build());
    }

    /// A hub's trunk to another, as it knows it.
    pub(crate) fn trunk(&self, hub: usize, other: usize) -> &Arc<Trunk> {
        let side = self.sides.iter().find(|side| (side.hub, side.other) == (hub, other));
        &side.expect("they are joined").trunk
    }

    /// The slot of a lane.
    pub(crate) fn lane(&self, hub: usize, other: usize, n: usize) -> SiteSlot {
        self.trunk(hub, other).lanes[n]
    }

    /// The end of a tenant that a trunk is.
    pub(crate) fn carried(&self, hub: usize, other: usize, t: usize) -> SiteSlot {
        self.trunk(hub, other).carried[&tenant(t)]
    }

    /// Changes what a hub knows of its trunk to another.
    pub(crate) fn change(&mut self, hub: usize, other: usize, change: impl FnOnce(&mut Trunk)) {
        let side = self.sides.iter_mut().find(|side| (side.hub, side.other) == (hub, other)).expect("they are joined");
        let old = &side.trunk;
        let mut new = Trunk {
            lanes: old.lanes.clone(),
            live: old.live.clone(),
            carried: old.carried.clone(),
            denied: old.denied.clone(),
            ..**old
        };
        change(&mut new);
        side.trunk = Arc::new(new);
        let order = Order::Trunk(side.trunk.clone());
        self.hubs[hub].obey(order);
    }

    /// A packet of a site as it comes to its hub.
    pub(crate) fn seal(&self, hub: usize, site: usize, packet: &[u8]) -> Vec<u8> {
        self.hubs[hub].seal(site, packet)
    }

    /// Lets frames come to a hub; what it puts out. Then its books balance.
    pub(crate) fn pass(&mut self, hub: usize, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        self.received[hub] += frames.len() as u64;
        let out = self.hubs[hub].pass(frames);
        self.left(hub, out)
    }

    /// What a frame that comes to a hub is dropped for, with nothing else.
    pub(crate) fn dropped_for(&mut self, hub: usize, frame: Vec<u8>) -> DropReason {
        self.received[hub] += 1;
        self.hubs[hub].dropped_for(frame)
    }

    /// Carries out an order of control's at a hub; what it puts out.
    pub(crate) fn obey(&mut self, hub: usize, order: Order) -> Vec<Vec<u8>> {
        self.hubs[hub].obey(order);
        let out = self.hubs[hub].leave();
        self.left(hub, out)
    }

    /// What a hub has put out, and its books: received + generated = sent + dropped + to control + keepalives + on the shelf.
    pub(crate) fn left(&mut self, hub: usize, frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.sent[hub] += frames.len() as u64;
        let this = &self.hubs[hub];
        let turns = &this.journey.rows.turns;
        let dropped: u64 = this.drops().iter().map(|(_, n)| n).sum();
        let ended = self.sent[hub] + dropped + turns.to_control.read() + turns.keepalives.read();
        let all = self.received[hub] + turns.generated.read() + turns.reassembled.read();
        assert_eq!(all, ended + this.journey.shelf.len() as u64, "the books of hub {hub}: {:?}", this.drops());
        let (found, all) = this.census();
        assert_eq!(found, all, "a chunk of hub {hub} is lost");
        frames
    }

    /// Hands frames that left hubs to whom they are for, and so on, until all are with sites. Each is of an inner packet.
    pub(crate) fn deliver(&mut self, frames: Vec<Vec<u8>>, from: usize) -> Vec<Arrival> {
        let (mut arrivals, mut under_way) = (Vec::new(), vec![(from, frames)]);
        while let Some((hub, frames)) = under_way.pop() {
            let mut for_others = vec![Vec::new(); self.hubs.len()];
            for frame in frames {
                match self.hubs.iter().position(|hub| hub.is_for(&frame)) {
                    Some(other) => for_others[other].push(frame),
                    None => arrivals.push(self.arrival(hub, &frame)),
                }
            }
            for (other, frames) in for_others.into_iter().enumerate().filter(|(_, frames)| !frames.is_empty()) {
                let out = self.pass(other, &frames);
                under_way.push((other, out));
            }
        }
        arrivals
    }

    /// A frame that leaves a hub for one of its sites.
    pub(crate) fn arrival(&self, hub: usize, frame: &[u8]) -> Arrival {
        let (site, mut packet) = self.hubs[hub].open(frame).expect("a data message for a site of this hub");
        let len = Inner::parse(&packet).expect("a packet").len;
        assert!(packet[len..].iter().all(|byte| *byte == 0), "padding that is not zero");
        packet.truncate(len);
        (hub, site, packet)
    }

    /// From a site to wherever it goes.
    pub(crate) fn send(&mut self, hub: usize, site: usize, packet: &[u8]) -> Vec<Arrival> {
        let frame = self.seal(hub, site, packet);
        let out = self.pass(hub, &[frame]);
        self.deliver(out, hub)
    }

    /// What control got from a hub's worker.
    pub(crate) fn parcels(&mut self, hub: usize) -> Vec<(Source, Vec<u8>)> {
        let control = &mut self.hubs[hub].control;
        let mut all = Vec::new();
        while let Some(parcel) = control.parcel() {
            all.push((parcel.from, parcel.frame().to_vec()));
            control.recycle(parcel);
        }
        all
    }

    /// What one hub counted as sent by its lanes to another the other counted as received, by lane and by tenant: if nothing was lost.
    pub(crate) fn lanes_agree(&self, hub: usize, other: usize) {
        let (sender, receiver) = (&self.hubs[hub].journey.rows, &self.hubs[other].journey.rows);
        let (there, back) = (self.trunk(hub, other), self.trunk(other, hub));
        let mut all = [0; 2];
        for (near, far) in there.lanes.iter().zip(&back.lanes) {
            let (tx, rx) = (sender.site(*near), receiver.site(*far));
            assert_eq!(tx.tx_packets.read() + tx.tx_keepalives.read(), rx.rx_outer_packets.read(), "packets of a lane");
            assert_eq!(tx.tx_outer_bytes.read(), rx.rx_outer_bytes.read(), "bytes of a lane");
            assert_eq!(tx.tx_keepalives.read(), rx.rx_keepalives.read(), "keepalives of a lane");
            assert_eq!((rx.rx_packets.read(), rx.rx_bytes.read(), tx.tx_bytes.read()), (0, 0, 0), "a lane is nobody's");
            assert!(tx.data_sent_at.read() != 0 || tx.tx_packets.read() == 0);
            all[0] += tx.tx_packets.read();
            all[1] += tx.tx_outer_bytes.read();
        }
        let mut carried = [0; 2];
        for t in 0..2 {
            let (tx, rx) = (sender.site(self.carried(hub, other, t)), receiver.site(self.carried(other, hub, t)));
            assert_eq!(tx.tx_packets.read(), rx.rx_outer_packets.read(), "packets of tenant {t}");
            assert_eq!(tx.tx_outer_bytes.read(), rx.rx_outer_bytes.read(), "outer bytes of tenant {t}");
            assert_eq!((tx.tx_keepalives.read(), rx.rx_keepalives.read()), (0, 0));
            carried[0] += tx.tx_packets.read();
            carried[1] += tx.tx_outer_bytes.read();
        }
        assert!(carried[0] <= all[0] && carried[1] <= all[1], "the rest is the hubs' own");
    }

    /// The sums over a tenant's ends are the tenant's.
    pub(crate) fn tenants_add_up(&self, hub: usize) {
        let rows = &self.hubs[hub].journey.rows;
        for t in 0..2usize {
            let carried = self.sides.iter().filter(|side| side.hub == hub).map(|side| side.trunk.carried[&tenant(t)]);
            let own = [2 * t as u32, 2 * t as u32 + 1, SITES + t as u32].map(SiteSlot);
            let (mut sums, volume) = ([0; 7], rows.volume(TenantSlot(t as u32)));
            for end in own.into_iter().chain(carried) {
                let row = rows.site(end);
                let values = [
                    &row.rx_packets,
                    &row.rx_bytes,
                    &row.rx_outer_packets,
                    &row.rx_outer_bytes,
                    &row.tx_packets,
                    &row.tx_bytes,
                    &row.tx_outer_bytes,
                ];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value.read());
            }
            let all = [
                &volume.rx_packets,
                &volume.rx_bytes,
                &volume.rx_outer_packets,
                &volume.rx_outer_bytes,
                &volume.tx_packets,
                &volume.tx_bytes,
                &volume.tx_outer_bytes,
            ];
            assert_eq!(sums, all.map(|value| value.read()), "tenant {t} of hub {hub}");
        }
    }
}

/// The UDP port that a frame goes to.
pub(crate) fn port(frame: &[u8]) -> u16 {
    Outer::parse(frame).expect("a datagram").destination().port()
}
