//! The screen, from top to bottom.

use super::app::{App, Sort};
use super::rows::{Column, Key, Looks, View, plain, si, tenant_name};
use super::series::started_ns;
use crate::status::table::{count, duration};
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{HorizontalAlignment as Alignment, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar;
use ratatui::widgets::{Sparkline, Widget};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const HEADING: Style = Style::new().add_modifier(Modifier::UNDERLINED);
const ALARM: Style = Style::new().fg(Color::White).bg(Color::Red).add_modifier(Modifier::BOLD);
const IN: Style = Style::new().fg(Color::Cyan);
const OUT: Style = Style::new().fg(Color::Yellow);

/// Lines of the chart, with its title.
const CHART: u16 = 5;
/// A screen with fewer lines has no chart.
const LINES_FOR_CHART: u16 = 17;
/// Columns left of a chart.
const MARGIN: u16 = 14;
/// At most so many reasons under the sites of an opened tenant.
const REASONS: usize = 4;

const SPARKS: bar::Set<'_> = bar::NINE_LEVELS;
const ASCII_SPARKS: bar::Set<'_> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "*",
    five_eighths: "*",
    half: "+",
    three_eighths: "=",
    one_quarter: "-",
    one_eighth: ".",
    empty: " ",
};

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, app: &mut App) {
    let area = frame.area();
    let mut page = Page { buffer: frame.buffer_mut(), area, utf8: app.utf8 };
    let (width, height) = (area.width, area.height);
    header(&mut page, app);
    tabs(&mut page, app);
    let chart = if height >= LINES_FOR_CHART { CHART } else { 0 };
    let mut top = 3;
    let mut bottom = height.saturating_sub(1 + chart);
    if app.opened.is_some() {
        opened(&mut page, app, &mut top, &mut bottom);
    }
    list(&mut page, app, top, bottom);
    app.chart_width = width.saturating_sub(MARGIN).into();
    if chart > 0 {
        draw_chart(&mut page, app, height - 1 - chart);
    }
    help(&mut page, app, height.saturating_sub(1));
}

/// The hub, and what moves in all, or what is wrong.
fn header(page: &mut Page<'_>, app: &App) {
    let width = page.area.width;
    let Some(new) = &app.new else {
        page.put(0, 0, width, "ekiden top", BOLD);
        page.put(0, 1, width, &plain(app.trouble.as_deref().unwrap_or_default()), ALARM);
        return;
    };
    let hub = &new.snapshot.hub;
    let up = hub.ticked_ns.saturating_sub(started_ns(hub)) / 1_000_000_000;
    let name = format!(" {} ", plain(&hub.name));
    let mut after = page.put(0, 0, width, &name, BOLD.add_modifier(Modifier::REVERSED));
    if hub.clock_synchronised == Some(false) {
        after = page.put(after + 2, 0, width, " CLOCK NOT SYNCHRONISED ", ALARM);
    }
    let text = format!(
        "  ekiden {}   up {}   {} of {} sessions",
        plain(&hub.build),
        duration(up),
        count(hub.sessions),
        count(hub.session_capacity)
    );
    page.put(after, 0, width.saturating_sub(after + 10), &text, PLAIN);
    page.right(0, &app.clock, PLAIN);
    if let Some(age) = app.gone_ns() {
        let what = if hub.ended { "THE HUB HAS ENDED" } else { "THE HUB IS GONE OR STUCK" };
        let text = format!(" {what}: last tick {} ago. Waiting for the next one. ", duration(age / 1_000_000_000));
        page.put(0, 1, width, &text, ALARM);
    } else if let Some(trouble) = &app.trouble {
        page.put(0, 1, width, &format!(" {} ", plain(trouble)), ALARM);
    } else if let Some(looks) = app.looks() {
        let (flow, drops) = looks.totals();
        let both = |bits, packets| format!("{}bit/s {} pkt/s", spaced(bits), si(packets));
        let after = page.put(1, 1, width, "in  ", BOLD);
        let after = page.put(after, 1, width, &both(flow.in_bits, flow.in_packets), IN);
        let after = page.put(after + 4, 1, width, "out  ", BOLD);
        let after = page.put(after, 1, width, &both(flow.out_bits, flow.out_packets), OUT);
        let after = page.put(after + 4, 1, width, "drops  ", BOLD);
        page.put(after, 1, width, &format!("{}/s", si(drops)), PLAIN);
    }
}

/// A number and its unit apart, as before `bit/s`.
fn spaced(value: f64) -> String {
    let text = si(value);
    match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => format!("{} {}", &text[..at], &text[at..]),
        None => format!("{text} "),
    }
}

fn tabs(page: &mut Page<'_>, app: &App) {
    let mut x = 0;
    for (number, (view, name)) in View::ALL.into_iter().take(app.views()).enumerate() {
        let style = if view == app.view { BOLD.add_modifier(Modifier::REVERSED) } else { PLAIN };
        x = page.put(x, 2, page.area.width, &format!(" {} {name} ", number + 1), style);
    }
    let (sort, reversed) = app.sort();
    let by = match (sort, app.list_of()) {
        (Sort::Name, _) => "name",
        (Sort::In, View::Workers) => "frames",
        (Sort::Out, View::Workers) => "busy",
        (Sort::In, _) => "in",
        (Sort::Out, _) => "out",
        (Sort::Drops, _) => "drops",
    };
    let mut text = format!("by {by}{}", if reversed { ", reversed" } else { "" });
    if !app.filter.is_empty() && !app.typing {
        text = format!("/{}  {text}", plain(&app.filter));
    }
    let room = page.area.width.saturating_sub(x + 1);
    page.aligned(x + 1, 2, room, &text, Alignment::Right, DIM);
}

/// What is above and below the sites of an opened tenant: who it is, and what was dropped of it.
fn opened(page: &mut Page<'_>, app: &App, top: &mut u16, bottom: &mut u16) {
    let width = page.area.width;
    let (Some(tenant), Some(looks)) = (app.opened_tenant(), app.looks()) else {
        page.put(0, *top, width, "This hub has no such tenant any more. Esc: back", PLAIN);
        *top += 1;
        return;
    };
    let after = page.put(0, *top, width, &tenant_name(tenant), BOLD);
    let text = format!("  (tenant {})  {}", tenant.id, plain(&tenant.label));
    page.put(after, *top, width.saturating_sub(after), &text, PLAIN);
    *top += 1;
    let drops = looks.drops_of(tenant);
    let lines = drops.len().min(REASONS) as u16 + u16::from(!drops.is_empty());
    // The sites come first where both do not fit.
    if lines == 0 || *top + 3 + lines > *bottom {
        return;
    }
    *bottom -= lines;
    let columns: &[Column] =
        &[("DROPPED", 0, Alignment::Left), ("PACKETS/s", 9, Alignment::Right), ("PACKETS", 15, Alignment::Right)];
    page.row(*bottom, columns, &columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), HEADING);
    for (line, (reason, rate, packets)) in drops.iter().take(REASONS).enumerate() {
        page.row(*bottom + 1 + line as u16, columns, &[reason, &si(*rate), &count(*packets)], PLAIN);
    }
}

fn list(page: &mut Page<'_>, app: &mut App, top: u16, bottom: u16) {
    let columns = app.list_of().columns();
    page.row(top, columns, &columns.iter().map(|(name, ..)| *name).collect::<Vec<_>>(), HEADING);
    app.page = usize::from(bottom.saturating_sub(top + 1)).max(1);
    // The selected line is in sight, and the list does not jump while it is.
    app.first = app.first.clamp((app.selected + 1).saturating_sub(app.page), app.selected);
    app.first = app.first.min(app.rows.len().saturating_sub(app.page));
    for (line, row) in app.rows.iter().enumerate().skip(app.first).take(app.page) {
        let style = if line == app.selected { PLAIN.add_modifier(Modifier::REVERSED) } else { PLAIN };
        page.row(top + 1 + (line - app.first) as u16, columns, &row.cells, style);
    }
    if app.rows.is_empty() {
        let text = match app.looks() {
            Some(Looks { .. }) if !app.filter.is_empty() => "Nothing matches the filter. Esc: without it",
            Some(_) if app.view == View::Drops => "Nothing was dropped since the hub started.",
            Some(_) => "There are none.",
            None => "",
        };
        page.put(0, top + 1, page.area.width, text, DIM);
    }
}

fn draw_chart(page: &mut Page<'_>, app: &App, top: u16) {
    let width = page.area.width;
    let Some(row) = app.rows.get(app.selected) else { return };
    let columns = &app.chart.columns;
    let room = usize::from(width.saturating_sub(MARGIN));
    let shown = &columns[columns.len().saturating_sub(room)..];
    let span = match app.chart.step_s {
        Some(step) => format!("{}, a column {step} s", duration(step * shown.len() as u64)),
        None => "a column a look".to_owned(),
    };
    let after = page.put(0, top, width.saturating_sub(span.width() as u16 + 2), &app.title(), BOLD);
    page.put(after, top, width, &format!(": {span}"), DIM);
    type Format = fn(u64) -> String;
    let plain_number: Format = |value| si(value as f64);
    let hundredths: Format = |value| si(value as f64 / 100.0);
    let share: Format = |value| format!("{} %", si(value as f64 / 100.0));
    let curves: &[(&str, Style, Format)] = match row.key {
        Key::Drop(_) => &[("pkt/s", PLAIN, hundredths)],
        Key::Worker(_) => &[("frm/s", IN, plain_number), ("busy", OUT, share)],
        _ => &[("in", IN, plain_number), ("out", OUT, plain_number)],
    };
    let lines = (CHART - 1) / curves.len() as u16;
    for (which, (name, style, format)) in curves.iter().enumerate() {
        let y = top + 1 + which as u16 * lines;
        let values: Vec<Option<u64>> = shown.iter().map(|column| column.map(|both| both[which])).collect();
        let greatest = values.iter().flatten().copied().max();
        let last = values.last().copied().flatten();
        let text = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), format);
        page.put(0, y, MARGIN - 1, name, *style);
        page.aligned(MARGIN - 9, y, 8, &text(last), Alignment::Right, *style);
        page.put(0, y + 1, MARGIN - 1, "max", DIM);
        page.aligned(MARGIN - 9, y + 1, 8, &text(greatest), Alignment::Right, DIM);
        // The newest is at the right edge, however few there are.
        let missing = std::iter::repeat_n(None, room - values.len().min(room));
        let (set, hole) = if page.utf8 { (SPARKS, "·") } else { (ASCII_SPARKS, "x") };
        Sparkline::default()
            .data(missing.chain(values).collect::<Vec<_>>())
            .max(greatest.unwrap_or(0).max(1))
            .bar_set(set)
            .absent_value_symbol(hole)
            .absent_value_style(DIM)
            .style(*style)
            .render(Rect { x: MARGIN.min(width), y, width: room as u16, height: lines }, page.buffer);
    }
}

fn help(page: &mut Page<'_>, app: &App, y: u16) {
    let width = page.area.width;
    if app.typing {
        let after = page.put(0, y, width, &format!("/{}", plain(&app.filter)), BOLD);
        let after = page.put(after, y, width, " ", BOLD.add_modifier(Modifier::REVERSED));
        page.put(after + 2, y, width, "Enter: keep   Esc: without it", DIM);
        return;
    }
    let open = if app.opened.is_some() { "Esc back" } else { "Enter open" };
    let move_keys = if page.utf8 { "↑↓" } else { "j/k" };
    let lists = app.views();
    let text = format!("q quit  1-{lists} Tab list  {move_keys} line  {open}  / filter  sort: n i o d, r reverses");
    page.put(0, y, width, &text, DIM);
}

/// What is drawn on. Text ends at the edge; lines below the last are not drawn.
struct Page<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
    utf8: bool,
}

impl Page<'_> {
    /// Text of `plain` letters from `x` on, at most `width` columns; says where it ended.
    fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) -> u16 {
        if y >= self.area.height || x >= self.area.width {
            return x;
        }
        let width = width.min(self.area.width - x);
        let text = self.cut(text, width.into());
        self.buffer.set_stringn(x, y, text, width.into(), style).0
    }

    fn aligned(&mut self, x: u16, y: u16, width: u16, text: &str, alignment: Alignment, style: Style) {
        let text = self.cut(text, width.into());
        let before = match alignment {
            Alignment::Right => width.saturating_sub(text.width() as u16),
            _ => 0,
        };
        self.put(x + before, y, width - before, &text, style);
    }

    fn right(&mut self, y: u16, text: &str, style: Style) {
        let width = (text.width() as u16).min(self.area.width);
        self.put(self.area.width - width, y, width, text, style);
    }

    /// A line of cells under their columns, one space between them.
    fn row(&mut self, y: u16, columns: &[Column], cells: &[impl AsRef<str>], style: Style) {
        if y >= self.area.height {
            return;
        }
        self.buffer.set_style(Rect { x: 0, y, width: self.area.width, height: 1 }, style);
        let fixed: u16 = columns.iter().map(|(_, width, _)| width).sum();
        let rest = self.area.width.saturating_sub(fixed + columns.len() as u16 - 1).max(8);
        let mut x = 0;
        for ((_, width, alignment), cell) in columns.iter().zip(cells) {
            let width = if *width == 0 { rest } else { *width };
            self.aligned(x, y, width, cell.as_ref(), *alignment, style);
            x = x.saturating_add(width + 1);
        }
    }

    /// Text cut to a width, and without what the terminal has no letters for.
    fn cut(&self, text: &str, width: usize) -> String {
        let letter = |c: char| if self.utf8 || c.is_ascii() { c } else { '?' };
        let text: String = text.chars().map(letter).collect();
        if text.width() <= width {
            return text;
        }
        let mut out = String::new();
        let mut left = width.saturating_sub(1);
        for c in text.chars() {
            match left.checked_sub(c.width().unwrap_or(0)) {
                Some(less) => left = less,
                None => break,
            }
            out.push(c);
        }
        if width > 0 {
            out.push(if self.utf8 { '…' } else { '~' });
        }
        out
    }
}
