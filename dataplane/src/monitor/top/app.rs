//! What the view shows, and what keys change about it.

use super::rows::{Key, Looks, Row, View};
use super::series::Curve;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use stats::{Now, Reader, Series, Snapshot, Tenant};
use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// A hub that has not ticked for so long is gone or stuck.
const GONE_NS: u64 = 5_000_000_000;
/// The longest filter.
const FILTER_CHARS: usize = 64;
/// Columns of charts that are remembered of what has no ring.
const REMEMBERED: usize = 600;

/// What a list is sorted by; the last three greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    In,
    Out,
    Drops,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    On,
    Quit,
}

/// One look at the hub.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) snapshot: Snapshot,
    at: Now,
}

/// What the chart shows: columns of bits a second, in and out, the newest last. Of drops: hundredths of packets a second, alone.
/// Of workers: frames a second, and hundredths of a per cent of the time.
#[derive(Debug, Default)]
pub(super) struct Chart {
    pub(super) columns: Vec<Option<[u64; 2]>>,
    /// Seconds a column, if it is of a ring.
    pub(super) step_s: Option<u64>,
}

/// The state of the view.
#[derive(Debug)]
pub(super) struct App {
    pub(super) utf8: bool,
    pub(super) view: View,
    /// The tenant that was opened.
    pub(super) opened: Option<u32>,
    pub(super) filter: String,
    pub(super) typing: bool,
    sorts: [(Sort, bool); View::ALL.len()],
    pub(super) new: Option<Look>,
    old: Option<Look>,
    /// Why the last look failed, if it did.
    pub(super) trouble: Option<String>,
    pub(super) now: Now,
    pub(super) clock: String,
    /// The lines of the list as they are shown: filtered and sorted.
    pub(super) rows: Vec<Row>,
    pub(super) selected: usize,
    /// The line that was chosen, and stays selected wherever it goes.
    chosen: Option<Key>,
    /// The first line on the screen, and how many there are; drawing sets both.
    pub(super) first: usize,
    pub(super) page: usize,
    /// Rates of ports and workers, as there are no rings of them.
    remembered: HashMap<Key, VecDeque<[u64; 2]>>,
    pub(super) chart: Chart,
    /// Columns of the chart; drawing sets it.
    pub(super) chart_width: usize,
}

impl App {
    pub(super) fn new(utf8: bool) -> Self {
        Self {
            utf8,
            view: View::Tenants,
            opened: None,
            filter: String::new(),
            typing: false,
            sorts: View::ALL.map(|(view, _)| match view {
                View::Tenants | View::Sites => (Sort::In, false),
                View::Ports | View::Workers | View::Trunks => (Sort::Name, false),
                View::Drops => (Sort::Drops, false),
            }),
            new: None,
            old: None,
            trouble: None,
            now: Now { ns: 0, wall_ns: 0 },
            clock: String::new(),
            rows: Vec::new(),
            selected: 0,
            chosen: None,
            first: 0,
            page: 1,
            remembered: HashMap::new(),
            chart: Chart::default(),
            chart_width: 0,
        }
    }

    /// Looks at the hub again.
    pub(super) fn look(&mut self, reader: &mut Reader, now: Now, clock: &str) {
        (self.now, self.clock) = (now, clock.to_owned());
        match reader.snapshot() {
            Ok(snapshot) => {
                let same = |old: &Look| old.snapshot.hub.boot_id == snapshot.hub.boot_id;
                self.old = self.new.take().filter(same);
                if self.old.is_none() {
                    self.remembered.clear();
                }
                self.new = Some(Look { snapshot, at: now });
                self.trouble = None;
            }
            // The last look stands, and grows old.
            Err(error) => self.trouble = Some(error.to_string()),
        }
        self.remember();
        self.list();
    }

    /// How long ago the hub ticked, if that is too long.
    pub(super) fn gone_ns(&self) -> Option<u64> {
        let new = self.new.as_ref()?;
        let age = self.now.ns.saturating_sub(new.snapshot.hub.ticked_ns);
        (age > GONE_NS || new.snapshot.hub.ended).then_some(age)
    }

    /// The last two looks; no rates are known of a hub that is gone.
    pub(super) fn looks(&self) -> Option<Looks<'_>> {
        let new = self.new.as_ref()?;
        let known = self.gone_ns().is_none() && self.trouble.is_none();
        let old = self.old.as_ref().filter(|_| known);
        let old = old.map(|old| (&old.snapshot, Duration::from_nanos(new.at.ns.saturating_sub(old.at.ns))));
        Some(Looks { old, new: &new.snapshot })
    }

    pub(super) fn opened_tenant(&self) -> Option<&Tenant> {
        let id = self.opened?;
        self.new.as_ref()?.snapshot.tenants.iter().find(|tenant| tenant.id.as_u32() == id)
    }

    pub(super) fn sort(&self) -> (Sort, bool) {
        self.sorts[self.list_of() as usize]
    }

    /// The list that is on the screen: of an opened tenant, its sites.
    pub(super) fn list_of(&self) -> View {
        if self.opened.is_some() { View::Sites } else { self.view }
    }

    /// How many lists there are: that of trunks only where there is one, or it is being looked at.
    pub(super) fn views(&self) -> usize {
        let trunks = self.new.as_ref().is_some_and(|new| new.snapshot.lanes().next().is_some());
        View::ALL.len() - usize::from(!trunks && self.view != View::Trunks)
    }

    fn remember(&mut self) {
        let Some(looks) = self.looks() else { return };
        let mut news = looks.rows(View::Ports);
        news.extend(looks.rows(View::Workers));
        news.extend(looks.rows(View::Trunks));
        for row in news.into_iter().filter(|row| row.series.is_none() && !row.rates[0].is_nan()) {
            // A worker's second figure is not bits but per cent.
            let second = if matches!(row.key, Key::Worker(_)) { row.rates[1] * 100.0 } else { row.rates[1] };
            let columns = self.remembered.entry(row.key).or_default();
            columns.push_back([row.rates[0] as u64, second as u64]);
            if columns.len() > REMEMBERED {
                columns.pop_front();
            }
        }
    }

    /// Makes the list anew: after a look, and after a key that changes it.
    fn list(&mut self) {
        let Some(looks) = self.looks() else { return };
        let mut rows = looks.rows(self.list_of());
        if let Some(opened) = self.opened {
            rows.retain(|row| matches!(&row.key, Key::Site(tenant, _) if *tenant == opened));
        }
        let wanted = self.filter.to_lowercase();
        rows.retain(|row| row.text.contains(&wanted));
        let (sort, reversed) = self.sort();
        let greatest_first = |at: usize| move |a: &Row, b: &Row| number(b.rates[at]).total_cmp(&number(a.rates[at]));
        let order = |a: &Row, b: &Row| -> Ordering {
            let order = match sort {
                Sort::Name => by_name(a, b),
                Sort::In => greatest_first(0)(a, b),
                Sort::Out => greatest_first(1)(a, b),
                Sort::Drops => greatest_first(2)(a, b),
            };
            if reversed { order.reverse() } else { order }
        };
        rows.sort_by(|a, b| order(a, b).then_with(|| by_name(a, b)));
        // A line that was chosen is followed if it is still there; else the one in its place is selected.
        let at = self.chosen.as_ref().and_then(|key| rows.iter().position(|row| row.key == *key));
        self.selected = at.unwrap_or(self.selected).min(rows.len().saturating_sub(1));
        self.rows = rows;
    }

    fn choose(&mut self, at: usize) {
        self.selected = at.min(self.rows.len().saturating_sub(1));
        self.chosen = self.rows.get(self.selected).map(|row| row.key.clone());
    }

    /// Reads the history of the selected line, as wide as the chart is.
    pub(super) fn read_chart(&mut self, reader: &Reader) {
        self.chart = Chart::default();
        let (Some(row), Some(new)) = (self.rows.get(self.selected), &self.new) else { return };
        let Some(series) = row.series else {
            let columns = self.remembered.get(&row.key).into_iter().flatten();
            self.chart.columns = columns.map(|column| Some(*column)).collect();
            return;
        };
        let step_s = if matches!(series, Series::Tenant(_)) { 5 } else { 10 };
        let Ok(history) = reader.history(series, 0) else { return };
        let hub = &new.snapshot.hub;
        let curve = Curve::of(&history, hub);
        // Whole columns, counted from the same moment at each look: else they would dance.
        let step = step_s * 1_000_000_000;
        let end = hub.ticked_ns.max(self.now.ns).saturating_sub(history.period_ns) / step * step;
        let n = self.chart_width.min((end / step) as usize);
        let bits = |bytes: u64| bytes.saturating_mul(8) / step_s;
        let column = |[packets, rx, _, tx]: [u64; 4]| match series {
            Series::Drop(_) => [packets.saturating_mul(100) / step_s, 0],
            _ => [bits(rx), bits(tx)],
        };
        let intervals = curve.intervals(end - n as u64 * step, step, n);
        self.chart.columns = intervals.into_iter().map(|interval| interval.moved.map(column)).collect();
        self.chart.step_s = Some(step_s);
    }

    /// Does what a key is for.
    pub(super) fn key(&mut self, key: KeyEvent) -> Go {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Go::Quit;
        }
        if self.typing {
            self.type_filter(key.code);
        } else if key.code == KeyCode::Char('q') {
            return Go::Quit;
        } else {
            self.command(key.code);
        }
        self.list();
        Go::On
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.filter.chars().count() < FILTER_CHARS => self.filter.push(c),
            _ => {}
        }
    }

    fn command(&mut self, code: KeyCode) {
        let views = self.views();
        match code {
            KeyCode::Char(digit @ '1'..='9') if (digit as usize - '1' as usize) < views => {
                self.show(View::ALL[digit as usize - '1' as usize].0);
            }
            KeyCode::Tab | KeyCode::Right => self.show(View::ALL[(self.view as usize + 1) % views].0),
            KeyCode::BackTab | KeyCode::Left => self.show(View::ALL[(self.view as usize + views - 1) % views].0),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.selected.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.selected + 1),
            KeyCode::PageUp => self.choose(self.selected.saturating_sub(self.page)),
            KeyCode::PageDown => self.choose(self.selected + self.page),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::Char('n') => self.sort_by(Sort::Name),
            KeyCode::Char('i') => self.sort_by(Sort::In),
            KeyCode::Char('o') => self.sort_by(Sort::Out),
            KeyCode::Char('d') => self.sort_by(Sort::Drops),
            KeyCode::Char('r') => self.sorts[self.list_of() as usize].1 ^= true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Enter => self.open(),
            KeyCode::Esc if self.filter.is_empty() => self.close(),
            KeyCode::Esc => self.filter.clear(),
            _ => {}
        }
    }

    fn show(&mut self, view: View) {
        (self.view, self.opened, self.chosen) = (view, None, None);
        (self.selected, self.first) = (0, 0);
    }

    fn sort_by(&mut self, sort: Sort) {
        let now = &mut self.sorts[self.list_of() as usize];
        *now = (sort, now.0 == sort && !now.1);
    }

    fn open(&mut self) {
        let Some(row) = self.rows.get(self.selected) else { return };
        if let (None, Key::Tenant(tenant) | Key::Site(tenant, _)) = (self.opened, &row.key) {
            (self.opened, self.chosen) = (Some(*tenant), None);
            // What named the tenant need not name its sites.
            self.filter.clear();
            (self.selected, self.first) = (0, 0);
        }
    }

    fn close(&mut self) {
        let Some(tenant) = self.opened.take() else { return };
        if self.view == View::Tenants {
            self.chosen = Some(Key::Tenant(tenant));
        }
    }

    /// What the selected line is called.
    pub(super) fn title(&self) -> String {
        let Some(row) = self.rows.get(self.selected) else { return String::new() };
        match &row.key {
            Key::Worker(number) => format!("worker {number}"),
            Key::Site(..) | Key::Tenant(_) => format!("{} {}", row.cells[0], row.cells[1]).trim_end().to_owned(),
            Key::Trunk(_, None) => format!("trunk {}", row.cells[0]),
            Key::Port(_) | Key::Drop(_) | Key::Trunk(..) => row.cells[0].clone(),
        }
    }
}

/// What is not known is least.
fn number(rate: f64) -> f64 {
    if rate.is_nan() { -1.0 } else { rate }
}

/// Numbers by their value, all else by the alphabet: first the owner's name, then the line's own.
fn by_name(a: &Row, b: &Row) -> Ordering {
    match (&a.key, &b.key) {
        (Key::Worker(a), Key::Worker(b)) => a.cmp(b),
        (Key::Site(..), Key::Site(..)) => a.cells[..2].cmp(&b.cells[..2]),
        (Key::Trunk(..), Key::Trunk(..)) => a.key.cmp(&b.key),
        _ => a.cells[0].cmp(&b.cells[0]),
    }
    .then_with(|| a.key.cmp(&b.key))
}
