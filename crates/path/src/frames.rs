//! The ways that frames can take to the peer, and pings over them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::disco::{Message, TransactionId};
use crate::io::Transmit;
use crate::why::Path;

/// Pings of the user that may wait for their pongs.
const PINGS: usize = 8;
/// Answers that are remembered.
const REMEMBERED: usize = 4;
/// An answer says for so long that frames get to the peer and back.
const FRESH: Duration = Duration::from_secs(20);
/// A ping without an answer for so long says that they do not.
pub(crate) const SILENT: Duration = Duration::from_secs(2);

/// How frames can get to the peer.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) relay: bool,
    pub(crate) stream: bool,
    pings: VecDeque<(TransactionId, Instant)>,
    pinged: Option<Instant>,
    /// When the latest pings with an answer were sent, and how long that took.
    answered: VecDeque<(Instant, Duration)>,
}

impl Frames {
    /// The better way, if there is any: a stream straight to the peer goes before relays.
    pub(crate) fn path(&self) -> Path {
        match (self.stream, self.relay) {
            (true, _) => Path::Stream,
            (false, true) => Path::Relay,
            (false, false) => Path::None,
        }
    }

    /// There is one more way or one less, or frames go through another relay.
    pub(crate) fn handle_change(&mut self) {
        self.answered.clear();
        self.pings.clear();
    }

    /// When a ping was sent over this way last.
    pub(crate) fn pinged(&self) -> Option<Instant> {
        self.pinged
    }

    /// The least round trip of pings that were sent since then.
    pub(crate) fn latency_since(&self, since: Instant) -> Option<Duration> {
        let recent = self.answered.iter().filter(|(sent, _)| *sent >= since);
        recent.map(|(_, latency)| *latency).min()
    }

    /// Whether a ping was answered lately, and the latest ones are not overdue.
    pub(crate) fn answers(&self, now: Instant) -> bool {
        let is_recent = |(sent, _): &(Instant, Duration)| now < *sent + FRESH;
        self.answered.back().is_some_and(is_recent) && !self.is_silent(now)
    }

    /// Whether a ping has been without an answer for too long, and none that was sent later has one.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        let is_overdue = |sent: Instant| now >= sent + SILENT;
        let is_later = |sent: Instant| self.answered.back().is_none_or(|(last, _)| *last < sent);
        self.pings.iter().any(|(_, sent)| is_overdue(*sent) && is_later(*sent))
    }

    /// A message over this way.
    pub(crate) fn transmit(&self, message: &Message) -> Option<Transmit> {
        let path = self.path();
        (path != Path::None).then(|| Transmit::new(path, message))
    }

    /// A ping over this way.
    pub(crate) fn ping(&mut self, rng: &mut dyn CryptoRng, now: Instant) -> Option<Transmit> {
        let transaction = TransactionId::random(rng);
        let transmit = self.transmit(&Message::Ping { transaction })?;
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        self.pings.push_back((transaction, now));
        self.pinged = Some(now);
        Some(transmit)
    }

    /// The round trip, if a pong answers one of our pings.
    pub(crate) fn handle_pong(
        &mut self,
        transaction: TransactionId,
        now: Instant,
    ) -> Option<Duration> {
        let index = self.pings.iter().position(|(sent, _)| *sent == transaction)?;
        let (_, sent) = self.pings.remove(index)?;
        let latency = now.saturating_duration_since(sent);
        if self.answered.len() == REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back((sent, latency));
        Some(latency)
    }
}
