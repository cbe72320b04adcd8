//! Which relay carries the frames to one peer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rand_core::CryptoRng;

use crate::disco::{Message, TransactionId};

/// When frames that nothing answers make us ask, counted from the first of them: the relay in use alone at
/// first, then all, in case the peer answers slowly only.
const ASK_AT: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
/// A peer that answered nothing for this long is not asked any more, until something is sent again.
const GIVE_UP: Duration = Duration::from_secs(8);
/// A relay over which nothing came back for this long gives way to one over which something does.
const OVERDUE: Duration = ASK_AT[1];
/// Least time before we follow the peer once more: frames that it sent before it moved may come late.
const SETTLE: Duration = Duration::from_secs(1);
/// Pings that may wait for their pongs.
const PINGS: usize = 8;

/// Chooses among the relays, named by `R`, at which one peer is attached.
///
/// A relay may be dead long before its connection is, and only for one of the two devices, so what counts
/// is what comes back end to end: frames that stay unanswered lead to pings through the relay in use, then
/// through all; the relay that answers takes over. Whoever finds out first takes the other along, because
/// a device that hears its peer through another relay than its own moves there.
///
/// Two devices that follow each other at the same moment would swap relays for ever. Only one, settled
/// beforehand, therefore follows at once; the other stays for as long as its own relay may still answer.
///
/// A stream straight to the peer is one more relay, named by the peer itself. It comes before all others when
/// it opens, and is no choice any more once it was left: its owner closes it, and may open another.
#[derive(Debug)]
pub struct RelayChoice<R> {
    follows: bool,
    /// Where the peer is, the preferred first.
    relays: Vec<R>,
    /// That of them which is the peer itself.
    straight: Option<R>,
    unanswered: Option<Unanswered<R>>,
    changed: Option<Instant>,
    pings: VecDeque<(R, TransactionId)>,
    transmits: VecDeque<(R, Vec<u8>)>,
    changes: VecDeque<RelayChange>,
}

/// Why frames to the peer go through another relay from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayChange {
    /// Nothing came back through the relay before for this long, and something does through this one.
    Silent(Duration),
    /// The peer has moved to this relay.
    Followed,
}

#[derive(Debug)]
struct Unanswered<R> {
    relay: R,
    since: Instant,
    /// How often we have asked.
    asked: usize,
}

impl<R: Copy + Eq> RelayChoice<R> {
    /// A choice without relays; exactly one of the two ends `follows` at once.
    pub fn new(follows: bool) -> Self {
        Self {
            follows,
            relays: Vec::new(),
            straight: None,
            unanswered: None,
            changed: None,
            pings: VecDeque::new(),
            transmits: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// The relays that the peer announces, the preferred first. What was learnt about those that stay
    /// outlives the announcement.
    pub fn handle_announced(&mut self, announced: &[R]) {
        let straight = self.straight;
        self.relays.retain(|relay| announced.contains(relay) || straight == Some(*relay));
        for relay in announced {
            if !self.relays.contains(relay) {
                self.relays.push(*relay);
            }
        }
    }

    /// The peer is said to be at this relay; true if that is news.
    pub fn handle_seen(&mut self, relay: R) -> bool {
        let is_new = !self.relays.contains(&relay);
        if is_new {
            self.relays.push(relay);
        }
        is_new
    }

    /// A stream leads straight to the peer from now on.
    pub fn handle_stream_opened(&mut self, peer: R, now: Instant) {
        self.straight = Some(peer);
        self.put_first(peer, now);
    }

    /// It does so no longer.
    pub fn handle_stream_closed(&mut self) {
        let Some(peer) = self.straight.take() else { return };
        self.relays.retain(|relay| *relay != peer);
        self.unanswered.take_if(|unanswered| unanswered.relay == peer);
    }

    /// Whether a stream leads straight to the peer.
    #[must_use]
    pub fn has_stream(&self) -> bool {
        self.straight.is_some()
    }

    /// Whether frames go that way.
    #[must_use]
    pub fn is_straight(&self) -> bool {
        self.straight.is_some() && self.straight.as_ref() == self.relays.first()
    }

    /// The relay says that the peer is not there.
    pub fn handle_absent(&mut self, absent: R) {
        self.relays.sort_by_key(|relay| *relay == absent);
    }

    /// A frame that wants an answer left through this relay.
    pub fn handle_sent(&mut self, relay: R, now: Instant) {
        if self.unanswered.as_ref().is_none_or(|unanswered| unanswered.relay != relay) {
            self.unanswered = Some(Unanswered { relay, since: now, asked: 0 });
        }
    }

    /// A frame of the peer that is authentic and no repetition came through this relay.
    pub fn handle_received(&mut self, relay: R, now: Instant) {
        self.handle_answer(relay, now);
        let may_answer_yet = !self.follows && self.unanswered.is_some();
        let settles = self.changed.is_some_and(|changed| now < changed + SETTLE);
        if !may_answer_yet && !settles {
            self.prefer(relay, RelayChange::Followed, now);
        }
    }

    /// The same through a relay that asks to be left: what still comes that way calls nobody back.
    pub fn handle_received_late(&mut self, relay: R, now: Instant) {
        self.handle_answer(relay, now);
    }

    /// The peer asks whether this relay carries frames both ways.
    pub fn handle_ping(&mut self, relay: R, transaction: TransactionId) {
        self.transmits.push_back((relay, Message::Pong { transaction, arrived: None }.encode()));
    }

    /// An answer to a ping, perhaps one of ours.
    pub fn handle_pong(&mut self, relay: R, transaction: TransactionId, now: Instant) {
        let ours = self.pings.iter().position(|ping| *ping == (relay, transaction));
        if let Some(position) = ours {
            self.pings.remove(position);
            self.handle_answer(relay, now);
        }
    }

    /// Asks, if that is due.
    pub fn handle_timeout(&mut self, rng: &mut dyn CryptoRng, now: Instant) {
        let Some(unanswered) = &mut self.unanswered else { return };
        if now < unanswered.due() {
            return;
        }
        if unanswered.asked == ASK_AT.len() {
            self.unanswered = None;
            return;
        }
        let only = (unanswered.asked == 0).then_some(unanswered.relay);
        unanswered.asked += 1;
        for relay in &self.relays {
            if only.is_some_and(|only| only != *relay) {
                continue;
            }
            let transaction = TransactionId::random(rng);
            if self.pings.len() == PINGS {
                self.pings.pop_front();
            }
            self.pings.push_back((*relay, transaction));
            self.transmits.push_back((*relay, Message::Ping { transaction }.encode()));
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.unanswered.as_ref().map(|unanswered| (unanswered.due(), "ask relays for the peer"))
    }

    /// The next disco message to seal and send, and through which relay.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(R, Vec<u8>)> {
        self.transmits.pop_front()
    }

    /// The next change of relay.
    #[must_use]
    pub fn poll_change(&mut self) -> Option<RelayChange> {
        self.changes.pop_front()
    }

    /// The relays of the peer, the one to use first.
    #[must_use]
    pub fn relays(&self) -> &[R] {
        &self.relays
    }

    /// Something came back through this relay.
    fn handle_answer(&mut self, relay: R, now: Instant) {
        let Some(unanswered) = &self.unanswered else { return };
        let silent = now.saturating_duration_since(unanswered.since);
        if unanswered.relay == relay {
            self.unanswered = None;
        } else if silent >= OVERDUE {
            self.prefer(relay, RelayChange::Silent(silent), now);
        }
    }

    fn prefer(&mut self, relay: R, change: RelayChange, now: Instant) {
        if self.relays.first() != Some(&relay) {
            self.put_first(relay, now);
            self.changes.push_back(change);
        }
    }

    fn put_first(&mut self, relay: R, now: Instant) {
        self.relays.retain(|other| *other != relay);
        self.relays.insert(0, relay);
        self.unanswered = None;
        self.changed = Some(now);
    }
}

impl<R> Unanswered<R> {
    /// When to ask, or to give up.
    fn due(&self) -> Instant {
        self.since + ASK_AT.get(self.asked).copied().unwrap_or(GIVE_UP)
    }
}
