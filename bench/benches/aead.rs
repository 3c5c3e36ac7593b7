//! Sealing and opening batches of 32, by ring one at a time and by what is chosen on this machine.
//!
//! `cargo bench -p ekiden-bench --bench aead`; the time shown is that of a batch.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::aead;
use ekiden_bench::{Messages, imix};

const BATCH: usize = 32;

fn batches(c: &mut Criterion) {
    for (way, name) in ["seal", "open"].into_iter().enumerate() {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64));
        for backend in [aead::ring(), aead::choose()] {
            let mut bench = |name: String, mut messages: Messages| {
                group.bench_function(BenchmarkId::new(backend.name(), name), |b| {
                    b.iter_custom(|rounds| (0..rounds).map(|_| messages.seal_and_open(backend)[way].time).sum());
                });
            };
            for len in [64, 128, 256, 512, 1424] {
                bench(len.to_string(), Messages::new([len; BATCH]));
            }
            bench("IMIX".into(), Messages::new(imix()));
        }
        group.finish();
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);
