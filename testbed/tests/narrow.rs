//! Ways that take less than both ends believe, on which nobody says so: the hub finds out by itself what passes.

use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping_both_ways};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Iperf, Lab, Outside, Plan, Site, World, iperf_both_ways, lab};

const MEASURED_A: &str = "probe_mtu = true\naddress = [\"10.9.1.1/24\", \"fd00:9:1::1/64\"]\n";
const MEASURED_B: &str = "probe_mtu = true\naddress = [\"10.9.2.1/24\", \"fd00:9:2::1/64\"]\n";

/// From now on the router between the hub and its sites carries so much towards and from these sites, and says nothing of it.
fn make_narrow(world: &World, sites: &[&Site], mtu: u16) -> Result<()> {
    for site in sites {
        world.inet.ip(&format!("link set {} mtu {mtu}", site.host.uplink))?;
    }
    silence(world)
}

fn silence(world: &World) -> Result<()> {
    world.inet.ip("rule add pref 10 ipproto icmp blackhole")?;
    world.inet.ip("-6 rule add pref 10 ipproto ipv6-icmp blackhole")
}

/// Site a is reached by IPv4, site b by IPv6; both are measured.
fn measured(lab: &mut Lab, mtu: Option<u16>) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let plans = [
        Plan { contract: MEASURED_A, ..Plan::new(1001, "a", 1) },
        Plan { contract: MEASURED_B, outside: Outside::V6, ..Plan::new(1001, "b", 2) },
    ];
    let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
    if let Some(mtu) = mtu {
        make_narrow(&world, &sites.iter().collect::<Vec<_>>(), mtu)?;
    }
    let settings = Settings { hub_addresses: vec![1001], ..Settings::default() };
    let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
    Ok((world, hub, sites))
}

/// Waits until the hub is done with a site, and returns the largest inner packet that it found.
fn found(hub: &Hub, site: &Site) -> Result<u64> {
    let mut last = String::new();
    let mut is_found = || {
        until_true("the way is measured", || {
            let status = hub.status()?;
            let path = &status.site(site)?["path"];
            last = path.to_string();
            Ok(path["probe"] == "found")
        })
    };
    // The halves may take as long as what the site lets wait for its first answer.
    let result = is_found().or_else(|_| is_found());
    result.with_context(|| last)?;
    hub.status()?.site(site)?["path"]["inner_mtu"].as_u64().context("inner_mtu")
}

/// Stock clients with the MTU that they have anyway, TCP both ways, by both versions of IP inside and outside. What their packets are
/// padded to passes, too.
fn transfers_complete(mtu: u16, inside: [u64; 2]) -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = measured(lab, Some(mtu))?;
        let (a, b) = (&sites[0], &sites[1]);
        for (site, inside) in sites.iter().zip(inside) {
            let found = found(&hub, site)?;
            ensure!(found == inside, "{}: {found}", site.label());
        }
        must_ping_both_ways(a, b)?;
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.mbits > 0.5, "{transfer:?}");
        }
        for (from, to) in [(a, b), (b, a)] {
            let transfer = Iperf::start(from, to, to.v6().into(), 2)?.finish()?;
            ensure!(transfer.mbits > 0.5, "{transfer:?}");
        }
        // What is full size and may not be cut is told, by the hub: it knows.
        let before = hub.balance()?;
        let largest = found(&hub, b)? as usize;
        ensure!(echo(a.namespace(), b.v4().into(), 3, &["-M", "do", "-s", &(largest - 28).to_string()])?.all());
        let pings = echo(a.namespace(), b.v4().into(), 1, &["-M", "do", "-s", &(largest - 27).to_string()])?;
        ensure!(pings.text.contains(&format!("mtu = {largest}")), "{}", pings.text);
        let drops = hub.balance()?.drops_since(&before);
        ensure!(drops.keys().eq(["too_large"]), "{drops:?}");
        Ok(())
    })
}

#[test]
fn transfers_complete_over_1280_that_nobody_told_of() -> Result<()> {
    transfers_complete(1280, [1216, 1200])
}

#[test]
fn transfers_complete_over_1454_that_nobody_told_of() -> Result<()> {
    transfers_complete(1454, [1392, 1360])
}

/// Where only the way to the site is narrow, whole answers come back: what routers cut must not count as having passed.
#[test]
fn what_a_router_would_cut_has_not_passed() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let plan = Plan { contract: MEASURED_A, ..Plan::new(1001, "a", 1) };
        let mut sites = vec![Site::new(lab, &mut world, plan)?];
        let (address, uplink) = (sites[0].host.address(false, 2), &sites[0].host.uplink);
        world.inet.ip(&format!("route add {address}/32 dev {uplink} mtu lock 1454"))?;
        silence(&world)?;
        let settings = Settings { hub_addresses: vec![1001], ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let found = found(&hub, &sites[0])?;
        ensure!(found == 1392, "{found}");
        hub.balance()?;
        Ok(())
    })
}

/// No common size: what is found is the largest that needs no padding.
#[test]
fn an_odd_size_is_found_by_halves() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = measured(lab, Some(1433))?;
        for (site, truth) in sites.iter().zip([1360, 1344]) {
            let found = found(&hub, site)?;
            ensure!(found == truth, "{}: {found}", site.label());
        }
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_way_that_grows_narrow_under_way_is_noticed_with_the_next_session() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = measured(lab, None)?;
        let (a, b) = (&sites[0], &sites[1]);
        ensure!(found(&hub, b)? == 1420);
        // Over IPv4 the inner packet of a full one is longer than what the client's own tunnel takes: its answer comes in fragments.
        ensure!(found(&hub, a)? == 1440, "{}", hub.status_text()?);
        make_narrow(&world, &[b], 1454)?;
        until_true("a handshake is begun", || Ok(hub.change("/v1/sites/1001/b/handshake")?.contains(" 202 ")))?;
        until_true("the hub knows better", || Ok(hub.status()?.site(b)?["path"]["inner_mtu"] == 1360))?;
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.mbits > 0.5, "{transfer:?}");
        }
        hub.balance()?;
        Ok(())
    })
}

/// A site that drops pings is sent what the kernel says that fits, as if nobody had asked.
#[test]
fn a_site_that_answers_no_ping_is_not_worse_off() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = measured(lab, None)?;
        let silent = &sites[1];
        ensure!(found(&hub, silent)? == 1420);
        silent.namespace().sysctl("net.ipv4.icmp_echo_ignore_all", "1")?;
        until_true("a handshake is begun", || Ok(hub.change("/v1/sites/1001/b/handshake")?.contains(" 202 ")))?;
        // It has answered before: so it is held to the base, until the hub starts anew and knows nothing of it.
        until_true("the hub finds no answer", || Ok(hub.status()?.site(silent)?["path"]["probe"] == "unanswered"))?;
        ensure!(hub.status()?.site(silent)?["path"]["inner_mtu"] == 1200);
        let mut hub = hub;
        hub.restart()?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        until_true("the hub gives up asking", || Ok(hub.status()?.site(silent)?["path"]["probe"] == "unanswered"))?;
        ensure!(hub.status()?.site(silent)?["path"]["inner_mtu"] == 1420);
        hub.balance()?;
        Ok(())
    })
}

/// IPv6 takes 1,280 bytes for granted, which no sender goes below. Towards a narrow site they go in two outer packets.
#[test]
fn what_ipv6_takes_for_granted_arrives_over_1280() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let plans = [
            Plan::new(1001, "a", 1),
            Plan { contract: "mtu = 1220\n", ..Plan::new(1001, "b", 2) },
            Plan { contract: "mtu = 1200\n", outside: Outside::V6, ..Plan::new(1001, "c", 3) },
        ];
        let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        make_narrow(&world, &[&sites[1], &sites[2]], 1280)?;
        let settings = Settings { hub_addresses: vec![1001], ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let before = hub.status()?;
        let from = sites[0].namespace().inside(|| UdpSocket::bind("[::]:0"))??;
        for to in &sites[1..] {
            let address = to.v6();
            let at = to.namespace().inside(|| UdpSocket::bind((address, 9)))??;
            at.set_read_timeout(Some(Duration::from_secs(10)))?;
            for len in [100usize, 1152, 1173, 1232] {
                let sent: Vec<u8> = (0..len).map(|at| at as u8).collect();
                from.send_to(&sent, (to.v6(), 9))?;
                let mut got = [0; 2048];
                let n = at.recv(&mut got).with_context(|| format!("{len} bytes to {}", to.label()))?;
                ensure!(got[..n] == sent, "{len} bytes to {}", to.label());
            }
        }
        let drops = hub.balance()?.drops_since(&before);
        ensure!(drops.is_empty(), "{drops:?}");
        Ok(())
    })
}
