//! What the stage `adapt` does so that packets fit the way on: the size of TCP's segments, and fragments of IPv4. And what is done
//! where nothing may be cut inside and nothing smaller will be sent, as with IPv6 packets of 1,280 bytes: they are cut outside.
//!
//! A packet that may be fragmented becomes the first of its fragments, in its own chunk. The others take chunks of the pool and
//! wait in [`Journey::pieces`], since a batch has no room for them; at the end of the turn they are sealed as a batch of their
//! own. They are generated packets, for the books.

use crate::memory::mtu_max;
use crate::packet::{BATCH, Batch, Packet, Verdict};
use crate::sites::Site;
use crate::worker::Journey;
use crate::xsk::{Frame, HEADROOM};
use crypto::aead::TAG;
use crypto::message::DATA_HEADER;
use crypto::{Protocol, Time};
use wire::fragment::{Cuts, CutsV6};
use wire::{DropReason, ethernet, ipv6, tcp};

/// Fragments that one turn may make, besides the first ones.
pub const PIECES_MAX: usize = 2 * BATCH;

/// A packet that opens a TCP connection: what it says of the segments that its sender takes is also what the way back takes, and
/// the other end's answer says the same of this way. So each is held to the narrower one.
pub(crate) fn clamp(packet: &mut Packet, from: &Site, to: &Site) {
    let narrowest = [from, to].into_iter().filter_map(Site::payload_max).min();
    if let Some(mtu) = narrowest {
        tcp::clamp_mss(packet.frame.bytes_mut(), mtu);
    }
}

impl Journey {
    /// Cuts a packet that does not fit; `false` if it must not be cut, and its source is to be told.
    pub(crate) fn fragment(&mut self, packet: &mut Packet, mtu: u16) -> bool {
        // A piece has a chunk, whatever the way to the site takes.
        let mtu = mtu.min(mtu_max(self.umem.chunk_size() as usize) as u16);
        let Some(cuts) = Cuts::new(packet.frame.bytes(), mtu) else { return false };
        if self.pieces.len() + cuts.count() - 1 > PIECES_MAX || self.pool.len() < cuts.count() {
            packet.drop(DropReason::NoChunk);
            return true;
        }
        for n in 1..cuts.count() {
            let Some(mut frame) = self.pool.pop() else { unreachable!("there are as many") };
            frame.reset(HEADROOM, cuts.len(n));
            cuts.write(packet.frame.bytes(), n, frame.bytes_mut());
            let mut piece = Packet::arrived(frame, packet.port);
            (piece.tenant, piece.from, piece.to) = (packet.tenant, packet.from, packet.to);
            (piece.inner_len, piece.ecn, piece.dscp) = (cuts.len(n) as u16, packet.ecn, packet.dscp);
            self.rows.turns.generated.add(1);
            self.pieces.push(piece);
        }
        cuts.shorten(packet.frame.bytes_mut());
        packet.frame.resize(cuts.len(0));
        packet.inner_len = cuts.len(0) as u16;
        true
    }

    /// No IPv6 link takes less than 1,280 bytes (RFC 8200, 5), and a tunnel is one: of a packet that is no longer nobody can be asked to
    /// send a shorter one.
    #[cold]
    pub(crate) fn must_pass(&self, packet: &Packet) -> bool {
        usize::from(packet.inner_len) <= ipv6::MTU_MIN
            && packet.frame.bytes().first().is_some_and(|byte| byte >> 4 == 6)
            && self.sites.at(packet.to).link().is_none()
    }

    /// Cuts what is sealed, and too long for its way: outside, as RFC 2473, 7.1 (a) wants it.
    #[cold]
    pub(crate) fn cut_outside(&mut self, batch: &mut Batch) {
        for packet in batch.iter_mut().filter(|packet| matches!(packet.verdict, Verdict::Transmit(_))) {
            let site = self.sites.at(packet.to);
            let Ok(path) = &site.way.out else { continue }; // an access end's
            let headers = path.template.header_len();
            let around = headers - ethernet::HEADER + DATA_HEADER + site.tag_len() + TAG;
            let mtu = path.payload_max + around as u16;
            if packet.frame.len() - ethernet::HEADER <= usize::from(mtu) {
                continue;
            }
            // Of all workers' packets to this site, this one alone has its counter.
            let message = &packet.frame.bytes()[headers..];
            let id = Protocol::recognise(message).and_then(|(protocol, _)| protocol.parse_data(message));
            let id = id.map_or(0, |(index, counter)| index ^ counter as u32);
            let cuts = Outside::new(&packet.frame.bytes()[ethernet::HEADER..], mtu, id);
            let Some(cuts) = cuts else { continue };
            if self.pieces.len() + cuts.count() - 1 > PIECES_MAX || self.pool.len() < cuts.count() {
                packet.drop(DropReason::NoChunk);
                continue;
            }
            let whole = packet.frame.len();
            let mut sent = 0;
            for n in 1..cuts.count() {
                let Some(mut frame) = self.pool.pop() else { unreachable!("there are as many") };
                frame.reset(HEADROOM, ethernet::HEADER + cuts.len(n));
                let (ethernet, ip) = packet.frame.bytes().split_at(ethernet::HEADER);
                let (header, out) = frame.bytes_mut().split_at_mut(ethernet::HEADER);
                header.copy_from_slice(ethernet);
                cuts.write(ip, n, out);
                sent += frame.len();
                let mut piece = Packet::arrived(frame, packet.port);
                (piece.tenant, piece.from, piece.to) = (packet.tenant, packet.from, packet.to);
                piece.verdict = packet.verdict;
                self.rows.turns.generated.add(1);
                self.pieces.push(piece);
            }
            cuts.shorten(&mut packet.frame);
            let more = (sent + packet.frame.len() - whole) as u64;
            for end in [Some(packet.to), packet.tagged].into_iter().flatten() {
                self.rows.site(end).tx_outer_bytes.add(more);
            }
            if let Some(tenant) = packet.tenant {
                self.rows.volume(tenant).tx_outer_bytes.add(more);
            }
        }
    }

    /// Seals and puts out the fragments that this turn has made.
    pub fn send_pieces(&mut self, now: Time) {
        while !self.pieces.is_empty() {
            let some = self.pieces.len().min(BATCH);
            let mut batch: Batch = self.pieces.drain(..some).collect();
            self.send(&mut batch, now);
        }
    }
}

/// Where an outer packet is cut.
enum Outside {
    V4(Cuts),
    V6(CutsV6),
}

impl Outside {
    fn new(ip: &[u8], mtu: u16, id: u32) -> Option<Self> {
        Cuts::new(ip, mtu).map(Self::V4).or_else(|| CutsV6::new(ip, mtu, id).map(Self::V6))
    }

    fn count(&self) -> usize {
        match self {
            Self::V4(cuts) => cuts.count(),
            Self::V6(cuts) => cuts.count(),
        }
    }

    fn len(&self, n: usize) -> usize {
        match self {
            Self::V4(cuts) => cuts.len(n),
            Self::V6(cuts) => cuts.len(n),
        }
    }

    fn write(&self, ip: &[u8], n: usize, out: &mut [u8]) {
        match self {
            Self::V4(cuts) => cuts.write(ip, n, out),
            Self::V6(cuts) => cuts.write(ip, n, out),
        }
    }

    /// A whole frame becomes that of the first fragment.
    fn shorten(&self, frame: &mut Frame) {
        let len = ethernet::HEADER + self.len(0);
        match self {
            Self::V4(cuts) => {
                frame.resize(len);
                cuts.shorten(&mut frame.bytes_mut()[ethernet::HEADER..]);
            }
            Self::V6(cuts) => {
                frame.resize(len - CutsV6::GROWTH);
                frame.prepend(CutsV6::GROWTH);
                frame.bytes_mut().copy_within(CutsV6::GROWTH..CutsV6::GROWTH + ethernet::HEADER, 0);
                cuts.shorten(&mut frame.bytes_mut()[ethernet::HEADER..]);
            }
        }
    }
}
