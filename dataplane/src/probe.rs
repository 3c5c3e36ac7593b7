//! Replies to pings of the hub's own, by which control measures the way to a site ([`crate::path_mtu`]).
//!
//! They come to an address of the hub, which is nobody's prefix: so they are found where a packet has no route, or a rule denies it, and
//! no other packet is looked at. How many of a site are told is bounded by how many were asked for.

use crate::mailbox::Event;
use crate::packet::{Packet, Verdict};
use crate::worker::Journey;
use wire::DropReason;
use wire::echo::{self, Reply};

impl Journey {
    /// Tells control of a packet, if it is a reply that control waits for; `false` if it is none.
    pub(crate) fn take_reply(&mut self, packet: &mut Packet) -> bool {
        let site = self.sites.at_mut(packet.from);
        if site.expects == 0 {
            return false;
        }
        let Some(tenant) = packet.tenant else { unreachable!("an opened packet has a tenant") };
        let version = if packet.destination.is_ipv4() { 4 } else { 6 };
        if self.tenants.at_mut(tenant).hub_address(version) != Some(packet.destination) {
            return false;
        }
        let Some(reply) = echo::reply(packet.frame.bytes()) else { return false };
        packet.verdict = Verdict::Told;
        if let Reply::Mark(mark) = reply {
            match self.mail.tell(Event::Reply { site: packet.from, mark }) {
                true => site.expects -= 1,
                false => packet.drop(DropReason::ControlBusy),
            }
        }
        true
    }
}
