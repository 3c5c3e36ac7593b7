//! The machine runs out of what the hub needs: it says what, and tunnels that exist go on.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Result, ensure};
use ekiden_testbed::hub::{NAME, Settings};
use ekiden_testbed::lab::run;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Hub, Plan, Site, World, lab};

fn two_sites(lab: &mut lab::Lab) -> Result<(World, Hub, Vec<Site>)> {
    let mut world = World::new(lab)?;
    let sites = vec![
        Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
        Site::new(lab, &mut world, Plan::new(1001, "b", 2))?,
    ];
    let hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
    Ok((world, hub, sites))
}

fn begin(hub: &mut Hub, sites: &mut [Site]) -> Result<()> {
    hub.start()?;
    sites.iter_mut().try_for_each(Site::start)?;
    hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
    must_ping_both_ways(&sites[0], &sites[1])
}

/// The site gets a new session, and with it there is something to write down.
fn something_to_write(hub: &Hub, site: &mut Site) -> Result<()> {
    site.stop()?;
    site.start()?;
    hub.await_sessions(&[site])
}

/// Takes all the room that there is.
fn fill(path: &Path) {
    let error = fs::write(path, vec![0; 32 << 20]).expect_err("more than fits the disks of these tests");
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
}

/// What was written down of the sites; `None` if there is nothing.
fn state(lab: &lab::Lab) -> Option<String> {
    fs::read_to_string(lab.directory().join("state").join(NAME).join("peers")).ok()
}

#[test]
fn a_full_or_read_only_state_directory_is_said_and_tunnels_go_on() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, mut sites) = two_sites(lab)?;
        let disk = lab.disk("state", "64k")?;
        begin(&mut hub, &mut sites)?;
        until_true("where the sites are is on the disk", || Ok(state(lab).is_some()))?;

        fill(&disk.join("other"));
        something_to_write(&hub, &mut sites[0])?;
        let said = |hub: &mut Hub, words: &str| {
            until_true(&format!("the hub says {words:?}"), || {
                Ok(hub.process()?.log().lines().any(|line| {
                    line.contains("could not save what is known of the sites")
                        && line.contains(words)
                        && line.contains("tunnels go on, but a restart may forget where sites are")
                }))
            })
        };
        said(&mut hub, "No space left on device")?;
        must_ping_both_ways(&sites[0], &sites[1])?;

        // With room again, it is written without anybody's help.
        let before = state(lab);
        ensure!(before.is_some(), "what was there is gone");
        fs::remove_file(disk.join("other"))?;
        until_true("what was not written is written now", || Ok(state(lab) != before))?;

        let remount =
            |how: &str| run(std::process::Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&disk));
        remount("ro")?;
        something_to_write(&hub, &mut sites[0])?;
        said(&mut hub, "Read-only file system")?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        // It ends in order all the same, and a hub that can't write starts.
        hub.restart()?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        remount("rw")?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_full_or_read_only_run_directory_is_said_before_anything_is_touched() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, mut sites) = two_sites(lab)?;
        let disk = lab.disk("run", "64k,nr_inodes=3")?;
        let refused = |hub: &mut Hub, words: &str| -> Result<()> {
            hub.spawn()?;
            let status = hub.process()?.end(ekiden_testbed::wait::PATIENCE)?;
            let log = hub.process()?.log();
            let last = log.lines().last().unwrap_or_default();
            ensure!(!status.success() && last.contains("/run/") && last.contains(words), "{status}: {last}");
            ensure!(!lab.pins().join(NAME).exists(), "it was refused after a port was touched");
            Ok(())
        };
        // Inodes are what a tmpfs of links and sockets runs out of: the root, the hub's directory, its lock, and no socket.
        fs::write(disk.join("other"), "")?;
        refused(&mut hub, "No space left on device")?;
        let remount =
            |how: &str| run(std::process::Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&disk));
        remount("ro")?;
        refused(&mut hub, "Read-only file system")?;
        remount("rw,nr_inodes=64,size=16m")?;
        begin(&mut hub, &mut sites)?;

        // Under a hub that runs, nothing more is needed of it.
        // (Its lock, which is open, keeps it writable.)
        fill(&disk.join("other"));
        something_to_write(&hub, &mut sites[0])?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn without_descriptors_the_api_waits_and_tunnels_go_on() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, mut sites) = two_sites(lab)?;
        begin(&mut hub, &mut sites)?;
        let pid = hub.process()?.pid();
        let limit = |soft: &str| {
            run(std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]))
        };
        let open = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        // Room for two more, and five who want one and say nothing.
        limit(&(open + 2).to_string())?;
        let socket = lab.directory().join("run").join(NAME).join("api.sock");
        let idle: Vec<UnixStream> = (0..5).map(|_| UnixStream::connect(&socket)).collect::<Result<_, _>>()?;
        until_true("the hub says that it has no descriptor left", || {
            let log = hub.process()?.log();
            Ok(log.contains("could not accept a connection") && log.contains("Too many open files"))
        })?;
        // What is more, the sites get new sessions, and what is known of them can't be written now.
        sites[0].stop()?;
        sites[0].start()?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        drop(idle);
        until_true("who asks is answered again", || Ok(hub.status().is_ok()))?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn too_few_descriptors_or_no_memory_for_packets_are_said_at_the_start() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, mut sites) = two_sites(lab)?;
        // (the limit, what is said)
        for (limit, words) in [
            ("--nofile=8", "Too many open files"),
            ("--as=30000000", "packet memory"),
            ("--fsize=65536", "packet memory"),
        ] {
            hub.start_by(&["prlimit", limit, "--"]);
            hub.spawn()?;
            let status = hub.process()?.end(ekiden_testbed::wait::PATIENCE)?;
            let log = hub.process()?.log();
            let last = log.lines().last().unwrap_or_default();
            ensure!(!status.success() && last.contains(words), "{limit}: {status}: {last}");
        }
        // Memory that is locked for the sockets is not bounded by the limit: CAP_IPC_LOCK is one of the five that it keeps.
        hub.start_by(&["prlimit", "--memlock=0", "--"]);
        hub.start()?;
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}
