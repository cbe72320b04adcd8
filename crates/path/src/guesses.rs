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
//! both add what they know to have shifted themselves.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::budget::ProbeBudget;
use crate::translator::PortSequence;

/// Guesses of one attempt: as many as other mappings may be made meanwhile.
pub(crate) const GUESSES: u16 = 64;
/// From one guess to the next; 100 a second are no load for the smallest router.
pub(crate) const GUESS_GAP: Duration = Duration::from_millis(10);
/// Pings to announced addresses suffice for most translators: they get this much of a start.
const HEAD_START: Duration = Duration::from_millis(100);
/// Guesses for each shift.
const PER_SHIFT: u16 = 4;

/// How long the same announcement is not acted upon again, and a new survey waits.
pub(crate) const ATTEMPT_EVERY: Duration = Duration::from_secs(25);

/// Guessing at the ports of one peer.
#[derive(Debug, Default)]
pub(crate) struct Guesses {
    peer: Option<PortSequence>,
    /// When the latest attempt began.
    begun: Option<Instant>,
    next: Option<Instant>,
    /// Whether the budget has let the attempt begin.
    admitted: bool,
    /// Guesses at the present sequence, of all attempts.
    sent: u16,
}

/// What this device's own translator does with guesses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnPorts {
    pub(crate) sequence: PortSequence,
    /// Mappings that this device made since.
    pub(crate) taken: u16,
}

impl Guesses {
    /// The peer said how its translator counts, or that it does not.
    pub(crate) fn handle_announcement(&mut self, peer: Option<PortSequence>, now: Instant) {
        let is_known = self.peer == peer;
        self.peer = peer;
        if peer.is_none() {
            self.stop();
        } else if !is_known {
            (self.sent, self.begun, self.next) = (0, Some(now), Some(now + HEAD_START));
            self.admitted = false;
        } else if self.begun.is_none_or(|begun| now >= begun + ATTEMPT_EVERY) {
            // Its port towards us is still the one that was not found: it is further on.
            (self.begun, self.next, self.admitted) = (Some(now), Some(now), false);
        }
    }

    /// Whether the peer's translator counts.
    pub(crate) fn is_counted(&self) -> bool {
        self.peer.is_some()
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
        self.next.filter(|at| *at <= now)?;
        let peer = self.peer?;
        if !self.admitted {
            match budget.begin_guesses(peer.last.ip(), now) {
                Ok(()) => self.admitted = true,
                Err(again) => {
                    self.next = again;
                    return None;
                }
            }
        }
        let number = guess(self.sent, peer, own);
        self.sent = self.sent.saturating_add(1);
        self.next = (!self.sent.is_multiple_of(GUESSES)).then_some(now + GUESS_GAP);
        peer.nth(number)
    }
}

/// Which of the peer's next mappings the guess with this index is at.
fn guess(index: u16, peer: PortSequence, own: Option<OwnPorts>) -> u16 {
    let first = index.saturating_add(1);
    let Some(own) = own else { return first };
    let shift = if own.sequence.last > peer.last { index / PER_SHIFT } else { 0 };
    first.saturating_add(own.taken).saturating_add(shift)
}
