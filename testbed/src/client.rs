//! Sites: stock WireGuard clients in user space, set up with `wg` and `ip` as a person would.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::lab::{Lab, Namespace};
use crate::leftovers::{self, Thing, UAPI};
use crate::process::Process;
use crate::wait::until_true;
use crate::world::{Host, KeyPair, World, wg, write_secret};

/// What fits, sealed, an outer IPv6 packet of 1500 bytes.
const MTU: &str = "1420";
/// The inner networks of a tenant, and where the hub's ICMP comes from if the tenant has no hub address.
pub const ALLOWED: &str = "10.9.0.0/16,fd00:9::/32,192.0.0.8/32";
/// The UDP port on which a site listens until it moves.
pub const SITE_PORT: u16 = 51821;

/// An implementation of WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// Debian's `wireguard-go`.
    WireguardGo,
    /// `boringtun-cli` of crates.io.
    Boringtun,
    /// `gotatun-cli` of crates.io.
    Gotatun,
}

impl Client {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WireguardGo, Self::Boringtun, Self::Gotatun];

    /// A name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
        }
    }

    fn command(self, interface: &str) -> Result<Vec<String>> {
        let tool = |name: &str| -> Result<String> {
            let path = tools().join("bin").join(name);
            anyhow::ensure!(path.exists(), "{} is missing: `make tools` builds it", path.display());
            Ok(path.display().to_string())
        };
        let words = match self {
            Self::WireguardGo => vec!["wireguard-go".into(), "-f".into()],
            Self::Boringtun => vec![tool("boringtun-cli")?, "-f".into(), "--disable-drop-privileges".into()],
            Self::Gotatun => vec![tool("gotatun")?, "-f".into(), "--disable-drop-privileges".into()],
        };
        Ok(words.into_iter().chain([interface.into()]).collect())
    }

    /// Starts it with this interface, by a program that becomes it if one is named, and waits until it can be set up. Its log in
    /// `directory` is called `log`.
    pub fn start(
        self,
        directory: &Path,
        namespace: &Namespace,
        interface: &str,
        log: &str,
        by: &[&str],
    ) -> Result<Process> {
        let socket = Path::new(UAPI).join(format!("{interface}.sock"));
        leftovers::note(Thing::File(socket.clone()));
        Thing::File(socket.clone()).remove();
        let command = self.command(interface)?;
        let words: Vec<&str> = by.iter().copied().chain(command.iter().map(String::as_str)).collect();
        let environment = [("LOG_LEVEL", "verbose"), ("WG_LOG_LEVEL", "info"), ("WG_LOG_FILE", "/dev/stderr")];
        let process = Process::start(directory, namespace, log, &words, &environment)?;
        // Some make the socket before they listen.
        until_true(&format!("{} can be set up", self.name()), || {
            process.must_be_alive()?;
            Ok(socket.exists() && namespace.command("wg").args(["show", interface]).output()?.status.success())
        })?;
        Ok(process)
    }
}

/// Where `make tools` puts what it builds.
pub(crate) fn tools() -> PathBuf {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/ekiden/tools");
    std::env::var_os("EKIDEN_TOOLS").map_or_else(home, PathBuf::from)
}

/// The version of IP in which the sealed packets travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Who can begin a handshake: only the other side is told an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The site knows the hub's endpoint; the hub hears of the site by its first message.
    Site,
    /// The hub has an endpoint in its configuration, and the site none.
    Hub,
    /// Each knows the other.
    Both,
}

/// What a site is to be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The tenant's id.
    pub tenant: u32,
    /// Its name in the tenant.
    pub name: String,
    /// Its networks are 10.9.NET.0/24 and fd00:9:NET::/64.
    pub net: u8,
    /// The program.
    pub client: Client,
    /// The version of IP outside.
    pub outside: Outside,
    /// Who begins.
    pub first: First,
    /// Whether there is a preshared key.
    pub psk: bool,
    /// Seconds of the site's persistent keepalive; 0: none.
    pub keepalive: u16,
    /// Prefixes besides its own networks.
    pub more_prefixes: &'static [&'static str],
    /// More lines of its section in the hub's configuration.
    pub contract: &'static str,
}

impl Plan {
    /// A site as most are: wireguard-go over IPv4, which knows the hub and keeps the way open.
    pub fn new(tenant: u32, name: &str, net: u8) -> Self {
        let (client, outside, first) = (Client::WireguardGo, Outside::V4, First::Site);
        let (name, contract) = (name.into(), "");
        Self { tenant, name, net, client, outside, first, psk: false, keepalive: 25, more_prefixes: &[], contract }
    }
}

/// A site: its host, its keys, and its client while it runs.
#[derive(Debug)]
pub struct Site {
    /// What it is to be.
    pub plan: Plan,
    /// Where it is.
    pub host: Host,
    /// Its tunnel interface.
    pub interface: String,
    /// Its key pair.
    pub key: KeyPair,
    preshared: Option<PathBuf>,
    hub_public: String,
    /// Where its hub is.
    hub: SocketAddr,
    directory: PathBuf,
    process: Option<Process>,
}

impl Site {
    /// A host with keys. Nothing runs yet.
    pub fn new(lab: &mut Lab, world: &mut World, plan: Plan) -> Result<Self> {
        let name = format!("{}-{}", plan.tenant, plan.name);
        let host = world.host(lab, &name)?;
        let directory = lab.directory().to_owned();
        let key = KeyPair::new(&directory, &name)?;
        let preshared = plan.psk.then(|| directory.join(format!("{name}.psk")));
        if let Some(path) = &preshared {
            write_secret(path, &wg("genpsk", "")?)?;
        }
        let (interface, hub_public) = (lab.interface(), world.key.public.clone());
        let hub = world.endpoint(plan.outside == Outside::V6, 0);
        Ok(Self { plan, host, interface, key, preshared, hub_public, hub, directory, process: None })
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.host.namespace
    }

    /// Where its logs are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The hub's public key.
    pub fn hub_public(&self) -> &str {
        &self.hub_public
    }

    /// How messages call it.
    pub fn label(&self) -> String {
        format!("{}/{} ({})", self.plan.tenant, self.plan.name, self.plan.client.name())
    }

    /// Its own address inside the tunnel.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, self.plan.net, 1)
    }

    /// The same, IPv6.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 9, self.plan.net.into(), 0, 0, 0, 0, 1)
    }

    /// Both.
    pub fn inner(&self) -> [IpAddr; 2] {
        [self.v4().into(), self.v6().into()]
    }

    /// Where it is outside, until it moves.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.host.address(self.plan.outside == Outside::V6, 2), SITE_PORT)
    }

    /// Where the hub is for this site.
    pub fn hub_endpoint(&self) -> SocketAddr {
        self.hub
    }

    /// Its section of the hub's configuration.
    pub fn hub_section(&self) -> String {
        let Plan { name, net, first, more_prefixes, contract, .. } = &self.plan;
        let mut prefixes = vec![format!("10.9.{net}.0/24"), format!("fd00:9:{net:x}::/64")];
        prefixes.extend(more_prefixes.iter().map(|prefix| (*prefix).to_owned()));
        let mut text = format!(
            "[[tenant.site]]\nname = \"{name}\"\npublic_key = \"{}\"\nprefixes = {prefixes:?}\n",
            self.key.public
        );
        if *first != First::Site {
            text.push_str(&format!("endpoint = \"{}\"\n", self.endpoint()));
        }
        if let Some(path) = &self.preshared {
            text.push_str(&format!("preshared_key_file = \"{}\"\n", path.display()));
        }
        text.push_str(contract);
        text
    }

    /// Starts the client and sets it up.
    pub fn start(&mut self) -> Result<()> {
        self.launch()?;
        let private = self.key.private.display().to_string();
        self.set(&["private-key", &private, "listen-port", &SITE_PORT.to_string()])?;
        self.set_hub()?;
        self.bring_up(
            &[format!("{}/24", self.v4()), format!("{}/64", self.v6())],
            &["10.9.0.0/16", "192.0.0.8/32", "fd00:9::/32"],
        )
    }

    fn set_hub(&self) -> Result<()> {
        let endpoint = self.hub_endpoint().to_string();
        let keepalive = self.plan.keepalive.to_string();
        let preshared = self.preshared.as_ref().map(|path| path.display().to_string());
        let mut words = vec!["peer", &self.hub_public, "allowed-ips", ALLOWED];
        words.extend(preshared.iter().flat_map(|path| ["preshared-key", path.as_str()]));
        if self.plan.first != First::Hub {
            words.extend(["endpoint", &endpoint, "persistent-keepalive", &keepalive]);
        }
        self.set(&words)
    }

    /// From now on its client, which runs, talks to this hub.
    pub fn turn_to(&mut self, world: &World) -> Result<()> {
        self.set(&["peer", &self.hub_public, "remove"])?;
        self.hub_public = world.key.public.clone();
        self.hub = world.endpoint(self.plan.outside == Outside::V6, 0);
        self.set_hub()
    }

    /// Starts the client, and waits until it can be set up.
    pub fn launch(&mut self) -> Result<()> {
        let log = format!("{}-{}", self.plan.tenant, self.plan.name);
        let process = self.plan.client.start(&self.directory, self.namespace(), &self.interface, &log, &[]);
        self.process = Some(process.with_context(|| self.label())?);
        Ok(())
    }

    /// Gives the tunnel interface its addresses and routes.
    pub fn bring_up(&self, addresses: &[String], routes: &[&str]) -> Result<()> {
        let (namespace, interface) = (self.namespace(), &self.interface);
        for address in addresses {
            namespace.ip(&format!("addr add {address} dev {interface}"))?;
        }
        namespace.ip(&format!("link set {interface} mtu {MTU} up"))?;
        routes.iter().try_for_each(|route| namespace.ip(&format!("route add {route} dev {interface}")))
    }

    /// `wg set`, with these words after the interface.
    pub fn set(&self, words: &[&str]) -> Result<()> {
        self.namespace().run("wg", &[&["set", &self.interface], words].concat()).map(drop).with_context(|| self.label())
    }

    /// When the last handshake was complete, in seconds since 1970, as the client sees it.
    pub fn last_handshake(&self) -> Result<u64> {
        let text = self.namespace().run("wg", &["show", &self.interface, "latest-handshakes"])?;
        Ok(text.split_whitespace().nth(1).context("there is one peer")?.parse()?)
    }

    /// Where the client believes that the hub is.
    pub fn hub_seen_at(&self) -> Result<String> {
        let text = self.namespace().run("wg", &["show", &self.interface, "endpoints"])?;
        Ok(text.split_whitespace().nth(1).context("there is one peer")?.to_owned())
    }

    /// Sends one datagram into the tunnel: to a neighbour in its own networks that does not exist, so that the hub sends it
    /// back here and it goes no further. A client that is silent begins a handshake.
    pub fn speak(&self) -> Result<()> {
        let (from, to) = ((self.v4(), 0), (Ipv4Addr::new(10, 9, self.plan.net, 250), 9));
        let socket = self.namespace().inside(|| UdpSocket::bind(from))??;
        socket.send_to(b"hello", to).with_context(|| self.label())?;
        Ok(())
    }

    /// Ends the client.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.stop(Signal::TERM)?;
        }
        self.forget_socket();
        Ok(())
    }

    /// Whether the client runs.
    pub fn is_alive(&self) -> Result<bool> {
        self.process.as_ref().map_or(Ok(false), Process::is_alive)
    }

    fn forget_socket(&self) {
        let socket = Thing::File(Path::new(UAPI).join(format!("{}.sock", self.interface)));
        socket.remove();
        leftovers::forget(&socket);
    }

    /// The site moves: its host gets another address in place of the one that it has, and its client another port.
    pub fn move_to(&self, last: u8, port: u16) -> Result<SocketAddr> {
        let v6 = self.plan.outside == Outside::V6;
        let (old, new, length) = (self.host.address(v6, 2), self.host.address(v6, last), if v6 { 64 } else { 24 });
        let namespace = self.namespace();
        namespace.ip(&format!("addr del {old}/{length} dev w0"))?;
        namespace.ip(&format!("addr add {new}/{length} dev w0{}", if v6 { " nodad" } else { "" }))?;
        // With its last address, the network's route went, and what led through it.
        let gateway = self.host.address(v6, 1);
        namespace.ip(&format!("route replace default via {gateway} dev w0"))?;
        self.set(&["listen-port", &port.to_string()])?;
        Ok(SocketAddr::new(new, port))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.process = None;
        self.forget_socket();
    }
}
