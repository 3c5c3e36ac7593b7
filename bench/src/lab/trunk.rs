//! What a trunk costs on the wire, by its cipher, against the relay between two sites of one hub.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use crypto::aead::Cipher;
use dataplane::config::cipher_name;

use super::frames::Size;
use super::hubs::{Kind, LANES};
use super::measure::{carried, median, progress};
use super::rig::{Between, Options, Rig};
use super::trial::Plot;

/// Floods of each size in a round: their median counts.
const FLOODS: usize = 3;
/// How much more than what was carried of a flood is offered then, and how many frames.
const MORE: f64 = 1.2;
const FRAMES: f64 = 150_000.0;
/// Of inner packets: enough for all lanes.
const FLOWS: u16 = 64;

/// As tables call what packets go between.
fn name(between: Between) -> String {
    let cipher = between.cipher().map_or("", cipher_name);
    match between {
        Between::Sites => "site to site, one hub".to_owned(),
        Between::ToTrunk(_) => format!("site to trunk, {cipher}"),
        Between::FromTrunk(_) => format!("trunk to site, {cipher}"),
        Between::Hubs(_) => format!("site to site, two hubs, {cipher}"),
    }
}

/// Rounds of all of it in turn. One hub on the hub's core between a site and the lab, which is the other hub; and two hubs, which share that
/// core: what they take for a packet is what both take.
pub fn trunk(out: &mut impl Write, sizes: &[Size], ciphers: &[Cipher], rounds: usize) -> Result<()> {
    let ways = [Between::ToTrunk, Between::FromTrunk, Between::Hubs];
    let by_trunk = ways.into_iter().flat_map(|way| ciphers.iter().map(move |cipher| way(*cipher)));
    let all: Vec<Between> = std::iter::once(Between::Sites).chain(by_trunk).collect();
    let mut found = vec![vec![Vec::new(); sizes.len()]; all.len()];
    for round in 1..=rounds {
        // The other way round each second time, or a machine that becomes slower would favour the first.
        let mut order: Vec<usize> = (0..all.len()).collect();
        if round % 2 == 0 {
            order.reverse();
        }
        for number in order {
            let name = name(all[number]);
            progress(&format!("round {round} of {rounds}: {name}"));
            let options = Options { flows: FLOWS, between: all[number], ..Options::default() };
            let mut rig = Rig::new(Kind::Ekiden, &sizes[0], &options).with_context(|| name.clone())?;
            for (size, found) in sizes.iter().zip(&mut found[number]) {
                rig.resize(size);
                let carried = most(&mut rig, all[number]).with_context(|| name.clone())?;
                found.push(1e9 / carried.max(1.0));
            }
        }
    }

    let rows = sizes.iter().enumerate().flat_map(|(n, size)| {
        let found = &found;
        all.iter().zip(found).map(move |(between, times)| {
            let ratios: Vec<f64> = times[n].iter().zip(&found[0][n]).map(|(this, relay)| this / relay).collect();
            let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
            let time = median(times[n].clone());
            [
                size.name.clone(),
                name(*between),
                format!("{:.0} kpps", 1e6 / time),
                format!("{time:.0} ns"),
                format!("{:.2}", median(ratios)),
                each.join(", "),
            ]
        })
    });
    let head = ["B", "way", "carried, median", "a packet", "against site to site, one hub: median", "each round"];
    table(out, &head, &rows.collect::<Vec<_>>())?;
    writeln!(out, "\nA trunk has {LANES} lanes; {FLOWS} flows.")?;
    Ok(())
}

/// What is carried while more is offered, packets a second. Of a flood two hubs on one core carry less than they can, since the first works for
/// packets that the second then has no time for: they are offered just more than was carried, too.
fn most(rig: &mut Rig, between: Between) -> Result<f64> {
    let most = carried(rig, Kind::Ekiden, FLOODS)?;
    let Between::Hubs(_) = between else { return Ok(most) };
    let load = most * MORE;
    let plot = Plot::rate(load, Duration::from_secs_f64(FRAMES / load));
    let each = (0..FLOODS).map(|_| Ok(rig.trial(&plot)?.carried));
    Ok(most.max(median(each.collect::<Result<_>>()?)))
}

/// A table whose columns are as wide as what is in them.
fn table<const N: usize>(out: &mut impl Write, head: &[&str; N], rows: &[[String; N]]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let mut line = |cells: &mut dyn Iterator<Item = &str>| -> Result<()> {
        let cells = cells.enumerate().map(|(column, cell)| format!(" {cell:<width$} |", width = width(column)));
        Ok(writeln!(out, "|{}", cells.collect::<String>())?)
    };
    line(&mut head.iter().copied())?;
    let rules: Vec<String> = (0..N).map(|column| "-".repeat(width(column))).collect();
    line(&mut rules.iter().map(String::as_str))?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}
