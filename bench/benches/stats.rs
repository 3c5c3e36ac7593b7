//! What counting costs the journey, and what reading costs a reader. What readers cost the journey: `readers.rs`.
//!
//! `cargo bench -p ekiden-bench --bench stats`; the time shown is that of a batch of 64, or of one snapshot.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dataplane::packet::BATCH;
use stats::{Now, Reader, Rows, Segment, Shape, Spec};
use std::hint::black_box;
use std::path::Path;
use wire::{PortIndex, SiteSlot, TenantId, TenantSlot};

fn spec(shape: Shape, workers: usize) -> Spec {
    let (hub, build) = ("bench".into(), String::new());
    Spec { hub, build, config_hash: 0, shape, room: shape, workers, memory: 64 << 20, group: None }
}

fn segment(path: &Path, tenants: u32, sites: u32, workers: usize) -> Segment {
    let shape = Shape { tenants: tenants as usize, sites: sites as usize, ports: 2, ..Shape::default() };
    let mut segment = Segment::create(path, spec(shape, workers)).expect("a segment").segment;
    segment.configure(|directory| {
        for t in 0..tenants {
            let id = TenantId::new(t.into()).expect("24 bits");
            directory.tenant(TenantSlot(t), id, "WAN00001001", "a label").expect("room");
        }
        (0..sites).for_each(|s| directory.site(SiteSlot(s), TenantSlot(s % tenants), "osaka").expect("room"));
        (0..2).for_each(|p| directory.port(PortIndex(p), "eth0", 1, 2048).expect("room"));
    });
    segment.publish().expect("a name");
    segment
}

/// One packet relayed: what `heard`, `check` and `address` count of it.
fn count(rows: &Rows, site: u32, tenants: u32, now: u64, packets: u64, bytes: u64) {
    let (from, to) = (rows.site(SiteSlot(site)), rows.site(SiteSlot(site ^ 1)));
    let volume = rows.volume(TenantSlot(site / 2 % tenants));
    from.any_received_at.set(now);
    from.data_received_at.set(now);
    for (counter, n) in [
        (&from.rx_outer_packets, packets),
        (&volume.rx_outer_packets, packets),
        (&from.rx_outer_bytes, bytes),
        (&volume.rx_outer_bytes, bytes),
        (&from.rx_packets, packets),
        (&volume.rx_packets, packets),
        (&from.rx_bytes, bytes),
        (&volume.rx_bytes, bytes),
        (&to.tx_outer_bytes, bytes),
        (&volume.tx_outer_bytes, bytes),
        (&to.tx_packets, packets),
        (&volume.tx_packets, packets),
        (&to.tx_bytes, bytes),
        (&volume.tx_bytes, bytes),
    ] {
        counter.add(n);
    }
    to.any_sent_at.set(now);
    to.data_sent_at.set(now);
}

/// A batch counted packet by packet, as the journey does it, or gathered by runs of one site and then added once a run.
fn commit(c: &mut Criterion) {
    let mut group = c.benchmark_group("count a batch");
    group.throughput(Throughput::Elements(BATCH as u64));
    let rows = Rows::new(Shape { tenants: 1000, sites: 10_000, ports: 2, ..Shape::default() });
    let one: Vec<u32> = vec![4; BATCH];
    let many: Vec<u32> = (0..10_000_u32).map(|n| n.wrapping_mul(2_654_435_761) % 10_000).collect();
    for (name, sites) in [("of one site", &one), ("of 10,000 sites", &many)] {
        let mut at = 0;
        let mut next = move || {
            at = (at + BATCH) % (sites.len() / BATCH * BATCH);
            &sites[at..at + BATCH]
        };
        group.bench_function(BenchmarkId::new("each packet", name), |b| {
            b.iter(|| next().iter().for_each(|site| count(&rows, black_box(*site), 1000, 1, 1, black_box(1420))));
        });
        group.bench_function(BenchmarkId::new("each run", name), |b| {
            b.iter(|| {
                for run in next().chunk_by(|a, b| a == b) {
                    let bytes = run.iter().map(|_| black_box(1420)).sum();
                    count(&rows, black_box(run[0]), 1000, 1, run.len() as u64, bytes);
                }
            });
        });
    }
    group.finish();
}

/// Everything of a hub, by the Rust reader; and a second of history.
fn read(c: &mut Criterion) {
    let mut group = c.benchmark_group("snapshot");
    let directory = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
    for (tenants, sites, workers) in [(2, 4, 1), (1000, 10_000, 4)] {
        let path = directory.path().join("stats");
        let mut segment = segment(&path, tenants, sites, workers);
        let rows: Vec<_> = (0..workers).map(|w| segment.rows(w)).collect();
        (0..sites).for_each(|s| count(&rows[s as usize % workers], s & !1, tenants, 1, 1, 100));
        let mut reader = Reader::open(&path).expect("a segment");
        let id = format!("{tenants} tenants, {sites} sites, {workers} workers");
        group.bench_function(BenchmarkId::new("reader", &id), |b| b.iter(|| reader.snapshot().expect("a snapshot")));
        let mut now = Now::read();
        group.bench_function(BenchmarkId::new("history, a second of all", &id), |b| {
            b.iter(|| {
                now.ns += 1_000_000_000;
                (0..sites).for_each(|s| count(&rows[s as usize % workers], s & !1, tenants, 1, 1, 100));
                segment.tick(now, 0, 1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, commit, read);
criterion_main!(benches);
