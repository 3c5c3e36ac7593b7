//! The numbers: first those that the protocol fixes, each with its source, then those that are ours to choose, each with its reason.

use std::time::Duration;

// ---- Fixed by the protocol. "WG" is Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", NDSS 2017, as revised 2020. ----

/// After so many messages under one session, a new handshake is begun. WG 6.1.
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// A session seals no message with this counter or above. WG 6.1.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The same of a session under AES-256-GCM. With 2^28 packets of up to 2^7 blocks (2 KiB) an attacker's advantage in telling what is
/// sealed from noise stays at 2 (2^28 2^7)^2 / 2^128 = 2^-57: the bound to which TLS 1.3 and QUIC keep (RFC 8446, 5.5; RFC 9001, B.1.1).
/// NIST's own bound of 2^32 calls of the cipher (SP 800-38D, 8.3) is for nonces drawn at random, which these are not.
pub const REKEY_AFTER_MESSAGES_AES: u64 = 1 << 28;

/// No message under AES-256-GCM is sealed or opened with this counter or above: twice [`REKEY_AFTER_MESSAGES_AES`], since the next session
/// takes a round trip, and every try that is lost 5 s: 18 s at the 14.88 million packets a second that fill 10 Gbit/s. 2^29 packets of
/// 2 KiB stand for 2^-55, and of 9000 bytes for 2^-50.
pub const REJECT_AFTER_MESSAGES_AES: u64 = 1 << 29;

/// A session of this age is replaced by the side that initiated it, when there is something to send. WG 6.1 and 6.2.
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);

/// A session of this age neither seals nor opens anything. WG 6.1.
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// A handshake that has been tried for so long is given up. WG 6.1 and 6.4.
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);

/// A handshake without an answer is tried again after this time, and never sooner. WG 6.1 and 6.4.
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);

/// At random up to so much is added to [`REKEY_TIMEOUT`], so that two peers who began at once don't do so again. WG 6.1 names it; the
/// figure is the Linux kernel's.
pub const REKEY_JITTER_MAX: Duration = Duration::from_millis(333);

/// Data that got no data back for so long is answered with an empty packet. WG 6.1 and 6.5.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Data that got no answer at all for so long begins a new handshake. WG 6.5.
pub const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());

/// A session of this age is replaced by the side that initiated it, when something is received: later it could not be in time. WG 6.2.
pub const REKEY_ON_RECEIVE_TIME: Duration =
    Duration::from_secs(REJECT_AFTER_TIME.as_secs() - UNANSWERED_TIMEOUT.as_secs());

/// A peer's initiations are taken no faster than one in this time. WG 5.3 wants a limit; 50 a second is the Linux kernel's.
pub const INITIATION_INTERVAL: Duration = Duration::from_millis(20);

/// The secret behind cookies is replaced after this time, and a cookie is as good for as long. WG 5.3 and 5.4.7.
pub const COOKIE_LIFETIME: Duration = Duration::from_secs(120);

/// So long before its end a cookie is no longer used, since what carries it takes time to arrive. The Linux kernel's figure.
pub const COOKIE_LATENCY: Duration = Duration::from_secs(5);

/// Inner packets are padded with zeros to a multiple of this many bytes. WG 5.4.6.
pub const PADDING: usize = 16;

// ---- Ours to choose. ----

/// How far below the highest counter accepted a message may lie: the width of the window in the Linux kernel, so that a path which
/// reorders is treated alike by both ends (8192 flags less one word of 64).
pub const REPLAY_WIDTH: u64 = 8192 - 64;

/// How many workers a hub may have.
pub const WORKERS_MAX: u64 = 64;

/// How many counters one call may reserve: the largest batch of a worker.
pub const RESERVE_MAX: u64 = 64;

/// How many counters of one session may be reserved by all workers together and not yet be in a ring: some peers' replay windows are
/// only 1024 wide, and whatever is sent this late must still fall into them, with as much again left for the path to reorder.
pub const UNSENT_MAX: u64 = 512;

const _: () = assert!(RESERVE_MAX <= UNSENT_MAX);
const _: () = assert!(REJECT_AFTER_MESSAGES_AES < REJECT_AFTER_MESSAGES);
