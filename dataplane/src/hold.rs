//! How long what was down must be good before it is used again: so that what comes and goes does not take packets with it each time.

use std::time::Duration;

/// After the first time.
pub const HOLD: Duration = Duration::from_secs(1);
/// Doubled with each further time, up to this.
pub const HOLD_MAX: Duration = Duration::from_secs(60);
/// What was up for so long begins anew.
pub const FORGIVEN: Duration = Duration::from_secs(120);
/// Times after which it does not grow any more: 2^6 s are more than [`HOLD_MAX`].
const FLAPS_MAX: u8 = 7;

/// How often something went down, lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldDown {
    flaps: u8,
}

impl HoldDown {
    /// It went down, after it had been up for so long.
    pub fn down(&mut self, up_for: Duration) {
        let before = if up_for >= FORGIVEN { 0 } else { self.flaps };
        self.flaps = (before + 1).min(FLAPS_MAX);
    }

    /// For how long it must be good: not at all if it was never down.
    pub fn span(&self) -> Duration {
        match self.flaps.checked_sub(1) {
            None => Duration::ZERO,
            Some(times) => (HOLD * (1 << times)).min(HOLD_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_minute_and_is_forgiven() {
        let mut hold = HoldDown::default();
        assert_eq!(hold.span(), Duration::ZERO);
        for secs in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            hold.down(Duration::from_secs(119));
            assert_eq!(hold.span(), Duration::from_secs(secs));
        }
        hold.down(FORGIVEN);
        assert_eq!(hold.span(), HOLD);
    }
}
