//! Whether readers of the segment disturb the relay: with nobody, with a hundred processes that read the relay's own segment as fast as
//! they can, and with a hundred that do exactly the same to a copy of it which nobody writes. What the last two differ by, the segment
//! is to blame for; what the first two differ by besides is the price of a hundred busy processes of any kind.
//!
//! `cargo bench -p ekiden-bench --bench readers`: once with the relay on a core of its own, once with all of them on all cores. One
//! sample after the other, the arms in turn and each time in another order, so that what else the machine does meets all of them alike.
//! Time is that of the relay's thread on its core, which waiting for the core is no part of, and by the clock on the wall, which it is.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use dataplane::packet::{BATCH, Batch, Packet};
use dataplane::rehearsal::{Rehearsal, ipv4};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use stats::{Reader, Segment, Shape, Spec};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::{PortIndex, SiteSlot, TenantId, TenantSlot};

const READERS: usize = 100;
const ROUNDS: usize = 60;
/// Measured relaying in a sample, without what the far ends do.
const SAMPLE: Duration = Duration::from_millis(60);
/// The end of a sample that does not get so much of a core.
const PATIENCE: Duration = Duration::from_secs(1);
const LEN: usize = 1420;

fn main() {
    let words: Vec<String> = std::env::args().collect();
    match words.iter().position(|word| word == "--read") {
        Some(at) => read(words[at + 1].as_ref()),
        None => compare(),
    }
}

/// A reader: polls until its parent closes the pipe, and then says how often it has read.
fn read(path: &Path) {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("prctl");
    let mut reader = Reader::open(path).expect("a segment");
    let reads = Arc::new(AtomicU64::new(0));
    let seen = reads.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        println!("{}", seen.load(Ordering::Relaxed));
        std::process::exit(0);
    });
    loop {
        std::hint::black_box(reader.snapshot().expect("a snapshot"));
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// A hundred processes that stand still unless they are let go.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start(path: &Path) -> Self {
        let program = std::env::current_exe().expect("this program");
        let start = |_| {
            let mut command = Command::new(&program);
            command.arg("--read").arg(path).stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn().expect("a reader")
        };
        let crowd = Self((0..READERS).map(start).collect());
        crowd.signal(Signal::STOP);
        crowd
    }

    fn signal(&self, signal: Signal) {
        for child in &self.0 {
            kill_process(Pid::from_child(child), signal).expect("a reader that lives");
        }
    }

    fn place(&self, cores: &CpuSet) {
        for child in &self.0 {
            sched_setaffinity(Some(Pid::from_child(child)), cores).expect("cores");
        }
    }

    /// How often they have read, all together.
    fn end(self) -> u64 {
        self.signal(Signal::CONT);
        let reads = |child: Child| {
            let output = child.wait_with_output().expect("a reader's last word"); // closes its pipe first
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().expect("a number")
        };
        self.0.into_iter().map(reads).sum()
    }
}

fn segment(path: &Path) -> Segment {
    let spec = Spec {
        hub: "bench".into(),
        build: String::new(),
        config_hash: 0,
        shape: Shape { tenants: 1, sites: 2, ports: 1, ..Shape::default() },
        room: Shape::default(),
        workers: 1,
        memory: 64 << 20,
        group: None,
    };
    let mut segment = Segment::create(path, spec).expect("a segment").segment;
    segment.configure(|directory| {
        let id = TenantId::new(1001).expect("24 bits");
        directory.tenant(TenantSlot(0), id, "WAN00001001", "a label").expect("room");
        (0..2).for_each(|site| directory.site(SiteSlot(site), TenantSlot(0), "osaka").expect("room"));
        directory.port(PortIndex(0), "eth0", 1, 2048).expect("room");
        directory.worker(0, 0, 1024).expect("room");
    });
    segment.publish().expect("a name");
    segment
}

/// What this thread has had of its core.
fn on_core() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Nanoseconds a packet, over a sample: on the core, and by the wall.
fn relay(hub: &mut Rehearsal, packet: &[u8]) -> [f64; 2] {
    let (mut worked, mut passed, mut packets) = (Duration::ZERO, Duration::ZERO, 0);
    let begun = Instant::now();
    while worked < SAMPLE && begun.elapsed() < PATIENCE {
        let mut batch = Batch::new();
        for _ in 0..BATCH {
            let mut frame = hub.journey.pool.pop().expect("a chunk");
            frame.copy_from(&hub.seal(0, packet));
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        let (start, work) = (Instant::now(), on_core());
        hub.journey.relay(&mut batch, crypto::Time(2_000_000_000));
        hub.journey.dispatch(&mut batch);
        // And what the loop counts once a turn.
        let rows = &hub.journey.rows;
        rows.turns.turns.add(1);
        rows.turns.batches.add(1);
        rows.turns.frames.add(BATCH as u64);
        rows.port(PortIndex(0)).rx_frames.add(BATCH as u64);
        rows.latency.record(start.elapsed().as_nanos() as u64, BATCH as u64);
        worked += on_core() - work;
        passed += start.elapsed();
        packets += hub.journey.out[0].len();
        let out = &mut hub.journey.out[0];
        hub.journey.pool.append(out);
    }
    [worked, passed].map(|time| time.as_nanos() as f64 / packets as f64)
}

fn compare() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a tmpfs");
    let (path, still) = (directory.path().join("stats"), directory.path().join("copy"));
    let segment = segment(&path);
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 1024);
    hub.journey.aead = crypto::aead::choose(&crypto::aead::Wish::default());
    hub.journey.rows = Arc::new(segment.rows(0));
    let packet = ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, LEN);
    relay(&mut hub, &packet);
    std::fs::copy(&path, &still).expect("a copy");

    let cores = rustix::thread::sched_getaffinity(None).expect("cores");
    let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| cores.is_set(*core)).collect();
    assert!(all.len() > 1, "the relay needs a core of its own");
    let mut own = CpuSet::new();
    own.set(all[0]);
    let mut others = cores;
    others.clear();
    all[1..].iter().for_each(|core| others.set(*core));

    println!("{LEN} bytes, ns a packet, {ROUNDS} samples of {SAMPLE:?} each, {} cores", all.len());
    for (place, mine, theirs) in [("the relay on a core of its own", own, others), ("all on all cores", cores, cores)] {
        let crowds = [Crowd::start(&path), Crowd::start(&still)];
        crowds.iter().for_each(|crowd| crowd.place(&theirs));
        sched_setaffinity(None, &mine).expect("cores");
        let mut samples: [Vec<[f64; 2]>; 3] = Default::default();
        for round in 0..ROUNDS {
            for turn in 0..3 {
                let arm = (turn + round) % 3;
                if arm > 0 {
                    crowds[arm - 1].signal(Signal::CONT);
                }
                std::thread::sleep(Duration::from_millis(20));
                samples[arm].push(relay(&mut hub, &packet));
                if arm > 0 {
                    crowds[arm - 1].signal(Signal::STOP);
                }
            }
        }
        for (which, time) in ["on its core", "by the wall"].into_iter().enumerate() {
            println!("\n{place}; ns a packet {time}:\n");
            println!("| | least | quarter | median | three quarters | most |\n|---|---|---|---|---|---|");
            for (name, samples) in ["nobody", "100 readers", "100 readers of a copy"].into_iter().zip(&samples) {
                let mut samples: Vec<f64> = samples.iter().map(|sample| sample[which]).collect();
                samples.sort_by(f64::total_cmp);
                let part = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
                let parts = [0.0, 0.25, 0.5, 0.75, 1.0].map(|at| format!("{:.0}", part(at)));
                println!("| {name} | {} |", parts.join(" | "));
            }
        }
        let [reads, copies] = crowds.map(Crowd::end);
        println!("the readers read {reads} times, those of the copy {copies} times");
    }
}
