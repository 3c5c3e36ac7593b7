//! What the hub may do: the capabilities that it needs, named if they are missing, and everything else given up.
//!
//! Three steps: at the start, all that is not named; in workers and the API, which only use what control has opened, all;
//! and once the hub is ready, what only the start needed. What it may then ask of the kernel is in [`crate::seccomp`].

use ::caps::{CapSet, Capability, CapsHashSet};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The port below which a socket needs `CAP_NET_BIND_SERVICE`.
const UNPRIVILEGED_PORTS: u16 = 1024;

/// A capability that the hub needs, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Which.
    pub capability: Capability,
    /// For what: the end of a sentence that begins with "to".
    pub purpose: &'static str,
    /// Until when.
    pub until: Until,
}

/// How long a capability is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Every port has its XDP program: no program is loaded after that.
    Ready,
    /// The end: an interface may be made anew, an address added.
    End,
}

/// What a hub with this listen port needs, and one with access ports: their XDP program is loaded for an interface, so that it is
/// loaded again for one that is made anew.
pub fn needs(listen_port: u16, access: bool) -> Vec<Need> {
    use Capability::{CAP_BPF, CAP_IPC_LOCK, CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_NET_RAW, CAP_PERFMON};
    let need = |capability, until, purpose| Need { capability, purpose, until };
    let mut needs = vec![
        need(CAP_NET_ADMIN, Until::End, "attach the XDP program to ports and set up sockets"),
        need(CAP_NET_RAW, Until::End, "open AF_XDP sockets"),
        need(CAP_BPF, Until::End, "load the XDP program and its maps"),
        // The program subtracts packet pointers, which the verifier allows only to who may look at kernel memory.
        need(
            CAP_PERFMON,
            if access { Until::End } else { Until::Ready },
            "have the XDP program pass the kernel's verifier",
        ),
        need(CAP_IPC_LOCK, Until::End, "keep packet memory beyond RLIMIT_MEMLOCK"),
    ];
    if listen_port < UNPRIVILEGED_PORTS {
        needs.push(need(CAP_NET_BIND_SERVICE, Until::End, "listen on a UDP port below 1024"));
    }
    needs
}

/// Why the hub does not start, or did not give up what it does not need.
#[derive(Debug, thiserror::Error)]
pub enum CapsError {
    /// The process lacks what it needs.
    #[error("{}", missing_text(.0))]
    Missing(Vec<Need>),
    /// The process has several threads already, and others would keep what this one gives up.
    #[error("privileges must be given up before other threads start; there are {0} threads")]
    Threads(usize),
    /// A system call failed.
    #[error("could not {what}: {why}")]
    Kernel {
        /// What was attempted.
        what: &'static str,
        /// What the kernel said.
        why: String,
    },
}

fn missing_text(missing: &[Need]) -> String {
    let mut text = String::from("the hub lacks what it needs: ");
    let each: Vec<String> = missing.iter().map(|n| format!("{} (to {})", n.capability, n.purpose)).collect();
    text.push_str(&each.join(", "));
    let names: Vec<String> = missing.iter().map(|need| need.capability.to_string()).collect();
    let names = names.join(" ");
    text.push_str("; run it as root, or add to its systemd unit: ");
    text.push_str(&format!("CapabilityBoundingSet={names} and AmbientCapabilities={names}"));
    text
}

fn kernel<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> CapsError {
    move |error| CapsError::Kernel { what, why: error.to_string() }
}

/// Refuses to go on without what is needed, naming all of it. Needs that are permitted but not effective are made so.
pub fn check(needs: &[Need]) -> Result<(), CapsError> {
    let permitted = ::caps::read(None, CapSet::Permitted).map_err(kernel("read the process's capabilities"))?;
    let missing: Vec<Need> = needs.iter().filter(|need| !permitted.contains(&need.capability)).copied().collect();
    if !missing.is_empty() {
        return Err(CapsError::Missing(missing));
    }
    for need in needs {
        ::caps::raise(None, CapSet::Effective, need.capability).map_err(kernel("make a capability effective"))?;
    }
    Ok(())
}

/// Takes the process's group, before the privilege to do so is given up.
pub fn join(group: u32) -> Result<(), CapsError> {
    let group = nix::unistd::Gid::from_raw(group);
    match group == nix::unistd::getegid() {
        true => Ok(()),
        false => nix::unistd::setresgid(group, group, group)
            .map_err(kernel("take the group of [stats] (a systemd unit says it with Group= instead)")),
    }
}

/// Gives up every privilege that `needs` does not name, for good, and sees to it that keys reach no core dump.
///
/// To be called while the process has one thread: capabilities belong to threads, and those started later inherit.
/// The configuration and the keys should have been read before: a file that root may not read by its mode can be read
/// with `CAP_DAC_OVERRIDE` alone, which goes too.
pub fn confine(needs: &[Need]) -> Result<(), CapsError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(kernel("count the process's threads"))?.count();
    if threads != 1 {
        return Err(CapsError::Threads(threads));
    }
    no_core_dumps()?;
    confine_thread(needs)
}

/// No core dump, no `ptrace` by the same user, no reading of `/proc/PID/mem`.
fn no_core_dumps() -> Result<(), CapsError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none).map_err(kernel("turn core dumps off"))?;
    // The limit alone does not hold where core dumps go to a pipe (core(5)).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(kernel("turn core dumps off"))
}

fn confine_thread(needs: &[Need]) -> Result<(), CapsError> {
    // No program that this one might be made to execute gets more than it has, set-uid or not.
    rustix::thread::set_no_new_privs(true).map_err(kernel("set no_new_privs"))?;

    let kept: CapsHashSet = needs.iter().map(|need| need.capability).collect();
    // The bounding set first, while CAP_SETPCAP is there. Without it, as under a unit that limits the set itself, what
    // could be regained through the set is kept out by no_new_privs.
    if ::caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(kernel("read capabilities"))? {
        let bounding = ::caps::read(None, CapSet::Bounding).map_err(kernel("read the bounding set"))?;
        for capability in bounding.difference(&kept) {
            ::caps::drop(None, CapSet::Bounding, *capability).map_err(kernel("limit the bounding set"))?;
        }
    }
    keep(&kept)
}

/// Gives up, for the calling thread, what was needed only until the hub was ready.
pub fn settle(needs: &[Need]) -> Result<(), CapsError> {
    keep(&needs.iter().filter(|need| need.until == Until::End).map(|need| need.capability).collect())
}

/// A thread with no capability at all; it has none when this returns, so that no call that changes them comes later.
pub fn spawn_without<T: Send + 'static>(
    name: String,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, CapsError> {
    let (tell, told) = mpsc::channel();
    let begin = move || {
        let _ = tell.send(keep(&CapsHashSet::new()));
        work()
    };
    let thread = std::thread::Builder::new().name(name).spawn(begin).map_err(kernel("start a thread"))?;
    match told.recv() {
        Ok(result) => result.map(|()| thread),
        Err(gone) => Err(kernel("start a thread")(gone)),
    }
}

/// The calling thread's sets, for good.
fn keep(kept: &CapsHashSet) -> Result<(), CapsError> {
    // Each set must stay within the next: ambient within inheritable, effective within permitted.
    ::caps::clear(None, CapSet::Ambient).map_err(kernel("clear the ambient set"))?;
    ::caps::clear(None, CapSet::Inheritable).map_err(kernel("clear the inheritable set"))?;
    ::caps::set(None, CapSet::Effective, kept).map_err(kernel("keep only the named capabilities"))?;
    ::caps::set(None, CapSet::Permitted, kept).map_err(kernel("keep only the named capabilities"))
}

#[cfg(test)]
mod tests;
