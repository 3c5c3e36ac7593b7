//! Underlay: which port, MAC addresses, MTU and local address a packet to a site takes, as the kernel would send it.
//!
//! The kernel stays the one authority on links, addresses, routes and neighbours, whoever sets them up (ifupdown, networkd, a
//! BGP daemon), and is asked, never second-guessed: the way to each remote is what `RTM_GETROUTE` answers, rules and multipath
//! included, and the MAC address of the next hop is what the neighbour table holds. [`Underlay::next`] tells of every change.
//!
//! How it stays true:
//!
//! 1. Events of links, addresses, routes, rules, next hop objects and neighbours are followed. If the kernel had to drop some
//!    (`ENOBUFS`), everything is read afresh.
//! 2. A change of routes asks again only for the remotes within its prefix; one of links, addresses or rules, for all. The
//!    questions go out in batches after a short rest, and a storm of events gets at most a fifth of the thread.
//! 3. Neighbours are kept once per next hop: a new MAC address of the gateway costs no question, and one `Change` per remote.
//! 4. The hub's packets bypass the kernel, which therefore believes that nobody uses its neighbours. So an entry of ours that
//!    goes stale is poked (`NTF_USE`), which makes the kernel probe it while the known MAC address stays in use; one that is
//!    unresolved is poked each second.
//! 5. Some things change without an event: a path MTU learnt by ICMP ([`Underlay::refresh`] asks at once) and its end after ten
//!    minutes, IPv4 routes that left with their device. So every remote is asked for again once a minute, a few each second.
//!
//! Limits: a local address must be on a WAN port (not on `lo`); a remote must not be an IPv6 link-local address; a route out of
//! an interface that is not a configured port, or to this host itself, is `NoRoute`. With many remotes on one link the kernel's
//! own limit, `net.ipv4.neigh.default.gc_thresh3` (and its IPv6 twin), must exceed their number.

mod netlink;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use wire::PortIndex;

use netlink::{Answer, BATCH, Dump, Events, Fact, Request, Requests};
use table::Table;

/// How long an answer may take before the question is put again. The kernel answers within the call that asks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The rest after something that should not happen, so that it can't spin.
const PAUSE: Duration = Duration::from_millis(100);

/// The way of a packet to one remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextHop {
    /// The port that it leaves by.
    pub port: PortIndex,
    /// The port's MAC address.
    pub source_mac: [u8; 6],
    /// The gateway, or the remote itself on a shared link.
    pub next_hop: IpAddr,
    /// Its MAC address.
    pub destination_mac: [u8; 6],
    /// The largest IP packet, in bytes: the link's MTU, or less where the route or ICMP says so.
    pub mtu: u16,
    /// The source address.
    pub local: IpAddr,
}

/// Whether and how a remote can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This way.
    Via(NextHop),
    /// The kernel has no route through a configured port, or the address is not one host's, or no address of ours fits it.
    NoRoute,
    /// There is a route, but the next hop does not answer (yet). The kernel is asked for it each second.
    Unresolved,
    /// The route goes, or went until then, through a port that is down or missing.
    PortDown,
}

/// Something that is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The answer to `watch`, and then whenever it changes.
    Reach {
        /// As given to `watch`.
        remote: IpAddr,
        /// As given to `watch`; the address to send from is in `Reach`.
        local: Option<IpAddr>,
        /// What now holds.
        reach: Reach,
    },
    /// A port's usable addresses changed: all but IPv6 link-local ones, and IPv6 ones only after duplicate address detection.
    Local {
        /// The port.
        port: PortIndex,
        /// New ones.
        added: Vec<IpAddr>,
        /// Those that are no longer ours.
        removed: Vec<IpAddr>,
    },
    /// A port is there, or its link changed.
    Link {
        /// The port.
        port: PortIndex,
        /// The interface's number.
        ifindex: u32,
        /// Its MAC address; zeros if it is not Ethernet, and then nothing is sent through it.
        mac: [u8; 6],
        /// Its MTU in bytes.
        mtu: u32,
        /// Switched on, and with a carrier.
        up: bool,
        /// Another interface than the one that had this name before: sockets and programs on that one are gone.
        recreated: bool,
    },
    /// No interface has the port's name.
    Gone {
        /// The port.
        port: PortIndex,
    },
}

/// A remote as the caller names it: with the local address that its site talks to, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    remote: IpAddr,
    local: Option<IpAddr>,
}

/// Follows the kernel's links, addresses, routes and neighbours for a set of remotes.
///
/// It has no task of its own: it works while [`Underlay::next`] is awaited.
pub struct Underlay {
    table: Table,
    events: Events,
    requests: Requests,
    /// The dump to send next, or in flight; None: the table is in step with the kernel.
    dump: Option<Dump>,
    /// Lines of the dumps so far.
    lines: Vec<Fact>,
    /// Events heard since the first of the dumps was asked for: what a dump says of the same thing may be older.
    heard: Vec<Fact>,
    batch: Vec<Request>,
    /// When the kernel last answered, or was last asked.
    progress: Instant,
    /// Nothing is sent before.
    not_before: Instant,
    #[cfg(test)]
    resyncs: u32,
}

impl Underlay {
    /// Starts to follow the kernel, in the network namespace of this thread, for these WAN ports by name; `listen_port` is the
    /// hub's UDP port, since routing rules may choose by it. The first changes are one `Link` or `Gone` per port, and a `Local`
    /// for each that has addresses. Errors: the system refuses netlink sockets. Needs a tokio runtime.
    pub fn open(ports: impl IntoIterator<Item = (PortIndex, String)>, listen_port: u16) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            table: Table::new(ports, now),
            events: Events::open()?,
            requests: Requests::open(listen_port)?,
            dump: Some(Dump::Links),
            lines: Vec::new(),
            heard: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            progress: now,
            not_before: now,
            #[cfg(test)]
            resyncs: 0,
        })
    }

    /// Watches a remote. `local`: the address of ours that its site talks to, which is the source as long as it is ours; else
    /// the source is the route's. Always answered by a `Change::Reach`, also when it is watched already; each `watch` counts,
    /// and wants its `unwatch`.
    pub fn watch(&mut self, remote: IpAddr, local: Option<IpAddr>) {
        self.table.watch(Key { remote, local });
    }

    /// Ends one `watch`. After the last, no change of this remote is told any more.
    pub fn unwatch(&mut self, remote: IpAddr, local: Option<IpAddr>) {
        self.table.unwatch(Key { remote, local });
    }

    /// Asks for the way to this remote again, whatever its local address: its path MTU may have changed, of which there is no
    /// event.
    pub fn refresh(&mut self, remote: IpAddr) {
        self.table.refresh(remote);
    }

    /// What is known now of a watched remote. None: it is not watched, or the kernel has yet to be asked.
    pub fn reach(&self, remote: IpAddr, local: Option<IpAddr>) -> Option<Reach> {
        self.table.reach(&Key { remote, local })
    }

    /// Whether everything that the kernel had to tell at the start, or after a loss, has been read and told.
    pub fn is_settled(&self) -> bool {
        self.dump.is_none() && !self.table.resync && !self.table.has_news()
    }

    /// The next change. Cancel-safe: dropping the future loses nothing, so it fits a branch of `select!`.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.table.next_change() {
                return change;
            }
            let more = self.turn(Instant::now());
            if self.table.has_news() {
                continue;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let deadline = self.deadline();
            tokio::select! {
                () = self.events.readable() => {}
                () = self.requests.readable() => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }

    /// One round, without waiting: 1. hear, 2. take answers, 3. see to what is due, 4. ask. True: more has been heard than fits
    /// a round.
    fn turn(&mut self, now: Instant) -> bool {
        let Self { table, events, dump, heard, .. } = self;
        let apply = |fact: Fact| {
            // After a dump, all routes are asked for anyway.
            if dump.is_some() && !matches!(fact, Fact::Routes { .. } | Fact::Policy) {
                heard.push(fact.clone());
            }
            table.apply(fact, now);
        };
        let more = events.read(apply).unwrap_or_else(|e| {
            if netlink::is_overrun(&e) {
                warn!("the kernel had more network changes to tell than fit the socket; reading everything again");
            } else {
                warn!("reading network changes from the kernel: {e}; reading everything again");
                self.not_before = now + PAUSE;
            }
            self.table.resync = true;
            true
        });
        self.answers(now);
        self.table.expire(now);
        if self.requests.idle() && now >= self.not_before {
            self.ask(now);
        }
        more
    }

    fn answers(&mut self, now: Instant) {
        if self.requests.idle() {
            return;
        }
        let Self { table, requests, dump, lines, heard: since, .. } = self;
        let (heard, paused) = (Cell::new(false), Cell::new(false));
        let mut take = |request: Request, answer: Answer| {
            heard.set(true);
            match request {
                Request::Dump(part) => match answer {
                    Answer::Fact(line) => lines.extend(line),
                    Answer::Done => match part {
                        Dump::Links => *dump = Some(Dump::Addresses),
                        Dump::Addresses => *dump = Some(Dump::Neighbours),
                        Dump::Neighbours => {
                            *dump = None;
                            table.replace(latest(lines.drain(..).chain(since.drain(..))), now);
                        }
                    },
                    Answer::Torn => table.resync = true,
                    Answer::Lost | Answer::Failed(_) | Answer::Route(_) => {
                        debug!(?part, ?answer, "a dump failed; once more");
                        table.resync = true;
                        paused.set(true);
                    }
                },
                Request::Route { key, source } => match answer {
                    Answer::Route(route) => table.answer(key, source, Ok(route), now),
                    Answer::Failed(errno) => table.answer(key, source, Err(errno), now),
                    Answer::Lost | Answer::Done | Answer::Torn | Answer::Fact(_) => table.ask(key, true),
                },
                Request::Probe(hop) => {
                    if let Answer::Failed(errno) = answer {
                        table.probe_failed(hop, errno, now);
                    }
                }
            }
        };
        let read = requests.read(&mut take);
        if read.is_err() || (!heard.get() && now.saturating_duration_since(self.progress) > ANSWER_TIMEOUT) {
            debug!(?read, "answers of the kernel are missing; asking again");
            requests.abandon(&mut take);
            self.not_before = now + PAUSE;
        } else if heard.get() {
            self.progress = now;
        }
        if paused.get() {
            self.not_before = now + PAUSE;
        }
    }

    fn ask(&mut self, now: Instant) {
        if std::mem::take(&mut self.table.resync) {
            #[cfg(test)]
            {
                self.resyncs += 1;
            }
            self.lines.clear();
            self.heard.clear();
            self.dump = Some(Dump::Links);
        }
        self.batch.clear();
        match self.dump {
            Some(part) => self.batch.push(Request::Dump(part)),
            None => self.table.questions(now, &mut self.batch),
        }
        if self.batch.is_empty() {
            return;
        }
        self.progress = now;
        if let Err(e) = self.requests.send(&self.batch) {
            debug!("asking the kernel: {e}; once more");
            self.not_before = now + PAUSE;
            for request in &self.batch {
                if let Request::Route { key, .. } = request {
                    self.table.ask(*key, true);
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        let now = Instant::now();
        let asking = if !self.requests.idle() {
            self.progress + ANSWER_TIMEOUT
        } else if self.dump.is_some() || self.table.resync {
            self.not_before
        } else {
            self.table.questions_due(now).map_or(now + ANSWER_TIMEOUT, |due| due.max(self.not_before))
        };
        asking.min(self.table.timer())
    }
}

/// Of several facts about the same link, address or neighbour the last one: links first, as the table needs them.
fn latest(facts: impl Iterator<Item = Fact>) -> Vec<Fact> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum About {
        Link(u32),
        Address(u32, IpAddr),
        Neighbour(netlink::Hop),
    }
    let about = |fact: Fact| {
        let about = match &fact {
            Fact::Link(link) => About::Link(link.ifindex),
            Fact::LinkGone { ifindex } => About::Link(*ifindex),
            Fact::Address { ifindex, address, .. } => About::Address(*ifindex, *address),
            Fact::Neighbour { hop, .. } => About::Neighbour(*hop),
            Fact::Routes { .. } | Fact::Policy => return None,
        };
        Some((about, fact))
    };
    facts.filter_map(about).collect::<BTreeMap<_, _>>().into_values().collect()
}
