//! A hostile site, and somebody on the path who keeps and repeats everything: what they try, where it ends, and that it
//! ends nowhere else. Each with what does arrive, in the same run.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use ekiden_testbed::attack::{Attacker, Kind, is_to_hub};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{must_ping, must_ping_both_ways};
use ekiden_testbed::rogue::udp;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Hub, Plan, Rogue, Seen, Site, Status, Tap, World, lab};

/// In every packet that goes where it should not: no tap sees it in clear.
const MARK: &[u8] = b"tasuki of another runner";
/// How often each is sent.
const TIMES: u64 = 5;

/// Networks of site `wide` that no router forwards to, and one that it does.
const WIDE: &[&str] =
    &["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/64", "fe80::/10", "ff00::/8", "198.51.100.0/24"];

/// A hub with all these sites, the first of them a rogue.
fn with_rogue(lab: &mut lab::Lab, plans: Vec<Plan>) -> Result<(World, Hub, Rogue, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
    let settings = Settings { hub_addresses: vec![1001], ..Settings::default() };
    let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
    hub.start()?;
    let mut rogue = Rogue::new(&sites[0])?;
    rogue.connect()?;
    sites[1..].iter_mut().try_for_each(Site::start)?;
    hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
    Ok((world, hub, rogue, sites))
}

fn address(ip: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(ip.parse()?, port))
}

/// Packets sealed for all sites so far.
fn sealed(status: &Status, sites: &[Site]) -> Result<u64> {
    sites.iter().map(|site| status.of_site(site, "tx_packets")).sum()
}

/// What each site sees in its tunnel, and what the hub's kernel sees.
fn taps(world: &World, sites: &[Site]) -> Result<Vec<Tap>> {
    let kernel = [(&world.hub, "lo"), (&world.hub, "d0"), (&world.hub, "d1"), (&world.inet, "h0"), (&world.inet, "h1")];
    let tunnels = sites.iter().map(|site| (site.namespace(), site.interface.as_str()));
    kernel.into_iter().chain(tunnels).map(|(namespace, interface)| Tap::open(namespace, interface)).collect()
}

#[test]
fn what_a_site_may_not_send_goes_nowhere_and_has_its_reason() -> Result<()> {
    lab::test(|lab| {
        let plans = vec![
            Plan::new(1001, "x", 1),
            Plan::new(1001, "b", 2),
            Plan { more_prefixes: WIDE, ..Plan::new(1001, "wide", 4) },
            Plan::new(2002, "b", 2),
            Plan::new(2002, "c", 3),
        ];
        let (world, hub, rogue, sites) = with_rogue(lab, plans)?;
        let taps = taps(&world, &sites[1..])?;
        let (own, friend) = ([sites[0].v4().to_string(), sites[0].v6().to_string()], sites[1].inner());

        // Sources that are not its own: of its neighbour, of another tenant, of the hub, of the underlay, of nobody.
        let sources = "10.9.2.1 10.9.4.1 10.9.3.1 10.9.0.1 192.0.0.8 192.0.2.1 192.0.2.254 203.0.113.1 198.18.1.2 198.18.2.2 \
                       8.8.8.8 fd00:9:2::1 fd00:9:4::1 fd00:9:3::1 fd00:9::1 2001:db8::1 2001:db8::fe 2001:db8:18:1::2 fd00:9:77::1";
        // Destinations that are nobody's in its tenant: another tenant's, the hub's, the underlay's, anybody's.
        let destinations = "10.9.3.1 10.9.0.1 192.0.0.8 192.0.2.1 192.0.2.254 203.0.113.1 198.18.1.2 198.18.2.2 8.8.8.8 \
                            fd00:9:3::1 fd00:9::1 2001:db8::1 2001:db8:0:1::1 2001:db8::fe 2001:db8:18:2::2 fd00:9:77::1";
        // Addresses that no router forwards: site `wide` has them all.
        let martians = "0.0.0.0 0.1.2.3 127.0.0.1 127.9.9.9 169.254.0.1 169.254.169.254 224.0.0.1 224.0.0.251 239.255.255.250 \
                        240.0.0.1 255.255.255.255 :: ::1 ::ffff:10.9.2.1 fe80::1 fe80::2 ff02::1 ff02::2 ff02::fb ff05::1:3 ff0e::1";
        let mut tries: Vec<(Vec<u8>, &str)> = Vec::new();
        let pick = |v6: bool, pair: &[IpAddr; 2]| pair[usize::from(v6)];
        for text in sources.split_whitespace() {
            let from = address(text, 4000)?;
            let to = SocketAddr::new(pick(from.is_ipv6(), &friend), 9);
            tries.push((udp(from, to, MARK)?, "source_not_allowed"));
        }
        for text in destinations.split_whitespace() {
            let to = address(text, HUB_PORT)?;
            let from = address(&own[usize::from(to.is_ipv6())], 4000)?;
            tries.push((udp(from, to, MARK)?, "no_route"));
            // A message that the hub would open, were it to come from outside.
            let nested =
                [&rogue.seal(&udp(from, SocketAddr::new(pick(to.is_ipv6(), &friend), 9), MARK)?)?, MARK].concat();
            tries.push((udp(from, to, &nested)?, "no_route"));
        }
        for text in martians.split_whitespace() {
            let odd = address(text, 4000)?;
            let to = SocketAddr::new(pick(odd.is_ipv6(), &friend), 9);
            let from = address(&own[usize::from(odd.is_ipv6())], 4000)?;
            tries.push((udp(odd, to, MARK)?, "martian"));
            tries.push((udp(from, odd, MARK)?, "martian"));
            tries.push((udp(odd, odd, MARK)?, "martian"));
        }
        let start = hub.status()?;
        // All of one reason at a time: whichever had another would be missing here, and be there.
        for reason in ["source_not_allowed", "no_route", "martian"] {
            let before = hub.status()?;
            let packets: Vec<_> = tries.iter().filter(|(_, why)| *why == reason).map(|(packet, _)| packet).collect();
            for packet in &packets {
                (0..TIMES).try_for_each(|_| rogue.send(&rogue.seal(packet)?))?;
            }
            hub.must_have_dropped(&before, &[(reason, TIMES * packets.len() as u64)])?;
        }
        let after = hub.balance()?;
        ensure!(sealed(&after, &sites)? == sealed(&start, &sites)?, "something was sealed for a site");
        let all = after.drops_since(&start).values().sum::<u64>();
        ensure!(all == TIMES * tries.len() as u64, "{:?}", after.drops_since(&start));
        for (tap, at) in taps.iter().zip(0..) {
            ensure!(tap.count(|seen| seen.contains(MARK))? == 0, "tap {at} saw a packet in clear");
        }
        ensure!(rogue.received()?.is_empty(), "something came back");

        // From its own addresses to its tenant's, the same packets arrive, a sealed message inside or not.
        let before = hub.status()?;
        let nested = [&rogue.seal(&[])?, MARK].concat();
        for (to, tap) in [(friend[0], 5), (friend[1], 5), ("198.51.100.9".parse()?, 6)] {
            let from = address(&own[usize::from(to.is_ipv6())], 4000)?;
            for payload in [MARK, &nested] {
                rogue.send(&rogue.seal(&udp(from, SocketAddr::new(to, HUB_PORT), payload)?)?)?;
                taps[tap].wait_for("packet of its own tenant", |seen| !seen.outgoing && seen.contains(MARK))?;
            }
        }
        // And what was refused in this tenant arrives in the other, from its rightful owner.
        must_ping(&sites[4], sites[3].v4().into())?;
        must_ping(&sites[4], sites[3].v6().into())?;
        hub.must_have_dropped(&before, &[])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn what_was_sent_before_is_never_delivered_again() -> Result<()> {
    lab::test(|lab| {
        let quiet = |name: &str, net| Plan { keepalive: 0, ..Plan::new(1001, name, net) };
        let (world, mut hub, mut rogue, sites) = with_rogue(lab, vec![quiet("x", 1), quiet("b", 2), quiet("c", 3)])?;
        let (b, c) = (&sites[1], &sites[2]);
        let attacker = Attacker::new(&world)?;
        must_ping_both_ways(b, c)?;
        let data = |seen: &Seen| seen.outgoing && is_to_hub(seen, Kind::Data);
        let mut recorded: Vec<Vec<u8>> =
            attacker.wire.drain()?.into_iter().filter(data).map(|seen| seen.bytes).collect();
        // A keepalive of either end may be among them; requests and replies are twelve of each.
        ensure!(recorded.len() >= 24, "{}", recorded.len());
        let taps = [Tap::open(b.namespace(), &b.interface)?, Tap::open(c.namespace(), &c.interface)?];
        let nothing_arrived = |hub: &Hub, sealed_before: u64| -> Result<()> {
            ensure!(sealed(&hub.balance()?, &sites)? == sealed_before, "something was sealed again");
            for tap in &taps {
                ensure!(tap.count(|seen| !seen.outgoing)? == 0, "something arrived again");
            }
            Ok(())
        };
        let count = recorded.len() as u64;
        for order in ["as it was", "backwards"] {
            let before = hub.status()?;
            recorded.iter().try_for_each(|frame| attacker.wire.send(frame))?;
            hub.must_have_dropped(&before, &[("counter_replayed", count)]).map_err(|e| e.context(order))?;
            nothing_arrived(&hub, sealed(&before, &sites)?)?;
            recorded.reverse();
        }

        // After one new session the old one still opens what was on its way; after two it is gone.
        let packet = udp(SocketAddr::new(sites[0].v4().into(), 9), SocketAddr::new(b.v4().into(), 9), MARK)?;
        let own = (0..TIMES).map(|_| rogue.seal(&packet)).collect::<Result<Vec<_>>>()?;
        own.iter().try_for_each(|message| rogue.send(message))?;
        (0..TIMES).try_for_each(|_| taps[0].wait_for("its packets", |seen| seen.contains(MARK)).map(drop))?;
        for (sessions, reason) in [(4, "counter_replayed"), (4, "xdp_session_unknown")] {
            rogue.connect()?;
            until_true("the new session is in use", || Ok(hub.status()?.0["hub"]["sessions"] == sessions))?;
            taps[0].drain()?;
            let before = hub.status()?;
            own.iter().try_for_each(|message| rogue.send(message))?;
            hub.must_have_dropped(&before, &[(reason, TIMES)])?;
            nothing_arrived(&hub, sealed(&before, &sites)?)?;
        }

        // After a restart no old index is known.
        hub.restart()?;
        hub.await_sessions(&[b, c])?;
        taps.iter().try_for_each(|tap| tap.drain().map(drop))?;
        let before = hub.status()?;
        recorded.iter().try_for_each(|frame| attacker.wire.send(frame))?;
        own.iter().try_for_each(|message| rogue.send(message))?;
        hub.must_have_dropped(&before, &[("xdp_session_unknown", count + TIMES)])?;
        nothing_arrived(&hub, sealed(&before, &sites)?)?;
        must_ping_both_ways(b, c)?;
        hub.balance()?;
        Ok(())
    })
}
