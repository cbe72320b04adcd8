//! Equal security events are told once a minute.

use std::time::{Duration, Instant};

use crate::SecurityEvent;

/// What happens again within this time is only counted.
const PERIOD: Duration = Duration::from_secs(60);
/// Different events that are told within a period.
const MAX_RECENT: usize = 32;

/// What was told lately, and how much was not.
#[derive(Debug, Default)]
pub struct Repeats {
    recent: Vec<(SecurityEvent, Instant)>,
    suppressed: Option<(Instant, u32)>,
}

impl Repeats {
    /// Whether an event is to be told; one that is not is counted.
    #[must_use]
    pub fn admit(&mut self, event: &SecurityEvent, now: Instant) -> bool {
        self.recent.retain(|(_, until)| now < *until);
        let is_known = self.recent.iter().any(|(known, _)| known == event);
        if is_known || self.recent.len() == MAX_RECENT {
            let (_, count) = self.suppressed.get_or_insert((now, 0));
            *count = count.saturating_add(1);
            return false;
        }
        self.recent.push((event.clone(), now + PERIOD));
        true
    }

    /// What was counted since the first of them, once that was a minute ago.
    pub fn poll_suppressed(&mut self, now: Instant) -> Option<SecurityEvent> {
        let (_, count) = self.suppressed.take_if(|(since, _)| now >= *since + PERIOD)?;
        Some(SecurityEvent::Suppressed { count })
    }
}
