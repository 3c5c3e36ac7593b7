//! Hubs and clients that end and start again.

use anyhow::{Result, ensure};
use ekiden_testbed::attack::{Kind, is_to_hub, is_tunnel, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Outside, Plan, Process, Seen, Site, Tap, World, lab};

fn two_sites(lab: &mut lab::Lab, keepalive: u16) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan { keepalive, ..Plan::new(1001, "a", 1) })?,
        Site::new(lab, &mut world, Plan { keepalive, outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
    ];
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    Ok((world, hub, sites))
}

#[test]
fn a_hub_that_starts_again_calls_its_sites() -> Result<()> {
    lab::test(|lab| {
        // Sites that say nothing of themselves, and that the hub's configuration has no endpoint of.
        let (world, mut hub, sites) = two_sites(lab, 0)?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.stop()?;
        let tap = Tap::open(&world.inet, "h0")?;
        hub.start()?;
        for site in &sites {
            until_true(&format!("{} comes back", site.label()), || Ok(hub.status()?.site(site)?["session"] == "live"))?;
        }
        let initiations = |to_hub: bool, seen: &Seen| {
            is_to_hub(seen, Kind::Initiation) == to_hub
                && message(&seen.bytes).is_some_and(|message| message.kind == Kind::Initiation as u8)
        };
        let seen = tap.drain()?;
        ensure!(seen.iter().filter(|seen| initiations(true, seen)).count() == 0, "the sites called");
        ensure!(seen.iter().filter(|seen| initiations(false, seen)).count() >= 2, "the hub did not call");
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_client_that_starts_again_is_heard_at_once() -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, mut sites) = two_sites(lab, 25)?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        for round in 1..=2 {
            sites[0].stop()?;
            sites[0].start()?;
            // The first request is held while the handshake runs, and none is lost.
            must_ping_both_ways(&sites[0], &sites[1])?;
            ensure!(hub.status()?.drops().is_empty(), "round {round}: {:?}", hub.status()?.drops());
        }
        hub.balance()?;
        Ok(())
    })
}

/// A stream of sealed packets towards the hub, whatever becomes of them.
fn stream(lab: &lab::Lab, from: &Site, to: &Site) -> Result<Process> {
    let address = to.v4().to_string();
    Process::start(lab.directory(), from.namespace(), "stream", &["ping", "-q", "-n", "-i", "0.005", &address], &[])
}

#[test]
fn no_tunnel_frame_reaches_the_kernel_when_the_hub_dies_or_starts_again() -> Result<()> {
    lab::test(|lab| {
        let (world, mut hub, sites) = two_sites(lab, 25)?;
        let kernel = Tap::open(&world.hub, "d0")?;
        let wire = Tap::open(&world.inet, "h0")?;
        let stream = stream(lab, &sites[0], &sites[1])?;
        let data = |seen: &Seen| seen.outgoing && is_to_hub(seen, Kind::Data);
        let pass = |count: usize| -> Result<()> {
            (0..count).try_for_each(|_| wire.wait_for("sealed packet to the hub", data).map(drop))
        };
        // What the kernel received of the tunnels; what the hub sends, it sees as well.
        let leaked = || kernel.count(|seen| !seen.outgoing && is_tunnel(seen));

        pass(50)?;
        ensure!(leaked()? == 0, "frames reach the kernel beside a live hub");
        for round in 1..=3 {
            hub.kill()?;
            wire.drain()?;
            pass(50)?;
            ensure!(leaked()? == 0, "round {round}: frames reach the kernel once the hub is dead");
            hub.start()?;
            pass(50)?;
            ensure!(leaked()? == 0, "round {round}: frames reach the kernel while a hub takes over");
        }
        ensure!(hub.process()?.log().contains("taken over"), "the pinned program was not taken over");
        until_true("the site is back", || Ok(hub.status()?.site(&sites[0])?["session"] == "live"))?;
        hub.stop()?;
        wire.drain()?;
        pass(50)?;
        ensure!(leaked()? == 0, "frames reach the kernel after an ordinary end");

        // That the tap would have seen them: once detached, they come.
        ensure!(hub.detach()?.contains("d0"));
        wire.drain()?;
        pass(50)?;
        ensure!(leaked()? >= 40, "detached, the port should be the kernel's");
        drop(stream);
        Ok(())
    })
}
