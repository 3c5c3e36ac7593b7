//! `make demo`: the hub's main job, shown on this machine.
//!
//! One hub, two tenants that use the same addresses, two sites each, every site a stock `wireguard-go`, and a server each behind an access
//! port, in VLANs of one cable. What reached what, and that nothing crossed, is said in one table; the exit code says whether all of it was as it should be.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use ekiden_testbed::attack::{Attacker, Kind};
use ekiden_testbed::hub::{self, Settings};
use ekiden_testbed::probe::{echo, iperf, transfer};
use ekiden_testbed::{Hub, Lab, Lan, Plan, Seen, Server, Site, Tap, World, until};

/// Pings of each kind.
const PINGS: u32 = 5;
/// The tenants' VLANs at the access port, and their servers' addresses there.
const VLANS: [u16; 2] = [100, 200];
const SERVER: [&str; 2] = ["10.9.3.1/24", "fd00:9:3::1/64"];
/// Seconds of each TCP transfer.
const SECONDS: u64 = 3;

fn main() -> ExitCode {
    match demo() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            say("Something was not as it should be: see the rows that say NO.");
            ExitCode::FAILURE
        }
        Err(error) => {
            say(&format!("The demo could not be carried out: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The one place that prints. Who closes the pipe does not want to know.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

fn demo() -> Result<bool> {
    let mut lab = Lab::new()?;
    let result = show(&mut lab);
    if result.is_err() {
        say(&lab.logs());
    }
    result
}

fn show(lab: &mut Lab) -> Result<bool> {
    say(&format!("The hub is {}.", hub::binary()?.display()));
    say("Making network namespaces: a hub, a router that is the internet, four sites, a switch, and two servers.");
    let mut world = World::new(lab)?;
    let mut sites = Vec::new();
    for tenant in [1001, 2002] {
        for (name, net) in [("a", 1), ("b", 2)] {
            sites.push(Site::new(lab, &mut world, Plan::new(tenant, name, net))?);
        }
    }
    let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
    let mut servers = Vec::new();
    for vlan in [VLANS[0], VLANS[1]] {
        servers.push(lan.server(lab, &[(0x8100, vlan)], &SERVER, &["10.9.3.254", "fd00:9:3::fe"])?);
    }
    let end = |vlan| format!("port = \"a0\"\nvlan = {vlan}\naddresses = [\"10.9.3.254/24\", \"fd00:9:3::fe/64\"]");
    let access = vec![(1001, end(VLANS[0])), (2002, end(VLANS[1]))];
    let settings = Settings { access_ports: vec!["a0"], access, ..Settings::default() };
    let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
    say("Starting the hub. Tenants 1001 and 2002 both have 10.9.1.0/24, 10.9.2.0/24, fd00:9:1::/64 and fd00:9:2::/64,");
    say("and 10.9.3.0/24 and fd00:9:3::/64 behind access port a0: 1001 in VLAN 100, 2002 in VLAN 200.");
    hub.start()?;
    say("Starting wireguard-go at each site, set up with `wg set`.");
    sites.iter_mut().try_for_each(Site::start)?;
    hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
    say("All four sites have a session with the hub.");

    let mut table = Table::default();
    within_tenants(&sites, &mut table)?;
    across_tenants(&world, &hub, &sites, &mut table)?;
    servers_by_vlan(lab, &sites, &servers, &mut table)?;
    say(&format!("\n{table}"));
    say("What the hub says of itself, `ekiden status`:\n");
    say(&hub.status_text()?);
    say("Stopping the hub.");
    let end = hub.stop()?;
    if !end.success() {
        say(&format!("The hub ended with {end}."));
    }
    Ok(table.is_good() && end.success())
}

/// Ping and TCP, each way, inside each tenant.
fn within_tenants(sites: &[Site], table: &mut Table) -> Result<()> {
    for pair in sites.chunks(2) {
        let [a, b] = pair else { continue };
        for (from, to) in [(a, b), (b, a)] {
            say(&format!("{} pings {}, IPv4 and IPv6.", name(from), name(to)));
            for (kind, address) in ["ping IPv4", "ping IPv6"].into_iter().zip(to.inner()) {
                let pings = echo(from.namespace(), address, PINGS, &[])?;
                let time = pings.mean_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.2} ms"));
                let found = format!("{} of {} answered, {time}", pings.received, pings.sent);
                table.row([kind, &name(from), &name(to), &address.to_string(), &found], pings.all());
            }
        }
        for (from, to) in [(a, b), (b, a)] {
            say(&format!("{} sends TCP to {} for {SECONDS} seconds.", name(from), name(to)));
            let (found, good) = match iperf(from, to, SECONDS) {
                Ok(transfer) => (format!("{:.0} Mbit/s", transfer.mbits), transfer.mbits > 0.0),
                Err(error) => (format!("{error:#}"), false),
            };
            table.row(["TCP", &name(from), &name(to), &to.v4().to_string(), &found], good);
        }
    }
    Ok(())
}

/// What each tenant sends to addresses that both have, counted at all four sites; and what somebody who can copy packets
/// on the wire gets into the other tenant.
fn across_tenants(world: &World, hub: &Hub, sites: &[Site], table: &mut Table) -> Result<()> {
    let taps = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;
    let [a1, b1, a2, b2] = sites else { return Ok(()) };
    for (at, (from, to)) in [(a1, b1), (b1, a1), (a2, b2), (b2, a2)].into_iter().enumerate() {
        say(&format!("{} sends marked packets; every site counts what arrives.", name(from)));
        for (version, address) in [(4, to.inner()[0]), (6, to.inner()[1])] {
            let mark = [0xec, 0x1d, 0xe4, at as u8, version, 0x7e, 0x57, 0xed];
            let pattern: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
            echo(from.namespace(), address, PINGS, &["-p", &pattern])?;
            let arrived = |seen: &Seen| !seen.outgoing && seen.contains(&mark);
            let counts = taps.iter().map(|tap| tap.count(arrived)).collect::<Result<Vec<_>>>()?;
            let count = |of: &dyn Fn(&Site) -> bool| -> usize {
                sites.iter().zip(&counts).filter(|(site, _)| of(site)).map(|(_, count)| count).sum()
            };
            let own = count(&|site| site.plan.tenant == to.plan.tenant && site.plan.name == to.plan.name);
            let foreign = count(&|site| site.plan.tenant != to.plan.tenant);
            let kind = format!("marked IPv{version}");
            let good = own == PINGS as usize;
            table
                .row([&kind, &name(from), &name(to), &address.to_string(), &format!("{own} of {PINGS} arrived")], good);
            let other = format!("tenant {}", if to.plan.tenant == 1001 { 2002 } else { 1001 });
            table.row([&kind, &name(from), &other, &address.to_string(), &format!("{foreign} arrived")], foreign == 0);
        }
    }

    say("Somebody copies a sealed packet of tenant 1001 and sends it again from the address of a site of tenant 2002.");
    let attacker = Attacker::new(world)?;
    echo(a1.namespace(), b1.v4().into(), 1, &[])?;
    let copied = attacker.copy(Kind::Data, a1.endpoint().ip())?;
    taps.iter().try_for_each(|tap| tap.drain().map(drop))?;
    let before = hub.status()?;
    attacker.repeat(&attacker.resent_from(&copied, a2.endpoint())?, PINGS as usize)?;
    until("the hub has seen the copies", || {
        let dropped = hub.status()?.drops_since(&before);
        Ok((dropped.values().sum::<u64>() >= u64::from(PINGS)).then_some(()))
    })?;
    let arrived = taps.iter().map(|tap| tap.count(|seen| !seen.outgoing)).sum::<Result<usize>>()?;
    let moved = hub.status()?.site(a1)?["endpoint"] != a1.endpoint().to_string();
    let found = format!("{arrived} arrived, site {}moved", if moved { "" } else { "not " });
    table.row(["replay", "attacker", "anybody", "-", &found], arrived == 0 && !moved);
    let pings = echo(a1.namespace(), b1.v4().into(), 1, &[])?;
    let seen = taps[1].count(|seen| !seen.outgoing)?;
    let found = format!("{seen} arrived");
    table.row(["after that", &name(a1), &name(b1), &b1.v4().to_string(), &found], pings.all() && seen == 1);
    Ok(())
}

/// Each tenant's server against its site `a`, by ping and TCP; and marked packets, counted at both servers.
fn servers_by_vlan(lab: &Lab, sites: &[Site], servers: &[Server], table: &mut Table) -> Result<()> {
    let at_servers = servers.iter().map(Server::tap).collect::<Result<Vec<_>>>()?;
    for (at, (site, server)) in [&sites[0], &sites[2]].into_iter().zip(servers).enumerate() {
        let own = format!("{}/VLAN {}", site.plan.tenant, VLANS[at]);
        say(&format!("The server of {own} and {} ping each other and send TCP.", name(site)));
        for (kind, to, back) in
            [("ping IPv4", site.inner()[0], "10.9.3.1"), ("ping IPv6", site.inner()[1], "fd00:9:3::1")]
        {
            let mut ping = |from: (&str, &_), to: (&str, std::net::IpAddr)| -> Result<()> {
                let pings = echo(from.1, to.1, PINGS, &[])?;
                let time = pings.mean_ms.map_or_else(|| "-".into(), |ms| format!("{ms:.2} ms"));
                let found = format!("{} of {} answered, {time}", pings.received, pings.sent);
                table.row([kind, from.0, to.0, &to.1.to_string(), &found], pings.all());
                Ok(())
            };
            ping((&own, &server.namespace), (&name(site), to))?;
            ping((&name(site), site.namespace()), (&own, back.parse()?))?;
        }
        let ends = [
            (&server.namespace, site.namespace(), site.inner()[0]),
            (site.namespace(), &server.namespace, "10.9.3.1".parse()?),
        ];
        for ((from, to, address), names) in ends.into_iter().zip([[own.clone(), name(site)], [name(site), own.clone()]])
        {
            let (found, good) = match transfer(lab.directory(), (from, to), address, (false, SECONDS)) {
                Ok((mbits, _)) => (format!("{mbits:.0} Mbit/s"), mbits > 0.0),
                Err(error) => (format!("{error:#}"), false),
            };
            table.row(["TCP", &names[0], &names[1], &address.to_string(), &found], good);
        }
        at_servers.iter().try_for_each(|tap| tap.drain().map(drop))?;
        let mark = [0xec, 0x1d, 0xe4, 0x10 + at as u8, 0x7e, 0x57, 0xed, 0x01];
        let pattern: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
        echo(site.namespace(), "10.9.3.1".parse()?, PINGS, &["-p", &pattern])?;
        let arrived = |seen: &Seen| !seen.outgoing && seen.contains(&mark);
        let counts = at_servers.iter().map(|tap| tap.count(arrived)).collect::<Result<Vec<_>>>()?;
        let found = format!("{} of {PINGS} arrived", counts[at]);
        table.row(["marked IPv4", &name(site), &own, "10.9.3.1", &found], counts[at] == PINGS as usize);
        let found = format!("{} arrived", counts[1 - at]);
        table.row(
            ["marked IPv4", &name(site), &format!("VLAN {}", VLANS[1 - at]), "10.9.3.1", &found],
            counts[1 - at] == 0,
        );
    }
    Ok(())
}

fn name(site: &Site) -> String {
    format!("{}/{}", site.plan.tenant, site.plan.name)
}

/// Rows of what was tried, what came of it, and whether that is right.
#[derive(Default)]
struct Table(Vec<([String; 5], bool)>);

impl Table {
    fn row(&mut self, cells: [&str; 5], good: bool) {
        self.0.push((cells.map(str::to_owned), good));
    }

    fn is_good(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(_, good)| *good)
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let head = ["what", "from", "to", "address", "found"].map(str::to_owned);
        let rows = || std::iter::once(&head).chain(self.0.iter().map(|(cells, _)| cells));
        let widths: Vec<usize> =
            (0..5).map(|at| rows().map(|cells| cells[at].chars().count()).max().unwrap_or(0)).collect();
        let mut line = |cells: &[String; 5], last: &str| {
            for (cell, width) in cells.iter().zip(&widths) {
                write!(f, "{cell:width$}  ")?;
            }
            writeln!(f, "{last}")
        };
        line(&head, "as it should be")?;
        let rules = std::array::from_fn(|at| "-".repeat(widths[at]));
        line(&rules, "---------------")?;
        self.0.iter().try_for_each(|(cells, good)| line(cells, if *good { "yes" } else { "NO" }))
    }
}
