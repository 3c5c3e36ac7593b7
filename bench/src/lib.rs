//! Benches of Ekiden by stage, which are in `benches/`, and what they have in common. Figures of one run compare with each other, and
//! with nothing else.
#![allow(unsafe_code, reason = "the cycle counter is read by an instruction")]

pub mod lab;

use arrayvec::ArrayVec;
use classifier::Target;
use crypto::Time;
use crypto::aead::{Backend, Cipher, Key, Library, OpenJob, SALT, SealJob, TAG};
use dataplane::mailbox::Order;
use dataplane::packet::{BATCH, Batch, Packet};
use dataplane::rehearsal::joined::{join, tagged};
use dataplane::rehearsal::{Rehearsal, ipv4, routes};
use dataplane::trunk::Trunk;
use dataplane::worker::Journey;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::geneve::Payload;
use wire::{PortIndex, SiteSlot, TenantId, TenantSlot};

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

/// The tenant of what goes by a trunk.
const TENANT: u64 = 1001;

/// Which way packets take through a hub.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From a site to another hub.
    ToTrunk,
    /// From another hub to a site.
    FromTrunk,
    /// From another hub to a third one: transit.
    Through,
}

/// A hub in memory that relays packets, each tenant's from one of its sites to the other; or between its site and a trunk, or two.
pub struct Relay {
    hub: Rehearsal,
    /// The hub at the other end of the trunk, and its lanes, if packets come from there.
    peer: Option<(Rehearsal, Vec<SiteSlot>)>,
    packets: Vec<Vec<u8>>,
    /// Packets so far, so that each batch is of other tenants.
    passed: usize,
    /// All sites are of one tenant, each pair with addresses of its own.
    together: bool,
}

impl Relay {
    /// With this cipher, of so many tenants in turn, inner packets of these lengths.
    pub fn new(aead: &'static dyn Backend, tenants: usize, lengths: impl IntoIterator<Item = usize>) -> Self {
        let tenant = vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]];
        let mut hub = Rehearsal::new(&vec![tenant; tenants], 1024);
        (hub.journey.aead, hub.aead) = (aead, aead);
        let packet = |len| ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, len);
        Self { hub, peer: None, packets: lengths.into_iter().map(packet).collect(), passed: 0, together: false }
    }

    /// The same between so many pairs of sites of one tenant in turn, at most 65,536.
    pub fn of_one(aead: &'static dyn Backend, pairs: usize, lengths: impl IntoIterator<Item = usize>) -> Self {
        let half = |site: usize| format!("10.{}.{}.{}/25", site >> 9, site >> 1 & 255, site % 2 * 128);
        let prefixes: Vec<_> = (0..2 * pairs).map(half).collect();
        let mut hub = Rehearsal::new(&[prefixes.iter().map(|prefix| vec![prefix.as_str()]).collect()], 1024);
        (hub.journey.aead, hub.aead) = (aead, aead);
        let packet = |len| ipv4([10, 0, 0, 1], [10, 0, 0, 129], 64, len);
        Self { hub, peer: None, packets: lengths.into_iter().map(packet).collect(), passed: 0, together: true }
    }

    /// Between a site and a trunk of four lanes with this cipher, or between two such trunks, each packet of a flow of its own.
    ///
    /// # Panics
    /// If there is not what it takes.
    pub fn by_trunk(
        aead: &'static dyn Backend,
        cipher: Cipher,
        way: Way,
        lengths: impl IntoIterator<Item = usize>,
    ) -> Self {
        let (id, tenants) = (TenantId::new(TENANT).expect("24 bits"), [vec![vec!["10.9.1.0/24"]]]);
        let [mut hub, mut near, mut far] = [0, 1, 2].map(|n| Rehearsal::numbered(n, &tenants, &[], 1024, 10));
        let mut tables = routes(&tenants);
        let mut lead = |prefix: &str, trunk: &Trunk| {
            tables.add(TenantSlot(0), prefix.parse().expect("a prefix"), Target::Site(trunk.carried[&id]));
        };
        let [trunk, back] = join([&mut hub, &mut near], 4, cipher, &[id]);
        lead("10.9.2.0/24", &trunk);
        if way == Way::Through {
            lead("10.9.3.0/24", &join([&mut hub, &mut far], 4, cipher, &[id])[0]);
            let (lanes, live, carried) = (trunk.lanes.clone(), trunk.live.clone(), trunk.carried.clone());
            let open =
                Trunk { lanes, live, carried, transit: true, payload_max: trunk.payload_max, ..Trunk::default() };
            hub.obey(Order::Trunk(Arc::new(open)));
        }
        hub.journey.tables = Arc::new(tables.build());
        (hub.journey.aead, hub.aead, near.aead) = (aead, aead, aead);
        let (from, to) = match way {
            Way::ToTrunk => ([10, 9, 1, 1], [10, 9, 2, 1]),
            Way::FromTrunk => ([10, 9, 2, 1], [10, 9, 1, 1]),
            Way::Through => ([10, 9, 2, 1], [10, 9, 3, 1]),
        };
        let packet = |(port, len): (u16, usize)| {
            let mut packet = ipv4(from, to, 64, len);
            packet[20..22].copy_from_slice(&port.to_be_bytes());
            packet
        };
        let packets = (40_000..).zip(lengths).map(packet).collect();
        let peer = (way != Way::ToTrunk).then(|| (near, back.lanes.to_vec()));
        Self { hub, peer, packets, passed: 0, together: false }
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
        let Self { hub, peer, packets, passed, together } = self;
        let tenants = hub.far.len().div_ceil(2);
        let mut batch = Batch::new();
        for packet in packets.iter() {
            // In no order that a cache would guess.
            let tenant = passed.wrapping_mul(2_654_435_761) % tenants;
            *passed += 1;
            let mut frame = hub.journey.pool.pop().expect("a chunk");
            let bytes = match peer {
                None if *together => {
                    let [high, low] = (tenant as u16).to_be_bytes();
                    hub.seal(tenant * 2, &ipv4([10, high, low, 1], [10, high, low, 129], 64, packet.len()))
                }
                None => hub.seal(tenant * 2, packet),
                Some((peer, lanes)) => {
                    let id = TenantId::new(TENANT).expect("24 bits");
                    peer.seal_by(lanes[*passed % lanes.len()], &tagged(id, Payload::Ipv4, packet))
                }
            };
            frame.copy_from(&bytes);
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
