//! A socket on one queue of one interface: how it is opened, driven and closed.
#![allow(unsafe_code, reason = "shares memory with the kernel, and takes it back")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use super::error::{Error, Ring, Step};
use super::frame::Frame;
use super::path::{Counts, Descriptor, InKernel, Path, Queue, Rings};
use super::ring::{Consumer, Producer};
use super::sys::{self, Mapping};
use super::umem::Umem;

/// How long to wait before a bind is tried again that met a predecessor still being torn down (27 to 40 ms on veth).
const BIND_INTERVAL: Duration = Duration::from_millis(5);

/// System calls of one `kick` that make headway before it leaves the rest to the next: a worker has other ports to
/// serve.
const KICKS: usize = 64;

/// What is wanted of a socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Zero-copy: `Some(true)` or fail, `Some(false)` not at all, `None` if the driver can. A socket that shares
    /// another's UMEM takes its mode, whatever stands here.
    pub zero_copy: Option<bool>,
    /// Entries of the fill ring. Should exceed the sum of the receive rings on this queue, or a worker that stalls
    /// starves the others. This and the following are powers of two.
    pub fill: u32,
    /// Entries of the completion ring: at least those of all transmit rings on this queue.
    pub completion: u32,
    /// Entries of the receive ring.
    pub receive: u32,
    /// Entries of the transmit ring.
    pub transmit: u32,
    /// Packets may come in several descriptors, and leave in several (Linux 6.6). A socket that shares another's UMEM has what
    /// that one has.
    pub multi_buffer: bool,
    /// Poll the NIC from the worker instead of by interrupts.
    pub busy_poll: Option<BusyPoll>,
    /// How long to go on trying while another socket has the queue: a predecessor's takes a moment to go.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            zero_copy: None,
            fill: 4096,
            completion: 4096,
            receive: 2048,
            transmit: 2048,
            multi_buffer: false,
            busy_poll: None,
            patience: Duration::from_secs(1),
        }
    }
}

/// Preferred busy polling (Linux 5.11): each turn of the worker runs the NIC's queue. Does nothing on veth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BusyPoll {
    /// Longest time that one call polls.
    pub time_us: u32,
    /// Packets that one call handles at most.
    pub budget: u32,
}

/// What a socket got.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Packets go to and from the NIC without a copy.
    pub zero_copy: bool,
    /// What the kernel answered when zero-copy was tried and not had.
    pub zero_copy_refused: Option<Refusal>,
    /// The kernel says when it wants to be woken, and is left alone otherwise.
    pub need_wakeup: bool,
    /// Packets that one system call sends in copy mode, where the kernel can be told (Linux 6.17); 32 otherwise.
    pub tx_budget: Option<u32>,
    /// Packets may have several descriptors.
    pub multi_buffer: bool,
    /// Fills and completes the queue. False for a socket on a queue that another one serves.
    pub owns_queue: bool,
}

/// Why a mode was refused: a number of the kernel's. Displays as its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal(pub i32);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

/// What came of a [`Socket::kick`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kick {
    /// The kernel has all frames, or takes them without being told.
    Done,
    /// Frames wait in the transmit ring for a kernel that takes no more at the moment: kick again at the next turn.
    Again,
    /// The interface is down; the frames wait until it is up.
    Down,
    /// The interface is gone, and this socket will never work again: close it.
    Gone,
}

/// Packets that the kernel lost between XDP and the rings, and why (`XDP_STATISTICS`); since the socket was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Statistics {
    /// No frame in the fill ring, or a packet too long for a chunk.
    pub rx_dropped: u64,
    /// The receive ring was full.
    pub rx_ring_full: u64,
    /// Entries of the fill ring that the kernel refused.
    pub rx_invalid_descs: u64,
    /// Entries of the transmit ring that the kernel refused.
    pub tx_invalid_descs: u64,
    /// Times that the fill ring was found empty.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the transmit ring was found empty: no loss.
    pub tx_ring_empty_descs: u64,
}

/// An AF_XDP socket, bound to one queue.
///
/// It belongs to one worker. `close` it to get back the frames that the kernel has; just dropped, they are lost.
pub struct Socket {
    path: Path,
    fd: OwnedFd,
    /// After `fd`, so that the count goes down once the descriptor is closed.
    _member: Member,
    bound: Bound,
    busy_poll: bool,
}

/// Counts a socket as open on its queue.
struct Member(Arc<Queue>);

impl Member {
    fn of(queue: &Arc<Queue>) -> Member {
        queue.open.fetch_add(1, Ordering::AcqRel);
        Member(Arc::clone(queue))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Socket {
    /// Opens a socket on a queue of an interface, to carry frames of `umem`.
    ///
    /// Without `share` the socket registers the memory for itself. With it, it shares the other's registration and
    /// mode, and the other must outlive only this call. If that one is on the *same queue*, the new socket joins
    /// it: it has no fill and completion ring, and the other refills and reclaims for both, so frames change hands.
    /// A queue that already has a socket can only be had by joining it.
    ///
    /// Blocks for up to `options.patience`.
    ///
    /// # Errors
    ///
    /// Which step failed, the kernel's answer, and what would help.
    ///
    /// # Panics
    ///
    /// If `share` carries frames of another UMEM.
    pub fn open(
        umem: &'static Umem,
        ifindex: u32,
        queue: u32,
        options: &Options,
        share: Option<&Socket>,
    ) -> Result<Socket, Error> {
        let failed = |step: Step| {
            move |source: io::Error| Error {
                interface: sys::interface_name(ifindex).unwrap_or_else(|_| format!("number {ifindex}")),
                queue,
                step,
                source,
            }
        };
        if let Some(other) = share {
            assert!(std::ptr::eq(other.path.umem(), umem), "a socket of another UMEM");
        }
        let joined = share.map(|other| other.path.queue_of()).filter(|q| (q.ifindex, q.queue) == (ifindex, queue));

        // 1. The socket, and the memory unless it is shared.
        let owned = sys::xdp_socket().map_err(failed(Step::Create))?;
        let fd = owned.as_fd();
        if share.is_none() {
            // SAFETY: a `Umem` is never unmapped, and its bytes are reached through frames only.
            unsafe { sys::register_umem(fd, umem.region(), umem.chunk_size() as usize) }
                .map_err(failed(Step::RegisterUmem))?;
        }

        // 2. The rings: all four, or only those for packets where the queue is joined.
        let sizes = [
            (Ring::Fill, libc::XDP_UMEM_FILL_RING, options.fill),
            (Ring::Completion, libc::XDP_UMEM_COMPLETION_RING, options.completion),
            (Ring::Receive, libc::XDP_RX_RING, options.receive),
            (Ring::Transmit, libc::XDP_TX_RING, options.transmit),
        ];
        for (ring, name, size) in sizes.into_iter().skip(if joined.is_some() { 2 } else { 0 }) {
            sys::set_option(fd, libc::SOL_XDP, name, &size).map_err(failed(Step::Size(ring, size)))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            sys::option(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS).map_err(failed(Step::LearnOffsets))?;
        let map = |ring: Ring, page: u64, offset: &libc::xdp_ring_offset, size: u32, entry: usize| {
            let len = offset.desc as usize + size as usize * entry;
            Mapping::shared(fd, page, len).map_err(failed(Step::Map(ring)))
        };
        let (mut fill, mut completion) = (None, None);
        if joined.is_none() {
            let mapping = map(Ring::Fill, libc::XDP_UMEM_PGOFF_FILL_RING, &offsets.fr, options.fill, size_of::<u64>())?;
            fill = Some(Producer::new(mapping, &offsets.fr, options.fill));
            let page = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
            let mapping = map(Ring::Completion, page, &offsets.cr, options.completion, size_of::<u64>())?;
            completion = Some(Consumer::new(mapping, &offsets.cr, options.completion));
        }
        let entry = size_of::<Descriptor>();
        let mapping = map(Ring::Receive, libc::XDP_PGOFF_RX_RING as u64, &offsets.rx, options.receive, entry)?;
        let receive = Consumer::new(mapping, &offsets.rx, options.receive);
        let mapping = map(Ring::Transmit, libc::XDP_PGOFF_TX_RING as u64, &offsets.tx, options.transmit, entry)?;
        let transmit = Producer::new(mapping, &offsets.tx, options.transmit);

        // 3. What newer kernels offer. The budget is only ever asked for: older ones send 32 a call.
        let budget = options.transmit;
        let tx_budget = sys::set_option(fd, libc::SOL_XDP, sys::MAX_TX_SKB_BUDGET, &budget).ok().map(|()| budget);
        if let Some(BusyPoll { time_us, budget }) = options.busy_poll {
            for (name, value) in
                [(sys::PREFER_BUSY_POLL, 1), (sys::BUSY_POLL, time_us), (sys::BUSY_POLL_BUDGET, budget)]
            {
                sys::set_option(fd, libc::SOL_SOCKET, name, &value).map_err(failed(Step::BusyPoll))?;
            }
        }

        // 4. Bind.
        let place = Place { fd, ifindex, queue, patience: options.patience };
        let zero_copy_refused = match share {
            Some(other) => {
                place.bind(libc::XDP_SHARED_UMEM, Some(other.fd.as_fd())).map_err(failed(Step::BindShared))?;
                None
            }
            None => place.bind_in_mode(options).map_err(|(step, source)| failed(step)(source))?,
        };
        let got: libc::xdp_options =
            sys::option(fd, libc::SOL_XDP, libc::XDP_OPTIONS).map_err(failed(Step::ReadOptions))?;

        let bound = Bound {
            zero_copy: got.flags & libc::XDP_OPTIONS_ZEROCOPY != 0,
            zero_copy_refused,
            need_wakeup: true,
            tx_budget,
            multi_buffer: share.map_or(options.multi_buffer, |other| other.bound.multi_buffer),
            owns_queue: joined.is_none(),
        };
        let queue = match joined {
            Some(queue) => Arc::clone(queue),
            None => Arc::new(Queue { id: umem.new_queue(), ifindex, queue, open: AtomicU32::new(0) }),
        };
        let member = Member::of(&queue);
        let path = Path::new(umem, queue, Rings { fill, completion, receive, transmit }, options.receive as usize);
        Ok(Socket { path, fd: owned, _member: member, bound, busy_poll: options.busy_poll.is_some() })
    }

    /// What the socket got.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Moves up to `max` received packets into `into`, in their order, and returns how many.
    ///
    /// `into` must have room for `max`. A packet in several descriptors comes as one long frame; where there is none, or none
    /// that is long enough, it is dropped and counted.
    #[inline]
    pub fn receive(&mut self, into: &mut impl Extend<Frame>, max: usize) -> usize {
        let received = self.path.receive(into, max);
        if received == 0 && self.busy_poll {
            // With nothing to do this call polls the NIC. Its errors mean a lack of packets, or of the interface, which
            // a kick reports.
            let _ = sys::wake(self.fd.as_fd());
        }
        received
    }

    /// Lends as many frames from the end of `pool` to the kernel as it has room for, to receive into; returns how many.
    ///
    /// To be called at every turn: it also wakes a kernel that ran out. Where another socket serves the queue it lends
    /// nothing, and only puts frames of dropped packets into `pool`.
    #[inline]
    pub fn refill(&mut self, pool: &mut Vec<Frame>) -> usize {
        let filled = self.path.refill(pool);
        if let Some(fill) = &self.path.rings().fill
            && fill.wakeup_wanted()
            && fill.outstanding() > 0
        {
            // Fails only while the interface is down or gone, when there is nothing to wake.
            let _ = sys::wake(self.fd.as_fd());
        }
        filled
    }

    /// Puts frames from the front of `frames` into the transmit ring, shows them to the kernel, and returns how many;
    /// the rest stay in `frames`. They leave with a [`kick`](Self::kick).
    ///
    /// # Panics
    ///
    /// If a frame is of another UMEM, or shorter than an Ethernet header.
    #[inline]
    pub fn transmit(&mut self, frames: &mut Vec<Frame>) -> usize {
        self.path.transmit(frames)
    }

    /// Puts one frame into the transmit ring, or returns it if that is full. The next `transmit` or `kick` shows it to
    /// the kernel.
    ///
    /// # Errors
    ///
    /// The frame, if the ring is full.
    ///
    /// # Panics
    ///
    /// As [`transmit`](Self::transmit).
    #[inline]
    pub fn queue(&mut self, frame: Frame) -> Result<(), Frame> {
        self.path.queue(frame)
    }

    /// Has the kernel send what is in the transmit ring. No system call if it needs none.
    ///
    /// In copy mode this is where the sending happens, on this core. [`Kick::Again`] must be followed by another kick
    /// (a `poll` on the socket does it as well), or the frames stay where they are.
    ///
    /// # Errors
    ///
    /// What no known state of an interface explains.
    #[inline]
    pub fn kick(&mut self) -> io::Result<Kick> {
        let zero_copy = self.bound.zero_copy;
        let transmit = &mut self.path.rings().transmit;
        transmit.publish();
        let mut before = transmit.outstanding();
        for _ in 0..KICKS {
            if before == 0 || !transmit.wakeup_wanted() {
                return Ok(Kick::Done);
            }
            match sys::kick(self.fd.as_fd()) {
                // A driver in zero-copy mode now works by itself.
                Ok(()) if zero_copy => return Ok(Kick::Done),
                // In copy mode the call has sent all, or stopped at a completion ring that is full.
                Ok(()) => break,
                // EAGAIN: the budget of one call is spent, or the queue behind is full. EBUSY: that queue dropped a
                // packet, or another thread is sending. ENOBUFS: no memory for a packet now. All leave
                // the rest in the ring.
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => {}
                    Some(libc::ENETDOWN) => return Ok(Kick::Down),
                    Some(libc::ENXIO) => return Ok(Kick::Gone),
                    _ => return Err(error),
                },
            }
            let after = transmit.outstanding();
            if after >= before {
                break;
            }
            before = after;
        }
        Ok(if transmit.outstanding() == 0 { Kick::Done } else { Kick::Again })
    }

    /// A frame that is not sent: a long one to those that are free, any other into `pool`.
    pub fn recycle(&self, frame: Frame, pool: &mut Vec<Frame>) {
        pool.extend(self.path.umem().keep(frame));
    }

    /// Puts the frames that the kernel has sent into `pool`, empty, and returns how many. Long ones are free again. To be called at every turn;
    /// does nothing where another socket serves the queue.
    #[inline]
    pub fn reclaim(&mut self, pool: &mut Vec<Frame>) -> usize {
        self.path.reclaim(pool)
    }

    /// What has happened since the socket was opened.
    pub fn counts(&self) -> Counts {
        self.path.counts()
    }

    /// Frames in the receive ring that were not received yet.
    #[inline]
    pub fn waiting(&self) -> u32 {
        self.path.waiting()
    }

    /// Whether frames that this socket sent are still to be reclaimed by it. Where several sockets share the queue, who
    /// reclaims can't tell whose they are: then whether frames wait to be taken by the kernel.
    pub fn awaits_completion(&self) -> bool {
        let here = self.path.in_kernel();
        match self.path.queue_of().open.load(Ordering::Relaxed) {
            0 | 1 => here.lent_transmit > 0,
            _ => here.transmit > 0 || here.completion > 0,
        }
    }

    /// Where the frames are that this socket can see.
    pub fn in_kernel(&self) -> InKernel {
        self.path.in_kernel()
    }

    /// What the kernel lost on this socket.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let got: libc::xdp_statistics = sys::option(self.fd.as_fd(), libc::SOL_XDP, libc::XDP_STATISTICS)?;
        Ok(Statistics {
            rx_dropped: got.rx_dropped,
            rx_ring_full: got.rx_ring_full,
            rx_invalid_descs: got.rx_invalid_descs,
            tx_invalid_descs: got.tx_invalid_descs,
            rx_fill_ring_empty_descs: got.rx_fill_ring_empty_descs,
            tx_ring_empty_descs: got.tx_ring_empty_descs,
        })
    }

    /// Closes the socket. Takes milliseconds, in which the kernel waits for packets under way; not for a worker to do.
    pub fn close(mut self) -> Remains {
        let (umem, queue) = (self.path.umem(), Arc::clone(self.path.queue_of()));
        Remains { umem, queue, spare: self.path.take_spare() }
    }
}

impl AsFd for Socket {
    /// For the XSKMAP, and for `poll`, which says when packets wait to be received. A duplicate that outlives the
    /// socket keeps it open in the kernel.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Queue { ifindex, queue, .. } = **self.path.queue_of();
        write!(f, "Socket(interface {ifindex} queue {queue})")
    }
}

/// What a closed socket leaves: frames that the kernel may still be working on.
#[must_use = "the frames that the kernel has are lost unless they are recovered"]
pub struct Remains {
    umem: &'static Umem,
    queue: Arc<Queue>,
    spare: Vec<Frame>,
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remains(interface {} queue {})", self.queue.ifindex, self.queue.queue)
    }
}

impl Remains {
    /// All frames that were lent by way of the closed socket's queue but for long ones, and how many, with those, had a packet to be sent, of
    /// which nobody will say whether it was; or `self` for another try later: the kernel
    /// finishes some time after the last socket of the queue was closed (27 to 40 ms on veth; with packets in a
    /// NIC, when they have been sent).
    ///
    /// `successor` may be a socket bound to the same queue since; otherwise the queue is bound for a moment, to see
    /// whether it is free. Where several sockets were on the queue, the first call gets the frames of all.
    ///
    /// # Errors
    ///
    /// `self`, to be tried again.
    pub fn recover(mut self, successor: Option<&Socket>) -> Result<(Vec<Frame>, usize), Remains> {
        let Queue { id, ifindex, queue, ref open } = *self.queue;
        let replaced = successor.map(|socket| socket.path.queue_of());
        let replaced = replaced.is_some_and(|new| new.id != id && (new.ifindex, new.queue) == (ifindex, queue));
        if open.load(Ordering::Acquire) > 0 || !(replaced || vacant(ifindex, queue)) {
            return Err(self);
        }
        // SAFETY: no socket of ours is open on the queue, so nobody lends by it or reads its rings. The kernel lets a
        // socket with rings of its own bind to a queue only after the one before has been torn down entirely
        // (xp_clear_dev, which runs after the driver was stopped and the last packet sent was freed), and such a socket
        // is, or was just now, bound; or the interface is gone, which tears down its sockets first.
        let (mut frames, unsent) = unsafe { self.umem.recover(id) };
        frames.append(&mut self.spare);
        Ok((frames, unsent))
    }
}

/// Whether no socket has this queue: one can bind to it, or there is no such interface any more.
fn vacant(ifindex: u32, queue: u32) -> bool {
    // Its chunks are never lent.
    static NOTHING: LazyLock<&'static Umem> = LazyLock::new(|| Umem::private(2, 2048));
    let small = Options {
        zero_copy: Some(false),
        fill: 2,
        completion: 2,
        receive: 2,
        transmit: 2,
        multi_buffer: false,
        busy_poll: None,
        patience: Duration::ZERO,
    };
    match Socket::open(*NOTHING, ifindex, queue, &small, None) {
        Ok(_) => true,
        Err(error) => matches!(error.step, Step::Bind { .. }) && error.source.raw_os_error() == Some(libc::ENODEV),
    }
}

/// A socket about to be bound.
struct Place<'a> {
    fd: BorrowedFd<'a>,
    ifindex: u32,
    queue: u32,
    patience: Duration,
}

impl Place<'_> {
    /// Binds in the wanted mode, or the best there is; returns why zero-copy was refused.
    fn bind_in_mode(&self, options: &Options) -> Result<Option<Refusal>, (Step, io::Error)> {
        let multi_buffer = options.multi_buffer;
        let bind = |zero_copy: bool| {
            let mode = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
            let parts = if multi_buffer { libc::XDP_USE_SG } else { 0 };
            self.bind(mode | parts | libc::XDP_USE_NEED_WAKEUP, None)
                .map_err(|error| (Step::Bind { zero_copy, multi_buffer }, error))
        };
        match options.zero_copy {
            Some(wanted) => bind(wanted).map(|()| None),
            None => match bind(true) {
                Ok(()) => Ok(None),
                Err((step, error)) if error.raw_os_error() == Some(libc::EBUSY) => Err((step, error)),
                Err((_, error)) => bind(false).map(|()| Some(Refusal(error.raw_os_error().unwrap_or(0)))),
            },
        }
    }

    /// Binds, and keeps trying while the queue is another's.
    fn bind(&self, flags: u16, shared: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match sys::bind(self.fd, self.ifindex, self.queue, flags, shared) {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < self.patience => {
                    std::thread::sleep(BIND_INTERVAL);
                }
                result => return result,
            }
        }
    }
}
