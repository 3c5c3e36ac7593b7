//! Networks whose packets no page holds: 9,000 bytes, in and out of the hub in several buffers.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::{Attacker, Kind, fragments, message};
use ekiden_testbed::hub::{Settings, Status};
use ekiden_testbed::lan::Lan;
use ekiden_testbed::probe::{echo, must_ping_both_ways, transfer};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Client, Hub, Lab, Namespace, Outside, Plan, Site, World, iperf_both_ways, lab};

const MTU: u32 = 9000;
/// What fits, sealed, an outer IPv6 packet of 9,000 bytes.
const TUNNEL_MTU: u32 = MTU - 80;

/// A world of 9,000 bytes, sites that use it, and a hub; `narrow` are links that stay as they are.
fn wide(lab: &mut Lab, settings: &Settings, plans: Vec<Plan>, narrow: &[&str]) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    for (namespace, interface) in [(&world.hub, "d0"), (&world.inet, "h0"), (&world.hub, "d1"), (&world.inet, "h1")] {
        if !narrow.contains(&interface) {
            namespace.ip(&format!("link set {interface} mtu {MTU}"))?;
        }
    }
    let mut sites = Vec::new();
    for plan in plans {
        let site = Site::new(lab, &mut world, plan)?;
        site.namespace().ip(&format!("link set w0 mtu {MTU}"))?;
        world.inet.ip(&format!("link set {} mtu {MTU}", site.host.uplink))?;
        sites.push(site);
    }
    let hub = Hub::with_sites(lab, &world, settings, &mut sites)?;
    for site in &sites {
        site.namespace().ip(&format!("link set {} mtu {TUNNEL_MTU}", site.interface))?;
    }
    Ok((world, hub, sites))
}

/// One echo of so many bytes in all, which must not be fragmented by anybody.
fn must_pass(from: &Namespace, to: IpAddr, bytes: u32) -> Result<()> {
    let size = (bytes - if to.is_ipv4() { 28 } else { 48 }).to_string();
    let pings = echo(from, to, 2, &["-s", &size, "-M", "do"])?;
    ensure!(pings.all(), "{bytes} bytes from {} to {to}: {}", from.name(), pings.text);
    Ok(())
}

fn port<'a>(status: &'a Status, name: &str) -> Result<&'a serde_json::Value> {
    let ports = status.0["ports"].as_array().context("ports")?;
    ports.iter().find(|port| port["name"] == name).with_context(|| format!("port {name}"))
}

#[test]
fn packets_of_all_lengths_travel_whole_both_ways() -> Result<()> {
    lab::test(|lab| {
        let plans = vec![
            Plan::new(1001, "a", 1),
            Plan { outside: Outside::V6, client: Client::Boringtun, ..Plan::new(1001, "b", 2) },
        ];
        let (_world, hub, sites) = wide(lab, &Settings::default(), plans, &[])?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        // boringtun looks at its interface's MTU now and then, and cuts what is longer off.
        until_true("the clients know of their MTU", || {
            let [there, back] = [(a, b), (b, a)]
                .map(|(from, to)| echo(from.namespace(), to.v4().into(), 1, &["-s", "8800", "-W", "1"]));
            Ok(there?.all() && back?.all())
        })?;
        let before = hub.balance()?;
        // Around the lengths at which one more descriptor is needed: 3,840 bytes of a frame each; and where a packet that came
        // in one has no room to be sealed in it.
        let lengths = [100, 1420, 3730, 3768, 3769, 3782, 3798, 3800, 7590, 7608, 7622, 7640, 8828, TUNNEL_MTU];
        for (from, to) in [(a, b), (b, a)] {
            for (bytes, address) in lengths.into_iter().flat_map(|bytes| to.inner().map(|address| (bytes, address))) {
                let passed = must_pass(from.namespace(), address, bytes);
                passed.with_context(|| {
                    format!("the hub dropped {:?}", hub.status().map(|status| status.drops_since(&before)))
                })?;
            }
        }
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.mbits > 1.0, "{transfer:?}");
        }
        let status = hub.balance()?;
        let drops = status.drops_since(&before);
        ensure!(drops.keys().all(|reason| reason == "tx_ring_full"), "{drops:?}");
        ensure!(port(&status, "d0")?["multi_buffer"] == true, "{}", status.0["ports"]);
        ensure!(hub.status_text()?.contains("copy, multi-buffer"), "{}", hub.status_text()?);
        ensure!(status.site(a)?["path"]["inner_mtu"] == MTU - 60, "{}", status.site(a)?);
        ensure!(status.site(b)?["path"]["inner_mtu"] == TUNNEL_MTU, "{}", status.site(b)?);
        let [sent, received] = ["tx_bytes", "rx_bytes"].map(|field| status.of_site(a, field));
        ensure!(sent? > 1_000_000 && received? > 1_000_000, "TCP went");
        Ok(())
    })
}

/// The other port carries 1,500 bytes: what comes in large is told so, or cut, and the port itself is as ever.
#[test]
fn beside_a_port_of_1500_each_is_what_it_is() -> Result<()> {
    lab::test(|lab| {
        let settings = Settings { ports: vec!["d0", "d1"], hub_addresses: vec![1001], ..Settings::default() };
        let plans = vec![Plan::new(1001, "a", 1), Plan::new(1001, "b", 2)];
        let (world, hub, sites) = wide(lab, &settings, plans, &["d1", "h1"])?;
        let (a, b) = (&sites[0], &sites[1]);
        let IpAddr::V4(of_b) = b.host.address(false, 0) else { unreachable!() };
        world.hub.ip(&format!("route add {of_b}/24 via 203.0.113.254 dev d1"))?;
        until_true("b is reached by d1", || Ok(hub.status()?.site(b)?["path"]["inner_mtu"] == 1440))?;
        must_ping_both_ways(a, b)?;
        let before = hub.balance()?;
        for (name, wide) in [("d0", true), ("d1", false)] {
            let port = port(&before, name)?;
            ensure!(port["multi_buffer"] == wide && port["chunk_size"] == 4096, "{port}");
        }
        let pings = echo(a.namespace(), b.v4().into(), 1, &["-s", "8800", "-M", "do"])?;
        ensure!(pings.text.contains("From 10.9.0.1") && pings.text.contains("mtu = 1440"), "{}", pings.text);
        hub.must_have_dropped(&before, &[("too_large", 1)])?;
        // The kernel has learnt it; another destination in b's network it has not: the same way, by the hub's scissors.
        b.namespace().ip(&format!("addr add 10.9.2.77/24 dev {}", b.interface))?;
        let pings = echo(a.namespace(), Ipv4Addr::new(10, 9, 2, 77).into(), 5, &["-s", "8800", "-M", "dont"])?;
        ensure!(pings.all(), "{}", pings.text);
        let after = hub.balance()?;
        let generated = |status: &Status| status.0["workers"][0]["generated"].as_u64().unwrap_or(0);
        ensure!(generated(&after) >= generated(&before) + 30, "six more fragments of each");
        let drops = after.drops_since(&before);
        ensure!(drops.get("too_large") == Some(&1) && drops.len() == 1, "{drops:?}");
        Ok(())
    })
}

#[test]
fn large_garbage_costs_no_chunk() -> Result<()> {
    const TIMES: usize = 3000;
    lab::test(|lab| {
        let plans = vec![Plan::new(1001, "a", 1), Plan::new(1001, "b", 2)];
        let (world, hub, sites) = wide(lab, &Settings::default(), plans, &[])?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        let attacker = Attacker::new(&world)?;
        must_pass(a.namespace(), b.v4().into(), 8828)?;
        let good = loop {
            let copy = attacker.copy(Kind::Data, a.endpoint().ip())?;
            if copy.len() > 8000 {
                break copy;
            }
        };
        let before = hub.balance()?;
        // Of a live session and a counter to come, but not sealed by its key; and of no session.
        let place = message(&good).context("a message")?.place;
        let mut forged = good.clone();
        forged[place.start + 8..place.start + 16].copy_from_slice(&1_000_000u64.to_le_bytes());
        forged[40..42].fill(0);
        let mut unknown = forged.clone();
        unknown[place.start + 6] ^= 0xff;
        // A fragment as long as a frame can be, of which the rest never comes.
        let pieces = fragments(&good, 7, std::slice::from_ref(&(0..8000)))?;
        for _ in 0..TIMES / 50 {
            attacker.repeat(&forged, 50)?;
            attacker.repeat(&unknown, 50)?;
            attacker.repeat(&pieces[0], 1)?;
            let seen = hub.status()?;
            ensure!(seen.overdrawn()?.is_empty(), "{:?}", seen.overdrawn()?);
        }
        hub.must_have_dropped_at_least(&before, "auth_failed", TIMES as u64 / 2)?;
        hub.must_have_dropped_at_least(&before, "xdp_session_unknown", TIMES as u64 / 2)?;
        hub.must_have_dropped_at_least(&before, "fragment_overlap", 1)?;
        let status = hub.balance()?;
        let books = &status.0["books"];
        ensure!(books["sending"] == 0 && books["staged"] == 0, "{books}");
        for bytes in [8828, TUNNEL_MTU] {
            must_pass(a.namespace(), b.v4().into(), bytes)?;
            must_pass(b.namespace(), a.v4().into(), bytes)?;
        }
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_server_in_a_vlan_of_9000_and_a_remote_site_reach_each_other() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut site = Site::new(lab, &mut world, Plan::new(1001, "a", 1))?;
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let server =
            lan.server(lab, &[(0x8100, 100)], &["10.9.2.1/24", "fd00:9:2::1/64"], &["10.9.2.254", "fd00:9:2::fe"])?;
        let links = [
            (&world.hub, "d0", MTU),
            (&world.inet, "h0", MTU),
            (&world.inet, &*site.host.uplink, MTU),
            (site.namespace(), "w0", MTU),
            (&world.hub, "a0", MTU),
            (&lan.switch, "p0", MTU + 4),
            (&lan.switch, "p1", MTU + 4),
            (&lan.switch, "br0", MTU + 4),
            (&server.namespace, "eth0", MTU),
        ];
        for (namespace, interface, mtu) in links {
            namespace.ip(&format!("link set {interface} mtu {mtu}"))?;
        }
        let place = "port = \"a0\"\nvlan = 100\naddresses = [\"10.9.2.254/24\", \"fd00:9:2::fe/64\"]";
        let (access_ports, access) = (vec!["a0"], vec![(1001, place.to_owned())]);
        let settings = Settings { access_ports, access, ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, std::slice::from_mut(&mut site))?;
        site.namespace().ip(&format!("link set {} mtu {TUNNEL_MTU}", site.interface))?;
        let of_server: [IpAddr; 2] = ["10.9.2.1".parse()?, "fd00:9:2::1".parse()?];
        for in_band in [false, true] {
            if in_band {
                lan.tag_in_band()?;
            }
            // A server in a network of 9,000 bytes keeps to the tunnel's for what lies behind it.
            for bytes in [100, 3768, 3800, 7622, 8828, TUNNEL_MTU] {
                site.inner().into_iter().try_for_each(|to| must_pass(&server.namespace, to, bytes))?;
                of_server.into_iter().try_for_each(|to| must_pass(site.namespace(), to, bytes))?;
            }
            // The gateway answers from the frame in which it was asked.
            must_pass(&server.namespace, "10.9.2.254".parse()?, MTU)?;
            for (from, to, address) in [
                (&server.namespace, site.namespace(), site.v4().into()),
                (site.namespace(), &server.namespace, of_server[0]),
            ] {
                let (mbits, _) = transfer(lab.directory(), (from, to), address, (false, 2))?;
                ensure!(mbits > 1.0, "TCP to {address}: {mbits} Mbit/s");
            }
        }
        let status = hub.balance()?;
        ensure!(port(&status, "a0")?["multi_buffer"] == true, "{}", status.0["ports"]);
        Ok(())
    })
}
