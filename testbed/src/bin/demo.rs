//! `make demo`: the hub's main job, shown on this machine.
//!
//! Two hubs joined by a trunk, two tenants that use the same addresses. Each tenant has a site at either hub, a stock `wireguard-go`, and a
//! server behind an access port of the second, in VLANs of one cable. What reached what, and that nothing crossed, is said in one table;
//! the exit code says whether all of it was as it should be.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use ekiden_testbed::attack::{Attacker, Kind, message};
use ekiden_testbed::backbone::route;
use ekiden_testbed::hub;
use ekiden_testbed::probe::{echo, iperf, transfer};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Backbone, Hub, Lab, Lan, Plan, Seen, Server, Site, Tap, World, until};

/// The first byte of a sealed packet between hubs.
const TRUNK_DATA: u8 = 0x14;
/// Pings of each kind.
const PINGS: u32 = 5;
const TENANTS: [u32; 2] = [1001, 2002];
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
    say("Making network namespaces: two hubs, a router that is the internet, four sites, a switch, and two servers.");
    let mut backbone = Backbone::new(lab, 2)?;
    for tenant in TENANTS {
        for (hub, name, net) in [(0, "a", 1), (1, "b", 2)] {
            backbone.site(lab, hub, Plan::new(tenant, name, net))?;
        }
    }
    let mut lan = Lan::new(lab, "lan", &backbone.worlds[1].hub, "a0")?;
    backbone.settings[1].access_ports.push("a0");
    let mut servers = Vec::new();
    for (tenant, vlan) in TENANTS.into_iter().zip(VLANS) {
        servers.push(lan.server(lab, &[(0x8100, vlan)], &SERVER, &["10.9.3.254", "fd00:9:3::fe"])?);
        let lines = format!("port = \"a0\"\nvlan = {vlan}\naddresses = [\"10.9.3.254/24\", \"fd00:9:3::fe/64\"]");
        backbone.settings[1].access.push((tenant, lines));
        for prefix in ["10.9.3.0/24", "fd00:9:3::/64"] {
            backbone.settings[0].routes.push((tenant, route(prefix, "{ trunk = \"hub2\" }", 100)));
        }
    }
    backbone.mesh(&TENANTS, "tenants = [1001, 2002]\nlanes = 2\n");
    say(
        "Starting the hubs. Tenants 1001 and 2002 both have 10.9.1.0/24 and fd00:9:1::/64 behind a site at the first hub, 10.9.2.0/24 and",
    );
    say(
        "fd00:9:2::/64 behind a site at the second, and there, behind access port a0, 10.9.3.0/24 and fd00:9:3::/64: 1001 in VLAN 100,",
    );
    say("2002 in VLAN 200. At each site, wireguard-go is started and set up with `wg set`.");
    backbone.start(lab)?;
    say("All four sites have a session with their hub, and the trunk between the hubs is up, with two lanes.");

    let mut table = Table::default();
    let [first, second] = &backbone.sites[..] else { anyhow::bail!("two hubs") };
    let sites = [&first[0], &second[0], &first[1], &second[1]];
    within_tenants(sites, &mut table)?;
    across_tenants(&backbone.worlds[0], &backbone.hubs[0], sites, &mut table)?;
    servers_by_vlan(lab, sites, &servers, &mut table)?;
    a_lane_less(&backbone, sites, &mut table)?;
    say(&format!("\n{table}"));
    say("What the first hub says of itself, `ekiden status`:\n");
    say(&backbone.hubs[0].status_text()?);
    say("Stopping the hubs.");
    let mut good = table.is_good();
    for hub in &mut backbone.hubs {
        let end = hub.stop()?;
        if !end.success() {
            say(&format!("A hub ended with {end}."));
        }
        good &= end.success();
    }
    Ok(good)
}

/// Ping and TCP, each way, inside each tenant.
fn within_tenants(sites: [&Site; 4], table: &mut Table) -> Result<()> {
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
fn across_tenants(world: &World, hub: &Hub, sites: [&Site; 4], table: &mut Table) -> Result<()> {
    let taps = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;
    let [a1, b1, a2, b2] = sites;
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

    say("The same with a packet on its way between the hubs, as it is: hub2 has sealed it for tenant 1001.");
    echo(b1.namespace(), a1.v4().into(), 1, &["-s", "1000"])?;
    let by_trunk = |seen: &Seen| {
        seen.outgoing && message(&seen.bytes).is_some_and(|m| m.kind == TRUNK_DATA && m.place.len() > 1000)
    };
    let copied = attacker.wire.wait_for("packet between the hubs", by_trunk)?;
    until_true("what is under way arrives", || Ok(taps[0].count(|seen| !seen.outgoing)? > 0))?;
    taps.iter().try_for_each(|tap| tap.drain().map(drop))?;
    let before = hub.status()?;
    attacker.repeat(&copied.bytes, PINGS as usize)?;
    hub.must_have_dropped_at_least(&before, "counter_replayed", PINGS.into())?;
    let arrived = taps.iter().map(|tap| tap.count(|seen| !seen.outgoing)).sum::<Result<usize>>()?;
    table.row(["replay, trunk", "attacker", "anybody", "-", &format!("{arrived} arrived")], arrived == 0);

    let pings = echo(a1.namespace(), b1.v4().into(), 1, &[])?;
    let seen = taps[1].count(|seen| !seen.outgoing)?;
    let found = format!("{seen} arrived");
    table.row(["after that", &name(a1), &name(b1), &b1.v4().to_string(), &found], pings.all() && seen == 1);
    Ok(())
}

/// Each tenant's server, at the second hub, against its site at the first, by ping and TCP; and marked packets, counted at both servers.
fn servers_by_vlan(lab: &Lab, sites: [&Site; 4], servers: &[Server], table: &mut Table) -> Result<()> {
    let at_servers = servers.iter().map(Server::tap).collect::<Result<Vec<_>>>()?;
    for (at, (site, server)) in [sites[0], sites[2]].into_iter().zip(servers).enumerate() {
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
            // And the site at its own hub.
            if to.is_ipv4() {
                let near = sites[2 * at + 1];
                ping((&own, &server.namespace), (&name(near), near.v4().into()))?;
                ping((&name(near), near.namespace()), (&own, back.parse()?))?;
            }
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

/// The way of one of the trunk's two lanes is cut, and healed: pings go on.
fn a_lane_less(backbone: &Backbone, sites: [&Site; 4], table: &mut Table) -> Result<()> {
    let [a, b, ..] = sites;
    for (what, cut) in [("one lane cut", true), ("lane healed", false)] {
        let (port, up) = (Some(HUB_PORT), if cut { 1 } else { 2 });
        say(&format!(
            "{} the way of the trunk's first lane; {} pings {}.",
            if cut { "Cutting" } else { "Healing" },
            name(a),
            name(b)
        ));
        if cut {
            backbone.cut(0, 1, port)?
        } else {
            backbone.heal(0, 1, port)?
        }
        for hub in &backbone.hubs {
            until_true(
                "the lane is noticed",
                || Ok(hub.status()?.lanes()?.iter().filter(|(_, up)| *up).count() == up),
            )?;
        }
        let pings = echo(a.namespace(), b.v4().into(), PINGS, &[])?;
        let found = format!("{} of {} answered, {up} of 2 lanes", pings.received, pings.sent);
        table.row([what, &name(a), &name(b), &b.v4().to_string(), &found], pings.all());
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
