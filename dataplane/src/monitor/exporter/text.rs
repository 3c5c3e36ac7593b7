//! Text: labels made harmless, and one of two formats.

use std::fmt::{self, Write};

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::registry::Registry;

use super::page::Page;

/// The value of a label, as it stands between quotes. The library writes values as they are, so that one with a quote in it
/// could end the label and write series of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Label(String);

impl Label {
    /// Any text. What both formats have an escape for keeps its meaning; other control characters, which some tool on the
    /// way to the operator's terminal might obey, are spelled out.
    pub(super) fn new(text: &str) -> Self {
        let mut escaped = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\\' => escaped.push_str(r"\\"),
                '"' => escaped.push_str("\\\""),
                '\n' => escaped.push_str(r"\n"),
                c if c.is_control() => escaped.extend(['\\'].into_iter().chain(c.escape_unicode())),
                c => escaped.push(c),
            }
        }
        Self(escaped)
    }
}

impl EncodeLabelValue for &Label {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        encoder.write_str(&self.0)
    }
}

/// The format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The Prometheus text format 0.0.4.
    Classic,
}

impl Format {
    /// What a client wants, by its `Accept` headers. OpenMetrics is only for those who name it, and don't like the other
    /// better.
    pub(super) fn wanted<'a>(accept: impl Iterator<Item = &'a str>) -> Self {
        let (mut open, mut classic) = (0.0_f32, 0.0_f32);
        for range in accept.flat_map(|header| header.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut other_version) = (1.0, false);
            for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                match name.trim() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => other_version = value.trim().trim_matches('"') != "1.0.0",
                    _ => {}
                }
            }
            match &*kind {
                "application/openmetrics-text" if !other_version => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => classic = classic.max(quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= classic { Self::OpenMetrics } else { Self::Classic }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    pub(super) fn write(self, page: Page) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(page));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(match self {
            Self::OpenMetrics => out,
            Self::Classic => classic(&out),
        })
    }
}

/// The same in the older format, which differs only in what it says about a family: it is named as its samples are, infos
/// are gauges, and there are neither units nor an end. No label can begin a line, so lines tell what they are.
fn classic(open: &str) -> String {
    let mut out = String::with_capacity(open.len());
    let mut help = None;
    for line in open.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (suffix, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                _ => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                out.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            out.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            out.extend([line, "\n"]);
        }
    }
    out
}
