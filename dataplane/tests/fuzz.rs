//! The journey, reassembly and the API under any input: no panic, no chunk lost, and the books balance after every batch.
//!
//! Each target first makes something good, or takes it from its corpus, and then changes it, so that it gets as far as
//! what is good does; it shows at the end that it did. `EKIDEN_FUZZ_SECONDS` says how long each runs. Others are beside
//! what they try: `underlay/tests/fuzz.rs`, `config/tests/fuzz.rs`, and in `crypto` `peer/tests/fuzz.rs`.

mod hubs;
mod mutate;
#[path = "fuzz/trunk.rs"]
mod trunk;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bolero::generator::produce;
use classifier::filter::{Action, Filter, Flags, Rule};
use ekiden_dataplane::api::{API_SOCKET, Api, CONTROL_SOCKET, QUEUE, Refused, Request, RunDir};
use ekiden_dataplane::config::{Idle, Rate};
use ekiden_dataplane::mailbox::{Event, Order};
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rates::{Limit, Limits};
use ekiden_dataplane::reassembly::{Outcome, Reassembly};
use ekiden_dataplane::rehearsal::{Rehearsal, from_host, ipv4, ipv6, routes};
use ekiden_dataplane::status::Status;
use mutate::{Change, Recipe, alter, corpus, mutate, seconds};
use wire::vlan::{SERVICE, Tagged};
use wire::{DropReason, Malformed, Outer, SiteSlot, TenantSlot, Vlan};

/// How often each place was reached, by its name.
type Reached = BTreeMap<String, u64>;

fn must_have_reached(reached: &Reached, places: &[&str]) {
    eprintln!("{reached:?}");
    for place in places {
        assert!(reached.contains_key(*place), "{place} was never reached: {reached:?}");
    }
}

/// A hub in memory, and what came to it.
struct Hub {
    hub: Rehearsal,
    received: u64,
    sent: u64,
    fragments: u64,
    /// What was cut outside, on its way to being whole.
    outside: Reassembly,
    whole: u64,
}

impl Hub {
    fn new() -> Self {
        let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
        let tenants = [sites(), sites()];
        let mut hub = Rehearsal::new(&tenants, 2048);
        // The second tenant has a filter, and its second site little to send and to receive, since no time passes here.
        let rules = [
            Rule { protocol: Some(17), ports: vec![0..=9000], ..Rule::any(Action::Deny) },
            Rule { protocol: Some(6), flags: Flags { set: 2, clear: 16 }, ..Rule::any(Action::Deny) },
        ];
        let mut tables = routes(&tenants);
        tables.filter(TenantSlot(1), Filter::new(&rules, Action::Allow), 0);
        hub.journey.tables = Arc::new(tables.build());
        let rate = Rate { bits_per_s: 8_000_000, burst: 10_000 };
        let up = vec![Limit::new(rate, DropReason::RateSiteUp)];
        let down = vec![Limit::new(rate, DropReason::RateTenantDown)];
        let limits = Limits { up, down };
        hub.journey.sites.limit([None, None, None, Some(limits)]);
        // And the way to one site is narrow.
        hub.journey.sites.at_mut(SiteSlot(1)).way.out.as_mut().expect("a way").payload_max = 600;
        Self { hub, received: 0, sent: 0, fragments: 0, outside: Reassembly::new(2048), whole: 0 }
    }

    /// The same, with an end of each tenant in a VLAN, and the same addresses there.
    fn with_access() -> Self {
        let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
        let addresses: &[&str] = &["10.9.3.254/24", "fd00:9:3::fe/64"];
        let hub =
            Rehearsal::with_access(&[sites(), sites()], &[(0, vlan(0), addresses), (1, vlan(1), addresses)], 2048);
        Self { hub, received: 0, sent: 0, fragments: 0, outside: Reassembly::new(2048), whole: 0 }
    }

    /// Lets the frames pass, and asserts: received + generated = sent + dropped + to control + keepalives + on the shelf.
    fn pass(&mut self, frames: &[Vec<u8>]) {
        let hub = &mut self.hub;
        self.received += frames.len() as u64;
        let out = hub.pass(frames);
        self.sent += out.len() as u64;
        let of_access =
            |frame: &[u8]| Tagged::parse(frame).is_ok_and(|tagged| [vlan(0), vlan(1)].contains(&tagged.vlan));
        for mut frame in out {
            if Outer::parse(&frame) == Err(Malformed::Fragment) {
                let Outcome::Complete(whole) = self.outside.push(&frame, 0) else { continue };
                (frame, self.whole) = (whole, self.whole + 1);
            }
            if let Some((site, inner)) = hub.open(&frame) {
                let first = inner.first().is_some_and(|byte| byte >> 4 == 4) && inner[6] & 0x20 != 0 && site == 1;
                self.fragments += u64::from(first);
            } else {
                assert!(of_access(&frame), "a frame left that its site can't open");
            }
        }
        while let Some(parcel) = hub.control.parcel() {
            hub.control.recycle(parcel);
        }
        // What control would say of neighbours: every other is there.
        for event in hub.events() {
            let Event::Neighbour { end, address } = event else { continue };
            let odd = match address {
                std::net::IpAddr::V4(address) => address.octets()[3] % 2 == 1,
                std::net::IpAddr::V6(address) => address.octets()[15] % 2 == 1,
            };
            let until = hub.now + Duration::from_secs(30);
            let answer = if odd { Ok(([2, 0, 0, 0, 0, 9], until)) } else { Err(DropReason::NeighbourUnresolved) };
            hub.control.send(Order::Neighbour(end, address, answer));
        }
        let now = hub.now;
        hub.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
        let answered = hub.leave();
        self.sent += answered.len() as u64;
        assert!(answered.iter().all(|frame| of_access(frame)));
        let turns = &hub.journey.rows.turns;
        let dropped: u64 = hub.drops().iter().map(|(_, n)| n).sum();
        let ended =
            self.sent + dropped + turns.to_control.read() + turns.keepalives.read() + hub.journey.shelf.len() as u64;
        assert_eq!(self.received + turns.generated.read(), ended, "the books");
        let (found, all) = hub.census();
        assert_eq!(found, all, "a chunk is lost");
    }

    fn reached(&self) -> Reached {
        let turns = &self.hub.journey.rows.turns;
        let mut reached: Reached =
            self.hub.drops().iter().map(|(reason, packets)| (reason.name().to_owned(), *packets)).collect();
        for (name, count) in [
            ("sent", self.sent),
            ("generated", turns.generated.read()),
            ("to_control", turns.to_control.read()),
            ("keepalives", turns.keepalives.read()),
            ("fragments", self.fragments),
            ("whole again", self.whole),
        ] {
            if count > 0 {
                reached.insert(name.to_owned(), count);
            }
        }
        reached
    }
}

/// A frame to be: what it is, from which site, its hops, its length, and what is changed inside and outside.
type Plan = (u8, u8, u8, u16, Vec<Change>, Vec<Change>);

/// Few changes, so that something of it is left.
fn few(changes: &[Change]) -> impl Iterator<Item = &Change> {
    let most = changes.first().map_or(0, |(what, ..)| *what as usize % 4);
    changes.iter().take(most)
}

fn frame(hub: &Rehearsal, handshakes: &[Vec<u8>], (kind, site, hops, len, inside, outside): &Plan) -> Vec<u8> {
    let (site, len) = (*site as usize % 4, *len as usize);
    let near = 1 + site as u8 % 2;
    let other = 3 - near;
    let mut frame = match kind % 12 {
        // What strangers send.
        0 => inside.iter().flat_map(|(a, b, c, d)| [*a, *b as u8, *c, *d as u8]).collect(),
        1 => hub.frame(site, &inside.iter().map(|(what, ..)| *what).collect::<Vec<_>>()),
        2 => hub.frame(site, &mutate(&(*hops as u16, Vec::new()), handshakes, 1700)),
        // What sites send.
        3 => hub.seal(site, &[]),
        what => {
            let hops = if what == 4 { hops % 3 } else { 2 + hops % 62 };
            let len = if what == 5 { 1400 + len % 150 } else { 48 + len % 1300 };
            let to = if what == 6 { 9 } else { other };
            let from = if what == 7 { other } else { near };
            let mut packet = match what % 2 {
                0 => ipv4([10, 9, from, 1], [10, 9, to, 1], hops, len),
                _ => ipv6(&format!("fd00:9:{from}::1"), &format!("fd00:9:{to}::1"), hops, len),
            };
            // Some may be cut, and some open a TCP connection.
            match what {
                8 => (packet[6], packet[10]) = (0, packet[10].wrapping_add(0x40)),
                9 if packet.len() > 60 => (packet[6], packet[52], packet[53]) = (6, 0x60, 2),
                _ => {}
            }
            few(inside).for_each(|change| alter(&mut packet, *change, handshakes));
            packet.truncate(1600);
            hub.seal(site, &packet)
        }
    };
    // Mostly the outer packet is left alone, or little would be opened.
    if site == 0 {
        few(outside).for_each(|change| alter(&mut frame, *change, handshakes));
    }
    frame.truncate(1792);
    frame
}

#[test]
fn any_frame_on_its_journey() {
    let handshakes = corpus("../crypto/tests/corpus/handshake");
    let mut hub = AssertUnwindSafe(Hub::new());
    let borrowed = AssertUnwindSafe((&mut hub, handshakes));
    let plans = produce::<(Vec<Plan>, u8)>();
    bolero::check!().with_test_time(seconds()).with_generator(plans).for_each({
        let mut world = borrowed;
        move |(plans, whim)| {
            let AssertUnwindSafe((hub, handshakes)) = &mut world;
            let frames: Vec<_> = plans.iter().map(|plan| frame(&hub.hub, handshakes, plan)).collect();
            // Some twice, which is what a path or an attacker does; and now and then a site has no session, or no way.
            let twice: Vec<_> = frames.iter().filter(|_| whim % 4 == 0).cloned().collect();
            let site = SiteSlot(u32::from(*whim) % 4);
            let sending = hub.hub.journey.sites.at(site).sending.clone();
            let way = hub.hub.journey.sites.at(site).way.clone();
            match whim >> 4 {
                0 => hub.hub.journey.sites.at_mut(site).sending = None,
                1 => hub.hub.journey.sites.at_mut(site).way.out = Err(DropReason::PortDown),
                _ => {}
            }
            hub.pass(&frames);
            hub.pass(&twice);
            hub.hub.journey.sites.at_mut(site).sending = sending;
            hub.hub.journey.sites.at_mut(site).way = way;
        }
    });
    must_have_reached(
        &hub.reached(),
        &[
            "outer_malformed",
            "outer_not_wireguard",
            "session_unknown",
            "counter_replayed",
            "auth_failed",
            "inner_malformed",
            "source_not_allowed",
            "no_route",
            "ttl_expired",
            "too_large",
            "icmp_rate",
            "filter_denied",
            "filter_unreadable",
            "rate_site_up",
            "port_down",
            "staged_overflow",
            "sent",
            "fragments",
            "generated",
            "to_control",
            "keepalives",
        ],
    );
}

/// The VLANs of ends, and one that is none's.
fn vlan(which: u8) -> Vlan {
    match which {
        0 => Vlan::tagged(100),
        1 => Vlan::double(SERVICE, 10, 100),
        _ => Vlan::tagged(200),
    }
    .expect("ids of VLANs")
}

/// A frame of a host, or of a site to one, and what is changed of it; then how long the hub's questions take, and their answers.
type Visit = (u8, u8, u8, u16, Vec<Change>, Vec<Change>);

#[test]
fn any_frame_of_an_access_port() {
    let mut hub = AssertUnwindSafe(Hub::with_access());
    let world = AssertUnwindSafe(&mut hub);
    let visits = produce::<(Vec<Visit>, u8)>();
    bolero::check!().with_test_time(seconds()).with_generator(visits).for_each({
        let mut world = world;
        move |(visits, whim)| {
            let hub = &mut world.0;
            let none: &[Vec<u8>] = &[];
            let frames: Vec<Vec<u8>> = visits
                .iter()
                .map(|(kind, tenant, host, len, inside, outside)| {
                    let (tenant, len, v6) = (tenant % 2, 48 + usize::from(*len) % 1400, host % 2 == 1);
                    let to = |v4: [u8; 4], text: &str, hops| match v6 {
                        false => ipv4([10, 9, 3, *host], v4, hops, len),
                        true => ipv6(&format!("fd00:9:3::{host:x}"), text, hops, len),
                    };
                    let mut packet = match kind % 8 {
                        0 => to([10, 9, 3, 254], "fd00:9:3::fe", 64),
                        1 => to([10, 9, 3, 7], "fd00:9:3::7", 64),
                        2 => to([10, 9, 1, 1], "fd00:9:1::1", 1),
                        3..=5 => to([10, 9, 1, 1], "fd00:9:1::1", 64),
                        _ if v6 => ipv6("fd00:9:1::1", &format!("fd00:9:3::{host:x}"), 64, len),
                        _ => ipv4([10, 9, 1, 1], [10, 9, 3, *host], 64, len),
                    };
                    if kind % 8 == 0 && !v6 {
                        // A ping, whose checksum is right until something is changed.
                        (packet[9], packet[20], packet[21]) = (1, 8, 0);
                        packet[10..12].fill(0);
                        let sum = wire::checksum::Sum::ZERO.bytes(&packet[..20]).finish();
                        packet[10..12].copy_from_slice(&sum.to_be_bytes());
                        packet[22..24].fill(0);
                        let sum = wire::checksum::Sum::ZERO.bytes(&packet[20..]).finish();
                        packet[22..24].copy_from_slice(&sum.to_be_bytes());
                    }
                    few(inside).for_each(|change| alter(&mut packet, *change, none));
                    packet.truncate(1600);
                    if kind % 8 > 5 {
                        return hub.hub.seal(usize::from(tenant) * 2, &packet);
                    }
                    let at = if kind / 8 % 8 == 0 { 2 } else { tenant };
                    let mut frame = match packet.is_empty() {
                        true => vec![0; 14],
                        false => from_host(vlan(at), [2, 0, 0, 0, 0, *host], &packet),
                    };
                    if kind / 64 == 0 {
                        few(outside).for_each(|change| alter(&mut frame, *change, none));
                    }
                    frame.truncate(1792);
                    frame
                })
                .collect();
            hub.pass(&frames);
            hub.hub.now.0 += u64::from(*whim) * 1_000_000_000;
        }
    });
    must_have_reached(
        &hub.reached(),
        &[
            "access_unknown",
            "gateway_source",
            "gateway_not_ping",
            "neighbour_unresolved",
            "source_not_allowed",
            "inner_malformed",
            "ttl_expired",
            "staged_overflow",
            "martian",
            "sent",
            "generated",
        ],
    );
}

/// The fragments of an IPv4 frame, cut at these multiples of eight.
fn fragments(whole: &[u8], id: u16, cuts: &[u8]) -> Vec<Vec<u8>> {
    let (header, payload) = whole.split_at(34);
    let mut edges: Vec<usize> = cuts.iter().map(|cut| *cut as usize * 8).filter(|at| *at < payload.len()).collect();
    edges.extend([0, payload.len()]);
    edges.sort_unstable();
    edges.dedup();
    let piece = |edge: &[usize]| {
        let mut frame = header.to_vec();
        frame.extend_from_slice(&payload[edge[0]..edge[1]]);
        let more = u16::from(edge[1] != payload.len()) << 13;
        frame[16..18].copy_from_slice(&(20 + (edge[1] - edge[0]) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&id.to_be_bytes());
        frame[20..22].copy_from_slice(&(more | (edge[0] / 8) as u16).to_be_bytes());
        frame[24..26].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&frame[14..34]).finish();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame
    };
    edges.windows(2).map(piece).collect()
}

/// A datagram in fragments: from which site, its identification, where it is cut, which arrive in which order, how much
/// time passes, and what is changed in one of them.
type Pieces = (u8, u8, Vec<u8>, Vec<u8>, u32, Option<(u8, Change)>);

#[test]
fn any_fragments_and_what_is_made_of_them() {
    let mut reached = Reached::new();
    let mut hub = Hub::new();
    {
        let world = AssertUnwindSafe((&mut hub, &mut reached, Reassembly::new(1792), (0u64, 0u64, 0u64), 1u64));
        bolero::check!().with_test_time(seconds()).with_type::<Vec<Pieces>>().for_each({
            let mut world = world;
            move |datagrams| {
                let AssertUnwindSafe((hub, reached, reassembly, books, now)) = &mut world;
                let (pushed, ended, joined) = books;
                let mut count = |place: &str| *reached.entry(place.to_owned()).or_default() += 1;
                for (site, id, cuts, order, pause, change) in datagrams {
                    let site = *site as usize % 4;
                    let near = 1 + site as u8 % 2;
                    let packet = ipv4([10, 9, near, 1], [10, 9, 3 - near, 1], 9, 60 + cuts.len() * 40 % 1300);
                    let whole = hub.hub.seal(site, &packet);
                    let mut pieces = fragments(&whole, u16::from(*id), cuts);
                    if let Some((which, change)) = change {
                        let which = *which as usize % pieces.len();
                        let others = pieces.clone();
                        alter(&mut pieces[which], *change, &others);
                    }
                    // Mostly in order; else as `order` says, which may leave some out and send others twice.
                    let order: Vec<usize> = match pause % 3 {
                        0 => order.iter().map(|at| *at as usize % pieces.len()).collect(),
                        _ => (0..pieces.len()).collect(),
                    };
                    *now += u64::from(*pause) / if pause % 7 == 0 { 1 } else { 1000 };
                    for at in order {
                        *pushed += 1;
                        match reassembly.push(&pieces[at], *now) {
                            Outcome::Complete(frame) => {
                                count("complete");
                                assert!(frame.len() <= 1792);
                                let before = hub.sent;
                                hub.pass(&[frame]);
                                if hub.sent > before {
                                    count("relayed");
                                }
                            }
                            Outcome::Stored => count("stored"),
                            Outcome::Dropped(reason) => {
                                *ended += 1;
                                count(reason.name());
                            }
                        }
                    }
                    for (reason, fragments) in reassembly.expire(*now) {
                        *ended += u64::from(fragments);
                        count(reason.name());
                    }
                    *joined = reassembly.joined();
                    assert_eq!(*pushed, *ended + *joined + reassembly.held() as u64, "the books");
                    assert!(reassembly.held() <= 1024 * 16, "bounded");
                }
            }
        });
    }
    reached.extend(hub.reached());
    must_have_reached(
        &reached,
        &["complete", "relayed", "stored", "fragment_overlap", "fragment_timeout", "fragment_limit", "outer_malformed"],
    );
}

/// The API as a hub has it, and a control that answers.
struct Server {
    root: tempfile::TempDir,
    _dir: RunDir,
    api: Option<Api>,
    control: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let dir = RunDir::claim(root.path(), "lab").expect("its own");
        let (requests, mut inbox) = tokio::sync::mpsc::channel(QUEUE);
        let control = std::thread::spawn(move || {
            while let Some(request) = inbox.blocking_recv() {
                match request {
                    Request::Status(reply) => drop(reply.send(Status::default())),
                    Request::Health(reply) => drop(reply.send(())),
                    Request::Reload(reply) => drop(reply.send(ekiden_dataplane::status::Reload::default())),
                    Request::Move { reply, .. } => drop(reply.send(Err(Refused::NothingShared))),
                    Request::Handshake { site, reply, .. } => {
                        let _ = reply.send(if site == "a" { Ok(()) } else { Err(Refused::UnknownSite) });
                    }
                }
            }
        });
        let api = Api::start(&dir, requests).expect("the API");
        Self { root, _dir: dir, api: Some(api), control: Some(control) }
    }

    /// Bytes in, and what comes back until the hub closes. It must close: nothing more will come from here.
    fn ask(&self, socket: &str, request: &[u8]) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.root.path().join("lab").join(socket)).expect("it listens");
        // It may close before it has read all of what it refuses.
        let _ = stream.write_all(request);
        // A client that has said all says so, and is then forgotten: so an answer is waited for, if one is due.
        let mut answer = Vec::new();
        for patience in [Duration::from_millis(20), Duration::from_secs(60)] {
            stream.set_read_timeout(Some(patience)).expect("a timeout");
            match stream.read_to_end(&mut answer).map_err(|error| error.kind()) {
                Ok(_) | Err(ErrorKind::ConnectionReset) => return answer,
                Err(ErrorKind::WouldBlock) => drop(stream.shutdown(Shutdown::Write)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no end")
    }

    /// Whether it still serves who asks properly.
    fn serves(&self) -> bool {
        let mut stream = UnixStream::connect(self.root.path().join("lab").join(API_SOCKET)).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(b"GET /v1/drops HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).is_ok() && answer.starts_with(b"HTTP/1.1 200 ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.api = None;
        self.control.take().map(std::thread::JoinHandle::join);
    }
}

#[test]
fn any_request_to_the_api() {
    let mut reached = Reached::new();
    {
        let requests = corpus("tests/corpus/http");
        let mut world = AssertUnwindSafe((Server::start(), requests, &mut reached, 0u32));
        for which in 0..world.1.len() as u16 {
            for socket in [API_SOCKET, CONTROL_SOCKET] {
                let AssertUnwindSafe((server, requests, reached, _)) = &mut world;
                answer(server, socket, &mutate(&(which, Vec::new()), requests, 65_536), reached);
            }
        }
        let recipes = produce::<(Recipe, bool)>();
        bolero::check!().with_test_time(seconds()).with_generator(recipes).for_each(move |(recipe, control)| {
            let AssertUnwindSafe((server, requests, reached, count)) = &mut world;
            let socket = if *control { CONTROL_SOCKET } else { API_SOCKET };
            answer(server, socket, &mutate(recipe, requests, 65_536), reached);
            *count += 1;
            if *count % 64 == 0 {
                assert!(server.serves(), "it no longer serves");
            }
        });
    }
    must_have_reached(&reached, &["200", "202", "400", "404", "405", "nothing"]);
}

fn answer(server: &Server, socket: &str, request: &[u8], reached: &mut Reached) {
    let answer = server.ask(socket, request);
    let status = match answer.get(..12) {
        Some(head) => {
            assert!(head.starts_with(b"HTTP/1.1 ") || head.starts_with(b"HTTP/1.0 "), "{head:?}");
            String::from_utf8_lossy(&head[9..]).into_owned()
        }
        None => "nothing".to_owned(),
    };
    *reached.entry(status).or_default() += 1;
}
