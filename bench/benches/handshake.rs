//! Handshakes: what one costs the hub, at either end of it, and what a message costs that is none.
//!
//! `cargo bench -p ekiden-bench --bench handshake`; the time shown is that of one handshake, on one core.

use criterion::{Criterion, criterion_group, criterion_main};
use crypto::cookie::Checker;
use crypto::{Action, Activity, Context, Identity, Peer, SystemTimeParts, Time};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// One end of a tunnel, with a clock that goes on by ten seconds at each handshake.
struct End {
    identity: Identity,
    peer: Peer,
    index: u32,
    random: u64,
}

impl End {
    fn new(own: u8, other: u8) -> Self {
        let peer = Peer::new(0, *Identity::new([other; 32]).public(), None, None, None);
        Self { identity: Identity::new([own; 32]), peer, index: 0, random: own.into() }
    }

    fn act<T>(&mut self, turn: u64, act: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>) -> T) -> T {
        let Self { identity, peer, index, random } = self;
        let mut indices = || {
            *index += 1;
            Some(*index)
        };
        // Not unpredictable, and no secret of anybody's.
        let mut fill = |bytes: &mut [u8]| {
            for byte in bytes {
                *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (*random >> 56) as u8;
            }
        };
        let unix = SystemTimeParts { secs: 1_700_000_000 + 10 * turn, nanos: 0 };
        let now = Time(10_000_000_000 * (turn + 1));
        act(peer, identity, &mut Context { now, unix, random: &mut fill, indices: &mut indices })
    }
}

fn sent(actions: &[Action]) -> Vec<u8> {
    let message = actions.iter().find_map(|action| if let Action::Send(m) = action { Some(m.to_vec()) } else { None });
    message.expect("a message")
}

/// Handshakes in full; the time that each of the two ends spent.
fn handshakes(ends: &mut [End; 2], turn: &mut u64, count: u64) -> [Duration; 2] {
    let [initiator, responder] = ends;
    let mut spent = [Duration::ZERO; 2];
    for _ in 0..count {
        *turn += 1;
        let began = Instant::now();
        let mut actions = Vec::new();
        initiator.act(*turn, |peer, identity, cx| {
            peer.poll(identity, &Activity::default(), cx, &mut actions);
            peer.renew(identity, cx, &mut actions);
        });
        let initiation = sent(&actions);
        spent[0] += began.elapsed();

        let began = Instant::now();
        actions.clear();
        let opened = crypto::open_initiation(&responder.identity, &initiation).expect("it is for us");
        responder
            .act(*turn, |peer, identity, cx| peer.on_initiation(identity, opened, cx, &mut actions))
            .expect("it is good");
        let response = sent(&actions);
        spent[1] += began.elapsed();

        let began = Instant::now();
        actions.clear();
        initiator
            .act(*turn, |peer, identity, cx| peer.on_response(identity, &response, cx, &mut actions))
            .expect("it is good");
        spent[0] += began.elapsed();
    }
    spent
}

fn handshake(c: &mut Criterion) {
    for (end, name) in ["as the initiator", "as the responder"].into_iter().enumerate() {
        let (mut ends, mut turn) = ([End::new(1, 2), End::new(2, 1)], 0);
        c.bench_function(name, |b| b.iter_custom(|count| handshakes(&mut ends, &mut turn, count)[end]));
    }
    let [mut initiator, responder] = [End::new(1, 2), End::new(2, 1)];
    let mut actions = Vec::new();
    initiator.act(1, |peer, identity, cx| peer.renew(identity, cx, &mut actions));
    let initiation = sent(&actions);
    let mut checker = Checker::new(&responder.identity);
    let from = "192.0.2.7:51820".parse().expect("an address");
    let mut forged = initiation.clone();
    forged[120] ^= 1;
    for (name, message, loaded) in
        [("a wrong MAC1", &forged, false), ("a good one", &initiation, false), ("a cookie", &initiation, true)]
    {
        c.bench_function(name, |b| {
            b.iter(|| checker.check(black_box(message), from, loaded, Time(1), &mut |bytes| bytes.fill(7)).is_ok());
        });
    }
    let mut garbage = initiation;
    garbage[50] ^= 1;
    c.bench_function("garbage under a good MAC1", |b| {
        b.iter(|| crypto::open_initiation(&responder.identity, black_box(&garbage)).is_err());
    });
}

criterion_group!(benches, handshake);
criterion_main!(benches);
