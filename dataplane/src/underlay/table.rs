//! What the kernel has said so far, and what follows for each remote. No I/O, and time is an argument.

mod ask;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tracing::warn;
use wire::PortIndex;

use self::ask::{Pace, TICK};
use super::netlink::{Fact, Hop, Link, Neighbour, Route};
use super::{Change, Key, NextHop, Reach};

/// A neighbour that the kernel just gave up or forgot keeps its MAC address in use for so long, while it is asked for. Many an
/// entry is back in a millisecond: `ip neigh flush`, garbage collection, a changed setting.
const DOUBT: Duration = Duration::from_millis(250);

/// The state. `resync`: everything must be read from the kernel again.
pub(super) struct Table {
    pub(super) resync: bool,
    ports: Vec<Port>,
    /// All neighbours on the ports' links.
    neighbours: HashMap<Hop, Neighbour>,
    /// Ordered, so that those within a prefix are neighbours.
    remotes: BTreeMap<Key, Remote>,
    /// Ordered, so that the ticks can take turns.
    hops: BTreeMap<Hop, InUse>,
    /// Next hops that lost their MAC address, and until when it is used all the same; in order of time.
    doubts: VecDeque<(Instant, Hop)>,
    news: VecDeque<News>,

    /// To ask at once; whether from the local address given.
    urgent: VecDeque<(Key, bool)>,
    probes: VecDeque<Hop>,
    /// To ask again, paced.
    again: VecDeque<Key>,
    pace: Pace,

    tick: Instant,
    probe_cursor: Option<Hop>,
    round_cursor: Option<Key>,
    /// Remotes and ticks that are owed: a remote for every `ROUND_TICKS`.
    round_credit: usize,
    /// The neighbour table was full, and that has been said.
    full_told: Option<Instant>,
}

struct Port {
    index: PortIndex,
    name: String,
    link: Option<Link>,
    /// The interface's number, also of one that is gone.
    last_ifindex: Option<u32>,
    addresses: BTreeSet<IpAddr>,
    /// Something has been told of it.
    told: bool,
}

struct Remote {
    watches: u32,
    /// None: the kernel has yet to answer.
    path: Option<Path>,
    told: Option<Reach>,
    /// In `news`.
    telling: bool,
    /// In `urgent` or `again`.
    asking: bool,
}

/// A kernel's route in our terms; `port` is an index into `Table::ports`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Path {
    Via { port: usize, hop: Hop, local: IpAddr, mtu: Option<u32> },
    None { was: Option<usize> },
}

/// A next hop that remotes use.
struct InUse {
    users: BTreeSet<Key>,
    mac: Option<[u8; 6]>,
    /// The end of the doubt, if its MAC address is in doubt.
    doubt: Option<Instant>,
    probed: Option<Instant>,
}

enum News {
    Change(Change),
    Reach(Key),
}

impl Table {
    pub(super) fn new(ports: impl IntoIterator<Item = (PortIndex, String)>, now: Instant) -> Self {
        let port = |(index, name)| Port {
            index,
            name,
            link: None,
            last_ifindex: None,
            addresses: BTreeSet::new(),
            told: false,
        };
        Self {
            resync: false,
            ports: ports.into_iter().map(port).collect(),
            neighbours: HashMap::new(),
            remotes: BTreeMap::new(),
            hops: BTreeMap::new(),
            doubts: VecDeque::new(),
            news: VecDeque::new(),
            urgent: VecDeque::new(),
            probes: VecDeque::new(),
            again: VecDeque::new(),
            pace: Pace::new(now),
            tick: now + TICK,
            probe_cursor: None,
            round_cursor: None,
            round_credit: 0,
            full_told: None,
        }
    }

    // ---- the caller's side ----

    pub(super) fn watch(&mut self, key: Key) {
        let remote = self.remotes.entry(key).or_insert(Remote {
            watches: 0,
            path: None,
            told: None,
            telling: false,
            asking: false,
        });
        remote.watches += 1;
        remote.told = None;
        if remote.path.is_some() {
            tell(remote, key, &mut self.news);
        } else {
            self.ask(key, true);
        }
    }

    pub(super) fn unwatch(&mut self, key: Key) {
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        remote.watches -= 1;
        if remote.watches == 0 {
            self.set_path(key, None, Instant::now());
            self.remotes.remove(&key);
        }
    }

    pub(super) fn refresh(&mut self, remote: IpAddr) {
        for key in self.keys_within(remote, remote) {
            self.ask(key, true);
        }
    }

    pub(super) fn reach(&self, key: &Key) -> Option<Reach> {
        let down = |port: usize| self.ports[port].link.as_ref().is_none_or(|link| !link.up);
        let (port, hop, local, mtu) = match self.remotes.get(key)?.path? {
            Path::Via { port, .. } if down(port) => return Some(Reach::PortDown),
            Path::None { was: Some(port) } if down(port) => return Some(Reach::PortDown),
            Path::None { .. } => return Some(Reach::NoRoute),
            Path::Via { port, hop, local, mtu } => (port, hop, local, mtu),
        };
        let Some(link) = self.ports[port].link.as_ref().filter(|link| link.ifindex == hop.ifindex) else {
            return Some(Reach::PortDown); // re-created; the route is being asked for
        };
        let Some(source_mac) = link.mac else { return Some(Reach::NoRoute) };
        let Some(destination_mac) = self.hops.get(&hop).and_then(|in_use| in_use.mac) else {
            return Some(Reach::Unresolved);
        };
        let mtu = u16::try_from(mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu))).unwrap_or(u16::MAX);
        let next_hop = hop.address;
        Some(Reach::Via(NextHop { port: self.ports[port].index, source_mac, next_hop, destination_mac, mtu, local }))
    }

    pub(super) fn has_news(&self) -> bool {
        !self.news.is_empty()
    }

    /// The oldest news. What is told of a remote is what holds now, so a slow reader is told less, never wrongly.
    pub(super) fn next_change(&mut self) -> Option<Change> {
        loop {
            let key = match self.news.pop_front()? {
                News::Change(change) => return Some(change),
                News::Reach(key) => key,
            };
            let reach = self.reach(&key);
            let Some(remote) = self.remotes.get_mut(&key) else { continue };
            remote.telling = false;
            if let Some(reach) = reach
                && remote.told != Some(reach)
            {
                remote.told = Some(reach);
                return Some(Change::Reach { remote: key.remote, local: key.local, reach });
            }
        }
    }

    // ---- what the kernel says ----

    pub(super) fn apply(&mut self, fact: Fact, now: Instant) {
        match fact {
            Fact::Link(link) => {
                // Its addresses may have come before its name did (a renamed interface): read all again.
                self.resync |= self.link(link, now);
            }
            Fact::LinkGone { ifindex } => {
                let gone = |p: &Port| p.link.as_ref().is_some_and(|link| link.ifindex == ifindex);
                if let Some(port) = self.ports.iter().position(gone) {
                    self.gone(port, now);
                }
            }
            Fact::Address { ifindex, address, usable } => {
                let Some(port) = self.port_of(ifindex) else { return };
                let mut addresses = self.ports[port].addresses.clone();
                let changed = match usable && is_ours(address) {
                    true => addresses.insert(address),
                    false => addresses.remove(&address),
                };
                if changed {
                    self.set_addresses(port, addresses, now);
                }
            }
            Fact::Neighbour { hop, neighbour } => {
                if self.port_of(hop.ifindex).is_none() {
                    return;
                }
                match neighbour {
                    Some(neighbour) => self.neighbours.insert(hop, neighbour),
                    None => self.neighbours.remove(&hop),
                };
                self.neighbour_changed(hop, now);
            }
            Fact::Routes { first, last } => {
                if first.is_unspecified() && last != first {
                    self.ask_all(now);
                } else {
                    for key in self.keys_within(first, last) {
                        self.ask_again(key, now);
                    }
                }
            }
            Fact::Policy => self.ask_all(now),
        }
    }

    /// Puts the lines of fresh dumps in the place of all that was known.
    pub(super) fn replace(&mut self, lines: Vec<Fact>, now: Instant) {
        let mut present = BTreeSet::new();
        let mut addresses: HashMap<u32, BTreeSet<IpAddr>> = HashMap::new();
        self.neighbours.clear();
        for line in lines {
            match line {
                Fact::Link(link) => {
                    present.insert(link.ifindex);
                    self.link(link, now);
                }
                Fact::Address { ifindex, address, usable: true } if is_ours(address) => {
                    addresses.entry(ifindex).or_default().insert(address);
                }
                Fact::Neighbour { hop, neighbour: Some(neighbour) } if self.port_of(hop.ifindex).is_some() => {
                    self.neighbours.insert(hop, neighbour);
                }
                _ => {}
            }
        }
        for port in 0..self.ports.len() {
            match self.ports[port].link.as_ref().map(|link| link.ifindex).filter(|ifindex| present.contains(ifindex)) {
                Some(ifindex) => self.set_addresses(port, addresses.remove(&ifindex).unwrap_or_default(), now),
                None if self.ports[port].link.is_some() || !self.ports[port].told => self.gone(port, now),
                None => {}
            }
        }
        for hop in self.hops.keys().copied().collect::<Vec<_>>() {
            self.neighbour_changed(hop, now);
        }
        // Each remote once: those that wait to be asked for the first time are not asked twice.
        self.pace.all = false;
        for key in self.remotes.keys().copied().collect::<Vec<_>>() {
            self.ask_again(key, now);
        }
    }

    /// The answer to a question for a route, or its errno.
    pub(super) fn answer(&mut self, key: Key, source: Option<IpAddr>, answer: Result<Route, i32>, now: Instant) {
        let Some(remote) = self.remotes.get(&key) else { return };
        let was = match remote.path {
            Some(Path::Via { port, .. }) => Some(port),
            Some(Path::None { was }) => was,
            None => None,
        };
        let path = match answer {
            // IPv4 refuses a source that has ceased to be ours.
            Err(libc::EINVAL) if source.is_some() => return self.ask(key, false),
            Ok(Route { unicast: true, ifindex, gateway, source: preferred, mtu }) => {
                let port = self.port_of(ifindex);
                let local = source.or(preferred).filter(|address| is_ours(*address));
                let hop = Hop { ifindex, address: gateway.unwrap_or(key.remote) };
                port.zip(local).map(|(port, local)| Path::Via { port, hop, local, mtu })
            }
            Ok(_) | Err(_) => None,
        };
        self.set_path(key, Some(path.unwrap_or(Path::None { was })), now);
    }

    pub(super) fn probe_failed(&mut self, hop: Hop, errno: i32, now: Instant) {
        let told_lately =
            self.full_told.is_some_and(|told| now.saturating_duration_since(told) < Duration::from_secs(60));
        if errno == libc::ENOBUFS && !told_lately {
            self.full_told = Some(now);
            let family = if hop.address.is_ipv4() { "ipv4" } else { "ipv6" };
            warn!(
                "the kernel's neighbour table is full, so {} can't be resolved: raise net.{family}.neigh.default.gc_thresh3 \
                 (and gc_thresh2, gc_thresh1) above the number of hosts on the links",
                hop.address
            );
        }
    }

    /// Whether the port has another interface than before.
    fn link(&mut self, link: Link, now: Instant) -> bool {
        let renamed = |p: &Port| p.name != link.name && p.link.as_ref().is_some_and(|l| l.ifindex == link.ifindex);
        if let Some(port) = self.ports.iter().position(renamed) {
            self.gone(port, now);
        }
        let Some(port) = self.ports.iter().position(|p| p.name == link.name) else { return false };
        if self.ports[port].link.as_ref() == Some(&link) {
            return false;
        }
        let other = self.ports[port].link.as_ref().is_none_or(|l| l.ifindex != link.ifindex);
        if other {
            self.set_addresses(port, BTreeSet::new(), now);
        }
        let entry = &mut self.ports[port];
        self.news.push_back(News::Change(Change::Link {
            port: entry.index,
            ifindex: link.ifindex,
            mac: link.mac.unwrap_or_default(),
            mtu: link.mtu,
            up: link.up,
            recreated: entry.last_ifindex.is_some_and(|last| last != link.ifindex),
        }));
        entry.told = true;
        entry.last_ifindex = Some(link.ifindex);
        let (ifindex, up) = (link.ifindex, link.up);
        entry.link = Some(link);
        self.tell_users(port);
        self.ask_all(now);
        if up {
            // A link that was down has forgotten its neighbours.
            for hop in self.hops.keys().copied().filter(|hop| hop.ifindex == ifindex).collect::<Vec<_>>() {
                self.neighbour_changed(hop, now);
                if self.hops.get(&hop).is_some_and(|in_use| in_use.mac.is_none()) {
                    self.probe(hop, TICK, now);
                }
            }
        }
        other
    }

    fn gone(&mut self, port: usize, now: Instant) {
        self.set_addresses(port, BTreeSet::new(), now);
        let entry = &mut self.ports[port];
        if let Some(link) = entry.link.take() {
            self.neighbours.retain(|hop, _| hop.ifindex != link.ifindex);
        }
        entry.told = true;
        self.news.push_back(News::Change(Change::Gone { port: entry.index }));
        self.tell_users(port);
        self.ask_all(now);
    }

    fn set_addresses(&mut self, port: usize, addresses: BTreeSet<IpAddr>, now: Instant) {
        let entry = &mut self.ports[port];
        if entry.addresses == addresses {
            return;
        }
        self.news.push_back(News::Change(Change::Local {
            port: entry.index,
            added: addresses.difference(&entry.addresses).copied().collect(),
            removed: entry.addresses.difference(&addresses).copied().collect(),
        }));
        entry.addresses = addresses;
        self.ask_all(now);
    }

    fn neighbour_changed(&mut self, hop: Hop, now: Instant) {
        let Some(in_use) = self.hops.get_mut(&hop) else { return };
        let neighbour = self.neighbours.get(&hop);
        if !neighbour.is_some_and(Neighbour::is_stale) {
            in_use.probed = None; // the next staleness is a new one
        }
        match neighbour.and_then(|n| n.mac) {
            Some(mac) => {
                in_use.doubt = None;
                if in_use.mac.replace(mac) != Some(mac) {
                    tell_all(&in_use.users, &mut self.remotes, &mut self.news);
                }
            }
            None if in_use.mac.is_some() && in_use.doubt.is_none() => {
                let end = now + DOUBT;
                in_use.doubt = Some(end);
                self.doubts.push_back((end, hop));
                self.probe(hop, Duration::ZERO, now);
            }
            None => {}
        }
    }

    /// Files the remote under its next hop. None: forgets it.
    fn set_path(&mut self, key: Key, path: Option<Path>, now: Instant) {
        let Some(remote) = self.remotes.get_mut(&key) else { return };
        let before = std::mem::replace(&mut remote.path, path);
        if before == path {
            return;
        }
        tell(remote, key, &mut self.news);
        let hop_of = |path| if let Some(Path::Via { hop, .. }) = path { Some(hop) } else { None };
        let (from, to) = (hop_of(before), hop_of(path));
        if from == to {
            return;
        }
        if let Some(hop) = from
            && let Some(in_use) = self.hops.get_mut(&hop)
        {
            in_use.users.remove(&key);
            if in_use.users.is_empty() {
                self.hops.remove(&hop);
            }
        }
        if let Some(hop) = to {
            let mac = self.neighbours.get(&hop).and_then(|n| n.mac);
            let new = || InUse { users: BTreeSet::new(), mac, doubt: None, probed: None };
            let in_use = self.hops.entry(hop).or_insert_with(new);
            in_use.users.insert(key);
            if in_use.users.len() == 1 && mac.is_none() {
                self.probe(hop, TICK, now);
            }
        }
    }

    // ---- helpers ----

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.remotes.is_empty() && self.hops.is_empty()
    }

    fn port_of(&self, ifindex: u32) -> Option<usize> {
        self.ports.iter().position(|p| p.link.as_ref().is_some_and(|link| link.ifindex == ifindex))
    }

    fn keys_within(&self, first: IpAddr, last: IpAddr) -> Vec<Key> {
        let low = Key { remote: first, local: None };
        let high = Key { remote: last, local: Some(std::net::Ipv6Addr::from_bits(u128::MAX).into()) };
        self.remotes.range(low..=high).map(|(key, _)| *key).collect()
    }

    /// Tells of all remotes whose way goes, or went, through the port.
    fn tell_users(&mut self, port: usize) {
        for (key, remote) in &mut self.remotes {
            if matches!(remote.path, Some(Path::Via { port: p, .. } | Path::None { was: Some(p) }) if p == port) {
                tell(remote, *key, &mut self.news);
            }
        }
    }
}

fn tell(remote: &mut Remote, key: Key, news: &mut VecDeque<News>) {
    if !std::mem::replace(&mut remote.telling, true) {
        news.push_back(News::Reach(key));
    }
}

fn tell_all(users: &BTreeSet<Key>, remotes: &mut BTreeMap<Key, Remote>, news: &mut VecDeque<News>) {
    for key in users {
        if let Some(remote) = remotes.get_mut(key) {
            tell(remote, *key, news);
        }
    }
}

/// An address that sites can talk to: link-local IPv6 ones mean nothing beyond the link.
fn is_ours(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => !a.is_unspecified(),
        IpAddr::V6(a) => !a.is_unspecified() && !a.is_unicast_link_local(),
    }
}
