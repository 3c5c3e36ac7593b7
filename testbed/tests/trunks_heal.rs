//! What breaks between hubs and behind them, under traffic, and how soon it is found another way. What is lost is counted in packets of a
//! stream that has so many a second.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::backbone::{Backbone, await_lanes, route};
use ekiden_testbed::impair::{Impairment, Trouble};
use ekiden_testbed::probe::{Flow, must_ping, ping};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Hub, Iperf, Load, Plan, Site, lab};

/// Packets of each stream in a second: at most so many are lost in a failover.
const RATE: u32 = 400;

/// So many flows go by four lanes: that none goes by one of them is less likely than one in a thousand.
const FLOWS: u16 = 24;
/// Packets of each of them in a second.
const LANE_RATE: u32 = 80;

/// Waits until a tenant's packets for a prefix go to this end.
fn await_via(hub: &Hub, prefix: &str, via: &str) -> Result<()> {
    let mut last = serde_json::Value::Null;
    let found = until_true(&format!("{prefix} is reached via {via}"), || {
        let status = hub.status()?;
        let paths = status.0["tenants"].as_array().into_iter().flatten().flat_map(|tenant| tenant["paths"].as_array());
        last = paths.flatten().find(|paths| paths["prefix"] == prefix).cloned().unwrap_or_default();
        Ok(last["via"] == via && last["alive"] == true)
    });
    found.with_context(|| format!("{last}"))
}

/// A stream is the same in both directions, and each has lost less than a second.
fn less_than_a_second(loads: &[Load], what: &str) -> Result<()> {
    let lost = Load::lost(loads)?;
    eprintln!("{what}: lost {lost:?} of {RATE} packets a second");
    ensure!(lost.iter().all(|lost| *lost < u64::from(RATE)), "{what}: lost {lost:?}, and {RATE} are a second");
    Ok(())
}

/// Waits until a site answers the pings by which a hub knows that it is there: one that never has is not held for dead.
fn await_answers(hub: &Hub, site: &str) -> Result<()> {
    until_true(&format!("{site} answers"), || {
        let status = hub.status()?;
        let sites = status.0["tenants"].as_array().into_iter().flatten().flat_map(|tenant| tenant["sites"].as_array());
        let site = sites.flatten().find(|found| found["name"] == site).cloned().unwrap_or_default();
        Ok(site["path"]["watch"] == "answers")
    })
}

/// A moment in which nothing is under way.
struct Since {
    lost: Vec<u64>,
    without_room: u64,
}

impl Since {
    fn now(backbone: &Backbone, loads: &[Load]) -> Result<Self> {
        Ok(Self { lost: Load::lost(loads)?, without_room: backbone.without_room()? })
    }

    /// Nothing was lost since but what sites had no room for.
    fn nothing_lost(&self, backbone: &Backbone, loads: &[Load], what: &str) -> Result<()> {
        let lost: Vec<u64> = Load::lost(loads)?.iter().zip(&self.lost).map(|(now, before)| now - before).collect();
        let excused = backbone.without_room()? - self.without_room;
        ensure!(lost.iter().sum::<u64>() <= excused, "{what}: lost {lost:?}, {excused} of them by sites");
        Ok(())
    }
}

/// One lane of four is swallowed by the way; its flows go by the others, and those of the others notice nothing.
#[test]
fn a_lane_that_is_swallowed_costs_its_own_flows_less_than_a_second() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.sites_everywhere(lab, &[1001])?;
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 4\n");
        backbone.start(lab)?;
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let transfer = Iperf::with_bitrate(a, b, b.v4().into(), (12, "4M"))?;
        let mut loads = Vec::new();
        for flow in 0..FLOWS {
            let (from, to) = if flow % 2 == 0 { (a, b) } else { (b, a) };
            loads.push(Load::with_port(from, to, 9200 + flow, LANE_RATE, 200)?);
        }
        Load::must_flow(&loads, 24)?;

        let port = Some(HUB_PORT + 2);
        Load::lost(&loads)?;
        Load::must_flow(&loads, 8)?;
        let before = Load::lost(&loads)?;
        loads.iter().for_each(|load| load.hold(false));
        backbone.cut(0, 1, port)?;
        for hub in &backbone.hubs {
            until_true("the lane is down", || {
                Ok(hub.status()?.lanes()?.iter().any(|(name, up)| name.ends_with("/2") && !up))
            })?;
            ensure!(hub.status()?.lanes()?.iter().filter(|(_, up)| *up).count() == 3, "{:?}", hub.status()?.lanes()?);
        }
        Load::must_flow(&loads, 24)?;
        let lost: Vec<u64> = Load::lost(&loads)?.iter().zip(before).map(|(now, before)| now - before).collect();
        eprintln!("a lane swallowed: lost {lost:?} of {LANE_RATE} packets a second");
        ensure!(
            lost.iter().all(|lost| *lost < LANE_RATE.into()),
            "of {LANE_RATE} a second, lost of each flow: {lost:?}"
        );
        ensure!(lost.contains(&0) && lost.iter().any(|lost| *lost > 0), "flows by one lane and by others: {lost:?}");

        // It comes back, and nobody loses anything by that.
        let since = Since::now(&backbone, &loads)?;
        Load::must_flow(&loads, 16)?;
        backbone.heal(0, 1, port)?;
        backbone.await_trunks()?;
        Load::must_flow(&loads, 24)?;
        since.nothing_lost(&backbone, &loads, "the lane came back")?;
        let transfer = transfer.finish()?;
        ensure!(transfer.seconds.last() > Some(&0), "TCP did not go on: {transfer:?}");
        drop(loads);
        backbone.balance()
    })
}

/// Three hubs; the third carries on what the first two send each other when their own trunk is cut.
#[test]
fn what_a_cut_trunk_carried_goes_by_a_third_hub() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        backbone.sites_everywhere(lab, &[1001])?;
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 2\n");
        // What comes to the third by a trunk may leave by the other one.
        backbone.settings[2].trunks.iter_mut().for_each(|trunk| trunk.push_str("transit = true\n"));
        backbone.lead(1001, 0, 1, 2, 200);
        backbone.lead(1001, 1, 0, 2, 200);
        backbone.start(lab)?;
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let vias = |trunk: [&str; 2]| -> Result<()> {
            await_via(&backbone.hubs[0], "10.9.2.0/24", trunk[0])?;
            await_via(&backbone.hubs[1], "10.9.1.0/24", trunk[1])
        };
        vias(["trunk:hub2", "trunk:hub1"])?;
        let transfer = Iperf::with_bitrate(a, b, b.v4().into(), (20, "4M"))?;
        let loads = [Load::start(a, b, RATE, 200)?, Load::start(b, a, RATE, 200)?];
        Load::must_flow(&loads, 200)?;
        Load::lost(&loads)?;

        Load::must_flow(&loads, 20)?;
        backbone.cut(0, 1, None)?;
        vias(["trunk:hub3", "trunk:hub3"])?;
        Load::must_flow(&loads, 200)?;
        less_than_a_second(&loads, "a trunk cut")?;

        let since = Since::now(&backbone, &loads)?;
        Load::must_flow(&loads, 20)?;
        backbone.heal(0, 1, None)?;
        vias(["trunk:hub2", "trunk:hub1"])?;
        Load::must_flow(&loads, 200)?;
        since.nothing_lost(&backbone, &loads, "the trunk came back")?;
        let transfer = transfer.finish()?;
        ensure!(transfer.seconds.last() > Some(&0), "TCP did not go on: {transfer:?}");
        drop(loads);
        backbone.balance()
    })
}

/// A hub is killed: what others send each other goes on as if nothing were, and all is back by itself when the hub is.
#[test]
fn a_hub_that_is_killed_and_started_is_missed_by_nobody_else() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        backbone.sites_everywhere(lab, &[1001])?;
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 2\n");
        backbone.start(lab)?;
        for pair in [(0, 1), (1, 2), (2, 0)] {
            must_ping(backbone.the_site(1001, pair.0)?, backbone.the_site(1001, pair.1)?.v4().into())?;
        }
        // An ordinary end writes down where sites and hubs are.
        backbone.hubs[1].restart()?;
        backbone.hubs[1].await_sessions(&backbone.sites[1].iter().collect::<Vec<_>>())?;
        backbone.await_trunks()?;
        let site = |hub: usize| backbone.sites[hub].first().context("a site");
        let others = [Load::start(site(0)?, site(2)?, RATE, 200)?, Load::start(site(2)?, site(0)?, RATE, 200)?];
        let its = [
            Load::with_port(site(0)?, site(1)?, 9300, 200, 200)?,
            Load::with_port(site(1)?, site(2)?, 9301, 200, 200)?,
        ];
        let since = Since::now(&backbone, &others)?;
        Load::must_flow(&others, 100)?;
        Load::must_flow(&its, 100)?;
        for _ in 0..3 {
            backbone.hubs[1].kill()?;
            for hub in [0, 2] {
                until_true("its lanes are down", || {
                    let lanes = backbone.hubs[hub].status()?.lanes()?;
                    Ok(lanes.iter().all(|(name, up)| *up != name.starts_with("hub2/")))
                })?;
            }
            Load::must_flow(&others, 100)?;
            backbone.hubs[1].start()?;
            Load::must_flow(&its, 100)?;
            backbone.await_trunks()?;
        }
        since.nothing_lost(&backbone, &others, "others")?;
        Load::lost(&its)?;
        drop((others, its));
        backbone.balance()
    })
}

/// A tenant's prefix is behind a site at the second hub, and behind another at the third: of a site that has died every hub learns.
#[test]
fn a_site_that_died_behind_a_live_hub_is_known_everywhere() -> Result<()> {
    const PREFIXES: [&str; 2] = ["10.9.20.0/24", "fd00:9:14::/64"];
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        backbone.site(lab, 0, Plan::new(1001, "a", 1))?;
        for (hub, name) in [(1, "dc1"), (2, "dc2")] {
            let plan = Plan { contract: "address = [\"10.9.20.1/24\"]\n", keepalive: 1, ..Plan::new(1001, name, 20) };
            backbone.site(lab, hub, plan)?;
        }
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 2\n");
        // The mesh has led to both by their own hubs: of those two ways the first is better, everywhere.
        for (hub, settings) in backbone.settings.iter_mut().enumerate() {
            settings.hub_addresses.push(1001);
            for (_, lines) in &mut settings.routes {
                let second = lines.contains("10.9.20.") || lines.contains("fd00:9:14:");
                if second && (hub != 0 || lines.contains("hub3")) {
                    *lines = lines.replace("priority = 100", "priority = 200");
                }
            }
        }
        backbone.start(lab)?;
        let vias = |backbone: &Backbone, via: [&str; 3]| -> Result<()> {
            for prefix in PREFIXES {
                for (hub, via) in backbone.hubs.iter().zip(via) {
                    await_via(hub, prefix, via)?;
                }
            }
            Ok(())
        };
        vias(&backbone, ["trunk:hub2", "dc1", "dc2"])?;
        let (a, dc1) = (&backbone.sites[0][0], &backbone.sites[1][0]);
        must_ping(a, dc1.v4().into())?;

        await_answers(&backbone.hubs[1], "dc1")?;
        let flow = Flow::start(a, dc1, 60)?;
        backbone.sites[1][0].stop()?;
        vias(&backbone, ["trunk:hub3", "trunk:hub3", "dc2"])?;
        must_ping(&backbone.sites[0][0], backbone.sites[2][0].v4().into())?;
        let pings = flow.stop()?;
        let lost = pings.sent - pings.received;
        eprintln!("a site died: lost {lost} of 500 packets a second");
        ensure!(lost < 500, "lost {lost}, and 500 are a second: {}", pings.text);

        let flow = Flow::start(&backbone.sites[0][0], &backbone.sites[2][0], 60)?;
        backbone.sites[1][0].start()?;
        vias(&backbone, ["trunk:hub2", "dc1", "dc2"])?;
        must_ping(&backbone.sites[0][0], backbone.sites[1][0].v4().into())?;
        let pings = flow.stop()?;
        ensure!(pings.all(), "lost when the site came back: {}", pings.text);
        backbone.balance()
    })
}

/// A site whose key two hubs have: it belongs to the one that it spoke to last, and all find it there.
#[test]
fn a_site_moves_between_two_hubs_and_loses_less_than_a_second() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        for (hub, net) in [(0, 1), (1, 2), (2, 3)] {
            backbone.site(lab, hub, Plan::new(1001, &format!("s{net}"), net))?;
        }
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 2\n");
        backbone.site(lab, 0, Plan { keepalive: 1, ..Plan::new(1001, "m", 30) })?;
        let section = backbone.sites[0][1].hub_section().leak();
        backbone.settings[1].contracts.push((1001, section));
        for prefix in ["10.9.30.0/24", "fd00:9:1e::/64"] {
            for (hub, trunk, priority) in [(0, "hub2", 200), (1, "hub1", 200), (2, "hub1", 100), (2, "hub2", 200)] {
                let via = format!("{{ trunk = \"{trunk}\" }}");
                backbone.settings[hub].routes.push((1001, route(prefix, &via, priority)));
            }
        }
        backbone.start(lab)?;
        let vias = |backbone: &Backbone, via: [&str; 3]| -> Result<()> {
            backbone.hubs.iter().zip(via).try_for_each(|(hub, via)| await_via(hub, "10.9.30.0/24", via))
        };
        vias(&backbone, ["m", "trunk:hub1", "trunk:hub1"])?;
        let flows = |backbone: &Backbone| -> Result<Vec<Flow>> {
            let moving = &backbone.sites[0][1];
            (0..3).map(|hub| Flow::start(&backbone.sites[hub][0], moving, 60)).collect()
        };
        let over = |flows: Vec<Flow>, what: &str| -> Result<()> {
            for (flow, from) in flows.into_iter().zip(1..) {
                let pings = flow.stop()?;
                let lost = pings.sent - pings.received;
                eprintln!("{what}: behind hub {from}, lost {lost} of 500 packets a second");
                ensure!(pings.received > 0 && lost < 500, "{what}: behind hub {from}: {}", pings.text);
            }
            Ok(())
        };
        for (to, via) in [(1, ["trunk:hub2", "m", "trunk:hub2"]), (0, ["m", "trunk:hub1", "trunk:hub1"])] {
            let under_way = flows(&backbone)?;
            must_ping(&backbone.sites[2][0], backbone.sites[0][1].v4().into())?;
            let (worlds, sites) = (&backbone.worlds, &mut backbone.sites);
            sites[0][1].turn_to(&worlds[to])?;
            vias(&backbone, via)?;
            for hub in 0..3 {
                let (from, to) = (backbone.sites[hub][0].namespace(), backbone.sites[0][1].v4().into());
                let pings = ping(from, to, &["-c", "50", "-i", "0.02", "-W", "5"])?;
                ensure!(pings.all(), "afterwards, behind hub {}: {}", hub + 1, pings.text);
            }
            over(under_way, &format!("to hub {}", to + 1))?;
        }
        backbone.balance()
    })
}

/// The better of two ways, at the same hub: a site, and another one.
#[test]
fn of_two_sites_of_one_hub_the_live_one_is_used() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.site(lab, 0, Plan::new(1001, "a", 1))?;
        let contract = "address = [\"10.9.20.1/24\"]\n";
        backbone.site(lab, 1, Plan { contract, keepalive: 1, ..Plan::new(1001, "dc1", 20) })?;
        // The second site has no prefixes of its own: the route gives it those of the first.
        backbone.mesh(&[1001], "tenants = \"all\"\nlanes = 1\n");
        backbone.site(lab, 1, Plan { keepalive: 1, ..Plan::new(1001, "dc2", 21) })?;
        backbone.settings[1].hub_addresses.push(1001);
        for prefix in ["10.9.20.0/24", "fd00:9:14::/64"] {
            backbone.settings[1].routes.push((1001, route(prefix, "{ site = \"dc2\" }", 200)));
        }
        backbone.start(lab)?;
        let second: &Site = &backbone.sites[1][1];
        second.namespace().ip(&format!("addr add 10.9.20.1/32 dev {}", second.interface))?;
        await_via(&backbone.hubs[1], "10.9.20.0/24", "dc1")?;
        must_ping(&backbone.sites[0][0], "10.9.20.1".parse()?)?;
        await_answers(&backbone.hubs[1], "dc1")?;
        let flow = Flow::start(&backbone.sites[0][0], &backbone.sites[1][0], 60)?;
        backbone.sites[1][0].stop()?;
        await_via(&backbone.hubs[1], "10.9.20.0/24", "dc2")?;
        must_ping(&backbone.sites[0][0], "10.9.20.1".parse()?)?;
        let pings = flow.stop()?;
        let lost = pings.sent - pings.received;
        ensure!(lost < 500, "lost {lost}, and 500 are a second: {}", pings.text);
        await_lanes(&backbone.hubs[0], |_| true)?;
        backbone.balance()
    })
}

/// What hubs say of their sites gets through a way that loses, delays and reorders.
#[test]
fn what_hubs_announce_gets_through_a_bad_way() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        let way = Impairment::before_hub(lab, &backbone.worlds[1])?;
        let contract = "address = [\"10.9.20.1/24\"]\n";
        for (hub, name) in [(0, "spare"), (1, "dc1")] {
            backbone.site(lab, hub, Plan { contract, keepalive: 1, ..Plan::new(1001, name, 20) })?;
        }
        backbone.join(0, 1, "aes-256-gcm", false, "tenants = \"all\"\nlanes = 4\n");
        for (hub, other) in [(0, 1), (1, 0)] {
            backbone.settings[hub].hub_addresses.push(1001);
            // The site at the second hub is preferred everywhere.
            backbone.lead(1001, hub, other, other, if hub == 0 { 50 } else { 200 });
        }
        backbone.start(lab)?;
        way.set(Trouble {
            lost: 50,
            reordered: 100,
            late: Duration::from_millis(30),
            delay: Duration::from_millis(20),
            ..Trouble::default()
        });
        // Until the way has been bad enough to say something; three times at least.
        let mut rounds = 0;
        while rounds < 3 || way.done().lost <= 20 || way.done().reordered <= 20 {
            ensure!(rounds < 20, "the way is too good: {:?}", way.done());
            rounds += 1;
            await_via(&backbone.hubs[0], "10.9.20.0/24", "trunk:hub2")?;
            await_via(&backbone.hubs[1], "10.9.20.0/24", "dc1")?;
            await_answers(&backbone.hubs[1], "dc1")?;
            backbone.sites[1][0].stop()?;
            await_via(&backbone.hubs[0], "10.9.20.0/24", "spare")?;
            await_via(&backbone.hubs[1], "10.9.20.0/24", "trunk:hub1")?;
            backbone.sites[1][0].start()?;
        }
        backbone.balance()
    })
}
