//! The program on an interface: by a link that is pinned, made anew or taken over.
//!
//! 1. A pin that is there: of an interface that has gone, it is removed; of this interface, the program inside the link
//!    is exchanged; of another living interface, that is for the operator to solve.
//! 2. Otherwise a new link, native if the driver can, else generic; then its pin.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{Xdp, XdpFlags};

use crate::error::Holder;
use crate::{Error, pin, sys};

/// Where in the kernel the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In the driver, before the kernel makes a packet of the frame.
    Native,
    /// After that: slower, on any interface.
    Generic,
}

impl Mode {
    fn flags(self) -> XdpFlags {
        match self {
            Self::Native => XdpFlags::DRV_MODE,
            Self::Generic => XdpFlags::SKB_MODE,
        }
    }
}

/// What `attach` got.
#[derive(Debug)]
pub struct Attached {
    /// Where the program runs.
    pub mode: Mode,
    /// A link that was pinned before was taken over, without a moment in between.
    pub took_over: bool,
    /// Why it is generic although nobody asked for that.
    pub why_generic: Option<io::Error>,
    /// Why tags that lie beside a frame are not seen, on a port that carries VLANs.
    pub no_tags: Option<Error>,
}

/// The MAC address of an interface, if it still has the index that the caller saw.
pub(crate) fn check_interface(name: &str, ifindex: u32) -> Result<[u8; 6], Error> {
    let failed = |source| Error::Interface { name: name.into(), ifindex, source };
    match sys::interface(name).map_err(failed)? {
        (found, mac) if found == ifindex => Ok(mac),
        (found, _) => Err(failed(io::Error::new(io::ErrorKind::NotFound, format!("it has index {found} now")))),
    }
}

/// Attaches and pins a program. The link's descriptor is the caller's.
pub(crate) fn attach(
    program: BorrowedFd<'_>,
    ifindex: u32,
    name: &str,
    mode: Option<Mode>,
    path: &Path,
) -> Result<(OwnedFd, Attached), Error> {
    if let Some((link, mode)) = take_over(program, ifindex, name, mode, path)? {
        return Ok((link, Attached { mode, took_over: true, why_generic: None, no_tags: None }));
    }
    let (link, attached) = create(program, ifindex, name, mode)?;
    // Should this fail, `link` is closed, and the program leaves with it.
    sys::pin(link.as_fd(), path).map_err(pin::failed("pin the XDP link at", path))?;
    Ok((link, attached))
}

/// Exchanges the program in the link that is pinned, if it is on this interface and in this mode; else clears the way.
fn take_over(
    program: BorrowedFd<'_>,
    ifindex: u32,
    name: &str,
    wanted: Option<Mode>,
    path: &Path,
) -> Result<Option<(OwnedFd, Mode)>, Error> {
    let link = match sys::open_pin(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(pin::failed("open", path))?,
    };
    let found = sys::xdp_link(link.as_fd()).map_err(pin::failed("read", path))?;
    let Some((link_ifindex, link_program)) = found else {
        let other = io::Error::new(io::ErrorKind::InvalidData, "it is not an XDP link; remove it");
        return Err(pin::failed("take over", path)(other));
    };
    if link_ifindex == 0 {
        pin::remove(link.as_fd(), path)?; // its interface has gone
        return Ok(None);
    }
    // An index is a number of one namespace. It is this interface, or one here that was renamed, if the program is there.
    let here = query(program, link_ifindex);
    let Some((_, mode)) = here.filter(|(id, _)| *id == link_program) else {
        return Err(Error::PinElsewhere {
            path: path.into(),
            program: link_program,
            ifindex: link_ifindex,
            hub: pin::decode(&path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy()),
            name: name.into(),
        });
    };
    if link_ifindex != ifindex || wanted.is_some_and(|wanted| wanted != mode) {
        pin::remove(link.as_fd(), path)?;
        return Ok(None);
    }
    match sys::link_update(link.as_fd(), program) {
        Ok(()) => Ok(Some((link, mode))),
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {
            pin::remove(link.as_fd(), path)?; // gone since it was read
            Ok(None)
        }
        Err(source) => Err(Error::Attach { name: name.into(), modes: "by exchange in the pinned link", source }),
    }
}

fn create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    name: &str,
    wanted: Option<Mode>,
) -> Result<(OwnedFd, Attached), Error> {
    let try_mode = |mode: Mode| sys::link_create(program, ifindex, mode.flags().bits());
    let got = |mode, why_generic| move |link| (link, Attached { mode, took_over: false, why_generic, no_tags: None });
    let refused = |modes| {
        move |source: io::Error| match source.raw_os_error() {
            // EBUSY: a program is there in this mode. EEXIST: one is there in the other mode.
            Some(libc::EBUSY | libc::EEXIST) => busy(program, ifindex, name, modes, source),
            _ => Error::Attach { name: name.into(), modes, source },
        }
    };
    match wanted {
        Some(Mode::Native) => try_mode(Mode::Native).map(got(Mode::Native, None)).map_err(refused("native")),
        Some(Mode::Generic) => try_mode(Mode::Generic).map(got(Mode::Generic, None)).map_err(refused("generic")),
        None => match try_mode(Mode::Native) {
            Ok(link) => Ok(got(Mode::Native, None)(link)),
            Err(native) if matches!(native.raw_os_error(), Some(libc::EBUSY | libc::EEXIST)) => {
                Err(refused("native")(native))
            }
            Err(native) => {
                try_mode(Mode::Generic).map(got(Mode::Generic, Some(native))).map_err(refused("native, then generic"))
            }
        },
    }
}

/// Says whose program is in the way.
fn busy(program: BorrowedFd<'_>, ifindex: u32, name: &str, modes: &'static str, source: io::Error) -> Error {
    let Some((found, _)) = query(program, ifindex) else {
        return Error::Attach { name: name.into(), modes, source };
    };
    let on_this = |info: &libbpf_rs::query::LinkInfo| {
        info.prog_id == found && matches!(&info.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == ifindex)
    };
    let holder = match LinkInfoIter::default().find(on_this) {
        Some(info) => Holder::Link { id: info.id },
        None if sys::may_list_links() => Holder::Netlink,
        None => Holder::Unknown,
    };
    Error::Busy { name: name.into(), program: found, holder }
}

/// The id and mode of the program on an interface of this network namespace; `None` if there is none, or no interface.
fn query(any_program: BorrowedFd<'_>, ifindex: u32) -> Option<(u32, Mode)> {
    let found = Xdp::new(any_program).query(i32::try_from(ifindex).ok()?, XdpFlags::NONE).ok()?;
    let mode = if found.skb_prog_id == found.prog_id { Mode::Generic } else { Mode::Native };
    (found.prog_id != 0).then_some((found.prog_id, mode))
}
