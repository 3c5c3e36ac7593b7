//! Routes: a destination looked up in a tenant's table, and a source held against its site's prefixes.
//!
//! `cargo bench -p ekiden-bench --bench classify`; the time shown is that of one address, of as many as a batch has, spread over the
//! table. Tables of 10 and 1,000 routes are those of a tenant among a thousand with as many; the one of 100,000 is alone.

use classifier::{Tables, Target};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{SiteSlot, TenantSlot};

const BATCH: usize = 64;

/// Prefix number `n`, and an address in it.
fn route(n: u32, v6: bool) -> (IpNet, IpAddr) {
    if v6 {
        let net = Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(n) << 64);
        (Ipv6Net::new_assert(net, 64).into(), Ipv6Addr::from_bits(net.to_bits() | 7).into())
    } else {
        let net = Ipv4Addr::from_bits(10 << 24 | n << 7);
        (Ipv4Net::new_assert(net, 25).into(), Ipv4Addr::from_bits(net.to_bits() | 7).into())
    }
}

fn tables(tenants: u32, routes: u32, v6: bool) -> Tables {
    let mut builder = Tables::builder();
    for tenant in 0..tenants {
        for n in 0..routes {
            builder.add(TenantSlot(tenant), route(n, v6).0, Target::Site(SiteSlot(tenant * 10 + n % 10)));
        }
    }
    builder.build()
}

fn lookup(c: &mut Criterion) {
    for (family, v6) in [("v4", false), ("v6", true)] {
        let mut group = c.benchmark_group(format!("route, {family}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        for (tenants, routes) in [(1000, 10), (1000, 1000), (1, 100_000)] {
            let tables = tables(tenants, routes, v6);
            // A step that meets every route, of every tenant, in no order that a cache would guess.
            let queries: Vec<_> = (0..64 * 1024u32)
                .map(|n| n.wrapping_mul(2_654_435_761))
                .map(|n| (TenantSlot(n % tenants), route((n >> 8) % routes, v6).1))
                .collect();
            let mut batches = queries.chunks(BATCH).cycle();
            group.bench_function(BenchmarkId::from_parameter(routes), |b| {
                b.iter(|| {
                    for (tenant, address) in batches.next().expect("it goes round") {
                        black_box(tables.route(*tenant, *address));
                    }
                });
            });
        }
        group.finish();
    }
    let tables = tables(1000, 10, false);
    c.bench_function("source_allowed, v4", |b| {
        b.iter(|| tables.source_allowed(black_box(TenantSlot(500)), SiteSlot(5003), black_box(route(3, false).1)));
    });
}

criterion_group!(benches, lookup);
criterion_main!(benches);
