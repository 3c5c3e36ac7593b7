//! What a graph is of: intervals of one length, and what is said about them.

use super::series::{Counts, Curve, Interval, started_ns};
use crate::config::nearest;
use crate::status::table::clean;
use anyhow::{Result, bail};
use stats::{Hub, Now, ReadError, Reader, Series, Site, Snapshot, Tenant};
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// A hub that has not ticked for so long is not there.
const GONE_NS: u64 = 5 * SECOND;
/// A picture has room for about so many intervals, and a table for not many more.
const INTERVALS: u64 = 400;
/// More would be no graph.
const MOST_INTERVALS: u64 = 100_000;
/// Lengths of intervals, in seconds.
const STEPS: [u64; 17] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 86_400];
/// So many reasons have a colour of their own.
const REASONS: usize = 6;

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted<'a> {
    Traffic { tenant: &'a str, site: Option<&'a str> },
    Lane(&'a str),
    Drops,
}

/// A graph, before it is drawn.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// The hub.
    pub(super) hub: String,
    /// Where the window begins and ends: ns since 1970, whole steps both.
    pub(super) window: std::ops::Range<u64>,
    pub(super) step_ns: u64,
    pub(super) content: Content,
    /// What is not shown, and why.
    pub(super) notes: Vec<String>,
}

#[derive(Debug)]
pub(super) enum Content {
    Traffic(Vec<Interval>),
    /// The most frequent first.
    Drops(Vec<Reason>),
}

/// A drop reason: its name, and its packets by interval.
pub(super) type Reason = (String, Vec<Interval>);

/// Figures of a series of rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) average: f64,
    /// The 95th percentile as it is billed: rates of all intervals in order, silent ones as zero, the highest 5 % struck
    /// off; the highest of the rest. Intervals of which nothing is known do not count.
    pub(super) p95: f64,
    pub(super) max: f64,
    pub(super) sum: u64,
}

impl Figures {
    /// Of what moved in each interval, in the unit of `factor`, by the second.
    pub(super) fn of(moved: impl Iterator<Item = u64>, factor: f64, step_ns: u64) -> Option<Self> {
        let mut all: Vec<u64> = moved.collect();
        all.sort_unstable();
        let n = all.len();
        let max = *all.last()?;
        let p95 = all[(n * 95).div_ceil(100).max(1) - 1];
        let sum = all.iter().fold(0_u64, |sum, one| sum.saturating_add(*one));
        let seconds = step_ns as f64 / SECOND as f64;
        let rate = |moved: f64| moved * factor / seconds;
        Some(Self { average: rate(sum as f64 / n as f64), p95: rate(p95 as f64), max: rate(max as f64), sum })
    }
}

/// Reads what is wanted of the time before `now`.
pub(super) fn read(
    reader: &mut Reader,
    wanted: Wanted<'_>,
    last: Duration,
    step: Option<Duration>,
    now: Now,
) -> Result<Data> {
    let snapshot = reader.snapshot()?;
    let hub = &snapshot.hub;
    let last_ns = last.as_nanos() as u64;
    let found = match wanted {
        Wanted::Traffic { tenant, site } => {
            let tenant = find_tenant(&snapshot, tenant)?;
            let site = site.map(|site| find_site(&snapshot, tenant, site)).transpose()?;
            (Some(tenant), site)
        }
        Wanted::Lane(lane) => (None, Some(find_lane(&snapshot, lane)?)),
        Wanted::Drops => (None, None),
    };
    let series = match found {
        (_, Some(site)) if last_ns <= reader.history_span_ns(Series::Site(site.slot)) => Series::Site(site.slot),
        (_, Some(site)) => Series::SiteLong(site.slot),
        (Some(tenant), None) => Series::Tenant(tenant.slot),
        (None, None) => Series::Drop(0),
    };
    let period_ns = reader.history(series, 0)?.period_ns.max(1);
    let step_ns = step_of(last_ns, step, period_ns)?;
    let times = Times::of(hub, last_ns, step_ns, period_ns, now);
    let intervals = |series| -> Result<(Vec<Interval>, Option<u64>), ReadError> {
        let history = reader.history(series, 0)?;
        let oldest = history.records.first().filter(|_| history.missed > 0).map(|record| record.ns);
        Ok((Curve::of(&history, hub).intervals(times.from, step_ns, times.n), oldest))
    };

    let (content, oldest) = match found {
        (None, None) => drops(&snapshot, intervals)?,
        _ => {
            let (intervals, oldest) = intervals(series)?;
            (Content::Traffic(intervals), oldest)
        }
    };
    let (title, subtitle) = match found {
        (Some(tenant), site) => titles(tenant, site),
        (None, Some(lane)) => (format!("lane {}", clean(&lane.name)), "whole frames".into()),
        (None, None) => ("Dropped packets, by reason".into(), "all tenants".into()),
    };
    let window = times.wall(times.from)..times.wall(times.from + times.n as u64 * step_ns);
    let mut data = Data { title, subtitle, hub: clean(&hub.name), window, step_ns, content, notes: Vec::new() };
    if oldest.is_some() {
        data.forget_first();
    }
    data.notes = times.notes(hub, oldest, &data, now);
    Ok(data)
}

fn titles(tenant: &Tenant, site: Option<&Site>) -> (String, String) {
    let code = if tenant.service_code.is_empty() { tenant.id.to_string() } else { clean(&tenant.service_code) };
    let title = if tenant.label.is_empty() { code } else { format!("{code} · {}", clean(&tenant.label)) };
    match site {
        Some(site) => (title, format!("site {}", clean(&site.name))),
        None => (title, "all sites".into()),
    }
}

fn step_of(last_ns: u64, step: Option<Duration>, period_ns: u64) -> Result<u64> {
    if let Some(step) = step {
        let step_ns = step.as_nanos() as u64;
        if step_ns < period_ns {
            bail!("--step {step:?} is shorter than the time between two records here, {} s", period_ns / SECOND);
        }
        if step_ns > last_ns {
            bail!("--step is longer than --last");
        }
        if last_ns / step_ns > MOST_INTERVALS {
            bail!("--last has more than {MOST_INTERVALS} times --step");
        }
        return Ok(step_ns);
    }
    let enough = |step: &u64| *step * SECOND >= period_ns && last_ns / (*step * SECOND) <= INTERVALS;
    Ok(STEPS.into_iter().find(enough).unwrap_or(STEPS[STEPS.len() - 1]) * SECOND)
}

/// The window by the clock that can't be set, and how that one stands to the wall's.
struct Times {
    from: u64,
    n: usize,
    wall_offset: i128,
    alive: bool,
}

impl Times {
    fn of(hub: &Hub, last_ns: u64, step_ns: u64, period_ns: u64, now: Now) -> Self {
        let alive = !hub.ended && now.ns.saturating_sub(hub.ticked_ns) < GONE_NS;
        // Of a hub that lives, the window ends with what it has told; of one that does not, now.
        let end = if alive { hub.ticked_ns.saturating_sub(period_ns) } else { now.ns };
        let wall_offset = i128::from(now.wall_ns) - i128::from(now.ns);
        // Whole steps of the wall clock: 14:05:00, not 14:05:03.
        let wall_end = (i128::from(end) + wall_offset).max(0) as u64 / step_ns * step_ns;
        let end = (i128::from(wall_end) - wall_offset).max(0) as u64;
        let n = (last_ns / step_ns).max(1).min(end / step_ns);
        Self { from: end - n * step_ns, n: n as usize, wall_offset, alive }
    }

    fn wall(&self, ns: u64) -> u64 {
        (i128::from(ns) + self.wall_offset).max(0) as u64
    }

    /// Why there are gaps, in sentences.
    fn notes(&self, hub: &Hub, oldest: Option<u64>, data: &Data, now: Now) -> Vec<String> {
        let mut notes = Vec::new();
        let clock = |ns: u64| local(self.wall(ns), &chrono::Local).format("%H:%M:%S").to_string();
        let started = started_ns(hub);
        let started_inside = started > self.from;
        if started_inside {
            notes.push(format!("Nothing is known before {}: the hub started.", clock(started)));
        }
        if let Some(oldest) = oldest.filter(|oldest| self.wall(*oldest) > data.window.start && *oldest > started) {
            notes.push(format!("Records before {} have been overwritten.", clock(oldest)));
        }
        if !self.alive {
            let how = if hub.ended { "has ended" } else { "is gone" };
            let ago = now.ns.saturating_sub(hub.ticked_ns) / SECOND;
            notes.push(format!("The hub {how}: its last word is of {}, {ago} s ago.", clock(hub.ticked_ns)));
        }
        let unknown = data.unknown();
        if unknown > 0 && notes.is_empty() {
            notes.push("Some records are missing.".into());
        }
        if unknown > 0 {
            let all = data.intervals().len();
            notes.push(format!("{unknown} of {all} intervals are unknown, and count for nothing."));
        }
        notes
    }
}

/// A moment by a wall clock.
pub(super) fn local<Z: chrono::TimeZone>(wall_ns: u64, zone: &Z) -> chrono::DateTime<Z> {
    chrono::DateTime::from_timestamp_nanos(i64::try_from(wall_ns).unwrap_or(i64::MAX)).with_timezone(zone)
}

impl Data {
    /// The intervals of all that is shown.
    pub(super) fn intervals(&self) -> &[Interval] {
        match &self.content {
            Content::Traffic(intervals) => intervals,
            Content::Drops(reasons) => reasons.first().map_or(&[], |(_, intervals)| intervals),
        }
    }

    /// When interval `i` begins: ns since 1970.
    pub(super) fn start(&self, i: usize) -> u64 {
        self.window.start + i as u64 * self.step_ns
    }

    /// A full ring ends within the first three steps of a window as long as itself. That is no gap worth a word.
    fn forget_first(&mut self) {
        let gone = self.intervals().iter().take_while(|interval| interval.moved.is_none()).count();
        if (1..=3).contains(&gone) && gone < self.intervals().len() {
            self.window.start += gone as u64 * self.step_ns;
            match &mut self.content {
                Content::Traffic(intervals) => drop(intervals.drain(..gone)),
                Content::Drops(reasons) => reasons.iter_mut().for_each(|(_, intervals)| drop(intervals.drain(..gone))),
            }
        }
    }

    fn unknown(&self) -> usize {
        self.intervals().iter().filter(|interval| interval.moved.is_none()).count()
    }
}

/// The intervals of every reason that occurred in the window.
fn drops(
    snapshot: &Snapshot,
    intervals: impl Fn(Series) -> Result<(Vec<Interval>, Option<u64>), ReadError>,
) -> Result<(Content, Option<u64>)> {
    let mut oldest = None;
    let mut reasons = Vec::new();
    for drop in snapshot.drops.iter().filter(|drop| drop.packets > 0) {
        let (intervals, own) = intervals(Series::Drop(drop.number))?;
        oldest = oldest.max(own);
        let packets: u64 = intervals.iter().filter_map(|i| i.moved).map(|moved| moved[0]).sum();
        reasons.push((packets, (clean(&drop.name), intervals)));
    }
    if reasons.is_empty() {
        // Nothing ever was: the line is at zero all the same, and gaps are gaps.
        reasons.push((0, ("none".into(), intervals(Series::Drop(0))?.0)));
    }
    reasons.sort_by(|(a, (a_name, _)), (b, (b_name, _))| b.cmp(a).then_with(|| a_name.cmp(b_name)));
    // What did not occur in the window is not shown, but for one that shows that nothing did.
    let occurred = reasons.iter().filter(|(packets, _)| *packets > 0).count().max(1);
    reasons.truncate(occurred);
    // Unknown of one reason is unknown of all: rings of rare reasons reach back further than those of frequent ones.
    let known = |i: usize| reasons.iter().all(|(_, (_, intervals))| intervals[i].moved.is_some());
    let known: Vec<bool> = (0..reasons[0].1.1.len()).map(known).collect();
    let mut rows: Vec<Reason> = reasons.into_iter().map(|(_, row)| row).collect();
    for (_, intervals) in &mut rows {
        intervals.iter_mut().zip(&known).filter(|(_, known)| !**known).for_each(|(interval, _)| interval.moved = None);
    }
    Ok((Content::Drops(rows), oldest))
}

/// As many reasons as can be told apart by colour; the rest is together in the last.
pub(super) fn grouped(reasons: &[Reason]) -> Vec<Reason> {
    let (own, others) = reasons.split_at(if reasons.len() > REASONS { REASONS - 1 } else { reasons.len() });
    let mut rows = own.to_vec();
    if let Some(((_, first), more)) = others.split_first() {
        let mut sum = first.clone();
        for (_, more) in more {
            for (sum, more) in sum.iter_mut().zip(more) {
                sum.moved = sum.moved.zip(more.moved).map(|(a, b)| add(a, b));
            }
        }
        rows.push((format!("{} others", others.len()), sum));
    }
    rows
}

fn add(a: Counts, b: Counts) -> Counts {
    std::array::from_fn(|i| a[i].saturating_add(b[i]))
}

fn find_tenant<'a>(snapshot: &'a Snapshot, wanted: &str) -> Result<&'a Tenant> {
    if let Some(tenant) = snapshot.tenant(wanted) {
        return Ok(tenant);
    }
    let ids: Vec<String> = snapshot.tenants.iter().map(|tenant| tenant.id.to_string()).collect();
    let known = snapshot.tenants.iter().map(|tenant| tenant.service_code.as_str()).filter(|code| !code.is_empty());
    let near = nearest(wanted, known.chain(ids.iter().map(String::as_str)));
    bail!("hub {} has no tenant with the id or service code {wanted:?}{}", clean(&snapshot.hub.name), hint(near))
}

fn find_site<'a>(snapshot: &'a Snapshot, tenant: &'a Tenant, wanted: &str) -> Result<&'a Site> {
    if let Some(site) = snapshot.sites_of(tenant).find(|site| site.name == wanted) {
        return Ok(site);
    }
    let names: Vec<&str> = snapshot.sites_of(tenant).map(|site| site.name.as_str()).collect();
    let code = if tenant.service_code.is_empty() { tenant.id.to_string() } else { clean(&tenant.service_code) };
    let near = match nearest(wanted, names.iter().copied()) {
        Some(near) => hint(Some(near)),
        None if names.len() <= 10 => format!("; it has {}", clean(&names.join(", "))),
        None => String::new(),
    };
    bail!("tenant {code} has no site {wanted:?}{near}")
}

fn find_lane<'a>(snapshot: &'a Snapshot, wanted: &str) -> Result<&'a Site> {
    if let Some((lane, _)) = snapshot.lanes().find(|(lane, _)| lane.name == wanted) {
        return Ok(lane);
    }
    let near = nearest(wanted, snapshot.lanes().map(|(lane, _)| lane.name.as_str()));
    bail!("hub {} has no lane {wanted:?}{}", clean(&snapshot.hub.name), hint(near))
}

fn hint(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; did you mean {:?}?", clean(near)))
}
