//! The rows that a worker writes, and their sums over all workers.

use std::sync::atomic::{AtomicU64, Ordering};
use wire::{DROP_REASONS, DropReason, PortIndex, SiteSlot, TenantSlot};

/// A monotone counter, or the latest of a growing value, with a single writer.
#[derive(Default, Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. For the row's owner alone: two writers would lose counts.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
    }

    /// Replaces the value. For the row's owner alone.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// The value now.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// What one worker did for one site. Inner bytes are IP lengths, as they are billed; outer bytes are whole frames.
#[derive(Default, Debug)]
#[repr(C, align(64))]
pub struct SiteRow {
    /// Packets from the site that were opened and accepted, keepalives not among them.
    pub rx_packets: Counter,
    /// Their inner IP bytes.
    pub rx_bytes: Counter,
    /// Bytes of all frames accepted from the site, keepalives too, Ethernet header included.
    pub rx_outer_bytes: Counter,
    /// Keepalives accepted.
    pub rx_keepalives: Counter,
    /// When the site last sent a packet with content: nanoseconds since boot, 0 for never.
    pub data_received_at: Counter,
    /// When anything authenticated last came from the site.
    pub any_received_at: Counter,
    /// Two words of rest, so that what is sent has a cache line of its own.
    _rest: [u64; 2],
    /// Packets sealed for the site, keepalives not among them.
    pub tx_packets: Counter,
    /// Their inner IP bytes.
    pub tx_bytes: Counter,
    /// Bytes of all frames sent to the site, keepalives too, Ethernet header included.
    pub tx_outer_bytes: Counter,
    /// Keepalives sent.
    pub tx_keepalives: Counter,
    /// When a packet with content was last sealed for the site.
    pub data_sent_at: Counter,
    /// When anything was last sealed for the site.
    pub any_sent_at: Counter,
    /// Packets parked for a session with the site now.
    pub staged: Counter,
}

/// Drops by reason: packets and frame bytes.
#[derive(Debug)]
#[repr(align(64))]
pub struct DropRow {
    packets: [Counter; DropReason::LIMIT],
    bytes: [Counter; DropReason::LIMIT],
}

impl Default for DropRow {
    fn default() -> Self {
        Self {
            packets: std::array::from_fn(|_| Counter::default()),
            bytes: std::array::from_fn(|_| Counter::default()),
        }
    }
}

impl DropRow {
    /// Counts one dropped packet of `bytes` bytes, as long as it was when it was dropped.
    #[inline]
    pub fn count(&self, reason: DropReason, bytes: usize) {
        self.packets[reason as usize].add(1);
        self.bytes[reason as usize].add(bytes as u64);
    }

    /// Packets and bytes dropped for `reason`.
    pub fn read(&self, reason: DropReason) -> (u64, u64) {
        (self.packets[reason as usize].read(), self.bytes[reason as usize].read())
    }
}

/// What one worker moved through one port.
#[derive(Default, Debug)]
#[repr(align(64))]
pub struct PortRow {
    /// Frames taken from receive rings.
    pub rx_frames: Counter,
    /// Their bytes.
    pub rx_bytes: Counter,
    /// Frames that the kernel reported complete.
    pub completed_frames: Counter,
    /// Frames that XDP gave to this worker's sockets and that the kernel lost before the ring (`XDP_STATISTICS`): no free
    /// chunk, or a full ring. As of the last time that the worker was idle, or 4,096 turns ago at the most.
    pub ring_lost: Counter,
    /// Frames put into transmit rings.
    pub tx_frames: Counter,
    /// Their bytes.
    pub tx_bytes: Counter,
}

/// What one worker's loop did.
#[derive(Default, Debug)]
#[repr(align(64))]
pub struct LoopRow {
    /// Turns of the loop; a worker that is alive makes one a second at the least.
    pub turns: Counter,
    /// Batches that were not empty.
    pub batches: Counter,
    /// Frames in them.
    pub frames: Counter,
    /// Packets that the hub made itself: ICMP answers, handshake messages, keepalives.
    pub generated: Counter,
    /// Handshake messages and fragments that were copied to control, their chunks recycled.
    pub to_control: Counter,
    /// Keepalives of sites: accepted, and at their end here.
    pub keepalives: Counter,
    /// Datagrams that control put together from fragments and gave back.
    pub reassembled: Counter,
    /// Frames parked for a session now, over all sites.
    pub staged: Counter,
    /// Free chunks in the worker's pool.
    pub chunks_free: Counter,
    /// Nanoseconds in turns of the loop that found work.
    pub busy_ns: Counter,
    /// Nanoseconds asleep.
    pub asleep_ns: Counter,
}

/// How many rows of each kind a worker has.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tenants of the hub.
    pub tenants: usize,
    /// Sites over all tenants.
    pub sites: usize,
    /// Ports of the hub.
    pub ports: usize,
}

/// All rows of one worker.
#[derive(Debug)]
pub struct Rows {
    sites: Box<[SiteRow]>,
    tenants: Box<[DropRow]>,
    ports: Box<[PortRow]>,
    /// Drops before a tenant was known.
    pub hub: DropRow,
    /// The loop itself.
    pub turns: LoopRow,
}

impl Rows {
    /// Rows of zeros.
    pub fn new(shape: Shape) -> Self {
        fn filled<T: Default>(n: usize) -> Box<[T]> {
            (0..n).map(|_| T::default()).collect()
        }
        Self {
            sites: filled(shape.sites),
            tenants: filled(shape.tenants),
            ports: filled(shape.ports),
            hub: DropRow::default(),
            turns: LoopRow::default(),
        }
    }

    /// The row of a site.
    #[inline]
    pub fn site(&self, site: SiteSlot) -> &SiteRow {
        &self.sites[site.index()]
    }

    /// The drops of a tenant.
    #[inline]
    pub fn tenant(&self, tenant: TenantSlot) -> &DropRow {
        &self.tenants[tenant.index()]
    }

    /// The row of a port.
    #[inline]
    pub fn port(&self, port: PortIndex) -> &PortRow {
        &self.ports[port.index()]
    }
}

/// Drops summed over rows: packets and bytes by reason.
#[derive(Clone, Debug)]
pub struct Totals([(u64, u64); DropReason::LIMIT]);

impl Default for Totals {
    fn default() -> Self {
        Self([(0, 0); DropReason::LIMIT])
    }
}

impl Totals {
    /// Adds a row.
    pub fn add_row(&mut self, row: &DropRow) {
        for reason in DROP_REASONS {
            let (packets, bytes) = row.read(*reason);
            self.add(*reason, packets, bytes);
        }
    }

    /// Adds counts that came from elsewhere, such as XDP's.
    pub fn add(&mut self, reason: DropReason, packets: u64, bytes: u64) {
        let (p, b) = &mut self.0[reason as usize];
        *p += packets;
        *b += bytes;
    }

    /// Every reason that has dropped anything, with its packets and bytes.
    pub fn nonzero(&self) -> impl Iterator<Item = (DropReason, u64, u64)> + '_ {
        DROP_REASONS.iter().map(|r| (*r, self.0[*r as usize].0, self.0[*r as usize].1)).filter(|(_, p, _)| *p > 0)
    }

    /// Packets over all reasons.
    pub fn packets(&self) -> u64 {
        self.0.iter().map(|(p, _)| p).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_different_owners_share_no_cache_line() {
        assert_eq!(std::mem::align_of::<SiteRow>(), 64);
        assert_eq!(std::mem::size_of::<SiteRow>(), 128);
        assert_eq!(std::mem::offset_of!(SiteRow, tx_packets), 64, "a line for each direction");
        assert_eq!(std::mem::size_of::<DropRow>() % 64, 0);
    }

    #[test]
    fn totals_add_up_over_workers() {
        let shape = Shape { tenants: 2, sites: 3, ports: 1 };
        let (a, b) = (Rows::new(shape), Rows::new(shape));
        a.tenant(TenantSlot(1)).count(DropReason::NoRoute, 100);
        b.tenant(TenantSlot(1)).count(DropReason::NoRoute, 50);
        b.hub.count(DropReason::AuthFailed, 10);
        let mut totals = Totals::default();
        for rows in [&a, &b] {
            totals.add_row(&rows.hub);
            totals.add_row(rows.tenant(TenantSlot(1)));
        }
        assert_eq!(
            totals.nonzero().collect::<Vec<_>>(),
            vec![(DropReason::AuthFailed, 1, 10), (DropReason::NoRoute, 2, 150)]
        );
        assert_eq!(totals.packets(), 3);
    }
}
