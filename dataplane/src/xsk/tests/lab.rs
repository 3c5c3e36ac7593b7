//! A network of two wires in a namespace of its own, and XDP programs that steer frames into sockets:
//! `g0 === d0 (us) d1 === s0`.
#![allow(unsafe_code, reason = "system calls that only these tests need")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Length of the frames that the tests send.
pub(super) const LEN: usize = 60;

/// Runs a test in a network namespace that vanishes with the thread, which has the two wires, up and silent.
pub(super) fn in_lab(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        // SAFETY: changes only which network this thread sees.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "tests need root");
        // Else the kernel sends neighbour discovery of its own into the wires.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        for wire in [["g0", "d0"], ["s0", "d1"]] {
            ip(&format!("link add {} type veth peer name {}", wire[0], wire[1]));
            ip(&format!("link set {} up", wire[0]));
            ip(&format!("link set {} up", wire[1]));
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Makes an interface with two queues, and returns its index.
pub(super) fn two_queues() -> u32 {
    ip("link add q0 numrxqueues 2 numtxqueues 2 type veth peer name q1 numrxqueues 2 numtxqueues 2");
    index("q0")
}

/// Runs `ip`.
pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Index of an interface.
pub(super) fn index(name: &str) -> u32 {
    super::Device::find(name).unwrap().ifindex
}

fn descriptor(result: i32) -> OwnedFd {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the callers pass what a call that makes a descriptor returned.
    unsafe { OwnedFd::from_raw_fd(result) }
}

/// An XDP program that gives a frame to the socket whose number is the last byte of the frame's destination address.
pub(super) struct Steer {
    sockets: OwnedFd,
    _link: OwnedFd,
}

impl Steer {
    /// Attaches to the interface, in native mode.
    pub(super) fn attach(ifindex: u32) -> Steer {
        Self::attach_with(ifindex, 0)
    }

    /// The same, for packets in several buffers.
    pub(super) fn attach_wide(ifindex: u32) -> Steer {
        Self::attach_with(ifindex, libbpf_sys::BPF_F_XDP_HAS_FRAGS)
    }

    fn attach_with(ifindex: u32, prog_flags: u32) -> Steer {
        // SAFETY: plain numbers and a terminated string; no options.
        let sockets = descriptor(unsafe {
            libbpf_sys::bpf_map_create(libbpf_sys::BPF_MAP_TYPE_XSKMAP, c"sockets".as_ptr(), 4, 4, 16, std::ptr::null())
        });
        let instruction = |code: u8, to: u8, from: u8, offset: i16, value: i32| {
            u64::from(code)
                | u64::from(to | from << 4) << 8
                | u64::from(offset as u16) << 16
                | u64::from(value as u32) << 32
        };
        let program = [
            instruction(0x61, 2, 1, 0, 0),                   // r2 = ctx->data
            instruction(0x61, 3, 1, 4, 0),                   // r3 = ctx->data_end
            instruction(0xbf, 4, 2, 0, 0),                   // r4 = r2
            instruction(0x07, 4, 0, 0, 14),                  // r4 += 14
            instruction(0x2d, 4, 3, 6, 0),                   // if r4 > r3 goto drop
            instruction(0x71, 2, 2, 5, 0),                   // r2 = last byte of the destination
            instruction(0x18, 1, 1, 0, sockets.as_raw_fd()), // r1 = map
            0,                                               // (second half of the above)
            instruction(0xb7, 3, 0, 0, 1),                   // r3 = XDP_DROP
            instruction(0x85, 0, 0, 0, 51),                  // r0 = bpf_redirect_map(r1, r2, r3)
            instruction(0x95, 0, 0, 0, 0),                   // exit
            instruction(0xb7, 0, 0, 0, 1),                   // drop: r0 = XDP_DROP
            instruction(0x95, 0, 0, 0, 0),                   // exit
        ];
        let mut load = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as libbpf_sys::size_t,
            prog_flags,
            ..Default::default()
        };
        // SAFETY: the program is as long as said and made of 8-byte instructions; strings are terminated; options know their
        // size.
        let loaded = descriptor(unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_XDP,
                c"steer".as_ptr(),
                c"Dual BSD/GPL".as_ptr(),
                program.as_ptr().cast(),
                program.len() as libbpf_sys::size_t,
                &mut load,
            )
        });
        let options = libbpf_sys::bpf_link_create_opts {
            sz: size_of::<libbpf_sys::bpf_link_create_opts>() as libbpf_sys::size_t,
            flags: libbpf_sys::XDP_FLAGS_DRV_MODE,
            ..Default::default()
        };
        // SAFETY: an open descriptor, and options that know their size.
        let link = descriptor(unsafe {
            libbpf_sys::bpf_link_create(loaded.as_raw_fd(), ifindex as i32, libbpf_sys::BPF_XDP, &options)
        });
        Steer { sockets, _link: link }
    }

    /// Frames with this number go to this socket.
    pub(super) fn to(&self, number: u32, socket: &impl AsFd) {
        let fd = socket.as_fd().as_raw_fd();
        // SAFETY: key and value have the four bytes that the map was made with.
        let result = unsafe {
            libbpf_sys::bpf_map_update_elem(
                self.sockets.as_raw_fd(),
                std::ptr::from_ref(&number).cast(),
                std::ptr::from_ref(&fd).cast(),
                0,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

/// The far end of a wire.
pub(super) struct Far(File);

impl Far {
    pub(super) fn open(interface: &str) -> Far {
        let every_protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: takes no pointer.
        let fd = descriptor(unsafe {
            libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, i32::from(every_protocol))
        });
        // SAFETY: all zeros is a valid address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every_protocol;
        address.sll_ifindex = index(interface) as i32;
        let len = size_of_val(&address) as u32;
        // SAFETY: `address` is `len` bytes.
        assert_eq!(unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) }, 0);
        Far(File::from(fd))
    }

    /// Sends a frame for socket `number` that carries `mark`.
    pub(super) fn send(&mut self, number: u8, mark: u64) {
        assert_eq!(self.0.write(&frame(number, mark)).unwrap(), LEN);
    }

    /// The mark of the next frame.
    pub(super) fn receive(&mut self) -> Option<u64> {
        let mut bytes = [0; 2048];
        match self.0.read(&mut bytes) {
            Ok(len) => {
                let mark = mark(&bytes[..len]);
                assert_eq!(bytes[..len], frame(bytes[5], mark), "arrives as it was sent");
                Some(mark)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }
}

impl AsFd for Far {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A frame of the tests.
pub(super) fn frame(number: u8, mark: u64) -> [u8; LEN] {
    let mut frame = [0x5A; LEN];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, number, 2, 0, 0, 0, 0, 0xFE, 0x88, 0xB5]);
    frame[14..22].copy_from_slice(&mark.to_be_bytes());
    frame
}

/// What a frame of the tests carries.
pub(super) fn mark(frame: &[u8]) -> u64 {
    assert_eq!(frame[12..14], [0x88, 0xB5], "a frame of ours");
    u64::from_be_bytes(frame[14..22].try_into().unwrap())
}

/// Waits until there is something to read, and says whether.
pub(super) fn readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> bool {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    poll(&mut fds, Some(&Timespec::try_from(timeout).unwrap())).unwrap() > 0
}

/// Repeats until something comes of it.
pub(super) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "no {what} after 10 s");
        std::thread::yield_now();
    }
}
