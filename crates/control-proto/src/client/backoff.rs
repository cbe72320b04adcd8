//! Pauses between attempts, with jitter so that a thousand nodes do not come back at once.

use std::time::Duration;

use rand_core::CryptoRng;

use crate::limits::{RECONNECT_FIRST, RECONNECT_LONGEST};

#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Doubles with each failure up to the longest pause; a random half of it is waited.
    pub(crate) fn next(&mut self, rng: &mut dyn CryptoRng) -> Duration {
        let full =
            RECONNECT_FIRST.saturating_mul(1 << self.failures.min(16)).min(RECONNECT_LONGEST);
        self.failures = self.failures.saturating_add(1);
        jittered(full, rng)
    }

    pub(crate) const fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Between half of `full` and `full`.
pub(crate) fn jittered(full: Duration, rng: &mut dyn CryptoRng) -> Duration {
    let mut byte = [0; 2];
    rng.fill_bytes(&mut byte);
    let half = full / 2;
    half + half * u32::from(u16::from_be_bytes(byte)) / u32::from(u16::MAX)
}
