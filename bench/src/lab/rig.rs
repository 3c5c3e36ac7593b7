//! The lab itself, with a hub in it, and trials.
//!
//! ```text
//!     gen                          dut: the hub, core 1                    sink
//!   +-----------------------+    +-------------------------------+    +-----------------------+
//!   | g0  172.16.1.1        |----| d0  172.16.1.2     172.16.2.2 d1|----| s0  172.16.2.1        |
//!   | senders 198.18.0.0/16 |    |                               |    | receivers 198.19.0.0/16|
//!   +-----------------------+    +-------------------------------+    +-----------------------+
//! ```
//!
//! With a trunk, either the lab itself is the other hub, at the generator's end or at the sink's, or there are two hubs, both on core 1:
//! the second, in `dut2`, has the sink at its `d1`, and `d0` leads to the first, 172.16.3.2 to 172.16.3.1.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use arrayvec::ArrayVec;
use crypto::aead::Cipher;
use crypto::{Identity, PublicKey};
use dataplane::config::LANES_MAX;
use dataplane::xsk::Device;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Dice, Lab, Namespace};
use hdrhistogram::Histogram;
use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_getaffinity, sched_setaffinity};

use super::frames::{self, BATCH, Maker, Plan, SIZES, Size};
use super::hubs::{self, HUB_PORT, Kind, LAB_CORE, LANES, Running, Setup, Trunk};
use super::programs::{Arrivals, Orders, Programs, Sizes, TIMES, Tunnel};
use super::sites::{self, Sites};
use super::trial::{Load, Outcome, Plot};
use wire::{SiteSlot, geneve};

const GEN: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 1);
const SINK: Ipv4Addr = Ipv4Addr::new(172, 16, 2, 1);
const SENDERS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const RECEIVERS: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Frames that are sealed ahead: what is sent in a longer trial is sealed while it runs.
const CELLS: u32 = 300_000;
/// Between looks at a trial that runs.
const LOOK: Duration = Duration::from_millis(1);
/// A hub that is silent for so long has nothing left to send.
const SILENCE: Duration = Duration::from_millis(60);

/// What a lab is for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Pairs of sites: one sends, and the other receives.
    pub pairs: usize,
    /// Prefixes behind each receiver.
    pub routes: u32,
    /// The hub may have both cores.
    pub free: bool,
    /// The sink's work leaves the hub's core: a higher ceiling and more latency, for every hub alike.
    pub defer: bool,
    /// Flows of inner packets, in turn.
    pub flows: u16,
    /// What packets come from and go to.
    pub between: Between,
}

/// What the hub carries packets between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Sites at both ends.
    Sites,
    /// A site, and at the sink's end another hub, which the lab is itself: a trunk with this cipher.
    ToTrunk(Cipher),
    /// The same, from there to a site.
    FromTrunk(Cipher),
    /// Sites, each of a hub of its own: a trunk is between the two.
    Hubs(Cipher),
}

impl Between {
    /// The trunk's cipher.
    pub fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Sites => None,
            Self::ToTrunk(cipher) | Self::FromTrunk(cipher) | Self::Hubs(cipher) => Some(cipher),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self { pairs: 1, routes: 1, free: false, defer: false, flows: 1, between: Between::Sites }
    }
}

/// A lab with a hub.
pub struct Rig {
    // In the order in which they have to go.
    _home: Home,
    /// The hub.
    pub hub: Running,
    /// The hub at the other end of its trunk, if there is one besides the lab.
    pub second: Option<Running>,
    programs: Programs,
    sites: Option<(Sites, Sites)>,
    maker: Maker,
    /// Tunnels at the sink, and to which the packets of each number go, of so many in turn.
    tunnels: usize,
    turns: Vec<usize>,
    interrupted: Arc<AtomicBool>,
    /// Where the hub is that sends to the sink.
    last: Namespace,
    /// Private memory of the hub before there was a session, in KiB.
    pub idle_memory: u64,
    lab: Lab,
}

/// Brings the thread back where it was.
struct Home {
    namespace: OwnedFd,
    cores: CpuSet,
}

impl Home {
    fn remember() -> Result<Self> {
        let namespace = rustix::fs::open("/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { namespace, cores: sched_getaffinity(None)? })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = move_into_link_name_space(self.namespace.as_fd(), Some(LinkNameSpaceType::Network));
        let _ = sched_setaffinity(None, &self.cores);
    }
}

fn enter(namespace: &Namespace) -> Result<()> {
    let path = std::path::Path::new("/run/netns").join(namespace.name());
    let handle = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    Ok(move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn give(namespace: &Namespace, interface: &str, address: &str) -> Result<()> {
    namespace.ip(&format!("addr add {address} dev {interface}"))?;
    namespace.run("ethtool", &["-K", interface, "tx", "off", "gso", "off", "tso", "off", "gro", "off"]).map(drop)
}

/// A private key in a file of the lab, and the public one.
fn key_pair(lab: &Lab, dice: &mut Dice, name: &str) -> Result<(PathBuf, PublicKey)> {
    let mut private = [0; 32];
    private.fill_with(|| (dice.number() >> 32) as u8);
    let path = lab.directory().join(name);
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    std::io::Write::write_all(&mut file, PublicKey(private).to_string().as_bytes())?;
    Ok((path, *Identity::new(private).public()))
}

/// The lane by which a hub sends a packet.
fn lane(packet: &[u8]) -> usize {
    let lanes: ArrayVec<_, LANES_MAX> = (0..u32::from(LANES)).map(SiteSlot).collect();
    let trunk = dataplane::trunk::Trunk { live: lanes.clone(), lanes, ..Default::default() };
    trunk.lane(wire::spread(packet, Plan::TENANT)).map_or(0, SiteSlot::index)
}

impl Rig {
    /// Makes the lab, starts the hub, and gives every site a session. The calling thread generates from now on: it is in the
    /// generator's namespace, and on the lab's core, until this is dropped.
    pub fn new(kind: Kind, size: &Size, options: &Options) -> Result<Self> {
        ensure!(options.pairs > 0 && options.routes > 0, "at least one pair of sites and one route");
        ensure!(kind.seals() || options.pairs == 1, "{} knows no sites: one flow", kind.name());
        let Options { between, flows, .. } = *options;
        ensure!(
            between == Between::Sites || kind == Kind::Ekiden && options.pairs == 1 && options.routes == 1,
            "a trunk is between hubs of ours, and one site at an end, with one prefix"
        );
        let home = Home::remember()?;
        let mut lab = Lab::new()?;

        // 1. Three hosts.
        let [generator, dut, sink] = ["gen", "dut", "sink"].map(|role| lab.namespace(role));
        let (generator, dut, sink) = (generator?, dut?, sink?);
        let second = if let Between::Hubs(_) = between { Some(lab.namespace("dut2")?) } else { None };
        let last = second.as_ref().unwrap_or(&dut);
        lab.wire((&generator, "g0"), (&dut, "d0"), 1)?;
        lab.wire((&sink, "s0"), (last, "d1"), 1)?;
        for (namespace, interface, address) in [
            (&generator, "g0", "172.16.1.1/24"),
            (&dut, "d0", "172.16.1.2/24"),
            (last, "d1", "172.16.2.2/24"),
            (&sink, "s0", "172.16.2.1/24"),
        ] {
            give(namespace, interface, address)?;
        }
        if let Some(second) = &second {
            lab.wire((&dut, "d1"), (second, "d0"), 1)?;
            give(&dut, "d1", "172.16.3.1/24")?;
            give(second, "d0", "172.16.3.2/24")?;
        }
        for (namespace, gateway, local) in
            [(&generator, "172.16.1.2", "198.18.0.0/16"), (&sink, "172.16.2.2", "198.19.0.0/16")]
        {
            namespace.ip(&format!("route add default via {gateway}"))?;
            namespace.ip(&format!("route add local {local} dev lo"))?;
        }
        dut.ip("route add 198.18.0.0/16 via 172.16.1.1")?;
        last.ip("route add 198.19.0.0/16 via 172.16.2.1")?;
        if options.defer {
            hubs::device(&sink, "s0", "napi_defer_hard_irqs", "1000")?;
            hubs::device(&sink, "s0", "gro_flush_timeout", "50000")?;
            last.run("tc", &["qdisc", "add", "dev", "d1", "root", "pfifo", "limit", "1000"])?;
        }

        // 2. The hubs' keys, the sites' keys, and those of the lab's lanes.
        let mut dice = ekiden_testbed::Dice::seeded(u64::from(std::process::id()));
        let (key, public) = key_pair(&lab, &mut dice, "hub.key")?;
        let (key2, public2) = key_pair(&lab, &mut dice, "hub2.key")?;
        let plan = Plan { routes: options.routes, flows };
        let mut sites = None;
        if kind.seals() {
            let at = |a, b| SocketAddrV4::new(Ipv4Addr::new(172, 16, a, b), HUB_PORT);
            let senders = match between {
                Between::FromTrunk(cipher) => Sites::lanes(&generator, SENDERS, LANES, cipher, at(1, 2), public)?,
                _ => Sites::new(&generator, SENDERS, options.pairs, at(1, 2), public)?,
            };
            let receivers = match between {
                Between::ToTrunk(cipher) => Sites::lanes(&sink, RECEIVERS, LANES, cipher, at(2, 2), public)?,
                Between::Hubs(_) => Sites::new(&sink, RECEIVERS, options.pairs, at(2, 2), public2)?,
                _ => Sites::new(&sink, RECEIVERS, options.pairs, at(2, 2), public)?,
            };
            sites = Some((senders, receivers));
        }

        // 3. The hub, and the second.
        let mac = sink.mac("s0")?;
        let mut start = |namespace, key: &Path, number, trunk| {
            let sites = sites.as_ref().map(|(a, b)| (a, b));
            let setup = Setup { namespace, sites, key, number, plan, trunk, free: options.free, sink: mac };
            hubs::start(&mut lab, kind, &setup).with_context(|| lab.logs())
        };
        let address = |host| Some(SocketAddrV4::new(Ipv4Addr::new(172, 16, 3, host), HUB_PORT));
        let lanes = |sites: &Sites| sites.keys().next().context("a lane");
        let trunk = match (between, &sites) {
            (Between::Sites, _) | (_, None) => None,
            (Between::ToTrunk(cipher), Some((_, far))) => {
                Some(Trunk { key: lanes(far)?, endpoint: None, cipher, sender: false })
            }
            (Between::FromTrunk(cipher), Some((far, _))) => {
                Some(Trunk { key: lanes(far)?, endpoint: None, cipher, sender: true })
            }
            (Between::Hubs(cipher), _) => Some(Trunk { key: public2, endpoint: address(2), cipher, sender: false }),
        };
        let mut hub = start(&dut, &key, "", trunk)?;
        let mut other = None;
        if let (Some(second), Between::Hubs(cipher)) = (&second, between) {
            let trunk = Trunk { key: public, endpoint: address(1), cipher, sender: true };
            other = Some(start(second, &key2, "2", Some(trunk))?);
        }
        let idle_memory = hub.private_memory()?;

        // 4. The programs at both ends.
        let maker = Maker::new(generator.mac("g0")?, dut.mac("d0")?, size.clone(), plan, options.pairs);
        enter(&sink)?;
        let s0 = Device::find("s0")?.ifindex;
        enter(&generator)?;
        let g0 = Device::find("g0")?.ifindex;
        let tunnels = sites.as_ref().map_or(1, |(_, receivers)| receivers.count());
        let mut programs = Programs::load(&Sizes { port: g0, cells: CELLS, tunnels: tunnels as u32 })?;
        programs.pass(g0)?;
        enter(&sink)?;
        programs.count(s0)?;
        enter(&generator)?;
        let mut core = CpuSet::new();
        core.set(LAB_CORE);
        sched_setaffinity(None, &core)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, interrupted.clone())?;

        let turns = match between {
            Between::ToTrunk(_) => (0..flows).map(|flow| lane(&plan.packet(flow))).collect(),
            _ => (0..tunnels).collect(),
        };
        let last = last.clone();
        let mut rig = Self {
            _home: home,
            hub,
            second: other,
            programs,
            sites,
            maker,
            tunnels,
            turns,
            interrupted,
            last,
            idle_memory,
            lab,
        };
        rig.ready().with_context(|| rig.lab.logs())?;
        if between != Between::Sites {
            rig.await_trunk().with_context(|| rig.lab.logs())?;
        }
        Ok(rig)
    }

    /// Packets of other lengths from now on.
    pub fn resize(&mut self, size: &Size) {
        self.maker.size = size.clone();
    }

    /// Where the logs of what runs here are.
    pub fn logs(&self) -> String {
        self.lab.logs()
    }

    /// Frames that the hub put out and that the wire to the sink, which holds 256, had no room for: the lab's loss, and counted
    /// as the hub's.
    pub fn lost_after_the_hub(&self) -> Result<u64> {
        ekiden_testbed::flood::lost_before(&self.last, "d1")
    }

    /// All sites have a session, and the hub runs.
    fn ready(&mut self) -> Result<()> {
        self.hub.must_be_alive()?;
        self.second.iter_mut().try_for_each(Running::must_be_alive)?;
        if let Some((senders, receivers)) = &mut self.sites {
            receivers.answer()?;
            senders.answer()?;
            receivers.freshen()?;
            senders.freshen()?;
        }
        Ok(())
    }

    /// All lanes are up at each hub, and take packets of every size.
    fn await_trunk(&mut self) -> Result<()> {
        let mut last = Vec::new();
        let ready = until_true("all lanes are up, and take the longest packets", || {
            if let Some((senders, receivers)) = &mut self.sites {
                senders.answer()?;
                receivers.answer()?;
            }
            last.clear();
            for hub in [Some(&self.hub), self.second.as_ref()].into_iter().flatten() {
                let Running::Ekiden(hub) = hub else { bail!("a hub of ours") };
                let trunks = hub.status()?.0["trunks"].take();
                let lanes = trunks.as_array().into_iter().flatten().filter_map(|trunk| trunk["lanes"].as_array());
                last.extend(lanes.flatten().map(|lane| (lane["up"] == true, lane["mtu"].as_u64())));
            }
            let longest = *SIZES.iter().max().unwrap_or(&0) as u64;
            Ok(!last.is_empty() && last.iter().all(|(up, mtu)| *up && *mtu >= Some(longest)))
        });
        ready.with_context(|| format!("lanes: up, and their MTU: {last:?}"))
    }

    /// One trial.
    pub fn trial(&mut self, plot: &Plot) -> Result<Outcome> {
        // 1. Everybody is there, and nothing is left of the trial before.
        self.ready()?;
        self.settle()?;
        let _ = self.programs.samples()?;
        let board = &self.programs.board;
        board.reset()?;
        if self.sites.is_none() {
            board.forget_plain()?;
        }
        let (tunnels_before, before) = (board.tunnels(self.tunnels)?, board.arrivals()?);
        let handshakes_before = self.handshakes();

        // 2. Frames, as many as fit.
        let (total, gap) = match plot.load {
            Load::Rate(rate) => ((rate * plot.time.as_secs_f64()).round() as u64, (256e9 / rate).round() as u64),
            Load::Flood => (u64::from(board.cells), 0),
        };
        let total = total.max(1);
        ensure!(plot.samples == 0 || total <= TIMES, "when {total} frames left is more than is remembered: {TIMES}");
        let interval = match plot.samples {
            0 => 0,
            // Odd, so that it is not in step with batches.
            wanted => (total / self.tunnels as u64 / wanted) | 1,
        };
        let ring = u64::from(board.cells) - if total > u64::from(board.cells) { 2 * BATCH as u64 } else { 0 };
        // A hub knows the session in use and the one before it: what is sealed ahead must not be older when it leaves.
        let ahead = if plot.rekeys > 0 { (total / u64::from(4 * plot.rekeys)).clamp(1, ring) } else { ring };
        let mut feeder = Feeder {
            orders: Orders { ready: 0, total, gap, interval },
            programs_board: &self.programs.board,
            maker: &mut self.maker,
            sites: self.sites.as_mut(),
            ahead,
            cells: Vec::new(),
        };
        feeder.fill(0)?;

        // 3. This thread generates; another makes frames and looks on, until the last has left.
        let generator = pthread_self();
        let programs = &self.programs;
        let over = AtomicBool::new(false);
        let watched = std::thread::scope(|scope| -> Result<Watched> {
            let over = &over;
            let watcher = scope.spawn(move || {
                // As soon as it has something to do, and then briefly: a pause of the generator is a burst afterwards.
                let _ = rustix::process::setpriority_process(None, -19);
                let watched = feeder.watch(plot.rekeys);
                while !over.load(Ordering::Acquire) {
                    let _ = pthread_kill(generator, Signal::SIGUSR1);
                    std::thread::sleep(LOOK);
                }
                watched
            });
            let generated = programs.generate();
            over.store(true, Ordering::Release);
            let watched = watcher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            generated.and(watched)
        })?;
        self.interrupted.store(false, Ordering::Relaxed);

        // 4. What came.
        self.settle()?;
        let board = &self.programs.board;
        let (progress, after, tunnels) = (board.progress()?, board.arrivals()?, board.tunnels(self.tunnels)?);
        ensure!(progress.failed == 0, "the generator could not make {} frames", progress.failed);
        let (late, losers) = self.accounts(progress.sent, &tunnels_before, &tunnels);
        let seconds = progress.ended.saturating_sub(progress.begun).max(1) as f64 / 1e9;
        let mut outcome = Outcome {
            sent: progress.sent,
            received: after.packets - before.packets,
            late,
            losers,
            offered: progress.sent as f64 / seconds,
            carried: watched.carried(),
            starved: progress.starved,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            handshakes: self.handshakes() - handshakes_before,
        };
        if interval > 0 {
            ensure!(
                after.unsampled == before.unsampled,
                "the sink had no room for {} samples",
                after.unsampled - before.unsampled
            );
            self.latencies(&mut outcome.latency)?;
        }
        Ok(outcome)
    }

    fn handshakes(&self) -> u32 {
        self.sites.as_ref().map_or(0, |(a, b)| a.handshakes() + b.handshakes())
    }

    /// Waits until nothing comes to the sink any more.
    fn settle(&self) -> Result<Arrivals> {
        let mut last = self.programs.board.arrivals()?;
        let mut since = Instant::now();
        while since.elapsed() < SILENCE {
            std::thread::sleep(Duration::from_millis(5));
            let now = self.programs.board.arrivals()?;
            if now.packets != last.packets {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Late packets, and what tunnels lost: how many did, and the most.
    fn accounts(&self, sent: u64, before: &[Tunnel], after: &[Tunnel]) -> (u64, (usize, u64)) {
        let turns = self.turns.len() as u64;
        let mut shares = vec![0; self.tunnels];
        for (turn, tunnel) in (0..).zip(&self.turns) {
            shares[*tunnel] += sent / turns + u64::from(turn < sent % turns);
        }
        let sums = before.iter().zip(after).zip(shares).map(|((before, after), share)| {
            (after.late - before.late, share.saturating_sub(after.packets - before.packets))
        });
        sums.fold((0, (0, 0)), |(late, (losers, worst)), (later, lost)| {
            (late + later, (losers + usize::from(lost > 0), worst.max(lost)))
        })
    }

    /// Opens what the sink has kept, and looks up when each packet left.
    fn latencies(&self, histogram: &mut Histogram<u64>) -> Result<()> {
        for mut sample in self.programs.samples()? {
            let number = match &self.sites {
                None => sample.message.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
                Some((_, receivers)) => {
                    let slot = sample.index as usize & ((1 << super::programs::SLOT_BITS) - 1);
                    let session = receivers.by_index(slot, sample.index);
                    let Some(session) = session else { continue };
                    let tag = if receivers.cipher().is_some() { geneve::HEADER } else { 0 };
                    let plain = sites::opened(session, &mut sample.message);
                    let plain = plain.context("the hub sent a packet that its receiver can't open")?;
                    plain.get(tag..).and_then(frames::number)
                }
            };
            let number = number.context("a packet without its number")?;
            let departed = self.programs.board.departed(number)?;
            histogram.saturating_record(sample.now.saturating_sub(departed));
        }
        Ok(())
    }
}

/// Makes frames for a trial, and looks on.
struct Feeder<'a> {
    orders: Orders,
    programs_board: &'a super::programs::Board,
    maker: &'a mut Maker,
    sites: Option<&'a mut (Sites, Sites)>,
    /// Frames that may be made ahead.
    ahead: u64,
    cells: Vec<u8>,
}

/// What was seen of a trial.
struct Watched {
    /// Nanoseconds, and packets at the sink.
    looks: Vec<(u64, u64)>,
}

impl Watched {
    /// Packets a second, while the load went on and after it had taken hold.
    fn carried(&self) -> f64 {
        let first = self.looks.len() / 5;
        match (self.looks.get(first), self.looks.last()) {
            (Some(a), Some(b)) if b.0 > a.0 => (b.1 - a.1) as f64 * 1e9 / (b.0 - a.0) as f64,
            _ => 0.0,
        }
    }
}

impl Feeder<'_> {
    /// Makes frames until there are as many as may be made ahead.
    fn fill(&mut self, sent: u64) -> Result<()> {
        let until = self.orders.total.min(sent + self.ahead);
        while self.orders.ready < until {
            let first = self.orders.ready;
            let count = (until - first).min(BATCH as u64) as usize;
            match &self.sites {
                Some(sites) => self.maker.sealed(first, count, &sites.0, &mut self.cells)?,
                None => self.maker.plain(first, count, GEN, SINK, &mut self.cells),
            }
            self.programs_board.put(first, &self.cells)?;
            self.orders.ready += count as u64;
            // While nothing is sent yet, once at the end is enough.
            if sent > 0 {
                self.programs_board.order(&self.orders)?;
            }
        }
        self.programs_board.order(&self.orders)
    }

    fn watch(&mut self, rekeys: u32) -> Result<Watched> {
        let mut watched = Watched { looks: Vec::new() };
        let mut done = 0;
        let begin = Instant::now();
        loop {
            let progress = self.programs_board.progress()?;
            let arrivals = self.programs_board.arrivals()?;
            if progress.sent > 0 && progress.sent < self.orders.total {
                watched.looks.push((begin.elapsed().as_nanos() as u64, arrivals.packets));
            }
            if progress.sent >= self.orders.total {
                return Ok(watched);
            }
            // Each handshake in the middle of its part of the trial.
            let due = (2 * u64::from(rekeys) * progress.sent / self.orders.total).div_ceil(2);
            if let Some((senders, receivers)) = self.sites.as_deref_mut() {
                if due > done {
                    done += 1;
                    senders.connect(&[0])?;
                    receivers.connect(&[0])?;
                }
                senders.listen()?;
                receivers.answer()?;
                receivers.tick();
            }
            if self.orders.ready < self.orders.total && progress.sent > 0 {
                self.fill(progress.sent)?;
            }
            if begin.elapsed() > Duration::from_secs(600) {
                bail!("the generator sent {} of {} frames in 600 s", progress.sent, self.orders.total);
            }
            std::thread::sleep(LOOK);
        }
    }
}
