//! What the stages are about to touch, asked for a batch at a time. With a few sites all of it is in the caches, and nothing is done
//! here; with thousands, each packet needs some twenty lines that no cache near the core has, one found by way of another. The stages would
//! wait for them packet by packet, the more so as an atomic operation (a replay window's, a send counter's) waits for all before it.
//! Here each step of the way is taken for all packets of the batch before the next, so that their lines come at the same time.

use crate::packet::{BATCH, Batch};
use crate::worker::Journey;
use arrayvec::ArrayVec;
use crypto::cache::foresee;
use crypto::message::DATA_HEADER;
use wire::SiteSlot;

/// So many sessions are in the caches without further ado.
const FEW: usize = 64;

impl Journey {
    /// Of what `admit`, `open` and `check` touch: sessions, replay windows, keys, and the senders' rows.
    pub(crate) fn foresee_arrivals(&self, batch: &Batch) {
        if self.sessions.count() <= FEW {
            return;
        }
        let mut coming = ArrayVec::<(u32, u64), BATCH>::new();
        for packet in batch.iter() {
            if let Some((index, counter)) = glance(packet.frame.bytes())
                && coming.last().is_none_or(|(last, _)| *last != index)
            {
                foresee(self.sessions.slot(index));
                coming.push((index, counter));
            }
        }
        for (index, _) in &coming {
            self.sessions.slot(*index).iter().for_each(|session| session.foresee());
        }
        for (index, counter) in coming {
            if let Some(session) = self.sessions.find(index) {
                session.foresee_open(counter);
                self.foresee_end(SiteSlot(session.owner()));
            }
        }
    }

    /// Of what `adapt`, `seal` and `address` touch: the receivers' rows, sessions, send counters and keys.
    pub(crate) fn foresee_departures(&self, batch: &Batch) {
        if self.sessions.count() <= FEW {
            return;
        }
        let mut ends = ArrayVec::<SiteSlot, BATCH>::new();
        for packet in batch.iter().filter(|p| p.goes_on()) {
            if ends.last() != Some(&packet.to) {
                self.foresee_end(packet.to);
                ends.push(packet.to);
            }
        }
        let sessions = || ends.iter().filter_map(|end| self.sites.at(*end).sending.as_ref());
        sessions().for_each(|session| session.foresee());
        sessions().for_each(|session| session.foresee_seal());
    }

    fn foresee_end(&self, end: SiteSlot) {
        foresee(self.sites.at(end));
        foresee(self.rows.site(end));
    }
}

/// The receiver index and the counter where a data message over IP has them. What is none gives any numbers: they are looked at, not believed.
fn glance(frame: &[u8]) -> Option<(u32, u64)> {
    const IP: usize = 14;
    let udp = match frame.get(IP - 2..=IP)? {
        [0x08, 0x00, first] => IP + 4 * usize::from(first & 15),
        [0x86, 0xdd, _] => IP + 40,
        _ => return None,
    };
    let header: &[u8; DATA_HEADER] = frame.get(udp + 8..)?.first_chunk()?;
    let (_, numbers) = header.split_first_chunk::<4>()?;
    let (index, counter) = numbers.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*index), u64::from_le_bytes(*counter.first_chunk()?)))
}
