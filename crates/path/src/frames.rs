//! The ways that frames can take to the peer, and pings over them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::disco::{Message, TransactionId};
use crate::io::Transmit;
use crate::remote::smoothed;
use crate::why::Path;

/// Pings of the user that may wait for their pongs.
const PINGS: usize = 8;

/// How frames can get to the peer.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) relay: bool,
    pub(crate) stream: bool,
    pings: VecDeque<(TransactionId, Instant)>,
    pinged: Option<Instant>,
    latency: Option<Duration>,
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
        self.latency = None;
    }

    /// When a ping was sent over this way last.
    pub(crate) fn pinged(&self) -> Option<Instant> {
        self.pinged
    }

    /// Its smoothed round trip, if it has been measured.
    pub(crate) fn latency(&self) -> Option<Duration> {
        self.latency
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
        let sample = now.saturating_duration_since(sent);
        self.latency = Some(smoothed(self.latency, sample));
        Some(sample)
    }
}
