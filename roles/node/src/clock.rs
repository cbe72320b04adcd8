//! The present.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use noise_channel::{Now, UnixMillis};

/// Where a node reads the time of day. The system's clock by default; another one shows how a device
/// fares whose clock is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub fn() -> SystemTime);

impl Default for Clock {
    fn default() -> Self {
        Self(SystemTime::now)
    }
}

impl Clock {
    /// The present on both clocks.
    pub(crate) fn now(self) -> Now {
        let since = (self.0)().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Now { instant: Instant::now(), wall: UnixMillis(millis) }
    }
}
