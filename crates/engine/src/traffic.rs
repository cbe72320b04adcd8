//! What goes through the tunnel of one peer, be it a member or a plain WireGuard peer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use control_proto::TunnelRefusal;
use wireguard_proto::Session;

use crate::dataplane::PeerCounters;
use crate::host_packet::HostPacket;

/// Packets kept while a session is being made: a SYN and its like, not a stream.
const MAX_WAITING: usize = 32;
/// Long enough for the first repetition of a lost handshake (REKEY_TIMEOUT and its jitter); a packet
/// that waited longer is worth less than its retransmission.
const MAX_WAIT: Duration = Duration::from_secs(6);

/// Who sends packets that are too big is told so often at most: each is told again when it tries again.
const REFUSED_EVERY: Duration = Duration::from_millis(10);

/// Counters, the session to send on, and what waits for one.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) counters: Arc<PeerCounters>,
    /// The session to send on.
    pub(crate) session: Option<Arc<Session>>,
    waiting: VecDeque<(Instant, HostPacket)>,
    /// When a packet was said to be too big.
    refused_at: Option<Instant>,
    /// The counters of refusals as they were when last looked at.
    refused: [u64; 3],
}

impl Traffic {
    /// The session to send on, if anything may be sent on it.
    pub(crate) fn usable(&self, now: Instant) -> Option<&Arc<Session>> {
        self.session.as_ref().filter(|session| session.check_usable(now).is_ok())
    }

    /// Whether it may be said once more that a packet is too big; counts as said then.
    pub(crate) fn may_refuse(&mut self, now: Instant) -> bool {
        let may = self.refused_at.is_none_or(|before| now >= before + REFUSED_EVERY);
        if may {
            self.refused_at = Some(now);
        }
        may
    }

    /// Keeps a packet until there is a session, or a way; the oldest makes room.
    pub(crate) fn wait(&mut self, packet: HostPacket, now: Instant) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((now, packet));
    }

    /// The packets that waited and are still worth sending.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> Vec<HostPacket> {
        self.waiting
            .drain(..)
            .filter(|(since, _)| now.saturating_duration_since(*since) < MAX_WAIT)
            .map(|(_, packet)| packet)
            .collect()
    }

    /// Whether packets wait for a session.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// What data threads refused since the last call.
    pub(crate) fn take_refusals(&mut self) -> impl Iterator<Item = (TunnelRefusal, u64)> + use<> {
        let counters = &self.counters;
        let now = [&counters.refused_sources, &counters.replayed, &counters.forged]
            .map(|counter| counter.load(Relaxed));
        let before = std::mem::replace(&mut self.refused, now);
        let kinds = [
            TunnelRefusal::ForeignSource,
            TunnelRefusal::ReplayedPacket,
            TunnelRefusal::ForgedPacket,
        ];
        kinds
            .into_iter()
            .zip(now.into_iter().zip(before))
            .map(|(what, (now, before))| (what, now - before))
            .filter(|(_, count)| *count > 0)
    }

    /// A session has ended.
    pub(crate) fn forget(&mut self, local_index: u32) {
        if self.session.as_ref().is_some_and(|session| session.local_index() == local_index) {
            self.session = None;
        }
    }
}
