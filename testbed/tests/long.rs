//! What takes minutes of real time: `make test-long`.

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::{Client, Hub, Outside, Plan, Process, Site, World, lab};
use std::time::Duration;

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
