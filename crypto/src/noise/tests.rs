//! The transcript byte by byte against `snow`, an independent implementation of the Noise framework; and what must be refused.

use super::*;
use crate::SystemTimeParts;

const PRIVATE_I: [u8; 32] = [0x11; 32];
const PRIVATE_R: [u8; 32] = [0x22; 32];
const EPHEMERAL_I: [u8; 32] = [0x33; 32];
const EPHEMERAL_R: [u8; 32] = [0x44; 32];
const INDEX_I: u32 = 0xaaaa_0001;
const INDEX_R: u32 = 0xbbbb_0002;

fn stamp() -> Tai64n {
    Tai64n::at(SystemTimeParts { secs: 1_800_000_000, nanos: 500_000_000 })
}

fn secret(bytes: [u8; 32]) -> Secret {
    Secret::new(bytes)
}

struct Ends {
    initiator: Identity,
    responder: Identity,
    static_static: Secret,
}

fn ends() -> Ends {
    let (initiator, responder) = (Identity::new(PRIVATE_I), Identity::new(PRIVATE_R));
    let static_static = dh(initiator.secret(), &responder.public().0).unwrap();
    assert_eq!(static_static, dh(responder.secret(), &initiator.public().0).unwrap());
    Ends { initiator, responder, static_static }
}

impl Ends {
    fn initiate(&self) -> (Initiator, [u8; 148]) {
        let (to, ss) = (self.responder.public(), &self.static_static);
        initiate(&WIREGUARD, &self.initiator, to, ss, stamp(), &secret(EPHEMERAL_I), INDEX_I).unwrap()
    }

    fn respond(&self, initiation: &[u8], psk: [u8; 32]) -> Result<(Keys, [u8; 92]), HandshakeError> {
        let mut opened = open_initiation(&self.responder, initiation)?;
        assert_eq!(opened.remote(), self.initiator.public());
        assert_eq!(opened.sender(), INDEX_I);
        assert_eq!(opened.timestamp(&self.static_static)?, stamp());
        opened.respond(&WIREGUARD, &secret(psk), &secret(EPHEMERAL_R), INDEX_R)
    }
}

/// What `snow` needs to be told to speak as WireGuard does.
fn snow<'a>(private: &'a [u8; 32], ephemeral: &'a [u8; 32], psk: &'a [u8; 32]) -> snow::Builder<'a> {
    snow::Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
        .local_private_key(private)
        .and_then(|builder| builder.fixed_ephemeral_key_for_testing_only(ephemeral).psk(2, psk))
        .and_then(|builder| builder.prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com"))
        .unwrap()
}

#[test]
fn every_byte_and_both_keys_are_those_of_an_independent_implementation() {
    for psk in [[0; 32], [0x55; 32]] {
        let ends = ends();
        let mut peer_i = snow(&PRIVATE_I, &EPHEMERAL_I, &psk)
            .remote_public_key(&ends.responder.public().0)
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut peer_r = snow(&PRIVATE_R, &EPHEMERAL_R, &psk).build_responder().unwrap();
        let (mut theirs, mut plain) = ([0; 256], [0; 256]);

        // The first message, made by both as initiator, and read by both as responder.
        let (ours_i, initiation) = ends.initiate();
        let len = peer_i.write_message(&stamp().0, &mut theirs).unwrap();
        assert_eq!(initiation[8..116], theirs[..len]);
        assert!(initiation[..8] == [1, 0, 0, 0, 1, 0, 0xaa, 0xaa] && initiation[116..] == [0; 32]);
        let len = peer_r.read_message(&initiation[8..116], &mut plain).unwrap();
        assert_eq!(plain[..len], stamp().0);
        assert_eq!(peer_r.get_remote_static().unwrap(), ends.initiator.public().0);

        // The second, likewise.
        let (keys_r, response) = ends.respond(&initiation, psk).unwrap();
        let len = peer_r.write_message(&[], &mut theirs).unwrap();
        assert_eq!(response[12..60], theirs[..len]);
        assert!(response[..12] == [2, 0, 0, 0, 2, 0, 0xbb, 0xbb, 1, 0, 0xaa, 0xaa] && response[60..] == [0; 32]);
        assert_eq!(peer_i.read_message(&response[12..60], &mut plain).unwrap(), 0);

        // The keys.
        let (key_i, key_r) = peer_r.dangerously_get_raw_split();
        let keys_i = ours_i.finish(&ends.initiator, &secret(psk), Response::parse(&response).unwrap()).unwrap();
        assert_eq!((*keys_i.send, *keys_i.receive), (key_i, key_r));
        assert_eq!((*keys_r.receive, *keys_r.send), (key_i, key_r));
    }
}

#[test]
fn any_flipped_bit_of_a_message_is_refused_at_either_end() {
    let ends = ends();
    let (initiator, initiation) = ends.initiate();
    let (_, response) = ends.respond(&initiation, [0x55; 32]).unwrap();
    // The indices stand outside of Noise: MAC1 covers them. Of a public key, the top bit means nothing (RFC 7748), but it is hashed.
    for bit in 64..116 * 8 {
        let mut wrong = initiation;
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ends.respond(&wrong, [0x55; 32]).err(), Some(HandshakeError::Auth), "initiation, bit {bit}");
    }
    for bit in 96..60 * 8 {
        let mut wrong = response;
        wrong[bit / 8] ^= 1 << (bit % 8);
        let got = initiator.finish(&ends.initiator, &secret([0x55; 32]), Response::parse(&wrong).unwrap());
        assert_eq!(got.err(), Some(HandshakeError::Auth), "response, bit {bit}");
    }
    // None of the wrong ones has spoilt it for the right one; and a wrong pre-shared key shows here, at the second message.
    let finish = |psk| initiator.finish(&ends.initiator, &secret(psk), Response::parse(&response).unwrap());
    assert!(finish([0x55; 32]).is_ok());
    assert_eq!(finish([0; 32]).err(), Some(HandshakeError::Auth));
}

/// Points of order 1, 2, 4 and 8, and two that are the same only once they are reduced (cr.yp.to/ecdh.html).
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn point(hex: &str) -> [u8; 32] {
    std::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
}

#[test]
fn a_point_of_low_order_is_refused_wherever_it_stands() {
    let ends = ends();
    let (initiator, initiation) = ends.initiate();
    let (_, response) = ends.respond(&initiation, [0; 32]).unwrap();
    for hex in LOW_ORDER {
        let low = point(hex);
        assert_eq!(dh(ends.responder.secret(), &low).err(), Some(HandshakeError::Auth), "{hex} as static key");

        let (mut wrong_initiation, mut wrong_response) = (initiation, response);
        wrong_initiation[8..40].copy_from_slice(&low);
        wrong_response[12..44].copy_from_slice(&low);
        assert_eq!(open_initiation(&ends.responder, &wrong_initiation).err(), Some(HandshakeError::Auth));
        let got = initiator.finish(&ends.initiator, &secret([0; 32]), Response::parse(&wrong_response).unwrap());
        assert_eq!(got.err(), Some(HandshakeError::Auth));

        // A responder that has no other way to know: the transcript is the attacker's own, and right but for the point.
        let mut transcript = Transcript::new(&WIREGUARD, ends.responder.public());
        transcript.mix(&low);
        transcript.absorb(&low);
        let key = transcript.mix_key(&secret([0; 32]));
        let mut sealed = [0; 48];
        transcript.seal(&key, &ends.initiator.public().0, &mut sealed);
        wrong_initiation[40..88].copy_from_slice(&sealed);
        assert_eq!(open_initiation(&ends.responder, &wrong_initiation).err(), Some(HandshakeError::Auth));
    }
}

#[test]
fn hmac_is_that_of_the_standard_construction() {
    // HMAC-BLAKE2s-256 with a key of 32 bytes, by Python's `hmac.new(bytes(range(32)), b"Ekiden", "blake2s")`.
    let key = std::array::from_fn(|i| i as u8);
    let expected = point("8bcf8552e5874d020cbeb9639fbfd7c81e72707a709f8267eead2842cb9b27ff");
    assert_eq!(*hmac(&key, &[b"Eki", b"den"]), expected);
}

/// What holds a secret wipes it when it is dropped, the libraries' own types included: their features must not get lost.
#[test]
fn secrets_are_wiped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<Secret>();
    wiped::<Transcript>();
    wiped::<StaticSecret>();
    wiped::<x25519_dalek::SharedSecret>();
    wiped::<ChaCha20Poly1305>();
    // Of BLAKE2s the two halves do, the state and the buffer; the whole does not say so.
    wiped::<blake2::Blake2sVarCore>();
}
