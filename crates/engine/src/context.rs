//! What every step of the engine gets from outside.

use std::time::Instant;

use noise_channel::Now;
use rand_core::CryptoRng;

/// Time and randomness for one call into the engine.
pub(crate) struct Context<'a> {
    pub(crate) rng: &'a mut dyn CryptoRng,
    pub(crate) now: Now,
}

impl Context<'_> {
    pub(crate) fn instant(&self) -> Instant {
        self.now.instant
    }
}
