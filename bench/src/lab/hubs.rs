//! The hubs that are compared, each between the generator and the sink.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use crypto::PublicKey;
use crypto::aead::Cipher;
use dataplane::config::cipher_name;
use ekiden_testbed::hub::NAME;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Client, Hub, Lab, Namespace, Process};

use super::frames::Plan;
use super::sites::Sites;

/// The core that the hub under test has, and the one that generates and counts.
pub const HUB_CORE: usize = 1;
/// The core of the generator, of the sink, and of this program.
pub(super) const LAB_CORE: usize = 0;
/// The UDP port of every hub.
pub(super) const HUB_PORT: u16 = 51820;
/// Pairs of sites of one tenant.
const PAIRS_OF_TENANT: usize = 5;

/// What is between the generator and the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// Ekiden, its one worker on core 1.
    Ekiden,
    /// Debian's wireguard-go, with forwarding by the kernel between its peers.
    WireguardGo,
    /// boringtun-cli of crates.io, likewise.
    Boringtun,
    /// gotatun-cli of crates.io, likewise.
    Gotatun,
    /// AF_XDP by Ekiden's own rings, nothing done but the MAC addresses: the ceiling of any hub in this lab.
    AfXdp,
    /// The kernel forwards IP packets that nobody has sealed.
    Kernel,
}

impl Kind {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 6] =
        [Self::AfXdp, Self::Ekiden, Self::Gotatun, Self::Boringtun, Self::WireguardGo, Self::Kernel];

    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ekiden => "Ekiden",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Gotatun => "gotatun",
            Self::AfXdp => "AF_XDP forwarding",
            Self::Kernel => "kernel forwarding",
        }
    }

    /// Whether what it forwards is sealed by sites.
    pub fn seals(self) -> bool {
        !matches!(self, Self::AfXdp | Self::Kernel)
    }

    fn client(self) -> Option<Client> {
        match self {
            Self::WireguardGo => Some(Client::WireguardGo),
            Self::Boringtun => Some(Client::Boringtun),
            Self::Gotatun => Some(Client::Gotatun),
            Self::Ekiden | Self::AfXdp | Self::Kernel => None,
        }
    }
}

/// A hub that runs.
pub enum Running {
    /// Ekiden.
    Ekiden(Box<Hub>),
    /// Another program.
    Process(Process),
    /// The kernel.
    Kernel,
}

impl Running {
    /// Its process, if it has one.
    pub fn process(&mut self) -> Result<Option<&mut Process>> {
        match self {
            Self::Ekiden(hub) => hub.process().map(Some),
            Self::Process(process) => Ok(Some(process)),
            Self::Kernel => Ok(None),
        }
    }

    /// An error, if it has ended.
    pub fn must_be_alive(&mut self) -> Result<()> {
        match self.process()? {
            Some(process) => process.must_be_alive().context("the hub"),
            None => Ok(()),
        }
    }

    /// The CPU time that it has used.
    pub fn cpu_time(&mut self) -> Result<Duration> {
        self.process()?.map_or(Ok(Duration::ZERO), |process| process.cpu_time())
    }

    /// Memory that it has and shares with nobody, in KiB.
    pub fn private_memory(&mut self) -> Result<u64> {
        let Some(process) = self.process()? else { return Ok(0) };
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid()))?;
        let of = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse::<u64>().ok())
        };
        Ok(of("Private_Dirty:").unwrap_or(0) + of("Private_Clean:").unwrap_or(0))
    }
}

/// What a hub is set up with.
pub(super) struct Setup<'a> {
    /// Where it runs: interfaces `d0` towards the generator and `d1` towards the sink.
    pub(super) namespace: &'a Namespace,
    /// The sites that send, and those that receive.
    pub(super) sites: Option<(&'a Sites, &'a Sites)>,
    /// The file with the hub's private key.
    pub(super) key: &'a Path,
    /// Of several hubs the second has the number 2, and the first none.
    pub(super) number: &'static str,
    /// Inner networks.
    pub(super) plan: Plan,
    /// The trunk that it has.
    pub(super) trunk: Option<Trunk>,
    /// It may have both cores, not only its own.
    pub(super) free: bool,
    /// The MAC address of the sink.
    pub(super) sink: [u8; 6],
}

/// The other hub of a trunk, as this one knows it.
pub(super) struct Trunk {
    /// Its key.
    pub(super) key: PublicKey,
    /// Where it is; none: it calls.
    pub(super) endpoint: Option<SocketAddrV4>,
    /// What packets are sealed with.
    pub(super) cipher: Cipher,
    /// Whether the pair's sender is behind it, or the receiver.
    pub(super) sender: bool,
}

/// Lanes of a trunk.
pub(super) const LANES: u8 = 4;

/// Starts a hub.
pub(super) fn start(lab: &mut Lab, kind: Kind, setup: &Setup<'_>) -> Result<Running> {
    // It is a third as fast on one; the others are no faster on two, of which one is the generator's.
    let both = setup.free || kind == Kind::WireguardGo;
    let cores = if both { "0,1".to_owned() } else { HUB_CORE.to_string() };
    match kind {
        Kind::Ekiden => {
            let mut hub = Hub::numbered(lab, setup.namespace, setup.number, &ekiden(setup)?)?;
            // Its worker pins itself; what else it does, it does where there is room.
            hub.start_by(&["taskset", "-c", "0,1"]);
            hub.start()?;
            Ok(Running::Ekiden(Box::new(hub)))
        }
        Kind::AfXdp => {
            // TARGET/PROFILE/lab itself, or a test in TARGET/PROFILE/deps.
            let mut program = std::env::current_exe()?;
            program.pop();
            if program.ends_with("deps") {
                program.pop();
            }
            let program = program.join("lab").display().to_string();
            let mac = setup.sink.map(|byte| format!("{byte:02x}")).join(":");
            let words = ["taskset", "-c", &cores, &program, "forward", "d0", "d1", &mac];
            let process = Process::start(lab.directory(), setup.namespace, "forward", &words, &[])?;
            until_true("AF_XDP forwarding", || {
                process.must_be_alive()?;
                Ok(process.log().contains("ready"))
            })?;
            Ok(Running::Process(process))
        }
        Kind::Kernel => {
            forward(setup.namespace)?;
            // The generator's core would do it all, and generate less.
            let mask = format!("{:x}", 1 << HUB_CORE);
            device(setup.namespace, "d0", "queues/rx-0/rps_cpus", &mask)?;
            Ok(Running::Kernel)
        }
        Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun => {
            forward(setup.namespace)?;
            let client = kind.client().context("a client")?;
            let interface = lab.interface();
            let process =
                client.start(lab.directory(), setup.namespace, &interface, "hub", &["taskset", "-c", &cores])?;
            wireguard(setup, &interface)?;
            Ok(Running::Process(process))
        }
    }
}

/// Writes what sysfs has of an interface. Its files show the interfaces of the namespace in which sysfs was mounted, so that
/// entering one is not enough: `ip netns exec` mounts another.
pub(super) fn device(namespace: &Namespace, interface: &str, file: &str, value: &str) -> Result<()> {
    let command = format!("echo {value} > /sys/class/net/{interface}/{file}");
    let words = ["netns", "exec", namespace.name(), "sh", "-c", &command];
    ekiden_testbed::lab::run(std::process::Command::new("ip").args(words)).map(drop)
}

/// The kernel is to forward what comes to d0 and d1, and to take it from XDP at the other end of the wire.
fn forward(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net.ipv4.ip_forward", "1")?;
    for which in ["all", "default", "d0", "d1"] {
        namespace.sysctl(&format!("net.ipv4.conf.{which}.send_redirects"), "0")?;
        namespace.sysctl(&format!("net.ipv4.conf.{which}.rp_filter"), "0")?;
    }
    for interface in ["d0", "d1"] {
        namespace.run("ethtool", &["-K", interface, "gro", "on"])?;
    }
    Ok(())
}

fn wireguard(setup: &Setup<'_>, interface: &str) -> Result<()> {
    let (senders, receivers) = setup.sites.context("sites")?;
    let namespace = setup.namespace;
    let (key, port) = (setup.key.display().to_string(), HUB_PORT.to_string());
    namespace.run("wg", &["set", interface, "private-key", &key, "listen-port", &port])?;
    let networks = |route: &dyn Fn(usize, u32) -> String, pair: usize, routes: u32| {
        (0..routes).map(|number| route(pair, number)).collect::<Vec<_>>().join(",")
    };
    for (pair, (sender, receiver)) in senders.keys().zip(receivers.keys()).enumerate() {
        let source = format!("{}/24", Plan::source(pair));
        let to =
            networks(&|pair, route| format!("{}/28", setup.plan.destination(pair, route)), pair, setup.plan.routes);
        namespace.run("wg", &["set", interface, "peer", &sender.to_string(), "allowed-ips", &source])?;
        namespace.run("wg", &["set", interface, "peer", &receiver.to_string(), "allowed-ips", &to])?;
    }
    namespace.ip(&format!("link set {interface} mtu 1420 up"))?;
    namespace.sysctl(&format!("net.ipv4.conf.{interface}.send_redirects"), "0")?;
    namespace.ip(&format!("route add 10.0.0.0/8 dev {interface}"))
}

fn ekiden(setup: &Setup<'_>) -> Result<String> {
    let (senders, receivers) = setup.sites.context("sites")?;
    let (number, key) = (setup.number, setup.key.display());
    let mut text = format!("[hub]\nname = \"{NAME}{number}\"\nprivate_key_file = \"{key}\"\n");
    writeln!(text, "listen_port = {HUB_PORT}\n\n[workers]\ncores = [{HUB_CORE}]")?;
    for port in ["d0", "d1"] {
        writeln!(text, "\n[[port]]\nname = \"{port}\"\nrole = \"wan\"")?;
    }
    if let Some(trunk) = &setup.trunk {
        writeln!(text, "\n[[trunk]]\nname = \"other\"\npublic_key = \"{}\"", trunk.key)?;
        writeln!(text, "cipher = \"{}\"\ntenants = \"all\"\nlanes = {LANES}", cipher_name(trunk.cipher))?;
        match trunk.endpoint {
            Some(endpoint) => writeln!(text, "endpoint = \"{endpoint}\"")?,
            // The lab itself, which does not answer while it sends: no lane goes down in a trial for that.
            None => writeln!(text, "probe_interval_ms = 10000")?,
        }
    }
    // Who is behind the trunk is no site here.
    let behind = |sender: bool| setup.trunk.as_ref().is_some_and(|trunk| trunk.sender == sender);
    for (pair, (sender, receiver)) in senders.keys().zip(receivers.keys()).enumerate() {
        if pair % PAIRS_OF_TENANT == 0 {
            let tenant = Plan::TENANT as usize + pair / PAIRS_OF_TENANT;
            writeln!(text, "\n[[tenant]]\nid = {tenant}\nservice_code = \"WAN{tenant:08}\"")?;
        }
        let from = vec![format!("{}/24", Plan::source(pair))];
        let networks = (0..setup.plan.routes).map(|route| format!("{}/28", setup.plan.destination(pair, route)));
        let ends = [("a", sender, true, from), ("b", receiver, false, networks.collect())];
        for (name, key, sender, networks) in ends {
            if behind(sender) {
                for network in networks {
                    writeln!(text, "\n[[tenant.route]]\nprefix = \"{network}\"\nvia = {{ trunk = \"other\" }}")?;
                }
            } else {
                writeln!(text, "\n[[tenant.site]]\nname = \"{name}{pair}\"\npublic_key = \"{key}\"")?;
                writeln!(text, "prefixes = {networks:?}")?;
            }
        }
    }
    Ok(text)
}
