//! Which sessions a peer has: the one in use, the one before it, and the one that waits to be confirmed.

use super::Action;
use crate::constants::REJECT_AFTER_TIME;
use crate::{Role, Time};

/// What a peer remembers of a session that it handed out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) index: u32,
    pub(super) role: Role,
    pub(super) born: Time,
    /// Something was received in its last seconds, and a new handshake was begun for that.
    pub(super) last_call: bool,
}

impl Held {
    /// The moment from which it neither seals nor opens anything.
    pub(super) fn ends(&self) -> Time {
        self.born + REJECT_AFTER_TIME
    }
}

/// The three places that a session can have.
///
/// ```text
///                  initiator: response accepted
///   (new) ──────────────────────────────────────────▶ current ──▶ previous ──▶ retired
///     └───▶ next ─────────────────────────────────────▲
///     responder    confirmed by data from the initiator
/// ```
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// Only receives: what was sent under it may still be on the way.
    pub(super) previous: Option<Held>,
    /// Sends and receives.
    pub(super) current: Option<Held>,
    /// Only receives, as responder: the initiator has not yet shown that our response reached it.
    pub(super) next: Option<Held>,
}

impl Sessions {
    /// We initiated, and the response has come: the new session is in use at once.
    ///
    /// A session that still waited to be confirmed becomes the previous one, because its initiator may have begun to use it.
    pub(super) fn initiated(&mut self, new: Held, out: &mut Vec<Action>) {
        let replaced = self.current.replace(new);
        let (previous, superfluous) = match self.next.take() {
            Some(next) => (Some(next), replaced),
            None => (replaced, None),
        };
        retire(superfluous, out);
        retire(std::mem::replace(&mut self.previous, previous), out);
    }

    /// We responded: the new session waits for the initiator's first data.
    ///
    /// The previous one goes: the initiator, which begins anew, has no more use for it.
    pub(super) fn responded(&mut self, new: Held, out: &mut Vec<Action>) {
        retire(self.next.replace(new), out);
        retire(self.previous.take(), out);
    }

    /// Data has come under this session: if it is the one that waited, it is now in use, and the answer is true.
    pub(super) fn confirmed(&mut self, index: u32, out: &mut Vec<Action>) -> bool {
        let Some(next) = self.next.take_if(|next| next.index == index) else { return false };
        out.push(Action::Use { index });
        let replaced = self.current.replace(next);
        retire(std::mem::replace(&mut self.previous, replaced), out);
        true
    }

    /// Retires what has reached its end: nothing may be sealed or opened with it any more, so its keys need not exist either.
    pub(super) fn expire(&mut self, now: Time, out: &mut Vec<Action>) {
        for place in [&mut self.previous, &mut self.current, &mut self.next] {
            retire(place.take_if(|held| held.ends() <= now), out);
        }
    }

    /// Retires all.
    pub(super) fn clear(&mut self, out: &mut Vec<Action>) {
        for place in [&mut self.previous, &mut self.current, &mut self.next] {
            retire(place.take(), out);
        }
    }

    /// The session to send with, if there is one that has not reached its end.
    pub(super) fn usable(&self, now: Time) -> Option<&Held> {
        self.current.as_ref().filter(|held| now < held.ends())
    }

    pub(super) fn holds(&self, index: u32) -> bool {
        self.iter().any(|held| held.index == index)
    }

    /// When the next of them ends.
    pub(super) fn deadline(&self) -> Time {
        self.iter().map(Held::ends).min().unwrap_or(Time::NEVER)
    }

    fn iter(&self) -> impl Iterator<Item = &Held> {
        [&self.previous, &self.current, &self.next].into_iter().flatten()
    }
}

fn retire(held: Option<Held>, out: &mut Vec<Action>) {
    out.extend(held.map(|held| Action::Retire { index: held.index }));
}
