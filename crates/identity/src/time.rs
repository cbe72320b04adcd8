//! Wall-clock time and validity.

use minicbor::{Decode, Encode};

/// How far a statement may lie in the future before it counts as not yet valid, in seconds:
/// the clock difference that channels accept.
pub const CLOCK_TOLERANCE: u64 = 60;

/// How long a membership is valid unless somebody chose otherwise: 7 days, in seconds.
pub const DEFAULT_VALIDITY: u64 = 7 * 24 * 3600;

/// Seconds since 1970-01-01 00:00:00 UTC, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UnixTime(pub u64);

impl UnixTime {
    /// A time that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This time plus `seconds`, at most [`UnixTime::NEVER`].
    #[must_use]
    pub const fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// This time less `seconds`, at least zero.
    #[must_use]
    pub const fn minus(self, seconds: u64) -> Self {
        Self(self.0.saturating_sub(seconds))
    }

    /// The seconds from `earlier` to this time; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for UnixTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The time in which a statement counts: from `not_before` up to, but without, `not_after`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Validity {
    /// The first second in which the statement counts.
    #[n(0)]
    pub not_before: UnixTime,
    /// The first second in which it does not count any more.
    #[n(1)]
    pub not_after: UnixTime,
}

/// A statement was used outside its validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValidityError {
    /// The validity begins later; the usual cause is a wrong clock.
    #[error("not valid before {0} (Unix time); check the clock")]
    NotYetValid(UnixTime),
    /// The validity has ended.
    #[error("expired at {0} (Unix time)")]
    Expired(UnixTime),
}

impl Validity {
    /// A validity that begins at `start` and lasts `seconds`.
    #[must_use]
    pub const fn starting(start: UnixTime, seconds: u64) -> Self {
        Self { not_before: start, not_after: start.plus(seconds) }
    }

    /// The length in seconds.
    #[must_use]
    pub const fn seconds(&self) -> u64 {
        self.not_after.since(self.not_before)
    }

    /// Whether the statement counts at `now`, with [`CLOCK_TOLERANCE`] at the beginning.
    ///
    /// # Errors
    /// Which end of the validity `now` lies beyond.
    pub fn check(&self, now: UnixTime) -> Result<(), ValidityError> {
        if now.plus(CLOCK_TOLERANCE) < self.not_before {
            return Err(ValidityError::NotYetValid(self.not_before));
        }
        if now >= self.not_after {
            return Err(ValidityError::Expired(self.not_after));
        }
        Ok(())
    }
}
