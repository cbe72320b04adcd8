//! Many sockets at one end, and guesses at their ports by the other.
//!
//! A translator that gives each destination a port at random leaves nothing to count. But if the other end keeps one port
//! for all destinations, this one can send there from many sockets, each of which is given a port of its own; and the
//! other pings ports at random until it hits one of them, as few people suffice for two with one birthday.

use std::time::{Duration, Instant};

/// Sockets that one attempt opens. With as many guesses as the other end makes, 98 of a hundred attempts succeed where
/// ports are taken from all above 1,023: 1 - (1 - 256 / 64,512)^1,024.
pub const SOCKETS: u32 = 256;
/// For how long sockets are kept that nothing came to: the guesses take ten seconds.
pub const SOCKETS_KEPT: Duration = Duration::from_secs(13);
/// Traffic has to lack a direct path for so long: most are found sooner, and with less.
const LACKING: Duration = Duration::from_secs(5);
/// From one attempt to the next at the same peer.
const AGAIN: Duration = Duration::from_secs(600);
/// The same if it does not answer, because it has nothing to say to this device yet, or another peer's attempt is on.
const POSTPONED: Duration = Duration::from_secs(6);

/// A peer is answered once in this time.
const ANSWER_PAUSE: Duration = Duration::from_secs(4);

/// Attempts to be found by one peer, behind a translator with ports at random.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    lacking_since: Option<Instant>,
    again: Option<Instant>,
    /// Whether an answer of the peer is waited for.
    asked: bool,
    /// When the peer asked.
    question: Option<Instant>,
    answered: Option<Instant>,
}

impl Scatter {
    /// Whether the peer is to be asked now if it can find this device so. `lacking` says whether there is need.
    pub(crate) fn take_question(&mut self, lacking: bool, now: Instant) -> bool {
        if !lacking {
            self.lacking_since = None;
            return false;
        }
        self.lacking_since.get_or_insert(now);
        let is_due = self.asks_next().is_some_and(|at| at <= now);
        if is_due {
            (self.again, self.asked) = (Some(now + POSTPONED), true);
        }
        is_due
    }

    /// What was to come of the question has to wait.
    pub(crate) fn postpone(&mut self, now: Instant) {
        self.again = Some(now + POSTPONED);
    }

    /// Whether an answer was waited for.
    pub(crate) fn take_answer(&mut self, now: Instant) -> bool {
        if self.asked {
            self.again = Some(now + AGAIN);
        }
        std::mem::take(&mut self.asked)
    }

    /// The peer asks what this device was asked for.
    pub(crate) fn handle_question(&mut self, now: Instant) {
        if self.answered.is_none_or(|answered| now >= answered + ANSWER_PAUSE) {
            self.question = Some(now);
        }
    }

    /// Whether the peer has asked.
    pub(crate) fn take_question_of_peer(&mut self, now: Instant) -> bool {
        let has_asked = self.question.take().is_some();
        if has_asked {
            self.answered = Some(now);
        }
        has_asked
    }

    /// When there is something to ask or to answer, if there is still need then.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.question, self.asks_next()].into_iter().flatten().min()
    }

    fn asks_next(&self) -> Option<Instant> {
        let earliest = self.lacking_since? + LACKING;
        Some(self.again.map_or(earliest, |again| again.max(earliest)))
    }

    /// In another network everything may be different.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}
