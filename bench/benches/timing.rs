//! Whether the time of lanes depends on secrets, by statistics: for the CPUs whose instructions valgrind does not know.
//!
//! `cargo bench -p ekiden-bench --bench timing`. Batches under one key of zeros, with texts of zeros, take turns by chance with batches under
//! random keys with random texts (as Reparaz, Balasch and Verbauwhede do it: "Dude, is my code constant time?", 2017). Of the times of
//! both, the slowest are cut off at several marks, since what else the machine does only ever makes slower; then Welch's t. A difference
//! shows as a |t| that grows with the number of measurements; below 4.5 there is none to be seen.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use arrayvec::ArrayVec;
use crypto::aead::{self, Backend, Cipher, Key, OpenJob, SealJob, TAG};
use dataplane::packet::BATCH;
use ekiden_bench::measured;

/// Batches of each kind.
const SAMPLES: usize = 200_000;
/// Of all times, sorted, the share that is looked at.
const MARKS: [f64; 4] = [0.5, 0.75, 0.9, 1.0];
const LENGTHS: [usize; 3] = [64, 256, 1424];

fn main() {
    println!(
        "|t| of {SAMPLES} batches of 32 of each kind; with the slowest cut off; the last: a control whose time does depend\n"
    );
    println!("| | B | {} |", MARKS.map(|mark| format!("{:.0} %", 100.0 * mark)).join(" | "));
    println!("|---|---|{}", "---|".repeat(MARKS.len()));
    for backend in aead::lanes().iter().copied() {
        for len in LENGTHS {
            let [seal, open] = compare(backend, len, false);
            println!("| {} seals | {len} | {seal} |\n| {} opens | {len} | {open} |", backend.name(), backend.name());
        }
    }
    let [_, control] = compare(aead::lanes().last().copied().unwrap_or(aead::single()), 64, true);
    println!("| one forged of 32, in one kind alone | 64 | {control} |");
}

/// xorshift64: which kind is next, and what its secrets are.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The |t| of sealing and of opening, at each mark.
fn compare(backend: &'static dyn Backend, len: usize, forge: bool) -> [String; 2] {
    let mut random = 0x9e37_79b9_7f4a_7c15;
    let mut times: [[Vec<u64>; 2]; 2] = Default::default();
    let mut packets = vec![vec![0; len + TAG]; BATCH / 2];
    for counter in 0..2 * SAMPLES as u64 {
        let kind = (next(&mut random) >> 40 & 1) as usize;
        let mut keys = ArrayVec::<Key, BATCH>::new();
        for packet in &mut packets {
            let mut secret = [0; 32];
            packet.fill(0);
            // Both kinds draw as many numbers, and write as many bytes.
            for bytes in secret.chunks_exact_mut(8).chain(packet.chunks_mut(8)) {
                let drawn = next(&mut random) * kind as u64;
                bytes.copy_from_slice(&drawn.to_le_bytes()[..bytes.len()]);
            }
            keys.push(Key::new(Cipher::ChaCha20Poly1305, &secret));
        }
        let mut jobs = ArrayVec::<SealJob<'_>, BATCH>::new();
        jobs.extend(keys.iter().zip(&mut packets).map(|(key, data)| SealJob { key, counter, aad: &[], data }));
        let seal = measured(|| backend.seal_batch(&mut jobs)).cycles;
        drop(jobs);
        packets[7][3] ^= u8::from(forge && kind == 1);
        let mut jobs = ArrayVec::<OpenJob<'_>, BATCH>::new();
        let job = |(key, data)| OpenJob { key, counter, aad: &[], data, verified: false };
        jobs.extend(keys.iter().zip(packets.iter_mut().map(Vec::as_mut_slice)).map(job));
        let open = measured(|| backend.open_batch(&mut jobs)).cycles;
        times[0][kind].push(seal);
        times[1][kind].push(open);
    }
    times.map(|kinds| MARKS.map(|mark| format!("{:.1}", welch(&kinds, mark).abs())).join(" | "))
}

/// Welch's t of what of both is below the mark of all.
fn welch(kinds: &[Vec<u64>; 2], mark: f64) -> f64 {
    let mut all: Vec<u64> = kinds.iter().flatten().copied().collect();
    all.sort_unstable();
    let most = all[((all.len() - 1) as f64 * mark) as usize];
    let [a, b] = [0, 1].map(|kind| {
        let times: Vec<f64> = kinds[kind].iter().filter(|time| **time <= most).map(|time| *time as f64).collect();
        let (n, mean) = (times.len() as f64, times.iter().sum::<f64>() / times.len() as f64);
        (mean, times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
    });
    (a.0 - b.0) / (a.1 + b.1).sqrt()
}
