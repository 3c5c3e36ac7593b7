//! Paths that lose, double, delay and reorder; and paths that are too narrow for what travels on them.

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::{Attacker, fragments};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::impair::{Impairment, Trouble};
use ekiden_testbed::probe::{echo, must_ping_both_ways};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Load, Outside, Plan, Site, World, iperf_both_ways, lab};

/// A site behind a bad path, and one behind a good one.
fn behind_a_bad_path(lab: &mut lab::Lab) -> Result<(Hub, Vec<Site>, Impairment)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let path = Impairment::cut(lab, &world, &sites[0].host)?;
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    must_ping_both_ways(&sites[0], &sites[1])?;
    Ok((hub, sites, path))
}

#[test]
fn tcp_goes_on_over_a_bad_path_and_each_duplicate_is_dropped_once() -> Result<()> {
    lab::test(|lab| {
        let (hub, sites, path) = behind_a_bad_path(lab)?;
        let before = hub.status()?;
        let (late, delay) = (Duration::from_millis(15), Duration::from_millis(5));
        path.set(Trouble { lost: 10, doubled: 50, reordered: 50, late, delay, ..Trouble::default() });
        for transfer in iperf_both_ways(&sites[0], &sites[1], 4)? {
            eprintln!("{transfer:?}; {:?}", path.done());
            ensure!(transfer.mbits > 0.1, "{transfer:?}");
        }
        path.set(Trouble::default());
        must_ping_both_ways(&sites[0], &sites[1])?;
        let done = path.done();
        ensure!(done.lost > 10 && done.doubled_to_hub > 10 && done.reordered > 10, "{done:?}");
        // Exactly the duplicates, and nothing that came late.
        let drops = hub.balance()?.drops_since(&before);
        ensure!(drops == BTreeMap::from([("counter_replayed".into(), done.doubled_to_hub)]), "{drops:?}, {done:?}");
        Ok(())
    })
}

#[test]
fn a_packet_is_as_late_as_the_window_is_wide_and_no_later() -> Result<()> {
    lab::test(|lab| {
        let (hub, sites, path) = behind_a_bad_path(lab)?;
        let load = Load::start(&sites[0], &sites[1], 4000, 64)?;
        // So many overtake it: within the window, and beyond it.
        for (overtaken_by, expected) in [(8000, None), (8300, Some("counter_too_old"))] {
            let before = hub.status()?;
            path.hold_one(overtaken_by);
            until_true("the packet that was held back is let go", || Ok(path.holds_nothing()))?;
            let drops = || Ok::<_, anyhow::Error>(hub.status()?.drops_since(&before));
            load.hold(true);
            hub.balance()?;
            load.hold(false);
            let expected = expected.map(|reason| (reason.to_owned(), 1)).into_iter().collect::<BTreeMap<_, _>>();
            ensure!(drops()? == expected, "overtaken by {overtaken_by}: {:?}", drops()?);
        }
        Ok(())
    })
}

/// Sites behind links that carry so much.
fn behind_narrow_links(lab: &mut lab::Lab, mtu: u16) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
    ];
    for site in &sites {
        site.namespace().ip(&format!("link set w0 mtu {mtu}"))?;
        world.inet.ip(&format!("link set {} mtu {mtu}", site.host.uplink))?;
    }
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    Ok((world, hub, sites))
}

fn default_clients_work(mtu: u16) -> Result<()> {
    lab::test(|lab| {
        let (_world, hub, sites) = behind_narrow_links(lab, mtu)?;
        let (a, b) = (&sites[0], &sites[1]);
        must_ping_both_ways(a, b)?;
        for (from, to) in [(a, b), (b, a)] {
            // Until the way is known to be narrow, a packet may be dropped, and its sender told.
            until_true("a full packet arrives", || {
                Ok(echo(from.namespace(), to.v4().into(), 1, &["-s", "1392"])?.all())
            })?;
            let pings = echo(from.namespace(), to.v4().into(), 3, &["-s", "1392"])?;
            ensure!(pings.all(), "{}", pings.text);
        }
        for transfer in iperf_both_ways(a, b, 2)? {
            ensure!(transfer.mbits > 0.5, "{transfer:?}");
        }
        let drops = hub.balance()?.drops();
        let expected =
            ["too_large", "fragment_timeout", "fragment_limit", "xdp_fragment_rate", "tx_ring_full", "control_busy"];
        ensure!(drops.keys().all(|reason| expected.contains(&&**reason)), "{drops:?}");
        Ok(())
    })
}

#[test]
fn a_default_client_works_over_a_path_of_1454() -> Result<()> {
    default_clients_work(1454)
}

#[test]
fn a_default_client_works_over_a_path_of_1280() -> Result<()> {
    default_clients_work(1280)
}

/// Kilobytes of memory that a process has, as `VmRSS` counts them.
fn resident_kb(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn fragments_made_by_hand_are_counted_and_cost_bounded_memory() -> Result<()> {
    lab::test(|lab| {
        let (world, mut hub, sites) = behind_narrow_links(lab, 1400)?;
        let attacker = Attacker::new(&world)?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let stranger = "198.51.100.7:4444".parse()?;
        // As a data message for an index that nobody has.
        let mut payload = vec![0x5a; 1400];
        payload[..4].copy_from_slice(&[4, 0, 0, 0]);
        let whole = attacker.frame(stranger, &payload)?;
        let mut id = 0u16;
        let mut cut = |frame: &[u8], at: &[std::ops::Range<usize>]| {
            id += 1;
            fragments(frame, id, at)
        };
        let exactly = |before: &ekiden_testbed::Status, what: &str, expected: &[(&str, u64)]| -> Result<()> {
            let expected: BTreeMap<String, u64> =
                expected.iter().map(|(reason, n)| ((*reason).to_owned(), *n)).collect();
            let mut last = BTreeMap::new();
            let counted = until_true(what, || {
                last = hub.status()?.drops_since(before);
                Ok(last == expected)
            });
            ensure!(counted.is_ok(), "{what}: {last:?}, expected {expected:?}");
            Ok(())
        };

        // Cut as a router would: put together, and judged as any other packet. The whole is no live session's.
        let before = hub.status()?;
        for _ in 0..10 {
            cut(&whole, &[0..800, 800..1408])?.iter().try_for_each(|frame| attacker.repeat(frame, 1))?;
        }
        exactly(&before, "whole ones", &[("session_unknown", 10)])?;

        let before = hub.status()?;
        for _ in 0..10 {
            cut(&whole, &[0..800, 792..1408])?.iter().try_for_each(|frame| attacker.repeat(frame, 1))?;
        }
        exactly(&before, "overlapping ones: both halves", &[("fragment_overlap", 20)])?;

        let before = hub.status()?;
        for _ in 0..10 {
            attacker.repeat(&cut(&whole, from_ref(&(0..800)))?[0], 3)?;
        }
        exactly(&before, "first halves, three times each", &[("fragment_overlap", 20), ("fragment_timeout", 10)])?;

        // Crumbs: more of them than a datagram may have.
        let before = hub.status()?;
        let crumbs: Vec<_> = (0..20).map(|n| 64 * n..64 * n + 64).collect();
        cut(&whole, &crumbs)?.iter().try_for_each(|frame| attacker.repeat(frame, 1))?;
        exactly(&before, "20 crumbs of one datagram", &[("fragment_limit", 20)])?;

        // Without end, from everywhere: of each the first half, never the second.
        let resident = resident_kb(hub.process()?.pid())?;
        let before = hub.status()?;
        let count = 30_000u32;
        for n in 0..count {
            let source = std::net::SocketAddr::new(std::net::Ipv4Addr::from(0xc633_6400 + n / 100).into(), 4444);
            let frame = attacker.frame(source, &payload)?;
            attacker.repeat(&cut(&frame, from_ref(&(0..1400)))?[0], 1)?;
        }
        // A site's own fragments still get through, at least once the flood is over.
        until_true("a site in fragments", || {
            Ok(echo(sites[0].namespace(), sites[1].v4().into(), 1, &["-s", "1372"])?.all())
        })?;
        let ended = ["fragment_limit", "fragment_timeout", "xdp_fragment_rate", "control_busy"];
        until_true("each of them is counted", || {
            let status = hub.status()?;
            let lost = status.0["ports"][0]["ring_lost"].as_u64().unwrap_or(0);
            let drops = status.drops_since(&before);
            let counted: u64 = ended.iter().filter_map(|reason| drops.get(*reason)).sum();
            Ok(counted + lost >= u64::from(count))
        })?;
        let after = resident_kb(hub.process()?.pid())?;
        eprintln!(
            "{count} first halves: {:?}; {} kB more",
            hub.status()?.drops_since(&before),
            after.saturating_sub(resident)
        );
        // What waits at most is 4 MiB; twice that, for what the allocator does not give back.
        ensure!(after < resident + 8192, "{resident} kB before, {after} kB after");
        let pings = echo(sites[0].namespace(), sites[1].v4().into(), 3, &["-s", "1372"])?;
        ensure!(pings.all(), "{}", pings.text);
        hub.balance()?;
        Ok(())
    })
}
