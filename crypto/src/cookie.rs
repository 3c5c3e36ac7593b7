//! MAC1, MAC2 and cookies: what keeps strangers from making a hub compute (WG 5.3, 5.4.4 and 5.4.7).
//!
//! MAC1 shows that the sender knows whom it speaks to; without it a hub is silent. A hub under load answers a message that has no good
//! MAC2 with a cookie, sealed for the sender and bound to its address and port; the next message, MAC2 keyed with that cookie, shows
//! that the sender receives what is sent to the address it claims.
//!
//! [`Checker`] is the side that receives handshake messages, `Stamp` the side that sends them.

use std::net::{IpAddr, SocketAddr};

use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::constants::{COOKIE_LATENCY, COOKIE_LIFETIME};
use crate::message::{CookieReply, Outgoing, Sealed};
use crate::noise::{Secret, hash, mac};
use crate::{HandshakeError, Identity, Protocol, PublicKey, Time};

/// What to do with a handshake message whose MAC1 is right.
#[derive(Debug)]
pub enum Verdict {
    /// Go on with it.
    Pass,
    /// The hub is under load and the sender has not shown that its address is its own: send it this, and nothing else.
    Answer(Outgoing),
}

/// The hub's side: checks the MACs of all handshake messages of one protocol to one identity. Of a trunk's suites it knows nothing: MACs are
/// the same in all.
pub struct Checker {
    protocol: Protocol,
    keys: AddressedTo,
    /// The secret from which cookies are made, and when it was drawn.
    secret: Option<(Secret, Time)>,
}

impl Checker {
    /// A checker of sites' messages to this identity.
    pub fn new(identity: &Identity) -> Self {
        Self::of(Protocol::WireGuard, identity)
    }

    /// A checker of messages of this protocol.
    pub fn of(protocol: Protocol, identity: &Identity) -> Self {
        Self { protocol, keys: AddressedTo::new(protocol, identity.public()), secret: None }
    }

    /// Checks an initiation or a response that came from `source`.
    ///
    /// Whether the hub is under load is the caller's to say. The secret behind the cookies is drawn from `random` when it is first
    /// needed, and again once it is two minutes old; cookies made before that no longer count then.
    pub fn check(
        &mut self,
        datagram: &[u8],
        source: SocketAddr,
        under_load: bool,
        now: Time,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<Verdict, HandshakeError> {
        // 1. MAC1, always.
        let message = Sealed::parse(self.protocol, datagram).ok_or(HandshakeError::Malformed)?;
        if !equal(&mac(&self.keys.mac1, &[message.body]), message.mac1) {
            return Err(HandshakeError::Mac1);
        }
        if !under_load {
            return Ok(Verdict::Pass);
        }

        // 2. MAC2, under load: keyed with the cookie of this very address and port.
        let cookie = self.cookie(source, now, random);
        if equal(&mac(&*cookie, &[message.body, message.mac1]), message.mac2) {
            return Ok(Verdict::Pass);
        }

        // 3. Else the cookie, sealed so that only who has seen this message's MAC1 can open it.
        let mut nonce = [0; 24];
        random(&mut nonce);
        let mut sealed = [0; 32];
        let (text, tag) = sealed.split_at_mut(16);
        text.copy_from_slice(&*cookie);
        let computed = XChaCha20Poly1305::new((&self.keys.cookie).into())
            .encrypt_inout_detached((&nonce).into(), message.mac1, text.into())
            .expect("a cookie is far shorter than 256 GiB");
        tag.copy_from_slice(&computed);
        Ok(Verdict::Answer(Outgoing::new(&CookieReply::emit(self.protocol, message.sender, &nonce, &sealed))))
    }

    /// `Mac(secret, address || port)`, with a secret not older than two minutes.
    fn cookie(&mut self, source: SocketAddr, now: Time, random: &mut dyn FnMut(&mut [u8])) -> Zeroizing<[u8; 16]> {
        let (secret, _) = match self.secret.take() {
            Some((secret, drawn)) if now.since(drawn) < COOKIE_LIFETIME => self.secret.insert((secret, drawn)),
            Some(_) | None => {
                let mut secret = Secret::default();
                random(&mut *secret);
                self.secret.insert((secret, now))
            }
        };
        let port = source.port().to_be_bytes();
        Zeroizing::new(match source.ip() {
            IpAddr::V4(address) => mac(&**secret, &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(&**secret, &[&address.octets(), &port]),
        })
    }
}

/// The sender's side: puts the MACs on all handshake messages to one peer.
pub(crate) struct Stamp {
    keys: AddressedTo,
    /// MAC1 of the last message sent, until a cookie has come for it.
    last_mac1: Option<[u8; 16]>,
    /// The peer's last cookie, and when it came.
    cookie: Option<(Zeroizing<[u8; 16]>, Time)>,
}

impl Stamp {
    pub(crate) fn new(protocol: Protocol, remote: &PublicKey) -> Self {
        Self { keys: AddressedTo::new(protocol, remote), last_mac1: None, cookie: None }
    }

    /// Fills in the two MACs, the last 32 bytes of the message. MAC2 stays zero as long as there is no fresh cookie.
    pub(crate) fn seal(&mut self, message: &mut [u8], now: Time) {
        let (body, macs) = message.split_at_mut(message.len() - 32);
        let mac1 = mac(&self.keys.mac1, &[body]);
        self.last_mac1 = Some(mac1);
        macs[..16].copy_from_slice(&mac1);
        // Somewhat less than the cookie's life, because the message takes time to arrive.
        self.cookie.take_if(|(_, came)| now.since(*came) >= COOKIE_LIFETIME - COOKIE_LATENCY);
        if let Some((cookie, _)) = &self.cookie {
            macs[16..].copy_from_slice(&mac(&**cookie, &[body, &mac1]));
        }
    }

    /// Takes a cookie. It is for the next message: what was sent is not sent again before its time (WG 5.3).
    pub(crate) fn receive(&mut self, reply: CookieReply<'_>, now: Time) -> Result<(), HandshakeError> {
        let mac1 = self.last_mac1.ok_or(HandshakeError::Unsolicited)?;
        let (text, tag) = reply.sealed_cookie().split_last_chunk::<16>().ok_or(HandshakeError::Malformed)?;
        let mut cookie = Zeroizing::new([0; 16]);
        cookie.copy_from_slice(text);
        XChaCha20Poly1305::new((&self.keys.cookie).into())
            .decrypt_inout_detached(reply.nonce().into(), &mac1, cookie.as_mut_slice().into(), tag.into())
            .map_err(|_| HandshakeError::Auth)?;
        self.last_mac1 = None;
        self.cookie = Some((cookie, now));
        Ok(())
    }
}

/// The two keys that whoever knows a public key can compute, for messages to its owner. They are no secrets.
struct AddressedTo {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl AddressedTo {
    fn new(protocol: Protocol, owner: &PublicKey) -> Self {
        Self { mac1: hash(&[protocol.label_mac1(), &owner.0]), cookie: hash(&[protocol.label_cookie(), &owner.0]) }
    }
}

/// Whether two MACs are the same, in a time that does not depend on where they differ.
fn equal(computed: &[u8; 16], received: &[u8; 16]) -> bool {
    computed.ct_eq(received).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Profile;
    use crate::message::{INITIATION, Initiation, RESPONSE, Response, kind};
    use std::time::Duration;

    const SOURCE: &str = "192.0.2.7:51820";

    fn source(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn initiation() -> [u8; INITIATION] {
        Initiation::emit(Profile::WireGuard, 7, &[1; 32], &[2; 48], &[3; 28])
    }

    fn response() -> [u8; RESPONSE] {
        Response::emit(Protocol::WireGuard, 7, 8, &[1; 32], &[2; 16])
    }

    /// A hub, a sender to it, and a source of bytes that never repeat.
    fn both() -> (Checker, Stamp, impl FnMut(&mut [u8])) {
        let identity = Identity::new([9; 32]);
        let mut next = 0u8;
        let random = move |bytes: &mut [u8]| {
            next += 1;
            bytes.fill(next);
        };
        (Checker::new(&identity), Stamp::new(Protocol::WireGuard, identity.public()), random)
    }

    #[test]
    fn any_flipped_bit_of_the_body_or_of_mac1_is_refused() {
        let (mut checker, mut stamp, mut random) = both();
        for mut message in [initiation().to_vec(), response().to_vec()] {
            stamp.seal(&mut message, Time(1));
            assert!(matches!(checker.check(&message, source(SOURCE), false, Time(1), &mut random), Ok(Verdict::Pass)));
            for bit in 32..(message.len() - 16) * 8 {
                let mut wrong = message.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                let got = checker.check(&wrong, source(SOURCE), false, Time(1), &mut random);
                assert!(matches!(got, Err(HandshakeError::Mac1)), "bit {bit}: {got:?}");
            }
        }
    }

    #[test]
    fn under_load_the_cookie_opens_the_door_for_its_address_and_port_only() {
        let (mut checker, mut stamp, mut random) = both();
        let mut message = initiation();
        stamp.seal(&mut message, Time(1));
        let Ok(Verdict::Answer(reply)) = checker.check(&message, source(SOURCE), true, Time(1), &mut random) else {
            panic!("without a cookie nobody passes");
        };
        assert_eq!(kind(&reply), Some(crate::message::Kind::Cookie));
        let reply = CookieReply::parse(Protocol::WireGuard, &reply).unwrap();
        assert_eq!(reply.receiver(), 7);
        stamp.receive(reply, Time(2)).unwrap();
        assert!(
            matches!(stamp.receive(reply, Time(2)), Err(HandshakeError::Unsolicited)),
            "one cookie for one message"
        );

        let mut again = response();
        stamp.seal(&mut again, Time(3));
        for (from, passes) in
            [(SOURCE, true), ("192.0.2.7:51821", false), ("192.0.2.8:51820", false), ("[2001:db8::7]:51820", false)]
        {
            let got = checker.check(&again, source(from), true, Time(3), &mut random).unwrap();
            assert_eq!(matches!(got, Verdict::Pass), passes, "{from}");
        }
        for bit in 0..128 {
            let mut wrong = again;
            wrong[RESPONSE - 16 + bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(checker.check(&wrong, source(SOURCE), true, Time(3), &mut random), Ok(Verdict::Answer(_))),
                "bit {bit}"
            );
            assert!(matches!(checker.check(&wrong, source(SOURCE), false, Time(3), &mut random), Ok(Verdict::Pass)));
        }
    }

    #[test]
    fn a_cookie_lives_two_minutes_and_its_user_stops_five_seconds_earlier() {
        let (mut checker, mut stamp, mut random) = both();
        let from = source("[2001:db8::7]:1");
        let mut message = initiation();
        stamp.seal(&mut message, Time(0));
        let Ok(Verdict::Answer(reply)) = checker.check(&message, from, true, Time(0), &mut random) else { panic!() };
        stamp.receive(CookieReply::parse(Protocol::WireGuard, &reply).unwrap(), Time(0)).unwrap();
        let mut sealed_at = |seconds| {
            let mut message = initiation();
            stamp.seal(&mut message, Time(0) + Duration::from_secs(seconds));
            message
        };
        let (last, after) = (sealed_at(114), sealed_at(115));
        assert!(last[INITIATION - 16..] != [0; 16] && after[INITIATION - 16..] == [0; 16]);
        let mut passes_at = |seconds| {
            let got = checker.check(&last, from, true, Time(0) + Duration::from_secs(seconds), &mut random);
            matches!(got, Ok(Verdict::Pass))
        };
        assert!(passes_at(119));
        assert!(!passes_at(120), "the secret has been replaced");
        assert!(!passes_at(119), "and it is gone");
    }

    #[test]
    fn a_cookie_that_was_touched_or_meant_for_another_message_is_refused() {
        let (mut checker, mut stamp, mut random) = both();
        let mut message = initiation();
        stamp.seal(&mut message, Time(1));
        let Ok(Verdict::Answer(reply)) = checker.check(&message, source(SOURCE), true, Time(1), &mut random) else {
            panic!()
        };
        for bit in 64..reply.len() * 8 {
            let mut wrong = reply.to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(
                    stamp.receive(CookieReply::parse(Protocol::WireGuard, &wrong).unwrap(), Time(1)),
                    Err(HandshakeError::Auth)
                ),
                "bit {bit}"
            );
        }
        stamp.seal(&mut response(), Time(1));
        assert!(matches!(
            stamp.receive(CookieReply::parse(Protocol::WireGuard, &reply).unwrap(), Time(1)),
            Err(HandshakeError::Auth)
        ));
    }
}
