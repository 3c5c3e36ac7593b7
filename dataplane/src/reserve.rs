//! Reserve: a bound UDP socket for each WAN address and port of the hub, so that its ports are the hub's in the kernel's eyes too.
//!
//! XDP takes the hub's datagrams before the kernel sees them, so nobody reads these sockets. They are there for two reasons:
//! no other program can bind the ports, and the kernel finds an owner for an ICMP "too big" that quotes one of the hub's
//! packets. Without one it discards the message; with one it learns the path MTU, which the next route query then tells, and
//! leaves a note in the socket's error queue, which [`Reserved::too_big`] hands on.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::Poll;

use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr, Ipv6V6Only, RcvBuf};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike,
    SockaddrStorage, bind, recvmsg, setsockopt, socket,
};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Room for a few ICMP messages, and for what arrives before XDP is attached: it stays there and the rest is dropped.
const ROOM: usize = 8 << 10;

/// Bytes of the quoted packet that are looked at: none, but the call wants a place.
const QUOTED: usize = 64;

/// Why an address can't be reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// Another socket holds the port, at this address or at all.
    #[error(
        "{address} is held by another program (`ss -lunp 'sport = :{}'` names it; a WireGuard interface of the kernel \
         shows in `wg show`): end it, or give this hub another listen_port",
        address.port()
    )]
    Held {
        /// The address and port.
        address: SocketAddr,
    },
    /// The address has left the system meanwhile; its removal is told by `Change::Local`.
    #[error("{address}: the address is no longer on this system")]
    NotOurs {
        /// The address and port.
        address: SocketAddr,
    },
    /// Something else.
    #[error("reserving {address}: {source}")]
    System {
        /// The address and port.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A router told that a packet of the hub's was too big.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooBig {
    /// The local address that the packet came from.
    pub local: IpAddr,
    /// Where the packet was going.
    pub remote: SocketAddr,
    /// What fits, in bytes of the IP packet, as the router claims. The kernel has its own lower bound: ask for the route.
    pub mtu: u32,
}

/// The bound sockets, one for each WAN address and port.
pub struct Reserved {
    ports: RangeInclusive<u16>,
    sockets: BTreeMap<SocketAddr, UdpSocket>,
}

impl Reserved {
    /// None yet; all of them at these UDP ports.
    pub fn new(ports: RangeInclusive<u16>) -> Self {
        Self { ports, sockets: BTreeMap::new() }
    }

    /// Reserves the ports at an address. Nothing happens to those that are reserved already. Needs a tokio runtime.
    pub fn reserve(&mut self, address: IpAddr) -> Result<(), ReserveError> {
        self.ports.clone().try_for_each(|port| self.reserve_at(SocketAddr::new(address, port)))
    }

    fn reserve_at(&mut self, at: SocketAddr) -> Result<(), ReserveError> {
        if self.sockets.contains_key(&at) {
            return Ok(());
        }
        let socket = open(at).map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => ReserveError::Held { address: at },
            Some(libc::EADDRNOTAVAIL) => ReserveError::NotOurs { address: at },
            _ => ReserveError::System { address: at, source },
        })?;
        self.sockets.insert(at, socket);
        Ok(())
    }

    /// Gives the ports at an address free.
    pub fn release(&mut self, address: IpAddr) {
        self.sockets.retain(|at, _| at.ip() != address);
    }

    /// The addresses and ports that are reserved.
    pub fn reserved(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.keys().copied()
    }

    /// The next "too big". Cancel-safe. If messages come faster than they are taken, some are lost here, not in the kernel's
    /// routes.
    pub async fn too_big(&mut self) -> TooBig {
        loop {
            for (local, socket) in &self.sockets {
                while let Some(note) = next_note(local.ip(), socket) {
                    if let Some(too_big) = note {
                        return too_big;
                    }
                }
            }
            let mut waits: Vec<Pin<Box<dyn Future<Output = _> + Send>>> = Vec::with_capacity(self.sockets.len());
            for socket in self.sockets.values() {
                waits.push(Box::pin(socket.ready(Interest::ERROR)));
            }
            poll_fn(|cx| match waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
        }
    }
}

fn open(at: SocketAddr) -> io::Result<UdpSocket> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    setsockopt(&socket, RcvBuf, &ROOM)?;
    if at.is_ipv4() {
        setsockopt(&socket, MtuDiscover4, &libc::IP_PMTUDISC_DO)?;
        setsockopt(&socket, Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, Ipv6V6Only, &true)?;
        setsockopt(&socket, MtuDiscover6, &libc::IPV6_PMTUDISC_DO)?;
        setsockopt(&socket, Ipv6RecvErr, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    UdpSocket::from_std(socket.into())
}

sockopt_impl!(
    /// "Do": the kernel then takes every "too big" for the socket, whatever `net.ipv4.ip_no_pmtu_disc` says.
    MtuDiscover4,
    Both,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// The same for IPv6.
    MtuDiscover6,
    Both,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);

/// The next note of the error queue; Some(None) is one of another kind. None: the queue is empty.
fn next_note(local: IpAddr, socket: &UdpSocket) -> Option<Option<TooBig>> {
    let mut quoted = [0; QUOTED];
    let mut pieces = [IoSliceMut::new(&mut quoted)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let note = socket
        .try_io(Interest::ERROR, || {
            Ok(recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut control), flags)?)
        })
        .ok()?;
    let remote = note.address.as_ref().and_then(socket_address);
    let mtu = note.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4RecvErr(e, _)
            if (e.ee_origin, e.ee_errno) == (libc::SO_EE_ORIGIN_ICMP, libc::EMSGSIZE.cast_unsigned()) =>
        {
            Some(e.ee_info)
        }
        ControlMessageOwned::Ipv6RecvErr(e, _)
            if (e.ee_origin, e.ee_errno) == (libc::SO_EE_ORIGIN_ICMP6, libc::EMSGSIZE.cast_unsigned()) =>
        {
            Some(e.ee_info)
        }
        _ => None,
    });
    Some(remote.zip(mtu).map(|(remote, mtu)| TooBig { local, remote, mtu }))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    match address.family()? {
        AddressFamily::Inet => address.as_sockaddr_in().map(|a: &SockaddrIn| SocketAddrV4::from(*a).into()),
        AddressFamily::Inet6 => address.as_sockaddr_in6().map(|a: &SockaddrIn6| SocketAddrV6::from(*a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdSocket;
    use std::time::Duration;

    use super::*;
    use crate::underlay::tests::lab::*;

    #[test]
    fn the_port_is_ours_and_a_holder_is_named() {
        lab(async |lab: Lab| {
            lab.link(0);
            let mut reserved = Reserved::new(PORT..=PORT);
            for address in ["10.0.0.1", "fd00:0::1"] {
                reserved.reserve(ip(address)).unwrap();
                reserved.reserve(ip(address)).unwrap();
                let taken = StdSocket::bind((ip(address), PORT)).unwrap_err();
                assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
                reserved.release(ip(address));
                let holder = StdSocket::bind((ip(address), PORT)).unwrap();
                let error = reserved.reserve(ip(address)).unwrap_err();
                assert!(matches!(error, ReserveError::Held { address } if address == holder.local_addr().unwrap()));
                let at = holder.local_addr().unwrap();
                let says = error.to_string();
                assert!(
                    says.starts_with(&format!("{at} is held by another program")) && says.contains("listen_port"),
                    "{says}"
                );
            }
            let gone = reserved.reserve(ip("192.0.2.1")).unwrap_err();
            assert!(matches!(gone, ReserveError::NotOurs { .. }), "{gone}");
            // A socket bound to every address of the system holds ours too.
            let _everywhere = StdSocket::bind(("0.0.0.0", PORT)).unwrap();
            assert!(matches!(reserved.reserve(ip("10.0.0.1")), Err(ReserveError::Held { .. })));
            reserved.reserve(ip("fd00:0::1")).unwrap();
            assert_eq!(reserved.reserved().collect::<Vec<_>>(), [SocketAddr::new(ip("fd00:0::1"), PORT)]);
        });
    }

    #[test]
    fn every_lane_has_its_port_at_every_address() {
        lab(async |lab: Lab| {
            lab.link(0);
            let mut reserved = Reserved::new(PORT..=PORT + 3);
            reserved.reserve(ip("10.0.0.1")).unwrap();
            let taken = |port| StdSocket::bind((ip("10.0.0.1"), port)).is_err();
            assert!((PORT..=PORT + 3).all(taken) && !taken(PORT + 4));
            reserved.release(ip("10.0.0.1"));
            assert!(!(PORT..=PORT + 3).any(taken));
            // Of several, one may be held by another: those before it are reserved, and the error names it.
            let _holder = StdSocket::bind((ip("10.0.0.1"), PORT + 2)).unwrap();
            let error = reserved.reserve(ip("10.0.0.1")).unwrap_err();
            assert!(matches!(error, ReserveError::Held { address } if address.port() == PORT + 2), "{error}");
        });
    }

    #[test]
    fn a_router_with_a_narrow_link_lowers_the_mtu() {
        lab(async |lab: Lab| {
            lab.link(0);
            lab.hub("ip route add default via 10.0.0.2; ip -6 route add default via fd00:0::2");
            // The neighbour routes on to a link with an MTU of 1380.
            lab.peer(
                "ip link add narrow mtu 1380 type veth peer name far; ip link set narrow up; ip link set far up
                 ip addr add 192.0.2.1/24 dev narrow; ip addr add 2001:db8::1/64 dev narrow nodad
                 ip neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 dev narrow
                 ip neigh add 2001:db8::7 lladdr 02:00:00:00:00:07 dev narrow
                 echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding",
            );
            let mut underlay = underlay(1);
            let mut reserved = Reserved::new(PORT..=PORT);
            for (local, remote) in [("10.0.0.1", "192.0.2.7"), ("fd00:0::1", "2001:db8::7")] {
                reserved.reserve(ip(local)).unwrap();
                watch_until(&mut underlay, remote, via_with(0, |hop| hop.local = ip(local))).await;
                // Past the kernel's own knowledge of the path, as the hub sends.
                let remote_at = SocketAddr::new(ip(remote), 7777);
                let sent =
                    reserved.sockets[&SocketAddr::new(ip(local), PORT)].send_to(&[0; 1400], remote_at).await.unwrap();
                assert_eq!(sent, 1400);
                let note = tokio::time::timeout(Duration::from_secs(10), reserved.too_big()).await.unwrap();
                assert_eq!(note, TooBig { local: ip(local), remote: remote_at, mtu: 1380 });
                underlay.refresh(ip(remote));
                until_reach(&mut underlay, remote, via_with(0, |hop| (hop.local, hop.mtu) = (ip(local), 1380))).await;
            }
            // An ICMP error of another kind is passed over.
            lab.peer("ip route add unreachable 203.0.113.0/24");
            reserved.sockets[&SocketAddr::new(ip("10.0.0.1"), PORT)]
                .send_to(&[0; 100], (ip("203.0.113.1"), 7777))
                .await
                .unwrap();
            tokio::time::timeout(Duration::from_millis(300), reserved.too_big()).await.unwrap_err();
        });
    }
}
