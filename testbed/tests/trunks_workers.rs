//! Trunks between hubs with several workers: at one hub each has a queue of its own, at the other both share one, and XDP spreads lanes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::backbone::Backbone;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Load, lab};

const TENANTS: [u32; 2] = [1001, 2002];
/// By two queues that are chosen by ports: that all of so many lanes have the same one is less likely than one in thirty thousand.
const LANES: usize = 16;

/// Frames that each worker has received.
fn frames(hub: &Hub) -> Result<[u64; 2]> {
    let status = hub.status()?;
    let of = |worker: usize| status.0["workers"][worker]["frames"].as_u64().context("a worker's frames");
    Ok([of(0)?, of(1)?])
}

/// Two tenants with the same addresses, both directions, rekeys meanwhile: nothing is lost or put out of order, and lanes are both workers'.
#[test]
fn lanes_are_carried_by_all_workers_in_order_and_without_loss() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::with_queues(lab, 2, 2)?;
        backbone.sites_everywhere(lab, &TENANTS)?;
        backbone.mesh(&TENANTS, &format!("tenants = \"all\"\nlanes = {LANES}\nprobe_interval_ms = 1000\n"));
        backbone.settings.iter_mut().for_each(|settings| settings.cores = Some(vec![0, 1]));
        backbone.start(lab)?;
        let kinds = backbone.hubs.iter().map(|hub| {
            let port = &hub.status()?.0["ports"][0];
            Ok((port["queues"].as_u64(), port["sockets"].as_u64()))
        });
        let kinds = kinds.collect::<Result<Vec<_>>>()?;
        ensure!(kinds[0].0 == Some(2) && kinds[1] == (Some(1), Some(2)), "queues, and sockets at each: {kinds:?}");

        let mut directions = Vec::new();
        for (from, to, first) in [(0, 1, 9500), (1, 0, 9600)] {
            let mut loads = Vec::new();
            for flow in 0..12 {
                let tenant = TENANTS[flow % 2];
                let (from, to) = (backbone.the_site(tenant, from)?, backbone.the_site(tenant, to)?);
                loads.push(Load::with_port(from, to, first + flow as u16, 120, 200)?);
            }
            // This direction alone: what the other hub gets comes by lanes, and the sites there have nothing to say.
            let had = frames(&backbone.hubs[to])?;
            Load::must_flow(&loads, 50)?;
            Load::lost(&loads)?;
            let got = frames(&backbone.hubs[to])?;
            ensure!((0..2).all(|w| got[w] - had[w] > 100), "hub {}: {had:?}, then {got:?}", to + 1);
            directions.extend(loads);
        }
        let (before, excused) = (Load::lost(&directions)?, backbone.without_room()?);
        Load::must_flow(&directions, 20)?;
        for (hub, other) in backbone.hubs.iter().zip(["hub2", "hub1"]) {
            for lane in (0..LANES).step_by(3) {
                let path = format!("/v1/trunks/{other}/{lane}/handshake");
                until_true("a handshake begins", || Ok(hub.change(&path)?.contains(" 202 ")))?;
                std::thread::sleep(Duration::from_millis(20)); // an initiation in 20 ms is all that the other hub listens to
            }
            Load::must_flow(&directions, 40)?;
        }
        let lost: Vec<u64> = Load::lost(&directions)?.iter().zip(before).map(|(now, before)| now - before).collect();
        let excused = backbone.without_room()? - excused;
        ensure!(lost.iter().sum::<u64>() <= excused, "lost of each flow: {lost:?}, {excused} by sites");
        let late: Vec<u64> = directions.iter().map(Load::late).collect();
        ensure!(late.iter().all(|late| *late == 0), "late of each flow: {late:?}");
        drop(directions);
        backbone.must_agree()?;
        backbone.balance()
    })
}
