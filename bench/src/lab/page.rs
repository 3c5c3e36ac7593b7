//! The page of a comparison: a table in markdown, the same as CSV, and two plots.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::compare::{Comparison, SHARES};
use super::frames::Size;
use super::hubs::Kind;

/// Cycles that a driver and its rings take for a packet received and sent without a copy: an assumption, and no measurement of
/// ours. (af_xdp.rst and the papers on it show 20 to 25 Mpps of forwarding a core at about 3 GHz.)
const DRIVER_CYCLES: f64 = 150.0;

/// Writes `compare.md`, `compare.csv`, `compare-rate.svg` and `compare-latency.svg`.
pub(super) fn write(directory: &Path, found: &Comparison) -> Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::write(directory.join("compare.md"), markdown(found)?)?;
    std::fs::write(directory.join("compare.csv"), csv(found)?)?;
    rate_plot(&directory.join("compare-rate.svg"), found).map_err(|error| anyhow!("compare-rate.svg: {error}"))?;
    latency_plot(&directory.join("compare-latency.svg"), found).map_err(|error| anyhow!("compare-latency.svg: {error}"))
}

fn sizes(found: &Comparison) -> Vec<&Size> {
    found.rows.iter().filter(|row| row.kind == Kind::AfXdp).map(|row| &row.size).collect()
}

fn markdown(found: &Comparison) -> Result<String> {
    let mut out = String::new();
    let machine = &found.machine;
    let defer = if found.effort.defer { ", the sink's work deferred" } else { "" };
    writeln!(out, "# Hubs compared\n")?;
    writeln!(
        out,
        "Written by `make compare`, which takes about {:.0} minutes; not to be edited.\n",
        found.minutes.ceil()
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| machine | {}, {} cores, virtual |", machine.cpu, machine.cores)?;
    writeln!(out, "| kernel | Linux {} |", machine.kernel)?;
    writeln!(out, "| driver and mode | veth, native XDP, AF_XDP in copy mode{defer} |")?;
    writeln!(out, "| commit | {} |", machine.commit)?;
    writeln!(
        out,
        "| cores | the hub under test has core 1, generator and sink have core 0; wireguard-go, a third as fast on one, has both |"
    )?;
    writeln!(out, "| taken from core 1 by the host | {:.1} % |\n", 100.0 * found.stolen)?;
    writeln!(
        out,
        "**veth in copy mode is not a NIC.** Each frame is copied into packet memory and out of it again, and to transmit it costs the hub's \
         core more than a microsecond, most of it the kernel's work at the other end of the wire. So the ceiling of *any* hub here is what \
         AF_XDP forwards when nothing is done but an exchange of MAC addresses: the first line. Ratios say more than rates, and rates of \
         one page compare with nothing of another. What the same code takes without a wire is [below](#a-nic-that-copies-nothing).\n"
    )?;

    writeln!(out, "## What a hub carries while it is offered more\n\n![rates](compare-rate.svg)\n")?;
    writeln!(
        out,
        "From one site to another, inner packets of so many bytes, Mpps and the share of the ceiling; medians of {} rounds in which hubs took turns. \
         IMIX is 28 packets of 64 bytes to 16 of 570 and 4 of 1420 (1518 cut to what a tunnel takes). The kernel forwards packets \
         that nobody sealed.\n",
        found.effort.rounds
    )?;
    let sizes = sizes(found);
    writeln!(out, "| hub | {} |", sizes.iter().map(|size| size.name.clone()).collect::<Vec<_>>().join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(sizes.len()))?;
    for kind in Kind::ALL {
        let cells = found.rows.iter().filter(|row| row.kind == kind);
        let cells = cells.map(|row| format!("{:.3} ({:.2})", row.carried / 1e6, row.share));
        writeln!(out, "| {} | {} |", kind.name(), cells.collect::<Vec<_>>().join(" | "))?;
    }

    writeln!(out, "\n## What it carries without loss\n")?;
    writeln!(
        out,
        "NDR (no packet lost) / PDR (at most 0.5 %), kpps, by a search after MLRsearch with trials of up to 0.5 s, of which half may fail: \
         a virtual machine stands still now and then.\n"
    )?;
    let searched = &found.effort.searched;
    writeln!(out, "| hub | {} |", searched.iter().map(|size| size.name.clone()).collect::<Vec<_>>().join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(searched.len()))?;
    for kind in Kind::ALL {
        let cells = found.rows.iter().filter(|row| row.kind == kind).filter_map(|row| row.rates);
        let cells = cells.map(|[ndr, pdr]| format!("{:.0} / {:.0}", ndr / 1e3, pdr / 1e3));
        writeln!(out, "| {} | {} |", kind.name(), cells.collect::<Vec<_>>().join(" | "))?;
    }

    writeln!(out, "\n## Latency\n\n![latency](compare-latency.svg)\n")?;
    writeln!(
        out,
        "Packets of {} bytes, from the generator to the sink, both wires and the kernel at both ends included: p50 / p99 / p99.9 in \
         microseconds, at shares of each hub's own PDR.\n",
        found.effort.latency_size.name
    )?;
    writeln!(out, "| hub | {} |", SHARES.map(|share| format!("{:.0} %", 100.0 * share)).join(" | "))?;
    writeln!(out, "|---|{}", "---|".repeat(SHARES.len()))?;
    for kind in Kind::ALL {
        let cells = found.delays.iter().filter(|delay| delay.kind == kind).map(|delay| {
            let [p50, p99, p999] = delay.us;
            format!("{p50:.0} / {p99:.0} / {p999:.0} at {:.0} kpps", delay.rate / 1e3)
        });
        writeln!(out, "| {} | {} |", kind.name(), cells.collect::<Vec<_>>().join(" | "))?;
    }

    writeln!(out, "\n## A NIC that copies nothing\n")?;
    writeln!(
        out,
        "A model, not a measurement: cycles of Ekiden's whole journey in memory (measured in this run on core 1, batches of 64, of the \
         counter's {:.2} GHz), and {DRIVER_CYCLES:.0} assumed for a driver in zero-copy mode and its rings; one core.\n",
        found.model.first().map_or(0.0, |(_, parts)| parts.clock / 1e9)
    )?;
    writeln!(
        out,
        "| B | open + seal | journey | with the driver | Mpps a core | Gbit/s of inner packets |\n|---|---|---|---|---|---|"
    )?;
    for (size, parts) in &found.model {
        let cipher = (parts.open + parts.seal).as_secs_f64() * parts.clock;
        let all = parts.journey_cycles + DRIVER_CYCLES;
        let rate = parts.clock / all;
        let bits = rate * size.mean() * 8.0 / 1e9;
        let journey = parts.journey_cycles;
        writeln!(out, "| {} | {cipher:.0} | {journey:.0} | {all:.0} | {:.2} | {bits:.1} |", size.name, rate / 1e6)?;
    }
    Ok(out)
}

fn csv(found: &Comparison) -> Result<String> {
    let mut out = String::from("hub,bytes,what,value,unit\n");
    for row in &found.rows {
        let (hub, size) = (row.kind.name(), &row.size.name);
        writeln!(out, "{hub},{size},carried,{:.0},pps", row.carried)?;
        writeln!(out, "{hub},{size},share of the ceiling,{:.4},", row.share)?;
        if let Some([ndr, pdr]) = row.rates {
            writeln!(out, "{hub},{size},NDR,{ndr:.0},pps\n{hub},{size},PDR,{pdr:.0},pps")?;
        }
    }
    for delay in &found.delays {
        let (hub, size, share) = (delay.kind.name(), &found.effort.latency_size.name, 100.0 * delay.share);
        for (quantile, us) in ["p50", "p99", "p99.9"].into_iter().zip(delay.us) {
            writeln!(out, "{hub},{size},latency {quantile} at {share:.0} % of PDR,{us:.1},us")?;
        }
        writeln!(out, "{hub},{size},loss at {share:.0} % of PDR,{:.6},", delay.loss)?;
    }
    for (size, parts) in &found.model {
        writeln!(out, "Ekiden,{},journey in memory,{:.0},cycles", size.name, parts.journey_cycles)?;
        writeln!(
            out,
            "Ekiden,{},open,{},ns\nEkiden,{0},seal,{},ns",
            size.name,
            parts.open.as_nanos(),
            parts.seal.as_nanos()
        )?;
    }
    Ok(out)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

const PICTURE: (u32, u32) = (960, 420);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x9a, 0x9a, 0x9a),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0xff, 0x9f, 0x0e),
    RGBColor(0x5f, 0x4b, 0x8b),
];

/// Bars of all hubs, a group for each size.
fn rate_plot(path: &Path, found: &Comparison) -> Drawn {
    let sizes = sizes(found);
    let most = found.rows.iter().map(|row| row.carried / 1e6).fold(0.1, f64::max);
    let root = SVGBackend::new(path, PICTURE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Carried while offered more", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..sizes.len() as f64, 0.0..most * 1.25)?;
    let name = |at: &f64| group(*at, &sizes.iter().map(|size| size.name.as_str()).collect::<Vec<_>>());
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * sizes.len() + 1)
        .x_label_formatter(&name)
        .x_desc("bytes of the inner packet")
        .y_desc("Mpps")
        .draw()?;
    for (number, kind) in Kind::ALL.into_iter().enumerate() {
        let bars = found.rows.iter().filter(|row| row.kind == kind).enumerate().map(|(group, row)| {
            let left = group as f64 + 0.1 + 0.8 * number as f64 / 6.0;
            Rectangle::new([(left, 0.0), (left + 0.12, row.carried / 1e6)], COLOURS[number].filled())
        });
        let colour = COLOURS[number];
        chart
            .draw_series(bars)?
            .label(kind.name())
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// Three bars for each hub, at half of its PDR.
fn latency_plot(path: &Path, found: &Comparison) -> Drawn {
    let half: Vec<_> = found.delays.iter().filter(|delay| delay.share == 0.5).collect();
    let most = half.iter().map(|delay| delay.us[2]).fold(10.0, f64::max);
    let root = SVGBackend::new(path, PICTURE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Latency at half of each hub's PDR, {} B", found.effort.latency_size.name), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..half.len() as f64, (1.0..most * 2.0).log_scale())?;
    let name = |at: &f64| group(*at, &half.iter().map(|delay| delay.kind.name()).collect::<Vec<_>>());
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(2 * half.len() + 1)
        .x_label_formatter(&name)
        .y_desc("microseconds")
        .draw()?;
    for (number, quantile) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
        let colour = COLOURS[[2, 4, 1][number]];
        let bars = half.iter().enumerate().map(|(group, delay)| {
            let left = group as f64 + 0.15 + 0.7 * number as f64 / 3.0;
            Rectangle::new([(left, 1.0), (left + 0.2, delay.us[number].max(1.0))], colour.filled())
        });
        chart
            .draw_series(bars)?
            .label(quantile)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    root.present()?;
    Ok(())
}

/// The name of a group, in its middle.
fn group(at: f64, names: &[&str]) -> String {
    let middle = (at - at.floor() - 0.5).abs() < 0.01;
    names.get(at.floor() as usize).filter(|_| middle).map_or_else(String::new, |name| (*name).to_owned())
}
