//! Sealing and opening: both ciphers, by each library and our own code one by one, and in lanes where they are chosen on this machine, by
//! length and batch.
//!
//! `cargo bench -p ekiden-bench --bench aead`; the time shown is that of a batch.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::aead::{self, Backend, Cipher, Library};
use ekiden_bench::{Messages, imix};

/// What a batch can be of: one packet that came alone, and what comes at full speed.
const BATCHES: [usize; 3] = [1, 8, 64];

fn batches(c: &mut Criterion) {
    let chosen = aead::choose(&aead::Wish::default());
    for (way, name) in ["seal", "open"].into_iter().enumerate() {
        for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
            let libraries = Library::ALL.into_iter().chain(Library::own(cipher));
            let mut all: Vec<(&dyn Backend, _, _)> =
                libraries.map(|library| (aead::single(), library, library.name())).collect();
            if cipher == Cipher::ChaCha20Poly1305 {
                all.push((chosen, Library::of(cipher), chosen.name()));
            }
            let mut group = c.benchmark_group(format!("{name} {cipher:?}"));
            for batch in BATCHES {
                group.throughput(Throughput::Elements(batch as u64));
                for (backend, library, label) in &all {
                    let mut bench = |length: &str, mut messages: Messages| {
                        group.bench_function(BenchmarkId::new(*label, format!("{batch} x {length}")), |b| {
                            b.iter_custom(|rounds| {
                                (0..rounds).map(|_| messages.seal_and_open(*backend)[way].time).sum()
                            });
                        });
                    };
                    for len in [64, 512, 1424] {
                        bench(&len.to_string(), Messages::by(*library, cipher, vec![len; batch]));
                    }
                    if batch > 8 {
                        bench("IMIX", Messages::by(*library, cipher, imix().cycle().take(batch)));
                    }
                }
            }
            group.finish();
        }
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);
