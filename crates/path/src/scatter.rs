//! Many sockets at one end, and guesses at their ports by the other.
//!
//! A translator that gives each destination a port at random leaves nothing to count. But if the other end keeps one port
//! for all destinations, this one can send there from many sockets, each of which is given a port of its own; and the
//! other pings ports at random until it hits one of them, as few people suffice for two with one birthday.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Sockets that one attempt opens. With as many guesses as the other end makes, 98 of a hundred attempts succeed where
/// ports are taken from all above 1,023: 1 - (1 - 256 / 64,512)^1,024.
pub const SOCKETS: u32 = 256;
/// For how long sockets are kept that nothing came to: the guesses take ten seconds, and begin within two.
pub const SOCKETS_KEPT: Duration = Duration::from_secs(13);
/// Within what time the peer's sockets have to be open after this device has let it open them: a few round trips over relays.
pub(crate) const RESERVED: Duration = Duration::from_secs(2);
/// Traffic has to lack a direct path for so long: most are found sooner, and with less.
const LACKING: Duration = Duration::from_secs(5);
/// From one attempt to the next at the same peer, ...
const AGAIN: Duration = Duration::from_secs(1_800);
/// ... if this device is in another network since, ...
const AGAIN_ELSEWHERE: Duration = Duration::from_secs(60);
/// ... and if the peer does not answer, because it has nothing to say to this device yet, or another attempt is on;
/// twice as much after each question, up to the limit.
const POSTPONED: Duration = Duration::from_secs(6);
const POSTPONED_LONGEST: Duration = Duration::from_secs(96);
/// The peer is asked so much later if another one is being asked or scattered for: no multiple of the time above.
const NEXT_TURN: Duration = Duration::from_secs(4);
/// From one attempt of a peer to be found by this device to the next.
const AGAIN_OF_PEER: Duration = Duration::from_secs(120);

/// Attempts to be found by one peer, behind a translator with ports at random, and to find it there.
#[derive(Debug, Default)]
pub(crate) struct Scatter {
    lacking_since: Option<Instant>,
    again: Option<Instant>,
    /// Whether an answer of the peer is waited for.
    asked: bool,
    /// Whether the peer's translator gives each destination another port too, by its latest answer.
    is_peer_unsteady: bool,
    /// Questions since the latest answer.
    unanswered: u32,
    /// When the latest attempt began.
    begun: Option<Instant>,
    /// When the peer asked, and at which address it is to be found.
    question: Option<(Instant, Ipv4Addr)>,
    /// When it was let open sockets.
    answered: Option<Instant>,
    /// Where they are expected, and until when.
    expected: Option<(Ipv4Addr, Instant)>,
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
            let longest = (POSTPONED_LONGEST.as_secs() / POSTPONED.as_secs()).ilog2();
            let pause = POSTPONED * 2_u32.pow(self.unanswered.min(longest));
            (self.again, self.asked) = (Some(now + pause), true);
            self.unanswered += 1;
        }
        is_due
    }

    /// What was to come of the question has to wait.
    pub(crate) fn postpone(&mut self, now: Instant) {
        (self.again, self.asked) = (Some(now + POSTPONED), false);
    }

    /// Another peer's turn is on.
    pub(crate) fn wait_for_turn(&mut self, now: Instant) {
        (self.again, self.asked) = (Some(now + NEXT_TURN), false);
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Whether the peer's translator is known to give each destination another port, as this device's does.
    pub(crate) fn is_peer_unsteady(&self) -> bool {
        self.is_peer_unsteady
    }

    /// Whether an answer was waited for; it says whether the peer's translator keeps one port.
    pub(crate) fn take_answer(&mut self, is_steady: bool, now: Instant) -> bool {
        if self.asked {
            self.is_peer_unsteady = !is_steady;
            (self.again, self.begun, self.unanswered) = (Some(now + AGAIN), Some(now), 0);
        }
        std::mem::take(&mut self.asked)
    }

    /// The peer asks what this device was asked for.
    pub(crate) fn handle_question(&mut self, at: Ipv4Addr, now: Instant) {
        if self.answered.is_none_or(|answered| now >= answered + AGAIN_OF_PEER) {
            self.question = Some((now, at));
        }
    }

    /// Where the peer asks to be found.
    pub(crate) fn take_question_of_peer(&mut self) -> Option<Ipv4Addr> {
        self.question.take().map(|(_, at)| at)
    }

    /// The peer is let open its sockets.
    pub(crate) fn handle_let(&mut self, at: Ipv4Addr, now: Instant) {
        (self.answered, self.expected) = (Some(now), Some((at, now + RESERVED)));
    }

    /// They are open: where, if that is still of use.
    pub(crate) fn take_expected(&mut self, now: Instant) -> Option<Ipv4Addr> {
        self.expected.take().filter(|(_, until)| now < *until).map(|(at, _)| at)
    }

    /// When there is something to ask or to answer, if there is still need then.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.question.map(|(at, _)| at), self.asks_next()].into_iter().flatten().min()
    }

    fn asks_next(&self) -> Option<Instant> {
        let earliest = self.lacking_since? + LACKING;
        Some(self.again.map_or(earliest, |again| again.max(earliest)))
    }

    /// In another network everything may be different.
    pub(crate) fn forget(&mut self) {
        let again = self.begun.map(|begun| begun + AGAIN_ELSEWHERE);
        let Self { begun, answered, .. } = *self;
        *self = Self { again, begun, answered, ..Self::default() };
    }
}
