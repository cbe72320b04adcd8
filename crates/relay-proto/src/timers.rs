//! The deadlines of a relay's connections.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::ConnectionId;

/// One deadline for each connection, or an earlier moment at which its deadline is looked at again: most
/// are put off by every message, long before they are reached.
#[derive(Default)]
pub(crate) struct Timers {
    order: BTreeSet<(Instant, ConnectionId)>,
    armed: BTreeMap<ConnectionId, Instant>,
}

impl Timers {
    pub(crate) fn arm(&mut self, id: ConnectionId, at: Instant) {
        match self.armed.entry(id) {
            Entry::Occupied(armed) if *armed.get() <= at => return,
            Entry::Occupied(mut armed) => {
                let old = armed.insert(at);
                self.order.remove(&(old, id));
            }
            Entry::Vacant(vacant) => {
                vacant.insert(at);
            }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const END: u64 = 60;

    proptest! {
        #[test]
        fn every_deadline_is_met_however_often_it_was_put_off_or_brought_forward(
            changes in proptest::collection::vec((0..4_u64, proptest::option::of(0..END)), 1..40)
        ) {
            let start = Instant::now();
            let at = |second| start + Duration::from_secs(second);
            let (mut timers, mut deadlines) = (Timers::default(), BTreeMap::new());
            for (id, second) in changes {
                let id = ConnectionId(id);
                if let Some(second) = second {
                    timers.arm(id, at(second));
                    deadlines.insert(id, second);
                } else {
                    timers.disarm(id);
                    deadlines.remove(&id);
                }
            }
            for now in 0..END {
                while let Some(id) = timers.pop_due(at(now)) {
                    let deadline = *deadlines.get(&id).expect("nobody else is armed");
                    if deadline > now {
                        timers.arm(id, at(deadline));
                    } else {
                        prop_assert_eq!(deadlines.remove(&id), Some(now));
                    }
                }
            }
            prop_assert!(deadlines.is_empty() && timers.next().is_none());
        }
    }

    #[test]
    fn a_deadline_that_is_put_off_costs_no_change_of_the_order() {
        let start = Instant::now();
        let mut timers = Timers::default();
        for second in 10..100 {
            timers.arm(ConnectionId(1), start + Duration::from_secs(second));
        }
        assert_eq!(timers.next().map(|(at, _)| at), Some(start + Duration::from_secs(10)));
        assert_eq!(timers.order.len(), 1);
    }
}
