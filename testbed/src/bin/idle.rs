//! What an idle policy costs and what it brings: a table for docs/bench/workers.md.
//!
//! `cargo run --release -p ekiden-testbed --bin idle`, as root, on a machine with two cores. The worker has core 1. Two sites in the hands
//! of this program send a packet each millisecond; latency is from the call that sends it at one to the call that returns it at the other,
//! the wires and wake-ups of the lab included. Policies take turns, several times.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::rogue::{Rogue, udp};
use ekiden_testbed::{Hub, Lab, Plan, Site, World};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

const POLICIES: [&str; 3] = ["spin", "adaptive", "interrupt"];
const ROUNDS: usize = 3;
/// Of each round.
const PACKETS: u32 = 5000;
/// For which nothing is sent.
const REST: Duration = Duration::from_secs(5);

/// What was found of one policy.
#[derive(Default)]
struct Found {
    latency: Vec<Duration>,
    /// CPU time by time, while nothing is sent and while packets are.
    at_rest: Vec<f64>,
    at_work: Vec<f64>,
}

fn main() -> Result<()> {
    let all = sched_getaffinity(None)?;
    let mut found: [Found; 3] = Default::default();
    for round in 1..=ROUNDS {
        for (policy, found) in POLICIES.into_iter().zip(&mut found) {
            let _ = writeln!(std::io::stderr(), "round {round} of {ROUNDS}: {policy}");
            let mut lab = Lab::new()?;
            // What is started here inherits it.
            sched_setaffinity(None, &all)?;
            measure(&mut lab, policy, found).with_context(|| lab.logs())?;
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "| idle | latency at 1 kpps: p50 | p99 | p99.9 | CPU at rest | CPU at 1 kpps |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (policy, mut found) in POLICIES.into_iter().zip(found) {
        found.latency.sort_unstable();
        let at = |share: f64| found.latency[(found.latency.len() as f64 * share) as usize].as_nanos() as f64 / 1e3;
        let mean = |shares: &[f64]| 100.0 * shares.iter().sum::<f64>() / shares.len() as f64;
        writeln!(
            out,
            "| `{policy}` | {:.0} us | {:.0} us | {:.0} us | {:.1} % | {:.1} % |",
            at(0.5),
            at(0.99),
            at(0.999),
            mean(&found.at_rest),
            mean(&found.at_work)
        )?;
    }
    Ok(())
}

fn measure(lab: &mut Lab, idle: &'static str, found: &mut Found) -> Result<()> {
    let mut world = World::new(lab)?;
    let plans = [("a", 1), ("b", 2)].map(|(name, net)| Plan::new(1001, name, net));
    let sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
    let settings = Settings { idle: Some(idle), cores: Some(vec![1]), ..Settings::default() };
    let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
    hub.start()?;
    let mut core = CpuSet::new();
    core.set(0);
    sched_setaffinity(None, &core)?;
    let [mut a, mut b] = [Rogue::new(&sites[0])?, Rogue::new(&sites[1])?];
    b.connect()?;
    a.connect()?;
    hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;

    let began = hub.process()?.cpu_time()?;
    std::thread::sleep(REST);
    found.at_rest.push((hub.process()?.cpu_time()? - began).as_secs_f64() / REST.as_secs_f64());

    let packet = udp((sites[0].v4(), 9).into(), (sites[1].v4(), 9).into(), &[0; 64])?;
    b.received()?;
    let (begin, cpu) = (Instant::now(), hub.process()?.cpu_time()?);
    for n in 0..PACKETS {
        let message = a.seal(&packet)?;
        std::thread::sleep((begin + n * Duration::from_millis(1)).saturating_duration_since(Instant::now()));
        let sent = Instant::now();
        a.send(&message)?;
        b.await_data()?;
        found.latency.push(sent.elapsed());
    }
    found.at_work.push((hub.process()?.cpu_time()? - cpu).as_secs_f64() / begin.elapsed().as_secs_f64());
    Ok(())
}
