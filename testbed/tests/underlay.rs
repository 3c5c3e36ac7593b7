//! The network around the hub changes, and the hub follows.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::{Attacker, is_tunnel, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping_both_ways, ping};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::{HUB_V4, HUB_V6};
use ekiden_testbed::{Hub, Load, Outside, Plan, Seen, Site, Tap, World, lab};

fn two_sites(lab: &mut lab::Lab, ports: Vec<&'static str>) -> Result<(World, Hub, Vec<Site>)> {
    with(lab, Settings { ports, ..Settings::default() })
}

fn with(lab: &mut lab::Lab, settings: Settings) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
    ];
    let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
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
    made_anew(None)
}

#[test]
fn an_interface_that_workers_share_is_made_anew() -> Result<()> {
    made_anew(Some(vec![0, 1]))
}

fn made_anew(cores: Option<Vec<usize>>) -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = with(lab, Settings { cores, ..Settings::default() })?;
        world.hub.ip("link del d0")?;
        until_true("the hub misses it", || Ok(hub.status()?.0["ports"][0]["ifindex"].is_null()))?;
        make_d0_anew(lab, &world)?;
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

/// Traffic from a site behind `d1` to one behind `d0`: what happens to `d0` is seen in what becomes of it.
struct Across {
    world: World,
    hub: Hub,
    sites: Vec<Site>,
    load: Load,
}

/// Bytes of payload: enough to be too long for a port whose MTU is lowered.
const PAYLOAD: usize = 1300;

impl Across {
    fn begin(lab: &mut lab::Lab) -> Result<Self> {
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
        ];
        world.hub.ip("route add 198.18.1.0/24 via 203.0.113.254 dev d1")?;
        // A neighbour that is silent is given up within seconds instead of minutes.
        for (name, value) in
            [("base_reachable_time_ms", "1000"), ("delay_first_probe_time", "1"), ("retrans_time_ms", "200")]
        {
            world.hub.sysctl(&format!("net.ipv4.neigh.d0.{name}"), value)?;
        }
        let settings = Settings { ports: vec!["d0", "d1"], ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        // What the hub still sends from its other address leads the site back there, and a packet may find no way while the
        // kernel is asked for the one from the new address.
        until_true("a talks to d1", || {
            let there = sites[0].hub_seen_at()?.starts_with("203.0.113.1:");
            if !there {
                sites[0].set(&["peer", &world.key.public, "endpoint", "203.0.113.1:51820"])?;
            }
            Ok(reaches(&sites[0], &sites[1])? && there)
        })?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let load = Load::start(&sites[0], &sites[1], 1000, PAYLOAD)?;
        let this = Self { world, hub, sites, load };
        this.arrives("before anything happens")?;
        Ok(this)
    }

    fn arrives(&self, when: &str) -> Result<()> {
        let before = self.load.received();
        until_true(&format!("packets arrive {when}"), || Ok(self.load.received() > before + 100))
            .with_context(|| format!("{:?}", self.hub.status().map(|status| status.drops())))
    }

    /// Something breaks: what the hub drops until it is whole again has one of these reasons, the first for certain. Then
    /// packets arrive again, without a word to the hub.
    fn broken(
        &self,
        what: &str,
        by: impl FnOnce() -> Result<()>,
        reasons: &[&str],
        whole: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let before = self.hub.status()?;
        let since = || Ok::<_, anyhow::Error>(self.hub.status()?.drops_since(&before));
        by().with_context(|| what.to_owned())?;
        until_true(&format!("{what}: {} is counted", reasons[0]), || Ok(since()?.get(reasons[0]) > Some(&0)))
            .with_context(|| format!("{:?} of {} sent", since(), self.load.sent()))?;
        whole().with_context(|| what.to_owned())?;
        self.arrives(&format!("after: {what}"))?;
        let drops = since()?;
        ensure!(drops.keys().all(|reason| reasons.contains(&&**reason)), "{what}: {drops:?}");
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.load.hold(true);
        self.hub.balance()?;
        must_ping_both_ways(&self.sites[0], &self.sites[1])
    }

    fn hub_ip(&self, words: &str) -> Result<()> {
        self.world.hub.ip(words)
    }

    fn inet_ip(&self, words: &str) -> Result<()> {
        self.world.inet.ip(words)
    }
}

#[test]
fn under_traffic_links_and_interfaces_come_and_go() -> Result<()> {
    lab::test(|lab| {
        let across = Across::begin(lab)?;
        let (down, world) = (["port_down", "underlay_no_route", "next_hop_unresolved"], &across.world);
        let up = || {
            across.hub_ip("link set d0 up")?;
            restore(world)
        };
        across.broken("d0 is switched off", || across.hub_ip("link set d0 down"), &down, up)?;
        let carrier = || across.inet_ip("link set h0 up");
        across.broken("d0 has no carrier", || across.inet_ip("link set h0 down"), &down, carrier)?;
        let again = || {
            // Its new MAC address is the router's business as well: it learns it by asking.
            make_d0_anew(lab, world)?;
            restore(world)
        };
        across.broken("d0 is deleted and made again", || across.hub_ip("link del d0"), &down, again)?;
        across.end()
    })
}

#[test]
fn under_traffic_routes_and_addresses_come_and_go() -> Result<()> {
    lab::test(|lab| {
        let across = Across::begin(lab)?;
        let gone = ["underlay_no_route", "next_hop_unresolved"];
        let back = || across.hub_ip("route add default via 192.0.2.254 dev d0");
        across.broken("there is no route", || across.hub_ip("route del default"), &gone, back)?;

        // Removed, the address takes the routes that lead through it along.
        let back = || {
            across.hub_ip("addr add 192.0.2.1/24 dev d0")?;
            across.hub_ip("route replace default via 192.0.2.254 dev d0")
        };
        across.broken("the hub's address is removed", || across.hub_ip("addr del 192.0.2.1/24 dev d0"), &gone, back)?;

        // Another way, without a packet that finds none.
        let before = across.hub.status()?;
        for (port, gateway) in [("d1", "203.0.113.254"), ("d0", "192.0.2.254")] {
            across.hub_ip(&format!("route replace default via {gateway} dev {port}"))?;
            let b = &across.sites[1];
            until_true("the hub follows", || Ok(across.hub.status()?.site(b)?["path"]["port"] == port))?;
            across.arrives(&format!("by way of {port}"))?;
        }
        let drops = across.hub.status()?.drops_since(&before);
        ensure!(drops.is_empty(), "while the route moved: {drops:?}");
        across.end()
    })
}

#[test]
fn a_removed_address_is_not_the_hubs_until_it_is_back() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, _sites) = two_sites(lab, vec![])?;
        let attacker = Attacker::new(&world)?;
        let mut unknown = vec![0x5a; 128];
        unknown[..4].copy_from_slice(&[4, 0, 0, 0]);
        let frame = attacker.frame(SocketAddr::from(([198, 51, 100, 7], 4444)), &unknown)?;
        let count = |field: &str| -> Result<u64> { hub.status()?.0["ports"][0][field].as_u64().context("a count") };
        let its = |there: bool| {
            until_true("the hub knows its addresses", || {
                let status = hub.status()?;
                let addresses = status.0["ports"][0]["addresses"].as_array().context("addresses")?;
                Ok(addresses.iter().any(|address| *address == HUB_V4.to_string()) == there)
            })
        };
        for there in [true, false, true] {
            let now = if there { "replace" } else { "del" };
            world.hub.ip(&format!("addr {now} 192.0.2.1/24 dev d0"))?;
            its(there)?;
            let (before, passed) = (hub.status()?, count("xdp_passed")?);
            attacker.repeat(&frame, 10)?;
            if there {
                hub.must_have_dropped(&before, &[("xdp_session_unknown", 10)])?;
            } else {
                until_true("the kernel gets them", || Ok(count("xdp_passed")? >= passed + 10))?;
                hub.must_have_dropped(&before, &[])?;
            }
        }
        Ok(())
    })
}

#[test]
fn under_traffic_a_neighbour_falls_silent_and_another_answers() -> Result<()> {
    lab::test(|lab| {
        let across = Across::begin(lab)?;
        let silent = || across.inet_ip("link set h0 arp off");
        let speaks = || across.inet_ip("link set h0 arp on");
        across.broken("the next hop is silent", silent, &["next_hop_unresolved"], speaks)?;

        // As when a spare router takes over: nothing is dropped by the hub, which sends to the old one until it knows.
        let before = across.hub.status()?;
        across.inet_ip("link set h0 address 02:00:00:00:be:ef")?;
        across.arrives("at the new MAC address")?;
        let drops = across.hub.status()?.drops_since(&before);
        ensure!(drops.is_empty(), "while the neighbour changed: {drops:?}");
        across.end()
    })
}

#[test]
fn under_traffic_the_mtu_is_lowered_and_raised() -> Result<()> {
    lab::test(|lab| {
        let across = Across::begin(lab)?;
        // What does not fit any more is dropped, and its sender told, which then cuts: nothing else is needed.
        across.broken("the MTU is lowered", || across.hub_ip("link set d0 mtu 1280"), &["too_large"], || Ok(()))?;
        let b = &across.sites[1];
        ensure!(across.hub.status()?.site(b)?["path"]["mtu"] == 1280, "{}", across.hub.status()?.site(b)?);
        across.hub_ip("link set d0 mtu 1500")?;
        until_true("the hub follows", || Ok(across.hub.status()?.site(b)?["path"]["mtu"] == 1500))?;
        across.arrives("with the old MTU")?;
        across.end()
    })
}

/// Another pair of interfaces in the place of `d0` and `h0`, with their IPv4 addresses.
fn make_d0_anew(lab: &lab::Lab, world: &World) -> Result<()> {
    lab.wire((&world.hub, "d0"), (&world.inet, "h0"), 1)?;
    world.inet.ip("addr add 192.0.2.254/24 dev h0")?;
    world.inet.ip("addr add 2001:db8::fe/64 dev h0 nodad")?;
    world.hub.ip("addr add 192.0.2.1/24 dev d0")
}

/// What the kernel forgot of `d0` when it went down: its IPv6 address and the routes.
fn restore(world: &World) -> Result<()> {
    world.hub.ip("addr replace 2001:db8::1/64 dev d0 nodad")?;
    world.hub.ip("route replace default via 192.0.2.254 dev d0")?;
    world.hub.ip("-6 route replace default via 2001:db8::fe dev d0")
}
