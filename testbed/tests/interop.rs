//! Every client, with and without a preshared key, over IPv4 and IPv6, called by the hub or calling it: one hub that knows
//! them all, and a site of each kind.

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{must_ping_both_ways, ping};
use ekiden_testbed::world::write_secret;
use ekiden_testbed::{Client, First, Hub, Outside, Plan, Site, World, lab, wait};

#[test]
fn wireguard_go() -> Result<()> {
    every_way_with(Client::WireguardGo)
}

#[test]
fn boringtun() -> Result<()> {
    every_way_with(Client::Boringtun)
}

#[test]
fn gotatun() -> Result<()> {
    every_way_with(Client::Gotatun)
}

fn every_way_with(client: Client) -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let reference = Site::new(lab, &mut world, Plan::new(1001, "reference", 1))?;
        let mut sites = vec![reference];
        for first in [First::Hub, First::Site] {
            for outside in [Outside::V4, Outside::V6] {
                for psk in [false, true] {
                    let name = format!("{first:?}-{outside:?}-{}", if psk { "psk" } else { "plain" });
                    let net = sites.len() as u8 + 1;
                    let plan = Plan { client, first, outside, psk, ..Plan::new(1001, &name, net) };
                    sites.push(Site::new(lab, &mut world, plan)?);
                }
            }
        }
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        // Those that wait to be called are there when the hub begins to call.
        sites.iter_mut().filter(|site| site.plan.first == First::Hub).try_for_each(Site::start)?;
        hub.start()?;
        sites.iter_mut().filter(|site| site.plan.first == First::Site).try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;

        let (reference, others) = sites.split_first().expect("there is the reference");
        for site in others {
            must_ping_both_ways(reference, site)?;
            let status = hub.status()?;
            ensure!(status.site(site)?["endpoint"] == site.endpoint().to_string(), "{:?}", status.site(site)?);
            ensure!(site.hub_seen_at()? == site.hub_endpoint().to_string(), "{}", site.label());
        }
        // The hub sent nothing that a client refused, and refused nothing itself.
        ensure!(hub.status()?.drops().is_empty(), "{:?}", hub.status()?.drops());
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_site_with_another_preshared_key_gets_no_session() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let plans = [Plan { psk: true, ..Plan::new(1001, "a", 1) }, Plan::new(1001, "b", 2)];
        let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;

        let (a, b) = (&sites[0], &sites[1]);
        let other = lab.directory().join("other.psk");
        write_secret(&other, &ekiden_testbed::world::wg("genpsk", "")?)?;
        let path = other.display().to_string();
        a.set(&["peer", &world.key.public, "preshared-key", &path])?;
        hub.restart()?;
        // The hub opens the site's initiation, which the preshared key has no part in, and answers; the site can't open
        // the answer, and never sends a packet under it.
        let before = a.last_handshake()?;
        let pings = ping(a.namespace(), b.v4().into(), &["-c", "2", "-i", "0.2", "-W", "1"])?;
        ensure!(pings.received == 0, "{}", pings.text);
        ensure!(hub.status()?.site(a)?["session"] != "live", "{}", hub.status()?.site(a)?);
        ensure!(a.last_handshake()? == before);
        wait::until_true("the other site comes back", || Ok(hub.status()?.site(b)?["session"] == "live"))
    })
}
