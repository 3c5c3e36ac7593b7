//! `ekiden top` in a terminal, beside a hub that works.

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::terminal::Terminal;
use ekiden_testbed::{Hub, Iperf, Lab, Plan, Site, World, lab};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Two tenants with two sites each, their hub, and who watches it.
fn watched(lab: &mut Lab) -> Result<(World, Hub, Vec<Site>, Terminal)> {
    let mut world = World::new(lab)?;
    let mut sites = Vec::new();
    for (n, (tenant, name)) in [(1001, "a"), (1001, "b"), (1002, "c"), (1002, "d")].into_iter().enumerate() {
        sites.push(Site::new(lab, &mut world, Plan::new(tenant, name, 1 + n as u8))?);
    }
    let hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
    let run = hub.places()[0].display().to_string();
    let terminal = Terminal::ekiden(lab.directory(), &["top", "--run-dir", &run, "--interval", "200ms"])?;
    Ok((world, hub, sites, terminal))
}

/// The line of the list that begins so.
fn line<'a>(lines: &'a [String], name: &str) -> Option<&'a str> {
    lines.iter().skip(3).find(|line| line.starts_with(name)).map(String::as_str)
}

/// A column from the right, as a rate: `12.3M` is 12,300,000.
fn rate(line: &str, from_right: usize) -> Option<f64> {
    let word = line.split_whitespace().rev().nth(from_right)?;
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor =
        [("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9)].into_iter().find(|(unit, _)| *unit == &word[digits.len()..])?.1;
    Some(digits.parse::<f64>().ok()? * factor)
}

#[test]
fn traffic_is_seen_filtered_and_opened_and_the_terminal_is_left_as_it_was() -> Result<()> {
    lab::test(|lab| {
        let (_world, _hub, sites, mut terminal) = watched(lab)?;
        terminal
            .until("both tenants", |lines| line(lines, "WAN00001001").and(line(lines, "WAN00001002")).map(|_| ()))?;
        ensure!(terminal.look(vt100::Screen::alternate_screen), "it writes over what was on the screen");

        // Bits in and out are the fourth and third of the last five columns, packets the next two.
        let transfer = Iperf::start(&sites[0], &sites[1], sites[1].v4().into(), 5)?;
        let (bits, packets, idle) = terminal.until("the transfer's rate", |lines| {
            let busy = line(lines, "WAN00001001")?;
            let (bits, out, packets) = (rate(busy, 4)?, rate(busy, 3)?, rate(busy, 2)?);
            (bits > 1e6 && out > 1e6).then_some((bits, packets, rate(line(lines, "WAN00001002")?, 4)?))
        })?;
        ensure!(bits / packets > 40.0 * 8.0 && bits / packets < 9000.0 * 8.0, "{bits} bit/s in {packets} packets/s");
        ensure!(idle < 1e5, "tenant 1002 is idle, and shown with {idle} bit/s");
        // The chart of the selected tenant: there are bars in it.
        terminal.until("a chart", |lines| {
            lines[18..].iter().any(|line| line.contains('█') || line.contains('▂')).then_some(())
        })?;
        transfer.finish()?;

        terminal.press("/2")?;
        terminal
            .until("the other tenant is filtered out", |lines| line(lines, "WAN00001001").is_none().then_some(()))?;
        terminal.until("the filter's line", |lines| lines[23].starts_with("/2").then_some(()))?;
        terminal.press("\u{1b}")?;
        terminal.until("both again", |lines| line(lines, "WAN00001001").and(line(lines, "WAN00001002")).map(|_| ()))?;

        // By name, the first line, opened: its sites.
        terminal.press("ng\r")?;
        let (a, b) = terminal.until("the sites of tenant 1001", |lines| {
            lines[3].contains("(tenant 1001)").then_some(())?;
            let site = |name: &str| lines[5..].iter().find(|line| line[12..].trim_start().starts_with(name)).cloned();
            Some((site("a ")?, site("b ")?))
        })?;
        ensure!(a.contains("live") && b.contains("live"), "{a}\n{b}");
        ensure!(!terminal.lines()[5..18].iter().any(|line| line.starts_with("WAN00001002")), "another tenant's sites");

        terminal.resize(10, 40)?;
        terminal.until("the help line of a small screen", |lines| lines[9].starts_with("q quit").then_some(()))?;
        terminal.resize(30, 120)?;
        terminal.until("the help line of a larger one", |lines| lines[29].starts_with("q quit").then_some(()))?;

        terminal.press("q")?;
        let status = terminal.process.end(Duration::from_secs(30))?;
        ensure!(status.success(), "{status}");
        terminal.must_be_restored()
    })
}

#[test]
fn the_end_of_a_hub_is_said_and_the_next_one_found_and_a_signal_restores_the_terminal() -> Result<()> {
    lab::test(|lab| {
        let (_world, mut hub, _sites, terminal) = watched(lab)?;
        terminal.until("a hub that lives", |lines| lines[1].starts_with(" in  ").then_some(()))?;
        hub.kill()?;
        terminal
            .until("the hub is gone", |lines| lines[1].contains("THE HUB IS GONE OR STUCK: last tick").then_some(()))?;
        hub.start()?;
        terminal.until("the next hub", |lines| lines[1].starts_with(" in  ").then_some(()))?;
        hub.stop()?;
        terminal.until("an end in order", |lines| lines[1].contains("THE HUB HAS ENDED").then_some(()))?;

        let mut terminal = terminal;
        let status = terminal.process.stop(Signal::TERM)?;
        ensure!(status.signal() == Some(15), "{status}");
        terminal.must_be_restored()
    })
}

#[test]
fn without_a_terminal_it_says_so() -> Result<()> {
    let output =
        std::process::Command::new(ekiden_testbed::hub::binary()?).args(["top", "--stats", "/none"]).output()?;
    let said = String::from_utf8(output.stderr).context("UTF-8")?;
    ensure!(!output.status.success() && said.contains("needs a terminal"), "{said}");
    Ok(())
}
