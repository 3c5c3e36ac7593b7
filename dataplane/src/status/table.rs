//! Text in columns for a terminal: widths as a terminal counts them, control characters made harmless, and units.

use std::fmt::{self, Write};

use unicode_width::UnicodeWidthStr;

/// Spaces between columns.
const GAP: usize = 2;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table: a heading, rows of as many cells, and an indentation.
pub(super) struct Table {
    indent: usize,
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table. A heading that begins with `>` names a column of numbers, which stand at its right.
    pub(super) fn new<const N: usize>(indent: usize, headings: [&'static str; N]) -> Self {
        let columns = headings.map(|heading| match heading.strip_prefix('>') {
            Some(number) => (number, Align::Right),
            None => (heading, Align::Left),
        });
        Self { indent, columns: columns.into(), rows: Vec::new() }
    }

    /// Adds a row. Its cells must already be clean.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }
}

impl fmt::Display for Table {
    /// Nothing at all for a table without rows: a heading over nothing only asks questions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
        let mut widths: Vec<usize> = self.columns.iter().map(|(heading, _)| heading.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).into()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if index > 0 {
                    line.extend(std::iter::repeat_n(' ', GAP));
                }
                let fill = std::iter::repeat_n(' ', width - cell.width());
                match self.columns[index].1 {
                    Align::Left => {
                        line.push_str(cell);
                        line.extend(fill);
                    }
                    Align::Right => {
                        line.extend(fill);
                        line.push_str(cell);
                    }
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text that others chose, with everything escaped that could move the cursor, colour the screen or turn the line around.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Besides controls: line and paragraph separators, and the marks, embeddings, overrides and isolates of the
        // bidirectional algorithm (Unicode UAX #9, 2), with which "evil" can be made to look like "live".
        let turns =
            matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// A count with its thousands apart: `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes in the largest binary unit of which there is at least one: `812 B`, `1.5 KiB`, `20.0 GiB`.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    // Tenths, rounded down, in integers: no value ever shows as "1024.0" of the smaller unit.
    let exponent = (number.ilog2() / 10) as usize;
    let tenths = (u128::from(number) * 10) >> (10 * exponent);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[exponent - 1])
}

/// A duration in its two largest units: `12 s`, `3 min 5 s`, `2 h 0 min`, `17 d 4 h`.
pub(crate) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// How long ago something was: `12 s ago`, `3 min ago`, or `never`. One unit: it stands in a column.
pub(super) fn ago(seconds: Option<u64>) -> String {
    match seconds {
        None => "never".into(),
        Some(s @ 0..120) => format!("{s} s ago"),
        Some(s @ 120..7200) => format!("{} min ago", s / 60),
        Some(s @ 7200..172_800) => format!("{} h ago", s / 3600),
        Some(s) => format!("{} d ago", s / 86_400),
    }
}

/// A value, or `-` if it isn't known.
pub(super) fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// Text broken at spaces so that no line is wider than `width`, each line but the first indented by `indent`.
pub(super) fn wrap(text: &str, width: usize, indent: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for word in text.split_whitespace() {
        let wide = word.width();
        if column > 0 && column + 1 + wide > width {
            let _ = write!(out, "\n{:indent$}", "");
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_a_terminal_shows_them() {
        let mut table = Table::new(2, ["NAME", ">COUNT", "NOTE"]);
        table.row(["Acme KK / 大阪".into(), "7".into(), "wide".into()]);
        table.row(["e\u{301}".into(), "1,000".into(), "combining".into()]);
        table.row(["plain".into(), "12".into(), String::new()]);
        let expected = concat!(
            "  NAME            COUNT  NOTE\n",
            "  Acme KK / 大阪      7  wide\n",
            "  e\u{301}               1,000  combining\n",
            "  plain              12\n",
        );
        assert_eq!(table.to_string(), expected);
        assert_eq!(Table::new(0, ["A"]).to_string(), "");
    }

    #[test]
    fn nothing_that_steers_a_terminal_survives() {
        assert_eq!(clean("大阪 ok"), "大阪 ok");
        assert_eq!(clean("a\x1b[31mred\r\n\u{9b}2J"), "a\\u{1b}[31mred\\u{d}\\u{a}\\u{9b}2J");
        assert_eq!(clean("x\u{202e}live\u{2066}"), "x\\u{202e}live\\u{2066}");
    }

    #[test]
    fn units_are_exact_at_their_edges() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 1048575, 1048576, 20 << 30, u64::MAX].map(bytes).into();
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "20.0 GiB", "15.9 EiB"]);
        let shown: Vec<String> = [0, 999, 1000, 1234567, u64::MAX].map(count).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567", "18,446,744,073,709,551,615"]);
        let shown: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 86_400, 1_483_200].map(duration).into();
        assert_eq!(
            shown,
            ["0 s", "59 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "23 h 59 min", "1 d 0 h", "17 d 4 h"]
        );
        let shown: Vec<String> = [None, Some(0), Some(119), Some(120), Some(7200), Some(172_800)].map(ago).into();
        assert_eq!(shown, ["never", "0 s ago", "119 s ago", "2 min ago", "2 h ago", "2 d ago"]);
    }

    #[test]
    fn long_lines_break_at_spaces() {
        assert_eq!(wrap("one two three", 7, 2), "one two\n  three");
        assert_eq!(wrap("unbreakable", 3, 2), "unbreakable");
    }
}
