//! Everything cryptographic of the hub, and nothing else: AEAD backends, the replay window, sessions, and the handshake, as WireGuard
//! has it for sites, and with a suite of ciphers for trunks.
//!
//! No I/O, no clock, no source of randomness and no tenants: time, random bytes and messages come in as arguments, actions go out.
//! What a caller owns is known here by an opaque `u32`.

pub mod aead;
mod atomic;
pub mod cache;
pub mod constants;
pub mod cookie;
mod error;
#[cfg(target_arch = "x86_64")]
mod gcm;
mod identity;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub mod message;
mod noise;
mod nonces;
pub mod peer;
mod profile;
pub mod replay;
mod session;
mod tai64n;
mod time;

#[cfg(all(test, loom))]
mod loom_model;

pub use error::HandshakeError;
pub use identity::{Identity, NotAKey, PublicKey};
pub use noise::{OpenedInitiation, open_initiation, open_trunk_initiation};
pub use peer::{Action, Activity, Context, Heard, Peer};
pub use profile::{Profile, Protocol, suite, suite_cipher};
pub use session::{Role, Session};
pub use tai64n::{SystemTimeParts, Tai64n};
pub use time::Time;
