//! What is promised of the hub's speed, each measured by one command, as lines of a table.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::frames::Size;
use super::hubs::{Kind, Running};
use super::machine::parts;
use super::measure::{carried, latency, median, progress, rates, short};
use super::rig::{Options, Rig};
use super::trial::{Load, Plot};

/// Floods of each hub in a pair: their median counts.
const FLOODS: usize = 5;
/// Cycles that a hub may take beside the forwarding of a frame and its cipher.
const OWN_CYCLES: f64 = 200.0;

/// The time that a hub takes for a packet, against what its parts take in the same minute: forwarding by AF_XDP, opening, sealing,
/// and 200 cycles. Pairs of the two labs, one after the other.
pub fn sum(out: &mut impl Write, sizes: &[Size], pairs: usize, defer: bool) -> Result<()> {
    let options = Options { defer, ..Options::default() };
    writeln!(
        out,
        "| B | forwarding | open | seal | 200 cycles | sum | hub | hub / sum, median | each pair | carried / ceiling |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|---|")?;
    let mut found: Vec<Vec<[f64; 6]>> = vec![Vec::new(); sizes.len()];
    for pair in 1..=pairs {
        // Who comes first changes, or a machine that becomes slower would favour one of them.
        let mut order = [Kind::AfXdp, Kind::Ekiden];
        if pair % 2 == 0 {
            order.reverse();
        }
        let mut times = vec![[0.0; 2]; sizes.len()];
        for kind in order {
            progress(&format!("pair {pair} of {pairs}: {}", kind.name()));
            let mut rig = Rig::new(kind, &sizes[0], &options)?;
            for (size, times) in sizes.iter().zip(&mut times) {
                rig.resize(size);
                times[usize::from(kind == Kind::Ekiden)] = 1e9 / carried(&mut rig, kind, FLOODS)?.max(1.0);
            }
        }
        for ((size, times), found) in sizes.iter().zip(&times).zip(&mut found) {
            let parts = parts(size);
            let own = OWN_CYCLES / parts.clock * 1e9;
            let (open, seal) = (parts.open.as_nanos() as f64, parts.seal.as_nanos() as f64);
            let sum = times[0] + open + seal + own;
            found.push([times[0], open, seal, own, times[1], times[1] / sum]);
        }
    }
    for (size, found) in sizes.iter().zip(found) {
        let of = |column: usize| median(found.iter().map(|row| row[column]).collect());
        let each: Vec<String> = found.iter().map(|row| format!("{:.2}", row[5])).collect();
        writeln!(
            out,
            "| {} | {:.0} ns | {:.0} ns | {:.0} ns | {:.0} ns | {:.0} ns | {:.0} ns | {:.2} | {} | {:.2} |",
            size.name,
            of(0),
            of(1),
            of(2),
            of(3),
            of(0) + of(1) + of(2) + of(3),
            of(4),
            of(5),
            each.join(", "),
            median(found.iter().map(|row| row[0] / row[4]).collect()),
        )?;
    }
    Ok(())
}

/// Half of the maximum for a while: nothing may be lost.
pub fn soak(out: &mut impl Write, kind: Kind, size: &Size, time: Duration, share: f64) -> Result<()> {
    let mut rig = Rig::new(kind, size, &Options::default())?;
    let most = carried(&mut rig, kind, FLOODS)?;
    let before = drops(&mut rig)?;
    let wire = rig.lost_after_the_hub()?;
    progress(&format!("{}: {:.0} kpps for {} s", kind.name(), share * most / 1e3, time.as_secs()));
    let outcome = rig.trial(&Plot::rate(share * most, time))?;
    writeln!(
        out,
        "{}, {} B, {:.0} kpps ({share} of {:.0}) for {:.1} s: {}; {} late; the wire behind the hub lost {}; starved {}",
        kind.name(),
        size.name,
        outcome.offered / 1e3,
        most / 1e3,
        outcome.sent as f64 / outcome.offered,
        short(&outcome),
        outcome.late,
        rig.lost_after_the_hub()? - wire,
        outcome.starved,
    )?;
    if outcome.lost() > 0 {
        let after = drops(&mut rig)?;
        writeln!(out, "the hub before and after: {before:?} {after:?}")?;
    }
    ensure!(outcome.lost() == 0, "{} packets were lost", outcome.lost());
    Ok(())
}

/// What a hub of ours says that it and its ports have lost.
fn drops(rig: &mut Rig) -> Result<Vec<(String, u64)>> {
    let Running::Ekiden(hub) = &mut rig.hub else { return Ok(Vec::new()) };
    let status = hub.status()?;
    let mut all: Vec<(String, u64)> = status.drops().into_iter().filter(|(_, count)| *count > 0).collect();
    for port in status.0["ports"].as_array().into_iter().flatten() {
        all.push((format!("{} ring_lost", port["name"]), port["ring_lost"].as_u64().unwrap_or(0)));
    }
    Ok(all)
}

/// The rate with many sites that all have sessions and traffic, against that with two.
pub fn sites(out: &mut impl Write, size: &Size, counts: &[usize], rounds: usize) -> Result<()> {
    let variants: Vec<(String, Options)> = counts
        .iter()
        .map(|count| (format!("{count} sites"), Options { pairs: (count / 2).max(1), ..Options::default() }))
        .collect();
    against_the_first(out, size, &variants, rounds)
}

/// The rate with many routes in the tenant's table, against that with few.
pub fn routes(out: &mut impl Write, size: &Size, counts: &[u32], rounds: usize) -> Result<()> {
    let variants: Vec<(String, Options)> = counts
        .iter()
        .map(|routes| (format!("{routes} routes"), Options { routes: *routes, ..Options::default() }))
        .collect();
    against_the_first(out, size, &variants, rounds)
}

fn against_the_first(out: &mut impl Write, size: &Size, variants: &[(String, Options)], rounds: usize) -> Result<()> {
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    let mut more: Vec<String> = vec![String::new(); variants.len()];
    for round in 1..=rounds {
        for (number, (name, options)) in variants.iter().enumerate() {
            progress(&format!("round {round} of {rounds}: {name}"));
            let begin = Instant::now();
            let mut rig = Rig::new(Kind::Ekiden, size, options)?;
            let ready = begin.elapsed();
            found[number].push(carried(&mut rig, Kind::Ekiden, FLOODS)?);
            let steady = rig.trial(&Plot::rate(found[number][0] / 2.0, Duration::from_secs(1)))?;
            more[number] =
                format!("{} | {} of {} | {:.1} s", short(&steady), steady.losers.0, options.pairs, ready.as_secs_f64());
        }
    }
    writeln!(
        out,
        "| {} B | carried, median | against the first, median | each round | at half of it | tunnels that lost | ready after |",
        size.name
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (number, (name, _)) in variants.iter().enumerate() {
        let ratios: Vec<f64> = found[number].iter().zip(&found[0]).map(|(this, first)| this / first).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let (rate, ratio) = (median(found[number].clone()), median(ratios));
        writeln!(out, "| {name} | {:.3} Mpps | {ratio:.2} | {} | {} |", rate / 1e6, each.join(", "), more[number])?;
    }
    Ok(())
}

/// Changes while packets pass: how long, all together, traffic was held up by them. Each kind of change has trials of its own, in turn
/// with as long ones without any.
pub fn changes(out: &mut impl Write, size: &Size, share: f64, rounds: usize) -> Result<()> {
    const REKEYS: u32 = 20;
    let time = Duration::from_secs(10);
    let mut rig = Rig::new(Kind::Ekiden, size, &Options::default())?;
    let Running::Ekiden(hub) = &rig.hub else { bail!("a hub of ours") };
    let (config, [run, ..]) = (hub.config().to_owned(), hub.places());
    let before = std::fs::read_to_string(&config)?;
    let (routes, sites) = (format!("{before}{}", tenant(1, 10_000)), format!("{before}{}", tenant(1000, 1)));
    let most = carried(&mut rig, Kind::Ekiden, FLOODS)?;
    let seconds = time.as_secs();
    writeln!(
        out,
        "| {} B, {share} of {:.0} kpps, {seconds} s | lost | late | effective blocked time |",
        size.name,
        most / 1e3
    )?;
    writeln!(out, "|---|---|---|---|")?;
    for round in 1..=rounds {
        let kinds = [
            ("nothing", 0, None),
            ("20 rekeys", REKEYS / 2, None),
            ("10,000 routes come, and go", 0, Some(&routes)),
            ("1,000 sites come, and go", 0, Some(&sites)),
        ];
        for (name, rekeys, other) in kinds {
            progress(&format!("round {round} of {rounds}: {name}"));
            let outcome = std::thread::scope(|scope| {
                // While packets pass: the other configuration, and the one before.
                let reloads = other.map(|other| {
                    scope.spawn(|| {
                        std::thread::sleep(time / 4);
                        reload(&config, &run, other)?;
                        std::thread::sleep(time / 4);
                        reload(&config, &run, &before)
                    })
                });
                let outcome = rig.trial(&Plot { rekeys, ..Plot::rate(share * most, time) });
                reloads.map_or(Ok(()), |reloads| reloads.join().expect("it doesn't panic"))?;
                outcome
            })?;
            let blocked = outcome.lost() as f64 / outcome.offered;
            let (lost, sent, late) = (outcome.lost(), outcome.sent, outcome.late);
            writeln!(out, "| round {round}: {name} | {lost} of {sent} | {late} | {:.3} ms |", blocked * 1e3)?;
        }
    }
    Ok(())
}

/// A tenant of so many sites, with so many routes each, in words of the configuration.
fn tenant(sites: u32, routes: u32) -> String {
    let mut text = "\n[[tenant]]\nid = 9000\nservice_code = \"WAN00009000\"\n".to_owned();
    for site in 0..sites {
        let mut private = [9; 32];
        private[4..8].copy_from_slice(&site.to_le_bytes()); // the lowest bits of the first mean nothing
        let identity = crypto::Identity::new(private);
        let key = identity.public();
        let net = |route: u32| format!("{}/32", std::net::Ipv4Addr::from_bits(10 << 24 | (site * routes + route)));
        let prefixes: Vec<_> = (0..routes).map(net).collect();
        text += &format!("\n[[tenant.site]]\nname = \"s{site}\"\npublic_key = \"{key}\"\nprefixes = {prefixes:?}\n");
    }
    text
}

fn reload(config: &Path, run: &Path, text: &str) -> Result<()> {
    std::fs::write(config, text)?;
    let output =
        std::process::Command::new(ekiden_testbed::hub::binary()?).arg("reload").arg("--run-dir").arg(run).output()?;
    ensure!(output.status.success(), "ekiden reload: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Memory that a session takes.
pub fn memory(out: &mut impl Write, sites: usize) -> Result<()> {
    let options = Options { pairs: sites / 2, ..Options::default() };
    progress(&format!("{sites} sites get sessions"));
    let mut rig = Rig::new(Kind::Ekiden, &Size::of(64), &options)?;
    let (before, after) = (rig.idle_memory, rig.hub.private_memory()?);
    // Traffic over all of them, so that what a session needs only then is there as well.
    rig.trial(&Plot::rate(100_000.0, Duration::from_secs(1)))?;
    let busy = rig.hub.private_memory()?;
    writeln!(out, "| {sites} sites | private memory | a session |\n|---|---|---|")?;
    writeln!(out, "| configured, no session | {before} KiB | |")?;
    let each = |now: u64| now.saturating_sub(before) as f64 / sites as f64;
    writeln!(out, "| all with a session | {after} KiB | {:.2} KiB |", each(after))?;
    writeln!(out, "| and with traffic | {busy} KiB | {:.2} KiB |", each(busy))?;
    Ok(())
}

/// Latency at shares of what a hub carries with a loss of no more than 0.5 %.
pub fn latencies(out: &mut impl Write, kinds: &[Kind], size: &Size, time: Duration, rounds: usize) -> Result<()> {
    writeln!(out, "| {} B | load | kpps | p50 | p99 | p99.9 | lost |\n|---|---|---|---|---|---|---|", size.name)?;
    for kind in kinds {
        let mut rig = Rig::new(*kind, size, &Options::default())?;
        let [_, pdr] = rates(&mut rig, *kind)?;
        for share in [0.1, 0.5, 0.9] {
            let mut rows: Vec<[f64; 4]> = Vec::new();
            for _ in 0..rounds {
                let (times, loss) = latency(&mut rig, share * pdr.load(), time)?;
                let at = |quantile| times.value_at_quantile(quantile) as f64 / 1e3;
                rows.push([at(0.5), at(0.99), at(0.999), loss]);
            }
            let of = |column: usize| median(rows.iter().map(|row| row[column]).collect());
            writeln!(
                out,
                "| {} | {:.0} % | {:.0} | {:.0} us | {:.0} us | {:.0} us | {:.3} % |",
                kind.name(),
                100.0 * share,
                share * pdr.load() / 1e3,
                of(0),
                of(1),
                of(2),
                100.0 * of(3)
            )?;
            out.flush()?;
        }
    }
    Ok(())
}

/// One trial, in words.
pub fn trial(out: &mut impl Write, kind: Kind, size: &Size, options: &Options, plot: &Plot, times: u32) -> Result<()> {
    let mut rig = Rig::new(kind, size, options)?;
    for _ in 0..times {
        let outcome = rig.trial(plot)?;
        let asked = match plot.load {
            Load::Rate(rate) => format!("{:.1} kpps asked for, ", rate / 1e3),
            Load::Flood => String::new(),
        };
        write!(
            out,
            "{} {} B: {asked}{:.1} offered, {:.1} carried; {}, {} late, {} of {} tunnels lost something (at most {})",
            kind.name(),
            size.name,
            outcome.offered / 1e3,
            outcome.carried / 1e3,
            short(&outcome),
            outcome.late,
            outcome.losers.0,
            options.pairs,
            outcome.losers.1,
        )?;
        if plot.samples > 0 {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| outcome.latency_us(quantile));
            write!(out, "; latency of {}: {p50:.1} / {p99:.1} / {p999:.1} us", outcome.latency.len())?;
        }
        writeln!(out)?;
    }
    Ok(())
}
