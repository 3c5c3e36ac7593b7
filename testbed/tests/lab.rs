//! The lab itself, and the demo: they show what they claim to, and leave nothing behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::probe::{echo, ping};
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Backbone, Lab, Plan, Site, Tap, World};
use rustix::process::{Pid, Signal, kill_process};

/// Everything on this machine that carries a maker's process id in its name.
fn traces(maker: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (directory, prefix) in [
        ("/run/netns", format!("ekiden-test-{maker}-")),
        ("/tmp", format!("ekiden-test-{maker}-")),
        ("/sys/fs/bpf", format!("ekiden-test-{maker}-")),
        ("/var/run/wireguard", format!("ek{maker}-")),
    ] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        found.extend(names.filter(|name| name.starts_with(&prefix)).map(|name| format!("{directory}/{name}")));
    }
    for process in fs::read_dir("/proc")?.flatten() {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        if words.contains(&format!("ekiden-test-{maker}-")) || words.contains(&format!("ek{maker}-")) {
            found.push(format!("{}: {words}", process.path().display()));
        }
    }
    Ok(found)
}

#[test]
fn a_lab_is_a_network_and_goes_without_a_trace() -> Result<()> {
    let mut lab = Lab::new()?;
    let name = lab.directory().file_name().context("a name")?.to_string_lossy().into_owned();
    let mut world = World::new(&mut lab)?;
    let mut sites =
        [("a", 1), ("b", 2)].into_iter().map(|(name, net)| Site::new(&mut lab, &mut world, Plan::new(1, name, net)));
    let (mut a, b) = (sites.next().context("a")??, sites.next().context("b")??);
    drop(sites);
    a.start()?;
    let tap = Tap::open(b.namespace(), "w0")?;
    let pings = echo(a.namespace(), b.host.address(false, 2), 2, &["-p", "decade"])?;
    ensure!(pings.all(), "{}", pings.text);
    ensure!(tap.count(|seen| !seen.outgoing && seen.contains(&[0xde, 0xca, 0xde, 0xde]))? == 2);
    let pings = echo(a.namespace(), "192.0.2.1".parse()?, 1, &[])?;
    ensure!(pings.all(), "the hub's address: {}", pings.text);
    let pings = ping(a.namespace(), b.host.address(false, 9), &["-c", "1", "-W", "1"])?;
    ensure!(pings.received == 0);

    ensure!(Path::new("/run/netns").join(format!("{name}-hub")).exists());
    let interface = a.interface.clone();
    ensure!(Path::new(&format!("/var/run/wireguard/{interface}.sock")).exists());
    drop((a, b, world, lab));
    let left: Vec<String> = traces(std::process::id())?
        .into_iter()
        .filter(|trace| trace.contains(&name) || trace.contains(&interface))
        .collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn hubs_beside_each_other_reach_each_other_until_their_ways_are_cut() -> Result<()> {
    ekiden_testbed::lab::test(|lab| {
        let backbone = Backbone::new(lab, 3)?;
        let worlds = &backbone.worlds;
        let socket = |hub: usize, at| worlds[hub].hub.inside(|| UdpSocket::bind(at));
        // Each lane by its port, and whether what is sent to it arrives.
        let arrives = |from: usize, to: usize, v6: bool| -> Result<[bool; 2]> {
            let mut found = [false; 2];
            for (lane, found) in [0, 1].into_iter().zip(&mut found) {
                let (source, sink) = (worlds[from].endpoint(v6, lane), worlds[to].endpoint(v6, lane));
                let into = socket(to, sink)??;
                into.set_read_timeout(Some(Duration::from_millis(300)))?;
                socket(from, source)??.send_to(b"hello", sink)?;
                *found = into.recv(&mut [0; 8]).is_ok();
            }
            Ok(found)
        };
        let pairs = [(0, 1), (1, 0), (1, 2), (2, 0)];
        let look = |from, to| -> Result<_> { Ok((arrives(from, to, false)?, arrives(from, to, true)?)) };
        for (cut, between_those) in [(None, [false, false]), (Some(HUB_PORT + 1), [true, false])] {
            for (from, to) in pairs {
                ensure!(look(from, to)? == ([true; 2], [true; 2]), "{from} to {to}");
            }
            backbone.cut(0, 1, cut)?;
            for (from, to) in pairs {
                let expected = if from + to == 1 { between_those } else { [true; 2] };
                ensure!(look(from, to)? == (expected, expected), "{from} to {to}, with {cut:?} cut");
            }
            backbone.heal(0, 1, cut)?;
        }
        Ok(())
    })
}

#[test]
fn the_demo_shows_that_all_is_as_it_should_be() -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_demo")).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let rows = |end: &str| text.lines().filter(|line| line.ends_with(end)).count();
    // Eight pings, four transfers, sixteen counts, two replays and their control; of each VLAN six pings, two transfers, two counts; and
    // a lane cut and healed.
    ensure!(rows("  yes") == 8 + 4 + 16 + 3 + 2 * 10 + 2 && rows("  NO") == 0, "{text}");
    Ok(())
}

#[test]
fn the_demo_cleans_up_after_ctrl_c() -> Result<()> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo")).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let maker = demo.id();
    let mut lines = BufReader::new(demo.stdout.take().context("a pipe")?).lines();
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("All four sites")))
        .context("the demo has come so far")??;
    let before = traces(maker)?;
    ensure!(before.len() > 10, "there is something to clean up: {before:?}");
    kill_process(Pid::from_child(&demo), Signal::INT)?;
    let status = demo.wait()?;
    ensure!(status.code() == Some(130), "{status}");
    ekiden_testbed::wait::until_true("its programs have ended", || Ok(traces(maker)?.is_empty()))
        .with_context(|| format!("left: {:?}", traces(maker)))
}
