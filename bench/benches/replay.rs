//! The replay window: a look before the cipher, an acceptance after it, and a batch's one move.
//!
//! `cargo bench -p ekiden-bench --bench replay`; the time shown is that of a batch of 64.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use crypto::replay::Window;
use std::hint::black_box;

const BATCH: u64 = 64;

fn window(c: &mut Criterion) {
    let mut group = c.benchmark_group("a batch of");
    group.throughput(Throughput::Elements(BATCH));
    for (name, stride) in [("counters in order", 1), ("counters of which most are lost", 100)] {
        let (window, mut next) = (Window::new(), 1u64);
        group.bench_function(name, |b| {
            b.iter(|| {
                let counters = (0..BATCH).map(|n| next + n * stride);
                counters.clone().for_each(|counter| window.look(black_box(counter)).expect("it is new"));
                counters.for_each(|counter| window.accept(counter).expect("each is new"));
                next += BATCH * stride;
                window.raise(next - stride);
            });
        });
    }
    let window = Window::new();
    (0..BATCH).for_each(|counter| window.accept(counter).expect("each is new"));
    window.raise(BATCH);
    group.bench_function("replays, refused at the first look", |b| {
        b.iter(|| (0..BATCH).filter(|counter| window.look(black_box(*counter)).is_err()).count());
    });
    group.finish();
}

criterion_group!(benches, window);
criterion_main!(benches);
