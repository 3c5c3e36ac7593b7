//! The writer's side: a file that is made under another name, mapped, filled and then given its own.

use crate::directory::Directory;
use crate::history;
use crate::layout::{HEADER_BYTES, Header, KINDS, Kind, Layout, MAGIC, ReasonEntry, SectionEntry, VERSION, write_text};
use crate::reader::Reader;
use crate::rows::{ControlRows, One, Rows, Shape};
use crate::sequence::Sequence;
use crate::snapshot::Snapshot;
use crate::sys::{Map, Plain, View};
use rustix::fs::{FallocateFlags, Gid};
use rustix::time::{ClockId, clock_gettime};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use wire::DROP_REASONS;

/// What a segment is made for.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The hub's name.
    pub hub: String,
    /// The version of the program.
    pub build: String,
    /// Tells its configurations apart.
    pub config_hash: u64,
    /// Rows there must be; some more are made, for what comes.
    pub shape: Shape,
    /// Rows there may be while the hub runs ([`Segment::grow`]): their places take no memory before they are used.
    pub room: Shape,
    /// Workers, exactly.
    pub workers: usize,
    /// Bytes of memory that the file may have. If it is too little, the history is shorter.
    pub memory: u64,
    /// The group that may read the file; none: that of the process or, in a set-gid directory, the directory's.
    pub group: Option<u32>,
}

/// Why there is no segment.
#[derive(Debug, thiserror::Error)]
#[error("could not {what} {}: {source}", .path.display())]
pub struct CreateError {
    /// What was attempted.
    pub what: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// A segment that was made, and what an operator should know about it.
#[derive(Debug)]
pub struct Created {
    /// The segment. Its file has its name only after [`Segment::publish`].
    pub segment: Segment,
    /// Why its history is shorter than an hour, if it is.
    pub warning: Option<String>,
}

/// The hub's side of a segment.
#[derive(Debug)]
pub struct Segment {
    pub(crate) map: Arc<Map>,
    pub(crate) layout: Layout,
    file: File,
    /// Where the file is and where it is to be; none: nowhere, it is private memory.
    places: Option<(PathBuf, PathBuf)>,
    spec: Spec,
    /// Rows that have memory.
    used: Shape,
    pub(crate) publisher: history::Publisher,
}

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// CLOCK_BOOTTIME.
    pub ns: u64,
    /// Since 1970.
    pub wall_ns: u64,
}

impl Now {
    /// This moment.
    pub fn read() -> Self {
        let t = clock_gettime(ClockId::Boottime);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { ns: t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64, wall_ns: wall.as_nanos() as u64 }
    }
}

const LIVE: u64 = 1;
const ENDED: u64 = 3;

impl Segment {
    /// A segment that will be at `path`, all its memory there: a file of a full tmpfs would fail at some later store instead.
    pub fn create(path: &Path, spec: Spec) -> Result<Created, CreateError> {
        Self::create_at(path, spec, Now::read())
    }

    /// The same, of a hub that started at another moment.
    pub fn create_at(path: &Path, spec: Spec, started: Now) -> Result<Created, CreateError> {
        let mut boot_id = [0; 16];
        getrandom::fill(&mut boot_id).map_err(|error| CreateError {
            what: "find randomness for",
            path: path.into(),
            source: io::Error::other(error.to_string()),
        })?;
        Self::at(path, spec, boot_id, started)
    }

    fn at(path: &Path, spec: Spec, boot_id: [u8; 16], started: Now) -> Result<Created, CreateError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let temporary = path.with_file_name(name);
        let fail = |what| {
            let path = temporary.clone();
            move |source| CreateError { what, path, source }
        };
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("replace")(error)),
            _ => {}
        }
        let opened = OpenOptions::new().read(true).write(true).create_new(true).mode(0o640).open(&temporary);
        let file = opened.map_err(fail("make"))?;
        // The mode as the umask left it may be narrower.
        file.set_permissions(fs::Permissions::from_mode(0o640)).map_err(fail("set the mode of"))?;
        if let Some(group) = spec.group
            && file.metadata().map_err(fail("look at"))?.gid() != group
        {
            let set = rustix::fs::fchown(&file, None, Some(Gid::from_raw(group)));
            set.map_err(|error| fail("set the group of")(error.into()))?;
        }
        // Half of what is free is left to others who need the same tmpfs.
        let space = rustix::fs::fstatvfs(&file).map_err(|error| fail("look at the file system of")(error.into()))?;
        let memory = spec.memory.min(space.f_bavail.saturating_mul(space.f_frsize) / 2);
        let used = with_room(spec.shape);
        let layout = Layout::new(used, used.each(spec.room, usize::max), spec.workers, memory);
        let warning = layout.shortened(used, memory);
        file.set_len(layout.bytes as u64).map_err(fail("set the length of"))?;
        reserve(&file, 0..HEADER_BYTES).map_err(fail("find memory for"))?;
        for (_, span) in layout.spans(Shape::default(), used) {
            reserve(&file, span).map_err(fail("find memory for"))?;
        }
        let map = Map::new(&file, layout.bytes, true).map_err(fail("map"))?;
        let places = Some((temporary, path.to_owned()));
        let segment = Self::over(map, layout, file, places, spec, used, boot_id, started);
        segment.populate(Shape::default());
        Ok(Created { segment, warning })
    }

    /// A segment in memory of this process alone, with little history.
    pub fn private(shape: Shape, workers: usize) -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("ekiden-stats", rustix::fs::MemfdFlags::CLOEXEC)?);
        let layout = Layout::new(shape, shape, workers, 0);
        file.set_len(layout.bytes as u64)?;
        let map = Map::new(&file, layout.bytes, true)?;
        let spec = Spec {
            hub: String::new(),
            build: String::new(),
            config_hash: 0,
            shape,
            room: shape,
            workers,
            memory: 0,
            group: None,
        };
        Ok(Self::over(map, layout, file, None, spec, shape, [0; 16], Now::read()))
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one value")]
    fn over(
        map: Map,
        layout: Layout,
        file: File,
        places: Option<(PathBuf, PathBuf)>,
        spec: Spec,
        used: Shape,
        boot_id: [u8; 16],
        started: Now,
    ) -> Self {
        let publisher = history::Publisher::new(used, u64::from_le_bytes(boot_id[..8].try_into().expect("8 of 16")));
        let this = Self { map: Arc::new(map), layout, file, places, spec, used, publisher };
        let header = this.header();
        header.magic.set(MAGIC);
        header.version.set(VERSION);
        header.header_bytes.set(HEADER_BYTES as u64);
        header.file_bytes.set(this.layout.bytes as u64);
        header.generation.set(1);
        for (word, bytes) in header.boot_id.iter().zip(boot_id.chunks(8)) {
            word.set(u64::from_le_bytes(bytes.try_into().expect("16 bytes are two words")));
        }
        header.started_ns.set(started.ns);
        header.started_wall_ns.set(started.wall_ns);
        header.pid.set(std::process::id().into());
        header.sections.set(KINDS.len() as u64);
        header.config_hash.set(this.spec.config_hash);
        write_text(&header.build, &this.spec.build);
        write_text(&header.hub, &this.spec.hub);
        this.layout.write(this.table());
        this.layout.write_used(this.table(), used);
        let reasons = this.block::<ReasonEntry>(Kind::Reasons, 0);
        for reason in DROP_REASONS {
            let entry = &reasons[*reason as usize];
            entry.generation.set(1);
            write_text(&entry.name, reason.name());
        }
        let hub = this.control_rows().hub;
        hub.ticked_wall_ns.set(started.wall_ns);
        hub.ticked_ns.set(started.ns);
        header.state.set(LIVE);
        this
    }

    /// Gives the file its name, in the place of what had it: from here on readers find it.
    pub fn publish(&mut self) -> Result<(), CreateError> {
        if let Some((from, to)) = &mut self.places
            && from != to
        {
            fs::rename(&*from, &*to).map_err(|source| CreateError { what: "name", path: to.clone(), source })?;
            from.clone_from(to);
        }
        Ok(())
    }

    /// The rows of a worker. Each set is for one thread to write.
    pub fn rows(&self, worker: usize) -> Rows {
        Rows {
            sites: self.block(Kind::SiteRows, worker),
            volumes: self.block(Kind::TenantRows, worker),
            tenants: self.block(Kind::TenantDrops, worker),
            ports: self.block(Kind::PortRows, worker),
            rules: self.block(Kind::RuleRows, worker),
            hub: One(self.block(Kind::HubDrops, worker)),
            turns: One(self.block(Kind::LoopRows, worker)),
            latency: One(self.block(Kind::Latency, worker)),
            ring_time: One(self.block(Kind::RingTime, worker)),
        }
    }

    /// The rows of control, for one thread to write.
    pub fn control_rows(&self) -> ControlRows {
        ControlRows {
            drops: One(self.block(Kind::HubDrops, self.spec.workers)),
            xdp_drops: One(self.block(Kind::HubDrops, self.spec.workers + 1)),
            hub: One(self.block(Kind::HubRow, 0)),
            xdp: self.block(Kind::XdpRows, 0),
            workers: self.block(Kind::WorkerStates, 0),
            sites: self.block(Kind::SiteStates, 0),
        }
    }

    /// Everything, as readers find it. For the hub itself, which does not change the directory meanwhile. If somebody truncated the
    /// file, what is left.
    pub fn snapshot(&self) -> Snapshot {
        Reader::own(&self.map, &self.layout, self.header())
    }

    /// How many rows of each kind may be used now.
    pub fn room(&self) -> Shape {
        self.used
    }

    /// Changes the directory: readers see all of the change, or nothing.
    pub fn configure<R>(&mut self, change: impl FnOnce(&mut Directory<'_>) -> R) -> R {
        let wall_ns = Now::read().wall_ns;
        let this = &*self;
        let header = this.header();
        this.sequence().change(|| {
            header.configured_wall_ns.set(wall_ns);
            change(&mut Directory::of(this))
        })
    }

    /// The hub stops in order, and its workers count no more: what is read from now on is the last word, in the history too.
    pub fn end(&mut self) {
        self.publisher.hurry();
        self.tick(Now::read(), 0, 1);
        self.header().state.set(ENDED);
    }

    /// Whether somebody truncated the file: nothing that is counted from now on will be seen.
    pub fn lost(&self) -> bool {
        self.map.lost()
    }

    /// More rows, in their places in the same file: no row moves, and nobody who writes or reads has anything to do. Returns what
    /// an operator should know about it. If there is no memory, nothing has changed.
    pub fn grow(&mut self, shape: Shape) -> Result<Option<String>, CreateError> {
        let (before, places) = (self.used, self.layout.shape());
        if shape.is_within(before) {
            return Ok(None);
        }
        let fail = |source: io::Error| {
            let path = self.places.as_ref().map_or_else(PathBuf::new, |(at, _)| at.clone());
            CreateError { what: "find room for more rows in", path, source }
        };
        if !shape.is_within(places) {
            let Shape { tenants, sites, rules, .. } = places;
            return Err(fail(io::Error::other(format!(
                "until the hub is started anew it has places for {tenants} tenants, {sites} sites and {rules} rules of filters"
            ))));
        }
        let used = with_room(shape).each(before, usize::max).each(places, usize::min);
        let (had, has) = (self.layout.memory(before), self.layout.memory(used));
        // Half of what is free is left to others who need the same tmpfs; one without a limit says that it has nothing.
        let space = rustix::fs::fstatvfs(&self.file).map_err(|error| fail(error.into()))?;
        if space.f_blocks > 0 && has - had > space.f_bavail.saturating_mul(space.f_frsize) / 2 {
            return Err(fail(io::ErrorKind::StorageFull.into()));
        }
        for (_, span) in self.layout.spans(before, used) {
            reserve(&self.file, span).map_err(fail)?;
        }
        self.used = used;
        self.populate(before);
        self.publisher.grow(used);
        self.layout.write_used(self.table(), used);
        let memory = self.spec.memory;
        let over = has > memory && had <= memory;
        Ok(over.then(|| {
            format!(
                "statistics: {} MiB with what came since the start, where {} MiB are configured; the next start will shorten histories",
                has.div_ceil(1 << 20),
                memory >> 20
            )
        }))
    }

    /// Has the kernel find the memory of all rows now, which are counted in at any moment, but for those that were used before. Histories
    /// are control's, which can wait.
    fn populate(&self, before: Shape) {
        let history = |kind: Kind| self.layout.section(kind).depth > 0;
        let spans = self.layout.spans(before, self.used).filter(|(kind, _)| !history(*kind));
        spans.for_each(|(_, span)| self.map.populate(span));
    }

    /// The file, to be handed to a reader that can't open it by its name. It is open for reading alone.
    pub fn descriptor(&self) -> io::Result<File> {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.own_rows(0, 1)[0]
    }

    fn table(&self) -> &[SectionEntry] {
        self.own_rows(size_of::<Header>(), KINDS.len())
    }

    fn sequence(&self) -> Sequence<'_> {
        Sequence::of(&self.header().sequence)
    }

    /// Rows of this segment's own layout, which are all within its mapping.
    pub(crate) fn own_rows<T: Plain>(&self, offset: usize, count: usize) -> &[T] {
        self.map.rows(offset, count).expect("the layout is this mapping's")
    }

    pub(crate) fn block<T: Plain>(&self, kind: Kind, block: usize) -> View<T> {
        let section = self.layout.section(kind);
        assert!(block < section.blocks && section.stride == size_of::<T>(), "rows of another kind");
        self.map.view(section.at(block, 0), section.rows).expect("the layout is this mapping's")
    }
}

/// Takes memory for a part of a file, which it has then: a store there can't fail.
fn reserve(file: &File, bytes: Range<usize>) -> io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), bytes.start as u64, bytes.len() as u64)
        .map_err(io::Error::from)
}

/// A hub that gains a tenant, a site or a rule every now and then need not ask for memory for each.
fn with_room(shape: Shape) -> Shape {
    let more = |n: usize| n + (n / 4).max(16);
    Shape { tenants: more(shape.tenants), sites: more(shape.sites), ports: shape.ports + 4, rules: more(shape.rules) }
}

impl Rows {
    /// Rows of zeros that nobody else sees.
    ///
    /// # Panics
    /// If there is no memory for them.
    pub fn new(shape: Shape) -> Self {
        Segment::private(shape, 1).expect("memory for a private segment").rows(0)
    }

    /// Whether these rows' file was truncated under them.
    pub fn lost(&self) -> bool {
        self.turns.0.map().lost()
    }

    /// Begins at zero for another site in the slot. For the worker, once it has forgotten the old one and before the
    /// directory names the new one.
    pub fn clear_site(&self, site: wire::SiteSlot) {
        self.sites.row_words(site.index()).iter().for_each(|word| word.set(0));
    }

    /// Begins at zero for another tenant in the slot, as [`Rows::clear_site`]. What of its was dropped stays in the hub's sum, among
    /// what had no tenant.
    pub fn clear_tenant(&self, tenant: wire::TenantSlot) {
        self.volumes.row_words(tenant.index()).iter().for_each(|word| word.set(0));
        // First gone, then there: whoever reads meanwhile sees too few outputs, never too many.
        for (sum, word) in self.hub.0.row_words(0).iter().zip(self.tenants.row_words(tenant.index())) {
            let dropped = word.read();
            word.set(0);
            sum.add(dropped);
        }
    }

    /// Begins at zero for another rule in the slot, as [`Rows::clear_site`].
    pub fn clear_rule(&self, rule: u32) {
        self.rules.row_words(rule as usize).iter().for_each(|word| word.set(0));
    }
}
