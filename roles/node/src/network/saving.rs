//! Keeping what the engine wants to remember, also where the disk is full for a while.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::StatePart;
use tracing::{info, warn};

use crate::memory::MemoryError;

/// Between two attempts while the disk takes nothing.
const AGAIN: Duration = Duration::from_secs(10);

/// Whether the disk takes what the engine wants to remember.
#[derive(Debug, Default)]
pub(super) struct Saving {
    /// The parts that it has not taken.
    failures: BTreeMap<StatePart, Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    again_at: Instant,
}

impl Saving {
    /// Takes note of an attempt; says so when all is kept again, or is not any more.
    pub(super) fn note(
        &mut self,
        network: &str,
        (part, result): (StatePart, Result<(), MemoryError>),
        now: Instant,
    ) {
        match result {
            Ok(()) => {
                if self.failures.remove(&part).is_some() && self.failures.is_empty() {
                    info!(network, "the network's state is kept again");
                }
            }
            Err(error) => {
                if self.failures.is_empty() {
                    warn!(network, %error, "the network's state cannot be kept and is tried again; is the disk full?");
                }
                let failure = Failure { reason: error.to_string(), again_at: now + AGAIN };
                self.failures.insert(part, failure);
            }
        }
    }

    /// When to try again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        self.failures.values().map(|failure| failure.again_at).min()
    }

    /// What to do about it, for `status`.
    pub(super) fn advice(&self) -> Option<String> {
        self.failures.values().next().map(|failure| {
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
        let full = || Err(MemoryError::Damaged("state".to_owned()));
        saving.note("home", (StatePart::Own, Ok(())), now);
        assert_eq!((saving.again_at(), saving.advice()), (None, None));
        saving.note("home", (StatePart::Map, full()), now);
        saving.note("home", (StatePart::Own, full()), now + AGAIN / 2);
        assert_eq!(saving.again_at(), Some(now + AGAIN));
        saving.note("home", (StatePart::Own, Ok(())), now + AGAIN);
        assert_eq!(saving.again_at(), Some(now + AGAIN), "the map is not kept yet");
        assert!(saving.advice().is_some_and(|advice| advice.ends_with("make room on the disk")));
        saving.note("home", (StatePart::Map, Ok(())), now + AGAIN);
        assert_eq!((saving.again_at(), saving.advice()), (None, None));
    }
}
