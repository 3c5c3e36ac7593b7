//! The books of a running hub: every packet and every chunk is accounted for, with one worker and with several.

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::{Hub, Iperf, Lab, Plan, Site, World, lab};

/// A hub under TCP traffic both ways: looked at while it works, and when it has come to rest.
fn balanced(lab: &mut Lab, queues: u32, cores: &[usize]) -> Result<()> {
    let mut world = World::with_queues(lab, queues)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let settings = Settings { cores: Some(cores.to_vec()), ..Settings::default() };
    let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
    ensure!(hub.status()?.0["workers"].as_array().map(Vec::len) == Some(cores.len()), "not so many workers");
    let before = hub.balance()?.of_site(&sites[0], "rx_packets")?;

    // Each look is of a moment in which thousands of packets a second move.
    let mut looks = 0;
    for (from, to) in [(&sites[0], &sites[1]), (&sites[1], &sites[0])] {
        let transfer = Iperf::start(from, to, to.v4().into(), 2)?;
        while transfer.is_under_way()? {
            let overdrawn = hub.status()?.overdrawn()?;
            ensure!(overdrawn.is_empty(), "more went than came: {overdrawn:#?}");
            looks += 1;
        }
        transfer.finish()?;
    }
    must_ping_both_ways(&sites[0], &sites[1])?;
    let status = hub.balance()?;
    let moved = status.of_site(&sites[0], "rx_packets")? - before;
    ensure!(looks > 10 && moved > 1000, "{looks} looks at {moved} packets: no load to speak of");
    Ok(())
}

#[test]
fn one_worker_on_one_queue() -> Result<()> {
    lab::test(|lab| balanced(lab, 1, &[0]))
}

#[test]
fn one_worker_on_two_queues() -> Result<()> {
    lab::test(|lab| balanced(lab, 2, &[1]))
}

#[test]
fn two_workers_on_one_queue() -> Result<()> {
    lab::test(|lab| balanced(lab, 1, &[0, 1]))
}

#[test]
fn two_workers_on_two_queues() -> Result<()> {
    lab::test(|lab| balanced(lab, 2, &[0, 1]))
}
