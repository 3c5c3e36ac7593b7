//! Handshakes between two peers of ours: what is accepted, what is refused, and which sessions there are afterwards.

use super::*;

#[test]
fn data_passes_both_ways_with_and_without_a_pre_shared_key() {
    for psk in [None, Some([9; 32])] {
        let (mut a, mut b) = pair(psk);
        a.want();
        exchange(&mut a, &mut b);
        assert!(a.send(b"there") && b.send(b"and back"));
        exchange(&mut a, &mut b);
        assert_eq!((a.received.concat(), b.received.concat()), (b"and back".to_vec(), b"there".to_vec()));
        assert_eq!((a.peer.last_handshake(), b.peer.last_handshake()), (Some(START), Some(START)));
        a.erase();
        b.erase();
    }
}

#[test]
fn different_pre_shared_keys_make_no_session() {
    let (mut a, mut b) = pair(Some([9; 32]));
    b.peer = Peer::new(7, *a.identity.public(), None, None, None);
    a.want();
    b.receive(&a.sent()).unwrap();
    assert_eq!(a.receive(&b.sent()), Err(HandshakeError::Auth));
    assert!(a.sessions.is_empty());
}

#[test]
fn a_responder_sends_nothing_before_it_has_received() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.receive(&a.sent()).unwrap();
    assert_eq!(b.take_log(), ["answered", "response"]);
    assert!(!b.send(b"too early") && b.peer.current(b.now).is_none());
    assert!(
        b.peer.is_answered(b.now + Duration::from_millis(4900)) && !b.peer.is_answered(b.now + Duration::from_secs(5))
    );
    assert!(!a.peer.is_answered(a.now), "it has begun, and not been asked");

    a.receive(&b.sent()).unwrap();
    let keepalive = a.sent();
    assert_eq!(keepalive.len(), message::DATA_MIN);
    // A forgery under the right index confirms nothing.
    let mut forged = keepalive.clone();
    forged[20] ^= 1;
    assert_eq!(b.receive(&forged), Err(HandshakeError::Auth));
    assert!(!b.send(b"still too early"));

    b.receive(&keepalive).unwrap();
    assert_eq!(b.take_log(), ["use"]);
    assert!(b.send(b"now") && !b.peer.is_answered(b.now));
    // Told twice, it does nothing more.
    let index = b.sending.unwrap();
    b.call(|peer, _, cx, out| peer.on_confirmed(index, cx, out));
    assert!(b.log.is_empty());
}

#[test]
fn a_replayed_or_older_initiation_is_refused_even_after_a_restart() {
    let (mut a, mut b) = pair(None);
    a.want();
    let first = a.sent();
    b.receive(&first).unwrap();
    a.run_until(seconds(5.4));
    let second = a.sent();

    b.now = seconds(6.0);
    assert_eq!(b.receive(&first), Err(HandshakeError::Replayed), "the same again");
    b.receive(&second).unwrap();
    assert_eq!(b.receive(&first), Err(HandshakeError::Replayed), "an older one");
    assert_eq!(b.receive(&second), Err(HandshakeError::Replayed));

    // The hub starts anew, with the greatest time stamp and nothing else.
    let kept = b.peer.last_timestamp();
    assert!(kept.is_some());
    b.peer = Peer::new(7, *a.identity.public(), None, None, kept);
    assert_eq!(b.receive(&second), Err(HandshakeError::Replayed));
    a.run_until(seconds(11.0));
    b.live.clear();
    assert_eq!(b.receive(&a.sent()), Ok(Kind::Initiation));
}

#[test]
fn initiations_are_taken_every_20_ms_at_most() {
    let (a, mut b) = pair(None);
    // An initiator that does not keep the peace.
    let initiation = |milliseconds: u64| {
        let mut node = Node::new(1, *b.identity.public(), None, milliseconds);
        node.now = START + Duration::from_millis(milliseconds * 20);
        node.want();
        node.sent()
    };
    let (first, second, third) = (initiation(1), initiation(2), initiation(3));
    b.receive(&first).unwrap();
    b.now = START + Duration::from_micros(19_999);
    assert_eq!(b.receive(&second), Err(HandshakeError::Rate));
    assert_eq!(b.peer.last_timestamp().unwrap(), Tai64n::at(SystemTimeParts { secs: a.wall, nanos: 20_000_000 }));
    b.now = START + INITIATION_INTERVAL;
    assert_eq!(b.receive(&third), Ok(Kind::Initiation));
}

#[test]
fn our_time_stamps_rise_though_the_clock_stands_or_goes_back() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.receive(&a.sent()).unwrap();
    let mut last = b.peer.last_timestamp();
    for step in 1..5 {
        a.wall -= 1000;
        a.run_until(seconds(6.0 * f64::from(step)));
        b.now = a.now;
        let initiation = a.wire.pop().unwrap();
        b.receive(&initiation).unwrap();
        assert!(b.peer.last_timestamp() > last);
        last = b.peer.last_timestamp();
    }
}

#[test]
fn only_the_answer_to_the_last_initiation_counts_and_only_once() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.receive(&a.sent()).unwrap();
    let late = b.sent();
    a.run_until(seconds(5.4));
    b.now = a.now;
    b.receive(&a.sent()).unwrap();
    let right = b.sent();
    assert_eq!(a.receive(&late), Err(HandshakeError::Unsolicited));
    let mut wrong = right.clone();
    wrong[50] ^= 1;
    assert_eq!(a.receive(&wrong), Err(HandshakeError::Mac1));
    a.receive(&right).unwrap();
    assert_eq!(a.receive(&right), Err(HandshakeError::Unsolicited));
}

#[test]
fn a_new_ephemeral_key_and_a_new_index_for_each_initiation() {
    let (mut a, _) = pair(None);
    a.want();
    a.run_until(seconds(60.0));
    let initiations = std::mem::take(&mut a.wire);
    let views: Vec<_> =
        initiations.iter().map(|message| message::Initiation::parse(Protocol::WireGuard, message).unwrap()).collect();
    assert!(views.len() > 10);
    assert_eq!(views.iter().map(message::Initiation::sender).collect::<HashSet<_>>().len(), views.len());
    assert_eq!(views.iter().map(|view| view.ephemeral()).collect::<HashSet<_>>().len(), views.len());
}

#[test]
fn the_old_session_is_kept_for_what_is_on_the_way() {
    let (mut a, mut b) = connected();
    at(seconds(121.0), [&mut a, &mut b]);
    assert!(b.send(b"on the way") && a.send(b"and this"));
    let (slow_to_a, slow_to_b) = (b.sent(), a.sent());
    a.poll();
    exchange(&mut a, &mut b);
    assert_eq!((a.sessions.len(), b.sessions.len()), (2, 2));
    assert_eq!((a.receive(&slow_to_a), b.receive(&slow_to_b)), (Ok(Kind::Data), Ok(Kind::Data)));
    // A third session retires the first.
    at(seconds(250.0), [&mut a, &mut b]);
    assert_eq!((a.sessions.len(), b.sessions.len()), (1, 1), "the first has reached its end");
}

#[test]
fn initiations_that_cross_are_settled_by_the_next() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.want();
    let (from_a, from_b) = (a.sent(), b.sent());
    a.receive(&from_b).unwrap();
    b.receive(&from_a).unwrap();
    // Each has forgotten its own initiation for the other's, so that neither response has anything to answer.
    let (to_b, to_a) = (a.sent(), b.sent());
    assert_eq!(
        (a.receive(&to_a), b.receive(&to_b)),
        (Err(HandshakeError::Unsolicited), Err(HandshakeError::Unsolicited))
    );
    assert_eq!(a.take_log(), ["reserved", "initiation", "retire", "answered", "response"]);
    assert!(a.sending.is_none() && b.sending.is_none());

    // The retries stay set, and the jitter lets one be first.
    a.poll();
    b.poll();
    assert_ne!(a.deadline, b.deadline);
    let (first, second) = if a.deadline < b.deadline { (&mut a, &mut b) } else { (&mut b, &mut a) };
    first.run_until(first.deadline);
    second.run_until(first.now);
    exchange(first, second);
    assert!(first.sending.is_some() && second.sending.is_some());
    // And the other has nothing more to try.
    second.take_log();
    second.run_until(seconds(60.0));
    assert_eq!(second.log, ["retire"; 0]);
}

#[test]
fn an_initiation_lost_to_a_crossing_one_costs_nothing_if_the_response_arrives() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.want();
    let (lost, from_b) = (a.sent(), b.sent());
    a.receive(&from_b).unwrap();
    exchange(&mut a, &mut b);
    assert!(a.sending.is_some() && b.sending.is_some());
    assert_eq!(b.receive(&lost), Ok(Kind::Initiation), "it is late, but newer than all that b has seen");
    assert!(b.sending.is_some(), "and the session goes on until that one is confirmed");
}

#[test]
fn without_an_index_the_initiator_waits_and_the_responder_refuses() {
    let (mut a, mut b) = pair(None);
    a.live_max = 0;
    a.want();
    assert!(a.wire.is_empty());
    a.live_max = 4;
    a.run_until(seconds(5.4));
    b.live_max = 0;
    assert_eq!(b.receive(&a.sent()), Err(HandshakeError::NoIndex));
    b.live_max = 4;
    a.run_until(seconds(11.0));
    b.now = a.now;
    exchange(&mut a, &mut b);
    assert!(a.sending.is_some() && b.sending.is_some());
}

#[test]
fn a_peer_with_a_key_of_low_order_is_given_up_at_once() {
    let mut a = Node::new(1, PublicKey([0; 32]), None, 1);
    a.want();
    assert_eq!(a.log, ["give up"]);
    a.run_until(seconds(1000.0));
    assert_eq!(a.log, ["give up"]);
}

#[test]
fn an_initiation_for_another_peer_is_refused() {
    let (mut a, mut b) = pair(None);
    let mut stranger = Node::new(5, *b.identity.public(), None, 3);
    stranger.want();
    assert_eq!(b.receive(&stranger.sent()), Err(HandshakeError::Auth));
    a.want();
    assert_eq!(b.receive(&a.sent()), Ok(Kind::Initiation));
}

#[test]
fn under_load_a_cookie_is_asked_for_and_used_by_initiator_and_responder() {
    let (mut a, mut b) = pair(None);
    (a.under_load, b.under_load) = (true, true);
    a.want();
    b.receive(&a.sent()).unwrap();
    assert_eq!(b.take_log(), ["cookie"]);
    assert_eq!(a.receive(&b.sent()), Ok(Kind::Cookie));
    assert!(a.wire.is_empty(), "a cookie is for the next message, at its time");

    // The next initiation has its cookie; the response has none yet, and b learns one for its index.
    a.run_until(seconds(5.4));
    b.now = a.now;
    b.receive(&a.sent()).unwrap();
    assert_eq!(b.take_log(), ["answered", "response"]);
    a.receive(&b.sent()).unwrap();
    assert_eq!(a.take_log(), ["reserved", "initiation", "retire", "reserved", "initiation", "cookie"]);
    assert_eq!(b.receive(&a.sent()), Ok(Kind::Cookie));

    a.run_until(seconds(11.0));
    b.now = a.now;
    exchange(&mut a, &mut b);
    assert!(a.sending.is_some() && b.sending.is_some());
}

#[test]
fn a_cookie_for_no_message_of_ours_is_refused() {
    let (mut a, mut b) = pair(None);
    b.under_load = true;
    a.want();
    b.receive(&a.sent()).unwrap();
    let cookie = b.sent();
    let mut elsewhere = cookie.clone();
    elsewhere[4] ^= 1;
    assert_eq!(a.receive(&elsewhere), Err(HandshakeError::Unsolicited));
    let mut wrong = cookie.clone();
    wrong[40] ^= 1;
    assert_eq!(a.receive(&wrong), Err(HandshakeError::Auth));
    assert_eq!(a.receive(&cookie), Ok(Kind::Cookie));
    assert_eq!(a.receive(&cookie), Err(HandshakeError::Unsolicited));
}

/// The places of the sessions after each kind of handshake, from each state that the Linux kernel tells apart.
#[test]
fn sessions_move_as_in_the_kernel() {
    let held = |index| Held { index, role: Role::Responder, born: START, last_call: false };
    type Step = fn(&mut Sessions, Held, &mut Vec<Action>);
    let initiated: Step = |sessions, new, out| sessions.initiated(new, out);
    let responded: Step = |sessions, new, out| sessions.responded(new, out);
    let confirmed: Step = |sessions, _, out| assert!(sessions.confirmed(3, out));
    // (previous, current, next) before, step with session 4, after, retired.
    let table = [
        ([0, 0, 0], initiated, [0, 4, 0], vec![]),
        ([0, 2, 0], initiated, [2, 4, 0], vec![]),
        ([1, 2, 0], initiated, [2, 4, 0], vec![1]),
        ([1, 2, 3], initiated, [3, 4, 0], vec![2, 1]),
        ([0, 0, 3], initiated, [3, 4, 0], vec![]),
        ([0, 0, 0], responded, [0, 0, 4], vec![]),
        ([0, 2, 0], responded, [0, 2, 4], vec![]),
        ([1, 2, 3], responded, [0, 2, 4], vec![3, 1]),
        ([0, 0, 3], confirmed, [0, 3, 0], vec![]),
        ([0, 2, 3], confirmed, [2, 3, 0], vec![]),
        ([1, 2, 3], confirmed, [2, 3, 0], vec![1]),
    ];
    for (before, step, after, retired) in table {
        let [previous, current, next] = before.map(|index| (index != 0).then(|| held(index)));
        let mut sessions = Sessions { previous, current, next };
        let mut out = Vec::new();
        step(&mut sessions, held(4), &mut out);
        let places = [&sessions.previous, &sessions.current, &sessions.next]
            .map(|held| held.as_ref().map_or(0, |held| held.index));
        let gone: Vec<_> = out
            .iter()
            .filter_map(|action| if let Action::Retire { index } = action { Some(*index) } else { None })
            .collect();
        assert_eq!((places, gone), (after, retired), "from {before:?}");
    }
}

#[test]
fn nothing_secret_is_ever_printed() {
    let psk = [0xa7; 32];
    let (mut a, mut b) = pair(Some(psk));
    a.want();
    exchange(&mut a, &mut b);
    let session = a.sessions.values().next().unwrap();
    let text =
        format!("{:?} {session:?} {:?}", a.peer, Action::Established { session: session.clone(), confirmed: true });
    for secret in ["167, 167", "a7a7", "p6en", "1, 1, 1", "0101"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}
