//! Cycles per packet, of the cipher and of the relay in memory: the tables of docs/bench/lanes.md.
//!
//! `cargo bench -p ekiden-bench --bench cycles`. Everything in a line is measured in turn, many times, and the least counts: what else the
//! machine does only ever makes slower. Cycles are those of the CPU's counter.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use crypto::aead::{self, Backend};
use dataplane::packet::BATCH;
use ekiden_bench::{Messages, imix};

/// Sizes and batches at which the chosen backend is held against ring.
const SIZES: [usize; 14] = [0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280, 1424];

fn main() {
    let (ring, chosen) = (aead::ring(), aead::choose());
    println!("{}: {}\n", chosen.name(), chosen.thresholds().unwrap_or_default());
    let backends: Vec<_> = [ring, chosen].into_iter().chain(aead::lanes()).collect();

    println!("Batches of 32, cycles per packet to seal / open, and gain; the last columns without thresholds\n");
    print!("| B | ring | chosen | gain |");
    backends[2..].iter().for_each(|backend| print!(" {} | gain |", backend.name()));
    println!("\n|---|---|---|---|{}", "---|---|".repeat(backends.len() - 2));
    for len in [64, 128, 256, 512, 1424] {
        row(&len.to_string(), &mut Messages::new([len; 32]), &backends, 32.0);
    }
    row("IMIX", &mut Messages::new(imix()), &backends, 32.0);

    println!("\nThe chosen against ring, gain at batches of N: the least of seal and open\n");
    let shown = [1, 2, 3, 4, 5, 6, 8, 12, 16, 17, 24, 32, 48, 64];
    println!("| B \\ N | {} |", shown.map(|n| n.to_string()).join(" | "));
    println!("|---|{}", "---|".repeat(shown.len()));
    let mut worst = (f64::MAX, String::new());
    for len in SIZES {
        let mut cells = Vec::new();
        for count in 1..=BATCH {
            let gain = gain(&mut Messages::new(vec![len; count]), ring, chosen);
            worst = worst.min_by_gain(gain, || format!("{count} of {len} B"));
            if shown.contains(&count) {
                cells.push(format!("{gain:.2}"));
            }
        }
        println!("| {len} | {} |", cells.join(" | "));
    }
    println!("\nLeast: {:.2}, {}", worst.0, worst.1);

    let mut worst = (f64::MAX, String::new());
    let mut sum = 0.0;
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        (state >> 33) as usize % below
    };
    const MIXES: usize = 300;
    for _ in 0..MIXES {
        let lengths: Vec<_> = (0..1 + random(BATCH)).map(|_| SIZES[random(SIZES.len())]).collect();
        let gain = gain(&mut Messages::new(lengths.iter().copied()), ring, chosen);
        sum += gain;
        worst = worst.min_by_gain(gain, || format!("{lengths:?}"));
    }
    println!("{MIXES} random mixes: mean {:.2}, least {:.2}, {}", sum / MIXES as f64, worst.0, worst.1);
}

trait Worst {
    fn min_by_gain(self, gain: f64, at: impl FnOnce() -> String) -> Self;
}

impl Worst for (f64, String) {
    fn min_by_gain(self, gain: f64, at: impl FnOnce() -> String) -> Self {
        if gain < self.0 { (gain, at()) } else { self }
    }
}

/// The least cycles of each backend, to seal and to open.
fn least(messages: &mut Messages, backends: &[&'static dyn Backend], rounds: usize) -> Vec<[f64; 2]> {
    let mut least = vec![[u64::MAX; 2]; backends.len()];
    for _ in 0..rounds {
        for (backend, least) in backends.iter().zip(&mut least) {
            let spent = messages.seal_and_open(*backend);
            for (least, spent) in least.iter_mut().zip(spent) {
                *least = spent.cycles.min(*least);
            }
        }
    }
    least.iter().map(|both| both.map(|cycles| cycles as f64)).collect()
}

fn gain(messages: &mut Messages, ring: &'static dyn Backend, chosen: &'static dyn Backend) -> f64 {
    let least = least(messages, &[ring, chosen], 60);
    (least[0][0] / least[1][0]).min(least[0][1] / least[1][1])
}

fn row(name: &str, messages: &mut Messages, backends: &[&'static dyn Backend], count: f64) {
    let least = least(messages, backends, 1000);
    print!("| {name} | {:.0} / {:.0} |", least[0][0] / count, least[0][1] / count);
    for [seal, open] in &least[1..] {
        print!(" {:.0} / {:.0} | {:.2} / {:.2} |", seal / count, open / count, least[0][0] / seal, least[0][1] / open);
    }
    println!();
}
