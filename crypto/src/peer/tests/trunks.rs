//! Trunks: the handshake of sites, with a suite and a lane that both hubs must mean alike.

use super::*;
use crate::aead::Cipher;
use crate::profile::suite;

const CHACHA: Profile = Profile::Trunk { cipher: Cipher::ChaCha20Poly1305, lane: 1 };
const AES: Profile = Profile::Trunk { cipher: Cipher::Aes256Gcm, lane: 1 };

/// Two hubs, each with its own idea of the trunk between them.
fn hubs(of_a: Profile, of_b: Profile) -> (Node, Node) {
    let (a, b) = pair(Some([3; 32]));
    (a.speaking(of_a), b.speaking(of_b))
}

/// With a session that `a` has initiated, and nothing under way.
fn connected(profile: Profile) -> (Node, Node) {
    let (mut a, mut b) = hubs(profile, profile);
    a.want();
    exchange(&mut a, &mut b);
    assert!(a.sending.is_some() && b.sending.is_some());
    for node in [&mut a, &mut b] {
        node.take_log();
        node.poll();
    }
    (a, b)
}

#[test]
fn data_passes_both_ways_under_either_suite() {
    for profile in [CHACHA, AES] {
        let (mut a, mut b) = connected(profile);
        assert!(a.send(b"there") && b.send(b"and back"));
        exchange(&mut a, &mut b);
        assert_eq!((a.received.concat(), b.received.concat()), (b"and back".to_vec(), b"there".to_vec()));
        let session = &a.sessions[&a.sending.unwrap()];
        assert_eq!((session.protocol(), session.seal_key().cipher()), (Protocol::Trunk, profile.cipher()));
        a.erase();
        b.erase();
    }
}

#[test]
fn another_suite_is_refused_and_said_of_the_peer_alone() {
    for (ours, theirs) in [(CHACHA, AES), (AES, CHACHA)] {
        let (mut a, mut b) = hubs(theirs, ours);
        a.want();
        let initiation = a.sent();
        let before = b.peer.last_timestamp();
        let offered = HandshakeError::Suite { offered: suite(theirs.cipher()) };
        assert_eq!(b.receive(&initiation), Err(offered));
        // Nothing is answered, and nothing kept: neither an index nor the time stamp.
        assert!(b.wire.is_empty() && b.log.is_empty() && b.live.is_empty());
        assert_eq!(b.peer.last_timestamp(), before);

        // The suite in the head alone changes nothing but what it is refused for: it can't be talked down.
        let mut relabelled = initiation.clone();
        relabelled[1] = suite(ours.cipher());
        Stamp::new(Protocol::Trunk, b.identity.public()).seal(&mut relabelled, START);
        assert_eq!(b.receive(&relabelled), Err(HandshakeError::Auth));

        // The operator sets it right; then even the initiation that was refused before is good.
        b.peer = Peer::new(7, *a.identity.public(), Some([3; 32]), None, None).speaking(theirs);
        assert_eq!(b.receive(&initiation), Ok(Kind::Initiation));
        // And once it was taken, it says nothing any more about what the peer offers.
        let kept = b.peer.last_timestamp();
        b.peer = Peer::new(7, *a.identity.public(), Some([3; 32]), None, kept).speaking(ours);
        assert_eq!(b.receive(&initiation), Err(HandshakeError::Replayed));
    }
}

#[test]
fn who_is_not_the_peer_can_claim_no_suite_for_it() {
    let (a, mut b) = hubs(CHACHA, AES);
    // One who knows all public keys, and offers another suite under the name of `a`, without its private key.
    let thief = Identity::new([9; 32]);
    let remote = *b.identity.public();
    let right = noise::dh(thief.secret(), &remote.0).unwrap();
    let stamp = Tai64n::at(SystemTimeParts { secs: 1_900_000_000, nanos: 0 });
    let named = thief.named(*a.identity.public());
    let (_, mut message) = noise::initiate(CHACHA, &named, &remote, &right, stamp, &Secret::new([4; 32]), 1).unwrap();
    Stamp::new(Protocol::Trunk, &remote).seal(&mut message, START);
    let opened = noise::open_trunk_initiation(&b.identity, &message).unwrap();
    assert_eq!((opened.remote(), opened.profile()), (a.identity.public(), CHACHA), "so much is claimed");
    assert_eq!(b.receive(&message), Err(HandshakeError::Auth), "and nothing of it believed");
}

#[test]
fn an_unknown_suite_is_refused_before_anyone_is_named() {
    let (mut a, mut b) = hubs(AES, AES);
    a.want();
    let initiation = a.sent();
    for offered in (0..=255).filter(|offered| *offered != 2) {
        let mut unknown = initiation.clone();
        unknown[1] = offered;
        assert_eq!(b.receive(&unknown), Err(HandshakeError::Mac1));
        Stamp::new(Protocol::Trunk, b.identity.public()).seal(&mut unknown, START);
        let expected = if offered == 1 { HandshakeError::Auth } else { HandshakeError::Suite { offered } };
        assert_eq!(b.receive(&unknown), Err(expected));
    }
    assert_eq!(b.receive(&initiation), Ok(Kind::Initiation));
}

#[test]
fn an_initiation_for_one_lane_is_none_for_another() {
    let other = Profile::Trunk { cipher: Cipher::Aes256Gcm, lane: 2 };
    let (mut a, mut b) = hubs(AES, other);
    a.want();
    let mut initiation = a.sent();
    assert_eq!(b.receive(&initiation), Err(HandshakeError::Auth), "the caller took it to the wrong peer");
    initiation[2] = 2;
    Stamp::new(Protocol::Trunk, b.identity.public()).seal(&mut initiation, START);
    assert_eq!(b.receive(&initiation), Err(HandshakeError::Auth), "and the lane is authentic");
}

#[test]
fn any_flipped_bit_of_any_message_is_refused() {
    for profile in [CHACHA, AES] {
        let (mut a, mut b) = hubs(profile, profile);
        b.under_load = true;
        a.want();
        let initiation = a.sent();
        flip(&mut b, &initiation, 148 - 16); // MAC2 is the hub's under load alone, and then asks for a cookie
        b.receive(&initiation).unwrap();
        let cookie = b.sent();
        flip(&mut a, &cookie, cookie.len());
        a.receive(&cookie).unwrap();

        a.run_until(seconds(5.4));
        b.now = a.now;
        let initiation = a.sent();
        b.log.clear();
        for bit in (148 - 16) * 8..148 * 8 {
            let mut wrong = initiation.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            b.receive(&wrong).unwrap();
            assert_eq!((b.take_log(), b.sent().len()), (vec!["cookie"], message::COOKIE), "MAC2, bit {bit}");
        }
        b.receive(&initiation).unwrap();
        assert_eq!(b.take_log(), ["answered", "response"]);
        assert_eq!(b.receive(&initiation), Err(HandshakeError::Replayed));
        let response = b.sent();
        flip(&mut a, &response, 92 - 16);
        a.receive(&response).unwrap();
        let keepalive = a.sent();
        assert_eq!(keepalive.len(), message::DATA_MIN);
        flip(&mut b, &keepalive, keepalive.len());
        b.receive(&keepalive).unwrap();
        assert_eq!(b.receive(&keepalive), Err(HandshakeError::Replayed));

        b.send(&[7; 100]);
        let data = b.sent();
        flip(&mut a, &data, data.len());
        assert!(a.received.is_empty());
        a.receive(&data).unwrap();
        assert_eq!(a.received, [[7; 100]]);
    }
}

/// No message that differs in one bit of the first `len` bytes is taken, and none leads to anything.
fn flip(node: &mut Node, message: &[u8], len: usize) {
    let log = node.log.len();
    for bit in 0..len * 8 {
        let mut wrong = message.to_vec();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let refused = node.receive(&wrong).expect_err(&format!("bit {bit} of {} B", message.len()));
        assert!(refused != HandshakeError::NoIndex && node.log.len() == log && node.wire.is_empty());
    }
}

#[test]
fn the_header_of_a_trunks_data_is_authentic_though_no_field_of_it_differs() {
    // Sealed without its header, as a site's data is: key, counter and index are right.
    let (mut a, b) = connected(AES);
    let session = &b.sessions[&b.sending.unwrap()];
    let counter = session.reserve(1).next().unwrap();
    let mut data = [[5; 50], [0; 50]].concat()[..50 + TAG].to_vec();
    aead::single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad: &[], data: &mut data }]);
    assert_eq!(a.receive(&[&session.data_header(counter)[..], &data].concat()), Err(HandshakeError::Auth));
}

#[test]
fn sites_and_hubs_never_take_each_others_messages() {
    let site = |private, remote| Node::new(private, remote, Some([3; 32]), 5);
    for trunk in [CHACHA, AES] {
        let (mut a, mut b) = hubs(trunk, trunk);
        let (mut site_a, mut site_b) = (site(1, *b.identity.public()), site(2, *a.identity.public()));
        a.want();
        site_a.want();
        let (of_hub, of_site) = (a.sent(), site_a.sent());
        for (message, to) in [(&of_hub, &mut site_b), (&of_site, &mut b)] {
            assert_eq!(to.receive(message), Err(HandshakeError::Malformed));
            let mut altered = message.clone();
            let head = to.peer.profile().head();
            altered[..4].copy_from_slice(&head);
            assert_eq!(to.receive(&altered), Err(HandshakeError::Mac1));
            // Who knows whom it is for can make MAC1; what is inside is for another handshake.
            Stamp::new(to.protocol(), to.identity.public()).seal(&mut altered, START);
            assert_eq!(to.receive(&altered), Err(HandshakeError::Auth));
            assert!(to.wire.is_empty() && to.log.is_empty());
        }
    }
}

#[test]
fn a_replayed_or_older_initiation_is_refused_even_after_a_restart() {
    let (mut a, mut b) = hubs(AES, AES);
    a.want();
    let first = a.sent();
    b.receive(&first).unwrap();
    a.run_until(seconds(5.4));
    let second = a.sent();
    b.now = seconds(6.0);
    assert_eq!(b.receive(&first), Err(HandshakeError::Replayed));
    b.receive(&second).unwrap();
    assert_eq!((b.receive(&first), b.receive(&second)), (Err(HandshakeError::Replayed), Err(HandshakeError::Replayed)));
    let kept = b.peer.last_timestamp();
    b.peer = Peer::new(7, *a.identity.public(), Some([3; 32]), None, kept).speaking(AES);
    assert_eq!(b.receive(&second), Err(HandshakeError::Replayed));
}

#[test]
fn under_load_a_cookie_is_asked_for_and_a_sites_cookie_is_none_of_a_trunks() {
    let (mut a, mut b) = hubs(AES, AES);
    b.under_load = true;
    a.want();
    b.receive(&a.sent()).unwrap();
    let reply = b.sent();
    assert_eq!((Protocol::Trunk.kind(&reply), message::kind(&reply)), (Some(Kind::Cookie), None));

    // A cookie that was made for a site, for the same message, under the site's key.
    let mut of_site = reply.clone();
    of_site[0] = 3;
    assert_eq!(a.receive(&of_site), Err(HandshakeError::Malformed));
    assert_eq!(a.receive(&reply), Ok(Kind::Cookie));

    a.run_until(seconds(5.4));
    b.now = a.now;
    exchange(&mut a, &mut b);
    assert_eq!(b.take_log(), ["cookie", "answered", "response", "use"]);
    assert!(a.sending.is_some() && b.sending.is_some());
}

#[test]
fn aes_is_renewed_after_2_to_the_28_messages_and_chacha_as_wireguard() {
    for (profile, limit) in [(AES, 1 << 28), (CHACHA, 1 << 60)] {
        let (mut a, mut b) = connected(profile);
        for node in [&mut a, &mut b] {
            node.now = seconds(10.0);
            node.send(b"x");
            node.activity.sealed = limit;
            node.poll();
            assert!(!node.log.contains(&"initiation"));
            node.now = seconds(11.0);
            node.send(b"x");
            node.activity.sealed = limit + 1;
            node.poll();
            assert!(node.log.contains(&"initiation"), "{profile:?}");
        }
    }
}

#[test]
fn when_it_is_given_up_the_initiator_knows_what_came_back() {
    // Nothing at all: a suite that differs is one of the reasons, and can't be told from the others.
    let (mut a, mut b) = hubs(CHACHA, AES);
    a.want();
    assert!(b.receive(&a.sent()).is_err());
    a.run_until(seconds(100.0));
    assert!(a.gave_up);
    assert_eq!(a.peer.heard(), Heard::Nothing);
    assert!(a.peer.heard().to_string().contains("unreachable") && a.peer.heard().to_string().contains("suite"));
    a.wire.clear();

    // A cookie: it is there.
    b.under_load = true;
    a.want();
    b.now = a.now;
    assert!(b.receive(&a.sent()).is_ok());
    assert_eq!(a.receive(&b.sent()), Ok(Kind::Cookie));
    a.run_until(seconds(200.0));
    assert!(a.gave_up);
    assert_eq!(a.peer.heard(), Heard::Cookie);

    // A response under another pre-shared key.
    let (mut a, mut b) = hubs(AES, AES);
    b.peer = Peer::new(7, *a.identity.public(), None, None, None).speaking(AES);
    a.want();
    b.receive(&a.sent()).unwrap();
    assert_eq!(a.receive(&b.sent()), Err(HandshakeError::Auth));
    assert_eq!(a.peer.heard(), Heard::WrongResponse);

    // Wanted anew, all is open again.
    a.run_until(seconds(100.0));
    assert!(a.gave_up);
    a.want();
    assert_eq!(a.peer.heard(), Heard::Nothing);
}

#[test]
fn nothing_secret_is_ever_printed() {
    let (mut a, mut b) = hubs(AES, AES);
    a.want();
    exchange(&mut a, &mut b);
    let session = a.sessions.values().next().unwrap();
    let text = format!("{:?} {session:?}", a.peer);
    assert!(text.contains("Aes256Gcm"));
    for secret in ["3, 3, 3", "0303", "AwMD"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
