//! Two devices whose translators both count.
//!
//! Each guess makes a mapping, so the guesses of both have to begin from counts that the other knows, and nothing else of
//! theirs may move these meanwhile. A device therefore keeps still for one peer at a time. Of two devices the one that leads
//! asks: it keeps still, has its count surveyed and tells it. The other, if it keeps still for nobody else, does the same and
//! begins to guess; so does the first when it hears the other's count. If it hears nothing, the peer is busy: it tries again
//! after a time that chance chooses, since others wait as well.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::budget::ProbeBudget;
use crate::translator::PortSequence;

/// For so long a device keeps still before the guesses: for a survey that has to wait for others, and for the answer.
pub(crate) const STILL: Duration = Duration::from_secs(4);
/// Who is asked answers within this, or not at all.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// The answer is waited for as long as that and two ways over a relay take.
const ANSWER_AFTER: Duration = Duration::from_millis(2_500);
/// From a rendezvous without an answer to the next, at least; twice as much after each, up to the limit, and as much again
/// by chance.
const FIRST_AGAIN: Duration = Duration::from_millis(500);
const LATEST_AGAIN: Duration = Duration::from_secs(32);
/// From a rendezvous that another peer's kept from beginning to the next, and as much again by chance.
const BUSY: Duration = Duration::from_millis(400);
/// The same after one that led to guesses.
const GUESSED_AGAIN: Duration = Duration::from_secs(5);
/// So many lead to guesses ...
const MAX_GUESSED: u32 = 6;
/// ... within this, whatever addresses the peer names.
const GUESSED_WITHIN: Duration = Duration::from_secs(3_600);
/// Until an address that has had its share of guesses is thought of again.
const REST: Duration = Duration::from_secs(600);

/// The rendezvous with one peer.
#[derive(Debug, Default)]
pub(crate) struct Rendezvous {
    stage: Stage,
    /// The peer's count, if it has told it for a rendezvous.
    told: Option<PortSequence>,
    /// When this device may ask for one.
    again: Option<Instant>,
    /// How many had no answer.
    unanswered: u32,
    /// How many led to guesses, and since when they are counted.
    guessed: Option<(Instant, u32)>,
    /// When the latest began.
    begun: Option<Instant>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// There is none.
    #[default]
    None,
    /// The own count is found out. The peer's has been told, or is an old one.
    Survey { until: Instant, peer: PortSequence },
    /// The count of the peer at this address is waited for.
    Asked { until: Instant, at: IpAddr },
}

impl Rendezvous {
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// The peer tells where its count stands, and keeps still. To one that does so more often than twice a second nobody listens.
    pub(crate) fn handle_told(&mut self, peer: PortSequence, now: Instant) {
        let is_answer = matches!(self.stage, Stage::Asked { .. });
        if is_answer || self.begun.is_none_or(|begun| now >= begun + FIRST_AGAIN) {
            self.told = Some(peer);
        }
    }

    /// Whether the peer has not had its share of guesses.
    pub(crate) fn has_attempts(&mut self, now: Instant) -> bool {
        self.guessed.take_if(|(since, _)| now >= *since + GUESSED_WITHIN);
        self.guessed.is_none_or(|(_, guessed)| guessed < MAX_GUESSED)
    }

    /// What the peer has told last.
    pub(crate) fn take_told(&mut self) -> Option<PortSequence> {
        self.told.take()
    }

    /// Whether this device may ask the peer now.
    pub(crate) fn may_ask(&mut self, now: Instant) -> bool {
        self.again.take_if(|again| *again <= now);
        self.again.is_none()
    }

    /// The own count is being found out, in this time.
    pub(crate) fn begin(&mut self, peer: PortSequence, within: Duration, now: Instant) {
        self.stage = Stage::Survey { until: now + within, peer };
        self.begun = Some(now);
    }

    /// The peer at this address was told of it.
    pub(crate) fn ask(&mut self, at: IpAddr, now: Instant) {
        let still = self.begun.map_or(now, |begun| begun + STILL);
        self.stage = Stage::Asked { until: still.min(now + ANSWER_AFTER), at };
    }

    /// The guesses begin. If they find nothing, this device asks later.
    pub(crate) fn handle_guesses(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        (self.stage, self.unanswered) = (Stage::None, 0);
        let (since, guessed) = self.guessed.unwrap_or((now, 0));
        self.guessed = Some((since, guessed + 1));
        self.again = Some(now + by_chance(GUESSED_AGAIN, rng));
    }

    /// Nothing comes of it: this device asks later.
    pub(crate) fn end(&mut self, budget: &mut ProbeBudget, rng: &mut dyn CryptoRng, now: Instant) {
        self.release(budget);
        let doublings = self.unanswered.min(LATEST_AGAIN.as_secs().ilog2() + 1);
        self.unanswered += 1;
        self.again = Some(now + by_chance(FIRST_AGAIN * 2_u32.pow(doublings), rng));
    }

    /// The device need not keep still any more.
    pub(crate) fn release(&mut self, budget: &mut ProbeBudget) {
        if std::mem::take(&mut self.stage) != Stage::None
            && let Some(begun) = self.begun
        {
            budget.end_rendezvous(begun);
        }
    }

    /// Another peer's is on.
    pub(crate) fn wait_for_turn(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        self.again = Some(now + by_chance(BUSY, rng));
    }

    /// The peer's address has had its share of guesses.
    pub(crate) fn rest(&mut self, now: Instant) {
        self.again = Some(now + REST);
    }

    /// When there is something to do, whether or not the device is one that asks.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::None => self.again,
            Stage::Survey { until, .. } | Stage::Asked { until, .. } => Some(until),
        }
    }

    /// There is no need for one.
    pub(crate) fn forget(&mut self) {
        *self = Self { begun: self.begun, guessed: self.guessed, ..Self::default() };
    }
}

/// At least this time, and less than twice as much.
fn by_chance(time: Duration, rng: &mut dyn CryptoRng) -> Duration {
    time + time * (rng.next_u32() >> 16) / (1 << 16)
}
