//! A frame on its journey, and what the stages have found out about it.

use crate::mailbox::Source;
use crate::xsk::Frame;
use arrayvec::ArrayVec;
use std::net::{IpAddr, Ipv4Addr};
use wire::{DropReason, Ecn, PortIndex, SiteSlot, TenantSlot, geneve};

/// Frames that travel together: as many as one receive takes, one AEAD call seals, one kick sends.
pub const BATCH: usize = 64;

/// A batch of packets, in the order in which they arrived.
pub type Batch = ArrayVec<Packet, BATCH>;

/// What is to become of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next stage.
    Forward,
    /// It ends here.
    Drop(DropReason),
    /// It is a handshake message or a fragment: control gets a copy.
    Control,
    /// It is what another hub says to this one: control gets a copy.
    Message,
    /// It was for control, which has been told what it says.
    Told,
    /// It ended here and was counted.
    Counted,
    /// It is a site's keepalive: accepted, and at its end.
    Keepalive,
    /// It came in the clear, by an access port.
    Plain,
    /// It waits until its destination has a session.
    Stage,
    /// It waits until the MAC address of its neighbour is known.
    Resolve,
    /// It is sealed and addressed: transmit it on this port.
    Transmit(PortIndex),
}

/// One packet of a batch.
#[derive(Debug)]
pub struct Packet {
    /// Its bytes: the whole frame at first, then the inner packet, then a whole frame again.
    pub frame: Frame,
    /// Where it stands.
    pub verdict: Verdict,
    /// The port it came by.
    pub port: PortIndex,
    /// Its tenant, as soon as a session told it. From then on it is counted there.
    pub tenant: Option<TenantSlot>,
    /// The site that sent it.
    pub from: SiteSlot,
    /// The site that gets it.
    pub to: SiteSlot,
    /// What carries it, if it goes by a trunk: then `to` is the lane.
    pub tagged: Option<SiteSlot>,
    /// The receiver index it came under.
    pub index: u32,
    /// The counter it came under.
    pub counter: u64,
    /// Bytes of its frame as it arrived.
    pub outer_len: u16,
    /// Bytes of the inner IP packet, without padding.
    pub inner_len: u16,
    /// The inner destination.
    pub destination: IpAddr,
    /// Congestion notification of the outer header it came under, then of the one it leaves under.
    pub ecn: Ecn,
    /// The class of its traffic, as its inner header says.
    pub dscp: u8,
    /// It came from, or to, another address than its site's last known: which, in the batch's list of such.
    pub moved: Option<u8>,
}

impl Packet {
    /// A frame that has just come in by `port`.
    pub fn arrived(frame: Frame, port: PortIndex) -> Self {
        let outer_len = frame.len() as u16;
        Self {
            frame,
            verdict: Verdict::Forward,
            port,
            tenant: None,
            from: SiteSlot(0),
            to: SiteSlot(0),
            tagged: None,
            index: 0,
            counter: 0,
            outer_len,
            inner_len: 0,
            destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ecn: Ecn::NotEct,
            dscp: 0,
            moved: None,
        }
    }

    /// Whether the next stage has to look at it.
    #[inline]
    pub fn goes_on(&self) -> bool {
        self.verdict == Verdict::Forward
    }

    /// Whether it waits for something that another worker may know already.
    #[inline]
    pub fn waits(&self) -> bool {
        matches!(self.verdict, Verdict::Stage | Verdict::Resolve)
    }

    /// The bytes of the tag that it gets when it is sealed.
    #[inline]
    pub fn tag_len(&self) -> usize {
        if self.tagged.is_some() { geneve::HEADER } else { 0 }
    }

    /// Where control's copy of it is from.
    pub fn source(&self) -> Source {
        if self.verdict == Verdict::Message { Source::Lane(self.from) } else { Source::Port(self.port) }
    }

    /// Ends its journey.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.verdict = Verdict::Drop(reason);
    }
}
