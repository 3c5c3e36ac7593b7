//! Floods: what anybody on the internet, or a site that has lost its mind, can send as fast as it likes; and what the
//! others feel of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ekiden_testbed::attack::{Attacker, Kind};
use ekiden_testbed::flood::{self, Change, Flood};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{Flow, Pings, must_ping_both_ways, ping};
use ekiden_testbed::rogue::{Rogue, udp};
use ekiden_testbed::wait::{until, until_true};
use ekiden_testbed::world::{HUB_PORT, HUB_V4, Host};
use ekiden_testbed::{Hub, Plan, Site, World, lab};
use rustix::process::Signal;

/// Initiations a second.
const FLOOD: u64 = 100_000;
/// Somebody, for a frame whose source is replaced.
const SOMEBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 4444));

/// One flood at a time: each wants the machine for itself.
static TURN: Mutex<()> = Mutex::new(());

/// Three sites that talk, and a fourth that is configured and was never heard of.
fn test(body: impl FnOnce(&mut World, &mut Hub, &mut [Site], &Host) -> Result<()>) -> Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = [("a", 1), ("b", 2), ("c", 3), ("d", 4)]
            .into_iter()
            .map(|(name, net)| Site::new(lab, &mut world, Plan::new(1001, name, net)))
            .collect::<Result<Vec<_>>>()?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        sites[..3].iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites[..3].iter().collect::<Vec<_>>())?;
        flood::widen(&world.inet, "h0")?;
        let stranger = world.host(lab, "stranger")?;
        body(&mut world, &mut hub, &mut sites, &stranger)
    })
}

/// Fewer than one in a thousand was lost.
fn hardly_any_lost(what: &str, pings: &Pings) -> Result<()> {
    let lost = pings.sent - pings.received;
    ensure!(pings.sent >= 1000 && lost * 1000 < pings.sent, "{what}: lost {lost} of {}: {}", pings.sent, pings.text);
    Ok(())
}

/// A number of bytes that the kernel tells in the files of a process.
fn resident(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("kB")?.parse::<u64>()? << 10)
}

/// What the kernel holds for the BPF maps of a process.
fn maps(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        if text.contains("map_type:") {
            let locked = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("memlock")?;
            sum += locked.trim().parse::<u64>()?;
        }
    }
    ensure!(sum > 0, "the hub has no maps");
    Ok(sum)
}

/// What the initiations of a flood can end as.
const ENDS: [&str; 8] = [
    "xdp_initiation_stranger",
    "xdp_initiation_known",
    "xdp_shed",
    "control_busy",
    "handshake_mac1",
    "handshake_cookie_sent",
    "handshake_auth",
    "handshake_rate",
];

fn initiations(sources: fn(&Site) -> Result<Change>, valid: bool) -> Result<()> {
    test(|world, hub, sites, stranger| {
        let pid = hub.process()?.pid();
        let attacker = Attacker::new(world)?;
        let payload = flood::initiation(valid.then_some(&world.key.public))?;
        let frame = attacker.frame(SOMEBODY, &payload)?;
        drop(attacker);
        let start = |max, near| Flood::start(&world.inet, "h0", &frame, sources(near)?, Some(FLOOD), max);
        must_ping_both_ways(&sites[0], &sites[1])?;
        let (memory, locked) = (resident(pid)?, maps(pid)?);

        // 1. Established sessions go on, and every frame of the flood is counted once.
        let before = hub.balance()?;
        let lost = flood::lost_before(&world.inet, "h0")?;
        let flood = start(Some(6 * FLOOD), &sites[2])?;
        let flow = Flow::start(&sites[0], &sites[1], 5)?;
        hardly_any_lost("under the flood", &flow.finish()?)?;
        until_true("the flood has been sent", || Ok(flood.has_ended()))?;
        let sent = flood.stop()? - (flood::lost_before(&world.inet, "h0")? - lost);
        let counted = until("every frame of the flood is counted", || {
            let drops = hub.status()?.drops_since(&before);
            Ok((drops.values().sum::<u64>() >= sent).then_some(drops))
        })?;
        eprintln!("{sent} initiations: {counted:?}");
        ensure!(counted.values().sum::<u64>() == sent, "{sent} sent, {counted:?}");
        ensure!(counted.keys().all(|reason| ENDS.contains(&reason.as_str())), "{counted:?}");
        ensure!(counted.contains_key("handshake_mac1") != valid, "{counted:?}");
        hub.balance()?;

        // 2. A site that is known begins anew in the midst of it.
        let flood = start(None, &sites[2])?;
        sites[2].stop()?;
        let begun = Instant::now();
        sites[2].start()?;
        until_true("the known site is back", || {
            Ok(ping(sites[2].namespace(), sites[0].v4().into(), &["-c", "1", "-W", "1"])?.all())
        })?;
        eprintln!("back after {} ms", begun.elapsed().as_millis());
        ensure!(begun.elapsed() < Duration::from_secs(10), "the known site was back after {:?}", begun.elapsed());

        // 3. Nobody that the hub has heard of: while it has more handshakes to look at than it likes, it asks for a cookie.
        if valid {
            let socket = stranger.namespace.inside(|| UdpSocket::bind("0.0.0.0:0"))??;
            socket.set_read_timeout(Some(Duration::from_millis(5)))?;
            until_true("a stranger gets a cookie", || {
                let mut answer = [0; 256];
                for _ in 0..20 {
                    socket.send_to(&payload, (HUB_V4, HUB_PORT))?;
                    if let Ok(length) = socket.recv(&mut answer) {
                        ensure!((length, answer[0]) == (64, Kind::Cookie as u8), "an answer of {length} bytes");
                        return Ok(true);
                    }
                }
                Ok(false)
            })?;
        }
        // 4. A site that connects for the first time does so, at the latest, when the flood is over.
        sites[3].start()?;
        sites[3].speak()?;
        flood.stop()?;
        hub.await_sessions(&[&sites[3]])?;
        must_ping_both_ways(&sites[3], &sites[0])?;

        let status = hub.balance()?;
        let grown = resident(pid)?.saturating_sub(memory);
        eprintln!("memory grew by {} KiB; maps take {} KiB; {:?}", grown >> 10, locked >> 10, status.drops());
        ensure!(grown < 16 << 20, "the hub grew by {grown} bytes");
        ensure!(maps(pid)? == locked, "the maps took {locked} bytes before, and {} now", maps(pid)?);
        Ok(())
    })
}

#[test]
fn garbage_from_anybody() -> Result<()> {
    initiations(|_| Ok(flood::from_anybody()), false)
}

#[test]
fn initiations_for_this_hub_from_anybody() -> Result<()> {
    initiations(|_| Ok(flood::from_anybody()), true)
}

#[test]
fn garbage_in_the_name_of_a_sites_network() -> Result<()> {
    initiations(around, false)
}

#[test]
fn initiations_for_this_hub_in_the_name_of_a_sites_network() -> Result<()> {
    initiations(around, true)
}

fn around(site: &Site) -> Result<Change> {
    match site.endpoint().ip() {
        IpAddr::V4(address) => Ok(flood::from_around(address)),
        IpAddr::V6(_) => bail!("IPv4 alone is made up here"),
    }
}

#[test]
fn what_no_session_waits_for_dies_in_xdp() -> Result<()> {
    test(|world, hub, sites, _| {
        let attacker = Attacker::new(world)?;
        let mut unknown = vec![0x5a; 128];
        unknown[..4].copy_from_slice(&[4, 0, 0, 0]);
        let cases = [
            ("xdp_session_unknown", attacker.frame(SOMEBODY, &unknown)?),
            ("xdp_not_wireguard", attacker.frame(SOMEBODY, &[0x5a; 128])?),
        ];
        drop(attacker);
        for (reason, frame) in cases {
            must_ping_both_ways(&sites[0], &sites[1])?;
            let before = hub.balance()?;
            let lost = flood::lost_before(&world.inet, "h0")?;
            let flow = Flow::start(&sites[0], &sites[1], 3)?;
            let begun = Instant::now();
            let flood = Flood::start(&world.inet, "h0", &frame, flood::from_anybody(), None, None)?;
            let pings = flow.finish()?;
            let rate = u128::from(flood.sent()) * 1000 / begun.elapsed().as_millis();
            let sent = flood.stop()?;
            let lost = flood::lost_before(&world.inet, "h0")? - lost;
            let sent = sent - lost;
            until_true("every frame of the flood is counted", || {
                Ok(hub.status()?.drops_since(&before).get(reason).copied() == Some(sent))
            })
            .with_context(|| format!("{sent} sent, {:?}", hub.status().map(|now| now.drops_since(&before))))?;
            let after = hub.balance()?;
            ensure!(after.drops_since(&before).len() == 1, "{:?}", after.drops_since(&before));
            eprintln!("{reason}: {rate} a second, {lost} lost by the lab; {} of {} pings", pings.received, pings.sent);
            hardly_any_lost(reason, &pings)?;
        }
        // With a session that waits for it, it is no flood but a conversation.
        must_ping_both_ways(&sites[0], &sites[1])
    })
}

#[test]
fn a_site_that_floods_its_tunnel_takes_nothing_from_the_others() -> Result<()> {
    test(|world, hub, sites, _| {
        let (a, b, villain) = (&sites[0], &sites[1], &sites[3]);
        // In its tunnel is what it likes: packets that are opened, and lead nowhere.
        let rogue = Arc::new({
            let mut rogue = Rogue::new(villain)?;
            rogue.connect()?;
            rogue
        });
        hub.await_sessions(&[villain])?;
        let nowhere = (Ipv4Addr::new(10, 99, 0, 1), 9).into();
        let packet = udp((villain.v4(), 9).into(), nowhere, &[0; 100])?;
        let attacker = Attacker::new(world)?;
        let frame = attacker.frame(villain.endpoint(), &rogue.seal(&packet)?)?;
        drop(attacker);
        let next = flood::of_tunnel(rogue.clone(), move || Ok(packet.clone()));

        let before = hub.balance()?;
        let lost = flood::lost_before(&world.inet, "h0")?;
        let others = Flow::start(a, b, 4)?;
        let flood = Flood::start(&world.inet, "h0", &frame, next, None, None)?;
        // A worker that has the machine for a sixth of the time only: less than the flood asks for, on any machine. While it
        // is away, the flood would fill its ring many times over.
        for _ in 0..40 {
            hub.process()?.signal(Signal::STOP)?;
            std::thread::sleep(Duration::from_millis(100));
            hub.process()?.signal(Signal::CONT)?;
            std::thread::sleep(Duration::from_millis(20));
        }
        let sent = flood.stop()? - (flood::lost_before(&world.inet, "h0")? - lost);
        let others = others.finish()?;
        let count = |drops: &BTreeMap<String, u64>, reason| drops.get(reason).copied().unwrap_or(0);
        let after = until("every frame of the flood is counted", || {
            let now = hub.balance()?;
            let drops = now.drops_since(&before);
            Ok((count(&drops, "xdp_shed") + count(&drops, "no_route") >= sent).then_some(now))
        })?;
        let drops = after.drops_since(&before);
        let shed = |site: &Site| after.of_site(site, "shed_packets");
        eprintln!("{sent} frames: {drops:?}; others: {} of {}", others.received, others.sent);
        hardly_any_lost("other sites", &others)?;
        // It is all to its own account, and more than the worker could take: had the others no accounts of their own, they
        // would have lost as large a part.
        ensure!(drops.len() == 2 && count(&drops, "xdp_shed") + count(&drops, "no_route") == sent, "{sent}: {drops:?}");
        ensure!(count(&drops, "xdp_shed") == shed(villain)? && shed(villain)? > sent / 4, "{drops:?}");
        ensure!((shed(a)?, shed(b)?) == (0, 0));
        ensure!(after.0["ports"][0]["ring_lost"] == 0, "frames were lost unseen: {}", after.0["ports"][0]);
        ensure!(hub.status_text()?.contains(&format!("shed: {} ", villain.plan.name)), "{}", hub.status_text()?);
        // It still has its session.
        rogue.send(&rogue.seal(&udp((villain.v4(), 9).into(), (a.v4(), 9).into(), b"hello")?)?)?;
        until_true("the villain reaches the others", || {
            Ok(hub.status()?.of_site(villain, "rx_packets")? == after.of_site(villain, "rx_packets")? + 1)
        })
    })
}
