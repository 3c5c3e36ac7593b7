//! What an interface offers to AF_XDP.

use std::io;

use super::sys;

/// An interface, as its driver describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub ifindex: u32,
    /// The largest IP packet, in bytes.
    pub mtu: u32,
    /// Name of the driver; `unknown` where it does not say.
    pub driver: String,
    /// Queues that receive: each can carry a socket.
    pub receive_queues: u32,
    /// Queues that send.
    pub transmit_queues: u32,
}

impl Device {
    /// Asks the kernel about the interface of this name.
    ///
    /// # Errors
    ///
    /// What the kernel said: `ENODEV` where there is none.
    pub fn find(name: &str) -> io::Result<Device> {
        let ifindex = sys::interface_index(name)?;
        let silent = |error: &io::Error| error.raw_os_error() == Some(libc::EOPNOTSUPP);
        let driver = match sys::driver(name) {
            Err(error) if silent(&error) => "unknown".to_owned(),
            other => other?,
        };
        // A driver that can't tell has one queue of each kind, as far as we know.
        let (receive, transmit) = match sys::channels(name) {
            Ok(channels) => (channels.rx + channels.combined, channels.tx + channels.combined),
            Err(error) if silent(&error) => (1, 1),
            Err(error) => return Err(error),
        };
        let (name, mtu) = (name.to_owned(), sys::mtu(name)?);
        Ok(Device { name, ifindex, mtu, driver, receive_queues: receive, transmit_queues: transmit })
    }

    /// Has the interface of this name leave VLAN tags in received frames. `true` if it did not before.
    ///
    /// # Errors
    ///
    /// What the kernel said, as where a driver can't do otherwise.
    pub fn leave_tags(name: &str) -> io::Result<bool> {
        sys::leave_tags(name)
    }
}
