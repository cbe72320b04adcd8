//! How many unasked-for packets one address may receive from us.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::guesses::{Attempt, GUESS_GAP};

/// Probes in a row: enough for two bursts of hole punching.
const BURST: u32 = 12;
/// One further probe each time this has passed.
const REFILL: Duration = Duration::from_secs(1);
/// Destinations remembered at once; full buckets are forgotten first.
const MAX_DESTINATIONS: usize = 4_096;
/// Attempts at the counted ports of one address ...
const COUNTED_ATTEMPTS: u32 = 6;
/// ... and at the scattered ones ...
const SCATTERED_ATTEMPTS: u32 = 2;
/// ... within this: 384 and 2,048 small packets in an hour, whoever names the address.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(3_600);
/// An attempt for which a peer gets ready begins within this, or others may: a few round trips over relays.
const RESERVED: Duration = Duration::from_secs(1);
/// Addresses at whose ports were guessed, remembered at once.
const MAX_GUESSED: usize = 1_024;

/// A token bucket per destination, shared by all agents of a node.
///
/// Any number of members can name the same victim as their candidate, so the limit is kept by
/// destination and not by peer. Paths that have answered do not draw from it. Guesses at ports have a
/// limit for each address, and only one attempt is on at a time, which bounds their rate.
#[derive(Debug, Default)]
pub struct ProbeBudget {
    buckets: BTreeMap<SocketAddr, Bucket>,
    guessed: BTreeMap<(IpAddr, Attempt), Guessed>,
    guessing_until: Option<Instant>,
}

/// Attempts at one address, and since when they are counted.
#[derive(Debug)]
struct Guessed {
    since: Instant,
    attempts: u32,
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

    /// Keeps the guesses of other attempts back for a moment, in which a peer is asked to get ready for one; false if one is
    /// on.
    pub(crate) fn reserve_guesses(&mut self, now: Instant) -> bool {
        let is_free = self.guessing_until.is_none_or(|until| until <= now);
        if is_free {
            self.guessing_until = Some(now + RESERVED);
        }
        is_free
    }

    /// Lets an attempt at the ports of an address begin.
    ///
    /// # Errors
    /// When to ask again, if another attempt is on; nothing if this address has had enough.
    pub(crate) fn begin_guesses(
        &mut self,
        at: IpAddr,
        attempt: Attempt,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        if let Some(until) = self.guessing_until.filter(|until| *until > now) {
            return Err(Some(until));
        }
        self.guessed.retain(|_, guessed| now < guessed.since + ATTEMPTS_WITHIN);
        let (key, most) = match attempt {
            Attempt::Counted => ((at, attempt), COUNTED_ATTEMPTS),
            Attempt::Scattered => ((at, attempt), SCATTERED_ATTEMPTS),
        };
        if !self.guessed.contains_key(&key) && self.guessed.len() >= MAX_GUESSED {
            return Err(None);
        }
        let guessed = self.guessed.entry(key).or_insert(Guessed { since: now, attempts: 0 });
        if guessed.attempts >= most {
            return Err(None);
        }
        guessed.attempts += 1;
        self.guessing_until = Some(now + GUESS_GAP * u32::from(attempt.guesses()));
        Ok(())
    }

    fn forget_full(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < BURST
        });
    }
}
