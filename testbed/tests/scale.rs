//! A hub with as many tenants and sites as one has to carry.

use std::fs;
use std::time::Instant;

use anyhow::{Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::{Hub, Plan, Site, World, lab};

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
        // All other tenants before this one, each with the same networks. Nobody has their private keys, and any 32 bytes
        // are a public key; what is written here in base64 are their numbers.
        let mut text = fs::read_to_string(hub.config())?;
        let own = text.split_off(text.find("[[tenant]]").expect("there is a tenant"));
        for tenant in 0..TENANTS - 1 {
            text += &format!("[[tenant]]\nid = {tenant}\nservice_code = \"WAN{tenant:08}\"\n");
            for site in 0..SITES_OF_EACH {
                let key = format!("{:08}{tenant:04}{site:04}", 0);
                text += &format!("[[tenant.site]]\nname = \"{site}\"\npublic_key = \"{key:A<43}=\"\n");
                text += &format!("prefixes = [\"10.9.{site}.0/24\", \"fd00:9:{site:x}::/64\"]\n");
            }
        }
        fs::write(hub.config(), text + &own)?;

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
