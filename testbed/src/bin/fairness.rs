//! What a tenant that keeps its contract feels of another that floods: a table for docs/bench/fairness.md.
//!
//! `cargo run --release -p ekiden-testbed --bin fairness`, as root, on a machine with two cores. The worker has core 1, everything else core
//! 0. A packet each millisecond, alone and under the flood in turns; latency is from the call that sends it at one site to the call
//! that returns it at the other, the wires and wake-ups of the lab included.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ekiden_testbed::Lab;
use ekiden_testbed::fairness::{Fair, Talk};
use ekiden_testbed::hub::Settings;
use rustix::thread::{CpuSet, sched_setaffinity};

const ROUNDS: usize = 5;
/// Of each round.
const PACKETS: u32 = 5000;

fn main() -> Result<()> {
    let mut lab = Lab::new()?;
    let result = measure(&mut lab);
    result.with_context(|| lab.logs())
}

fn measure(lab: &mut Lab) -> Result<()> {
    let fair = Fair::new(lab, &Settings { cores: Some(vec![1]), ..Settings::default() })?;
    let mut core = CpuSet::new();
    core.set(0);
    sched_setaffinity(None, &core)?;
    let every = Duration::from_millis(1);
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let _ = writeln!(std::io::stderr(), "round {round} of {ROUNDS}");
        let alone = fair.talk(PACKETS, every)?;
        let (before, flood) = (fair.hub.status()?, fair.flood()?);
        let (begin, sent) = (Instant::now(), flood.sent());
        let flooded = fair.talk(PACKETS, every)?;
        let rate = (flood.sent() - sent) as f64 / begin.elapsed().as_secs_f64();
        let busy = fair.hub.status()?.0["workers"][0]["busy_share"].as_f64().unwrap_or_default();
        flood.stop()?;
        let after = fair.hub.balance()?;
        let shed = after.of_site(&fair.sites[2], "shed_packets")? - before.of_site(&fair.sites[2], "shed_packets")?;
        rounds.push((alone, flooded, rate, busy, shed));
    }
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "| round | alone: delivered | p50 | p99 | flooded: delivered | p50 | p99 | flood, a second | worker busy | of the flood shed |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
    let cells = |talk: &Talk| {
        let share = 100.0 * talk.latency.len() as f64 / f64::from(talk.sent);
        let us = |per_mille| talk.at(per_mille).as_nanos() as f64 / 1e3;
        format!("{share:.2} % | {:.0} us | {:.0} us", us(500), us(990))
    };
    for (n, (alone, flooded, rate, busy, shed)) in (1..).zip(&rounds) {
        let (alone, flooded, busy) = (cells(alone), cells(flooded), busy * 100.0);
        writeln!(out, "| {n} | {alone} | {flooded} | {rate:.0} | {busy:.0} % | {shed} |")?;
    }
    let median = |of: fn(&(Talk, Talk, f64, f64, u64)) -> &Talk| {
        let mut all: Vec<_> = rounds.iter().map(|round| of(round).at(990)).collect();
        all.sort_unstable();
        all[all.len() / 2].as_nanos() as f64 / 1e3
    };
    writeln!(out, "| median | | | {:.0} us | | | {:.0} us | | | |", median(|r| &r.0), median(|r| &r.1))?;
    Ok(())
}
