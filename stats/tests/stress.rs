//! Readers, as fast as they can, while workers write at full rate and the directory changes: nothing torn, nothing backwards, nothing
//! that left before it came.

mod common;

use common::{Hub, SECOND, receive, send};
use stats::{Now, ReadError, Reader, Series, Snapshot};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use wire::{DropReason, TenantId, TenantSlot};

/// What each packet is worth: a torn or mixed-up count would not be so many bytes a packet. The bits are spread over the word, so that
/// half a word of one value and half of the next would show.
const BYTES: u64 = 0x0001_0001_0001;
/// Snapshots that each reader takes.
const SNAPSHOTS: usize = 3000;
const READERS: usize = 3;
const TENANTS: u32 = 3;

/// Names, and what belongs to them, of one configuration: the directory goes from one to the next.
fn label(turn: u64) -> String {
    format!("{turn:06} ").repeat(30)
}

#[test]
fn readers_see_whole_values_that_only_grow_while_everything_changes() {
    let mut hub = Hub::new(TENANTS, 2);
    let path = hub.path();
    let stop = AtomicBool::new(false);
    let rows = std::mem::take(&mut hub.rows);
    thread::scope(|scope| {
        for rows in &rows {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for t in 0..TENANTS {
                        receive(rows, t, 2 * t, BYTES);
                        if rows.turns.turns.read() % 16 == 0 {
                            rows.tenant(TenantSlot(t)).count(DropReason::NoRoute, BYTES as usize);
                        } else {
                            send(rows, t, 2 * t + 1, BYTES);
                        }
                        rows.turns.turns.add(1);
                    }
                }
            });
        }
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| watch(&path))).collect();
        // Control: a new directory and a new second, all the time.
        let mut turn = 0;
        while readers.iter().any(|reader| !reader.is_finished()) {
            turn += 1;
            hub.segment.configure(|directory| {
                directory.config_hash(turn);
                for t in 0..TENANTS {
                    let id = TenantId::new(u64::from(1000 + t)).unwrap();
                    directory.tenant(TenantSlot(t), id, &format!("WAN{turn}"), &label(turn)).unwrap();
                }
            });
            hub.segment.tick(Now { ns: turn * SECOND, wall_ns: turn }, 0, 1);
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });

    // At rest the books balance exactly, and history, scrape and rows say the same.
    hub.segment.tick(Now { ns: 1 << 60, wall_ns: 0 }, 0, 1);
    let mut reader = Reader::open(&path).unwrap();
    let snapshot = reader.snapshot().unwrap();
    assert_eq!(snapshot.books.inputs, snapshot.books.outputs);
    for tenant in &snapshot.tenants {
        let traffic = &tenant.traffic;
        let dropped: u64 = tenant.drops.iter().map(|(_, packets, _)| packets).sum();
        assert_eq!(traffic.rx_packets, traffic.tx_packets + dropped);
        let last = *reader.history(Series::Tenant(tenant.slot), 0).unwrap().records.last().unwrap();
        assert_eq!((last.rx_bytes, last.tx_bytes), (traffic.rx_bytes, traffic.tx_bytes));
        let sum: u64 = rows.iter().map(|r| r.volume(TenantSlot(tenant.slot as u32)).rx_bytes.read()).sum();
        assert_eq!(sum, traffic.rx_bytes);
    }
}

fn watch(path: &Path) {
    let mut reader = Reader::open(path).unwrap();
    let mut before: Option<Snapshot> = None;
    let mut next = 0;
    let mut records = 0;
    let mut taken = 0;
    while taken < SNAPSHOTS {
        let now = match reader.snapshot() {
            Ok(now) => now,
            // The polite end of many attempts; here the directory hardly ever stands still.
            Err(ReadError::Busy { .. }) => continue,
            Err(error) => panic!("{error}"),
        };
        taken += 1;
        check(&now);
        if let Some(before) = &before {
            grows(before, &now);
        }
        before = Some(now);
        let history = reader.history(Series::Tenant(1), next).unwrap();
        records += history.records.len() as u64 + history.missed;
        next = history.next;
        assert_eq!(records, next, "every record was seen, or said to be missed");
        for record in &history.records {
            assert_eq!(
                (record.rx_bytes, record.tx_bytes % BYTES),
                (record.rx_bytes / BYTES * BYTES, 0),
                "torn: {record:?}"
            );
            assert!(record.ns == record.wall_ns * SECOND && record.tx_packets <= record.rx_packets, "{record:?}");
        }
        assert!(history.records.is_sorted_by_key(|r| (r.number, r.ns, r.rx_packets, r.tx_packets)));
    }
}

fn check(now: &Snapshot) {
    assert!(now.books.outputs <= now.books.inputs, "{:?}", now.books);
    for tenant in &now.tenants {
        let traffic = &tenant.traffic;
        assert_eq!((traffic.rx_bytes % BYTES, traffic.tx_bytes % BYTES), (0, 0), "torn: {traffic:?}");
        // Each packet was sent or dropped after it had come, so that together they are hardly fewer: a reader that looked at what
        // came first would see more.
        let dropped: u64 = tenant.drops.iter().map(|(_, packets, _)| packets).sum();
        assert!(traffic.tx_packets + dropped <= traffic.rx_packets, "{tenant:?}");
        // The names of the beginning are longer.
        if tenant.service_code.len() < 11 {
            let turn = tenant.service_code.strip_prefix("WAN").and_then(|turn| turn.parse::<u64>().ok());
            assert_eq!(turn, Some(now.hub.config_hash), "a directory of two configurations");
            assert!(label(now.hub.config_hash).starts_with(&tenant.label) && tenant.label.len() > 200);
        }
    }
    for site in &now.sites {
        assert_eq!((site.traffic.rx_bytes % BYTES, site.traffic.tx_bytes % BYTES), (0, 0));
    }
}

fn grows(before: &Snapshot, now: &Snapshot) {
    for (before, now) in before.tenants.iter().zip(&now.tenants) {
        let counts = |tenant: &stats::Tenant| {
            let t = tenant.traffic;
            [t.rx_packets, t.rx_bytes, t.rx_outer_bytes, t.tx_packets, t.tx_bytes, t.tx_outer_bytes]
        };
        assert!(counts(before).iter().zip(counts(now)).all(|(before, now)| *before <= now), "{before:?}, then {now:?}");
        assert_eq!(before.generation, now.generation);
    }
    for (before, now) in before.drops.iter().zip(&now.drops) {
        assert!(before.packets <= now.packets && before.bytes <= now.bytes && before.name == now.name);
    }
    assert!(before.hub.config_hash <= now.hub.config_hash || before.hub.config_hash == 0xfeed);
}
