//! What the two ends of a handshake must mean alike: the protocol, and for a trunk its cipher and its lane.
//!
//! Sites speak WireGuard. Hubs speak the same handshake with each other, over numbers, labels and an identifier of their own;
//! `docs/WIRE.md` specifies it. Whatever a [`Profile`] says is hashed into the handshake, so that both ends agree on it or on nothing.

use crate::aead::Cipher;
use crate::constants::{
    REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES_AES, REKEY_AFTER_MESSAGES, REKEY_AFTER_MESSAGES_AES,
};

/// The two protocols that may share a UDP port: the first byte of each message tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// What sites speak: WG.
    WireGuard,
    /// What hubs speak with each other.
    Trunk,
}

/// What a handshake is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Profile {
    /// A session with a site.
    WireGuard,
    /// A session of a trunk.
    Trunk {
        /// What its packets are sealed with: the suite.
        cipher: Cipher,
        /// Which of the sessions that two hubs have beside each other. Each is a peer of its own, with time stamps of its own: so an
        /// initiation for one must mean nothing to the others.
        lane: u8,
    },
}

impl Protocol {
    /// The protocol that a datagram's first byte belongs to, if it is one of these.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? {
            1..=4 => Some(Self::WireGuard),
            0x11..=0x14 => Some(Self::Trunk),
            _ => None,
        }
    }

    /// What MAC1's key is made from, with the receiver's public key: known before anything else of a message is. WG 5.4.4.
    pub(crate) fn label_mac1(self) -> &'static [u8] {
        match self {
            Self::WireGuard => b"mac1----",
            Self::Trunk => b"Ekiden trunk mac1",
        }
    }

    /// What the key is made from that seals cookies. WG 5.4.7.
    pub(crate) fn label_cookie(self) -> &'static [u8] {
        match self {
            Self::WireGuard => b"cookie--",
            Self::Trunk => b"Ekiden trunk cookie",
        }
    }
}

/// The Noise protocol by which both make their keys. What it seals itself, three pieces of at most 32 bytes, it seals
/// with ChaCha20-Poly1305 in every suite: a faster cipher would win nothing there, and every library of Noise has this one. WG 5.4.
pub(crate) const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

impl Profile {
    /// The protocol that its messages belong to.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::WireGuard => Protocol::WireGuard,
            Self::Trunk { .. } => Protocol::Trunk,
        }
    }

    /// What its sessions seal packets with.
    pub fn cipher(self) -> Cipher {
        match self {
            Self::WireGuard => Cipher::ChaCha20Poly1305,
            Self::Trunk { cipher, .. } => cipher,
        }
    }

    /// Which lane of a trunk; none in WireGuard.
    pub fn lane(self) -> Option<u8> {
        match self {
            Self::WireGuard => None,
            Self::Trunk { lane, .. } => Some(lane),
        }
    }

    /// Who speaks, in which version and suite.
    pub(crate) fn identifier(self) -> &'static [u8] {
        match self {
            Self::WireGuard => b"WireGuard v1 zx2c4 Jason@zx2c4.com",
            Self::Trunk { cipher: Cipher::ChaCha20Poly1305, .. } => b"Ekiden trunk v1 ChaCha20-Poly1305",
            Self::Trunk { cipher: Cipher::Aes256Gcm, .. } => b"Ekiden trunk v1 AES-256-GCM",
        }
    }

    /// The first four bytes of its initiation.
    pub(crate) fn head(self) -> [u8; 4] {
        match self {
            Self::WireGuard => [1, 0, 0, 0],
            Self::Trunk { cipher, lane } => [0x11, suite(cipher), lane, 0],
        }
    }

    /// After so many messages a session is renewed.
    pub(crate) fn rekey_after_messages(self) -> u64 {
        match self.cipher() {
            Cipher::ChaCha20Poly1305 => REKEY_AFTER_MESSAGES,
            Cipher::Aes256Gcm => REKEY_AFTER_MESSAGES_AES,
        }
    }
}

/// From this counter on, no message is sealed or opened under a key of this cipher.
pub(crate) fn reject_after_messages(cipher: Cipher) -> u64 {
    match cipher {
        Cipher::ChaCha20Poly1305 => REJECT_AFTER_MESSAGES,
        Cipher::Aes256Gcm => REJECT_AFTER_MESSAGES_AES,
    }
}

/// The number of a suite in the second byte of an initiation.
pub fn suite(cipher: Cipher) -> u8 {
    match cipher {
        Cipher::ChaCha20Poly1305 => 1,
        Cipher::Aes256Gcm => 2,
    }
}

/// The cipher of the suite with this number, if there is such a suite.
pub fn suite_cipher(number: u8) -> Option<Cipher> {
    [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm].into_iter().find(|cipher| suite(*cipher) == number)
}
