//! Hours and days of two peers with a bad path between them, in about a second.
//!
//! Each simulation alternates between trouble, when the path loses, delays, reorders and doubles, and calm, when it only delays. What must
//! hold at every moment [`Node`] asserts: no session is used at 180 s of age or before it is confirmed, every index is retired once, and
//! after giving up nothing is done. What must hold in the end is asserted here: in calm, data flows again within [`RECOVERY`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::{Just, ProptestConfig, any, prop_oneof, proptest};

use super::*;

/// How long it may take at most, in calm, until data flows again both ways. One side may believe in a session that the other has lost: it
/// waits 15.333 s, looks a second late, and may find that an initiation left less than 5 s ago. Then initiations may cross, each time with
/// 5.333 s lost: three times would be a miracle, since the jitter is far greater than the delay.
const RECOVERY: Duration = Duration::from_millis(15_333 + 1_000 + 5_000 + 3 * 5_333);

/// How often the caller looks at the traffic, and how often each side has a packet.
const LOOK: Duration = Duration::from_secs(1);

/// A path, in trouble.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    /// One datagram in so many is lost, doubled.
    lost: u64,
    doubled: u64,
    delay_ms_max: u64,
    /// One side forgets all in the middle of it, but for the greatest time stamp.
    restart: bool,
}

/// When a datagram arrives, a number that makes it unique, at which node, and what it is.
type OnTheWay = (Time, u64, usize, Vec<u8>);

struct Simulation {
    nodes: [Node; 2],
    path: BinaryHeap<Reverse<OnTheWay>>,
    trouble: Option<Trouble>,
    rng: Rng,
    datagrams: u64,
    now: Time,
    /// When data last arrived at each.
    arrived: [Time; 2],
    handshakes: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let (a, b) = pair(Some([3; 32]));
        Self {
            nodes: [a, b],
            path: BinaryHeap::new(),
            trouble: None,
            rng: Rng(seed),
            datagrams: 0,
            now: START,
            arrived: [START; 2],
            handshakes: 0,
        }
    }

    /// Lets both send a packet every second, if they talk, until `end`.
    fn run(&mut self, end: Time, talks: [bool; 2]) {
        let mut look = self.now;
        loop {
            // 1. The next thing that happens.
            let deadline = self.nodes[0].deadline.min(self.nodes[1].deadline).max(self.now);
            let arrival = self.path.peek().map_or(Time::NEVER, |Reverse((at, ..))| *at);
            self.now = look.min(deadline).min(arrival);
            if self.now >= end {
                self.now = end;
                return;
            }
            self.nodes.iter_mut().for_each(|node| node.now = self.now);

            // 2. A datagram, a packet or a timer.
            if arrival == self.now {
                let Some(Reverse((_, _, to, datagram))) = self.path.pop() else { unreachable!() };
                self.arrive(to, &datagram);
            } else if look == self.now {
                look = look + LOOK;
                for (node, talks) in self.nodes.iter_mut().zip(talks) {
                    if talks && !node.send(b"data") {
                        node.want();
                    }
                    node.poll();
                }
            } else {
                self.nodes.iter_mut().filter(|node| node.deadline <= self.now).for_each(Node::poll);
            }

            // 3. What that made them send.
            for from in 0..2 {
                self.handshakes += self.nodes[from].take_log().iter().filter(|what| **what == "established").count();
                for datagram in std::mem::take(&mut self.nodes[from].wire) {
                    self.depart(1 - from, datagram);
                }
            }
        }
    }

    fn arrive(&mut self, to: usize, datagram: &[u8]) {
        let node = &mut self.nodes[to];
        let result = node.receive(datagram);
        // Nothing here is forged: what does not fit is late or doubled.
        assert!(
            matches!(
                result,
                Ok(_) | Err(HandshakeError::Replayed | HandshakeError::Unsolicited | HandshakeError::Rate)
            ),
            "{result:?}"
        );
        if !node.received.is_empty() {
            node.received.clear();
            self.arrived[to] = self.now;
        }
        node.poll();
    }

    fn depart(&mut self, to: usize, datagram: Vec<u8>) {
        let copies = match self.trouble {
            None => 1,
            Some(trouble) if self.rng.one_in(trouble.lost) => 0,
            Some(trouble) => 1 + usize::from(self.rng.one_in(trouble.doubled)),
        };
        let delay_ms_max = self.trouble.map_or(20, |trouble| trouble.delay_ms_max);
        for _ in 0..copies {
            self.datagrams += 1;
            let delay = Duration::from_millis(1 + self.rng.next() % delay_ms_max);
            self.path.push(Reverse((self.now + delay, self.datagrams, to, datagram.clone())));
        }
    }

    /// Some minutes of trouble, then calm, in which data must flow again.
    fn trouble_and_calm(&mut self, trouble: Trouble, for_: Duration, talks: [bool; 2]) {
        self.trouble = Some(trouble);
        self.run(self.now + for_ / 2, talks);
        if trouble.restart {
            let node = &mut self.nodes[1];
            let (remote, kept) = (*node.peer.remote(), node.peer.last_timestamp());
            let mut out = Vec::new();
            std::mem::replace(&mut node.peer, Peer::new(7, remote, Some([3; 32]), None, kept)).erase(&mut out);
            node.carry_out(out);
            // Another process: its workers have noted nothing, and it has given up nothing.
            (node.activity, node.gave_up) = (Activity::default(), false);
            node.poll();
        }
        self.run(self.now + for_ / 2, talks);

        self.trouble = None;
        let calm = self.now;
        self.run(calm + RECOVERY, talks);
        for to in 0..2 {
            assert!(
                !talks[1 - to] || self.arrived[to] > calm,
                "no data to {to} within {RECOVERY:?} after {trouble:?} at {calm:?}"
            );
        }
        // And once it flows, it flows: nothing is lost while sessions are renewed.
        let steady = self.now;
        self.run(steady + Duration::from_secs(400), talks);
        for to in 0..2 {
            assert!(
                !talks[1 - to] || self.now.since(self.arrived[to]) <= LOOK + Duration::from_millis(20),
                "it stopped"
            );
        }
    }

    fn end(self) {
        self.nodes.into_iter().for_each(Node::erase);
    }
}

#[test]
fn three_days_of_renewals_lose_nothing() {
    let mut simulation = Simulation::new(1);
    // The first packet is the one that makes the session.
    simulation.run(seconds(2.0), [true, false]);
    let mut before = simulation.nodes.each_ref().map(|node| node.activity.data_sent);
    assert!(before[0] > START);
    let hours = 72;
    for hour in 1..=hours {
        simulation.run(START + Duration::from_secs(3600 * hour), [true, true]);
        for (node, before) in simulation.nodes.iter().zip(&mut before) {
            assert!(node.activity.data_sent > *before);
            *before = node.activity.data_sent;
            assert!(
                simulation.now.since(node.activity.data_received) <= LOOK + Duration::from_millis(20),
                "in hour {hour}"
            );
        }
    }
    // A session is renewed at the first look after 120 s.
    let expected = 3600 * hours as usize / 121;
    assert!((expected - 50..=expected + 50).contains(&simulation.handshakes), "{} handshakes", simulation.handshakes);
    simulation.end();
}

#[test]
fn a_wall_clock_that_steps_by_hours_costs_no_packet() {
    let mut simulation = Simulation::new(3);
    simulation.run(seconds(2.0), [true, false]);
    for (step, node) in [(5, 0), (-11, 0), (7, 1), (-2, 1), (-5, 0), (6, 0), (-6, 1)] {
        let wall = &mut simulation.nodes[node].wall;
        *wall = wall.checked_add_signed(step * 3600).unwrap();
        // Sessions are renewed three times, by whoever began the one before.
        let before = simulation.handshakes;
        simulation.run(simulation.now + Duration::from_secs(400), [true, true]);
        assert!(simulation.handshakes >= before + 3);
        for to in 0..2 {
            let silent = simulation.now.since(simulation.arrived[to]);
            assert!(silent <= LOOK + Duration::from_millis(20), "nothing for {silent:?} after {step} hours at {node}");
        }
    }
    simulation.end();
}

#[test]
fn after_hours_of_sleep_the_first_packet_makes_a_session() {
    let mut simulation = Simulation::new(4);
    simulation.run(seconds(10.0), [true, true]);
    for hours in [1, 9] {
        // Neither runs, and what was on the way is long gone.
        simulation.path.clear();
        simulation.now = simulation.now + Duration::from_secs(3600 * hours);
        let awake = simulation.now;
        // Timers that are hours late come before anything is sent (a worker looks at a session's age by itself).
        for node in &mut simulation.nodes {
            node.now = awake;
            node.poll();
        }
        simulation.run(awake + RECOVERY, [true, true]);
        assert!(simulation.arrived.iter().all(|arrived| *arrived > awake), "no data after {hours} hours");
        let steady = simulation.now;
        simulation.run(steady + Duration::from_secs(400), [true, true]);
        assert!(simulation.arrived.iter().all(|at| simulation.now.since(*at) <= LOOK + Duration::from_millis(20)));
    }
    simulation.end();
}

#[test]
fn a_path_that_dies_is_given_up_and_found_again() {
    let mut simulation = Simulation::new(2);
    simulation.run(seconds(10.0), [true, true]);
    simulation.trouble = Some(Trouble { lost: 1, doubled: 1, delay_ms_max: 1, restart: false });
    // Both talk until it is broken, and then fall silent.
    simulation.run(seconds(60.0), [true, true]);
    simulation.run(seconds(400.0), [false, false]);
    for node in &simulation.nodes {
        assert!(node.gave_up && node.live.is_empty() && node.deadline == Time::NEVER, "{:?}", node.peer);
    }
    simulation.trouble = None;
    simulation.run(seconds(420.0), [false, true]);
    assert!(simulation.arrived[0] > seconds(400.0));
    simulation.end();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn data_flows_again_after_any_trouble(
        seed in any::<u64>(),
        troubles in proptest::collection::vec((1u64..6, 1u64..6, prop_oneof![Just(20u64), Just(2_000), Just(20_000)], any::<bool>(), 1u64..600), 1..5),
        talks in prop_oneof![Just([true, true]), Just([true, false]), Just([false, true])],
    ) {
        let mut simulation = Simulation::new(seed);
        for (lost, doubled, delay_ms_max, restart, seconds) in troubles {
            let trouble = Trouble { lost, doubled, delay_ms_max, restart };
            simulation.trouble_and_calm(trouble, Duration::from_secs(seconds), talks);
        }
        simulation.end();
    }
}
