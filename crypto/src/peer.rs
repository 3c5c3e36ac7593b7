//! One peer of the hub: its handshakes, its sessions and its timers, as a pure state machine.
//!
//! Time, random bytes, receiver indices and messages come in as arguments; what is to be done goes out as [`Action`]s, to be carried out
//! in their order. A peer never sees a packet: workers note when they sent and received ([`Activity`]), and [`Peer::poll`] looks at that.
//!
//! The rules are those of the WireGuard paper ("WG"), sections 5 and 6; where the paper is silent, those of the Linux kernel. In one thing
//! this is stricter: a session is erased the moment it can no longer be used, at three minutes of age, instead of at nine. So nothing of
//! a peer that went silent is left to be erased later.

mod sessions;
mod traffic;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use traffic::Activity;

use crate::constants::{
    INITIATION_INTERVAL, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_JITTER_MAX, REKEY_ON_RECEIVE_TIME, REKEY_TIMEOUT,
};
use crate::cookie::Stamp;
use crate::message::{CookieReply, Outgoing, Response};
use crate::noise::{self, Initiator, Keys, OpenedInitiation, Secret};
use crate::profile::suite;
use crate::{HandshakeError, Identity, Profile, Protocol, PublicKey, Role, Session, SystemTimeParts, Tai64n, Time};
use sessions::{Held, Sessions};
use traffic::{News, Traffic};

/// What the world gives a peer at the moment of a call.
pub struct Context<'a> {
    /// The moment itself.
    pub now: Time,
    /// The wall clock, for the time stamps of initiations.
    pub unix: SystemTimeParts,
    /// Fills its argument with unpredictable bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Reserves a receiver index that is not in use; `None` if there is none. Each comes back as one [`Action::Retire`] in the end.
    pub indices: &'a mut dyn FnMut() -> Option<u32>,
}

/// What a peer wants done.
#[derive(Debug)]
pub enum Action {
    /// Messages to this index are expected from now on: a response, or a cookie reply. To be published before the [`Action::Send`] that
    /// follows. If the response comes, the session has the same index.
    Reserved {
        /// The receiver index.
        index: u32,
    },
    /// A handshake message, for the peer's endpoint.
    Send(Outgoing),
    /// A new session, to be published for receiving before anything that follows.
    Established {
        /// The session.
        session: Arc<Session>,
        /// We initiated it: use it for sending, too. Else it must not be used before [`Action::Use`].
        confirmed: bool,
    },
    /// Data has come under this session, which we answered for: send with it from now on.
    Use {
        /// Its receiver index.
        index: u32,
    },
    /// Withdraw this index, and wipe its session if it has one.
    Retire {
        /// The receiver index.
        index: u32,
    },
    /// Seal an empty packet with the session in use, and send it.
    ///
    /// One follows each [`Action::Established`] that is confirmed, because the responder may send nothing before it has received something;
    /// a caller that has packets waiting sends those, and leaves this out.
    Keepalive,
    /// The peer has not answered for 90 s: drop what waits for a session. Nothing more is tried until something wants it.
    GiveUp,
}

/// One peer. Everything secret in it is wiped when it is dropped.
pub struct Peer {
    profile: Profile,
    owner: u32,
    remote: PublicKey,
    /// The pre-shared key `Q`: zero if there is none.
    psk: Secret,
    keepalive: Option<Duration>,
    /// `DH(S_us, S_peer)`, with our identity that it belongs to: it never changes, and saves every handshake a multiplication.
    static_static: Option<(PublicKey, Secret)>,
    stamp: Stamp,

    /// The greatest time stamp accepted from the peer, and when an initiation was last accepted.
    accepted: Option<Tai64n>,
    accepted_at: Option<Time>,
    /// Our own last time stamp, and when our last initiation left.
    stamped: Option<Tai64n>,
    initiated_at: Option<Time>,

    pending: Option<Pending>,
    attempt: Option<Attempt>,
    heard: Heard,
    sessions: Sessions,
    traffic: Traffic,
    handshake_at: Option<Time>,
}

/// An initiation of ours that may be answered until the next one leaves.
struct Pending {
    index: u32,
    initiator: Initiator,
    until: Time,
}

/// We want a session, and go on trying.
struct Attempt {
    /// When it was last wanted.
    since: Time,
    /// When the next initiation leaves, if there is no session by then.
    next: Time,
}

/// What came back while a session was tried for: all that can be known of why there is none, when it is given up.
///
/// A responder never says why it is silent: it would have to say so to anybody. Its operator can read it in its log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Heard {
    /// Nothing at all.
    Nothing,
    /// A cookie for our initiation: made by who has the key that we know the peer by, or by who read the initiation on its way and knows
    /// that key.
    Cookie,
    /// A response that does not verify, though it names our initiation. Who read that on its way could have made it up.
    WrongResponse,
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing came back: it is unreachable, or one side has a wrong key of the other, or another cipher suite",
            Self::Cookie => {
                "it is there, but does not take our initiation: it has another key for us, or another cipher suite, or a later time stamp of ours"
            }
            Self::WrongResponse => "it answers, but the answer does not verify: another pre-shared key",
        })
    }
}

impl Peer {
    /// A peer without a session, that speaks WireGuard.
    ///
    /// `owner` is the caller's own number for it, and is handed on to its sessions. `last_timestamp` is what [`Peer::last_timestamp`]
    /// was when the hub last ran, so that an old initiation is no more welcome after a restart than before. A `keepalive` of zero is none.
    pub fn new(
        owner: u32,
        remote: PublicKey,
        psk: Option<[u8; 32]>,
        keepalive: Option<Duration>,
        last_timestamp: Option<Tai64n>,
    ) -> Self {
        Self {
            profile: Profile::WireGuard,
            owner,
            remote,
            psk: Zeroizing::new(psk.unwrap_or_default()),
            keepalive: keepalive.filter(|interval| !interval.is_zero()),
            static_static: None,
            stamp: Stamp::new(Protocol::WireGuard, &remote),
            accepted: last_timestamp,
            accepted_at: None,
            stamped: None,
            initiated_at: None,
            pending: None,
            attempt: None,
            heard: Heard::Nothing,
            sessions: Sessions::default(),
            traffic: Traffic::default(),
            handshake_at: None,
        }
    }

    /// The same, before it has said or heard anything, for what else it is to speak.
    pub fn speaking(self, profile: Profile) -> Self {
        Self { profile, stamp: Stamp::new(profile.protocol(), &self.remote), ..self }
    }

    /// What it speaks: of a trunk, with the suite that is configured.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// What has come back since a session was last wanted that there was not: for the log, at [`Action::GiveUp`].
    pub fn heard(&self) -> Heard {
        self.heard
    }

    /// The caller's number for this peer.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// The peer's static key.
    pub fn remote(&self) -> &PublicKey {
        &self.remote
    }

    /// The greatest time stamp accepted from the peer: to be kept over a restart.
    pub fn last_timestamp(&self) -> Option<Tai64n> {
        self.accepted
    }

    /// The last time stamp of our own: to be kept over a restart, since the peer takes none that is older.
    pub fn last_stamp(&self) -> Option<Tai64n> {
        self.stamped
    }

    /// Every time stamp of our own will be later than this one, whatever the clock says.
    pub fn stamp_after(&mut self, stamp: Tai64n) {
        self.stamped = self.stamped.max(Some(stamp));
    }

    /// When a handshake was last completed, as `wg show` has it.
    pub fn last_handshake(&self) -> Option<Time> {
        self.handshake_at
    }

    /// The index of the session to send with, if there is one.
    pub fn current(&self, now: Time) -> Option<u32> {
        self.sessions.usable(now).map(|held| held.index)
    }

    /// Whether the peer was answered a moment ago, and should soon show by a first message that it has the answer: a handshake of our own
    /// would only race with that.
    pub fn is_answered(&self, now: Time) -> bool {
        self.sessions.next.is_some() && self.accepted_at.is_some_and(|at| now < at + REKEY_TIMEOUT)
    }

    /// Another interval of the persistent keepalive; `None` or zero for none. It counts from the next [`Peer::poll`].
    pub fn set_keepalive(&mut self, interval: Option<Duration>) {
        self.keepalive = interval.filter(|interval| !interval.is_zero());
    }

    /// A packet waits for a session, or the hub has just started.
    ///
    /// Nothing happens if there is a session to send with. While a handshake is under way, this makes it go on for another 90 s.
    pub fn want_session(&mut self, identity: &Identity, cx: &mut Context<'_>, out: &mut Vec<Action>) {
        if self.sessions.usable(cx.now).is_none() {
            self.begin(identity, cx, out);
        }
    }

    /// A new handshake now, whether there is a session or not; `false` if the last initiation left less than Rekey-Timeout ago.
    pub fn renew(&mut self, identity: &Identity, cx: &mut Context<'_>, out: &mut Vec<Action>) -> bool {
        if self.initiated_at.is_some_and(|last| cx.now < last + REKEY_TIMEOUT) {
            return false;
        }
        self.begin(identity, cx, out);
        true
    }

    /// The peer wants a session: WG 5.4.2 and 5.4.3, at the responder.
    ///
    /// [`HandshakeError::Suite`] is said only of an initiation that the peer made itself and that was not taken before: whoever logs it may
    /// name the peer. Nothing of it is kept, and nothing answered.
    pub fn on_initiation(
        &mut self,
        identity: &Identity,
        mut opened: OpenedInitiation,
        cx: &mut Context<'_>,
        out: &mut Vec<Action>,
    ) -> Result<(), HandshakeError> {
        if *opened.remote() != self.remote || opened.profile().lane() != self.profile.lane() {
            return Err(HandshakeError::Auth);
        }

        // 1. It is the peer's own, newer than all before it, and not one of a flood.
        let static_static = self.static_static(identity)?;
        let timestamp = opened.timestamp(&static_static)?;
        if self.accepted.is_some_and(|last| timestamp <= last) {
            return Err(HandshakeError::Replayed);
        }
        if opened.profile() != self.profile {
            return Err(HandshakeError::Suite { offered: suite(opened.profile().cipher()) });
        }
        if self.accepted_at.is_some_and(|last| cx.now < last + INITIATION_INTERVAL) {
            return Err(HandshakeError::Rate);
        }
        self.accepted = Some(timestamp);
        self.accepted_at = Some(cx.now);
        self.traffic.received(cx.now);

        // 2. The response, and with it the session.
        let index = (cx.indices)().ok_or(HandshakeError::NoIndex)?;
        let remote_index = opened.sender();
        let (keys, mut message) = match opened.respond(&self.psk, &random_secret(cx), index) {
            Ok(response) => response,
            Err(error) => {
                out.push(Action::Retire { index });
                return Err(error);
            }
        };
        self.stamp.seal(&mut message, cx.now);

        // 3. A peer has one handshake at a time: an initiation of our own that crossed this one is forgotten. Its retry stays set, and
        //    the jitter decides who is first if both were forgotten.
        self.abandon(out);

        // 4. The session can receive before the initiator can know of it. It sends only once the initiator has shown that it does.
        let session = self.session(index, remote_index, Role::Responder, &keys, cx.now);
        out.push(Action::Established { session: Arc::new(session), confirmed: false });
        out.push(Action::Send(Outgoing::new(&message)));
        self.sessions.responded(Held { index, role: Role::Responder, born: cx.now, last_call: false }, out);
        self.traffic.sent(cx.now);
        Ok(())
    }

    /// The peer answers our initiation: WG 5.4.3, at the initiator. MAC1 has been checked by [`crate::cookie::Checker`].
    pub fn on_response(
        &mut self,
        identity: &Identity,
        datagram: &[u8],
        cx: &mut Context<'_>,
        out: &mut Vec<Action>,
    ) -> Result<(), HandshakeError> {
        // 1. It answers the initiation that is under way, and is authentic.
        let response = Response::parse(self.profile.protocol(), datagram).ok_or(HandshakeError::Malformed)?;
        let pending = self.pending.as_ref().filter(|pending| pending.index == response.receiver());
        let initiator = &pending.ok_or(HandshakeError::Unsolicited)?.initiator;
        let keys = match initiator.finish(identity, &self.psk, response) {
            Ok(keys) => keys,
            Err(error) => {
                self.heard = self.heard.max(Heard::WrongResponse);
                return Err(error);
            }
        };
        let Some(Pending { index, .. }) = self.pending.take() else { return Err(HandshakeError::Unsolicited) };

        // 2. The session is in use, the former one kept for what is on the way.
        let session = self.session(index, response.sender(), Role::Initiator, &keys, cx.now);
        out.push(Action::Established { session: Arc::new(session), confirmed: true });
        self.sessions.initiated(Held { index, role: Role::Initiator, born: cx.now, last_call: false }, out);
        self.traffic.received(cx.now);
        self.completed(cx.now);

        // 3. The responder may not send before it has received.
        out.push(Action::Keepalive);
        self.traffic.sent(cx.now);
        Ok(())
    }

    /// The peer is under load and wants our next handshake message to carry this cookie: WG 5.4.7 and 6.6.
    pub fn on_cookie(&mut self, datagram: &[u8], cx: &mut Context<'_>) -> Result<(), HandshakeError> {
        let reply = CookieReply::parse(self.profile.protocol(), datagram).ok_or(HandshakeError::Malformed)?;
        let ours = self.pending.as_ref().is_some_and(|pending| pending.index == reply.receiver());
        if !ours && !self.sessions.holds(reply.receiver()) {
            return Err(HandshakeError::Unsolicited);
        }
        self.stamp.receive(reply, cx.now)?;
        self.heard = self.heard.max(Heard::Cookie);
        Ok(())
    }

    /// Authentic data has come under this session. Only the first under a session that we answered for has an effect.
    pub fn on_confirmed(&mut self, index: u32, cx: &mut Context<'_>, out: &mut Vec<Action>) {
        if self.sessions.confirmed(index, out) {
            self.traffic.received(cx.now);
            self.completed(cx.now);
        }
    }

    /// Does what is due: to be called at the moment that the last call returned, and about once a second while packets pass.
    ///
    /// The answer is the next moment at which something is due if nothing happens until then: always later than `cx.now`.
    pub fn poll(
        &mut self,
        identity: &Identity,
        activity: &Activity,
        cx: &mut Context<'_>,
        out: &mut Vec<Action>,
    ) -> Time {
        // 1. What passed since the last call; and whether, by that, the session in use should have a successor.
        let news = self.traffic.observe(activity, || jitter(cx));
        if self.wants_renewal(activity, news) {
            self.begin(identity, cx, out);
        }

        // 2. Sessions that have reached their end.
        self.sessions.expire(cx.now, out);

        // 3. An initiation that was not answered: again, with a new ephemeral key, or never.
        if let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.next <= cx.now) {
            if cx.now < attempt.since + REKEY_ATTEMPT_TIME {
                self.initiate(identity, cx, out)
            } else {
                self.give_up(out)
            }
        }
        if self.pending.as_ref().is_some_and(|pending| pending.until <= cx.now) {
            self.abandon(out);
        }

        // 4. Data that was not answered.
        if self.traffic.unanswered_due(cx.now) {
            self.begin(identity, cx, out);
        }

        // 5. Keepalives: one owed for data received, one to keep a path open.
        if self.traffic.owed_due(cx.now) {
            self.keep_alive(identity, cx, out);
        }
        if self.traffic.persistent_due(self.keepalive, cx.now) {
            self.keep_alive(identity, cx, out);
        }

        let next = self.attempt.as_ref().map_or(Time::NEVER, |attempt| attempt.next);
        let until = self.pending.as_ref().map_or(Time::NEVER, |pending| pending.until);
        next.min(until).min(self.sessions.deadline()).min(self.traffic.deadline(self.keepalive))
    }

    /// The end of the peer: all its indices are retired, and its secrets wiped.
    pub fn erase(mut self, out: &mut Vec<Action>) {
        self.abandon(out);
        self.sessions.clear(out);
    }

    /// WG 6.2: whether the session in use is due for a successor. The side that initiated it watches its age, so that not both do; both
    /// watch the number of messages.
    fn wants_renewal(&mut self, activity: &Activity, news: News) -> bool {
        let Some(current) = &mut self.sessions.current else { return false };
        let initiator = current.role == Role::Initiator;
        let sending = news.sent
            && (activity.sealed > self.profile.rekey_after_messages()
                || initiator && activity.any_sent >= current.born + REKEY_AFTER_TIME);
        let receiving = news.received
            && initiator
            && !current.last_call
            && activity.any_received >= current.born + REKEY_ON_RECEIVE_TIME;
        current.last_call |= receiving;
        sending || receiving
    }

    /// A new session is wanted: the first initiation leaves, or the attempt that is under way gets another 90 s.
    fn begin(&mut self, identity: &Identity, cx: &mut Context<'_>, out: &mut Vec<Action>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.since = cx.now;
            return;
        }
        // Never two initiations within Rekey-Timeout, whatever happened between them.
        let next = self.initiated_at.map_or(cx.now, |last| cx.now.max(last + REKEY_TIMEOUT));
        self.attempt = Some(Attempt { since: cx.now, next });
        self.heard = Heard::Nothing;
        if next == cx.now {
            self.initiate(identity, cx, out);
        }
    }

    /// WG 5.4.2, at the initiator: an initiation leaves, and the next one is set (WG 6.4).
    fn initiate(&mut self, identity: &Identity, cx: &mut Context<'_>, out: &mut Vec<Action>) {
        let next = cx.now + REKEY_TIMEOUT + jitter(cx);
        if let Some(attempt) = &mut self.attempt {
            attempt.next = next;
        }

        // 1. The one before it can no longer be answered.
        self.abandon(out);

        // 2. A time stamp greater than all before it, whatever the clock says.
        let clock = Tai64n::at(cx.unix);
        let timestamp = self.stamped.map_or(clock, |last| clock.max(last.next()));

        // 3. The message. A peer whose key is of low order has no secret to share: there is no use in trying.
        let Ok(static_static) = self.static_static(identity) else { return self.give_up(out) };
        let Some(index) = (cx.indices)() else { return };
        let ephemeral = random_secret(cx);
        let made = noise::initiate(self.profile, identity, &self.remote, &static_static, timestamp, &ephemeral, index);
        let Ok((initiator, mut message)) = made else {
            out.push(Action::Retire { index });
            return self.give_up(out);
        };
        self.stamp.seal(&mut message, cx.now);

        out.push(Action::Reserved { index });
        out.push(Action::Send(Outgoing::new(&message)));
        self.pending = Some(Pending { index, initiator, until: next });
        self.stamped = Some(timestamp);
        self.initiated_at = Some(cx.now);
        self.traffic.sent(cx.now);
    }

    /// WG 6.4: enough of it, until something wants a session again.
    fn give_up(&mut self, out: &mut Vec<Action>) {
        self.attempt = None;
        self.abandon(out);
        self.traffic.forget();
        out.push(Action::GiveUp);
    }

    /// A session is in use: nothing more is to be tried.
    fn completed(&mut self, now: Time) {
        self.attempt = None;
        self.handshake_at = Some(now);
    }

    /// Forgets our initiation that is under way.
    fn abandon(&mut self, out: &mut Vec<Action>) {
        out.extend(self.pending.take().map(|pending| Action::Retire { index: pending.index }));
    }

    /// Sends an empty packet; without a session to send it with, it is like any other packet that wants one.
    fn keep_alive(&mut self, identity: &Identity, cx: &mut Context<'_>, out: &mut Vec<Action>) {
        if self.sessions.usable(cx.now).is_none() {
            return self.begin(identity, cx, out);
        }
        out.push(Action::Keepalive);
        self.traffic.sent(cx.now);
    }

    fn session(&self, index: u32, remote_index: u32, role: Role, keys: &Keys, born: Time) -> Session {
        let cipher = self.profile.cipher();
        let session = Session::new(self.owner, index, remote_index, role, &keys.send, &keys.receive, cipher, born);
        match self.profile.protocol() {
            Protocol::WireGuard => session,
            Protocol::Trunk => session.of_trunk(),
        }
    }

    fn static_static(&mut self, identity: &Identity) -> Result<Secret, HandshakeError> {
        let known = self.static_static.take_if(|(of, _)| of == identity.public());
        let (of, secret) = match known {
            Some(known) => known,
            None => (*identity.public(), noise::dh(identity.secret(), &self.remote.0)?),
        };
        Ok(self.static_static.insert((of, secret)).1.clone())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("profile", &self.profile)
            .field("owner", &self.owner)
            .field("remote", &self.remote)
            .field("sessions", &self.sessions)
            .field("traffic", &self.traffic)
            .finish_non_exhaustive()
    }
}

/// 32 bytes from the world, for an ephemeral key.
fn random_secret(cx: &mut Context<'_>) -> Secret {
    let mut secret = Secret::default();
    (cx.random)(&mut *secret);
    secret
}

/// A random part of [`REKEY_JITTER_MAX`].
fn jitter(cx: &mut Context<'_>) -> Duration {
    let mut bytes = [0; 8];
    (cx.random)(&mut bytes);
    let below = u64::try_from(REKEY_JITTER_MAX.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(u64::from_le_bytes(bytes) % below)
}

#[cfg(all(test, not(loom)))]
mod tests;
