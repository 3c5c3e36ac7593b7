//! A moment, as every state machine here is told of it.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A moment in nanoseconds of CLOCK_BOOTTIME: it never goes back, and a suspended machine's sleep counts.
///
/// 64 bits last for 584 years of uptime. `Time::default()` is the moment of boot; where a time is recorded, zero stands for "never".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// The moment that never comes: the deadline of a timer that isn't set.
    pub const NEVER: Time = Time(u64::MAX);

    /// How long it has been since `earlier`: zero if that lies in the future, as it may when another thread read the clock.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    /// The moment `span` later, or [`Time::NEVER`] if that is beyond what 64 bits can say.
    fn add(self, span: Duration) -> Time {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Time::NEVER => f.write_str("never"),
            Time(nanos) => write!(f, "boot + {:?}", Duration::from_nanos(nanos)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_never_negative_and_a_sum_never_wraps() {
        let noon = Time(43_200_000_000_000);
        assert_eq!((noon + Duration::from_secs(180)).since(noon), Duration::from_secs(180));
        assert_eq!(noon.since(noon + Duration::from_nanos(1)), Duration::ZERO);
        assert_eq!(noon + Duration::MAX, Time::NEVER);
        assert_eq!(Time::NEVER + Duration::from_nanos(1), Time::NEVER);
    }

    #[test]
    fn reads_as_a_person_would_say_it() {
        assert_eq!(format!("{:?} {:?}", Time(1_500_000_000), Time::NEVER), "boot + 1.5s never");
    }
}
