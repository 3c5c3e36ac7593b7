//! A graph as numbers, for a spreadsheet.

use super::data::{Content, Data, local};
use super::series::Interval;
use chrono::{SecondsFormat, TimeZone};
use std::fmt::{Display, Write};

/// A line an interval: when it begins (RFC 3339), how long it is, and what moved in it. What is not known is empty.
pub(super) fn write<Z: TimeZone<Offset: Display>>(data: &Data, zone: &Z) -> String {
    let mut out = String::from("time,seconds");
    let seconds = data.step_ns as f64 / 1e9;
    // Which of the counts each column has.
    let columns: Vec<(&[Interval], usize)> = match &data.content {
        Content::Traffic(intervals) => {
            out.push_str(",in_packets,in_bytes,out_packets,out_bytes");
            (0..4).map(|at| (intervals.as_slice(), at)).collect()
        }
        Content::Drops(reasons) => {
            for (name, _) in reasons {
                let _ = write!(out, ",{name}_packets,{name}_bytes");
            }
            reasons.iter().flat_map(|(_, intervals)| [(intervals.as_slice(), 0), (intervals.as_slice(), 1)]).collect()
        }
    };
    out.push('\n');
    for i in 0..data.intervals().len() {
        let time = local(data.start(i), zone).to_rfc3339_opts(SecondsFormat::AutoSi, false);
        let _ = write!(out, "{time},{seconds}");
        for (intervals, at) in &columns {
            out.push(',');
            if let Some(moved) = intervals[i].moved {
                let _ = write!(out, "{}", moved[*at]);
            }
        }
        out.push('\n');
    }
    out
}
