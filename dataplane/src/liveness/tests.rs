use super::*;
use proptest::prelude::*;

const INTERVAL: Duration = Duration::from_millis(300);

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

/// A lane, and the other hub at its end.
struct Lab {
    lane: Liveness,
    now: u64,
    /// Milliseconds to a reply; none: there is none.
    takes: Option<u64>,
    replies: Vec<(u64, u64)>,
    sent: Vec<u64>,
    /// What it was, and since when.
    was: Vec<(u64, State)>,
}

impl Lab {
    fn new(takes: Option<u64>) -> Self {
        let mut lane = Liveness::new(INTERVAL, at(0));
        lane.on_session(true, at(0));
        Self { lane, now: 0, takes, replies: Vec::new(), sent: Vec::new(), was: vec![(0, State::Down)] }
    }

    fn note(&mut self) {
        if self.was.last().unwrap().1 != self.lane.state() {
            self.was.push((self.now, self.lane.state()));
            assert_eq!(self.lane.figures().since, at(self.now));
        }
    }

    /// Polls when the lane wants to be polled, and not else.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            for (_, number) in self.replies.extract_if(.., |(due, _)| *due <= self.now).collect::<Vec<_>>() {
                assert!(self.lane.on_reply(number, at(self.now)));
                assert!(!self.lane.on_reply(number, at(self.now)), "once");
                self.note();
            }
            if at(self.now) >= self.lane.next() {
                if let Some(number) = self.lane.poll(at(self.now)) {
                    self.sent.push(self.now);
                    self.replies.extend(self.takes.map(|takes| (self.now + takes, number)));
                }
                self.note();
                assert!(self.lane.next() > at(self.now), "it would be polled for ever");
            }
            self.now += 1;
        }
    }

    fn state(&self) -> State {
        self.lane.state()
    }
}

#[test]
fn a_lane_that_answers_is_up_at_once_and_is_asked_every_interval() {
    let mut lab = Lab::new(Some(20));
    lab.run(100_000);
    assert_eq!(lab.was, [(0, State::Down), (20, State::Up)]);
    assert_eq!(lab.sent, (0..100_000).step_by(300).collect::<Vec<_>>());
    let figures = lab.lane.figures();
    assert_eq!((figures.sent, figures.answered, figures.missed, figures.late, figures.changes), (334, 334, 0, 0, 1));
    assert_eq!((figures.round_trip, figures.jitter), (Some(Duration::from_millis(20)), Duration::ZERO));
    assert_eq!((figures.recent, figures.recent_lost), (100, 0));
}

#[test]
fn without_a_session_nothing_is_asked_and_a_late_first_answer_is_enough() {
    let mut lab = Lab::new(None);
    lab.lane.on_session(false, at(0));
    lab.run(10_000);
    assert_eq!((lab.sent.len(), lab.lane.next()), (0, Time::NEVER));
    lab.lane.on_session(true, at(lab.now));
    lab.run(60_000);
    assert_eq!((lab.state(), lab.sent.len(), lab.lane.figures().changes), (State::Down, 200, 0));
    // Replies take longer than any was waited for.
    lab.takes = Some(700);
    lab.run(1_001);
    assert_eq!(lab.was, [(0, State::Down), (70_700, State::Up)]);
    lab.run(60_000);
    assert_eq!(lab.was.len(), 2, "a slow lane stays up: {:?}", lab.was);
}

#[test]
fn a_lane_that_dies_is_down_within_three_intervals_whenever_that_is() {
    for died in (0..300).step_by(7) {
        for takes in [0, 1, 20, 60] {
            let mut lab = Lab::new(Some(takes));
            lab.run(30_000 + died);
            lab.takes = None;
            lab.replies.clear();
            let died = lab.now;
            lab.run(2_000);
            let (when, state) = lab.was[2];
            assert_eq!(state, State::Down);
            assert!((540..=900).contains(&(when - died)), "{} ms", when - died);
            // It is not asked more often for that.
            lab.run(30_000);
            assert!(lab.sent.iter().filter(|sent| **sent >= when).count() <= 106);
        }
    }
}

#[test]
fn two_that_are_missed_do_not_matter_and_a_lane_that_grows_slow_is_not_dead() {
    let mut lab = Lab::new(Some(20));
    lab.run(10_000);
    for _ in 0..10 {
        lab.takes = None;
        let sent = lab.sent.len();
        while lab.sent.len() < sent + 2 {
            lab.run(1);
        }
        lab.takes = Some(20);
        lab.run(3_000);
    }
    assert_eq!((lab.was.len(), lab.lane.figures().missed), (2, 20));
    assert!((1..=20).contains(&lab.lane.figures().recent_lost));
    // What is late is not lost.
    lab.takes = Some(350);
    lab.run(60_000);
    assert_eq!((lab.was.len(), lab.lane.figures().recent_lost), (2, 0), "{:?}", lab.was);
    let figures = lab.lane.figures();
    assert!(figures.late > 0 && figures.missed == 20 + figures.late, "{figures:?}");
}

#[test]
fn a_reply_from_before_its_death_keeps_no_lane_alive() {
    let mut lab = Lab::new(Some(10));
    lab.run(10_000);
    let sent = lab.sent.len();
    // One reply is slow; all after it never come.
    lab.takes = Some(550);
    while lab.sent.len() == sent {
        lab.run(1);
    }
    let died = *lab.sent.last().unwrap();
    lab.takes = None;
    lab.run(2_000);
    assert_eq!(lab.state(), State::Down);
    let down = lab.was.last().unwrap().0;
    // It counts as a reply to its own probe, not to the two that were missed or sent meanwhile; and no other is waited for longer.
    assert_eq!(down - died, 4 * 200);
}

#[test]
fn after_it_was_down_it_must_be_good_for_a_while_and_longer_each_time() {
    let mut lab = Lab::new(Some(10));
    lab.run(5_000);
    for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
        lab.takes = None;
        lab.run(3_000);
        assert_eq!(lab.state(), State::Down);
        lab.takes = Some(10);
        lab.run(400);
        assert_eq!(lab.state(), State::Held);
        let held = lab.was.last().unwrap().0;
        lab.run(secs * 1000 - 450);
        assert_eq!(lab.state(), State::Held);
        lab.run(500);
        assert_eq!(lab.was.last(), Some(&(held + secs * 1000, State::Up)));
    }
    // Who dies while it is held begins anew; the time it takes is the same.
    lab.takes = None;
    lab.run(3_000);
    lab.takes = Some(10);
    lab.run(30_000);
    assert_eq!(lab.state(), State::Held);
    lab.takes = None;
    lab.run(2_000);
    assert_eq!(lab.state(), State::Down);
    lab.takes = Some(10);
    lab.run(59_000);
    assert_eq!(lab.state(), State::Held);
    lab.run(3_000);
    assert_eq!(lab.state(), State::Up);
    let changes = lab.lane.figures().changes;
    // After two minutes it is forgiven.
    lab.run(121_000);
    lab.takes = None;
    lab.run(2_000);
    lab.takes = Some(10);
    lab.run(1_400);
    assert_eq!((lab.state(), lab.lane.figures().changes), (State::Up, changes + 2));
}

/// It dies before it was good for long enough, and that is not known yet when the time is over.
#[test]
fn what_misses_a_probe_just_then_is_not_up_again() {
    let mut lab = Lab::new(Some(10));
    lab.run(2000);
    lab.takes = None;
    lab.run(1000);
    assert_eq!(lab.state(), State::Down);
    (lab.takes, lab.was) = (Some(10), vec![(lab.now, State::Down)]);
    lab.run(400);
    assert_eq!(lab.state(), State::Held);
    lab.takes = None;
    lab.run(1000);
    let was: Vec<State> = lab.was.iter().map(|(_, state)| *state).collect();
    assert_eq!(was, [State::Down, State::Held, State::Down]);
}

#[test]
fn a_session_that_ends_takes_it_down_at_once() {
    let mut lab = Lab::new(Some(10));
    lab.run(905);
    lab.lane.on_session(true, at(lab.now));
    assert_eq!(lab.state(), State::Up, "a new one is nothing new");
    lab.lane.on_session(false, at(lab.now));
    lab.note();
    lab.replies.clear();
    assert_eq!((lab.state(), lab.lane.next()), (State::Down, Time::NEVER));
    assert!(!lab.lane.on_reply(4, at(lab.now)), "of the session before");
    let figures = lab.lane.figures();
    assert_eq!((figures.sent, figures.answered, figures.missed), (4, 3, 1));
    lab.run(5_000);
    lab.lane.on_session(true, at(lab.now));
    lab.run(12);
    assert_eq!((lab.sent.len(), lab.state()), (5, State::Up));
    lab.run(1_010);
    assert_eq!(lab.state(), State::Up);
}

#[test]
fn a_lane_on_a_busy_machine_that_dies_is_down_as_soon_as_another() {
    // Every fourth reply is held up for half a second.
    let mut lab = Lab::new(Some(5));
    for n in 0..200 {
        lab.takes = Some(if n % 4 == 0 { 500 } else { 5 });
        let sent = lab.sent.len();
        while lab.sent.len() == sent {
            lab.run(1);
        }
    }
    assert_eq!(lab.was.len(), 2, "{:?}", lab.was);
    assert!(lab.lane.figures().round_trip > Some(Duration::from_millis(60)), "it is told");
    lab.takes = None;
    lab.replies.clear();
    let died = lab.now;
    lab.run(2_000);
    assert_eq!((lab.was[2].1, lab.was[2].0 - died <= 900), (State::Down, true), "{} ms", lab.was[2].0 - died);
}

#[test]
fn round_trip_and_jitter_are_as_the_rfcs_have_them() {
    let mut lab = Lab::new(Some(80));
    lab.run(100);
    lab.takes = Some(160);
    lab.run(400);
    let figures = lab.lane.figures();
    assert_eq!(figures.round_trip, Some(Duration::from_millis(80 * 7 / 8 + 160 / 8)));
    assert_eq!(figures.jitter, Duration::from_millis(80 / 16));
    lab.run(300);
    assert_eq!(lab.lane.figures().jitter, Duration::from_millis(5) * 15 / 16);
}

proptest! {
    #[test]
    fn whatever_happens_the_numbers_add_up(
        story in proptest::collection::vec((0u64..2_000, proptest::option::of(0u64..1_500), any::<bool>()), 0..40),
    ) {
        let mut lab = Lab::new(Some(10));
        for (ms, takes, session) in story {
            lab.takes = takes;
            if !session {
                lab.replies.clear();
            }
            lab.lane.on_session(session, at(lab.now));
            lab.note();
            lab.run(ms);
            // Of old numbers, and of none that was ever sent.
            for number in [0, 1, u64::MAX] {
                lab.replies.retain(|(_, sent)| *sent != number);
                lab.lane.on_reply(number, at(lab.now));
                lab.note();
            }
            let figures = lab.lane.figures();
            let open = lab.lane.open.iter().filter(|open| open.missed.is_none()).count() as u64;
            prop_assert_eq!(figures.sent, figures.answered + figures.missed + open);
            prop_assert_eq!(figures.sent, lab.sent.len() as u64);
            prop_assert!(figures.late <= figures.missed && figures.recent_lost <= figures.recent);
            prop_assert!(u64::from(figures.recent) <= figures.sent && lab.lane.open.len() <= REMEMBERED);
            prop_assert!(session || lab.lane.state() == State::Down);
        }
        // With all well again, it is up after a minute at the latest.
        lab.takes = Some(10);
        lab.lane.on_session(true, at(lab.now));
        lab.run(62_000);
        prop_assert_eq!(lab.state(), State::Up);
    }
}
