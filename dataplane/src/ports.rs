//! A worker's sockets: the only part of it that does I/O.

use crate::clock;
use crate::config::Idle;
use crate::mailbox::{Bell, WorkerEnd};
use crate::packet::{BATCH, Batch, Packet};
use crate::team::Team;
use crate::xsk::{Frame, Kick, Socket};
use crypto::cache::foresee;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{DropReason, PortIndex};

/// How long an adaptive worker looks at its rings before it sleeps: a little more than the gap between packets at 20 kpps.
const SPIN: Duration = Duration::from_micros(50);
/// Looks at the rings between looks at the clock.
const LOOKS: u32 = 16;
/// The sleep while frames wait in the kernel to be sent.
const NAP: Duration = Duration::from_millis(1);
/// The longest sleep: what a lost wake-up could cost at the most.
const SLEEP: Duration = Duration::from_secs(1);

/// One socket, on one queue of one port.
#[derive(Debug)]
pub struct Ring {
    /// The port.
    pub port: PortIndex,
    /// The queue of the port.
    pub queue: u32,
    /// The socket, unless its port was unplugged.
    pub socket: Socket,
    /// The worker that fills and completes the queue for this one, if that is another.
    owner: Option<Arc<Bell>>,
    /// Where XDP reads how full the socket's receive ring is, and says when it put a frame there.
    gauge: bpf::Gauge,
    /// Its packets in several buffers, and its bad descriptors, that have been counted.
    oddities: (u64, u64),
}

impl Ring {
    /// A socket on queue `queue` of `port`; where it joined another worker's, with the bell of that one.
    pub fn new(port: PortIndex, queue: u32, socket: Socket, owner: Option<Arc<Bell>>, gauge: bpf::Gauge) -> Self {
        Self { port, queue, socket, owner, gauge, oddities: (0, 0) }
    }

    /// This one took chunks out of the queue's rings, or put some in: whoever serves them may not sleep.
    #[inline]
    fn disturb_owner(&self) {
        if let Some(bell) = &self.owner {
            bell.ring();
        }
    }
}

/// All sockets of a worker.
#[derive(Debug)]
pub struct Ports {
    rings: Vec<Ring>,
    /// For each port, the ring that transmits for it.
    transmit: Vec<Option<usize>>,
    idle: Idle,
    looks: u32,
    idle_since: Option<Instant>,
    kick_again: bool,
    /// Frames that the sockets of each port lost which have been replaced since.
    lost_before: Vec<u64>,
}

/// Bytes of a frame that are looked at before it is opened, and some more: two cache lines.
const HEADERS: usize = 128;

/// Makes packets of frames as they come out of a ring.
struct Arrivals<'a> {
    batch: &'a mut Batch,
    port: PortIndex,
    bytes: u64,
    gauge: &'a bpf::Gauge,
    ring_time: &'a stats::HistogramRow,
}

impl Extend<Frame> for Arrivals<'_> {
    fn extend<T: IntoIterator<Item = Frame>>(&mut self, frames: T) {
        // What another core has just written comes from its cache: of all frames at once, before the first is looked at.
        for frame in frames {
            self.bytes += frame.len() as u64;
            foresee(&frame.bytes()[..frame.len().min(HEADERS)]);
            self.batch.push(Packet::arrived(frame, self.port));
        }
        for packet in self.batch.iter_mut() {
            // One frame in 64, so that a look at the clock costs a batch one at the most.
            if let Some(stamp) = self.gauge.unstamp(packet.frame.bytes_mut()) {
                self.ring_time.record(stamp.until(clock::now().0), 1);
            }
        }
    }
}

impl Ports {
    /// The sockets of one worker; `ports` is the number of ports of the hub, and `idle` what the worker does when none of
    /// them has anything.
    pub fn new(rings: Vec<Ring>, ports: usize, idle: Idle) -> Self {
        let mut transmit = vec![None; ports];
        for (at, ring) in rings.iter().enumerate() {
            transmit[ring.port.index()].get_or_insert(at);
        }
        Self { rings, transmit, idle, looks: 0, idle_since: None, kick_again: false, lost_before: vec![0; ports] }
    }

    /// How many rings there are to receive from.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    /// Takes what the kernel has sent back into the pool.
    pub fn reclaim(&mut self, pool: &mut Vec<Frame>, rows: &stats::Rows) {
        for ring in &mut self.rings {
            let completed = ring.socket.reclaim(pool);
            if completed > 0 {
                rows.port(ring.port).completed_frames.add(completed as u64);
            }
        }
    }

    /// One batch of what a ring has received. What is left there, XDP is told: it sheds if that is too much.
    #[inline]
    pub fn receive(&mut self, ring: usize, batch: &mut Batch, rows: &stats::Rows) {
        let ring = &mut self.rings[ring];
        let gauge = &ring.gauge;
        let mut arrivals = Arrivals { batch, port: ring.port, bytes: 0, gauge, ring_time: &rows.ring_time };
        let received = ring.socket.receive(&mut arrivals, BATCH);
        let bytes = arrivals.bytes;
        ring.gauge.say(ring.socket.waiting());
        if received > 0 {
            ring.disturb_owner();
            let row = rows.port(ring.port);
            row.rx_frames.add(received as u64);
            row.rx_bytes.add(bytes);
            rows.turns.batches.add(1);
            rows.turns.frames.add(received as u64);
        }
    }

    /// Frames that a ring still holds.
    #[inline]
    pub fn waiting(&self, ring: usize) -> usize {
        self.rings[ring].socket.waiting() as usize
    }

    /// Lends chunks to the kernel to receive into.
    #[inline]
    pub fn refill(&mut self, ring: usize, pool: &mut Vec<Frame>) {
        self.rings[ring].socket.refill(pool);
    }

    /// Sends what each port has to send. What a ring does not take has nowhere to wait, and is dropped: a port that is
    /// slow, down or gone must not keep the chunks of the others. `true` if there was, or still is, anything to send.
    pub fn transmit(&mut self, out: &mut [Vec<Frame>], pool: &mut Vec<Frame>, rows: &stats::Rows) -> bool {
        let mut busy = false;
        let mut again = false;
        for (port, (frames, ring)) in out.iter_mut().zip(&self.transmit).enumerate() {
            let Some(ring) = ring else { continue };
            let socket = &mut self.rings[*ring].socket;
            if frames.is_empty() && !self.kick_again {
                continue;
            }
            busy |= !frames.is_empty();
            let bytes = |frames: &[Frame]| frames.iter().map(Frame::len).sum::<usize>();
            let before = bytes(frames);
            let row = rows.port(PortIndex(port as u16));
            row.tx_frames.add(socket.transmit(frames) as u64);
            row.tx_bytes.add((before - bytes(frames)) as u64);
            let kicked = socket.kick();
            self.rings[*ring].disturb_owner();
            again |= matches!(kicked, Ok(Kick::Again));
            let reason = match kicked {
                Ok(Kick::Done | Kick::Again) => DropReason::TxRingFull,
                Ok(Kick::Down | Kick::Gone) | Err(_) => DropReason::PortDown,
            };
            for frame in frames.drain(..) {
                rows.hub.count(reason, frame.len());
                self.rings[*ring].socket.recycle(frame, pool);
            }
        }
        self.kick_again = again;
        busy || again
    }

    /// Nothing to do: look again for a while, then sleep until a frame or an order comes.
    pub fn rest(&mut self, mail: &mut WorkerEnd, rows: &stats::Rows, team: &Team) {
        let now = match self.idle {
            Idle::Spin => return std::hint::spin_loop(),
            Idle::Interrupt => Instant::now(),
            Idle::Adaptive => {
                self.looks += 1;
                if self.looks < LOOKS {
                    return std::hint::spin_loop();
                }
                self.looks = 0;
                let now = Instant::now();
                let since = *self.idle_since.get_or_insert(now);
                if now.duration_since(since) < SPIN {
                    return;
                }
                now
            }
        };
        self.tally(rows);
        mail.bell.doze();
        if !mail.has_orders() && !team.is_asked() {
            let bell = mail.bell.clone();
            let mut fds = arrayvec::ArrayVec::<PollFd<'_>, 257>::new();
            fds.push(PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN));
            fds.extend(self.rings.iter().take(256).map(|r| PollFd::from_borrowed_fd(r.socket.as_fd(), PollFlags::IN)));
            // Completions wake nobody: a worker without chunks, or with frames left to send, looks for them itself.
            let in_kernel = self.rings.iter().any(|ring| ring.socket.awaits_completion());
            let sleep = if in_kernel || self.kick_again { NAP } else { SLEEP };
            let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: sleep.subsec_nanos().into() };
            // An interrupted sleep is a short one.
            let _ = poll(&mut fds, Some(&timeout));
            rows.turns.asleep_ns.add(now.elapsed().as_nanos() as u64);
        }
        mail.bell.wake();
        self.idle_since = None;
    }

    /// Counts what the kernel lost before the rings, and what it put there that is no packet.
    pub fn tally(&mut self, rows: &stats::Rows) {
        for (port, ring) in (0..).map(PortIndex).zip(&self.transmit) {
            if ring.is_none() {
                continue;
            }
            let now: u64 = self.rings.iter().filter(|ring| ring.port == port).map(lost).sum();
            let waiting: u32 =
                self.rings.iter().filter(|ring| ring.port == port).map(|ring| ring.socket.waiting()).sum();
            rows.port(port).ring_fill.set(waiting.into());
            rows.port(port).ring_lost.set(self.lost_before[port.index()] + now);
        }
        for ring in &mut self.rings {
            let counts = ring.socket.counts();
            let now = (counts.multi_buffer_packets, counts.bad_descriptors);
            // They came, too, though no batch has seen them; and they came before they were dropped.
            rows.port(ring.port).rx_frames.add(now.0 - ring.oddities.0 + now.1 - ring.oddities.1);
            (ring.oddities.0..now.0).for_each(|_| rows.hub.count(DropReason::MultiBuffer, 0));
            (ring.oddities.1..now.1).for_each(|_| rows.hub.count(DropReason::BadDescriptor, 0));
            ring.oddities = now;
        }
    }

    /// Ends a rest: the next one begins with looking.
    #[inline]
    pub fn wake(&mut self) {
        (self.looks, self.idle_since) = (0, None);
    }

    /// The ring whose place `new` is to take.
    pub fn place_of(&self, new: &Ring) -> Option<usize> {
        self.rings.iter().position(|ring| (ring.port, ring.queue) == (new.port, new.queue))
    }

    /// Puts a new socket into the place of an old one, which goes back to control to be closed.
    pub fn replace(&mut self, place: usize, new: Ring, rows: &stats::Rows) -> Ring {
        self.tally(rows);
        let old = &mut self.rings[place];
        self.lost_before[old.port.index()] += lost(old);
        std::mem::replace(old, new)
    }

    /// Frames that the kernel has, or has put into rings that were not read: for the census.
    pub fn in_kernel(&self) -> i64 {
        self.rings.iter().map(|ring| ring.socket.in_kernel()).map(|k| k.lent_receive + k.lent_transmit).sum()
    }
}

/// Frames that the kernel lost between XDP and a socket's ring, since it was opened.
fn lost(ring: &Ring) -> u64 {
    ring.socket.statistics().map_or(0, |s| s.rx_dropped + s.rx_ring_full)
}
