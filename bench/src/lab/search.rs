//! The search for the load at which a hub begins to lose: after MLRsearch (draft-ietf-bmwg-mlrsearch), as FD.io's CSIT uses it.
//!
//! Several goals are pursued in one search, the strictest first, and all of them learn from every trial. A goal says which share
//! of packets may be lost (0: NDR; 0.5 %: PDR), how long trials have to be and how many of them may fail: machines pause, and a hub
//! is not to be judged by one pause. It is reached in phases: the first trials are short and their answer is coarse; each phase
//! halves the width of the answer, and its trials last longer, until they last as long as the goal demands.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The share of packets that may be lost.
    pub loss: f64,
    /// The widest answer: between a load that passes and one that does not, relative to the latter.
    pub width: f64,
    /// How long a trial must last to count in full.
    pub trial: Duration,
    /// How long all trials at a load must last together before it has passed.
    pub sum: Duration,
    /// The share of that time in which trials may have lost too much.
    pub exceed: f64,
    /// Coarser and shorter phases that come first.
    pub phases: u32,
}

/// What one trial showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Offered packets a second.
    pub load: f64,
    /// How long.
    pub time: Duration,
    /// The share of packets that were lost.
    pub loss: f64,
}

/// What was found for a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The highest load that passes; `None` if not even the least does.
    pub lower: Option<f64>,
    /// The lowest load above it that does not pass; `None` if the highest does.
    pub upper: Option<f64>,
}

impl Found {
    /// The answer: the highest load that passes, or 0.
    pub fn load(&self) -> f64 {
        self.lower.unwrap_or(0.0)
    }
}

/// More trials than this in a row mean that the trials contradict each other for ever.
const TRIALS_MAX: usize = 400;
/// How much wider than the goal's width the first steps are that leave what is known.
const STEP: f64 = 2.0;

/// What trials say of a load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Passes,
    Fails,
    Unknown,
}

/// Finds, for each goal, the highest load between two loads at which `trial(load, time)` loses no more than the goal allows. The
/// loss that it returns is a share of what was offered.
///
/// # Errors
/// The first error of a trial, which ends the search.
pub fn search<E>(
    (least, most): (f64, f64),
    goals: &[Goal],
    mut trial: impl FnMut(f64, Duration) -> Result<f64, E>,
) -> Result<Vec<Found>, E> {
    let mut trials: Vec<Trial> = Vec::new();
    let mut measure = |trials: &mut Vec<Trial>, load: f64, time: Duration| -> Result<f64, E> {
        let loss = trial(load, time)?;
        trials.push(Trial { load, time, loss });
        Ok(loss)
    };

    // 1. Flooded, and then offered what it carried when it was flooded: the answers are about there.
    if let Some(first) = goals.first().map(|goal| phase(goal, goal.phases)) {
        let loss = measure(&mut trials, most, first.trial)?;
        let carried = (most * (1.0 - loss)).clamp(least, most);
        if carried < most {
            measure(&mut trials, carried, first.trial)?;
        }
    }

    // 2. Each goal, phase by phase.
    let mut found = Vec::new();
    for goal in goals {
        let mut bounds = Found { lower: None, upper: None };
        for number in (0..=goal.phases).rev() {
            let goal = phase(goal, number);
            for _ in 0..TRIALS_MAX {
                bounds = of(&goal, &trials);
                match next(&goal, &bounds, &trials, least, most) {
                    Some(load) => measure(&mut trials, load, goal.trial)?,
                    None => break,
                };
            }
        }
        found.push(bounds);
    }
    Ok(found)
}

/// A goal as its phase `number` has it; 0 is the goal itself.
fn phase(goal: &Goal, number: u32) -> Goal {
    let (wider, shorter) = (f64::from(1 << number), 1 << (2 * number));
    Goal { width: goal.width * wider, trial: goal.trial / shorter, sum: goal.sum / shorter, phases: 0, ..*goal }
}

/// The bounds that trials prove: the lowest load that fails, and the highest below it that passes.
fn of(goal: &Goal, trials: &[Trial]) -> Found {
    let mut loads: Vec<f64> = trials.iter().map(|trial| trial.load).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    let upper = loads.iter().copied().find(|load| judge(goal, *load, trials) == Verdict::Fails);
    let below = |load: &f64| upper.is_none_or(|upper| *load < upper);
    let lower = loads.iter().copied().filter(below).rfind(|load| judge(goal, *load, trials) == Verdict::Passes);
    Found { lower, upper }
}

/// Whether a load passes, fails, or needs more trials.
fn judge(goal: &Goal, load: f64, trials: &[Trial]) -> Verdict {
    let mut full = [0.0; 2]; // seconds of trials that were long enough: good, bad
    let mut short = [0.0; 2]; // of others
    for trial in trials.iter().filter(|trial| trial.load == load) {
        let times = if trial.time >= goal.trial { &mut full } else { &mut short };
        times[usize::from(trial.loss > goal.loss)] += trial.time.as_secs_f64();
    }
    // Short trials never prove that a load passes. They speak against it as far as they are more than their good ones make up for.
    let made_up = short[0] * goal.exceed / (1.0 - goal.exceed);
    let bad = full[1] + (short[1] - made_up).max(0.0);
    let whole = (full[0] + bad).max(goal.sum.as_secs_f64());
    let allowed = whole * goal.exceed;
    if bad > allowed {
        Verdict::Fails
    } else if whole - full[0] <= allowed + 1e-9 {
        Verdict::Passes
    } else {
        Verdict::Unknown
    }
}

/// The load of the next trial; `None` once the goal is reached.
fn next(goal: &Goal, bounds: &Found, trials: &[Trial], least: f64, most: f64) -> Option<f64> {
    let undecided = |load: &f64| judge(goal, *load, trials) == Verdict::Unknown;
    // Loads that shorter trials have brought into question are settled before new ones are tried.
    let begun = |within: &dyn Fn(f64) -> bool| {
        let mut loads: Vec<f64> =
            trials.iter().map(|trial| trial.load).filter(|load| within(*load)).filter(undecided).collect();
        loads.sort_by(f64::total_cmp);
        loads.pop()
    };
    match (bounds.lower, bounds.upper) {
        (Some(lower), Some(upper)) if (upper - lower) / upper <= goal.width + 1e-9 => None,
        (Some(lower), Some(upper)) => {
            Some(begun(&|load| lower < load && load < upper).unwrap_or_else(|| (lower * upper).sqrt()))
        }
        (Some(lower), None) if lower >= most => None,
        (Some(lower), None) => {
            let step = (lower * (1.0 + STEP * goal.width)).min(most);
            Some(begun(&|load| load > lower).unwrap_or(step))
        }
        (None, Some(upper)) if upper <= least => None,
        (None, Some(upper)) => {
            // Steps grow, or a load far below would never be found.
            let tried = trials.iter().filter(|trial| trial.load >= upper && trial.loss > goal.loss).count() as i32;
            let step = (upper * (1.0 - STEP * goal.width).powi(tried.max(1))).max(upper / 2.0).max(least);
            Some(begun(&|load| load < upper).unwrap_or(step))
        }
        (None, None) => Some(begun(&|_| true).unwrap_or(most)),
    }
}
