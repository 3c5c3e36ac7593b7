//! The same against `boringtun`, an independent implementation of the whole protocol.

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519 as theirs;

use super::*;

const OUR_PRIVATE: u8 = 1;
const THEIR_PRIVATE: u8 = 2;

/// What a datagram, or the wish to send one, led to at the other side.
#[derive(Debug, PartialEq)]
enum Got {
    Nothing,
    Error(String),
    Datagram(Vec<u8>),
    Packet(Vec<u8>),
}

struct Boringtun(Tunn);

impl Boringtun {
    fn new(psk: Option<[u8; 32]>, limiter: Option<RateLimiter>) -> Self {
        let ours = Identity::new([OUR_PRIVATE; 32]);
        let remote = theirs::PublicKey::from(ours.public().0);
        Self(Tunn::new(theirs::StaticSecret::from([THEIR_PRIVATE; 32]), remote, psk, None, 3, limiter.map(Arc::new)))
    }

    fn public() -> theirs::PublicKey {
        theirs::PublicKey::from(&theirs::StaticSecret::from([THEIR_PRIVATE; 32]))
    }

    fn receive(&mut self, datagram: &[u8]) -> Got {
        let source: SocketAddr = SOURCE.parse().unwrap();
        got(self.0.decapsulate(Some(source.ip()), datagram, &mut [0; 2048]))
    }

    fn send(&mut self, packet: &[u8]) -> Got {
        got(self.0.encapsulate(packet, &mut [0; 2048]))
    }

    fn initiate(&mut self) -> Vec<u8> {
        datagram(got(self.0.format_handshake_initiation(&mut [0; 2048], true)))
    }
}

fn got(result: TunnResult<'_>) -> Got {
    match result {
        TunnResult::Done => Got::Nothing,
        TunnResult::Err(error) => Got::Error(format!("{error:?}")),
        TunnResult::WriteToNetwork(datagram) => Got::Datagram(datagram.to_vec()),
        TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => Got::Packet(packet.to_vec()),
    }
}

fn datagram(got: Got) -> Vec<u8> {
    match got {
        Got::Datagram(datagram) => datagram,
        other => panic!("{other:?}"),
    }
}

fn ours(psk: Option<[u8; 32]>) -> Node {
    Node::new(OUR_PRIVATE, PublicKey(Boringtun::public().to_bytes()), psk, 5)
}

/// An IPv4 packet, since boringtun lets nothing else pass.
fn packet(payload: u8) -> Vec<u8> {
    let mut packet = vec![payload; 100];
    packet[..20].copy_from_slice(&[0x45, 0, 0, 100, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet
}

/// Data of several lengths of counters, both ways, through our own sessions and AEAD.
fn data_both_ways(ours: &mut Node, theirs: &mut Boringtun) {
    for payload in 0..100 {
        assert!(ours.send(&packet(payload)));
        assert_eq!(theirs.receive(&ours.sent()), Got::Packet(packet(payload)));
        let back = datagram(theirs.send(&packet(payload ^ 0xff)));
        ours.receive(&back).unwrap();
        assert_eq!(ours.received.pop(), Some(packet(payload ^ 0xff)));
    }
}

#[test]
fn we_initiate() {
    for psk in [None, Some([9; 32])] {
        let (mut ours, mut theirs) = (ours(psk), Boringtun::new(psk, None));
        ours.want();
        let response = datagram(theirs.receive(&ours.sent()));
        ours.receive(&response).unwrap();
        assert_eq!(theirs.receive(&ours.sent()), Got::Nothing, "the keepalive that confirms");
        data_both_ways(&mut ours, &mut theirs);
    }
}

#[test]
fn they_initiate() {
    for psk in [None, Some([9; 32])] {
        let (mut ours, mut theirs) = (ours(psk), Boringtun::new(psk, None));
        let initiation = datagram(theirs.send(&packet(1)));
        ours.receive(&initiation).unwrap();
        let keepalive = datagram(theirs.receive(&ours.sent()));
        ours.receive(&keepalive).unwrap();
        let staged = datagram(theirs.receive(&[]));
        ours.receive(&staged).unwrap();
        assert_eq!(ours.received.pop(), Some(packet(1)));
        data_both_ways(&mut ours, &mut theirs);
    }
}

#[test]
fn both_renew_in_turn_without_loss() {
    let psk = Some([9; 32]);
    let (mut ours, mut theirs) = (ours(psk), Boringtun::new(psk, None));
    for round in 1..=6 {
        ours.run_until(seconds(6.0 * f64::from(round)));
        ours.wire.clear();
        if round % 2 == 0 {
            ours.call(|peer, identity, cx, out| peer.begin(identity, cx, out));
            let response = datagram(theirs.receive(&ours.sent()));
            ours.receive(&response).unwrap();
            assert_eq!(theirs.receive(&ours.sent()), Got::Nothing);
        } else {
            let initiation = theirs.initiate();
            ours.receive(&initiation).unwrap();
            let keepalive = datagram(theirs.receive(&ours.sent()));
            ours.receive(&keepalive).unwrap();
        }
        data_both_ways(&mut ours, &mut theirs);
    }
}

#[test]
fn a_wrong_pre_shared_key_is_noticed_by_both() {
    let (mut a, mut theirs) = (ours(Some([9; 32])), Boringtun::new(Some([8; 32]), None));
    a.want();
    let response = datagram(theirs.receive(&a.sent()));
    assert_eq!(a.receive(&response), Err(HandshakeError::Auth));
    let (mut b, initiation) = (ours(Some([9; 32])), theirs.initiate());
    b.receive(&initiation).unwrap();
    assert!(matches!(theirs.receive(&b.sent()), Got::Error(_)));
}

#[test]
fn under_load_they_take_our_cookie() {
    let (mut ours, mut theirs) = (ours(None), Boringtun::new(None, None));
    ours.under_load = true;
    let initiation = theirs.initiate();
    ours.receive(&initiation).unwrap();
    assert_eq!(ours.take_log(), ["cookie"]);
    assert_eq!(theirs.receive(&ours.sent()), Got::Nothing);

    let again = theirs.initiate();
    assert_ne!(again[132..], [0; 16], "it has a MAC2 now");
    ours.receive(&again).unwrap();
    assert_eq!(ours.take_log(), ["answered", "response"]);
    let keepalive = datagram(theirs.receive(&ours.sent()));
    ours.receive(&keepalive).unwrap();
    data_both_ways(&mut ours, &mut theirs);
}

#[test]
fn under_load_we_take_their_cookie() {
    let (mut ours, mut theirs) = (ours(None), Boringtun::new(None, Some(RateLimiter::new(&Boringtun::public(), 0))));
    ours.want();
    let cookie = datagram(theirs.receive(&ours.sent()));
    assert_eq!(ours.receive(&cookie), Ok(Kind::Cookie));
    assert!(ours.wire.is_empty());

    ours.run_until(seconds(5.4));
    let response = datagram(theirs.receive(&ours.sent()));
    ours.receive(&response).unwrap();
    assert_eq!(theirs.receive(&ours.sent()), Got::Nothing);
    data_both_ways(&mut ours, &mut theirs);
}
