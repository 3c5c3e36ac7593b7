//! What is measured of a hub, from single trials.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;

use super::hubs::Kind;
use super::rig::Rig;
use super::search::{Found, Goal, search};
use super::trial::{Load, Outcome, Plot};

/// Nobody loses anything in a trial.
pub const NDR: Goal = Goal {
    loss: 0.0,
    width: 0.05,
    trial: Duration::from_millis(500),
    sum: Duration::from_secs(1),
    exceed: 0.5,
    phases: 2,
};
/// One in two hundred is lost.
pub const PDR: Goal = Goal { loss: 0.005, ..NDR };

/// More than any hub of this kind carries, packets a second: what it is flooded with.
pub fn overload(kind: Kind) -> f64 {
    match kind {
        Kind::Ekiden | Kind::AfXdp | Kind::Kernel => 1.6e6,
        Kind::WireguardGo | Kind::Boringtun | Kind::Gotatun => 2.5e5,
    }
}

/// What a hub carries while it is offered more: packets a second, the median of so many floods.
pub fn carried(rig: &mut Rig, kind: Kind, floods: usize) -> Result<f64> {
    let rate = overload(kind);
    let time = Duration::from_secs_f64((290_000.0 / rate).min(1.0));
    let each = (0..floods).map(|_| Ok(rig.trial(&Plot::rate(rate, time))?.carried));
    Ok(median(each.collect::<Result<_>>()?))
}

/// NDR and PDR, in this order.
pub fn rates(rig: &mut Rig, kind: Kind) -> Result<[Found; 2]> {
    let found = search((2_000.0, overload(kind)), &[NDR, PDR], |load, time| {
        let outcome = rig.trial(&Plot::rate(load, time))?;
        progress(&format!("{}: {:.0} kpps for {} ms: {}", kind.name(), load / 1e3, time.as_millis(), short(&outcome)));
        Ok::<_, anyhow::Error>(outcome.loss())
    })?;
    Ok([found[0], found[1]])
}

/// Latency at a load, in ns, and the share of packets that were lost.
pub fn latency(rig: &mut Rig, rate: f64, time: Duration) -> Result<(Histogram<u64>, f64)> {
    let plot = Plot { load: Load::Rate(rate.max(100.0)), time, samples: 20_000, rekeys: 0 };
    let outcome = rig.trial(&plot)?;
    Ok((outcome.latency.clone(), outcome.loss()))
}

/// The median; 0 of nothing.
pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    match all.len() {
        0 => 0.0,
        n if n % 2 == 1 => all[n / 2],
        n => (all[n / 2 - 1] + all[n / 2]) / 2.0,
    }
}

/// One line on a trial.
pub fn short(outcome: &Outcome) -> String {
    format!("{} of {} lost ({:.3} %)", outcome.lost(), outcome.sent, 100.0 * outcome.loss())
}

/// Says on the terminal how far it is, in a line that the next one replaces if somebody looks.
pub fn progress(text: &str) {
    let mut out = std::io::stderr();
    let end = if std::io::IsTerminal::is_terminal(&out) { "\x1b[K\r" } else { "\n" };
    let _ = write!(out, "{text}{end}");
    let _ = out.flush();
}
