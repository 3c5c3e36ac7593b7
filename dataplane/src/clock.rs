//! The one clock: CLOCK_BOOTTIME, which goes on while the machine sleeps, so that sessions age then, too.

pub use crypto::Time;

/// Now. Read once a batch, never once a packet.
pub fn now() -> Time {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Time(t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64)
}
