//! The network around the hub changes, and the hub follows.

use anyhow::{Result, ensure};
use ekiden_testbed::attack::{is_tunnel, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping_both_ways, ping};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::{HUB_V4, HUB_V6};
use ekiden_testbed::{Hub, Outside, Plan, Seen, Site, Tap, World, lab};

fn two_sites(lab: &mut lab::Lab, ports: Vec<&'static str>) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
    ];
    let hub = Hub::with_sites(lab, &world, &Settings { ports, ..Settings::default() }, &mut sites)?;
    must_ping_both_ways(&sites[0], &sites[1])?;
    Ok((world, hub, sites))
}

fn reaches(a: &Site, b: &Site) -> Result<bool> {
    let pings = b.inner().map(|address| ping(a.namespace(), address, &["-c", "1", "-W", "1"]));
    pings.into_iter().try_fold(true, |all, pings| Ok(all && pings?.all()))
}

#[test]
fn the_next_hop_gets_another_mac_address() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, vec![])?;
        world.inet.ip("link set h0 address 02:00:00:00:be:ef")?;
        until_true("packets take the new way", || reaches(&sites[0], &sites[1]))?;
        let status = hub.status()?;
        for site in &sites {
            ensure!(status.site(site)?["path"]["next_hop_mac"] == "02:00:00:00:be:ef", "{}", status.site(site)?);
        }
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_route_moves_to_another_port() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, vec!["d0", "d1"])?;
        let (first, second) = (Tap::open(&world.inet, "h0")?, Tap::open(&world.inet, "h1")?);
        must_ping_both_ways(&sites[0], &sites[1])?;
        // From the hub, and still from the address that the sites talk to.
        let from_hub = |seen: &Seen| {
            let known = |source| source == std::net::IpAddr::from(HUB_V4) || source == std::net::IpAddr::from(HUB_V6);
            !seen.outgoing && is_tunnel(seen) && message(&seen.bytes).is_some_and(|message| known(message.source.ip()))
        };
        ensure!(first.count(from_hub)? > 0 && second.count(from_hub)? == 0);

        world.hub.ip("route replace default via 203.0.113.254 dev d1")?;
        world.hub.ip("-6 route replace default via 2001:db8:0:1::fe dev d1")?;
        until_true("the hub follows", || {
            let status = hub.status()?;
            Ok(status.site(&sites[0])?["path"]["port"] == "d1" && status.site(&sites[1])?["path"]["port"] == "d1")
        })?;
        first.drain()?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        ensure!(first.count(from_hub)? == 0 && second.count(from_hub)? > 0);
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_narrow_path_is_learnt_and_told() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, vec![])?;
        let (a, b) = (&sites[0], &sites[1]);
        // IPv6 outside: no router cuts, all of them tell. The hub is told by ICMPv6, and tells the sender by ICMP.
        world.inet.ip(&format!("link set {} mtu 1400", b.host.uplink))?;
        b.namespace().ip("link set w0 mtu 1400")?;
        until_true("the sender is told", || {
            let pings = ping(a.namespace(), b.v4().into(), &["-c", "1", "-W", "1", "-s", "1372", "-M", "do"])?;
            // 1400 less 40, 8, 16 and 16.
            Ok(pings.text.contains("Frag needed and DF set (mtu = 1320)"))
        })?;
        ensure!(hub.status()?.site(b)?["path"]["mtu"] == 1400, "{}", hub.status()?.site(b)?);
        ensure!(hub.status()?.drops().get("too_large") >= Some(&1));
        let pings = echo(a.namespace(), b.v4().into(), 3, &["-s", "1292", "-M", "do"])?;
        ensure!(pings.all(), "{}", pings.text);
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_port_goes_down_and_comes_back() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, vec![])?;
        world.hub.ip("link set d0 down")?;
        until_true("the hub sees it", || Ok(hub.status()?.0["ports"][0]["up"] == false))?;
        ensure!(!reaches(&sites[0], &sites[1])?);
        world.hub.ip("link set d0 up")?;
        restore(&world)?;
        until_true("packets pass again", || reaches(&sites[0], &sites[1]))?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn an_interface_is_made_anew() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, vec![])?;
        world.hub.ip("link del d0")?;
        until_true("the hub misses it", || Ok(hub.status()?.0["ports"][0]["ifindex"].is_null()))?;
        lab.wire((&world.hub, "d0"), (&world.inet, "h0"), 1)?;
        world.inet.ip("addr add 192.0.2.254/24 dev h0")?;
        world.inet.ip("addr add 2001:db8::fe/64 dev h0 nodad")?;
        world.hub.ip("addr add 192.0.2.1/24 dev d0")?;
        restore(&world)?;
        until_true("packets pass again", || reaches(&sites[0], &sites[1]))?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let kernel = Tap::open(&world.hub, "d0")?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        ensure!(kernel.count(|seen| !seen.outgoing && is_tunnel(seen))? == 0, "frames reach the kernel");
        hub.balance()?;
        Ok(())
    })
}

/// What the kernel forgot of `d0` when it went down: its IPv6 address and the routes.
fn restore(world: &World) -> Result<()> {
    world.hub.ip("addr replace 2001:db8::1/64 dev d0 nodad")?;
    world.hub.ip("route replace default via 192.0.2.254 dev d0")?;
    world.hub.ip("-6 route replace default via 2001:db8::fe dev d0")
}
