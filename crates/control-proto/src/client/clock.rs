//! The network's time, as far as this device can know it.

use std::time::Instant;

use identity::UnixTime;
use noise_channel::{ClockOffset, Now, UnixMillis};

/// The local clock, corrected by what the controller said of it.
///
/// Somebody may set the local clock while the program runs. Once the controller has agreed to a time, the network's time is at
/// least that and what has passed since on the monotonic clock, which nobody can set: a clock that is set back costs nothing. One
/// that is set forward may be right, since the monotonic clock stands still while a device sleeps.
#[derive(Debug)]
pub(super) struct NetworkClock {
    offset: ClockOffset,
    agreed: Option<Now>,
}

impl NetworkClock {
    pub(super) const fn new(offset: ClockOffset) -> Self {
        Self { offset, agreed: None }
    }

    /// What is to be added to the local clock.
    pub(super) const fn offset(&self) -> ClockOffset {
        self.offset
    }

    /// The controller said what time it is.
    pub(super) fn handle_skew(&mut self, theirs: UnixMillis, now: Now) {
        self.offset = ClockOffset::between(now.wall, theirs);
        self.handle_agreement(now);
    }

    /// The controller did not object to the time.
    pub(super) fn handle_agreement(&mut self, now: Now) {
        self.agreed = Some(Now { wall: now.wall.with_offset(self.offset), ..now });
    }

    /// An earlier run knew that it is at least so late.
    pub(super) fn handle_memory(&mut self, least: UnixMillis, now: Instant) {
        self.agreed = Some(Now { instant: now, wall: least });
    }

    /// The least that the network's time can be, if anybody has ever said.
    pub(super) fn least(&self, now: Instant) -> Option<UnixMillis> {
        let agreed = self.agreed?;
        Some(agreed.after(now.saturating_duration_since(agreed.instant)).wall)
    }

    pub(super) fn wall(&self, now: Now) -> UnixTime {
        let local = now.wall.with_offset(self.offset);
        let least = self.least(now.instant).unwrap_or(local);
        UnixTime(local.max(least).as_secs())
    }
}
