//! A graph as a picture: what is drawn where, and then the same as SVG or PNG.

mod axes;
mod paint;

use super::data::{Content, Data, Figures, Reason, grouped, local};
use super::glyphs::Fonts;
use super::series::Interval;
use crate::status::table::count;
use anyhow::Result;
use axes::{Unit, clock_label, clock_ticks, value_ticks};
use chrono::TimeZone;
use paint::{Mark, Text};
use std::fmt::Display;

/// A colour, as red, green and blue.
type Rgb = (u8, u8, u8);

const WHITE: Rgb = (255, 255, 255);
const INK: Rgb = (34, 34, 34);
const GREY: Rgb = (102, 102, 102);
const GRID: Rgb = (222, 222, 222);
const HOLE: Rgb = (236, 236, 236);
const HATCH: Rgb = (200, 200, 200);
/// Colours by Okabe and Ito (2008), which people of any colour vision tell apart; in this order also by lightness.
const COLOURS: [Rgb; 6] = [(0, 114, 178), (213, 94, 0), (86, 180, 233), (0, 128, 96), (230, 159, 0), (204, 121, 167)];

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = WIDTH - 132.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 364.0;
/// Lines of the table and of the notes.
const LINE: f64 = 19.0;

/// The picture as SVG. Letters are the viewer's: any sans-serif font will do.
pub(super) fn svg<Z: TimeZone<Offset: Display>>(data: &Data, zone: &Z) -> Result<String> {
    let (marks, height) = scene(data, zone, &Fonts::own()?);
    paint::svg(&marks, (WIDTH, height))
}

/// The picture as PNG, and the letters that no font on this machine has.
pub(super) fn png<Z: TimeZone<Offset: Display>>(data: &Data, zone: &Z) -> Result<(Vec<u8>, String)> {
    let fonts = Fonts::for_text(&format!("{}{}{}", data.title, data.subtitle, data.hub))?;
    let (marks, height) = scene(data, zone, &fonts);
    Ok((paint::png(&marks, (WIDTH, height), &fonts)?, fonts.missing))
}

/// All marks, those above others later, and the height that they take.
fn scene<Z: TimeZone<Offset: Display>>(data: &Data, zone: &Z, fonts: &Fonts) -> (Vec<Mark>, f64) {
    let mut marks = Vec::new();
    titles(&mut marks, data, zone, fonts);
    let mut y = match &data.content {
        Content::Traffic(intervals) => traffic(&mut marks, data, intervals, zone),
        Content::Drops(reasons) => drops(&mut marks, data, &grouped(reasons), zone),
    };
    y += 6.0;
    for note in &data.notes {
        y += LINE - 2.0;
        marks.push(Text::new(LEFT, y, 11.0, GREY, note).mark());
    }
    (marks, y + 20.0)
}

fn titles<Z: TimeZone<Offset: Display>>(marks: &mut Vec<Mark>, data: &Data, zone: &Z, fonts: &Fonts) {
    let room = WIDTH - LEFT - 24.0;
    let title = fit(&data.title, 18.0, true, room, fonts);
    marks.push(Text::new(LEFT, 26.0, 18.0, INK, &title).bold().mark());
    let (from, to) = (local(data.window.start, zone), local(data.window.end, zone));
    let until = if from.date_naive() == to.date_naive() { "%H:%M:%S %:z" } else { "%-d %b %Y %H:%M:%S %:z" };
    let subtitle = format!(
        "{} · hub {} · {} to {} · averages over {}",
        data.subtitle,
        data.hub,
        from.format("%-d %b %Y %H:%M:%S"),
        to.format(until),
        axes::span(data.step_ns),
    );
    marks.push(Text::new(LEFT, 48.0, 12.0, GREY, &fit(&subtitle, 12.0, false, room, fonts)).mark());
}

/// Text, cut so that it is not wider than the room for it.
fn fit(text: &str, size: f32, bold: bool, room: f64, fonts: &Fonts) -> String {
    let mut letters: Vec<char> = text.chars().collect();
    let mut cut = text.to_owned();
    while f64::from(fonts.width(&cut, size, bold)) > room && letters.pop().is_some() {
        cut = letters.iter().chain(&['…']).collect();
    }
    cut
}

/// The frame in which curves are drawn.
struct Plot {
    window: std::ops::Range<u64>,
    /// The value at the upper edge.
    top: f64,
}

impl Plot {
    fn x(&self, wall_ns: u64) -> f64 {
        let part =
            wall_ns.saturating_sub(self.window.start) as f64 / (self.window.end - self.window.start).max(1) as f64;
        LEFT + part * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - value / self.top * (BOTTOM - TOP)
    }

    /// The grid, its labels, and the times of which nothing is known.
    fn new<Z: TimeZone<Offset: Display>>(marks: &mut Vec<Mark>, data: &Data, max: f64, unit: Unit, zone: &Z) -> Self {
        let ticks = value_ticks(max);
        let this = Self { window: data.window.clone(), top: ticks.top };
        holes(marks, &this, data);
        let scale = unit.scale(ticks.top);
        for value in ticks.values() {
            let y = this.y(value);
            marks.push(Mark::line(vec![(LEFT, y), (RIGHT, y)], GRID, 1.0));
            marks.push(Text::new(LEFT - 8.0, y, 12.0, INK, &scale.number(value, ticks.step)).right().mark());
        }
        marks.push(Text::new(LEFT - 8.0, TOP - 19.0, 12.0, INK, &scale.name).right().mark());
        let seconds = (data.window.end - data.window.start) / 1_000_000_000;
        let offset = |at: u64| local(at, zone).naive_local().and_utc().timestamp() - local(at, zone).timestamp();
        let (step, at) = clock_ticks(&data.window, seconds, offset(data.window.start));
        for wall_ns in at {
            let x = this.x(wall_ns);
            marks.push(Mark::line(vec![(x, BOTTOM), (x, BOTTOM + 5.0)], INK, 1.0));
            let label = clock_label(&local(wall_ns, zone), step);
            marks.push(Text::new(x, BOTTOM + 16.0, 12.0, INK, &label).middle().mark());
        }
        this
    }

    /// What is drawn over the curves.
    fn finish(marks: &mut Vec<Mark>) {
        marks.push(Mark::line(vec![(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], INK, 1.0));
    }
}

/// Grey where nothing is known, and a word where there is room for it.
fn holes(marks: &mut Vec<Mark>, plot: &Plot, data: &Data) {
    let intervals = data.intervals();
    for run in runs(intervals, |interval| interval.moved.is_none()) {
        let (left, right) = (plot.x(data.start(run.start)), plot.x(data.start(run.end)));
        marks.push(Mark::Steps {
            xs: vec![left, right],
            lower: vec![BOTTOM],
            upper: vec![TOP],
            colour: HOLE,
            alpha: 1.0,
        });
        let mut x = left - (BOTTOM - TOP);
        while right - left > 8.0 && x < right {
            // A stroke from the lower edge to the right and up, cut to the hole.
            let (from, to) = (x.max(left), (x + (BOTTOM - TOP)).min(right));
            if from < to {
                marks.push(Mark::line(vec![(from, BOTTOM - (from - x)), (to, BOTTOM - (to - x))], HATCH, 1.0));
            }
            x += 14.0;
        }
        if right - left > 90.0 {
            let (x, y) = ((left + right) / 2.0, (TOP + BOTTOM) / 2.0);
            let (xs, lower, upper) = (vec![x - 40.0, x + 40.0], vec![y + 11.0], vec![y - 11.0]);
            marks.push(Mark::Steps { xs, lower, upper, colour: HOLE, alpha: 1.0 });
            marks.push(Text::new(x, y, 12.0, GREY, "no records").middle().mark());
        }
    }
}

/// The longest runs of intervals that are such.
fn runs(intervals: &[Interval], such: impl Fn(&Interval) -> bool) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (i, _) in intervals.iter().enumerate().filter(|(_, interval)| such(interval)) {
        match runs.last_mut() {
            Some(run) if run.end == i => run.end += 1,
            _ => runs.push(i..i + 1),
        }
    }
    runs
}

/// Traffic in, as an area, and out, as a line; for both the average and the 95th percentile.
fn traffic<Z: TimeZone<Offset: Display>>(marks: &mut Vec<Mark>, data: &Data, intervals: &[Interval], zone: &Z) -> f64 {
    let directions = [("in", 1, COLOURS[0]), ("out", 3, COLOURS[1])];
    let rate = |bytes: u64| bytes as f64 * 8e9 / data.step_ns as f64;
    let figures = directions.map(|(_, at, _)| {
        Figures::of(intervals.iter().filter_map(|i| i.moved).map(|moved| moved[at]), 8.0, data.step_ns)
    });
    let max = figures.iter().flatten().map(|f| f.max).fold(0.0, f64::max);
    let plot = Plot::new(marks, data, max, Unit::Bits, zone);
    for (which, (_, at, colour)) in directions.into_iter().enumerate() {
        for run in runs(intervals, |interval| interval.moved.is_some()) {
            let xs: Vec<f64> = (run.start..=run.end).map(|i| plot.x(data.start(i))).collect();
            let moved = intervals[run].iter().filter_map(|interval| interval.moved);
            let upper: Vec<f64> = moved.map(|moved| plot.y(rate(moved[at]))).collect();
            let outline = outline(&xs, &upper);
            if which == 0 {
                marks.push(Mark::Steps { xs, lower: vec![BOTTOM; upper.len()], upper, colour, alpha: 0.25 });
            }
            marks.push(Mark::line(outline, colour, 1.25));
        }
    }
    Plot::finish(marks);
    let mut labels = Vec::new();
    for ((name, _, colour), figures) in directions.iter().zip(&figures) {
        let Some(figures) = figures else { continue };
        for (what, value, dash) in [("95th", figures.p95, 8.0), ("avg", figures.average, 2.0)] {
            let y = plot.y(value);
            marks.push(Mark::Line {
                points: vec![(LEFT, y), (RIGHT, y)],
                colour: *colour,
                width: 1.5,
                dash: Some(dash),
            });
            labels.push((y, *colour, format!("{what} {name} {}", Unit::Bits.short(value))));
        }
    }
    margin_labels(marks, labels);
    let rows = directions.iter().zip(&figures).map(|((name, _, colour), figures)| {
        let bits = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| Unit::Bits.long(value));
        let cells = vec![
            bits(figures.map(|f| f.average)),
            bits(figures.map(|f| f.p95)),
            bits(figures.map(|f| f.max)),
            figures.map_or_else(|| "-".into(), |f| Unit::Bytes.long(f.sum as f64)),
        ];
        ((*name).to_owned(), *colour, cells)
    });
    table(marks, ["average", "95th percentile", "maximum", "volume"], rows.collect())
}

/// The upper edge of steps.
fn outline(xs: &[f64], ys: &[f64]) -> Vec<(f64, f64)> {
    ys.iter().enumerate().flat_map(|(i, y)| [(xs[i], *y), (xs[i + 1], *y)]).collect()
}

/// Labels at the right edge, each beside its line or, where several would overlap, as near as there is room.
fn margin_labels(marks: &mut Vec<Mark>, mut labels: Vec<(f64, Rgb, String)>) {
    const APART: f64 = 15.0;
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut places: Vec<f64> = labels.iter().map(|(y, ..)| *y).collect();
    // From the bottom up, so that none is below the axis, then down where that pushed one out at the top.
    let mut limit = BOTTOM;
    for place in places.iter_mut().rev() {
        *place = place.min(limit);
        limit = *place - APART;
    }
    let mut limit = TOP;
    for place in &mut places {
        *place = place.max(limit);
        limit = *place + APART;
    }
    for ((y, colour, text), place) in labels.into_iter().zip(places) {
        marks.push(Mark::line(vec![(RIGHT, y), (RIGHT + 10.0, place)], colour, 1.0));
        marks.push(Text::new(RIGHT + 13.0, place, 11.0, colour, &text).mark());
    }
}

/// Drops, one reason above the other.
fn drops<Z: TimeZone<Offset: Display>>(marks: &mut Vec<Mark>, data: &Data, reasons: &[Reason], zone: &Z) -> f64 {
    let rate = |packets: u64| packets as f64 * 1e9 / data.step_ns as f64;
    let n = data.intervals().len();
    let packets = |reason: &Reason, i: usize| reason.1[i].moved.map_or(0, |moved| moved[0]);
    let sum = |i: usize| rate(reasons.iter().map(|reason| packets(reason, i)).fold(0, u64::saturating_add));
    let plot = Plot::new(marks, data, (0..n).map(sum).fold(0.0, f64::max), Unit::Packets, zone);
    for run in runs(data.intervals(), |interval| interval.moved.is_some()) {
        let xs: Vec<f64> = (run.start..=run.end).map(|i| plot.x(data.start(i))).collect();
        let mut under: Vec<u64> = vec![0; run.len()];
        for (reason, colour) in reasons.iter().zip(COLOURS) {
            let lower: Vec<f64> = under.iter().map(|packets| plot.y(rate(*packets))).collect();
            for (sum, i) in under.iter_mut().zip(run.clone()) {
                *sum = sum.saturating_add(packets(reason, i));
            }
            let upper: Vec<f64> = under.iter().map(|packets| plot.y(rate(*packets))).collect();
            let edge = outline(&xs, &upper);
            marks.push(Mark::Steps { xs: xs.clone(), lower, upper, colour, alpha: 0.85 });
            // Neighbours are apart by more than their colour.
            marks.push(Mark::line(edge, WHITE, 0.75));
        }
    }
    Plot::finish(marks);
    let rows = reasons.iter().zip(COLOURS).map(|(reason, colour)| {
        let known = reason.1.iter().filter_map(|interval| interval.moved).map(|moved| moved[0]);
        let figures = Figures::of(known, 1.0, data.step_ns);
        let packets = |value: Option<f64>| value.map_or_else(|| "-".into(), |value| Unit::Packets.long(value));
        let cells = vec![
            packets(figures.map(|f| f.average)),
            packets(figures.map(|f| f.p95)),
            packets(figures.map(|f| f.max)),
            figures.map_or_else(|| "-".into(), |f| count(f.sum)),
        ];
        (reason.0.clone(), colour, cells)
    });
    table(marks, ["average", "95th percentile", "maximum", "packets"], rows.collect())
}

/// The figures under the plot; says where the next line would be.
fn table(marks: &mut Vec<Mark>, headings: [&str; 4], rows: Vec<(String, Rgb, Vec<String>)>) -> f64 {
    let column = |i: usize| LEFT + 330.0 + i as f64 * 140.0;
    let mut y = BOTTOM + 48.0;
    for (i, heading) in headings.iter().enumerate() {
        marks.push(Text::new(column(i), y, 12.0, GREY, heading).right().mark());
    }
    for (name, colour, cells) in rows {
        y += LINE;
        let (xs, lower, upper) = (vec![LEFT, LEFT + 14.0], vec![y + 6.0], vec![y - 6.0]);
        marks.push(Mark::Steps { xs, lower, upper, colour, alpha: 0.85 });
        marks.push(Text::new(LEFT + 22.0, y, 12.0, INK, &name).mark());
        for (i, cell) in cells.iter().enumerate() {
            marks.push(Text::new(column(i), y, 12.0, INK, cell).right().mark());
        }
    }
    y
}
