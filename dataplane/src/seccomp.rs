//! Which system calls a hub that runs may make, and what becomes of any other.
//!
//! Two filters, for all threads, from the moment at which the hub is ready until it ends:
//!
//! 1. What [`allowed`] does not name, or names with other arguments, is answered with `ENOSYS` and not carried out. Not
//!    with death: a newer C library may try a newer system call first, and takes the older one when it hears `ENOSYS`;
//!    the hub that all tenants share must not die of that. For the same reason not with `EPERM`, which nothing gets over.
//! 2. What is in [`DEADLY`] ends the process. No library calls it by itself in a hub, so somebody else is at the wheel;
//!    and a dead hub fails closed, stands in the kernel's audit log, and is started again.
//!
//! `clone3` is not allowed, because its flags lie behind a pointer, which no filter can follow: the C library then calls
//! `clone`, and that is allowed for threads alone. The paths of files can't be seen either: what the hub may open is
//! limited by its systemd unit and by the capabilities that it no longer has.
//!
//! To find out what is missing after a change: `strace -f -p PID` shows the `ENOSYS`, and `testbed/tests/hardening.rs`
//! names it.

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// A system call that a hub may make.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    number: c_long,
    constant: &'static str,
    only: Only,
    /// It comes only in circumstances that the hub's ordinary operations, all of them, need not bring about.
    pub rare: bool,
}

impl Allowed {
    /// As `strace` calls it.
    pub fn name(&self) -> &'static str {
        self.constant.trim_start_matches("SYS_")
    }
}

/// With which arguments. They are counted from 0.
#[derive(Debug, Clone, Copy)]
enum Only {
    Any,
    /// This argument is one of these.
    OneOf(u8, &'static [u32]),
    /// This argument has none of these bits.
    Without(u8, u32),
    /// This argument has all of these bits.
    With(u8, u32),
    /// `tgkill` of this process by itself with `SIGABRT`: how `abort` works.
    OwnAbort,
}

use Only::{Any, OneOf, OwnAbort, With, Without};

macro_rules! calls {
    ($($name:ident $only:expr, $rare:literal;)*) => {
        &[$(Allowed { number: libc::$name, constant: stringify!($name), only: $only, rare: $rare }),*]
    };
}

const EXECUTABLE: u32 = libc::PROT_EXEC as u32;
const THREAD: u32 = (libc::CLONE_THREAD | libc::CLONE_VM | libc::CLONE_SIGHAND) as u32;
/// Unix: the API and systemd. IP: reserved ports, questions about interfaces. Netlink: the underlay. XDP: a port made anew.
const FAMILIES: &[u32] =
    &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32, libc::AF_NETLINK as u32, libc::AF_XDP as u32];
/// What an interface that was made anew is asked; the last is how the standard library makes a socket non-blocking.
const QUESTIONS: &[u32] = &[
    libc::SIOCGIFINDEX as u32,
    libc::SIOCGIFNAME as u32,
    libc::SIOCGIFHWADDR as u32,
    libc::SIOCGIFMTU as u32,
    libc::SIOCETHTOOL as u32,
    libc::FIONBIO as u32,
];

/// The same on every architecture. `true`: rare.
const EVERYWHERE: &[Allowed] = calls! {
    // Packets, and waiting for them.
    SYS_ppoll Any, false;
    SYS_sendto Any, false;
    SYS_recvfrom Any, false;
    SYS_getsockopt Any, false; // what the kernel lost before a ring; who calls the API
    SYS_sendmsg Any, true; // the descriptor of the statistics
    SYS_recvmsg Any, true; // what a router says of a packet; whose program is on a port
    SYS_read Any, false;
    SYS_write Any, false;
    SYS_writev Any, false;
    SYS_readv Any, true;
    SYS_close Any, false;
    SYS_epoll_ctl Any, false;
    SYS_epoll_pwait Any, true;

    // The API, systemd, netlink; sockets of an interface or an address that is new.
    SYS_accept4 Any, false;
    SYS_shutdown Any, false;
    SYS_socket OneOf(0, FAMILIES), false;
    SYS_connect Any, false;
    SYS_bind Any, false;
    SYS_getsockname Any, true;
    SYS_setsockopt Any, false;
    SYS_ioctl OneOf(1, QUESTIONS), false;
    SYS_fcntl Any, false;
    SYS_bpf OneOf(0, bpf::COMMANDS), false;
    SYS_fstatfs Any, false; // whether a pin is on a bpffs

    // The state file, the time zone of the log, the sockets' files at the end.
    SYS_openat Any, false;
    SYS_statx Any, false;
    SYS_fstat Any, true;
    SYS_newfstatat Any, true;
    SYS_lseek Any, true;
    SYS_fsync Any, false;
    SYS_getdents64 Any, true;
    SYS_mkdirat Any, true;
    SYS_unlinkat Any, true;
    SYS_renameat2 Any, true;
    SYS_readlinkat Any, true;

    // A reload for which the statistics need more rows.
    SYS_fallocate Any, true;

    // Memory: never executable.
    SYS_mmap Without(2, EXECUTABLE), false;
    SYS_mprotect Without(2, EXECUTABLE), false;
    SYS_munmap Any, false;
    SYS_mremap Any, true;
    SYS_madvise Any, false;
    SYS_brk Any, false;
    SYS_getrandom Any, false;

    // Threads: the one that writes the state, and their ends.
    SYS_clone With(0, THREAD), false;
    SYS_set_robust_list Any, false;
    SYS_rseq Any, false;
    SYS_sched_getaffinity Any, false;
    SYS_sched_setaffinity Any, true; // a worker that was slow to start
    SYS_sched_yield Any, true;
    SYS_gettid Any, false;
    SYS_getpid Any, false;
    SYS_geteuid Any, true; // a directory of pins that is looked at again
    SYS_prctl OneOf(0, &[libc::PR_SET_NAME as u32]), false;
    SYS_futex Any, false;
    SYS_uname Any, false;
    SYS_exit Any, false;
    SYS_exit_group Any, false;

    // Signals, and clocks where the kernel does not lend its own.
    SYS_sigaltstack Any, false;
    SYS_rt_sigprocmask Any, false;
    SYS_rt_sigaction Any, true;
    SYS_rt_sigreturn Any, false;
    SYS_restart_syscall Any, true;
    SYS_tgkill OwnAbort, true;
    SYS_clock_gettime Any, true;
    SYS_clock_nanosleep Any, true;
    SYS_nanosleep Any, true;
    SYS_gettimeofday Any, true;
    // Whether the clock is synchronised; to set it needs a capability that the hub does not have.
    SYS_clock_adjtime OneOf(0, &[libc::CLOCK_REALTIME as u32]), false;
    SYS_adjtimex Any, true;
    SYS_getcpu Any, true;
};

/// Calls that newer architectures have under another name only.
#[cfg(target_arch = "x86_64")]
const OLD: &[Allowed] = calls! {
    SYS_epoll_wait Any, false;
    SYS_poll Any, true;
    SYS_mkdir Any, false;
    SYS_unlink Any, false;
    SYS_rename Any, false;
    SYS_readlink Any, true; // which file of an include is which, at a reload
};
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[Allowed] = &[];

/// What libbpf calls besides when it loads a program: a descriptor to hold the place of a map's, and whether the kernel's types can
/// be read.
const LOADING: &[c_long] = &[libc::SYS_memfd_create, libc::SYS_dup3, libc::SYS_faccessat, libc::SYS_faccessat2];

/// System calls that no hub that runs has a reason for.
pub const DEADLY: &[c_long] = &[
    // Another program, another process.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    // Another world.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_open_by_handle_at,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_capset,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// All that a hub that runs may call.
pub fn allowed() -> impl Iterator<Item = &'static Allowed> {
    EVERYWHERE.iter().chain(OLD)
}

/// Why the filters are not in place.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// They could not be built.
    #[error("could not build the filter of system calls: {0}")]
    Build(#[from] seccompiler::BackendError),
    /// The kernel did not take them.
    #[error("could not limit the system calls: {0}")]
    Apply(#[from] seccompiler::Error),
}

/// From here on, and for all threads that there are or will be, both filters hold. There is no way back. `load`: an XDP program may
/// still be loaded, for an access port whose interface is made anew.
pub fn confine(load: bool) -> Result<(), SeccompError> {
    // The second last: it would not let the first be put in place otherwise than by its leave.
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    for filter in [deadly(arch)?, allow_list(arch, load)?] {
        seccompiler::apply_filter_all_threads(&filter)?;
    }
    Ok(())
}

fn allow_list(arch: TargetArch, load: bool) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = allowed().map(|call| Ok((call.number, call.only.rules()?)));
    let mut rules: BTreeMap<_, _> = rules.collect::<Result<_, seccompiler::BackendError>>()?;
    if load {
        rules.entry(libc::SYS_bpf).or_default().extend(OneOf(0, bpf::LOADING).rules()?);
        rules.extend(LOADING.iter().map(|number| (*number, Vec::new())));
    }
    let otherwise = SeccompAction::Errno(libc::ENOSYS as u32);
    SeccompFilter::new(rules, otherwise, SeccompAction::Allow, arch)?.try_into()
}

fn deadly(arch: TargetArch) -> Result<BpfProgram, seccompiler::BackendError> {
    let rules = DEADLY.iter().map(|number| (*number, Vec::new())).collect();
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::KillProcess, arch)?.try_into()
}

impl Only {
    /// Any one of the rules must hold; no rule: whatever the arguments.
    fn rules(self) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let is = |argument, operator, value: u32| {
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
        };
        let rule = |conditions| SeccompRule::new(conditions);
        match self {
            Any => Ok(Vec::new()),
            OneOf(at, values) => values.iter().map(|value| rule(vec![is(at, SeccompCmpOp::Eq, *value)?])).collect(),
            Without(at, bits) => Ok(vec![rule(vec![is(at, SeccompCmpOp::MaskedEq(bits.into()), 0)?])?]),
            With(at, bits) => Ok(vec![rule(vec![is(at, SeccompCmpOp::MaskedEq(bits.into()), bits)?])?]),
            OwnAbort => Ok(vec![rule(vec![
                is(0, SeccompCmpOp::Eq, std::process::id())?,
                is(2, SeccompCmpOp::Eq, libc::SIGABRT as u32)?,
            ])?]),
        }
    }
}

#[cfg(test)]
mod tests;
