//! All hubs in one lab, in one run.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::frames::{SIZES, Size};
use super::hubs::Kind;
use super::machine::{Machine, Parts, parts, stolen};
use super::measure::{carried, latency, median, progress, rates};
use super::page;
use super::rig::{Options, Rig};

/// How much of it.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds of floods, each of all hubs in turn.
    pub rounds: usize,
    /// Floods of a hub and a size in a round.
    pub floods: usize,
    /// How long latencies are taken at a load.
    pub latency: Duration,
    /// Sizes for which NDR and PDR are searched.
    pub searched: Vec<Size>,
    /// The size of the packets whose latency is taken.
    pub latency_size: Size,
    /// The sink's work is deferred, for all hubs.
    pub defer: bool,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            rounds: 3,
            floods: 1,
            latency: Duration::from_secs(2),
            searched: vec![Size::of(64), Size::of(512), Size::of(1420)],
            latency_size: Size::of(512),
            defer: false,
        }
    }
}

/// Loads at which latency is taken, as shares of a hub's own PDR.
pub(super) const SHARES: [f64; 3] = [0.1, 0.5, 0.9];

/// What was found of a hub and a size.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) size: Size,
    /// What it carries while it is flooded, packets a second: the median of the rounds.
    pub(super) carried: f64,
    /// The same against the ceiling of the same round.
    pub(super) share: f64,
    /// NDR and PDR, where they were looked for.
    pub(super) rates: Option<[f64; 2]>,
}

/// Latency of a hub at a share of its PDR.
#[derive(Clone, Debug)]
pub(super) struct Delay {
    pub(super) kind: Kind,
    pub(super) share: f64,
    pub(super) rate: f64,
    /// p50, p99 and p99.9 in microseconds.
    pub(super) us: [f64; 3],
    pub(super) loss: f64,
}

/// All that is on the page.
pub(super) struct Comparison {
    pub(super) machine: Machine,
    pub(super) effort: Effort,
    pub(super) rows: Vec<Row>,
    pub(super) delays: Vec<Delay>,
    pub(super) model: Vec<(Size, Parts)>,
    pub(super) minutes: f64,
    /// The share of the hub's core that the host took away meanwhile.
    pub(super) stolen: f64,
}

/// Compares all hubs, and writes what was found into this directory.
///
/// # Errors
/// What kept a hub from running.
pub fn compare(directory: &Path, effort: &Effort) -> Result<()> {
    let (begin, ticks) = (Instant::now(), stolen());
    let sizes: Vec<Size> = SIZES.into_iter().map(Size::of).chain([Size::imix()]).collect();
    let options = Options { defer: effort.defer, ..Options::default() };

    // 1. What the same code takes in memory: the model of a NIC that copies nothing.
    progress("the journey in memory");
    let model = sizes.iter().map(|size| (size.clone(), parts(size))).collect();
    let (rows, delays) = (Vec::new(), Vec::new());
    let mut found =
        Comparison { machine: Machine::this(), effort: effort.clone(), rows, delays, model, minutes: 0.0, stolen: 0.0 };
    // Written as often as something is added: who stops it has what was found by then.
    let write = |found: &mut Comparison| {
        let now = stolen();
        found.stolen = (now.0 - ticks.0) as f64 / (now.1 - ticks.1).max(1) as f64;
        found.minutes = begin.elapsed().as_secs_f64() / 60.0;
        page::write(directory, found)
    };

    // 2. Floods, in turn: what disturbs one round disturbs all hubs of it.
    let mut rounds: Vec<Vec<Vec<f64>>> = Vec::new(); // [round][hub][size]
    for round in 1..=effort.rounds {
        let mut hubs = Vec::new();
        for kind in Kind::ALL {
            progress(&format!("floods, round {round} of {}: {}", effort.rounds, kind.name()));
            let mut rig = Rig::new(kind, &sizes[0], &options).with_context(|| kind.name())?;
            let each = sizes.iter().map(|size| {
                rig.resize(size);
                carried(&mut rig, kind, effort.floods)
            });
            hubs.push(each.collect::<Result<Vec<f64>>>().with_context(|| kind.name())?);
        }
        rounds.push(hubs);
    }
    for (hub, kind) in Kind::ALL.into_iter().enumerate() {
        for (number, size) in sizes.iter().enumerate() {
            let of = |hub: usize| rounds.iter().map(move |round| round[hub][number]);
            let share = median(of(hub).zip(of(0)).map(|(this, ceiling)| this / ceiling).collect());
            found.rows.push(Row { kind, size: size.clone(), carried: median(of(hub).collect()), share, rates: None });
        }
    }

    write(&mut found)?;

    // 3. What each carries without loss, and with little; and how long it takes then.
    for kind in Kind::ALL {
        let mut rig = Rig::new(kind, &sizes[0], &options).with_context(|| kind.name())?;
        for size in &effort.searched {
            rig.resize(size);
            let [ndr, pdr] = rates(&mut rig, kind)?.map(|found| found.load());
            if let Some(row) = found.rows.iter_mut().find(|row| row.kind == kind && row.size == *size) {
                row.rates = Some([ndr, pdr]);
            }
            if *size == effort.latency_size {
                for share in SHARES {
                    let (times, loss) = latency(&mut rig, share * pdr, effort.latency)?;
                    let us = [0.5, 0.99, 0.999].map(|quantile| times.value_at_quantile(quantile) as f64 / 1e3);
                    found.delays.push(Delay { kind, share, rate: share * pdr, us, loss });
                }
            }
        }
        write(&mut found)?;
    }
    Ok(())
}
