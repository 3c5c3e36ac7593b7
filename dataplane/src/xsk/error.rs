//! Why a socket could not be opened.

use std::fmt;
use std::io;

/// A socket that could not be opened: where, at which step, what the kernel said, and what would help.
#[derive(Debug, thiserror::Error)]
#[error("interface {interface} queue {queue}: cannot {step}: {source}; {}", .step.remedy(.source))]
pub struct Error {
    /// Name of the interface, or its index where it has no name.
    pub interface: String,
    /// Number of the queue.
    pub queue: u32,
    /// What was being done.
    pub step: Step,
    /// The kernel's answer.
    pub source: io::Error,
}

/// One of a socket's four rings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ring {
    /// Empty frames to the kernel.
    Fill,
    /// Sent frames back from the kernel.
    Completion,
    /// Received packets.
    Receive,
    /// Packets to be sent.
    Transmit,
}

/// The steps of opening a socket, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// `socket(AF_XDP)`.
    Create,
    /// `XDP_UMEM_REG`.
    RegisterUmem,
    /// Ask for a ring of so many entries.
    Size(Ring, u32),
    /// `XDP_MMAP_OFFSETS`.
    LearnOffsets,
    /// Map a ring.
    Map(Ring),
    /// Set the busy-polling options.
    BusyPoll,
    /// Bind, in a mode of our choice (of a UMEM that the socket registered).
    Bind {
        /// Zero-copy, as opposed to copy.
        zero_copy: bool,
        /// For packets in several descriptors, too.
        multi_buffer: bool,
    },
    /// Bind with the UMEM and so the mode of another socket.
    BindShared,
    /// `XDP_OPTIONS`.
    ReadOptions,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Ring::Fill => "fill",
            Ring::Completion => "completion",
            Ring::Receive => "receive",
            Ring::Transmit => "transmit",
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Create => f.write_str("create an AF_XDP socket"),
            Step::RegisterUmem => f.write_str("register the UMEM"),
            Step::Size(ring, entries) => write!(f, "make a {ring} ring of {entries} entries"),
            Step::LearnOffsets => f.write_str("learn the layout of the rings"),
            Step::Map(ring) => write!(f, "map the {ring} ring"),
            Step::BusyPoll => f.write_str("turn on busy polling"),
            Step::Bind { zero_copy, multi_buffer } => {
                let (mode, parts) = (
                    if *zero_copy { "zero-copy" } else { "copy" },
                    if *multi_buffer { " with multi-buffer" } else { "" },
                );
                write!(f, "bind in {mode} mode{parts}")
            }
            Step::BindShared => f.write_str("bind with a shared UMEM"),
            Step::ReadOptions => f.write_str("read what was bound"),
        }
    }
}

impl Step {
    /// What the operator can do about `error` at this step.
    fn remedy(&self, error: &io::Error) -> &'static str {
        let bind = matches!(self, Step::Bind { .. } | Step::BindShared);
        match (self, error.raw_os_error()) {
            (Step::Create, Some(libc::EPERM)) => "the process needs CAP_NET_RAW",
            (Step::Create, Some(libc::EAFNOSUPPORT)) => "the kernel is built without CONFIG_XDP_SOCKETS",
            (Step::RegisterUmem, Some(libc::EPERM | libc::ENOBUFS)) => {
                "raise the locked-memory limit (LimitMEMLOCK=infinity) or keep CAP_IPC_LOCK"
            }
            (Step::RegisterUmem | Step::Map(_), Some(libc::ENOMEM)) => "free memory, or configure fewer chunks",
            (Step::Size(..), Some(libc::EINVAL)) => "a ring has a power of two of entries",
            (Step::LearnOffsets, _) => "Linux 5.10 is the oldest kernel that works",
            (Step::BusyPoll, Some(libc::EPERM)) => "the process needs CAP_NET_ADMIN",
            (Step::BusyPoll, Some(libc::ENOPROTOOPT)) => "preferred busy polling needs Linux 5.11",
            (_, Some(libc::EBUSY)) if bind => {
                "another socket, perhaps of another process, has this queue: see `ss --xdp -p`, and end that one"
            }
            (Step::Bind { multi_buffer: true, .. }, Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                "frames that no chunk holds need multi-buffer, which Linux has from 6.6 on, and in zero-copy mode not every driver: \
                 lower the port's MTU to 3794, or ask for copy mode"
            }
            (Step::Bind { zero_copy: true, .. }, Some(libc::EOPNOTSUPP)) => {
                "the driver has no zero-copy mode: leave the choice open, or ask for copy mode"
            }
            (_, Some(libc::EOPNOTSUPP)) if bind => {
                "the driver can't do the mode of the socket whose UMEM is shared: open all in copy mode"
            }
            (_, Some(libc::EINVAL)) if bind => "see `ethtool -l` whether the interface has such a queue",
            (_, Some(libc::ENODEV | libc::ENXIO)) if bind => "the interface is gone: check its name",
            (_, Some(libc::ENETDOWN)) if bind => "set the interface up first",
            (_, Some(libc::EPERM)) => "run as root, or with CAP_NET_RAW and CAP_NET_ADMIN",
            _ => "see the kernel's log for more",
        }
    }
}
