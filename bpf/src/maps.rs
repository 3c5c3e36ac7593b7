//! The program's maps, by the names of `steer.bpf.c` and with the types that its BTF gives.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use libbpf_rs::{ErrorKind, MapCore, MapFlags, MapHandle};

use crate::Error;
use crate::program::{OpenSteerMaps, SteerMaps, types};
use crate::sys::{bytes_of, from_bytes};

/// One list of the maps for all that is done with each of them.
macro_rules! maps {
    ($($name:ident)*) => {
        /// The maps that all ports of a hub share.
        #[derive(Debug)]
        pub(crate) struct Maps { $($name: MapHandle,)* }

        impl Maps {
            pub(crate) fn of(loaded: &SteerMaps<'_>) -> libbpf_rs::Result<Self> {
                Ok(Self { $($name: MapHandle::try_from(&loaded.$name)?,)* })
            }

            /// Lets a further load of the program use these maps instead of making its own.
            pub(crate) fn reuse(&self, open: &mut OpenSteerMaps<'_>) -> libbpf_rs::Result<()> {
                $(open.$name.reuse_fd(self.$name.as_fd())?;)*
                Ok(())
            }
        }
    };
}

maps! { ports counters xsks rings shares listen_ports local_addresses sessions known_sources shared_buckets access_ends }

/// Where a tenant is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attachment {
    /// The port's number.
    pub port: u16,
    /// The type of the outer tag, 0x8100 or 0x88a8; 0: untagged.
    pub outer_type: u16,
    /// The VLAN id of the outer tag; 0: none.
    pub outer: u16,
    /// The VLAN id of the inner tag; 0: none.
    pub inner: u16,
}

/// What the program knows of an access end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessEnd {
    /// Its slot.
    pub site: u32,
    /// The worker that gets its frames.
    pub worker: u16,
}

/// What the program knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEntry {
    /// The whole receiver index: the slot and its randomness.
    pub index: u32,
    /// The worker that has the session.
    pub worker: u16,
    /// The tenant's slot.
    pub tenant: u32,
    /// The site's slot.
    pub site: u32,
    /// Which messages may name the index.
    pub state: SessionState,
}

/// Which messages may name a receiver index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionState {
    /// We sent an initiation with it: a response or a cookie reply.
    Handshake,
    /// It is established: data, and a cookie reply (which may answer the response that we sent).
    Live,
}

/// Frames, and their bytes on the wire without the Ethernet checksum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The books of one port, over all CPUs: seen = passed + redirected + the sum of drops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortCounters {
    /// The port's number.
    pub port: u16,
    /// Frames that the program saw.
    pub seen: Count,
    /// Frames that were the kernel's.
    pub passed: Count,
    /// Frames given to a socket. Those that its ring had no room for are in the socket's `XDP_STATISTICS`.
    pub redirected: Count,
    /// Frames dropped, by the number of the reason (`wire::DropReason`); a number that is no reason has zero.
    pub drops: Vec<Count>,
}

impl PortCounters {
    /// The reasons that dropped something.
    pub fn dropped(&self) -> impl Iterator<Item = (u8, Count)> + '_ {
        (0u8..).zip(self.drops.iter().copied()).filter(|(_, count)| count.packets != 0)
    }
}

impl std::ops::AddAssign<types::count> for Count {
    fn add_assign(&mut self, one: types::count) {
        self.packets += one.packets;
        self.bytes += one.bytes;
    }
}

impl Maps {
    pub(crate) fn check_port(&self, port: u16) -> Result<(), Error> {
        within("port", port.into(), self.counters.max_entries())
    }

    pub(crate) fn listen(&self, udp_port: u16) -> Result<(), Error> {
        let failed = in_map("listen_ports");
        let (row, bit) = ((u32::from(udp_port) / 64).to_ne_bytes(), u32::from(udp_port) % 64);
        let bits = self.listen_ports.lookup(&row, MapFlags::ANY).map_err(failed)?;
        let bits = bits.map_or(0, |bits| from_bytes::<u64>(&bits)) | 1 << bit;
        self.listen_ports.update(&row, &bits.to_ne_bytes(), MapFlags::ANY).map_err(failed)
    }

    pub(crate) fn set_mac(&self, port: u16, mac: [u8; 6]) -> Result<(), Error> {
        self.check_port(port)?;
        let mac = [[mac[0], mac[1]], [mac[2], mac[3]], [mac[4], mac[5]]].map(u16::from_ne_bytes);
        let entry = types::port { mac, ..Default::default() };
        self.ports.update(&u32::from(port).to_ne_bytes(), bytes_of(&entry), MapFlags::ANY).map_err(in_map("ports"))
    }

    pub(crate) fn set_socket(&self, ring: u32, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.xsks.update(&ring.to_ne_bytes(), &socket.as_raw_fd().to_ne_bytes(), MapFlags::ANY).map_err(in_map("xsks"))
    }

    pub(crate) fn clear_socket(&self, ring: u32) -> Result<(), Error> {
        ignore(self.xsks.delete(&ring.to_ne_bytes()), ErrorKind::NotFound).map_err(in_map("xsks"))
    }

    pub(crate) fn rings(&self) -> &MapHandle {
        &self.rings
    }

    pub(crate) fn ports(&self) -> &MapHandle {
        &self.ports
    }

    pub(crate) fn shares(&self) -> &MapHandle {
        &self.shares
    }

    pub(crate) fn set_session(&self, slot: u32, entry: SessionEntry) -> Result<(), Error> {
        let SessionEntry { index, worker, tenant, site, state } = entry;
        let state = match state {
            SessionState::Handshake => types::session_state::SESSION_HANDSHAKE,
            SessionState::Live => types::session_state::SESSION_LIVE,
        };
        self.write_session(slot, types::session { index, worker, state, tenant, site, ..Default::default() })
    }

    pub(crate) fn clear_session(&self, slot: u32) -> Result<(), Error> {
        self.write_session(slot, types::session { state: types::session_state::SESSION_FREE, ..Default::default() })
    }

    fn write_session(&self, slot: u32, entry: types::session) -> Result<(), Error> {
        within("session slot", slot, self.sessions.max_entries())?;
        self.sessions.update(&slot.to_ne_bytes(), bytes_of(&entry), MapFlags::ANY).map_err(in_map("sessions"))
    }

    pub(crate) fn set_access(&self, attachment: Attachment, end: AccessEnd) -> Result<(), Error> {
        let Attachment { port, outer_type, outer, inner } = attachment;
        let row = types::attachment { port, outer_type: outer_type.to_be(), outer, inner };
        let entry = types::access_end { site: end.site, worker: end.worker.into(), ..Default::default() };
        self.access_ends.update(bytes_of(&row), bytes_of(&entry), MapFlags::ANY).map_err(in_map("access_ends"))
    }

    pub(crate) fn set_local(&self, address: IpAddr) -> Result<(), Error> {
        let entry = 0u32.to_ne_bytes();
        self.local_addresses.update(bytes_of(&key(address)), &entry, MapFlags::ANY).map_err(in_map("local_addresses"))
    }

    pub(crate) fn clear_local(&self, address: IpAddr) -> Result<(), Error> {
        ignore(self.local_addresses.delete(bytes_of(&key(address))), ErrorKind::NotFound)
            .map_err(in_map("local_addresses"))
    }

    pub(crate) fn know_source(&self, source: SocketAddr) -> Result<(), Error> {
        let full = types::bucket::default();
        for (address, port) in [(source_prefix(source.ip()), 0), (source.ip(), source.port())] {
            let row = types::source { words: key(address).words, port: port.to_be().into() };
            let known = self.known_sources.update(bytes_of(&row), bytes_of(&full), MapFlags::NO_EXIST);
            ignore(known, ErrorKind::AlreadyExists).map_err(in_map("known_sources"))?;
        }
        Ok(())
    }

    pub(crate) fn counters(&self, port: u16) -> Result<PortCounters, Error> {
        let failed = in_map("counters");
        let mut sum = PortCounters {
            port,
            seen: Count::default(),
            passed: Count::default(),
            redirected: Count::default(),
            drops: vec![Count::default(); types::port_counters::default().drops.len()],
        };
        let look = || self.counters.lookup_percpu(&u32::from(port).to_ne_bytes(), MapFlags::ANY).map_err(failed);
        for cpu in look()?.iter().flatten() {
            let counted = from_bytes::<types::port_counters>(cpu);
            sum.passed += counted.passed;
            sum.redirected += counted.redirected;
            for (sum, one) in sum.drops.iter_mut().zip(counted.drops) {
                *sum += one;
            }
        }
        // A second look, so that no frame that is seen meanwhile is in its outcome and not in here.
        for cpu in look()?.iter().flatten() {
            sum.seen += from_bytes::<types::port_counters>(cpu).seen;
        }
        Ok(sum)
    }
}

/// The form in which the program keeps addresses of both families.
fn key(address: IpAddr) -> types::address {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, octets) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = from_bytes(octets);
    }
    types::address { words }
}

/// What one source may use without being many sources: an IPv4 address, or an IPv6 /64.
fn source_prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_none() => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        other => other,
    }
}

pub(crate) fn within(what: &'static str, found: u32, room: u32) -> Result<(), Error> {
    if found < room { Ok(()) } else { Err(Error::Range { what, found, room }) }
}

fn in_map(map: &'static str) -> impl Fn(libbpf_rs::Error) -> Error + Copy {
    move |source| Error::Map { map, source }
}

fn ignore(result: libbpf_rs::Result<()>, expected: ErrorKind) -> libbpf_rs::Result<()> {
    match result {
        Err(error) if error.kind() == expected => Ok(()),
        other => other,
    }
}
