//! Fragments of outer datagrams, made whole again (RFC 791, 3.2; RFC 8200, 4.5; RFC 5722).
//!
//! A site behind PPPoE sends the default WireGuard packet in two fragments, so they are normal traffic; anybody can
//! send fragments that never become whole, so everything here is bounded. Fragments wait in control, off the journey.
//!
//! **The books.** Each fragment pushed is, in the end, exactly one of: dropped at once ([`Outcome::Dropped`]), dropped
//! later (told once by [`Reassembly::expire`]), part of a whole ([`Reassembly::joined`]), or held
//! ([`Reassembly::held`]).

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map},
    net::IpAddr,
    ops::Range,
};

use wire::{DropReason, Ecn, Malformed, ecn, ethernet, ipv4, ipv6, udp};

/// What waits at most.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Datagrams in all.
    datagrams: usize,
    /// Datagrams of one source address: its share of what a flood can fill.
    per_source: usize,
    /// Bytes of payload and headers in all.
    bytes: usize,
    /// Fragments of one datagram.
    fragments: usize,
    /// Nanoseconds from a datagram's first fragment to arrive until it is given up.
    timeout: u64,
}

/// The hub's limits.
///
/// - Two fragments of a datagram leave their sender together and arrive together, give or take a reordering path, so
///   that one second is long. The 30 or 60 seconds of hosts would be harmful: IPv4 identifications of a fast sender
///   repeat within seconds, and what waits too long is joined with the wrong half (RFC 4963).
/// - 64 datagrams a source: if 1 % of fragments are lost, 3,200 datagrams of two a second keep within it, and beyond it
///   a sender loses only halves that are hopeless anyway, since its oldest goes first.
/// - 1,024 datagrams: 16 such senders. In 4 MiB they can be 4 KiB each, a whole chunk.
/// - 16 fragments make a chunk of 4 KiB over any link that carries 280 bytes; 576 is what IPv4 hosts may expect.
const LIMITS: Limits =
    Limits { datagrams: 1024, per_source: 64, bytes: 4 << 20, fragments: 16, timeout: 1_000_000_000 };

/// What became of a fragment that was pushed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was the last that was missing: the whole Ethernet frame, as if it had never been fragmented.
    Complete(Vec<u8>),
    /// It waits for the others.
    Stored,
    /// It was dropped. What it took with it is told by [`Reassembly::expire`].
    Dropped(DropReason),
}

/// The fragments that wait.
#[derive(Debug)]
pub struct Reassembly {
    limits: Limits,
    /// Bytes of the largest frame that may come out.
    largest_frame: usize,
    /// By the order in which they were begun: the first is the oldest.
    datagrams: BTreeMap<u64, Datagram>,
    serials: HashMap<Key, u64>,
    /// The datagrams of each source, oldest first. No source is without.
    sources: HashMap<IpAddr, VecDeque<u64>>,
    next_serial: u64,
    bytes: usize,
    held: usize,
    joined: u64,
    /// Dropped after they had been stored, and not yet told: overlaps, timeouts, limits, malformed.
    dropped: [(DropReason, u32); 4],
}

/// What the fragments of one datagram share (RFC 791, 3.2; RFC 8200, 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Key {
    source: IpAddr,
    destination: IpAddr,
    id: u32,
}

/// A datagram of which not all has arrived.
#[derive(Debug)]
struct Datagram {
    key: Key,
    begun: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Parts),
    /// A fragment was wrong, and so is all that still comes (RFC 5722, 4): the reason is kept, the bytes are not.
    Condemned(DropReason),
}

/// The fragments of a datagram, in one buffer.
#[derive(Debug, Default)]
struct Parts {
    /// Ethernet and IP header of the first fragment, without the IPv6 fragment header.
    header: Option<Vec<u8>>,
    /// The payload, at its place. Between the ranges are zeros.
    payload: Vec<u8>,
    /// What has arrived, in the order of arrival.
    ranges: Vec<Range<usize>>,
    /// Bytes of the payload, once the last fragment is known.
    len: Option<usize>,
    /// Whether a router marked congestion on any fragment.
    congestion: bool,
}

/// One fragment, read.
struct Fragment<'a> {
    key: Key,
    /// For the first fragment: the headers of the whole, lengths still to be set.
    header: Option<Vec<u8>>,
    header_len: usize,
    range: Range<usize>,
    more: bool,
    ecn: Ecn,
    payload: &'a [u8],
}

impl Reassembly {
    /// Nothing waits yet. No frame of more than `largest_frame` bytes will come out.
    pub fn new(largest_frame: usize) -> Self {
        Self::with_limits(largest_frame, LIMITS)
    }

    fn with_limits(largest_frame: usize, limits: Limits) -> Self {
        use DropReason::{FragmentLimit, FragmentOverlap, FragmentTimeout, OuterMalformed};
        Self {
            limits,
            largest_frame,
            datagrams: BTreeMap::new(),
            serials: HashMap::new(),
            sources: HashMap::new(),
            next_serial: 0,
            bytes: 0,
            held: 0,
            joined: 0,
            dropped: [FragmentOverlap, FragmentTimeout, FragmentLimit, OuterMalformed].map(|reason| (reason, 0)),
        }
    }

    /// Takes an Ethernet frame with a fragment of a UDP datagram. `now` is in nanoseconds and never goes back.
    pub fn push(&mut self, frame: &[u8], now: u64) -> Outcome {
        // 1. What is late is gone before it can be joined.
        self.give_up(now);

        // 2. The fragment alone.
        let Ok(fragment) = Fragment::read(frame) else { return Outcome::Dropped(DropReason::OuterMalformed) };
        let key = fragment.key;
        if fragment.range.start == 0 && !fragment.more {
            // Whole in itself (an atomic fragment): joined with nothing that waits (RFC 6946, 4).
            return match self.alone(fragment) {
                Ok(whole) => Outcome::Complete(whole),
                Err(reason) => Outcome::Dropped(reason),
            };
        }

        // 3. Its datagram, begun if it is the first to arrive.
        let serial = self.find_or_begin(key, now);
        let Some(datagram) = self.datagrams.get_mut(&serial) else {
            return Outcome::Dropped(DropReason::FragmentLimit);
        };
        let parts = match &mut datagram.state {
            State::Waiting(parts) => parts,
            State::Condemned(reason) => return Outcome::Dropped(*reason),
        };

        // 4. Together with the others.
        let before = parts.size();
        match parts.add(fragment, self.largest_frame, self.limits.fragments) {
            Ok(Added::New) => {
                self.held += 1;
                self.bytes = self.bytes + parts.size() - before;
            }
            Ok(Added::Duplicate) => return Outcome::Dropped(DropReason::FragmentOverlap),
            Err(reason) => {
                self.condemn(serial, reason);
                return Outcome::Dropped(reason);
            }
        }

        // 5. All there?
        if parts.is_complete() {
            let Some(Datagram { state: State::Waiting(parts), .. }) = self.remove(serial) else {
                unreachable!("it was just added to")
            };
            let fragments = parts.ranges.len();
            let Some(whole) = parts.join() else {
                self.count(DropReason::OuterMalformed, fragments - 1);
                return Outcome::Dropped(DropReason::OuterMalformed);
            };
            self.joined += fragments as u64;
            return Outcome::Complete(whole);
        }

        // 6. Room for it, made by dropping the oldest; never this one, unless it alone is too much.
        while self.bytes > self.limits.bytes {
            self.evict_oldest();
        }
        Outcome::Stored
    }

    /// Gives up the datagrams whose time is over at `now`, and tells how many fragments, once stored, were dropped since
    /// the last call, and why.
    pub fn expire(&mut self, now: u64) -> impl Iterator<Item = (DropReason, u32)> + use<> {
        self.give_up(now);
        let told = self.dropped;
        self.dropped.iter_mut().for_each(|(_, count)| *count = 0);
        told.into_iter().filter(|(_, count)| *count != 0)
    }

    /// Fragments that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Fragments that have become part of a whole, in all.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    fn alone(&mut self, fragment: Fragment<'_>) -> Result<Vec<u8>, DropReason> {
        let mut parts = Parts::default();
        parts.add(fragment, self.largest_frame, self.limits.fragments)?;
        let whole = parts.join().ok_or(DropReason::OuterMalformed)?;
        self.joined += 1;
        Ok(whole)
    }

    fn find_or_begin(&mut self, key: Key, now: u64) -> u64 {
        if let Some(serial) = self.serials.get(&key) {
            return *serial;
        }
        if let Some(queue) = self.sources.get(&key.source)
            && queue.len() >= self.limits.per_source
            && let Some(oldest) = queue.front().copied()
        {
            self.evict(oldest);
        }
        while self.datagrams.len() >= self.limits.datagrams {
            self.evict_oldest();
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.serials.insert(key, serial);
        self.sources.entry(key.source).or_default().push_back(serial);
        self.datagrams.insert(serial, Datagram { key, begun: now, state: State::Waiting(Parts::default()) });
        serial
    }

    /// Drops what has arrived of a datagram, and all that will.
    fn condemn(&mut self, serial: u64, reason: DropReason) {
        let Some(datagram) = self.datagrams.get_mut(&serial) else { return };
        if let State::Waiting(parts) = std::mem::replace(&mut datagram.state, State::Condemned(reason)) {
            self.let_go(&parts);
            self.count(reason, parts.ranges.len());
        }
    }

    fn give_up(&mut self, now: u64) {
        while let Some(oldest) = self.datagrams.first_entry() {
            if now.saturating_sub(oldest.get().begun) < self.limits.timeout {
                break;
            }
            let serial = *oldest.key();
            self.drop_datagram(serial, DropReason::FragmentTimeout);
        }
    }

    fn evict_oldest(&mut self) {
        if let Some((serial, _)) = self.datagrams.first_key_value() {
            self.evict(*serial);
        }
    }

    fn evict(&mut self, serial: u64) {
        self.drop_datagram(serial, DropReason::FragmentLimit);
    }

    fn drop_datagram(&mut self, serial: u64, reason: DropReason) {
        if let Some(Datagram { state: State::Waiting(parts), .. }) = self.remove(serial) {
            self.count(reason, parts.ranges.len());
        }
    }

    /// Takes a datagram out of all indices and sums, without counting a drop.
    fn remove(&mut self, serial: u64) -> Option<Datagram> {
        let datagram = self.datagrams.remove(&serial)?;
        self.serials.remove(&datagram.key);
        if let hash_map::Entry::Occupied(mut queue) = self.sources.entry(datagram.key.source) {
            queue.get_mut().retain(|other| *other != serial);
            if queue.get().is_empty() {
                queue.remove();
            }
        }
        if let State::Waiting(parts) = &datagram.state {
            self.let_go(parts);
        }
        Some(datagram)
    }

    /// Takes parts out of the sums.
    fn let_go(&mut self, parts: &Parts) {
        self.held -= parts.ranges.len();
        self.bytes -= parts.size();
    }

    fn count(&mut self, reason: DropReason, fragments: usize) {
        match self.dropped.iter_mut().find(|(of, _)| *of == reason) {
            Some((_, count)) => *count += fragments as u32,
            None => unreachable!("{reason:?} is not among the reasons for which fragments are dropped"),
        }
    }
}

enum Added {
    New,
    /// The same bytes at the same place: the path doubled a packet. Not an overlap (RFC 8200, 4.5).
    Duplicate,
}

impl Parts {
    /// Puts a fragment at its place. An error condemns the datagram.
    fn add(&mut self, fragment: Fragment<'_>, largest_frame: usize, most: usize) -> Result<Added, DropReason> {
        let Fragment { range, more, payload, .. } = fragment;
        let known = self.ranges.iter().find(|known| known.start < range.end && range.start < known.end);
        if let Some(known) = known {
            let same = *known == range && self.payload.get(range.clone()) == Some(payload);
            return if same && more != (self.len == Some(range.end)) {
                Ok(Added::Duplicate)
            } else {
                Err(DropReason::FragmentOverlap)
            };
        }
        // An end before other bytes contradicts them as an overlap does; the buffer reaches to what is furthest.
        let ends_here = !more;
        if self.len.is_some_and(|len| range.end > len) || (ends_here && self.payload.len() > range.end) {
            return Err(DropReason::FragmentOverlap);
        }
        let header_len = self.header.as_ref().map_or(fragment.header_len, Vec::len);
        if header_len + range.end.max(self.payload.len()) > largest_frame || self.ranges.len() >= most {
            return Err(DropReason::FragmentLimit);
        }

        if self.payload.len() < range.end {
            self.payload.resize(range.end, 0);
        }
        self.payload[range.clone()].copy_from_slice(payload);
        if ends_here {
            self.len = Some(range.end);
        }
        if fragment.header.is_some() {
            self.header = fragment.header;
        }
        self.congestion |= fragment.ecn == Ecn::Ce;
        self.ranges.push(range);
        Ok(Added::New)
    }

    /// Ranges do not overlap, so they are all there when they add up.
    fn is_complete(&self) -> bool {
        self.len == Some(self.ranges.iter().map(Range::len).sum())
    }

    fn size(&self) -> usize {
        self.payload.len() + self.header.as_ref().map_or(0, Vec::len)
    }

    /// The frame, with the lengths and the checksum of a packet that was never fragmented. A mark on one fragment
    /// marks the whole (RFC 3168, 5.3).
    fn join(self) -> Option<Vec<u8>> {
        let mut frame = self.header?;
        frame.extend_from_slice(&self.payload);
        let (ethernet, packet) = frame.split_at_mut_checked(ethernet::HEADER)?;
        let len = packet.len();
        match u16::from_be_bytes([ethernet[12], ethernet[13]]) {
            ethernet::IPV4 => {
                let header_len = (packet.first()? & 0x0f) as usize * 4;
                let header = packet.get_mut(..header_len)?;
                header.get_mut(2..4)?.copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
                header.get_mut(6..8)?.fill(0);
                header.get_mut(10..12)?.fill(0);
                let checksum = wire::checksum::Sum::ZERO.bytes(header).finish();
                header.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
            }
            _ => {
                let payload_len = u16::try_from(len.checked_sub(ipv6::HEADER)?).ok()?;
                packet.get_mut(4..6)?.copy_from_slice(&payload_len.to_be_bytes());
            }
        }
        if self.congestion {
            ecn::set(packet, Ecn::Ce);
        }
        Some(frame)
    }
}

impl<'a> Fragment<'a> {
    /// Refuses what is no fragment of a UDP datagram directly over IP, an IPv4 header whose checksum is wrong, and a
    /// fragment that is empty, reaches beyond what a length field can say, or leaves a gap that nothing could fill.
    fn read(frame: &'a [u8]) -> Result<Self, Malformed> {
        let ethernet = ethernet::View::parse(frame)?;
        let bytes = ethernet.payload();
        let (key, offset, more, ecn, header, header_len, payload) = match ethernet.ethertype() {
            ethernet::IPV4 => {
                let ip = ipv4::View::parse(bytes)?;
                if !ip.verify() {
                    return Err(Malformed::Checksum);
                }
                if ip.protocol() != udp::PROTOCOL || !ip.is_fragment() {
                    return Err(Malformed::Protocol);
                }
                let key = Key { source: ip.source().into(), destination: ip.destination().into(), id: ip.id().into() };
                let header_len = ethernet::HEADER + ip.header_len();
                let header = || frame[..header_len].to_vec();
                let offset = ip.fragment_offset();
                (key, offset, ip.more_fragments(), ip.ecn(), (offset == 0).then(header), header_len, ip.payload())
            }
            ethernet::IPV6 => {
                let ip = ipv6::View::parse(bytes)?;
                let (head, payload) = ip.payload().split_at_checked(ipv6::FRAGMENT_HEADER).ok_or(Malformed::Short)?;
                let fragment = ipv6::Fragment::parse(head).ok_or(Malformed::Short)?;
                if ip.next_header() != ipv6::FRAGMENT || fragment.next_header != udp::PROTOCOL {
                    return Err(Malformed::Protocol);
                }
                let key = Key { source: ip.source().into(), destination: ip.destination().into(), id: fragment.id };
                let header_len = ethernet::HEADER + ipv6::HEADER;
                let header = || {
                    let mut header = frame[..header_len].to_vec();
                    header[ethernet::HEADER + 6] = udp::PROTOCOL;
                    header
                };
                let offset = fragment.offset;
                (key, offset, fragment.more, ip.ecn(), (offset == 0).then(header), header_len, payload)
            }
            _ => return Err(Malformed::Protocol),
        };
        let range = offset..offset + payload.len();
        if payload.is_empty() || (more && !payload.len().is_multiple_of(8)) || range.end > u16::MAX as usize {
            return Err(Malformed::TotalLength);
        }
        Ok(Self { key, header, header_len, range, more, ecn, payload })
    }
}

#[cfg(test)]
mod tests;
