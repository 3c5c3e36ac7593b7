//! Raw frames at an interface: what passes there, and frames made by hand.
#![allow(unsafe_code, reason = "asks a packet socket what it has lost")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::lab::Namespace;
use crate::wait::PATIENCE;

/// What the kernel keeps until it is read: some thousand frames, more than any test lets wait.
const ROOM: usize = 32 << 20;
/// `PACKET_STATISTICS` of packet(7): frames seen, and those of them that found no room, since it was last read.
fn packet_statistics(socket: BorrowedFd<'_>) -> Result<(u32, u32)> {
    let mut counts = [0u32; 2];
    let mut length = size_of_val(&counts) as nix::libc::socklen_t;
    let (level, name) = (nix::libc::SOL_PACKET, nix::libc::PACKET_STATISTICS);
    // SAFETY: `counts` is `struct tpacket_stats` of packet(7), two u32; the kernel writes at most `length` bytes, which is
    // its size, and any bytes are valid integers. `length` is a valid socklen_t to write to.
    let result =
        unsafe { nix::libc::getsockopt(socket.as_raw_fd(), level, name, counts.as_mut_ptr().cast(), &raw mut length) };
    nix::Error::result(result)?;
    Ok((counts[0], counts[1]))
}

/// `PACKET_OUTGOING` of packet(7).
const OUTGOING: u8 = 4;
const LONGEST: usize = 1 << 16;

/// A packet socket at one interface.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    /// The interface; none: every one of the namespace.
    ifindex: Option<usize>,
    /// To send from; an interface without link addresses has none.
    link: Option<LinkAddr>,
}

/// A frame that passed. At an interface without link headers (a tunnel) it begins with the IP header.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The host sent it; otherwise it came to the host.
    pub outgoing: bool,
}

impl Tap {
    /// Begins to look.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let (socket, ifindex, link) = namespace.inside(|| -> Result<_> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            // Not bound, it sees every interface of the namespace; each frame says which it is of.
            let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
            setsockopt(&socket, RcvBufForce, &ROOM)?;
            let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == interface);
            let link = addresses.find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()));
            Ok((socket, nix::net::if_::if_nametoindex(interface), link))
        })??;
        let ifindex = ifindex.with_context(|| format!("{} has no interface {interface}", namespace.name()))?;
        Ok(Self { socket, ifindex: Some(ifindex as usize), link })
    }

    /// Begins to look at every interface of a namespace, also those that are made later.
    pub fn everywhere(namespace: &Namespace) -> Result<Self> {
        Ok(Self { ifindex: None, link: None, ..Self::open(namespace, "lo")? })
    }

    fn next(&self) -> Result<Option<Seen>> {
        let mut bytes = vec![0; LONGEST];
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes) {
                Err(nix::Error::EAGAIN) => return Ok(None),
                // The interface went down; what else it has to show, it will.
                Err(nix::Error::ENETDOWN) => continue,
                other => other?,
            };
            let ours = |from: &LinkAddr| self.ifindex.is_none_or(|ifindex| from.ifindex() == ifindex);
            let Some(from) = from.filter(ours) else { continue };
            bytes.truncate(length);
            return Ok(Some(Seen { bytes, outgoing: from.pkttype() == OUTGOING }));
        }
    }

    /// Everything that has passed since the last time.
    pub fn drain(&self) -> Result<Vec<Seen>> {
        let mut all = Vec::new();
        while let Some(seen) = self.next()? {
            all.push(seen);
        }
        Ok(all)
    }

    /// How many frames of this kind have passed since the last time; the others are forgotten.
    pub fn count(&self, kind: impl Fn(&Seen) -> bool) -> Result<usize> {
        Ok(self.drain()?.iter().filter(|seen| kind(seen)).count())
    }

    /// The next frame of this kind; those before it are forgotten.
    pub fn wait_for(&self, what: &str, kind: impl Fn(&Seen) -> bool) -> Result<Seen> {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Some(seen) = self.next()? {
                if kind(&seen) {
                    return Ok(seen);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            if left == Duration::ZERO || poll(&mut fds, Some(&Timespec::try_from(left)?))? == 0 {
                bail!("no {what} passed in {} s", PATIENCE.as_secs());
            }
        }
    }

    /// For waiting until something passes.
    pub fn poll_fd(&self, flags: PollFlags) -> PollFd<'_> {
        PollFd::new(&self.socket, flags)
    }

    /// Frames that passed and found no room since the last time that this was asked: nobody read fast enough.
    pub fn lost(&self) -> Result<u64> {
        Ok(packet_statistics(self.socket.as_fd())?.1.into())
    }

    /// Sends a frame, link header and all.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let link = self.link.as_ref().context("the interface has no link addresses")?;
        let sent = sendto(self.socket.as_raw_fd(), frame, link, MsgFlags::empty())?;
        anyhow::ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }
}

/// A tap that somebody always reads, however much passes. It ends when it is dropped.
#[derive(Debug)]
pub struct Capture<T> {
    notes: Arc<Mutex<T>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl<T: Send + 'static> Capture<T> {
    /// Gives every frame to `note`.
    pub fn start(tap: Tap, notes: T, note: impl Fn(&mut T, &Seen) + Send + 'static) -> Self {
        let (notes, ended) = (Arc::new(Mutex::new(notes)), Arc::new(AtomicBool::new(false)));
        let (theirs, end) = (notes.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            // Looked at before the last reading: what passed before the end is noted.
            let mut last = false;
            loop {
                while let Some(seen) = tap.next()? {
                    note(&mut theirs.lock().unwrap_or_else(PoisonError::into_inner), &seen);
                }
                if last {
                    return tap.lost();
                }
                last = end.load(Ordering::Acquire);
                poll(
                    &mut [PollFd::new(&tap.socket, PollFlags::IN)],
                    Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }),
                )?;
            }
        });
        Self { notes, ended, thread: Some(thread) }
    }

    /// What was noted so far.
    pub fn look<R>(&self, at: impl FnOnce(&mut T) -> R) -> R {
        at(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends it. An error if a frame passed that it did not see: then what it did not find proves nothing.
    pub fn finish(mut self) -> Result<()> {
        self.ended.store(true, Ordering::Release);
        let thread = self.thread.take().context("it ends once")?;
        let lost = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        anyhow::ensure!(lost == 0, "the capture lost {lost} frames");
        Ok(())
    }
}

impl<T> Drop for Capture<T> {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Seen {
    /// Whether its bytes contain these.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}
