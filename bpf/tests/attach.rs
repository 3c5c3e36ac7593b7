//! The program on real interfaces: attach, pin, death of the process, take-over, and what stands in the way.
//!
//! Each test is a thread with a network namespace of its own, which goes with it; so do the interfaces.
#![allow(unsafe_code, reason = "namespaces, packet sockets and foreign programs")]

mod common;

use std::fs;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use bpf::{Error, Holder, Limits, Mode, Options, PortCounters, SessionEntry, SessionState, Steering};
use common::{HUB4, LISTEN, Udp, message};
use libbpf_rs::{Xdp, XdpFlags};
use wire::DropReason;

const LIVE: u32 = 0xdead_0042;

/// A namespace with the hub's port `wan0` and its neighbour `peer0`, and a directory of pins; all gone with it.
struct Lab {
    options: Options,
}

impl Lab {
    fn new(name: &str) -> Self {
        static BPFFS: Once = Once::new();
        BPFFS.call_once(|| {
            if !is_mounted("/sys/fs/bpf") {
                run("mount -t bpf bpf /sys/fs/bpf");
            }
        });
        // SAFETY: no pointers; the thread gets a network namespace of its own.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", io::Error::last_os_error());
        run("ip link set lo up");
        let lab = Self { options: common::options(name, Limits::default()) };
        lab.plug();
        lab
    }

    /// Makes the cable.
    fn plug(&self) {
        run("ip link add wan0 type veth peer name peer0");
        run("ip address add 192.0.2.1/24 dev wan0");
        run("ip link set wan0 up");
        run("ip link set peer0 up");
        run("ip route replace 198.51.100.0/24 dev wan0");
    }

    /// A hub's process, as far as steering goes.
    fn hub(&self) -> Steering {
        let steering = Steering::load(self.options.clone()).unwrap();
        steering.set_local(HUB4.into()).unwrap();
        let entry = SessionEntry { index: LIVE, worker: 0, tenant: 0, site: 0, state: SessionState::Live };
        steering.set_session(LIVE & 0xff, entry).unwrap();
        steering
    }

    fn pin(&self) -> PathBuf {
        self.options.pin_root.join("test/wan0")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = bpf::detach(&self.options.pin_root, &self.options.hub, None);
        let _ = fs::remove_dir_all(&self.options.pin_root);
    }
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_mounted(directory: &str) -> bool {
    fs::read_to_string("/proc/self/mounts").unwrap().lines().any(|line| line.split(' ').nth(1) == Some(directory))
}

fn index(name: &str) -> u32 {
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    assert_ne!(index, 0, "{}", io::Error::last_os_error());
    index
}

/// The XDP program on an interface.
fn program_on(name: &str) -> Option<u32> {
    let any = foreign_program();
    let id = Xdp::new(any.as_fd()).query_id(index(name) as i32, XdpFlags::NONE).unwrap();
    (id != 0).then_some(id)
}

fn link_of(pin: &Path) -> libbpf_rs::query::LinkInfo {
    libbpf_rs::Link::open(pin).unwrap().info().unwrap()
}

/// A program of somebody else: two instructions that pass every frame.
fn foreign_program() -> OwnedFd {
    let instruction = |code, imm| libbpf_sys::bpf_insn { code, imm, ..Default::default() };
    let pass = [instruction(0xb7, 2), instruction(0x95, 0)];
    // SAFETY: two instructions, strings that end in zero, no options.
    let fd = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"foreign".as_ptr(),
            c"GPL".as_ptr(),
            pass.as_ptr(),
            pass.len() as _,
            std::ptr::null_mut(),
        )
    };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sends a frame out of `peer0`, so that it arrives at `wan0`.
fn send(frame: &[u8]) {
    // SAFETY: no pointers; checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(socket >= 0, "{}", io::Error::last_os_error());
    // SAFETY: just made, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: all zeros is a value of this struct of integers.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index("peer0") as i32;
    // SAFETY: the frame and the address outlive the call and have the lengths given.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            0,
            std::ptr::from_ref(&to).cast(),
            size_of_val(&to) as u32,
        )
    };
    assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
}

/// What arrives at the hub's host through the kernel: its sockets on the hub's UDP port and on another one.
struct Kernel {
    hub: UdpSocket,
    other: UdpSocket,
    mac: [u8; 6],
}

impl Kernel {
    fn new() -> Self {
        let output = Command::new("ip").args(["-o", "link", "show", "wan0"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mac = text.split("link/ether ").nth(1).unwrap().split(' ').next().unwrap();
        let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        let hub = UdpSocket::bind((HUB4, LISTEN)).unwrap();
        hub.set_nonblocking(true).unwrap();
        let other = UdpSocket::bind((HUB4, 9)).unwrap();
        other.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { hub, other, mac: mac.try_into().unwrap() }
    }

    /// Sends a data message of a live session, and then a datagram for another port, which shows when the first has been
    /// dealt with. Gives whether the kernel got the message.
    fn gets_a_hub_frame(&self) -> bool {
        let mut udp = Udp::v4(message(4, LIVE, 64));
        udp.destination_mac = self.mac;
        send(&udp.build());
        udp.port = 9;
        send(&udp.build());
        self.other.recv(&mut [0; 100]).expect("the datagram for another port passes");
        match self.hub.recv(&mut [0; 100]) {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}

fn books(steering: &Steering, port: u16) -> PortCounters {
    steering.counters().unwrap().into_iter().find(|counters| counters.port == port).unwrap()
}

fn no_socket(steering: &Steering, port: u16) -> u64 {
    books(steering, port).drops[DropReason::XdpNoSocket as usize].packets
}

#[test]
fn a_port_fails_closed_and_the_next_process_takes_it_over() {
    let lab = Lab::new("life");
    let kernel = Kernel::new();
    assert!(kernel.gets_a_hub_frame(), "the positive control: without the program, the kernel gets it");

    let mut first = lab.hub();
    let attached = first.attach(2, index("wan0"), "wan0", None).unwrap();
    assert_eq!((attached.mode, attached.took_over), (Mode::Native, false));
    assert!(attached.why_generic.is_none());
    assert_eq!(first.pin_directory().join("wan0"), lab.pin());
    for directory in [&lab.options.pin_root, &first.pin_directory()] {
        assert_eq!(fs::metadata(directory).unwrap().permissions().mode() & 0o777, 0o700, "{}", directory.display());
    }
    assert!(!kernel.gets_a_hub_frame());
    assert_eq!(no_socket(&first, 2), 1);
    let link = link_of(&lab.pin());

    // The process dies: all its descriptors are closed, and nothing else is done.
    drop(first);
    assert_eq!(program_on("wan0"), Some(link.prog_id));
    assert!(!kernel.gets_a_hub_frame(), "it fails closed");

    let mut second = lab.hub();
    let attached = second.attach(0, index("wan0"), "wan0", None).unwrap();
    assert_eq!((attached.mode, attached.took_over), (Mode::Native, true));
    let taken = link_of(&lab.pin());
    assert_eq!(taken.id, link.id, "the link stayed: there was no moment without a program");
    assert_ne!(taken.prog_id, link.prog_id);
    assert!(!kernel.gets_a_hub_frame());
    assert_eq!(no_socket(&second, 0), 1, "the second process's program and maps");

    // A third takes over while the second lives; the second's end changes nothing.
    let mut third = lab.hub();
    assert!(third.attach(1, index("wan0"), "wan0", Some(Mode::Native)).unwrap().took_over);
    drop(second);
    assert!(!kernel.gets_a_hub_frame());
    assert_eq!(no_socket(&third, 1), 1);

    assert_eq!(bpf::detach(&lab.options.pin_root, "test", Some("wan1")).unwrap(), [""; 0]);
    assert_eq!(bpf::detach(&lab.options.pin_root, "test", Some("wan0")).unwrap(), ["wan0"]);
    assert_eq!(program_on("wan0"), None, "for good, although a process still holds the link");
    assert!(!lab.pin().exists() && !third.pin_directory().exists());
    assert!(kernel.gets_a_hub_frame());
    assert_eq!(bpf::detach(&lab.options.pin_root, "test", None).unwrap(), [""; 0], "once more is no error");
}

#[test]
fn the_books_of_a_port_hold_on_a_wire() {
    let lab = Lab::new("books");
    let kernel = Kernel::new();
    let mut hub = lab.hub();
    hub.attach(0, index("wan0"), "wan0", None).unwrap();
    for _ in 0..100 {
        assert!(!kernel.gets_a_hub_frame());
    }
    hub.detach(0).unwrap(); // so that nothing moves any more
    assert_eq!(program_on("wan0"), None);
    assert!(!lab.pin().exists());
    let books = books(&hub, 0);
    assert_eq!(books.drops[DropReason::XdpNoSocket as usize].packets, 100);
    assert!(books.passed.packets >= 100, "the datagrams for the other port, at least");
    let dropped: u64 = books.dropped().map(|(_, count)| count.bytes).sum();
    assert_eq!(books.seen.bytes, books.passed.bytes + books.redirected.bytes + dropped);
    assert_eq!(books.seen.packets, books.passed.packets + books.redirected.packets + 100);
}

#[test]
fn an_interface_made_anew_is_attached_anew() {
    let lab = Lab::new("anew");
    let mut hub = lab.hub();
    let first = index("wan0");
    hub.attach(0, first, "wan0", None).unwrap();
    run("ip link delete wan0");
    lab.plug();
    assert!(lab.pin().exists(), "the pin outlives its interface");
    assert_ne!(index("wan0"), first);
    let stale = hub.attach(0, first, "wan0", None).unwrap_err();
    assert!(matches!(stale, Error::Interface { ifindex, .. } if ifindex == first), "{stale}");
    let attached = hub.attach(0, index("wan0"), "wan0", None).unwrap();
    assert!(!attached.took_over);
    assert_eq!(Some(link_of(&lab.pin()).prog_id), program_on("wan0"));
    assert!(!Kernel::new().gets_a_hub_frame(), "with its new MAC address");

    // The same by way of detach, as the underlay will do when it sees the deletion.
    run("ip link delete wan0");
    hub.detach(0).unwrap();
    assert!(!lab.pin().exists());
    lab.plug();
    assert!(!hub.attach(0, index("wan0"), "wan0", None).unwrap().took_over);
}

#[test]
fn a_pin_under_the_name_of_another_interface_is_replaced() {
    let lab = Lab::new("renamed");
    let mut hub = lab.hub();
    hub.attach(0, index("wan0"), "wan0", None).unwrap();
    run("ip link set wan0 down");
    run("ip link set wan0 name old0");
    run("ip link set peer0 name wan0");
    drop(hub);
    let mut hub = lab.hub();
    assert!(!hub.attach(0, index("wan0"), "wan0", None).unwrap().took_over);
    assert_eq!(program_on("old0"), None);
    assert_eq!(Some(link_of(&lab.pin()).prog_id), program_on("wan0"));
}

#[test]
fn a_living_pin_of_another_namespace_is_left_alone() {
    let lab = Lab::new("elsewhere");
    let mut hub = lab.hub();
    hub.attach(0, index("wan0"), "wan0", None).unwrap();
    let before = link_of(&lab.pin());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The same names, and by the way the same indices, in a namespace of this thread.
            // SAFETY: no pointers.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            lab.plug();
            let error = lab.hub().attach(0, index("wan0"), "wan0", None).unwrap_err();
            assert!(matches!(error, Error::PinElsewhere { .. }), "{error}");
            assert!(error.to_string().contains("ekiden detach --hub test wan0"), "{error}");
        });
    });
    let after = link_of(&lab.pin());
    assert_eq!((after.id, after.prog_id), (before.id, before.prog_id));
    assert_eq!(program_on("wan0"), Some(before.prog_id));
}

#[test]
fn a_program_that_is_in_the_way_is_named_with_its_remedy() {
    let lab = Lab::new("busy");
    let mut hub = lab.hub();
    let wan0 = index("wan0");

    let foreign = foreign_program();
    Xdp::new(foreign.as_fd()).attach(wan0 as i32, XdpFlags::DRV_MODE).unwrap();
    for mode in [None, Some(Mode::Native), Some(Mode::Generic)] {
        let error = hub.attach(0, wan0, "wan0", mode).unwrap_err();
        let Error::Busy { program, holder: Holder::Netlink, .. } = error else { panic!("{error}") };
        assert_eq!(Some(program), program_on("wan0"));
        assert!(error.to_string().contains(&format!("program {program}, attached by netlink")), "{error}");
        assert!(error.to_string().contains("ip link set dev wan0 xdp off"), "{error}");
    }
    run("ip link set dev wan0 xdp off");
    hub.attach(0, wan0, "wan0", None).unwrap();
    hub.detach(0).unwrap();

    // Another hub's link.
    let mut other = Steering::load(Options { hub: "other".into(), ..lab.options.clone() }).unwrap();
    other.attach(0, wan0, "wan0", None).unwrap();
    let link = link_of(&other.pin_directory().join("wan0"));
    let error = hub.attach(0, wan0, "wan0", None).unwrap_err();
    assert!(matches!(error, Error::Busy { holder: Holder::Link { id }, .. } if id == link.id), "{error}");
    assert!(error.to_string().contains(&format!("bpftool link show id {}", link.id)), "{error}");
    assert!(!lab.pin().exists(), "nothing is left of the attempt");
    assert_eq!(bpf::detach(&lab.options.pin_root, "other", None).unwrap(), ["wan0"]);
}

#[test]
fn where_the_driver_has_no_xdp_it_is_generic_and_says_why() {
    let lab = Lab::new("generic");
    let mut hub = lab.hub();
    let attached = hub.attach(0, index("lo"), "lo", None).unwrap();
    assert_eq!(attached.mode, Mode::Generic);
    assert!(attached.why_generic.is_some());
    let error = hub.attach(1, index("lo"), "lo", Some(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::Attach { .. }), "{error}");

    // Forced, where native would do; and a mode that is forced later replaces the link.
    let attached = hub.attach(2, index("wan0"), "wan0", Some(Mode::Generic)).unwrap();
    assert_eq!(attached.mode, Mode::Generic);
    assert!(attached.why_generic.is_none());
    assert!(!Kernel::new().gets_a_hub_frame());
    let attached = hub.attach(2, index("wan0"), "wan0", None).unwrap();
    assert_eq!((attached.mode, attached.took_over), (Mode::Generic, true), "nothing forced: as it is");
    let attached = hub.attach(2, index("wan0"), "wan0", Some(Mode::Native)).unwrap();
    assert_eq!((attached.mode, attached.took_over), (Mode::Native, false));
    assert!(!Kernel::new().gets_a_hub_frame());
}

#[test]
fn names_with_dots_are_pinned_too() {
    let lab = Lab::new("dots");
    run("ip link set wan0 name wan0.100");
    let mut hub = Steering::load(Options { hub: "tokyo.1".into(), ..lab.options.clone() }).unwrap();
    hub.attach(0, index("wan0.100"), "wan0.100", None).unwrap();
    assert_eq!(bpf::detach(&lab.options.pin_root, "tokyo.1", None).unwrap(), ["wan0.100"]);
    assert_eq!(program_on("wan0.100"), None);
}

#[test]
fn a_place_without_bpffs_or_of_another_user_is_refused() {
    let lab = Lab::new("place");
    let wan0 = index("wan0");
    let elsewhere = Options { pin_root: "/tmp/ekiden-no-bpffs/pins".into(), ..lab.options.clone() };
    let error = Steering::load(elsewhere).unwrap().attach(0, wan0, "wan0", None).unwrap_err();
    assert!(matches!(error, Error::NotBpffs { .. }), "{error}");
    assert!(error.to_string().contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    assert!(!Path::new("/tmp/ekiden-no-bpffs").exists());

    let root = &lab.options.pin_root;
    fs::create_dir(root).unwrap();
    std::os::unix::fs::chown(root, Some(65534), None).unwrap();
    let error = lab.hub().attach(0, wan0, "wan0", None).unwrap_err();
    assert!(matches!(error, Error::PinOwner { owner: 65534, .. }), "{error}");
    std::os::unix::fs::chown(root, Some(0), None).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o777)).unwrap();
    lab.hub().attach(0, wan0, "wan0", None).unwrap();
    assert_eq!(fs::metadata(root).unwrap().permissions().mode() & 0o777, 0o700, "what was open is closed");
}

#[test]
fn a_port_with_vlans_has_a_program_of_its_own_and_is_taken_over_too() {
    let mut lab = Lab::new("vlans");
    lab.options.roles = vec![bpf::Roles { wan: false, access: true }];
    lab.options.access_ends = 1;
    // Nobody speaks on his own.
    for name in ["wan0", "peer0"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    }
    let ask = |id: u8| {
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 2, 0x81, 0, 0, id, 0x08, 0x06]);
        frame.extend([0; 28]);
        send(&frame);
    };
    for took_over in [false, true] {
        let mut steering = lab.hub();
        let attachment = bpf::Attachment { port: 0, outer_type: 0x8100, outer: 100, inner: 0 };
        steering.set_access(attachment, bpf::AccessEnd { site: 0, worker: 0 }).unwrap();
        let attached = steering.attach(0, index("wan0"), "wan0", None).unwrap();
        assert!(attached.no_tags.is_none(), "{:?}", attached.no_tags);
        assert_eq!(attached.took_over, took_over);
        (0..3).for_each(|_| ask(100));
        (0..5).for_each(|_| ask(101));
        // A known VLAN has a worker, which is missing here.
        let dropped = |reason: DropReason| books(&steering, 0).drops[reason as usize].packets;
        assert_eq!((dropped(DropReason::XdpNoSocket), dropped(DropReason::XdpVlanUnknown)), (3, 5));
    }
}
