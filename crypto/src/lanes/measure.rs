//! What sealing and opening take on this machine, when the backend is chosen.

use std::time::Instant;

use super::chacha::BLOCK;
use super::plan::{BATCH, Costs, SINGLE, Ticks};
use super::{Lanes, Single};
use crate::aead::{Backend, Cipher, Key, OpenJob, SealJob, TAG};

/// The costs of sealing, and of opening, against lanes into which everything goes.
pub(super) fn both(lanes: &Lanes) -> (Costs, Costs) {
    let keys: Vec<_> = (0..BATCH).map(|n| Key::new(Cipher::ChaCha20Poly1305, &[n as u8; 32])).collect();
    let mut texts = vec![vec![0; SINGLE * BLOCK + TAG]; BATCH];
    let backend = |in_lanes: bool| if in_lanes { lanes as &dyn Backend } else { &Single };
    // Reading the clock takes a good part of what a short message does.
    let clock = (0..1000).map(|_| time(|| ())).min().unwrap_or(0);
    let time = |work: &mut dyn FnMut()| time(work).saturating_sub(clock);
    let seal = Costs::measure(lanes.cpu, |in_lanes, count, len| {
        let mut jobs: Vec<_> = seal_jobs(&keys, &mut texts, len).take(count).collect();
        time(&mut || backend(in_lanes).seal_batch(&mut jobs))
    });
    let open = Costs::measure(lanes.cpu, |in_lanes, count, len| {
        lanes.seal_batch(&mut seal_jobs(&keys, &mut texts, len).take(count).collect::<Vec<_>>());
        let job = |(key, data)| OpenJob {
            key,
            counter: 0,
            aad: &[],
            data: &mut Vec::as_mut_slice(data)[..len + TAG],
            verified: false,
        };
        let mut jobs: Vec<_> = keys.iter().zip(&mut texts).map(job).take(count).collect();
        time(&mut || backend(in_lanes).open_batch(&mut jobs))
    });
    (seal, open)
}

fn seal_jobs<'a>(keys: &'a [Key], texts: &'a mut [Vec<u8>], len: usize) -> impl Iterator<Item = SealJob<'a>> {
    keys.iter().zip(texts).map(move |(key, data)| SealJob { key, counter: 0, aad: &[], data: &mut data[..len + TAG] })
}

fn time(work: impl FnOnce()) -> Ticks {
    let start = Instant::now();
    work();
    Ticks::try_from(start.elapsed().as_nanos() * 16).unwrap_or(Ticks::MAX)
}
