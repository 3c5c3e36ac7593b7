//! From a configuration to a running hub: what is opened, in which order, and why in that one.
//!
//! 1. Check capabilities and machine, claim the hub's name, give up every privilege that is not needed: all that can be
//!    refused, before anything is touched.
//! 2. Load the XDP program and its maps; open packet memory and a socket on every queue of every port.
//! 3. Give the sockets to the maps, and start the workers.
//! 4. Start the API and control, which attaches the programs once it knows the hub's addresses: from the first frame on,
//!    XDP knows what is the hub's and where to put it. A program that an earlier process left pinned is exchanged in place.

use crate::access::Access;
use crate::api::{Api, QUEUE, RunDir, STATS, hand_out_stats};
use crate::caps;
use crate::config::{Desired, Machine, Mode, Role, Spread, group_id, validate_machine};
use crate::control::{Control, Facts, Parts};
use crate::depot::Depot;
use crate::fit::PIECES_MAX;
use crate::mailbox::{Bell, ORDERS, mailbox};
use crate::memory::{ONE_CHUNK, Sizes, WIDEST};
use crate::notify::Notify;
use crate::numa::Nodes;
use crate::packet::BATCH;
use crate::ports::{Ports, Ring};
use crate::rates::Contracts;
use crate::reserve::Reserved;
use crate::seats::{self, Seats, own_addresses};
use crate::sites::{Seat, Sessions, Sites};
use crate::staging::{self, Shelf};
use crate::state::State;
use crate::team::Team;
use crate::tenants::{Tenant, Tenants};
use crate::underlay::Underlay;
use crate::worker::{Journey, OUT_MAX, Worker};
use crate::xsk::{Bound, BusyPoll, Census, Device, Frame, Options, Socket, Umem};
use anyhow::{Context, bail};
use arrayvec::ArrayVec;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use stats::{Segment, Shape, Spec};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::{PortIndex, SiteSlot};

/// Descriptors of the receive, fill, transmit and completion rings of a socket. XDP sheds from half a receive ring
/// on: at 0.5 Mpps, a worker may be away for eight milliseconds before a frame is lost.
pub const RING: u32 = 8192;

/// Entries of the fill ring of a queue with so many sockets: more than their receive rings hold, where there are several,
/// or a worker that stalls would starve the others.
const fn fill_entries(sockets: u32) -> u32 {
    if sockets == 1 { RING } else { ((sockets + 1) * RING).next_power_of_two() }
}

/// Chunks that a queue with so many sockets can have lent to the kernel: the fill ring, and all receive and transmit rings
/// full.
const fn chunks_per_queue(sockets: u32) -> u32 {
    fill_entries(sockets) + 2 * sockets * RING
}
/// Chunks that a worker can hold besides: its shelf, frames that wait for a port, fragments that it made, and a batch under
/// way.
const fn chunks_per_worker(ports: u32) -> u32 {
    staging::IN_ALL as u32 + ports * OUT_MAX as u32 + 2 * BATCH as u32 + PIECES_MAX as u32
}

/// Long frames for so many workers and sockets: those in flight in transmit rings, where each has two descriptors at the least, and
/// what the workers can hold.
const fn long_frames(workers: u32, ports: u32, sockets: u32) -> u32 {
    sockets * RING / 2 + workers * (staging::IN_ALL as u32 + ports * OUT_MAX as u32 + 2 * BATCH as u32)
}

/// A port of the hub, as it was opened.
pub struct Port {
    /// Its place in the configuration.
    pub index: PortIndex,
    /// The interface's name.
    pub name: String,
    /// Its number, while there is one.
    pub ifindex: Option<u32>,
    /// Its MAC address, once the kernel has told it.
    pub mac: Option<[u8; 6]>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether its link is up.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Driver.
    pub driver: String,
    /// Receive queues.
    pub queues: u32,
    /// Sockets on each queue: one, or one for each worker.
    pub sockets: u32,
    /// Where the XDP program runs.
    pub mode: bpf::Mode,
    /// What the sockets got.
    pub bound: Bound,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Its packets may be longer than a chunk: they come and go in several.
    pub multi_buffer: bool,
    /// It has access ends.
    vlans: bool,
    wanted_mode: Option<bpf::Mode>,
    busy_poll: Option<BusyPoll>,
    umem: &'static Umem,
    /// Of the workers, in their order.
    bells: Arc<[Arc<Bell>]>,
}

impl Port {
    /// Bytes of a chunk.
    pub fn chunk_size(&self) -> u32 {
        self.umem.chunk_size()
    }

    /// Bytes of the largest frame.
    pub fn frame_size(&self) -> usize {
        self.umem.frame_size()
    }

    /// How many frames of several chunks there are, and how many of these are free.
    pub fn long_frames(&self) -> (u32, u32) {
        self.umem.long_frames()
    }

    /// Where the chunks are, of all ports: they share one memory.
    pub fn census(&self) -> Census {
        self.umem.census()
    }

    /// Keeps what an operator should know: once, since an interface that is made anew has the same to say again.
    pub fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Puts the XDP program on the port, and says what came of it.
    pub fn attach(&mut self, steering: &mut bpf::Steering) -> anyhow::Result<()> {
        let ifindex = self.ifindex.with_context(|| format!("port {}: its interface is gone", self.name))?;
        let attached = steering.attach(self.index.0, ifindex, &self.name, self.wanted_mode);
        let attached = match attached {
            Err(error) if self.multi_buffer => {
                let Self { name, mtu, driver, .. } = self;
                let what = format!(
                    "port {name}: an MTU of {mtu} needs an XDP program for frames in several buffers (xdp.frags); if the driver {driver} \
                     takes none: ip link set {name} mtu {ONE_CHUNK}"
                );
                return Err(anyhow::Error::new(error).context(what));
            }
            other => other?,
        };
        self.mode = attached.mode;
        self.see_tags(attached.no_tags)?;
        let driver = &self.driver;
        let copied = |error| format!("every frame is copied: the driver {driver} refused zero-copy ({error})");
        let wide = self.multi_buffer;
        let generic = |error| {
            let parts = if wide {
                format!(" for frames in several buffers, as above an MTU of {ONE_CHUNK}")
            } else {
                String::new()
            };
            format!("the driver {driver} has no XDP of its own{parts} ({error}): generic mode, several times slower")
        };
        let news = [self.bound.zero_copy_refused.map(copied), attached.why_generic.map(generic)];
        news.into_iter().flatten().for_each(|warning| self.warn(warning));
        tracing::info!(
            "port {}: driver {}, XDP {}, {} mode, {} queue(s), MTU {}, chunks of {} bytes{}{}",
            self.name,
            self.driver,
            match self.mode {
                bpf::Mode::Native => "native",
                bpf::Mode::Generic => "generic",
            },
            if self.bound.zero_copy { "zero-copy" } else { "copy" },
            self.queues,
            self.mtu,
            self.chunk_size(),
            if self.multi_buffer { ", multi-buffer" } else { "" },
            if attached.took_over { ", taken over from an earlier process" } else { "" },
        );
        for warning in &self.warnings {
            tracing::warn!("port {}: {warning}", self.name);
        }
        Ok(())
    }

    /// A VLAN is known by its tag: where that can't be seen, the port does not open. `no_tags` is why the program is not told of tags
    /// beside frames.
    fn see_tags(&mut self, no_tags: Option<bpf::Error>) -> anyhow::Result<()> {
        let name = &self.name;
        if !self.vlans {
            return Ok(());
        }
        if self.mode == bpf::Mode::Generic {
            bail!(
                "port {name}: an access port needs XDP in its driver ({}), which shows whole frames and their tags",
                self.driver
            );
        }
        // What veth has beside a frame, no setting at this end puts into it.
        match (no_tags, self.driver.as_str()) {
            (None, "veth") => Ok(()),
            (Some(why), "veth") => {
                bail!("port {name}: VLAN tags that a kernel sends over veth can't be seen (Linux 6.8 can): {why}")
            }
            (no_tags, driver) => match (Device::leave_tags(name), no_tags) {
                (Ok(changed), _) => {
                    if changed {
                        tracing::info!(
                            "port {name}: the NIC's VLAN offload is turned off, so that tags stay in their frames"
                        );
                    }
                    Ok(())
                }
                (Err(error), None) => {
                    self.warn(format!(
                        "the VLAN offload of the driver {driver} can't be turned off ({error}); should it not tell XDP of tags, \
                         tagged frames look untagged"
                    ));
                    Ok(())
                }
                (Err(error), Some(why)) => {
                    bail!(
                        "port {name}: VLAN tags can't be seen: the driver {driver} takes them out of frames ({error}), and {why}"
                    )
                }
            },
        }
    }

    /// Opens and attaches again, on the interface that now has the name. The worker of each socket comes with it.
    pub fn reopen(&mut self, steering: &mut bpf::Steering) -> anyhow::Result<Vec<(usize, Ring)>> {
        let device = Device::find(&self.name)?;
        let device = Device { receive_queues: self.queues.min(device.receive_queues), ..device };
        let (workers, zero_copy) = (self.bells.len(), Some(self.bound.zero_copy));
        let all = open_all(self.umem, &[(&device, self.sockets)], workers, zero_copy, self.busy_poll)?;
        let opened: Vec<_> = all.into_iter().flatten().collect();
        for one in &opened {
            steering.set_socket(self.place(one.queue, one.worker), one.socket.as_fd())?;
        }
        steering.detach(self.index.0)?;
        self.ifindex = Some(device.ifindex);
        self.attach(steering)?;
        opened.into_iter().map(|one| self.ring(one, steering)).collect()
    }

    fn place(&self, queue: u32, worker: usize) -> bpf::Place {
        let socket = if self.sockets == 1 { 0 } else { worker as u32 };
        bpf::Place { port: self.index.0, queue, socket }
    }

    /// A socket as its worker has it; and that worker.
    fn ring(&self, one: Opening, steering: &bpf::Steering) -> anyhow::Result<(usize, Ring)> {
        let gauge = steering.gauge(self.place(one.queue, one.worker))?;
        let owner = owner(one.queue, self.bells.len());
        let bell = (owner != one.worker).then(|| self.bells[owner].clone());
        Ok((one.worker, Ring::new(self.index, one.queue, one.socket, bell, gauge)))
    }
}

/// Where a hub keeps its files, and how it was called.
#[derive(Debug, Clone)]
pub struct Places {
    /// The configuration.
    pub config: PathBuf,
    /// Directory of run directories.
    pub run: PathBuf,
    /// Directory of state directories.
    pub state: PathBuf,
    /// Directory of pins.
    pub pins: PathBuf,
}

/// Runs the hub until a signal ends it.
pub fn run(desired: Desired, places: &Places) -> anyhow::Result<()> {
    // 1. What can be refused.
    let needs = caps::needs(desired.hub.listen_port.get(), desired.has_access());
    caps::check(&needs)?;
    let machine = Machine::this().context("could not read what this machine has")?;
    validate_machine(&desired, &machine)?;
    // All that is made from here on is the group's, as if the process had been started with it.
    let group = desired.stats.group.as_deref().and_then(group_id);
    if let Some(group) = group {
        caps::join(group)?;
    }
    let claim = RunDir::claim(&places.run, &desired.hub.name)?;
    if group.is_some() {
        claim.share()?;
    }
    let (mut state, warning) = State::load(&places.state.join(&*desired.hub.name));
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    // What the configuration no longer has is not worth remembering.
    let sites_of = |id| desired.tenants.iter().find(|t| t.id == id).into_iter().flat_map(|t| &t.sites);
    let lanes = || desired.trunks.iter().flat_map(|trunk| trunk.lane_names());
    state.retain(|owner, name, _| match owner {
        Some(tenant) => sites_of(tenant).any(|site| *site.name == *name),
        None => lanes().any(|lane| lane == name),
    });
    caps::confine(&needs)?;

    // 2. XDP, memory, sockets.
    let seats = Seats::first(&desired);
    let given = seats.given();
    // What comes while the hub runs has its place from the start: maps don't grow, and a worker allocates nothing.
    let room = seats::room(given.ends.max(given.tenants) as usize);
    let session_bits = crate::control::session_bits(room);
    let mut options = bpf::Options::new(&*desired.hub.name, desired.hub.listen_port.get());
    (options.session_bits, options.pin_root) = (session_bits, places.pins.clone());
    options.listen_ports = desired.listen_ports().collect();
    let devices = devices(&desired)?;
    let queues = devices.iter().map(queues).max().unwrap_or(1);
    options.rings = bpf::Rings { ports: devices.len() as u16, queues, entries: RING };
    let plan = plan(&desired, &machine, &devices);
    options.sockets = plan.sockets.clone();
    options.sites = room as u32;
    options.access_ends = seats.ends(&desired).count() as u32;
    options.roles = desired
        .ports
        .iter()
        .map(|port| bpf::Roles {
            wan: port.role == Role::Wan,
            access: port.role == Role::Access || desired.has_ends(&port.name),
        })
        .collect();
    options.frags = devices.iter().map(is_wide).collect();
    let steering = bpf::Steering::load(options)?;
    let cores = plan.cores.clone();
    let Opened { ports, mut rings, chunks } = open_ports(&desired, plan, devices, &steering)?;

    // 3. Sockets before programs: there is no moment at which a frame has nowhere to go. Control attaches the programs,
    // as soon as it knows which addresses are the hub's: a frame to another is the kernel's.
    for (w, rings) in rings.iter().enumerate() {
        for Ring { port, queue, socket, .. } in rings {
            let place = ports[port.index()].place(*queue, w);
            steering.set_socket(place, socket.as_fd())?;
        }
    }

    // 4. Workers, API, control.
    let backend = crypto::aead::choose(&desired.hub.crypto);
    let workers: Vec<_> = cores.iter().copied().zip(chunks.iter().copied()).collect();
    let (segment, short) = make_segment(&claim, &desired, (&seats, room), &ports, &workers)?;
    let (tables, paths) = seats.tables(&desired);
    let tables = Arc::new(tables);
    let contracts = Contracts::default().next(&desired);
    let all: Vec<(SiteSlot, Seat)> = contracts.seats(&seats, &desired).collect();
    let wake = Arc::new(tokio::sync::Notify::new());
    let umem = ports[0].umem;
    let shared = ports.iter().any(|port| port.sockets > 1);
    let keep = chunks_per_worker(ports.len() as u32) as usize;
    let depot = shared.then(|| Arc::new(Depot::new(umem.chunks(), keep)));
    let mut teams = Team::of(&ports[0].bells).into_iter();
    let mut next_chunk = 0;
    let mut mailboxes = Vec::new();
    let mut threads = Vec::new();
    for (w, core) in cores.iter().copied().enumerate() {
        let (control_end, worker_end) = mailbox(wake.clone(), ports[0].bells[w].clone(), umem.frame_size());
        let rows = Arc::new(segment.rows(w));
        mailboxes.push((control_end, rows.clone()));
        let mut sites = Sites::with_room(room);
        all.iter().for_each(|(slot, seat)| sites.seat(*slot, seat.clone()));
        let mut tenants = Tenants::new((0..room).map(|_| Tenant::new(&[])));
        seats.tenants(&desired).for_each(|(slot, t)| *tenants.at_mut(slot) = Tenant::new(&own_addresses(t)));
        let journey = Journey {
            tables: tables.clone(),
            sessions: Sessions::new(session_bits),
            sites,
            access: Access::new(ports.len(), seats.ends(&desired).map(|(slot, _, port, end)| (port, end.vlan, slot))),
            tenants,
            shelf: Shelf::new(room),
            pool: umem.frames(next_chunk..next_chunk + chunks[w]),
            umem,
            pieces: Vec::with_capacity(PIECES_MAX),
            out: ports.iter().map(|_| Vec::<Frame>::with_capacity(OUT_MAX)).collect(),
            rows,
            aead: backend,
            mail: worker_end,
            postponed: VecDeque::with_capacity(ORDERS),
            movers: ArrayVec::new(),
            identification: 0,
            stopped: false,
        };
        next_chunk += chunks[w];
        let worker = Worker::new(
            Ports::new(std::mem::take(&mut rings[w]), ports.len(), desired.workers.idle),
            journey,
            teams.next().context("a team for each worker")?,
            depot.clone(),
        );
        let thread = caps::spawn_without(format!("worker-{w}"), move || {
            let mut set = CpuSet::new();
            set.set(core);
            if let Err(error) = sched_setaffinity(None, &set) {
                tracing::warn!("worker {w} could not be bound to core {core}: {error}");
            }
            worker.run();
        })?;
        threads.push(thread);
    }
    leave_to_workers(&cores);
    let (request_in, request_out) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let names: Vec<_> = ports.iter().map(|port| (port.index, port.name.clone())).collect();
        let underlay =
            Underlay::open(names, desired.hub.listen_port.get()).context("could not follow the kernel's routing")?;
        let reserved = Reserved::new(desired.listen_ports());
        let _api = Api::start(&claim, request_in)?;
        let slow = claim.on_a_disk();
        slow.iter().for_each(|warning| tracing::warn!("{warning}"));
        let facts = Facts {
            started: std::time::SystemTime::now(),
            started_at: crate::clock::now(),
            config: places.config.clone(),
            backend,
            cores: cores.clone(),
            chunks,
            depot,
            room,
            warnings: warning.into_iter().map(|w| w.0).chain(short).chain(slow).collect(),
        };
        let identity = desired.hub.private_key.identity();
        let parts = Parts {
            desired: Arc::new(desired),
            seats: Arc::new(seats),
            contracts: Arc::new(contracts),
            tables,
            paths,
            identity,
            steering,
            underlay,
            reserved,
            state,
            workers: mailboxes,
            segment,
            wake,
            requests: request_out,
            ports,
            facts,
            session_bits,
            notify: Notify::from_environment(),
        };
        Control::new(parts).run(stop_signals()?, hang_ups()?).await
    });
    for thread in threads {
        // A worker that panicked has aborted the process already.
        let _ = thread.join();
    }
    // Only now nobody counts any more.
    result.map(|mut segment| segment.end())
}

/// The statistics segment, with everything that is configured in its directory; and what an operator should know of it.
fn make_segment(
    claim: &RunDir,
    desired: &Desired,
    (seats, room): (&Seats, usize),
    ports: &[Port],
    workers: &[(usize, u32)],
) -> anyhow::Result<(Segment, Option<String>)> {
    let given = seats.given();
    let shape = Shape {
        tenants: given.tenants as usize,
        sites: given.ends as usize,
        ports: ports.len(),
        rules: given.rules as usize,
    };
    let spec = Spec {
        hub: desired.hub.name.to_string(),
        build: env!("CARGO_PKG_VERSION").into(),
        config_hash: desired.digest.0,
        shape,
        room: Shape { tenants: room, sites: room, rules: seats::room_for_rules(shape.rules), ..shape },
        workers: workers.len(),
        memory: u64::from(desired.stats.memory_mib) << 20,
        group: None,
    };
    let stats::Created { mut segment, warning } =
        Segment::create(&claim.path().join(STATS), spec).context("no place for statistics")?;
    segment.configure(|directory| {
        crate::control::enter(directory, desired, seats, ports)?;
        (0..).zip(workers).try_for_each(|(w, (core, chunks))| directory.worker(w, *core, *chunks))
    })?;
    segment.publish()?;
    hand_out_stats(claim, segment.descriptor()?)?;
    if let Some(warning) = &warning {
        tracing::warn!("{warning}");
    }
    Ok((segment, warning))
}

/// Control, and whatever it starts from now on, stays off the workers' cores, if the process may use others: a worker whose core
/// control has for some milliseconds loses packets by it.
fn leave_to_workers(cores: &[usize]) {
    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut rest = allowed;
    cores.iter().for_each(|core| rest.unset(*core));
    if rest.count() > 0
        && let Err(error) = sched_setaffinity(None, &rest)
    {
        tracing::warn!("control could not be bound to the cores that workers leave: {error}");
    }
}

/// Which workers there are, and how frames come to them.
struct Plan {
    /// The core of each worker.
    cores: Vec<usize>,
    /// For each port, the sockets on each of its queues.
    sockets: Vec<u32>,
    warnings: Vec<String>,
}

/// What the ports gave: themselves, and for each worker its sockets.
struct Opened {
    ports: Vec<Port>,
    rings: Vec<Vec<Ring>>,
    /// Chunks of each worker.
    chunks: Vec<u32>,
}

/// The interfaces of all ports, in their order.
fn devices(desired: &Desired) -> anyhow::Result<Vec<Device>> {
    let find = |port: &crate::config::Port| Device::find(&port.name).with_context(|| format!("port {}", port.name));
    desired.ports.iter().map(find).collect()
}

fn queues(device: &Device) -> u32 {
    device.receive_queues.max(1)
}

/// A worker for each queue, or for each core that is configured: a port that has fewer queues than that has a socket for
/// each worker on every queue, and XDP spreads.
fn plan(desired: &Desired, machine: &Machine, devices: &[Device]) -> Plan {
    let fewest = devices.iter().map(queues).min().unwrap_or(1) as usize;
    let configured = desired.workers.cores.as_ref();
    let nodes = Nodes(Path::new("/sys"));
    let names: Vec<&str> = devices.iter().map(|device| &*device.name).collect();
    let near = nodes.near_first(&machine.cores, &names);
    let wanted = configured.unwrap_or(&near);
    let workers = match (desired.workers.spread, configured) {
        (Spread::Queues, _) | (Spread::Auto, None) => wanted.len().min(fewest),
        (Spread::Sockets, _) | (Spread::Auto, Some(_)) => wanted.len(),
    };
    let mut warnings = Vec::new();
    if configured.is_some() && workers < wanted.len() {
        let wanted = wanted.len();
        warnings.push(format!("{wanted} cores are configured, but only {workers} can work: with spread = \"queues\", a worker needs a receive queue of its own on each port"));
    }
    let sockets = |device: &Device| match desired.workers.spread {
        Spread::Sockets => workers as u32,
        Spread::Auto | Spread::Queues if queues(device) < workers as u32 => workers as u32,
        Spread::Auto | Spread::Queues => 1,
    };
    Plan { cores: wanted[..workers].to_vec(), sockets: devices.iter().map(sockets).collect(), warnings }
}

/// How workers poll the NICs themselves, if they do.
fn busy_poll(desired: &Desired) -> Option<BusyPoll> {
    let time_us = u32::from(desired.workers.busy_poll_us);
    (time_us > 0).then_some(BusyPoll { time_us, budget: BATCH as u32 })
}

/// The worker that fills and completes a queue. With a socket a queue, it is the one that has it.
fn owner(queue: u32, workers: usize) -> usize {
    queue as usize % workers
}

/// Opens packet memory, and the sockets on every queue of every port.
fn open_ports(desired: &Desired, plan: Plan, devices: Vec<Device>, steering: &bpf::Steering) -> anyhow::Result<Opened> {
    let Plan { cores, sockets, mut warnings } = plan;
    let workers = cores.len();
    let bells: Arc<[Arc<Bell>]> = (0..workers).map(|_| Bell::new()).collect::<Result<_, _>>()?;

    let (largest, widest) = devices
        .iter()
        .zip(&desired.ports)
        .map(|(d, p)| (d.mtu, &p.name))
        .max_by_key(|(mtu, _)| *mtu)
        .context("a port")?;
    let Some(sizes) = Sizes::of(largest) else {
        bail!(
            "port {widest} has an MTU of {largest}, and the hub's frames hold {WIDEST} at the most: ip link set {widest} mtu {WIDEST} or less"
        );
    };
    // Some may own a queue more than others.
    let mut chunks = vec![chunks_per_worker(devices.len() as u32); workers];
    for (device, sockets) in devices.iter().zip(&sockets) {
        (0..queues(device)).for_each(|queue| chunks[owner(queue, workers)] += chunks_per_queue(*sockets));
    }
    let all: u32 = devices.iter().zip(&sockets).map(|(device, sockets)| queues(device) * sockets).sum();
    let long = if sizes.run > 1 { long_frames(workers as u32, devices.len() as u32, all) } else { 0 };
    let umem = Umem::with_long(chunks.iter().sum(), sizes.chunk, long, sizes.run);
    let umem = umem.context("could not get packet memory")?;

    // One memory has one mode. Where none is forced, the best is tried, and if a port can't have it, no port has it.
    let copies = |wanted| desired.ports.iter().any(|port| port.copy == Some(wanted));
    let modes: &[Option<bool>] = match (copies(true), copies(false)) {
        (true, true) => bail!("one port is to copy and another is not; all ports share their memory, so choose one"),
        (true, false) => &[Some(false)],
        (false, true) => &[Some(true)],
        (false, false) => &[None, Some(false)],
    };
    let with_sockets: Vec<_> = devices.iter().zip(sockets.iter().copied()).collect();
    let busy_poll = busy_poll(desired);
    let mut attempts = modes.iter().map(|zero_copy| open_all(umem, &with_sockets, workers, *zero_copy, busy_poll));
    let mut opened = attempts.next().context("there is a mode")?;
    if let Err(first) = &opened
        && let Some(second) = attempts.next()
    {
        warnings.push(format!("not every port can do without copies, so all of them copy ({first:#})"));
        opened = second;
    }

    let mut rings: Vec<Vec<Ring>> = (0..workers).map(|_| Vec::new()).collect();
    let mut ports = Vec::new();
    let opened = opened?;
    for ((at, port), ((device, sockets), opened)) in
        desired.ports.iter().enumerate().zip(devices.into_iter().zip(sockets).zip(opened))
    {
        let bound = opened[0].socket.bound().clone();
        let queues = queues(&device);
        let multi_buffer = is_wide(&device) && bound.multi_buffer;
        let port = Port {
            index: PortIndex(at as u16),
            name: port.name.to_string(),
            ifindex: Some(device.ifindex),
            mac: None,
            mtu: device.mtu,
            up: false,
            addresses: Vec::new(),
            driver: device.driver,
            queues,
            sockets,
            mode: bpf::Mode::Native,
            multi_buffer,
            vlans: port.role == Role::Access || desired.has_ends(&port.name),
            wanted_mode: port.mode.map(|mode| match mode {
                Mode::Native => bpf::Mode::Native,
                Mode::Generic => bpf::Mode::Generic,
            }),
            bound,
            warnings: warnings.iter().cloned().chain(Nodes(Path::new("/sys")).far(&port.name, &cores)).collect(),
            busy_poll,
            umem,
            bells: bells.clone(),
        };
        for one in opened {
            let (worker, ring) = port.ring(one, steering)?;
            rings[worker].push(ring);
        }
        ports.push(port);
    }
    // A worker transmits by the first socket that it has on a port: not all by the same queue.
    for (w, rings) in rings.iter_mut().enumerate() {
        rings.sort_by_key(|ring| {
            let queues = ports[ring.port.index()].queues;
            (ring.port, (ring.queue + queues - w as u32 % queues) % queues)
        });
    }
    Ok(Opened { ports, rings, chunks })
}

/// Whether its packets may need more than a chunk.
fn is_wide(device: &Device) -> bool {
    device.mtu > ONE_CHUNK
}

/// A socket that was opened, and for whom.
struct Opening {
    queue: u32,
    worker: usize,
    socket: Socket,
}

/// The sockets of all ports, each with so many on a queue. The first of all registers the memory, and the others share it and what
/// it asked for: so it is on the widest port, whose driver is asked for most. On each queue the first is its owner's, and the
/// others join.
fn open_all(
    umem: &'static Umem,
    devices: &[(&Device, u32)],
    workers: usize,
    zero_copy: Option<bool>,
    busy_poll: Option<BusyPoll>,
) -> anyhow::Result<Vec<Vec<Opening>>> {
    let mut all: Vec<Vec<Opening>> = devices.iter().map(|_| Vec::new()).collect();
    let mut widest_first: Vec<usize> = (0..devices.len()).collect();
    widest_first.sort_by_key(|at| std::cmp::Reverse(devices[*at].0.mtu));
    for at in widest_first {
        let (device, sockets) = devices[at];
        let options = Options {
            zero_copy,
            fill: fill_entries(sockets),
            completion: (sockets * RING).next_power_of_two(),
            receive: RING,
            transmit: RING,
            multi_buffer: umem.long_frames().0 > 0,
            busy_poll,
            ..Options::default()
        };
        let mut opened: Vec<Opening> = Vec::new();
        for queue in 0..queues(device) {
            let owner = owner(queue, workers);
            let others = (0..workers).filter(|worker| sockets > 1 && *worker != owner);
            for worker in std::iter::once(owner).chain(others) {
                let of_queue = opened.iter().find(|one| one.queue == queue);
                let share = of_queue.or_else(|| all.iter().flatten().chain(&opened).next()).map(|one| &one.socket);
                let socket = Socket::open(umem, device.ifindex, queue, &options, share)?;
                opened.push(Opening { queue, worker, socket });
            }
        }
        all[at] = opened;
    }
    Ok(all)
}

/// SIGHUP: the configuration is to be read again.
fn hang_ups() -> std::io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())
}

/// SIGTERM and SIGINT, by name.
fn stop_signals() -> std::io::Result<mpsc::Receiver<&'static str>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (sender, receiver) = mpsc::channel(1);
    for (kind, name) in [(SignalKind::terminate(), "SIGTERM"), (SignalKind::interrupt(), "SIGINT")] {
        let (mut signal, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                let _ = sender.send(name).await;
            }
        });
    }
    Ok(receiver)
}
