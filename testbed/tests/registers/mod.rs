//! A system call in the place of another process, as code injected there would make it.

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// A system call with its arguments.
pub(crate) type Call = (i64, [u64; 3]);

pub(crate) const GETPID: Call = (libc::SYS_getpid, [0; 3]);
pub(crate) const PACKET_SOCKET: Call = (libc::SYS_socket, [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0]);
/// Of no program: without a filter, the kernel answers `EFAULT`.
pub(crate) const EXECVE: Call = (libc::SYS_execve, [0; 3]);
pub(crate) const ENOSYS: i64 = libc::ENOSYS as i64;

/// Lets the main thread of a process make a call, and gives what the kernel answered; `None` if it did not live to hear it.
pub(crate) fn call(pid: u32, (number, arguments): Call) -> Result<Option<i64>> {
    let pid = Pid::from_raw(pid.try_into()?);
    ptrace::attach(pid).context("attach")?;
    if !matches!(waitpid(pid, None)?, WaitStatus::Stopped(_, Signal::SIGSTOP)) {
        bail!("it did not stop");
    }
    let saved = ptrace::getregs(pid)?;
    // It was stopped in a system call, so the instruction before is one: it is made once more, with other registers.
    let mut registers = saved;
    registers.rip = saved.rip - 2;
    let before = ptrace::read(pid, registers.rip as ptrace::AddressType)?;
    if before & 0xffff != 0x050f {
        bail!("not stopped in a system call");
    }
    (registers.rax, registers.orig_rax) = (number as u64, u64::MAX);
    [registers.rdi, registers.rsi, registers.rdx] = arguments;
    ptrace::setregs(pid, registers)?;
    ptrace::step(pid, None)?;
    // Looked at first, and left to who has started the process if it is its end.
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    if !matches!(waitid(Id::Pid(pid), peek)?, WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..)) {
        return Ok(None);
    }
    let stopped = waitpid(pid, None)?;
    if !matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
        bail!("{stopped:?}");
    }
    let answer = ptrace::getregs(pid)?.rax.cast_signed();
    // As it was: an interrupted wait is begun again by the kernel, or by the hub.
    ptrace::setregs(pid, saved)?;
    ptrace::detach(pid, None)?;
    Ok(Some(answer))
}
