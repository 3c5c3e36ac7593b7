//! The layout of a segment: what stands where. `docs/STATS.md` is its contract, `include/ekiden_stats.h` the same in C; tests
//! hold the three together.
//!
//! Everything is a `u64` in the byte order of x86 and ARM, least significant first; text is UTF-8, padded with zeros.

use crate::rows::{
    DropRow, HistogramRow, HubRow, LoopRow, PortRow, REASONS, RuleRow, Shape, SiteRow, SiteState, TenantRow,
    WorkerState, XdpRow,
};
use crate::sequence::{Counter, Place};
use crate::sys::Map;
use std::mem::size_of;
use std::ops::Range;

/// What a segment begins with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"ekidstat");
/// The version of the layout. A reader refuses another; additions go where this version has rests, or to the ends of rows, whose
/// length the sections tell.
pub const VERSION: u64 = 1;

/// A field of a row: its place is a part of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, also in C.
    pub name: &'static str,
    /// Bytes before it.
    pub offset: usize,
    /// Its own bytes.
    pub bytes: usize,
}

/// Makes a row of counters, in the order in which they are written, and the list of its fields.
macro_rules! record {
    (@type) => { $crate::sequence::Counter };
    (@type $n:expr) => { [$crate::sequence::Counter; $n] };
    ($(#[$doc:meta])* $vis:vis $name:ident { $($(#[$field_doc:meta])* $field_vis:vis $field:ident $(: $n:expr)?,)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[repr(C, align(64))]
        $vis struct $name {
            $($(#[$field_doc])* $field_vis $field: $crate::layout::record!(@type $($n)?),)*
        }

        impl $name {
            /// Its fields, as they lie in the segment.
            pub const FIELDS: &'static [$crate::layout::Field] = &[$($crate::layout::Field {
                name: stringify!($field),
                offset: std::mem::offset_of!($name, $field),
                bytes: std::mem::size_of::<$crate::layout::record!(@type $($n)?)>(),
            },)*];
        }
    };
}
pub(crate) use record;

/// Words of a name: 256 bytes, 64 characters of any kind.
pub(crate) const NAME: usize = 32;

record! {
    /// The first bytes of a segment. All but `state`, `sequence` and what it guards is written before the file has its name.
    pub Header {
        /// `ekidstat`.
        pub(crate) magic,
        /// 1.
        pub(crate) version,
        /// Bytes of the header, the table of sections included.
        pub(crate) header_bytes,
        /// Bytes of the file.
        pub(crate) file_bytes,
        /// 1: live. 2: superseded, a newer file has the name. 3: the hub has ended in order.
        pub(crate) state,
        /// 1; one more each time that a hub made its segment anew while it ran, which hubs of today don't.
        pub(crate) generation,
        /// 16 random bytes, others for each start of the hub.
        pub(crate) boot_id: 2,
        /// When the hub started: ns since 1970.
        pub(crate) started_wall_ns,
        /// The same by CLOCK_BOOTTIME.
        pub(crate) started_ns,
        /// The hub's process.
        pub(crate) pid,
        /// Entries of the table of sections.
        pub(crate) sections,
        /// Guards the directory, `config_hash` and `configured_wall_ns`: odd while they change.
        pub(crate) sequence,
        /// Tells configurations apart.
        pub(crate) config_hash,
        /// When the directory was last changed: ns since 1970.
        pub(crate) configured_wall_ns,
        /// Room for what comes.
        pub(crate) rest,
        /// The version of the program, as text.
        pub(crate) build: 8,
        /// The hub's name, as text.
        pub(crate) hub: 8,
        /// Room for what comes.
        pub(crate) rest2: 32,
    }
}

record! {
    /// Where the rows of a kind are: row `r` of block `b` begins at `offset + (b * rows + r) * stride`.
    pub SectionEntry {
        /// Bytes from the beginning of the file.
        pub(crate) offset,
        /// Bytes from one row to the next; at least those that this version knows.
        pub(crate) stride,
        /// Rows of a block: tenants, sites, ports...
        pub(crate) rows,
        /// Blocks: one for each writer.
        pub(crate) blocks,
        /// Places of a ring, in sections of history; else 0.
        pub(crate) depth,
        /// How often a ring may get a record: ns; else 0.
        pub(crate) period_ns,
        /// Rows of a block that have memory now: behind them nothing is, and looking there takes some. It only grows. 0: all.
        pub(crate) used,
        /// Room for what comes.
        pub(crate) rest,
    }
}

record! {
    /// A tenant of the directory.
    pub TenantEntry {
        /// Even: the slot is empty. Another odd number: another tenant, whose counters began at zero.
        pub(crate) generation,
        /// The id of 24 bits.
        pub(crate) id,
        /// Room for what comes.
        pub(crate) rest: 6,
        /// The service code; empty if there is none.
        pub(crate) service_code: NAME,
        /// The label, cut after 256 bytes; empty if there is none.
        pub(crate) label: NAME,
    }
}

record! {
    /// An end of a tenant: a site, or what else its packets come from and go to. Or a lane of a trunk, which is no tenant's.
    pub SiteEntry {
        /// Even: the slot is empty. Another odd number: another site, whose counters began at zero.
        pub(crate) generation,
        /// The slot of its tenant; 2^64 - 1 for a lane.
        pub(crate) tenant,
        /// 0: a site. 1: an access end. 2: what a trunk carries of the tenant. 3: a lane of a trunk.
        pub(crate) kind,
        /// Room for what comes.
        pub(crate) rest: 5,
        /// Its name, unique within its tenant: of what a trunk carries `trunk:NAME`, of a lane `NAME/0`, `NAME/1`...
        pub(crate) name: NAME,
    }
}

record! {
    /// A port of the directory.
    pub PortEntry {
        /// Even: the slot is empty.
        pub(crate) generation,
        /// Receive queues.
        pub(crate) queues,
        /// Entries of each of its receive rings: as many frames may wait there.
        pub(crate) ring_entries,
        /// Room for what comes.
        pub(crate) rest: 5,
        /// The name of its interface.
        pub(crate) name: 8,
    }
}

record! {
    /// A worker of the directory.
    pub WorkerEntry {
        /// Even: the slot is empty.
        pub(crate) generation,
        /// The core that it runs on.
        pub(crate) core,
        /// Chunks of packet memory that are its own.
        pub(crate) chunks,
        /// Room for what comes.
        pub(crate) rest: 5,
    }
}

record! {
    /// A drop reason of the directory; its slot is its number.
    pub ReasonEntry {
        /// Even: there is no such reason.
        pub(crate) generation,
        /// Room for what comes.
        pub(crate) rest: 7,
        /// Its name.
        pub(crate) name: 8,
    }
}

record! {
    /// A rule of a tenant's filter. The rules of a tenant stand in their order, and behind them what becomes of packets that none
    /// of them matches, as a rule by the name `default`.
    pub RuleEntry {
        /// Even: the slot is empty. Another odd number: another rule, whose counters began at zero.
        pub(crate) generation,
        /// The slot of its tenant.
        pub(crate) tenant,
        /// 1: allow. 2: deny.
        pub(crate) action,
        /// Room for what comes.
        pub(crate) rest: 5,
        /// Its name, unique within its tenant; its place from 1 if it was given none.
        pub(crate) name: NAME,
    }
}

record! {
    /// What a ring of history begins with; its places follow, 64 bytes each.
    pub RingHead {
        /// Records that the ring ever got: the number of the next one. Record `n` is in place `n % depth`.
        pub(crate) next,
        /// The number of the first record of the slot's present generation: earlier ones are another's.
        pub(crate) first,
        /// Room for what comes.
        pub(crate) rest: 6,
    }
}

/// The sections, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "docs/STATS.md has a row for each")]
pub enum Kind {
    Tenants,
    Sites,
    Ports,
    Workers,
    Reasons,
    SiteRows,
    TenantRows,
    TenantDrops,
    HubDrops,
    PortRows,
    LoopRows,
    Latency,
    RingTime,
    XdpRows,
    HubRow,
    WorkerStates,
    SiteStates,
    TenantHistory,
    SiteHistory,
    SiteHistoryLong,
    DropHistory,
    Rules,
    RuleRows,
}

use Kind::*;

/// All sections, each with its name in `docs/STATS.md` and the bytes of its row that this version knows; a ring's are its head.
pub const KINDS: [(Kind, &str, usize); 23] = [
    (Tenants, "tenants", size_of::<TenantEntry>()),
    (Sites, "sites", size_of::<SiteEntry>()),
    (Ports, "ports", size_of::<PortEntry>()),
    (Workers, "workers", size_of::<WorkerEntry>()),
    (Reasons, "reasons", size_of::<ReasonEntry>()),
    (SiteRows, "site_rows", size_of::<SiteRow>()),
    (TenantRows, "tenant_rows", size_of::<TenantRow>()),
    (TenantDrops, "tenant_drops", size_of::<DropRow>()),
    (HubDrops, "hub_drops", size_of::<DropRow>()),
    (PortRows, "port_rows", size_of::<PortRow>()),
    (LoopRows, "loop_rows", size_of::<LoopRow>()),
    (Latency, "latency", size_of::<HistogramRow>()),
    (RingTime, "ring_time", size_of::<HistogramRow>()),
    (XdpRows, "xdp_rows", size_of::<XdpRow>()),
    (Kind::HubRow, "hub_row", size_of::<HubRow>()),
    (WorkerStates, "worker_states", size_of::<WorkerState>()),
    (SiteStates, "site_states", size_of::<SiteState>()),
    (TenantHistory, "tenant_history", size_of::<RingHead>()),
    (SiteHistory, "site_history", size_of::<RingHead>()),
    (SiteHistoryLong, "site_history_long", size_of::<RingHead>()),
    (DropHistory, "drop_history", size_of::<RingHead>()),
    (Rules, "rules", size_of::<RuleEntry>()),
    (RuleRows, "rule_rows", size_of::<RuleRow>()),
];

/// Bytes of the header with its table of sections: room for 56 of them.
pub const HEADER_BYTES: usize = 4096;
const SECOND: u64 = 1_000_000_000;
/// Records of an hour, in the four sections of history, and the time from one to the next.
const DEPTHS: [(Kind, u64, u64); 4] = [
    (TenantHistory, 3600, SECOND),
    (SiteHistory, 300, SECOND),
    (SiteHistoryLong, 360, 10 * SECOND),
    (DropHistory, 360, 10 * SECOND),
];

/// The rows of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) offset: usize,
    pub(crate) stride: usize,
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
    pub(crate) depth: usize,
    pub(crate) period_ns: u64,
}

impl Section {
    /// Where a row begins. For a row that there is.
    pub(crate) fn at(&self, block: usize, row: usize) -> usize {
        self.offset + (block * self.rows + row) * self.stride
    }

    fn bytes(&self) -> usize {
        self.blocks * self.rows * self.stride
    }
}

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) sections: [Section; KINDS.len()],
    pub(crate) bytes: usize,
}

impl Layout {
    /// With places for so many rows of each kind, and with as much of the history as `memory` bytes allow for those that are used.
    pub(crate) fn new(used: Shape, places: Shape, workers: usize, memory: u64) -> Self {
        // What part of the history fits, in 4096ths: rings hold at least one record.
        let mut low = 0;
        let mut high = WHOLE;
        while low < high {
            let middle = (low + high).div_ceil(2);
            if Self::with_history(used, workers, middle).bytes as u64 <= memory {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Self::with_history(places, workers, low)
    }

    fn with_history(shape: Shape, workers: usize, part: u64) -> Self {
        let mut offset = HEADER_BYTES;
        let sections = KINDS.map(|(kind, _, row)| {
            let (rows, blocks) = count(kind, shape, workers);
            let ring = DEPTHS.iter().find(|(ring, ..)| *ring == kind);
            let depth = ring.map_or(0, |(_, depth, _)| (depth * part / WHOLE).max(1)) as usize;
            let period_ns = ring.map_or(0, |(.., period)| *period);
            let section = Section { offset, stride: row + depth * size_of::<Place>(), rows, blocks, depth, period_ns };
            offset += section.bytes();
            section
        });
        Self { sections, bytes: offset }
    }

    pub(crate) fn section(&self, kind: Kind) -> &Section {
        &self.sections[kind as usize]
    }

    /// Rows of a kind that are used, by the table of sections as it is now.
    pub(crate) fn used(&self, map: &Map, kind: Kind) -> usize {
        let rows = self.section(kind).rows;
        let entry: Option<&SectionEntry> = map.row(size_of::<Header>() + kind as usize * size_of::<SectionEntry>());
        match entry.map_or(0, |entry| entry.used.read()) {
            0 => rows,
            used => rows.min(usize::try_from(used).unwrap_or(rows)),
        }
    }

    /// Bytes of memory, if so many rows are used.
    pub(crate) fn memory(&self, used: Shape) -> u64 {
        let spans: usize = self.spans(Shape::default(), used).map(|(_, span)| span.len()).sum();
        (HEADER_BYTES + spans) as u64
    }

    /// What rows lie in that are used if `to` are, and not if `from` are. Of kinds that are always the same in number, those of an
    /// empty `from`.
    pub(crate) fn spans(&self, from: Shape, to: Shape) -> impl Iterator<Item = (Kind, Range<usize>)> + '_ {
        let workers = self.section(Workers).rows;
        KINDS.iter().zip(&self.sections).flat_map(move |((kind, ..), section)| {
            let before = if from == Shape::default() { 0 } else { count(*kind, from, workers).0 };
            let rows = before..count(*kind, to, workers).0.max(before);
            let span = move |block| (*kind, section.at(block, rows.start)..section.at(block, rows.end));
            (0..section.blocks).map(span).filter(|(_, span)| !span.is_empty())
        })
    }

    /// What is short of the hour that each history should tell, in a sentence; `None` if nothing is.
    pub(crate) fn shortened(&self, used: Shape, memory: u64) -> Option<String> {
        let short = |(kind, depth, _): &(Kind, u64, u64)| (self.section(*kind).depth as u64) < *depth;
        if !DEPTHS.iter().any(short) {
            return None;
        }
        let span = |kind| {
            let section = self.section(kind);
            section.depth as u64 * section.period_ns / SECOND
        };
        let whole = Self::with_history(used, self.section(Workers).rows, WHOLE).bytes as u64;
        let what = if self.memory(used) > memory {
            "the counters alone need more than"
        } else {
            "history is shortened to fit"
        };
        Some(format!(
            "statistics: {what} {} MiB: {} s of tenants, {} s and {} s of sites; all of it takes {} MiB",
            memory >> 20,
            span(TenantHistory),
            span(SiteHistory),
            span(SiteHistoryLong),
            whole.div_ceil(1 << 20),
        ))
    }

    /// How many rows of each kind there are places for.
    pub(crate) fn shape(&self) -> Shape {
        let rows = |kind| self.section(kind).rows;
        Shape { tenants: rows(Tenants), sites: rows(Sites), ports: rows(Ports), rules: rows(Rules) }
    }

    /// Writes the table of sections.
    pub(crate) fn write(&self, table: &[SectionEntry]) {
        for (entry, section) in table.iter().zip(&self.sections) {
            let set = |field: &Counter, value: usize| field.set(value as u64);
            set(&entry.offset, section.offset);
            set(&entry.stride, section.stride);
            set(&entry.rows, section.rows);
            set(&entry.blocks, section.blocks);
            set(&entry.depth, section.depth);
            entry.period_ns.set(section.period_ns);
        }
    }

    /// Says that so many rows have memory. Once they have.
    pub(crate) fn write_used(&self, table: &[SectionEntry], used: Shape) {
        let workers = self.section(Workers).rows;
        for (entry, (kind, ..)) in table.iter().zip(&KINDS) {
            entry.used.set(count(*kind, used, workers).0 as u64);
        }
    }

    /// Reads a table of sections that anybody may have written; `Err` says what is wrong with it.
    pub(crate) fn read(table: &[SectionEntry], bytes: usize) -> Result<Self, String> {
        let mut sections = Vec::with_capacity(KINDS.len());
        for ((_, name, row), entry) in KINDS.iter().zip(table) {
            let read = |field: &Counter| usize::try_from(field.read()).unwrap_or(usize::MAX);
            let section = Section {
                offset: read(&entry.offset),
                stride: read(&entry.stride),
                rows: read(&entry.rows),
                blocks: read(&entry.blocks),
                depth: read(&entry.depth),
                period_ns: entry.period_ns.read(),
            };
            let end = section.rows.checked_mul(section.blocks).and_then(|n| n.checked_mul(section.stride));
            let end = end.and_then(|n| n.checked_add(section.offset));
            let row = section.depth.checked_mul(size_of::<Place>()).and_then(|places| places.checked_add(*row));
            let ring = name.ends_with("_history") || name.ends_with("_history_long");
            let aligned = section.offset.is_multiple_of(64) && section.stride.is_multiple_of(64);
            if !(aligned
                && end.is_some_and(|end| end <= bytes)
                && row.is_some_and(|row| section.stride >= row)
                && section.offset >= HEADER_BYTES
                && ring == (section.depth > 0))
            {
                return Err(format!("the section {name} is not within the file"));
            }
            sections.push(section);
        }
        let sections = sections.try_into().map_err(|_| "sections are missing".to_owned())?;
        let layout = Self { sections, bytes };
        // Rows of one thing are equally many, wherever they are; else counts would be given to the wrong ones.
        let same = Self::with_history(layout.shape(), layout.section(Workers).rows, 0);
        let agree = |((_, name, _), (a, b)): (&(Kind, &str, usize), (&Section, &Section))| {
            ((a.rows, a.blocks) != (b.rows, b.blocks)).then(|| format!("the section {name} has another number of rows"))
        };
        match KINDS.iter().zip(layout.sections.iter().zip(&same.sections)).find_map(agree) {
            Some(wrong) => Err(wrong),
            None => Ok(layout),
        }
    }
}

/// Rows of a block, and blocks.
fn count(kind: Kind, shape: Shape, workers: usize) -> (usize, usize) {
    match kind {
        Tenants | TenantHistory => (shape.tenants, 1),
        Sites | SiteStates | SiteHistory | SiteHistoryLong => (shape.sites, 1),
        Ports | XdpRows => (shape.ports, 1),
        Workers | WorkerStates => (workers, 1),
        Reasons | DropHistory => (REASONS, 1),
        SiteRows => (shape.sites, workers),
        TenantRows | TenantDrops => (shape.tenants, workers),
        HubDrops => (1, workers + 2),
        PortRows => (shape.ports, workers),
        LoopRows | Latency | RingTime => (1, workers),
        Kind::HubRow => (1, 1),
        Rules => (shape.rules, 1),
        RuleRows => (shape.rules, workers),
    }
}

/// The whole history, in the unit of [`Layout::with_history`].
const WHOLE: u64 = 4096;

const _: () = assert!(size_of::<Header>() == 512 && 512 + 56 * size_of::<SectionEntry>() == HEADER_BYTES);
const _: () = {
    let mut at = 0;
    while at < KINDS.len() {
        assert!(KINDS[at].0 as usize == at && KINDS[at].2.is_multiple_of(64));
        at += 1;
    }
};

/// Text into words, cut at a character if it is too long.
pub(crate) fn write_text(words: &[Counter], text: &str) {
    let text = &text.as_bytes()[..text.floor_char_boundary(words.len() * 8)];
    for (at, word) in words.iter().enumerate() {
        let mut bytes = [0; 8];
        let part = text.get(at * 8..).unwrap_or_default();
        let part = &part[..part.len().min(8)];
        bytes[..part.len()].copy_from_slice(part);
        word.set(u64::from_le_bytes(bytes));
    }
}

/// Text of words; what is not UTF-8 is replaced.
pub(crate) fn read_text(words: &[Counter]) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.read().to_le_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
