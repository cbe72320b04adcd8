//! Monotonic and wall time as arguments.

use std::fmt;
use std::time::{Duration, Instant};

use crate::limits::CLOCK_TOLERANCE;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000
    }

    /// The distance between two times.
    #[must_use]
    pub const fn abs_diff(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// This time moved by an offset, saturating at the ends.
    #[must_use]
    pub const fn with_offset(self, offset: ClockOffset) -> Self {
        Self(self.0.saturating_add_signed(offset.0))
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1_000, self.0 % 1_000)
    }
}

/// How many milliseconds must be added to the local wall clock to get a network's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClockOffset(pub i64);

impl ClockOffset {
    /// The offset that makes `ours` read as `theirs`.
    #[must_use]
    pub fn between(ours: UnixMillis, theirs: UnixMillis) -> Self {
        let difference = i128::from(theirs.0) - i128::from(ours.0);
        Self(i64::try_from(difference).unwrap_or(if difference < 0 { i64::MIN } else { i64::MAX }))
    }

    /// Whether a responder that asks for `other` takes what a clock with this offset says.
    #[must_use]
    pub fn agrees_with(self, other: Self) -> bool {
        Duration::from_millis(self.0.abs_diff(other.0)) <= CLOCK_TOLERANCE
    }
}

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: deadlines and ages.
    pub instant: Instant,
    /// The wall clock: what is written into and compared with messages.
    pub wall: UnixMillis,
}

impl Now {
    /// The moment `elapsed` later on both clocks.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Self {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        Self {
            instant: self.instant + elapsed,
            wall: UnixMillis(self.wall.0.saturating_add(millis)),
        }
    }
}
