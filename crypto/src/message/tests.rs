use proptest::prelude::*;

use super::*;
use crate::aead::Cipher;

const PROTOCOLS: [Protocol; 2] = [Protocol::WireGuard, Protocol::Trunk];

/// Every accessor of every view of every protocol: none may panic, whatever the bytes.
fn read(datagram: &[u8]) -> Option<(Protocol, Kind)> {
    let [wireguard, trunk] = PROTOCOLS.map(|protocol| read_as(protocol, datagram).map(|kind| (protocol, kind)));
    assert!(wireguard.is_none() || trunk.is_none(), "a message of both protocols");
    let read = wireguard.or(trunk);
    assert!(read.is_none_or(|(protocol, _)| Protocol::of(datagram) == Some(protocol)));
    assert_eq!(Protocol::recognise(datagram), read);
    assert_eq!(wireguard.map(|(_, kind)| kind), kind(datagram));
    assert_eq!(wireguard.and_then(|_| Protocol::WireGuard.receiver(datagram)), receiver(datagram));
    assert_eq!(wireguard.and_then(|_| Protocol::WireGuard.parse_data(datagram)), parse_data(datagram));
    read
}

fn read_as(protocol: Protocol, datagram: &[u8]) -> Option<Kind> {
    let kind = protocol.kind(datagram);
    let views = (
        Initiation::parse(protocol, datagram)
            .map(|m| (m.suite(), m.lane(), m.sender(), *m.ephemeral(), *m.sealed_static(), *m.sealed_timestamp())),
        Response::parse(protocol, datagram).map(|m| (m.sender(), m.receiver(), *m.ephemeral(), *m.sealed_empty())),
        CookieReply::parse(protocol, datagram).map(|m| (m.receiver(), *m.nonce(), *m.sealed_cookie())),
        protocol.parse_data(datagram),
    );
    let seen = [views.0.is_some(), views.1.is_some(), views.2.is_some(), views.3.is_some()];
    assert_eq!(
        seen.iter().filter(|seen| **seen).count(),
        usize::from(kind.is_some()),
        "one view at most, and only of its kind"
    );
    assert_eq!(Sealed::parse(protocol, datagram).is_some(), seen[0] || seen[1]);
    assert_eq!(protocol.receiver(datagram).is_some(), seen[1] || seen[2] || seen[3]);
    kind
}

fn samples(profile: Profile) -> [(Kind, Vec<u8>); 4] {
    let protocol = profile.protocol();
    let header = protocol.data_header(0x0403_0201, 0x0c0b_0a09_0807_0605);
    [
        (Kind::Initiation, Initiation::emit(profile, 0x0403_0201, &[5; 32], &[6; 48], &[7; 28]).to_vec()),
        (Kind::Response, Response::emit(protocol, 0x0403_0201, 0x0807_0605, &[5; 32], &[6; 16]).to_vec()),
        (Kind::Cookie, CookieReply::emit(protocol, 0x0403_0201, &[5; 24], &[6; 32]).to_vec()),
        (Kind::Data, [&header[..], &[0; 16]].concat()),
    ]
}

fn trunk(cipher: Cipher, lane: u8) -> Profile {
    Profile::Trunk { cipher, lane }
}

#[test]
fn every_field_stands_where_the_paper_and_our_specification_put_it() {
    let heads = [
        (Profile::WireGuard, [1, 0, 0, 0], [2, 3, 4]),
        (trunk(Cipher::ChaCha20Poly1305, 0), [0x11, 1, 0, 0], [0x12, 0x13, 0x14]),
        (trunk(Cipher::Aes256Gcm, 7), [0x11, 2, 7, 0], [0x12, 0x13, 0x14]),
    ];
    for (profile, head, types) in heads {
        let [initiation, response, cookie, data] = samples(profile).map(|(_, bytes)| bytes);
        assert!(initiation[..4] == head && initiation[4..8] == [1, 2, 3, 4]);
        assert!(
            initiation[8..40] == [5; 32]
                && initiation[40..88] == [6; 48]
                && initiation[88..116] == [7; 28]
                && initiation[116..] == [0; 32]
        );
        assert_eq!(response[..12], [types[0], 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(response[12..44] == [5; 32] && response[44..60] == [6; 16] && response[60..] == [0; 32]);
        assert_eq!(cookie[..8], [types[1], 0, 0, 0, 1, 2, 3, 4]);
        assert!(cookie[8..32] == [5; 24] && cookie[32..] == [6; 32]);
        assert_eq!(data[..16], [types[2], 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        let protocol = profile.protocol();
        assert_eq!(protocol.parse_data(&data), Some((0x0403_0201, 0x0c0b_0a09_0807_0605)));
        assert_eq!(
            [&response, &cookie, &data].map(|message| protocol.receiver(message)),
            [Some(0x0807_0605), Some(0x0403_0201), Some(0x0403_0201)]
        );
        let view = Initiation::parse(protocol, &initiation).unwrap();
        assert_eq!((view.suite(), view.lane()), (head[1], head[2]));
    }
}

#[test]
fn no_other_length_and_no_reserved_bit_passes() {
    for profile in [Profile::WireGuard, trunk(Cipher::Aes256Gcm, 7)] {
        let protocol = profile.protocol();
        for (kind, bytes) in samples(profile) {
            assert_eq!(read(&bytes), Some((protocol, kind)));
            for len in 0..bytes.len() {
                assert_eq!(read(&bytes[..len]), None, "{kind:?} cut to {len} B");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(read(&longer), (kind == Kind::Data).then_some((protocol, kind)));
            for bit in 8..32 {
                let mut wrong = bytes.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                // What a trunk's initiation says there is the handshake's to judge.
                let said = protocol == Protocol::Trunk && kind == Kind::Initiation && bit < 24;
                assert_eq!(read(&wrong), said.then_some((protocol, kind)), "{kind:?} with reserved bit {bit}");
            }
        }
    }
}

#[test]
fn a_type_is_of_one_protocol_and_others_are_of_none() {
    for first in 0..=255u8 {
        let found = PROTOCOLS.into_iter().filter(|protocol| {
            [INITIATION, RESPONSE, COOKIE, DATA_MIN].into_iter().any(|len| {
                let mut message = vec![0; len];
                message[0] = first;
                protocol.kind(&message).is_some()
            })
        });
        assert_eq!(found.collect::<Vec<_>>(), Protocol::of(&[first]).into_iter().collect::<Vec<_>>(), "{first:#x}");
    }
    assert_eq!(Protocol::of(&[]), None);
}

#[test]
fn only_a_trunks_data_has_its_header_authenticated() {
    let header = Protocol::Trunk.data_header(1, 2);
    assert_eq!((Protocol::WireGuard.aad(&header), Protocol::Trunk.aad(&header)), (&[][..], &header[..]));
}

#[test]
fn padding_never_exceeds_the_limit_nor_cuts() {
    assert_eq!([0, 1, 15, 16, 17, 1409].map(|inner| padded_len(inner, 1420)), [0, 16, 16, 16, 32, 1420]);
    assert_eq!([1420, 1421, 9000].map(|inner| padded_len(inner, 1420)), [1420, 1421, 9000]);
}

proptest! {
    #[test]
    fn random_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6, trunk: bool) {
        read(&bytes);
        if bytes.len() >= 4 {
            bytes[..4].copy_from_slice(&[kind | u8::from(trunk) << 4, 0, 0, 0]);
            read(&bytes);
        }
    }
}
