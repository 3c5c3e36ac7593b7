//! The relay in memory against what its cipher alone costs: the difference is Ekiden's own.
//!
//! `cargo bench -p ekiden-bench --bench journey`; the time shown is that of a batch of 64.

use arrayvec::ArrayVec;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crypto::Time;
use crypto::aead::{self, Cipher, Key, OpenJob, SealJob, TAG};
use dataplane::packet::{BATCH, Batch, Packet};
use dataplane::rehearsal::{Rehearsal, ipv4};
use std::time::{Duration, Instant};
use wire::PortIndex;

/// Inner lengths: the smallest, a middling and the largest packet of a stock client.
const LENGTHS: [usize; 3] = [64, 512, 1420];

/// Opened, checked, routed, sealed and addressed: all stages, from a frame received to a frame to transmit.
fn relay(c: &mut Criterion) {
    let mut group = c.benchmark_group("relay");
    group.throughput(Throughput::Elements(BATCH as u64));
    for len in LENGTHS {
        let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 1024);
        let packet = ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, len);
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let mut batch = Batch::new();
                    for _ in 0..BATCH {
                        let mut frame = hub.journey.pool.pop().expect("a chunk");
                        frame.copy_from(&hub.seal(0, &packet));
                        batch.push(Packet::arrived(frame, PortIndex(0)));
                    }
                    let start = Instant::now();
                    hub.journey.relay(&mut batch, Time(2_000_000_000));
                    hub.journey.dispatch(&mut batch);
                    spent += start.elapsed();
                    assert_eq!(hub.journey.out[0].len(), BATCH, "all of them leave");
                    let out = &mut hub.journey.out[0];
                    hub.journey.pool.append(out);
                }
                spent
            });
        });
    }
    group.finish();
}

/// The same packets opened and sealed, and nothing else.
fn cipher(c: &mut Criterion) {
    let mut group = c.benchmark_group("open and seal");
    group.throughput(Throughput::Elements(BATCH as u64));
    let backend = aead::ring();
    let key = Key::new(Cipher::ChaCha20Poly1305, &[7; 32]);
    for len in LENGTHS {
        let mut packets = vec![vec![0x5a; len.next_multiple_of(16) + TAG]; BATCH];
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    let mut jobs = ArrayVec::<_, BATCH>::new();
                    for data in &mut packets {
                        jobs.push(SealJob { key: &key, counter: 1, aad: &[], data });
                    }
                    let start = Instant::now();
                    backend.seal_batch(&mut jobs);
                    spent += start.elapsed();
                    drop(jobs);
                    let mut jobs = ArrayVec::<_, BATCH>::new();
                    for data in &mut packets {
                        jobs.push(OpenJob { key: &key, counter: 1, aad: &[], data, verified: false });
                    }
                    let start = Instant::now();
                    backend.open_batch(&mut jobs);
                    spent += start.elapsed();
                    assert!(jobs.iter().all(|job| job.verified));
                }
                spent
            });
        });
    }
    group.finish();
}

criterion_group!(benches, relay, cipher);
criterion_main!(benches);
