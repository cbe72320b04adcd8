//! The limits of machines as data; each constant carries the reason for its value.

use std::time::Duration;

/// A timer rings after this at the soonest: finer than what the network does to times, and too seldom to keep a processor busy.
/// What comes is held back at once all the same.
pub const SHORTEST_WAIT: Duration = Duration::from_millis(1);

/// What waits while nothing leaves waits no longer, and for as long afterwards nothing is held back: several distances of
/// a constant rate that people can work with, and a tenth of what they take for a pause (Nielsen, Usability Engineering,
/// 1993).
pub const LONGEST_HOLD: Duration = Duration::from_millis(100);

/// Dummies that are taken in one second at most: three megabits, more than a preset sends. Seconds are counted from the first
/// dummy after the one before, so that a second of somebody else's clock may have those of two.
pub const DUMMIES_PER_SECOND: u32 = 250;

/// Dummies that wait for a slow stream, or until what is held back may leave: further ones would say nothing more.
pub const DUMMIES_WAITING: u32 = 32;

/// How often machines may answer to what their own answers cause, each time something happens: as many as there are, twice.
pub(crate) const ROUNDS: usize = 2 * identity::MAX_MACHINES;

/// States of a machine, of which those that are published have a hundred at most.
pub(crate) const MAX_STATES: usize = 256;

/// Transitions of a machine, all of which are looked at whenever a link begins: eight for each state that it may have.
pub(crate) const MAX_TRANSITIONS: usize = 2_048;

/// Dummies of a machine that no fraction limits: those of a few loads of a page.
pub(crate) const MAX_ALLOWED_DUMMIES: u64 = 10_000;

/// Time during which a machine holds back that no fraction limits, in microseconds.
pub(crate) const MAX_ALLOWED_BLOCKING: u64 = 60_000_000;

/// Of all messages, dummies are at most this part beyond what is allowed.
pub(crate) const PADDING_FRACTION: f64 = 0.9;

/// Of all time, messages may be held back for at most this part beyond what is allowed; to put another hold in the place of
/// one that goes on is always allowed, and bounded by [`LONGEST_HOLD`] alone.
pub(crate) const BLOCKING_FRACTION: f64 = 0.9;

/// Parameters of distributions have at most this magnitude: a day in microseconds is a tenth of it.
pub(crate) const LARGEST_PARAMETER: f64 = 1e12;

/// Shapes and probabilities are at least this, so that no sampling by rejection goes on and on.
pub(crate) const SMALLEST_SHAPE: f64 = 0.01;
