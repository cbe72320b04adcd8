//! Pings to ports that the peer's translator is expected to use next.
//!
//! A translator with dependent mapping gives each destination another port, so the addresses that servers
//! saw are of no use. If it counts, the peer says in its call-me-maybe where the count stood just before it
//! began to probe. What is made from then on is near: one of the next ports is the one that leads to us.
//!
//! If our own translator counts as well, each guess makes a mapping too, and both sides have to hit the
//! other's guess: ours comes from our nth port and must go to the peer's mth while its mth goes to our nth.
//! If nobody else made mappings, the first of ours goes to its first. Each mapping that somebody else makes
//! on either side shifts that by one. So one of the two sides tries all shifts, one after the other, and
//! both add what they know to have shifted themselves. Both begin together, which is a
//! [`rendezvous`](crate::rendezvous).
//!
//! If it does not count, the peer may have scattered sockets over its ports ([`scatter`](crate::scatter)): one in a few
//! hundred guesses at any port hits one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::budget::ProbeBudget;
use crate::translator::{FIRST_PORT, PortSequence};

/// Guesses of one attempt: as many as other mappings may be made meanwhile.
const GUESSES: u16 = 64;
/// The same at scattered sockets.
const SCATTERED_GUESSES: u16 = 1_024;
/// From one guess to the next; 100 a second are no load for the smallest router.
pub(crate) const GUESS_GAP: Duration = Duration::from_millis(10);
/// How far guesses may be behind the clock: as many as this has follow each other at once.
const CATCH_UP: Duration = Duration::from_millis(100);
/// Pings to announced addresses suffice for most translators: they get this much of a start.
const HEAD_START: Duration = Duration::from_millis(100);
/// Guesses for each shift.
const PER_SHIFT: u16 = 4;
/// The ports that translators give.
const PORTS: u32 = 65_536 - FIRST_PORT as u32;
/// From one guess at scattered sockets to the next, over all ports and round again. It has no divisor in common with
/// their number, so that none comes twice before all have come.
const STRIDE: u32 = 24_989;

/// How long the same announcement is not acted upon again.
const ATTEMPT_EVERY: Duration = Duration::from_secs(25);

/// Guessing at the ports of one peer.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    target: Option<Target>,
    /// When the latest attempt began.
    begun: Option<Instant>,
    next: Option<Instant>,
    /// Whether the budget has let the attempt begin.
    admitted: bool,
    /// Guesses at the present target, of all attempts.
    sent: u32,
    /// Guesses that are left to this attempt.
    left: u16,
}

/// How ports are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Attempt {
    /// Those that come next.
    Counted,
    /// Any.
    Scattered,
}

impl Attempt {
    /// How many guesses it has.
    pub(crate) fn guesses(self) -> u16 {
        match self {
            Self::Counted => GUESSES,
            Self::Scattered => SCATTERED_GUESSES,
        }
    }
}

/// What is guessed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The ports that come next.
    Counted(PortSequence),
    /// Any port of this address.
    Scattered(Ipv4Addr),
}

impl Target {
    fn attempt(self) -> Attempt {
        match self {
            Self::Counted(_) => Attempt::Counted,
            Self::Scattered(_) => Attempt::Scattered,
        }
    }

    /// The guess with this index.
    fn nth(self, index: u32, own: Option<OwnPorts>) -> Option<SocketAddr> {
        match self {
            Self::Counted(sequence) => {
                let index = u16::try_from(index).unwrap_or(u16::MAX);
                sequence.nth(guess(index, sequence, own))
            }
            Self::Scattered(at) => {
                let offset = index % PORTS * STRIDE % PORTS;
                let port = FIRST_PORT + u16::try_from(offset).expect("there are fewer ports");
                Some(SocketAddr::from((at, port)))
            }
        }
    }
}

/// What this device's own translator does with guesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPorts {
    pub(crate) sequence: PortSequence,
    /// Mappings that this device made since.
    pub(crate) taken: u16,
}

impl Guesses {
    /// The peer said how its translator counts, or that it does not. If our own may count as well, guesses
    /// begin with a [rendezvous](crate::rendezvous).
    pub(crate) fn handle_announcement(
        &mut self,
        peer: Option<PortSequence>,
        own_may_count: bool,
        now: Instant,
    ) {
        match (peer, self.target) {
            (Some(sequence), _) if own_may_count => {
                if self.next.is_none() {
                    self.target = Some(Target::Counted(sequence));
                }
            }
            (Some(sequence), _) => self.aim(Target::Counted(sequence), now),
            (None, Some(Target::Counted(_))) => {
                self.target = None;
                self.stop();
            }
            (None, Some(Target::Scattered(_)) | None) => {}
        }
    }

    /// The peer has scattered sockets over the ports of its translator, for which the budget has kept a place.
    pub(crate) fn handle_scattered(&mut self, at: Ipv4Addr, now: Instant) {
        let target = Target::Scattered(at);
        if self.target.replace(target) != Some(target) {
            self.sent = 0;
        }
        self.begin(now, now);
    }

    /// Both ends know where the other's count stands, and the budget has let this attempt begin.
    pub(crate) fn meet(&mut self, peer: PortSequence, now: Instant) {
        (self.target, self.sent) = (Some(Target::Counted(peer)), 0);
        self.begin(now, now);
        self.admitted = true;
    }

    fn aim(&mut self, target: Target, now: Instant) {
        if self.target.replace(target) != Some(target) {
            self.sent = 0;
            self.begin(now, now + HEAD_START);
        } else if self.begun.is_none_or(|begun| now >= begun + ATTEMPT_EVERY) {
            // What was not found is further on.
            self.begin(now, now);
        }
    }

    fn begin(&mut self, now: Instant, first: Instant) {
        (self.begun, self.next, self.admitted) = (Some(now), Some(first), false);
        self.left = self.target.map_or(0, |target| target.attempt().guesses());
    }

    /// How the peer's translator counts, if it does.
    pub(crate) fn counted(&self) -> Option<PortSequence> {
        match self.target? {
            Target::Counted(sequence) => Some(sequence),
            Target::Scattered(_) => None,
        }
    }

    /// Ends the attempt.
    pub(crate) fn stop(&mut self) {
        self.next = None;
    }

    /// When the next guess is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.next
    }

    /// The next guess, if one is due and the budget has room for the attempt.
    pub(crate) fn next(
        &mut self,
        own: Option<OwnPorts>,
        budget: &mut ProbeBudget,
        now: Instant,
    ) -> Option<SocketAddr> {
        let due = self.next.filter(|at| *at <= now)?;
        let target = self.target?;
        if !self.admitted {
            match target {
                Target::Counted(sequence) => {
                    if let Err(again) = budget.begin_counted(sequence.last.ip(), now) {
                        self.next = again;
                        return None;
                    }
                }
                Target::Scattered(_) => budget.begin_reserved(now),
            }
            self.admitted = true;
        }
        let guess = target.nth(self.sent, own);
        self.sent = self.sent.wrapping_add(1);
        self.left = self.left.saturating_sub(1);
        // What came late is made up for, but not all at once.
        let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
        self.next = (self.left > 0).then(|| earliest.max(due + GUESS_GAP));
        guess
    }
}

/// Which of the peer's next mappings the guess with this index is at.
fn guess(index: u16, peer: PortSequence, own: Option<OwnPorts>) -> u16 {
    let first = index.saturating_add(1);
    let Some(own) = own else { return first };
    let shift = if own.sequence.last > peer.last { index / PER_SHIFT } else { 0 };
    first.saturating_add(own.taken).saturating_add(shift)
}
