//! Which host wants to be woken next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::underlay::HostId;

/// The next timeout of every host.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_host: BTreeMap<HostId, Instant>,
    by_time: BTreeSet<(Instant, HostId)>,
}

impl Timers {
    pub(super) fn set(&mut self, host: HostId, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_host.insert(host, at),
            None => self.by_host.remove(&host),
        };
        if before != at {
            if let Some(before) = before {
                self.by_time.remove(&(before, host));
            }
            self.by_time.extend(at.map(|at| (at, host)));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// A host whose timeout is due.
    pub(super) fn due(&self, now: Instant) -> Option<HostId> {
        self.by_time.first().filter(|(at, _)| *at <= now).map(|(_, host)| *host)
    }
}
