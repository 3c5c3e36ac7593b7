//! The layout is a contract: the document, the C header and the Rust structs say the same of every byte, and strangers' programs
//! read what the Rust reader reads.

mod common;

use common::{Hub, fill};
use stats::layout::{
    Field, Header, KINDS, PortEntry, ReasonEntry, RingHead, RuleEntry, SectionEntry, SiteEntry, TenantEntry,
    WorkerEntry,
};
use stats::{
    DropRow, HistogramRow, HubRow, Lane, LoopRow, PortRow, Reader, RuleRow, Series, SiteRow, SiteState, TenantRow,
    WorkerState, XdpRow,
};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

macro_rules! structs {
    ($($name:ident)*) => { [$((stringify!($name), size_of::<$name>(), $name::FIELDS)),*] };
}

/// Name, bytes and fields of everything that lies in a segment.
fn structs() -> [(&'static str, usize, &'static [Field]); 20] {
    structs! {
        Header SectionEntry TenantEntry SiteEntry PortEntry WorkerEntry ReasonEntry RuleEntry SiteRow TenantRow DropRow PortRow LoopRow
        HistogramRow XdpRow HubRow WorkerState SiteState RuleRow RingHead
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The document is written by hand; a layout that changes without it, or it without the layout, is a broken contract.
#[test]
fn the_document_tells_every_byte() {
    let text = std::fs::read_to_string(here("../docs/STATS.md")).unwrap();
    let mut told = Vec::new();
    for line in text[text.find("### Every byte").unwrap()..].lines() {
        let cells: Vec<&str> = line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if let Some(title) = line.strip_prefix("#### `") {
            told.push(title.replace('`', ""));
        } else if let [_, offset, name, bytes, ..] = cells[..]
            && offset.parse::<usize>().is_ok()
        {
            told.push(format!("{offset} {name} {bytes}"));
        }
    }
    let mut right = Vec::new();
    for (name, bytes, fields) in structs() {
        right.push(format!("{name}: {bytes} bytes"));
        right.extend(fields.iter().map(|field| format!("{} {} {}", field.offset, field.name, field.bytes)));
    }
    assert_eq!(told, right);

    let places = &text[text.find("### Places").unwrap()..text.find("### Histograms").unwrap()];
    let rows = places.lines().filter(|line| line.starts_with("| ") && !line.contains('#'));
    let sections: Vec<(String, usize)> = rows
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let row = cells[3].split('`').nth(1).unwrap();
            let (_, bytes, _) = structs().into_iter().find(|(name, ..)| *name == row).unwrap();
            (format!("{} {}", cells[1], cells[2].trim_matches('`')), bytes)
        })
        .collect();
    let right: Vec<_> = KINDS.iter().enumerate().map(|(n, (_, name, bytes))| (format!("{n} {name}"), *bytes)).collect();
    assert_eq!(sections, right);
}

/// What was version 1 stays version 1: whoever changes this line makes all programs that read segments wrong, unless only what
/// was `rest` got a name, or something was appended.
#[test]
fn version_1_is_what_it_was() {
    let mut all = String::new();
    for (name, bytes, fields) in structs() {
        write!(all, "{name}:{bytes};").unwrap();
        fields.iter().for_each(|f| write!(all, "{}@{}+{};", f.name, f.offset, f.bytes).unwrap());
    }
    KINDS.iter().for_each(|(_, name, bytes)| write!(all, "{name}+{bytes};").unwrap());
    // FNV-1a, 64 bits.
    let hash =
        all.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    assert_eq!((stats::layout::VERSION, format!("{hash:016x}").as_str()), (1, "472c982c5c220a59"));
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.chars().enumerate() {
        if c.is_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

fn compile(source: &Path, program: &Path) {
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-I"]).arg(here("include"));
    let output = cc.arg("-o").arg(program).arg(source).output().expect("cc is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run(program: &mut Command) -> String {
    let output = program.output().unwrap();
    assert!(output.status.success(), "{program:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_c_header_lays_out_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("layout.c"), directory.path().join("layout"));
    let mut c = String::from("#include <stdio.h>\n#include <ekiden_stats.h>\nint main(void) {\n");
    let mut right = format!("{} {}\n", stats::layout::MAGIC, KINDS.len());
    writeln!(c, "printf(\"%lu %d\\n\", (unsigned long)EKIDEN_STATS_MAGIC, EKIDEN_SECTIONS);").unwrap();
    for (at, (_, name, _)) in KINDS.iter().enumerate() {
        writeln!(c, "printf(\"%d\\n\", EKIDEN_{});", name.to_uppercase()).unwrap();
        writeln!(right, "{at}").unwrap();
    }
    for (name, bytes, fields) in structs() {
        let name = snake(name);
        writeln!(c, "printf(\"{name} %zu\\n\", sizeof(struct ekiden_{name}));").unwrap();
        writeln!(right, "{name} {bytes}").unwrap();
        for Field { name: field, offset, bytes } in fields {
            let of = format!("offsetof(struct ekiden_{name}, {field}), sizeof(((struct ekiden_{name} *)0)->{field})");
            writeln!(c, "printf(\"{field} %zu %zu\\n\", {of});").unwrap();
            writeln!(right, "{field} {offset} {bytes}").unwrap();
        }
    }
    c.push_str("return 0; }\n");
    std::fs::write(&source, c).unwrap();
    compile(&source, &program);
    assert_eq!(run(&mut Command::new(&program)), right);
}

/// What the examples print, from the Rust reader.
fn lines(reader: &mut Reader) -> String {
    let snapshot = reader.snapshot().unwrap();
    let hub = &snapshot.hub;
    let mut out = format!("hub {} build {} generation {}\n", hub.name, hub.build, hub.generation);
    let traffic = |t: &stats::Traffic| {
        let rx = format!("rx {} {} {}", t.rx_packets, t.rx_bytes, t.rx_outer_bytes);
        format!("{rx} tx {} {} {}", t.tx_packets, t.tx_bytes, t.tx_outer_bytes)
    };
    for tenant in &snapshot.tenants {
        let (id, code, label) = (tenant.id, &tenant.service_code, &tenant.label);
        writeln!(out, "tenant {id} {code} ({label}) {}", traffic(&tenant.traffic)).unwrap();
    }
    for site in &snapshot.sites {
        let (name, traffic) = (&site.name, traffic(&site.traffic));
        match (snapshot.tenant_of(site), site.lane) {
            (Some(tenant), None) => writeln!(out, "site {} {name} {traffic}", tenant.id).unwrap(),
            (None, Some(Lane { up, rtt_us, probes_lost, .. })) => {
                writeln!(out, "lane {name} up {} rtt {rtt_us} lost {probes_lost} {traffic}", u64::from(up)).unwrap();
            }
            other => panic!("{other:?}"),
        }
    }
    for port in &snapshot.ports {
        writeln!(out, "port {} queues {} entries {}", port.name, port.queues, port.ring_entries).unwrap();
    }
    for drop in snapshot.drops.iter().filter(|drop| drop.packets > 0) {
        writeln!(out, "drop {} {} {}", drop.name, drop.packets, drop.bytes).unwrap();
    }
    for worker in &snapshot.workers {
        write!(out, "worker {} {}", worker.slot, worker.frames).unwrap();
        for (name, times) in [("latency", &worker.latency), ("ring_time", &worker.ring_time)] {
            write!(out, " {name} {} {}", times.count(), times.sum_ns).unwrap();
        }
        writeln!(out).unwrap();
    }
    for tenant in &snapshot.tenants {
        for record in reader.history(Series::Tenant(tenant.slot), 0).unwrap().records {
            let (number, ns, rx, tx) = (record.number, record.ns, record.rx_bytes, record.tx_bytes);
            writeln!(out, "record {} {number} {ns} {rx} {tx}", tenant.slot).unwrap();
        }
    }
    out
}

#[test]
fn a_c_program_and_a_python_script_read_the_same_to_the_last_count() {
    let mut hub = Hub::new(5, 3);
    fill(&hub, 5);
    let lane = common::trunk(&mut hub, 0);
    hub.control.site(lane).up.set(1);
    hub.control.site(lane).rtt_us.set(2500);
    hub.control.site(lane).probes_lost.set(17);
    hub.rows[1].site(lane).tx_outer_bytes.add(1442);
    for second in 100..110 {
        common::receive(&hub.rows[1], 3, 7, 1000 + second);
        hub.tick(second);
    }
    let right = lines(&mut Reader::open(&hub.path()).unwrap());
    assert!(right.lines().count() > 5 + 10 + 4 + 3 + 10, "{right}");
    assert!(
        right.contains("\nsite 1000 trunk:osaka rx ")
            && right.contains("\nlane osaka/0 up 1 rtt 2500 lost 17 rx 0 0 0 tx 0 0 1442\n")
    );

    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("stats_read");
    compile(&here("examples/stats_read.c"), &program);
    assert_eq!(run(Command::new(&program).arg(hub.path())), right, "the C program");
    assert_eq!(run(Command::new("python3").arg(here("examples/stats_read.py")).arg(hub.path())), right, "the script");

    // Of what is no segment, each says so and ends in order.
    let other = directory.path().join("other");
    std::fs::write(&other, vec![7; 8192]).unwrap();
    let mut python = Command::new("python3");
    for program in [Command::new(&program).arg(&other), python.arg(here("examples/stats_read.py")).arg(&other)] {
        let output = program.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no segment of layout 1"), "{output:?}");
    }
}
