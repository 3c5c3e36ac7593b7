//! Two network namespaces that live as long as the test: the hub's, in which the test runs, and that of the neighbours.

use std::net::IpAddr;
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use wire::PortIndex;

use super::super::{Change, NextHop, Reach, Underlay};

/// Generous: the machine may be busy, and the kernel's timers run in seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The hub's UDP port.
pub(crate) const PORT: u16 = 51820;

/// Where commands are run. The namespaces and all in them vanish with the threads that made them.
pub(crate) struct Lab {
    peer: String,
    _stop: mpsc::Sender<()>,
}

/// Runs a test in a namespace of its own, on a thread of its own, with another namespace across.
pub(crate) fn lab<F: Future<Output = ()>>(test: impl FnOnce(Lab) -> F + Send + 'static) {
    let hub = thread::spawn(move || {
        let (stop, stopped) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            let _ = stopped.recv(); // an error: the test has ended, however
        });
        let peer = format!("/proc/{}/task/{}/ns/net", std::process::id(), told.recv().unwrap());
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let lab = Lab { peer, _stop: stop };
        lab.hub("ip link set lo up");
        lab.peer("ip link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(lab));
    });
    if let Err(panic) = hub.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Lab {
    /// Runs shell lines in the hub's namespace.
    pub(crate) fn hub(&self, lines: &str) {
        run(Command::new("sh").args(["-euc", lines]), lines);
    }

    /// Runs shell lines among the neighbours.
    pub(crate) fn peer(&self, lines: &str) {
        run(Command::new("nsenter").arg(format!("--net={}", self.peer)).args(["sh", "-euc", lines]), lines);
    }

    /// A veth pair `d{n}` (hub) and `p{n}` (neighbours): 10.0.n.1/24 and 10.0.n.2/24, fd00:n::1/64 and fd00:n::2/64, with MAC
    /// addresses 02:00:00:00:n:01 and 02:00:00:00:n:02. Short timers of the neighbour tables: an entry is reachable for 1.2 to
    /// 3.6 s, more than the 1 s that a poke counts as use, so that it does go stale before it is probed.
    pub(crate) fn link(&self, n: u8) {
        let peer = &self.peer;
        self.hub(&format!(
            "ip link add d{n} address {hub} type veth peer name p{n} address {there} netns {peer}
             echo 0 > /proc/sys/net/ipv6/conf/d{n}/dad_transmits
             ip addr add 10.0.{n}.1/24 dev d{n}
             ip addr add fd00:{n}::1/64 dev d{n} nodad
             ip link set d{n} up",
            hub = text(mac(n, 1)),
            there = text(mac(n, 2)),
        ));
        self.peer(&format!(
            "echo 0 > /proc/sys/net/ipv6/conf/p{n}/dad_transmits
             ip addr add 10.0.{n}.2/24 dev p{n}
             ip addr add fd00:{n}::2/64 dev p{n} nodad
             ip link set p{n} up"
        ));
        // The kernel tells of a carrier a moment after it is there.
        self.hub(&format!("timeout 10 sh -c 'until ip link show d{n} | grep -q \"state UP\"; do sleep 0.01; done'"));
        for family in ["ipv4", "ipv6"] {
            let at = format!("/proc/sys/net/{family}/neigh/d{n}");
            self.hub(&format!(
                "echo 1 > {at}/delay_first_probe_time; echo 100 > {at}/retrans_time_ms; echo 2400 > {at}/base_reachable_time_ms"
            ));
        }
    }
}

pub(crate) fn mac(n: u8, last: u8) -> [u8; 6] {
    [2, 0, 0, 0, n, last]
}

pub(crate) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// An `Underlay` over `d0`, `d1`, … as ports 0, 1, …
pub(crate) fn underlay(ports: u16) -> Underlay {
    Underlay::open((0..ports).map(|n| (PortIndex(n), format!("d{n}"))), PORT).unwrap()
}

/// The way through `d{n}` to the neighbour of `link(n)`, from its IPv4 address.
pub(crate) fn via(n: u8) -> Reach {
    Reach::Via(NextHop {
        port: PortIndex(n.into()),
        source_mac: mac(n, 1),
        next_hop: IpAddr::from([10, 0, n, 2]),
        destination_mac: mac(n, 2),
        mtu: 1500,
        local: IpAddr::from([10, 0, n, 1]),
    })
}

/// The same way, changed a little.
pub(crate) fn via_with(n: u8, change: impl FnOnce(&mut NextHop)) -> Reach {
    let Reach::Via(mut hop) = via(n) else { unreachable!() };
    let next_hop = hop.next_hop;
    change(&mut hop);
    // From an IPv6 address, the way leads by the neighbour's IPv6 address, unless the change says otherwise.
    if hop.local.is_ipv6() && hop.next_hop == next_hop {
        hop.next_hop = ip(&format!("fd00:{n}::2"));
    }
    Reach::Via(hop)
}

/// Changes until one fits; with all that came, it included.
pub(crate) async fn until(underlay: &mut Underlay, fits: impl Fn(&Change) -> bool) -> Vec<Change> {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            seen.push(underlay.next().await);
            if seen.last().is_some_and(&fits) {
                return;
            }
        }
    });
    let found = found.await;
    assert!(found.is_ok(), "not within {PATIENCE:?}; came: {seen:#?}");
    seen
}

/// Until the remote (with no local address given) is reached like this; with all that was told of it on the way.
pub(crate) async fn until_reach(underlay: &mut Underlay, remote: &str, wanted: Reach) -> Vec<Reach> {
    let remote = ip(remote);
    let fits = |change: &Change| *change == Change::Reach { remote, local: None, reach: wanted };
    let seen = until(underlay, fits).await;
    let of_it = |change: Change| match change {
        Change::Reach { remote: r, local: None, reach } if r == remote => Some(reach),
        _ => None,
    };
    seen.into_iter().filter_map(of_it).collect()
}

/// Watches, and waits for the way.
pub(crate) async fn watch_until(underlay: &mut Underlay, remote: &str, wanted: Reach) {
    underlay.watch(ip(remote), None);
    if underlay.reach(ip(remote), None) != Some(wanted) {
        until_reach(underlay, remote, wanted).await;
    }
}

/// Every change that is told within so much time: for saying that there is none.
pub(crate) async fn during(underlay: &mut Underlay, time: Duration) -> Vec<Change> {
    let mut seen = Vec::new();
    let _ = tokio::time::timeout(time, async {
        loop {
            seen.push(underlay.next().await);
        }
    })
    .await;
    seen
}

fn run(command: &mut Command, lines: &str) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
}
