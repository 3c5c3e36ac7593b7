//! The report as a person reads it in a terminal: first what is wrong, then from the hub down to its sites, then drops.

mod trunks;

use std::fmt::Write;

use wire::DROP_REASONS;

use super::table::{Table, ago, bytes, clean, count, duration, or_dash, wrap};
use super::{
    Access, Cipher, Configuration, CopyMode, Path, Port, Reload, SessionState, Site, Status, Tenant, Worker, XdpMode,
};

/// Lines are kept within this where the data allows; a long name or an IPv6 endpoint is shown whole all the same.
const WIDTH: usize = 118;

/// The whole hub.
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    hub(&mut out, status);
    warnings(&mut out, status);
    if !status.ports.is_empty() {
        out.push('\n');
        ports(&mut out, &status.ports);
    }
    if !status.workers.is_empty() {
        out.push('\n');
        workers(&mut out, &status.workers);
    }
    if !status.trunks.is_empty() {
        out.push('\n');
        trunks::trunks(&mut out, &status.trunks);
    }
    for one in &status.tenants {
        out.push('\n');
        tenant(&mut out, one);
    }
    out.push('\n');
    drops(&mut out, status);
    out
}

fn configuration(configuration: &Configuration) -> String {
    format!("{} since {}", clean(&configuration.hash), clean(&configuration.applied))
}

/// How the last one ended; of several problems the first.
fn reload(last: &Reload) -> String {
    let what = last.text.lines().next().unwrap_or_default();
    let more = last.text.lines().count().saturating_sub(1);
    let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
    let how = if last.applied { "applied" } else { "REFUSED, nothing was changed" };
    format!("{how} at {}: {}{more}", clean(&last.at), clean(what))
}

/// One tenant, with all that is known of each site.
pub fn render_tenant(one: &Tenant) -> String {
    let mut out = tenant_title(one);
    out.push('\n');
    for site in one.sites.iter().filter(|site| !site.is_carried()) {
        let _ = writeln!(out, "\n  site {}", clean(&site.name));
        let rows = [
            ("public key", clean(&site.public_key)),
            ("endpoint", site.endpoint.map_or_else(|| "none known".into(), |endpoint| endpoint.to_string())),
            ("hub's side", or_dash(site.local)),
            ("path", site.path.as_ref().map_or_else(|| "-".into(), path_long)),
            ("session", session(site.session).into()),
            ("handshake", ago(site.last_handshake_s_ago)),
            ("received", format!("{} packets, {}", count(site.rx_packets), bytes(site.rx_bytes))),
            ("sent", format!("{} packets, {}", count(site.tx_packets), bytes(site.tx_bytes))),
            ("staged", format!("{} packets", count(site.staged.into()))),
            ("shed", format!("{} packets", count(site.shed_packets))),
            ("over rate", format!("{} packets received, {} sent", count(site.rx_over_rate), count(site.tx_over_rate))),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "    {name:<12}{value}");
        }
    }
    for access in &one.access {
        let _ = writeln!(out, "\n  access {}", clean(&access.name));
        let rows = [
            ("hub's", clean(&access.addresses.join(", "))),
            ("port", if access.up { "up".into() } else { "DOWN".to_owned() }),
            ("MTU", or_dash(access.mtu)),
            ("received", format!("{} packets, {}", count(access.rx_packets), bytes(access.rx_bytes))),
            ("sent", format!("{} packets, {}", count(access.tx_packets), bytes(access.tx_bytes))),
            ("staged", format!("{} packets", count(access.staged.into()))),
            ("shed", format!("{} packets", count(access.shed_packets))),
        ];
        for (name, value) in rows {
            let _ = writeln!(out, "    {name:<12}{value}");
        }
        for neighbour in &access.neighbours {
            let mac = neighbour.mac.as_deref().unwrap_or("-");
            let _ = writeln!(out, "    host        {}  {}  {}", neighbour.address, clean(mac), clean(&neighbour.state));
        }
    }
    trunks::of_tenant(&mut out, one);
    if !one.filter.is_empty() {
        let mut table = Table::new(2, ["RULE", "ACTION", ">PACKETS", ">BYTES"]);
        for rule in &one.filter {
            table.row([clean(&rule.name), clean(&rule.action), count(rule.packets), bytes(rule.bytes)]);
        }
        let _ = write!(out, "\n{table}");
    }
    let lost: Vec<Lost<'_>> = one
        .drops
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(name, packets)| Lost { name, packets: *packets, bytes: None, doc: meaning(name) })
        .collect();
    if !lost.is_empty() {
        out.push('\n');
        lost_table(&mut out, 2, lost);
    }
    out
}

fn hub(out: &mut String, status: &Status) {
    let Status { hub, books, tenants, trunks, .. } = status;
    let _ = writeln!(
        out,
        "hub {}: ekiden {}, pid {}, up {} (since {})",
        clean(&hub.name),
        clean(&hub.version),
        hub.pid,
        duration(hub.uptime_s),
        clean(&hub.started)
    );
    let sites = tenants.iter().flat_map(|tenant| &tenant.sites).filter(|site| !site.is_carried()).count();
    let live = tenants.iter().flat_map(|tenant| &tenant.sites).filter(|site| carries(site.session)).count();
    let sessions = match (hub.sessions, hub.session_capacity) {
        (Some(used), Some(room)) => format!("; {} of {} session slots in use", count(used.into()), count(room.into())),
        _ => String::new(),
    };
    let staged =
        hub.staged.filter(|n| *n > 0).map_or(String::new(), |n| format!("; {} packets staged", count(n.into())));
    let aead = |nth: usize| {
        hub.ciphers.get(nth).map_or(String::new(), |Cipher { name, by, thresholds }| match thresholds {
            Some(thresholds) => format!("{}: {}, {}", clean(name), clean(by), clean(thresholds)),
            None => format!("{}: {}", clean(name), clean(by)),
        })
    };
    let rows = [
        ("public key", clean(&hub.public_key)),
        ("listens on", format!("UDP port {}", hub.listen_port)),
        ("ciphers", aead(0)),
        ("", aead(1)),
        ("kernel", or_dash(hub.kernel.as_deref().map(clean))),
        ("config", clean(&hub.config_path)),
        ("", configuration(&hub.configuration)),
        ("reload", hub.configuration.last_reload.as_ref().map_or_else(|| "none yet".into(), reload)),
        (
            "sites",
            format!(
                "{} of {} with a session, {} tenants{sessions}{staged}",
                count(live as u64),
                count(sites as u64),
                count(tenants.len() as u64)
            ),
        ),
    ];
    for (name, value) in rows {
        let _ = writeln!(out, "  {name:<12}{value}");
    }
    if !trunks.is_empty() {
        let _ = writeln!(out, "  {:<12}{}", "trunks", trunks::glance(trunks));
    }
    let went = books.came() as i64 - books.under_way();
    let under_way = books.under_way().max(0) as u64;
    let _ = writeln!(
        out,
        "  packets     {} came, {} went, {} under way",
        count(books.came()),
        count(went.max(0) as u64),
        count(under_way)
    );
}

fn warnings(out: &mut String, status: &Status) {
    let of_ports = status
        .ports
        .iter()
        .flat_map(|port| port.warnings.iter().map(move |text| format!("port {}: {text}", port.name)));
    let all: Vec<String> = status.warnings.iter().cloned().chain(of_ports).collect();
    if !all.is_empty() {
        out.push('\n');
    }
    for text in all {
        let _ = writeln!(out, "warning: {}", wrap(&clean(&text), WIDTH - 9, 9));
    }
}

fn ports(out: &mut String, ports: &[Port]) {
    let mut setup = Table::new(
        0,
        ["PORT", "ROLE", "LINK", "DRIVER", "XDP", "FRAMES", ">QUEUES", ">MTU", ">CHUNK", ">HEADROOM", "WAKEUP", "MAC"],
    );
    let mut traffic = Table::new(
        0,
        ["PORT", ">SEEN", ">TO KERNEL", ">TO WORKERS", ">DROPPED", ">LOST", ">RX", ">RX BYTES", ">TX", ">TX BYTES"],
    );
    let known = |number: Option<u64>| number.map_or_else(|| "-".into(), count);
    for port in ports {
        setup.row([
            clean(&port.name),
            clean(&port.role),
            match (port.ifindex, port.up) {
                (None, _) => "gone".into(),
                (_, true) => "up".into(),
                (_, false) => "down".into(),
            },
            or_dash(port.driver.as_deref().map(clean)),
            or_dash(port.xdp.map(|mode| match mode {
                XdpMode::Native => "native",
                XdpMode::Generic => "generic",
            })),
            or_dash(port.copy.map(|mode| {
                let parts = if port.multi_buffer == Some(true) { ", multi-buffer" } else { "" };
                match mode {
                    CopyMode::Copy => format!("copy{parts}"),
                    CopyMode::ZeroCopy => format!("zero-copy{parts}"),
                }
            })),
            or_dash(port.queues.map(|queues| match port.sockets {
                Some(sockets) if sockets > 1 => format!("{queues} shared by {sockets}"),
                _ => queues.to_string(),
            })),
            or_dash(port.mtu),
            or_dash(port.chunk_size),
            or_dash(port.headroom),
            or_dash(port.need_wakeup.map(|on| if on { "yes" } else { "no" })),
            or_dash(port.mac.as_deref().map(clean)),
        ]);
        traffic.row([
            clean(&port.name),
            known(port.xdp_seen),
            known(port.xdp_passed),
            known(port.xdp_redirected),
            known(port.xdp_dropped),
            known(port.ring_lost),
            count(port.rx_frames),
            bytes(port.rx_bytes),
            count(port.tx_frames),
            bytes(port.tx_bytes),
        ]);
    }
    let _ = write!(out, "{setup}");
    for port in ports.iter().filter(|port| !port.addresses.is_empty()) {
        let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "{} has {}", clean(&port.name), wrap(&addresses.join(", "), WIDTH - 8, 8));
    }
    let _ = write!(out, "\n{traffic}");
}

fn workers(out: &mut String, workers: &[Worker]) {
    let mut table = Table::new(
        0,
        [">WORKER", ">CORE", ">BUSY", ">FRAMES", ">BATCHES", ">FRAMES/BATCH", ">CHUNKS FREE", ">OF", "QUEUES"],
    );
    for worker in workers {
        let mean = (worker.batches > 0).then(|| format!("{:.1}", worker.frames as f64 / worker.batches as f64));
        table.row([
            worker.id.to_string(),
            or_dash(worker.core),
            or_dash(worker.busy_share.map(|share| format!("{:.0} %", share * 100.0))),
            count(worker.frames),
            count(worker.batches),
            or_dash(mean),
            worker.chunks_free.map_or_else(|| "-".into(), |free| count(free.into())),
            count(worker.chunks_total.into()),
            clean(&worker.queues.join(" ")),
        ]);
    }
    let _ = write!(out, "{table}");
}

fn tenant_title(tenant: &Tenant) -> String {
    let mut title = format!("tenant {}", tenant.id);
    for part in [&tenant.service_code, &tenant.label].into_iter().flatten() {
        let _ = write!(title, "  {}", clean(part));
    }
    title
}

fn tenant(out: &mut String, tenant: &Tenant) {
    let _ = writeln!(out, "{}", tenant_title(tenant));
    let mut table = Table::new(
        2,
        ["SITE", "ENDPOINT", "HANDSHAKE", "SESSION", ">RX", ">RX BYTES", ">TX", ">TX BYTES", ">STAGED", "PATH"],
    );
    for site in &tenant.sites {
        table.row(site_row(site));
    }
    let _ = write!(out, "{table}");
    if !tenant.access.is_empty() {
        let heads = ["ACCESS", "HUB'S ADDRESSES", "PORT", ">HOSTS", ">RX", ">RX BYTES", ">TX", ">TX BYTES", ">STAGED"];
        let mut table = Table::new(2, heads);
        tenant.access.iter().for_each(|access| table.row(access_row(access)));
        let _ = write!(out, "{table}");
    }
    if !tenant.paths.is_empty() {
        let _ = writeln!(out, "  paths: {}", trunks::paths_at_a_glance(&tenant.paths));
    }
    let shed = tenant.sites.iter().filter(|site| site.shed_packets > 0);
    let shed: Vec<String> = shed.map(|site| format!("{} {}", clean(&site.name), count(site.shed_packets))).collect();
    if !shed.is_empty() {
        let _ = writeln!(out, "  shed: {}", wrap(&shed.join(", "), WIDTH - 8, 8));
    }
    let lost: Vec<String> = tenant
        .drops
        .iter()
        .filter(|(_, packets)| **packets > 0)
        .map(|(name, packets)| format!("{} {}", clean(name), count(*packets)))
        .collect();
    if !lost.is_empty() {
        let _ = writeln!(out, "  dropped: {}", wrap(&lost.join(", "), WIDTH - 11, 11));
    }
}

fn site_row(site: &Site) -> [String; 10] {
    [
        clean(&site.name),
        or_dash(site.endpoint),
        if site.is_carried() { "-".into() } else { ago(site.last_handshake_s_ago) },
        session(site.session).into(),
        count(site.rx_packets),
        bytes(site.rx_bytes),
        count(site.tx_packets),
        bytes(site.tx_bytes),
        count(site.staged.into()),
        site.path.as_ref().map_or_else(|| "-".into(), path_short),
    ]
}

fn access_row(access: &Access) -> [String; 9] {
    [
        clean(&access.name),
        clean(&access.addresses.join(", ")),
        if access.up { "up".into() } else { "DOWN".into() },
        count(access.neighbours.iter().filter(|neighbour| neighbour.mac.is_some()).count() as u64),
        count(access.rx_packets),
        bytes(access.rx_bytes),
        count(access.tx_packets),
        bytes(access.tx_bytes),
        count(access.staged.into()),
    ]
}

fn carries(state: SessionState) -> bool {
    matches!(state, SessionState::Live | SessionState::Rekey)
}

fn session(state: SessionState) -> &'static str {
    match state {
        SessionState::None => "none",
        SessionState::Handshake => "handshake",
        SessionState::Live => "live",
        SessionState::Rekey => "rekey",
        SessionState::Expired => "expired",
        SessionState::Up => "up",
        SessionState::Down => "DOWN",
    }
}

fn path_short(path: &Path) -> String {
    match (&path.unreachable, &path.port) {
        (Some(why), _) => clean(why),
        (None, Some(port)) => clean(port),
        (None, None) => "-".into(),
    }
}

fn path_long(path: &Path) -> String {
    let mut parts = Vec::new();
    if let Some(why) = &path.unreachable {
        parts.push(format!("unreachable: {}", clean(why)));
    }
    if let Some(port) = &path.port {
        parts.push(format!("port {}", clean(port)));
    }
    if let Some(hop) = path.next_hop {
        let mac = path.next_hop_mac.as_deref().map_or(String::new(), |mac| format!(" ({})", clean(mac)));
        parts.push(format!("next hop {hop}{mac}"));
    }
    if let Some(mtu) = path.mtu {
        parts.push(format!("MTU {mtu}"));
    }
    if let Some(mtu) = path.inner_mtu {
        let probe = path.probe.as_deref().map_or(String::new(), |state| format!(" (pings: {})", clean(state)));
        parts.push(format!("{mtu} inside{probe}"));
    }
    if parts.is_empty() { "-".into() } else { parts.join(", ") }
}

/// What was dropped, hub-wide: only what was, each with what it means.
fn drops(out: &mut String, status: &Status) {
    let lost: Vec<Lost<'_>> = status
        .drops
        .iter()
        .filter(|drop| drop.packets > 0)
        .map(|drop| Lost { name: &drop.reason, packets: drop.packets, bytes: drop.bytes, doc: &drop.doc })
        .collect();
    if lost.is_empty() {
        out.push_str("nothing dropped\n");
    } else {
        lost_table(out, 0, lost);
    }
}

/// A reason for which something was lost.
struct Lost<'a> {
    name: &'a str,
    packets: u64,
    bytes: Option<u64>,
    doc: &'a str,
}

/// The documentation of a reason, by its name.
fn meaning(name: &str) -> &'static str {
    DROP_REASONS.iter().find(|reason| reason.name() == name).map_or("", |reason| reason.doc())
}

/// The most frequent first. Each meaning stands under its row, so that the longest does not decide the table's width.
fn lost_table(out: &mut String, indent: usize, mut lost: Vec<Lost<'_>>) {
    lost.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.name.cmp(b.name)));
    let mut table = Table::new(indent, ["DROPPED", ">PACKETS", ">BYTES"]);
    for one in &lost {
        table.row([clean(one.name), count(one.packets), one.bytes.map_or_else(|| "-".into(), bytes)]);
    }
    let under = indent + 2;
    for (index, line) in table.to_string().lines().enumerate() {
        let _ = writeln!(out, "{line}");
        if let Some(one) = index.checked_sub(1).map(|row| &lost[row]).filter(|one| !one.doc.is_empty()) {
            let _ = writeln!(out, "{:under$}{}", "", wrap(&clean(one.doc), WIDTH - under, under));
        }
    }
}
