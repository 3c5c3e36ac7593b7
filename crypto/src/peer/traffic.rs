//! What a peer has sent and received, as far as its timers care.
//!
//! Workers note only when they last sent and received; this looks at their notes about once a second. So the first of several packets is
//! taken to be as late as the last one that was noted: a timer may fire up to one such look late, never early.

use std::time::Duration;

use crate::Time;
use crate::constants::{KEEPALIVE_TIMEOUT, UNANSWERED_TIMEOUT};

/// When data messages last passed, as the workers noted it. Zero is never; no time ever goes back.
///
/// Handshake messages don't belong here: the peer sees those itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Activity {
    /// When a packet was last sent, keepalives apart.
    pub data_sent: Time,
    /// When a packet or a keepalive was last sent.
    pub any_sent: Time,
    /// When a packet was last received and found authentic, keepalives apart.
    pub data_received: Time,
    /// When a packet or a keepalive was last received and found authentic.
    pub any_received: Time,
    /// How many messages have been sealed under the session in use: [`crate::Session::sent`].
    pub sealed: u64,
}

/// What is new since the last look.
#[derive(Clone, Copy, Debug)]
pub(super) struct News {
    pub(super) sent: bool,
    pub(super) received: bool,
}

#[derive(Debug, Default)]
pub(super) struct Traffic {
    seen: Activity,
    /// When anything authentic was last sent, handshake messages included.
    sent: Time,
    /// When anything authentic was last received, handshake messages included.
    received: Time,
    /// Data was sent at `since`, and nothing received from then on.
    unanswered: Option<Timer>,
    /// Data was received at `since`, and nothing sent from then on.
    owed: Option<Timer>,
    /// When the persistent keepalive last fired.
    kept: Time,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    since: Time,
    due: Time,
}

impl Traffic {
    /// Takes the workers' notes. `jitter` is added to the patience with a peer that doesn't answer.
    pub(super) fn observe(&mut self, activity: &Activity, jitter: impl FnOnce() -> Duration) -> News {
        let before = std::mem::replace(&mut self.seen, *activity);
        self.sent(activity.any_sent.max(activity.data_sent));
        self.received(activity.any_received.max(activity.data_received));

        if activity.data_sent > before.data_sent && activity.data_sent > self.received && self.unanswered.is_none() {
            let since = activity.data_sent;
            self.unanswered = Some(Timer { since, due: since + UNANSWERED_TIMEOUT + jitter() });
        }
        if activity.data_received > before.data_received && activity.data_received > self.sent {
            let since = activity.data_received;
            self.owed.get_or_insert(Timer { since, due: since + KEEPALIVE_TIMEOUT });
        }
        News { sent: activity.any_sent > before.any_sent, received: activity.any_received > before.any_received }
    }

    /// Something authentic was sent: no keepalive is owed.
    pub(super) fn sent(&mut self, at: Time) {
        self.sent = self.sent.max(at);
        self.owed.take_if(|owed| owed.since <= at);
    }

    /// Something authentic was received: the peer answers.
    pub(super) fn received(&mut self, at: Time) {
        self.received = self.received.max(at);
        self.unanswered.take_if(|unanswered| unanswered.since <= at);
    }

    /// Whether the peer has not answered for too long; said once.
    pub(super) fn unanswered_due(&mut self, now: Time) -> bool {
        self.unanswered.take_if(|timer| timer.due <= now).is_some()
    }

    /// Whether a keepalive is due in answer to data; said once.
    pub(super) fn owed_due(&mut self, now: Time) -> bool {
        self.owed.take_if(|timer| timer.due <= now).is_some()
    }

    /// Whether nothing has passed for the interval of the persistent keepalive; said once for each interval.
    pub(super) fn persistent_due(&mut self, interval: Option<Duration>, now: Time) -> bool {
        let due = self.persistent_at(interval) <= now;
        if due {
            self.kept = now;
        }
        due
    }

    /// Forgets what is expected of the peer, and what is owed to it.
    pub(super) fn forget(&mut self) {
        (self.unanswered, self.owed) = (None, None);
    }

    /// When the next of the timers is due.
    pub(super) fn deadline(&self, interval: Option<Duration>) -> Time {
        let due = |timer: &Option<Timer>| timer.map_or(Time::NEVER, |timer| timer.due);
        due(&self.unanswered).min(due(&self.owed)).min(self.persistent_at(interval))
    }

    fn persistent_at(&self, interval: Option<Duration>) -> Time {
        interval.map_or(Time::NEVER, |interval| self.sent.max(self.received).max(self.kept) + interval)
    }
}
