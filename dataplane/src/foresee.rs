//! What the stages are about to touch, asked for a batch at a time. With a few sites all of it is in the caches, and nothing is done
//! here; with thousands, each packet needs some twenty lines that no cache near the core has, one found by way of another. The stages
//! would wait for them packet by packet, the more so as an atomic operation (a replay window's, a send counter's) waits for all before
//! it. Here each step of the way is taken for all packets of the batch before the next, so that their lines come at the same time.

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
        for (index, counter) in &coming {
            if let Some(session) = self.sessions.find(*index) {
                session.foresee_open(*counter);
                let site = SiteSlot(session.owner());
                self.sites.at(site).foresee_from();
                foresee(&self.rows.site(site).rx_packets);
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
                self.sites.at(packet.to).foresee_to();
                foresee(&self.rows.site(packet.to).tx_packets);
                ends.push(packet.to);
            }
        }
        let sessions = || ends.iter().filter_map(|end| self.sites.at(*end).sending.as_ref());
        sessions().for_each(|session| session.foresee());
        sessions().for_each(|session| session.foresee_seal());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Packet;
    use crate::rehearsal::{Rehearsal, ipv4};
    use crate::sites::Sessions;
    use crypto::{Role, Session, Time};
    use proptest::prelude::*;
    use std::sync::Arc;
    use wire::PortIndex;

    fn frame(ip: &[u8]) -> Vec<u8> {
        let kind = if ip[0] >> 4 == 4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        let data = [4, 0, 0, 0, 0x78, 0x56, 0x34, 0x12, 9, 0, 0, 0, 0, 1, 0, 0];
        [&[0; 12], &kind[..], ip, &[0; 8], &data].concat()
    }

    #[test]
    fn numbers_are_where_a_data_message_has_them() {
        let seen = Some((0x1234_5678, 9 + (1 << 40)));
        assert_eq!(glance(&frame(&[&[0x45][..], &[0; 19]].concat())), seen);
        assert_eq!(glance(&frame(&[&[0x47][..], &[0; 27]].concat())), seen, "with options");
        assert_eq!(glance(&frame(&[&[0x60][..], &[0; 39]].concat())), seen);
        assert_eq!(glance(&frame(&[&[0x45][..], &[0; 19]].concat())[..57]), None, "cut short");
        let mut vlan = frame(&[&[0x45][..], &[0; 19]].concat());
        vlan[12..14].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(glance(&vlan), None);
    }

    #[test]
    fn sessions_are_counted() {
        let session = |index| {
            let cipher = crypto::aead::Cipher::ChaCha20Poly1305;
            Arc::new(Session::new(0, index, 0, Role::Initiator, &[1; 32], &[2; 32], cipher, Time(0)))
        };
        let mut sessions = Sessions::new(4);
        for (index, count) in [(1, 1), (2, 2), (0x11, 2)] {
            sessions.publish(session(index));
            assert_eq!(sessions.count(), count, "{index:#x}");
        }
        for (index, count) in [(1, 2), (0x11, 1), (0x11, 1), (2, 0)] {
            sessions.withdraw(index);
            assert_eq!(sessions.count(), count, "{index:#x}");
        }
    }

    #[test]
    fn batches_of_many_sites_leave_as_others_do() {
        let tenants = FEW; // of two sites each
        let mut hub = Rehearsal::new(&vec![vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]; tenants], 256);
        assert!(hub.journey.sessions.count() > FEW);
        let mut batch = Batch::new();
        for tenant in 0..BATCH {
            let mut frame = hub.journey.pool.pop().expect("a chunk");
            frame.copy_from(&hub.seal(tenant % tenants * 2, &ipv4([10, 9, 1, 1], [10, 9, 2, 1], 64, 100)));
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        hub.journey.relay(&mut batch, Time(2_000_000_000));
        hub.journey.dispatch(&mut batch);
        assert_eq!(hub.journey.out[0].len(), BATCH);
    }

    proptest! {
        #[test]
        fn any_bytes_are_safe(mut bytes in prop::collection::vec(any::<u8>(), 0..120), kind: bool) {
            if let Some(place) = bytes.get_mut(12..14) {
                place.copy_from_slice(if kind { &[0x08, 0x00] } else { &[0x86, 0xdd] });
            }
            glance(&bytes);
        }
    }
}
