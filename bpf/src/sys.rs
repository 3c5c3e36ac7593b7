//! The system calls that libbpf-rs does not wrap, and the bytes of the types that the build generated.
#![allow(unsafe_code, reason = "system calls, and views of plain data; every other file of the crate does without")]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use crate::program::types;

/// What the program decided on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// `XDP_ABORTED`: dropped, and traced by the kernel; the program found itself loaded wrongly.
    Aborted,
    /// `XDP_DROP`.
    Drop,
    /// `XDP_PASS`: the kernel's.
    Pass,
    /// `XDP_TX`, which the program never returns.
    Tx,
    /// `XDP_REDIRECT`: to a socket.
    Redirect,
}

/// Plain data as the kernel reads and writes it in maps.
///
/// # Safety
///
/// An implementor has no padding, holds no pointer, and every pattern of bits is a value of it.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}

/// Implements [`Plain`] for a generated type, after checking that its fields leave no gap.
macro_rules! plain {
    ($($name:ident { $($field:ident: $size:expr),* })*) => {$(
        const _: () = {
            assert!(size_of::<types::$name>() == 0 $(+ $size)*, "padding");
            // All the fields there are: a new one in steer.bpf.c is an error here until its size is in the sum.
            const fn fields(it: &types::$name) {
                let types::$name { $($field: _),* } = it;
            }
            let _ = fields;
        };
        // SAFETY: generated from BTF as `repr(C)` of integers, enums (which are transparent integers) and arrays or
        // structs of such, so all bits are valid; the sizes of all fields add up to the size of the whole: no padding.
        unsafe impl Plain for types::$name {}
    )*};
}
plain! {
    address { words: 16 }
    port { mac: 6, reserved: 2 }
    count { packets: 8, bytes: 8 }
    port_counters { seen: 16, passed: 16, redirected: 16, drops: 32 * 16 }
    session { index: 4, worker: 2, state: 1, reserved: 1, tenant: 4, site: 4 }
    bucket { full_at_ns: 8 }
    source { words: 16, port: 4 }
    attachment { port: 2, outer_type: 2, outer: 2, inner: 2 }
    access_end { site: 4, worker: 4, neighbours: 8 }
}

/// The bytes of a value.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `value` is a reference, so valid for `size_of::<T>()` bytes as long as the slice lives, and `Plain` has no
    // padding, so all those bytes are initialised.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value that these bytes are. Panics unless there are exactly as many as it has: the kernel gives as many as BTF says.
pub(crate) fn from_bytes<T: Plain>(bytes: &[u8]) -> T {
    assert_eq!(bytes.len(), size_of::<T>(), "the kernel's value and its BTF type differ");
    // SAFETY: the slice has `size_of::<T>()` bytes (just asserted), any bits are a `Plain` value, alignment is not assumed.
    unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) }
}

/// The values of an array map that was made with `BPF_F_MMAPABLE`: memory that the program, this process and whoever else
/// has the map share, and that stays where it is.
#[derive(Debug)]
pub(crate) struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread; it is only touched as atomic words, by `word`.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the first `len` bytes of the values.
    pub(crate) fn new(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; nothing that exists is touched.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, map.as_raw_fd(), 0) };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast::<libc::c_void>() != libc::MAP_FAILED => Ok(Self { base, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The word at an offset in bytes.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len && self.len - offset >= 8, "a word at {offset}");
        // SAFETY: inside the mapping and aligned, by the assertion and because a mapping begins with a page; it lives as
        // long as `self`. All that this process does to it is atomic; what the program does on the other side is as if
        // another process did it, which atomics are made for.
        unsafe { self.base.add(offset).cast().as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Attaches a program to an interface of this network namespace; the program leaves with the last holder of the link.
pub(crate) fn link_create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        flags,
        ..Default::default()
    };
    // SAFETY: `options` outlives the call and has its own size in `sz`; the call only reads it.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex as i32, libbpf_sys::BPF_XDP, ptr::from_ref(&options))
    };
    owned(fd)
}

/// Exchanges the program inside a link.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: two open descriptors; no options.
    done(unsafe { libbpf_sys::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), ptr::null()) })
}

/// Takes the program of a link off its interface, whoever else holds the link.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an open descriptor.
    done(unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) })
}

/// Pins an object at a path that does not exist yet.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: an open descriptor, and a string that ends in zero and outlives the call.
    done(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) })
}

/// Opens a pinned object.
pub(crate) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: a string that ends in zero and outlives the call.
    owned(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

/// The interface that an XDP link is on (0: none any more) and the id of its program; `None` if it is no XDP link.
pub(crate) fn xdp_link(link: BorrowedFd<'_>) -> io::Result<Option<(u32, u32)>> {
    let info = libbpf_rs::query::LinkInfo::from_fd(link).map_err(io_error)?;
    Ok(match info.info {
        libbpf_rs::query::LinkTypeInfo::Xdp(xdp) => Some((xdp.ifindex, info.prog_id)),
        _ => None,
    })
}

/// Whether this process may see the links of others.
pub(crate) fn may_list_links() -> bool {
    let mut id = 0;
    // SAFETY: the call writes one integer.
    let listed = done(unsafe { libbpf_sys::bpf_link_get_next_id(0, &mut id) });
    !matches!(listed, Err(error) if error.kind() == io::ErrorKind::PermissionDenied)
}

/// Runs an XDP program on a frame; `out` takes what it made of the frame, as far as it has room.
pub(crate) fn test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    out: Option<&mut [u8]>,
    repeat: u32,
) -> io::Result<(Verdict, u32)> {
    let (data_out, size_out) = out.map_or((ptr::null_mut(), 0), |out| (out.as_mut_ptr(), out.len()));
    let mut options = libbpf_sys::bpf_test_run_opts {
        sz: size_of::<libbpf_sys::bpf_test_run_opts>() as _,
        data_in: frame.as_ptr().cast(),
        data_size_in: u32::try_from(frame.len()).map_err(io::Error::other)?,
        data_out: data_out.cast(),
        data_size_out: u32::try_from(size_out).map_err(io::Error::other)?,
        repeat: i32::try_from(repeat).map_err(io::Error::other)?,
        ..Default::default()
    };
    // SAFETY: `data_in` points to `data_size_in` bytes that outlive the call and are only read; `data_out` is null, or points
    // to `data_size_out` bytes that outlive the call and are borrowed for it alone. Else nothing is written but `options`.
    done(unsafe { libbpf_sys::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) })?;
    let verdict = match options.retval {
        libbpf_sys::XDP_DROP => Verdict::Drop,
        libbpf_sys::XDP_PASS => Verdict::Pass,
        libbpf_sys::XDP_TX => Verdict::Tx,
        libbpf_sys::XDP_REDIRECT => Verdict::Redirect,
        _ => Verdict::Aborted,
    };
    Ok((verdict, options.duration))
}

/// Index and MAC address of an interface of this network namespace.
pub(crate) fn interface(name: &str) -> io::Result<(u32, [u8; 6])> {
    let c_name = CString::new(name)?;
    // SAFETY: a string that ends in zero and outlives the call.
    let ifindex = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if ifindex == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no pointers.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: all zeros is a value of `ifreq`: integers, arrays of them and null pointers.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // The kernel has just found this name, so it is shorter than the field and the last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(c_name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: SIOCGIFHWADDR reads the name and writes the address into the `ifreq` that it is given.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFHWADDR, &mut request) })?;
    // SAFETY: the call succeeded, so this is the member of the union that the kernel wrote.
    let address = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    Ok((ifindex, std::array::from_fn(|byte| address[byte] as u8)))
}

/// Whether an existing path is on a bpffs.
pub(crate) fn is_bpffs(path: &Path) -> io::Result<bool> {
    let directory = File::open(path)?;
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: an open descriptor, and room for the answer.
    done(unsafe { libc::fstatfs(directory.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it wrote the answer.
    Ok(unsafe { found.assume_init() }.f_type == libc::BPF_FS_MAGIC)
}

/// The user whose rights this process has.
pub(crate) fn user() -> u32 {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() }
}

/// The same error for the standard library, whose kinds and numbers say what to do.
pub(crate) fn io_error(error: libbpf_rs::Error) -> io::Error {
    use std::error::Error as _;
    match error.source().and_then(|source| source.downcast_ref::<io::Error>()).and_then(io::Error::raw_os_error) {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::other(error),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// libbpf returns the error's number, negated, and sets `errno`; libc returns -1 and sets `errno`.
fn done(returned: i32) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(returned: RawFd) -> io::Result<OwnedFd> {
    done(returned)?;
    // SAFETY: the call that returned it succeeded, so it is a descriptor that is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(returned) })
}
