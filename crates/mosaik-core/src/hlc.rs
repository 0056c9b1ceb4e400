//! Hybrid logical clock: stamps that respect causality and stay near wall time.
//!
//! Invariants:
//! - The wall time is an argument. Nothing here reads a clock, so a run can be replayed.
//! - A stamp from [`Clock::tick`] is greater than every stamp ticked or observed before, but where
//!   the clock is told to start again by [`Clock::reset`].
//! - A remote stamp more than [`OBSERVE_AHEAD_MAX_MS`] ahead is not adopted: one node with a broken
//!   clock must not drag the others into the future.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.

use std::fmt;

/// How far ahead of the local wall clock an event may be to count in the view, in milliseconds.
///
/// Ten minutes: a cheap quartz drifts about one a month, and boards are set by hand.
pub const SKEW_MAX_MS: u64 = 10 * 60 * 1000;

/// How far ahead of the local wall clock a stamp may be to move this clock, in milliseconds.
///
/// Half of [`SKEW_MAX_MS`]: so honest stamps pass wherever clocks agree within five minutes.
pub const OBSERVE_AHEAD_MAX_MS: u64 = 5 * 60 * 1000;

/// The greatest wall time of a stamp: 48 bits of milliseconds.
pub const MS_MAX: u64 = (1 << 48) - 1;

/// 48 bits of Unix milliseconds, 16 bits of counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(u64);

impl Hlc {
    /// A stamp of these parts; `ms` is cut to 48 bits.
    pub fn new(ms: u64, counter: u16) -> Self {
        Self((ms.min(MS_MAX) << 16) | u64::from(counter))
    }

    /// The stamp of this number.
    pub fn from_u64(bits: u64) -> Self {
        Self(bits)
    }

    /// The number: `ms << 16 | counter`.
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// Unix milliseconds.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    pub fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.counter())
    }
}

/// Whether an event with this stamp is held back from the view at `wall_ms`.
pub fn is_held_back(hlc: Hlc, wall_ms: u64) -> bool {
    hlc.ms() > wall_ms.saturating_add(SKEW_MAX_MS)
}

/// The clock of one author.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// The greatest stamp ticked or adopted.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A stamp for an own event, at `wall_ms`.
    ///
    /// A counter that overflows advances the millisecond, so stamps stay ordered in a burst of any
    /// length.
    pub fn tick(&mut self, wall_ms: u64) -> Hlc {
        let now = Hlc::new(wall_ms, 0);
        self.last = if now > self.last { now } else { Hlc(self.last.0.saturating_add(1)) };
        self.last
    }

    /// Learns of `remote`, the stamp of another event, seen here at `wall_ms`. Adopts it only up to
    /// [`OBSERVE_AHEAD_MAX_MS`] ahead.
    pub fn observe(&mut self, remote: Hlc, wall_ms: u64) {
        if remote > self.last && remote.ms() <= wall_ms.saturating_add(OBSERVE_AHEAD_MAX_MS) {
            self.last = remote;
        }
    }

    /// Takes up an own stamp as it is, also one far ahead: stamps rise along an own feed.
    pub fn resume(&mut self, own: Hlc) {
        self.last = self.last.max(own);
    }

    /// Forgets all stamps: the next tick is the wall clock's. For an own feed that was stamped far
    /// in the future by a clock since set right.
    pub fn reset(&mut self) {
        self.last = Hlc::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A laptop that wakes with its clock set back must still write stamps that sort last.
    #[test]
    fn tick_stays_ahead_when_wall_time_runs_backwards() {
        let mut clock = Clock::default();
        let before = clock.tick(10_000);
        let after = clock.tick(4_000);
        assert!(after > before);
    }

    #[test]
    fn a_full_counter_advances_the_millisecond() {
        let mut clock = Clock { last: Hlc::new(5, u16::MAX) };
        assert_eq!(clock.tick(5), Hlc::new(6, 0));
    }

    #[test]
    fn a_stamp_more_than_five_minutes_ahead_is_not_adopted() {
        let mut clock = Clock::default();
        clock.observe(Hlc::new(1_000 + OBSERVE_AHEAD_MAX_MS + 1, 0), 1_000);
        assert_eq!(clock.last(), Hlc::default());
        clock.observe(Hlc::new(1_000 + OBSERVE_AHEAD_MAX_MS, 3), 1_000);
        assert_eq!(clock.last(), Hlc::new(1_000 + OBSERVE_AHEAD_MAX_MS, 3));
    }
}
