//! The four messages as they stand on the wire (WG 5.4.2 to 5.4.7): views that are checked once, and functions that write them.
//!
//! Every message begins with its type, one byte, and three bytes of zero. All numbers are little-endian.
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
use crate::noise::{Suite, WIREGUARD};

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

/// What this datagram claims to be: the type is known, the reserved bytes are zero, and the length is right.
pub fn kind(datagram: &[u8]) -> Option<Kind> {
    let (&head, _) = datagram.split_first_chunk::<4>()?;
    let types = &WIREGUARD.types;
    let (kind, fits) = match head {
        head if head == types.data => (Kind::Data, datagram.len() >= DATA_MIN),
        head if head == types.initiation => (Kind::Initiation, datagram.len() == INITIATION),
        head if head == types.response => (Kind::Response, datagram.len() == RESPONSE),
        head if head == types.cookie => (Kind::Cookie, datagram.len() == COOKIE),
        _ => return None,
    };
    fits.then_some(kind)
}

/// The header of a data message.
pub fn data_header(receiver: u32, counter: u64) -> [u8; DATA_HEADER] {
    let mut header = [0; DATA_HEADER];
    header[..4].copy_from_slice(&WIREGUARD.types.data);
    header[4..8].copy_from_slice(&receiver.to_le_bytes());
    header[8..].copy_from_slice(&counter.to_le_bytes());
    header
}

/// The receiver's index and the counter of a data message; `None` if it is none.
pub fn parse_data(datagram: &[u8]) -> Option<(u32, u64)> {
    match kind(datagram)? {
        Kind::Data => Some((u32_at(datagram, 4), u64::from_le_bytes(bytes_at(datagram, 8)))),
        Kind::Initiation | Kind::Response | Kind::Cookie => None,
    }
}

/// The receiver's index in a message that has one: the session, or the handshake, that it is for.
pub fn receiver(datagram: &[u8]) -> Option<u32> {
    match kind(datagram)? {
        Kind::Initiation => None,
        Kind::Response => Some(u32_at(datagram, 8)),
        Kind::Cookie | Kind::Data => Some(u32_at(datagram, 4)),
    }
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
        write!(f, "{:?} of {} B", kind(self), self.len)
    }
}

/// An initiation.
#[derive(Clone, Copy)]
pub struct Initiation<'a>(&'a [u8; INITIATION]);

impl<'a> Initiation<'a> {
    /// The view, if the datagram is an initiation.
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        match kind(datagram)? {
            Kind::Initiation => datagram.try_into().ok().map(Self),
            Kind::Response | Kind::Cookie | Kind::Data => None,
        }
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
        suite: &Suite,
        sender: u32,
        ephemeral: &[u8; 32],
        sealed_static: &[u8; 48],
        sealed_timestamp: &[u8; 28],
    ) -> [u8; INITIATION] {
        let mut message = [0; INITIATION];
        message[..4].copy_from_slice(&suite.types.initiation);
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
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        match kind(datagram)? {
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
        suite: &Suite,
        sender: u32,
        receiver: u32,
        ephemeral: &[u8; 32],
        sealed_empty: &[u8; 16],
    ) -> [u8; RESPONSE] {
        let mut message = [0; RESPONSE];
        message[..4].copy_from_slice(&suite.types.response);
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
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        match kind(datagram)? {
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

    pub(crate) fn emit(suite: &Suite, receiver: u32, nonce: &[u8; 24], sealed_cookie: &[u8; 32]) -> [u8; COOKIE] {
        let mut message = [0; COOKIE];
        message[..4].copy_from_slice(&suite.types.cookie);
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
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        match kind(datagram)? {
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every accessor of every view: none may panic, whatever the bytes.
    fn read(datagram: &[u8]) -> Option<Kind> {
        let kind = kind(datagram);
        let views = (
            Initiation::parse(datagram)
                .map(|m| (m.sender(), *m.ephemeral(), *m.sealed_static(), *m.sealed_timestamp())),
            Response::parse(datagram).map(|m| (m.sender(), m.receiver(), *m.ephemeral(), *m.sealed_empty())),
            CookieReply::parse(datagram).map(|m| (m.receiver(), *m.nonce(), *m.sealed_cookie())),
            parse_data(datagram),
        );
        let seen = [views.0.is_some(), views.1.is_some(), views.2.is_some(), views.3.is_some()];
        assert_eq!(
            seen.iter().filter(|seen| **seen).count(),
            usize::from(kind.is_some()),
            "one view at most, and only of its kind"
        );
        assert_eq!(Sealed::parse(datagram).is_some(), seen[0] || seen[1]);
        assert_eq!(receiver(datagram).is_some(), seen[1] || seen[2] || seen[3]);
        kind
    }

    fn samples() -> [(Kind, Vec<u8>); 4] {
        [
            (Kind::Initiation, Initiation::emit(&WIREGUARD, 0x0403_0201, &[5; 32], &[6; 48], &[7; 28]).to_vec()),
            (Kind::Response, Response::emit(&WIREGUARD, 0x0403_0201, 0x0807_0605, &[5; 32], &[6; 16]).to_vec()),
            (Kind::Cookie, CookieReply::emit(&WIREGUARD, 0x0403_0201, &[5; 24], &[6; 32]).to_vec()),
            (Kind::Data, [&data_header(0x0403_0201, 0x0c0b_0a09_0807_0605)[..], &[0; 16]].concat()),
        ]
    }

    #[test]
    fn every_field_stands_where_the_paper_puts_it() {
        let [initiation, response, cookie, data] = samples().map(|(_, bytes)| bytes);
        assert_eq!(initiation[..8], [1, 0, 0, 0, 1, 2, 3, 4]);
        assert!(
            initiation[8..40] == [5; 32]
                && initiation[40..88] == [6; 48]
                && initiation[88..116] == [7; 28]
                && initiation[116..] == [0; 32]
        );
        assert_eq!(response[..12], [2, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(response[12..44] == [5; 32] && response[44..60] == [6; 16] && response[60..] == [0; 32]);
        assert_eq!(cookie[..8], [3, 0, 0, 0, 1, 2, 3, 4]);
        assert!(cookie[8..32] == [5; 24] && cookie[32..] == [6; 32]);
        assert_eq!(data[..16], [4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(parse_data(&data), Some((0x0403_0201, 0x0c0b_0a09_0807_0605)));
        assert_eq!(
            (receiver(&response), receiver(&cookie), receiver(&data)),
            (Some(0x0807_0605), Some(0x0403_0201), Some(0x0403_0201))
        );
    }

    #[test]
    fn no_other_length_and_no_reserved_bit_passes() {
        for (kind, bytes) in samples() {
            assert_eq!(read(&bytes), Some(kind));
            for len in 0..bytes.len() {
                assert_eq!(read(&bytes[..len]), None, "{kind:?} cut to {len} B");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(read(&longer), if kind == Kind::Data { Some(kind) } else { None });
            for bit in 8..32 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&wrong), None, "{kind:?} with reserved bit {bit}");
            }
        }
    }

    #[test]
    fn padding_never_exceeds_the_limit_nor_cuts() {
        assert_eq!([0, 1, 15, 16, 17, 1409].map(|inner| padded_len(inner, 1420)), [0, 16, 16, 16, 32, 1420]);
        assert_eq!([1420, 1421, 9000].map(|inner| padded_len(inner, 1420)), [1420, 1421, 9000]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6) {
            read(&bytes);
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
                read(&bytes);
            }
        }
    }
}
