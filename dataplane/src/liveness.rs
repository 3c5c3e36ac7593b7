//! Whether a lane of a trunk is alive: the other hub is asked, and answers.
//!
//! A pure state machine: time, sessions and replies come in as arguments, numbers of probes to send go out.
//!
//! ```text
//!             a reply, the first time ever
//!      +-----------------------------------------+
//!      |      a reply           good for a while v
//!    Down -------------> Held ----------------> Up
//!      ^                  |                      |
//!      +------------------+----------------------+
//!         three missed in a row, or no session
//! ```
//!
//! 1. A probe is sent every `interval`. It is missed when no reply has come after two thirds of that, or after the time that replies
//!    take here as a rule (RFC 6298: smoothed, and four times what it varies by), if that is longer. A single slow reply is no rule.
//! 2. Who has missed one asks again at once. So a lane that dies after a reply is down after `interval` and three times two thirds
//!    of it at the latest: after 3 × `interval`, or 900 ms where `interval` is 300 ms and replies take less than 200 ms.
//! 3. A reply that comes late still counts, for its probe and all before it: a lane that has grown slow is not dead.
//! 4. What was up once and went down must be good for a while before it is up again ([`HoldDown`]), and at the end of that not miss a probe
//!    just then: it may be dead again.

use crate::hold::HoldDown;
use crypto::Time;
use std::collections::VecDeque;
use std::time::Duration;

/// Probes missed in a row that take a lane down.
pub const MISSED_MAX: usize = 3;
/// The longest that a reply is waited for, however long they take as a rule.
pub const WAIT_MAX: Duration = Duration::from_secs(3);
/// Probes over which the loss is told.
pub const RECENT: u32 = 100;
/// Unanswered probes that are remembered, for late replies.
const REMEMBERED: usize = 64;

/// What a lane is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No session, or no replies.
    Down,
    /// It replies, but it went down lately: only used where nothing else is up.
    Held,
    /// It is used.
    Up,
}

/// What is known of a lane, for people and statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Whether it is up.
    pub state: State,
    /// Since when.
    pub since: Time,
    /// How often it went up or down.
    pub changes: u64,
    /// Probes sent.
    pub sent: u64,
    /// Of those, in time.
    pub answered: u64,
    /// Of those, not in time.
    pub missed: u64,
    /// Of the missed, answered later.
    pub late: u64,
    /// Probes of the last [`RECENT`] of which it is known …
    pub recent: u32,
    /// … and of those, not answered.
    pub recent_lost: u32,
    /// Time to a reply, smoothed (RFC 6298); none: there was none.
    pub round_trip: Option<Duration>,
    /// How much it differs from one to the next, smoothed (RFC 3550, 6.4.1).
    pub jitter: Duration,
}

/// A probe that was not answered.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    sent: Time,
    /// Which of all outcomes it was, once it was missed.
    missed: Option<u64>,
}

/// One lane.
#[derive(Clone, Debug)]
pub struct Liveness {
    interval: Duration,
    session: bool,
    /// Sent last; 0: none.
    number: u64,
    last: Time,
    /// The oldest first.
    open: VecDeque<Open>,
    /// The newest that was answered.
    answered: u64,
    /// Since when it replies, while it is held.
    good: Time,
    hold: HoldDown,
    round_trip: Option<RoundTrip>,
    /// The last outcomes, the newest lowest: 1 is missed.
    outcomes: u128,
    outcomes_count: u64,
    figures: Figures,
}

impl Liveness {
    /// A lane without a session, down since `now`.
    pub fn new(interval: Duration, now: Time) -> Self {
        let figures = Figures {
            state: State::Down,
            since: now,
            changes: 0,
            sent: 0,
            answered: 0,
            missed: 0,
            late: 0,
            recent: 0,
            recent_lost: 0,
            round_trip: None,
            jitter: Duration::ZERO,
        };
        Self {
            interval,
            session: false,
            number: 0,
            last: Time(0),
            open: VecDeque::new(),
            answered: 0,
            good: now,
            hold: HoldDown::default(),
            round_trip: None,
            outcomes: 0,
            outcomes_count: 0,
            figures,
        }
    }

    /// What it is good for.
    pub fn state(&self) -> State {
        self.figures.state
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.figures.state == State::Up
    }

    /// Whether the last probe of which something is known was missed, and it is not down for that yet.
    pub fn is_in_doubt(&self) -> bool {
        self.state() != State::Down && self.missed() > 0
    }

    /// What is known of it.
    pub fn figures(&self) -> Figures {
        let recent = self.outcomes_count.min(RECENT.into()) as u32;
        let recent_lost = (self.outcomes & ((1 << RECENT) - 1)).count_ones();
        let (round_trip, jitter) =
            self.round_trip.map_or((None, Duration::ZERO), |known| (Some(known.told.mean), known.jitter));
        Figures { recent, recent_lost, round_trip, jitter, ..self.figures }
    }

    /// There is a session, or there is none. A new one in place of another is nothing new.
    pub fn on_session(&mut self, up: bool, now: Time) {
        if std::mem::replace(&mut self.session, up) == up {
            return;
        }
        if up {
            self.last = Time(0);
            return;
        }
        let unanswered = self.open.iter().filter(|open| open.missed.is_none()).count();
        (0..unanswered).for_each(|_| self.outcome(true));
        self.open.clear();
        // That says nothing of the line, which is probed as soon as there is one again.
        self.change(State::Down, now);
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        let wait = self.wait();
        let missed = self.open.iter().find(|open| open.missed.is_none()).map_or(Time::NEVER, |open| open.sent + wait);
        let held = self.state() == State::Held && !self.is_in_doubt();
        let held = if held { self.good + self.hold.span() } else { Time::NEVER };
        missed.min(held).min(self.due())
    }

    /// What time has brought; and the number of a probe to send now, if one is due.
    pub fn poll(&mut self, now: Time) -> Option<u64> {
        let wait = self.wait();
        while let Some(at) = self.open.iter().position(|open| open.missed.is_none() && now >= open.sent + wait) {
            self.open[at].missed = Some(self.outcomes_count);
            self.outcome(true);
        }
        if self.missed() >= MISSED_MAX {
            self.down(now);
        }
        if self.state() == State::Held && !self.is_in_doubt() && now >= self.good + self.hold.span() {
            self.change(State::Up, now);
        }
        if now < self.due() {
            return None;
        }
        (self.number, self.last) = (self.number + 1, now);
        if self.open.len() >= REMEMBERED {
            self.open.pop_front();
        }
        self.open.push_back(Open { number: self.number, sent: now, missed: None });
        self.figures.sent += 1;
        Some(self.number)
    }

    /// A reply; `false` if there is no such probe, or it was answered before.
    pub fn on_reply(&mut self, number: u64, now: Time) -> bool {
        let Some(at) = self.open.iter().position(|open| open.number == number) else { return false };
        let Some(open) = self.open.remove(at) else { return false };
        match open.missed {
            None => {
                self.figures.answered += 1;
                self.outcome(false);
            }
            Some(outcome) => {
                self.figures.late += 1;
                let ago = self.outcomes_count - 1 - outcome;
                self.outcomes &= !u32::try_from(ago).ok().and_then(|ago| 1u128.checked_shl(ago)).unwrap_or(0);
            }
        }
        self.answered = self.answered.max(number);
        let took = now.since(open.sent);
        match &mut self.round_trip {
            Some(known) => known.sample(took),
            none => *none = Some(RoundTrip::first(took)),
        }
        if self.state() == State::Down && self.session {
            self.good = now;
            self.change(if self.hold.span().is_zero() { State::Up } else { State::Held }, now);
        }
        true
    }

    /// How long a reply is waited for.
    fn wait(&self) -> Duration {
        let usual = self.round_trip.map_or(Duration::ZERO, |known| known.usual.mean + 4 * known.usual.varies);
        (self.interval * 2 / 3).max(usual.min(WAIT_MAX))
    }

    /// Those missed since the newest that was answered.
    fn missed(&self) -> usize {
        self.open.iter().filter(|open| open.missed.is_some() && open.number > self.answered).count()
    }

    /// When the next probe is.
    fn due(&self) -> Time {
        let apart = if self.is_in_doubt() { self.wait().min(self.interval) } else { self.interval };
        match (self.session, self.last) {
            (false, _) => Time::NEVER,
            (true, Time(0)) => Time(0),
            (true, last) => last + apart,
        }
    }

    fn outcome(&mut self, missed: bool) {
        self.figures.missed += u64::from(missed);
        self.outcomes = self.outcomes << 1 | u128::from(missed);
        self.outcomes_count += 1;
    }

    fn down(&mut self, now: Time) {
        if self.state() == State::Up {
            self.hold.down(now.since(self.figures.since));
        }
        self.change(State::Down, now);
    }

    fn change(&mut self, state: State, now: Time) {
        let before = self.figures.state;
        if state != before {
            self.figures.since = now;
            self.figures.changes += u64::from(state == State::Up || before == State::Up);
            self.figures.state = state;
        }
    }
}

/// How long replies take.
#[derive(Clone, Copy, Debug)]
struct RoundTrip {
    last: Duration,
    told: Smoothed,
    /// The same of the shorter of any two in a row: one reply that was held up somewhere does not have the next ones waited for longer.
    usual: Smoothed,
    jitter: Duration,
}

impl RoundTrip {
    fn first(took: Duration) -> Self {
        let smoothed = Smoothed { mean: took, varies: took / 2 };
        Self { last: took, told: smoothed, usual: smoothed, jitter: Duration::ZERO }
    }

    fn sample(&mut self, took: Duration) {
        self.told.sample(took);
        self.usual.sample(took.min(self.last));
        self.jitter = (15 * self.jitter + self.last.abs_diff(took)) / 16;
        self.last = took;
    }
}

/// RFC 6298, 2.3.
#[derive(Clone, Copy, Debug)]
struct Smoothed {
    mean: Duration,
    varies: Duration,
}

impl Smoothed {
    fn sample(&mut self, took: Duration) {
        self.varies = (3 * self.varies + self.mean.abs_diff(took)) / 4;
        self.mean = (7 * self.mean + took) / 8;
    }
}

#[cfg(test)]
mod tests;
