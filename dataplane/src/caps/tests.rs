//! Capabilities belong to threads, so each test drops them in a thread of its own and harms no other.

use std::fs;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use super::*;

/// Runs `test` in a thread of its own, which may do to its privileges what it likes.
fn apart(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(test).join().unwrap();
}

/// A line of the calling thread's `status` in /proc: what the kernel thinks, without the crate between.
fn kernels_word(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name}")).trim().into()
}

fn without(capabilities: &[Capability]) {
    for capability in capabilities {
        for set in [CapSet::Effective, CapSet::Permitted] {
            ::caps::drop(None, set, *capability).unwrap();
        }
    }
}

#[test]
fn what_is_missing_is_named_with_the_line_that_helps() {
    apart(|| {
        check(&needs(51820, false)).expect("the tests run as root");
        without(&[Capability::CAP_NET_RAW, Capability::CAP_BPF]);
        let text = check(&needs(51820, false)).unwrap_err().to_string();
        assert_eq!(
            text,
            "the hub lacks what it needs: CAP_NET_RAW (to open AF_XDP sockets), CAP_BPF (to load the XDP program and its \
             maps); run it as root, or add to its systemd unit: CapabilityBoundingSet=CAP_NET_RAW CAP_BPF and \
             AmbientCapabilities=CAP_NET_RAW CAP_BPF"
        );
    });
}

#[test]
fn a_low_port_needs_one_more() {
    assert!(needs(1024, false).iter().all(|need| need.capability != Capability::CAP_NET_BIND_SERVICE));
    assert!(needs(1023, false).iter().any(|need| need.capability == Capability::CAP_NET_BIND_SERVICE));
}

#[test]
fn what_is_permitted_is_made_effective() {
    apart(|| {
        ::caps::drop(None, CapSet::Effective, Capability::CAP_NET_RAW).unwrap();
        check(&needs(51820, false)).unwrap();
        assert!(::caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_RAW).unwrap());
    });
}

#[test]
fn only_the_named_capabilities_are_left_in_every_set() {
    apart(|| {
        let needs = needs(443, false);
        confine_thread(&needs).unwrap();
        let named = needs.iter().fold(0, |mask, need| mask | need.capability.bitmask());
        let named = format!("{named:016x}");
        let nothing = "0000000000000000";
        for (set, expected) in
            [("CapEff", &*named), ("CapPrm", &named), ("CapBnd", &named), ("CapInh", nothing), ("CapAmb", nothing)]
        {
            assert_eq!(kernels_word(set), expected, "{set}");
        }
        assert_eq!(kernels_word("NoNewPrivs"), "1");
        check(&needs).expect("what is needed is kept");

        ::caps::raise(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).expect_err("gone for good");
    });
}

#[test]
fn under_a_unit_that_limits_the_bounding_set_itself_it_is_left_alone() {
    apart(|| {
        without(&[Capability::CAP_SETPCAP]);
        let before = kernels_word("CapBnd");
        confine_thread(&needs(51820, false)).unwrap();
        assert_eq!(kernels_word("CapBnd"), before);
        assert!(!::caps::has_cap(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).unwrap());
        // And yet root's own right to all that is in that set does not come back when a program is executed.
        let child = std::process::Command::new("grep").args(["CapPrm", "/proc/self/status"]).output().unwrap();
        let text = String::from_utf8(child.stdout).unwrap();
        assert_eq!(text.split_whitespace().last(), Some(&*kernels_word("CapPrm")));
    });
}

/// Root keeps what is its own: bpffs and the hub's directories need no CAP_DAC_OVERRIDE.
#[test]
fn with_the_named_capabilities_alone_sockets_and_pins_can_be_made() {
    apart(|| {
        confine_thread(&needs(51820, false)).unwrap();
        let family = rustix::net::AddressFamily::from_raw(44); // AF_XDP
        let socket = || rustix::net::socket(family, rustix::net::SocketType::RAW, None);
        assert!(socket().expect("with CAP_NET_RAW").as_raw_fd() >= 0);

        let pins = PathBuf::from(format!("/sys/fs/bpf/ekiden-test-{}", std::process::id()));
        fs::create_dir(&pins).unwrap();
        fs::remove_dir(&pins).unwrap();

        without(&[Capability::CAP_NET_RAW]);
        assert_eq!(socket().unwrap_err(), rustix::io::Errno::PERM);
    });
}

#[test]
fn a_process_of_several_threads_is_refused() {
    let (let_go, hold) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || hold.recv());
    let error = confine(&needs(51820, false)).unwrap_err();
    assert!(matches!(error, CapsError::Threads(count) if count > 1), "{error}");
    drop(let_go);
    let _ = other.join();
}

/// Core dumps are off for the process, not the thread: tried in a child, since the others may want theirs.
#[test]
fn a_crash_leaves_no_core() {
    let name = concat!(module_path!(), "::core_child").split_once("::").unwrap().1;
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("EKIDEN_TEST_CORE_CHILD", "1")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
}

#[test]
fn core_child() {
    if std::env::var_os("EKIDEN_TEST_CORE_CHILD").is_none() {
        return;
    }
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::Dumpable);
    no_core_dumps().unwrap();
    assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    assert_eq!(rustix::process::getrlimit(Resource::Core), Rlimit { current: Some(0), maximum: Some(0) });
}
