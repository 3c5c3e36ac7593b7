//! The mapping of a segment: the only `unsafe` of this crate.
//!
//! A file that somebody truncates while it is mapped answers a load beyond its end with SIGBUS. The hub never truncates,
//! it renames a new file over the old one; but a reader must not die of an operator's mistake. So every mapping is
//! watched: the handler puts empty pages where the file's were, notes the loss, and the load goes on; the reader asks
//! [`Map::lost`] when it is done and says what happened. No lock, and no system call while all is well. (A copy by
//! `pread` would need neither handler nor mapping, but nothing says that the kernel copies a counter in one piece.)
#![allow(unsafe_code, reason = "mapped memory, a signal handler, adjtimex")]

use crate::sequence::{Counter, Place};
use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Types that may be seen in mapped memory.
///
/// # Safety
/// Nothing but [`Counter`]s, without padding: then every pattern of bits is a value, and shared references allow that
/// another thread or process changes it at any time.
pub(crate) unsafe trait Plain {}
// SAFETY: is one.
unsafe impl Plain for Counter {}
// SAFETY: eight of them, in 64 bytes, asserted beside it.
unsafe impl Plain for Place {}

macro_rules! plain {
    ($($name:ty)*) => {$(
        // SAFETY: `record!` makes structs of counters and arrays of counters only, and the assertion excludes padding.
        unsafe impl Plain for $name {}
        const _: () = {
            let (mut at, mut bytes) = (0, 0);
            while at < <$name>::FIELDS.len() {
                bytes += <$name>::FIELDS[at].bytes;
                at += 1;
            }
            assert!(bytes == size_of::<$name>() && size_of::<$name>() % 64 == 0);
        };
    )*};
}
plain! {
    crate::layout::Header crate::layout::SectionEntry
    crate::layout::TenantEntry crate::layout::SiteEntry crate::layout::PortEntry crate::layout::WorkerEntry
    crate::layout::ReasonEntry crate::layout::RuleEntry crate::layout::RingHead
    crate::rows::SiteRow crate::rows::TenantRow crate::rows::DropRow crate::rows::PortRow crate::rows::LoopRow
    crate::rows::HistogramRow crate::rows::XdpRow crate::rows::HubRow crate::rows::WorkerState crate::rows::SiteState
    crate::rows::RuleRow
}

/// A file in memory, from its beginning.
#[derive(Debug)]
pub(crate) struct Map {
    base: NonNull<u8>,
    len: usize,
    watch: &'static Watch,
}

// SAFETY: the memory is reached through `Plain` types alone, which are `Sync`; it belongs to no thread.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

impl Map {
    /// The first `len` bytes of a file; for the writer, who may store, or for a reader, who must not.
    pub(crate) fn new(file: &File, len: usize, writable: bool) -> io::Result<Self> {
        let watch = Watch::claim()?;
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at a place of the kernel's choice; it overlaps nothing that anybody has.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(start) if base != libc::MAP_FAILED => {
                watch.cover(start.as_ptr() as usize, len, writable);
                Ok(Self { base: start, len, watch })
            }
            _ => {
                let error = io::Error::last_os_error();
                watch.release();
                Err(error)
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Has the kernel find the memory of these bytes now, so that who stores there first need not wait for it. What lies there stays.
    pub(crate) fn populate(&self, bytes: Range<usize>) {
        let page = BEFORE.get().map_or(4096, |(_, page)| *page);
        let (from, end) = (bytes.start & !(page - 1), bytes.end.min(self.len));
        if from < end {
            // SAFETY: `from..end` is within the mapping, which lives as long as `self`, and `from` is a page's beginning. The call
            // changes no byte; where it is unknown (before Linux 5.14), or the file was truncated, it fails and nothing is lost.
            unsafe { libc::madvise(self.base.as_ptr().add(from).cast(), end - from, libc::MADV_POPULATE_WRITE) };
        }
    }

    /// Whether the file was truncated while it was mapped: what was read is not to be believed.
    pub(crate) fn lost(&self) -> bool {
        self.watch.lost.load(Ordering::Acquire)
    }

    /// `count` rows from `offset` on; `None` if they don't lie within the mapping, aligned.
    pub(crate) fn rows<T: Plain>(&self, offset: usize, count: usize) -> Option<&[T]> {
        let bytes = count.checked_mul(size_of::<T>())?;
        let inside = offset.checked_add(bytes)? <= self.len && offset.is_multiple_of(align_of::<T>());
        // SAFETY: `inside` says that the bytes are within the mapping, which lives as long as `self`, and aligned, since
        // the mapping itself begins at a page. `Plain` says that any bits are values and may change under us.
        inside.then(|| unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(offset).cast::<T>(), count) })
    }

    /// One row.
    pub(crate) fn row<T: Plain>(&self, offset: usize) -> Option<&T> {
        self.rows(offset, 1).map(|rows| &rows[0])
    }

    /// Rows that keep the mapping alive.
    pub(crate) fn view<T: Plain>(self: &Arc<Self>, offset: usize, count: usize) -> Option<View<T>> {
        let rows: &[T] = self.rows(offset, count)?;
        Some(View { rows: NonNull::from(rows), map: self.clone(), kind: PhantomData })
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // The watch first: at these addresses something else may be mapped at once.
        self.watch.release();
        // SAFETY: mapped by `new` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// Rows of a mapping, and a share in it.
#[derive(Debug)]
pub(crate) struct View<T: Plain> {
    rows: NonNull<[T]>,
    map: Arc<Map>,
    kind: PhantomData<[T]>,
}

// SAFETY: a pointer into memory that `map` keeps mapped, to values that any thread may use.
unsafe impl<T: Plain + Sync> Send for View<T> {}
// SAFETY: as above.
unsafe impl<T: Plain + Sync> Sync for View<T> {}

impl<T: Plain> View<T> {
    /// The mapping.
    pub(crate) fn map(&self) -> &Arc<Map> {
        &self.map
    }

    /// One row, as counters.
    pub(crate) fn row_words(&self, row: usize) -> &[Counter] {
        words(&self[row..=row])
    }
}

fn words<T: Plain>(rows: &[T]) -> &[Counter] {
    // SAFETY: `Plain` says that the rows are nothing but counters, without padding; the lifetime stays.
    unsafe { std::slice::from_raw_parts(rows.as_ptr().cast::<Counter>(), size_of_val(rows) / size_of::<Counter>()) }
}

impl<T: Plain> Deref for View<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: made from a reference into `map`, which has not been unmapped, since we hold a share in it.
        unsafe { self.rows.as_ref() }
    }
}

/// Mappings that one process may have: a hub has one, a reader one for each hub.
const WATCHES: usize = 1024;

/// What the handler knows of a mapping. Plain atomics: it may run at any moment.
#[derive(Debug)]
struct Watch {
    taken: AtomicBool,
    /// 0 while nothing is mapped.
    start: AtomicUsize,
    len: AtomicUsize,
    writable: AtomicBool,
    lost: AtomicBool,
}

static WATCHED: [Watch; WATCHES] = [const { Watch::new() }; WATCHES];
/// What handled SIGBUS before us, and the size of a page.
static BEFORE: OnceLock<(libc::sigaction, usize)> = OnceLock::new();

impl Watch {
    const fn new() -> Self {
        Self {
            taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            writable: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        }
    }

    fn claim() -> io::Result<&'static Self> {
        install()?;
        let free =
            |watch: &&Self| watch.taken.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        WATCHED.iter().find(free).ok_or_else(|| io::Error::other("too many segments are mapped by this process"))
    }

    fn cover(&self, start: usize, len: usize, writable: bool) {
        self.lost.store(false, Ordering::Release);
        self.writable.store(writable, Ordering::Release);
        self.len.store(len, Ordering::Release);
        self.start.store(start, Ordering::Release);
    }

    fn release(&self) {
        self.start.store(0, Ordering::Release);
        self.taken.store(false, Ordering::Release);
    }

    /// Puts empty memory from the page of `address` to the end of the mapping, if it is this one's. Called in the handler.
    fn mend(&self, address: usize, page: usize) -> bool {
        let start = self.start.load(Ordering::Acquire);
        let end = start + self.len.load(Ordering::Acquire);
        if start == 0 || !(start..end).contains(&address) {
            return false;
        }
        let from = address & !(page - 1);
        let write = if self.writable.load(Ordering::Acquire) { libc::PROT_WRITE } else { 0 };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: `from..end` is a part of the mapping that this watch covers, and stays mapped: the thread that faulted
        // holds a reference into it. What replaces it is as large and has the same rights. `mmap` is a plain system call.
        let put = unsafe { libc::mmap(from as *mut c_void, end - from, libc::PROT_READ | write, flags, -1, 0) };
        self.lost.store(true, Ordering::Release);
        put != libc::MAP_FAILED
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: zeros are a valid `sigaction`, and its fields are set below.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    ours.sa_sigaction = on_sigbus as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    let mut result = Ok(());
    BEFORE.get_or_init(|| {
        // SAFETY: as above; it is written by the call below.
        let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to structs that live through the call. The handler uses atomics and `mmap` alone.
        if unsafe { libc::sigaction(libc::SIGBUS, &ours, &mut before) } != 0 {
            result = Err(io::Error::last_os_error());
        }
        // SAFETY: takes no pointer.
        (before, unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize)
    });
    result
}

extern "C" fn on_sigbus(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel calls with SA_SIGINFO, so `info` is its own; the location of errno is always valid.
    let (address, errno) = unsafe { ((*info).si_addr() as usize, *libc::__errno_location()) };
    let Some((before, page)) = BEFORE.get() else { return };
    if WATCHED.iter().any(|watch| watch.mend(address, *page)) {
        // SAFETY: as above. Who was interrupted must not find another errno.
        unsafe { *libc::__errno_location() = errno };
        return;
    }
    // Not ours. Another's handler has its turn; where there was none the signal comes again, and ends the process.
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: a `sigaction` that the kernel itself gave us.
            unsafe { libc::sigaction(libc::SIGBUS, before, ptr::null_mut()) };
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: it was installed with SA_SIGINFO, so it is a function of these three arguments.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: it was installed without SA_SIGINFO, so it is a function of the signal's number.
            let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}

/// Whether the kernel believes that its clock is synchronised (`adjtimex`); `None` if it does not say.
pub fn clock_synchronised() -> Option<bool> {
    // SAFETY: zeros are a valid `timex`, and with `modes` 0 the call only reads.
    let mut now: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `now` is writable for the time of the call.
    let state = unsafe { libc::adjtimex(&mut now) };
    (state >= 0).then_some(state != libc::TIME_ERROR && now.status & libc::STA_UNSYNC == 0)
}
