//! Time and randomness of the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use control_proto::UnixMillis;
use getrandom::SysRng;
use identity::UnixTime;
use rand_core::UnwrapErr;

/// Seconds since the Unix epoch.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime(unix_millis().as_secs())
}

/// Milliseconds since the Unix epoch.
pub(crate) fn unix_millis() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The operating system's randomness; without it nothing here may go on.
pub(crate) const fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
