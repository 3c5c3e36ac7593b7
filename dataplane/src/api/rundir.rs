//! `/run/ekiden/NAME`: the directory of a running hub, its lock and its sockets.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Where the directories of the hubs are, unless a test says otherwise.
pub const DEFAULT_RUN_ROOT: &str = "/run/ekiden";
/// The socket that only tells.
pub const API_SOCKET: &str = "api.sock";
/// The socket that changes something.
pub const CONTROL_SOCKET: &str = "control.sock";
/// The statistics segment. It stays when the hub ends: its last figures can still be read.
pub const STATS: &str = "stats";
/// The socket that hands the segment out as a descriptor.
pub const STATS_SOCKET: &str = "stats.sock";
/// Held, by `flock`, as long as the hub runs; the kernel lets go of it when the process is gone, however it went.
const LOCK: &str = "lock";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why the hub could not take its directory or a socket in it.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The name can't be a directory.
    #[error("hub name {0:?} can't name a directory: letters, digits, '-', '_' and '.' only, and not '.' first")]
    Name(String),
    /// Another process runs this hub.
    #[error("hub {hub} is already running, pid {}", .pid.map_or("unknown".into(), |pid| pid.to_string()))]
    Running {
        /// The hub.
        hub: String,
        /// The process, if it had written itself down.
        pid: Option<u32>,
    },
    /// A system call failed.
    #[error("could not {what} {}: {source}", .path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The thread of the API could not be made.
    #[error("could not start the API's thread: {source}")]
    Thread {
        /// What the kernel said.
        source: io::Error,
    },
}

/// The claim on a hub's directory. Dropped, it removes the sockets and lets another process have the name.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Locked until it is closed. The file stays: removing it would let two processes lock two files of one name.
    _lock: File,
}

impl RunDir {
    /// Takes the directory of `hub` under `root`, making both if they are missing, or says who has it.
    pub fn claim(root: &Path, hub: &str) -> Result<Self, RunDirError> {
        if !is_name(hub) {
            return Err(RunDirError::Name(hub.into()));
        }
        // Anyone may see which hubs there are; only the hub's own group sees into a hub.
        make_dir(root, 0o755)?;
        let path = root.join(hub);
        make_dir(&path, 0o750)?;
        let lock = lock(hub, path.join(LOCK))?;
        Ok(Self { path, _lock: lock })
    }

    /// What an operator should know of a directory that is not in memory: what workers count in its files is written back every few
    /// seconds, and who counts in a page meanwhile waits for the disk.
    pub fn on_a_disk(&self) -> Option<String> {
        on_a_disk(&self.path)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets the process's group see into the hub, where the directory was made for another.
    pub fn share(&self) -> Result<(), RunDirError> {
        let group = rustix::process::getegid().as_raw();
        let given = fs::metadata(&self.path).and_then(|now| match now.gid() == group {
            true => Ok(()),
            false => std::os::unix::fs::chown(&self.path, None, Some(group)),
        });
        given.map_err(|source| RunDirError::Io {
            what: "let the hub's group see into",
            path: self.path.clone(),
            source,
        })
    }

    /// A listening socket with exactly this mode, in the place of one that a dead hub left.
    pub(super) fn listen(&self, name: &str, mode: u32) -> Result<UnixListener, RunDirError> {
        let path = self.path.join(name);
        // Under our lock nobody listens there.
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(RunDirError::Io { what: "replace", path, source });
            }
            _ => {}
        }
        match open_socket(&path, mode) {
            Ok(listener) => Ok(listener),
            Err(source) => Err(RunDirError::Io { what: "listen on", path, source }),
        }
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        for name in [API_SOCKET, CONTROL_SOCKET, STATS_SOCKET] {
            // If it can't be removed, nobody answers there all the same, and the next hub replaces it.
            let _ = fs::remove_file(self.path.join(name));
        }
    }
}

/// Whether a hub's name can be a directory of its own, on any file system, and needs no quoting in a shell.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && !name.starts_with('.') && name.chars().all(plain)
}

/// Makes a directory that is never open wider than this mode; a narrow umask does not make it narrower. One that is there
/// keeps its mode: an operator, or systemd, has set it.
fn make_dir(path: &Path, mode: u32) -> Result<(), RunDirError> {
    let made = DirBuilder::new().mode(mode).create(path);
    match made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(source) => Err(RunDirError::Io { what: "make the directory", path: path.into(), source }),
    }
}

fn lock(hub: &str, path: PathBuf) -> Result<File, RunDirError> {
    // Not truncated when it is opened: what is in it may be the pid of the hub that runs.
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
    let mut file = opened.map_err(|source| RunDirError::Io { what: "open", path: path.clone(), source })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
            return Err(RunDirError::Running { hub: hub.into(), pid });
        }
        Err(TryLockError::Error(source)) => return Err(RunDirError::Io { what: "lock", path, source }),
    }
    let written = (|| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    })();
    written.map_err(|source| RunDirError::Io { what: "write", path, source })?;
    Ok(file)
}

fn open_socket(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file that `bind` makes takes its mode from the socket, less the umask: so it is never wider than asked, not
    // even between these two calls. The second adds what the umask took.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

pub(super) fn on_a_disk(path: &Path) -> Option<String> {
    /// `include/uapi/linux/magic.h`: tmpfs, ramfs.
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];
    let found = rustix::fs::statfs(path).ok()?.f_type as u64 & 0xffff_ffff;
    (!IN_MEMORY.contains(&found)).then(|| {
        format!(
            "{} is not in memory, as /run is on most systems: workers wait whenever what they count is written back; mount a tmpfs there",
            path.display()
        )
    })
}
