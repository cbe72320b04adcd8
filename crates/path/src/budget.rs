//! How many unasked-for packets one address may receive from us.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::guesses::{Attempt, GUESS_GAP};
use crate::rendezvous::STILL;
use crate::scatter::RESERVED;

/// Probes in a row: enough for two bursts of hole punching.
const BURST: u32 = 12;
/// One further probe each time this has passed.
const REFILL: Duration = Duration::from_secs(1);
/// Destinations remembered at once; full buckets are forgotten first.
const MAX_DESTINATIONS: usize = 4_096;
/// Attempts at the counted ports of one address ...
const COUNTED_ATTEMPTS: u32 = 6;
/// ... and at the scattered ones ...
const SCATTERED_ATTEMPTS: u32 = 4;
/// ... within this: 384 and 4,096 small packets in an hour, whoever names the address.
const ATTEMPTS_WITHIN: Duration = Duration::from_secs(3_600);
/// Addresses at whose ports were guessed, remembered at once.
const MAX_GUESSED: usize = 1_024;
/// Guesses at the ports of all addresses together ...
const GUESSES: u32 = 3_072;
/// ... within this: each makes a mapping in the router in front of this device, which forgets it about then (RFC 4787, REQ-5), and
/// home routers have room for some thousands.
const GUESSES_WITHIN: Duration = Duration::from_secs(120);

/// A token bucket per destination, shared by all agents of a node in one network.
///
/// Any number of members can name the same victim as their candidate, so the limit is kept by
/// destination and not by peer. Paths that have answered do not draw from it. Guesses at ports have a
/// limit for each address and one for all together, and only one attempt of each kind is on at a time.
#[derive(Debug, Default)]
pub struct ProbeBudget {
    buckets: BTreeMap<SocketAddr, Bucket>,
    guessed: BTreeMap<(IpAddr, Attempt), Guessed>,
    /// Until when an attempt of each kind is on.
    guessing: BTreeMap<Attempt, Instant>,
    /// The attempts of the last minutes.
    lately: VecDeque<(Instant, Attempt)>,
    /// Until when this device has sockets open by which a peer may find it, or is about to.
    scattered_until: Option<Instant>,
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

    /// Lets an agent ask its peer to guess at sockets of this device; false if there is another such attempt.
    pub(crate) fn begin_scattering(&mut self, now: Instant) -> bool {
        let is_free = self.scattered_until.is_none_or(|until| until <= now);
        if is_free {
            self.scattered_until = Some(now + RESERVED);
        }
        is_free
    }

    /// Sockets were opened for a peer, and stay open until then; nothing if they are closed.
    pub fn handle_scattered(&mut self, until: Option<Instant>) {
        self.scattered_until = until;
    }

    /// Keeps guesses at other scattered sockets back for [`RESERVED`], in which a peer opens those at this address; false if
    /// some are on, or the address has had enough.
    pub(crate) fn reserve_guesses(&mut self, at: IpAddr, now: Instant) -> bool {
        let is_free = self.until(Attempt::Scattered, now).is_none()
            && self.room_from(Attempt::Scattered, now) <= now
            && self.count_attempt(at, Attempt::Scattered, now);
        if is_free {
            self.guessing.insert(Attempt::Scattered, now + RESERVED);
        }
        is_free
    }

    /// The guesses begin for which they were kept back.
    pub(crate) fn begin_reserved(&mut self, now: Instant) {
        self.guessing.insert(Attempt::Scattered, now + time_of(Attempt::Scattered));
    }

    /// Lets an attempt at the counted ports of an address begin.
    ///
    /// # Errors
    /// When to ask again, if another attempt is on; nothing if this address has had enough.
    pub(crate) fn begin_counted(
        &mut self,
        at: IpAddr,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        self.has_room(at, now)?;
        self.begin_met(at, now);
        Ok(())
    }

    /// Keeps guesses at other counted ports back while this device and a peer find out where their counts stand.
    ///
    /// # Errors
    /// As for [`Self::begin_counted`].
    pub(crate) fn begin_rendezvous(
        &mut self,
        at: IpAddr,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        self.has_room(at, now)?;
        self.guessing.insert(Attempt::Counted, now + STILL);
        Ok(())
    }

    /// The guesses begin for which they were kept back.
    pub(crate) fn begin_met(&mut self, at: IpAddr, now: Instant) {
        self.count_attempt(at, Attempt::Counted, now);
        self.guessing.insert(Attempt::Counted, now + time_of(Attempt::Counted));
    }

    /// They do not begin, for which they were kept back then. Others may be on since.
    pub(crate) fn end_rendezvous(&mut self, begun: Instant) {
        if self.guessing.get(&Attempt::Counted) == Some(&(begun + STILL)) {
            self.guessing.remove(&Attempt::Counted);
        }
    }

    fn has_room(&mut self, at: IpAddr, now: Instant) -> Result<(), Option<Instant>> {
        let room_from = self.room_from(Attempt::Counted, now);
        match self.until(Attempt::Counted, now) {
            Some(until) => Err(Some(until)),
            None if room_from > now => Err(Some(room_from)),
            None if self.has_attempts(at, Attempt::Counted, now) => Ok(()),
            None => Err(None),
        }
    }

    /// From when on there is room for one more attempt, whoever it is at.
    fn room_from(&mut self, attempt: Attempt, now: Instant) -> Instant {
        while self.lately.front().is_some_and(|(at, _)| now >= *at + GUESSES_WITHIN) {
            self.lately.pop_front();
        }
        let guesses = |one: Attempt| u32::from(one.guesses());
        let mut spent: u32 = self.lately.iter().map(|(_, one)| guesses(*one)).sum();
        let mut from = now;
        for (at, one) in &self.lately {
            if spent + guesses(attempt) <= GUESSES {
                break;
            }
            spent -= guesses(*one);
            from = *at + GUESSES_WITHIN;
        }
        from
    }

    /// Until when another attempt is on.
    fn until(&self, attempt: Attempt, now: Instant) -> Option<Instant> {
        self.guessing.get(&attempt).copied().filter(|until| *until > now)
    }

    /// Counts an attempt at an address; false if that has had enough.
    fn count_attempt(&mut self, at: IpAddr, attempt: Attempt, now: Instant) -> bool {
        let may = self.has_attempts(at, attempt, now);
        if may {
            let new = Guessed { since: now, attempts: 0 };
            self.guessed.entry((at, attempt)).or_insert(new).attempts += 1;
            self.lately.push_back((now, attempt));
        }
        may
    }

    fn has_attempts(&mut self, at: IpAddr, attempt: Attempt, now: Instant) -> bool {
        self.guessed.retain(|_, guessed| now < guessed.since + ATTEMPTS_WITHIN);
        let most = match attempt {
            Attempt::Counted => COUNTED_ATTEMPTS,
            Attempt::Scattered => SCATTERED_ATTEMPTS,
        };
        let has_place = self.guessed.len() < MAX_GUESSED;
        self.guessed.get(&(at, attempt)).map_or(has_place, |guessed| guessed.attempts < most)
    }

    fn forget_full(&mut self, now: Instant) {
        self.buckets.retain(|_, bucket| {
            bucket.refill(now);
            bucket.tokens < BURST
        });
    }
}

/// How long the guesses of an attempt take.
fn time_of(attempt: Attempt) -> Duration {
    GUESS_GAP * u32::from(attempt.guesses())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_addresses_are_guessed_at_a_router_makes_so_many_mappings_and_no_more() {
        let (mut budget, begin) = (ProbeBudget::new(), Instant::now());
        let mut guesses = VecDeque::new();
        let mut met = [0_u32; 2];
        for second in 0..1_800 {
            let now = begin + Duration::from_secs(second);
            let number = u32::try_from(second).expect("few");
            let at = |net: u32| IpAddr::V4((0xcb00_0000 + (net << 16) + number).into());
            if budget.reserve_guesses(at(0), now) {
                guesses.push_back((now, Attempt::Scattered.guesses()));
                met[0] += 1;
            }
            match budget.begin_counted(at(1), now) {
                Ok(()) => {
                    guesses.push_back((now, Attempt::Counted.guesses()));
                    met[1] += 1;
                }
                Err(again) => assert!(again.is_some_and(|again| again > now), "it is tried again"),
            }
            guesses.retain(|(at, _)| now < *at + GUESSES_WITHIN);
            let all: u32 = guesses.iter().map(|(_, count)| u32::from(*count)).sum();
            assert!(all <= GUESSES, "{all} after {second} s");
        }
        assert!(met.iter().all(|met| *met > 10), "both kinds get their turns: {met:?}");
    }
}
