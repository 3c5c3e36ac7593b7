//! The four messages as they stand on the wire (WG 5.4.2 to 5.4.7): views that are checked once, and functions that write them.
//!
//! Every message begins with its type, one byte, and three bytes of zero; but a trunk's initiation has its suite in the second byte, and
//! its lane in the third. All numbers are little-endian. Functions without a protocol are about WireGuard's.
//!
//! ```text
//! initiation  type, sender, ephemeral 32, static 32+16, timestamp 12+16, mac1 16, mac2 16      148
//! response    type, sender, receiver, ephemeral 32, empty 0+16, mac1 16, mac2 16                92
//! cookie      type, receiver, nonce 24, cookie 16+16                                            64
//! data        type, receiver, counter 8, packet n+16                                        32 + n
//! ```

use std::fmt;
use std::ops::Deref;

use crate::constants::PADDING;
use crate::{Profile, Protocol};

/// Length of an initiation.
pub const INITIATION: usize = 148;
/// Length of a response.
pub const RESPONSE: usize = 92;
/// Length of a cookie reply.
pub const COOKIE: usize = 64;
/// Length of what comes before the sealed packet in a data message.
pub const DATA_HEADER: usize = 16;
/// Length of the shortest data message: a keepalive, an empty packet and its tag.
pub const DATA_MIN: usize = DATA_HEADER + 16;

/// Which message a datagram is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The first of a handshake.
    Initiation,
    /// The second, which answers it.
    Response,
    /// The answer of a peer under load to either of them.
    Cookie,
    /// A sealed packet.
    Data,
}

impl Protocol {
    /// Whose message a datagram claims to be, and which: [`Protocol::kind`] of both. WireGuard's data messages are told first.
    #[inline]
    pub fn recognise(datagram: &[u8]) -> Option<(Self, Kind)> {
        match Self::WireGuard.kind(datagram) {
            Some(kind) => Some((Self::WireGuard, kind)),
            None => Self::Trunk.kind(datagram).map(|kind| (Self::Trunk, kind)),
        }
    }

    /// What this datagram claims to be: the type is one of this protocol, the reserved bytes are zero, and the length is right.
    ///
    /// Any suite and any lane pass here: whether they are right, the handshake says.
    #[inline]
    pub fn kind(self, datagram: &[u8]) -> Option<Kind> {
        let (&head, _) = datagram.split_first_chunk::<4>()?;
        let (kind, fits) = match head {
            head if head == self.head(Kind::Data) => (Kind::Data, datagram.len() >= DATA_MIN),
            head if self.is_initiation(head) => (Kind::Initiation, datagram.len() == INITIATION),
            head if head == self.head(Kind::Response) => (Kind::Response, datagram.len() == RESPONSE),
            head if head == self.head(Kind::Cookie) => (Kind::Cookie, datagram.len() == COOKIE),
            _ => return None,
        };
        fits.then_some(kind)
    }

    /// The header of a data message.
    #[inline]
    pub fn data_header(self, receiver: u32, counter: u64) -> [u8; DATA_HEADER] {
        let mut header = [0; DATA_HEADER];
        header[..4].copy_from_slice(&self.head(Kind::Data));
        header[4..8].copy_from_slice(&receiver.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        header
    }

    /// The receiver's index and the counter of a data message; `None` if it is none.
    #[inline]
    pub fn parse_data(self, datagram: &[u8]) -> Option<(u32, u64)> {
        match self.kind(datagram)? {
            Kind::Data => Some((u32_at(datagram, 4), u64::from_le_bytes(bytes_at(datagram, 8)))),
            Kind::Initiation | Kind::Response | Kind::Cookie => None,
        }
    }

    /// The receiver's index in a message that has one: the session, or the handshake, that it is for.
    #[inline]
    pub fn receiver(self, datagram: &[u8]) -> Option<u32> {
        match self.kind(datagram)? {
            Kind::Initiation => None,
            Kind::Response => Some(u32_at(datagram, 8)),
            Kind::Cookie | Kind::Data => Some(u32_at(datagram, 4)),
        }
    }

    /// What a data message's tag covers besides what it seals, of its header: all in a trunk, nothing in WireGuard.
    #[inline]
    pub fn aad(self, header: &[u8; DATA_HEADER]) -> &[u8] {
        match self {
            Self::WireGuard => &[],
            Self::Trunk => header,
        }
    }

    /// The first four bytes of a message; of a trunk's initiation as they are before suite and lane.
    #[inline]
    const fn head(self, kind: Kind) -> [u8; 4] {
        let number = match kind {
            Kind::Initiation => 1,
            Kind::Response => 2,
            Kind::Cookie => 3,
            Kind::Data => 4,
        };
        match self {
            Self::WireGuard => [number, 0, 0, 0],
            Self::Trunk => [0x10 | number, 0, 0, 0],
        }
    }

    #[inline]
    fn is_initiation(self, [first, suite, lane, reserved]: [u8; 4]) -> bool {
        match self {
            Self::WireGuard => [first, suite, lane, reserved] == self.head(Kind::Initiation),
            Self::Trunk => [first, reserved] == [0x11, 0],
        }
    }
}

/// [`Protocol::kind`] of WireGuard.
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    Protocol::WireGuard.kind(datagram)
}

/// [`Protocol::data_header`] of WireGuard.
pub fn data_header(receiver: u32, counter: u64) -> [u8; DATA_HEADER] {
    Protocol::WireGuard.data_header(receiver, counter)
}

/// [`Protocol::parse_data`] of WireGuard.
pub fn parse_data(datagram: &[u8]) -> Option<(u32, u64)> {
    Protocol::WireGuard.parse_data(datagram)
}

/// [`Protocol::receiver`] of WireGuard.
pub fn receiver(datagram: &[u8]) -> Option<u32> {
    Protocol::WireGuard.receiver(datagram)
}

/// How long an inner packet of `inner` bytes is once padded: a multiple of 16, but never beyond `mtu_limit`, the longest inner packet
/// that the path takes (WG 5.4.6). A packet that is already longer than that stays as it is.
pub fn padded_len(inner: usize, mtu_limit: usize) -> usize {
    inner.next_multiple_of(PADDING).min(mtu_limit.max(inner))
}

/// A handshake message to be sent, of whichever kind.
#[derive(Clone, Copy)]
pub struct Outgoing {
    bytes: [u8; INITIATION],
    len: usize,
}

impl Outgoing {
    pub(crate) fn new(message: &[u8]) -> Self {
        let mut bytes = [0; INITIATION];
        bytes[..message.len()].copy_from_slice(message);
        Self { bytes, len: message.len() }
    }
}

impl Deref for Outgoing {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = Protocol::of(self).and_then(|protocol| protocol.kind(self));
        write!(f, "{kind:?} of {} B", self.len)
    }
}

/// An initiation.
#[derive(Clone, Copy)]
pub struct Initiation<'a>(&'a [u8; INITIATION]);

impl<'a> Initiation<'a> {
    /// The view, if the datagram is an initiation.
    pub fn parse(protocol: Protocol, datagram: &'a [u8]) -> Option<Self> {
        match protocol.kind(datagram)? {
            Kind::Initiation => datagram.try_into().ok().map(Self),
            Kind::Response | Kind::Cookie | Kind::Data => None,
        }
    }

    /// The number of a trunk's suite; zero in WireGuard.
    pub fn suite(&self) -> u8 {
        self.0[1]
    }

    /// Which lane of a trunk it is for; zero in WireGuard.
    pub fn lane(&self) -> u8 {
        self.0[2]
    }

    /// The index by which the initiator wants to be answered.
    pub fn sender(&self) -> u32 {
        u32_at(self.0, 4)
    }

    pub(crate) fn ephemeral(&self) -> &'a [u8; 32] {
        part::<8, _, _>(self.0)
    }

    pub(crate) fn sealed_static(&self) -> &'a [u8; 48] {
        part::<40, _, _>(self.0)
    }

    pub(crate) fn sealed_timestamp(&self) -> &'a [u8; 28] {
        part::<88, _, _>(self.0)
    }

    /// An initiation without its MACs.
    pub(crate) fn emit(
        profile: Profile,
        sender: u32,
        ephemeral: &[u8; 32],
        sealed_static: &[u8; 48],
        sealed_timestamp: &[u8; 28],
    ) -> [u8; INITIATION] {
        let mut message = [0; INITIATION];
        message[..4].copy_from_slice(&profile.head());
        message[4..8].copy_from_slice(&sender.to_le_bytes());
        message[8..40].copy_from_slice(ephemeral);
        message[40..88].copy_from_slice(sealed_static);
        message[88..116].copy_from_slice(sealed_timestamp);
        message
    }
}

/// A response.
#[derive(Clone, Copy)]
pub struct Response<'a>(&'a [u8; RESPONSE]);

impl<'a> Response<'a> {
    /// The view, if the datagram is a response.
    pub fn parse(protocol: Protocol, datagram: &'a [u8]) -> Option<Self> {
        match protocol.kind(datagram)? {
            Kind::Response => datagram.try_into().ok().map(Self),
            Kind::Initiation | Kind::Cookie | Kind::Data => None,
        }
    }

    /// The responder's index of the new session.
    pub fn sender(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// The index of the initiation that this answers.
    pub fn receiver(&self) -> u32 {
        u32_at(self.0, 8)
    }

    pub(crate) fn ephemeral(&self) -> &'a [u8; 32] {
        part::<12, _, _>(self.0)
    }

    pub(crate) fn sealed_empty(&self) -> &'a [u8; 16] {
        part::<44, _, _>(self.0)
    }

    /// A response without its MACs.
    pub(crate) fn emit(
        protocol: Protocol,
        sender: u32,
        receiver: u32,
        ephemeral: &[u8; 32],
        sealed_empty: &[u8; 16],
    ) -> [u8; RESPONSE] {
        let mut message = [0; RESPONSE];
        message[..4].copy_from_slice(&protocol.head(Kind::Response));
        message[4..8].copy_from_slice(&sender.to_le_bytes());
        message[8..12].copy_from_slice(&receiver.to_le_bytes());
        message[12..44].copy_from_slice(ephemeral);
        message[44..60].copy_from_slice(sealed_empty);
        message
    }
}

/// A cookie reply.
#[derive(Clone, Copy)]
pub struct CookieReply<'a>(&'a [u8; COOKIE]);

impl<'a> CookieReply<'a> {
    /// The view, if the datagram is a cookie reply.
    pub fn parse(protocol: Protocol, datagram: &'a [u8]) -> Option<Self> {
        match protocol.kind(datagram)? {
            Kind::Cookie => datagram.try_into().ok().map(Self),
            Kind::Initiation | Kind::Response | Kind::Data => None,
        }
    }

    /// The sender's index in the message that this answers.
    pub fn receiver(&self) -> u32 {
        u32_at(self.0, 4)
    }

    pub(crate) fn nonce(&self) -> &'a [u8; 24] {
        part::<8, _, _>(self.0)
    }

    pub(crate) fn sealed_cookie(&self) -> &'a [u8; 32] {
        part::<32, _, _>(self.0)
    }

    pub(crate) fn emit(protocol: Protocol, receiver: u32, nonce: &[u8; 24], sealed_cookie: &[u8; 32]) -> [u8; COOKIE] {
        let mut message = [0; COOKIE];
        message[..4].copy_from_slice(&protocol.head(Kind::Cookie));
        message[4..8].copy_from_slice(&receiver.to_le_bytes());
        message[8..32].copy_from_slice(nonce);
        message[32..].copy_from_slice(sealed_cookie);
        message
    }
}

/// A handshake message seen as what both MACs see: `body`, covered by MAC1; `mac1`; and `mac2`, which covers the two.
#[derive(Clone, Copy)]
pub(crate) struct Sealed<'a> {
    pub(crate) body: &'a [u8],
    pub(crate) mac1: &'a [u8; 16],
    pub(crate) mac2: &'a [u8; 16],
    /// The index by which the sender wants to be answered.
    pub(crate) sender: u32,
}

impl<'a> Sealed<'a> {
    /// The view, if the datagram is an initiation or a response.
    pub(crate) fn parse(protocol: Protocol, datagram: &'a [u8]) -> Option<Self> {
        match protocol.kind(datagram)? {
            Kind::Initiation | Kind::Response => {}
            Kind::Cookie | Kind::Data => return None,
        }
        let (rest, mac2) = datagram.split_last_chunk()?;
        let (body, mac1) = rest.split_last_chunk()?;
        Some(Self { body, mac1, mac2, sender: u32_at(datagram, 4) })
    }
}

/// The `N` bytes from `AT` of a message whose length is known: bounds that are wrong do not compile.
fn part<const AT: usize, const N: usize, const LEN: usize>(message: &[u8; LEN]) -> &[u8; N] {
    const { assert!(AT + N <= LEN) };
    message[AT..].first_chunk().expect("proven above")
}

fn bytes_at<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[at..at + N]);
    bytes
}

fn u32_at(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes_at(message, at))
}

#[cfg(test)]
mod tests;
