//! What arrived at a relay, for those who want to look for plaintext in it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps the first bytes of everything that a relay receives inside WebSocket messages.
///
/// Clones share one memory, which never exceeds the limit. This is a facility of tests and of the
/// demonstration; a relay without one keeps nothing.
#[derive(Debug, Clone)]
pub struct Capture {
    kept: Arc<Mutex<Kept>>,
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    seen: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { kept: Arc::default(), limit }
    }

    /// Bytes that arrived, kept or not.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.kept().seen
    }

    /// Bytes that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept().bytes.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `needle` occurs in what is kept, ends of messages notwithstanding.
    #[must_use]
    pub fn contains(&self, needle: &[u8]) -> bool {
        let kept = self.kept();
        !needle.is_empty() && kept.bytes.windows(needle.len()).any(|window| window == needle)
    }

    pub(crate) fn take(&self, message: &[u8]) {
        let mut kept = self.kept();
        kept.seen += message.len() as u64;
        let room = self.limit.saturating_sub(kept.bytes.len()).min(message.len());
        kept.bytes.extend_from_slice(&message[..room]);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
