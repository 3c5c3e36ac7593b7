//! Trunks, and the ways that they are a part of.

use std::fmt::Write;

use super::super::table::{Table, ago, bytes, clean, count, or_dash};
use super::super::{Carries, Paths, Tenant, Trunk};
use super::session;

/// So many ids of tenants are shown, of more only their number.
const IDS: usize = 3;

/// How many there are, and how many of these are up.
pub(super) fn glance(trunks: &[Trunk]) -> String {
    let lanes = trunks.iter().flat_map(|trunk| &trunk.lanes);
    let (all, up) = (lanes.clone().count(), lanes.filter(|lane| lane.up).count());
    format!("{} of {} up, with {up} of {all} lanes", trunks.iter().filter(|trunk| trunk.up).count(), trunks.len())
}

/// All trunks, then all their lanes.
pub(super) fn trunks(out: &mut String, trunks: &[Trunk]) {
    let mut table = Table::new(
        0,
        ["TRUNK", "STATE", ">LANES UP", "CIPHER", "TENANTS", "TRANSIT", ">PREFIXES SAID", ">HEARD", "ENDPOINT"],
    );
    let mut lanes = Table::new(
        0,
        [
            "LANE",
            "STATE",
            "SESSION",
            ">RTT",
            ">JITTER",
            ">LOSS",
            ">MTU",
            "CHANGED",
            ">CHANGES",
            ">RX BYTES",
            ">TX BYTES",
            "ENDPOINT",
        ],
    );
    for trunk in trunks {
        let name = clean(&trunk.name);
        table.row([
            name.clone(),
            state(trunk.up),
            format!("{} of {}", trunk.lanes.iter().filter(|lane| lane.up).count(), trunk.lanes.len()),
            clean(&trunk.cipher),
            match &trunk.tenants {
                Carries::All => "all".into(),
                Carries::Some(ids) if ids.len() <= IDS => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
                Carries::Some(ids) => format!("{} tenants", count(ids.len() as u64)),
            },
            if trunk.transit { "yes".into() } else { "no".into() },
            count(trunk.announced.said),
            count(trunk.announced.heard),
            or_dash(trunk.endpoint),
        ]);
        for lane in &trunk.lanes {
            lanes.row([
                format!("{name}/{}", lane.lane),
                state(lane.up),
                session(lane.session).into(),
                or_dash(lane.rtt_us.map(time)),
                or_dash(lane.jitter_us.map(time)),
                or_dash(lane.loss_percent.map(|loss| format!("{loss:.0} %"))),
                or_dash(lane.mtu),
                ago(lane.since_s_ago),
                count(lane.changes),
                bytes(lane.rx_bytes),
                bytes(lane.tx_bytes),
                or_dash(lane.endpoint),
            ]);
        }
    }
    let _ = write!(out, "{table}\n{lanes}");
}

/// What trunks carry of a tenant, and all its prefixes to which there are several ways.
pub(super) fn of_tenant(out: &mut String, one: &Tenant) {
    for end in one.sites.iter().filter(|site| site.is_carried()) {
        let _ = writeln!(out, "\n  {}", clean(&end.name));
        let rows = [
            ("state", session(end.session).into()),
            ("received", format!("{} packets, {}", count(end.rx_packets), bytes(end.rx_bytes))),
            ("sent", format!("{} packets, {}", count(end.tx_packets), bytes(end.tx_bytes))),
            ("staged", format!("{} packets", count(end.staged.into()))),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "    {name:<12}{value}");
        }
    }
    let mut table = Table::new(2, ["PREFIX", "VIA", "STATE", ">PRIORITY", "WAYS"]);
    for paths in &one.paths {
        for (nth, way) in paths.candidates.iter().enumerate() {
            let first = |text: String| if nth == 0 { text } else { String::new() };
            table.row([
                first(clean(&paths.prefix)),
                first(clean(&paths.via)),
                first(alive(paths.alive)),
                way.priority.to_string(),
                format!("{} {}", clean(&way.via), alive(way.alive)),
            ]);
        }
    }
    if !one.paths.is_empty() {
        let _ = write!(out, "\n{table}");
    }
}

/// How many prefixes have several ways, and how many of these are not as they should be.
pub(super) fn paths_at_a_glance(paths: &[Paths]) -> String {
    let dead = paths.iter().filter(|one| !one.alive).count();
    let first = |one: &&Paths| one.alive && one.preferred().is_some_and(|way| way.via == one.via);
    let first = paths.iter().filter(first).count();
    format!(
        "{} prefixes with several ways: {} by the first, {} by another, {} {}",
        count(paths.len() as u64),
        count(first as u64),
        count((paths.len() - first - dead) as u64),
        count(dead as u64),
        if dead > 0 { "DEAD" } else { "dead" },
    )
}

fn state(up: bool) -> String {
    if up { "up".into() } else { "DOWN".into() }
}

fn alive(alive: bool) -> String {
    if alive { "alive".into() } else { "DEAD".into() }
}

/// Microseconds in three digits: `57 µs`, `3.14 ms`, `250 ms`.
fn time(us: u64) -> String {
    let digits = match us {
        0..1_000 => return format!("{us} µs"),
        1_000..10_000 => 2,
        10_000..100_000 => 1,
        _ => 0,
    };
    format!("{:.digits$} ms", us as f64 / 1000.0)
}
