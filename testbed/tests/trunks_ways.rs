//! Ways between hubs that are odd, not dead: slow in one lane, open in one direction, or coming and going. What goes by trunks keeps its order,
//! takes no way that leads nowhere, and is not thrown about.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::backbone::Backbone;
use ekiden_testbed::impair::{Impairment, Trouble};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Hub, Load, Status, lab};

/// A number that a hub tells of a lane of its first trunk.
fn of_lane(status: &Status, lane: usize, what: &str) -> Result<u64> {
    status.0["trunks"][0]["lanes"][lane][what].as_u64().with_context(|| format!("{what} of lane {lane}"))
}

/// Flows between two sites, every other one back; their ports say by which lanes they go.
fn flows(backbone: &Backbone, count: u16, rate: u32) -> Result<Vec<Load>> {
    let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
    let with = |flow| if flow % 2 == 0 { (a, b, flow) } else { (b, a, flow) };
    (0..count).map(with).map(|(from, to, flow)| Load::with_port(from, to, 9400 + flow, rate, 200)).collect()
}

/// What was lost of each flow since an earlier count.
fn lost_since(loads: &[Load], before: &[u64]) -> Result<Vec<u64>> {
    Ok(Load::lost(loads)?.iter().zip(before).map(|(now, before)| now - before).collect())
}

/// One lane takes 20 ms more than the others, so that packets which change lanes overtake each other: no flow's do.
#[test]
fn a_slow_lane_puts_no_flow_out_of_order() -> Result<()> {
    const SLOW: usize = 2;
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        let way = Impairment::before_hub(lab, &backbone.worlds[1])?;
        backbone.sites_everywhere(lab, &[1001])?;
        // A lane that goes down on a busy machine gives its flows to others: they take their time here.
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 4\nprobe_interval_ms = 1000\n");
        backbone.start(lab)?;
        let mut loads = flows(&backbone, 16, 200)?;
        // Two that their sites cut: pieces have no ports.
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        loads.push(Load::with_port(a, b, 9480, 100, 2000)?);
        loads.push(Load::with_port(b, a, 9481, 100, 2000)?);
        Load::must_flow(&loads, 10)?;
        Load::lost(&loads)?;
        let late = |loads: &[Load]| -> Vec<u64> { loads.iter().map(Load::late).collect() };
        ensure!(late(&loads).iter().all(|late| *late == 0), "before anything is slow: {:?}", late(&loads));

        way.set(Trouble { delay: Duration::from_millis(20), port: Some(HUB_PORT + SLOW as u16), ..Trouble::default() });
        for hub in &backbone.hubs {
            until_true("the lane is slow", || Ok(of_lane(&hub.status()?, SLOW, "rtt_us")? > 10_000))?;
        }
        let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        Load::must_flow(&loads, 200)?;
        let lost = Load::lost(&loads)?;
        for hub in &backbone.hubs {
            for lane in 0..4 {
                ensure!(of_lane(&hub.status()?, lane, "changes")? <= 1, "lane {lane} went down");
            }
        }
        ensure!(late(&loads).iter().all(|late| *late == 0), "late of each flow: {:?}", late(&loads));
        ensure!(lost.iter().sum::<u64>() <= backbone.without_room()?, "lost of each flow: {lost:?}");
        // Both directions went by the slow lane and by others: probes are some ten of these.
        for (hub, before) in backbone.hubs.iter().zip(&before) {
            let after = hub.balance()?;
            let sent =
                (0..4).map(|lane| Ok(of_lane(&after, lane, "tx_packets")? - of_lane(before, lane, "tx_packets")?));
            let sent = sent.collect::<Result<Vec<_>>>()?;
            ensure!(
                sent[SLOW] > 150 && sent.iter().filter(|sent| **sent > 150).count() >= 2,
                "sent by each lane: {sent:?}"
            );
        }
        drop(loads);
        backbone.must_agree()
    })
}

/// What one hub sends by a lane is swallowed, and what it gets arrives: both leave that lane, though one of them hears the other's probes.
#[test]
fn a_lane_that_is_open_one_way_is_used_by_neither() -> Result<()> {
    const RATE: u32 = 80;
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.sites_everywhere(lab, &[1001])?;
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 4\n");
        backbone.start(lab)?;
        let loads = flows(&backbone, 24, RATE)?;
        Load::must_flow(&loads, 16)?;
        let port = Some(HUB_PORT + 2);
        for (from, to) in [(0, 1), (1, 0)] {
            let (before, excused) = (Load::lost(&loads)?, backbone.without_room()?);
            Load::must_flow(&loads, 8)?;
            backbone.cut_one_way(from, to, port)?;
            for hub in &backbone.hubs {
                until_true("the lane is down, and the others are up", || {
                    Ok(hub.status()?.lanes()?.iter().all(|(name, up)| *up != name.ends_with("/2")))
                })?;
            }
            Load::must_flow(&loads, 24)?;
            let lost = lost_since(&loads, &before)?;
            eprintln!("from hub {} to hub {} swallowed: lost {lost:?} of {RATE} a second", from + 1, to + 1);
            ensure!(lost.iter().all(|lost| *lost < RATE.into()), "of {RATE} a second, lost of each flow: {lost:?}");
            let directions = [0, 1].map(|way| lost.iter().skip(way).step_by(2).sum::<u64>());
            ensure!(directions[from] > 0, "no flow went by the lane: {lost:?}");
            ensure!(
                directions[to] <= backbone.without_room()? - excused,
                "the other direction was open, and lost some: {lost:?}"
            );
            // Neither sends a tenant's packet there any more.
            let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
            Load::must_flow(&loads, 40)?;
            for (hub, before) in backbone.hubs.iter().zip(&before) {
                let now = hub.status()?;
                let sent = |lane| {
                    Ok::<_, anyhow::Error>(of_lane(&now, lane, "tx_packets")? - of_lane(before, lane, "tx_packets")?)
                };
                ensure!(sent(2)? < 20 && sent(0)? > 40, "lane 2 has sent {}, lane 0 {}", sent(2)?, sent(0)?);
            }
            backbone.heal_one_way(from, to, port)?;
            backbone.await_trunks()?;
        }
        drop(loads);
        backbone.balance()
    })
}

/// A trunk that comes and goes is left once. It is gone back to when it has been good for as long as is said, and costs nothing then.
#[test]
fn a_trunk_that_flaps_is_left_once_and_gone_back_to_when_it_is_quiet() -> Result<()> {
    const RATE: u32 = 400;
    const PREFIXES: [&str; 2] = ["10.9.2.0/24", "10.9.1.0/24"];
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        for hub in [0, 1] {
            let plan = ekiden_testbed::Plan::new(1001, &format!("s{}", hub + 1), hub as u8 + 1);
            backbone.site(lab, hub, plan)?;
        }
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 2\n");
        backbone.settings[2].trunks.iter_mut().for_each(|trunk| trunk.push_str("transit = true\n"));
        backbone.lead(1001, 0, 1, 2, 200);
        backbone.lead(1001, 1, 0, 2, 200);
        backbone.start(lab)?;
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let via = |hub: usize| -> Result<String> {
            let status = backbone.hubs[hub].status()?;
            let paths = status.0["tenants"][0]["paths"].as_array().context("paths")?;
            let path = paths.iter().find(|path| path["prefix"] == PREFIXES[hub]).context("the other's prefix")?;
            Ok(path["via"].as_str().context("via")?.to_owned())
        };
        let vias = |wanted: [&str; 2]| until_true(&format!("{wanted:?} are used"), || Ok([via(0)?, via(1)?] == wanted));
        let (own, other) = (["trunk:hub2", "trunk:hub1"], ["trunk:hub3", "trunk:hub3"]);
        vias(own)?;
        let loads = [Load::start(a, b, RATE, 200)?, Load::start(b, a, RATE, 200)?];
        Load::must_flow(&loads, 100)?;
        backbone.cut(0, 1, None)?;
        vias(other)?;
        Load::must_flow(&loads, 100)?;

        // For 0.7 s it is good, where 1 s is asked for and then 2 s; for 1 s it is not, which takes 0.9 s to be known.
        let (before, excused) = (Load::lost(&loads)?, backbone.without_room()?);
        loads.iter().for_each(|load| load.hold(false));
        let mut back = 0;
        for hold in [1, 2] {
            backbone.heal(0, 1, None)?;
            let healed = Instant::now();
            let mut seen = Vec::new();
            while healed.elapsed() < Duration::from_millis(700) {
                seen.push([via(0)?, via(1)?]);
            }
            backbone.cut(0, 1, None)?;
            // On a busy machine it may have been good for longer: then it was right to go back, and costs a failover each time.
            back += u64::from(healed.elapsed() > Duration::from_millis(hold * 1000));
            let cut = Instant::now();
            while cut.elapsed() < Duration::from_secs(1) {
                seen.push([via(0)?, via(1)?]);
            }
            ensure!(back > 0 || seen.iter().all(|seen| seen == &other), "hold-down of {hold} s: {seen:?}");
        }
        let lost = lost_since(&loads, &before)?;
        let most = back * u64::from(RATE) + backbone.without_room()? - excused;
        ensure!(lost.iter().all(|lost| *lost <= most), "while it came and went: lost {lost:?}, {most} with reason");

        // It stays, and is used after the 4 s that follow a third time.
        let (before, excused) = (Load::lost(&loads)?, backbone.without_room()?);
        loads.iter().for_each(|load| load.hold(false));
        backbone.heal(0, 1, None)?;
        vias(own)?;
        Load::must_flow(&loads, 100)?;
        let lost = lost_since(&loads, &before)?;
        let excused = backbone.without_room()? - excused;
        ensure!(lost.iter().sum::<u64>() <= excused, "when it came back: lost {lost:?}, {excused} by sites");
        drop(loads);
        backbone.balance()
    })
}
