//! Benches of Ekiden by stage, which are in `benches/`, and what they have in common. Figures of one run compare with each other, and
//! with nothing else.
#![allow(unsafe_code, reason = "the cycle counter is read by an instruction")]

pub mod lab;

use arrayvec::ArrayVec;
use crypto::Time;
use crypto::aead::{Backend, Cipher, Key, Library, OpenJob, SALT, SealJob, TAG};
use dataplane::packet::{BATCH, Batch, Packet};
use dataplane::rehearsal::{Rehearsal, ipv4};
use dataplane::worker::Journey;
use std::time::{Duration, Instant};
use wire::PortIndex;

/// No cipher at all: for what all else costs.
pub struct Nothing;

impl Backend for Nothing {
    fn name(&self) -> &'static str {
        "nothing"
    }

    fn seal_batch(&self, _: &mut [SealJob<'_>]) {}

    fn open_batch(&self, jobs: &mut [OpenJob<'_>]) {
        jobs.iter_mut().for_each(|job| job.verified = true);
    }
}

/// What some work took.
#[derive(Clone, Copy)]
pub struct Spent {
    /// By the clock.
    pub time: Duration,
    /// By the counter of the CPU, which runs at a rate of its own; 0 where there is none.
    pub cycles: u64,
}

/// Does it, and says what it took.
pub fn measured(work: impl FnOnce()) -> Spent {
    let start = Instant::now();
    let cycles = counter();
    work();
    let cycles = counter() - cycles;
    Spent { time: start.elapsed(), cycles }
}

fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// A hub in memory that relays packets, each tenant's from one of its sites to the other.
pub struct Relay {
    hub: Rehearsal,
    packets: Vec<Vec<u8>>,
    /// Packets so far, so that each batch is of other tenants.
    passed: usize,
}

impl Relay {
    /// With this cipher, of so many tenants in turn, inner packets of these lengths.
    pub fn new(aead: &'static dyn Backend, tenants: usize, lengths: impl IntoIterator<Item = usize>) -> Self {
        let tenant = vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]];
        let mut hub = Rehearsal::new(&vec![tenant; tenants], 1024);
        (hub.journey.aead, hub.aead) = (aead, aead);
        let packet = |len| ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, len);
        Self { hub, packets: lengths.into_iter().map(packet).collect(), passed: 0 }
    }

    /// The packets of a batch.
    pub fn count(&self) -> usize {
        self.packets.len()
    }

    /// A batch of these through all stages, from frames received to frames to transmit.
    ///
    /// # Panics
    /// If one of them doesn't leave.
    pub fn batch(&mut self) -> Spent {
        self.batch_by(|hub, batch| {
            measured(|| {
                hub.relay(batch, Time(2_000_000_000));
                hub.dispatch(batch);
            })
        })
    }

    /// The same, by who measures otherwise.
    ///
    /// # Panics
    /// If one of them doesn't leave.
    pub fn batch_by<T>(&mut self, relay: impl FnOnce(&mut Journey, &mut Batch) -> T) -> T {
        let Self { hub, packets, passed } = self;
        let tenants = hub.far.len() / 2;
        let mut batch = Batch::new();
        for packet in packets.iter() {
            // In no order that a cache would guess.
            let tenant = passed.wrapping_mul(2_654_435_761) % tenants;
            *passed += 1;
            let mut frame = hub.journey.pool.pop().expect("a chunk");
            frame.copy_from(&hub.seal(tenant * 2, packet));
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        let spent = relay(&mut hub.journey, &mut batch);
        assert_eq!(hub.journey.out[0].len(), packets.len(), "all of them leave");
        let out = &mut hub.journey.out[0];
        hub.journey.pool.append(out);
        spent
    }
}

/// Messages of one batch, each with a key of its own.
pub struct Messages {
    keys: Vec<Key>,
    data: Vec<Vec<u8>>,
}

impl Messages {
    /// Of these lengths, by WireGuard's cipher.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let cipher = Cipher::ChaCha20Poly1305;
        Self::by(Library::of(cipher), cipher, lengths)
    }

    /// Of these lengths, for a cipher and the library that computes it where lanes don't.
    pub fn by(library: Library, cipher: Cipher, lengths: impl IntoIterator<Item = usize>) -> Self {
        let data: Vec<_> = lengths.into_iter().map(|len| vec![0x5a; len + TAG]).collect();
        let keys = (0..data.len()).map(|n| Key::by(library, cipher, &[n as u8; 32], [0; SALT])).collect();
        Self { keys, data }
    }

    /// What it takes to seal them, and then to open them.
    ///
    /// # Panics
    /// If they don't open.
    pub fn seal_and_open(&mut self, backend: &dyn Backend) -> [Spent; 2] {
        let mut jobs = ArrayVec::<_, BATCH>::new();
        for (key, data) in self.keys.iter().zip(&mut self.data) {
            jobs.push(SealJob { key, counter: 1, aad: &[], data });
        }
        let seal = measured(|| backend.seal_batch(&mut jobs));
        drop(jobs);
        let mut jobs = ArrayVec::<_, BATCH>::new();
        for (key, data) in self.keys.iter().zip(&mut self.data) {
            jobs.push(OpenJob { key, counter: 1, aad: &[], data, verified: false });
        }
        let open = measured(|| backend.open_batch(&mut jobs));
        assert!(jobs.iter().all(|job| job.verified));
        [seal, open]
    }
}

/// The lengths of a batch of 32 of the simple Internet mix, 7 small to 4 middling to 1 large, in an order like that of traffic.
pub fn imix() -> impl Iterator<Item = usize> + Clone {
    [64, 64, 576, 64, 64, 576, 1424, 64, 576, 64, 64, 576].into_iter().cycle().take(32)
}
