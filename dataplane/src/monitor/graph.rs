//! `ekiden graph`: the last hour of a tenant, a site, a lane, or the drops, as a picture or as numbers.

mod csv;
mod data;
mod glyphs;
mod picture;
#[cfg(test)]
mod tests;

use super::place::SegmentArgs;
use super::series;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What `ekiden graph` was asked.
#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    #[command(flatten)]
    segment: SegmentArgs,
    /// The traffic of this tenant
    #[arg(long, value_name = "ID|SERVICE_CODE", required_unless_present_any = ["drops", "lane"])]
    tenant: Option<String>,
    /// Only that of this site of it
    #[arg(long, value_name = "NAME", requires = "tenant")]
    site: Option<String>,
    /// What a lane of a trunk carried, in whole frames
    #[arg(long, value_name = "TRUNK/NUMBER", conflicts_with = "tenant")]
    lane: Option<String>,
    /// What was dropped by the whole hub, by reason
    #[arg(long, conflicts_with_all = ["tenant", "lane"])]
    drops: bool,
    /// How far back, as in 90s, 15m or 1h; the hub remembers an hour
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    last: Duration,
    /// The time over which a rate is averaged; from --last unless said
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    step: Option<Duration>,
    /// The file to write; its name ends in .svg, .png or .csv
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

enum Format {
    Svg,
    Png,
    Csv,
}

/// `ekiden graph`: writes the file, and says what is not in it.
pub fn command(args: &GraphArgs, out: &mut impl Write) -> Result<()> {
    let extension = args.output.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let format = match extension.as_str() {
        "svg" => Format::Svg,
        "png" => Format::Png,
        "csv" => Format::Csv,
        _ => bail!("{}: a name ends in .svg, .png or .csv, and with it says what is written", args.output.display()),
    };
    let mut reader = stats::Reader::open(&args.segment.find()?)?;
    let wanted = match (&args.tenant, &args.lane) {
        (Some(tenant), _) => data::Wanted::Traffic { tenant, site: args.site.as_deref() },
        (None, Some(lane)) => data::Wanted::Lane(lane),
        (None, None) => data::Wanted::Drops,
    };
    let mut data = data::read(&mut reader, wanted, args.last, args.step, stats::Now::read())?;
    let bytes = match format {
        Format::Csv => csv::write(&data, &chrono::Local).into_bytes(),
        Format::Svg => picture::svg(&data, &chrono::Local)?.into_bytes(),
        Format::Png => {
            let (bytes, missing) = picture::png(&data, &chrono::Local)?;
            if !missing.is_empty() {
                data.notes.push(format!("No font on this machine has {missing}: the SVG leaves that to its viewer."));
            }
            bytes
        }
    };
    std::fs::write(&args.output, bytes).with_context(|| format!("could not write {}", args.output.display()))?;
    for note in &data.notes {
        writeln!(out, "{note}")?;
    }
    Ok(())
}

/// A time: a whole number and its unit, `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time; right would be 90s, 15m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    // A year is longer than any history, and far from where sums of nanoseconds end.
    match number.checked_mul(unit) {
        Some(ms @ 1..=31_536_000_000) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("{text:?} is not between 1 ms and 365 days")),
    }
}
