//! The way of frames through the four rings of a socket, and their books. It makes no system call: see `socket` for
//! those.

use std::iter;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::frame::{Frame, TAILROOM};
use super::long::{Piece, cut};
use super::ring::{Consumer, Producer};
use super::umem::{Owner, Umem};

/// What happened on a socket since it was opened, each counter monotone.
///
/// Where several sockets share a queue, one of them fills and completes for all: the sums over the queue's sockets
/// balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Frames lent to the fill ring.
    pub filled: u64,
    /// Descriptors taken from the receive ring; of packets received unless counted below.
    pub received: u64,
    /// Frames lent to the transmit ring; a long one is one, whatever its descriptors.
    pub transmitted: u64,
    /// Frames claimed back from the completion ring.
    pub completed: u64,
    /// Packets that came in several descriptors, or had no room to grow, and were put together in a long frame.
    pub gathered: u64,
    /// Packets dropped because they came in several descriptors and there was no long frame, or none long enough.
    pub multi_buffer_packets: u64,
    /// Descriptors of all those packets: `received` less this, plus `gathered`, is what `receive` handed out.
    pub multi_buffer_frames: u64,
    /// Descriptors that named no chunk which the kernel had: the kernel or the driver is at fault, the chunk is given
    /// up.
    pub bad_descriptors: u64,
}

/// Frames on their way through the kernel, by what one socket can see of its rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InKernel {
    /// In the fill ring, not yet taken by the kernel. Zero where another socket fills.
    pub fill: u32,
    /// In the receive ring, not yet received.
    pub receive: u32,
    /// In the transmit ring, not yet taken by the kernel.
    pub transmit: u32,
    /// In the completion ring, not yet reclaimed. Zero where another socket completes.
    pub completion: u32,
    /// Lent for receiving and not returned: fill ring + kernel + receive ring, as a sum over the queue's sockets.
    pub lent_receive: i64,
    /// Lent for sending and not returned: transmit ring + kernel + completion ring, likewise.
    pub lent_transmit: i64,
}

/// One interface queue: what its sockets have in common.
pub(super) struct Queue {
    /// Under which the ledger knows it.
    pub(super) id: u32,
    pub(super) ifindex: u32,
    pub(super) queue: u32,
    /// Sockets open on it; its chunks can't be recovered before this is zero.
    pub(super) open: AtomicU32,
}

/// A socket's rings. `fill` and `completion` belong to one socket of a queue.
pub(super) struct Rings {
    pub(super) fill: Option<Producer<u64>>,
    pub(super) completion: Option<Consumer<u64>>,
    pub(super) receive: Consumer<Descriptor>,
    pub(super) transmit: Producer<Descriptor>,
}

/// `struct xdp_desc`: a packet, or a part of one, in the UMEM.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) options: u32,
}

/// Shortest frame that the kernel is given to send: an Ethernet header. Drivers rely on it.
const SHORTEST: usize = 14;

pub(super) struct Path {
    umem: &'static Umem,
    queue: Arc<Queue>,
    rings: Rings,
    /// Frames that came back without being handed out; the next refill takes them first, and leaves none.
    spare: Vec<Frame>,
    /// The last descriptor said that its packet goes on in the next one.
    torn: bool,
    /// What has come of a packet in several descriptors; none if it is to be dropped.
    gathered: Option<Frame>,
    /// Bad descriptors were among those of that packet: it has been counted.
    spoiled: bool,
    counts: Counts,
}

impl Path {
    pub(super) fn new(umem: &'static Umem, queue: Arc<Queue>, rings: Rings, spare: usize) -> Self {
        let spare = Vec::with_capacity(spare);
        Path { umem, queue, rings, spare, torn: false, gathered: None, spoiled: false, counts: Counts::default() }
    }

    pub(super) fn receive(&mut self, into: &mut impl Extend<Frame>, max: usize) -> usize {
        // Who has no long frames has no packets in several descriptors: nothing is asked of each.
        let given = match self.umem.long {
            None => self.receive_by(into, max, Self::next_received::<false>),
            Some(_) => self.receive_by(into, max, Self::next_received::<true>),
        };
        self.rings.receive.release();
        given
    }

    #[inline]
    fn receive_by(
        &mut self,
        into: &mut impl Extend<Frame>,
        max: usize,
        next: impl Fn(&mut Self) -> Option<Frame>,
    ) -> usize {
        let mut given = 0;
        into.extend(iter::from_fn(|| {
            if given == max {
                return None;
            }
            let frame = next(self);
            given += usize::from(frame.is_some());
            frame
        }));
        given
    }

    #[inline]
    fn next_received<const GATHERS: bool>(&mut self) -> Option<Frame> {
        loop {
            let descriptor = self.rings.receive.pop()?;
            let continued = descriptor.options & libc::XDP_PKT_CONTD != 0;
            let first = !self.torn;
            self.torn = continued;
            let owner = Owner::receive(self.queue.id);
            let Some(frame) = self.umem.claim(descriptor.address, descriptor.len as usize, owner) else {
                self.counts.bad_descriptors += 1;
                self.spoil(continued);
                continue;
            };
            self.counts.received += 1;
            if first && !continued && (!GATHERS || frame.tailroom() >= TAILROOM) {
                return Some(frame);
            }
            if let Some(whole) = self.gather(frame, first, continued) {
                return Some(whole);
            }
        }
    }

    /// A part of a packet, behind those that have come. The packet, once it is whole.
    fn gather(&mut self, part: Frame, first: bool, continued: bool) -> Option<Frame> {
        self.counts.multi_buffer_frames += 1;
        if first {
            self.gathered = self.umem.take_long();
        }
        if let Some(mut whole) = self.gathered.take() {
            if part.len() + TAILROOM <= whole.tailroom() {
                whole.append(part.bytes());
                self.gathered = Some(whole);
            } else {
                let _ = self.umem.keep(whole);
            }
        }
        self.spare.push(part);
        if continued {
            return None;
        }
        let whole = self.gathered.take();
        match whole {
            Some(_) => self.counts.gathered += 1,
            None => self.counts.multi_buffer_packets += u64::from(!self.spoiled),
        }
        self.spoiled = false;
        whole
    }

    /// One of the descriptors of a packet was bad: what of it is good has no use.
    #[cold]
    fn spoil(&mut self, continued: bool) {
        self.gathered.take().and_then(|whole| self.umem.keep(whole));
        self.spoiled = continued;
    }

    /// Returns how many frames the kernel got.
    pub(super) fn refill(&mut self, pool: &mut Vec<Frame>) -> usize {
        let Some(fill) = &mut self.rings.fill else {
            pool.append(&mut self.spare);
            return 0;
        };
        let room = fill.room() as usize;
        let spare = room.min(self.spare.len());
        let pooled = (room - spare).min(pool.len());
        let frames = self.spare.drain(self.spare.len() - spare..).chain(pool.drain(pool.len() - pooled..));
        for mut frame in frames {
            // Only the chunk counts here: the kernel places the packet.
            frame.reset(0, 0);
            let address = self.umem.lend(frame, Owner::receive(self.queue.id));
            let pushed = fill.push(address);
            debug_assert!(pushed.is_ok(), "there was room");
        }
        // What the kernel has no room for is as free as any other.
        pool.append(&mut self.spare);
        let filled = spare + pooled;
        if filled > 0 {
            fill.publish();
            self.counts.filled += filled as u64;
        }
        filled
    }

    #[inline]
    pub(super) fn queue(&mut self, frame: Frame) -> Result<(), Frame> {
        if frame.is_long() { self.queue_long(frame) } else { self.queue_chunk(frame) }
    }

    #[inline]
    fn queue_chunk(&mut self, frame: Frame) -> Result<(), Frame> {
        assert!(frame.len() >= SHORTEST, "a frame of {} bytes to be sent", frame.len());
        if !self.rings.transmit.has_room() {
            return Err(frame);
        }
        let len = frame.len() as u32;
        let address = self.umem.lend(frame, Owner::transmit(self.queue.id));
        let pushed = self.rings.transmit.push(Descriptor { address, len, options: 0 });
        debug_assert!(pushed.is_ok(), "there was room");
        self.counts.transmitted += 1;
        Ok(())
    }

    /// All descriptors of a long frame, or none.
    fn queue_long(&mut self, frame: Frame) -> Result<(), Frame> {
        assert!(frame.len() >= SHORTEST, "a frame of {} bytes to be sent", frame.len());
        let chunk = self.umem.chunk_size();
        if cut(frame.place(), chunk).len() > self.rings.transmit.room() as usize {
            return Err(frame);
        }
        let packet = self.umem.lend_long(frame, Owner::transmit(self.queue.id));
        for (address, len, last) in cut(packet, chunk) {
            let options = if last { 0 } else { libc::XDP_PKT_CONTD };
            let pushed = self.rings.transmit.push(Descriptor { address, len, options });
            debug_assert!(pushed.is_ok(), "there was room");
        }
        self.counts.transmitted += 1;
        Ok(())
    }

    pub(super) fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        let room = self.rings.transmit.room() as usize;
        let accepted = match self.umem.long {
            None => {
                let accepted = frames.len().min(room);
                for frame in frames.drain(..accepted) {
                    let queued = self.queue_chunk(frame);
                    debug_assert!(queued.is_ok(), "there was room");
                }
                accepted
            }
            Some(_) => {
                let accepted = self.fitting(frames, room);
                for frame in frames.drain(..accepted) {
                    let queued = self.queue(frame);
                    debug_assert!(queued.is_ok(), "there was room");
                }
                accepted
            }
        };
        self.rings.transmit.publish();
        accepted
    }

    /// How many of these frames, in their order, so many descriptors are enough for.
    fn fitting(&self, frames: &[Frame], mut room: usize) -> usize {
        let fits = |frame: &&Frame| {
            let left = room.checked_sub(cut(frame.place(), self.umem.chunk_size()).len());
            room = left.unwrap_or(0);
            left.is_some()
        };
        frames.iter().take_while(fits).count()
    }

    pub(super) fn reclaim(&mut self, pool: &mut Vec<Frame>) -> usize {
        let Some(completion) = &mut self.rings.completion else { return 0 };
        let mut reclaimed = 0;
        while let Some(address) = completion.pop() {
            let Some(mut frame) = self.umem.claim(address, 0, Owner::transmit(self.queue.id)) else {
                match self.umem.claim_piece(address, Owner::transmit(self.queue.id)) {
                    Piece::More => {}
                    Piece::Last(whole) => {
                        let _ = self.umem.keep(whole);
                        reclaimed += 1;
                    }
                    Piece::Foreign => self.counts.bad_descriptors += 1,
                }
                continue;
            };
            frame.reset(super::HEADROOM, 0);
            pool.push(frame);
            reclaimed += 1;
        }
        completion.release();
        self.counts.completed += reclaimed as u64;
        reclaimed
    }

    #[inline]
    pub(super) fn waiting(&self) -> u32 {
        self.rings.receive.outstanding()
    }

    pub(super) fn in_kernel(&self) -> InKernel {
        let Counts { filled, received, transmitted, completed, .. } = self.counts;
        InKernel {
            fill: self.rings.fill.as_ref().map_or(0, Producer::outstanding),
            receive: self.rings.receive.outstanding(),
            transmit: self.rings.transmit.outstanding(),
            completion: self.rings.completion.as_ref().map_or(0, Consumer::outstanding),
            lent_receive: filled as i64 - received as i64,
            lent_transmit: transmitted as i64 - completed as i64,
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    pub(super) fn umem(&self) -> &'static Umem {
        self.umem
    }

    pub(super) fn rings(&mut self) -> &mut Rings {
        &mut self.rings
    }

    pub(super) fn queue_of(&self) -> &Arc<Queue> {
        &self.queue
    }

    pub(super) fn take_spare(&mut self) -> Vec<Frame> {
        self.gathered.take().and_then(|whole| self.umem.keep(whole));
        std::mem::take(&mut self.spare)
    }
}

#[cfg(test)]
mod tests;
