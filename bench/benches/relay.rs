//! Cycles per packet of the relay in memory, by ring and by the lanes of this CPU: a table of docs/bench/lanes.md.
//!
//! `cargo bench -p ekiden-bench --bench relay`; `-- 64 5000` for packets of that length alone, between so many pairs of sites, and for ever,
//! to be looked at with perf; `-- trunks` for the tables of docs/bench/trunk.md alone. Backends take turns batch by batch, so that what else
//! the machine does meets all of them. Cycles are those of the CPU's counter.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use crypto::aead::{self, Backend, Cipher, Library};
use ekiden_bench::{Messages, Relay, Way, imix};
use wire::geneve;

/// Batches of each backend.
const ROUNDS: usize = 4000;

fn main() {
    let backends = [aead::single(), aead::choose(&aead::Wish::default())];
    let mut numbers = std::env::args().filter_map(|arg| arg.parse().ok());
    if let Some(len) = numbers.next() {
        let mut relay = Relay::of_one(backends[1], numbers.next().unwrap_or(1), [len; 64]);
        loop {
            relay.batch();
        }
    }
    if std::env::args().any(|arg| arg == "trunks") {
        return trunks(backends[1]);
    }
    println!(
        "Cycles per packet, the least and the median of {ROUNDS} batches: open, check, route, adapt, seal, address, dispatch\n"
    );
    let lanes = backends[1].name();
    println!("| B | batch | tenants | pairs of sites | ring | {lanes} | gain | {lanes}: cipher alone | all else |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let sizes = [64, 128, 256, 512, 1024, 1424].map(|len| (len.to_string(), Vec::from([len])));
    for (name, lengths) in sizes.into_iter().chain([("IMIX".to_owned(), imix().collect())]) {
        let lengths = |count| lengths.iter().copied().cycle().take(count);
        for (count, tenants) in [(64, 1), (32, 1), (64, 32), (64, 5000)] {
            let title = format!("{name} | {count} | {tenants} | {tenants}");
            row(
                &title,
                &lengths(count).collect::<Vec<_>>(),
                |aead| Relay::new(aead, tenants, lengths(count)),
                &backends,
            );
        }
        let title = format!("{name} | 64 | 1 | 5000");
        row(&title, &lengths(64).collect::<Vec<_>>(), |aead| Relay::of_one(aead, 5000, lengths(64)), &backends);
    }
    trunks(backends[1]);
}

/// What a packet takes between sites, between a site and a trunk of four lanes, and from one trunk to another, by the trunks' cipher; and
/// what that cipher takes alone. All take turns, batch by batch.
fn trunks(backend: &'static dyn Backend) {
    const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
    let rows = [64, 128, 256, 512, 1024, 1424].map(|len| (len.to_string(), vec![len; 64]));
    let imix = ("IMIX".to_owned(), imix().cycle().take(64).collect::<Vec<_>>());
    let rows: Vec<_> = rows.into_iter().chain([imix]).collect();

    println!(
        "\n| B | site to site | to a trunk, ChaCha20-Poly1305 | from it | trunk to trunk | to a trunk, AES-256-GCM | from it | trunk to trunk |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut through = Vec::new();
    for (name, lengths) in &rows {
        let lengths = || lengths.iter().copied();
        let mut relays = vec![Relay::new(backend, 1, lengths())];
        for cipher in CIPHERS {
            let by = |way| Relay::by_trunk(backend, cipher, way, lengths());
            relays.extend([Way::ToTrunk, Way::FromTrunk, Way::Through].map(by));
        }
        let mut cycles = vec![Vec::new(); relays.len()];
        for _ in 0..ROUNDS {
            for (relay, cycles) in relays.iter_mut().zip(&mut cycles) {
                cycles.push(relay.batch().cycles / relay.count() as u64);
            }
        }
        let found: Vec<_> = cycles.iter_mut().map(|cycles| least_and_median(cycles)).collect();
        println!("| {name} | {} |", found.iter().map(|found| shown(*found)).collect::<Vec<_>>().join(" | "));
        through.push(found[6].1 as f64 / found[3].1 as f64);
    }

    // What is sealed has its tag and is padded.
    println!(
        "\n| B | ChaCha20-Poly1305: open + seal | AES-256-GCM: open + seal | AES / ChaCha | of a packet from trunk to trunk |"
    );
    println!("|---|---|---|---|---|");
    for ((name, lengths), through) in rows.iter().zip(through) {
        let plain = || lengths.iter().map(|len| (len + geneve::HEADER).next_multiple_of(16));
        let mut messages = CIPHERS.map(|cipher| Messages::by(Library::of(cipher), cipher, plain()));
        let mut cycles = [const { Vec::new() }; 2];
        for _ in 0..ROUNDS {
            for (messages, cycles) in messages.iter_mut().zip(&mut cycles) {
                let [seal, open] = messages.seal_and_open(backend).map(|spent| spent.cycles);
                cycles.push((seal + open) / lengths.len() as u64);
            }
        }
        let [chacha, aes] = cycles.each_mut().map(|cycles| least_and_median(cycles));
        let ratio = aes.1 as f64 / chacha.1 as f64;
        println!("| {name} | {} | {} | {ratio:.2} | {through:.2} |", shown(chacha), shown(aes));
    }
}

fn least_and_median(cycles: &mut [u64]) -> (u64, u64) {
    cycles.sort_unstable();
    (cycles[0], cycles[cycles.len() / 2])
}

fn shown((least, median): (u64, u64)) -> String {
    format!("{least} / {median}")
}

fn row(
    title: &str,
    lengths: &[usize],
    relay: impl Fn(&'static dyn Backend) -> Relay,
    backends: &[&'static dyn Backend; 2],
) {
    let mut relays = backends.map(relay);
    let mut messages = Messages::new(lengths.iter().map(|len| len.next_multiple_of(16)));
    let mut cycles = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (relay, cycles) in relays.iter_mut().zip(&mut cycles) {
            cycles.push(relay.batch().cycles / relay.count() as u64);
        }
        let [seal, open] = messages.seal_and_open(backends[1]).map(|spent| spent.cycles);
        cycles[2].push((seal + open) / lengths.len() as u64);
    }
    cycles.iter_mut().for_each(|cycles| cycles.sort_unstable());
    let [ring, lanes, cipher] = cycles.map(|cycles| (cycles[0], cycles[ROUNDS / 2]));
    let gain = ring.0 as f64 / lanes.0 as f64;
    println!(
        "| {title} | {} / {} | {} / {} | {gain:.2} | {} / {} | {} / {} |",
        ring.0,
        ring.1,
        lanes.0,
        lanes.1,
        cipher.0,
        cipher.1,
        lanes.0 as i64 - cipher.0 as i64,
        lanes.1 as i64 - cipher.1 as i64,
    );
}
