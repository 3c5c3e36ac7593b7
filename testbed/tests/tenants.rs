//! Two tenants with the same addresses: what is one's never reaches the other, whatever it tries.

use anyhow::{Result, ensure};
use ekiden_testbed::attack::{Attacker, Kind};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping_both_ways, ping};
use ekiden_testbed::{Hub, Plan, Seen, Site, Tap, World, lab};

/// Tenants 1001 and 2002 with sites `a` and `b` of the same networks; 2002 also has `c`, whose network 1001 lacks.
fn two_tenants(lab: &mut lab::Lab) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = Vec::new();
    for (tenant, name, net) in [(1001, "a", 1), (1001, "b", 2), (2002, "a", 1), (2002, "b", 2), (2002, "c", 3)] {
        sites.push(Site::new(lab, &mut world, Plan::new(tenant, name, net))?);
    }
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    Ok((world, hub, sites))
}

#[test]
fn packets_arrive_in_their_own_tenant_alone() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = two_tenants(lab)?;
        let taps = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;

        // From each site to each address that there is, with a payload of its own, IPv4 and IPv6.
        let mut sent = Vec::new();
        for (from, source) in sites.iter().enumerate() {
            for (version, net) in [(4, 1), (6, 1), (4, 2), (6, 2), (4, 3), (6, 3)] {
                if net == source.plan.net {
                    continue;
                }
                let to = sites.iter().find(|site| site.plan.net == net).expect("a site has this net").inner();
                let to = if version == 4 { to[0] } else { to[1] };
                let mark =
                    format!("{:016x}", 0xec1d_e400_0000_0000 | (from << 16 | version << 8 | net as usize) as u64);
                let own = sites.iter().position(|site| site.plan.tenant == source.plan.tenant && site.plan.net == net);
                let pings = match own {
                    Some(_) => echo(source.namespace(), to, 2, &["-p", &mark])?,
                    None => ping(source.namespace(), to, &["-c", "2", "-i", "0.05", "-W", "1", "-p", &mark])?,
                };
                ensure!(pings.received == if own.is_some() { 2 } else { 0 }, "{}: {}", source.label(), pings.text);
                sent.push((mark, own, from));
            }
        }

        // Every tap sees the requests that are for its site, and no other's. That it would is shown by those that it sees.
        let seen = taps.iter().map(Tap::drain).collect::<Result<Vec<_>>>()?;
        for (mark, own, from) in &sent {
            let bytes: Vec<u8> =
                (0..8).map(|i| u8::from_str_radix(&mark[2 * i..2 * i + 2], 16).expect("hex")).collect();
            for (at, frames) in seen.iter().enumerate() {
                let arrived = frames.iter().filter(|frame| !frame.outgoing && frame.contains(&bytes)).count();
                // Requests at the destination, replies where they came from.
                let expected = if Some(at) == *own || (at == *from && own.is_some()) { 2 } else { 0 };
                let (source, here) = (sites[*from].label(), sites[at].label());
                ensure!(arrived == expected, "{arrived} packets {mark} of {source} at {here}, expected {expected}");
            }
        }
        // Tenant 1001 has no network 3: two sites, two packets of each version of IP.
        let drops = hub.status()?.drops();
        ensure!(drops.get("no_route") == Some(&8) && drops.len() == 1, "{drops:?}");
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_packet_repeated_from_another_tenants_address_goes_nowhere_and_moves_nobody() -> Result<()> {
    lab::test(|lab| {
        let (world, hub, sites) = two_tenants(lab)?;
        let (victim, friend, villain) = (&sites[0], &sites[1], &sites[2]);
        let attacker = Attacker::new(&world)?;
        let taps = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;
        must_ping_both_ways(victim, friend)?;
        let copied = attacker.copy(Kind::Data, victim.endpoint().ip())?;
        let before = hub.status()?;
        for tap in &taps {
            tap.drain()?;
        }

        let forged = attacker.resent_from(&copied, villain.endpoint())?;
        attacker.repeat(&forged, 10)?;
        ekiden_testbed::wait::until_true("the repeated packets are dropped", || {
            Ok(hub.status()?.drops_since(&before).get("counter_replayed") == Some(&10))
        })?;
        let after = hub.status()?;
        ensure!(after.drops_since(&before).len() == 1, "{:?}", after.drops_since(&before));
        for site in [victim, villain] {
            ensure!(after.site(site)?["endpoint"] == site.endpoint().to_string(), "{}", after.site(site)?);
            ensure!(after.of_site(site, "rx_packets")? == before.of_site(site, "rx_packets")?);
        }
        let incoming = |seen: &Seen| !seen.outgoing;
        for (tap, site) in taps.iter().zip(&sites) {
            ensure!(tap.count(incoming)? == 0, "something arrived at {}", site.label());
        }
        // The taps would have seen it, and the victim is none the worse.
        must_ping_both_ways(victim, friend)?;
        ensure!(taps[1].count(incoming)? > 0);
        hub.balance()?;
        Ok(())
    })
}
