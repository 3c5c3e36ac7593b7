//! The segment by a socket: for readers that may talk to the hub but can't see its file, as in another mount namespace.

use crate::reader::{ReadError, Reader};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long a hub may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody is accepted after an error, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives what is in `file`, from [`crate::Segment::descriptor`], to everybody who connects: one byte, and the descriptor with it. Never
/// returns.
pub fn hand_out(listener: &UnixListener, file: &File) -> ! {
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut rights = SendAncillaryBuffer::new(&mut space);
                let files = [file.as_fd()];
                rights.push(SendAncillaryMessage::ScmRights(&files));
                // Who has gone away meanwhile needs none.
                let _ = sendmsg(&client, &[IoSlice::new(b"1")], &mut rights, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn ask(socket: &Path) -> io::Result<File> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut [0])], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = rights.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    files.next().map(File::from).ok_or_else(|| io::Error::other("it sent no descriptor"))
}

impl Reader {
    /// Maps the segment that a hub hands out, normally by `/run/ekiden/NAME/stats.sock`. It does not follow to another file by
    /// itself: ask again when `ticked_ns` stands still.
    pub fn from_socket(socket: &Path) -> Result<Self, ReadError> {
        let file = ask(socket).map_err(|source| ReadError::Io {
            what: "get the segment from",
            path: socket.into(),
            source,
        })?;
        Self::from_file(file, socket)
    }
}
