//! A session: two keys, agreed on by one handshake, that live for three minutes at most.
//!
//! It is shared by all workers. Of what it holds only two things change: the send counter, and the replay window.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::aead::{Cipher, Key};
use crate::cache::foresee;
use crate::constants::REJECT_AFTER_TIME;
use crate::message::DATA_HEADER;
use crate::nonces::Nonces;
use crate::profile::reject_after_messages;
use crate::replay::{Reject, Window};
use crate::{Protocol, Time};

/// Which end of the handshake this hub was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// It sent the first message, and is the one to renew the session in time.
    Initiator,
    /// It sent the second, and may send no data before it has received some.
    Responder,
}

/// One session, as every thread sees it.
pub struct Session {
    owner: u32,
    local_index: u32,
    remote_index: u32,
    role: Role,
    protocol: Protocol,
    born: Time,
    seal_key: Key,
    open_key: Key,
    nonces: Line<Nonces>,
    window: Line<Window>,
}

/// Keeps what senders write, what receivers write and what both only read on cache lines of their own; 128, since x86 fetches in pairs.
#[repr(align(128))]
struct Line<T>(T);

impl Session {
    /// A session with a site, between `local_index`, by which the peer calls it, and `remote_index`, by which we do. The caller wipes its own copies
    /// of the keys.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are the result of a handshake, and there is one place that has them"
    )]
    pub fn new(
        owner: u32,
        local_index: u32,
        remote_index: u32,
        role: Role,
        send: &[u8; 32],
        receive: &[u8; 32],
        cipher: Cipher,
        born: Time,
    ) -> Self {
        Self {
            owner,
            local_index,
            remote_index,
            role,
            protocol: Protocol::WireGuard,
            born,
            seal_key: Key::new(cipher, send),
            open_key: Key::new(cipher, receive),
            nonces: Line(Nonces::up_to(reject_after_messages(cipher))),
            window: Line(Window::new()),
        }
    }

    /// The same session, of a trunk.
    pub fn of_trunk(self) -> Self {
        Self { protocol: Protocol::Trunk, ..self }
    }

    /// The caller's own number for the peer of this session.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// The receiver index in messages from the peer.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// The receiver index in messages to the peer.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Which end of the handshake this hub was.
    pub fn role(&self) -> Role {
        self.role
    }

    /// What kind of messages it has.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// When the handshake gave the keys.
    pub fn born(&self) -> Time {
        self.born
    }

    /// How old the session is.
    pub fn age(&self, now: Time) -> Duration {
        now.since(self.born)
    }

    /// Whether it is too old to seal or to open anything.
    pub fn expired(&self, now: Time) -> bool {
        self.age(now) >= REJECT_AFTER_TIME
    }

    /// `count` counters to seal with, which are the caller's alone; fewer, or none, where the session has sealed almost as many messages
    /// as it may. No counter is ever handed out twice: unused ones are lost.
    ///
    /// # Panics
    /// If `count` is above [`RESERVE_MAX`](crate::constants::RESERVE_MAX).
    pub fn reserve(&self, count: u32) -> Range<u64> {
        self.nonces.0.reserve(count)
    }

    /// The same session, of whose counters so many are left: for tests.
    #[doc(hidden)]
    pub fn used_up_but(self, left: u64) -> Self {
        let limit = self.nonces.0.limit();
        Self { nonces: Line(Nonces::between(limit - left, limit)), ..self }
    }

    /// How many counters have been reserved.
    pub fn sent(&self) -> u64 {
        self.nonces.0.reserved()
    }

    /// The header of the data message with this counter.
    pub fn data_header(&self, counter: u64) -> [u8; DATA_HEADER] {
        self.protocol.data_header(self.remote_index, counter)
    }

    /// Whether a message with `counter` could still be accepted: as [`Window::look`], and below what the cipher may be used for. To be
    /// asked of a trunk's session before a message is opened; what a site sends under ChaCha20-Poly1305, the window alone bounds.
    pub fn look(&self, counter: u64) -> Result<(), Reject> {
        if counter >= reject_after_messages(self.open_key.cipher()) {
            return Err(Reject::Limit);
        }
        self.window().look(counter)
    }

    /// Asks for what [`foresee_open`](Self::foresee_open) and [`foresee_seal`](Self::foresee_seal) read.
    #[inline]
    pub fn foresee(&self) {
        foresee(&self.owner);
    }

    /// Asks for what it takes to open the message with this counter.
    #[inline]
    pub fn foresee_open(&self, counter: u64) {
        self.window().foresee(counter);
        self.open_key.foresee();
    }

    /// Asks for what it takes to seal a message.
    #[inline]
    pub fn foresee_seal(&self) {
        foresee(&self.nonces.0);
        self.seal_key.foresee();
    }

    /// Which counters have been received.
    pub fn window(&self) -> &Window {
        &self.window.0
    }

    /// The key for messages to the peer.
    pub fn seal_key(&self) -> &Key {
        &self.seal_key
    }

    /// The key for messages from the peer.
    pub fn open_key(&self) -> &Key {
        &self.open_key
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("owner", &self.owner)
            .field("local_index", &format_args!("{:#010x}", self.local_index))
            .field("remote_index", &format_args!("{:#010x}", self.remote_index))
            .field("role", &self.role)
            .field("born", &self.born)
            .field("sent", &self.sent())
            .field("window", self.window())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::aead::{SealJob, TAG, single};

    fn session() -> Session {
        Session::new(7, 0x11, 0x22, Role::Initiator, &[0xa5; 32], &[0x5b; 32], Cipher::ChaCha20Poly1305, Time(1_000))
    }

    #[test]
    fn expires_at_180_seconds() {
        let session = session();
        assert!(!session.expired(Time(0)), "a clock read just before the session was made");
        assert!(!session.expired(session.born() + Duration::from_nanos(179_999_999_999)));
        assert!(session.expired(session.born() + Duration::from_secs(180)));
    }

    #[test]
    fn seals_with_one_key_and_opens_with_the_other() {
        let seal = |key: &Key| {
            let mut data = [0; TAG];
            single().seal_batch(&mut [SealJob { key, counter: 0, aad: b"", data: &mut data }]);
            data
        };
        let session = session();
        assert_eq!(seal(session.seal_key()), seal(&Key::new(Cipher::ChaCha20Poly1305, &[0xa5; 32])));
        assert_eq!(seal(session.open_key()), seal(&Key::new(Cipher::ChaCha20Poly1305, &[0x5b; 32])));
    }

    #[test]
    fn aes_seals_and_opens_2_to_the_29_messages() {
        let aes = || Session::new(7, 1, 2, Role::Initiator, &[1; 32], &[2; 32], Cipher::Aes256Gcm, Time(0)).of_trunk();
        let nearly = aes().used_up_but(3);
        assert_eq!((nearly.reserve(64), nearly.reserve(1).is_empty()), ((1 << 29) - 3..1 << 29, true));
        assert_eq!(aes().look((1 << 29) - 1), Ok(()));
        assert_eq!(aes().look(1 << 29), Err(Reject::Limit));
        assert_eq!(session().of_trunk().look(1 << 29), Ok(()));
        assert_eq!(session().of_trunk().look(crate::replay::LIMIT), Err(Reject::Limit));
        let seen = session();
        assert_eq!((seen.window().accept(5), seen.look(5)), (Ok(()), Err(Reject::Replayed)));
    }

    #[test]
    fn debug_shows_no_key() {
        let shown = format!("{:?} {:?}", session(), session().seal_key()).to_lowercase();
        for byte in ["a5", "165", "5b", "91"] {
            assert!(!shown.contains(byte), "{shown}");
        }
    }

    #[test]
    fn senders_and_receivers_write_to_lines_of_their_own() {
        let session = session();
        let line = |address: usize| address / 128;
        let nonces = line(&raw const session.nonces as usize);
        let window = line(&raw const session.window as usize);
        let fixed = line(&raw const session.seal_key as usize);
        let cache_line = |address: usize| address / 64;
        let owner = cache_line(&raw const session.owner as usize);
        assert_eq!(cache_line(&raw const session.open_key as usize), owner, "what is foreseen is one line");
        assert_eq!(cache_line(&raw const session.seal_key as usize), owner);
        assert!(nonces != window && nonces != fixed && window != fixed);
    }
}
