//! The shelf for packets whose site has no session yet: bounded per site, per tenant and in all, oldest out first.

use crate::packet::Packet;
use crate::sites::Sites;
use wire::SiteSlot;

/// Packets that one site's handshake may keep waiting, per worker: a TCP flow's first window.
pub const PER_SITE: u16 = 64;
/// Packets of one tenant on the shelf, per worker: four sites starting at once.
pub const PER_TENANT: u16 = 256;
/// Packets on the shelf in all, per worker. Chunks are reserved for them: a full shelf starves no ring.
pub const IN_ALL: usize = 1024;

/// One worker's shelf, in the order of arrival.
#[derive(Debug)]
pub struct Shelf {
    packets: Vec<Packet>,
    tenants: Vec<u16>,
}

impl Shelf {
    /// An empty shelf for so many tenants; it never allocates again.
    pub fn new(tenants: usize) -> Self {
        Self { packets: Vec::with_capacity(IN_ALL), tenants: vec![0; tenants] }
    }

    /// Packets on the shelf.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether the shelf is empty.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Parks a packet, and returns the one that had to make room: the oldest of the same site, of the same tenant, or of all.
    ///
    /// A full shelf costs one scan of at most [`IN_ALL`] packets; only a site without a session can cause it.
    pub fn park(&mut self, packet: Packet, sites: &mut Sites) -> Option<Packet> {
        // Nobody's are only what a hub says by a lane.
        let parked = |this: &Self| packet.tenant.map_or(0, |tenant| this.tenants[tenant.index()]);
        let evicted = if sites.at(packet.to).staged >= PER_SITE {
            let to = packet.to;
            self.take_first(sites, |p| p.to == to)
        } else if parked(self) >= PER_TENANT {
            self.take_first(sites, |p| p.tenant == packet.tenant)
        } else if self.packets.len() >= IN_ALL {
            self.take_first(sites, |_| true)
        } else {
            None
        };
        sites.at_mut(packet.to).staged += 1;
        if let Some(tenant) = packet.tenant {
            self.tenants[tenant.index()] += 1;
        }
        self.packets.push(packet);
        evicted
    }

    /// Takes the oldest packet for this site.
    pub fn take(&mut self, site: SiteSlot, sites: &mut Sites) -> Option<Packet> {
        if sites.at(site).staged == 0 {
            return None;
        }
        self.take_first(sites, |p| p.to == site)
    }

    /// Takes the oldest packet that is `wanted`.
    pub fn take_first(&mut self, sites: &mut Sites, wanted: impl Fn(&Packet) -> bool) -> Option<Packet> {
        let at = self.packets.iter().position(wanted)?;
        let packet = self.packets.remove(at);
        sites.at_mut(packet.to).staged -= 1;
        if let Some(tenant) = packet.tenant {
            self.tenants[tenant.index()] -= 1;
        }
        Some(packet)
    }
}
