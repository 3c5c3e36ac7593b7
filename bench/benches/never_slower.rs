//! Lanes with their thresholds against ring one at a time: at every batch size, over all lengths of packets, and at mixes.
//!
//! `cargo bench -p ekiden-bench --bench never_slower`. A gain is the least cycles of ring by the least of the lanes, of many rounds in
//! which they take turns; of sealing and opening the lower one counts. What comes out below 1 by more than noise is measured again, much
//! longer. As a measure of that noise, ring is held against itself in the same way.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use crypto::aead::{self, Backend};
use dataplane::packet::BATCH;
use ekiden_bench::{Messages, imix};

/// Every 50 bytes, and where blocks begin and end.
const EDGES: [usize; 10] = [16, 63, 64, 65, 128, 192, 256, 257, 512, 1424];
/// The columns of the table.
const SHOWN: [usize; 17] = [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 17, 24, 32, 33, 48, 64];
const MIXES: usize = 300;
/// What is below this is slower, unless measuring again shows that it isn't.
const NOISE: f64 = 0.98;

fn main() {
    for lanes in aead::measured_lanes().into_iter().chain([aead::single()]) {
        println!("## {}: {}\n", lanes.name(), lanes.thresholds().unwrap_or_default());
        lengths(lanes);
        mixes(lanes);
    }
}

/// All of one length.
fn lengths(lanes: &'static dyn Backend) {
    let mut lengths: Vec<usize> = (0..=1500).step_by(50).chain(EDGES).collect();
    lengths.sort_unstable();
    lengths.dedup();
    let mut found = Found::default();
    println!("| B \\ N | {} |", SHOWN.map(|n| n.to_string()).join(" | "));
    println!("|---|{}", "---|".repeat(SHOWN.len()));
    for len in lengths {
        let mut cells = Vec::new();
        for count in 1..=BATCH {
            let gain = found.add(lanes, &vec![len; count], || format!("{count} of {len} B"));
            if SHOWN.contains(&count) {
                cells.push(format!("{gain:.2}"));
            }
        }
        println!("| {len} | {} |", cells.join(" | "));
    }
    found.print("one length");
}

/// The simple Internet mix, large among small ones, and any lengths, at all batch sizes.
fn mixes(lanes: &'static dyn Backend) {
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut found = Found::default();
    for count in 1..=BATCH {
        found.add(lanes, &imix().cycle().take(count).collect::<Vec<_>>(), || format!("{count} of IMIX"));
    }
    found.print("IMIX");
    let mut found = Found::default();
    for _ in 0..MIXES {
        let (count, large) = (1 + random(BATCH), 1 + random(8));
        let mix: Vec<_> = (0..count).map(|_| if random(8) < large { 1424 } else { 64 }).collect();
        found.add(lanes, &mix, || format!("{mix:?}"));
    }
    found.print("64 B and 1424 B");
    let mut found = Found::default();
    for _ in 0..MIXES {
        let mix: Vec<_> = (0..1 + random(BATCH)).map(|_| random(1501)).collect();
        found.add(lanes, &mix, || format!("{mix:?}"));
    }
    found.print("random lengths");
}

/// The gains of a kind of batches.
#[derive(Default)]
struct Found {
    sum: f64,
    all: usize,
    /// Those that were slower: gain, and which.
    slower: Vec<(f64, String)>,
    least: Option<(f64, String)>,
}

impl Found {
    fn add(&mut self, lanes: &'static dyn Backend, lengths: &[usize], name: impl Fn() -> String) -> f64 {
        let mut messages = Messages::new(lengths.iter().copied());
        // As many packets for each: what is short is disturbed less often, and needs more rounds to be as exact.
        let rounds = 40 + 1500 / lengths.len();
        let mut gain = gain(&mut messages, lanes, rounds);
        if gain < NOISE {
            gain = gain.max(self::gain(&mut messages, lanes, 10 * rounds));
        }
        self.sum += gain;
        self.all += 1;
        if gain < NOISE {
            self.slower.push((gain, name()));
        }
        if self.least.as_ref().is_none_or(|(least, _)| gain < *least) {
            self.least = Some((gain, name()));
        }
        gain
    }

    fn print(mut self, kind: &str) {
        let Self { sum, all, slower, least } = &mut self;
        let Some((least, at)) = least else { return };
        println!(
            "\n{kind}: {all} batches, mean gain {:.2}, least {least:.2} ({at}), slower: {}",
            *sum / *all as f64,
            slower.len()
        );
        slower.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (gain, at) in slower.iter().take(10) {
            println!("  {gain:.2} {at}");
        }
    }
}

/// The lower gain of sealing and opening.
fn gain(messages: &mut Messages, lanes: &'static dyn Backend, rounds: usize) -> f64 {
    let backends = [aead::single(), lanes];
    let mut least = [[u64::MAX; 2]; 2];
    for _ in 0..rounds {
        for (backend, least) in backends.iter().zip(&mut least) {
            let spent = messages.seal_and_open(*backend);
            for (least, spent) in least.iter_mut().zip(spent) {
                *least = spent.cycles.min(*least);
            }
        }
    }
    let gain = |way: usize| least[0][way] as f64 / least[1][way] as f64;
    gain(0).min(gain(1))
}
