//! Headers of one frame: read on the way in, read inside, changed as a router does, and written on the way out.
//!
//! `cargo bench -p ekiden-bench --bench parse`; the time shown is that of one frame. The UDP checksum of IPv6 covers the payload.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use dataplane::rehearsal::{Rehearsal, ipv4, ipv6};
use std::hint::black_box;
use std::net::SocketAddr;
use wire::{Inner, Outer, Path, Template};

fn read(c: &mut Criterion) {
    let hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"]]], 64);
    let frame = hub.frame(0, &[4; 128]);
    c.bench_function("outer headers", |b| b.iter(|| Outer::parse(black_box(&frame))));
    let packets = [("v4", ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, 128)), ("v6", ipv6("fd00::1", "fd00::2", 64, 128))];
    for (name, packet) in &packets {
        c.bench_function(&format!("inner headers, {name}"), |b| b.iter(|| Inner::parse(black_box(packet))));
    }
    for (name, mut packet) in packets {
        c.bench_function(&format!("one hop less, {name}"), |b| {
            b.iter(|| {
                packet[if name == "v4" { 8 } else { 7 }] = 64;
                wire::decrement_ttl(black_box(&mut packet))
            });
        });
    }
}

fn write(c: &mut Criterion) {
    let mut group = c.benchmark_group("outer headers written");
    for (name, ends, udp_checksum) in [
        ("v4", ["192.0.2.1:51820", "198.51.100.1:51821"], false),
        ("v4 with checksum", ["192.0.2.1:51820", "198.51.100.1:51821"], true),
        ("v6", ["[2001:db8::1]:51820", "[2001:db8::2]:51821"], true),
    ] {
        let [source, destination] = ends.map(|end| end.parse::<SocketAddr>().expect("an address"));
        let (source_mac, destination_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let template = Template::new(&Path { source_mac, destination_mac, source, destination, udp_checksum });
        let template = template.expect("one family");
        for payload in [96, 1452] {
            let mut frame = vec![0; template.header_len() + payload];
            group.bench_function(BenchmarkId::new(name, payload), |b| {
                b.iter(|| template.write(black_box(&mut frame), 0, 7));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, read, write);
criterion_main!(benches);
