//! The rows that a worker writes, those that control writes, and what sums them up.

use crate::layout::record;
use crate::sys::{Plain, View};
use wire::{DROP_REASONS, DropReason, PortIndex, SiteSlot, TenantSlot};

record! {
    /// What one worker did for one site: a cache line for each direction. Inner bytes are IP lengths, as they are billed; outer
    /// bytes are whole frames, Ethernet header included.
    pub SiteRow {
        /// Packets from the site that were opened and accepted, keepalives not among them.
        pub rx_packets,
        /// Their inner IP bytes.
        pub rx_bytes,
        /// All frames that were authenticated as the site's, keepalives and what was dropped after that too.
        pub rx_outer_packets,
        /// Their bytes.
        pub rx_outer_bytes,
        /// Keepalives accepted.
        pub rx_keepalives,
        /// When the site last sent a packet with content: nanoseconds since boot, 0 for never.
        pub data_received_at,
        /// When anything authenticated last came from the site.
        pub any_received_at,
        /// Packets from the site that were dropped as above a contracted rate (`rate_*_up`), its own or its tenant's.
        pub rx_over_rate,
        /// Packets sealed for the site, keepalives not among them.
        pub tx_packets,
        /// Their inner IP bytes.
        pub tx_bytes,
        /// Bytes of all frames sent to the site, keepalives too.
        pub tx_outer_bytes,
        /// Keepalives sent: with `tx_packets`, all frames sent.
        pub tx_keepalives,
        /// When a packet with content was last sealed for the site.
        pub data_sent_at,
        /// When anything was last sealed for the site.
        pub any_sent_at,
        /// Packets parked for a session with the site now.
        pub staged,
        /// Packets for the site that were dropped as above a contracted rate (`rate_*_down`), its own or its tenant's.
        pub tx_over_rate,
    }
}

record! {
    /// What one worker did for one tenant: the sums over its sites, those that are gone too.
    pub TenantRow {
        /// As in [`SiteRow`].
        pub rx_packets,
        /// As in [`SiteRow`].
        pub rx_bytes,
        /// As in [`SiteRow`].
        pub rx_outer_packets,
        /// As in [`SiteRow`].
        pub rx_outer_bytes,
        /// As in [`SiteRow`].
        pub rx_keepalives,
        pub(crate) rest: 3,
        /// As in [`SiteRow`].
        pub tx_packets,
        /// As in [`SiteRow`].
        pub tx_bytes,
        /// As in [`SiteRow`].
        pub tx_outer_bytes,
        /// As in [`SiteRow`].
        pub tx_keepalives,
        pub(crate) rest2: 4,
    }
}

/// Reasons that there is room for.
pub const REASONS: usize = 128;
const _: () = assert!(DropReason::LIMIT <= REASONS);

record! {
    /// Drops by reason: for each number its packets, then their frame bytes.
    pub DropRow {
        pub(crate) counts: 2 * REASONS,
    }
}

impl DropRow {
    /// Counts one dropped packet of `bytes` bytes, as long as it was when it was dropped.
    #[inline]
    pub fn count(&self, reason: DropReason, bytes: usize) {
        let at = 2 * reason as usize;
        self.counts[at + 1].add(bytes as u64);
        self.counts[at].add(1);
    }

    /// Replaces what was counted for `reason`: for drops that are counted elsewhere.
    pub fn set(&self, reason: DropReason, packets: u64, bytes: u64) {
        let at = 2 * reason as usize;
        self.counts[at + 1].set(bytes);
        self.counts[at].set(packets);
    }

    /// Packets and bytes dropped for `reason`.
    pub fn read(&self, reason: DropReason) -> (u64, u64) {
        self.number(reason as usize)
    }

    pub(crate) fn number(&self, number: usize) -> (u64, u64) {
        let packets = self.counts[2 * number].read();
        (packets, self.counts[2 * number + 1].read())
    }
}

record! {
    /// What one worker moved through one port.
    pub PortRow {
        /// Frames taken from receive rings.
        pub rx_frames,
        /// Their bytes.
        pub rx_bytes,
        /// Frames that the kernel reported complete.
        pub completed_frames,
        /// Frames that XDP gave to this worker's sockets and that the kernel lost before the ring (`XDP_STATISTICS`): no free
        /// chunk, or a full ring. As of the last time that the worker was idle, or 4,096 turns ago at the most.
        pub ring_lost,
        /// Frames put into transmit rings.
        pub tx_frames,
        /// Their bytes.
        pub tx_bytes,
        /// Frames in the receive rings when the worker last looked at `ring_lost`.
        pub ring_fill,
        pub(crate) rest,
    }
}

record! {
    /// What one worker's loop did.
    pub LoopRow {
        /// Turns of the loop; a worker that is alive makes one a second at the least.
        pub turns,
        /// Batches that were not empty.
        pub batches,
        /// Frames in them.
        pub frames,
        /// Packets that the hub made itself: ICMP answers, handshake messages, keepalives.
        pub generated,
        /// Handshake messages and fragments that were copied to control, their chunks recycled.
        pub to_control,
        /// Keepalives of sites: accepted, and at their end here.
        pub keepalives,
        /// Datagrams that control put together from fragments and gave back.
        pub reassembled,
        /// Frames parked for a session now, over all sites.
        pub staged,
        /// Free chunks in the worker's pool.
        pub chunks_free,
        /// Nanoseconds in turns of the loop that found work.
        pub busy_ns,
        /// Nanoseconds asleep.
        pub asleep_ns,
        /// Frames of other workers' rings that this one took through the stages.
        pub helped_frames,
        pub(crate) rest: 4,
    }
}

record! {
    /// Times, in the buckets of an `HdrHistogram` with two significant digits, from 1 ns to 8.6 s.
    pub HistogramRow {
        /// The sum of what was recorded, in nanoseconds.
        pub sum_ns,
        pub(crate) rest: 7,
        pub(crate) counts: crate::histogram::BUCKETS,
    }
}

impl HistogramRow {
    /// Records that `n` frames took `ns` each.
    #[inline]
    pub fn record(&self, ns: u64, n: u64) {
        self.sum_ns.add(ns.wrapping_mul(n));
        self.counts[crate::histogram::index(ns)].add(n);
    }
}

record! {
    /// What XDP did on one port, as control last read it.
    pub XdpRow {
        /// Frames that XDP saw.
        pub seen_frames,
        /// Their bytes.
        pub seen_bytes,
        /// Frames left to the kernel.
        pub passed_frames,
        /// Their bytes.
        pub passed_bytes,
        /// Frames given to a ring.
        pub redirected_frames,
        /// Their bytes.
        pub redirected_bytes,
        /// Frames dropped, over all reasons.
        pub dropped_frames,
        /// Their bytes.
        pub dropped_bytes,
    }
}

record! {
    /// What control says of the hub.
    pub HubRow {
        /// When control last wrote its rows: ns since boot. Older than some seconds: the hub is gone or stuck.
        pub ticked_ns,
        /// The same, ns since 1970.
        pub ticked_wall_ns,
        /// Sessions now.
        pub sessions,
        /// Sessions that there is room for.
        pub session_capacity,
        /// Whether the kernel's clock is synchronised (`adjtimex`): 1 yes, 2 no, 0 unknown.
        pub clock_synchronised,
        /// Initiations that the hub sent, repetitions too.
        pub handshakes_begun,
        /// Initiations of sites that the hub answered.
        pub handshakes_answered,
        /// Handshakes that ended in a session, whoever began.
        pub handshakes_completed,
        /// Handshakes that the hub began and gave up.
        pub handshakes_given_up,
        /// Cookies sent instead of an answer. Handshake messages that were refused are drops, `handshake_*`.
        pub cookies_sent,
        /// Prefixes of tenants to which there are several ways now.
        pub paths,
        /// Of these, how many go by another way than the preferred one.
        pub paths_other,
        /// Of these, how many have no way that is alive.
        pub paths_dead,
        pub(crate) rest: 3,
    }
}

record! {
    /// What control says of a worker.
    pub WorkerState {
        /// The share of the last second in turns that found work: in millionths.
        pub busy_ppm,
        /// Frames in a batch, on the average of the last second: in thousandths.
        pub batch_milliframes,
        pub(crate) rest: 6,
    }
}

record! {
    /// What control says of a site; from `up` on, of a lane alone.
    pub SiteState {
        /// 0 none, 1 handshake under way, 2 live, 3 live and the next under way, 4 expired, 5 an access end whose port is up, or
        /// what a trunk carries, a lane of which is up.
        pub session,
        /// When the last handshake was completed: ns since boot, 0 for never.
        pub last_handshake_at,
        /// Handshakes completed, whoever began.
        pub handshakes,
        /// Whether it is known where the site is: 1 yes, 0 no.
        pub located,
        /// Frames that named a session of it and that XDP dropped, since it had its share of a ring that ran full.
        pub shed_packets,
        /// Whether the other hub answers by this lane: 1 yes, 0 no.
        pub up,
        /// The round trip of probes, smoothed, in microseconds; 0 before the first answer.
        pub rtt_us,
        /// How much that varies, smoothed, in microseconds.
        pub jitter_us,
        /// Probes sent.
        pub probes_sent,
        /// Probes that were not answered in time.
        pub probes_lost,
        /// Of the last 100 probes, those not answered: in millionths.
        pub loss_ppm,
        /// How often `up` has changed.
        pub changes,
        /// Since when `up` is what it is: ns since boot.
        pub since_ns,
        /// The largest inner packet that the lane takes; 0 while it has no way.
        pub mtu,
        pub(crate) rest: 2,
    }
}

record! {
    /// What one worker let one rule of a filter decide.
    pub RuleRow {
        /// Packets.
        pub packets,
        /// Their inner IP bytes.
        pub bytes,
        pub(crate) rest: 6,
    }
}

/// How many rows of each kind a worker has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Tenants of the hub.
    pub tenants: usize,
    /// Sites over all tenants.
    pub sites: usize,
    /// Ports of the hub.
    pub ports: usize,
    /// Rules of filters over all tenants, the defaults counted.
    pub rules: usize,
}

impl Shape {
    /// Whether there is room for all of these rows in `other`.
    pub fn is_within(self, other: Self) -> bool {
        self.each(other, usize::max) == other
    }

    /// Of each kind what `of` makes of both numbers.
    pub(crate) fn each(self, other: Self, of: impl Fn(usize, usize) -> usize) -> Self {
        Self {
            tenants: of(self.tenants, other.tenants),
            sites: of(self.sites, other.sites),
            ports: of(self.ports, other.ports),
            rules: of(self.rules, other.rules),
        }
    }
}

/// One row of a segment.
#[derive(Debug)]
#[expect(private_bounds, reason = "which types lie in a segment is decided beside the mapping")]
pub struct One<T: Plain>(pub(crate) View<T>);

impl<T: Plain> std::ops::Deref for One<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0[0]
    }
}

/// All rows of one worker: its part of a [`crate::Segment`].
#[derive(Debug)]
pub struct Rows {
    pub(crate) sites: View<SiteRow>,
    pub(crate) volumes: View<TenantRow>,
    pub(crate) tenants: View<DropRow>,
    pub(crate) ports: View<PortRow>,
    pub(crate) rules: View<RuleRow>,
    /// Drops before a tenant was known.
    pub hub: One<DropRow>,
    /// The loop itself.
    pub turns: One<LoopRow>,
    /// From the beginning of the turn that took a frame out of its ring to the end of the one that sent it.
    pub latency: One<HistogramRow>,
    /// From XDP to the worker.
    pub ring_time: One<HistogramRow>,
}

impl Rows {
    /// The row of a site.
    #[inline]
    pub fn site(&self, site: SiteSlot) -> &SiteRow {
        &self.sites[site.index()]
    }

    /// What a tenant moved.
    #[inline]
    pub fn volume(&self, tenant: TenantSlot) -> &TenantRow {
        &self.volumes[tenant.index()]
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

    /// The row of a rule.
    #[inline]
    pub fn rule(&self, rule: u32) -> &RuleRow {
        &self.rules[rule as usize]
    }
}

/// The rows of control.
#[derive(Debug)]
pub struct ControlRows {
    /// Drops that control itself decided.
    pub drops: One<DropRow>,
    /// Drops that XDP counted, over all ports.
    pub xdp_drops: One<DropRow>,
    /// The hub.
    pub hub: One<HubRow>,
    pub(crate) xdp: View<XdpRow>,
    pub(crate) workers: View<WorkerState>,
    pub(crate) sites: View<SiteState>,
}

impl ControlRows {
    /// What XDP did on a port.
    pub fn xdp(&self, port: PortIndex) -> &XdpRow {
        &self.xdp[port.index()]
    }

    /// A worker's state.
    pub fn worker(&self, worker: usize) -> &WorkerState {
        &self.workers[worker]
    }

    /// A site's state.
    pub fn site(&self, site: SiteSlot) -> &SiteState {
        &self.sites[site.index()]
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
