//! A hub with several workers: each with a queue of its own, or all with the same one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::Attacker;
use ekiden_testbed::flood::{self, Flood};
use ekiden_testbed::hub::{NAME, Settings};
use ekiden_testbed::load::Load;
use ekiden_testbed::probe::{must_ping_both_ways, ping};
use ekiden_testbed::rogue::{Rogue, udp};
use ekiden_testbed::wait::{until, until_true};
use ekiden_testbed::{Hub, Plan, Site, World, iperf_both_ways, lab};
use rustix::process::Signal;

/// Frames that each of two workers has received.
fn frames(hub: &Hub) -> Result<[u64; 2]> {
    let status = hub.status()?;
    Ok([0, 1].map(|worker| status.0["workers"][worker]["frames"].as_u64().unwrap_or(0)))
}

#[test]
fn two_workers_share_the_work_and_sites_change_between_them() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 2)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
        ];
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        ensure!(hub.status()?.0["ports"][0]["queues"] == 2);

        // A flow's ports decide its queue. Site a moves from port to port, in one session, until each worker has had its
        // packets; the others' share is told apart by being the smaller.
        let mut served = [false; 2];
        for port in 40000..40064 {
            let before = frames(&hub)?;
            sites[0].set(&["listen-port", &port.to_string()])?;
            sites[0].speak()?;
            let endpoint = SocketAddr::new(sites[0].endpoint().ip(), port);
            until_true("the hub follows", || Ok(hub.status()?.site(&sites[0])?["endpoint"] == endpoint.to_string()))?;
            must_ping_both_ways(&sites[0], &sites[1])?;
            let after = frames(&hub)?;
            for worker in 0..2 {
                served[worker] |= after[worker] > before[worker];
            }
            if served == [true, true] {
                break;
            }
        }
        ensure!(served == [true, true], "one worker did everything: {:?}", frames(&hub)?);
        for transfer in iperf_both_ways(&sites[0], &sites[1], 2)? {
            ensure!(transfer.mbits > 1.0, "{transfer:?}");
        }
        must_ping_both_ways(&sites[0], &sites[1])?;
        let drops = hub.status()?.drops();
        ensure!(
            !drops.keys().any(|reason| reason.starts_with("counter") || reason.starts_with("session")),
            "{drops:?}"
        );
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn control_stays_off_a_workers_core_where_there_are_others() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "a", 1))?];
        let settings = Settings { cores: Some(vec![1]), ..Settings::default() };
        let mut hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let pid = hub.process()?.pid();
        let mut seen = Vec::new();
        for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let status = std::fs::read_to_string(task?.path().join("status"))?;
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.map(|value| value.trim().to_owned()).with_context(|| format!("{name} of {status}"))
            };
            seen.push((field("Name:")?, field("Cpus_allowed_list:")?));
        }
        let of = |name: &str| seen.iter().find(|(of, _)| of == name).map(|(_, cores)| cores.as_str());
        ensure!(of("worker-0") == Some("1"), "{seen:?}");
        let has_core_1 = |list: &str| {
            list.split(',').any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                first.parse().is_ok_and(|first: u32| first <= 1) && last.parse().is_ok_and(|last: u32| last >= 1)
            })
        };
        for name in ["ekiden", "ekiden-api"] {
            ensure!(of(name).is_some_and(|list| !has_core_1(list)), "{name}: {seen:?}");
        }
        Ok(())
    })
}

#[test]
fn two_workers_share_a_queue_each_with_its_sessions() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 1)?;
        let plans = [("a", 1), ("b", 2), ("c", 3)].map(|(name, net)| Plan::new(1001, name, net));
        let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let mut hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let status = hub.status()?;
        ensure!((&status.0["ports"][0]["queues"], &status.0["ports"][0]["sockets"]) == (&1.into(), &2.into()));
        ensure!(hub.status_text()?.contains("1 shared by 2"), "{}", hub.status_text()?);

        // The first and the third site are the first worker's, the second is the other's. What a site receives is sealed by
        // the worker of who sent it.
        must_ping_both_ways(&sites[0], &sites[1])?;
        must_ping_both_ways(&sites[0], &sites[2])?;
        let before = frames(&hub)?;
        let pings = ping(sites[0].namespace(), sites[2].v4().into(), &["-c", "200", "-i", "0.002"])?;
        ensure!(pings.all(), "{}", pings.text);
        let after = frames(&hub)?;
        ensure!(after[0] - before[0] >= 400 && after[1] - before[1] < 40, "{before:?} {after:?}");
        let pings = ping(sites[1].namespace(), sites[2].v4().into(), &["-c", "200", "-i", "0.002"])?;
        ensure!(pings.all(), "{}", pings.text);
        let last = frames(&hub)?;
        ensure!(last[0] - after[0] >= 200 && last[1] - after[1] >= 200, "{after:?} {last:?}");
        for transfer in iperf_both_ways(&sites[0], &sites[1], 2)? {
            ensure!(transfer.mbits > 1.0, "{transfer:?}");
        }
        let status = hub.balance()?;
        ensure!(
            status.drops().keys().all(|reason| !reason.starts_with("counter") && reason != "no_chunk"),
            "{status:?}"
        );

        // A session goes from worker to worker while it carries packets, and nothing is lost.
        let load = Load::start(&sites[0], &sites[2], 1000, 200)?;
        for worker in [1, 0, 1, 0, 1] {
            let had = frames(&hub)?;
            ensure!(hub.change(&format!("/v1/sites/1001/a/worker/{worker}"))?.contains(" 200 "), "not moved");
            until_true("the other worker has its packets", || Ok(frames(&hub)?[worker] > had[worker] + 100))?;
        }
        load.hold(true);
        until_true("all of them have arrived", || Ok(load.received() == load.sent()))?;
        drop(load);
        ensure!(hub.change("/v1/sites/1001/a/worker/2")?.contains(" 404 "), "there are two");

        // Killed and started again, once it has written down where its sites are: the queue is had again, by both.
        let state = lab.directory().join("state").join(NAME).join("peers");
        until_true("where the sites are is on the disk", || Ok(state.exists()))?;
        hub.kill()?;
        hub.start()?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_worker_that_does_not_own_the_queue_works_alone() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 1)?;
        let plans = [("a", 1), ("b", 2)].map(|(name, net)| Plan { keepalive: 0, ..Plan::new(1001, name, net) });
        let sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        // The second site is the second worker's; the first worker, which fills and completes, has nothing of its own to do.
        let mut b = Rogue::new(&sites[1])?;
        b.connect()?;
        hub.await_sessions(&[&sites[1]])?;
        flood::widen(&world.inet, "h0")?;
        let attacker = Attacker::new(&world)?;
        let packet = udp((sites[1].v4(), 9).into(), (Ipv4Addr::new(10, 99, 0, 1), 9).into(), &[0; 8])?;
        let frame = attacker.frame(sites[1].endpoint(), &b.seal(&packet)?)?;
        drop(attacker);
        let next = flood::of_tunnel(Arc::new(b), move || Ok(packet.clone()));
        // Many times the chunks that there are; each ends with the worker that does not lend them. And more in the time that the
        // owner may sleep than the queue has room for, but never so many at once that it would be asked for help.
        let (before, had) = (hub.balance()?, frames(&hub)?);
        let lost = flood::lost_before(&world.inet, "h0")?;
        let flood = Flood::start(&world.inet, "h0", &frame, next, Some(15_000), Some(60_000))?;
        until_true("the flood has been sent", || Ok(flood.has_ended()))?;
        let sent = flood.stop()? - (flood::lost_before(&world.inet, "h0")? - lost);
        let after = until("every frame is counted", || {
            let now = hub.balance()?;
            let drops = now.drops_since(&before);
            Ok((drops.values().sum::<u64>() >= sent).then_some(now))
        });
        let status = hub.status()?;
        ensure!(
            status.0["ports"][0]["ring_lost"] == 0,
            "frames were lost for want of chunks: {}",
            status.0["ports"][0]
        );
        let drops = after?.drops_since(&before);
        ensure!(drops.keys().all(|reason| ["no_route", "xdp_shed"].contains(&reason.as_str())), "{drops:?}");
        let did = frames(&hub)?;
        ensure!(did[1] - had[1] >= drops["no_route"] && did[0] - had[0] < 100, "{had:?} {did:?} {drops:?}");
        Ok(())
    })
}

#[test]
fn an_idle_worker_does_as_it_is_told_and_misses_nothing() -> Result<()> {
    for idle in ["spin", "adaptive", "interrupt"] {
        lab::test(|lab| {
            let mut world = World::new(lab)?;
            let plans = [("a", 1), ("b", 2)].map(|(name, net)| Plan::new(1001, name, net));
            let mut sites =
                plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
            let settings = Settings { idle: Some(idle), ..Settings::default() };
            let mut hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
            let asleep = || -> Result<u64> {
                let mut reader = stats::Reader::open(&lab.directory().join("run").join(NAME).join("stats"))?;
                Ok(reader.snapshot()?.workers.iter().map(|worker| worker.asleep_ns).sum())
            };
            let (before, cpu) = (asleep()?, hub.process()?.cpu_time()?);
            for gap in ["0.001", "0.02"] {
                let pings = ping(sites[0].namespace(), sites[1].v4().into(), &["-c", "100", "-i", gap])?;
                ensure!(pings.all(), "{idle}: {}", pings.text);
            }
            let (slept, cpu) = (asleep()? - before, hub.process()?.cpu_time()? - cpu);
            eprintln!("{idle}: asleep for {} ms, {} ms of CPU", slept / 1_000_000, cpu.as_millis());
            ensure!((slept == 0) == (idle == "spin"), "{idle}: asleep for {slept} ns");
            hub.balance()?;
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn one_tunnel_is_carried_by_both_workers_and_keeps_its_order() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::with_queues(lab, 1)?;
        let plans = [("a", 1), ("b", 2)].map(|(name, net)| Plan::new(1001, name, net));
        let sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        let settings = Settings { cores: Some(vec![0, 1]), ..Settings::default() };
        let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        let [mut a, mut b] = [Rogue::new(&sites[0])?, Rogue::new(&sites[1])?];
        b.connect()?;
        a.connect()?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        let mut reader = stats::Reader::open(&lab.directory().join("run").join(NAME).join("stats"))?;
        let mut helped = || -> Result<u64> { Ok(reader.snapshot()?.workers.iter().map(|w| w.helped_frames).sum()) };

        // Numbered packets, as fast as it goes.
        let attacker = Attacker::new(&world)?;
        let ends = ((sites[0].v4(), 9).into(), (sites[1].v4(), 9).into());
        let frame = attacker.frame(sites[0].endpoint(), &a.seal(&udp(ends.0, ends.1, &[0; 8])?)?)?;
        drop(attacker);
        let mut number = 0u64;
        let next = flood::of_tunnel(Arc::new(a), move || {
            number += 1;
            udp(ends.0, ends.1, &number.to_be_bytes())
        });
        let flood = Flood::start(&world.inet, "h0", &frame, next, None, None)?;
        // A worker that was away finds its ring half full. Until the other has helped it out, and not once.
        let mut last = 0;
        let mut numbers = 0;
        until_true("the other worker helps", || {
            hub.process()?.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(20));
            hub.process()?.signal(Signal::CONT)?;
            std::thread::sleep(Duration::from_millis(20));
            for packet in b.received()? {
                let number = u64::from_be_bytes(packet[28..36].try_into().context("a number")?);
                ensure!(number > last, "{number} came after {last}");
                (last, numbers) = (number, numbers + 1);
            }
            Ok(helped()? > 10_000 && numbers > 1000)
        })?;
        let sent = flood.stop()?;
        let status = hub.balance()?;
        eprintln!("{sent} sent, {numbers} arrived in order, {} helped with; {:?}", helped()?, status.drops());
        Ok(())
    })
}
