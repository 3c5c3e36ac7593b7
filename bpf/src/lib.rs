//! Steering: the XDP program that decides which frames of a port reach a worker, and what user space tells it.
//!
//! [`Steering::load`] makes the maps that all ports of a hub share; [`Steering::attach`] puts the program on a port and
//! pins the link, so that the port fails closed: when the process is gone, the program stays and drops what is the
//! hub's. A next process takes the pinned link over by exchanging the program inside it, without a moment in between.
//!
//! The order that leaves no gap: `load`, [`Steering::set_local`] for the addresses known so far, sessions and sockets
//! as far as they exist, then `attach`. A frame to an address that the program does not know yet is the kernel's.
//!
//! Interfaces are those of the calling thread's network namespace. Needs Linux 6.1, and `CAP_BPF`, `CAP_PERFMON`
//! (the verifier wants it for offsets that the packet names) and `CAP_NET_ADMIN`.

mod attach;
mod error;
mod gauge;
mod maps;
mod pin;
mod program;
mod sys;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

pub use attach::{Attached, Mode};
pub use error::{Error, Holder};
pub use gauge::{Gauge, Stamp};
pub use maps::{AccessEnd, Attachment, Count, PortCounters, SessionEntry, SessionState};
pub use pin::{DEFAULT_PIN_ROOT, detach};
pub use sys::Verdict;

use gauge::Gauges;
use maps::Maps;

/// More queues than this on a port are refused.
const QUEUES_MAX: u32 = 64;
/// More sockets than this on a queue are refused: one thread feeds them all.
const SOCKETS_MAX: u32 = 64;

/// The commands of `bpf(2)` that are made once every port has its program: those of maps, pins and links. No program and
/// no map is loaded any more, also not for an interface that was made anew.
pub const COMMANDS: &[u32] = &[
    libbpf_sys::BPF_MAP_LOOKUP_ELEM,
    libbpf_sys::BPF_MAP_UPDATE_ELEM,
    libbpf_sys::BPF_MAP_DELETE_ELEM,
    libbpf_sys::BPF_OBJ_PIN,
    libbpf_sys::BPF_OBJ_GET,
    libbpf_sys::BPF_OBJ_GET_INFO_BY_FD,
    libbpf_sys::BPF_LINK_CREATE,
    libbpf_sys::BPF_LINK_UPDATE,
    libbpf_sys::BPF_LINK_DETACH,
    libbpf_sys::BPF_LINK_GET_NEXT_ID, // which the kernel refuses, and so says that it is not for us
];

/// Those by which the program of an access port is loaded, which is bound to its interface and loaded again with it.
pub const LOADING: &[u32] = &[
    libbpf_sys::BPF_PROG_LOAD,
    libbpf_sys::BPF_MAP_CREATE, // the program's constants are a map
    libbpf_sys::BPF_MAP_FREEZE,
    libbpf_sys::BPF_BTF_LOAD,
    libbpf_sys::BPF_PROG_BIND_MAP,
];

/// What a hub's steering is set up with; what is not here can be changed while it runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The hub's name: its links are pinned in `pin_root/hub/`.
    pub hub: String,
    /// A directory on a bpffs, made if it is missing; [`DEFAULT_PIN_ROOT`] unless there is a reason.
    pub pin_root: PathBuf,
    /// The UDP ports that are the hub's on each of its local addresses: one, and one more for each further lane of its trunks.
    pub listen_ports: Vec<u16>,
    /// The number of low bits of a receiver index that are its slot: 1 to 24. A slot takes 16 bytes of kernel memory.
    pub session_bits: u8,
    /// The queues that there are.
    pub rings: Rings,
    /// For each port by its number: the sockets on each of its queues, between which the program spreads frames by the
    /// worker of their session. One where nothing is said.
    pub sockets: Vec<u32>,
    /// The number of sites and access ends: each has a share of a ring that runs full. 24 bytes of kernel memory a ring.
    pub sites: u32,
    /// For each port by its number, what it carries. The WAN alone where nothing is said.
    pub roles: Vec<Roles>,
    /// For each port by its number: whether its frames may come in several buffers, as those do that no page holds. The driver has
    /// to know that of a program. None where nothing is said.
    pub frags: Vec<bool>,
    /// How many access ends there may be.
    pub access_ends: u32,
    /// One in 2^this of the frames that go to a ring takes the time along: see [`Gauge::unstamp`].
    pub stamp_bits: u8,
    /// How many initiations and fragments may reach control.
    pub limits: Limits,
}

impl Options {
    /// The defaults: 2^16 sessions (10,000 sites with a current, a previous and a next one each, twice over).
    pub fn new(hub: impl Into<String>, listen_port: u16) -> Self {
        Self {
            hub: hub.into(),
            pin_root: DEFAULT_PIN_ROOT.into(),
            listen_ports: vec![listen_port],
            session_bits: 16,
            rings: Rings { ports: 1, queues: 1, entries: 2048 },
            sockets: Vec::new(),
            sites: 1,
            roles: Vec::new(),
            frags: Vec::new(),
            access_ends: 0,
            stamp_bits: 6,
            limits: Limits::default(),
        }
    }

    fn roles(&self, port: u16) -> Roles {
        self.roles.get(usize::from(port)).copied().unwrap_or_default()
    }

    fn frags(&self, port: u16) -> bool {
        self.frags.get(usize::from(port)).copied().unwrap_or_default()
    }

    fn sockets(&self, port: u16) -> u32 {
        self.sockets.get(usize::from(port)).copied().unwrap_or(1).max(1)
    }

    fn sockets_max(&self) -> u32 {
        self.sockets.iter().copied().max().unwrap_or(1).max(1)
    }
}

/// What a port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Untagged: the network through which sites reach the hub. What else is untagged and not the hub's goes to the kernel.
    pub wan: bool,
    /// Access ends, by their VLANs. Then no other VLAN goes to the kernel either.
    pub access: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { wan: true, access: false }
    }
}

/// The receive rings of a hub's sockets: one or several for each queue of each port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// Ports, numbered from 0; at most 64.
    pub ports: u16,
    /// Queues of the port that has most; at most 64.
    pub queues: u32,
    /// Entries of a ring.
    pub entries: u32,
}

/// Which receive ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The port's number.
    pub port: u16,
    /// The queue of the port.
    pub queue: u32,
    /// The socket of the queue: 0 where it has one, the worker where it has one for each.
    pub socket: u32,
}

impl Place {
    /// The only socket of a queue.
    pub fn sole(port: u16, queue: u32) -> Self {
        Self { port, queue, socket: 0 }
    }
}

/// How many frames that anyone can send may reach control.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Initiations of one source that has proved its address ([`Steering::know_source`]): an address and port, and once
    /// more an IPv4 address or an IPv6 /64 without it.
    pub known_source: Rate,
    /// Initiations of all other sources together.
    pub strangers: Rate,
    /// Fragments of UDP datagrams to the hub's addresses, from all sources together.
    pub fragments: Rate,
    /// ARP and neighbour discovery of one access end.
    pub neighbours: Rate,
    /// How many rows of known sources there are, two a source; beyond, the least recently used is forgotten. About 100 bytes
    /// each.
    pub known_sources: u32,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens that come back in a second; 0 closes the bucket for good.
    pub per_second: u32,
    /// Tokens in a full bucket.
    pub burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A thousand sites behind one carrier-grade NAT come back from a power cut within (1,000 - 400) / 100 = 6 s.
            known_source: Rate { per_second: 100, burst: 400 },
            // Of a hub that has lost its state all sources are strangers: 10,000 sites are in within (10,000 - 4,000) / 2,000
            // = 3 s. An initiation costs control about 0.2 ms, so the rate is under half of one core.
            strangers: Rate { per_second: 2_000, burst: 4_000 },
            // Two fragments a packet: 10,000 full-size packets a second from sites whose path has a small MTU.
            fragments: Rate { per_second: 20_000, burst: 2_000 },
            // A host asks for its gateway once in half a minute: a network of thousands stays below it. All parcels of a worker
            // last for the bursts of five ends that flood.
            neighbours: Rate { per_second: 100, burst: 200 },
            known_sources: 65_536,
        }
    }
}

/// A hub's steering: its maps, and the program on each of its ports.
///
/// Dropping it closes descriptors and nothing else: the links stay pinned and the ports fail closed. [`Steering::detach`]
/// and [`detach`] take a port out of service for good.
#[derive(Debug)]
pub struct Steering {
    options: Options,
    maps: Maps,
    gauges: Gauges,
    ports: BTreeMap<u16, Port>,
}

/// A port that the program has been loaded for.
#[derive(Debug)]
struct Port {
    program: Program,
    link: Option<PinnedLink>,
}

/// A link that this process holds and that its pin holds too.
#[derive(Debug)]
struct PinnedLink {
    /// Held so that the port stays closed even if somebody removes the pin.
    link: OwnedFd,
    pin: PathBuf,
}

impl Steering {
    /// Makes the maps, and shows that the kernel takes the program, before any port is touched.
    pub fn load(options: Options) -> Result<Self, Error> {
        if !(1..=24).contains(&options.session_bits) {
            return Err(Error::SessionBits { found: options.session_bits });
        }
        // So many sockets are more than any machine has, and their sum stays far from the limits of a map.
        maps::within("queue", options.rings.queues.saturating_sub(1), QUEUES_MAX)?;
        maps::within("socket of a queue", options.sockets_max() - 1, SOCKETS_MAX)?;
        let (program, maps) = program::load(&options, 0, None, None)?;
        for port in &options.listen_ports {
            maps.listen(*port)?;
        }
        let gauges = Gauges::map(&maps, options.sites)?;
        Ok(Self { options, maps, gauges, ports: BTreeMap::from([(0, Port { program, link: None })]) })
    }

    /// Puts the program on an interface of this network namespace, under the number `port`, and pins it.
    ///
    /// A link that an earlier process of this hub pinned is taken over: the program inside it is exchanged and no frame
    /// sees a moment without one. `mode` forces native or generic; otherwise native is tried first. (A pinned link in
    /// the other mode than the forced one has to be replaced, and for that moment the port is open.)
    pub fn attach(&mut self, port: u16, ifindex: u32, name: &str, mode: Option<Mode>) -> Result<Attached, Error> {
        let mac = attach::check_interface(name, ifindex)?;
        self.set_mac(port, mac)?;
        let directory = pin::prepare(&self.options.pin_root, &self.options.hub)?;
        let pin = directory.join(pin::encode(name));
        // Only a program that was loaded for this very interface is told of tags beside a frame. One that was loaded for an
        // interface which is gone can be attached nowhere.
        let load = |to| program::load(&self.options, port, Some(&self.maps), to).map(|(program, _)| program);
        let (program, no_tags) = match self.options.roles(port).access {
            false => (self.program(port)?.try_clone()?, None),
            true => match load(Some(ifindex)) {
                Ok(program) => (program, None),
                Err(why) => match load(None) {
                    Ok(program) => (program, Some(why)),
                    Err(_) => return Err(why),
                },
            },
        };
        let (link, mut attached) = attach::attach(program.as_fd(), ifindex, name, mode, &pin)?;
        attached.no_tags = no_tags;
        self.ports.insert(port, Port { program, link: Some(PinnedLink { link, pin }) });
        Ok(attached)
    }

    /// Takes the program off a port and removes its pin, if there is one: before an interface that was re-created is
    /// attached again, or when a port leaves the configuration. From here on the port is the kernel's.
    pub fn detach(&mut self, port: u16) -> Result<(), Error> {
        match self.ports.get_mut(&port).and_then(|port| port.link.take()) {
            Some(PinnedLink { link, pin }) => pin::remove(link.as_fd(), &pin),
            None => Ok(()),
        }
    }

    /// Tells the program the MAC address of a port, after the kernel says that it changed; `attach` does so itself.
    pub fn set_mac(&self, port: u16, mac: [u8; 6]) -> Result<(), Error> {
        self.maps.set_mac(port, mac)
    }

    /// Frames of this place go to this AF_XDP socket. The entry vanishes with the socket.
    pub fn set_socket(&self, place: Place, socket: BorrowedFd<'_>) -> Result<(), Error> {
        self.maps.set_socket(self.ring(place)?, socket)
    }

    /// Frames of this place are dropped, and counted as `xdp_no_socket`.
    pub fn clear_socket(&self, place: Place) -> Result<(), Error> {
        self.maps.clear_socket(self.ring(place)?)
    }

    /// The number of a ring.
    fn ring(&self, Place { port, queue, socket }: Place) -> Result<u32, Error> {
        let Rings { ports, queues, .. } = self.options.rings;
        maps::within("port", port.into(), ports.into())?;
        maps::within("queue", queue, queues)?;
        maps::within("socket of a queue", socket, self.options.sockets(port))?;
        Ok((u32::from(port) * queues + queue) * self.options.sockets_max() + socket)
    }

    /// Where the worker of a ring says how full it is, and learns how long a frame has been in it.
    pub fn gauge(&self, place: Place) -> Result<Gauge, Error> {
        Ok(self.gauges.gauge(place.port, self.ring(place)?))
    }

    /// Frames of a site that were dropped because a ring was more than half full and the site had its share of it.
    pub fn shed(&self, site: u32) -> u64 {
        self.gauges.shed(site)
    }

    /// Frames of this VLAN of this port are the tenant's whose end this is.
    pub fn set_access(&self, attachment: Attachment, end: AccessEnd) -> Result<(), Error> {
        self.maps.check_port(attachment.port)?;
        self.maps.set_access(attachment, end)
    }

    /// Messages for this receiver index may pass. A slot is `index & (2^session_bits - 1)`.
    pub fn set_session(&self, slot: u32, entry: SessionEntry) -> Result<(), Error> {
        self.maps.set_session(slot, entry)
    }

    /// Messages for the index in this slot are dropped from now on.
    pub fn clear_session(&self, slot: u32) -> Result<(), Error> {
        self.maps.clear_session(slot)
    }

    /// Frames to this address and a listen port are the hub's.
    pub fn set_local(&self, address: IpAddr) -> Result<(), Error> {
        self.maps.set_local(address)
    }

    /// Frames to this address are the kernel's again.
    pub fn clear_local(&self, address: IpAddr) -> Result<(), Error> {
        self.maps.clear_local(address)
    }

    /// This source has proved its address (a handshake was completed): its initiations have a bucket of their own, and
    /// those from other ports or, with IPv6, other addresses of its /64 another. Saying it again does not fill the buckets.
    pub fn know_source(&self, source: SocketAddr) -> Result<(), Error> {
        self.maps.know_source(source)
    }

    /// What the program counted since [`Steering::load`], for each port it was loaded for.
    ///
    /// While frames arrive, `seen` of a port can be ahead of the sum of its outcomes by the frames in the program at that
    /// moment; otherwise they are equal.
    pub fn counters(&self) -> Result<Vec<PortCounters>, Error> {
        self.ports.keys().map(|port| self.maps.counters(*port)).collect()
    }

    /// The hub's directory of pins.
    pub fn pin_directory(&self) -> PathBuf {
        pin::directory(&self.options.pin_root, &self.options.hub)
    }

    /// The program of a port, loaded when it is first asked for: the port's number is part of it.
    pub fn program(&mut self, port: u16) -> Result<&Program, Error> {
        self.maps.check_port(port)?;
        if !self.ports.contains_key(&port) {
            let (program, _) = program::load(&self.options, port, Some(&self.maps), None)?;
            self.ports.insert(port, Port { program, link: None });
        }
        Ok(&self.ports[&port].program)
    }
}

/// The XDP program as it is loaded for one port; its maps are those of the hub.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// Runs it on one frame, `repeat` times, as if the frame had come in on queue 0 of its port, attached or not.
    /// Gives the verdict and the mean time in nanoseconds. Counters and token buckets move as they would for a real frame. A
    /// frame that is stamped goes on with the stamp: it is for another port then ([`Options::stamp_bits`]).
    pub fn test_run(&self, frame: &[u8], repeat: u32) -> Result<(Verdict, u32), Error> {
        sys::test_run(self.as_fd(), frame, None, repeat).map_err(Error::TestRun)
    }

    /// Runs it once, and gives the frame as the program leaves it, too.
    pub fn test_run_out(&self, frame: &[u8]) -> Result<(Verdict, Vec<u8>), Error> {
        let mut out = frame.to_vec();
        let (verdict, _) = sys::test_run(self.as_fd(), frame, Some(&mut out), 1).map_err(Error::TestRun)?;
        Ok((verdict, out))
    }

    /// The same program, held once more.
    pub fn try_clone(&self) -> Result<Self, Error> {
        self.0.try_clone().map(Self).map_err(Error::Descriptor)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
