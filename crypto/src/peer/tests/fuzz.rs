//! Handshakes under attack: what strangers recorded, changed in every way, and two peers on a path that does what it wants.
//!
//! Neither may panic, and nothing that was changed may be accepted. What must hold in a peer at every moment, [`Node`] asserts.

#[path = "../../../../dataplane/tests/mutate/mod.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use bolero::generator::produce;

use super::*;
use crate::aead::Cipher;
use crate::cookie::Stamp;
use crate::message::INITIATION;
use mutate::{Change, Recipe, alter, corpus, mutate, seconds};

/// How often each place was reached.
struct Reached(Mutex<BTreeMap<String, u64>>);

impl Reached {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn count(&self, place: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(place.into()).or_default() += 1;
    }

    fn all(&self, places: &[&str]) {
        let reached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("{reached:?}");
        for place in places {
            assert!(reached.contains_key(*place), "{place:?} was never reached: {reached:?}");
        }
    }
}

/// What three clients sent each other, whose private keys are 0x51 and 0x52, thirty-two times each: `testbed` has them from
/// real sockets.
fn recorded() -> Vec<Vec<u8>> {
    corpus("tests/corpus/handshake")
}

/// MAC1 as anyone can make it who knows whom the message is for.
fn stamped(mut message: Vec<u8>, receiver: &PublicKey) -> Vec<u8> {
    let Some(protocol) = Protocol::of(&message) else { return message };
    if matches!(protocol.kind(&message), Some(Kind::Initiation | Kind::Response)) {
        let mac2 = message[message.len() - 16..].to_vec();
        Stamp::new(protocol, receiver).seal(&mut message, START);
        let at = message.len() - 16;
        message[at..].copy_from_slice(&mac2);
    }
    message
}

/// Whether two messages differ in what the handshake authenticates. Indices and MACs stand outside of it: who knows for whom
/// a message is can make MAC1, and with it any index, as the protocol has it.
fn differ(one: &[u8], other: &[u8]) -> bool {
    let kind = |message: &[u8]| Protocol::of(message).and_then(|protocol| protocol.kind(message));
    let authenticated = |message: &[u8]| match kind(message) {
        Some(Kind::Initiation) => [&message[..4], &message[8..116]].concat(),
        Some(Kind::Response) => message[12..60].to_vec(),
        Some(Kind::Cookie | Kind::Data) | None => message.to_vec(),
    };
    authenticated(one) != authenticated(other)
}

#[test]
fn what_was_recorded_and_then_changed() {
    static REACHED: Reached = Reached::new();
    record_and_change(Profile::WireGuard, recorded(), &REACHED);
    REACHED.all(&["Malformed", "Mac1", "Auth", "Unsolicited", "cookie", "past MAC1"]);
}

/// What two hubs say to each other, in the lane of [`TRUNKS`]' second, in its suite and in the other, and in another lane; and what sites say.
fn said_by_hubs() -> Vec<Vec<u8>> {
    let mut said = recorded();
    let same_lane = Profile::Trunk { cipher: Cipher::ChaCha20Poly1305, lane: 2 };
    for profile in [TRUNKS[0], same_lane, TRUNKS[1]] {
        let (ours, theirs) = (Identity::new([0x52; 32]), Identity::new([0x51; 32]));
        let mut a = Node::new(0x51, *ours.public(), None, 5).speaking(profile);
        let mut b = Node::new(0x52, *theirs.public(), None, 6).speaking(profile);
        b.under_load = true;
        a.want();
        b.receive(&a.wire[0]).unwrap();
        said.append(&mut b.wire);
        b.under_load = false;
        said.push(a.sent());
        b.receive(said.last().unwrap()).unwrap();
        said.push(b.sent());
        a.receive(said.last().unwrap()).unwrap();
        said.push(a.sent());
    }
    said
}

#[test]
fn what_hubs_said_and_then_changed() {
    static REACHED: Reached = Reached::new();
    record_and_change(TRUNKS[1], said_by_hubs(), &REACHED);
    REACHED.all(&["Malformed", "Mac1", "Auth", "Unsolicited", "Suite", "cookie", "past MAC1"]);
}

const TRUNKS: [Profile; 2] = [
    Profile::Trunk { cipher: Cipher::ChaCha20Poly1305, lane: 0 },
    Profile::Trunk { cipher: Cipher::Aes256Gcm, lane: 2 },
];

fn record_and_change(profile: Profile, corpus: Vec<Vec<u8>>, reached: &'static Reached) {
    let (theirs, ours) = (Identity::new([0x51; 32]), Identity::new([0x52; 32]));
    let hear = |datagram: &[u8], source: SocketAddr, under_load: bool| -> Result<&'static str, HandshakeError> {
        let mut node = Node::new(0x52, *theirs.public(), None, 3).speaking(profile);
        node.under_load = under_load;
        let _ = profile.protocol().receiver(datagram);
        let now = node.now;
        let verdict = node.checker.check(datagram, source, under_load, now, &mut |bytes| bytes.fill(7))?;
        if matches!(verdict, Verdict::Answer(_)) {
            return Ok("cookie");
        }
        reached.count("past MAC1");
        node.receive(datagram).map(|kind| if kind == Kind::Initiation { "accepted" } else { "heard" })
    };
    let source: SocketAddr = SOURCE.parse().unwrap();
    for message in corpus.iter().filter(|message| message[..4] == profile.head() && message.len() == INITIATION) {
        assert_eq!(hear(message, source, false), Ok("accepted"));
        assert_eq!(hear(message, source, true), Ok("cookie"));
    }

    let (recipes, corpus) = (produce::<(Recipe, bool, bool)>(), AssertUnwindSafe(corpus));
    let (hear, ours) = (AssertUnwindSafe(hear), AssertUnwindSafe(ours));
    bolero::check!().with_test_time(seconds()).with_generator(recipes).for_each(move |(recipe, known, under_load)| {
        let mut changed = mutate(recipe, &corpus, 2048);
        if *known {
            changed = stamped(changed, ours.public());
        }
        let is_new = corpus.iter().all(|message| differ(message, &changed));
        match hear(&changed, source, *under_load) {
            Ok("accepted") => assert!(!is_new, "a changed initiation was accepted"),
            Ok(other) => reached.count(other),
            Err(HandshakeError::Suite { .. }) => reached.count("Suite"),
            Err(error) => reached.count(format!("{error:?}")),
        }
    });
}

/// One thing that happens: what, to whom, to which message or for how long, and a change.
type Step = (u8, bool, u16, Change);

/// Two nodes, and all that they have said, to be told again.
struct Path {
    nodes: [Node; 2],
    said: Vec<(usize, Vec<u8>)>,
    delivered: usize,
}

impl Path {
    fn new(profile: Profile) -> Self {
        let (a, b) = pair(Some([3; 32]));
        Self { nodes: [a.speaking(profile), b.speaking(profile)], said: Vec::new(), delivered: 0 }
    }

    fn step(&mut self, (what, second, which, change): &Step, reached: &Reached) {
        let who = usize::from(*second);
        match what % 16 {
            0 | 1 => self.nodes[who].want(),
            2 => {
                if !self.nodes[who].send(b"data") {
                    self.nodes[who].want();
                }
            }
            // Everything arrives, in order: so a handshake gets done.
            3..=6 => {
                while self.delivered < self.said.len() {
                    self.deliver(self.delivered, None, reached);
                    self.delivered += 1;
                    self.listen();
                }
            }
            // Something arrives late, once more, or first; or it is lost.
            7 | 8 if !self.said.is_empty() => self.deliver(*which as usize % self.said.len(), None, reached),
            9 => self.delivered = self.said.len(),
            // Something arrives changed, and perhaps with a good MAC1.
            10 | 11 if !self.said.is_empty() => {
                self.deliver(*which as usize % self.said.len(), Some((*change, what % 16 == 11)), reached);
            }
            12 => self.nodes[who].under_load ^= true,
            13 => self.restart(who),
            // Time passes: from nothing to more than a session lives.
            _ => {
                let milliseconds = [1, 21, 400, 5_000, 11_000, 30_000, 91_000, 185_000][*which as usize % 8];
                let end = self.nodes[0].now + Duration::from_millis(milliseconds);
                self.nodes.iter_mut().for_each(|node| node.run_until(end));
            }
        }
        self.listen();
        for what in self.nodes.iter_mut().flat_map(Node::take_log) {
            reached.count(what);
        }
    }

    fn listen(&mut self) {
        for (from, node) in self.nodes.iter_mut().enumerate() {
            self.said.extend(std::mem::take(&mut node.wire).into_iter().map(|message| (1 - from, message)));
        }
    }

    fn deliver(&mut self, which: usize, change: Option<(Change, bool)>, reached: &Reached) {
        let (to, original) = &self.said[which];
        let mut message = original.clone();
        if let Some((change, with_mac)) = change {
            alter(&mut message, change, std::slice::from_ref(original));
            if with_mac {
                message = stamped(message, &self.nodes[*to].identity.public().clone());
            }
        }
        let changed = differ(original, &message);
        let node = &mut self.nodes[*to];
        let answers = node.log.iter().filter(|what| **what == "cookie").count();
        match node.receive(&message) {
            // Under load, whatever has a good MAC1 gets a cookie.
            Ok(_) if node.log.iter().filter(|what| **what == "cookie").count() > answers => {}
            Ok(kind) => {
                assert!(!changed, "a changed {kind:?} was accepted");
                reached.count(format!("{kind:?}"));
            }
            Err(HandshakeError::Suite { .. }) => reached.count("Suite"),
            Err(error) => reached.count(format!("{error:?}")),
        }
        node.poll();
    }

    /// One side forgets all but the greatest time stamp.
    fn restart(&mut self, who: usize) {
        let node = &mut self.nodes[who];
        let (remote, kept) = (*node.peer.remote(), node.peer.last_timestamp());
        let anew = Peer::new(7, remote, Some([3; 32]), None, kept).speaking(node.peer.profile());
        let mut out = Vec::new();
        std::mem::replace(&mut node.peer, anew).erase(&mut out);
        node.carry_out(out);
        (node.activity, node.gave_up) = (Activity::default(), false);
        node.poll();
    }
}

#[test]
fn two_peers_on_a_hostile_path() {
    static REACHED: Reached = Reached::new();
    hostile_path(Profile::WireGuard, &REACHED);
}

#[test]
fn two_hubs_on_a_hostile_path() {
    static REACHED: Reached = Reached::new();
    hostile_path(TRUNKS[1], &REACHED);
}

fn hostile_path(profile: Profile, reached: &'static Reached) {
    let steps = produce::<Vec<Step>>().with().len(1usize..120);
    bolero::check!().with_test_time(seconds()).with_generator(steps).for_each(|steps| {
        let mut path = Path::new(profile);
        steps.iter().for_each(|step| path.step(step, reached));
        path.nodes.into_iter().for_each(Node::erase);
    });
    reached.all(&[
        "established",
        "answered",
        "use",
        "retire",
        "give up",
        "cookie",
        "keepalive",
        "Initiation",
        "Response",
        "Cookie",
        "Data",
        "Malformed",
        "Mac1",
        "Auth",
        "Replayed",
        "Rate",
        "Unsolicited",
    ]);
}
