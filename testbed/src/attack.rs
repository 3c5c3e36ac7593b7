//! What somebody on the path, or anywhere on the internet, can do: look at sealed packets, repeat and change them, and
//! make up others.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use anyhow::{Context, Result, bail};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::lab::Namespace;
use crate::tap::{Seen, Tap};
use crate::world::{HUB_PORT, HUB_V4, World};

/// The first byte of a WireGuard message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A handshake's first message.
    Initiation = 1,
    /// Its answer.
    Response = 2,
    /// Instead of an answer, under load.
    Cookie = 3,
    /// A sealed packet.
    Data = 4,
}

/// A WireGuard message in a frame.
#[derive(Debug, Clone)]
pub struct Message {
    /// Where it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// Its first byte.
    pub kind: u8,
    /// Where it lies in the frame.
    pub place: Range<usize>,
}

/// Lanes of trunks that any hub here has: each has a port of its own behind the sites'.
const LANES: u16 = 4;

/// The message of WireGuard or of a trunk in an Ethernet frame to or from a hub's UDP port, if it is one.
pub fn message(frame: &[u8]) -> Option<Message> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    let Some(TransportSlice::Udp(udp)) = packet.transport else { return None };
    let (from, to) = (udp.source_port(), udp.destination_port());
    let of_hub = HUB_PORT..HUB_PORT + LANES;
    if !of_hub.contains(&from) && !of_hub.contains(&to) {
        return None;
    }
    let payload = udp.payload();
    let start = payload.as_ptr().addr() - frame.as_ptr().addr();
    let place = start..start + payload.len();
    let (source, destination) = (SocketAddr::new(source, from), SocketAddr::new(destination, to));
    Some(Message { source, destination, kind: *payload.first()?, place })
}

/// Whether a frame carries a message of this kind to a hub.
pub fn is_to_hub(seen: &Seen, kind: Kind) -> bool {
    message(&seen.bytes).is_some_and(|message| message.destination.port() == HUB_PORT && message.kind == kind as u8)
}

/// Whether a frame carries anything to or from a hub's UDP port.
pub fn is_tunnel(seen: &Seen) -> bool {
    message(&seen.bytes).is_some()
}

/// Pieces of an IPv4 frame, each with these bytes of its payload (from the UDP header on), which are cut at multiples of
/// eight. The piece that reaches the payload's end says that it is the last one.
pub fn fragments(frame: &[u8], id: u16, pieces: &[Range<usize>]) -> Result<Vec<Vec<u8>>> {
    const START: usize = 14 + 20;
    let length = frame.len() - START;
    let piece = |range: &Range<usize>| {
        anyhow::ensure!(range.start.is_multiple_of(8) && range.start < range.end, "{range:?} can't be a fragment");
        // What lies beyond the end is made up.
        let at = |n: usize| frame.get(START + n).copied().unwrap_or(0xee);
        let mut header = etherparse::Ipv4HeaderSlice::from_slice(&frame[14..])?.to_header();
        header.identification = id;
        header.more_fragments = range.end < length;
        header.fragment_offset = etherparse::IpFragOffset::try_new((range.start / 8) as u16)?;
        header.set_payload_len(range.len())?;
        header.header_checksum = header.calc_header_checksum();
        let mut piece = frame[..14].to_vec();
        header.write(&mut piece)?;
        piece.extend(range.clone().map(at));
        Ok(piece)
    };
    pieces.iter().map(piece).collect()
}

/// Somebody on the hub's uplink.
#[derive(Debug)]
pub struct Attacker {
    /// The wire to the hub's port `d0`.
    pub wire: Tap,
    macs: ([u8; 6], [u8; 6]),
}

impl Attacker {
    /// At the router's end of the wire to `d0`.
    pub fn new(world: &World) -> Result<Self> {
        Self::at(&world.inet, "h0", &world.hub, "d0")
    }

    fn at(near: &Namespace, interface: &str, far: &Namespace, port: &str) -> Result<Self> {
        Ok(Self { wire: Tap::open(near, interface)?, macs: (near.mac(interface)?, far.mac(port)?) })
    }

    /// A copy of the next message of this kind that goes to the hub from this address.
    pub fn copy(&self, kind: Kind, from: IpAddr) -> Result<Vec<u8>> {
        let wanted = |seen: &Seen| {
            seen.outgoing && is_to_hub(seen, kind) && message(&seen.bytes).is_some_and(|m| m.source.ip() == from)
        };
        Ok(self.wire.wait_for(&format!("{kind:?} from {from}"), wanted)?.bytes)
    }

    /// Sends a frame to the hub so many times.
    pub fn repeat(&self, frame: &[u8], times: usize) -> Result<()> {
        (0..times).try_for_each(|_| self.wire.send(frame))
    }

    /// A frame to the hub with this payload, from a source of the attacker's choice.
    pub fn frame(&self, source: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
        let IpAddr::V4(from) = source.ip() else { bail!("IPv4 alone is made up here") };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.macs.0, self.macs.1)
            .ipv4(from.octets(), HUB_V4.octets(), 64)
            .udp(source.port(), HUB_PORT)
            .write(&mut frame, payload)?;
        Ok(frame)
    }

    /// The same message as in `frame`, from another source.
    pub fn resent_from(&self, frame: &[u8], source: SocketAddr) -> Result<Vec<u8>> {
        let message = message(frame).context("a message")?;
        self.frame(source, &frame[message.place])
    }
}
