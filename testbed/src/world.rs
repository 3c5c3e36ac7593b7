//! The network around a hub: its ports, one router that is the internet, and a host for each site. More hubs may be at that router.

use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};

use crate::lab::{Lab, Namespace};

/// The UDP port of every hub here.
pub const HUB_PORT: u16 = 51820;
/// The first hub's address at its port `d0`, by which its sites know it.
pub const HUB_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same, IPv6.
pub const HUB_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The network of a lab, without what runs in it.
#[derive(Debug)]
pub struct World {
    /// What tells its files and namespaces from those of other hubs: `hub`; `hub2` and so on.
    pub name: String,
    /// Where the hub runs: ports `d0` and `d1`, both towards `inet`, and a default route through `d0`. Further hubs have `d0` alone.
    pub hub: Namespace,
    /// The router between the hubs and their sites: `h0` and `h1` towards the hub, `s1` and so on towards the sites; `h2` and so on towards
    /// further hubs.
    pub inet: Namespace,
    /// The router's interface towards the hub's `d0`.
    pub uplink: String,
    /// The hub's key pair.
    pub key: KeyPair,
    /// The hub's addresses at `d0`.
    pub address: (Ipv4Addr, Ipv6Addr),
    /// Hosts behind the router, whosever they are.
    hosts: Rc<Cell<u8>>,
}

/// A site's host: a namespace with one interface, `w0`.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub namespace: Namespace,
    /// Its interface at the router.
    pub uplink: String,
    number: u8,
}

impl World {
    /// A hub's ports and the router.
    pub fn new(lab: &mut Lab) -> Result<Self> {
        Self::with_queues(lab, 1)
    }

    /// The same, with so many queues at each of the hub's ports. Packets are spread over them by their flow, as long as they
    /// have come to the router by an interface with one queue.
    pub fn with_queues(lab: &mut Lab, queues: u32) -> Result<Self> {
        let (hub, inet) = (lab.namespace("hub")?, lab.namespace("inet")?);
        inet.sysctl("net.ipv4.ip_forward", "1")?;
        inet.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        lab.wire((&hub, "d0"), (&inet, "h0"), queues)?;
        lab.wire((&hub, "d1"), (&inet, "h1"), queues)?;
        for (interface, v4, v6) in
            [("d0", "192.0.2.1/24", "2001:db8::1/64"), ("d1", "203.0.113.1/24", "2001:db8:0:1::1/64")]
        {
            add_addresses(&hub, interface, v4, v6)?;
        }
        for (interface, v4, v6) in
            [("h0", "192.0.2.254/24", "2001:db8::fe/64"), ("h1", "203.0.113.254/24", "2001:db8:0:1::fe/64")]
        {
            add_addresses(&inet, interface, v4, v6)?;
        }
        hub.ip("route add default via 192.0.2.254 dev d0")?;
        hub.ip("-6 route add default via 2001:db8::fe dev d0")?;
        let key = KeyPair::new(lab.directory(), "hub")?;
        Ok(Self {
            name: "hub".into(),
            hub,
            inet,
            uplink: "h0".into(),
            key,
            address: (HUB_V4, HUB_V6),
            hosts: Rc::default(),
        })
    }

    /// Another hub at the same router, by a number from 2 to 15: the network around it.
    pub fn beside(&self, lab: &mut Lab, number: u8) -> Result<Self> {
        let name = format!("hub{number}");
        let (hub, uplink) = (lab.namespace(&name)?, format!("h{number}"));
        lab.wire((&hub, "d0"), (&self.inet, &uplink), 1)?;
        let net = 16 * number;
        let v4 = |last: u8| Ipv4Addr::new(198, 51, 100, net + last);
        let v6 = |last: u16| Ipv6Addr::new(0x2001, 0xdb8, 0, number.into(), 0, 0, 0, last);
        add_addresses(&hub, "d0", &format!("{}/28", v4(1)), &format!("{}/64", v6(1)))?;
        add_addresses(&self.inet, &uplink, &format!("{}/28", v4(14)), &format!("{}/64", v6(0xfe)))?;
        hub.ip(&format!("route add default via {} dev d0", v4(14)))?;
        hub.ip(&format!("-6 route add default via {} dev d0", v6(0xfe)))?;
        let key = KeyPair::new(lab.directory(), &name)?;
        let (inet, hosts) = (self.inet.clone(), self.hosts.clone());
        Ok(Self { name, hub, inet, uplink, key, address: (v4(1), v6(1)), hosts })
    }

    /// Where the hub hears what is sent by IPv4 or IPv6 to a lane of its trunks; sites use the port of the first.
    pub fn endpoint(&self, v6: bool, lane: u8) -> SocketAddr {
        let (address, port) = (self.address, HUB_PORT + u16::from(lane));
        if v6 { (address.1, port).into() } else { (address.0, port).into() }
    }

    /// One more host behind the router.
    pub fn host(&mut self, lab: &mut Lab, name: &str) -> Result<Host> {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let host = Host { namespace: lab.namespace(name)?, uplink: format!("s{number}"), number };
        lab.wire((&host.namespace, "w0"), (&self.inet, &host.uplink), 1)?;
        add_addresses(
            &self.inet,
            &host.uplink,
            &format!("198.18.{number}.1/24"),
            &format!("2001:db8:18:{number:x}::1/64"),
        )?;
        let (v4, v6) = (host.address(false, 2), host.address(true, 2));
        add_addresses(&host.namespace, "w0", &format!("{v4}/24"), &format!("{v6}/64"))?;
        host.namespace.ip(&format!("route add default via 198.18.{number}.1"))?;
        host.namespace.ip(&format!("-6 route add default via 2001:db8:18:{number:x}::1"))?;
        Ok(host)
    }
}

impl Host {
    /// An address in its network. It has the one that ends in 2.
    pub fn address(&self, v6: bool, last: u8) -> IpAddr {
        match v6 {
            false => Ipv4Addr::new(198, 18, self.number, last).into(),
            true => Ipv6Addr::new(0x2001, 0xdb8, 0x18, self.number.into(), 0, 0, 0, last.into()).into(),
        }
    }
}

fn add_addresses(namespace: &Namespace, interface: &str, v4: &str, v6: &str) -> Result<()> {
    namespace.ip(&format!("addr add {v4} dev {interface}"))?;
    namespace.ip(&format!("addr add {v6} dev {interface} nodad"))
}

/// A key pair, as `wg` makes it.
#[derive(Debug, Clone)]
pub struct KeyPair {
    /// The file with the private key.
    pub private: PathBuf,
    /// The public key.
    pub public: String,
}

impl KeyPair {
    /// A new one, its private key in `directory/NAME.key`.
    pub fn new(directory: &Path, name: &str) -> Result<Self> {
        let key = wg("genkey", "")?;
        let private = directory.join(format!("{name}.key"));
        write_secret(&private, &key)?;
        Ok(Self { private, public: wg("pubkey", &key)? })
    }
}

/// Runs a command of `wg` that makes one line, of another or of nothing.
pub fn wg(command: &str, input: &str) -> Result<String> {
    let mut child =
        Command::new("wg").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("wg")?;
    let mut pipe = child.stdin.take().context("stdin is a pipe")?;
    if !input.is_empty() {
        writeln!(pipe, "{input}")?;
    }
    drop(pipe);
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "wg {command} failed");
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Writes a file that only its owner may read.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{text}").with_context(|| format!("{}", path.display()))
}
