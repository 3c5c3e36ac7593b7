//! One UDP socket with thousands of addresses.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Result;
use nix::libc::in_pktinfo;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, bind, recvmsg,
    sendmsg, setsockopt, socket,
};

/// A socket on every local address of its namespace.
#[derive(Debug)]
pub struct ManyAddresses(OwnedFd);

impl ManyAddresses {
    /// On this port, in the network namespace of the calling thread.
    pub fn bind(port: u16) -> Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
        setsockopt(&socket, RcvBufForce, &(64 << 20))?;
        setsockopt(&socket, Ipv4PacketInfo, &true)?;
        bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port)))?;
        Ok(Self(socket))
    }

    /// The next datagram, if there is one: its length, and the address that it was sent to.
    pub fn receive(&self, bytes: &mut [u8]) -> Result<Option<(usize, Ipv4Addr)>> {
        let mut space = nix::cmsg_space!(in_pktinfo);
        let mut parts = [IoSliceMut::new(bytes)];
        loop {
            let received =
                match recvmsg::<SockaddrIn>(self.0.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty()) {
                    Err(nix::Error::EAGAIN) => return Ok(None),
                    // What ICMP said of an earlier datagram.
                    Err(nix::Error::ECONNREFUSED | nix::Error::EHOSTUNREACH | nix::Error::ENETUNREACH) => continue,
                    other => other?,
                };
            let to = received.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4PacketInfo(info) => Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))),
                _ => None,
            });
            if let Some(to) = to {
                return Ok(Some((received.bytes, to)));
            }
        }
    }

    /// Sends one datagram from an address. Lost, it is as any packet that a path loses.
    pub fn send(&self, from: Ipv4Addr, to: SocketAddrV4, bytes: &[u8]) {
        let info = in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: nix::libc::in_addr { s_addr: u32::from(from).to_be() },
            ipi_addr: nix::libc::in_addr { s_addr: 0 },
        };
        let control = [ControlMessage::Ipv4PacketInfo(&info)];
        let to = SockaddrIn::from(to);
        let _ = sendmsg(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), Some(&to));
    }
}

impl AsFd for ManyAddresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
