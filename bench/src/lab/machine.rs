//! The machine on which something was measured, and what its cipher and its journey take.

use std::process::Command;
use std::time::Duration;

use crypto::aead::{self, Wish};
use dataplane::packet::BATCH;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::frames::Size;
use super::hubs::HUB_CORE;
use crate::{Messages, Relay, Spent};

/// Batches of each measurement in memory.
const BATCHES: usize = 600;

/// What is said of a machine on every page.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its processor.
    pub cpu: String,
    /// Its cores.
    pub cores: usize,
    /// Its kernel.
    pub kernel: String,
    /// The commit of what was measured, and whether the tree differed from it.
    pub commit: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(": ")?.1.to_owned())
        };
        let git = |words: &[&str]| {
            let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(words).output().ok()?;
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let mut commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".into());
        if git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty()) {
            commit += " and changes";
        }
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            cpu: format!(
                "{} (family {}, model {})",
                field("model name").unwrap_or_default(),
                field("cpu family").unwrap_or_default(),
                field("model\t").unwrap_or_default()
            ),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            commit,
        }
    }
}

/// Ticks that the hub's core was taken away by the host of this virtual machine, and all its ticks.
pub fn stolen() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let name = format!("cpu{HUB_CORE} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).unwrap_or_default();
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|tick| tick.parse().ok()).collect();
    (ticks.get(7).copied().unwrap_or(0), ticks.iter().take(8).sum())
}

/// What things take a packet on the hub's core, in memory.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// To open it.
    pub open: Duration,
    /// To seal it.
    pub seal: Duration,
    /// The whole journey, in cycles of the counter.
    pub journey_cycles: f64,
    /// Cycles a second of the counter.
    pub clock: f64,
}

/// Measures them, on the core that a hub has: medians of batches of 64, by the cipher that the hub would choose.
pub fn parts(size: &Size) -> Parts {
    let size = size.clone();
    // A thread of its own, so that this one keeps its core.
    let thread = std::thread::spawn(move || {
        let mut core = CpuSet::new();
        core.set(HUB_CORE);
        let _ = sched_setaffinity(None, &core);
        let lengths: Vec<usize> = size.lengths.iter().copied().cycle().take(BATCH).collect();
        let backend = aead::choose(&Wish::default());
        let mut messages = Messages::new(lengths.iter().map(|length| length.next_multiple_of(16)));
        let mut relay = Relay::new(backend, 1, lengths.iter().copied());
        let (mut open, mut seal, mut journey) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..BATCHES {
            let [sealed, opened] = messages.seal_and_open(backend);
            seal.push(sealed);
            open.push(opened);
            journey.push(relay.batch());
        }
        let time = |all: &[Spent]| {
            Duration::from_secs_f64(
                super::median(all.iter().map(|spent| spent.time.as_secs_f64()).collect()) / BATCH as f64,
            )
        };
        let cycles: u64 = journey.iter().map(|spent| spent.cycles).sum();
        let seconds: f64 = journey.iter().map(|spent| spent.time.as_secs_f64()).sum();
        let clock = (cycles as f64 / seconds).max(1.0);
        Parts {
            open: time(&open),
            seal: time(&seal),
            journey_cycles: super::median(journey.iter().map(|spent| spent.cycles as f64).collect()) / BATCH as f64,
            clock,
        }
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
