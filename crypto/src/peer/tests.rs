//! Peers in a world of their own: [`Node`] is a caller as it should be, and asserts all that a caller may rely on.

mod fuzz;
mod handshakes;
mod interop;
mod simulation;
mod timers;
mod trunks;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use super::*;
use crate::aead::{self, OpenJob, SealJob, TAG};
use crate::cookie::{Checker, Verdict};
use crate::message::{self, Kind};

fn seconds(seconds: f64) -> Time {
    START + Duration::from_secs_f64(seconds)
}

/// The moment at which each test begins.
const START: Time = Time(1_000_000_000_000);

/// Where every datagram comes from.
const SOURCE: &str = "192.0.2.7:51820";

/// Numbers that look random, and are the same in each run (splitmix64, Steele et al. 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }

    /// True once in `n` times.
    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

/// A hub with one peer.
struct Node {
    identity: Identity,
    checker: Checker,
    peer: Peer,
    rng: Rng,
    now: Time,
    /// The wall clock's seconds at [`START`].
    wall: u64,
    under_load: bool,

    /// Indices reserved and not yet retired; at most so many.
    live: HashSet<u32>,
    live_max: usize,
    reserved: usize,
    /// Indices that messages may come to.
    published: HashSet<u32>,
    sessions: HashMap<u32, Arc<Session>>,
    /// The session to send with.
    sending: Option<u32>,
    /// Of sessions that we answered for: those that have received something.
    confirmed: HashSet<u32>,
    gave_up: bool,
    activity: Activity,
    deadline: Time,

    /// What was done since it was last taken.
    log: Vec<&'static str>,
    wire: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl Node {
    fn new(private: u8, remote: PublicKey, psk: Option<[u8; 32]>, seed: u64) -> Self {
        let identity = Identity::new([private; 32]);
        Self {
            checker: Checker::new(&identity),
            peer: Peer::new(7, remote, psk, None, None),
            identity,
            rng: Rng(seed),
            now: START,
            wall: 1_800_000_000,
            under_load: false,
            live: HashSet::new(),
            live_max: 4,
            reserved: 0,
            published: HashSet::new(),
            sessions: HashMap::new(),
            sending: None,
            confirmed: HashSet::new(),
            gave_up: false,
            activity: Activity::default(),
            deadline: Time::NEVER,
            log: Vec::new(),
            wire: Vec::new(),
            received: Vec::new(),
        }
    }

    /// The same, before anything has happened, as a hub at the end of a trunk.
    fn speaking(mut self, profile: Profile) -> Self {
        self.checker = Checker::of(profile.protocol(), &self.identity);
        self.peer = self.peer.speaking(profile);
        self
    }

    fn protocol(&self) -> Protocol {
        self.peer.profile().protocol()
    }

    /// Calls the peer, and carries out what it wants.
    fn call<T>(&mut self, call: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>, &mut Vec<Action>) -> T) -> T {
        let mut out = Vec::new();
        let mut index_rng = Rng(self.rng.next());
        let (live, live_max, reserved) = (&mut self.live, self.live_max, &mut self.reserved);
        let mut indices = || {
            let index = index_rng.next() as u32;
            (live.len() < live_max && live.insert(index)).then(|| {
                *reserved += 1;
                index
            })
        };
        let since = self.now.since(START);
        let rng = &mut self.rng;
        let mut cx = Context {
            now: self.now,
            unix: SystemTimeParts { secs: self.wall + since.as_secs(), nanos: since.subsec_nanos() },
            random: &mut |bytes| rng.fill(bytes),
            indices: &mut indices,
        };
        let result = call(&mut self.peer, &self.identity, &mut cx, &mut out);
        self.carry_out(out);
        result
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            let what = match action {
                Action::Reserved { index } => {
                    assert!(self.live.contains(&index) && self.published.insert(index), "{index:#x} is reserved once");
                    "reserved"
                }
                Action::Send(message) => {
                    let protocol = self.protocol();
                    let sealed = message::Sealed::parse(protocol, &message)
                        .expect("a peer sends nothing but handshake messages");
                    assert!(self.published.contains(&sealed.sender), "no answer could reach us");
                    self.wire.push(message.to_vec());
                    match protocol.kind(&message).unwrap() {
                        Kind::Initiation => "initiation",
                        Kind::Response => "response",
                        Kind::Cookie | Kind::Data => unreachable!(),
                    }
                }
                Action::Established { session, confirmed } => {
                    let index = session.local_index();
                    assert!(self.live.contains(&index), "{index:#x} is ours");
                    assert_eq!(self.published.insert(index), session.role() == Role::Responder);
                    assert_eq!(confirmed, session.role() == Role::Initiator);
                    assert_eq!((session.owner(), session.born()), (7, self.now));
                    if confirmed {
                        self.sending = Some(index);
                    }
                    assert!(self.sessions.insert(index, session).is_none());
                    if confirmed { "established" } else { "answered" }
                }
                Action::Use { index } => {
                    assert!(self.sessions[&index].role() == Role::Responder && self.confirmed.contains(&index));
                    self.sending = Some(index);
                    "use"
                }
                Action::Retire { index } => {
                    assert!(self.live.remove(&index), "{index:#x} is retired once");
                    assert!(self.published.remove(&index), "{index:#x} was published");
                    self.sessions.remove(&index);
                    self.sending = self.sending.filter(|sending| *sending != index);
                    "retire"
                }
                Action::Keepalive => {
                    assert!(self.send(&[]), "there is a session to keep alive");
                    "keepalive"
                }
                Action::GiveUp => {
                    self.gave_up = true;
                    "give up"
                }
            };
            self.log.push(what);
            assert!(self.live.len() <= 4, "a peer never needs more: one handshake and three sessions");
        }
    }

    fn want(&mut self) {
        self.gave_up = false;
        self.call(|peer, identity, cx, out| peer.want_session(identity, cx, out));
    }

    fn poll(&mut self) {
        let (activity, gave_up, logged) = (self.activity, self.gave_up, self.log.len());
        self.deadline = self.call(|peer, identity, cx, out| peer.poll(identity, &activity, cx, out));
        assert!(self.deadline > self.now, "a poll leaves nothing undone");
        if gave_up {
            assert!(
                self.log[logged..].iter().all(|action| *action == "retire"),
                "after giving up: {:?}",
                &self.log[logged..]
            );
        }
    }

    /// Polls at each moment that the peer asks for, until `end`.
    fn run_until(&mut self, end: Time) {
        self.poll();
        while self.deadline <= end {
            self.now = self.deadline;
            self.poll();
        }
        self.now = end;
        self.poll();
    }

    /// Seals a packet, if there is a session to do it with.
    fn send(&mut self, packet: &[u8]) -> bool {
        let Some(index) = self.sending else { return false };
        let session = &self.sessions[&index];
        assert!(!session.expired(self.now), "{session:?} is used at {:?}", self.now);
        assert!(session.role() == Role::Initiator || self.confirmed.contains(&index), "a responder waits");
        let counter = session.reserve(1).next().unwrap();
        let header = session.data_header(counter);
        let mut data = [packet, &[0; TAG]].concat();
        let aad = session.protocol().aad(&header);
        aead::single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data: &mut data }]);
        let datagram = [&header[..], &data].concat();
        self.activity.any_sent = self.now;
        self.activity.sealed = session.sent();
        if !packet.is_empty() {
            self.activity.data_sent = self.now;
            self.gave_up = false;
        }
        self.wire.push(datagram);
        true
    }

    /// Takes a datagram; says what became of it.
    fn receive(&mut self, datagram: &[u8]) -> Result<Kind, HandshakeError> {
        let protocol = self.protocol();
        let kind = protocol.kind(datagram).ok_or(HandshakeError::Malformed)?;
        match kind {
            Kind::Initiation | Kind::Response => {
                let (now, rng) = (self.now, &mut self.rng);
                let source: SocketAddr = SOURCE.parse().unwrap();
                match self.checker.check(datagram, source, self.under_load, now, &mut |bytes| rng.fill(bytes))? {
                    Verdict::Pass => {}
                    Verdict::Answer(reply) => {
                        self.wire.push(reply.to_vec());
                        self.log.push("cookie");
                        return Ok(kind);
                    }
                }
                if kind == Kind::Initiation {
                    let opened = match protocol {
                        Protocol::WireGuard => noise::open_initiation(&self.identity, datagram)?,
                        Protocol::Trunk => noise::open_trunk_initiation(&self.identity, datagram)?,
                    };
                    self.call(|peer, identity, cx, out| peer.on_initiation(identity, opened, cx, out))?;
                } else {
                    self.call(|peer, identity, cx, out| peer.on_response(identity, datagram, cx, out))?;
                }
                self.gave_up = false;
            }
            Kind::Cookie => self.call(|peer, _, cx, _| peer.on_cookie(datagram, cx))?,
            Kind::Data => self.open(datagram)?,
        }
        Ok(kind)
    }

    fn open(&mut self, datagram: &[u8]) -> Result<(), HandshakeError> {
        let (index, counter) = self.protocol().parse_data(datagram).ok_or(HandshakeError::Malformed)?;
        let session = self
            .sessions
            .get(&index)
            .filter(|session| !session.expired(self.now))
            .ok_or(HandshakeError::Unsolicited)?;
        session.look(counter).map_err(|_| HandshakeError::Replayed)?;
        let (header, data) = datagram.split_first_chunk().ok_or(HandshakeError::Malformed)?;
        let (aad, mut data) = (session.protocol().aad(header), data.to_vec());
        let mut jobs = [OpenJob { key: session.open_key(), counter, aad, data: &mut data, verified: false }];
        aead::single().open_batch(&mut jobs);
        if !jobs[0].verified {
            return Err(HandshakeError::Auth);
        }
        session.window().accept(counter).map_err(|_| HandshakeError::Replayed)?;
        data.truncate(data.len() - TAG);
        self.activity.any_received = self.now;
        if !data.is_empty() {
            self.activity.data_received = self.now;
            self.received.push(data);
        }
        self.gave_up = false;
        if session.role() == Role::Responder && self.confirmed.insert(index) {
            self.call(|peer, _, cx, out| peer.on_confirmed(index, cx, out));
        }
        Ok(())
    }

    fn take_log(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.log)
    }

    /// The one datagram that was sent since they were last taken.
    fn sent(&mut self) -> Vec<u8> {
        let mut wire = std::mem::take(&mut self.wire);
        assert_eq!(wire.len(), 1, "{:?}", self.log);
        wire.remove(0)
    }

    /// The end of the peer: nothing may be left.
    fn erase(mut self) {
        let other = Peer::new(0, *self.peer.remote(), None, None, None);
        let mut out = Vec::new();
        std::mem::replace(&mut self.peer, other).erase(&mut out);
        self.carry_out(out);
        assert!(self.live.is_empty() && self.published.is_empty() && self.sessions.is_empty());
    }
}

/// Two nodes that know each other.
fn pair(psk: Option<[u8; 32]>) -> (Node, Node) {
    let (a, b) = (Identity::new([1; 32]), Identity::new([2; 32]));
    (Node::new(1, *b.public(), psk, 11), Node::new(2, *a.public(), psk, 22))
}

/// Two nodes, with a session that `a` has initiated at [`START`], confirmed and quiet.
fn connected() -> (Node, Node) {
    let (mut a, mut b) = pair(Some([3; 32]));
    a.want();
    exchange(&mut a, &mut b);
    assert_eq!(a.take_log(), ["reserved", "initiation", "established", "keepalive"]);
    assert_eq!(b.take_log(), ["answered", "response", "use"]);
    a.poll();
    b.poll();
    (a, b)
}

/// Carries what they send to each other, at once, until both are silent.
fn exchange(a: &mut Node, b: &mut Node) {
    loop {
        let (from_a, from_b) = (std::mem::take(&mut a.wire), std::mem::take(&mut b.wire));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        for datagram in from_a {
            b.receive(&datagram).unwrap();
        }
        for datagram in from_b {
            a.receive(&datagram).unwrap();
        }
    }
}

/// Both nodes at this moment, having polled all that was due until then.
fn at(moment: Time, nodes: [&mut Node; 2]) {
    for node in nodes {
        node.run_until(moment);
    }
}
