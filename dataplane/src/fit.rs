//! What the stage `adapt` does so that packets fit the way on: the size of TCP's segments, and fragments of IPv4.
//!
//! A packet that may be fragmented becomes the first of its fragments, in its own chunk. The others take chunks of the pool and
//! wait in [`Journey::pieces`], since a batch has no room for them; at the end of the turn they are sealed as a batch of their
//! own. They are generated packets, for the books.

use crate::packet::{BATCH, Batch, Packet};
use crate::sites::Site;
use crate::worker::Journey;
use crate::xsk::HEADROOM;
use crypto::Time;
use wire::fragment::Cuts;
use wire::{DropReason, tcp};

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

    /// Seals and puts out the fragments that this turn has made.
    pub fn send_pieces(&mut self, now: Time) {
        while !self.pieces.is_empty() {
            let some = self.pieces.len().min(BATCH);
            let mut batch: Batch = self.pieces.drain(..some).collect();
            self.send(&mut batch, now);
        }
    }
}
