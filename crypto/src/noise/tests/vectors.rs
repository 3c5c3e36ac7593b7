//! The vectors of `docs/WIRE.md`: made anew by the code, and compared with the file that others test theirs by.

use std::fs;
use std::path::Path;

use super::*;
use crate::aead::{SealJob, TAG, single};
use crate::cookie::{Checker, Stamp, Verdict};
use crate::message::{CookieReply, Kind, padded_len};
use crate::profile::suite;
use crate::{Role, Session, Time};
use wire::TenantId;
use wire::geneve::{Fields, HEADER, Payload};

/// Written if this is set; else compared.
const WRITE: &str = "EKIDEN_WRITE_VECTORS";

const PSK: [u8; 32] = [0x55; 32];
const COOKIE_SECRET: [u8; 32] = [0x66; 32];
const COOKIE_NONCE: [u8; 24] = [0x77; 24];
const COOKIE_SOURCE: &str = "192.0.2.7:51821";
/// The longest plaintext that the path of the vectors takes.
const LONGEST: usize = 1420;

/// A JSON object, its fields in the order given, each value as it shall stand.
fn object(indent: usize, fields: &[(&str, String)]) -> String {
    let pad = " ".repeat(indent);
    let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{pad}  \"{name}\": {value}")).collect();
    format!("{{\n{}\n{pad}}}", lines.join(",\n"))
}

fn array(indent: usize, elements: &[String]) -> String {
    let pad = " ".repeat(indent);
    let lines: Vec<_> = elements.iter().map(|element| format!("{pad}  {element}")).collect();
    format!("[\n{}\n{pad}]", lines.join(",\n"))
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn text(text: &str) -> String {
    format!("\"{text}\"")
}

#[test]
fn the_vectors_are_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/trunk.json");
    let about = "Test vectors of docs/WIRE.md. Bytes are hexadecimal, in the order in which they are sent or hashed.";
    let vectors: Vec<_> = TRUNKS.into_iter().map(vector).collect();
    let made = object(0, &[("about", text(about)), ("vectors", array(2, &vectors))]) + "\n";
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differ = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(made == kept, "{} differs ({WRITE}=1 writes it): {differ:#?}", path.display());
}

/// All of one handshake, and what is sent under its keys.
fn vector(profile: Profile) -> String {
    let Profile::Trunk { cipher, lane } = profile else { panic!("a trunk") };
    let ends = ends(profile);
    let (to_i, to_r) = (ends.initiator.public(), ends.responder.public());
    let label = |label: &[u8], public: &PublicKey| hex(&hash(&[label, &public.0]));
    let start = Transcript::new(profile, to_r);

    // The handshake.
    let (initiator, mut initiation) = ends.initiate();
    let (keys, mut response) = ends.respond(&initiation, PSK).unwrap();
    let keys_i = ends.finish(&initiator, PSK, &response).unwrap();
    assert_eq!((&keys.send, &keys.receive), (&keys_i.receive, &keys_i.send));
    let (mut stamp_i, mut stamp_r) = (Stamp::new(Protocol::Trunk, to_r), Stamp::new(Protocol::Trunk, to_i));
    stamp_i.seal(&mut initiation, Time(0));
    stamp_r.seal(&mut response, Time(0));

    // The cookie that the responder gives for the initiation under load, and the same initiation as if it had been known.
    let mut random = |bytes: &mut [u8]| match bytes.len() {
        32 => bytes.copy_from_slice(&COOKIE_SECRET),
        _ => bytes.copy_from_slice(&COOKIE_NONCE),
    };
    let source = COOKIE_SOURCE.parse().unwrap();
    let mut checker = Checker::of(Protocol::Trunk, &ends.responder);
    let Ok(Verdict::Answer(reply)) = checker.check(&initiation, source, true, Time(0), &mut random) else { panic!() };
    let cookie = mac(&COOKIE_SECRET, &[&[192, 0, 2, 7], &51821u16.to_be_bytes()]);
    stamp_i.receive(CookieReply::parse(Protocol::Trunk, &reply).unwrap(), Time(0)).unwrap();
    let mut with_cookie = initiation;
    stamp_i.seal(&mut with_cookie, Time(0));
    assert!(matches!(checker.check(&with_cookie, source, true, Time(0), &mut random), Ok(Verdict::Pass)));

    let session = |role, local, remote, keys: &Keys| {
        Session::new(0, local, remote, role, &keys.send, &keys.receive, cipher, Time(0)).of_trunk()
    };
    let of_i = session(Role::Initiator, INDEX_I, INDEX_R, &keys_i);
    let of_r = session(Role::Responder, INDEX_R, INDEX_I, &keys);
    let ipv4 = ipv4();
    let ipv6 = ipv6();
    let data = [
        data("initiator", &of_i, 0, None),
        data("initiator", &of_i, 1, Some((0x0a_0b0c, Payload::Ipv4, &ipv4))),
        data("responder", &of_r, 0, Some((1001, Payload::Ipv6, &ipv6))),
        data("responder", &of_r, 0x0102_0304, Some((0, Payload::Control, b"said by one hub to another"))),
    ];
    object(
        4,
        &[
            ("suite", suite(cipher).to_string()),
            ("cipher", text(&cipher.to_string())),
            ("lane", lane.to_string()),
            ("initiator_private", hex(&PRIVATE_I)),
            ("initiator_public", hex(&to_i.0)),
            ("responder_private", hex(&PRIVATE_R)),
            ("responder_public", hex(&to_r.0)),
            ("initiator_ephemeral_private", hex(&EPHEMERAL_I)),
            ("responder_ephemeral_private", hex(&EPHEMERAL_R)),
            ("psk", hex(&PSK)),
            ("tai64n", hex(&stamp().0)),
            ("initiator_index", INDEX_I.to_string()),
            ("responder_index", INDEX_R.to_string()),
            ("mac1_key_to_initiator", label(b"Ekiden trunk mac1", to_i)),
            ("mac1_key_to_responder", label(b"Ekiden trunk mac1", to_r)),
            ("cookie_key_to_initiator", label(b"Ekiden trunk cookie", to_i)),
            ("cookie_key_to_responder", label(b"Ekiden trunk cookie", to_r)),
            ("c_at_the_start", hex(&start.chain)),
            ("h_at_the_start", hex(&start.hash)),
            ("initiation", hex(&initiation)),
            ("c_after_the_initiation", hex(&initiator.transcript.chain)),
            ("h_after_the_initiation", hex(&initiator.transcript.hash)),
            ("response", hex(&response)),
            ("key_of_initiator", hex(&*keys_i.send)),
            ("key_of_responder", hex(&*keys.send)),
            ("cookie_secret", hex(&COOKIE_SECRET)),
            ("cookie_source", text(COOKIE_SOURCE)),
            ("cookie_nonce", hex(&COOKIE_NONCE)),
            ("cookie", hex(&cookie)),
            ("cookie_reply", hex(&reply)),
            ("initiation_with_cookie", hex(&with_cookie)),
            ("data", array(6, &data)),
        ],
    )
}

/// One data message, and what it was made from.
fn data(from: &str, session: &Session, counter: u64, tagged: Option<(u32, Payload, &[u8])>) -> String {
    let mut plain = Vec::new();
    if let Some((tenant, payload, inner)) = tagged {
        let mut header = [0; HEADER];
        Fields { tenant: TenantId::new(tenant.into()).unwrap(), payload }.emit(&mut header);
        plain = [&header, inner].concat();
        plain.resize(padded_len(plain.len(), LONGEST), 0);
    }
    let mut sealed = [&plain[..], &[0; TAG]].concat();
    let header = session.data_header(counter);
    let aad = session.protocol().aad(&header);
    single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data: &mut sealed }]);
    let message = [&header[..], &sealed].concat();
    assert_eq!(Protocol::Trunk.kind(&message), Some(Kind::Data));
    let mut fields = vec![("from", text(from)), ("counter", counter.to_string())];
    if let Some((tenant, payload, inner)) = tagged {
        let payload = match payload {
            Payload::Ipv4 => "ipv4",
            Payload::Ipv6 => "ipv6",
            Payload::Control => "control",
        };
        fields.extend([("tenant", tenant.to_string()), ("payload", text(payload)), ("inner", hex(inner))]);
    }
    fields.extend([("plain", hex(&plain)), ("message", hex(&message))]);
    object(8, &fields)
}

/// UDP from 10.9.1.1 to 10.9.2.1, with a checksum that is right.
fn ipv4() -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 33, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 1, 1, 10, 9, 2, 1];
    packet.extend([0x30, 0x39, 0x30, 0x39, 0, 13, 0, 0]);
    packet.extend(b"sash!");
    let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// No next header, from fd00:9:1::1 to fd00:9:2::1: 40 bytes, so that with the tag no padding is needed.
fn ipv6() -> Vec<u8> {
    let address = |site: u8| [0xfd, 0, 0, 9, 0, site, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    [&[0x60, 0, 0, 0, 0, 0, 59, 64][..], &address(1), &address(2)].concat()
}
