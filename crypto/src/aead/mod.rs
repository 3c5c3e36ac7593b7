//! Sealing and opening of whole batches, behind one trait, so that the hub can choose its backend by the CPU it finds.
//!
//! A batch mixes keys, ciphers, counters and lengths as it likes: a backend may work through it one by one, or interleave several
//! messages in the lanes of its registers.

mod key;
mod library;
pub(crate) mod single;
mod stack;

pub use key::{Cipher, Key, SALT};
pub use library::{Library, Wish};
#[cfg(target_arch = "x86_64")]
pub(crate) use stack::leaving_no_trace;

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

    /// What decides how it does a batch, as the operator reads it, if anything does.
    fn thresholds(&self) -> Option<String> {
        None
    }

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

/// The backend that takes messages one by one, each by the library that its key was made for: any CPU.
pub fn single() -> &'static dyn Backend {
    &single::Single
}

/// The fastest for this CPU, unless the operator wants something else: found once, in some milliseconds, by what it takes. What keys are
/// made from here on is for the libraries that were chosen. The first wish of a process counts for all.
pub fn choose(wish: &Wish) -> &'static dyn Backend {
    library::settle(wish);
    #[cfg(target_arch = "x86_64")]
    {
        use crate::lanes::Lanes;
        use std::sync::OnceLock;
        static CHOSEN: OnceLock<Option<Lanes>> = OnceLock::new();
        let wanted = || if wish.chacha20_poly1305.is_none() { Lanes::choose() } else { None };
        if let Some(lanes) = CHOSEN.get_or_init(wanted) {
            return lanes;
        }
    }
    single()
}

/// The nonce of a message: the key's salt and the counter in little-endian, as WireGuard has it with a salt of zeros.
pub(crate) fn nonce(job_key: &Key, counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[..SALT].copy_from_slice(&job_key.salt());
    nonce[SALT..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// The lanes that this CPU has, the best last, each with the thresholds that it would have if it were chosen: for tests and benches.
#[doc(hidden)]
pub fn measured_lanes() -> Vec<&'static dyn Backend> {
    #[cfg(target_arch = "x86_64")]
    return crate::lanes::measured().iter().map(|lanes| lanes as &dyn Backend).collect();
    #[cfg(not(target_arch = "x86_64"))]
    return Vec::new();
}

/// The lanes that this CPU has, the best last, as they are without thresholds: for tests and benches.
#[doc(hidden)]
pub fn lanes() -> Vec<&'static dyn Backend> {
    #[cfg(target_arch = "x86_64")]
    return crate::lanes::all().iter().map(|lanes| lanes as &dyn Backend).collect();
    #[cfg(not(target_arch = "x86_64"))]
    return Vec::new();
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests;
