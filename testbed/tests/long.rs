//! What takes minutes of real time: `make test-long`.

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Client, Hub, Outside, Plan, Process, Site, World, lab};
use std::time::{Duration, Instant};

mod memory;

/// Seconds: longer than Rekey-After-Time (120 s), so that every session is replaced under load.
const TIME: u64 = 150;

#[test]
fn sessions_are_replaced_and_no_packet_is_lost() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "reference", 1))?];
        for (client, outside) in Client::ALL.into_iter().zip([Outside::V6, Outside::V4, Outside::V6]) {
            let plan = Plan { client, outside, ..Plan::new(1001, client.name(), sites.len() as u8 + 1) };
            sites.push(Site::new(lab, &mut world, plan)?);
        }
        let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let (reference, others) = sites.split_first().expect("there is the reference");
        others.iter().try_for_each(|site| must_ping_both_ways(reference, site))?;

        let mut streams = Vec::new();
        for site in others {
            let (count, address) = ((TIME * 20).to_string(), site.v4().to_string());
            let words = ["ping", "-q", "-n", "-i", "0.05", "-W", "5", "-c", &count, &address];
            let name = format!("stream-{}", site.plan.name);
            streams.push((site, Process::start(lab.directory(), reference.namespace(), &name, &words, &[])?));
        }
        for (site, stream) in &mut streams {
            stream.end(Duration::from_secs(2 * TIME))?;
            let summary = stream.log();
            ensure!(summary.contains(" 0% packet loss"), "{}: {summary}", site.label());
            // rtt min/avg/max/mdev = 0.1/0.2/0.3/0.4 ms. A packet that waited for a handshake that was lost took 5 s.
            let longest =
                summary.lines().find_map(|line| line.strip_prefix("rtt ")?.split('/').nth(5)?.parse::<f64>().ok());
            ensure!(longest.is_some_and(|ms| ms < 4000.0), "{}: {summary}", site.label());
            eprintln!("{}: {}", site.label(), summary.lines().last().unwrap_or_default());
        }
        for site in &sites {
            let age = hub.status()?.of_site(site, "last_handshake_s_ago")?;
            ensure!(age < 120, "{}: its session is still the first, {age} s old", site.label());
        }
        let drops = hub.status()?.drops();
        ensure!(drops.is_empty(), "{drops:?}");
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn the_keys_of_a_site_that_went_silent_are_gone_when_its_session_ends() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let site = Site::new(lab, &mut world, Plan::new(1001, "a", 1))?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &[&site])?;
        hub.start()?;
        let pid = hub.process()?.pid();
        let born = Instant::now();
        let keys = memory::Client::of(&site, &world)?.session()?;
        let sightings = || Ok::<usize, anyhow::Error>(memory::sightings(pid, &[keys])?[0]);
        until_true("the hub has the session's keys", || Ok(sightings()? >= 4))?;
        // Reject-After-Time, in which nothing happens.
        std::thread::sleep(Duration::from_secs(178).saturating_sub(born.elapsed()));
        ensure!(sightings()? >= 4, "they were gone before their time");
        until_true("the keys are gone", || {
            let (age, seen) = (born.elapsed(), sightings()?);
            ensure!(seen == 0 || age < Duration::from_secs(181), "{seen} halves are there after {age:?}");
            Ok(seen == 0)
        })?;
        hub.balance()?;
        Ok(())
    })
}
