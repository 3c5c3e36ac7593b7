//! How large a packet passes on the way to a site, found out by asking the site itself (RFC 8899), for ways on which ICMP is filtered.
//!
//! A pure state machine, as those of `crypto`: time and answers come in as arguments, sizes to ask for go out. Sizes are those of outer
//! packets. A probe carries nothing of a tenant's, so that one that is lost costs nothing.
//!
//! ```text
//!   a new way,         the base alone        asked        something is refused
//!   or 10 min           is answered      three times     by more than 16 bytes
//!  -----------> Quick ---------------> Thorough -----------------> halves, one by one
//!      ^       the largest,         all common sizes                      |
//!      |       the base                   | largest answered              | 16 bytes are left
//!      |          | all answered, or none v                               |
//!      |          +--------------------> Done <---------------------------+
//!      |  not answered                    | a new session
//!      +--------------- Confirm <---------+
//!        three times    what was found, alone
//! ```
//!
//! 1. Before there is any answer, packets are held to the base, which nearly every way takes.
//! 2. What is answered counts at once; what is not, after three probes.
//! 3. A site that answers nothing at all, as one that drops pings, is left to what the kernel says: it must not be worse off for
//!    having been asked. One that has answered before is held to the base then. Both are asked again soon, then less and less often.
//! 4. But for the largest, the inner packets of all sizes are multiples of 16 bytes. To these WireGuard pads what a site sends, up
//!    to an MTU that the hub does not know: so answers are as long as what they answer, and what is found holds both ways.

use crypto::Time;
use std::time::Duration;

/// What nearly every way takes: IPv6's least (RFC 8200, 5), for IPv4, too.
pub const BASE: u16 = wire::ipv6::MTU_MIN as u16;
/// Probes of one size that are lost before it is taken for too large (RFC 8899, 5.1.2: MAX_PROBES).
pub const TRIES: u8 = 3;
/// How long an answer may take (RFC 8899, 5.1.1: PROBE_TIMER, 1 s at the least). A later one still counts.
pub const WAIT: Duration = Duration::from_secs(1);
/// After this time everything is asked again (RFC 8899, 5.1.1: PMTU_RAISE_TIMER).
pub const AGAIN: Duration = Duration::from_secs(600);
/// The same, at first, while a site answers nothing: it may have come up before its tunnel.
pub const AGAIN_SOON: Duration = Duration::from_secs(5);
/// A search ends when what passes and what does not are so close: the step of WireGuard's padding.
const STEP: u16 = 16;
/// Sizes that ways often have: Ethernet; PPPoE; what a client whose tunnel has the usual MTU answers in one piece; PPPoE in Japan; other
/// tunnels around this one.
const COMMON: [u16; 6] = [1500, 1492, 1480, 1454, 1420, 1400];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing can be asked now.
    Paused,
    /// The largest, the base, and what was found last.
    Quick,
    /// All common sizes, then halves.
    Thorough,
    /// What was found, once more.
    Confirm,
    /// Until it is time to ask again.
    Done,
}

/// What is known of one way, and what is asked.
#[derive(Clone, Debug)]
pub struct Search {
    /// What the kernel says that fits.
    most: u16,
    /// Bytes around an inner packet.
    overhead: u16,
    phase: Phase,
    /// What packets are held to; none: to `most`.
    limit: Option<u16>,
    /// Anything was ever answered on this way.
    answers: bool,
    /// The largest that was answered in this search; 0: nothing.
    passes: u16,
    /// The smallest that was given up in this search, if any.
    fails: Option<u16>,
    /// Sizes that are asked for and not answered.
    open: Vec<u16>,
    asked: u8,
    next: Time,
    again: Time,
    /// After how long to ask again who answers nothing.
    patience: Duration,
}

impl Search {
    /// A way that takes `most` bytes, as the kernel says, and of these `overhead` for the tunnel. It wants [`Search::wake`] or
    /// [`Search::session`].
    pub fn new(most: u16, overhead: u16) -> Self {
        let mut new = Self {
            most,
            overhead,
            phase: Phase::Paused,
            limit: None,
            answers: false,
            passes: 0,
            fails: None,
            open: Vec::new(),
            asked: 0,
            next: Time::NEVER,
            again: Time::NEVER,
            patience: AGAIN_SOON,
        };
        new.limit = Some(new.base());
        new
    }

    /// The largest size that is not more than this and has no padding.
    fn even(&self, size: u16) -> u16 {
        self.overhead + (size.saturating_sub(self.overhead) & !(STEP - 1))
    }

    fn base(&self) -> u16 {
        self.even(BASE.min(self.most)).min(self.most)
    }

    /// What the kernel says that fits.
    pub fn most(&self) -> u16 {
        self.most
    }

    /// The largest outer packet that may be sent.
    pub fn fits(&self) -> u16 {
        self.limit.unwrap_or(self.most)
    }

    /// For people: `searching`, `found`, `unanswered`.
    pub fn state(&self) -> &'static str {
        match self.phase {
            Phase::Done | Phase::Confirm if self.passes > 0 => "found",
            Phase::Done | Phase::Confirm => "unanswered",
            Phase::Paused | Phase::Quick | Phase::Thorough => "searching",
        }
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        self.next
    }

    /// The kernel says another size now, of the same way.
    pub fn set_most(&mut self, most: u16) {
        self.most = most;
        self.limit = self.limit.map(|limit| limit.min(most));
        if self.phase != Phase::Paused {
            self.phase = Phase::Paused;
            self.next = Time(0);
        }
    }

    /// The way is there again: what was paused goes on, if there is a session.
    pub fn wake(&mut self, now: Time) {
        match self.phase {
            Phase::Paused => self.next = now,
            Phase::Done => self.next = self.again,
            Phase::Quick | Phase::Thorough | Phase::Confirm => {}
        }
    }

    /// There is a session, or a new one: its first packets must not vanish.
    pub fn session(&mut self, now: Time) {
        match self.phase {
            Phase::Done if self.answers => {
                let open = vec![self.fits()];
                self.begin(Phase::Confirm, open, now);
            }
            Phase::Done | Phase::Paused => self.search(now),
            Phase::Quick | Phase::Thorough | Phase::Confirm => {}
        }
    }

    /// There is no session, or no way: what was asked is void. What was found holds.
    pub fn pause(&mut self) {
        self.phase = if self.phase == Phase::Done { Phase::Done } else { Phase::Paused };
        self.next = Time::NEVER;
        self.open.clear();
    }

    /// What to ask for now, if it is time.
    pub fn poll(&mut self, now: Time) -> Vec<u16> {
        while now >= self.next {
            match self.phase {
                Phase::Paused => self.search(now),
                Phase::Done if now >= self.again => self.search(now),
                Phase::Done => self.next = self.again,
                Phase::Quick if self.passes > 0 && self.asked > 0 && !self.open.is_empty() => {
                    self.phase = Phase::Thorough;
                    let common = COMMON.map(|size| self.even(size));
                    let common = common.into_iter().filter(|size| *size < self.most && *size > self.passes);
                    self.open.extend(common);
                    self.open.sort_unstable();
                    self.open.dedup();
                    self.asked = 0;
                }
                Phase::Quick | Phase::Thorough | Phase::Confirm if self.asked < TRIES && !self.open.is_empty() => {
                    self.asked += 1;
                    self.next = now + WAIT;
                    return self.open.clone();
                }
                Phase::Quick | Phase::Thorough | Phase::Confirm => self.conclude(now),
            }
        }
        Vec::new()
    }

    /// A probe of this size was answered.
    pub fn heard(&mut self, size: u16, now: Time) {
        self.answers = true;
        self.passes = self.passes.max(size);
        self.limit = Some(self.fits_at_least(size));
        self.fails = self.fails.filter(|fails| *fails > size);
        self.open.retain(|open| *open > size);
        let asking = matches!(self.phase, Phase::Quick | Phase::Thorough | Phase::Confirm);
        if asking && self.open.is_empty() {
            self.next = now;
        }
    }

    /// Nothing that was ever answered on this way is refused for a smaller answer; but what the kernel said before anybody had
    /// answered is worth nothing now.
    fn fits_at_least(&self, size: u16) -> u16 {
        self.limit.map_or(size, |limit| limit.max(size)).min(self.most)
    }

    fn search(&mut self, now: Time) {
        let mut open = vec![self.base(), self.fits(), self.most];
        open.sort_unstable();
        open.dedup();
        self.begin(Phase::Quick, open, now);
        (self.passes, self.fails) = (0, None);
    }

    fn begin(&mut self, phase: Phase, open: Vec<u16>, now: Time) {
        (self.phase, self.open, self.asked, self.next) = (phase, open, 0, now);
    }

    /// Everything that was asked for is answered, or was asked often enough.
    fn conclude(&mut self, now: Time) {
        let refused = self.open.iter().copied().min();
        self.open.clear();
        if self.phase == Phase::Confirm {
            match refused {
                None => self.done(),
                // A black hole: the base until it is known better.
                Some(_) => {
                    self.limit = Some(self.base());
                    self.search(now);
                }
            }
            return;
        }
        self.fails = refused.or(self.fails);
        if self.passes == 0 {
            self.limit = self.answers.then_some(self.base());
            self.again = now + self.patience;
            self.patience = (2 * self.patience).min(AGAIN);
            return self.done();
        }
        self.limit = Some(self.passes);
        let apart = self.fails.map_or(0, |fails| fails.saturating_sub(self.passes));
        let half = self.even(self.passes + (apart / 2).max(STEP));
        if apart > STEP && half > self.passes {
            self.begin(Phase::Thorough, vec![half], now);
        } else {
            (self.again, self.patience) = (now + AGAIN, AGAIN_SOON);
            self.done();
        }
    }

    fn done(&mut self) {
        (self.phase, self.next) = (Phase::Done, self.again);
    }
}

#[cfg(test)]
mod tests;
