//! The rings of history: what each tenant, each site and each drop reason had counted, second by second.
//!
//! A ring gets a record only for a second in which something moved. Its counters are cumulative, so that two records tell the
//! volume between them however many were missed; what a record adds to the one before moved in the period before it, and
//! any further time between them was silence.

use crate::layout::{Kind, Layout, RingHead, Section, SiteEntry, TenantEntry};
use crate::rows::{DropRow, REASONS, Shape, SiteRow, TenantRow};
use crate::segment::{Now, Segment};
use crate::sequence::{Counter, Found, Place};
use crate::snapshot::SiteKind;
use crate::sys::Map;

/// Half a second early is early enough: control's turns are not exact.
const SLACK_NS: u64 = 500_000_000;

/// One record of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number in the ring: the first ever is 0.
    pub number: u64,
    /// The first eight bytes of the hub's boot id. The counters begin at zero in each boot.
    pub boot: u64,
    /// When: CLOCK_BOOTTIME.
    pub ns: u64,
    /// When: since 1970.
    pub wall_ns: u64,
    /// Packets from the site; of a drop reason: packets dropped.
    pub rx_packets: u64,
    /// Their inner bytes; of a drop reason: frame bytes.
    pub rx_bytes: u64,
    /// Packets to the site.
    pub tx_packets: u64,
    /// Their inner bytes.
    pub tx_bytes: u64,
}

/// What a ring had from some number on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The records that are still there, oldest first.
    pub records: Vec<Record>,
    /// Records that were asked for and have been overwritten: exactly so many.
    pub missed: u64,
    /// What to ask for next time.
    pub next: u64,
    /// The shortest time from one record to the next: what a record adds moved within so long before it.
    pub period_ns: u64,
}

/// What was last written to each ring of a section.
#[derive(Debug)]
struct Ledger {
    kind: Kind,
    last: Vec<Last>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    generation: u64,
    ns: u64,
    counts: [u64; 4],
}

/// The writer of all rings.
#[derive(Debug)]
pub(crate) struct Publisher {
    boot: u64,
    tenants: Ledger,
    sites: Ledger,
    sites_long: Ledger,
    drops: Ledger,
    drops_looked_at: u64,
}

impl Publisher {
    pub(crate) fn new(used: Shape, boot: u64) -> Self {
        let ledger = |kind, rows| Ledger { kind, last: vec![Last::default(); rows] };
        Self {
            boot,
            tenants: ledger(Kind::TenantHistory, used.tenants),
            sites: ledger(Kind::SiteHistory, used.sites),
            sites_long: ledger(Kind::SiteHistoryLong, used.sites),
            drops: ledger(Kind::DropHistory, REASONS),
            drops_looked_at: 0,
        }
    }

    /// So many rows are used from now on.
    pub(crate) fn grow(&mut self, used: Shape) {
        for (ledger, rows) in
            [(&mut self.tenants, used.tenants), (&mut self.sites, used.sites), (&mut self.sites_long, used.sites)]
        {
            ledger.last.resize(rows, Last::default());
        }
    }
}

impl Publisher {
    /// Forgets when records were last written, so that each ring may get one now.
    pub(crate) fn hurry(&mut self) {
        for ledger in [&mut self.tenants, &mut self.sites, &mut self.sites_long, &mut self.drops] {
            ledger.last.iter_mut().for_each(|last| last.ns = 0);
        }
        self.drops_looked_at = 0;
    }
}

impl Ledger {
    /// Appends a record of what was found if anything moved since the last one, and it is time for one.
    fn note(&mut self, map: &Map, ring: &Section, slot: usize, found: Last, boot: u64, wall_ns: u64) {
        let last = &mut self.last[slot];
        let Last { generation, ns, counts } = found;
        if last.generation != generation {
            *last = Last { generation, ..Last::default() };
        }
        if counts == last.counts || ns + SLACK_NS < last.ns + ring.period_ns {
            return;
        }
        *last = found;
        let (Some(head), Some(places)) = ring_at(map, ring, slot) else { return };
        let number = head.next.read();
        let [a, b, c, d] = counts;
        places[(number % places.len() as u64) as usize].write(number, [boot, ns, wall_ns, a, b, c, d]);
        head.next.set(number + 1);
    }
}

impl Segment {
    /// Appends to the rings of a part of all tenants and sites: part `part` of `parts`, each to be called once a second, so
    /// that no call takes long. What is to be found in the segment at rest is in the rings a second later; of drops, and in
    /// the long rings of sites, ten.
    pub fn tick(&mut self, now: Now, part: usize, parts: usize) {
        let Self { map, layout, publisher, .. } = self;
        let Publisher { boot, tenants, sites, sites_long, drops, drops_looked_at } = publisher;
        let workers = layout.section(Kind::Workers).rows;
        let generation = |kind, slot| {
            let section = layout.section(kind);
            map.row::<Counter>(section.at(0, slot)).map_or(0, Counter::read)
        };
        let range = |rows: usize| {
            let each = rows.div_ceil(parts);
            (part * each).min(rows)..((part + 1) * each).min(rows)
        };
        for slot in range(tenants.last.len()) {
            let generation = generation(Kind::Tenants, slot);
            if generation % 2 == 1 {
                let row = |w| map.row::<TenantRow>(layout.section(Kind::TenantRows).at(w, slot));
                let counts = moved(workers, |w, tx| {
                    let row = row(w)?;
                    Some(if tx { [&row.tx_packets, &row.tx_bytes] } else { [&row.rx_packets, &row.rx_bytes] })
                });
                let found = Last { generation, ns: now.ns, counts };
                tenants.note(map, layout.section(tenants.kind), slot, found, *boot, now.wall_ns);
            }
        }
        for slot in range(sites.last.len()) {
            let generation = generation(Kind::Sites, slot);
            if generation % 2 == 1 {
                let row = |w| map.row::<SiteRow>(layout.section(Kind::SiteRows).at(w, slot));
                let kind = map.row::<SiteEntry>(layout.section(Kind::Sites).at(0, slot)).map_or(0, |e| e.kind.read());
                // What is inside of a lane's packets is their tenants'.
                let outer = kind == SiteKind::Lane as u64;
                let counts = moved(workers, |w, tx| {
                    let row = row(w)?;
                    Some(match (outer, tx) {
                        (false, true) => [&row.tx_packets, &row.tx_bytes],
                        (false, false) => [&row.rx_packets, &row.rx_bytes],
                        (true, true) => [&row.tx_packets, &row.tx_outer_bytes],
                        (true, false) => [&row.rx_outer_packets, &row.rx_outer_bytes],
                    })
                });
                let found = Last { generation, ns: now.ns, counts };
                for ledger in [&mut *sites, &mut *sites_long] {
                    ledger.note(map, layout.section(ledger.kind), slot, found, *boot, now.wall_ns);
                }
            }
        }
        let ring = layout.section(drops.kind);
        if part == 0 && now.ns + SLACK_NS >= *drops_looked_at + ring.period_ns {
            *drops_looked_at = now.ns;
            for (number, (packets, bytes)) in all_drops(map, layout).into_iter().enumerate() {
                let found = Last { generation: 1, ns: now.ns, counts: [packets, bytes, 0, 0] };
                drops.note(map, ring, number, found, *boot, now.wall_ns);
            }
        }
    }
}

/// What all workers moved, outputs read before inputs.
fn moved<'a>(workers: usize, fields: impl Fn(usize, bool) -> Option<[&'a Counter; 2]>) -> [u64; 4] {
    let mut counts = [0_u64; 4];
    for tx in [true, false] {
        for [packets, bytes] in (0..workers).filter_map(|w| fields(w, tx)) {
            let at = if tx { 2 } else { 0 };
            counts[at] = counts[at].wrapping_add(packets.read());
            counts[at + 1] = counts[at + 1].wrapping_add(bytes.read());
        }
    }
    counts
}

/// All drops by number, whoever counted them.
pub(crate) fn all_drops(map: &Map, layout: &Layout) -> [(u64, u64); REASONS] {
    let mut sums = [(0_u64, 0_u64); REASONS];
    for kind in [Kind::TenantDrops, Kind::HubDrops] {
        let (section, used) = (layout.section(kind), layout.used(map, kind));
        let places = (0..section.blocks).flat_map(|block| (0..used).map(move |row| section.at(block, row)));
        places.filter_map(|at| map.row::<DropRow>(at)).for_each(|row| add_drops(&mut sums, row));
    }
    sums
}

pub(crate) fn add_drops(sums: &mut [(u64, u64); REASONS], row: &DropRow) {
    for (number, (packets, bytes)) in sums.iter_mut().enumerate() {
        let (p, b) = row.number(number);
        (*packets, *bytes) = (packets.wrapping_add(p), bytes.wrapping_add(b));
    }
}

fn ring_at<'a>(map: &'a Map, ring: &Section, slot: usize) -> (Option<&'a RingHead>, Option<&'a [Place]>) {
    let head = ring.at(0, slot);
    (map.row(head), map.rows(head + size_of::<RingHead>(), ring.depth).filter(|places| !places.is_empty()))
}

/// The records of a ring from `from` on.
pub(crate) fn read(map: &Map, ring: &Section, slot: usize, from: u64) -> History {
    let mut history = History { period_ns: ring.period_ns, ..History::default() };
    let (Some(head), Some(places)) = ring_at(map, ring, slot) else { return history };
    // What the writer has made known is there; what it writes meanwhile waits for the next time.
    let next = head.next.read();
    let first = head.first.read().min(next);
    history.next = next;
    // A number that the ring has not come to is of another ring: that of an earlier file.
    let from = if from > next { first } else { from.max(first) };
    let oldest = next.saturating_sub(places.len() as u64).max(from);
    history.missed = oldest - from;
    for number in oldest..next {
        match places[(number % places.len() as u64) as usize].read(number) {
            Found::Record([boot, ns, wall_ns, rx_packets, rx_bytes, tx_packets, tx_bytes]) => {
                history.records.push(Record { number, boot, ns, wall_ns, rx_packets, rx_bytes, tx_packets, tx_bytes })
            }
            Found::Overwritten => history.missed += 1,
        }
    }
    history
}

const _: () = assert!(std::mem::offset_of!(TenantEntry, generation) == 0);
