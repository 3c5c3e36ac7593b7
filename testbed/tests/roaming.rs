//! Sites that move while they send.

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Iperf, Outside, Plan, Site, World, lab};

#[test]
fn a_sender_moves_in_the_middle_of_a_transfer() -> Result<()> {
    moves_in_the_middle(Outside::V4, 0)
}

#[test]
fn a_receiver_moves_in_the_middle_of_a_transfer() -> Result<()> {
    moves_in_the_middle(Outside::V6, 1)
}

fn moves_in_the_middle(outside: Outside, mover: usize) -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan { outside, ..Plan::new(1001, "a", 1) })?,
            Site::new(lab, &mut world, Plan { outside, ..Plan::new(1001, "b", 2) })?,
        ];
        let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let received = || hub.status()?.of_site(&sites[0], "rx_packets");
        let start = received()?;
        let transfer = Iperf::start(&sites[0], &sites[1], sites[1].v4().into(), 6)?;
        until_true("the transfer is under way", || Ok(received()? > start + 2000))?;

        let endpoint = sites[mover].move_to(7, 40404)?;
        // Whoever only receives must say something, as its keepalive would before long.
        sites[mover].speak()?;
        until_true("the hub follows", || Ok(hub.status()?.site(&sites[mover])?["endpoint"] == endpoint.to_string()))?;
        let at_move = received()?;
        until_true("the transfer goes on", || Ok(received()? > at_move + 2000))?;

        let transfer = transfer.finish()?;
        ensure!(transfer.seconds.last().is_some_and(|bytes| *bytes > 0), "{transfer:?}");
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}
