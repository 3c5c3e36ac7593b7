//! What labs have made and not yet removed: so that nothing is left, however the program ends.
//!
//! Names carry the process id of their maker. What belongs to a maker that is no longer alive is removed by the next
//! one; what belongs to this process is removed by whoever made it, or at a signal by [`sweep`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Begins every name that a lab gives: namespaces, directories under `/tmp` and under bpffs.
pub(crate) const PREFIX: &str = "ekiden-test-";
/// Begins the names of clients' interfaces, which have 15 characters at most.
pub(crate) const INTERFACE_PREFIX: &str = "ek";
/// Where `ip netns` keeps its names.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Where WireGuard implementations in user space have their sockets.
pub(crate) const UAPI: &str = "/var/run/wireguard";
/// Where links of XDP programs are pinned.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
const TEMPORARY: &str = "/tmp";

/// One thing that has to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    Process(Pid),
    Namespace(String),
    Mount(PathBuf),
    Directory(PathBuf),
    File(PathBuf),
}

impl Thing {
    /// As far as it can be done: it is the end, and there may be nothing there.
    pub(crate) fn remove(&self) {
        match self {
            Self::Process(pid) => drop(kill_process(*pid, Signal::KILL)),
            Self::Namespace(name) => drop(Command::new("ip").args(["netns", "del", name]).output()),
            Self::Mount(path) => drop(rustix::mount::unmount(path, UnmountFlags::DETACH)),
            Self::Directory(path) => drop(fs::remove_dir_all(path)),
            Self::File(path) => drop(fs::remove_file(path)),
        }
    }
}

static MADE: Mutex<Vec<Thing>> = Mutex::new(Vec::new());

fn made() -> MutexGuard<'static, Vec<Thing>> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on this has to go.
pub(crate) fn note(thing: Thing) {
    made().push(thing);
}

/// This has gone, or is about to be reaped: its number may soon be another's.
pub(crate) fn forget(thing: &Thing) {
    made().retain(|made| made != thing);
}

/// Once a process: what a lab needs of the machine, what earlier labs left, and the answer to signals.
pub(crate) fn prepare() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = prepare_once());
    result
}

fn prepare_once() -> Result<()> {
    anyhow::ensure!(rustix::process::geteuid().is_root(), "labs make network namespaces: run this as root");
    mount_bpffs()?;
    remove_orphans();
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            sweep();
            // As a shell reports a program that a signal ended. Nothing of ours is left for destructors to do.
            signal_hook::low_level::exit(128 + signal);
        }
    })?;
    Ok(())
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("/proc/mounts")?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
        return Ok(());
    }
    rustix::mount::mount("bpf", BPFFS, "bpf", MountFlags::empty(), None).context("could not mount a bpffs")
}

/// Removes everything that this process has made. Processes first, since they hold the rest; then what is mounted in
/// directories.
fn sweep() {
    // Not released again: whoever is making something now must not go on.
    let mut made = made();
    made.sort_by_key(|thing| match thing {
        Thing::Process(_) => 0,
        Thing::Mount(_) => 1,
        Thing::Namespace(_) | Thing::Directory(_) | Thing::File(_) => 2,
    });
    made.iter().for_each(Thing::remove);
    std::mem::forget(made);
}

fn remove_orphans() {
    for (directory, prefix) in [(NAMESPACES, PREFIX), (BPFFS, PREFIX), (TEMPORARY, PREFIX), (UAPI, INTERFACE_PREFIX)] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(maker) = name.strip_prefix(prefix).and_then(maker) else { continue };
            if Path::new(&format!("/proc/{maker}")).exists() {
                continue;
            }
            match directory {
                NAMESPACES => Thing::Namespace(name).remove(),
                UAPI => Thing::File(entry.path()).remove(),
                TEMPORARY => {
                    mounts_in(&entry.path()).into_iter().for_each(|path| Thing::Mount(path).remove());
                    Thing::Directory(entry.path()).remove();
                }
                _ => Thing::Directory(entry.path()).remove(),
            }
        }
    }
}

/// What is mounted somewhere in a directory.
fn mounts_in(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let paths = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    paths.filter(|path| path.starts_with(directory)).collect()
}

/// The process id at the beginning of what follows the prefix.
fn maker(rest: &str) -> Option<u32> {
    rest.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_maker_left_is_removed_and_what_a_living_one_has_is_not() {
        // Larger than any process id (proc(5): at most 2^22).
        let orphan = Path::new(TEMPORARY).join(format!("{PREFIX}99999999-1"));
        let ours = Path::new(TEMPORARY).join(format!("{PREFIX}{}-orphans", std::process::id()));
        let stranger = Path::new(TEMPORARY).join(format!("{PREFIX}of-somebody"));
        for directory in [&orphan, &ours, &stranger] {
            fs::create_dir_all(directory.join("inside")).unwrap();
        }
        remove_orphans();
        assert!(!orphan.exists() && ours.exists() && stranger.exists());
        fs::remove_dir_all(ours).unwrap();
        fs::remove_dir_all(stranger).unwrap();
    }
}
