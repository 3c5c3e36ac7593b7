//! What a tenant has been sold and what it wants itself: rates, filters, and packets that fit whatever the path is like.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping_both_ways};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Load, Outside, Plan, Site, World, iperf_both_ways, lab};

fn two_sites(lab: &mut lab::Lab, settings: &Settings, plans: [Plan; 2]) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let [a, b] = plans;
    let mut sites = vec![Site::new(lab, &mut world, a)?, Site::new(lab, &mut world, b)?];
    let hub = Hub::with_sites(lab, &world, settings, &mut sites)?;
    Ok((world, hub, sites))
}

/// Whether a connection from one site to a port of the other can be opened.
fn connects(from: &Site, to: SocketAddr) -> Result<bool> {
    Ok(from.namespace().inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)))?.is_ok())
}

const FILTER: &str = r#"
[[tenant.filter]]
name = "no telnet"
action = "deny"
to = ["10.9.2.0/24", "fd00:9:2::/64"]
protocol = "tcp"
ports = "23"

[[tenant.filter]]
name = "nobody calls a"
action = "deny"
to = ["10.9.1.0/24", "fd00:9:1::/64"]
protocol = "tcp"
flags = "syn, !ack"
"#;

#[test]
fn a_filter_stops_what_it_names_and_counts_it() -> Result<()> {
    lab::test(|lab| {
        let settings = Settings { contracts: vec![(1001, FILTER)], ..Settings::default() };
        let plans = [Plan::new(1001, "a", 1), Plan::new(1001, "b", 2)];
        let (_world, hub, sites) = two_sites(lab, &settings, plans)?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        let [v4, v6] = b.inner();
        let listen = |site: &Site, to: SocketAddr| -> Result<TcpListener> {
            Ok(site.namespace().inside(|| TcpListener::bind(to))??)
        };
        let _open = [listen(b, (v4, 23).into())?, listen(b, (v6, 23).into())?, listen(b, (v4, 80).into())?];
        let _of_a = listen(a, (a.v4(), 80).into())?;
        let before = hub.status()?;
        ensure!(connects(a, (v4, 80).into())?, "what no rule names");
        ensure!(!connects(a, (v4, 23).into())? && !connects(a, (v6, 23).into())?, "telnet");
        ensure!(!connects(b, (a.v4(), 80).into())?, "b calls a");
        let drops = hub.balance()?.drops_since(&before);
        let denied = drops.get("filter_denied").copied().unwrap_or(0);
        ensure!(drops.len() == 1 && denied >= 3, "{drops:?}");
        let status = hub.status()?;
        let rules = status.0["tenants"][0]["filter"].as_array().context("rules")?;
        let of = |name: &str| -> Result<(String, u64)> {
            let rule = rules.iter().find(|rule| rule["name"] == name).context("the rule")?;
            Ok((rule["action"].as_str().unwrap_or_default().into(), rule["packets"].as_u64().context("packets")?))
        };
        let (telnet, calls, rest) = (of("no telnet")?, of("nobody calls a")?, of("default")?);
        ensure!(telnet.0 == "deny" && telnet.1 >= 2 && calls.1 >= 1, "{rules:?}");
        ensure!(telnet.1 + calls.1 == denied && rest.0 == "allow" && rest.1 > 0, "{rules:?}, {drops:?}");
        let text = String::from_utf8(
            hub.ekiden(&["status", "--run-dir", &hub.places()[0].display().to_string(), "--tenant", "1001"])?.stdout,
        )?;
        ensure!(text.contains("no telnet") && text.contains("nobody calls a"), "{text}");
        Ok(())
    })
}

#[test]
fn a_site_sends_and_receives_what_it_was_sold() -> Result<()> {
    lab::test(|lab| {
        let plans = [
            Plan { contract: "rate = { up = \"8 Mbit/s\" }\n", ..Plan::new(1001, "a", 1) },
            Plan { contract: "rate = { down = \"40 Mbit/s\" }\n", ..Plan::new(1001, "b", 2) },
        ];
        let (_world, hub, sites) = two_sites(lab, &Settings::default(), plans)?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        let before = hub.status()?;
        // 1,028 bytes inside, at four times the rate: whoever is late sends more at once, and the mean stays.
        let load = Load::start(a, b, 4000, 1000)?;
        until_true("the first burst is used up", || {
            Ok(hub.status()?.drops_since(&before).contains_key("rate_site_up"))
        })?;
        let (from, start, sent) = (hub.status()?.of_site(b, "tx_bytes")?, Instant::now(), load.sent());
        until_true("some seconds of it", || Ok(start.elapsed() > Duration::from_secs(6)))?;
        let (passed, took) = (hub.status()?.of_site(b, "tx_bytes")? - from, start.elapsed());
        let offered = (load.sent() - sent) as f64 * 1028.0;
        drop(load);
        let whole = took.as_secs_f64() * 1e6;
        eprintln!("{passed} bytes of {offered} in {took:?}");
        // The clocks of this test and of the hub begin and end at different moments.
        ensure!(passed as f64 <= whole * 1.05 + 50_000.0, "{passed} bytes in {took:?}");
        ensure!(passed as f64 >= whole.min(offered) * 0.9, "{passed} bytes of {offered} in {took:?}");
        let status = hub.balance()?;
        let drops = status.drops_since(&before);
        ensure!(drops.keys().eq(["rate_site_up"]), "{drops:?}");
        ensure!(status.of_site(a, "rx_over_rate")? == drops["rate_site_up"], "{drops:?}");
        // The other way nothing holds it, and b is not held at all.
        let over = |site| status.of_site(site, "tx_over_rate");
        ensure!(over(a)? == 0 && over(b)? == 0);
        Ok(())
    })
}

/// Nobody says that a packet is too large.
fn silence_icmp(world: &World) -> Result<()> {
    world.inet.ip("rule add pref 10 ipproto icmp blackhole")?;
    world.inet.ip("-6 rule add pref 10 ipproto ipv6-icmp blackhole")
}

/// A link in the middle that carries less than the ends believe, and whose router keeps silent. The operator knows, and says so.
fn transfers_complete(mtu: u16, contract: &'static str) -> Result<()> {
    lab::test(|lab| {
        let plans = [
            Plan { contract, ..Plan::new(1001, "a", 1) },
            Plan { contract, outside: Outside::V6, ..Plan::new(1001, "b", 2) },
        ];
        let (world, hub, sites) = two_sites(lab, &Settings::default(), plans)?;
        let (a, b) = (&sites[0], &sites[1]);
        for site in &sites {
            world.inet.ip(&format!("link set {} mtu {mtu}", site.host.uplink))?;
        }
        silence_icmp(&world)?;
        must_ping_both_ways(a, b)?;
        // Not even in fragments does a full packet of b's client pass: its way is IPv6.
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.mbits > 0.5, "{transfer:?}");
        }
        let drops = hub.balance()?.drops();
        let expected = ["too_large", "tx_ring_full"];
        ensure!(drops.keys().all(|reason| expected.contains(&&**reason)), "{drops:?}");
        Ok(())
    })
}

#[test]
fn transfers_complete_over_1280_without_icmp() -> Result<()> {
    transfers_complete(1280, "mtu = 1200\n")
}

#[test]
fn transfers_complete_over_1454_without_icmp() -> Result<()> {
    transfers_complete(1454, "mtu = 1374\n")
}

#[test]
fn what_may_be_cut_arrives_and_who_forbids_it_is_told() -> Result<()> {
    lab::test(|lab| {
        let settings = Settings { hub_addresses: vec![1001], ..Settings::default() };
        let plans = [Plan::new(1001, "a", 1), Plan { contract: "mtu = 1000\n", ..Plan::new(1001, "b", 2) }];
        let (_world, hub, sites) = two_sites(lab, &settings, plans)?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        let before = hub.balance()?;
        let pings = echo(a.namespace(), b.v4().into(), 5, &["-s", "1300", "-M", "dont"])?;
        ensure!(pings.all(), "{}", pings.text);
        let after = hub.balance()?;
        let generated = |status: &ekiden_testbed::Status| status.0["workers"][0]["generated"].as_u64().unwrap_or(0);
        ensure!(generated(&after) >= generated(&before) + 5, "a second fragment of each");
        ensure!(after.drops_since(&before).is_empty(), "{:?}", after.drops_since(&before));
        let pings = echo(a.namespace(), b.v4().into(), 1, &["-s", "1300", "-M", "do"])?;
        ensure!(pings.text.contains("From 10.9.0.1") && pings.text.contains("mtu = 1000"), "{}", pings.text);
        hub.must_have_dropped(&after, &[("too_large", 1)])?;
        ensure!(hub.status()?.site(b)?["path"]["inner_mtu"] == 1000);
        Ok(())
    })
}

#[test]
fn a_port_whose_frames_fit_no_chunk_is_refused_with_what_would_be_right() -> Result<()> {
    lab::test(|lab| {
        let world = World::new(lab)?;
        for (namespace, interface) in [(&world.hub, "d0"), (&world.inet, "h0")] {
            namespace.ip(&format!("link set {interface} mtu 20000"))?;
        }
        let mut hub = Hub::new(lab, &world, &Settings::default(), &[])?;
        hub.spawn()?;
        let status = hub.process()?.end(Duration::from_secs(60))?;
        let log = hub.process()?.log();
        ensure!(!status.success(), "{log}");
        ensure!(log.contains("port d0 has an MTU of 20000") && log.contains("16074 or less"), "{log}");
        Ok(())
    })
}
