//! Raw frames at an interface: what passes there, and frames made by hand.

use std::os::fd::{AsRawFd, OwnedFd};
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
/// `PACKET_OUTGOING` of packet(7).
const OUTGOING: u8 = 4;
const LONGEST: usize = 1 << 16;

/// A packet socket at one interface.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    ifindex: usize,
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
        Ok(Self { socket, ifindex: ifindex as usize, link })
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
            let Some(from) = from.filter(|from| from.ifindex() == self.ifindex) else { continue };
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

    /// Sends a frame, link header and all.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let link = self.link.as_ref().context("the interface has no link addresses")?;
        let sent = sendto(self.socket.as_raw_fd(), frame, link, MsgFlags::empty())?;
        anyhow::ensure!(sent == frame.len(), "sent {sent} of {} bytes", frame.len());
        Ok(())
    }
}

impl Seen {
    /// Whether its bytes contain these.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.bytes.windows(needle.len()).any(|window| window == needle)
    }
}
