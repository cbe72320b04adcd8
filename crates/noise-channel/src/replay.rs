//! First messages seen lately.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{REPLAY_CAPACITY, REPLAY_WINDOW};

/// Remembers the ephemeral keys of authenticated first messages for
/// [`crate::limits::REPLAY_WINDOW`].
///
/// Clones share one memory: give a clone to each connection of a responder. Memory is bounded; when
/// full, the oldest entry makes room, which costs nothing but work, because a replayed first message
/// changes no state.
#[derive(Clone)]
pub struct ReplayGuard {
    seen: Arc<Mutex<Seen>>,
    capacity: usize,
}

impl ReplayGuard {
    /// A guard that remembers at most `capacity` messages.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { seen: Arc::default(), capacity: capacity.max(1) }
    }

    /// How many messages are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notes an ephemeral key; false if it came before within the window.
    pub(crate) fn admit(&self, ephemeral: [u8; 32], now: Instant) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.forget_old(now);
        if !seen.keys.insert(ephemeral) {
            return false;
        }
        seen.order.push_back((now, ephemeral));
        if seen.order.len() > self.capacity {
            seen.forget_oldest();
        }
        true
    }
}

impl Default for ReplayGuard {
    fn default() -> Self {
        Self::with_capacity(REPLAY_CAPACITY)
    }
}

impl fmt::Debug for ReplayGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayGuard").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Seen {
    keys: BTreeSet<[u8; 32]>,
    order: VecDeque<(Instant, [u8; 32])>,
}

impl Seen {
    fn forget_old(&mut self, now: Instant) {
        while let Some((at, _)) = self.order.front()
            && now.saturating_duration_since(*at) >= REPLAY_WINDOW
        {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }
}
