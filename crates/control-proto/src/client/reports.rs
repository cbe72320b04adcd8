//! Security events on their way to the controller.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::SecurityEvent;

/// Events that wait; the oldest makes room and is counted.
const MAX_WAITING: usize = 64;
/// Between two reports: they take half of what a controller lets a node say
/// ([`crate::limits::MESSAGE_INTERVAL`]).
const INTERVAL: Duration = Duration::from_secs(1);

/// The events that were not told yet.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: VecDeque<SecurityEvent>,
    lost: u32,
    next: Option<Instant>,
}

impl Reports {
    pub(super) fn push(&mut self, event: SecurityEvent) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
            self.lost = self.lost.saturating_add(1);
        }
        self.waiting.push_back(event);
    }

    /// The next event, if one may be told now.
    pub(super) fn take(&mut self, now: Instant) -> Option<SecurityEvent> {
        if self.waiting.is_empty() || self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + INTERVAL);
        match std::mem::take(&mut self.lost) {
            0 => self.waiting.pop_front(),
            count => Some(SecurityEvent::Suppressed { count }),
        }
    }

    /// When the next event may be told.
    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let next = self.next.filter(|_| !self.waiting.is_empty())?;
        Some((next, "report a security event"))
    }
}
