//! The backend that takes messages one by one, each by the code that its key was expanded for.

use super::key::Expanded;
use super::stack::leaving_no_trace;
use super::{Backend, OpenJob, SealJob, TAG, nonce};
#[cfg(target_arch = "x86_64")]
use crate::gcm;

pub(crate) struct Single;

/// The stack that a library works on: 1.2 KiB measured of ring, whose ChaCha20-Poly1305 leaves half of the key there; 2.6 of AWS-LC. The
/// frames of our own code are 1.7.
const DEPTH: usize = 3072;

impl Backend for Single {
    fn name(&self) -> &'static str {
        "one by one"
    }

    fn seal_batch(&self, jobs: &mut [SealJob<'_>]) {
        seal_each(jobs.iter_mut());
    }

    fn open_batch(&self, jobs: &mut [OpenJob<'_>]) {
        open_each(jobs.iter_mut());
    }
}

pub(crate) fn seal_each<'j, 'd: 'j>(jobs: impl Iterator<Item = &'j mut SealJob<'d>>) {
    leaving_no_trace::<DEPTH>(|| jobs.for_each(seal));
}

pub(crate) fn open_each<'j, 'd: 'j>(jobs: impl Iterator<Item = &'j mut OpenJob<'d>>) {
    leaving_no_trace::<DEPTH>(|| jobs.for_each(open));
}

fn seal(job: &mut SealJob<'_>) {
    const SHORT: &str = "a message is far shorter than the 64 GiB that a nonce is good for";
    let nonce = nonce(job.key, job.counter);
    let room = job.data.len().checked_sub(TAG).expect("data to seal has room for its tag");
    let (text, tag) = job.data.split_at_mut(room);
    match job.key.expanded() {
        Expanded::Ring(key) => {
            use ring::aead::{Aad, Nonce};
            let nonce = Nonce::assume_unique_for_key(nonce);
            let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(job.aad), text);
            tag.copy_from_slice(sealed.expect(SHORT).as_ref());
        }
        Expanded::AwsLc(key) => {
            use aws_lc_rs::aead::{Aad, Nonce};
            let nonce = Nonce::assume_unique_for_key(nonce);
            let sealed = key.seal_in_place_separate_tag(nonce, Aad::from(job.aad), text);
            tag.copy_from_slice(sealed.expect(SHORT).as_ref());
        }
        #[cfg(target_arch = "x86_64")]
        Expanded::Own(key) => gcm::seal(key, nonce, job.aad, job.data),
    }
}

fn open(job: &mut OpenJob<'_>) {
    let nonce = nonce(job.key, job.counter);
    // A tag that doesn't verify makes each of them overwrite what it has decrypted with zeros.
    job.verified = match job.key.expanded() {
        Expanded::Ring(key) => {
            use ring::aead::{Aad, Nonce};
            key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(job.aad), job.data).is_ok()
        }
        Expanded::AwsLc(key) => {
            use aws_lc_rs::aead::{Aad, Nonce};
            key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(job.aad), job.data).is_ok()
        }
        #[cfg(target_arch = "x86_64")]
        Expanded::Own(key) => gcm::open(key, nonce, job.aad, job.data),
    };
}
