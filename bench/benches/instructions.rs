//! Instructions that the journey and the XDP program execute, by callgrind, against those of a baseline: `bench/instructions.txt`.
//!
//! `cargo bench -p ekiden-bench --bench instructions`: fails if anything takes more than the baseline by more than [`MARGIN`], which
//! wall time on a shared machine could not tell; `-- --accept` writes a new baseline. The journey is without its cipher (which would be
//! nine tenths of the count, and has benches of its own); the program is compiled as ordinary C, its maps one row each.
#![allow(unsafe_code, reason = "callgrind finds what it counts by the name of a function; and the XDP program is C")]
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

#[path = "../../bpf/tests/common/mod.rs"]
mod frames;

use crypto::Time;
use crypto::aead::Cipher;
use dataplane::packet::{BATCH, Batch};
use ekiden_bench::{Nothing, Relay, Way, imix};
use frames::{LISTEN, PORT_MAC, SOURCE_PORT, Udp, message};
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::process::{Command, ExitCode};

/// What counts as slower: in percent, and at least one instruction.
const MARGIN: f64 = 3.0;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// Compilers differ by more than the margin: the count is of one of them.
const RUSTC: &str = env!("EKIDEN_RUSTC");

/// How often each is done, so that what happens now and then is in the mean.
const ROUNDS: usize = 32;

/// Does it for callgrind, and returns how often.
type Case = fn() -> usize;

/// Everything that is counted.
const CASES: [(&str, Case); 12] = [
    ("journey, 64 of one site", || journey(1, vec![512; BATCH])),
    ("journey, 64 of 32 sites", || journey(32, vec![512; BATCH])),
    ("journey, IMIX, 64 of one site", || journey(1, imix().cycle().take(BATCH).collect())),
    ("journey, 8 of one site", || journey(1, vec![512; 8])),
    ("journey, one alone", || journey(1, vec![512])),
    ("journey, 64 from a site to a trunk", || of_trunk(Way::ToTrunk)),
    ("journey, 64 from a trunk to a site", || of_trunk(Way::FromTrunk)),
    ("steer, data over IPv4 to the ring", || program(&Udp::v4(message(4, LIVE, 512)))),
    ("steer, data over IPv6 to the ring", || program(&Udp::v6(message(4, LIVE, 512)))),
    ("steer, data of no session", || program(&Udp::v4(message(4, LIVE ^ 1, 512)))),
    ("steer, initiation of a known source", || program(&Udp::v4(message(1, 0, 148)))),
    ("steer, not the hub's port", || program(&Udp { port: 53, ..Udp::v4(message(4, LIVE, 64)) })),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("--count") => {
            let (_, case) = CASES[arguments[1].parse::<usize>().expect("a number")];
            println!("{}", case());
            ExitCode::SUCCESS
        }
        Some("--accept") => {
            let mut text = format!("# {RUSTC}\n");
            for (n, (name, _)) in CASES.iter().enumerate() {
                let _ = writeln!(text, "{:8.1}  {name}", count(n));
            }
            fs::write(BASELINE, &text).expect("the baseline can be written");
            print!("{text}");
            ExitCode::SUCCESS
        }
        _ => compare(),
    }
}

fn compare() -> ExitCode {
    let text = fs::read_to_string(BASELINE).unwrap_or_default();
    let comparable = text.starts_with(&format!("# {RUSTC}\n"));
    let line = |line: &str| -> Option<(String, f64)> {
        let (number, name) = line.trim_start().split_once("  ")?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let baseline: BTreeMap<_, _> = text.lines().filter_map(line).collect();
    let mut slower = 0;
    println!("instructions   before  change");
    for (n, (name, _)) in CASES.iter().enumerate() {
        let now = count(n);
        let Some(before) = baseline.get(*name).filter(|_| comparable) else {
            println!("{now:12.1}        -       -  {name}");
            continue;
        };
        let change = (now / before - 1.0) * 100.0;
        let worse = change > MARGIN && now > before + 1.0;
        slower += usize::from(worse);
        println!("{now:12.1} {before:8.1} {change:+6.1}%  {name}{}", if worse { "  SLOWER" } else { "" });
    }
    if !comparable {
        println!("NOT COMPARED: the baseline is not of this compiler, {RUSTC}; `-- --accept` makes one that is");
    }
    if slower > 0 {
        println!("{slower} of {} take more than {MARGIN} % more; if that is worth it: `-- --accept`", CASES.len());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Instructions for one of what case `n` does, counted by callgrind in a process of its own.
fn count(n: usize) -> f64 {
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=ekiden_counted"])
        .args(["--toggle-collect=native_steer", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("it has a path"))
        .args(["--count", &n.to_string()])
        .output()
        .expect("valgrind is installed (Debian: valgrind; scripts/setup.sh)");
    let (said, found) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    let done: usize = said.trim().parse().unwrap_or_else(|_| panic!("case {n} says {said}, and valgrind {found}"));
    let collected = found.lines().find_map(|line| line.split_once("Collected : "));
    let collected: u64 = collected.and_then(|(_, n)| n.trim().parse().ok()).expect("callgrind says what it counted");
    assert!(collected > 0, "nothing was counted: the function has another name");
    collected as f64 / done as f64
}

fn journey(tenants: usize, lengths: Vec<usize>) -> usize {
    let packets = lengths.len();
    carry(Relay::new(&Nothing, tenants, lengths), packets)
}

fn of_trunk(way: Way) -> usize {
    carry(Relay::by_trunk(&Nothing, Cipher::Aes256Gcm, way, [512; BATCH]), BATCH)
}

fn carry(mut relay: Relay, packets: usize) -> usize {
    // What only happens the first time is not what a packet costs.
    relay.batch();
    (0..ROUNDS).for_each(|_| relay.batch_by(ekiden_counted));
    ROUNDS * packets
}

/// What callgrind counts, by this name.
#[unsafe(no_mangle)]
#[inline(never)]
fn ekiden_counted(hub: &mut dataplane::worker::Journey, batch: &mut Batch) {
    hub.relay(batch, Time(2_000_000_000));
    hub.dispatch(batch);
}

const LIVE: u32 = 0x1234_5621;

unsafe extern "C" {
    fn native_setup(mac: *const u8, local: *const u8, source: *const u8, source_port: u16, listen: u16, live: u32);
    fn native_frame(bytes: *const u8, len: u32) -> u32;
    fn native_steer(at: u32, len: u32) -> i32;
}

/// The XDP program on a frame.
fn program(frame: &Udp) -> usize {
    let bytes = Udp { destination_mac: PORT_MAC, ..frame.clone() }.build();
    let mapped = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    };
    let (local, source) = (mapped(frame.to), mapped(frame.from));
    let len = bytes.len() as u32;
    // SAFETY: the arrays have the lengths that `native_setup` copies, 6, 16 and 16; `native_frame` copies `len` bytes of the frame.
    let at = unsafe {
        native_setup(PORT_MAC.as_ptr(), local.as_ptr(), source.as_ptr(), SOURCE_PORT, LISTEN, LIVE);
        native_frame(bytes.as_ptr(), len)
    };
    assert!(at > 0, "no room below 4 GiB");
    for _ in 0..ROUNDS {
        // SAFETY: `at` is a mapping of `len` bytes that is never undone; the program looks at no byte beyond them.
        unsafe { native_steer(at, len) };
    }
    ROUNDS
}
