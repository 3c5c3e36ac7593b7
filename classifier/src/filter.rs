//! A tenant's filter: ordered rules, of which the first that matches a packet decides. It keeps no state.
//!
//! Rules are compiled into bit vectors (Lakshman and Stiliadis, 1998): each dimension of a packet (source, destination,
//! protocol, two ports) is cut at every edge of every rule, and each piece has a vector with a bit for each rule that holds
//! it. A packet's five vectors, found by binary search, are intersected, and the lowest bit that is left is the first rule
//! that matches. In front of each vector stands one word that tells which of its words have any bit (Baboescu and Varghese,
//! 2001), so that of a thousand rules only the few words are looked at that all five have.
//!
//! **Fragments.** Only the first has ports and flags. A later fragment passes if any packet of the same addresses and protocol
//! would: a rule that allows some ports lets it through, a rule that denies some does not stop it. That is as safe as it
//! is useful. A datagram that is denied loses its first fragment, so that nothing can be put together from the others; and two
//! ends that want to talk in later fragments alone can do so only where a rule lets them talk anyway. What would make
//! a first fragment say one thing here and another at its end is refused before ([`Flow::parse`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use wire::{Flow, Upper, has_ports};

/// Rules that a filter may have: as many words as one word has bits for.
pub const RULES_MAX: usize = 64 * 64;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// It goes on.
    Allow,
    /// It is dropped.
    Deny,
}

/// What a packet must be for its action to be taken. What is empty or none holds every packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// What becomes of it.
    pub action: Action,
    /// Where it comes from: one of these.
    pub from: Vec<IpNet>,
    /// Where it goes: one of these.
    pub to: Vec<IpNet>,
    /// What it carries.
    pub protocol: Option<u8>,
    /// Its source port: in one of these. Holds only what has ports.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Its destination port: in one of these.
    pub ports: Vec<RangeInclusive<u16>>,
    /// Its TCP flags. Holds only TCP, if it asks for any.
    pub flags: Flags,
}

/// TCP flags that must, and must not, be set.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Flags {
    /// All of these are.
    pub set: u8,
    /// None of these is.
    pub clear: u8,
}

impl Rule {
    /// A rule that holds every packet.
    pub const fn any(action: Action) -> Self {
        Self {
            action,
            from: Vec::new(),
            to: Vec::new(),
            protocol: None,
            source_ports: Vec::new(),
            ports: Vec::new(),
            flags: Flags { set: 0, clear: 0 },
        }
    }

    /// Whether it asks for more than a later fragment can show.
    fn looks_inside(&self) -> bool {
        !self.source_ports.is_empty() || !self.ports.is_empty() || self.flags != Flags::default()
    }
}

impl Flags {
    #[inline]
    fn hold(self, flags: u8) -> bool {
        flags & self.set == self.set && flags & self.clear == 0
    }
}

/// What a filter says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What becomes of it.
    pub action: Action,
    /// The rule that decided, from 0; as many as there are rules if none did.
    pub rule: usize,
}

/// Compiled rules.
#[derive(Debug)]
pub struct Filter {
    actions: Box<[(Action, Flags)]>,
    default: Action,
    v4: Table<u32>,
    v6: Table<u128>,
}

impl Filter {
    /// Rules in their order, and what becomes of packets that none of them matches. Of more than [`RULES_MAX`] the first count.
    pub fn new(rules: &[Rule], default: Action) -> Self {
        let rules = &rules[..rules.len().min(RULES_MAX)];
        Self {
            actions: rules.iter().map(|rule| (rule.action, rule.flags)).collect(),
            default,
            v4: Table::new(rules, |net| match net {
                IpNet::V4(net) => Some(net.network().to_bits()..=net.broadcast().to_bits()),
                IpNet::V6(_) => None,
            }),
            v6: Table::new(rules, |net| match net {
                IpNet::V6(net) => Some(net.network().to_bits()..=net.broadcast().to_bits()),
                IpNet::V4(_) => None,
            }),
        }
    }

    /// Rules that it has.
    pub fn rules(&self) -> usize {
        self.actions.len()
    }

    /// What becomes of a packet.
    #[inline]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let rule = match (flow.source, flow.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => self.v4.first(from.to_bits(), to.to_bits(), flow, &self.actions),
            (IpAddr::V6(from), IpAddr::V6(to)) => self.v6.first(from.to_bits(), to.to_bits(), flow, &self.actions),
            // No packet has addresses of two kinds.
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        };
        match rule.and_then(|rule| Some((rule, self.actions.get(rule)?))) {
            Some((rule, (action, _))) => Decision { action: *action, rule },
            None => Decision { action: self.default, rule: self.actions.len() },
        }
    }
}

/// The rules for one IP version.
#[derive(Debug)]
struct Table<A> {
    from: Dimension<A>,
    to: Dimension<A>,
    source_ports: Dimension<u16>,
    ports: Dimension<u16>,
    /// By protocol: the number of its vector.
    protocols: Box<[u32; 256]>,
    /// The vector of the rules that may match a fragment that is not the first.
    later: u32,
    vectors: Vectors,
}

impl<A: Edge> Table<A> {
    fn new(rules: &[Rule], range: impl Fn(&IpNet) -> Option<RangeInclusive<A>>) -> Self {
        let mut vectors = Vectors::new(rules.len());
        let addresses = |nets: &[IpNet]| match nets {
            [] => vec![A::FIRST..=A::LAST],
            nets => nets.iter().filter_map(&range).collect(),
        };
        let ports = |ranges: &[RangeInclusive<u16>]| match ranges {
            [] => vec![u16::MIN..=u16::MAX],
            ranges => ranges.to_vec(),
        };
        let from = Dimension::new(rules.iter().map(|rule| addresses(&rule.from)), &mut vectors);
        let to = Dimension::new(rules.iter().map(|rule| addresses(&rule.to)), &mut vectors);
        let source_ports = Dimension::new(rules.iter().map(|rule| ports(&rule.source_ports)), &mut vectors);
        let ports = Dimension::new(rules.iter().map(|rule| ports(&rule.ports)), &mut vectors);
        let mut of_protocol = |protocol: u8| {
            let holds = |rule: &Rule| {
                rule.protocol.is_none_or(|wanted| wanted == protocol)
                    && (has_ports(protocol) || rule.source_ports.is_empty() && rule.ports.is_empty())
                    && (protocol == wire::tcp::PROTOCOL || rule.flags == Flags::default())
            };
            vectors.add(rules.iter().map(holds))
        };
        let protocols = Box::new(std::array::from_fn(|protocol| of_protocol(protocol as u8)));
        let later = vectors.add(rules.iter().map(|rule| rule.action == Action::Allow || !rule.looks_inside()));
        vectors.known = HashMap::new();
        Self { from, to, source_ports, ports, protocols, later, vectors }
    }

    /// The first rule that matches.
    #[inline]
    fn first(&self, from: A, to: A, flow: &Flow, actions: &[(Action, Flags)]) -> Option<usize> {
        let vector = |number| self.vectors.at(number);
        let protocol = vector(self.protocols[usize::from(flow.protocol)]);
        let (from, to) = (vector(self.from.find(from)), vector(self.to.find(to)));
        let (ports, flags) = match flow.upper {
            Some(Upper { source_port, destination_port, tcp_flags }) => {
                ([self.source_ports.find(source_port), self.ports.find(destination_port)], Some(tcp_flags))
            }
            None => ([self.later; 2], None),
        };
        let [source_port, port] = ports.map(vector);
        let mut words = from[0] & to[0] & protocol[0] & source_port[0] & port[0];
        while words != 0 {
            let word = words.trailing_zeros() as usize;
            let at = word + 1;
            let mut rules = from[at] & to[at] & protocol[at] & source_port[at] & port[at];
            while rules != 0 {
                let rule = word * 64 + rules.trailing_zeros() as usize;
                if flags.is_none_or(|flags| actions.get(rule).is_some_and(|(_, wanted)| wanted.hold(flags))) {
                    return Some(rule);
                }
                rules &= rules - 1;
            }
            words &= words - 1;
        }
        None
    }
}

/// A number that ranges are made of.
trait Edge: Copy + Ord {
    const FIRST: Self;
    const LAST: Self;
    /// The next one, if there is one.
    fn next(self) -> Option<Self>;
}

macro_rules! edge {
    ($($number:ty)*) => { $(impl Edge for $number {
        const FIRST: Self = 0;
        const LAST: Self = Self::MAX;
        fn next(self) -> Option<Self> {
            self.checked_add(1)
        }
    })* };
}
edge!(u16 u32 u128);

/// One dimension, cut into pieces in which the same rules hold.
#[derive(Debug)]
struct Dimension<K> {
    /// Where each piece begins, ascending; the first at the beginning of all.
    starts: Box<[K]>,
    /// The number of its vector.
    vectors: Box<[u32]>,
}

impl<K: Edge> Dimension<K> {
    /// For each rule, the ranges of which it holds any.
    fn new(rules: impl ExactSizeIterator<Item = Vec<RangeInclusive<K>>>, vectors: &mut Vectors) -> Self {
        let rules: Vec<_> = rules.collect();
        let edges = |range: &RangeInclusive<K>| [Some(*range.start()), range.end().next()];
        let mut starts: Vec<K> = rules.iter().flatten().flat_map(edges).flatten().chain([K::FIRST]).collect();
        starts.sort_unstable();
        starts.dedup();
        let mut pieces = vec![vec![0u64; vectors.words]; starts.len()];
        for (rule, ranges) in rules.iter().enumerate() {
            for range in ranges {
                let first = starts.partition_point(|start| start < range.start());
                let after = starts.partition_point(|start| start <= range.end());
                for piece in pieces.get_mut(first..after).into_iter().flatten() {
                    piece[rule / 64] |= 1 << (rule % 64);
                }
            }
        }
        // Pieces that differ in no rule are one.
        let mut cuts: Vec<(K, u32)> = Vec::new();
        for (start, piece) in starts.into_iter().zip(pieces) {
            let number = vectors.intern(piece);
            if cuts.last().is_none_or(|(_, last)| *last != number) {
                cuts.push((start, number));
            }
        }
        Self { starts: cuts.iter().map(|(start, _)| *start).collect(), vectors: cuts.iter().map(|(_, n)| *n).collect() }
    }

    /// The number of the vector of the piece that holds `key`.
    #[inline]
    fn find(&self, key: K) -> u32 {
        // The first piece begins at the beginning, so that there is one.
        let after = self.starts.partition_point(|start| *start <= key);
        self.vectors[after.saturating_sub(1)]
    }
}

/// Vectors of rules, each different one once: a word that tells which words have a bit, then those.
#[derive(Debug)]
struct Vectors {
    words: usize,
    bits: Vec<u64>,
    /// The number of each, while they are made.
    known: HashMap<Vec<u64>, u32>,
}

impl Vectors {
    fn new(rules: usize) -> Self {
        Self { words: rules.div_ceil(64), bits: Vec::new(), known: HashMap::new() }
    }

    /// The vector of those rules that hold.
    fn add(&mut self, holds: impl Iterator<Item = bool>) -> u32 {
        let mut vector = vec![0; self.words];
        for (rule, _) in holds.enumerate().filter(|(_, holds)| *holds) {
            vector[rule / 64] |= 1 << (rule % 64);
        }
        self.intern(vector)
    }

    fn intern(&mut self, vector: Vec<u64>) -> u32 {
        let next = self.known.len() as u32;
        let Self { bits, known, .. } = self;
        *known.entry(vector).or_insert_with_key(|vector| {
            let some = |(at, word): (usize, &u64)| u64::from(*word != 0) << at;
            bits.push(vector.iter().enumerate().map(some).fold(0, |all, one| all | one));
            bits.extend_from_slice(vector);
            next
        })
    }

    #[inline]
    fn at(&self, number: u32) -> &[u64] {
        let begin = number as usize * (self.words + 1);
        &self.bits[begin..begin + self.words + 1]
    }
}

#[cfg(test)]
mod tests;
