//! The relay in memory against what its cipher alone costs, by ring and by what is chosen on this machine: the difference is Ekiden's own.
//!
//! `cargo bench -p ekiden-bench --bench journey`; the time shown is that of a batch of 64.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::aead;
use crypto::aead::Cipher;
use dataplane::packet::BATCH;
use ekiden_bench::{Messages, Relay, Way};
use std::time::Duration;

/// Inner lengths: the smallest, a middling and the largest packet of a stock client.
const LENGTHS: [usize; 3] = [64, 512, 1420];

fn relay(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Elements(BATCH as u64));
    for backend in [aead::single(), aead::choose(&aead::Wish::default())] {
        for len in LENGTHS {
            let mut relay = Relay::new(backend, 1, [len; BATCH]);
            group.bench_function(BenchmarkId::new(backend.name(), len), |b| {
                b.iter_custom(|rounds| (0..rounds).map(|_| relay.batch().time).sum());
            });
        }
    }
    group.finish();
}

/// Between a site and a trunk, by the trunk's cipher: beside `relay`, which is from site to site.
fn trunk(c: &mut Criterion) {
    let mut group = c.benchmark_group("trunk");
    group.throughput(Throughput::Elements(BATCH as u64));
    let backend = aead::choose(&aead::Wish::default());
    for (cipher, name) in [(Cipher::ChaCha20Poly1305, "chacha20-poly1305"), (Cipher::Aes256Gcm, "aes-256-gcm")] {
        for (way, direction) in [(Way::ToTrunk, "to it"), (Way::FromTrunk, "from it")] {
            for len in LENGTHS {
                let mut relay = Relay::by_trunk(backend, cipher, way, [len; BATCH]);
                group.bench_function(BenchmarkId::new(format!("{name}, {direction}"), len), |b| {
                    b.iter_custom(|rounds| (0..rounds).map(|_| relay.batch().time).sum());
                });
            }
        }
    }
    group.finish();
}

/// The same packets opened and sealed, and nothing else.
fn cipher(c: &mut Criterion) {
    let mut group = c.benchmark_group("open and seal");
    group.throughput(Throughput::Elements(BATCH as u64));
    for backend in [aead::single(), aead::choose(&aead::Wish::default())] {
        for len in LENGTHS {
            let mut messages = Messages::new([len.next_multiple_of(16); BATCH]);
            group.bench_function(BenchmarkId::new(backend.name(), len), |b| {
                b.iter_custom(|rounds| {
                    let both = |_| messages.seal_and_open(backend).map(|spent| spent.time).iter().sum::<Duration>();
                    (0..rounds).map(both).sum()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, relay, trunk, cipher);
criterion_main!(benches);
