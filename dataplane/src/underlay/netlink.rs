//! What is said to the kernel and what it answers, by rtnetlink(7).
//!
//! Only the few attributes that matter here are looked at, and one that is unknown or of an odd length is passed over: a newer
//! kernel's additions to a link message must never blind the hub. Everything here is synchronous and non-blocking.

mod message;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll, Waker, ready};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use self::message::{answer, encode, fact, messages};
use super::Key;

/// The largest datagram that the kernel makes for a dump is 32 KiB; a link with many virtual functions may exceed 16.
const DATAGRAM: usize = 64 << 10;

/// Room for events: a route flap of a full table is some 100,000 messages of 1 KiB as the kernel accounts them. Past this
/// the kernel drops events and says so, and the state is read afresh.
const EVENT_ROOM: usize = 8 << 20;

/// Room for answers: those of one batch are accounted at up to 8 KiB each.
const ANSWER_ROOM: usize = 1 << 20;

/// Requests in one datagram, and unanswered at once. A round of 64 takes the kernel about 0.2 ms, which is how long the control
/// thread is held.
pub(super) const BATCH: usize = 64;

/// Datagrams of events read in one go before others get their turn.
const EVENTS_AT_ONCE: usize = 256;

/// A neighbour's place in the kernel's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hop {
    pub(super) ifindex: u32,
    pub(super) address: IpAddr,
}

/// An interface, as far as the hub is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// None: not Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Switched on, with a carrier, and not waiting for anything (802.1X).
    pub(super) up: bool,
}

/// What the kernel knows of a neighbour: a state (NUD_*), and a MAC address if the state vouches for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Neighbour {
    state: u16,
    pub(super) mac: Option<[u8; 6]>,
}

impl Neighbour {
    /// The kernel has not heard of the neighbour for a while, and won't ask unless someone uses it.
    pub(super) fn is_stale(&self) -> bool {
        self.state == libc::NUD_STALE
    }
}

/// One thing that the kernel said, in an event or as a line of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    Link(Link),
    LinkGone {
        ifindex: u32,
    },
    /// `usable`: it exists, and is not under duplicate address detection (or failed it).
    Address {
        ifindex: u32,
        address: IpAddr,
        usable: bool,
    },
    /// None: the entry is gone.
    Neighbour {
        hop: Hop,
        neighbour: Option<Neighbour>,
    },
    /// A route to these destinations came, went or changed.
    Routes {
        first: IpAddr,
        last: IpAddr,
    },
    /// Rules, or next hop objects that several routes share.
    Policy,
}

/// What can be dumped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dump {
    Links,
    Addresses,
    Neighbours,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    /// The route to `key.remote`, from `source` if given.
    Route { key: Key, source: Option<IpAddr> },
    /// Use the neighbour, so that the kernel resolves it or makes sure of it.
    Probe(Hop),
    /// All of one table; it travels alone.
    Dump(Dump),
}

/// The way that the kernel's own packets would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Not to this host, not refused, not to a group.
    pub(super) unicast: bool,
    pub(super) ifindex: u32,
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    /// The route's own, or learnt from an ICMP "too big".
    pub(super) mtu: Option<u32>,
}

/// The answer to one request.
#[derive(Debug)]
pub(super) enum Answer {
    Route(Route),
    /// A line of a dump; None: of no concern.
    Fact(Option<Fact>),
    /// The probe was accepted; the dump is whole.
    Done,
    /// An errno, positive.
    Failed(i32),
    /// The table changed in the midst of the dump: the parts may not fit together.
    Torn,
    /// No answer will come (the kernel had no room for it): ask again.
    Lost,
}

/// The socket on which the kernel tells of changes.
pub(super) struct Events {
    channel: Channel,
}

/// The socket on which it is asked.
pub(super) struct Requests {
    channel: Channel,
    question: Vec<u8>,
    sequence: u32,
    /// Sequence number and request, oldest first: the kernel answers in order.
    in_flight: VecDeque<(u32, Request)>,
    /// The dump in flight is not of one piece.
    torn: bool,
    /// The hub's UDP port: rules may choose by it.
    port: u16,
    /// For tests: what a change costs.
    #[cfg(test)]
    pub(super) routes_asked: u64,
}

/// A socket, and the datagram read last.
struct Channel {
    socket: TokioSocket,
    buffer: Vec<u8>,
    /// What waiting brought to light; `receive` hands it out.
    ready: Option<io::Result<()>>,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let groups = [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_IFADDR,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV4_RULE,
            libc::RTNLGRP_IPV6_IFADDR,
            libc::RTNLGRP_IPV6_ROUTE,
            libc::RTNLGRP_IPV6_RULE,
            libc::RTNLGRP_NEXTHOP,
        ];
        let channel = Channel::open(EVENT_ROOM)?;
        for group in groups {
            channel.socket.socket_ref().add_membership(group)?;
        }
        Ok(Self { channel })
    }

    /// Reads what has come, a bounded amount. Ok(true): there may be more. An error `is_overrun` means that some was lost.
    pub(super) fn read(&mut self, mut on: impl FnMut(Fact)) -> io::Result<bool> {
        for _ in 0..EVENTS_AT_ONCE {
            if !self.channel.receive()? {
                return Ok(false);
            }
            for message in messages(&self.channel.buffer) {
                if let Some(fact) = fact(message.message_type(), message.payload()) {
                    on(fact);
                }
            }
        }
        Ok(true)
    }

    pub(super) async fn readable(&mut self) {
        self.channel.readable().await;
    }

    /// Makes overruns easy to provoke.
    #[cfg(test)]
    pub(super) fn shrink(&self) {
        self.channel.socket.socket_ref().set_rx_buf_sz(1_i32).unwrap();
    }
}

impl Requests {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let channel = Channel::open(ANSWER_ROOM)?;
        Ok(Self {
            channel,
            question: Vec::new(),
            sequence: 0,
            in_flight: VecDeque::new(),
            torn: false,
            port,
            #[cfg(test)]
            routes_asked: 0,
        })
    }

    pub(super) fn idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends a batch (at most `BATCH`, or one dump) in one datagram. Nothing may be in flight.
    pub(super) fn send(&mut self, batch: &[Request]) -> io::Result<()> {
        debug_assert!(self.idle() && batch.len() <= BATCH);
        self.question.clear();
        for request in batch {
            self.sequence = self.sequence.wrapping_add(1);
            encode(&mut self.question, self.sequence, request, self.port);
            self.in_flight.push_back((self.sequence, *request));
            #[cfg(test)]
            if let Request::Route { .. } = request {
                self.routes_asked += 1;
            }
        }
        let sent = self.channel.socket.socket_ref().send_to(&self.question, &SocketAddr::new(0, 0), 0);
        if sent.is_err() {
            self.in_flight.clear();
        }
        sent.map(drop)
    }

    /// Reads the answers that have come. After an error that `is_overrun`, call `abandon`.
    pub(super) fn read(&mut self, mut on: impl FnMut(Request, Answer)) -> io::Result<()> {
        while self.channel.receive()? {
            for message in messages(&self.channel.buffer) {
                let sequence = message.sequence_number();
                // A request that was passed over has lost its answer; an answer to nothing is none of ours.
                let Some(place) = self.in_flight.iter().position(|(s, _)| *s == sequence) else { continue };
                for (_, request) in self.in_flight.drain(..place) {
                    on(request, Answer::Lost);
                }
                let Some(&(_, request)) = self.in_flight.front() else { continue };
                self.torn |= i32::from(message.flags()) & libc::NLM_F_DUMP_INTR != 0;
                let mut answer = answer(&message);
                if !matches!(answer, Answer::Fact(_)) {
                    self.in_flight.pop_front();
                    if std::mem::take(&mut self.torn) {
                        answer = Answer::Torn;
                    }
                }
                on(request, answer);
            }
        }
        Ok(())
    }

    /// Gives up what is in flight, each as `Lost`.
    pub(super) fn abandon(&mut self, mut on: impl FnMut(Request, Answer)) {
        for (_, request) in self.in_flight.drain(..) {
            on(request, Answer::Lost);
        }
        self.torn = false;
    }

    pub(super) async fn readable(&mut self) {
        self.channel.readable().await;
    }
}

/// The kernel had no room in the socket's buffer and dropped messages.
pub(super) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}

impl Channel {
    fn open(room: usize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind_auto()?;
        let inner = socket.socket_ref();
        // Past net.core.rmem_max with CAP_NET_ADMIN, which the hub has; else as far as it goes.
        if setsockopt(inner, RcvBufForce, &room).is_err() {
            inner.set_rx_buf_sz(i32::try_from(room).unwrap_or(i32::MAX))?;
        }
        inner.set_cap_ack(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM), ready: None })
    }

    /// Puts a datagram from the kernel into the buffer. Ok(false): none is there.
    fn receive(&mut self) -> io::Result<bool> {
        if let Some(ready) = self.ready.take() {
            return ready.map(|()| true);
        }
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    /// Until `receive` has something to hand out. Cancel-safe.
    async fn readable(&mut self) {
        if self.ready.is_none() {
            self.ready = Some(std::future::poll_fn(|cx| self.poll(cx)).await);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.buffer.clear();
            match ready!(self.socket.poll_recv_from(cx, &mut self.buffer)) {
                // Any process with the right may send to a netlink socket; only port 0 is the kernel.
                Ok(sender) if sender.port_number() != 0 => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result.map(drop)),
            }
        }
    }
}

/// A datagram as both sockets read it, for the fuzz target.
#[cfg(test)]
pub(super) mod fuzz {
    use super::*;

    /// What one message said.
    #[derive(Debug)]
    pub(in super::super) enum Read {
        Fact(Fact),
        Answer(Result<Route, i32>),
    }

    pub(in super::super) fn read(datagram: &[u8]) -> Vec<Read> {
        let mut all = Vec::new();
        for message in messages(datagram) {
            all.extend(fact(message.message_type(), message.payload()).map(Read::Fact));
            match answer(&message) {
                Answer::Route(route) => all.push(Read::Answer(Ok(route))),
                Answer::Failed(errno) => all.push(Read::Answer(Err(errno))),
                Answer::Fact(_) | Answer::Done | Answer::Torn | Answer::Lost => {}
            }
        }
        all
    }
}
