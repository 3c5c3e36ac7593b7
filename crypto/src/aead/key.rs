//! Keys as the backends want them, in one place in memory from which they vanish.
#![allow(unsafe_code, reason = "a key lies in a MaybeUninit, which is what lets all its bytes be overwritten")]

use std::fmt;
use std::mem::MaybeUninit;

use zeroize::Zeroize;

use super::library::Library;
use super::stack::leaving_no_trace;
#[cfg(target_arch = "x86_64")]
use crate::gcm;

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

/// As the operator writes it.
impl fmt::Display for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
            Self::Aes256Gcm => "aes-256-gcm",
        })
    }
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
    expanded: Expanded,
    /// The key itself, for the lanes.
    bytes: [u8; 32],
}

/// A key as what computes with it wants it.
#[allow(
    clippy::large_enum_variant,
    reason = "it lies in the one heap block that a key has; and on x86-64 two are as large"
)]
pub(super) enum Expanded {
    Ring(ring::aead::LessSafeKey),
    /// In a heap block of AWS-LC's own, which AWS-LC overwrites when it frees it.
    AwsLc(aws_lc_rs::aead::LessSafeKey),
    /// Of AES-256-GCM.
    #[cfg(target_arch = "x86_64")]
    Own(gcm::Schedule),
}

impl Expanded {
    fn new(library: Library, cipher: Cipher, bytes: &[u8; 32]) -> Self {
        const FITS: &str = "both ciphers take keys of 32 bytes";
        match library {
            #[cfg(target_arch = "x86_64")]
            Library::Own(vaes) if cipher == Cipher::Aes256Gcm => Self::Own(gcm::Schedule::new(vaes, bytes)),
            #[cfg(target_arch = "x86_64")]
            Library::Own(_) => Self::new(Library::Ring, cipher, bytes),
            Library::Ring => {
                use ring::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                let algorithm = match cipher {
                    Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                    Cipher::Aes256Gcm => &AES_256_GCM,
                };
                Self::Ring(LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect(FITS)))
            }
            Library::AwsLc => {
                use aws_lc_rs::aead::{AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, UnboundKey};
                let algorithm = match cipher {
                    Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
                    Cipher::Aes256Gcm => &AES_256_GCM,
                };
                Self::AwsLc(LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect(FITS)))
            }
        }
    }
}

/// The stack that building a key may use: 3.7 KiB measured for AES, and 18.3 when compiled without optimisation.
const EXPAND_DEPTH: usize = 32 * 1024;

impl Key {
    /// A key whose nonces are four zero bytes and the counter. The caller's `bytes` remain the caller's to wipe.
    pub fn new(cipher: Cipher, bytes: &[u8; 32]) -> Self {
        Self::salted(cipher, bytes, [0; SALT])
    }

    /// A key whose nonces are `salt` and the counter, as RFC 4106 has it for IPsec; a salt is no secret.
    pub fn salted(cipher: Cipher, bytes: &[u8; 32], salt: [u8; SALT]) -> Self {
        Self::by(Library::of(cipher), cipher, bytes, salt)
    }

    /// A key that this library will use, whichever this process has chosen.
    pub fn by(library: Library, cipher: Cipher, bytes: &[u8; 32], salt: [u8; SALT]) -> Self {
        let mut material = Box::new(MaybeUninit::uninit());
        leaving_no_trace::<EXPAND_DEPTH>(|| {
            material.write(Material { expanded: Expanded::new(library, cipher, bytes), bytes: *bytes });
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

    pub(super) fn expanded(&self) -> &Expanded {
        &self.material().expanded
    }

    /// Asks for what the lanes read of it.
    #[inline]
    pub(crate) fn foresee(&self) {
        crate::cache::foresee(&self.material().bytes);
    }

    #[cfg(target_arch = "x86_64")]
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.material().bytes
    }

    fn material(&self) -> &Material {
        // SAFETY: `by`, the only constructor, returns after it has written a whole `Material`; nothing but `drop` writes to
        // it afterwards, and `drop` holds the only reference to the key, so that none given out here outlives it.
        unsafe { self.material.assume_init_ref() }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: `by`, the only constructor, has written a whole `Material`, and nothing reads it after this.
        unsafe { self.material.assume_init_drop() };
        self.material.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("cipher", &self.cipher).finish_non_exhaustive()
    }
}
