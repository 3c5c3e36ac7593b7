//! A hub with as many tenants and sites as one has to carry.

use std::fmt::Display;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ekiden_testbed::hub::{NAME, Settings};
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Crowd, Hub, Plan, Site, World, lab};

const TENANTS: u32 = 1000;
const SITES_OF_EACH: u32 = 10;

#[test]
fn ten_thousand_sites_start_and_the_last_two_talk() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = [("a", 1), ("b", 2)]
            .into_iter()
            .map(|(name, net)| Site::new(lab, &mut world, Plan::new(TENANTS, name, net)))
            .collect::<Result<Vec<_>>>()?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        // Nobody has their private keys, and any 32 bytes are a public key; what is written here in base64 are their numbers.
        let numbers = (0..).map(|number| format!("{:A<43}=", format!("{number:012}")));
        add_tenants(&hub, TENANTS - 1, numbers)?;

        let start = Instant::now();
        hub.start()?;
        let ready = start.elapsed();
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        let memory = fs::read_to_string(format!("/proc/{}/status", hub.process()?.pid()))?;
        let memory = memory.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
        let status = hub.status()?;
        let tenants = status.0["tenants"].as_array().map_or(0, Vec::len);
        ensure!(tenants == TENANTS as usize, "{tenants} tenants");
        eprintln!("ready after {} ms; {memory}", ready.as_millis());
        hub.restart()?;
        hub.balance()?;
        Ok(())
    })
}

/// Adds so many tenants with ten sites each, all with the same networks, before those that are there.
fn add_tenants(hub: &Hub, count: u32, mut keys: impl Iterator<Item = impl Display>) -> Result<()> {
    let mut text = fs::read_to_string(hub.config())?;
    let own = text.find("[[tenant]]").map(|at| text.split_off(at)).unwrap_or_default();
    for tenant in 0..count {
        text += &format!("[[tenant]]\nid = {tenant}\nservice_code = \"WAN{tenant:08}\"\n");
        for (site, key) in (0..SITES_OF_EACH).zip(&mut keys) {
            text += &format!("[[tenant.site]]\nname = \"{site}\"\npublic_key = \"{key}\"\n");
            text += &format!("prefixes = [\"10.9.{site}.0/24\", \"fd00:9:{site:x}::/64\"]\n");
        }
    }
    Ok(fs::write(hub.config(), text + &own)?)
}

/// Waits until the whole crowd has a session; says when how many had.
fn all_back(hub: &mut Hub, crowd: &Crowd, count: usize, what: &str) -> Result<()> {
    let start = Instant::now();
    let mut progress = String::new();
    let mut shown = 0;
    loop {
        let (back, passed) = (crowd.back(), start.elapsed());
        crowd.must_be_alive()?;
        hub.process()?.must_be_alive()?;
        if back >= shown + count / 10 || back == count {
            shown = back;
            progress += &format!(" {back}: {:.1} s;", passed.as_secs_f64());
        }
        if back == count {
            let (cpu, drops) = (hub.process()?.cpu_time()?, hub.status()?.drops());
            eprintln!("{what}:{progress} {:.1} s of CPU in all; drops {drops:?}", cpu.as_secs_f64());
            return Ok(());
        }
        // Not what is promised, which a busy machine may not keep: what would be no coming back.
        if passed > Duration::from_secs(240) {
            bail!("{what}: {back} of {count} sites are back:{progress} drops {:?}", hub.status()?.drops());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn ten_thousand_sites_come_back_after_a_kill() -> Result<()> {
    lab::test(|lab| {
        let count = (TENANTS * SITES_OF_EACH) as usize;
        let mut world = World::new(lab)?;
        let crowd = Crowd::new(lab, &mut world, count)?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &[])?;
        add_tenants(&hub, TENANTS, crowd.keys().into_iter())?;
        hub.start()?;
        crowd.call(1500);
        all_back(&mut hub, &crowd, count, "all begin, 1,500 a second")?;
        let state = lab.directory().join("state").join(NAME).join("peers");
        until_true("where the sites are is on the disk", || {
            let text = fs::read_to_string(&state).unwrap_or_default();
            Ok(text.lines().filter(|line| line.contains("\"endpoint\":\"198.19.")).count() == count)
        })?;

        crowd.forget();
        hub.kill()?;
        hub.start()?;
        all_back(&mut hub, &crowd, count, "the hub calls, after a kill")?;
        // At a pace at which it can hear every answer, and without asking those that it called itself for a cookie.
        let drops = hub.balance()?.drops();
        ensure!(!drops.contains_key("control_busy") && !drops.contains_key("handshake_cookie_sent"), "{drops:?}");

        crowd.forget();
        hub.kill()?;
        crowd.call(count);
        hub.start()?;
        all_back(&mut hub, &crowd, count, "all call, after a kill")?;
        // The hub remembers who has talked to it: nobody is a stranger.
        let drops = hub.balance()?.drops();
        ensure!(!drops.contains_key("xdp_initiation_stranger"), "{drops:?}");
        Ok(())
    })
}
