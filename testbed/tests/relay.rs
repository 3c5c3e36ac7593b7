//! What the hub does to a packet on its way, and what it refuses, each counted once under its own reason.

use anyhow::{Result, ensure};
use ekiden_testbed::attack::{Attacker, Kind, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping, must_ping_both_ways, ping};
use ekiden_testbed::{Hub, Outside, Plan, Site, Tap, World, iperf_both_ways, lab};

fn two_sites(lab: &mut lab::Lab, settings: &Settings) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
    ];
    let hub = Hub::with_sites(lab, &world, settings, &mut sites)?;
    Ok((world, hub, sites))
}

#[test]
fn a_site_sends_from_its_own_addresses_to_those_of_its_tenant() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = two_sites(lab, &Settings::default())?;
        let (a, b) = (&sites[0], &sites[1]);
        let tap = Tap::open(b.namespace(), &b.interface)?;
        a.namespace().ip(&format!("addr add 10.9.77.1/32 dev {}", a.interface))?;
        a.namespace().ip(&format!("addr add fd00:9:77::1/128 dev {}", a.interface))?;

        let before = hub.status()?;
        for (to, spoofed) in [(b.inner()[0], "10.9.77.1"), (b.inner()[1], "fd00:9:77::1")] {
            let pings = ping(a.namespace(), to, &["-c", "5", "-i", "0.05", "-W", "1", "-I", spoofed])?;
            ensure!(pings.received == 0, "{}", pings.text);
        }
        hub.must_have_dropped(&before, &[("source_not_allowed", 10)])?;

        let before = hub.status()?;
        for (to, own) in [("10.9.99.1", a.inner()[0]), ("fd00:9:99::1", a.inner()[1])] {
            let words = ["-c", "5", "-i", "0.05", "-W", "1", "-I", &own.to_string()];
            let pings = ping(a.namespace(), to.parse()?, &words)?;
            ensure!(pings.received == 0, "{}", pings.text);
        }
        hub.must_have_dropped(&before, &[("no_route", 10)])?;

        ensure!(tap.count(|seen| !seen.outgoing)? == 0, "something arrived");
        // From its own address, it does.
        must_ping(a, b.v4().into())?;
        ensure!(tap.count(|seen| !seen.outgoing)? == 3);
        let status = hub.status()?;
        ensure!(status.0["tenants"][0]["drops"]["no_route"] == 10, "{}", status.0["tenants"][0]);
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_packet_to_its_senders_own_networks_comes_back() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = two_sites(lab, &Settings::default())?;
        let tap = Tap::open(sites[0].namespace(), &sites[0].interface)?;
        let before = hub.status()?.of_site(&sites[0], "tx_packets")?;
        sites[0].speak()?;
        tap.wait_for("packet that came back", |seen| !seen.outgoing && seen.contains(b"hello"))?;
        ensure!(hub.status()?.of_site(&sites[0], "tx_packets")? == before + 1);
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn the_hub_is_a_hop_that_traceroute_sees() -> Result<()> {
    lab::test(|lab| {
        let settings = Settings { hub_addresses: vec![2002], ..Settings::default() };
        let mut world = World::new(lab)?;
        let mut sites = Vec::new();
        for tenant in [1001, 2002] {
            for (name, net) in [("a", 1), ("b", 2)] {
                sites.push(Site::new(lab, &mut world, Plan::new(tenant, name, net))?);
            }
        }
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let before = hub.status()?;
        let cases = [
            (0, "10.9.2.1", Some("192.0.0.8")),
            (0, "fd00:9:2::1", None), // without an address of its own, the hub has none to send ICMPv6 from
            (2, "10.9.2.1", Some("10.9.0.1")),
            (2, "fd00:9:2::1", Some("fd00:9::1")),
        ];
        for (site, to, hop) in cases {
            let a = &sites[site];
            let pings = ping(a.namespace(), to.parse()?, &["-c", "1", "-W", "1", "-t", "1"])?;
            ensure!(pings.received == 0, "{}", pings.text);
            let said = |hop: &str| {
                let mut lines = pings.text.lines();
                lines.any(|line| line.starts_with(&format!("From {hop} ")) && line.to_lowercase().contains("exceeded"))
            };
            ensure!(hop.map_or(!pings.text.contains("From"), said), "{} to {to}: {}", a.label(), pings.text);
            let pings = echo(a.namespace(), to.parse()?, 1, &["-t", "2"])?;
            ensure!(pings.all(), "{}", pings.text);
        }
        hub.must_have_dropped(&before, &[("ttl_expired", 4)])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn what_is_no_packet_of_a_site_is_dropped_and_named() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, &Settings::default())?;
        let (a, b) = (&sites[0], &sites[1]);
        let attacker = Attacker::new(&world)?;
        must_ping_both_ways(a, b)?;
        let copied = attacker.copy(Kind::Data, a.endpoint().ip())?;
        let place = message(&copied).expect("it was recognised").place;
        let tap = Tap::open(b.namespace(), &b.interface)?;
        let stranger = "198.51.100.7:4444".parse()?;

        let before = hub.status()?;
        attacker.repeat(&attacker.frame(stranger, b"GET / HTTP/1.1\r\nHost: hub.example.net\r\n\r\n")?, 7)?;
        hub.must_have_dropped(&before, &[("xdp_not_wireguard", 7)])?;

        let before = hub.status()?;
        let mut guess = copied.clone();
        guess[place.start + 4..place.start + 8].iter_mut().for_each(|byte| *byte ^= 0x5a);
        attacker.repeat(&guess, 7)?;
        hub.must_have_dropped(&before, &[("xdp_session_unknown", 7)])?;

        let before = hub.status()?;
        attacker.repeat(&copied, 7)?;
        hub.must_have_dropped(&before, &[("counter_replayed", 7)])?;

        // A counter that was not used yet, and a tag that is not right for it.
        let before = hub.status()?;
        let mut forged = copied.clone();
        forged[place.start + 10] = 1;
        attacker.repeat(&forged, 7)?;
        hub.must_have_dropped(&before, &[("auth_failed", 7)])?;

        // An initiation for another hub: its MAC1 is not under this one's key.
        let before = hub.status()?;
        let mut initiation = vec![0x11; 148];
        initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
        attacker.repeat(&attacker.frame(stranger, &initiation)?, 7)?;
        hub.must_have_dropped(&before, &[("handshake_mac1", 7)])?;

        ensure!(tap.count(|seen| !seen.outgoing)? == 0, "something arrived");
        must_ping_both_ways(a, b)?;
        ensure!(hub.status()?.site(a)?["endpoint"] == a.endpoint().to_string());
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn an_initiation_works_once() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, mut sites) = two_sites(lab, &Settings::default())?;
        let attacker = Attacker::new(&world)?;
        let tap = Tap::open(&world.inet, "h0")?;
        sites[0].stop()?;
        sites[0].start()?;
        sites[0].speak()?;
        let copied = attacker.copy(Kind::Initiation, sites[0].endpoint().ip())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        tap.drain()?;

        let before = hub.status()?;
        attacker.repeat(&copied, 1)?;
        hub.must_have_dropped(&before, &[("handshake_replayed", 1)])?;
        let answers =
            |seen: &ekiden_testbed::Seen| message(&seen.bytes).is_some_and(|m| m.kind == Kind::Response as u8);
        ensure!(tap.count(answers)? == 0, "a replayed initiation was answered");
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn fragments_of_a_sealed_packet_are_put_together() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_sites(lab, &Settings::default())?;
        let (a, b) = (&sites[0], &sites[1]);
        // What their clients send is more than their ways out take: the senders' kernels cut it.
        a.namespace().ip(&format!("route replace default via {} dev w0 mtu 1300", a.host.address(false, 1)))?;
        b.namespace().ip(&format!("route replace default via {} dev w0 mtu 1300", b.host.address(true, 1)))?;
        let tap = Tap::open(&world.inet, "h0")?;
        let before = hub.status()?;
        for (from, to) in [(a, b.v4().into()), (b, a.v6().into())] {
            let pings = echo(from.namespace(), to, 4, &["-s", "1372"])?;
            ensure!(pings.all(), "{}", pings.text);
        }
        let fragments = |seen: &ekiden_testbed::Seen| {
            let bytes = &seen.bytes;
            let v4 = bytes[12..14] == [8, 0] && (bytes[20] & 0x3f, bytes[21]) != (0, 0);
            seen.outgoing && (v4 || bytes[12..14] == [0x86, 0xdd] && bytes[20] == 44)
        };
        ensure!(tap.count(fragments)? >= 16, "nothing was in fragments");
        hub.must_have_dropped(&before, &[])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn tcp_flows_both_ways_at_full_size() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = two_sites(lab, &Settings::default())?;
        for transfer in iperf_both_ways(&sites[0], &sites[1], 2)? {
            ensure!(transfer.mbits > 1.0, "{transfer:?}");
        }
        let drops = hub.status()?.drops();
        ensure!(drops.keys().all(|reason| reason == "tx_ring_full"), "{drops:?}");
        hub.balance()?;
        Ok(())
    })
}
