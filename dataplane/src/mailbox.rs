//! What control and a worker say to each other: orders one way, events and parcels the other, all over lock-free
//! single-producer rings, so that neither ever waits for the other.
//!
//! Reclamation needs no more than this. A worker looks things up in private tables that only orders change; control
//! keeps the last reference to whatever it took away from the workers, and frees (and so zeroizes) it once it is the
//! only holder. A worker's drop of a reference is a decrement, never a free.

use crate::access::Link;
use crate::ports::Ring;
use crate::seats::Vacant;
use crate::sites::{Seat, Way};
use crate::tenants::Tenant;
use crate::trunk::Trunk;
use crypto::{Session, Time};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use wire::echo::Mark;
use wire::{DropReason, Endpoints, PortIndex, SiteSlot, TenantSlot};

/// From control to a worker.
#[derive(Debug)]
pub enum Order {
    /// Accept data under this session, found by the low bits of its index.
    Publish(Arc<Session>),
    /// Send to the session's owner, a site, under this session from now on.
    Use(Arc<Session>),
    /// Forget the session with this receiver index.
    Withdraw {
        /// The site that it belonged to.
        site: SiteSlot,
        /// Its receiver index.
        index: u32,
    },
    /// How frames for this site travel from now on.
    Way(SiteSlot, Way),
    /// Where this access end is, and in which state.
    Link(SiteSlot, Box<Link>),
    /// What is known of a neighbour of this access end: its MAC address, and from when on control wants to hear that it is used; or
    /// why what waits for it is to be dropped.
    Neighbour(SiteSlot, IpAddr, Result<([u8; 6], Time), DropReason>),
    /// So many replies to pings of the hub's own may come from this site: tell of them.
    Expect(SiteSlot, u8),
    /// The routes of all tenants from now on. Control keeps a reference: what was before is not freed here.
    Tables(Arc<classifier::Tables>),
    /// What the configuration says of an end from now on. Its slot is new, or was its own before.
    Seat(SiteSlot, Seat),
    /// A tenant that is new in its slot, or to which the hub has other addresses.
    Tenant(TenantSlot, Tenant),
    /// Nobody is in these slots any more, each [`Vacant::PART`] of them an order: their rows begin at zero for whoever comes. Done once
    /// the references in all of them are gone.
    Vacate(Arc<Vacant>, usize),
    /// Send a frame of control's own, complete from its Ethernet header on, by this port.
    Emit(PortIndex, Vec<u8>),
    /// What a trunk is from now on, to all its lanes and to the end that it is to each of its tenants. Before any session of a lane is
    /// published; and their seats come first. Control keeps a reference: what was before is not freed here.
    Trunk(Arc<Trunk>),
    /// Seal a message of control's own, tag and all, for this lane, if it has a session now.
    Tell(SiteSlot, Vec<u8>),
    /// Seal an empty packet for this site.
    Keepalive(SiteSlot),
    /// The handshake with this site was given up: drop what waited for it.
    GiveUp(SiteSlot),
    /// A datagram put together from fragments enters the journey as if it had just come in.
    Reassembled(PortIndex, Vec<u8>),
    /// Use this socket in the place of the one that the worker has for the same port and queue, and give that one back.
    Replace(Box<Ring>),
    /// Chunks that were in a closed socket come back to the pool; in `unsent` of them lay a packet to be sent.
    Frames {
        /// All of them, empty.
        frames: Vec<crate::xsk::Frame>,
        /// How many had a packet.
        unsent: usize,
    },
    /// End the loop.
    Stop,
}

/// From a worker to control: something happened that the state machines must know now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The first authenticated message came under this responder's session.
    Confirmed {
        /// Its site.
        site: SiteSlot,
        /// Its receiver index.
        index: u32,
    },
    /// A packet waits for a session with this site, or its session ran out of counters.
    Wanted(SiteSlot),
    /// A packet waits for the MAC address of this neighbour, or one went to an address that should be confirmed.
    Neighbour {
        /// The access end.
        end: SiteSlot,
        /// The neighbour's address.
        address: IpAddr,
    },
    /// A reply came that may answer a ping of the hub's own.
    Reply {
        /// The site whose session it came under.
        site: SiteSlot,
        /// What it repeats.
        mark: Mark,
    },
    /// An authenticated message came from another address than the site's last one.
    Moved {
        /// Its site.
        site: SiteSlot,
        /// The receiver index it came under.
        index: u32,
        /// Its counter.
        counter: u64,
        /// Where it came from, and the address of the hub that it was sent to.
        ends: Endpoints,
    },
}

/// Where control's copy of something is from, and so what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A frame that came by this port.
    Port(PortIndex),
    /// What another hub says by this lane, without the header of its tag; padding may follow.
    Lane(SiteSlot),
}

/// A frame, or a message of another hub, copied for control in a buffer that circulates.
#[derive(Debug)]
pub struct Parcel {
    /// Where it is from.
    pub from: Source,
    len: usize,
    bytes: Box<[u8]>,
}

impl Parcel {
    /// The frame, or the message.
    pub fn frame(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// An eventfd that is written only when somebody sleeps on it.
#[derive(Debug)]
pub struct Bell {
    fd: OwnedFd,
    asleep: AtomicBool,
}

impl Bell {
    /// A silent bell.
    pub fn new() -> std::io::Result<Arc<Self>> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { fd, asleep: AtomicBool::new(false) }))
    }

    /// Wakes the sleeper, if there is one. Call it after what was sent is visible.
    pub fn ring(&self) {
        // Pairs with the fence in `doze`: either the sleeper sees what was sent, or we see that it sleeps.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // An eventfd write fails only when the count would overflow: then the sleeper is awake already.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// Says that the caller will sleep on the bell. It must look for work once more before it does.
    pub fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Says that the caller is awake, and silences the bell.
    pub fn wake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let _ = rustix::io::read(&self.fd, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Parcels that circulate between a worker and control: what a burst of handshakes may queue before it is dropped.
const PARCELS: usize = 1024;
/// Events in flight: a few per site that could change at once; a full ring is tried again, not lost.
const EVENTS: usize = 4096;
/// Sockets on their way to be closed.
const RINGS: usize = 64;
/// Orders in flight before control keeps the rest in a queue of its own.
pub const ORDERS: usize = 8192;

/// The worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    orders: rtrb::Consumer<Order>,
    events: rtrb::Producer<Event>,
    parcels: rtrb::Producer<Parcel>,
    empties: rtrb::Consumer<Parcel>,
    spent: rtrb::Producer<Ring>,
    /// Rung by control when it has sent an order.
    pub bell: Arc<Bell>,
    control: Arc<Notify>,
    sent: bool,
}

/// Control's end.
#[derive(Debug)]
pub struct ControlEnd {
    orders: rtrb::Producer<Order>,
    backlog: VecDeque<Order>,
    events: rtrb::Consumer<Event>,
    parcels: rtrb::Consumer<Parcel>,
    empties: rtrb::Producer<Parcel>,
    spent: rtrb::Consumer<Ring>,
    bell: Arc<Bell>,
}

/// A mailbox: `control` is notified when the worker has said something, and `bell` is the worker's; `frame_len` is the
/// longest frame a parcel holds.
pub fn mailbox(control: Arc<Notify>, bell: Arc<Bell>, frame_len: usize) -> (ControlEnd, WorkerEnd) {
    let (orders_in, orders_out) = rtrb::RingBuffer::new(ORDERS);
    let (events_in, events_out) = rtrb::RingBuffer::new(EVENTS);
    let (parcels_in, parcels_out) = rtrb::RingBuffer::new(PARCELS);
    let (mut empties_in, empties_out) = rtrb::RingBuffer::new(PARCELS);
    for _ in 0..PARCELS {
        let parcel = Parcel { from: Source::Port(PortIndex(0)), len: 0, bytes: vec![0; frame_len].into_boxed_slice() };
        empties_in.push(parcel).expect("the ring holds PARCELS");
    }
    let (spent_in, spent_out) = rtrb::RingBuffer::new(RINGS);
    let worker = WorkerEnd {
        orders: orders_out,
        events: events_in,
        parcels: parcels_in,
        empties: empties_out,
        spent: spent_in,
        bell: bell.clone(),
        control,
        sent: false,
    };
    let control = ControlEnd {
        orders: orders_in,
        backlog: VecDeque::new(),
        events: events_out,
        parcels: parcels_out,
        empties: empties_in,
        spent: spent_out,
        bell,
    };
    (control, worker)
}

impl WorkerEnd {
    /// The next order, if there is one.
    #[inline]
    pub fn order(&mut self) -> Option<Order> {
        self.orders.pop().ok()
    }

    /// Whether an order waits.
    pub fn has_orders(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Tells control; `false` if the ring is full and it must be told again.
    pub fn tell(&mut self, event: Event) -> bool {
        let told = self.events.push(event).is_ok();
        self.sent |= told;
        told
    }

    /// Copies a frame, or a message, for control; `false` if all parcels are on their way.
    pub fn copy(&mut self, from: Source, frame: &[u8]) -> bool {
        let Ok(mut parcel) = self.empties.pop() else { return false };
        let Some(room) = parcel.bytes.get_mut(..frame.len()) else {
            unreachable!("a parcel holds the longest frame that a chunk can")
        };
        room.copy_from_slice(frame);
        (parcel.from, parcel.len) = (from, frame.len());
        // There are as many places in the ring as parcels.
        let sent = self.parcels.push(parcel).is_ok();
        self.sent |= sent;
        sent
    }

    /// Hands a socket to control, which has the time to close it.
    pub fn retire(&mut self, ring: Ring) {
        // Control sends no more replacements than it has taken sockets back.
        let _ = self.spent.push(ring);
        self.sent = true;
    }

    /// Wakes control if anything was said since the last call: once a batch, not once a message.
    pub fn flush(&mut self) {
        if std::mem::take(&mut self.sent) {
            self.control.notify_one();
        }
    }
}

impl ControlEnd {
    /// Sends an order; never blocks, never loses.
    pub fn send(&mut self, order: Order) {
        self.backlog.push_back(order);
        self.flush();
    }

    /// Moves what the ring did not hold; `true` once nothing is left behind.
    pub fn flush(&mut self) -> bool {
        while let Some(order) = self.backlog.pop_front() {
            if let Err(rtrb::PushError::Full(order)) = self.orders.push(order) {
                self.backlog.push_front(order);
                break;
            }
        }
        self.bell.ring();
        self.backlog.is_empty()
    }

    /// The next event.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop().ok()
    }

    /// The next parcel; give it back with [`ControlEnd::recycle`].
    pub fn parcel(&mut self) -> Option<Parcel> {
        self.parcels.pop().ok()
    }

    /// A socket that the worker no longer uses.
    pub fn spent(&mut self) -> Option<Ring> {
        self.spent.pop().ok()
    }

    /// Parcels that wait to be read.
    pub fn parcels_waiting(&self) -> usize {
        self.parcels.slots()
    }

    /// Whether nothing waits to be read.
    pub fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.parcels.is_empty() && self.spent.is_empty()
    }

    /// Gives a parcel back for the next frame.
    pub fn recycle(&mut self, parcel: Parcel) {
        // As many places as parcels: this can't fail.
        let _ = self.empties.push(parcel);
    }
}
