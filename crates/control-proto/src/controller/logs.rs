//! What is written down, and for how long.

use std::time::{Duration, Instant};

use identity::DeviceId;
use noise_channel::Now;

use super::{Change, Controller, wall};
use crate::limits::{EVENTS_PER_MINUTE, PRUNE_INTERVAL, REPORTS_PER_MINUTE};
use crate::{Actor, AuditAction, AuditEntry, EventRecord, SecurityEvent};

/// How many security events are kept in this minute.
#[derive(Debug)]
pub(crate) struct EventBudget {
    since: Instant,
    kept: u32,
    suppressed: u32,
    crowded: Option<Instant>,
}

/// Between two events about too many strangers.
const CROWD_PERIOD: Duration = Duration::from_secs(60);

impl EventBudget {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { since: now, kept: 0, suppressed: 0, crowded: None }
    }
}

impl Controller {
    /// Keeps a security event, within the rate limit.
    pub(crate) fn event(&mut self, reporter: Option<DeviceId>, event: SecurityEvent, now: Now) {
        let at = wall(now).0;
        let budget = &mut self.events;
        if now.instant.saturating_duration_since(budget.since).as_secs() >= 60 {
            let count = std::mem::take(&mut budget.suppressed);
            (budget.since, budget.kept) = (now.instant, 0);
            if count > 0 {
                let event = SecurityEvent::Suppressed { count };
                self.journal.open.changes.push(Change::Event(EventRecord {
                    at,
                    reporter: None,
                    event,
                }));
            }
        }
        let limit = if reporter.is_some() { REPORTS_PER_MINUTE } else { EVENTS_PER_MINUTE };
        if budget.kept >= limit {
            budget.suppressed = budget.suppressed.saturating_add(1);
            return;
        }
        budget.kept += 1;
        self.journal.open.changes.push(Change::Event(EventRecord { at, reporter, event }));
    }

    /// Strangers displace each other: worth one event a minute.
    pub(crate) fn note_crowd(&mut self, now: Now) {
        let crowded = self.events.crowded;
        if crowded.is_none_or(|at| now.instant >= at + CROWD_PERIOD) {
            self.events.crowded = Some(now.instant);
            self.event(None, SecurityEvent::RateLimited { device: None }, now);
        }
    }

    pub(crate) fn audit(&mut self, actor: Actor, action: AuditAction, now: Now) {
        let entry = AuditEntry { at: wall(now).0, actor, action };
        self.journal.open.changes.push(Change::Audit(entry));
    }

    /// Lets go of what the logs need not keep any more.
    pub(crate) fn prune_logs(&mut self, now: Now) {
        self.timers.prune = now.instant + PRUNE_INTERVAL;
        let kept = self.state.settings.logs;
        let before = wall(now).minus(kept.seconds);
        self.change(Change::PruneLogs { entries: kept.entries, before });
    }
}
