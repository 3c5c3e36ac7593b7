//! Ticks and units: 1, 2 and 5 for values, whole seconds, minutes and hours of the local clock for times.

use chrono::{DateTime, TimeZone};
use std::fmt::Display;
use std::ops::Range;

const SECOND: u64 = 1_000_000_000;
/// Steps of a clock, in seconds.
const CLOCK: [u64; 19] =
    [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 604_800];
/// So many labels fit under a plot.
const LABELS: u64 = 12;

/// Where the values of an axis are marked, from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ticks {
    pub(super) step: f64,
    pub(super) top: f64,
}

impl Ticks {
    pub(super) fn values(self) -> impl Iterator<Item = f64> {
        (0..=(self.top / self.step).round() as usize).map(move |n| n as f64 * self.step)
    }
}

/// Four to seven ticks, 1, 2 or 5 of some power of ten apart, the last not below `max`.
pub(super) fn value_ticks(max: f64) -> Ticks {
    // An axis needs a length even where nothing moved.
    let max = if max > 0.0 { max } else { 1.0 };
    let power = 10_f64.powf((max / 6.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| max / step <= 6.0).unwrap_or(max);
    Ticks { step, top: (max / step * 0.999_999).ceil() * step }
}

/// The step in seconds, and the moments in the window that are marked; `offset` is the local time's, in seconds.
pub(super) fn clock_ticks(window: &Range<u64>, seconds: u64, offset: i64) -> (u64, Vec<u64>) {
    let step = CLOCK.into_iter().find(|step| seconds / step <= LABELS).unwrap_or(CLOCK[CLOCK.len() - 1]);
    let offset = i128::from(offset) * i128::from(SECOND);
    let step_ns = i128::from(step * SECOND);
    let first = (i128::from(window.start) + offset + step_ns - 1).div_euclid(step_ns) * step_ns - offset;
    let mut at = u64::try_from(first).unwrap_or(0);
    let mut ticks = Vec::new();
    while at <= window.end {
        ticks.push(at);
        at = at.saturating_add(step * SECOND);
    }
    (step, ticks)
}

/// The label of a moment, as exact as the step asks for.
pub(super) fn clock_label<Z: TimeZone<Offset: Display>>(moment: &DateTime<Z>, step: u64) -> String {
    let format = match step {
        0..60 => "%H:%M:%S",
        60..86_400 => "%H:%M",
        _ => "%-d %b",
    };
    moment.format(format).to_string()
}

/// A length of time in one unit: `5 s`, `15 min`.
pub(super) fn span(ns: u64) -> String {
    match ns {
        _ if !ns.is_multiple_of(SECOND) => format!("{} ms", ns / 1_000_000),
        _ if !ns.is_multiple_of(60 * SECOND) => format!("{} s", ns / SECOND),
        _ if !ns.is_multiple_of(3600 * SECOND) => format!("{} min", ns / SECOND / 60),
        _ => format!("{} h", ns / SECOND / 3600),
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    Bits,
    Bytes,
    Packets,
}

const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// The power of a thousand in which an axis is labelled.
pub(super) struct Scale {
    divisor: f64,
    pub(super) name: String,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Bits => "bit/s",
            Self::Bytes => "B",
            Self::Packets => "packets/s",
        }
    }

    pub(super) fn scale(self, top: f64) -> Scale {
        let power = (top.max(1.0).log10() / 3.0 + 1e-9).floor().clamp(0.0, 6.0) as usize;
        let prefix = PREFIXES[power];
        // "kpackets/s" is no word.
        let name = match (self, prefix) {
            (Self::Packets, "") => "packets/s".into(),
            (Self::Packets, "k") => "1000 packets/s".into(),
            (Self::Packets, _) => format!("{prefix} packets/s"),
            (unit, prefix) => format!("{prefix}{}", unit.name()),
        };
        Scale { divisor: 1000_f64.powi(power as i32), name }
    }

    /// Three digits and a prefix.
    pub(super) fn short(self, value: f64) -> String {
        // By what is shown: 999.6 is 1.00k.
        let (mut value, mut power) = (value, 0);
        while value >= 999.5 && power + 1 < PREFIXES.len() {
            (value, power) = (value / 1000.0, power + 1);
        }
        let digits = match value {
            0.0 => 0,
            ..9.995 => 2,
            ..99.95 => 1,
            _ => 0,
        };
        format!("{value:.digits$} {}", PREFIXES[power]).trim_end().to_owned()
    }

    /// The same with the unit.
    pub(super) fn long(self, value: f64) -> String {
        let short = self.short(value);
        match (self, short.ends_with(|c: char| c.is_ascii_alphabetic())) {
            (Self::Packets, _) => format!("{short}/s"),
            (_, true) => format!("{short}{}", self.name()),
            (_, false) => format!("{short} {}", self.name()),
        }
    }
}

impl Scale {
    /// A tick, with as many digits as tell it from its neighbours.
    pub(super) fn number(&self, value: f64, step: f64) -> String {
        let digits = (-(step / self.divisor).log10().floor()).clamp(0.0, 6.0) as usize;
        format!("{:.digits$}", value / self.divisor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ticks_are_one_two_or_five() {
        for (max, step, top) in [
            (0.0, 0.2, 1.0),
            (1.0, 0.2, 1.0),
            (6.0, 1.0, 6.0),
            (6.1, 2.0, 8.0),
            (12.1, 5.0, 15.0),
            (987.0, 200.0, 1000.0),
        ] {
            let ticks = value_ticks(max);
            assert!((ticks.step - step).abs() < 1e-9 && (ticks.top - top).abs() < 1e-9, "{max}: {ticks:?}");
        }
        let scale = Unit::Bits.scale(1_000_000.0);
        assert_eq!((scale.name.as_str(), scale.number(200_000.0, 200_000.0).as_str()), ("Mbit/s", "0.2"));
        let scale = Unit::Bits.scale(60_000_000.0);
        assert_eq!((scale.name.as_str(), scale.number(20e6, 10e6).as_str()), ("Mbit/s", "20"));
    }

    proptest! {
        #[test]
        fn any_axis_has_room_for_its_greatest_value(max in 1e-3..1e18) {
            let ticks = value_ticks(max);
            prop_assert!(ticks.top >= max * 0.999_99 && ticks.top <= max * 2.0, "{:?}", ticks);
            prop_assert!((2..=7).contains(&ticks.values().count()), "{:?}", ticks);
        }
    }

    #[test]
    fn times_are_whole_by_the_local_clock() {
        let hour = 1_700_001_000 * SECOND..1_700_004_600 * SECOND;
        // India is half an hour off: whole five minutes are whole there too, whole hours are not.
        let (step, at) = clock_ticks(&hour, 3600, 19_800);
        assert_eq!((step, at.len(), at[0] / SECOND % 300), (300, 13, 0));
        let day = 1_700_001_000 * SECOND..1_700_087_400 * SECOND;
        let (step, at) = clock_ticks(&day, 86_400, 19_800);
        assert_eq!((step, (at[0] / SECOND + 19_800) % 7200), (7200, 0));
        let zone = chrono::FixedOffset::east_opt(19_800).unwrap();
        let moment = super::super::local(at[0], &zone);
        assert_eq!(clock_label(&moment, step), "04:00");
        assert_eq!([5, 90, 300, 7200].map(|s| span(s * SECOND)), ["5 s", "90 s", "5 min", "2 h"]);
    }

    #[test]
    fn figures_have_three_digits_and_a_unit() {
        let shown = [0.0, 1.5, 999.6, 12_345_678.0].map(|value| Unit::Bits.long(value));
        assert_eq!(shown, ["0 bit/s", "1.50 bit/s", "1.00 kbit/s", "12.3 Mbit/s"]);
        assert_eq!([Unit::Bytes.long(2.5e9), Unit::Packets.long(120.0)], ["2.50 GB", "120/s"]);
    }
}
