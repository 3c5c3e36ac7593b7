//! What hubs tell each other over a trunk of what is alive behind them: which prefixes of which tenant, and whose sites these are.
//!
//! Pure state machines: changes, messages and time come in as arguments, messages and changes go out. The way between may lose, double
//! and reorder what it likes: both ends agree in the end, also if one of them starts anew.
//!
//! 1. [`Said`] numbers each change of a prefix. Of a prefix the last change alone counts: that one is remembered, at its number. A
//!    message holds what there is between two numbers, so that nothing sent has to be kept, and nothing overtaken is sent.
//! 2. [`Heard`] tells how far it has heard without a gap. What is beyond a gap counts, too, but must come again, or wait
//!    until the gap is filled.
//! 3. All is said anew from 0, in a new *round*, every 30 s, and when the other has started anew. What a round didn't say, when
//!    it has come as far as the newest number that any of its messages knew, is not alive any more.
//! 4. While a round is on its way, what changes meanwhile goes ahead of it.

mod heard;
mod said;

pub use heard::{Changes, ENTRIES_MAX, Heard};
pub use said::Said;

use crypto::Time;
use std::cmp::Reverse;
use std::time::Duration;
use wire::hub::{Alive, Progress, State};

/// Messages sent at once at most; [`PACE`] apart.
pub const BURST: usize = 32;
/// Between two bursts, and between two messages that say how far all was heard.
pub const PACE: Duration = Duration::from_millis(10);
/// Messages on their way at most, and so those that are kept because an earlier one is missing.
pub const WINDOW: usize = 64;

/// Both directions of one trunk.
#[derive(Debug)]
pub struct Announcements {
    /// What this hub says.
    pub said: Said,
    /// What the other does.
    pub heard: Heard,
}

impl Announcements {
    /// A trunk over which nothing was said. `epoch` is drawn at random when the process starts; what is not acknowledged is said again
    /// after `interval`.
    pub fn new(epoch: u64, interval: Duration, now: Time) -> Self {
        Self { said: Said::new(epoch, interval, now), heard: Heard::default() }
    }

    /// What every probe and reply says of both directions.
    pub fn progress(&self) -> Progress {
        Progress { said: self.said.position(), heard: self.heard.position() }
    }

    /// What a probe, a reply or a progress of the other says.
    pub fn on_progress(&mut self, progress: &Progress, now: Time) {
        self.said.on_progress(progress, now);
    }

    /// A state of the other.
    pub fn on_state(&mut self, state: &State<'_>, now: Time) {
        self.heard.on_state(state, now);
    }

    /// When to poll next: at once if it has passed. Not while no lane is there.
    pub fn next(&self) -> Time {
        self.said.next().min(self.heard.next())
    }

    /// Messages to send now: whole plaintexts, with their tags, each of at most `longest` bytes.
    pub fn poll(&mut self, longest: usize, now: Time) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        self.said.poll(longest, now, &mut messages);
        if self.heard.poll(now) {
            messages.push(self.progress().plain());
        }
        messages
    }
}

/// Which of several hubs has a site, of those that say that it authenticated to them: the one to which it did so last, by the site's own
/// clock. Of equals the one that says it of itself rather than passes it on, and then the one with the smaller key.
///
/// Each is a hub's public key and what it says; this hub's own claim has no hops. All hubs that know the same come to the same end.
pub fn owner(claims: impl IntoIterator<Item = ([u8; 32], Alive)>) -> Option<[u8; 32]> {
    let claims = claims.into_iter().filter_map(|(hub, alive)| Some((alive.owner?.stamp, Reverse((alive.hops, hub)))));
    claims.max().map(|(_, Reverse((_, hub)))| hub)
}

/// A prefix as messages have it.
fn to_wire(prefix: ipnet::IpNet) -> Option<wire::hub::Prefix> {
    wire::hub::Prefix::new(prefix.network(), prefix.prefix_len())
}

/// A prefix as the configuration has it.
fn of_wire(prefix: &wire::hub::Prefix) -> Option<ipnet::IpNet> {
    ipnet::IpNet::new(prefix.address(), prefix.len()).ok()
}

#[cfg(test)]
mod tests;
