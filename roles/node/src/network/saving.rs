//! Keeping what the engine wants to remember, also where the disk is full for a while.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::memory::MemoryError;

/// Between two attempts while the disk takes nothing.
const AGAIN: Duration = Duration::from_secs(10);

/// Whether the disk takes what the engine wants to remember.
#[derive(Debug, Default)]
pub(super) struct Saving {
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    again_at: Instant,
}

impl Saving {
    /// Takes note of an attempt; says so when its outcome is another than before.
    pub(super) fn note(&mut self, network: &str, result: Result<(), MemoryError>, now: Instant) {
        match (result, &self.failure) {
            (Ok(()), None) => {}
            (Ok(()), Some(_)) => {
                info!(network, "the network's state is kept again");
                self.failure = None;
            }
            (Err(error), before) => {
                if before.is_none() {
                    warn!(network, %error, "the network's state cannot be kept and is tried again; is the disk full?");
                }
                self.failure = Some(Failure { reason: error.to_string(), again_at: now + AGAIN });
            }
        }
    }

    /// When to try again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.failure.as_ref().map(|failure| failure.again_at)
    }

    /// What to do about it, for `status`.
    pub(super) fn advice(&self) -> Option<String> {
        self.failure.as_ref().map(|failure| {
            format!(
                "what this device learns about the network is lost if it restarts now, since it cannot be \
                 kept ({}); make room on the disk",
                failure.reason
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_cannot_be_kept_is_told_and_tried_again_until_it_can() {
        let (mut saving, now) = (Saving::default(), Instant::now());
        saving.note("home", Ok(()), now);
        assert_eq!((saving.again_at(), saving.advice()), (None, None));
        saving.note("home", Err(MemoryError::Damaged("state".to_owned())), now);
        assert_eq!(saving.again_at(), Some(now + AGAIN));
        assert!(saving.advice().is_some_and(|advice| advice.ends_with("make room on the disk")));
        saving.note("home", Ok(()), now + AGAIN);
        assert_eq!((saving.again_at(), saving.advice()), (None, None));
    }
}
