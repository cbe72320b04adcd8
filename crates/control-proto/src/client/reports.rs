//! Security events on their way to the controller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::SecurityEvent;

/// Events that are not on the controller's disk yet; the oldest makes room and is counted.
const MAX_WAITING: usize = 64;
/// Between two reports: they take half of what a controller lets a node say
/// ([`crate::limits::MESSAGE_INTERVAL`]).
const INTERVAL: Duration = Duration::from_secs(1);

/// The events that the controller has not confirmed.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// The first `told` of them were sent over the channel that is open; the first has the number `first`.
    unconfirmed: VecDeque<SecurityEvent>,
    first: u64,
    told: usize,
    lost: u32,
    next: Option<Instant>,
}

impl Reports {
    pub(super) fn push(&mut self, event: SecurityEvent) {
        if self.unconfirmed.len() == MAX_WAITING {
            let count = match self.drop_first() {
                Some(SecurityEvent::Suppressed { count }) => count,
                Some(_) | None => 1,
            };
            self.lost = self.lost.saturating_add(count);
        }
        self.unconfirmed.push_back(event);
    }

    /// The next event and its number, if one may be told now.
    pub(super) fn take(&mut self, now: Instant) -> Option<(u64, SecurityEvent)> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        if self.may_tell_of_lost() {
            let count = std::mem::take(&mut self.lost);
            self.unconfirmed.push_back(SecurityEvent::Suppressed { count });
        }
        let event = self.unconfirmed.get(self.told)?.clone();
        let number = self.first + self.told as u64;
        self.told += 1;
        self.next = Some(now + INTERVAL);
        Some((number, event))
    }

    /// The controller has the event with this number on its disk, and all before it.
    pub(super) fn confirm(&mut self, number: u64) {
        while self.told > 0 && self.first <= number {
            self.drop_first();
        }
    }

    /// What was told over a channel that has ended may not have arrived.
    pub(super) const fn repeat(&mut self) {
        self.told = 0;
    }

    /// When the next event may be told.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let waits = self.told < self.unconfirmed.len() || self.may_tell_of_lost();
        let next = self.next.filter(|_| waits)?;
        Some((next, "report a security event"))
    }

    fn may_tell_of_lost(&self) -> bool {
        self.lost > 0 && self.unconfirmed.len() < MAX_WAITING
    }

    fn drop_first(&mut self) -> Option<SecurityEvent> {
        self.first += 1;
        self.told = self.told.saturating_sub(1);
        self.unconfirmed.pop_front()
    }
}
