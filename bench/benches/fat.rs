//! One fat tunnel on two cores: the journey of one session and one ring, by its owner alone and with one helper.
//!
//! `cargo bench -p ekiden-bench --bench fat`. Alone and with the helper take turns. Inside of what is timed, batches are cut, carried,
//! retired, dispatched, and every frame that leaves is held against the order in which it came. What two cores give at most is measured
//! in between: the cipher alone, on one and on both of them.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use std::collections::VecDeque;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crypto::Time;
use crypto::aead::{self, Backend, Cipher, Key, SealJob, TAG};
use dataplane::mailbox::Bell;
use dataplane::packet::{BATCH, Packet};
use dataplane::rehearsal::{Rehearsal, ipv4};
use dataplane::team::Team;
use dataplane::worker::Journey;
use dataplane::xsk::Frame;
use rustix::thread::{CpuSet, sched_setaffinity};
use wire::PortIndex;

/// Packets in the ring when the clock starts.
const PACKETS: usize = 64 * BATCH;
/// Of each kind.
const ROUNDS: usize = 200;

fn main() {
    println!(
        "Time per packet in ns, median (least) of {ROUNDS} rounds of {PACKETS} packets; how many times as fast is of medians\n"
    );
    println!("| B | one core | two cores | as fast | the cipher alone, on two cores |\n|---|---|---|---|---|");
    for len in [64, 512, 1024, 1424] {
        row(len);
    }
}

/// What the other core does.
const REST: u8 = 0;
const SEAL: u8 = 1;
const HELP: u8 = 2;
const STOP: u8 = 3;
/// It does so now, or has done.
const DONE: u8 = 8;

fn row(len: usize) {
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], PACKETS as u32 + 16);
    hub.journey.aead = aead::choose(&aead::Wish::default());
    let (helper, _control) = hub.another();
    let bells = [(); 2].map(|()| Bell::new().expect("an eventfd"));
    let [mut owner, other] = <[Team; 2]>::try_from(Team::of(&bells)).expect("two of them");
    let (aead, now) = (hub.journey.aead, hub.now);
    let task = AtomicU8::new(REST);
    let tell = |what: u8| task.store(what, Ordering::Release);
    let wait_for = |what: u8| {
        while task.load(Ordering::Acquire) != what | DONE {
            spin_loop();
        }
    };
    let ask = |what| {
        tell(what);
        wait_for(what);
    };
    let mut times = [const { Vec::new() }; 4];
    std::thread::scope(|scope| {
        let task = &task;
        scope.spawn(move || other_core(task, helper, other, Sealing::new(aead, len), now));
        pin(0);
        let mut sealing = Sealing::new(aead, len);
        for _ in 0..ROUNDS {
            times[0].push(time(|| sealing.run()));
            times[1].push(time(|| {
                tell(SEAL);
                sealing.run();
                wait_for(SEAL);
            }));
            for (what, times) in [REST, HELP].into_iter().zip(&mut times[2..]) {
                let mut ring = filled(&mut hub, len);
                ask(what);
                times.push(time(|| carry(&mut hub.journey, &mut owner, &mut ring, now)));
                ask(REST);
            }
        }
        ask(STOP);
    });
    let [one, two, alone, helped] = times.map(|mut times| {
        times.sort_unstable();
        [ROUNDS / 2, 0].map(|at| times[at].as_nanos() as f64 / PACKETS as f64)
    });
    println!(
        "| {len} | {:.0} ({:.0}) | {:.0} ({:.0}) | {:.2} | {:.2} |",
        alone[0],
        alone[1],
        helped[0],
        helped[1],
        alone[0] / helped[0],
        2.0 * one[0] / two[0]
    );
}

fn other_core(task: &AtomicU8, mut helper: Journey, mut team: Team, mut sealing: Sealing, now: Time) {
    pin(1);
    loop {
        match task.load(Ordering::Acquire) {
            SEAL => sealing.run(),
            HELP => team.offer(true),
            REST => team.offer(false),
            what if what == HELP | DONE => {
                team.help(|batch| helper.relay(batch, now));
                continue;
            }
            STOP => return task.store(STOP | DONE, Ordering::Release),
            _ => {
                spin_loop();
                continue;
            }
        }
        // Unless it was told something else meanwhile.
        let told = task.load(Ordering::Acquire);
        let _ = task.compare_exchange(told & !DONE, told | DONE, Ordering::AcqRel, Ordering::Acquire);
    }
}

fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("a second core");
}

fn time(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// A ring full of one session's messages, in chunks of the hub's.
fn filled(hub: &mut Rehearsal, len: usize) -> VecDeque<Frame> {
    let packet = ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, len);
    let fill = |_| {
        let mut frame = hub.journey.pool.pop().expect("a chunk");
        frame.copy_from(&hub.seal(0, &packet));
        frame
    };
    (0..PACKETS).map(fill).collect()
}

/// What a worker does with a ring that is never empty.
fn carry(journey: &mut Journey, team: &mut Team, ring: &mut VecDeque<Frame>, now: Time) {
    let came: Vec<u32> = ring.iter().map(Frame::chunk).collect();
    let mut left = 0;
    while left < PACKETS {
        if !ring.is_empty()
            && let Some(mut batch) = team.batch()
        {
            batch.extend(ring.drain(..BATCH).map(|frame| Packet::arrived(frame, PortIndex(0))));
            let kept = if ring.is_empty() { Err(batch) } else { team.hand_out(batch) };
            if let Err(mut batch) = kept {
                journey.relay(&mut batch, now);
                team.keep(batch);
            }
        }
        journey.retire(team, now);
        for frame in journey.out[0].drain(..) {
            assert_eq!(frame.chunk(), came[left], "out of order");
            left += 1;
            journey.pool.push(frame);
        }
    }
}

/// As many packets of that length as a round has, sealed in batches.
struct Sealing {
    aead: &'static dyn Backend,
    key: Key,
    counter: u64,
    packets: Vec<Vec<u8>>,
}

impl Sealing {
    fn new(aead: &'static dyn Backend, len: usize) -> Self {
        let key = Key::new(Cipher::ChaCha20Poly1305, &[7; 32]);
        Self { aead, key, counter: 0, packets: vec![vec![0; len + TAG]; BATCH] }
    }

    fn run(&mut self) {
        for _ in 0..PACKETS / BATCH {
            let Self { key, counter, packets, .. } = self;
            let job = |data| {
                *counter += 1;
                SealJob { key, counter: *counter, aad: &[], data }
            };
            let mut jobs: Vec<_> = packets.iter_mut().map(Vec::as_mut_slice).map(job).collect();
            self.aead.seal_batch(&mut jobs);
        }
    }
}
