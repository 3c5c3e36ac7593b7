//! What a tenant's filter costs a packet: with none, 10, 100 and 1,000 rules, that match early, late or never.
//!
//! `cargo bench -p ekiden-bench --bench filter`. The reading of the headers is in it; without a filter nothing is read.

use classifier::filter::{Action, Filter, Flags, Rule};
use classifier::{Tables, Target};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use dataplane::rehearsal;
use std::hint::black_box;
use wire::{SiteSlot, TenantSlot};

const TENANT: TenantSlot = TenantSlot(0);

/// Rules as an operator has them: a server and some ports each, now and then who may reach it; each 50th about flags.
fn rules(count: usize) -> Vec<Rule> {
    let one = |n: usize| {
        let server = format!("10.9.{}.{}/32", 2 + n / 200, n % 200);
        let from = format!("10.{}.0.0/16", 10 + n % 90);
        let port = 1000 + (n * 37 % 5000) as u16;
        Rule {
            action: if n.is_multiple_of(3) { Action::Deny } else { Action::Allow },
            from: if n.is_multiple_of(4) { vec![from.parse().expect("a prefix")] } else { Vec::new() },
            to: vec![server.parse().expect("a prefix")],
            protocol: Some(if n.is_multiple_of(2) { 6 } else { 17 }),
            source_ports: Vec::new(),
            ports: vec![port..=port + (n % 5) as u16],
            flags: if n.is_multiple_of(50) { Flags { set: 2, clear: 16 } } else { Flags::default() },
        }
    };
    (0..count).map(one).collect()
}

/// UDP packets, of which a few match a rule somewhere, and most none.
fn packets(count: usize) -> Vec<Vec<u8>> {
    let one = |n: usize| {
        let rule = n * 7919 % count.max(1);
        let mut packet = rehearsal::ipv4([10, 9, 1, 1], [10, 9, (2 + rule / 200) as u8, (rule % 200) as u8], 9, 200);
        let port = if n.is_multiple_of(8) { 1000 + (rule * 37 % 5000) as u16 } else { 60_000 };
        packet[22..24].copy_from_slice(&port.to_be_bytes());
        packet
    };
    (0..64).map(one).collect()
}

fn filter(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter/64 packets");
    for count in [0, 1, 10, 100, 1000] {
        let mut builder = Tables::builder();
        builder.add(TENANT, "10.9.1.0/24".parse().expect("a prefix"), Target::Site(SiteSlot(0)));
        if count > 0 {
            builder.filter(TENANT, Filter::new(&rules(count), Action::Allow), 0);
        }
        let (tables, packets) = (builder.build(), packets(count));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| packets.iter().for_each(|packet| _ = black_box(tables.filter(TENANT, black_box(packet)))));
        });
    }
    group.finish();
    let mut group = c.benchmark_group("filter/compile");
    group.sample_size(20);
    for count in [10, 100, 1000, 4096] {
        let rules = rules(count);
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter_batched(|| (), |()| Filter::new(black_box(&rules), Action::Allow), BatchSize::LargeInput);
        });
    }
    group.finish();
}

criterion_group!(benches, filter);
criterion_main!(benches);
