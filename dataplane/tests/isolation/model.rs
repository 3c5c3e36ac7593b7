//! What a hub should do with a packet, said as plainly as possible: lists that are searched from end to end, sets, and
//! checksums computed anew.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use wire::DropReason;

/// Why nothing leaves for a blocked site.
pub(crate) const BLOCKED: DropReason = DropReason::NextHopUnresolved;
/// The longest inner packet that fits the way to a site.
const FITS: usize = 1440;
/// The width of the replay window, and the first counter that is too large for it.
const WIDTH: u64 = 8128;
const LIMIT: u64 = 1 << 45;
/// ICMP answers a tenant may draw at once, and how long each takes to come back.
const BURST: u64 = 100;
const TOKEN_NS: u64 = 10_000_000;

/// Every reason that the trial must meet.
#[rustfmt::skip]
pub(crate) const REASONS: &[DropReason] = &[
    DropReason::OuterMalformed, DropReason::OuterNotWireguard, DropReason::SessionUnknown, DropReason::CounterTooOld,
    DropReason::CounterReplayed, DropReason::CounterLimit, DropReason::AuthFailed, DropReason::InnerMalformed,
    DropReason::Martian, DropReason::SourceNotAllowed, DropReason::NoRoute, DropReason::TtlExpired,
    DropReason::TooLarge, DropReason::IcmpRate, DropReason::EcnNotCapable, BLOCKED,
];

/// A frame, as its maker knows it.
#[derive(Clone, Debug)]
pub(crate) struct Shot {
    /// The site whose key sealed it.
    pub(crate) site: usize,
    /// Where it seems to come from.
    pub(crate) from: SocketAddr,
    /// What it claims to be.
    pub(crate) claim: Claim,
    /// The outer header's congestion mark.
    pub(crate) congested: bool,
}

/// What a frame claims to be.
#[derive(Clone, Debug)]
pub(crate) enum Claim {
    /// No whole UDP datagram.
    NoDatagram,
    /// A datagram that is no message.
    NoMessage,
    /// A data message of hubs, under a site's index.
    OfHubs,
    /// A handshake message.
    Handshake,
    /// A data message under an index and a counter.
    Data {
        index: u32,
        counter: u64,
        /// It was sealed under this very index and counter, and is as it was sealed.
        whole: bool,
        /// What was sealed.
        inner: Vec<u8>,
    },
}

/// What becomes of a frame.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    /// The tenant that it is counted to.
    pub(crate) tenant: Option<usize>,
    /// The site that its index names has sent it indeed.
    pub(crate) authentic: bool,
    /// The drops that are counted.
    pub(crate) drops: Vec<DropReason>,
    /// The hub owed an ICMP answer.
    pub(crate) generated: bool,
    /// It is a keepalive.
    pub(crate) keepalive: bool,
    /// The site that gets something, and what.
    pub(crate) delivered: Option<(usize, Expected)>,
}

/// What a site gets.
#[derive(Debug)]
pub(crate) enum Expected {
    /// Exactly this packet.
    Packet(Vec<u8>),
    /// The hub's ICMP message of this type, about this packet.
    Icmp(u8, Vec<u8>),
}

struct Site {
    tenant: usize,
    prefixes: Vec<&'static str>,
    blocked: bool,
    /// The largest counter accepted before this batch.
    highest: u64,
    /// Counters accepted from `base` on; what is below is out of the window, or was never used.
    base: u64,
    seen: Vec<bool>,
    /// The next counter that the site uses.
    next: u64,
}

pub(crate) struct Model {
    sites: Vec<Site>,
    by_tenant: Vec<Vec<usize>>,
    /// The prefixes as numbers, by tenant: version, first and last address, site.
    routes: Vec<Vec<(bool, u128, u128, usize)>>,
    /// When each tenant's ICMP tokens were counted last, and how many nanoseconds' worth there were.
    tokens: Vec<(u64, u64)>,
    /// Accepted in this batch.
    fresh: Vec<(usize, u64)>,
    /// Sites whose counters jump at its end.
    jumps: Vec<usize>,
}

impl Model {
    /// Tenants of three sites each with the same prefixes, and a prefix that no other tenant has. Every eighth has a site for
    /// everything else; in every sixteenth one site can't be reached.
    pub(crate) fn new(tenants: usize) -> Self {
        let mut sites = Vec::new();
        for tenant in 0..tenants {
            let own = format!("10.{}.{}.0/24", 64 + tenant / 256, tenant % 256).leak() as &str;
            let rest = if tenant % 8 == 3 { ["0.0.0.0/0", "::/0"] } else { ["10.9.3.0/24", "fd00:9:3::/64"] };
            let prefixes =
                [vec!["10.9.1.0/24", "fd00:9:1::/64", own], vec!["10.9.2.0/24", "fd00:9:2::/64"], rest.into()];
            for (number, prefixes) in prefixes.into_iter().enumerate() {
                let blocked = tenant % 16 == 7 && number == 1;
                sites.push(Site { tenant, prefixes, blocked, highest: 0, base: 0, seen: Vec::new(), next: 0 });
            }
        }
        let mut routes = vec![Vec::new(); tenants];
        let mut by_tenant = vec![Vec::new(); tenants];
        for (number, site) in sites.iter().enumerate() {
            by_tenant[site.tenant].push(number);
            for prefix in &site.prefixes {
                let (address, length) = prefix.split_once('/').expect("a prefix");
                let (v6, first, bits) = match address.parse().expect("an address") {
                    IpAddr::V4(address) => (false, u128::from(address.to_bits()), 32),
                    IpAddr::V6(address) => (true, address.to_bits(), 128),
                };
                let size = bits - length.parse::<u32>().expect("a length");
                let last = first + 1u128.checked_shl(size).map_or(u128::MAX, |size| size - 1);
                routes[site.tenant].push((v6, first, last, number));
            }
        }
        Self {
            sites,
            by_tenant,
            routes,
            tokens: vec![(0, BURST * TOKEN_NS); tenants],
            fresh: Vec::new(),
            jumps: Vec::new(),
        }
    }

    pub(crate) fn prefixes(&self) -> Vec<Vec<Vec<&'static str>>> {
        let of = |tenant: &Vec<usize>| tenant.iter().map(|site| self.sites[*site].prefixes.clone()).collect();
        self.by_tenant.iter().map(of).collect()
    }

    pub(crate) fn blocked_sites(&self) -> Vec<usize> {
        (0..self.sites.len()).filter(|site| self.sites[*site].blocked).collect()
    }

    pub(crate) fn sites(&self) -> usize {
        self.sites.len()
    }

    pub(crate) fn tenant_of(&self, site: usize) -> usize {
        self.sites[site].tenant
    }

    pub(crate) fn tenants(&self) -> usize {
        self.by_tenant.len()
    }

    pub(crate) fn of_tenant(&self, tenant: usize) -> &[usize] {
        &self.by_tenant[tenant]
    }

    /// The next counter of a site, and the largest that is too old for it, if there is one.
    pub(crate) fn counter(&mut self, site: usize) -> (u64, Option<u64>) {
        let site = &mut self.sites[site];
        site.next += 1;
        (site.next - 1, site.highest.checked_sub(WIDTH + 1))
    }

    /// From the next batch on, the site's counters go on beyond the window.
    pub(crate) fn jump(&mut self, site: usize) {
        self.jumps.push(site);
    }

    /// Whether a counter's fate is clear. It is not in the batch that moves the window beyond it: a worker that has not moved
    /// it yet may still take the packet, once.
    pub(crate) fn is_clear(&self, site: usize, counter: u64) -> bool {
        let site = &self.sites[site];
        counter + WIDTH < site.highest || counter + WIDTH >= site.next
    }

    /// The site that an index belongs to: its number below, the mark of the hub's side above.
    fn by_index(&self, index: u32) -> Option<usize> {
        let site = (index & 0xffff) as usize;
        (index >> 16 == 0x5a && site < self.sites.len()).then_some(site)
    }

    fn accepted_before(&self, site: usize, counter: u64) -> bool {
        let site = &self.sites[site];
        counter.checked_sub(site.base).and_then(|at| site.seen.get(at as usize)).copied().unwrap_or(false)
    }

    /// The fate of a frame. Those of one batch are judged in their order.
    pub(crate) fn judge(&mut self, shot: &Shot, now: u64) -> Fate {
        let mut fate = Fate::default();
        if let Err(reason) = self.follow(shot, now, &mut fate) {
            fate.drops.push(reason);
        }
        fate
    }

    fn follow(&mut self, shot: &Shot, now: u64, fate: &mut Fate) -> Result<(), DropReason> {
        let (index, counter, whole, inner) = match &shot.claim {
            Claim::NoDatagram => return Err(DropReason::OuterMalformed),
            Claim::NoMessage => return Err(DropReason::OuterNotWireguard),
            Claim::OfHubs => return Err(DropReason::SessionUnknown),
            Claim::Handshake => return Ok(()),
            Claim::Data { index, counter, whole, inner } => (*index, *counter, *whole, inner),
        };
        let from = self.by_index(index).ok_or(DropReason::SessionUnknown)?;
        let tenant = self.sites[from].tenant;
        fate.tenant = Some(tenant);
        if counter >= LIMIT {
            return Err(DropReason::CounterLimit);
        }
        if counter + WIDTH < self.sites[from].highest {
            return Err(DropReason::CounterTooOld);
        }
        if self.accepted_before(from, counter) {
            return Err(DropReason::CounterReplayed);
        }
        if !whole || from != shot.site {
            return Err(DropReason::AuthFailed);
        }
        if self.fresh.contains(&(from, counter)) {
            return Err(DropReason::CounterReplayed);
        }
        self.fresh.push((from, counter));
        fate.authentic = true;
        if inner.is_empty() {
            fate.keepalive = true;
            return Ok(());
        }
        let packet = parse(inner).ok_or(DropReason::InnerMalformed)?;
        if martian(packet.source) || martian(packet.destination) {
            return Err(DropReason::Martian);
        }
        if self.route(tenant, packet.source) != Some(from) {
            return Err(DropReason::SourceNotAllowed);
        }
        if shot.congested {
            return Err(DropReason::EcnNotCapable); // no packet here is capable
        }
        let to = self.route(tenant, packet.destination).ok_or(DropReason::NoRoute)?;
        let whole = &inner[..packet.length];
        if packet.hops <= 1 {
            let kind = if packet.source.is_ipv4() { 11 } else { 3 };
            return self.answer(DropReason::TtlExpired, kind, from, whole, now, fate);
        }
        if packet.length > FITS && !self.sites[to].blocked {
            let kind = if packet.source.is_ipv4() { 3 } else { 2 };
            return self.answer(DropReason::TooLarge, kind, from, whole, now, fate);
        }
        if self.sites[to].blocked {
            return Err(BLOCKED);
        }
        fate.delivered = Some((to, Expected::Packet(one_hop_on(whole))));
        Ok(())
    }

    fn answer(
        &mut self,
        reason: DropReason,
        kind: u8,
        from: usize,
        about: &[u8],
        now: u64,
        fate: &mut Fate,
    ) -> Result<(), DropReason> {
        fate.drops.push(reason);
        fate.generated = true;
        let (since, saved) = self.tokens[self.sites[from].tenant];
        let saved = (saved + (now - since)).min(BURST * TOKEN_NS);
        let enough = saved >= TOKEN_NS;
        self.tokens[self.sites[from].tenant] = (now, saved - if enough { TOKEN_NS } else { 0 });
        if !enough {
            return Err(DropReason::IcmpRate);
        }
        if self.sites[from].blocked {
            return Err(BLOCKED);
        }
        fate.delivered = Some((from, Expected::Icmp(kind, about.to_vec())));
        Ok(())
    }

    /// The batch is over: what it accepted counts from now on.
    pub(crate) fn settle(&mut self) {
        for (site, counter) in std::mem::take(&mut self.fresh) {
            let site = &mut self.sites[site];
            if counter > site.highest + WIDTH {
                (site.base, site.seen) = (counter - WIDTH, Vec::new());
            }
            let at = (counter - site.base) as usize;
            site.seen.resize(site.seen.len().max(at + 1), false);
            site.seen[at] = true;
            site.highest = site.highest.max(counter);
        }
        for site in self.jumps.drain(..) {
            // A window and more away from all that was sealed so far.
            self.sites[site].next += WIDTH + 200;
        }
    }

    fn route(&self, tenant: usize, address: IpAddr) -> Option<usize> {
        let (v6, number) = match address {
            IpAddr::V4(address) => (false, u128::from(address.to_bits())),
            IpAddr::V6(address) => (true, address.to_bits()),
        };
        let holds = |route: &&(bool, u128, u128, usize)| route.0 == v6 && route.1 <= number && number <= route.2;
        self.routes[tenant].iter().filter(holds).min_by_key(|route| route.2 - route.1).map(|route| route.3)
    }
}

struct Parsed {
    source: IpAddr,
    destination: IpAddr,
    length: usize,
    hops: u8,
}

fn parse(inner: &[u8]) -> Option<Parsed> {
    let number = |at: usize| usize::from(inner[at]) << 8 | usize::from(inner[at + 1]);
    match inner[0] >> 4 {
        4 => {
            if inner.len() < 20 {
                return None;
            }
            let (header, length) = (usize::from(inner[0] & 15) * 4, number(2));
            if header < 20 || header > length || length > inner.len() || checksum(&inner[..header]) != 0 {
                return None;
            }
            let address = |at: usize| Ipv4Addr::new(inner[at], inner[at + 1], inner[at + 2], inner[at + 3]).into();
            Some(Parsed { source: address(12), destination: address(16), length, hops: inner[8] })
        }
        6 => {
            if inner.len() < 40 || 40 + number(4) > inner.len() {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 16] = std::array::from_fn(|n| inner[at + n]);
                Ipv6Addr::from(octets).into()
            };
            Some(Parsed { source: address(8), destination: address(24), length: 40 + number(4), hops: inner[7] })
        }
        _ => None,
    }
}

fn martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let first = a.octets()[0];
            first == 0 || first >= 240 || a.is_loopback() || a.is_link_local() || a.is_multicast()
        }
        IpAddr::V6(a) => {
            let mapped = a.to_ipv4_mapped().is_some();
            mapped || a.is_unspecified() || a.is_loopback() || a.is_multicast() || a.is_unicast_link_local()
        }
    }
}

pub(crate) fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 6 {
        packet[7] -= 1;
        return packet;
    }
    packet[8] -= 1;
    sum_up(&mut packet);
    packet
}

/// Writes the checksum of an IPv4 header.
pub(crate) fn sum_up(packet: &mut [u8]) {
    let header = usize::from(packet[0] & 15) * 4;
    packet[10..12].fill(0);
    let sum = checksum(&packet[..header]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, word by word: zero over a header that holds its own.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Expected {
    /// That this is what was opened at the site.
    pub(crate) fn compare(&self, opened: &[u8]) {
        match self {
            Self::Packet(packet) => {
                assert_eq!(opened[..packet.len()], packet[..]);
                assert!(opened[packet.len()..].iter().all(|byte| *byte == 0), "padding that is not zero");
                assert_eq!(opened.len(), packet.len().next_multiple_of(16).min(FITS.max(packet.len())));
            }
            Self::Icmp(kind, about) => {
                let header = if about[0] >> 4 == 4 { 20 } else { 40 };
                assert_eq!((opened[0] >> 4, opened[header]), (about[0] >> 4, *kind));
                assert_eq!(
                    opened[header + 8..2 * header + 8],
                    about_header(about, *kind)[..],
                    "it quotes another packet"
                );
                let parsed = parse(opened).expect("a packet");
                assert_eq!(Some(parsed.destination), parse(about).map(|about| about.source));
            }
        }
    }
}

/// The header that an ICMP message quotes: as it came where its hops were at their end, else one hop later.
fn about_header(about: &[u8], kind: u8) -> Vec<u8> {
    let (header, expired) = match about[0] >> 4 {
        4 => (20, kind == 11),
        _ => (40, kind == 3),
    };
    let packet = if expired { about.to_vec() } else { one_hop_on(about) };
    packet[..header].to_vec()
}
