//! A tenant's servers: hosts on a switch to which a hub's access port leads, each in its VLAN.
//!
//! ```text
//!        hub                     the switch: a bridge                a server
//!   +-----------+      +-------------------------------+      +----------------------+
//!   | a0        |------| p0          br0           p1  |------| eth0  10.9.2.1/24    |
//!   +-----------+      +-------------------------------+      +----------------------+
//! ```
//!
//! Not every kernel has VLAN interfaces. Here a program at the server's interface (tc, by `bpf_link`) puts the tags on and takes them
//! off with the kernel's own helpers, so that they travel as those of a VLAN interface do: the outermost beside the frame.
#![allow(unsafe_code, reason = "loads a small BPF program")]

use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use libbpf_sys::bpf_insn;
use nix::net::if_::if_nametoindex;

use crate::lab::{Lab, Namespace};
use crate::tap::Tap;

/// A tag: its type (0x8100 or 0x88a8), and the VLAN's id.
pub type Tag = (u16, u16);

/// A switch with a hub's port at one of its own.
#[derive(Debug)]
pub struct Lan {
    /// Where the switch is: `br0`, and in it `p0` towards the hub, `p1` and so on towards servers.
    pub switch: Namespace,
    name: String,
    servers: u32,
}

/// A host on the switch.
#[derive(Debug)]
pub struct Server {
    /// Where it is; its interface is `eth0`.
    pub namespace: Namespace,
    _tags: Vec<OwnedFd>,
}

impl Lan {
    /// A switch, and at it the hub's new interface `port`.
    pub fn new(lab: &mut Lab, name: &str, hub: &Namespace, port: &str) -> Result<Self> {
        let switch = lab.namespace(name)?;
        // A switch has nothing to say itself.
        switch.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        switch.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        switch.ip("link add br0 type bridge mcast_snooping 0")?;
        switch.ip("link set br0 mtu 1504 up")?;
        lab.wire((hub, port), (&switch, "p0"), 1)?;
        // As switches do: two tags fit beside a full packet.
        switch.ip("link set p0 mtu 1504 master br0")?;
        Ok(Self { switch, name: name.to_owned(), servers: 0 })
    }

    /// From now on tags lie in the frames that go to the hub, instead of beside them.
    pub fn tag_in_band(&self) -> Result<()> {
        self.switch.run("ethtool", &["-K", "p0", "txvlan", "off", "tx-vlan-stag-hw-insert", "off"]).map(drop)
    }

    /// One more server, which puts these tags around all that it sends, the outermost first; with addresses, and default routes.
    pub fn server(&mut self, lab: &mut Lab, tags: &[Tag], addresses: &[&str], gateways: &[&str]) -> Result<Server> {
        self.servers += 1;
        let port = format!("p{}", self.servers);
        let namespace = lab.namespace(&format!("{}-{}", self.name, self.servers))?;
        lab.wire((&namespace, "eth0"), (&self.switch, &port), 1)?;
        self.switch.ip(&format!("link set {port} mtu 1504 master br0"))?;
        let tags = if tags.is_empty() { Vec::new() } else { attach_tags(&namespace, tags)? };
        for address in addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            namespace.ip(&format!("addr add {address} dev eth0{nodad}"))?;
        }
        for gateway in gateways {
            namespace.ip(&format!("route add default via {gateway}"))?;
        }
        Ok(Server { namespace, _tags: tags })
    }
}

impl Server {
    /// Frames as they are sent and received here: without the tags that its program sees to.
    pub fn tap(&self) -> Result<Tap> {
        Tap::open(&self.namespace, "eth0")
    }
}

/// `bpf_skb_vlan_push` and `bpf_skb_vlan_pop` of bpf-helpers(7).
const PUSH: i32 = 18;
const POP: i32 = 19;
/// In `struct __sk_buff`: whether a tag lies beside the frame, and which.
const VLAN_PRESENT: i16 = 20;
const VLAN_TCI: i16 = 24;
const VLAN_PROTO: i16 = 28;
const SHOT: i32 = 2;

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R6: u8 = 6;

/// The four kinds of instruction that are needed here, by their codes in linux/bpf.h and linux/bpf_common.h.
struct Code(Vec<bpf_insn>);

impl Code {
    fn add(&mut self, code: u8, destination: u8, source: u8, off: i16, imm: i32) {
        let mut instruction = bpf_insn { code, off, imm, ..Default::default() };
        instruction.set_dst_reg(destination);
        instruction.set_src_reg(source);
        self.0.push(instruction);
    }

    fn set(&mut self, register: u8, value: i32) {
        self.add(0xb7, register, 0, 0, value);
    }

    fn copy(&mut self, destination: u8, source: u8) {
        self.add(0xbf, destination, source, 0, 0);
    }

    fn load(&mut self, destination: u8, source: u8, offset: i16) {
        self.add(0x61, destination, source, offset, 0);
    }

    fn and(&mut self, register: u8, mask: i32) {
        self.add(0x57, register, 0, 0, mask);
    }

    fn call(&mut self, helper: i32) {
        self.add(0x85, 0, 0, 0, helper);
    }

    fn end(&mut self, verdict: i32) {
        self.set(R0, verdict);
        self.add(0x95, 0, 0, 0, 0);
    }

    /// Drops the packet unless the register is this.
    fn require(&mut self, register: u8, value: i32) {
        self.add(0x15, register, 0, 2, value);
        self.end(SHOT);
    }

    fn load_into_kernel(&self, attach: u32) -> Result<OwnedFd> {
        let options = libbpf_sys::bpf_prog_load_opts {
            sz: size_of::<libbpf_sys::bpf_prog_load_opts>() as _,
            expected_attach_type: attach,
            ..Default::default()
        };
        // SAFETY: strings that end in zero, instructions and options that outlive the call, and their true lengths.
        let fd = unsafe {
            libbpf_sys::bpf_prog_load(
                libbpf_sys::BPF_PROG_TYPE_SCHED_CLS,
                c"lab_tags".as_ptr(),
                c"GPL".as_ptr(),
                self.0.as_ptr(),
                self.0.len() as _,
                std::ptr::from_ref(&options).cast_mut(),
            )
        };
        own(fd).context("a program that sees to tags")
    }
}

fn own(fd: i32) -> Result<OwnedFd> {
    anyhow::ensure!(fd >= 0, "{}", std::io::Error::from_raw_os_error(-fd));
    // SAFETY: the call that gave it has succeeded, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The interface `eth0` of a namespace is in a VLAN as long as the descriptors are held.
fn attach_tags(namespace: &Namespace, tags: &[Tag]) -> Result<Vec<OwnedFd>> {
    let network = |value: u16| i32::from(value.to_be());
    let mut out = Code(Vec::new());
    out.copy(R6, R1);
    for (kind, id) in tags.iter().rev() {
        out.copy(R1, R6);
        out.set(R2, network(*kind));
        out.set(R3, i32::from(*id));
        out.call(PUSH);
        out.require(R0, 0);
    }
    out.end(0);

    let mut back = Code(Vec::new());
    back.copy(R6, R1);
    for (kind, id) in tags {
        back.load(R2, R6, VLAN_PRESENT);
        back.require(R2, 1);
        back.load(R2, R6, VLAN_PROTO);
        back.require(R2, network(*kind));
        back.load(R2, R6, VLAN_TCI);
        back.and(R2, 0xfff);
        back.require(R2, i32::from(*id));
        back.copy(R1, R6);
        back.call(POP);
        back.require(R0, 0);
    }
    back.load(R2, R6, VLAN_PRESENT);
    back.require(R2, 0);
    back.end(0);

    let mut held = Vec::new();
    for (code, attach) in [(out, libbpf_sys::BPF_TCX_EGRESS), (back, libbpf_sys::BPF_TCX_INGRESS)] {
        let program = code.load_into_kernel(attach)?;
        let link = namespace.inside(|| {
            let ifindex = if_nametoindex("eth0")?;
            use std::os::fd::AsRawFd;
            // SAFETY: a program's descriptor, an interface's number, and no options.
            own(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, attach, std::ptr::null()) })
        })??;
        held.push(link);
    }
    Ok(held)
}
