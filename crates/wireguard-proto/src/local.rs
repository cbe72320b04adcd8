use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rand_core::CryptoRng;

use crate::handshake::Identity;
use crate::interface::{Event, Transmit};
use crate::keys::PublicKey;
use crate::session::Session;
use crate::timestamp::{Tai64N, WallClock};

/// What all tunnels of an interface share: the identity, the index table, the outgoing queues.
#[derive(Debug)]
pub(crate) struct Local<E> {
    pub(crate) identity: Identity,
    pub(crate) clock: WallClock,
    pub(crate) last_timestamp: Tai64N,
    pub(crate) rekey_after_bytes: Option<u64>,
    pub(crate) transmits: VecDeque<Transmit<E>>,
    pub(crate) events: VecDeque<Event>,
    indices: BTreeMap<u32, Slot>,
}

/// What one of our indices stands for.
#[derive(Clone, Debug)]
pub(crate) enum Slot {
    /// An initiation to this peer that waits for its response.
    Pending(PublicKey),
    Session(Arc<Session>),
}

impl<E> Local<E> {
    pub(crate) fn new(identity: Identity, clock: WallClock, last_timestamp: Tai64N) -> Self {
        Self {
            identity,
            clock,
            last_timestamp,
            rekey_after_bytes: None,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            indices: BTreeMap::new(),
        }
    }

    pub(crate) fn slot(&self, index: u32) -> Option<&Slot> {
        self.indices.get(&index)
    }

    /// Draws an index that is not in use.
    pub(crate) fn free_index(&self, rng: &mut dyn CryptoRng) -> u32 {
        loop {
            let index = rng.next_u32();
            if !self.indices.contains_key(&index) {
                return index;
            }
        }
    }

    pub(crate) fn expect_response(&mut self, index: u32, peer: PublicKey) {
        self.indices.insert(index, Slot::Pending(peer));
    }

    pub(crate) fn release_pending(&mut self, index: u32) {
        self.indices.remove(&index);
    }

    pub(crate) fn add_session(&mut self, session: &Arc<Session>) {
        self.indices.insert(session.local_index(), Slot::Session(Arc::clone(session)));
        self.events.push_back(Event::SessionAdded(Arc::clone(session)));
    }

    pub(crate) fn remove_session(&mut self, session: &Session) {
        session.close();
        self.indices.remove(&session.local_index());
        self.events.push_back(Event::SessionRemoved {
            peer: *session.peer(),
            local_index: session.local_index(),
        });
    }

    /// The label for a new initiation: now, but always after the last.
    pub(crate) fn next_timestamp(&mut self, now: Instant) -> Tai64N {
        let reading = Tai64N::from_unix(self.clock.at(now));
        self.last_timestamp = reading.max(self.last_timestamp.successor());
        self.last_timestamp
    }
}
