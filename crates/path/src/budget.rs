//! How many unasked-for packets one address may receive from us.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Probes in a row: enough for two bursts of hole punching.
const BURST: u32 = 12;
/// One further probe each time this has passed.
const REFILL: Duration = Duration::from_secs(1);
/// Destinations remembered at once; full buckets are forgotten first.
const MAX_DESTINATIONS: usize = 4_096;

/// A token bucket per destination, shared by all agents of a node.
///
/// Any number of members can name the same victim as their candidate, so the limit is kept by
/// destination and not by peer. Paths that have answered do not draw from it.
#[derive(Debug, Default)]
pub struct ProbeBudget {
    buckets: BTreeMap<SocketAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: u32,
    refilled: Instant,
}

impl Bucket {
    fn refill(&mut self, now: Instant) {
        let periods = now.saturating_duration_since(self.refilled).as_secs() / REFILL.as_secs();
        let earned = u32::try_from(periods).unwrap_or(BURST).min(BURST);
        self.tokens = (self.tokens + earned).min(BURST);
        self.refilled += REFILL * earned;
        if self.tokens == BURST {
            self.refilled = now;
        }
    }
}

impl ProbeBudget {
    /// A budget of which nothing is spent.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one packet to this destination out of the budget; false if there is none left.
    pub fn take(&mut self, destination: SocketAddr, now: Instant) -> bool {
        if !self.buckets.contains_key(&destination) && self.buckets.len() >= MAX_DESTINATIONS {
            self.forget_full(now);
            if self.buckets.len() >= MAX_DESTINATIONS {
                return false;
            }
        }
        let bucket = self
            .buckets
            .entry(destination)
            .or_insert_with(|| Bucket { tokens: BURST, refilled: now });
        bucket.refill(now);
        match bucket.tokens.checked_sub(1) {
            Some(rest) => {
                bucket.tokens = rest;
                true
            }
            None => false,
        }
    }

    fn forget_full(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < BURST
        });
    }
}
