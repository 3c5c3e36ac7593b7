//! The hub's wall clock is put forward and back by hours, under its hands and while it is away.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::{Attacker, Kind};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::lab::run;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{First, Hub, Plan, Site, World, lab};

const HOUR: i64 = 3600;

/// A hub under a clock of its own, a site that speaks first, and one that never calls by itself.
struct Clocked {
    world: World,
    hub: Hub,
    sites: Vec<Site>,
    clock: File,
}

impl Clocked {
    fn begin(lab: &mut lab::Lab) -> Result<Self> {
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan { first: First::Hub, keepalive: 0, ..Plan::new(1001, "b", 2) })?,
        ];
        let [source, library, file] = ["clock.c", "clock.so", "clock"].map(|name| lab.directory().join(name));
        fs::write(&source, include_str!("../src/clock.c"))?;
        run(std::process::Command::new("cc")
            .args(["-O", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .arg("-ldl"))?;
        fs::write(&file, 0i64.to_ne_bytes())?;
        let clock = File::options().write(true).open(&file)?;
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        let (preload, path) = (format!("LD_PRELOAD={}", library.display()), format!("EKIDEN_CLOCK={}", file.display()));
        hub.start_by(&["env", &preload, &path]);
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        Ok(Self { world, hub, sites, clock })
    }

    /// The hub's clock is so many hours ahead of the machine's.
    fn put(&self, hours: i64) -> Result<()> {
        Ok(self.clock.write_all_at(&(hours * HOUR).to_ne_bytes(), 0)?)
    }

    /// The hub begins a handshake with a site, which must answer.
    fn renew(&self, site: &Site) -> Result<()> {
        let attacker = Attacker::new(&self.world)?;
        let mut answer = String::new();
        until_true("a handshake is begun, 5 s after the last one", || {
            let (tenant, name) = (site.plan.tenant, &site.plan.name);
            answer = self.hub.change(&format!("/v1/sites/{tenant}/{name}/handshake"))?;
            Ok(answer.starts_with("HTTP/1.1 202"))
        })
        .with_context(|| answer.clone())?;
        attacker.copy(Kind::Response, site.endpoint().ip()).map(drop)
    }
}

#[test]
fn under_a_running_hub_the_clock_steps_and_its_sites_believe_it() -> Result<()> {
    lab::test(|lab| {
        let mut it = Clocked::begin(lab)?;
        for hours in [5, -5, 0] {
            it.put(hours)?;
            for site in &it.sites {
                it.renew(site).with_context(|| format!("{hours} hours ahead"))?;
            }
            must_ping_both_ways(&it.sites[0], &it.sites[1])?;
            // A site begins a handshake, by its own clock.
            it.sites[0].stop()?;
            it.sites[0].start()?;
            must_ping_both_ways(&it.sites[0], &it.sites[1])?;
        }
        it.hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_hub_whose_clock_went_back_while_it_was_away_is_believed() -> Result<()> {
    lab::test(|lab| {
        let mut it = Clocked::begin(lab)?;
        for (hours, killed) in [(-5, false), (-10, true)] {
            match killed {
                true => drop(it.hub.kill()?),
                false => drop(it.hub.stop()?),
            }
            it.put(hours)?;
            it.hub.start()?;
            // It never calls by itself, so that only the hub's own initiation can bring it back.
            let silent = &it.sites[1];
            until_true(&format!("{} comes back at {hours} hours", silent.label()), || {
                Ok(it.hub.status()?.site(silent)?["session"] == "live")
            })?;
            must_ping_both_ways(&it.sites[0], silent)?;
        }
        // It says so: the machine's clock is ahead of the hub's by ten hours, of which it has seen five go.
        let warnings = it.hub.status()?.0["warnings"].to_string();
        ensure!(warnings.contains("the wall clock is") && warnings.contains("behind"), "{warnings}");
        it.hub.balance()?;
        Ok(())
    })
}

/// Longer than a hub may stand still without a loss of frames, and than a handshake waits for its answer.
const SLEEP: Duration = Duration::from_secs(8);

#[test]
fn a_hub_that_was_stopped_for_a_while_goes_on() -> Result<()> {
    lab::test(|lab| {
        let mut it = Clocked::begin(lab)?;
        // As a machine that sleeps: the process does not run, and CLOCK_BOOTTIME goes on.
        it.hub.process()?.signal(rustix::process::Signal::STOP)?;
        std::thread::sleep(SLEEP);
        it.hub.process()?.signal(rustix::process::Signal::CONT)?;
        must_ping_both_ways(&it.sites[0], &it.sites[1])?;
        it.hub.balance()?;
        Ok(())
    })
}
