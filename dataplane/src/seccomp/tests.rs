//! A filter is for ever, so each is tried in a child process: this test's own binary, told by a variable what to do.
#![allow(unsafe_code, reason = "system calls by their numbers")]

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::net::{AddressFamily, SocketType, socket};

use super::*;

const CHILD: &str = "EKIDEN_TEST_SECCOMP_CHILD";
/// Beyond the last number that any kernel has given: 471 in Linux 7.0.
const NUMBERS: std::ops::Range<c_long> = 0..512;

/// x86-64's `uretprobe` and `uprobe`: the kernel lets them by every filter, and ends who was not led there by a probe.
const PROBES: [c_long; 2] = [335, 336];

/// What a child says of an attempt, or the signal that ended it.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    NoSuchCall,
    OtherError,
    Killed(i32),
}

/// Runs `child` below, which does what `what` names: with the filters, or without.
fn attempt(what: &str, confined: bool) -> Outcome {
    let name = concat!(module_path!(), "::child").split_once("::").unwrap().1;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, format!("{confined} {what}"));
    let output = command.output().unwrap();
    match (output.status.code(), output.status.signal()) {
        (Some(10), _) => Outcome::Done,
        (Some(11), _) => Outcome::NoSuchCall,
        (Some(12), _) => Outcome::OtherError,
        (_, Some(signal)) => Outcome::Killed(signal),
        _ => panic!("{what}: {output:?}"),
    }
}

/// A system call without arguments.
fn call(number: c_long) -> Result<(), Errno> {
    // SAFETY: every pointer is null and every length 0, so that the kernel finds nothing to write to; the numbers tried so
    // are those that the filters refuse, and without filters `unshare` alone, which then changes nothing.
    match unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
        _ => Ok(()),
    }
}

#[test]
fn child() {
    let Ok(task) = std::env::var(CHILD) else { return };
    let (confined, what) = task.split_once(' ').unwrap();
    let another = rustix::process::getppid().unwrap();
    if confined == "true" {
        confine(false).unwrap();
    }
    let map = |rights| {
        // SAFETY: new memory, which nothing else knows and nobody touches.
        unsafe { mmap_anonymous(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE) }.map(drop)
    };
    let outcome = match what {
        "a thread" => std::thread::spawn(|| Ok(())).join().unwrap(),
        "memory" => map(ProtFlags::READ | ProtFlags::WRITE),
        "memory to be executed" => map(ProtFlags::READ | ProtFlags::EXEC),
        "a packet socket" => socket(AddressFamily::PACKET, SocketType::RAW, None).map(drop),
        "a unix socket" => socket(AddressFamily::UNIX, SocketType::STREAM, None).map(drop),
        "a signal to another" => rustix::process::kill_process(another, rustix::process::Signal::WINCH),
        "an abort" => std::process::abort(),
        "everything else" => {
            let known: BTreeSet<c_long> = allowed().map(|call| call.number).chain(DEADLY.iter().copied()).collect();
            let numbers = NUMBERS.filter(|number| !known.contains(number) && !PROBES.contains(number));
            match numbers.map(|number| (number, call(number))).find(|(_, result)| *result != Err(Errno::NOSYS)) {
                Some((number, result)) => panic!("{number}: {result:?}"),
                None => Err(Errno::NOSYS),
            }
        }
        number => call(number.parse().unwrap()),
    };
    std::process::exit(match outcome {
        Ok(()) => 10,
        Err(Errno::NOSYS) => 11,
        Err(_) => 12,
    });
}

#[test]
fn what_a_hub_does_it_may_do() {
    for what in ["a thread", "memory", "a unix socket"] {
        assert_eq!(attempt(what, true), Outcome::Done, "{what}");
    }
    assert_eq!(attempt("an abort", true), Outcome::Killed(libc::SIGABRT), "with the signal that says so");
}

#[test]
fn what_is_not_named_does_not_exist() {
    for what in ["memory to be executed", "a packet socket", "a signal to another"] {
        assert_eq!(attempt(what, false), Outcome::Done, "{what}, without filters");
        assert_eq!(attempt(what, true), Outcome::NoSuchCall, "{what}");
    }
    assert_eq!(attempt("everything else", true), Outcome::NoSuchCall);
}

#[test]
fn what_is_deadly_kills() {
    let killed = Outcome::Killed(libc::SIGSYS);
    assert_eq!(attempt(&libc::SYS_unshare.to_string(), false), Outcome::Done, "without filters");
    for number in DEADLY {
        assert_eq!(attempt(&number.to_string(), true), killed, "system call {number}");
    }
}

#[test]
fn no_call_is_listed_twice_or_in_both_lists() {
    let mut seen = BTreeSet::new();
    for number in allowed().map(|call| call.number).chain(DEADLY.iter().copied()) {
        assert!(seen.insert(number), "{number}");
    }
}
