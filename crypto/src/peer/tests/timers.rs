//! The table of timers, a test each. Times are seconds after the handshake.

use super::*;

const JITTER: f64 = 0.333;

/// Runs until something is logged, and says when that was.
fn next_event(node: &mut Node, end: f64) -> Option<f64> {
    node.poll();
    while node.log.is_empty() && node.deadline <= seconds(end) {
        node.now = node.deadline;
        node.poll();
    }
    (!node.log.is_empty()).then(|| node.now.since(START).as_secs_f64())
}

fn within(at: Option<f64>, low: f64, high: f64) -> bool {
    at.is_some_and(|at| low <= at && at <= high)
}

/// Rekey-Timeout and Rekey-Attempt-Time.
#[test]
fn an_initiation_is_repeated_every_5_s_for_90_s_and_then_given_up() {
    let (mut a, _) = pair(None);
    a.want();
    let mut last = 0.0;
    assert_eq!(a.take_log(), ["reserved", "initiation"]);
    for retry in 1.. {
        let at = next_event(&mut a, 1000.0);
        assert!(within(at, last + 5.0, last + 5.0 + JITTER), "retry {retry} at {at:?} after {last}");
        last = at.unwrap();
        if last >= 90.0 {
            break;
        }
        assert_eq!(a.take_log(), ["retire", "reserved", "initiation"]);
    }
    assert_eq!(a.take_log(), ["retire", "give up"]);
    assert!(last < 90.0 + 5.0 + JITTER);
    assert_eq!(a.deadline, Time::NEVER);
    assert_eq!(next_event(&mut a, 10_000.0), None);
    assert_eq!(a.wire.len(), a.reserved);

    // Wanted again, it tries again, at once.
    a.want();
    assert_eq!(a.take_log(), ["reserved", "initiation"]);
}

/// Rekey-Attempt-Time counts from the last packet that waits.
#[test]
fn wanting_it_again_prolongs_the_attempt_and_sends_nothing_sooner() {
    let (mut a, _) = pair(None);
    a.want();
    for second in 0..200 {
        a.run_until(seconds(f64::from(second)));
        a.want();
    }
    assert!(!a.log.contains(&"give up"));
    assert!((37..=40).contains(&a.wire.len()), "{} initiations in 199 s", a.wire.len());
    a.run_until(seconds(199.0 + 89.0));
    assert!(!a.gave_up);
    a.run_until(seconds(199.0 + 96.0));
    assert!(a.gave_up);
}

/// Rekey-Timeout, whatever happened in between.
#[test]
fn never_two_initiations_within_5_s() {
    let (mut a, mut b) = connected();
    let gone = a.sending.unwrap();
    a.call(|peer, _, _, out| peer.sessions.clear(out));
    assert!(!a.live.contains(&gone));
    a.take_log();
    a.now = seconds(1.0);
    a.want();
    assert_eq!(a.log, [""; 0]);
    assert!(within(next_event(&mut a, 10.0), 5.0, 5.0));
    b.now = a.now;
    exchange(&mut a, &mut b);
    assert!(a.sending.is_some());
}

/// Rekey-After-Time.
#[test]
fn the_initiator_renews_at_120_s_when_it_sends_and_the_responder_does_not() {
    let (mut a, mut b) = connected();
    // Both send and receive all the time, so that nothing else is due.
    let mut both_send = |second: f64| {
        at(seconds(second), [&mut a, &mut b]);
        assert!(a.send(b"x") && b.send(b"y"));
        exchange(&mut a, &mut b);
        a.poll();
        b.poll();
        (a.take_log(), b.take_log())
    };
    for second in 1..120 {
        assert_eq!(both_send(f64::from(second)), (vec![], vec![]), "at {second} s");
    }
    assert_eq!(both_send(119.999), (vec![], vec![]));
    assert_eq!(both_send(120.0), (vec!["reserved", "initiation"], vec![]));
}

#[test]
fn an_initiator_that_only_keeps_alive_renews_too() {
    let (mut a, mut b) = connected();
    a.peer.set_keepalive(Some(Duration::from_secs(25)));
    let mut renewed = None;
    for second in 1..180 {
        at(seconds(f64::from(second)), [&mut a, &mut b]);
        if a.log.contains(&"initiation") {
            renewed.get_or_insert(second);
        }
        exchange(&mut a, &mut b);
    }
    assert_eq!(renewed, Some(125), "with the first keepalive after 120 s");
    assert_eq!((a.sessions.len(), b.sessions.len()), (2, 2));
}

/// Reject-After-Time - Keepalive-Timeout - Rekey-Timeout.
#[test]
fn the_initiator_renews_at_165_s_when_it_receives_once() {
    let (mut a, mut b) = connected();
    at(seconds(164.9), [&mut a, &mut b]);
    b.send(b"x");
    exchange(&mut a, &mut b);
    a.poll();
    assert_eq!(a.take_log(), [""; 0]);

    at(seconds(165.0), [&mut a, &mut b]);
    b.send(b"y");
    exchange(&mut a, &mut b);
    a.poll();
    assert_eq!(a.take_log(), ["reserved", "initiation"]);
    let attempt = |node: &Node| node.peer.attempt.as_ref().map(|attempt| attempt.since);
    assert_eq!(attempt(&a), Some(seconds(165.0)));
    a.wire.clear();

    at(seconds(166.0), [&mut a, &mut b]);
    b.send(b"z");
    exchange(&mut a, &mut b);
    a.poll();
    assert_eq!(attempt(&a), Some(seconds(165.0)), "the last call is made once a session");
}

/// Rekey-After-Messages.
#[test]
fn both_renew_after_2_to_the_60_messages() {
    let (mut a, mut b) = connected();
    for node in [&mut a, &mut b] {
        node.now = seconds(10.0);
        node.send(b"x");
        node.activity.sealed = 1 << 60;
        node.poll();
        assert!(!node.log.contains(&"initiation"));
        node.send(b"x");
        node.now = seconds(11.0);
        node.send(b"x");
        node.activity.sealed = (1 << 60) + 1;
        node.poll();
        assert!(node.log.contains(&"initiation"));
    }
}

/// Reject-After-Time.
#[test]
fn a_session_in_use_ends_at_180_s_if_no_handshake_succeeds() {
    let (mut a, mut b) = connected();
    at(seconds(179.9), [&mut a, &mut b]);
    assert!(a.send(b"in time") && b.send(b"in time"));
    let (to_a, to_b) = (b.sent(), a.sent());
    at(seconds(180.0), [&mut a, &mut b]);
    for (node, late) in [(&mut a, to_a), (&mut b, to_b)] {
        assert!(node.sessions.is_empty() && !node.send(b"x"));
        assert_eq!(node.receive(&late), Err(HandshakeError::Unsolicited));
    }
}

#[test]
fn a_silent_session_ends_at_180_s_exactly_and_leaves_nothing() {
    let (mut a, mut b) = connected();
    for node in [&mut a, &mut b] {
        // Of all that passed, only the keepalive of the handshake; nobody waits for anything.
        assert_eq!(next_event(node, 1000.0), Some(180.0));
        assert_eq!(node.take_log(), ["retire"]);
        assert!(node.live.is_empty() && node.deadline == Time::NEVER);
        assert_eq!(node.peer.current(node.now), None);
    }
}

#[test]
fn a_session_never_confirmed_ends_at_180_s_too() {
    let (mut a, mut b) = pair(None);
    a.want();
    b.receive(&a.sent()).unwrap();
    b.take_log();
    assert_eq!(next_event(&mut b, 1000.0), Some(180.0));
    assert_eq!((b.take_log(), b.live.len()), (vec!["retire"], 0));
}

/// Keepalive-Timeout.
#[test]
fn data_without_data_back_is_answered_after_10_s() {
    let (mut a, mut b) = connected();
    at(seconds(20.0), [&mut a, &mut b]);
    a.send(b"x");
    exchange(&mut a, &mut b);
    a.poll();
    assert_eq!(next_event(&mut b, 100.0), Some(30.0));
    assert_eq!(b.take_log(), ["keepalive"]);
    // An empty packet is not answered by another.
    a.run_until(b.now);
    exchange(&mut a, &mut b);
    assert_eq!((next_event(&mut a, 100.0), next_event(&mut b, 100.0)), (None, None));
}

#[test]
fn data_is_not_answered_by_a_keepalive_if_something_was_sent_since() {
    let (mut a, mut b) = connected();
    at(seconds(20.0), [&mut a, &mut b]);
    a.send(b"x");
    exchange(&mut a, &mut b);
    b.poll();
    at(seconds(29.0), [&mut a, &mut b]);
    b.send(b"y");
    exchange(&mut a, &mut b);
    b.poll();
    assert_eq!(next_event(&mut a, 100.0), Some(39.0), "that, in turn, is owed an answer");
    exchange(&mut a, &mut b);
    assert_eq!(next_event(&mut b, 100.0), None);
}

/// Keepalive-Timeout + Rekey-Timeout.
#[test]
fn data_without_any_answer_for_15_s_begins_a_new_handshake() {
    let (mut a, mut b) = connected();
    for (node, begins) in [(&mut a, 20.0), (&mut b, 30.0)] {
        node.run_until(seconds(begins));
        node.send(b"x");
        node.poll();
        // More of it changes nothing: the first counts.
        node.run_until(seconds(begins + 8.0));
        node.send(b"x");
        let at = next_event(node, 100.0);
        assert!(within(at, begins + 15.0, begins + 15.0 + JITTER), "{at:?}");
        assert_eq!(node.take_log(), ["reserved", "initiation"]);
    }
}

#[test]
fn any_answer_will_do() {
    let (mut a, mut b) = connected();
    at(seconds(20.0), [&mut a, &mut b]);
    a.send(b"x");
    a.poll();
    at(seconds(34.0), [&mut a, &mut b]);
    b.call(|peer, identity, cx, out| peer.keep_alive(identity, cx, out));
    exchange(&mut a, &mut b);
    a.poll();
    assert_eq!(next_event(&mut a, 100.0), None);
}

/// A first look that sees packets both ways knows which came last.
#[test]
fn what_one_look_sees_is_put_in_order() {
    let looks = |sent: u64, received: u64| {
        let mut traffic = Traffic::default();
        let (sent, received) = (Time(sent), Time(received));
        traffic.observe(
            &Activity { data_sent: sent, any_sent: sent, data_received: received, any_received: received, sealed: 0 },
            || Duration::ZERO,
        );
        let end = Time::NEVER;
        (traffic.unanswered_due(end), traffic.owed_due(end))
    };
    assert_eq!(
        [looks(5, 6), looks(6, 5), looks(5, 5), looks(0, 0)],
        [(false, true), (true, false), (false, false), (false, false)]
    );
}

/// The persistent keepalive.
#[test]
fn a_silent_path_is_kept_open() {
    let (mut a, mut b) = connected();
    a.peer.set_keepalive(Some(Duration::from_secs(25)));
    assert_eq!(next_event(&mut a, 100.0), Some(25.0));
    assert_eq!(a.take_log(), ["keepalive"]);
    exchange(&mut a, &mut b);
    // Whatever passes, either way, counts.
    at(seconds(40.0), [&mut a, &mut b]);
    b.call(|peer, identity, cx, out| peer.keep_alive(identity, cx, out));
    exchange(&mut a, &mut b);
    assert_eq!(next_event(&mut a, 100.0), Some(65.0));
    exchange(&mut a, &mut b);
    a.take_log();
    at(seconds(80.0), [&mut a, &mut b]);
    a.call(|peer, identity, cx, out| peer.keep_alive(identity, cx, out));
    a.take_log();
    assert_eq!(next_event(&mut a, 200.0), Some(105.0));
    // Zero is none.
    a.take_log();
    a.peer.set_keepalive(Some(Duration::ZERO));
    a.poll();
    assert_eq!(a.deadline, seconds(180.0), "only the end of the session is left");
}

#[test]
fn without_a_session_the_persistent_keepalive_wants_one_for_ever() {
    let (mut a, _) = pair(None);
    a.peer.set_keepalive(Some(Duration::from_secs(25)));
    assert_eq!(next_event(&mut a, 100.0), Some(0.0));
    assert_eq!(a.take_log(), ["reserved", "initiation"]);
    let mut given_up = 0;
    while let Some(at) = next_event(&mut a, 1000.0) {
        if a.take_log().contains(&"give up") {
            given_up += 1;
            a.gave_up = false;
            let again = next_event(&mut a, 1000.0);
            let expected = a.peer.initiated_at.unwrap();
            assert_eq!(a.now, expected);
            assert!(
                within(again, at + 19.0, at + 21.0),
                "25 s after the last initiation, which was 5 s before {at}: {again:?}"
            );
        }
        if at > 900.0 {
            break;
        }
    }
    assert!((7..=9).contains(&given_up), "{given_up}");
}

/// The retry left while the peer's own session waited to be confirmed.
#[test]
fn an_initiation_that_is_no_longer_needed_is_forgotten_in_its_time() {
    let (mut a, mut b) = pair(None);
    b.want();
    a.receive(&b.sent()).unwrap();
    b.receive(&a.sent()).unwrap();
    let confirmation = b.sent();
    a.want();
    a.wire.clear();
    a.receive(&confirmation).unwrap();
    assert_eq!(a.take_log(), ["answered", "response", "reserved", "initiation", "use"]);
    assert_eq!(a.live.len(), 2, "it may still be answered");
    let at = next_event(&mut a, 100.0);
    assert!(within(at, 5.0, 5.0 + JITTER), "{at:?}");
    assert_eq!((a.take_log(), a.live.len()), (vec!["retire"], 1));
    assert_eq!(next_event(&mut a, 100.0), None, "and not repeated");
}

/// Of two initiations that are under way the later arrival wins, and the other side has nothing more to try.
#[test]
fn answering_the_peer_ends_our_own_initiation() {
    let (mut a, mut b) = connected();
    at(seconds(6.0), [&mut a, &mut b]);
    a.call(|peer, identity, cx, out| peer.begin(identity, cx, out));
    assert_eq!(a.take_log(), ["reserved", "initiation"]);
    a.wire.clear();
    b.call(|peer, identity, cx, out| peer.begin(identity, cx, out));
    exchange(&mut a, &mut b);
    assert_eq!(a.take_log(), ["retire", "answered", "response", "use"]);
    assert_eq!(next_event(&mut a, 100.0), None);
}
