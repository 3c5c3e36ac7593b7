//! The programs of `lab.bpf.c`, loaded, and what they and user space tell each other.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, ProgramInput, RingBufferBuilder};

#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    single_use_lifetimes,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; its documentation is lab.bpf.c"
)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/lab.skel.rs"));
}

/// Length of a cell of the ring, and where in it the frame begins.
pub(super) const CELL: usize = 8 + FRAME_MAX;
pub(super) const CELL_HEADER: usize = 8;
/// The longest frame of the generator.
pub(super) const FRAME_MAX: usize = 1520;
/// Frames whose time of departure is remembered: `TIMES` of `lab.bpf.c`.
pub(super) const TIMES: u64 = 1 << 23;
/// The part of a receiver index that is the tunnel's number.
pub(super) const SLOT_BITS: u32 = 20;
/// The UDP port of frames that are not sealed.
pub(super) const PLAIN_PORT: u16 = 4321;
/// What the sink may keep until it is read, at the highest rate of samples.
const SAMPLES: u32 = 64 << 20;
/// Beside the time, the index and the length.
const SAMPLE_HEADER: usize = 16;

const ALL: MapFlags = MapFlags::ANY;
/// Of a map with one entry.
const ONLY: [u8; 4] = [0; 4];

/// What one load of the programs is made for.
pub(super) struct Sizes {
    /// Where the generator sends: an interface of the namespace in which it will run.
    pub(super) port: u32,
    /// Frames that the ring holds.
    pub(super) cells: u32,
    /// Tunnels that the sink tells apart.
    pub(super) tunnels: u32,
}

/// The programs in the kernel.
pub(super) struct Programs {
    skeleton: skeleton::LabSkel<'static>,
    /// What the generator is told and tells, for any thread.
    pub(super) board: Board,
    _links: Vec<Link>,
}

impl Programs {
    /// Loads them.
    pub(super) fn load(sizes: &Sizes) -> Result<Self> {
        // Some hundred bytes for each load of a program that makes a few: the skeleton borrows them.
        let object = Box::leak(Box::new(MaybeUninit::uninit()));
        let mut open = skeleton::LabSkelBuilder::default().open(object)?;
        let constants = open.maps.rodata_data.as_deref_mut().context("the programs have constants")?;
        (constants.port, constants.cells, constants.longest) = (sizes.port, sizes.cells, FRAME_MAX as u32);
        open.maps.ring.set_max_entries(sizes.cells)?;
        open.maps.tunnels.set_max_entries(sizes.tunnels)?;
        open.maps.samples.set_max_entries(SAMPLES)?;
        let skeleton = open.load().context("the kernel refused the programs of the lab")?;
        let maps = &skeleton.maps;
        let board = Board {
            ring: MapHandle::try_from(&maps.ring)?,
            order: MapHandle::try_from(&maps.order)?,
            progress: MapHandle::try_from(&maps.progress)?,
            times: MapHandle::try_from(&maps.times)?,
            tunnels: MapHandle::try_from(&maps.tunnels)?,
            arrivals: MapHandle::try_from(&maps.arrivals)?,
            cells: sizes.cells,
        };
        Ok(Self { skeleton, board, _links: Vec::new() })
    }

    /// Attaches `pass` to an interface of the calling thread's namespace.
    pub(super) fn pass(&mut self, ifindex: u32) -> Result<()> {
        self._links.push(self.skeleton.progs.pass.attach_xdp(ifindex as i32)?);
        Ok(())
    }

    /// Attaches the sink to an interface of the calling thread's namespace.
    pub(super) fn count(&mut self, ifindex: u32) -> Result<()> {
        self._links.push(self.skeleton.progs.count.attach_xdp(ifindex as i32)?);
        Ok(())
    }

    /// Gives every UDP frame of queue 0 of an interface of the calling thread's namespace to a socket.
    pub(super) fn steer(&mut self, ifindex: u32, socket: &impl AsFd) -> Result<()> {
        use std::os::fd::AsRawFd;
        let number = socket.as_fd().as_raw_fd().to_ne_bytes();
        self.skeleton.maps.sockets.update(&ONLY, &number, ALL)?;
        self._links.push(self.skeleton.progs.steer.attach_xdp(ifindex as i32)?);
        Ok(())
    }

    /// Runs the generator on this core until a signal comes; by its end, the last frame may have left long ago.
    pub(super) fn generate(&self) -> Result<()> {
        const LIVE_FRAMES: u32 = 1 << 1; // BPF_F_TEST_XDP_LIVE_FRAMES of linux/bpf.h
        let frame = [0; FRAME_MAX];
        let input =
            ProgramInput { data_in: Some(&frame), flags: LIVE_FRAMES, repeat: i32::MAX as u32, ..Default::default() };
        match self.skeleton.progs.generate.test_run(input) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error).context("BPF_PROG_TEST_RUN with live frames"),
        }
    }

    /// The messages that the sink has kept, oldest first; afterwards it has none.
    pub(super) fn samples(&self) -> Result<Vec<Sample>> {
        let mut all = Vec::new();
        let mut builder = RingBufferBuilder::new();
        builder.add(&self.skeleton.maps.samples, |bytes| {
            let len = u32_at(bytes, 12) as usize;
            if let Some(message) = bytes.get(SAMPLE_HEADER..SAMPLE_HEADER + len) {
                all.push(Sample { now: u64_at(bytes, 0), index: u32_at(bytes, 8), message: message.to_vec() });
            }
            0
        })?;
        let ring = builder.build()?;
        ring.consume()?;
        drop(ring);
        Ok(all)
    }
}

/// A message as it came to the sink.
pub(super) struct Sample {
    /// When, by the monotonic clock, in ns.
    pub(super) now: u64,
    /// Its receiver index; 0 if it was not sealed.
    pub(super) index: u32,
    /// The payload of its datagram.
    pub(super) message: Vec<u8>,
}

/// The maps.
pub(super) struct Board {
    ring: MapHandle,
    order: MapHandle,
    progress: MapHandle,
    times: MapHandle,
    tunnels: MapHandle,
    arrivals: MapHandle,
    /// Of the ring.
    pub(super) cells: u32,
}

/// What the generator and the sink are told.
#[derive(Clone, Copy, Default)]
pub(super) struct Orders {
    /// Frames in the ring so far.
    pub(super) ready: u64,
    /// Frames to send.
    pub(super) total: u64,
    /// Between two frames, in 1/256 ns; 0: as fast as it goes.
    pub(super) gap: u64,
    /// The sink keeps each message whose counter is a multiple of this; 0: none.
    pub(super) interval: u64,
}

/// How far the generator is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    pub(super) sent: u64,
    pub(super) begun: u64,
    pub(super) ended: u64,
    pub(super) starved: u64,
    pub(super) failed: u64,
}

/// What came to the sink.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    pub(super) packets: u64,
    /// Messages that there was no room to keep.
    pub(super) unsampled: u64,
}

/// What came of one tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) packets: u64,
    pub(super) late: u64,
}

impl Board {
    /// The generator forgets what it has sent.
    pub(super) fn reset(&self) -> Result<()> {
        self.order(&Orders::default())?;
        Ok(self.progress.update(&ONLY, &[0; 40], ALL)?)
    }

    pub(super) fn order(&self, orders: &Orders) -> Result<()> {
        let words = [orders.ready, orders.total, orders.gap, orders.interval];
        Ok(self.order.update(&ONLY, words.map(u64::to_ne_bytes).as_flattened(), ALL)?)
    }

    pub(super) fn progress(&self) -> Result<Progress> {
        let bytes = only(&self.progress)?;
        let [sent, begun, ended, starved, failed] = std::array::from_fn(|n| u64_at(&bytes, 8 * n));
        Ok(Progress { sent, begun, ended, starved, failed })
    }

    pub(super) fn arrivals(&self) -> Result<Arrivals> {
        let bytes = only(&self.arrivals)?;
        Ok(Arrivals { packets: u64_at(&bytes, 0), unsampled: u64_at(&bytes, 24) })
    }

    /// Puts whole cells into the ring, from the place of this frame on.
    pub(super) fn put(&self, first: u64, cells: &[u8]) -> Result<()> {
        let count = cells.len() / CELL;
        let places = (first..).take(count).map(|number| ((number % u64::from(self.cells)) as u32).to_ne_bytes());
        let keys: Vec<u8> = places.flatten().collect();
        Ok(self.ring.update_batch(&keys, &cells[..count * CELL], count as u32, ALL, ALL)?)
    }

    /// When this frame left.
    pub(super) fn departed(&self, number: u64) -> Result<u64> {
        let key = ((number % TIMES) as u32).to_ne_bytes();
        Ok(u64_at(&self.times.lookup(&key, ALL)?.context("a time")?, 0))
    }

    /// What came of each tunnel so far.
    pub(super) fn tunnels(&self, count: usize) -> Result<Vec<Tunnel>> {
        let mut all = vec![Tunnel::default(); count];
        let batch = self.tunnels.lookup_batch(1024.min(count as u32), ALL, ALL)?;
        for (key, value) in batch {
            if let Some(tunnel) = all.get_mut(u32_at(&key, 0) as usize) {
                *tunnel = Tunnel { packets: u64_at(&value, 0), late: u64_at(&value, 24) };
            }
        }
        Ok(all)
    }

    /// The sink expects the numbers of unsealed frames to begin at 0 again.
    pub(super) fn forget_plain(&self) -> Result<()> {
        let mut tunnel = self.tunnels.lookup(&ONLY, ALL)?.context("a tunnel")?;
        tunnel[16..24].fill(0);
        Ok(self.tunnels.update(&ONLY, &tunnel, ALL)?)
    }
}

fn only(map: &MapHandle) -> Result<Vec<u8>> {
    map.lookup(&ONLY, ALL)?.context("a map with one entry")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_ne_bytes)
}
