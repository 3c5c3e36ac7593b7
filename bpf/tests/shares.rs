//! Who is refused when a ring runs full, by test-run: the program steers frames of several senders into a ring that these
//! tests keep, and take from as a worker does.
#![allow(unsafe_code, reason = "an AF_XDP socket for the redirect to go to")]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use bpf::{Gauge, Limits, Options, Place, Program, Rate, Rings, SessionEntry, SessionState, Steering, Verdict};
use common::{HUB4, PORT_MAC, SOURCE_PORT, Udp, message, options};
use wire::DropReason;

const ENTRIES: usize = 2048;
/// What a worker takes in a turn.
const BATCH: usize = 64;
/// Not 0, so that a program that takes the rows of another port or site would be seen.
const PORT: u16 = 3;
/// Sites that each have a session, by slots of their own.
const SITES: u32 = 201;

/// A sender, and how many frames it offers in a turn.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Site(u32),
    Strangers,
    Known,
    Fragments,
}
use Sender::{Fragments, Known, Site, Strangers};

struct Line {
    steering: Steering,
    program: Program,
    gauge: Gauge,
    ring: VecDeque<Sender>,
    turn: usize,
    /// Frames that were sent to the ring when it had no entry left: the kernel's loss.
    overflown: u64,
    offered: BTreeMap<Sender, u64>,
    refused: BTreeMap<Sender, u64>,
    taken: BTreeMap<Sender, u64>,
    _socket: OwnedFd,
}

impl Line {
    fn new(name: &str) -> Self {
        let open = Rate { per_second: 1_000_000_000, burst: 1_000_000_000 };
        let limits =
            Limits { known_source: open, strangers: open, fragments: open, known_sources: 10, ..Limits::default() };
        let rings = Rings { ports: PORT + 2, queues: 2, entries: ENTRIES as u32 };
        let mut steering = Steering::load(Options { rings, sites: SITES, ..options(name, limits) }).unwrap();
        steering.set_local(HUB4.into()).unwrap();
        for site in 0..SITES {
            let entry =
                SessionEntry { index: index(site), worker: 0, tenant: 9, site: slot(site), state: SessionState::Live };
            steering.set_session(site, entry).unwrap();
        }
        steering.know_source((KNOWN, SOURCE_PORT).into()).unwrap();
        // SAFETY: no pointers; the result is checked before it is owned.
        let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(socket >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        for port in [PORT, PORT + 1] {
            steering.set_mac(port, PORT_MAC).unwrap();
            steering.set_socket(Place::sole(port, 0), socket.as_fd()).unwrap();
        }
        let program = steering.program(PORT).unwrap().try_clone().unwrap();
        let gauge = steering.gauge(Place::sole(PORT, 0)).unwrap();
        let (ring, counts) = (VecDeque::new(), BTreeMap::new());
        let [offered, refused, taken] = [counts.clone(), counts.clone(), counts];
        Self { steering, program, gauge, ring, turn: 0, overflown: 0, offered, refused, taken, _socket: socket }
    }

    fn offer(&mut self, sender: &Sender) -> bool {
        let (verdict, _) = self.program.test_run(&frame(sender), 1).unwrap();
        *self.offered.entry(sender.clone()).or_default() += 1;
        match verdict {
            Verdict::Redirect if self.ring.len() == ENTRIES => self.overflown += 1,
            Verdict::Redirect => self.ring.push_back(sender.clone()),
            Verdict::Drop => *self.refused.entry(sender.clone()).or_default() += 1,
            other => panic!("{other:?}"),
        }
        verdict == Verdict::Redirect
    }

    /// The worker takes a batch, and says what is left.
    fn take(&mut self) {
        for sender in self.ring.drain(..BATCH.min(self.ring.len())) {
            *self.taken.entry(sender).or_default() += 1;
        }
        self.gauge.say(self.ring.len() as u32);
    }

    /// So many turns, in each of which every sender offers what it has, well mixed; nobody is always first.
    fn turns(&mut self, turns: usize, load: &[(Sender, usize)]) {
        let longest = load.iter().map(|(_, frames)| *frames).max().unwrap();
        for turn in 0..turns {
            let (late, early) = load.split_at((self.turn + turn) * 61 % load.len());
            for step in 0..longest {
                for (sender, frames) in early.iter().chain(late) {
                    // As many steps of the longest as it has frames, evenly spread.
                    if step * frames / longest != (step + 1) * frames / longest {
                        self.offer(sender);
                    }
                }
            }
            self.take();
        }
        self.turn += turns;
    }

    fn refused(&self, sender: &Sender) -> u64 {
        self.refused.get(sender).copied().unwrap_or(0)
    }

    fn taken(&self, sender: &Sender) -> u64 {
        self.taken.get(sender).copied().unwrap_or(0)
    }

    /// The books: of the port, and what each site was told to have been refused.
    fn close(&self) {
        let books = self.steering.counters().unwrap().into_iter().find(|counters| counters.port == PORT).unwrap();
        let (offered, refused) = (self.offered.values().sum::<u64>(), self.refused.values().sum::<u64>());
        assert_eq!(books.seen.packets, offered);
        assert_eq!(books.redirected.packets, offered - refused);
        let reasons: Vec<_> = books.dropped().map(|(reason, count)| (reason, count.packets)).collect();
        let expected = if refused > 0 { vec![(DropReason::XdpShed as u8, refused)] } else { vec![] };
        assert_eq!(reasons, expected);
        for site in 0..SITES {
            assert_eq!(self.steering.shed(slot(site)), self.refused(&Site(site)), "shed of site {site}");
        }
    }
}

const KNOWN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

/// Slots of sites run the other way round than slots of sessions.
fn slot(site: u32) -> u32 {
    SITES - 1 - site
}

fn index(site: u32) -> u32 {
    0x5a5a_0000 | site
}

fn frame(sender: &Sender) -> Vec<u8> {
    match sender {
        Site(site) => Udp::v4(message(4, index(*site), 64)).build(),
        Strangers => Udp::v4(message(1, 0, 148)).build(),
        Known => Udp { from: KNOWN.into(), ..Udp::v4(message(1, 0, 148)) }.build(),
        Fragments => Udp { fragment: Some((0, true)), ..Udp::v4(message(4, 1, 64)) }.build(),
    }
}

#[test]
fn up_to_half_full_nobody_is_refused() {
    let mut line = Line::new("half");
    for _ in 0..10_000 {
        line.gauge.say(ENTRIES as u32 / 2);
        assert!(line.offer(&Site(0)));
        line.ring.clear();
    }
    line.close();
    // One entry more, and it is the same flood that is.
    line.gauge.say(ENTRIES as u32 / 2 + 1);
    while line.offer(&Site(0)) {}
    // What it had then (n) was half of what was free: n = (2048 - 128 on their way - 1025 - n) / 2.
    assert!((297..=300).contains(&line.ring.len()), "{} frames", line.ring.len());
    line.close();
}

#[test]
fn a_site_that_floods_is_shed_and_the_others_lose_nothing() {
    let mut line = Line::new("flood");
    // The worker takes 64 a turn, and the flood alone is three times that.
    line.turns(200, &[(Site(0), 200), (Site(1), 2), (Site(2), 20)]);
    assert_eq!((line.refused(&Site(1)), line.refused(&Site(2)), line.overflown), (0, 0, 0));
    assert!(line.refused(&Site(0)) > 20_000, "{:?}", line.refused);
    // What the others leave is the flood's: the worker is never idle for it.
    assert_eq!(line.taken.values().sum::<u64>(), 200 * BATCH as u64, "{:?}", line.taken);
    line.close();
    // It is over, and nothing of it remains.
    line.turns(60, &[(Site(1), 2)]);
    let before = line.refused(&Site(0));
    line.turns(60, &[(Site(0), 60)]);
    assert_eq!(line.refused(&Site(0)), before);
    line.close();
}

#[test]
fn without_sites_of_their_own_the_others_would_lose() {
    let mut line = Line::new("control");
    let session = SessionEntry { index: index(1), worker: 0, tenant: 9, site: slot(0), state: SessionState::Live };
    line.steering.set_session(1, session).unwrap();
    line.turns(200, &[(Site(0), 200), (Site(1), 2)]);
    assert!(line.refused(&Site(1)) > 100, "counted to the site that floods, it shares the losses: {:?}", line.refused);
}

#[test]
fn two_that_want_more_than_there_is_get_equal_parts() {
    let mut line = Line::new("equal");
    line.turns(300, &[(Site(0), 400), (Site(1), 40)]);
    let (flood, honest) = (line.taken(&Site(0)), line.taken(&Site(1)));
    // 40 of 64 a turn are more than half: it gets its half, within a fifth, whatever the other does.
    assert!(honest * 10 >= 300 * 32 * 8, "{honest} against {flood}");
    assert_eq!(line.overflown, 0);
    line.close();
}

#[test]
fn two_hundred_that_flood_leave_room_for_one_that_does_not() {
    let mut line = Line::new("many");
    let mut load: Vec<_> = (0..200).map(|site| (Site(site), 2)).collect();
    load.push((Site(200), 1));
    line.turns(60, &load);
    for turn in 0..240 {
        // One frame every fourth turn: less than a part of 64 / 201 a turn.
        line.turns(1, &load[..200]);
        if turn % 4 == 0 {
            line.offer(&Site(200));
        }
    }
    let before = line.refused(&Site(200));
    assert!(before <= 60, "{before}: all of these are from the time when it, too, had more than its part");
    assert_eq!(line.overflown, 0, "the ring is never full, so that nobody is dropped unseen");
    let parts: Vec<u64> = (0..200).map(|site| line.taken(&Site(site))).collect();
    let (least, most) = (*parts.iter().min().unwrap(), *parts.iter().max().unwrap());
    assert!(least * 2 >= most, "between {least} and {most} frames");
    line.close();
}

#[test]
fn a_ring_that_fills_while_its_worker_is_away_is_known_to() {
    let mut line = Line::new("away");
    line.take();
    for round in 0..5_000 {
        line.offer(&Site(0));
        if round % 50 == 0 {
            assert!(line.offer(&Site(1)), "round {round}, with {} frames in the ring", line.ring.len());
        }
    }
    assert_eq!(line.overflown, 0);
    assert!(line.refused(&Site(0)) > 3_000);
    line.close();
}

#[test]
fn what_names_no_session_has_shares_of_its_own() {
    for flood in [Strangers, Known, Fragments] {
        let mut line = Line::new(&format!("{flood:?}"));
        let mut load = vec![(flood.clone(), 200)];
        load.extend([Strangers, Known, Fragments].into_iter().filter(|other| *other != flood).map(|other| (other, 2)));
        load.push((Site(0), 5));
        line.turns(100, &load);
        assert!(line.refused(&flood) > 5_000, "{:?}", line.refused);
        assert_eq!(line.refused.len(), 1, "only {flood:?} is refused: {:?}", line.refused);
        assert_eq!(line.overflown, 0);
        line.close();
    }
}

#[test]
fn rings_are_apart() {
    let mut line = Line::new("apart");
    line.gauge.say(ENTRIES as u32 / 2 + 1);
    while line.offer(&Site(0)) {}
    line.gauge.say(ENTRIES as u32);
    assert!(line.offer(&Site(1)));
    assert!(!line.offer(&Site(1)), "a first frame of anybody goes while there may be room, a second does not");
    let elsewhere = line.steering.program(PORT + 1).unwrap();
    for _ in 0..100 {
        assert_eq!(elsewhere.test_run(&frame(&Site(0)), 1).unwrap().0, Verdict::Redirect);
    }
    // A site that has its share of one ring has none of another yet.
    line.steering.gauge(Place::sole(PORT + 1, 0)).unwrap().say(ENTRIES as u32 * 2 / 3);
    let elsewhere = line.steering.program(PORT + 1).unwrap();
    for _ in 0..100 {
        assert_eq!(elsewhere.test_run(&frame(&Site(0)), 1).unwrap().0, Verdict::Redirect);
    }
    line.steering.gauge(Place::sole(PORT, 1)).unwrap().say(0);
    line.steering.gauge(Place::sole(PORT + 1, 0)).unwrap().say(0);
    assert!(!line.offer(&Site(0)), "what another ring's worker says is not about this one");
    line.gauge.say(0);
    assert!(line.offer(&Site(0)));
}

#[test]
fn where_workers_share_a_queue_a_session_goes_to_its_worker_and_follows_it_to_another() {
    let open = Rate { per_second: 1_000_000_000, burst: 1_000_000_000 };
    let limits =
        Limits { known_source: open, strangers: open, fragments: open, known_sources: 10, ..Limits::default() };
    let rings = Rings { ports: 2, queues: 2, entries: ENTRIES as u32 };
    let sockets = vec![1, 3];
    let mut steering = Steering::load(Options { rings, sockets, sites: SITES, ..options("spread", limits) }).unwrap();
    steering.set_local(HUB4.into()).unwrap();
    // SAFETY: no pointers; the result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: just opened, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    for port in [0, 1] {
        steering.set_mac(port, PORT_MAC).unwrap();
    }
    let programs = [0, 1].map(|port| steering.program(port).unwrap().try_clone().unwrap());
    let entry = |worker| SessionEntry { index: index(0), worker, tenant: 9, site: slot(0), state: SessionState::Live };
    let passes = |port: usize, sender: &Sender| {
        let (verdict, _) = programs[port].test_run(&frame(sender), 1).unwrap();
        verdict == Verdict::Redirect
    };

    // On a port with a socket a queue, the worker does not matter; on one with three, it is the socket.
    for worker in 0..3 {
        steering.set_session(0, entry(worker)).unwrap();
        let sole = Place::sole(0, 0);
        steering.set_socket(sole, socket.as_fd()).unwrap();
        assert!(passes(0, &Site(0)));
        steering.clear_socket(sole).unwrap();
        assert!(!passes(0, &Site(0)));
        for other in 0..3 {
            let place = Place { port: 1, queue: 0, socket: other };
            steering.set_socket(place, socket.as_fd()).unwrap();
            assert_eq!(passes(1, &Site(0)), u32::from(worker) == other, "worker {worker}, socket {other}");
            steering.clear_socket(place).unwrap();
        }
    }
    // Which of them gets what has no session is the source's doing: one of them, and always the same.
    for sender in [Known, Strangers, Fragments] {
        let takers = (0..3).filter(|other| {
            let place = Place { port: 1, queue: 0, socket: *other };
            steering.set_socket(place, socket.as_fd()).unwrap();
            let passed = (0..10).filter(|_| passes(1, &sender)).count();
            steering.clear_socket(place).unwrap();
            assert!([0, 10].contains(&passed), "{sender:?}: {passed} of 10");
            passed == 10
        });
        assert_eq!(takers.count(), 1, "{sender:?}");
    }
    assert!(steering.gauge(Place { port: 0, queue: 0, socket: 1 }).is_err(), "this port has one socket a queue");
    assert!(steering.gauge(Place { port: 1, queue: 1, socket: 2 }).is_ok());
}

#[test]
fn a_hub_that_is_gone_sheds_nothing() {
    let mut line = Line::new("gone");
    line.gauge.say(ENTRIES as u32);
    while line.offer(&Site(0)) {}
    line.steering.clear_socket(Place::sole(PORT, 0)).unwrap();
    let shed = line.steering.shed(slot(0));
    assert!(!line.offer(&Site(0)));
    assert_eq!(line.steering.shed(slot(0)), shed, "it is not the ring that is missing room");
    let books = line.steering.counters().unwrap().into_iter().find(|counters| counters.port == PORT).unwrap();
    assert_eq!(books.drops[DropReason::XdpNoSocket as usize].packets, 1);
}
