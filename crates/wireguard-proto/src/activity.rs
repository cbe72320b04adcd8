use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::timers::{KEEPALIVE_TIMEOUT, NEW_HANDSHAKE_TIMEOUT};

/// What went over a peer's sessions, written by data threads and read by the peer's machine.
///
/// Instants are nanoseconds since `origin` plus one; zero stands for never.
#[derive(Debug)]
pub(crate) struct Activity {
    origin: Instant,
    /// First data sent since anything authentic came back.
    unanswered: AtomicU64,
    /// First data received since anything was sent.
    unacknowledged: AtomicU64,
    /// Last authentic packet in either direction.
    traversal: AtomicU64,
    /// The machine looks here again at this instant at the latest.
    armed: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

impl Activity {
    pub(crate) fn new(origin: Instant) -> Self {
        Self {
            origin,
            unanswered: AtomicU64::new(0),
            unacknowledged: AtomicU64::new(0),
            traversal: AtomicU64::new(0),
            armed: AtomicU64::new(u64::MAX),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// Notes an authentic packet sent; true when the machine must look before it had planned to.
    pub(crate) fn sent(&self, bytes: u64, data: bool, now: Instant) -> bool {
        self.sent_bytes.fetch_add(bytes, Relaxed);
        self.traversal.store(self.stamp(now), Relaxed);
        self.unacknowledged.store(0, Relaxed);
        data && self.start(&self.unanswered, NEW_HANDSHAKE_TIMEOUT, now)
    }

    /// Notes an authentic packet received; true when the machine must look earlier than planned.
    pub(crate) fn received(&self, bytes: u64, data: bool, now: Instant) -> bool {
        self.received_bytes.fetch_add(bytes, Relaxed);
        self.traversal.store(self.stamp(now), Relaxed);
        self.unanswered.store(0, Relaxed);
        data && self.start(&self.unacknowledged, KEEPALIVE_TIMEOUT, now)
    }

    pub(crate) fn arm(&self, at: Option<Instant>) {
        self.armed.store(at.map_or(u64::MAX, |at| self.stamp(at)), Relaxed);
    }

    pub(crate) fn unanswered(&self) -> Option<Instant> {
        self.instant(&self.unanswered)
    }

    pub(crate) fn forget_unanswered(&self) {
        self.unanswered.store(0, Relaxed);
    }

    pub(crate) fn unacknowledged(&self) -> Option<Instant> {
        self.instant(&self.unacknowledged)
    }

    pub(crate) fn forget_unacknowledged(&self) {
        self.unacknowledged.store(0, Relaxed);
    }

    pub(crate) fn traversal(&self) -> Option<Instant> {
        self.instant(&self.traversal)
    }

    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Relaxed)
    }

    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Relaxed)
    }

    /// Starts a clock that stands at zero; true when it rings before the machine looks again.
    fn start(&self, clock: &AtomicU64, rings_after: Duration, now: Instant) -> bool {
        if clock.load(Relaxed) != 0 {
            return false;
        }
        clock.store(self.stamp(now), Relaxed);
        let rings = self.stamp(now + rings_after);
        self.armed.load(Relaxed) > rings && self.armed.fetch_min(rings, Relaxed) > rings
    }

    fn stamp(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX - 1).saturating_add(1)
    }

    fn instant(&self, clock: &AtomicU64) -> Option<Instant> {
        let stamp = clock.load(Relaxed);
        (stamp != 0).then(|| self.origin + Duration::from_nanos(stamp - 1))
    }
}
