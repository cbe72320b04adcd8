//! What this node knows about one other member.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use identity::{DeviceId, Member, TunnelPublicKey};
use path::{Path, PathAgent};
use wireguard_proto::{PublicKey, Session};

use crate::dataplane::PeerCounters;
use crate::frames::Frames;
use crate::psk::End;

/// Packets kept while a session is being made: a SYN and its like, not a stream.
const MAX_WAITING: usize = 32;
/// Long enough for the first repetition of a lost handshake (REKEY_TIMEOUT and its jitter); a packet
/// that waited longer is worth less than its retransmission.
const MAX_WAIT: Duration = Duration::from_secs(6);

/// A member with a current binding.
#[derive(Debug)]
pub(crate) struct Peer {
    /// What its certificate proves.
    pub(crate) member: Member,
    /// Its keys and capability, as its binding announces them.
    pub(crate) end: End,
    /// The leased IPv4 address.
    pub(crate) ipv4: Option<Ipv4Addr>,
    /// The relays that it is attached to, the preferred first.
    pub(crate) relays: Vec<DeviceId>,
    pub(crate) agent: PathAgent,
    pub(crate) counters: Arc<PeerCounters>,
    /// The session to send on.
    pub(crate) session: Option<Arc<Session>>,
    /// Sealing and opening of frames, for each session that is alive.
    pub(crate) frames: Frames,
    /// When this device introduced itself last.
    pub(crate) introduced: Option<Instant>,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    sample: Sample,
}

/// Counters as they were when last looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    sent: u64,
    received_on_chosen: u64,
}

impl Peer {
    pub(crate) fn new(member: Member, end: End, agent: PathAgent, frames: Frames) -> Self {
        Self {
            member,
            end,
            ipv4: None,
            relays: Vec::new(),
            agent,
            counters: Arc::new(PeerCounters::default()),
            session: None,
            frames,
            introduced: None,
            waiting: VecDeque::new(),
            sample: Sample::default(),
        }
    }

    pub(crate) fn device(&self) -> DeviceId {
        self.member.device
    }

    /// The key by which the WireGuard interface knows the peer.
    pub(crate) fn key(&self) -> PublicKey {
        wireguard_key(&self.end.tunnel_key)
    }

    /// The peer's addresses, IPv6 first.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        let v6 = IpAddr::V6(self.member.address);
        std::iter::once(v6).chain(self.ipv4.map(IpAddr::V4))
    }

    /// The peer is not at this relay now, so the others come first.
    pub(crate) fn prefer_another_relay(&mut self, absent: DeviceId) {
        self.relays.sort_by_key(|relay| *relay == absent);
    }

    /// The peer is at this relay now, whatever it announced last, so answers find it there.
    pub(crate) fn heard_through(&mut self, relay: DeviceId, now: Instant) {
        if !self.relays.contains(&relay) {
            self.relays.push(relay);
            self.agent.handle_relay(true, now);
        }
    }

    /// Keeps a packet until there is a session; the oldest makes room.
    pub(crate) fn wait(&mut self, packet: &[u8], now: Instant) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((now, packet.to_vec()));
    }

    /// The packets that waited and are still worth sending.
    pub(crate) fn take_waiting(&mut self, now: Instant) -> Vec<Vec<u8>> {
        self.waiting
            .drain(..)
            .filter(|(since, _)| now.saturating_duration_since(*since) < MAX_WAIT)
            .map(|(_, packet)| packet)
            .collect()
    }

    pub(crate) fn drop_waiting(&mut self) {
        self.waiting.clear();
    }

    /// Tells the path agent what data threads did since the last call; true if anything moved.
    pub(crate) fn sample(&mut self, now: Instant) -> bool {
        let sample = Sample {
            sent: self.counters.sent_packets.load(Relaxed),
            received_on_chosen: self.counters.received_on_chosen.load(Relaxed),
        };
        let sent = sample.sent != self.sample.sent;
        let received = sample.received_on_chosen != self.sample.received_on_chosen;
        self.sample = sample;
        if sent {
            self.agent.handle_sent(now);
        }
        if received && let Path::Direct(_) = self.agent.chosen() {
            self.agent.handle_received(self.agent.chosen(), now);
        }
        sent || received
    }
}

/// The same 32 bytes as the WireGuard crate names them.
pub(crate) fn wireguard_key(key: &TunnelPublicKey) -> PublicKey {
    PublicKey::from_bytes(*key.as_bytes())
}
