//! The deadlines of a relay's connections.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::ConnectionId;

/// One deadline for each connection.
#[derive(Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, ConnectionId)>,
    armed: BTreeMap<ConnectionId, Instant>,
}

impl Timers {
    pub(crate) fn arm(&mut self, id: ConnectionId, at: Instant) {
        if let Some(old) = self.armed.insert(id, at) {
            self.order.remove(&(old, id));
        }
        self.order.insert((at, id));
    }

    pub(crate) fn disarm(&mut self, id: ConnectionId) {
        if let Some(at) = self.armed.remove(&id) {
            self.order.remove(&(at, id));
        }
    }

    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<ConnectionId> {
        let (at, id) = *self.order.first()?;
        (at <= now).then(|| self.disarm(id)).map(|()| id)
    }

    pub(crate) fn next(&self) -> Option<(Instant, &'static str)> {
        self.order.first().map(|(at, _)| (*at, "deadline of a connection"))
    }
}
