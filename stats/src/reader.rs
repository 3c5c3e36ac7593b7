//! The reader's side: the same file, mapped read-only, believed only as far as it was checked.

use crate::histogram::Histogram;
use crate::history::{self, History, add_drops};
use crate::layout::{
    HEADER_BYTES, Header, KINDS, Kind, Layout, MAGIC, PortEntry, ReasonEntry, RuleEntry, SectionEntry, SiteEntry,
    TenantEntry, VERSION, WorkerEntry, read_text,
};
use crate::rows::{
    DropRow, HubRow, LoopRow, PortRow, REASONS, RuleRow, SiteRow, SiteState, TenantRow, WorkerState, XdpRow,
};
use crate::sequence::{Counter, Sequence};
use crate::snapshot::{
    Books, Drop, Hub, Lane, Port, Rule, SessionState, Site, SiteKind, Snapshot, Tenant, Traffic, Worker,
};
use crate::sys::{Map, Plain};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use wire::TenantId;

/// How often a snapshot is begun anew because the directory changed meanwhile.
const ATTEMPTS: usize = 1000;
/// How many of these without a pause. A change of ten thousand sites takes some milliseconds.
const AT_ONCE: usize = 100;
const PAUSE: Duration = Duration::from_micros(50);

/// Why a segment could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A system call failed.
    #[error("could not {what} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("{} is no statistics segment: {why}", .path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The file is of another version of ekiden.
    #[error("{} has layout {found}, and this program reads layout {VERSION}", .path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The file became shorter while it was read.
    #[error("{} was truncated while it was read", .path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
    },
    /// The directory changed each time that it was read, or its writer died while it changed it.
    #[error("the directory of {} did not stand still", .path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
}

/// Which history is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Series {
    /// A tenant, by slot: one second, an hour.
    Tenant(usize),
    /// A site, by slot: one second, five minutes.
    Site(usize),
    /// A site, by slot: ten seconds, an hour.
    SiteLong(usize),
    /// A drop reason, by number: ten seconds, an hour.
    Drop(u8),
}

/// A segment, open for reading.
///
/// ```no_run
/// let mut reader = stats::Reader::open("/run/ekiden/tokyo-1/stats".as_ref())?;
/// // Each time: follows by itself, to the next hub of that name.
/// let snapshot = reader.snapshot()?;
/// for tenant in &snapshot.tenants {
///     let history = reader.history(stats::Series::Tenant(tenant.slot), 0)?;
///     println!("{} {} bytes in, {} records", tenant.service_code, tenant.traffic.rx_bytes, history.records.len());
/// }
/// # Ok::<(), stats::ReadError>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    /// The file's device and inode; none if it was handed over and is not to be looked for.
    identity: Option<(u64, u64)>,
    /// None: the hub's own look at its segment, which nothing is to be found out about.
    file: Option<File>,
    map: Arc<Map>,
    layout: Layout,
}

impl Reader {
    /// Maps the segment at `path`, normally `/run/ekiden/NAME/stats`.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let io = |what| move |source| ReadError::Io { what, path: path.into(), source };
        let file = File::open(path).map_err(io("open"))?;
        let metadata = file.metadata().map_err(io("look at"))?;
        let mut this = Self::from_file(file, path)?;
        this.identity = Some((metadata.dev(), metadata.ino()));
        Ok(this)
    }

    /// Maps a segment that the hub has handed over as a descriptor. `path` is its name in messages.
    pub fn from_file(file: File, path: &Path) -> Result<Self, ReadError> {
        let io = |what| move |source| ReadError::Io { what, path: path.into(), source };
        let wrong = |why: String| ReadError::NotASegment { path: path.into(), why };
        let metadata = file.metadata().map_err(io("look at"))?;
        if !metadata.is_file() {
            return Err(wrong("not a regular file".into()));
        }
        let bytes = usize::try_from(metadata.len()).map_err(|_| wrong("larger than memory can be".into()))?;
        if bytes < HEADER_BYTES {
            return Err(wrong(format!("{bytes} bytes; a header has {HEADER_BYTES}")));
        }
        let map = Map::new(&file, bytes, false).map_err(io("map"))?;
        let broken = || wrong("its header can't be read".into());
        let header: &Header = map.row(0).ok_or_else(broken)?;
        if header.magic.read() != MAGIC {
            return Err(wrong("it does not begin like one".into()));
        }
        if header.version.read() != VERSION {
            return Err(ReadError::Version { path: path.into(), found: header.version.read() });
        }
        if header.file_bytes.read() != bytes as u64 {
            let found = header.file_bytes.read();
            return Err(wrong(format!("{bytes} bytes, where its header says {found}: truncated, or damaged")));
        }
        if header.sections.read() < KINDS.len() as u64 || header.header_bytes.read() != HEADER_BYTES as u64 {
            return Err(wrong("sections are missing".into()));
        }
        let table: &[SectionEntry] = map.rows(size_of::<Header>(), KINDS.len()).ok_or_else(broken)?;
        let layout = Layout::read(table, bytes).map_err(wrong)?;
        Ok(Self { path: path.into(), identity: None, file: Some(file), map: Arc::new(map), layout })
    }

    /// What the hub reads of its own, by the very code by which everybody reads it.
    pub(crate) fn own(map: &Arc<Map>, layout: &Layout, header: &Header) -> Snapshot {
        let this = Self { path: PathBuf::new(), identity: None, file: None, map: map.clone(), layout: layout.clone() };
        this.attempt(header).expect("all rows of the layout that the hub made are in its mapping")
    }

    /// Everything, as it is now. If another hub of that name has started, its file is read: `hub.boot_id` tells.
    pub fn snapshot(&mut self) -> Result<Snapshot, ReadError> {
        self.follow()?;
        self.read()
    }

    /// What a ring has from record `from` on: 0 at first, then [`History::next`]. After another boot id, or for another
    /// generation of a slot, begin with 0 again.
    pub fn history(&self, series: Series, from: u64) -> Result<History, ReadError> {
        let (kind, slot) = match series {
            Series::Tenant(slot) => (Kind::TenantHistory, slot),
            Series::Site(slot) => (Kind::SiteHistory, slot),
            Series::SiteLong(slot) => (Kind::SiteHistoryLong, slot),
            Series::Drop(number) => (Kind::DropHistory, number.into()),
        };
        let ring = self.layout.section(kind);
        if slot >= self.layout.used(&self.map, kind) {
            return Ok(History { period_ns: ring.period_ns, ..History::default() });
        }
        let history = history::read(&self.map, ring, slot, from);
        self.whole()?;
        Ok(history)
    }

    /// How far back a series goes if something moved in every period of it.
    pub fn history_span_ns(&self, series: Series) -> u64 {
        let ring = self.layout.section(match series {
            Series::Tenant(_) => Kind::TenantHistory,
            Series::Site(_) => Kind::SiteHistory,
            Series::SiteLong(_) => Kind::SiteHistoryLong,
            Series::Drop(_) => Kind::DropHistory,
        });
        (ring.depth as u64).saturating_mul(ring.period_ns)
    }

    /// Opens the file that has the name now, if it is another. While there is none, the old one is read on.
    fn follow(&mut self) -> Result<(), ReadError> {
        if let Some(identity) = self.identity
            && let Ok(metadata) = std::fs::metadata(&self.path)
            && (metadata.dev(), metadata.ino()) != identity
        {
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }

    /// Says if the file has become shorter: what was read beyond its end was not the hub's.
    fn whole(&self) -> Result<(), ReadError> {
        let Some(file) = &self.file else { return Ok(()) };
        let short = file.metadata().map_or(true, |metadata| metadata.len() < self.map.len() as u64);
        match short || self.map.lost() {
            true => Err(ReadError::Truncated { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    fn read(&self) -> Result<Snapshot, ReadError> {
        let header: &Header = self.row_at(0)?;
        let sequence = Sequence::of(&header.sequence);
        for attempt in 0..ATTEMPTS {
            if let Some(begun) = sequence.begin() {
                let result = self.attempt(header);
                self.whole()?;
                let snapshot = result?;
                if sequence.unchanged(begun) {
                    return Ok(snapshot);
                }
            }
            if attempt < AT_ONCE { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
        }
        self.whole()?;
        Err(ReadError::Busy { path: self.path.clone() })
    }

    /// One look at everything: outputs before inputs, and the directory with them.
    fn attempt(&self, header: &Header) -> Result<Snapshot, ReadError> {
        let mut tenants = self.tenants()?;
        let mut sites = self.sites()?;
        let mut rules = self.rules()?;
        let mut ports = self.ports()?;
        let mut workers = self.workers()?;
        let mut books = Books::default();
        let sum = |total: &mut u64, counter: &Counter| *total = total.wrapping_add(counter.read());

        // What has left: completed, dropped, sealed, in any order.
        for port in &mut ports {
            for w in 0..workers.len() {
                let row: &PortRow = self.row(Kind::PortRows, w, port.slot)?;
                sum(&mut port.completed_frames, &row.completed_frames);
                sum(&mut port.tx_frames, &row.tx_frames);
                sum(&mut port.tx_bytes, &row.tx_bytes);
            }
            books.outputs = books.outputs.wrapping_add(port.completed_frames);
        }
        let mut drops = [(0, 0); REASONS];
        for w in 0..self.layout.section(Kind::HubDrops).blocks {
            let mut own = [(0, 0); REASONS];
            add_drops(&mut own, self.row(Kind::HubDrops, w, 0)?);
            add(&mut drops, &own);
            // Beside the workers' rows are control's and XDP's.
            if w < workers.len() {
                books.outputs = own.iter().fold(books.outputs, |sum, (packets, _)| sum.wrapping_add(*packets));
            }
        }
        for slot in 0..self.layout.used(&self.map, Kind::Tenants) {
            let mut own = [(0, 0); REASONS];
            for w in 0..workers.len() {
                add_drops(&mut own, self.row::<DropRow>(Kind::TenantDrops, w, slot)?);
            }
            add(&mut drops, &own);
            books.outputs = own.iter().fold(books.outputs, |sum, (packets, _)| sum.wrapping_add(*packets));
            if let Ok(at) = tenants.binary_search_by_key(&slot, |tenant| tenant.slot) {
                let some = own.iter().enumerate().filter(|(_, (packets, _))| *packets > 0);
                tenants[at].drops = some.map(|(number, (packets, bytes))| (number as u8, *packets, *bytes)).collect();
            }
        }
        for worker in &mut workers {
            let row: &LoopRow = self.row(Kind::LoopRows, worker.slot, 0)?;
            worker.to_control = row.to_control.read();
            worker.keepalives = row.keepalives.read();
            books.outputs = books.outputs.wrapping_add(worker.to_control).wrapping_add(worker.keepalives);
            worker.latency.add_row(self.row(Kind::Latency, worker.slot, 0)?);
            worker.ring_time.add_row(self.row(Kind::RingTime, worker.slot, 0)?);
        }
        for w in 0..workers.len() {
            for tenant in &mut tenants {
                let (row, traffic) = (self.row::<TenantRow>(Kind::TenantRows, w, tenant.slot)?, &mut tenant.traffic);
                sum(&mut traffic.tx_outer_bytes, &row.tx_outer_bytes);
                sum(&mut traffic.tx_packets, &row.tx_packets);
                sum(&mut traffic.tx_bytes, &row.tx_bytes);
                sum(&mut traffic.tx_keepalives, &row.tx_keepalives);
            }
            for site in &mut sites {
                let (row, traffic) = (self.row::<SiteRow>(Kind::SiteRows, w, site.slot)?, &mut site.traffic);
                sum(&mut traffic.tx_outer_bytes, &row.tx_outer_bytes);
                sum(&mut traffic.tx_packets, &row.tx_packets);
                sum(&mut traffic.tx_bytes, &row.tx_bytes);
                sum(&mut traffic.tx_keepalives, &row.tx_keepalives);
                sum(&mut site.staged, &row.staged);
                sum(&mut site.tx_over_rate, &row.tx_over_rate);
                site.data_sent_at = site.data_sent_at.max(row.data_sent_at.read());
            }
        }

        // What has come in: nothing that left is missing here.
        for w in 0..workers.len() {
            for site in &mut sites {
                let (row, traffic) = (self.row::<SiteRow>(Kind::SiteRows, w, site.slot)?, &mut site.traffic);
                sum(&mut site.rx_over_rate, &row.rx_over_rate);
                sum(&mut traffic.rx_packets, &row.rx_packets);
                sum(&mut traffic.rx_bytes, &row.rx_bytes);
                sum(&mut traffic.rx_keepalives, &row.rx_keepalives);
                sum(&mut traffic.rx_outer_packets, &row.rx_outer_packets);
                sum(&mut traffic.rx_outer_bytes, &row.rx_outer_bytes);
                site.data_received_at = site.data_received_at.max(row.data_received_at.read());
            }
            for tenant in &mut tenants {
                let (row, traffic) = (self.row::<TenantRow>(Kind::TenantRows, w, tenant.slot)?, &mut tenant.traffic);
                sum(&mut traffic.rx_packets, &row.rx_packets);
                sum(&mut traffic.rx_bytes, &row.rx_bytes);
                sum(&mut traffic.rx_keepalives, &row.rx_keepalives);
                sum(&mut traffic.rx_outer_packets, &row.rx_outer_packets);
                sum(&mut traffic.rx_outer_bytes, &row.rx_outer_bytes);
            }
        }
        for traffic in sites.iter_mut().map(|s| &mut s.traffic).chain(tenants.iter_mut().map(|t| &mut t.traffic)) {
            traffic.tx_outer_packets = traffic.tx_packets.wrapping_add(traffic.tx_keepalives);
        }
        for site in &mut sites {
            let row: &SiteState = self.row(Kind::SiteStates, 0, site.slot)?;
            site.session = match row.session.read() {
                1 => SessionState::Handshake,
                2 => SessionState::Live,
                3 => SessionState::Rekey,
                4 => SessionState::Expired,
                5 => SessionState::Attached,
                _ => SessionState::None,
            };
            site.last_handshake_at = row.last_handshake_at.read();
            site.handshakes = row.handshakes.read();
            site.located = row.located.read() == 1;
            site.shed_packets = row.shed_packets.read();
            site.lane = (site.kind == SiteKind::Lane).then(|| Lane {
                up: row.up.read() == 1,
                rtt_us: row.rtt_us.read(),
                jitter_us: row.jitter_us.read(),
                probes_sent: row.probes_sent.read(),
                probes_lost: row.probes_lost.read(),
                loss_ppm: row.loss_ppm.read(),
                changes: row.changes.read(),
                since_ns: row.since_ns.read(),
                mtu: row.mtu.read(),
            });
        }
        for worker in &mut workers {
            let row: &LoopRow = self.row(Kind::LoopRows, worker.slot, 0)?;
            worker.generated = row.generated.read();
            worker.reassembled = row.reassembled.read();
            worker.turns = row.turns.read();
            worker.batches = row.batches.read();
            worker.frames = row.frames.read();
            worker.staged = row.staged.read();
            worker.chunks_free = row.chunks_free.read();
            worker.busy_ns = row.busy_ns.read();
            worker.asleep_ns = row.asleep_ns.read();
            worker.helped_frames = row.helped_frames.read();
            let state: &WorkerState = self.row(Kind::WorkerStates, 0, worker.slot)?;
            worker.busy_ppm = state.busy_ppm.read();
            worker.batch_milliframes = state.batch_milliframes.read();
            books.inputs = books.inputs.wrapping_add(worker.generated).wrapping_add(worker.reassembled);
        }
        for port in &mut ports {
            for w in 0..workers.len() {
                let row: &PortRow = self.row(Kind::PortRows, w, port.slot)?;
                sum(&mut port.rx_frames, &row.rx_frames);
                sum(&mut port.rx_bytes, &row.rx_bytes);
                sum(&mut port.ring_lost, &row.ring_lost);
                sum(&mut port.ring_fill, &row.ring_fill);
            }
            books.inputs = books.inputs.wrapping_add(port.rx_frames);
            let row: &XdpRow = self.row(Kind::XdpRows, 0, port.slot)?;
            port.xdp_redirected_frames = row.redirected_frames.read();
            port.xdp_redirected_bytes = row.redirected_bytes.read();
            port.xdp_dropped_frames = row.dropped_frames.read();
            port.xdp_dropped_bytes = row.dropped_bytes.read();
            port.xdp_passed_frames = row.passed_frames.read();
            port.xdp_passed_bytes = row.passed_bytes.read();
            port.xdp_seen_frames = row.seen_frames.read();
            port.xdp_seen_bytes = row.seen_bytes.read();
        }
        for rule in &mut rules {
            for w in 0..workers.len() {
                let row: &RuleRow = self.row(Kind::RuleRows, w, rule.slot)?;
                sum(&mut rule.packets, &row.packets);
                sum(&mut rule.bytes, &row.bytes);
            }
        }
        let (hub, drops) = (self.hub(header)?, self.drops(&drops)?);
        Ok(Snapshot { hub, tenants, sites, rules, ports, workers, drops, books })
    }

    fn hub(&self, header: &Header) -> Result<Hub, ReadError> {
        let row: &HubRow = self.row(Kind::HubRow, 0, 0)?;
        let mut boot_id = [0; 16];
        for (bytes, word) in boot_id.chunks_mut(8).zip(&header.boot_id) {
            bytes.copy_from_slice(&word.read().to_le_bytes());
        }
        Ok(Hub {
            name: read_text(&header.hub),
            build: read_text(&header.build),
            pid: header.pid.read() as u32,
            boot_id,
            generation: header.generation.read(),
            started_wall_ns: header.started_wall_ns.read(),
            ended: header.state.read() == 3,
            config_hash: header.config_hash.read(),
            configured_wall_ns: header.configured_wall_ns.read(),
            ticked_ns: row.ticked_ns.read(),
            ticked_wall_ns: row.ticked_wall_ns.read(),
            sessions: row.sessions.read(),
            session_capacity: row.session_capacity.read(),
            clock_synchronised: match row.clock_synchronised.read() {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            handshakes_begun: row.handshakes_begun.read(),
            handshakes_answered: row.handshakes_answered.read(),
            handshakes_completed: row.handshakes_completed.read(),
            handshakes_given_up: row.handshakes_given_up.read(),
            cookies_sent: row.cookies_sent.read(),
            paths: row.paths.read(),
            paths_other: row.paths_other.read(),
            paths_dead: row.paths_dead.read(),
        })
    }

    fn tenants(&self) -> Result<Vec<Tenant>, ReadError> {
        self.occupied(Kind::Tenants, |slot, entry: &TenantEntry| Tenant {
            slot,
            generation: entry.generation.read(),
            // The hub writes 24 bits; of what a damaged file says, the low ones.
            id: TenantId::new(entry.id.read() & u64::from(TenantId::MAX)).expect("24 bits"),
            service_code: read_text(&entry.service_code),
            label: read_text(&entry.label),
            traffic: Traffic::default(),
            drops: Vec::new(),
        })
    }

    fn sites(&self) -> Result<Vec<Site>, ReadError> {
        self.occupied(Kind::Sites, |slot, entry: &SiteEntry| Site {
            slot,
            generation: entry.generation.read(),
            tenant: entry.tenant.read() as usize,
            // What only later versions know is a tenant's, or, by its tenant, nobody's.
            kind: match entry.kind.read() {
                1 => SiteKind::Access,
                2 => SiteKind::Trunk,
                3 => SiteKind::Lane,
                _ => SiteKind::Site,
            },
            name: read_text(&entry.name),
            traffic: Traffic::default(),
            lane: None,
            staged: 0,
            rx_over_rate: 0,
            tx_over_rate: 0,
            data_received_at: 0,
            data_sent_at: 0,
            session: SessionState::None,
            last_handshake_at: 0,
            handshakes: 0,
            located: false,
            shed_packets: 0,
        })
    }

    fn rules(&self) -> Result<Vec<Rule>, ReadError> {
        self.occupied(Kind::Rules, |slot, entry: &RuleEntry| Rule {
            slot,
            generation: entry.generation.read(),
            tenant: entry.tenant.read() as usize,
            name: read_text(&entry.name),
            deny: entry.action.read() == 2,
            packets: 0,
            bytes: 0,
        })
    }

    fn ports(&self) -> Result<Vec<Port>, ReadError> {
        self.occupied(Kind::Ports, |slot, entry: &PortEntry| Port {
            slot,
            name: read_text(&entry.name),
            queues: entry.queues.read(),
            ring_entries: entry.ring_entries.read(),
            ..Port::default()
        })
    }

    fn workers(&self) -> Result<Vec<Worker>, ReadError> {
        let rows = self.layout.section(Kind::Workers).rows;
        let worker = |slot| {
            let entry: &WorkerEntry = self.row(Kind::Workers, 0, slot)?;
            let (core, chunks) = (entry.core.read(), entry.chunks.read());
            let (latency, ring_time) = (Histogram::default(), Histogram::default());
            Ok(Worker { slot, core, chunks, latency, ring_time, ..Worker::default() })
        };
        (0..rows).map(worker).collect()
    }

    fn drops(&self, sums: &[(u64, u64); REASONS]) -> Result<Vec<Drop>, ReadError> {
        let mut drops = self.occupied(Kind::Reasons, |slot, entry: &ReasonEntry| Drop {
            number: slot as u8,
            name: read_text(&entry.name),
            packets: 0,
            bytes: 0,
        })?;
        for drop in &mut drops {
            (drop.packets, drop.bytes) = sums[usize::from(drop.number)];
        }
        Ok(drops)
    }

    /// Makes something of every slot of a directory that is not empty.
    fn occupied<T: Plain, R>(&self, kind: Kind, make: impl Fn(usize, &T) -> R) -> Result<Vec<R>, ReadError> {
        let mut all = Vec::new();
        for slot in 0..self.layout.used(&self.map, kind) {
            // Every entry begins with its generation.
            let row: &T = self.row(kind, 0, slot)?;
            let generation: &Counter = self.row_at(self.layout.section(kind).at(0, slot))?;
            if generation.read() % 2 == 1 {
                all.push(make(slot, row));
            }
        }
        Ok(all)
    }

    fn row<T: Plain>(&self, kind: Kind, block: usize, row: usize) -> Result<&T, ReadError> {
        self.row_at(self.layout.section(kind).at(block, row))
    }

    fn row_at<T: Plain>(&self, offset: usize) -> Result<&T, ReadError> {
        let broken = || ReadError::NotASegment { path: self.path.clone(), why: "a row is not within the file".into() };
        self.map.row(offset).ok_or_else(broken)
    }
}

fn add(sums: &mut [(u64, u64); REASONS], more: &[(u64, u64); REASONS]) {
    for (sum, (packets, bytes)) in sums.iter_mut().zip(more) {
        *sum = (sum.0.wrapping_add(*packets), sum.1.wrapping_add(*bytes));
    }
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(TenantEntry, generation) == 0 && offset_of!(SiteEntry, generation) == 0);
    assert!(offset_of!(PortEntry, generation) == 0 && offset_of!(ReasonEntry, generation) == 0);
    assert!(offset_of!(RuleEntry, generation) == 0);
};
