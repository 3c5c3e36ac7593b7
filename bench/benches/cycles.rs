//! Cycles per packet of the cipher: a table of docs/bench/lanes.md.
//!
//! `cargo bench -p ekiden-bench --bench cycles`. Everything in a line is measured in turn, many times, and the least counts: what else the
//! machine does only ever makes slower. Cycles are those of the CPU's counter.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use crypto::aead::{self, Backend};
use ekiden_bench::{Messages, imix};

fn main() {
    let (ring, chosen) = (aead::single(), aead::choose(&aead::Wish::default()));
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

fn row(name: &str, messages: &mut Messages, backends: &[&'static dyn Backend], count: f64) {
    let least = least(messages, backends, 1000);
    print!("| {name} | {:.0} / {:.0} |", least[0][0] / count, least[0][1] / count);
    for [seal, open] in &least[1..] {
        print!(" {:.0} / {:.0} | {:.2} / {:.2} |", seal / count, open / count, least[0][0] / seal, least[0][1] / open);
    }
    println!();
}
