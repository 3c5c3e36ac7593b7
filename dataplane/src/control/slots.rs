//! Receiver indices: which slots are taken, by whom, and a fresh index for each use.

use std::collections::VecDeque;
use wire::SiteSlot;

/// The table of receiver indices.
///
/// An index is its slot in the low bits and randomness in all others: who guesses one must hit both, and a slot that is
/// used again answers to another index.
#[derive(Debug)]
pub(crate) struct Slots {
    bits: u8,
    taken: Vec<Option<(u32, SiteSlot)>>,
    /// Used slots come back at the end, so that an index rests as long as possible.
    free: VecDeque<u32>,
}

impl Slots {
    /// Bits of a table that has room for `sites` sites: each may have three sessions and a handshake.
    pub(crate) fn bits_for(sites: usize) -> u8 {
        ((sites.max(1) * 4).next_power_of_two().trailing_zeros() as u8).clamp(8, 24)
    }

    pub(crate) fn new(bits: u8) -> Self {
        let count = 1u32 << bits;
        Self { bits, taken: vec![None; count as usize], free: (0..count).collect() }
    }

    /// Takes a slot for `site`; `None` if all are taken.
    pub(crate) fn reserve(&mut self, site: SiteSlot, random: u32) -> Option<u32> {
        let slot = self.free.pop_front()?;
        // Zero is what an empty entry of the BPF map holds: no live session has it.
        let index = match slot | random.checked_shl(self.bits as u32).unwrap_or(0) {
            0 => 1u32.checked_shl(self.bits as u32).unwrap_or(0),
            index => index,
        };
        self.taken[slot as usize] = Some((index, site));
        Some(index)
    }

    /// The slot of an index.
    pub(crate) fn slot(&self, index: u32) -> u32 {
        index & ((1 << self.bits) - 1)
    }

    /// The site that an index was reserved for.
    pub(crate) fn owner(&self, index: u32) -> Option<SiteSlot> {
        self.taken[self.slot(index) as usize].filter(|(taken, _)| *taken == index).map(|(_, site)| site)
    }

    /// Gives an index back; `false` if it was not taken.
    pub(crate) fn release(&mut self, index: u32) -> bool {
        let slot = self.slot(index);
        let was = self.owner(index).is_some();
        if was {
            self.taken[slot as usize] = None;
            self.free.push_back(slot);
        }
        was
    }

    /// Slots in all.
    pub(crate) fn capacity(&self) -> usize {
        self.taken.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_leads_to_its_site_until_it_is_released() {
        let mut slots = Slots::new(8);
        let a = slots.reserve(SiteSlot(7), 0xdead_beef).unwrap();
        assert_eq!(slots.owner(a), Some(SiteSlot(7)));
        assert_eq!(slots.owner(a ^ 0x100), None, "the same slot under another index");
        assert!(slots.release(a));
        assert!(!slots.release(a));
        assert_eq!((slots.owner(a), slots.free.len()), (None, 256));
    }

    #[test]
    fn a_full_table_says_so_and_no_index_is_zero() {
        let mut slots = Slots::new(8);
        let all: Vec<_> = std::iter::from_fn(|| slots.reserve(SiteSlot(0), 0)).collect();
        assert_eq!(all.len(), 256);
        assert!(all.iter().all(|index| *index != 0));
        let distinct: std::collections::HashSet<_> = all.iter().map(|i| slots.slot(*i)).collect();
        assert_eq!(distinct.len(), 256);
    }

    #[test]
    fn there_is_room_for_every_site() {
        assert_eq!(Slots::bits_for(2), 8);
        assert_eq!(Slots::bits_for(10_000), 16);
        assert_eq!(1usize << Slots::bits_for(10_000), 65_536);
    }
}
