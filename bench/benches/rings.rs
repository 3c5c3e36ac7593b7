//! What workers say to each other and to control, without the waiting: one thread has both ends.
//!
//! `cargo bench -p ekiden-bench --bench rings`; the time shown is that of one order, event, parcel, batch or bundle there and back. Between
//! two cores the transfer of cache lines comes on top; `fat.rs` has that.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dataplane::depot::Depot;
use dataplane::mailbox::{Bell, Event, Order, Source, mailbox};
use dataplane::packet::BATCH;
use dataplane::team::Team;
use dataplane::xsk::Umem;
use std::sync::Arc;
use wire::{PortIndex, SiteSlot};

fn mail(c: &mut Criterion) {
    let bell = Bell::new().expect("an eventfd");
    let (mut control, mut worker) = mailbox(Arc::new(tokio::sync::Notify::new()), bell, 2048);
    c.bench_function("order", |b| {
        b.iter(|| {
            control.send(Order::Keepalive(SiteSlot(1)));
            worker.order().expect("it was sent")
        });
    });
    c.bench_function("event", |b| {
        b.iter(|| {
            worker.tell(Event::Wanted(SiteSlot(1)));
            worker.flush();
            control.event().expect("it was told")
        });
    });
    c.bench_function("parcel of 190 bytes", |b| {
        b.iter(|| {
            worker.copy(Source::Port(PortIndex(0)), &[7; 190]);
            let parcel = control.parcel().expect("it was copied");
            control.recycle(parcel);
        });
    });
}

fn between_workers(c: &mut Criterion) {
    let bells = [(); 2].map(|()| Bell::new().expect("an eventfd"));
    let [mut owner, mut helper] = <[Team; 2]>::try_from(Team::of(&bells)).expect("two of them");
    helper.offer(true);
    c.bench_function("batch to a helper and back", |b| {
        b.iter(|| {
            let batch = owner.batch().expect("none is under way");
            owner.hand_out(batch).expect("a helper is idle");
            helper.help(|_| ());
            let (batch, _) = owner.retire().expect("it is through");
            owner.recycle(batch);
        });
    });
    let umem = Umem::private(2048, 2048);
    let depot = Depot::new(2048, 256);
    let (mut rich, mut poor) = (umem.frames(0..2048), Vec::with_capacity(2048));
    c.bench_function("bundle of 64 chunks to another worker", |b| {
        b.iter_batched(
            || (),
            |()| {
                depot.level(&mut rich);
                depot.level(&mut poor);
                rich.append(&mut poor);
            },
            BatchSize::SmallInput,
        );
    });
    assert!(rich.len() + depot.len() >= 2048 - BATCH);
}

criterion_group!(benches, mail, between_workers);
criterion_main!(benches);
