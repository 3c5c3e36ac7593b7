//! Where links are pinned: `ROOT/HUB/PORT` on a bpffs. Who can remove a pin can open the port, so the directories are
//! the hub's alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::{Error, sys};

/// Where hubs pin their links unless they are told otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/ekiden";

/// Takes the program of one port, or of all ports of a hub, off for good, and removes the pins; a process that still
/// holds the link keeps a link to nothing. Gives the names of the ports; none if nothing was pinned.
pub fn detach(pin_root: &Path, hub: &str, port: Option<&str>) -> Result<Vec<String>, Error> {
    let directory = directory(pin_root, hub);
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("read", &directory))?,
    };
    let mut removed = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("read", &directory))?.path();
        let name = path.file_name().map(|name| decode(&name.to_string_lossy())).unwrap_or_default();
        if port.is_none_or(|port| port == name) {
            remove(sys::open_pin(&path).map_err(failed("open", &path))?.as_fd(), &path)?;
            removed.push(name);
        }
    }
    removed.sort();
    match fs::remove_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(removed),
        Err(error) => Err(failed("remove", &directory)(error)),
        Ok(()) => Ok(removed),
    }
}

/// Takes the program of a link off its interface, whoever else holds the link, and removes its pin.
pub(crate) fn remove(link: BorrowedFd<'_>, pin: &Path) -> Result<(), Error> {
    match sys::link_detach(link) {
        Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
            return Err(failed("detach the XDP link at", pin)(error));
        }
        Ok(()) | Err(_) => {} // ENOLINK: the interface has gone, and the program with it
    }
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(failed("remove", pin)),
    }
}

/// Makes the hub's directory of pins, so that nobody else can enter it.
pub(crate) fn prepare(root: &Path, hub: &str) -> Result<PathBuf, Error> {
    check_filesystem(root)?;
    let directory = directory(root, hub);
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed("make", &directory))?;
    for path in [root, &directory] {
        let found = fs::metadata(path).map_err(failed("read", path))?;
        if found.uid() != sys::user() {
            return Err(Error::PinOwner { path: path.into(), owner: found.uid(), user: sys::user() });
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("protect", path))?;
        }
    }
    Ok(directory)
}

/// A path, or the nearest of its parents that exists, is on a bpffs.
pub(crate) fn check_filesystem(path: &Path) -> Result<(), Error> {
    for existing in path.ancestors() {
        match sys::is_bpffs(existing) {
            Ok(true) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Ok(false) => return Err(Error::NotBpffs { path: path.into() }),
            Err(error) => return Err(failed("read", existing)(error)),
        }
    }
    Err(Error::NotBpffs { path: path.into() })
}

pub(crate) fn directory(root: &Path, hub: &str) -> PathBuf {
    root.join(encode(hub))
}

/// A name as bpffs takes it: it reserves the dot, which interfaces may have (eth0.100), and a hub may be named anything.
pub(crate) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02x}")),
        }
    }
    encoded
}

pub(crate) fn decode(encoded: &str) -> String {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped =
            after.get(..2).and_then(|hex| str::from_utf8(hex).ok()).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        (rest, _) = match escaped {
            Some(byte) if *first == b'%' => (&after[2..], bytes.push(byte)),
            _ => (after, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::Pin { action, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_to_bpffs_and_back() {
        for name in ["eth0", "eth0.100", "100%", "大阪", "..", "a/b", "%2e", ""] {
            let encoded = encode(name);
            assert!(!encoded.contains(['.', '/']), "{encoded}");
            assert_eq!(decode(&encoded), name);
        }
    }
}
