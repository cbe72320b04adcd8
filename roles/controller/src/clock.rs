//! Time and randomness of the operating system.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use control_proto::{Now, UnixMillis};
use getrandom::SysRng;
use rand_core::UnwrapErr;

/// This moment on both clocks.
pub(crate) fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall = UnixMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX));
    Now { instant: Instant::now(), wall }
}

/// The operating system's randomness, which does not fail once the system is up.
pub(crate) const fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}
