//! Sealing and opening of whole batches, behind one trait, so that the hub can choose its backend by the CPU it finds.
//!
//! A batch mixes keys, ciphers, counters and lengths as it likes: a backend may work through it one by one, or interleave several
//! messages in the lanes of its registers.

mod key;
mod ring;
mod stack;

pub use key::{Cipher, Key, SALT};

/// The bytes that sealing adds, for both ciphers: RFC 8439, 2.8, and NIST SP 800-38D, 5.2.1.2.
pub const TAG: usize = 16;

/// A message to seal.
pub struct SealJob<'a> {
    /// The key to seal with.
    pub key: &'a Key,
    /// The number of the message: one that was never used with this key before.
    pub counter: u64,
    /// What is authenticated and not encrypted.
    pub aad: &'a [u8],
    /// The plaintext and, after it, [`TAG`] bytes of room, whatever they hold.
    pub data: &'a mut [u8],
}

/// A message to open.
pub struct OpenJob<'a> {
    /// The key to open with.
    pub key: &'a Key,
    /// The number of the message.
    pub counter: u64,
    /// What is authenticated and not encrypted.
    pub aad: &'a [u8],
    /// The ciphertext and, after it, the tag.
    pub data: &'a mut [u8],
    /// Set by the backend, whatever it was before: whether the message is what the holder of the key sealed.
    pub verified: bool,
}

/// A way to compute both ciphers.
pub trait Backend: Send + Sync {
    /// As the operator reads it.
    fn name(&self) -> &'static str;

    /// Seals each message in its place: afterwards `data` is the ciphertext and the tag.
    ///
    /// # Panics
    /// If some `data` has no room for the tag.
    fn seal_batch(&self, jobs: &mut [SealJob<'_>]);

    /// Opens each message in its place: if `verified`, all of `data` but its last [`TAG`] bytes, which mean nothing now, is plaintext.
    ///
    /// What isn't verified, for whatever reason (forged, damaged, shorter than a tag), opens nothing: no byte of `data` is plaintext then.
    fn open_batch(&self, jobs: &mut [OpenJob<'_>]);
}

/// The backend on the `ring` library: any CPU, with assembly for the common ones.
pub fn ring() -> &'static dyn Backend {
    &ring::Ring
}

/// The nonce of a message: the key's salt and the counter in little-endian, as WireGuard has it with a salt of zeros.
fn nonce(job_key: &Key, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..SALT].copy_from_slice(&job_key.salt());
    nonce[SALT..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

#[cfg(all(test, not(loom)))]
mod tests;
