//! ChaCha20-Poly1305 of many messages at once, in the lanes of vector registers.
//!
//! A message of 64 bytes costs an implementation that takes one at a time mostly its fixed part. Here the blocks of ChaCha20 of all
//! messages of a batch are one flat list ([`chacha`]), of which each lane takes one, with a key, nonce and counter of its own; then each
//! lane computes the Poly1305 of a message ([`poly`]). What is not worth it goes to a library, one at a time ([`plan`]).
//!
//! Lengths are no secrets: branches and addresses depend on nothing else, and on whether a tag is right.

mod avx2;
mod avx512;
mod chacha;
mod cpu;
mod measure;
mod plan;
mod poly;

use std::hint::black_box;
use std::sync::OnceLock;

use crate::aead::single::{self, Single};
use crate::aead::{Backend, Cipher, Key, Library, OpenJob, SealJob, TAG, leaving_no_trace, nonce};
use chacha::{BLOCK, Flow, MAX_LANES};
use cpu::Cpu;
use plan::{BATCH, Costs, Plan, Shape};
use poly::Mac;

/// The backend.
pub(crate) struct Lanes {
    cpu: Cpu,
    seal: Costs,
    open: Costs,
}

/// The stack that a batch may use for what it hands to nobody; compiled without optimisation it is more.
const DEPTH: usize = if cfg!(debug_assertions) { 16 * 1024 } else { 4096 };

/// Key stream and keys made of it, and the tags that belong to what was sent here. Overwritten when the batch is done.
struct Secrets {
    mac_keys: [[u8; 32]; BATCH],
    tags: [[u8; TAG]; BATCH],
    /// Blocks made before they were needed.
    ahead: [[u8; BLOCK]; MAX_LANES],
}

impl Secrets {
    const fn new() -> Self {
        Self { mac_keys: [[0; 32]; BATCH], tags: [[0; TAG]; BATCH], ahead: [[0; BLOCK]; MAX_LANES] }
    }

    /// Overwrites what so many messages have used.
    fn wipe(&mut self, messages: usize) {
        self.mac_keys[..messages].fill([0; 32]);
        self.tags[..messages].fill([0; TAG]);
        self.ahead.fill([0; BLOCK]);
        black_box(self); // somebody might look at it, as far as the compiler knows: so it is really written
    }
}

impl Lanes {
    /// The best that this CPU has, with what everything takes measured; `None` where one by one is never slower.
    pub(crate) fn choose() -> Option<Self> {
        let best = all().last()?.measured();
        (best.seal.pay() || best.open.pay()).then_some(best)
    }

    fn measured(&self) -> Self {
        let (seal, open) = measure::both(self);
        Self { cpu: self.cpu, seal, open }
    }

    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        let shapes = jobs.iter().map(|job| {
            let text = job.data.len().checked_sub(TAG).expect("data to seal has room for its tag");
            shape(job.key, job.aad.len(), text)
        });
        let plan = Plan::new(self.cpu, &self.seal, shapes);
        if plan.order().is_empty() {
            return Single.seal_batch(jobs);
        }
        let mut secrets = Secrets::new();
        leaving_no_trace::<DEPTH>(|| self.seal_planned(jobs, &plan, &mut secrets));
        secrets.wipe(jobs.len());
        if plan.order().len() < jobs.len() {
            single::seal_each(jobs.iter_mut().enumerate().filter(|(n, _)| !plan.has(*n)).map(|(_, job)| job));
        }
    }

    fn seal_planned(&self, jobs: &mut [SealJob<'_>], plan: &Plan, secrets: &mut Secrets) {
        // 1. All blocks: of each message that of its Poly1305 key, and those of its text.
        let mut flow = Flow::new(self.cpu);
        for (n, (job, mac_key)) in jobs.iter_mut().zip(&mut secrets.mac_keys).enumerate() {
            if plan.has(n) {
                let (key, nonce) = (job.key.bytes(), nonce(job.key, job.counter));
                flow.block(key, nonce, 0, mac_key);
                flow.text(key, nonce, 1, text_mut(job.data));
            }
        }
        flow.finish();
        // 2. The tags.
        let Secrets { mac_keys, tags, .. } = secrets;
        self.tags(plan, |n| Mac { key: &mac_keys[n], aad: jobs[n].aad, text: text(jobs[n].data) }, tags);
        for (n, tag) in plan.order().iter().zip(tags) {
            *jobs[usize::from(*n)].data.last_chunk_mut().expect("has room for its tag") = *tag;
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        let shapes = jobs.iter().map(|job| shape(job.key, job.aad.len(), job.data.len().checked_sub(TAG)?));
        let plan = Plan::new(self.cpu, &self.open, shapes);
        if plan.order().is_empty() {
            return Single.open_batch(jobs);
        }
        let mut secrets = Secrets::new();
        leaving_no_trace::<DEPTH>(|| self.open_planned(jobs, &plan, &mut secrets));
        secrets.wipe(jobs.len());
        if plan.order().len() < jobs.len() {
            single::open_each(jobs.iter_mut().enumerate().filter(|(n, _)| !plan.has(*n)).map(|(_, job)| job));
        }
    }

    fn open_planned(&self, jobs: &mut [OpenJob<'_>], plan: &Plan, secrets: &mut Secrets) {
        // 1. The Poly1305 keys; and in lanes that would idle, key stream of the first texts.
        let mut flow = Flow::new(self.cpu);
        for (n, (job, mac_key)) in jobs.iter().zip(&mut secrets.mac_keys).enumerate() {
            if plan.has(n) {
                flow.block(job.key.bytes(), nonce(job.key, job.counter), 0, mac_key);
            }
        }
        let idle = flow.idle();
        let planned = jobs.iter().enumerate().filter(|(n, _)| plan.has(*n)).map(|(_, job)| job);
        let blocks = planned.flat_map(|job| (1..=text(job.data).len().div_ceil(BLOCK)).map(move |block| (job, block)));
        for ((job, block), stream) in blocks.zip(&mut secrets.ahead[..idle]) {
            flow.block(job.key.bytes(), nonce(job.key, job.counter), block, stream);
        }
        flow.finish();
        // 2. The tags, and whether they are right: before anything is decrypted.
        let Secrets { mac_keys, tags, .. } = secrets;
        self.tags(plan, |n| Mac { key: &mac_keys[n], aad: jobs[n].aad, text: text(jobs[n].data) }, tags);
        for (n, tag) in plan.order().iter().zip(tags) {
            let job = &mut jobs[usize::from(*n)];
            let found = job.data.last_chunk().expect("is at least a tag");
            job.verified = verdict(u128::from_ne_bytes(*found) ^ u128::from_ne_bytes(*tag));
        }
        // 3. The texts of those that are.
        let mut ahead = secrets.ahead[..idle].iter();
        let mut flow = Flow::new(self.cpu);
        for (_, job) in jobs.iter_mut().enumerate().filter(|(n, _)| plan.has(*n)) {
            let (mut text, mut block) = (text_mut(job.data), 1);
            while !text.is_empty()
                && let Some(stream) = ahead.next()
            {
                let (first, rest) = text.split_at_mut(text.len().min(BLOCK));
                if job.verified {
                    first.iter_mut().zip(stream).for_each(|(byte, stream)| *byte ^= stream);
                }
                (text, block) = (rest, block + 1);
            }
            if job.verified {
                flow.text(job.key.bytes(), nonce(job.key, job.counter), block, text);
            }
        }
        flow.finish();
    }

    /// The tags of those that are planned, in the order of the plan.
    fn tags<'a>(&self, plan: &Plan, mac: impl Fn(usize) -> Mac<'a>, tags: &mut [[u8; TAG]; BATCH]) {
        let lanes = self.cpu.mac_lanes();
        for (order, tags) in plan.order().chunks(lanes).zip(tags.chunks_mut(lanes)) {
            self.cpu.tags(order, &mac, &mut tags[..order.len()]);
        }
    }
}

/// All kinds of lanes that this CPU has, the best last, into which everything goes that can.
pub(crate) fn all() -> &'static [Lanes] {
    static ALL: OnceLock<Vec<Lanes>> = OnceLock::new();
    ALL.get_or_init(|| Cpu::all().map(|cpu| Lanes { cpu, seal: Costs::NONE, open: Costs::NONE }).collect())
}

/// The same, each with what everything takes measured.
pub(crate) fn measured() -> &'static [Lanes] {
    static MEASURED: OnceLock<Vec<Lanes>> = OnceLock::new();
    MEASURED.get_or_init(|| all().iter().map(Lanes::measured).collect())
}

/// That of a message that lanes can take.
fn shape(key: &Key, aad: usize, text: usize) -> Option<Shape> {
    (key.cipher() == Cipher::ChaCha20Poly1305).then(|| Shape::new(aad, text))
}

fn text(data: &[u8]) -> &[u8] {
    &data[..data.len() - TAG]
}

fn text_mut(data: &mut [u8]) -> &mut [u8] {
    let len = data.len() - TAG;
    &mut data[..len]
}

/// Whether a tag is right: the one thing that anyone may learn from a secret.
///
/// Alone in a function, so that the test under valgrind can name the place.
#[inline(never)]
pub(crate) fn verdict(difference: u128) -> bool {
    let difference = difference as u64 | (difference >> 64) as u64;
    // A negative number if anything differs.
    let wrong = (difference | difference.wrapping_neg()) >> 63;
    black_box([true, false])[wrong as usize]
}

impl Backend for Lanes {
    fn name(&self) -> &'static str {
        self.cpu.name()
    }

    fn thresholds(&self) -> Option<String> {
        let [seal, open] = [&self.seal, &self.open].map(|costs| costs.thresholds(self.cpu));
        let library = Library::of(Cipher::ChaCha20Poly1305).name();
        Some(format!("seal from {seal}; open from {open}; else {library}"))
    }

    fn seal_batch(&self, jobs: &mut [SealJob<'_>]) {
        if jobs.len() < self.seal.smallest {
            return Single.seal_batch(jobs);
        }
        for jobs in jobs.chunks_mut(BATCH) {
            if self.seal.may_pay(jobs.len(), jobs.iter().map(|job| job.data.len().saturating_sub(TAG))) {
                self.seal(jobs);
            } else {
                Single.seal_batch(jobs);
            }
        }
    }

    fn open_batch(&self, jobs: &mut [OpenJob<'_>]) {
        if jobs.len() < self.open.smallest {
            return Single.open_batch(jobs);
        }
        for jobs in jobs.chunks_mut(BATCH) {
            if self.open.may_pay(jobs.len(), jobs.iter().map(|job| job.data.len().saturating_sub(TAG))) {
                self.open(jobs);
            } else {
                Single.open_batch(jobs);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
