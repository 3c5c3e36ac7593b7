//! The system calls of AF_XDP, each behind a function that can't be called wrongly, and the constants that `libc`
//! lacks.
#![allow(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, CString, c_char, c_int, c_ulong, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h (Linux 6.17): packets that one kick may send in copy mode.
pub(super) const MAX_TX_SKB_BUDGET: c_int = 9;
/// `SO_BUSY_POLL` of asm-generic/socket.h.
pub(super) const BUSY_POLL: c_int = 46;
/// `SO_PREFER_BUSY_POLL` of asm-generic/socket.h.
pub(super) const PREFER_BUSY_POLL: c_int = 69;
/// `SO_BUSY_POLL_BUDGET` of asm-generic/socket.h.
pub(super) const BUSY_POLL_BUDGET: c_int = 70;
/// Size of the pages behind `MFD_HUGE_2MB`.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// `ETHTOOL_GDRVINFO` of linux/ethtool.h.
const GDRVINFO: u32 = 0x3;
/// `ETHTOOL_GCHANNELS` of linux/ethtool.h.
const GCHANNELS: u32 = 0x3c;
/// `ETHTOOL_GFLAGS` and `ETHTOOL_SFLAGS` of linux/ethtool.h.
const GFLAGS: u32 = 0x25;
const SFLAGS: u32 = 0x26;
/// `ETH_FLAG_RXVLAN` of linux/ethtool.h: the NIC takes the outermost VLAN tag out of a frame and puts it beside it.
const RXVLAN: u32 = 1 << 8;

/// Types that a socket option may be read into.
///
/// # Safety
///
/// Every pattern of bits must be a value, padding included.
pub(super) unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: sixteen u64.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: six u64.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: one u32.
unsafe impl Plain for libc::xdp_options {}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes a new descriptor into ownership.
fn own(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: every caller passes the result of a call that makes a descriptor, and keeps no copy.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn xdp_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    own(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })
}

/// `setsockopt` with a plain struct.
pub(super) fn set_option<T: Copy>(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` readable bytes for the time of the call. That what it points to may be used by the
    // kernel afterwards is the matter of `register_umem`.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, ptr::from_ref(value).cast(), len) }).map(drop)
}

/// `getsockopt` of a struct; fails on a kernel whose struct is shorter.
pub(super) fn option<T: Plain>(fd: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<T> {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is `len` writable bytes, and `len` itself is writable.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) })?;
    if (len as usize) < size_of::<T>() {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    // SAFETY: zeroed, then perhaps written; every pattern is a value, as `Plain` promises.
    Ok(unsafe { value.assume_init() })
}

/// `XDP_UMEM_REG`: lets the kernel use the memory, for as long as the socket's UMEM lives.
///
/// # Safety
///
/// The region must stay mapped for ever, and be accessed only by the frames of the `Umem` that it belongs to.
pub(super) unsafe fn register_umem(
    fd: BorrowedFd<'_>,
    (base, len): (NonNull<u8>, usize),
    chunk: usize,
) -> io::Result<()> {
    let registration = libc::xdp_umem_reg {
        addr: base.addr().get() as u64,
        len: len as u64,
        chunk_size: chunk as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set_option(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)
}

/// Binds to a queue with `flags`; `shared` is the socket whose UMEM to use.
pub(super) fn bind(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: `address` is `len` readable bytes.
    check(unsafe { libc::bind(fd.as_raw_fd(), ptr::from_ref(&address).cast(), len) }).map(drop)
}

/// Makes the kernel look at the transmit ring.
#[inline]
pub(super) fn kick(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: no buffer, no address.
    let sent = unsafe { libc::sendto(fd.as_raw_fd(), ptr::null(), 0, libc::MSG_DONTWAIT, ptr::null(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes the kernel look at the fill ring, and poll its queue where busy polling is on.
#[inline]
pub(super) fn wake(fd: BorrowedFd<'_>) -> io::Result<()> {
    let (none, address) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: no buffer, no address.
    let got = unsafe { libc::recvfrom(fd.as_raw_fd(), none, 0, libc::MSG_DONTWAIT, address, ptr::null_mut()) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A file in memory of `len` zero bytes, closed on exec.
pub(super) fn memory_file(len: usize, huge: bool) -> io::Result<OwnedFd> {
    let huge = if huge { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    // SAFETY: the name ends in a zero byte.
    let fd = own(unsafe { libc::memfd_create(c"ekiden-umem".as_ptr(), libc::MFD_CLOEXEC | huge) })?;
    let len = len.try_into().map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: takes no pointer.
    check(unsafe { libc::ftruncate(fd.as_raw_fd(), len) })?;
    Ok(fd)
}

/// Pages mapped from a descriptor, for reading and writing, shared and faulted in. Unmapped when dropped.
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an address and a length; pages belong to the process and to no thread.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be done with a shared one but ask where it is.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn shared(fd: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Mapping> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory in use.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, fd.as_raw_fd(), offset as libc::off_t) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Mapping { base, len })
    }

    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Keeps the pages out of core dumps.
    pub(super) fn exclude_from_dumps(&self) -> io::Result<()> {
        // SAFETY: our own pages, and the advice changes nothing in them.
        check(unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_DONTDUMP) }).map(drop)
    }

    /// Leaves the pages mapped for ever.
    pub(super) fn leak(self) -> NonNull<u8> {
        let base = self.base;
        std::mem::forget(self);
        base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `shared`, with this length, and not leaked; whoever holds pointers into it holds it as
        // well.
        unsafe { libc::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// Name of an interface of this thread's network namespace.
pub(super) fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0 as c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the call fills at most.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, and so ended the name with a zero byte.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}

/// Index of an interface of this thread's network namespace.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    // SAFETY: a string that ends in a zero byte.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// `struct ethtool_channels` of linux/ethtool.h: how many rings there can be and are.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Channels {
    command: u32,
    maximum: [u32; 4],
    pub(super) rx: u32,
    pub(super) tx: u32,
    other: u32,
    pub(super) combined: u32,
}

pub(super) fn channels(interface: &str) -> io::Result<Channels> {
    let mut channels = Channels { command: GCHANNELS, ..Channels::default() };
    // SAFETY: GCHANNELS fills a `struct ethtool_channels`, which this is.
    unsafe { ethtool(interface, &mut channels) }?;
    Ok(channels)
}

/// `struct ethtool_drvinfo` of linux/ethtool.h.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

pub(super) fn driver(interface: &str) -> io::Result<String> {
    let mut info = DriverInfo { command: GDRVINFO, driver: [0; 32], rest: [0; 160] };
    // SAFETY: GDRVINFO fills a `struct ethtool_drvinfo` of 196 bytes, which this is.
    unsafe { ethtool(interface, &mut info) }?;
    let end = info.driver.iter().position(|&b| b == 0).unwrap_or(info.driver.len());
    Ok(String::from_utf8_lossy(&info.driver[..end]).into_owned())
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Has the interface leave VLAN tags in frames; whether it did not before.
pub(super) fn leave_tags(interface: &str) -> io::Result<bool> {
    let mut flags = Value { command: GFLAGS, data: 0 };
    // SAFETY: GFLAGS fills a `struct ethtool_value`, which this is.
    unsafe { ethtool(interface, &mut flags) }?;
    if flags.data & RXVLAN == 0 {
        return Ok(false);
    }
    let mut flags = Value { command: SFLAGS, data: flags.data & !RXVLAN };
    // SAFETY: SFLAGS reads a `struct ethtool_value`, which this is.
    unsafe { ethtool(interface, &mut flags) }?;
    Ok(true)
}

/// The MTU of an interface, in bytes.
pub(super) fn mtu(interface: &str) -> io::Result<u32> {
    let mut named = request_of(interface)?;
    // SAFETY: SIOCGIFMTU reads the name, which ends in a zero byte, and fills the union's `ifru_mtu`.
    unsafe { control(libc::SIOCGIFMTU as c_ulong, &mut named) }?;
    // SAFETY: the call that succeeded has written this field.
    let mtu = unsafe { named.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// # Safety
///
/// `request` must be the whole struct that its command, the first word, has the kernel read and fill.
unsafe fn ethtool<T>(interface: &str, request: &mut T) -> io::Result<()> {
    let mut named = request_of(interface)?;
    named.ifr_ifru.ifru_data = ptr::from_mut(request).cast();
    // SAFETY: the name ends in a zero byte, and the data is `request`, as the caller promises.
    unsafe { control(libc::SIOCETHTOOL as c_ulong, &mut named) }
}

/// A request about the interface of this name, with nothing in it.
fn request_of(interface: &str) -> io::Result<libc::ifreq> {
    let mut named = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: ptr::null_mut() },
    };
    if interface.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in named.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = from as c_char;
    }
    Ok(named)
}

/// # Safety
///
/// `request` must hold what `command` has the kernel read and fill.
unsafe fn control(command: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: takes no pointer.
    let any = own(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: as the caller promises.
    check(unsafe { libc::ioctl(any.as_raw_fd(), command, request) }).map(drop)
}
