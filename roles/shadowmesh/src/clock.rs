//! Time and randomness of the operating system.

use std::time::{SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use identity::UnixTime;
use rand_core::UnwrapErr;

/// Seconds since the Unix epoch.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// The operating system's randomness; without it nothing here may go on.
pub(crate) const fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
