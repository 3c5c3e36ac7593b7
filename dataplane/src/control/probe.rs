//! How large packets to a site may be, measured by pings that are padded to the size in question, sealed under the site's session, and
//! never cut on their way: [`crate::path_mtu`] says which sizes and when.
//!
//! What a site says of a size counts only if it repeats the sixteen random bytes of the very ping that had it: each is taken
//! once, from the session of the site that it was sent to. So a site can neither claim a size that did not reach it nor speak for another.

use super::Control;
use super::sites::{Site, fill_random};
use crate::clock;
use crate::mailbox::Order;
use crate::path_mtu::Search;
use crypto::aead::{Backend, SealJob, TAG};
use crypto::message::DATA_HEADER;
use crypto::{Session, Time};
use std::net::IpAddr;
use wire::echo::{self, Mark};
use wire::{PortIndex, SiteSlot, Template, ethernet};

/// Pings of one search that are remembered, more than it asks for at once three times: later answers count.
pub(super) const REMEMBERED: usize = 32;

/// A site whose way is measured.
pub(super) struct Probing {
    /// From the hub's address in the tenant to the site's.
    ends: (IpAddr, IpAddr),
    /// The site's address outside: another has another way.
    remote: Option<IpAddr>,
    pub(super) search: Search,
    /// What was asked and not answered, the oldest first.
    asked: Vec<(Mark, u16)>,
    id: u16,
    sequence: u16,
}

impl Probing {
    pub(super) fn new(ends: (IpAddr, IpAddr)) -> Self {
        let mut random = [0; 2];
        fill_random(&mut random);
        let id = u16::from_ne_bytes(random);
        Self { ends, remote: None, search: Search::new(0, 0), asked: Vec::new(), id, sequence: 0 }
    }

    /// From where to where it asks.
    pub(super) fn ends(&self) -> (IpAddr, IpAddr) {
        self.ends
    }

    /// The largest outer packet on the way to this address, of which the kernel says that it takes `most` bytes; `overhead` are the
    /// tunnel's.
    pub(super) fn fits(&mut self, remote: IpAddr, most: u16, overhead: u16) -> u16 {
        if self.remote != Some(remote) {
            self.remote = Some(remote);
            self.search = Search::new(most, overhead);
            self.asked.clear();
        } else if self.search.most() != most {
            self.search.set_most(most);
        }
        self.search.wake(clock::now());
        self.search.fits()
    }

    /// The size of the ping that is answered so; none: no such ping was sent, or it was answered before.
    fn answered(&mut self, mark: Mark) -> Option<u16> {
        let at = self.asked.iter().position(|(asked, _)| *asked == mark)?;
        Some(self.asked.remove(at).1)
    }

    fn mark(&mut self, size: u16) -> Mark {
        self.sequence = self.sequence.wrapping_add(1);
        let mut token = [0; echo::TOKEN];
        fill_random(&mut token);
        let mark = Mark { id: self.id, sequence: self.sequence, token };
        if self.asked.len() >= REMEMBERED {
            self.asked.remove(0);
        }
        self.asked.push((mark, size));
        mark
    }
}

impl Control {
    /// A session with a site can carry data from now on.
    pub(super) fn probe_with_session(&mut self, slot: SiteSlot) {
        let site = &mut self.sites[slot.index()];
        if let Some(probing) = &mut site.probing {
            probing.search.session(clock::now());
        }
        if let Some(lane) = &mut site.lane {
            lane.mtu.session(clock::now());
        }
        self.probes.set(slot, clock::now());
    }

    /// What is due of the measurements, and of the watch over sites and lanes.
    pub(super) fn poll_probes(&mut self) {
        let now = clock::now();
        while let Some(slot) = self.probes.due(now) {
            self.probe(slot);
            self.poll_watch(slot);
            self.poll_lane(slot);
            self.set_probes(slot);
        }
    }

    /// Notes when a peer is to be asked something next.
    pub(super) fn set_probes(&mut self, slot: SiteSlot) {
        let site = &self.sites[slot.index()];
        let probing = site.probing.as_ref().map(|probing| probing.search.next());
        let watch = site.watch.as_ref().map(|watch| watch.next());
        let lane = site.lane.as_ref().map(|lane| lane.next());
        self.probes.set(slot, [probing, watch, lane].into_iter().flatten().min().unwrap_or(Time::NEVER));
    }

    fn probe(&mut self, slot: SiteSlot) {
        let now = clock::now();
        let site = &mut self.sites[slot.index()];
        let session = site.sending.and_then(|index| self.sessions.get(&index)).filter(|session| !session.expired(now));
        let Some(probing) = &mut site.probing else { return };
        let (Some(session), true) = (session.cloned(), site.way.out.is_ok()) else { return probing.search.pause() };
        let fitted = probing.search.fits();
        let sizes = probing.search.poll(now);
        let fits = probing.search.fits();
        let frames: Vec<_> = sizes.iter().filter_map(|size| frame(site, &session, *size, self.facts.backend)).collect();
        if !frames.is_empty() {
            // Those of earlier rounds may still come.
            let replies = (2 * frames.len()).min(u8::MAX.into()) as u8;
            self.order_all(|| Order::Expect(slot, replies));
        }
        for (port, frame) in frames {
            self.emit(slot.index(), port, frame);
        }
        if fits != fitted {
            self.set_way(slot);
        }
    }

    /// A site has answered a ping of the hub's.
    pub(super) fn hear_reply(&mut self, slot: SiteSlot, mark: Mark) {
        if self.hear_watched(slot, mark) {
            return;
        }
        let Some(probing) = &mut self.sites[slot.index()].probing else { return };
        let Some(size) = probing.answered(mark) else { return };
        let fitted = probing.search.fits();
        probing.search.heard(size, clock::now());
        let changed = probing.search.fits() != fitted;
        self.set_probes(slot);
        if changed {
            self.set_way(slot);
        }
    }
}

/// A ping in an outer packet of `size` bytes, and the port that it leaves by.
fn frame(site: &mut Site, session: &Session, size: u16, aead: &dyn Backend) -> Option<(PortIndex, Vec<u8>)> {
    let (Ok(path), Some(probing)) = (&site.way.out, &mut site.probing) else { return None };
    let headers = path.template.header_len();
    let inner_len = usize::from(size).checked_sub(headers - ethernet::HEADER + DATA_HEADER + TAG)?;
    let (source, destination) = probing.ends;
    let inner = echo::request(source, destination, &probing.mark(size), inner_len as u16).ok()?;
    Some((path.port, seal(&path.template, session, &inner, aead)?))
}

/// A whole frame around a plaintext of control's own, of this very length: nothing on the way may cut it.
pub(super) fn seal(template: &Template, session: &Session, plain: &[u8], aead: &dyn Backend) -> Option<Vec<u8>> {
    let counter = session.reserve(1).next()?;
    let mut frame = vec![0; template.header_len()];
    let header = session.data_header(counter);
    frame.extend_from_slice(&header);
    let data_at = frame.len();
    frame.extend_from_slice(plain);
    frame.resize(frame.len() + TAG, 0);
    let (aad, data) = (session.protocol().aad(&header), &mut frame[data_at..]);
    aead.seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data }]);
    template.write(&mut frame, 0, 0).ok()?;
    wire::forbid_cuts(&mut frame);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probing() -> Probing {
        Probing::new(("10.9.0.1".parse().unwrap(), "10.9.1.1".parse().unwrap()))
    }

    const REMOTE: [u8; 4] = [198, 18, 1, 2];

    #[test]
    fn only_the_very_ping_is_answered_and_once() {
        let (mut here, mut there) = (probing(), probing());
        let (small, large) = (here.mark(1280), here.mark(1500));
        let of_other = there.mark(1500);
        for wrong in [
            Mark { token: small.token, ..large },
            Mark { token: [0; echo::TOKEN], ..large },
            Mark { sequence: large.sequence, ..small },
            Mark { id: large.id ^ 1, ..large },
            Mark { token: of_other.token, ..large },
            of_other,
        ] {
            assert_eq!(here.answered(wrong), None, "{wrong:?}");
        }
        assert_eq!((here.answered(large), here.answered(large)), (Some(1500), None));
        assert_eq!(here.answered(small), Some(1280));
        // A site that never answers costs bounded memory, and the last are known.
        let marks: Vec<_> = (0..100).map(|_| here.mark(1400)).collect();
        assert_eq!(here.asked.len(), REMEMBERED);
        assert_eq!((here.answered(marks[0]), here.answered(marks[99])), (None, Some(1400)));
    }

    #[test]
    fn what_was_found_on_one_way_says_nothing_of_another() {
        let mut probing = probing();
        let now = clock::now();
        assert_eq!(probing.fits(REMOTE.into(), 1500, 80), 1280);
        assert!(probing.search.next() <= clock::now(), "due at once");
        probing.search.poll(clock::now());
        probing.search.heard(1500, now);
        assert_eq!(probing.fits(REMOTE.into(), 1500, 80), 1500);
        let mark = probing.mark(1500);
        assert_eq!(probing.fits([198, 18, 9, 9].into(), 1500, 80), 1280);
        assert_eq!(probing.answered(mark), None, "it went another way");
    }
}
