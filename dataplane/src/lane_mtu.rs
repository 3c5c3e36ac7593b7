//! How large packets may be on a lane of a trunk: [`Search`] (RFC 8899) asks by probes that are padded, as it asks sites by pings.
//!
//! The other hub replies with the length in which a probe came: short, so that each end measures its own direction.

use crate::path_mtu::Search;
use crypto::Time;
use std::collections::VecDeque;
use std::net::IpAddr;
use wire::geneve;

/// Probes of sizes are numbered from here; those of [`crate::liveness`] from 1.
pub const NUMBERS: u64 = 1 << 63;
/// Probes that are remembered, more than are asked for at once three times: later replies count.
const REMEMBERED: usize = 32;

/// One lane.
#[derive(Clone, Debug)]
pub struct LaneMtu {
    remote: Option<IpAddr>,
    search: Search,
    /// Bytes around the plaintext: outer IP and UDP, the header, the AEAD's tag.
    overhead: u16,
    number: u64,
    /// Number and size of the plaintext, the oldest first.
    asked: VecDeque<(u64, u16)>,
}

impl Default for LaneMtu {
    /// A lane without a way.
    fn default() -> Self {
        Self { remote: None, search: Search::new(0, 0), overhead: 0, number: NUMBERS, asked: VecDeque::new() }
    }
}

impl LaneMtu {
    /// The way is to this address, the kernel says that it takes outer packets of `most` bytes, of which `overhead` are not plaintext:
    /// outer IP and UDP, header and AEAD's tag.
    pub fn way(&mut self, remote: IpAddr, most: u16, overhead: u16, now: Time) {
        if self.remote != Some(remote) || self.overhead != overhead {
            (self.remote, self.overhead) = (Some(remote), overhead);
            self.search = Search::new(most, overhead);
            self.asked.clear();
        } else if self.search.most() != most {
            self.search.set_most(most);
        }
        self.search.wake(now);
    }

    /// There is a session, or a new one.
    pub fn session(&mut self, now: Time) {
        self.search.session(now);
    }

    /// There is no session, or no way.
    pub fn pause(&mut self) {
        self.search.pause();
    }

    /// When to poll next.
    pub fn next(&self) -> Time {
        self.search.next()
    }

    /// Probes to send now: number, and the size of the whole plaintext.
    pub fn poll(&mut self, now: Time) -> Vec<(u64, u16)> {
        let overhead = self.overhead;
        let sizes = self.search.poll(now).into_iter().filter_map(|outer| outer.checked_sub(overhead));
        let mut probes = Vec::new();
        for size in sizes {
            if self.asked.len() >= REMEMBERED {
                self.asked.pop_front();
            }
            self.asked.push_back((self.number, size));
            probes.push((self.number, size));
            self.number = self.number.wrapping_add(1) | NUMBERS;
        }
        probes
    }

    /// A reply that says that the probe came in `received` bytes; `false` if there is no such probe, it was answered before, or it had
    /// another size.
    pub fn on_reply(&mut self, number: u64, received: u16, now: Time) -> bool {
        let Some(at) = self.asked.iter().position(|asked| *asked == (number, received)) else { return false };
        self.asked.remove(at);
        self.search.heard(received + self.overhead, now);
        true
    }

    /// The largest outer packet that may be sent.
    pub fn fits(&self) -> u16 {
        self.search.fits()
    }

    /// The longest plaintext, tag included.
    pub fn plain_max(&self) -> u16 {
        self.search.fits().saturating_sub(self.overhead)
    }

    /// The longest inner packet.
    pub fn payload_max(&self) -> u16 {
        self.plain_max().saturating_sub(geneve::HEADER as u16)
    }

    /// For people: `searching`, `found`, `unanswered`.
    pub fn state(&self) -> &'static str {
        self.search.state()
    }
}

#[cfg(test)]
mod tests;
