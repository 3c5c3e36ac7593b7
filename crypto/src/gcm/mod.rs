//! AES-256-GCM of our own (NIST SP 800-38D), for CPUs whose vectors of 512 bits have AES rounds and carry-less products: four blocks an
//! instruction.
//!
//! Messages come one by one. Nothing in here branches on what a message holds, so that the CPU has begun the next while it ends the last;
//! that is the whole interleaving. A library spends on a call what here a packet of 256 bytes takes.
//!
//! Lengths are no secrets: branches and addresses depend on nothing else, and on whether a tag is right.

mod avx512;

use crate::aead::TAG;
use crate::lanes::verdict;
pub(crate) use avx512::Schedule;

/// The instructions, and the proof that this CPU has them: a value comes from [`found`](Self::found) alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Vaes(());

impl Vaes {
    /// If this CPU has them.
    pub fn found() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("vpclmulqdq");
        found.then_some(Self(()))
    }
}

/// The longest text: SP 800-38D, 5.2.1.1. So the counter of blocks, which begins at 2 and is 32 bits wide, never comes back to the first,
/// whose block hides the tag.
const MAX_TEXT: u64 = (1 << 36) - 32;

/// Seals a text in its place, and puts its tag behind it.
pub(crate) fn seal(key: &Schedule, nonce: [u8; 12], aad: &[u8], data: &mut [u8]) {
    let room = data.len().checked_sub(TAG).expect("data to seal has room for its tag");
    let (text, tag) = data.split_at_mut(room);
    assert!(text.len() as u64 <= MAX_TEXT, "a message is far shorter than the 64 GiB that a nonce is good for");
    tag.copy_from_slice(&key.apply::<true>(nonce, aad, text).to_le_bytes());
}

/// Opens a text in its place, if the tag behind it is right; if not, zeros are what is left of the text.
pub(crate) fn open(key: &Schedule, nonce: [u8; 12], aad: &[u8], data: &mut [u8]) -> bool {
    let Some((text, tag)) = data.split_last_chunk_mut().filter(|(text, _)| text.len() as u64 <= MAX_TEXT) else {
        return false;
    };
    let verified = verdict(key.apply::<false>(nonce, aad, text) ^ u128::from_le_bytes(*tag));
    if !verified {
        text.fill(0);
    }
    verified
}

#[cfg(all(test, not(loom)))]
mod tests;
