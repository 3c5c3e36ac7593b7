//! The statistics segment of a running hub, read by a process that the hub does not know of: exact to the byte, in every place where it
//! can be looked up, and across the hub's death.

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::lab::Lab;
use ekiden_testbed::probe::{echo, must_ping_both_ways, ping};
use ekiden_testbed::wait::{until, until_true};
use ekiden_testbed::{Hub, Plan, Site, Tap, World, lab};
use stats::{Reader, Series, SessionState, Snapshot};
use std::os::unix::fs::MetadataExt;

fn two_sites(lab: &mut Lab, queues: u32, cores: &[usize]) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::with_queues(lab, queues)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let settings = Settings { cores: Some(cores.to_vec()), ..Settings::default() };
    let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
    Ok((world, hub, sites))
}

fn site<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a stats::Site> {
    snapshot.sites.iter().find(|site| site.name == name).with_context(|| format!("no site {name}"))
}

fn dropped(snapshot: &Snapshot, name: &str) -> (u64, u64) {
    snapshot.drops.iter().find(|drop| drop.name == name).map_or((0, 0), |drop| (drop.packets, drop.bytes))
}

/// What the far side counted is what the segment, its history and the status say.
fn exact(lab: &mut Lab, queues: u32, cores: &[usize]) -> Result<()> {
    let (_world, hub, sites) = two_sites(lab, queues, cores)?;
    let (a, b) = (&sites[0], &sites[1]);
    let path = lab.directory().join("run/lab/stats");
    ensure!(std::fs::metadata(&path)?.mode() & 0o7777 == 0o640, "not for everybody");
    must_ping_both_ways(a, b)?;
    hub.balance()?;
    let mut reader = Reader::open(&path)?;
    let before = reader.snapshot()?;
    ensure!((&*before.hub.name, before.workers.len()) == ("lab", cores.len()), "{:?}", before.hub);
    ensure!(site(&before, "a")?.session == SessionState::Live, "{:?}", site(&before, "a")?);
    ensure!(before.hub.handshakes_completed >= 2, "{:?}", before.hub);

    let tap = Tap::open(b.namespace(), &b.interface)?;
    for (to, size) in [(b.inner()[0], "1"), (b.inner()[0], "56"), (b.inner()[1], "700"), (b.inner()[0], "1300")] {
        let pings = echo(a.namespace(), to, 5, &["-s", size])?;
        ensure!(pings.all(), "{}", pings.text);
    }
    // 7 packets of 20 + 8 + 500 bytes to nowhere.
    ping(a.namespace(), "10.9.99.1".parse()?, &["-c", "7", "-i", "0.05", "-W", "1", "-s", "500"])?;
    let status = hub.balance()?;

    let after = reader.snapshot()?;
    let (mut came, mut went) = ((0, 0), (0, 0));
    for seen in tap.drain()? {
        let sum = if seen.outgoing { &mut went } else { &mut came };
        *sum = (sum.0 + 1, sum.1 + seen.bytes.len() as u64);
    }
    ensure!(came.0 == 20 && went.0 == 20, "{came:?} came, {went:?} went");
    let moved = |name: &str| -> Result<[(u64, u64); 2]> {
        let (before, after) = (site(&before, name)?.traffic, site(&after, name)?.traffic);
        let rx = (after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes);
        Ok([rx, (after.tx_packets - before.tx_packets, after.tx_bytes - before.tx_bytes)])
    };
    ensure!(moved("b")? == [went, came], "{:?} instead of {:?}", moved("b")?, [went, came]);
    let lost = (7, 7 * 528);
    ensure!(moved("a")? == [(came.0 + lost.0, came.1 + lost.1), went], "{:?}", moved("a")?);
    let no_route = dropped(&after, "no_route").0 - dropped(&before, "no_route").0;
    ensure!(no_route == 7, "{no_route}");

    // A tenant is the sum of its sites; the status says the same.
    let tenant = after.tenant("1001").context("no tenant")?;
    for (of_tenant, of_sites) in [
        (tenant.traffic.rx_bytes, after.sites.iter().map(|s| s.traffic.rx_bytes).sum::<u64>()),
        (tenant.traffic.tx_bytes, after.sites.iter().map(|s| s.traffic.tx_bytes).sum()),
        (tenant.traffic.rx_packets, after.sites.iter().map(|s| s.traffic.rx_packets).sum()),
        (tenant.traffic.tx_packets, after.sites.iter().map(|s| s.traffic.tx_packets).sum()),
        (tenant.traffic.rx_outer_bytes, after.sites.iter().map(|s| s.traffic.rx_outer_bytes).sum()),
        (tenant.traffic.tx_outer_bytes, after.sites.iter().map(|s| s.traffic.tx_outer_bytes).sum()),
    ] {
        ensure!(of_tenant == of_sites, "{tenant:?}\n{:?}", after.sites);
    }
    for (at, name) in ["a", "b"].iter().enumerate() {
        let traffic = site(&after, name)?.traffic;
        let expected = [
            ("rx_packets", traffic.rx_packets),
            ("rx_bytes", traffic.rx_bytes),
            ("tx_packets", traffic.tx_packets),
            ("tx_bytes", traffic.tx_bytes),
        ];
        for (field, value) in expected {
            ensure!(status.of_site(&sites[at], field)? == value, "{field} of {name}: {status:?}, but {traffic:?}");
        }
    }
    let drops = status.drops();
    for drop in after.drops.iter().filter(|drop| drop.packets > 0) {
        ensure!(drops.get(&drop.name) == Some(&drop.packets), "{drop:?}, but {drops:?}");
    }
    // At rest the books of the segment close: what came is gone, or stands in its gauges.
    ensure!(after.books.outputs <= after.books.inputs, "{:?}", after.books);
    let latency: u64 = after.workers.iter().map(|worker| worker.latency.count()).sum();
    ensure!(
        latency == after.workers.iter().map(|worker| worker.frames).sum::<u64>(),
        "each frame has its time: {latency}"
    );

    // Who can't see the file asks for it.
    let handed = Reader::from_socket(&lab.directory().join("run/lab/stats.sock"))?.snapshot()?;
    ensure!(handed.sites == after.sites && handed.hub.boot_id == after.hub.boot_id, "{:?}", handed.sites);

    // History comes each second.
    until("the history says the same", || {
        let last = reader.history(Series::Tenant(tenant.slot), 0)?.records.last().copied();
        Ok(last.filter(|last| {
            let traffic = tenant.traffic;
            [last.rx_packets, last.rx_bytes, last.tx_packets, last.tx_bytes]
                == [traffic.rx_packets, traffic.rx_bytes, traffic.tx_packets, traffic.tx_bytes]
        }))
    })?;
    Ok(())
}

#[test]
fn one_worker_counts_to_the_byte() -> Result<()> {
    lab::test(|lab| exact(lab, 1, &[0]))
}

#[test]
fn two_workers_count_to_the_byte() -> Result<()> {
    lab::test(|lab| exact(lab, 2, &[0, 1]))
}

/// One frame in 64 of each ring is measured, from XDP to the worker.
fn ring_time(lab: &mut Lab, queues: u32, settings: &Settings) -> Result<()> {
    let mut world = World::with_queues(lab, queues)?;
    let mut sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let hub = Hub::with_sites(lab, &world, settings, &mut sites)?;
    let pings = ping(sites[0].namespace(), sites[1].v4().into(), &["-q", "-f", "-c", "1000"])?;
    ensure!(pings.all(), "{}", pings.text);
    hub.balance()?;
    let snapshot = Reader::open(&lab.directory().join("run/lab/stats"))?.snapshot()?;
    let port = &snapshot.ports[0];
    ensure!(port.xdp_redirected_frames >= 2000 && port.ring_lost == 0, "{port:?}");
    let times = snapshot.workers.iter().map(|worker| &worker.ring_time);
    let measured: u64 = times.clone().map(stats::Histogram::count).sum();
    // Each ring has its own 64; in generic mode two CPUs may count a frame of one ring at the same time.
    let (most, rings) = (port.xdp_redirected_frames / 64, u64::from(queues));
    let least = if settings.generic { most / 2 } else { most + 1 - rings };
    ensure!((least..=most).contains(&measured), "{measured} of {port:?}");
    for time in times.filter(|time| time.count() > 0) {
        // More than nothing, and less than a stall of this machine: a stamp that was read wrongly says hours.
        let (shortest, longest) = (time.quantile(0.0), time.quantile(1.0));
        ensure!(shortest > 0 && longest < stats::MAX_NS, "{shortest} to {longest} ns");
        ensure!(time.sum_ns > 0 && time.sum_ns <= longest * time.count(), "{} ns", time.sum_ns);
    }
    Ok(())
}

#[test]
fn time_in_the_ring_is_measured() -> Result<()> {
    let cores = |cores: &[usize]| Settings { cores: Some(cores.to_vec()), ..Settings::default() };
    lab::test(|lab| ring_time(lab, 1, &cores(&[0])))?;
    lab::test(|lab| ring_time(lab, 2, &cores(&[0, 1])))?;
    lab::test(|lab| ring_time(lab, 1, &Settings { generic: true, ..cores(&[0]) }))
}

#[test]
fn readers_survive_the_hub_and_find_the_next_one() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, sites) = two_sites(lab, 1, &[0])?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        let mut reader = Reader::open(&lab.directory().join("run/lab/stats"))?;
        let alive = reader.snapshot()?;
        ensure!(!alive.hub.ended && alive.hub.session_capacity > 0, "{:?}", alive.hub);

        hub.kill()?;
        let dead = reader.snapshot()?;
        ensure!(!dead.hub.ended && dead.tenants[0].traffic.rx_bytes >= alive.tenants[0].traffic.rx_bytes);
        until_true("the reader sees that nobody writes", || Ok(reader.snapshot()?.age_ns() > 3_000_000_000))?;

        hub.start()?;
        let next = reader.snapshot()?;
        ensure!(next.hub.boot_id != alive.hub.boot_id && next.hub.pid != alive.hub.pid, "{:?}", next.hub);
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let status = hub.balance()?;

        ensure!(hub.stop()?.success());
        let last = reader.snapshot()?;
        ensure!(last.hub.ended && last.hub.boot_id == next.hub.boot_id, "{:?}", last.hub);
        let traffic = last.tenants[0].traffic;
        let of_sites = status.of_site(&sites[0], "rx_bytes")? + status.of_site(&sites[1], "rx_bytes")?;
        ensure!(traffic.rx_bytes >= of_sites, "{traffic:?}, but {of_sites} before the end");
        let record = reader.history(Series::Tenant(0), 0)?.records.last().copied().context("no history")?;
        ensure!((record.rx_bytes, record.tx_bytes) == (traffic.rx_bytes, traffic.tx_bytes), "{record:?}, {traffic:?}");
        Ok(())
    })
}
