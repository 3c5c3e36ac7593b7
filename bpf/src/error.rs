//! What can go wrong between the hub and the kernel, and what to do about it.

use std::io;
use std::path::PathBuf;

/// An error of loading, attaching, pinning or a map; says what was found and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel did not take the program or its maps.
    #[error(
        "the kernel refused the XDP program: {source}; it needs Linux 6.1 or later and CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN{}{log}",
        if log.is_empty() { "" } else { ":\n" }
    )]
    Load {
        /// What libbpf returned.
        source: libbpf_rs::Error,
        /// What libbpf said meanwhile, with the verifier's last words; may be empty.
        log: String,
    },
    /// The size of the session table makes no sense.
    #[error("session_bits = {found}: a receiver index has 1 to 24 bits for the slot, the others are random")]
    SessionBits {
        /// As it was given.
        found: u8,
    },
    /// A port number, queue or slot beyond its map.
    #[error("{what} {found} is out of range: the XDP program has room for {room}")]
    Range {
        /// What it numbers.
        what: &'static str,
        /// As it was given.
        found: u32,
        /// The number of places.
        room: u32,
    },
    /// A map did not take or give an entry.
    #[error("map {map} of the XDP program: {source}")]
    Map {
        /// The map's name in the program.
        map: &'static str,
        /// What the kernel said.
        source: libbpf_rs::Error,
    },
    /// A map could not be shared with the program.
    #[error("map {map} of the XDP program could not be mapped: {source}")]
    Mapping {
        /// The map's name in the program.
        map: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A descriptor could not be duplicated.
    #[error("no further file descriptor: {0}; raise the limit (LimitNOFILE= in systemd)")]
    Descriptor(io::Error),
    /// The program could not be run on a frame.
    #[error("the kernel did not run the XDP program on a test frame: {0}")]
    TestRun(io::Error),
    /// The interface is not there, or not the one that was meant.
    #[error("no interface {name} with index {ifindex} in this network namespace: {source}")]
    Interface {
        /// Its name.
        name: String,
        /// The index that it had.
        ifindex: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Another XDP program is there.
    #[error("{name} already has the XDP program {program}, attached by {}; {}", holder.as_str(), holder.remedy(name))]
    Busy {
        /// The interface.
        name: String,
        /// Its program's id, as `bpftool prog` shows it.
        program: u32,
        /// What keeps it there.
        holder: Holder,
    },
    /// The kernel or the driver refused.
    #[error("{name}: no XDP program could be attached ({modes}): {source}")]
    Attach {
        /// The interface.
        name: String,
        /// The modes that were tried.
        modes: &'static str,
        /// What the kernel said to the last.
        source: io::Error,
    },
    /// The place for pins is on no bpffs, and a pin there would be impossible.
    #[error("{path} is not on a BPF filesystem; mount it: mount -t bpf bpf /sys/fs/bpf")]
    NotBpffs {
        /// The path that was asked for.
        path: PathBuf,
    },
    /// The directory of pins belongs to somebody who could remove them, and so open the ports.
    #[error(
        "{path} belongs to user {owner}: who can remove a pin can open the port; remove the directory, or chown it to user {user}"
    )]
    PinOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who runs this process.
        user: u32,
    },
    /// The directory or a pin in it could not be made, read or removed.
    #[error("cannot {action} {path}: {source}")]
    Pin {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The pin is a living link, but not one of this network namespace.
    #[error(
        "{path} pins the XDP program {program} on an interface (index {ifindex}) of another network namespace; \
         give this hub another name, or end that one and remove its pin: ekiden detach --hub {hub} {name}"
    )]
    PinElsewhere {
        /// The pin.
        path: PathBuf,
        /// The program inside.
        program: u32,
        /// The interface's index in its own namespace.
        ifindex: u32,
        /// The hub's name.
        hub: String,
        /// The port's name.
        name: String,
    },
}

/// What keeps a foreign program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// `ip link`, or another user of netlink: it stays until it is taken off.
    Netlink,
    /// A BPF link: it stays while a process or a pin holds the link.
    Link {
        /// The link's id, as `bpftool link` shows it.
        id: u32,
    },
    /// One of these: only a process with `CAP_SYS_ADMIN` may list the links to find out.
    Unknown,
}

impl Holder {
    fn as_str(self) -> String {
        match self {
            Self::Netlink => "netlink".into(),
            Self::Link { id } => format!("BPF link {id}"),
            Self::Unknown => "netlink or a BPF link".into(),
        }
    }

    fn remedy(self, name: &str) -> String {
        match self {
            Self::Netlink => format!("take it off: ip link set dev {name} xdp off"),
            Self::Link { id } => {
                format!("end its owner or remove its pin (bpftool link show id {id}; for another hub: ekiden detach)")
            }
            Self::Unknown => format!(
                "take it off: ip link set dev {name} xdp off; if that is refused, `bpftool link` shows the link, whose \
                 owner must end or whose pin must go (for another hub: ekiden detach)"
            ),
        }
    }
}
