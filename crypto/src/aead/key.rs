//! Keys as the backends want them, in one place in memory from which they vanish.
#![allow(unsafe_code, reason = "a key lies in a MaybeUninit, which is what lets all its bytes be overwritten")]

use std::fmt;
use std::mem::{MaybeUninit, needs_drop};

use ::ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
use zeroize::Zeroize;

use super::stack::leaving_no_trace;

/// The bytes of a nonce that belong to the key; the other eight are the counter.
pub const SALT: usize = 4;

/// A cipher with a key of 256 bits, a nonce of 96 and a tag of 128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// RFC 8439: that of WireGuard.
    ChaCha20Poly1305,
    /// NIST SP 800-38D: that of trunks between CPUs with AES instructions.
    Aes256Gcm,
}

/// A key, expanded for use. It is overwritten with zeros when it is dropped, and moving it moves no key bytes.
pub struct Key {
    cipher: Cipher,
    salt: [u8; SALT],
    /// Initialised from the constructor until the overwriting in `drop`.
    material: Box<MaybeUninit<Material>>,
}

/// What the backends take from a key; whatever one of them comes to need besides belongs here, and is wiped with the rest.
struct Material {
    ring: LessSafeKey,
    /// The key itself, for the lanes.
    bytes: [u8; 32],
}

// Nothing in it owns anything: overwriting it is all there is to dropping it.
const _: () = assert!(!needs_drop::<Material>());

/// The stack that building a key may use: 3.7 KiB measured for AES, and 18.3 when compiled without optimisation.
const EXPAND_DEPTH: usize = 32 * 1024;

impl Key {
    /// A key whose nonces are four zero bytes and the counter. The caller's `bytes` remain the caller's to wipe.
    pub fn new(cipher: Cipher, bytes: &[u8; 32]) -> Self {
        Self::salted(cipher, bytes, [0; SALT])
    }

    /// A key whose nonces are `salt` and the counter, as RFC 4106 has it for IPsec; a salt is no secret.
    pub fn salted(cipher: Cipher, bytes: &[u8; 32], salt: [u8; SALT]) -> Self {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            Cipher::Aes256Gcm => &AES_256_GCM,
        };
        let mut material = Box::new(MaybeUninit::uninit());
        leaving_no_trace::<EXPAND_DEPTH>(|| {
            let key = UnboundKey::new(algorithm, bytes).expect("both ciphers take keys of 32 bytes");
            material.write(Material { ring: LessSafeKey::new(key), bytes: *bytes });
        });
        Self { cipher, salt, material }
    }

    /// The cipher that the key is for.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    pub(super) fn salt(&self) -> [u8; SALT] {
        self.salt
    }

    pub(super) fn ring(&self) -> &LessSafeKey {
        &self.material().ring
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.material().bytes
    }

    fn material(&self) -> &Material {
        // SAFETY: `salted`, the only constructor, returns after it has written a whole `Material`; nothing but `drop` writes to
        // it afterwards, and `drop` holds the only reference to the key, so that none given out here outlives it.
        unsafe { self.material.assume_init_ref() }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.material.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}
