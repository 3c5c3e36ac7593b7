//! The transcript byte by byte against `snow`, an independent implementation of the Noise framework; and what must be refused.

#[cfg(not(loom))] // sessions have atomics, which loom has only in its models
mod vectors;

use super::*;
use crate::SystemTimeParts;
use crate::aead::Cipher;

/// A trunk of each suite, in different lanes.
const TRUNKS: [Profile; 2] = [
    Profile::Trunk { cipher: Cipher::ChaCha20Poly1305, lane: 0 },
    Profile::Trunk { cipher: Cipher::Aes256Gcm, lane: 3 },
];

const PROFILES: [Profile; 3] = [Profile::WireGuard, TRUNKS[0], TRUNKS[1]];

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
    profile: Profile,
    initiator: Identity,
    responder: Identity,
    static_static: Secret,
}

fn ends(profile: Profile) -> Ends {
    let (initiator, responder) = (Identity::new(PRIVATE_I), Identity::new(PRIVATE_R));
    let static_static = dh(initiator.secret(), &responder.public().0).unwrap();
    assert_eq!(static_static, dh(responder.secret(), &initiator.public().0).unwrap());
    Ends { profile, initiator, responder, static_static }
}

impl Ends {
    fn initiate(&self) -> (Initiator, [u8; 148]) {
        let (to, ss) = (self.responder.public(), &self.static_static);
        initiate(self.profile, &self.initiator, to, ss, stamp(), &secret(EPHEMERAL_I), INDEX_I).unwrap()
    }

    fn respond(&self, initiation: &[u8], psk: [u8; 32]) -> Result<(Keys, [u8; 92]), HandshakeError> {
        let mut opened = match self.profile.protocol() {
            Protocol::WireGuard => open_initiation(&self.responder, initiation)?,
            Protocol::Trunk => open_trunk_initiation(&self.responder, initiation)?,
        };
        assert_eq!(opened.remote(), self.initiator.public());
        assert_eq!(opened.sender(), INDEX_I);
        assert_eq!(opened.timestamp(&self.static_static)?, stamp());
        opened.respond(&secret(psk), &secret(EPHEMERAL_R), INDEX_R)
    }

    fn finish(&self, initiator: &Initiator, psk: [u8; 32], response: &[u8]) -> Result<Keys, HandshakeError> {
        let response = Response::parse(self.profile.protocol(), response).unwrap();
        initiator.finish(&self.initiator, &secret(psk), response)
    }
}

/// What `snow` needs to be told to speak as WireGuard does, or with this prologue as hubs do.
fn snow<'a>(
    private: &'a [u8; 32],
    ephemeral: &'a [u8; 32],
    psk: &'a [u8; 32],
    prologue: &'a [u8],
) -> snow::Builder<'a> {
    snow::Builder::new("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse().unwrap())
        .local_private_key(private)
        .and_then(|builder| builder.fixed_ephemeral_key_for_testing_only(ephemeral).psk(2, psk))
        .and_then(|builder| builder.prologue(prologue))
        .unwrap()
}

#[test]
fn every_byte_and_both_keys_are_those_of_an_independent_implementation() {
    let cases = [
        (PROFILES[0], &b"WireGuard v1 zx2c4 Jason@zx2c4.com"[..], [[1, 0, 0, 0], [2, 0, 0, 0]]),
        (PROFILES[1], b"Ekiden trunk v1 ChaCha20-Poly1305\x11\x01\x00\x00", [[0x11, 1, 0, 0], [0x12, 0, 0, 0]]),
        (PROFILES[2], b"Ekiden trunk v1 AES-256-GCM\x11\x02\x03\x00", [[0x11, 2, 3, 0], [0x12, 0, 0, 0]]),
    ];
    for ((profile, prologue, heads), psk) in cases.iter().flat_map(|case| [(*case, [0; 32]), (*case, [0x55; 32])]) {
        let ends = ends(profile);
        let mut peer_i = snow(&PRIVATE_I, &EPHEMERAL_I, &psk, prologue)
            .remote_public_key(&ends.responder.public().0)
            .unwrap()
            .build_initiator()
            .unwrap();
        let mut peer_r = snow(&PRIVATE_R, &EPHEMERAL_R, &psk, prologue).build_responder().unwrap();
        let (mut theirs, mut plain) = ([0; 256], [0; 256]);

        // The first message, made by both as initiator, and read by both as responder.
        let (ours_i, initiation) = ends.initiate();
        let len = peer_i.write_message(&stamp().0, &mut theirs).unwrap();
        assert_eq!(initiation[8..116], theirs[..len]);
        assert!(initiation[..4] == heads[0] && initiation[4..8] == [1, 0, 0xaa, 0xaa] && initiation[116..] == [0; 32]);
        let len = peer_r.read_message(&initiation[8..116], &mut plain).unwrap();
        assert_eq!(plain[..len], stamp().0);
        assert_eq!(peer_r.get_remote_static().unwrap(), ends.initiator.public().0);

        // The second, likewise.
        let (keys_r, response) = ends.respond(&initiation, psk).unwrap();
        let len = peer_r.write_message(&[], &mut theirs).unwrap();
        assert_eq!(response[12..60], theirs[..len]);
        assert!(response[..4] == heads[1] && response[60..] == [0; 32]);
        assert_eq!(response[4..12], [2, 0, 0xbb, 0xbb, 1, 0, 0xaa, 0xaa]);
        assert_eq!(peer_i.read_message(&response[12..60], &mut plain).unwrap(), 0);

        // The keys.
        let (key_i, key_r) = peer_r.dangerously_get_raw_split();
        let keys_i = ends.finish(&ours_i, psk, &response).unwrap();
        assert_eq!((*keys_i.send, *keys_i.receive), (key_i, key_r));
        assert_eq!((*keys_r.receive, *keys_r.send), (key_i, key_r));
    }
}

#[test]
fn any_flipped_bit_of_a_message_is_refused_at_either_end() {
    for profile in PROFILES {
        let ends = ends(profile);
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
            let got = ends.finish(&initiator, [0x55; 32], &wrong);
            assert_eq!(got.err(), Some(HandshakeError::Auth), "response, bit {bit}");
        }
        // None of the wrong ones has spoilt it for the right one; and a wrong pre-shared key shows here, at the second message.
        assert!(ends.finish(&initiator, [0x55; 32], &response).is_ok());
        assert_eq!(ends.finish(&initiator, [0; 32], &response).err(), Some(HandshakeError::Auth));
    }
}

#[test]
fn the_head_of_a_trunks_initiation_is_authentic_as_a_whole() {
    for profile in TRUNKS {
        let ends = ends(profile);
        let (_, initiation) = ends.initiate();
        let known = [initiation[1], initiation[2], 0];
        let suites = (0..=255).flat_map(|suite| (0..=4).map(move |lane| [suite, lane, 0]));
        let lanes = (0..=255).flat_map(|lane| (0..=3).map(move |suite| [suite, lane, 0]));
        let reserved = (1..=255).map(|reserved| [known[0], known[1], reserved]);
        for head in suites.chain(lanes).chain(reserved) {
            let [suite, _, reserved] = head;
            let mut changed = initiation;
            changed[1..4].copy_from_slice(&head);
            let expected = match (suite, reserved) {
                (_, 1..) => Some(HandshakeError::Malformed),
                (1 | 2, 0) if head != known => Some(HandshakeError::Auth),
                (1 | 2, 0) => None,
                (offered, 0) => Some(HandshakeError::Suite { offered }),
            };
            assert_eq!(ends.respond(&changed, [0; 32]).err(), expected, "{head:?}");
        }
    }
}

#[test]
fn no_message_of_one_protocol_or_suite_is_one_of_another() {
    for (made, profile) in PROFILES.iter().enumerate() {
        let from = ends(*profile);
        let (initiator, initiation) = from.initiate();
        let (_, response) = from.respond(&initiation, [0; 32]).unwrap();
        for (other, profile) in PROFILES.iter().enumerate().filter(|(other, _)| *other != made) {
            let to = ends(*profile);
            let (their_initiator, theirs) = to.initiate();
            // As it is, it isn't even of the kind; with the other's head, it does not open.
            if to.profile.protocol() != from.profile.protocol() {
                assert_eq!(to.respond(&initiation, [0; 32]).err(), Some(HandshakeError::Malformed));
                assert!(Response::parse(to.profile.protocol(), &response).is_none());
            }
            let (mut initiation, mut response) = (initiation, response);
            initiation[..4].copy_from_slice(&theirs[..4]);
            assert_eq!(to.respond(&initiation, [0; 32]).err(), Some(HandshakeError::Auth), "{made} as {other}");
            let (_, right) = to.respond(&theirs, [0; 32]).unwrap();
            response[..4].copy_from_slice(&right[..4]);
            assert_eq!(to.finish(&their_initiator, [0; 32], &response).err(), Some(HandshakeError::Auth));
            assert!(to.finish(&their_initiator, [0; 32], &right).is_ok());
        }
        assert!(from.finish(&initiator, [0; 32], &response).is_ok());
    }
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
    let ends = ends(Profile::WireGuard);
    let (initiator, initiation) = ends.initiate();
    let (_, response) = ends.respond(&initiation, [0; 32]).unwrap();
    for hex in LOW_ORDER {
        let low = point(hex);
        assert_eq!(dh(ends.responder.secret(), &low).err(), Some(HandshakeError::Auth), "{hex} as static key");

        let (mut wrong_initiation, mut wrong_response) = (initiation, response);
        wrong_initiation[8..40].copy_from_slice(&low);
        wrong_response[12..44].copy_from_slice(&low);
        assert_eq!(open_initiation(&ends.responder, &wrong_initiation).err(), Some(HandshakeError::Auth));
        assert_eq!(ends.finish(&initiator, [0; 32], &wrong_response).err(), Some(HandshakeError::Auth));

        // A responder that has no other way to know: the transcript is the attacker's own, and right but for the point.
        let mut transcript = Transcript::new(Profile::WireGuard, ends.responder.public());
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
